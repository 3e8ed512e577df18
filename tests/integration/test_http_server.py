"""The HTTP server on real sockets: order, limits, malformed requests, back-pressure."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fastlam.http.server import HttpServer, Request
from fastlam.limits import HTTP_HEADERS_MAX, HTTP_PIPELINE_MAX
from http_running import WAIT_SECONDS, Running, echo, exchange, read_all, read_response

pytestmark = pytest.mark.usefixtures("fronts")

@pytest.fixture
def running() -> Iterator[Running]:
    with Running(echo) as server:
        yield server


def refused(server: Running, data: bytes, status: int) -> None:
    """The bytes get exactly this answer, run nothing, and the server lives on."""
    answer = exchange(server, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"\r\nConnection: close\r\n" in answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert json.loads(body)["message"]
    assert b"Content-Length: %d" % len(body) in head
    assert server.seen.empty()
    assert exchange(server, b"GET /next HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


# --- what a client gets ------------------------------------------------------------------------------


def test_keep_alive_with_the_standard_client(running: Running) -> None:
    client = http.client.HTTPConnection("127.0.0.1", running.port, timeout=WAIT_SECONDS)
    for number in range(20):
        client.request("POST", f"/functions/f{number}?Qualifier=1", body=b"x" * number, headers={"X-Number": "1"})
        response = client.getresponse()
        assert response.status == 200
        assert response.headers["Connection"] == "keep-alive"
        assert response.headers["Date"].endswith(" GMT")
        assert json.loads(response.read()) == {
            "method": "POST",
            "path": f"/functions/f{number}",
            "query": "Qualifier=1",
            "body_bytes": number,
            "body": "x" * number,
        }
    assert running.next().header(b"x-number") == b"1"
    assert running.next().header(b"x-none") is None
    client.close()
    statistics = running.call(running.server.statistics)
    assert (statistics.connections_total, statistics.requests_total, statistics.requests_in_flight) == (1, 20, 0)
    assert statistics.requests_refused == 0
    assert statistics.bytes_received > 20 * 60 and statistics.bytes_sent > 20 * 100


def test_http_1_0(running: Running) -> None:
    answer = exchange(running, b"GET /a HTTP/1.0\r\n\r\n")
    assert b"Connection: close" in answer and b'"path": "/a"' in answer
    with running.connect() as client, client.makefile("rb") as stream:
        for _ in range(3):
            client.sendall(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert read_response(stream)[1]["connection"] == "keep-alive"


def test_connection_close_ends_after_the_answer_and_ignores_what_follows(running: Running) -> None:
    answer = exchange(running, b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\nGET /b HTTP/1.1\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1 and b"Connection: close" in answer
    assert running.next().path == b"/a" and running.seen.empty()


def test_head_and_bodiless_statuses() -> None:
    def answer(request: Request) -> None:
        request.respond(int(request.path[1:]), b"", b"12345")

    with Running(answer) as server, server.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"HEAD /200 HTTP/1.1\r\n\r\nGET /204 HTTP/1.1\r\n\r\nGET /304 HTTP/1.1\r\n\r\n")
        assert read_response(stream, "HEAD")[1]["content-length"] == "5"
        for status in (204, 304):
            code, headers, _ = read_response(stream)
            assert code == status and "content-length" not in headers
        client.sendall(b"GET /599 HTTP/1.1\r\n\r\n")
        assert read_response(stream)[::2] == (599, b"12345")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/a%2Fb?c=%20d?e", b"/a%2Fb", b"c=%20d?e"),
        (b"/", b"/", b""),
        (b"*", b"*", b""),
        (b"http://host:1/a?b", b"/a", b"b"),
        (b"http://host", b"/", b""),
        (b"http://host?a=/b", b"/", b"a=/b"),
        (b"//double", b"//double", b""),
    ],
)
def test_targets(running: Running, target: bytes, path: bytes, query: bytes) -> None:
    exchange(running, b"OPTIONS %b HTTP/1.0\r\n\r\n" % target)
    request = running.next()
    assert (request.target, request.path, request.query) == (target, path, query)


def test_headers_are_lower_cased_in_order_and_duplicates_kept(running: Running) -> None:
    exchange(running, b"GET / HTTP/1.0\r\nB-One: 1\r\nEMPTY:\r\na: x\r\nb-one:  2 \r\n\r\n")
    assert running.next().headers == [(b"b-one", b"1"), (b"empty", b""), (b"a", b"x"), (b"b-one", b"2")]


def test_one_byte_at_a_time(running: Running) -> None:
    request = (
        b"POST /slow?q HTTP/1.1\r\nContent-Type: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;name=value\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )
    with running.connect() as client, client.makefile("rb") as stream:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request * 2:
            client.sendall(bytes((byte,)))
        for _ in range(2):
            assert json.loads(read_response(stream)[2])["body"] == "abcde"
    for _ in range(2):
        seen = running.next()
        assert seen.headers == [(b"content-type", b"a"), (b"transfer-encoding", b"chunked")]


@pytest.mark.parametrize("size", [0, 1, 65_535, 262_144, 1_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_up_to_the_limit_come_through_whole(size: int, chunked: bool) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]

    def answer(request: Request) -> None:
        request.respond(200, b"", request.body)

    with Running(answer) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_SECONDS)
        for _ in range(2):
            body: Any = iter([data[:7], data[7:1000], data[1000:]]) if chunked else data
            client.request("POST", "/", body=body, encode_chunked=chunked)
            assert client.getresponse().read() == data
        client.close()


def test_expect_100_continue(running: Running) -> None:
    with running.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n")
        assert stream.readline() == b"HTTP/1.1 100 Continue\r\n" and stream.readline() == b"\r\n"
        client.sendall(b"abc")
        assert json.loads(read_response(stream)[2])["body"] == "abc"


def test_100_continue_waits_for_the_answers_before_it() -> None:
    with Running() as server, server.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        server.call(server.next().respond, 200, b"", b"first")
        assert read_response(stream)[2] == b"first"
        assert stream.readline() == b"HTTP/1.1 100 Continue\r\n" and stream.readline() == b"\r\n"
        client.sendall(b"abc")
        server.call(server.next().respond, 200, b"", b"second")
        assert read_response(stream)[2] == b"second"


def test_an_upgrade_is_declined_and_the_request_served(running: Running) -> None:
    with running.connect() as client, client.makefile("rb") as stream:
        upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        client.sendall(
            (b"POST /u HTTP/1.1\r\n%bContent-Length: 3\r\n\r\nabc" % upgrade) * 3 + b"GET /n HTTP/1.1\r\n\r\n"
        )
        for _ in range(3):
            assert json.loads(read_response(stream)[2])["body"] == "abc"
        assert json.loads(read_response(stream)[2])["path"] == "/n"


# --- order and pressure ------------------------------------------------------------------------------


def test_pipelined_answers_come_in_the_order_of_the_requests() -> None:
    with Running() as server, server.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(10)))
        requests = [server.next() for _ in range(10)]
        for request in (*requests[5:], *requests[4::-1]):
            server.call(request.respond, 200, b"", request.path)
        assert [read_response(stream)[2] for _ in range(10)] == [b"/%d" % number for number in range(10)]


def test_the_number_of_pipelined_requests_in_work_is_bounded() -> None:
    total = 5 * HTTP_PIPELINE_MAX + 7
    with Running() as server, server.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(total)))
        answered = 0
        while answered < total:
            batch = [server.next() for _ in range(min(HTTP_PIPELINE_MAX, total - answered))]
            assert server.seen.empty()  # the next is handed out only when one of these is answered
            server.call(lambda requests: [one.respond(200, b"", one.path) for one in reversed(requests)], batch)
            for _ in batch:
                assert read_response(stream)[2] == b"/%d" % answered
                answered += 1


def test_a_full_pipeline_stops_the_reading() -> None:
    request = b"GET / HTTP/1.1\r\n\r\n"
    with Running() as server, server.connect() as client, client.makefile("rb") as stream:
        client.sendall(request * HTTP_PIPELINE_MAX)
        requests = [server.next() for _ in range(HTTP_PIPELINE_MAX)]
        client.sendall(request * 1000)  # now in the kernel; the loop has turned when another client was served
        for _ in range(3):
            with server.connect() as other:
                other.sendall(request)
                server.call(server.next().respond, 200, b"", b"")
                other.recv(1)
        statistics = server.call(server.server.statistics)
        assert statistics.bytes_received == len(request) * (HTTP_PIPELINE_MAX + 3)
        for one in requests:
            server.call(one.respond, 200, b"", b"")
        for _ in range(1000):
            server.call(server.next().respond, 200, b"", b"")
        assert all(read_response(stream)[0] == 200 for _ in range(HTTP_PIPELINE_MAX + 1000))


def test_a_deep_pipeline_answered_at_once(running: Running) -> None:
    total = 20_000
    with running.connect() as client, client.makefile("rb") as stream:
        sender = threading.Thread(target=client.sendall, args=(b"GET /a HTTP/1.1\r\n\r\n" * total,))
        sender.start()
        assert all(read_response(stream)[0] == 200 for _ in range(total))
        sender.join(WAIT_SECONDS)


def test_a_client_that_does_not_read_stops_being_read() -> None:
    big = b"x" * 1_000_000

    def answer(request: Request) -> None:
        request.respond(200, b"", big)

    with Running(answer) as server, server.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n" * 500)
        for _ in range(3):
            server.next()
        statistics = server.call(server.server.statistics)
        assert statistics.bytes_sent < 100 * len(big)  # buffered in kernel and transport, not 500 answers
        for _ in range(500):
            assert len(read_response(stream)[2]) == len(big)


def test_half_closed_client_gets_its_answers() -> None:
    with Running() as server, server.connect() as client:
        client.sendall(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        first, second = server.next(), server.next()
        server.call(second.respond, 200, b"", b"two")
        server.call(first.respond, 200, b"", b"one")
        answer = read_all(client)
        assert answer.index(b"one") < answer.index(b"two")
        # Whether a front process has read the end before the answers came is a matter of chance.
        assert answer.count(b"Connection: close") == 1 or Running.fronts


def test_answering_a_client_that_is_gone_is_harmless() -> None:
    with Running() as server:
        with server.connect() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # close() resets
            client.sendall(b"GET / HTTP/1.1\r\n\r\n" * 3)
            requests = [server.next() for _ in range(3)]
            assert not requests[0].closed

        async def wait_closed() -> None:
            while not requests[0].closed:
                await asyncio.sleep(0)

        server.run(wait_closed())
        for request in requests:
            server.call(request.respond, 200, b"", b"late")
        assert server.call(server.server.statistics).connections_open == 0
        assert server.errors == []


def test_answering_a_connection_that_is_being_cut_is_harmless() -> None:
    with Running() as server, server.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n" * 2)
        requests = [server.next(), server.next()]

        async def cut_and_answer() -> None:
            draining = asyncio.ensure_future(server.server.drain(0))
            while not draining.done():  # every turn of the loop, also those between the cut and its report
                await asyncio.sleep(0)
                for connection in tuple(server.server._connections)[: len(requests)]:
                    connection.abort()
                    requests.pop(0).respond(200, b"", b"x")

        server.run(cut_and_answer())
        assert server.errors == []


def test_answering_twice_is_a_programming_error(running: Running) -> None:
    exchange(running, b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(RuntimeError, match="already"):
        running.call(running.next().respond, 200, b"", b"")


def test_a_failing_handler_is_a_500_and_the_connection_lives_on() -> None:
    def answer(request: Request) -> None:
        if request.path == b"/late":
            request.respond(200, b"", b"ok")
        raise ValueError("boom")

    with Running(answer) as server, server.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"GET / HTTP/1.1\r\n\r\nGET /late HTTP/1.1\r\n\r\n")
        assert read_response(stream)[0] == 500
        assert read_response(stream)[0] == 200
        assert server.call(server.server.statistics).handler_errors == 2
        assert [str(context["exception"]) for context in server.errors] == ["boom", "boom"]


# --- bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the start of TLS
        b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\nA: b\n\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\nx",
        b"POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999999\r\n\r\nx",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    ],
)
def test_malformed_requests_get_400(running: Running, data: bytes) -> None:
    refused(running, data, 400)
    assert running.call(running.server.statistics).requests_refused == 1


def test_versions_and_methods_of_another_protocol(running: Running) -> None:
    refused(running, b"GET / HTTP/2.0\r\n\r\n", 505)
    running.next()
    refused(running, b"GET /\r\n\r\n", 505)
    running.next()
    refused(running, b"CONNECT host:443 HTTP/1.1\r\n\r\n", 405)


def test_good_requests_before_a_malformed_one_are_answered_first() -> None:
    with Running() as server, server.connect() as client:
        client.sendall(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nnonsense\r\n\r\n")
        first, second = server.next(), server.next()
        server.call(second.respond, 200, b"", b"two")
        server.call(first.respond, 200, b"", b"one")
        answer = read_all(client)
        assert answer.index(b"one") < answer.index(b"two") < answer.index(b"HTTP/1.1 400 ")
        assert answer.endswith(b"}")


@pytest.mark.parametrize("end", ["close", "half-close"])
@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        b"POST / HTTP/1.1\r\nContent-Le",
        b"PO",
        b"",
    ],
)
def test_truncated_requests_run_nothing(running: Running, data: bytes, end: str) -> None:
    with running.connect() as client:
        client.sendall(data)
        if end == "half-close":
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b""
    assert exchange(running, b"GET /next HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert running.next().path == b"/next" and running.seen.empty()


def test_too_long_a_body_is_refused_before_it_is_read() -> None:
    with Running(echo, body_bytes_max=1000) as server:
        refused(server, b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", 413)
        server.next()
        refused(server, b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001, 413)
        server.next()
        refused(server, b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n", 413)
        server.next()
        refused(
            server, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"64\r\n%b\r\n" % (b"x" * 100) * 11, 413
        )
        server.next()
        # a client that sends everything before it reads gets its answer, not a reset
        refused(server, b"POST / HTTP/1.1\r\nContent-Length: 20000000\r\n\r\n" + b"x" * 20_000_000, 413)


@pytest.mark.parametrize("split", [False, True])
def test_header_bytes_limit_is_exact(split: bool) -> None:
    line = b"X-Long: "

    def request(extra: int) -> bytes:
        # counted: the target, and name + value + 4 for each header
        return b"GET / HTTP/1.1\r\n" + line + b"v" * (8192 - 1 - 6 - 4 + extra) + b"\r\n\r\n"

    with Running(echo, header_bytes_max=8192) as server:
        for extra, status in ((0, 200), (1, 431)):
            with server.connect() as client, client.makefile("rb") as stream:
                data = request(extra)
                if split:
                    client.sendall(data[:5000])
                    server.call(lambda: None)
                    data = data[5000:]
                client.sendall(data)
                assert read_response(stream)[0] == status


def test_ten_thousand_header_bytes_are_fine_and_too_many_headers_are_not(running: Running) -> None:
    long = b"".join(b"X-Header-%03d: %b\r\n" % (number, b"v" * 84) for number in range(100))
    assert exchange(running, b"GET / HTTP/1.0\r\n" + long + b"\r\n").startswith(b"HTTP/1.1 200 ")
    assert len(running.next().headers) == 100
    many = b"a: b\r\n" * (HTTP_HEADERS_MAX + 1)
    refused(running, b"GET / HTTP/1.1\r\n" + many + b"\r\n", 431)
    running.next()
    refused(running, b"GET / HTTP/1.1\r\n" + many + b"c: d\r\n", 431)


@pytest.mark.parametrize(
    "start",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nA: ",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nTrailer: ",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;extension=",
    ],
)
def test_endless_heads_trailers_and_extensions_are_bounded(start: bytes) -> None:
    with Running(echo, header_bytes_max=8192) as server:
        refused(server, start + b"x" * 1_000_000, 431)


def test_a_silent_or_slow_client_is_closed() -> None:
    with Running(echo, idle_seconds=0.02, request_seconds=0.02, tick_seconds=0.01) as server:
        with server.connect() as client:
            assert read_all(client) == b""  # nothing was sent
        for start in (b"GET / HTTP/1.1\r\nA: ", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"):
            assert exchange(server, start).startswith(b"HTTP/1.1 408 ")
        assert server.seen.empty()


def test_a_handler_that_takes_long_is_not_taken_for_a_silent_client() -> None:
    with (
        Running(idle_seconds=0.01, request_seconds=0.01, tick_seconds=0.005) as server,
        server.connect() as busy,
        busy.makefile("rb") as stream,
    ):
        busy.sendall(b"GET / HTTP/1.1\r\n\r\n")
        request = server.next()
        with server.connect() as silent:
            assert read_all(silent) == b""  # closed by the same ticks
        server.call(request.respond, 200, b"", b"late")
        assert read_response(stream)[2] == b"late"


# --- connections -------------------------------------------------------------------------------------


def test_connections_over_the_maximum_get_503(running: Running) -> None:
    with Running(echo, connections_max=2) as server:
        first, second = server.connect(), server.connect()
        with first, second, first.makefile("rb") as stream, second.makefile("rb") as other:
            for client in (first, second):
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert (read_response(stream)[0], read_response(other)[0]) == (200, 200)
            for _ in range(3):
                assert exchange(server, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 503 ")
            first.sendall(b"GET /again HTTP/1.1\r\n\r\n")
            assert read_response(stream)[0] == 200
            assert server.call(server.server.statistics).connections_refused == 3


def test_second_server_on_the_port() -> None:
    with Running(echo) as server:

        async def start() -> int:
            return await HttpServer(echo, body_bytes_max=1).start("127.0.0.1", server.port)

        with pytest.raises(OSError, match="in use"):
            server.run(start())
