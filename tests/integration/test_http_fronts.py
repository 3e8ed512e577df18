"""Front processes of a HTTP server: they share the clients, die, drain and end; what they cannot do comes to the server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import select
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastlam.errors import FastlamError
from fastlam.http.server import HttpServer, HttpStatistics, Request
from http_running import WAIT_SECONDS, Running
from waiting import await_that

CLIENTS = 40
GET = b"GET /%d HTTP/1.1\r\n\r\n"


def echo(request: Request) -> None:
    request.respond(200, b"", request.body or request.path)


@pytest.fixture
def running() -> Iterator[Running]:
    with Running(echo, fronts=2) as server:
        yield server
        processes = pids(server)
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]
    assert server.errors == []


@pytest.fixture
def waiting() -> Iterator[Running]:
    """Its handler leaves the answers to the test."""
    with Running(fronts=2) as server:
        yield server
    assert server.errors == []


def statistics(server: Running) -> HttpStatistics:
    found: HttpStatistics = server.call(server.server.statistics)
    return found


def pids(server: Running) -> list[int]:
    return [front["pid"] for front in server.call(server.server.fronts)]


class Client:
    """A connection and what is read from it."""

    def __init__(self, server: Running) -> None:
        self.socket = server.connect()
        self._stream = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> tuple[dict[str, str], bytes]:
        status = self._stream.readline()
        assert status.startswith(b"HTTP/1.1 200 "), status
        headers: dict[str, str] = {}
        while (line := self._stream.readline()) != b"\r\n":
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value.strip()
        return headers, self._stream.read(int(headers["content-length"]))

    def rest(self) -> bytes:
        return self._stream.read()

    def close(self) -> None:
        self._stream.close()
        self.socket.close()


@contextlib.contextmanager
def clients(server: Running, count: int = CLIENTS) -> Iterator[list[Client]]:
    made = [Client(server) for _ in range(count)]
    try:
        yield made
    finally:
        for client in made:
            client.close()


# --- both of them serve ---------------------------------------------------------------------------------


def test_the_clients_are_shared_out(running: Running) -> None:
    with clients(running) as made:
        for number, client in enumerate(made):
            client.send(GET % number)
        assert [client.receive()[1] for client in made] == [b"/%d" % number for number in range(CLIENTS)]
        shares = [front["connections"] for front in running.call(running.server.fronts)]
        assert sum(shares) == CLIENTS and min(shares) > 0
        counts = statistics(running)
        assert (counts.connections_open, counts.connections_total, counts.requests_total) == (CLIENTS,) * 3
        assert counts.bytes_received == sum(len(GET % number) for number in range(CLIENTS))
    await_that(lambda: statistics(running).connections_open == 0)


def test_a_bound_on_connections_holds_for_all(rng: random.Random) -> None:
    bound = rng.randrange(5, 20)
    with Running(echo, fronts=3, connections_max=bound) as server, clients(server, bound) as made:
        for client in made:
            client.send(GET % 1)
        for client in made:
            client.receive()
        # Connections that a process has given away count as well: one more client is one too many.
        made[0].send(b"GET /2 HTTP/1.1\r\nConnection: x\r\n\r\n")
        made[0].receive()
        for _ in range(5):
            with server.connect() as refused:
                refused.sendall(GET % 3)
                assert refused.recv(100).startswith(b"HTTP/1.1 503 ")
        assert statistics(server).connections_refused == 5
        made[1].close()
        await_that(lambda: statistics(server).connections_open < bound)
        with clients(server, 1) as (again,):
            again.send(GET % 4)
            assert again.receive()[1] == b"/4"


def test_heads_change_and_repeat(running: Running, rng: random.Random) -> None:
    """More heads than are known by number at a time, each several times and in any order."""
    with clients(running, 1) as (client,):
        for _ in range(4000):
            number = rng.randrange(1500)
            count = rng.randrange(1, 4)
            body = rng.randbytes(rng.randrange(3))
            client.send(b"POST /%d HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (number, len(body), body) * count)
            for _ in range(count):
                assert client.receive()[1] == (body or b"/%d" % number)


def test_what_is_remembered_is_found_again() -> None:
    direct: list[bytes] = []

    def remembered(request: Request) -> None:
        direct.append(request.body)
        if request.body == b"!":
            request.reconsider()
        else:
            request.respond(200, b"", b"direct")

    def handler(request: Request) -> None:
        if request.repeated and request.body != b"!":
            request.remember(remembered)
        request.respond(200, b"", b"first")

    with Running(handler, fronts=1) as server, clients(server, 1) as (client,):
        said = []
        for body in (b"a", b"b", b"c", b"d", b"!", b"e", b"f"):
            client.send(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n" + body)
            said.append(client.receive()[1])
        assert said == [b"first", b"first", b"direct", b"direct", b"first", b"first", b"direct"]
        assert direct == [b"c", b"d", b"!", b"f"]


def test_rings_that_are_full(rng: random.Random) -> None:
    """Bodies in both directions that are, together, much more than a ring holds; nobody reads for a while."""
    with Running(echo, fronts=1) as server, clients(server, 24) as made:
        bodies = [rng.randbytes(rng.randrange(100_000, 240_000)) for _ in made]

        def send(client: Client, body: bytes) -> None:
            for _ in range(4):
                client.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

        threads = [threading.Thread(target=send, args=pair) for pair in zip(made, bodies, strict=True)]
        for thread in threads:
            thread.start()
        for client, body in zip(made, bodies, strict=True):
            for _ in range(4):
                assert client.receive()[1] == body
        for thread in threads:
            thread.join(WAIT_SECONDS)


# --- connections that move ------------------------------------------------------------------------------


def test_an_answer_on_its_way_when_its_connection_moves(waiting: Running) -> None:
    """The long answer calls the socket here; the one right behind it finds the request gone, comes back and keeps its
    turn.
    """
    with clients(waiting, 1) as (client,):
        client.send(b"".join(GET % number for number in range(5)))
        requests = [waiting.next() for _ in range(5)]
        waiting.call(requests[3].respond, 200, b"", b"3")  # not its turn: it waits in the process

        def answer_two() -> None:
            requests[1].respond(200, b"", b"1" * 300_000)
            requests[2].respond(200, b"", b"2")

        waiting.call(answer_two)
        waiting.call(requests[4].respond, 200, b"", b"4")
        waiting.call(requests[0].respond, 200, b"", b"0")
        assert [client.receive()[1][:1] for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        assert statistics(waiting).requests_in_flight == 0
        client.send(GET % 5)
        waiting.call(waiting.next().respond, 200, b"", b"five")
        assert client.receive()[1] == b"five"


def test_a_socket_that_moves_while_the_process_was_stopped(waiting: Running) -> None:
    with clients(waiting, 1) as (client,):
        client.send(GET % 1)
        first = waiting.next()
        for pid in pids(waiting):
            os.kill(pid, signal.SIGSTOP)
        client.send(b"GET /2 HTTP/1.1\r\nConnection: x\r\n\r\n")  # what no front reads
        waiting.call(first.respond, 200, b"", b"one")
        for pid in pids(waiting):
            os.kill(pid, signal.SIGCONT)
        waiting.call(waiting.next().respond, 200, b"", b"two")
        assert [client.receive()[1] for _ in range(2)] == [b"one", b"two"]


@pytest.mark.parametrize("size", [100_000, 300_000, 900_000])
def test_long_answers_out_of_turn(waiting: Running, size: int) -> None:
    with clients(waiting, 1) as (client,):
        client.send(b"".join(GET % number for number in range(6)))
        requests = [waiting.next() for _ in range(6)]
        for number in (3, 1, 5, 0, 2, 4):
            waiting.call(requests[number].respond, 200, b"X-Number: %d\r\n" % number, b"%d" % number * size)
        for number in range(6):
            headers, body = client.receive()
            assert headers["x-number"] == str(number) and body == b"%d" % number * size


def test_a_stream_that_is_aborted_before_its_connection_is_there(waiting: Running) -> None:
    with clients(waiting, 1) as (client,):
        client.send(GET % 1)
        request = waiting.next()

        def abort() -> None:
            body = request.begin(200, b"")
            body.write(b"piece")
            assert not body.writable
            body.abort()

        waiting.call(abort)
        assert b"0\r\n\r\n" not in client.rest()
    await_that(lambda: statistics(waiting).connections_open == 0)


def test_a_client_that_leaves_before_its_stream_begins(waiting: Running) -> None:
    with clients(waiting, 1) as (client,):
        client.send(GET % 1)
        request = waiting.next()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # close() resets
    await_that(lambda: waiting.call(lambda: request.closed))
    body = waiting.call(request.begin, 200, b"")
    assert waiting.call(lambda: body.writable)  # what is written is thrown away
    waiting.call(body.write, b"piece")
    waiting.call(body.end)


# --- the end of a process -------------------------------------------------------------------------------


def test_a_killed_process_loses_only_its_own(waiting: Running, caplog: pytest.LogCaptureFixture) -> None:
    with clients(waiting) as made:
        for number, client in enumerate(made):
            client.send(GET % number)
        requests = {request.target: request for request in (waiting.next() for _ in made)}
        before = waiting.call(waiting.server.fronts)
        victim, other = before
        os.kill(victim["pid"], signal.SIGKILL)
        await_that(lambda: len(cut_off(made)) == victim["connections"])
        lost = cut_off(made)
        await_that(lambda: sum(waiting.call(lambda: [one.closed for one in requests.values()])) == len(lost))
        for request in requests.values():  # of the lost ones as well: nobody hears it
            waiting.call(request.respond, 200, b"", request.target)
        for number, client in enumerate(made):
            if client not in lost:
                assert client.receive()[1] == b"/%d" % number
        await_that(lambda: len(pids(waiting)) == 2)
        after = waiting.call(waiting.server.fronts)
        assert after[1] == other and after[0]["pid"] != victim["pid"]
        counts = statistics(waiting)
        assert counts.connections_open == len(made) - len(lost)
        assert (counts.connections_total, counts.requests_total) == (len(made), len(made))
        assert counts.requests_in_flight == 0
        with clients(waiting) as later:
            for client in later:
                client.send(GET % 1)
            for _ in later:
                waiting.call(waiting.next().respond, 200, b"", b"again")
            assert {client.receive()[1] for client in later} == {b"again"}
            shares = [front["connections"] for front in waiting.call(waiting.server.fronts)]
            assert min(shares) > 0
    assert [record.levelno for record in caplog.records if record.name == "fastlam.http.fronts"] == [logging.WARNING]


def cut_off(made: list[Client]) -> list[Client]:
    """Of clients to whom nothing is being sent: those whose connection has ended."""
    readable, _, _ = select.select([client.socket for client in made], [], [], 0)
    return [client for client in made if client.socket in readable]


def test_processes_killed_under_load(running: Running) -> None:
    """Clients that begin anew when they are cut off are answered to the end, each answer the one to its request."""
    answered = [0] * 4
    stop = threading.Event()
    wrong: list[bytes] = []

    def ask(thread: int) -> None:
        number = 0
        while not stop.is_set():
            client = Client(running)
            try:
                while not stop.is_set():
                    number += 1
                    client.send(GET % number)
                    body = client.receive()[1]
                    if body != b"/%d" % number:
                        wrong.append(body)
                    answered[thread] += 1
            except (OSError, AssertionError):
                pass
            finally:
                client.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(answered))]
    for thread in threads:
        thread.start()
    for _ in range(4):
        done = list(answered)
        await_that(lambda done=done: all(now > before + 50 for now, before in zip(answered, done, strict=True)))
        victims = pids(running)
        os.kill(victims[0], signal.SIGKILL)
        await_that(lambda victims=victims: len(pids(running)) == 2 and victims[0] not in pids(running))
    stop.set()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert wrong == []
    await_that(lambda: statistics(running).connections_open == 0)
    assert statistics(running).requests_in_flight == 0


def test_descriptors_do_not_accumulate(running: Running) -> None:
    def held() -> int:
        running.run(asyncio.sleep(0))
        return len(os.listdir("/proc/self/fd"))

    def use(times: int) -> None:
        for number in range(times):
            with clients(running, 2) as (plain, other):
                plain.send(GET % number)
                other.send(b"GET /x HTTP/1.1\r\nConnection: x\r\n\r\n")  # comes to the server
                plain.receive()
                other.receive()
        await_that(lambda: statistics(running).connections_open == 0)

    use(3)
    before = held(), [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids(running)]
    use(100)
    await_that(lambda: held() == before[0])
    assert [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids(running)] == before[1]
    victim = pids(running)[0]
    os.kill(victim, signal.SIGKILL)
    await_that(lambda: len(pids(running)) == 2 and victim not in pids(running))
    await_that(lambda: held() == before[0])


def test_drain_while_they_are_busy(waiting: Running) -> None:
    """Requests of every kind that are in work are answered, none twice; the processes are gone afterwards."""
    processes = pids(waiting)
    with clients(waiting) as made:
        for number, client in enumerate(made):
            client.send(GET % number)
        requests = [waiting.next() for _ in made]
        draining = asyncio.run_coroutine_threadsafe(waiting.server.drain(WAIT_SECONDS), waiting.loop)
        for index, request in enumerate(requests):
            body = request.target * (1 if index % 3 else 200_000)
            waiting.call(request.respond, 200, b"", body)
        for number, client in enumerate(made):
            body = client.receive()[1]
            assert body.replace(b"/%d" % number, b"") == b"" and body != b""
            assert client.rest() == b""
        draining.result(WAIT_SECONDS)
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]
    assert statistics(waiting).requests_total == CLIENTS


def test_a_process_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastlam.http.fronts._PROGRAM", "raise SystemExit(3)")

    async def start() -> None:
        server = HttpServer(echo, body_bytes_max=1, fronts=2)
        with pytest.raises(FastlamError, match="did not start"):
            await server.start("127.0.0.1", 0)
        assert server.fronts() == []

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(start())
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_servers_do_not_share_a_port(running: Running) -> None:
    async def start() -> None:
        await HttpServer(echo, body_bytes_max=1, fronts=2).start("127.0.0.1", running.port)

    with pytest.raises(OSError, match="in use"):
        running.run(start())
