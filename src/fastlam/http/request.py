"""One HTTP request and the way to answer it. Used in the loop's thread only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlam.http.responses import LENGTH_LINES, LENGTH_LINES_MAX, LENGTH_NAME, bodiless
from fastlam.http.streaming import ResponseBody

if TYPE_CHECKING:
    from fastlam.http.connection import Connection

COALESCE_BYTES_MAX = 65_536  # a longer body is handed to the transport beside its head instead of being copied


class Request:
    """What a handler gets. `respond` may be called inside the handler or at any time after it."""

    __slots__ = (
        "_connection",
        "body",
        "extra_headers",
        "headers",
        "keep_alive",
        "method",
        "path",
        "query",
        "rendered",
        "target",
    )

    def __init__(
        self,
        connection: Connection,
        method: bytes,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self.keep_alive = keep_alive
        # the answer; the tuple: its head and a long body
        self.rendered: bytes | tuple[bytes, bytes] | ResponseBody | None = None
        self.method = method
        self.target = target
        self.headers = headers  # names lower-cased, in the order sent
        self.body = body
        self.extra_headers = b""  # a block of header lines that goes with whatever answer is given
        if not target.startswith(b"/"):
            target = _origin_form(target)
        self.path, _, self.query = target.partition(b"?")  # both still percent-encoded

    def header(self, name: bytes) -> bytes | None:
        """The first value under this lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def closed(self) -> bool:
        """Whether the connection is gone. A client that has only ended its sending side still hears the answer."""
        return self._connection.closed

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Answers, exactly once, now or later.

        `headers` is a block of `Name: value\\r\\n` lines, possibly empty. Date, Connection and Content-Length are
        added here; the body of an answer to HEAD, and of a 204 or 304, is left out.
        """
        if self.rendered is not None:
            raise RuntimeError("the request has been answered already")
        connection = self._connection
        if connection.ending and self.keep_alive:
            self.keep_alive = not connection.is_last(self)
        heads = connection.heads.keep_alive if self.keep_alive else connection.heads.close
        head = heads.get(status) or connection.heads.head(status, self.keep_alive)
        size = len(body)
        length = LENGTH_LINES[size] if size < LENGTH_LINES_MAX else b"%d\r\n" % size
        if self.method == b"HEAD":
            body = b""
        if status != 200 and bodiless(status):
            length = body = b""
        if size <= COALESCE_BYTES_MAX:
            self.rendered = b"".join((head, length, headers, self.extra_headers, b"\r\n", body))
        else:
            self.rendered = (b"".join((head, length, headers, self.extra_headers, b"\r\n")), body)
        connection.flush(self)

    def begin(self, status: int, headers: bytes) -> ResponseBody:
        """As `respond`, for a body that comes in pieces: chunked, or up to the end of the connection for a client that
        speaks HTTP/1.0.
        """
        if self.rendered is not None:
            raise RuntimeError("the request has been answered already")
        connection = self._connection
        if connection.http_1_0 or (connection.ending and connection.is_last(self)):
            self.keep_alive = False
        head = connection.heads.head(status, self.keep_alive).removesuffix(LENGTH_NAME)
        encoding = b"" if connection.http_1_0 else b"Transfer-Encoding: chunked\r\n"
        block = b"".join((head, encoding, headers, self.extra_headers, b"\r\n"))
        body = self.rendered = ResponseBody(connection, self, block, not connection.http_1_0)
        connection.flush(self)
        return body

    @property
    def answered(self) -> bool:
        return self.rendered is not None


def _origin_form(target: bytes) -> bytes:
    """`http://host/path?query` (what a proxy is sent) as `/path?query`; `*` stays what it is."""
    _, separator, rest = target.partition(b"://")
    if not separator:
        return target
    slash = rest.find(b"/")
    question = rest.find(b"?")
    if slash < 0 or 0 <= question < slash:
        return b"/" + (rest[question:] if question >= 0 else b"")
    return rest[slash:]
