"""Disks for /tmp: made ahead by a process of the worker's (worker.disk_maker), and given out.

The driver never waits: it orders, goes on, and hears when one is there. A disk comes as a mount that is nowhere, and is
given back when its environment, and those that came after it, are gone; then somebody else has it, emptied. All of it
runs in the driver.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fastlam.sandbox import programs
from fastlam.sandbox.keeper import Keeper
from fastlam.sandbox.maker import Ignore, Maker, Watch
from fastlam.wire import control

log = logging.getLogger(__name__)

AHEAD: Final = 4  # of a size that has been asked for: one is made in a third of the time of a cold start
_SIZES_MAX: Final = 4  # that lie ready
_UNDER_WAY_MAX: Final = 32  # descriptors under way count against this process's limit

OnMade = Callable[[int, "Disk"], None]  # with a descriptor that the callee takes over
OnFailed = Callable[[str], None]


@dataclass(frozen=True)
class Disk:
    number: int
    device: str  # major:minor; "" if it is none, and in memory
    maker: object = field(repr=False)  # the process that knows it


@dataclass
class _Waiting:
    environment_id: int
    room_bytes: int
    on_made: OnMade
    on_failed: OnFailed


class Disks:
    """See the module's docstring. `watch` and `ignore` are the dispatcher's, for descriptors that become readable;
    `on_memory` hears, once, why memory takes the place of disks.
    """

    def __init__(
        self,
        directory: str,
        keeper: Keeper,
        watch: Watch,
        ignore: Ignore,
        on_memory: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._maker = Maker(
            keeper, watch, ignore, start=self._start, on_made=self._made, on_all=self._go_on, on_ended=self._ended
        )
        self._on_memory = on_memory
        self._in_memory = False  # `on_memory` has been told
        self._ready: dict[int, deque[tuple[int, Disk]]] = {}  # by room; the size asked for last comes last
        self._waiting: deque[_Waiting] = deque()
        self._ordered: deque[int] = deque()  # room of those that are not there yet

    def prepare(self, room_bytes: int) -> None:
        """Has some made ahead."""
        self._ready.setdefault(room_bytes, deque())
        self._order()

    def take(self, environment_id: int, room_bytes: int, on_made: OnMade, on_failed: OnFailed) -> None:
        """A new disk: `on_made` is called, at once or later."""
        self._ready[room_bytes] = self._ready.pop(room_bytes, deque())
        while len(self._ready) > _SIZES_MAX:
            for descriptor, disk in self._ready.pop(next(iter(self._ready))):
                os.close(descriptor)
                self.give_back(disk)
        self._waiting.append(_Waiting(environment_id, room_bytes, on_made, on_failed))
        self._give_out()
        self._order()

    def cancel(self, environment_id: int) -> bool:
        """Whether the environment was still waiting; it does so no more, and hears nothing."""
        for waiting in self._waiting:
            if waiting.environment_id == environment_id:
                self._waiting.remove(waiting)
                return True
        return False

    def give_back(self, disk: Disk) -> None:
        """Nobody has it any more who may see what is on it."""
        if self._maker.alive and disk.maker is self._maker.process:
            with contextlib.suppress(OSError):  # then it is gone when the maker is
                self._maker.order(control.ReturnDisk(disk.number))

    def _give_out(self) -> None:
        for waiting in list(self._waiting):
            ready = self._ready.get(waiting.room_bytes)
            if ready:
                self._waiting.remove(waiting)
                waiting.on_made(*ready.popleft())

    # --- the process that makes them -------------------------------------------------------------

    def _order(self) -> None:
        """As many as are waited for, and some ahead."""
        wanted: dict[int, int] = {}
        for waiting in self._waiting:
            wanted[waiting.room_bytes] = wanted.get(waiting.room_bytes, 0) + 1
        for room_bytes, ready in self._ready.items():
            wanted[room_bytes] = wanted.get(room_bytes, 0) + AHEAD - len(ready)
        for room_bytes in self._ordered:
            wanted[room_bytes] = wanted.get(room_bytes, 0) - 1
        for room_bytes, count in wanted.items():
            for _ in range(count):
                if len(self._ordered) >= _UNDER_WAY_MAX:
                    return
                try:
                    self._maker.order(control.MakeDisk(room_bytes))
                except BlockingIOError:
                    return  # its answers are on their way, and with them another try
                except OSError as error:
                    self._fail(error.strerror or str(error))
                    return
                self._ordered.append(room_bytes)

    def _start(self, owner_fd: int) -> subprocess.Popen[bytes]:
        directory_fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return programs.start("disk_maker", "main", owner_fd, directory_fd)
        finally:
            os.close(directory_fd)

    def _made(self, packet: bytes, descriptors: list[int]) -> bool:
        made = control.decode_disk_made(packet)
        room_bytes = self._ordered.popleft()
        if not descriptors:
            self._fail(made.reason or "too many open files")
            return False
        if made.reason and not self._in_memory:
            self._in_memory = True
            log.warning("/tmp of environments is in memory, which counts as theirs: %s", made.reason)
            self._on_memory(made.reason)
        ready = self._ready.setdefault(room_bytes, deque())
        ready.append((descriptors[0], Disk(made.number, made.device, self._maker.process)))
        return True

    def _go_on(self) -> None:
        self._give_out()
        self._order()

    def _ended(self) -> None:
        self._ordered.clear()
        self._fail("the process that makes disks has ended; its own message is on this program's stderr")

    def _fail(self, reason: str) -> None:
        """Those who wait hear of it; the next one who asks has another try."""
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            one.on_failed(f"there is no /tmp: {reason}")

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """All environments are gone."""
        self._maker.close()
        for ready in self._ready.values():
            for descriptor, _ in ready:
                os.close(descriptor)
        self._ready.clear()

    def disown(self) -> None:
        """In a fork of the owner: closes what would keep the process alive beyond its owner."""
        self._maker.disown()


def on_disk(directories: Iterable[str]) -> str:
    """The first of these directories that does not lie in memory; the first of all if each does."""
    found = list(directories)
    in_memory = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split(" ", 1)[0] in ("tmpfs", "ramfs"):
            major, minor = left.split()[2].split(":")
            in_memory.add(os.makedev(int(major), int(minor)))
    for directory in found:
        if os.access(directory, os.W_OK) and os.stat(directory).st_dev not in in_memory:
            return directory
    return found[0]
