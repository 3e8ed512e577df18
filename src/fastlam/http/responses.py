"""Bytes of responses: status lines, and header blocks rendered once a second instead of once a response."""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON_HEADERS: Final = b"Content-Type: application/json\r\n"

LENGTH_NAME: Final = b"Content-Length: "

#: End of the head up to the caller's own headers, by body length: the common lengths need no formatting.
LENGTH_LINES: Final = tuple(b"%d\r\n" % length for length in range(4096))
LENGTH_LINES_MAX: Final = len(LENGTH_LINES)

_REASONS: Final = {int(status): status.phrase.encode() for status in HTTPStatus}


def bodiless(status: int) -> bool:
    """Whether a response of this status has neither body nor Content-Length."""
    return status == 204 or status == 304 or status < 200


class Heads:
    """The first lines of a response by status, up to and including `Content-Length: `; rendered again by every tick."""

    __slots__ = ("close", "keep_alive")

    def __init__(self) -> None:
        self.keep_alive: dict[int, bytes] = {}
        self.close: dict[int, bytes] = {}
        self.tick()

    def tick(self) -> None:
        """Takes the current second as the new Date. The dictionaries stay the same objects."""
        date = formatdate(time.time(), usegmt=True).encode()
        common = (200, 202, 204, 404, 429, *self.keep_alive)
        for heads, word in ((self.keep_alive, b"keep-alive"), (self.close, b"close")):
            for status in common:
                heads[status] = self._render(status, date, word)

    def head(self, status: int, keep_alive: bool) -> bytes:
        """The head of a status that may not have been used before."""
        heads = self.keep_alive if keep_alive else self.close
        if status not in heads:
            self.keep_alive[status] = self.close[status] = b""
            self.tick()
        return heads[status]

    @staticmethod
    def _render(status: int, date: bytes, connection: bytes) -> bytes:
        reason = _REASONS.get(status, b"Unknown")
        head = b"HTTP/1.1 %d %b\r\nDate: %b\r\nConnection: %b\r\n" % (status, reason, date, connection)
        return head if bodiless(status) else head + LENGTH_NAME


def message_body(message: str) -> bytes:
    """The body of an answer in the server's own name."""
    return b'{"message":"%b"}' % message.encode()
