"""The HTTP server: listens, bounds and counts connections, drains. It knows nothing of Lambda.

`Connection` holds the protocol, `Request` is what the handler gets. The handler is called in the loop's thread and
must not block; it answers by `request.respond`, at once or whenever it likes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from fastlam.http.connection import Connection
from fastlam.http.request import Request
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
    ) -> None:
        self.handler = handler
        self.body_bytes_max = body_bytes_max
        self.header_bytes_max = header_bytes_max
        self.connections_max = connections_max
        self.idle_seconds = idle_seconds
        self.request_seconds = request_seconds
        self.heads = Heads()
        self._tick_seconds = tick_seconds
        self._ticker: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop
        self._listener: asyncio.Server | None = None
        self._connections: set[Connection] = set()
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
        self._listener = await self._loop.create_server(
            lambda: Connection(self), host, port, backlog=HTTP_LISTEN_BACKLOG
        )
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def drain(self, timeout_seconds: float) -> None:
        """Stops listening, closes idle connections, lets requests that have begun finish, then cuts what is left."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in tuple(self._connections):
            connection.drain()
        if self._connections:
            self._drained = self._loop.create_future()
            cut = self._loop.call_later(timeout_seconds, self._cut)
            await self._drained
            cut.cancel()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    def _cut(self) -> None:
        for connection in tuple(self._connections):
            connection.abort()

    def statistics(self) -> HttpStatistics:
        connections = self._connections
        return HttpStatistics(
            connections_open=len(connections),
            connections_total=self._connections_total,
            connections_refused=self._connections_refused,
            requests_total=self._requests_total + sum(one.requests for one in connections),
            requests_in_flight=sum(one.requests_in_flight for one in connections),
            requests_refused=self._requests_refused,
            handler_errors=self._handler_errors,
            bytes_received=self._bytes_received + sum(one.bytes_received for one in connections),
            bytes_sent=self._bytes_sent + sum(one.bytes_sent for one in connections),
        )

    # --- called by connections -------------------------------------------------------------------

    def attach(self, connection: Connection) -> None:
        connections = self._connections
        connections.add(connection)
        self._connections_total += 1
        if self._ticker is None:
            self._tick()
        excess = len(connections) - self.connections_max
        if excess > 0:
            self._connections_refused += 1
            if excess > HTTP_REFUSED_CONNECTIONS_MAX:
                connection.abort()
            else:
                connection.refuse(503, "Too many connections.")
        elif self._listener is None:  # accepted while the server was closing
            connection.drain()

    def detach(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._requests_total += connection.requests
        self._bytes_received += connection.bytes_received
        self._bytes_sent += connection.bytes_sent
        if self._drained is not None and not self._connections and not self._drained.done():
            self._drained.set_result(None)

    def refused(self) -> None:
        self._requests_refused += 1

    def handler_failed(self, error: BaseException) -> None:
        self._handler_errors += 1
        self._loop.call_exception_handler({"message": "The HTTP handler failed", "exception": error})

    def _tick(self) -> None:
        """The only timer: renews the Date of responses and ends stale connections; rests while there are none."""
        if not self._connections:
            self._ticker = None
            return
        self.heads.tick()
        for connection in tuple(self._connections):
            connection.tick(self._tick_seconds)
        self._ticker = self._loop.call_later(self._tick_seconds, self._tick)
