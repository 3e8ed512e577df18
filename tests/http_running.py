"""A HttpServer on a uvloop thread of its own, for tests that talk to it over sockets."""

from __future__ import annotations

import asyncio
import json
import queue
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import uvloop

from fastlam.http.connection import Connection
from fastlam.http.server import HttpServer, Request

WAIT_SECONDS = 20
JSON = b"Content-Type: application/json\r\n"


class Running:
    """Started and stopped by `with`. `seen` are the requests its handler got, `errors` what the loop complained of."""

    fronts = 0  # processes, unless `options` say otherwise

    def __init__(self, answer: Callable[[Request], None] | None = None, **options: Any) -> None:
        self.seen: queue.Queue[Request] = queue.Queue()
        self.answer = answer
        self.options = {"body_bytes_max": 1_000_000, "fronts": self.fronts, **options}
        self.loop = uvloop.new_event_loop()
        self.errors: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.thread = threading.Thread(target=self.loop.run_forever)

    def handle(self, request: Request) -> None:
        self.seen.put(request)
        if self.answer is not None:
            self.answer(request)

    def __enter__(self) -> Self:
        self.thread.start()

        async def start() -> tuple[HttpServer, int]:
            server = HttpServer(self.handle, **self.options)
            return server, await self.listen(server)

        self.server, self.port = self.run(start())
        return self

    async def listen(self, server: HttpServer) -> int:
        return await server.start("127.0.0.1", 0)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.run(self.server.drain(0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(WAIT_SECONDS)
        self.loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, awaitable: Any) -> Any:
        """Awaits in the server's loop."""
        return asyncio.run_coroutine_threadsafe(awaitable, self.loop).result(WAIT_SECONDS)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls in the server's loop."""

        async def inside() -> Any:
            return function(*arguments)

        return self.run(inside())

    def next(self) -> Request:
        """The next request that the handler got and the test has not looked at."""
        return self.seen.get(timeout=WAIT_SECONDS)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_SECONDS)


class RunningWithoutFront(Running):
    """The same server, each of whose connections has had the general protocol from its first byte on."""

    async def listen(self, server: HttpServer) -> int:
        server._loop = self.loop
        self.listener = await self.loop.create_server(lambda: Connection(server), "127.0.0.1", 0)
        port: int = self.listener.sockets[0].getsockname()[1]
        return port

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.call(self.listener.close)
        super().__exit__(kind, error, at)


def echo(request: Request) -> None:
    body = {
        "method": request.method.decode(),
        "path": request.path.decode("latin-1"),
        "query": request.query.decode("latin-1"),
        "body_bytes": len(request.body),
        "body": request.body[:100].decode("latin-1"),
    }
    request.respond(200, JSON, json.dumps(body).encode())


def read_response(stream: Any, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """One response from a socket's buffered reader."""
    status = int(stream.readline().split()[1])
    headers: dict[str, str] = {}
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = b"" if method == "HEAD" else stream.read(int(headers.get("content-length", "0")))
    return status, headers, body


def exchange(server: Running, data: bytes) -> bytes:
    """Sends the bytes and returns everything until the server closes."""
    with server.connect() as client:
        client.sendall(data)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    received = bytearray()
    while piece := client.recv(65_536):
        received += piece
    return bytes(received)
