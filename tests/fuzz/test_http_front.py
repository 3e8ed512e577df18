"""The front and the general protocol understand every stream of bytes alike: the same requests, the same answers.

A request that two parsers read differently could be smuggled past one of them. So the same bytes, cut at the same places, go through a
server as it is and through one that has no front.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastlam.http.server import Request
from http_running import WAIT_SECONDS, Running, RunningWithoutFront
from http_streams import PLAIN_SEEDS, SEEDS, mutated

BODY_BYTES_MAX = 10_000
STREAMS = st.one_of(
    mutated(PLAIN_SEEDS, 0),  # nothing but plain requests, cut
    mutated(PLAIN_SEEDS, 2),
    mutated(PLAIN_SEEDS + SEEDS),
)

Seen = tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]


def at_once(request: Request) -> None:
    request.respond(200 + len(request.target) % 5, b"X-Path: %b\r\n" % request.path, request.body)


def in_any_order(request: Request) -> None:
    """Some later than the handler returns, behind others; some as chunks."""
    if len(request.target) % 3 == 0:
        asyncio.get_running_loop().call_soon(at_once, request)
    elif len(request.target) % 7 == 1 and request.method != b"HEAD":
        body = request.begin(200, b"X-Path: %b\r\n" % request.path)
        body.write(request.body)
        asyncio.get_running_loop().call_soon(body.end)
    else:
        at_once(request)


Pair = tuple[Running, Running]


@pytest.fixture(
    scope="module",
    params=[(at_once, 0), (in_any_order, 0), (at_once, 2), (in_any_order, 2)],
    ids=lambda param: f"{param[0].__name__}-fronts:{param[1]}",
)
def servers(request: pytest.FixtureRequest) -> Iterator[Pair]:
    answer: Callable[[Request], None] = request.param[0]
    options = {"body_bytes_max": BODY_BYTES_MAX, "header_bytes_max": 8192}
    with (
        Running(answer, fronts=request.param[1], **options) as front,
        RunningWithoutFront(answer, **options) as general,
    ):
        yield front, general


def exchange(server: Running, pieces: list[bytes]) -> tuple[bytes, list[Seen]]:
    """All that the server has to say, without what depends on the moment, and what its handler has seen."""
    received = bytearray()
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_SECONDS) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):  # closed before it had read everything
            for piece in pieces:
                client.sendall(piece)
                server.call(lambda: None)  # a turn of the loop: the next piece comes in a read of its own
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while data := client.recv(65_536):
                received += data
    seen = []
    while not server.seen.empty():
        request = server.seen.get()
        seen.append((request.method, request.target, request.headers, request.body))
        assert (request.path, request.query) == tuple(request.target.partition(b"?")[::2]) or request.target[:1] != b"/"
        assert all(request.header(name) is not None for name, _ in request.headers)
    said = re.sub(rb"Date: [^\r]*\r\n", b"", bytes(received))
    # Only said to those whose body has not come by then; a socket that changes hands gives it a little time.
    said = said.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    if server.answer is in_any_order:  # whether an answer is the last that a half-closed connection gives
        said = re.sub(rb"(?<=\r\nConnection: )(?:keep-alive|close)\r\n", b"", said)
        said = said.replace(b"\r\nConnection: ", b"\r\n")
    return said, seen


@settings(max_examples=700, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pieces=STREAMS)
def test_both_understand_the_same(servers: Pair, pieces: list[bytes]) -> None:
    front, general = servers
    expected = exchange(general, pieces)
    assert exchange(front, pieces) == expected
    assert front.errors == general.errors == []


def test_both_have_counted_the_same(servers: Pair) -> None:
    """Of one stream, since how many bytes were read before a refusal is a matter of chance."""
    front, general = servers
    stream = PLAIN_SEEDS[0] * 3 + SEEDS[2] + PLAIN_SEEDS[1] + SEEDS[4]

    async def settled(server: Running) -> None:
        while server.server.statistics().connections_open:
            await asyncio.sleep(0)

    counts = []
    for server in (front, general):
        server.run(settled(server))
        before = server.call(server.server.statistics)
        exchange(server, [stream])
        server.run(settled(server))
        after = server.call(server.server.statistics)
        assert after.requests_in_flight == after.handler_errors == 0
        counts.append(
            {
                name: getattr(after, name) - getattr(before, name)
                for name in ("connections_total", "requests_total", "requests_refused", "bytes_received")
            }
        )
    assert counts[0] == counts[1]
    assert counts[0]["connections_total"] == 1 and counts[0]["requests_total"] == 7
    assert counts[0]["bytes_received"] == len(stream)
