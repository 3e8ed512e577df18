"""The front processes of a server: started, watched, started again when they die, drained.

Each has listening sockets of its own on the server's address (SO_REUSEPORT: the kernel shares the clients out), a ring
to the dispatcher (http.link), and a control socket: sockets come from it, and its end ends the process. The listening
sockets stay open here too, so that clients who come while a process is started again wait and are not refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastlam.errors import FastlamError
from fastlam.http.link import Link, Links, Tally
from fastlam.limits import FRONT_AGAIN_SECONDS, FRONT_LEAVE_SECONDS
from fastlam.wire.descriptors import receive

if TYPE_CHECKING:
    from fastlam.http.server import HttpServer

log = logging.getLogger(__name__)

_PROGRAM: Final = (
    "import sys\n"
    "root, *words = sys.argv[1:]\n"
    "sys.path[:0] = [root]\n"
    "from fastlam.http.front_process import main\n"
    "main(words)\n"
)


class FrontFailed(FastlamError):
    """A front process has ended before it served anybody."""


class FrontProcess:
    """One of them, from its start to its end."""

    def __init__(self, fronts: Fronts, row: int, listeners: list[socket.socket]) -> None:
        self._fronts = fronts
        self.row = row
        self.ready: asyncio.Future[None] = fronts.loop.create_future()
        self.drained: asyncio.Future[None] = fronts.loop.create_future()
        self.ended: asyncio.Future[None] = fronts.loop.create_future()
        self.leaving = False
        self.started = fronts.loop.time()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        memory = os.memfd_create("fastlam-front", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.link = Link(fronts.links, self, fronts.tally, row, memory, self._bell)
        try:
            descriptors = {
                "control": theirs.fileno(),
                "memory": memory,
                "bell": self._bell,
                "dispatcher_bell": fronts.bell,
                "tally": fronts.tally.fd,
            }
            listening = [listener.fileno() for listener in listeners]
            self._process = self._spawn(descriptors, listening)
        except BaseException:
            self.link.end()
            self._close()
            raise
        finally:
            os.close(memory)
            theirs.close()
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        fronts.loop.add_reader(self._pidfd, self._on_end)

    def _spawn(self, descriptors: dict[str, int], listening: list[int]) -> subprocess.Popen[bytes]:
        server = self._fronts.server
        settings: dict[str, Any] = {
            **descriptors,
            "row": self.row,
            "row_count": self._fronts.count + 1,
            "connections_max": server.connections_max,
            "header_bytes_max": server.header_bytes_max,
            "body_bytes_max": server.body_bytes_max,
            "tick_seconds": server.tick_seconds,
            "idle_seconds": server.idle_seconds,
            "listeners": ",".join(map(str, listening)),
        }
        root = str(Path(__file__).parents[2])
        words = [f"{name}={value}" for name, value in settings.items()]
        return subprocess.Popen(
            [sys.executable, "-I", "-c", _PROGRAM, root, *words],
            pass_fds=[*descriptors.values(), *listening],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    # --- called by the link ----------------------------------------------------------------------

    def on_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def on_drained(self) -> None:
        if not self.drained.done():
            self.drained.set_result(None)

    def on_broken(self, error: BaseException) -> None:
        log.error("front %d (pid %d) is ended: %s", self.row, self.pid, error)
        self.kill()

    def received_socket(self) -> int:
        """The next one that the process has sent; -1 when there is none."""
        with contextlib.suppress(OSError):
            _, descriptors = receive(self._control, 1, 1)
            if descriptors:
                return descriptors[0]
        return -1

    def hear_soon(self) -> None:
        self._fronts.hear_soon()

    # --- its end ---------------------------------------------------------------------------------

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _on_end(self) -> None:
        self._fronts.loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = self._process.wait()
        self._fronts.links.batch(self.link.end)
        self._close()
        for future in (self.ready, self.drained, self.ended):
            if not future.done():
                future.set_result(None)
        self._fronts.on_end(self, status)

    def _close(self) -> None:
        self._control.close()
        os.close(self._bell)


class Fronts:
    """All of one server. Used in the loop's thread."""

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self.server = server
        self.loop = loop
        self.count = count
        self.tally = Tally(count + 1)
        self.links = Links(server)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.processes: dict[int, FrontProcess] = {}
        self._listeners: list[list[socket.socket]] = []
        self._started = self._stopping = False
        self._drained: asyncio.Task[None] | None = None
        self._again: dict[int, asyncio.TimerHandle] = {}  # of rows without a process
        # of processes that are gone
        self._accepted = 0
        self._requests = 0
        self._bytes_received = 0
        self._bytes_sent = 0

    async def start(self, listeners: list[list[socket.socket]]) -> None:
        """One process for each list of sockets. Returns when all of them serve."""
        self._listeners = listeners
        self.loop.add_reader(self.bell, self.links.ready, self.bell)
        for row in range(1, self.count + 1):
            self._start_one(row)
        begun = list(self.processes.values())
        for process in begun:
            await process.ready
            if process.ended.done():
                raise FrontFailed("A front process did not start: see what it has said above, or do without --fronts.")
        self._started = True

    def _start_one(self, row: int) -> None:
        self.processes[row] = FrontProcess(self, row, self._listeners[row - 1])

    def on_end(self, process: FrontProcess, status: int) -> None:
        """The row is free; another process gets it."""
        row = process.row
        del self.processes[row]
        _, accepted, requests, received, sent = self.tally.counts(row)
        self._accepted += accepted
        self._requests += requests
        self._bytes_received += received
        self._bytes_sent += sent
        self.tally.clear(row)
        if self._stopping or not self._started:
            return
        log.warning("front %d (pid %d) has ended with status %d; another one is started", row, process.pid, status)
        lived = self.loop.time() - process.started
        self._start_later(row, max(0.0, FRONT_AGAIN_SECONDS - lived))

    def _start_later(self, row: int, seconds: float) -> None:
        self._again[row] = self.loop.call_later(seconds, self._start_again, row)

    def _start_again(self, row: int) -> None:
        del self._again[row]
        try:
            self._start_one(row)
        except OSError as error:  # no descriptors, no memory: for the moment
            log.error("front %d cannot be started now: %s", row, error)
            self._start_later(row, FRONT_AGAIN_SECONDS)

    def hear_soon(self) -> None:
        self.loop.call_soon(self.links.batch, self.links.hear)

    async def drain(self) -> None:
        """Every connection with a request in work comes to the server; then the processes leave."""
        if self._drained is None:
            self._drained = self.loop.create_task(self._drain())
        await asyncio.shield(self._drained)

    async def _drain(self) -> None:
        self._stopping = True
        for again in self._again.values():
            again.cancel()
        processes = list(self.processes.values())
        for process in processes:
            process.link.drain()
        for process in processes:
            await self._until(process, process.drained)
            process.link.leave()
        for process in processes:
            await self._until(process, process.ended)

    def close(self) -> None:
        """After the drain, when nobody asks any more."""
        self.loop.remove_reader(self.bell)
        os.close(self.bell)
        self.tally.close()

    async def _until(self, process: FrontProcess, done: asyncio.Future[None]) -> None:
        """What does not follow is killed."""
        await asyncio.wait({done}, timeout=FRONT_LEAVE_SECONDS)
        if not done.done():
            log.warning("front %d (pid %d) does not leave and is killed", process.row, process.pid)
            process.kill()
            await process.ended

    # --- what the server asks --------------------------------------------------------------------

    def hold(self, connections: int) -> None:
        """So many connections are the server's own."""
        self.tally.hold(connections)

    def open_connections(self) -> int:
        """Of all processes, the server's own among them."""
        return int(self.tally.open_connections())

    def counts(self) -> tuple[int, int, int, int, int]:
        """Connections accepted, requests, requests in work, bytes received and sent; of connections that have come to
        the server only that they were accepted."""
        accepted, requests, received, sent = self._accepted, self._requests, self._bytes_received, self._bytes_sent
        in_work = 0
        for row, process in self.processes.items():
            counts = self.tally.counts(row)
            accepted += counts[1]
            requests += counts[2]
            received += counts[3]
            sent += counts[4]
            in_work += process.link.in_work
        return accepted, requests, in_work, received, sent

    def rows(self) -> list[dict[str, int]]:
        """Each process, for those who look at the server from outside."""
        return [
            {"front": row, "pid": process.pid, "connections": self.tally.counts(row)[0]}
            for row, process in sorted(self.processes.items())
        ]
