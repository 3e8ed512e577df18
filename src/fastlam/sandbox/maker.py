"""A process of the worker's that makes what environments need, for a driver that never waits: it orders, goes on, and
hears when something is there.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Sequence

from fastlam.sandbox.keeper import Keeper
from fastlam.wire import control
from fastlam.wire.descriptors import receive

Watch = Callable[[int, Callable[[], None]], None]
Ignore = Callable[[int], None]


class Maker:
    """Started with the first order; when it has ended, with the next one. All of it runs in the driver.

    `watch` and `ignore` are the dispatcher's, for descriptors that become readable. `start` gets a descriptor for
    `programs.start`. `on_made` gets an answer and its descriptors, which it takes over, and returns whether to go on;
    `on_all` follows when no more answers are there; `on_ended`: it has ended, and answers nothing any more.
    """

    def __init__(
        self,
        keeper: Keeper,
        watch: Watch,
        ignore: Ignore,
        *,
        start: Callable[[int], subprocess.Popen[bytes]],
        on_made: Callable[[bytes, list[int]], bool],
        on_all: Callable[[], None],
        on_ended: Callable[[], None],
    ) -> None:
        self._keeper = keeper
        self._watch = watch
        self._ignore = ignore
        self._start = start
        self._on_made = on_made
        self._on_all = on_all
        self._on_ended = on_ended
        self._socket: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None  # while there is one

    @property
    def alive(self) -> bool:
        """Whether there is one, and it is this process's: a fork's is not."""
        return self._socket is not None

    def order(self, message: control.Message, descriptors: Sequence[int] = ()) -> None:
        """The descriptors stay the caller's. Raises OSError; BlockingIOError means that answers are on their way, and
        with them another try.
        """
        if self._socket is None:
            self._begin()
        assert self._socket is not None
        if descriptors:
            socket.send_fds(self._socket, [control.encode(message)], descriptors)
        else:
            self._socket.send(control.encode(message))

    def _begin(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setblocking(False)
            with theirs:
                self.process = self._keeper.run(lambda: self._start(theirs.fileno()))
        except BaseException:
            ours.close()
            raise
        self._socket = ours
        self._watch(ours.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        """Until nothing is there, or something has failed: what follows then may wait for the next time."""
        while self._socket is not None:
            try:
                packet, descriptors = receive(self._socket, control.PACKET_BYTES_MAX, control.DESCRIPTORS_MAX)
            except BlockingIOError:
                self._on_all()
                return
            except ConnectionResetError:
                packet, descriptors = b"", []
            if not packet:
                self.close()
                self._on_ended()
                return
            if not self._on_made(packet, descriptors):
                return

    def close(self) -> None:
        """Ends it. What it was asked for and has not made is forgotten."""
        if self._socket is None:
            return
        assert self.process is not None
        self._ignore(self._socket.fileno())
        self._socket.close()
        self._socket = None
        self.process.kill()  # it has nothing to clean up
        self.process.wait()
        self.process = None

    def disown(self) -> None:
        """In a fork of the owner: closes what would keep the process alive beyond its owner."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

