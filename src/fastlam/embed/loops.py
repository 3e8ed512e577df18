"""The door of each event loop: made when the loop calls for the first time, closed with the loop.

The loop holds the door (by its readers), and beside it a tie, which nothing else does: when the loop is closed it lets
go of both, and the tie closes the door's descriptors, whatever calls are still under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from fastlam.core.dispatcher import LoopDoor

if TYPE_CHECKING:
    from fastlam.core.dispatcher import AwaitedCall, Dispatcher

_doors: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopDoor] = weakref.WeakKeyDictionary()
_lock = threading.RLock()  # of additions to it, and looks at all of it, which may come in garbage collection


class _Tie:
    __slots__ = ("_door",)

    def __init__(self, door: LoopDoor) -> None:
        self._door = weakref.ref(door)

    def __del__(self) -> None:
        door = self._door()
        if door is not None:
            door.close()


class AwaitedFuture(asyncio.Future[Any]):
    """The future of one task. Cancelling it takes the task back, if no worker has begun it."""

    call: AwaitedCall | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        call, self.call = self.call, None
        cancelled = super().cancel(msg)
        if cancelled and call is not None:
            with contextlib.suppress(RuntimeError):  # the executor's engine is closed, or is a parent's
                call.cancel()
        return cancelled


def door_of(loop: asyncio.AbstractEventLoop, dispatcher: Dispatcher) -> LoopDoor:
    """The door of the loop that runs in the calling thread."""
    door = _doors.get(loop)
    if door is not None and door.dispatcher is dispatcher and not door.closed:
        return door
    if door is not None:
        door.close()
    door = LoopDoor(dispatcher, weakref.ref(loop))
    loop.add_reader(door.bell_fd, door.heard, _Tie(door))
    with _lock:
        _doors[loop] = door
    return door


def leave(dispatcher: Dispatcher) -> None:
    """The dispatcher is closed: the loops close their doors to it, each in its own thread."""
    with _lock:
        doors = list(_doors.items())
    for loop, door in doors:
        if door.dispatcher is dispatcher:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(door.look)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for door in list(_doors.values()):
        door.disown()
    _doors.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
