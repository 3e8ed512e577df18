"""Mutated requests: whatever the bytes, the server answers or closes, stays up, and serves the next good request."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastlam.http.server import Request
from http_running import WAIT_SECONDS, Running

BODY_BYTES_MAX = 10_000
SEEDS = (
    b"GET /2015-03-31/functions/ HTTP/1.1\r\nHost: localhost:4566\r\nAccept: */*\r\n\r\n",
    b'POST /2015-03-31/functions/hello/invocations?Qualifier=1 HTTP/1.1\r\nContent-Length: 15\r\n\r\n{"key":"value"}',
    b"POST /2015-03-31/functions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4;e=1\r\nabcd\r\n10\r\n0123456789abcdef\r\n0\r\nX-T: 1\r\n\r\n",
    b"PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
    b"DELETE /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nHEAD /b HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
)
PIECES = (
    *(b"\r\n", b"\n", b"\0", b" ", b":", b"\xff", b"\r\n\r\n", b"HTTP/1.1", b"HTTP/9.9", b"Content-Length: 5\r\n"),
    *(b"Content-Length: -5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"ffffffffffffffffff\r\n", b"%00"),
    *(
        b"Upgrade: x\r\nConnection: upgrade\r\n",
        b"Expect: 100-continue\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"x" * 9000,
    ),
)


@st.composite
def mutated(draw: st.DrawFn) -> list[bytes]:
    """A few valid requests in a row with bytes flipped, cut, doubled and foreign pieces put in; in several sends."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.integers(0, 40)))
        kind = draw(st.sampled_from(("insert", "delete", "double", "flip", "replace")))
        if kind == "insert":
            data[at:at] = draw(st.sampled_from(PIECES))
        elif kind == "delete":
            del data[at:until]
        elif kind == "double":
            data[at:at] = data[at:until]
        elif kind == "replace":
            data[at:until] = draw(st.binary(max_size=20))
        elif at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    return [bytes(data[start:end]) for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def answer(request: Request) -> None:
    """Half of the answers come later than the handler returns, in another order."""
    assert len(request.body) <= BODY_BYTES_MAX
    if len(request.target) % 2:
        asyncio.get_running_loop().call_soon(request.respond, 200, b"", request.body)
    else:
        request.respond(200, b"", request.body)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with Running(answer, body_bytes_max=BODY_BYTES_MAX, header_bytes_max=8192) as running:
        yield running


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pieces=mutated())
def test_any_bytes(server: Running, pieces: list[bytes]) -> None:
    received = bytearray()
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_SECONDS) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            while data := client.recv(65_536):
                received += data
        except OSError as error:  # closed before it had read everything: allowed after the last answer
            assert error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
    assert not received or re.match(rb"HTTP/1\.1 [1-5]\d\d ", received)
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_SECONDS) as client:
        client.sendall(b"POST /good HTTP/1.0\r\nContent-Length: 4\r\n\r\nnext")
        answer = bytearray()
        while data := client.recv(65_536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nnext")
    assert server.errors == []


def test_nothing_is_left_open(server: Running) -> None:
    async def settled() -> None:
        while server.server.statistics().connections_open:
            await asyncio.sleep(0)

    server.run(settled())
    assert server.server.statistics().requests_in_flight == 0
    assert server.server.statistics().handler_errors == 0
