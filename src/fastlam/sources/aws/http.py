"""HTTP/1.1 for requests that may wait long for their answers: connections kept alive, any number of them at a time.

A request that is cancelled takes its connection with it, so that a long poll never holds up the end of a daemon.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from fastlam import limits

_PORTS: Final = {"http": 80, "https": 443}


class Answer(NamedTuple):
    """What a server said."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


class NoAnswer(ConnectionError):
    """The server could not be reached, or went away before it had answered; says which and why."""


class _Address(NamedTuple):
    scheme: str
    host: str
    port: int


class _Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.used = False  # it has carried an answer
        self._parser: Any = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._bytes = 0
        self._begun = False  # something of the answer has come
        self._keeps = False

    async def request(self, head: bytes, body: bytes) -> Answer:
        assert self.transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._status, self._headers, self._body, self._bytes, self._begun = 0, {}, [], 0, False
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(head + body)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    @property
    def reusable(self) -> bool:
        return self._keeps and self.transport is not None and not self.transport.is_closing()

    @property
    def begun(self) -> bool:
        return self._begun

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.close()  # nobody has asked
            return
        self._begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"its answer is no HTTP ({error})")

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiter is None or self._waiter.done():
            return
        if self._status and "content-length" not in self._headers and "transfer-encoding" not in self._headers:
            self._keeps = False
            self._waiter.set_result(Answer(self._status, self._headers, b"".join(self._body)))
        else:
            self._fail("the connection was closed")

    # What the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)
        self._bytes += len(piece)
        if self._bytes > limits.SOURCE_ANSWER_BYTES_MAX:
            self._fail(f"its answer is longer than {limits.SOURCE_ANSWER_BYTES_MAX} bytes")

    def on_message_complete(self) -> None:
        if self._waiter is None or self._waiter.done() or self._status < 200:
            return
        self.used = True
        self._keeps = self._parser.should_keep_alive()
        self._waiter.set_result(Answer(self._status, self._headers, b"".join(self._body)))

    def _fail(self, why: str) -> None:
        self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(NoAnswer(why))


class HttpClient:
    """Requests of one loop. `close` ends every connection that is not in use."""

    def __init__(self) -> None:
        self._idle: dict[_Address, list[_Connection]] = {}
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_seconds: float
    ) -> Answer:
        """The answer, whatever its status. Raises NoAnswer."""
        parts = urlsplit(url)
        address = _Address(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme])
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [
            f"{name}: {value}" for name, value in headers.items() if name.lower() not in ("host", "content-length")
        ]
        lines += [f"Host: {parts.netloc.rpartition('@')[2]}", f"Content-Length: {len(body)}", "", ""]
        head = "\r\n".join(lines).encode("latin-1")
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._exchange(address, head, body)
        except TimeoutError:
            raise NoAnswer(f"{_shown(address)} did not answer within {timeout_seconds:g} s") from None
        except NoAnswer as failure:
            raise NoAnswer(f"{_shown(address)}: {failure}") from None
        except OSError as error:
            raise NoAnswer(f"{_shown(address)} cannot be reached: {error.strerror or error}") from None

    async def _exchange(self, address: _Address, head: bytes, body: bytes) -> Answer:
        while True:
            connection = self._take(address) or await self._connect(address)
            again = connection.used
            try:
                answer = await connection.request(head, body)
            except NoAnswer:
                connection.close()
                # A kept connection that the server has closed meanwhile has not carried the request.
                if again and not connection.begun:
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            self._give_back(address, connection)
            return answer

    def _take(self, address: _Address) -> _Connection | None:
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.reusable:
                return connection
            connection.close()
        return None

    def _give_back(self, address: _Address, connection: _Connection) -> None:
        idle = self._idle.setdefault(address, [])
        if connection.reusable and not self._closed and len(idle) < limits.SOURCE_IDLE_CONNECTIONS_MAX:
            idle.append(connection)
        else:
            connection.close()

    async def _connect(self, address: _Address) -> _Connection:
        loop = asyncio.get_running_loop()
        if address.scheme == "https" and self._tls is None:
            self._tls = await loop.run_in_executor(None, ssl.create_default_context)
        tls = self._tls if address.scheme == "https" else None
        _, connection = await loop.create_connection(_Connection, address.host, address.port, ssl=tls)
        return connection

    def close(self) -> None:
        self._closed = True
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()


def _shown(address: _Address) -> str:
    return f"{address.scheme}://{address.host}:{address.port}"
