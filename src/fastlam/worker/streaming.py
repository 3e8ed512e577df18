"""Responses that a function gives in pieces: by what its handler returns, or through `context.response_stream`.

A caller who takes the response in pieces gets each of them as it comes; for any other caller they are put together. It
is the same object for both: a handler does not notice which of them has called.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

from fastlam import limits
from fastlam.wire.frames import Invoke
from fastlam.worker.faults import MARSHAL_ERROR, Fault

if TYPE_CHECKING:
    from fastlam.core.channel import PlainInvoke

CONTENT_TYPE: Final = "application/octet-stream"
HTTP_CONTENT_TYPE: Final = "application/vnd.awslambda.http-integration-response"
_CONTENT_TYPE_CHARACTERS_MAX: Final = 256
_METADATA_END: Final = bytes(8)
_OVER: Final = "the invocation is over: nothing more can be written to its response"
PLAIN: Final = frozenset({dict, list, tuple, str, bytes, int, float, bool, NoneType})

# send(piece, content type) passes one piece on; the first has the content type of them all, the others an empty one.
Send = Callable[[bytes | memoryview, str], None]


def is_stream(result: object) -> bool:
    """Whether what a handler has returned is to be iterated over, and not to be written as JSON."""
    kind = type(result)
    return kind not in PLAIN and (hasattr(kind, "__next__") or hasattr(kind, "__anext__"))


class ResponseStream:
    """What `context.response_stream` is. Usable from any thread of the function until the handler has returned, or what
    it has returned has come to its end.

    Without `send` all pieces are kept, for a caller who takes the response whole.
    """

    def __init__(self, send: Send | None) -> None:
        self._send = send
        self._lock = threading.RLock()  # re-entrant: a signal handler of the function may write, too
        self._content_type = CONTENT_TYPE
        self._metadata = b""
        self._used = False
        self._begun = False
        self._ended = False
        self._kept: list[bytes | memoryview] = []
        self._kept_bytes = 0

    def write(self, data: bytes | str) -> None:
        """Passes one piece on, a text as UTF-8. Waits while the caller does not keep up."""
        piece = _bytes_of(data)
        with self._lock:
            self._begin()
            self._pass_on(piece)

    def set_content_type(self, content_type: str) -> None:
        """Names the type of the response, before anything of it is written."""
        if not content_type.isascii() or not content_type.isprintable():
            raise ValueError(f"{content_type!r} cannot be a content type")
        if len(content_type) > _CONTENT_TYPE_CHARACTERS_MAX:
            raise ValueError(f"a content type has at most {_CONTENT_TYPE_CHARACTERS_MAX} characters")
        with self._lock:
            self._prepare()
            self._content_type = content_type

    def set_http_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Status and headers for a response that becomes one of HTTP: `statusCode`, `headers` and `cookies`, each of
        which may be left out. They are written in front of the first piece, and the content type says so.
        """
        text = json.dumps(dict(metadata)).encode() + _METADATA_END
        with self._lock:
            self._prepare()
            self._content_type = HTTP_CONTENT_TYPE
            self._metadata = text

    # -- the runtime's side -----------------------------------------------------------------------

    @property
    def used(self) -> bool:
        """Whether the response is a stream; False if somebody has only looked at it."""
        return self._used

    def consume(self, pieces: Any) -> None:
        """Writes what an iterator gives, each piece as it comes, and closes it."""
        self._used = True
        if hasattr(type(pieces), "__anext__"):
            import asyncio  # what few functions need, and no environment should have to load

            error = asyncio.run(self._consume_asynchronous(pieces))
            if error is not None:
                raise error  # from here, so that no line of the event loop stands in the stack trace
            return
        try:
            for piece in pieces:
                self._write_given(piece)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()

    async def _consume_asynchronous(self, pieces: Any) -> Exception | None:
        try:
            async for piece in pieces:
                self._write_given(piece)
            return None
        except Exception as error:
            return error
        finally:
            if hasattr(pieces, "aclose"):
                await pieces.aclose()

    def _write_given(self, piece: Any) -> None:
        """As `write`; a piece that cannot be written is no error that the handler's code could see."""
        try:
            data = _bytes_of(piece)
        except (TypeError, UnicodeEncodeError) as error:
            raise Fault(MARSHAL_ERROR, f"Unable to marshal response: {error}") from error
        self.write(data)

    def end(self) -> tuple[bytes, str]:
        """Takes no more. What has been kept and its content type; nothing where every piece has been passed on."""
        with self._lock:
            if self._used and not self._ended:
                self._begin()
            self._ended = True
            body = b"".join(self._kept)
            self._kept.clear()
            return body, self._content_type

    def _prepare(self) -> None:
        if self._begun or self._ended:
            raise ValueError("the response has begun: its type and its HTTP metadata can no longer be set")
        self._used = True

    def _begin(self) -> None:
        if self._ended:
            raise ValueError(_OVER)
        if not self._begun:
            self._begun = self._used = True
            if self._send is not None:
                self._send(b"", self._content_type)
            self._pass_on(self._metadata)

    def _pass_on(self, piece: bytes) -> None:
        if not piece:
            return
        if self._send is None:
            # One byte over the limit is enough to say that the response is too large.
            if self._kept_bytes <= limits.RESPONSE_BYTES_MAX:
                self._kept.append(piece)
                self._kept_bytes += len(piece)
        elif len(piece) <= limits.CHUNK_BYTES_MAX:
            self._send(piece, "")
        else:
            view = memoryview(piece)
            for start in range(0, len(piece), limits.CHUNK_BYTES_MAX):
                self._send(view[start : start + limits.CHUNK_BYTES_MAX], "")


def _bytes_of(piece: Any) -> bytes:
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, str):
        return piece.encode()
    try:
        return bytes(memoryview(piece))
    except TypeError:
        raise TypeError(f"a piece of a response is bytes or str, not {type(piece).__name__}") from None


class Responses:
    """Where the stream of the invocation that runs comes into being: when somebody asks for it.

    The runtime's thread sets `call` when it begins, and takes it away when the handler is done and before it looks for
    a stream. Another thread that asks meanwhile has either made one that is found, or is told that it came too late.
    """

    def __init__(self) -> None:
        self.call: Invoke | PlainInvoke | None = None
        self.stream: ResponseStream | None = None
        self.sender: Callable[[Invoke | PlainInvoke], Send | None] = _keep
        self._making = threading.Lock()

    def open(self, request_id: str) -> ResponseStream:
        """The stream of the call with this id; raises ValueError when that is over."""
        with self._making:
            call = self.call
            if call is None or call.request_id != request_id:
                raise ValueError(_OVER)
            if self.stream is None:
                self.stream = ResponseStream(self.sender(call))
            if self.call is not call:
                self.stream = None
                raise ValueError(_OVER)
            return self.stream

    def consume(self, request_id: str, pieces: Any) -> None:
        """See ResponseStream.consume."""
        self.open(request_id).consume(pieces)

    def end(self) -> tuple[bytes, str] | None:
        """The end of the stream, if the call has used one; `call` has been taken away."""
        stream, self.stream = self.stream, None
        return stream.end() if stream is not None and stream.used else None


def _keep(_: Invoke | PlainInvoke) -> None:
    """The sender of a runtime whose callers take their responses whole."""


responses: Final = Responses()  # of this process, as its log and its environment variables are
