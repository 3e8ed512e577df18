"""The HTTP server: listens, bounds and counts connections, drains. It knows nothing of Lambda.

`Front` has the accepted sockets as long as only plain requests come in, here or in front processes (`Fronts`),
`Connection` holds the whole protocol and takes over the others, `Request` is what the handler gets. The handler is
called in the loop's thread and must not block; it answers by `request.respond`, at once or whenever it likes.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fastlam.http.connection import Connection
from fastlam.http.front import Front, Request
from fastlam.http.fronts import Fronts
from fastlam.http.responses import Heads
from fastlam.limits import (
    HTTP_CONNECTIONS_MAX,
    HTTP_HEADER_BYTES_MAX,
    HTTP_IDLE_SECONDS,
    HTTP_LISTEN_BACKLOG,
    HTTP_REFUSED_CONNECTIONS_MAX,
    HTTP_REQUEST_SECONDS,
)

__all__ = ["Handler", "HttpServer", "HttpStatistics", "Request"]

Handler = Callable[[Request], None]

_ACCEPT_AGAIN_SECONDS: Final = 1.0  # after the descriptors have run out


@dataclass(frozen=True, slots=True)
class HttpStatistics:
    """What one server has seen since it began."""

    connections_open: int
    connections_total: int
    connections_refused: int  # over connections_max
    requests_total: int
    requests_in_flight: int
    requests_refused: int  # answered by the server itself: malformed, too long, too slow, too many connections
    handler_errors: int
    bytes_received: int
    bytes_sent: int


class HttpServer:
    """One listening socket and its connections. Every method is called in the loop's thread."""

    def __init__(
        self,
        handler: Handler,
        *,
        body_bytes_max: int,
        header_bytes_max: int = HTTP_HEADER_BYTES_MAX,
        connections_max: int = HTTP_CONNECTIONS_MAX,
        idle_seconds: float = HTTP_IDLE_SECONDS,
        request_seconds: float = HTTP_REQUEST_SECONDS,
        tick_seconds: float = 1.0,
        fronts: int = 0,
    ) -> None:
        self.handler = handler
        self.body_bytes_max = body_bytes_max
        self.header_bytes_max = header_bytes_max
        self.connections_max = connections_max
        self.idle_seconds = idle_seconds
        self.request_seconds = request_seconds
        self.heads = Heads()
        self.tick_seconds = tick_seconds
        self._ticker: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop
        self._listeners: list[socket.socket] = []
        self._doors: list[socket.socket] = []  # listening sockets of others
        self._front: Front | None = None  # from `start` on, until nothing is left in it
        self._fronts_wanted = fronts  # processes; 0: this one accepts
        self._fronts: Fronts | None = None  # as long as they run
        self._connections: set[Connection] = set()
        self._arrivals: set[asyncio.Task[None]] = set()
        self.closing = False  # no more connections
        self._drained: asyncio.Future[None] | None = None
        # of connections that are gone, and of the server
        self._connections_total = 0
        self._connections_refused = 0
        self._requests_total = 0
        self._requests_refused = 0
        self._handler_errors = 0
        self._bytes_received = 0
        self._bytes_sent = 0

    async def start(self, host: str, port: int) -> int:
        """Listens and returns the port (0 chooses a free one). OSError when the address is taken."""
        self._loop = asyncio.get_running_loop()
        found = await self._loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                try:
                    listener = socket.socket(family, socket.SOCK_STREAM)
                except OSError:
                    if len(found) == 1:
                        raise
                    continue  # a family that this machine does not have
                self._listeners.append(listener)
                _listen(listener, address, shared=self._fronts_wanted > 0)
                for _ in range(1, self._fronts_wanted):
                    joining = socket.socket(family, socket.SOCK_STREAM)
                    self._listeners.append(joining)
                    joining.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    _listen(joining, listener.getsockname(), shared=True)
            bound: int = self._listeners[0].getsockname()[1]
            if self._fronts_wanted:
                await self._start_fronts()
                return bound
        except BaseException:
            self._stop_listening()
            raise
        front = self._own_front()
        for listener in self._listeners:
            front.listen(listener.fileno())
        return bound

    def _own_front(self) -> Front:
        """The one in this process, which is there from now on."""
        if self._front is None:
            self._front = Front(self)
            self._loop.add_reader(self._front.fileno(), self._front.ready)
        return self._front

    def open_door(self, listener: socket.socket) -> None:
        """Serves who comes by a listening socket, non-blocking, that is and stays somebody else's, until it is closed
        or the server drains. Connections of it are accepted here, with front processes too.
        """
        if not self.closing:
            self._own_front().listen(listener.fileno())
            self._doors.append(listener)

    def close_door(self, listener: socket.socket) -> None:
        """Before it is closed; connections that have come by it go on."""
        if listener in self._doors:
            self._doors.remove(listener)
            self._ignore(listener)

    async def _start_fronts(self) -> None:
        count = self._fronts_wanted
        self._fronts = Fronts(self, self._loop, count)
        self._tick_later()  # they do not tell of each connection
        try:
            await self._fronts.start([self._listeners[number::count] for number in range(count)])
        except BaseException:
            await self.drain(0)
            raise

    def in_batch(self, callback: Callable[[], None]) -> None:
        """Calls it; answers that it gives through one front process wake that once."""
        if self._fronts is None:
            callback()
        else:
            self._fronts.links.batch(callback)

    async def drain(self, timeout_seconds: float) -> None:
        """Stops listening, closes idle connections, lets requests that have begun finish, then cuts what is left."""
        self.closing = True
        self._stop_listening()
        if self._front is not None:
            self._front.drain()
            self._loop.remove_reader(self._front.fileno())
            self._keep_counts(self._front)
            self._front = None
        if self._fronts is not None:
            await self._fronts.drain()
            if self._fronts is not None:  # by another drain
                self._keep_front_counts(self._fronts)
                self._fronts.close()
                self._fronts = None
        for connection in tuple(self._connections):
            connection.drain()
        if self._connections:
            self._drained = self._loop.create_future()
            cut = self._loop.call_later(timeout_seconds, self._cut)
            await self._drained
            cut.cancel()
        if self._arrivals:
            await asyncio.wait(self._arrivals)
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    def _stop_listening(self) -> None:
        while self._listeners:
            listener = self._listeners.pop()
            self._ignore(listener)
            listener.close()
        while self._doors:
            self._ignore(self._doors.pop())

    def _ignore(self, listener: socket.socket) -> None:
        if self._front is not None:
            self._front.ignore(listener.fileno())

    def _keep_counts(self, front: Front) -> None:
        requests, _, received, sent = front.counts()
        self._requests_total += requests
        self._bytes_received += received
        self._bytes_sent += sent

    def _keep_front_counts(self, fronts: Fronts) -> None:
        accepted, requests, _, received, sent = fronts.counts()
        self._connections_total += accepted
        self._requests_total += requests
        self._bytes_received += received
        self._bytes_sent += sent

    def _cut(self) -> None:
        for connection in tuple(self._connections):
            connection.abort()

    def statistics(self) -> HttpStatistics:
        connections = self._connections
        accepted, requests, in_work, received, sent = 0, 0, 0, 0, 0
        if self._front is not None:
            requests, in_work, received, sent = self._front.counts()
        if self._fronts is not None:
            accepted, *counts = self._fronts.counts()
            requests, in_work, received, sent = map(sum, zip((requests, in_work, received, sent), counts, strict=True))
        return HttpStatistics(
            connections_open=self._open(),
            connections_total=accepted + self._connections_total,
            connections_refused=self._connections_refused,
            requests_total=requests + self._requests_total + sum(one.requests for one in connections),
            requests_in_flight=in_work + sum(one.requests_in_flight for one in connections),
            requests_refused=self._requests_refused,
            handler_errors=self._handler_errors,
            bytes_received=received + self._bytes_received + sum(one.bytes_received for one in connections),
            bytes_sent=sent + self._bytes_sent + sum(one.bytes_sent for one in connections),
        )

    def fronts(self) -> list[dict[str, int]]:
        """The front processes: their number, pid and open connections."""
        return [] if self._fronts is None else self._fronts.rows()

    def _open(self) -> int:
        if self._fronts is not None:
            return self._fronts.open_connections()
        return len(self._connections) + (0 if self._front is None else self._front.open_connections)

    # --- called by the front ---------------------------------------------------------------------

    def accepts(self, fd: int) -> bool:
        """Whether the front may have a connection; one too many hears so from us."""
        if self._open() >= self.connections_max:
            self._connect(fd, Connection(self))
            return False
        self._connections_total += 1
        self._count_connections()
        if self._ticker is None:
            self._tick_later()
        return True

    def accept_failed(self, listener: int, error: int) -> None:
        """No more descriptors or memory: the queue of the listening socket keeps those who come, for a while."""
        front = self._front
        assert front is not None
        self._loop.call_exception_handler(
            {"message": "A connection could not be accepted", "exception": OSError(error, os.strerror(error))}
        )
        front.ignore(listener)

        def again() -> None:
            if self._front is front and any(one.fileno() == listener for one in (*self._listeners, *self._doors)):
                front.listen(listener)

        self._loop.call_later(_ACCEPT_AGAIN_SECONDS, again)

    def take_over(
        self,
        fd: int,
        requests: list[Request],
        unread: bytes,
        unsent: bytes,
        ended: bool,
        requests_total: int,
        bytes_received: int,
        bytes_sent: int,
        quiet_ticks: int,
    ) -> Connection:
        """A connection that will `go_on` with a socket of the front and all that belongs to it."""
        connection = Connection(self)
        connection.take_over(requests, unread, unsent, ended, quiet_ticks)
        connection.requests = requests_total
        connection.bytes_received = bytes_received - len(unread)  # these it counts when it reads them
        connection.bytes_sent = bytes_sent
        self._connections.add(connection)
        self._count_connections()
        self._connect(fd, connection)
        return connection

    def refuse_connection(self, fd: int) -> None:
        """A front process has one too many: it hears so from us."""
        self._connect(fd, Connection(self))

    def closed_connection(self) -> Connection:
        """For an answer to somebody who has gone."""
        connection = Connection(self)
        connection.closed = True
        return connection

    def _connect(self, fd: int, connection: Connection) -> None:
        arrival = self._loop.create_task(self._arrive(fd, connection))
        self._arrivals.add(arrival)
        arrival.add_done_callback(self._arrivals.discard)

    async def _arrive(self, fd: int, connection: Connection) -> None:
        accepted = socket.socket(fileno=fd)
        try:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError as error:
            accepted.close()
            connection.connection_lost(error)

    # --- called by connections -------------------------------------------------------------------

    def attach(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._count_connections()
        self._connections_total += 1
        if self._ticker is None:
            self._tick_later()
        excess = self._open() - self.connections_max
        if excess > 0:
            self._connections_refused += 1
            if excess > HTTP_REFUSED_CONNECTIONS_MAX:
                connection.abort()
            else:
                connection.refuse(503, "Too many connections.")
        elif self.closing:  # accepted while the server was closing
            connection.drain()

    def detach(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._count_connections()
        self._requests_total += connection.requests
        self._bytes_received += connection.bytes_received
        self._bytes_sent += connection.bytes_sent
        if self._drained is not None and not self._connections and not self._drained.done():
            self._drained.set_result(None)

    def _count_connections(self) -> None:
        if self._fronts is not None:
            self._fronts.hold(len(self._connections) + (0 if self._front is None else self._front.open_connections))

    def refused(self) -> None:
        self._requests_refused += 1

    def handler_failed(self, error: BaseException) -> None:
        self._handler_errors += 1
        self._loop.call_exception_handler({"message": "The HTTP handler failed", "exception": error})

    def _tick(self) -> None:
        """The only timer: renews the Date of responses and ends stale connections; rests while there are none."""
        if self._front is not None:
            self._front.tick(self.tick_seconds, self.idle_seconds)
            self._count_connections()
        for connection in tuple(self._connections):
            connection.tick(self.tick_seconds)
        if self._fronts is not None or self._open():
            self._tick_later()
        else:
            self._ticker = None

    def _tick_later(self) -> None:
        self.heads.tick()
        self._ticker = self._loop.call_later(self.tick_seconds, self._tick)


def _listen(listener: socket.socket, address: Any, *, shared: bool) -> None:
    """Binds alone, so that it fails where anybody else has the address; others may join it then if it is `shared`."""
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets have it from here
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(address)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.listen(HTTP_LISTEN_BACKLOG)
