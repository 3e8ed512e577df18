"""One HTTP/1 connection: bytes to requests, answers back in the order of the requests.

    data_received ─► httptools ─► on_message_complete ─► _waiting ─► handler(request) ─► _answering
                                                         (parsed)                        (in work, in order)
    request.respond ─► first in _answering: one transport.write, else kept until those before it have answered
    request.begin ──► as above, piece by piece; it stays first in _answering until it is ended

Owner of everything here is the event loop's thread. A request costs no task, no future and no timer. What happens
rarely (a request in several reads, a full pipeline, a refusal, the end) is kept out of the way behind one flag,
`_attention`, looked at once a response.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from fastlam.http.front import Request
from fastlam.http.responses import CONTINUE, JSON_HEADERS, Heads, message_body
from fastlam.http.streaming import ResponseBody
from fastlam.limits import HTTP_HEADERS_MAX, HTTP_LINGER_SECONDS, HTTP_PIPELINE_MAX

if TYPE_CHECKING:
    from fastlam.http.server import HttpServer

READ_BYTES_MAX = 262_144  # what uvloop or asyncio hands over at once, at most
_NO_TRANSPORT = asyncio.Transport()
HELD_BYTES_MAX = 65_536  # written by answers while there is no transport yet, until they are told to wait


class Arriving:
    """In the transport's place while the loop takes a socket over from the front, which takes a few of its turns."""

    __slots__ = ("_connection", "aborted", "closing", "ended", "held", "held_bytes")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.held: list[bytes] = []
        self.held_bytes = 0
        self.ended = self.closing = self.aborted = False

    def write(self, data: bytes) -> None:
        self.held.append(data)
        self.held_bytes += len(data)
        if self.held_bytes > HELD_BYTES_MAX:
            self._connection.pause_writing()

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def pause_reading(self) -> None:
        """Nothing is read yet; whether it shall be is asked when the transport is there."""

    resume_reading = pause_reading


class Expected:
    """In a connection's place for an answer in pieces, until a front process has sent the socket that the connection
    needs.
    """

    __slots__ = ("aborted", "closed", "ending", "heads")

    takes_more = False

    def __init__(self, heads: Heads) -> None:
        self.heads = heads
        self.ending = False
        self.closed = self.aborted = False

    def flush(self, request: Request) -> None:
        """The connection will."""

    def send(self, data: bytes) -> None:
        raise RuntimeError(f"{len(data)} bytes for a connection that is not there yet")

    def abort(self) -> None:
        """As soon as there is a connection."""
        self.aborted = True


class Connection(asyncio.Protocol):
    """The protocol object of one accepted socket."""

    __slots__ = (
        "_answering",
        "_attention",
        "_body",
        "_body_bytes",
        "_body_bytes_seen",
        "_continue_due",
        "_dispatching",
        "_eof",
        "_head",
        "_head_bytes_max",
        "_head_examined",
        "_headers",
        "_http_1_0",
        "_lingering",
        "_parser",
        "_partial",
        "_progress_seen",
        "_quiet_ticks",
        "_read_bytes",
        "_read_paused",
        "_reading",
        "_refusal",
        "_server",
        "_target",
        "_transport",
        "_unfruitful_bytes",
        "_unread",
        "_waiting",
        "_write_paused",
        "bytes_received",
        "bytes_sent",
        "closed",
        "ending",
        "heads",
        "requests",
    )

    _transport: asyncio.Transport | Arriving

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._transport = _NO_TRANSPORT
        self.heads = server.heads
        self._parser = HttpRequestParser(self)
        self._head_bytes_max = server.header_bytes_max
        # the request being read
        self._target: bytes | None = None  # None: between two requests
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: list[tuple[bytes, bytes]] | None = None  # complete headers; trailers no longer reach them
        self._body: bytes | bytearray = b""
        self._body_bytes = 0
        # only for a request that comes in several reads
        self._partial = False
        self._read_bytes = 0  # of the latest read
        self._body_bytes_seen = 0
        self._unfruitful_bytes = 0  # bytes of reads that brought no body: head, trailers, chunk extensions
        self._head_examined = False
        self._continue_due = False
        # requests read, not yet given to the handler | given and not yet written, in order
        self._waiting: deque[Request] = deque()
        self._answering: deque[Request] = deque()
        self._dispatching = False
        self._attention = False  # respond() has more to do than to write
        self._reading = True  # False after the last request: what still comes is thrown away
        self._read_paused = False
        self._write_paused = False
        self._refusal: tuple[int, str] | None = None  # to be written behind the answers still in work
        self._lingering = False  # refused; waiting for the client to stop sending
        self._eof = False  # the client has ended its sending side
        self._quiet_ticks = 0
        self._progress_seen = 0
        self._http_1_0 = False  # as its first request says; asked for every one, it would cost each of them
        self.ending = False  # no request is taken after those begun
        self.closed = False
        self.requests = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self._unread = b""  # of what was taken over from the front

    # --- the front -------------------------------------------------------------------------------

    def take_over(
        self, requests: Iterable[Request], unread: bytes, unsent: bytes, ended: bool, quiet_ticks: int
    ) -> None:
        """Makes this the connection of a socket that the front has had: `requests` are in work; `ended` says that
        nothing comes behind `unread`. `go_on` has to follow.
        """
        self._transport = Arriving(self)
        self._answering.extend(requests)
        self._unread = unread
        self._quiet_ticks = quiet_ticks
        self.ending = self._attention = ended
        if unsent:
            self._transport.write(unsent)

    def go_on(self) -> None:
        """Reads what the front has not read, and answers what had to wait."""
        unread, self._unread = self._unread, b""
        if unread:
            self.data_received(unread)
        if self._answering and isinstance(self._answering[0].rendered, bytes):  # answered before it was its turn
            self.flush(self._answering[0])
        self._settle()

    def _arrive(self, arriving: Arriving) -> None:
        """The transport is there, and does what it was asked to do before."""
        transport = self._transport
        if arriving.aborted:
            transport.abort()
            return
        was_paused, self._write_paused = self._write_paused, False
        if arriving.held:
            transport.write(b"".join(arriving.held))
        if arriving.ended:
            transport.write_eof()
        if arriving.closing:
            transport.close()
            return
        if self._read_paused:  # it begins to read when we have returned
            asyncio.get_running_loop().call_soon(self._pause_again)
        if was_paused and not self._write_paused:
            self.resume_writing()

    def _pause_again(self) -> None:
        if self._read_paused and not self._transport.is_closing():
            self._transport.pause_reading()

    # --- asyncio ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        arriving = self._transport
        self._transport = transport  # type: ignore[assignment]  # a stream transport
        if isinstance(arriving, Arriving):
            self._arrive(arriving)
        else:
            self._server.attach(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._reading = False
        self._waiting.clear()
        begun = [request.rendered for request in self._answering if type(request.rendered) is ResponseBody]
        self._answering.clear()
        self._headers = []
        self._head = self._target = None
        self._body = b""
        del self._parser  # it holds our bound methods: this breaks the cycle
        self._server.detach(self)
        for body in begun:
            body.tell()

    def data_received(self, data: bytes) -> None:
        if not self._reading:
            return
        size = len(data)
        self.bytes_received += size
        self._read_bytes = size
        while True:
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                data = self._without_upgrade(data[upgrade.args[0] :])
                continue
            except HttpParserError as error:
                self._parse_failed(error)
            break
        if self._waiting:
            self._dispatch()
        if self._refusal is not None:
            self._settle()
        elif self._target is not None and self._reading:
            self._request_incomplete()

    def eof_received(self) -> bool:
        self._eof = True
        self._reading = False
        self._target = None  # a request cut off in the middle is not run
        if self._lingering or not (self._waiting or self._answering):
            return False
        self.ending = self._attention = True
        return True  # keeps our side open for the answers

    def pause_writing(self) -> None:
        self._write_paused = True
        self._regulate_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._settle()
        if self._answering and type(self._answering[0].rendered) is ResponseBody:
            self._answering[0].rendered.tell()

    # --- httptools -------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        target = self._target
        self._target = url if target is None else target + url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        headers = self._head = self._headers
        self._headers = []
        if self._read_bytes + self._unfruitful_bytes > self._head_bytes_max:
            size = len(self._target or b"") + sum(len(name) + len(value) + 4 for name, value in headers)
            if size > self._head_bytes_max:
                self._leave_parser(431, "The request line and headers are too long.")
        if len(headers) > HTTP_HEADERS_MAX:
            self._leave_parser(431, "The request has too many headers.")

    def on_body(self, data: bytes) -> None:
        size = self._body_bytes = self._body_bytes + len(data)
        if size > self._server.body_bytes_max:
            self._leave_parser(413, "The request body is too long.")
        body = self._body
        if not body:
            self._body = data
        elif isinstance(body, bytearray):
            body += data
        else:
            body = self._body = bytearray(body)
            body += data

    def on_message_complete(self) -> None:
        target, head, pieces = self._target, self._head, self._body
        self._target = self._head = None
        if target is None or head is None:
            return
        body = b""
        if pieces:
            self._body = b""
            self._body_bytes = 0
            body = bytes(pieces)  # the same object unless it came in several pieces
        if self._partial:
            self._partial = self._head_examined = self._continue_due = False
            self._body_bytes_seen = self._unfruitful_bytes = 0
        if self._headers:  # trailers: allowed, and of no use to anybody here
            self._headers = []
        parser = self._parser
        keep_alive = parser.should_keep_alive()
        http_1_0 = self._http_1_0
        if not keep_alive or self.requests == 0:
            http_1_0 = parser.get_http_version() == "1.0"
            if self.requests == 0:
                self._http_1_0 = http_1_0
        if not keep_alive:
            if parser.get_http_version() not in ("1.1", "1.0"):
                self._leave_parser(505, "This server speaks HTTP/1.1 and HTTP/1.0.")
            self._reading = False
        self.requests += 1
        request = Request(self, parser.get_method(), target, head, body, keep_alive)
        request.http_1_0 = http_1_0
        self._waiting.append(request)

    # --- requests in, answers out ----------------------------------------------------------------

    def _dispatch(self) -> None:
        """Gives the handler what has been read, as far as the pipeline's bound and the client's reading permit."""
        if self._dispatching:  # an answer given inside the handler came here again
            return
        self._dispatching = True
        waiting, answering, handler = self._waiting, self._answering, self._server.handler
        while waiting:
            if len(answering) >= HTTP_PIPELINE_MAX or self._write_paused:
                break
            request = waiting.popleft()
            answering.append(request)
            try:
                handler(request)
            except Exception as error:  # noqa: BLE001  the connection outlives what the handler does
                self._server.handler_failed(error)
                if not request.answered:
                    request.respond(500, JSON_HEADERS, message_body("Internal server error."))
        self._dispatching = False
        if self._attention or waiting or len(answering) >= HTTP_PIPELINE_MAX:
            self._regulate_reading()

    def is_last(self, request: Request) -> bool:
        """Whether nothing of this connection is behind the request, not even a part of another."""
        answering = self._answering
        return (
            bool(answering)
            and answering[-1] is request
            and not self._waiting
            and self._target is None
            and self._refusal is None
            and not self._unread
        )

    @property
    def takes_more(self) -> bool:
        """Whether the client keeps up with what is written."""
        return not self._write_paused

    def send(self, data: bytes) -> None:
        """Writes a piece of the answer whose turn it is."""
        if not self._transport.is_closing():
            self.bytes_sent += len(data)
            self._transport.write(data)

    def flush(self, request: Request) -> None:
        """Writes the answer of `request`, and those that waited for it, if it is the oldest in work."""
        answering = self._answering
        if not answering or answering[0] is not request:
            return
        transport = self._transport
        unfinished: ResponseBody | None = None
        while True:
            answering.popleft()
            answer = request.rendered
            if transport.is_closing():  # uvloop raises on a write to a closed transport
                if isinstance(answer, ResponseBody) and not answer.ended:
                    answering.appendleft(request)  # its writer is told when the connection is gone
                return
            if isinstance(answer, bytes):
                self.bytes_sent += len(answer)
                transport.write(answer)
            elif isinstance(answer, tuple):
                head, body = answer
                self.bytes_sent += len(head) + len(body)
                transport.write(head)
                transport.write(body)
            elif answer is not None and not answer.begin():
                answering.appendleft(request)  # until it is ended
                unfinished = answer
                break
            if not request.keep_alive:
                transport.close()  # what was written is still sent
                return
            if not answering or answering[0].rendered is None:
                break
            request = answering[0]
        if self._attention:
            self._settle()
        if unfinished is not None:
            unfinished.tell()

    def _settle(self) -> None:
        """Goes on with what had to wait: requests, a refusal, `100 Continue`, the end."""
        if self._waiting:
            self._dispatch()
        if not self._waiting and not self._answering and not self._transport.is_closing():
            if self._refusal is not None:
                self._write_refusal(*self._refusal)
            elif self.ending and self._target is None:
                self._transport.close()
            elif self._continue_due:
                self._continue_due = False
                self._transport.write(CONTINUE)
        self._regulate_reading()

    def _regulate_reading(self) -> None:
        """No more is read while the client does not take its answers or too many of its requests are in work."""
        pending = len(self._answering) + len(self._waiting)
        pause = self._reading and (self._write_paused or pending >= HTTP_PIPELINE_MAX)
        self._attention = pause or self.ending or self._continue_due or self._refusal is not None or bool(self._waiting)
        if pause is not self._read_paused and not self._transport.is_closing():
            self._read_paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # --- what is rare ----------------------------------------------------------------------------

    def _request_incomplete(self) -> None:
        """A read ended inside a request: bounds its size early and answers `Expect: 100-continue`."""
        if not self._partial:
            self._partial = True
            self._unfruitful_bytes = self._read_bytes
        elif self._body_bytes == self._body_bytes_seen:
            self._unfruitful_bytes += self._read_bytes
        if self._body_bytes != self._body_bytes_seen:
            self._body_bytes_seen = self._body_bytes
            self._unfruitful_bytes = 0
        # The first read may have held other requests as well: the count is exact to one read. A head that is
        # complete is measured to the byte in on_headers_complete.
        if self._unfruitful_bytes > self._head_bytes_max + READ_BYTES_MAX or len(self._headers) > HTTP_HEADERS_MAX:
            self.refuse(431, "The request line and headers are too long.")
            return
        head = self._head
        if head is None or self._head_examined:
            return
        self._head_examined = True
        for name, value in head:
            if name == b"content-length" and int(value) > self._server.body_bytes_max:
                self.refuse(413, "The request body is too long.")
                return
            if name == b"expect" and value.lower() == b"100-continue" and self._body_bytes == 0:
                self._continue_due = self._parser.get_http_version() == "1.1"
        if self._continue_due:
            self._settle()

    def _leave_parser(self, status: int, detail: str) -> NoReturn:
        """Refuses from inside a callback of the parser, which only an exception ends."""
        self._refusal = (status, detail)
        raise ValueError(detail)

    def _parse_failed(self, error: HttpParserError) -> None:
        if self._refusal is None:
            if not self._reading:
                return  # bytes behind the last request
            if isinstance(error, HttpParserCallbackError):
                self._server.handler_failed(error)  # a defect of ours
            self._refusal = (400, f"The request is not valid HTTP: {error}.".replace('"', "'"))
        self._begin_refusal()

    def refuse(self, status: int, detail: str) -> None:
        """Answers in the server's own name, behind the answers still in work, and ends the connection."""
        self._refusal = (status, detail)
        self._begin_refusal()
        self._settle()

    def _begin_refusal(self) -> None:
        self._server.refused()
        self._reading = self._continue_due = False
        self._attention = True
        self._target = self._head = None
        self._headers = []
        self._body = b""

    def _write_refusal(self, status: int, detail: str) -> None:
        """Closing with unread bytes would reset the connection and take the answer along: so the client may go on
        sending into the void for a while."""
        self._refusal = None
        body = message_body(detail)
        head = self.heads.head(status, keep_alive=False)
        answer = b"%b%d\r\n%b\r\n%b" % (head, len(body), JSON_HEADERS, body)
        self.bytes_sent += len(answer)
        self._transport.write(answer)
        self._lingering = True
        self._quiet_ticks = 0
        if self._eof:
            self._transport.close()
        else:
            self._transport.write_eof()

    def _without_upgrade(self, rest: bytes) -> bytes:
        """Upgrade is an offer that may be declined: the same request without it, to be read by a new parser.

        The parser has reported a message without its body and has stopped.
        """
        request = self._waiting.pop()
        self.requests -= 1
        self._parser = HttpRequestParser(self)
        if request.method == b"CONNECT":
            self._refusal = (405, "This server is no proxy.")
            self._begin_refusal()
            return b""
        lines = [b"%b %b HTTP/1.1\r\n" % (request.method, request.target)]
        for name, value in request.headers:
            if name == b"connection":
                value = b",".join(word for word in value.split(b",") if word.strip().lower() != b"upgrade")
            if name != b"upgrade":
                lines.append(b"%b: %b\r\n" % (name, value))
        return b"".join((*lines, b"\r\n", rest))

    # --- the server's side -----------------------------------------------------------------------

    @property
    def requests_in_flight(self) -> int:
        return len(self._waiting) + len(self._answering)

    def abort(self) -> None:
        self._transport.abort()

    def drain(self) -> None:
        """Ends the connection: at once if it is idle, else behind the requests that have begun to arrive."""
        self.ending = self._attention = True
        self._settle()

    def tick(self, tick_seconds: float) -> None:
        """Called by the server's one timer; ends connections on which nothing has happened for too long."""
        progress = self.requests + self._body_bytes
        if self._answering or progress != self._progress_seen:
            self._progress_seen = progress
            self._quiet_ticks = 0
            if not self._write_paused:
                return
        self._quiet_ticks += 1
        quiet_seconds = self._quiet_ticks * tick_seconds
        if self._lingering:
            if quiet_seconds > HTTP_LINGER_SECONDS:
                self._transport.abort()
        elif self._target is not None:
            if quiet_seconds > self._server.request_seconds:
                self.refuse(408, "The request did not arrive in time.")
        elif quiet_seconds > self._server.idle_seconds:
            self._transport.abort()  # nothing is in work, or the client takes no answers
