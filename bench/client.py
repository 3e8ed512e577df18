"""A cheap closed-loop client: keep-alive connections, one request each under way, no HTTP library in between."""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, NamedTuple

ANSWER_SECONDS: Final = 60.0
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")

Next = Callable[[], tuple[int, bytes] | None]  # the number of a request and its bytes; None when there are no more


class Answer(NamedTuple):
    number: int  # of the request
    head: bytes
    body: bytes

    @property
    def ok(self) -> bool:
        """200, and not the error of a function."""
        return self.head.startswith(b"HTTP/1.1 200 ") and b"x-amz-function-error" not in self.head.lower()


def run_closed_loop(port: int, connections: int, next_request: Next, on_answer: Callable[[Answer], None]) -> None:
    """Sends what `next_request` gives until it gives None and every answer is in. Raises when an answer does not come
    or a connection ends.
    """
    with ExitStack() as stack:
        epoll = stack.enter_context(select.epoll())
        peers: dict[int, socket.socket] = {}
        sent: dict[int, int] = {}
        partial: dict[int, bytes] = {}
        for _ in range(connections):
            request = next_request()
            if request is None:
                break
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS))
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peers[peer.fileno()] = peer
            epoll.register(peer, select.EPOLLIN)
            sent[peer.fileno()] = request[0]
            peer.sendall(request[1])
        while sent:
            ready = epoll.poll(ANSWER_SECONDS)
            if not ready:
                raise RuntimeError(f"{len(sent)} calls have had no answer for {ANSWER_SECONDS:.0f} s")
            for number, _ in ready:
                data = peers[number].recv(65536)
                if not data:
                    raise RuntimeError(f"the daemon closed a connection while call {sent[number]} was under way")
                data = partial.pop(number, b"") + data
                answer = parse(sent[number], data)
                if answer is None:
                    partial[number] = data
                    continue
                on_answer(answer)
                request = next_request()
                if request is None:
                    del sent[number]
                else:
                    sent[number] = request[0]
                    peers[number].sendall(request[1])


def parse(number: int, data: bytes) -> Answer | None:
    """The whole answer, or None if there is more to come."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, body = data[:end], data[end + 4 :]
    length = _LENGTH.search(head)
    if length is None:
        raise RuntimeError(f"an answer without Content-Length: {head!r}")
    missing = int(length[1]) - len(body)
    if missing < 0:
        raise RuntimeError(f"more came than one answer: {data!r}")
    return None if missing else Answer(number, head, body)
