"""Mutated requests: whatever the bytes, the server answers or closes, stays up, and serves the next good request."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from fastlam.http.server import Request
from http_running import WAIT_SECONDS, Running
from http_streams import mutated

BODY_BYTES_MAX = 10_000


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
