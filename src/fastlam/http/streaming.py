"""The body of an answer whose length nobody knows when it begins. Used in the loop's thread only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastlam.http.connection import Connection, Expected
    from fastlam.http.front import Request


class ResponseBody:
    """Made by `Request.begin`; written piece by piece and then ended, once.

    What is written goes into the transport's buffer, which grows for as long as the client does not read, or is held
    for as long as it is not this request's turn. So a writer looks at `writable`: when it is False, the rest has to
    wait until `on_writable` is called.
    """

    __slots__ = ("_active", "_chunked", "_connection", "_held", "_request", "_silent", "ended", "on_writable")

    _connection: Connection | Expected

    def __init__(self, connection: Connection | Expected, request: Request, head: bytes, chunked: bool) -> None:
        self._connection = connection
        self._request = request
        self._held: list[bytes] = [head]
        self._chunked = chunked
        self._silent = request.method == b"HEAD"
        self._active = False  # it is this request's turn
        self.ended = False
        self.on_writable: Callable[[], None] | None = None  # also called when the client has gone

    @property
    def writable(self) -> bool:
        """Whether there is room for more. Of a client that has gone always: what is written is thrown away."""
        connection = self._connection
        return connection.closed or (self._active and connection.takes_more)

    def write(self, data: bytes) -> None:
        """One more piece, however full the buffer is."""
        if self.ended:
            raise RuntimeError("the answer has been ended already")
        if data and not self._silent:
            self._put(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """There is no more: the client is told, and the connection goes on to the next answer."""
        if self.ended:
            raise RuntimeError("the answer has been ended already")
        if self._chunked and not self._silent:
            self._put(b"0\r\n\r\n")
        self.ended = True
        self._connection.flush(self._request)

    def abort(self) -> None:
        """There is no more, and the client must not think that this was all: the connection is cut."""
        self.ended = True
        if not self._connection.closed:
            self._connection.abort()

    # --- called by the connection ----------------------------------------------------------------

    def move(self, connection: Connection) -> None:
        """The connection is there that was expected."""
        self._connection = connection

    def begin(self) -> bool:
        """It is this request's turn, or was already: everything held is written. True if that was all."""
        self._active = True
        held, self._held = self._held, []
        if held:
            self._connection.send(b"".join(held))
        return self.ended

    def tell(self) -> None:
        """Something has changed: the writer is told if there is room."""
        if self.on_writable is not None and not self.ended and self.writable:
            self.on_writable()

    def _put(self, data: bytes) -> None:
        if self._connection.closed:
            return
        if self._active:
            self._connection.send(data)
        else:
            self._held.append(data)
