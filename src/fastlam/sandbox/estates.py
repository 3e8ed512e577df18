"""What an environment leaves to the one that replaces it after a timeout or a crash: /tmp, its user, its log stream.

To Lambda that is the same environment with a new process (Environment.was_reset). A copy of /tmp's mount, made by the
worker before it runs anything of the function's, waits unread in a socket; it holds the file system when the mounts of
the environment have gone, and goes with the socket. Nothing of it has a name: it does not outlive this process.

All of it runs in the driver, but for the letting go of what nobody wants: to unmount takes the kernel milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable
from ctypes import CDLL, get_errno
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from fastlam.wire.descriptors import receive

if TYPE_CHECKING:
    from fastlam.core.dispatcher import Environment, Target
    from fastlam.sandbox.disks import Disk

_LOOK_SECONDS: Final = 0.25  # between two looks for what nobody will ask for any more
_TIMER = struct.Struct("qqqq")  # struct itimerspec: interval, then the first, in seconds and nanoseconds
_libc = CDLL(None, use_errno=True)


@dataclass
class Estate:
    """Of one environment at a time."""

    number: int  # of its user, among those of environments
    stream: str  # of its log
    disk: Disk | None = None  # that /tmp is on
    directory: str = ""  # its own, where /tmp is everybody's
    given: bool = False  # an order brings the mount of /tmp, behind the socket for its copy
    socket: socket.socket | None = field(default=None, repr=False)  # ours: where the copy of /tmp's mount comes

    def begin_directory(self, parent: str) -> str:
        """The directory, which may be there already. Raises OSError."""
        if not self.directory:
            self.directory = f"{parent}/tmp-{self.number}"
            os.mkdir(self.directory, 0o700)
        return self.directory

    def begin_tmp(self) -> int:
        """The end of a new socket that goes to the worker. Raises OSError."""
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return theirs.detach()

    def take_mount(self) -> int:
        """The copy, -1 if none has come; what is left of the socket is closed."""
        ours, self.socket = self.socket, None
        if ours is None:
            return -1
        with ours:
            try:
                _, descriptors = receive(ours, 1, 1, socket.MSG_DONTWAIT)
            except OSError:
                return -1
        return descriptors[0] if descriptors else -1


class Estates:
    """Those of a launcher's environments. `watch` and `ignore` are the dispatcher's, for descriptors that become
    readable.
    """

    def __init__(
        self,
        watch: Callable[[int, Callable[[], None]], None],
        ignore: Callable[[int], None],
        on_disk_free: Callable[[Disk], None],
    ) -> None:
        self._on_disk_free = on_disk_free
        self._watch = watch
        self._ignore = ignore
        self._live: dict[int, Estate] = {}  # by environment
        self._left: dict[Target, list[tuple[float, Estate]]] = {}  # until when, for environments of the same target
        self._timer_fd = -1
        self._ticking = False
        self._closing: SimpleQueue[int | str | None] = SimpleQueue()
        self._closer: threading.Thread | None = None

    def take(self, environment: Environment) -> tuple[Estate, int]:
        """What the environment begins with, and the mount of its /tmp: -1 if it has a new one. The caller takes over
        the descriptor.
        """
        left = self._left.get(environment.target)
        if left:
            _, estate = left.pop(0)
            mount_fd = estate.take_mount()
        else:
            version = environment.target.spec.worker.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            estate = Estate(environment.id, f"{datetime.now(UTC):%Y/%m/%d}/[{version}]{os.urandom(16).hex()}")
            mount_fd = -1
        if mount_fd < 0:
            self._give_back(estate)
        self._live[environment.id] = estate
        if not environment.target.spec.worker.template:  # each snapshot is taken of a new one
            environment.on_reset = self._reset
        return estate, mount_fd

    def of(self, environment: Environment) -> Estate | None:
        return self._live.get(environment.id)

    def device(self, environment: Environment) -> str:
        """The disk that its /tmp is on, as major:minor; "" if it is on none."""
        estate = self._live.get(environment.id)
        return "" if estate is None or estate.disk is None else estate.disk.device

    def _reset(self, environment: Environment) -> None:
        """The next environment of the target may come at once, while this one is still dying."""
        estate = self._live.pop(environment.id, None)
        keepalive_ns = environment.target.keepalive_ns
        if estate is None:
            return
        if keepalive_ns == 0 or environment.target.retired:
            self._drop(estate)
            return
        until = time.monotonic() + keepalive_ns / 1e9 if keepalive_ns > 0 else float("inf")
        self._left.setdefault(environment.target, []).append((until, estate))
        self._tick()

    def order_again(self, environment: Environment, descriptors: list[int]) -> list[int]:
        """What a second order brings, when the first one has come to nothing. The mount of /tmp may have been attached
        where it is no use any more, and nothing is attached twice: its copy takes the place. Raises OSError.
        """
        estate = self._live.get(environment.id)
        if estate is None or not estate.given:
            return descriptors
        *others, theirs, mount_fd = descriptors
        copy_fd = estate.take_mount()
        os.close(theirs)
        if copy_fd >= 0:
            self.close_later(mount_fd)
            mount_fd = copy_fd
        try:
            return [*others, estate.begin_tmp(), mount_fd]
        except OSError:
            for descriptor in (*others, mount_fd):
                os.close(descriptor)
            raise

    def leave(self, environment: Environment) -> None:
        """The environment is gone, and nobody replaces it."""
        estate = self._live.pop(environment.id, None)
        if estate is not None:
            self._drop(estate)

    # --- what nobody asks for --------------------------------------------------------------------

    def _tick(self) -> None:
        if self._timer_fd < 0:
            self._timer_fd = _timer()
            self._watch(self._timer_fd, self._look)
        if not self._ticking:
            self._ticking = True
            _set_timer(self._timer_fd, _LOOK_SECONDS)

    def _look(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._timer_fd, 8)
        now = time.monotonic()
        for target, left in list(self._left.items()):
            kept = [] if target.retired else [each for each in left if each[0] > now]
            for each in left:
                if each not in kept:
                    self._drop(each[1])
            if kept:
                self._left[target] = kept
            else:
                del self._left[target]
        if not self._left:
            self._ticking = False
            _set_timer(self._timer_fd, 0.0)

    def _give_back(self, estate: Estate) -> None:
        disk, estate.disk = estate.disk, None
        if disk is not None:
            self._on_disk_free(disk)

    def _drop(self, estate: Estate) -> None:
        ours, estate.socket = estate.socket, None
        if ours is not None:
            self.close_later(ours.detach())
        self._give_back(estate)
        if estate.directory:
            self.close_later(estate.directory)

    def close_later(self, given: int | str) -> None:
        """A descriptor: what is mounted nowhere but there goes with it. Or a directory, which is removed."""
        if self._closer is None:
            self._closer = threading.Thread(target=self._close_all, name="fastlam-mounts", daemon=True)
            self._closer.start()
        self._closing.put(given)

    def _close_all(self) -> None:
        while (given := self._closing.get()) is not None:
            if isinstance(given, int):
                os.close(given)
            else:
                shutil.rmtree(given, ignore_errors=True)

    def close(self) -> None:
        """All environments are gone."""
        for left in self._left.values():
            for _, estate in left:
                self._drop(estate)
        for estate in self._live.values():
            self._drop(estate)
        self._left.clear()
        self._live.clear()
        if self._closer is not None:
            self._closing.put(None)
            self._closer.join()
            self._closer = None
        if self._timer_fd >= 0:
            self._ignore(self._timer_fd)
            os.close(self._timer_fd)
            self._timer_fd = -1


def _timer() -> int:
    fd = int(_libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
    if fd < 0:
        raise OSError(get_errno(), "timerfd_create")
    return fd


def _set_timer(fd: int, seconds: float) -> None:
    """Every so often; 0: no more."""
    ns = int(seconds * 1e9)
    if _libc.timerfd_settime(fd, 0, _TIMER.pack(0, ns, 0, ns), None) < 0:
        raise OSError(get_errno(), "timerfd_settime")
