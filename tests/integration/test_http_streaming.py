"""Answers whose length nobody knows at their beginning, on real sockets: framing, order, clients that do not read."""

from __future__ import annotations

import contextlib
import http.client
import queue
import socket
from typing import Any

import pytest

from fastlam.http.server import Request
from fastlam.http.streaming import ResponseBody
from http_running import WAIT_SECONDS, Running
from waiting import await_that

pytestmark = pytest.mark.usefixtures("fronts")

TEXT = b"Content-Type: text/plain\r\n"
PIECE = b"p" * 65_536


class Streaming:
    """A server that begins its answer to each request and leaves the rest to the test; /plain has an ordinary answer."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.bodies: queue.Queue[tuple[Request, ResponseBody]] = queue.Queue()
        self.told: list[bytes] = []  # whose writers have been told that there is room
        running.answer = self.answer

    def answer(self, request: Request) -> None:
        if request.path == b"/over":
            request.begin(200, TEXT).end()
        elif request.path == b"/plain":
            request.respond(200, TEXT, b"plain")
        else:
            body = request.begin(200, TEXT)
            body.on_writable = lambda: self.told.append(request.path)
            self.bodies.put((request, body))

    def next(self) -> ResponseBody:
        return self.bodies.get(timeout=WAIT_SECONDS)[1]

    def write(self, body: ResponseBody, *pieces: bytes) -> None:
        for piece in pieces:
            self.running.call(body.write, piece)

    def end(self, body: ResponseBody) -> None:
        self.running.call(body.end)

    def writable(self, body: ResponseBody) -> bool:
        return bool(self.running.call(lambda: body.writable))


@pytest.fixture
def streaming() -> Any:
    with Running() as running:
        yield Streaming(running)
        assert running.errors == []


def read_head(stream: Any) -> tuple[bytes, dict[str, str]]:
    status = stream.readline()
    headers: dict[str, str] = {}
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return status, headers


def test_pieces_arrive_when_they_are_written(streaming: Streaming) -> None:
    client = http.client.HTTPConnection("127.0.0.1", streaming.running.port, timeout=WAIT_SECONDS)
    for _ in range(3):  # one after the other, over one connection
        client.request("POST", "/stream", body=b"x")
        body = streaming.next()
        response = client.getresponse()  # before anything of the body is written
        assert (response.status, response.headers["Content-Type"]) == (200, "text/plain")
        assert (response.headers["Transfer-Encoding"], response.headers["Content-Length"]) == ("chunked", None)
        assert response.headers["Connection"] == "keep-alive"
        for piece in (b"one", b"2", PIECE):
            streaming.write(body, piece)
            assert response.read(len(piece)) == piece
        streaming.write(body, b"")  # no end, although it would look like one
        streaming.write(body, b"last")
        streaming.end(body)
        assert response.read() == b"last"
    client.close()


def test_an_answer_may_begin_long_after_its_request() -> None:
    """Of many clients, so that nothing but the request knows its connection any more."""
    with Running() as running, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(running.connect()) for _ in range(10)]
        requests = []
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            requests.append(running.next())
        while requests:
            body = running.call(requests.pop().begin, 200, TEXT)
            running.call(body.write, b"late")
            running.call(body.end)
        for client in clients:
            with client.makefile("rb") as answer:
                assert read_head(answer)[0] == b"HTTP/1.1 200 OK\r\n"
                assert answer.read(14) == b"4\r\nlate\r\n0\r\n\r\n"
        assert running.errors == []


def test_the_bytes_of_chunks(streaming: Streaming) -> None:
    with streaming.running.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"GET /stream HTTP/1.1\r\n\r\n")
        body = streaming.next()
        streaming.write(body, b"hello", b"x" * 26)
        streaming.end(body)
        read_head(stream)
        expected = b"5\r\nhello\r\n1a\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n"
        assert stream.read(len(expected)) == expected
        client.sendall(b"GET /plain HTTP/1.1\r\n\r\n")
        assert read_head(stream)[0] == b"HTTP/1.1 200 OK\r\n"
    with pytest.raises(RuntimeError, match="ended already"):
        streaming.write(body, b"more")
    with pytest.raises(RuntimeError, match="ended already"):
        streaming.end(body)


def test_an_answer_without_pieces(streaming: Streaming) -> None:
    with streaming.running.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"GET /stream HTTP/1.1\r\nConnection: close\r\n\r\n")
        streaming.end(streaming.next())
        _, headers = read_head(stream)
        assert headers["connection"] == "close"
        assert stream.read() == b"0\r\n\r\n"


@pytest.mark.parametrize("keep", [b"", b"Connection: keep-alive\r\n"])
def test_a_client_of_http_1_0_reads_to_the_end_of_the_connection(streaming: Streaming, keep: bytes) -> None:
    with streaming.running.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"GET /stream HTTP/1.0\r\n" + keep + b"\r\n")
        body = streaming.next()
        streaming.write(body, b"one", b"two")
        streaming.end(body)
        _, headers = read_head(stream)
        assert headers["connection"] == "close"
        assert not {"transfer-encoding", "content-length"} & headers.keys()
        assert stream.read() == b"onetwo"


def test_no_body_answers_head(streaming: Streaming) -> None:
    with streaming.running.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"HEAD /stream HTTP/1.1\r\n\r\nGET /plain HTTP/1.1\r\nConnection: close\r\n\r\n")
        body = streaming.next()
        streaming.write(body, b"nobody sees this")
        streaming.end(body)
        read_head(stream)
        assert read_head(stream)[1]["content-length"] == "5"
        assert stream.read() == b"plain"


def test_it_cannot_be_answered_twice(streaming: Streaming) -> None:
    with streaming.running.connect() as client:
        client.sendall(b"GET /stream HTTP/1.1\r\n\r\n")
        request, body = streaming.bodies.get(timeout=WAIT_SECONDS)
        assert request.answered
        for again in (lambda: request.respond(200, b"", b""), lambda: request.begin(200, b"")):
            with pytest.raises(RuntimeError, match="answered already"):
                streaming.running.call(again)
        streaming.end(body)


def test_an_answer_that_is_cut_off_is_no_whole_one(streaming: Streaming) -> None:
    client = http.client.HTTPConnection("127.0.0.1", streaming.running.port, timeout=WAIT_SECONDS)
    client.request("POST", "/stream")
    body = streaming.next()
    streaming.write(body, b"half")
    response = client.getresponse()
    assert response.read(4) == b"half"
    streaming.running.call(body.abort)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()
    client.close()


# --- several requests on one connection ---------------------------------------------------------------


def test_answers_keep_the_order_of_their_requests(streaming: Streaming) -> None:
    with streaming.running.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"GET /1 HTTP/1.1\r\n\r\nGET /plain HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
        first, second = streaming.next(), streaming.next()
        await_that(lambda: streaming.writable(first))  # a front process has to give the socket away first
        streaming.told.clear()
        assert not streaming.writable(second)
        streaming.write(second, b"b1")
        streaming.write(first, b"a1")
        read_head(stream)
        assert stream.read(7) == b"2\r\na1\r\n"
        assert streaming.told == []
        streaming.write(first, b"a2")
        streaming.end(first)
        assert stream.read(12) == b"2\r\na2\r\n0\r\n\r\n"
        assert read_head(stream)[1]["content-length"] == "5"
        assert stream.read(5) == b"plain"
        read_head(stream)
        assert stream.read(7) == b"2\r\nb1\r\n"
        assert (streaming.told, streaming.writable(second)) == ([b"/2"], True)
        streaming.end(second)
        assert stream.read(5) == b"0\r\n\r\n"


def test_an_answer_that_ended_before_its_turn(streaming: Streaming) -> None:
    with streaming.running.connect() as client, client.makefile("rb") as stream:
        client.sendall(
            b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /plain HTTP/1.1\r\nConnection: close\r\n\r\n"
        )
        first, second = streaming.next(), streaming.next()
        streaming.write(second, b"b1")
        streaming.end(second)
        streaming.end(first)
        read_head(stream)
        assert stream.read(5) == b"0\r\n\r\n"
        read_head(stream)
        assert stream.read(12) == b"2\r\nb1\r\n0\r\n\r\n"
        read_head(stream)
        assert stream.read() == b"plain"


def test_a_connection_that_closes_behind_another_answer_tells_the_writer(streaming: Streaming) -> None:
    """The client of HTTP/1.0 gets one answer; the one behind it can never be written."""
    with streaming.running.connect() as client, client.makefile("rb") as stream:
        client.sendall(
            b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        )
        first, second = streaming.next(), streaming.next()
        streaming.end(first)
        read_head(stream)
        assert stream.read() == b""
        await_that(lambda: streaming.told == [b"/2"])
        assert streaming.writable(second)
        streaming.write(second, b"into the void")
        streaming.end(second)
    await_that(lambda: streaming.running.call(streaming.running.server.statistics).connections_open == 0)


def test_an_answer_that_begins_when_its_connection_closes(streaming: Streaming) -> None:
    """The one before it, for a client of HTTP/1.0, has been the last one; its writer hears that nobody listens."""
    with streaming.running.connect() as client, client.makefile("rb") as stream:
        keep = b" HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        client.sendall(b"GET /over" + keep + b"GET /stream" + keep)
        body = streaming.next()
        assert read_head(stream)[0] == b"HTTP/1.1 200 OK\r\n"
        assert stream.read() == b""
        await_that(lambda: streaming.told == [b"/stream"])
        assert streaming.writable(body)
        streaming.end(body)
    await_that(lambda: streaming.running.call(streaming.running.server.statistics).connections_open == 0)


# --- clients that do not read -------------------------------------------------------------------------


def fill(streaming: Streaming, body: ResponseBody) -> tuple[int, list[str]]:
    """Writes until there is no room for the moment: how many bytes, and a list that is no longer empty once the writer
    has been told of more room.
    """
    told: list[str] = []
    await_that(lambda: streaming.writable(body))

    def write() -> int:
        written = 0
        while body.writable:
            body.write(PIECE)
            written += len(PIECE)
        body.on_writable = lambda: told.append("room")
        return written

    return streaming.running.call(write), told


def small_client(running: Running) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.settimeout(WAIT_SECONDS)
    client.connect(("127.0.0.1", running.port))
    return client


def test_a_writer_is_told_when_there_is_room_again(streaming: Streaming) -> None:
    with small_client(streaming.running) as client, client.makefile("rb") as stream:
        client.sendall(b"GET /stream HTTP/1.1\r\n\r\n")
        body = streaming.next()
        written, told = fill(streaming, body)
        read_head(stream)
        read = 0
        while read < written:
            size = int(stream.readline(), 16)
            assert stream.read(size + 2) == b"p" * size + b"\r\n"
            read += size
        await_that(lambda: told)
        assert streaming.writable(body)
        streaming.end(body)
        assert stream.readline() == b"0\r\n"


def test_a_client_that_goes_away_is_written_to_in_vain(streaming: Streaming) -> None:
    client = small_client(streaming.running)
    client.sendall(b"GET /stream HTTP/1.1\r\n\r\n")
    request, body = streaming.bodies.get(timeout=WAIT_SECONDS)
    _, told = fill(streaming, body)
    client.close()
    await_that(lambda: request.closed and told)
    assert streaming.writable(body)
    streaming.write(body, PIECE)
    streaming.end(body)
    statistics = streaming.running.call(streaming.running.server.statistics)
    assert (statistics.connections_open, statistics.requests_in_flight) == (0, 0)


def test_a_client_that_only_ends_its_sending_side_hears_everything(streaming: Streaming) -> None:
    with streaming.running.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"GET /stream HTTP/1.1\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        body = streaming.next()
        streaming.write(body, b"one")
        streaming.end(body)
        read_head(stream)
        assert stream.read() == b"3\r\none\r\n0\r\n\r\n"


def test_a_drain_waits_for_the_end_of_an_answer(streaming: Streaming) -> None:
    running = streaming.running
    with running.connect() as client, client.makefile("rb") as stream:
        client.sendall(b"GET /stream HTTP/1.1\r\n\r\n")
        body = streaming.next()
        streaming.write(body, b"one")
        drained: list[None] = []
        running.loop.call_soon_threadsafe(
            lambda: running.loop.create_task(running.server.drain(WAIT_SECONDS)).add_done_callback(
                lambda _: drained.append(None)
            )
        )
        read_head(stream)
        assert stream.read(8) == b"3\r\none\r\n"
        streaming.write(body, b"two")
        assert drained == []
        streaming.end(body)
        assert stream.read() == b"3\r\ntwo\r\n0\r\n\r\n"
        await_that(lambda: drained)
