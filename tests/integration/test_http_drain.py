"""The end of an HTTP server: what has begun is finished, what idles is closed, what takes too long is cut."""

from __future__ import annotations

import asyncio

import pytest

from http_running import WAIT_SECONDS, Running, read_all, read_response
from waiting import await_that

pytestmark = pytest.mark.usefixtures("fronts")


def refuses_connections(server: Running) -> bool:
    """Front processes close their listening sockets one after the other."""
    try:
        server.connect().close()
    except OSError:
        return True
    return False


def test_drain_finishes_requests_in_flight_and_closes_idle_connections() -> None:
    with Running() as server:
        idle, busy, partial = server.connect(), server.connect(), server.connect()
        with idle, busy, partial, busy.makefile("rb") as stream, partial.makefile("rb") as partial_stream:
            partial.sendall(b"POST /partial HTTP/1.1\r\nContent-Length: 2\r\n\r\n")
            busy.sendall(b"GET / HTTP/1.1\r\n\r\n")
            request = server.next()
            draining = asyncio.run_coroutine_threadsafe(server.server.drain(WAIT_SECONDS), server.loop)
            assert read_all(idle) == b""
            await_that(lambda: refuses_connections(server))
            assert not draining.done()
            server.call(request.respond, 200, b"", b"done")
            status, headers, body = read_response(stream)
            assert (status, headers["connection"], body) == (200, "close", b"done")
            assert stream.read() == b""
            partial.sendall(b"ab")
            server.call(server.next().respond, 200, b"", b"whole")
            assert read_response(partial_stream)[2] == b"whole"
            draining.result(WAIT_SECONDS)
        assert server.call(server.server.statistics).connections_open == 0


def test_drain_says_close_only_in_the_last_answer() -> None:
    with Running() as server, server.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nPOST /3 HTTP/1.1\r\nContent-Length: 2\r\n\r\n")
        first, second = server.next(), server.next()
        draining = asyncio.run_coroutine_threadsafe(server.server.drain(WAIT_SECONDS), server.loop)
        for request in (first, second):
            server.call(request.respond, 200, b"", b"")
            assert read_response(stream)[1]["connection"] == "keep-alive"
        client.sendall(b"ab")
        server.call(server.next().respond, 200, b"", b"")
        assert read_response(stream)[1]["connection"] == "close"
        draining.result(WAIT_SECONDS)


def test_drain_with_a_refusal_behind_an_answer() -> None:
    with Running() as server, server.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"GET /1 HTTP/1.1\r\n\r\nnonsense\r\n\r\n")
        request = server.next()
        draining = asyncio.run_coroutine_threadsafe(server.server.drain(WAIT_SECONDS), server.loop)
        server.call(request.respond, 200, b"", b"")
        assert [read_response(stream)[0] for _ in range(2)] == [200, 400]
        client.close()
        stream.close()
        draining.result(WAIT_SECONDS)


def test_drain_cuts_what_does_not_finish() -> None:
    with Running() as server, server.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        request = server.next()
        server.run(server.server.drain(0.01))
        assert request.closed
        assert client.recv(1) == b""
        server.call(request.respond, 200, b"", b"too late")
