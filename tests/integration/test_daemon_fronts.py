"""A daemon with front processes: the same answers through every door, and nothing left of them however it ends."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon_running import GATE_CODE, Gate, RunningDaemon, await_end, descendants, running_daemon
from waiting import await_that

CODE = (
    GATE_CODE
    + """
def handler(event, context):
    if "gate" in event:
        wait_at(event["gate"], str(event["number"]))
    return event.get("number", "x" * event.get("size", 0) + event.get("text", ""))

def stream(event, context):
    for number in range(event["count"]):
        yield f"piece {number} " + "." * event["size"]
"""
)
CALLS = 60


@pytest.fixture(scope="module")
def fronted() -> Iterator[RunningDaemon]:
    with running_daemon("--fronts", "2") as daemon:
        daemon.deploy("echo", CODE)
        daemon.deploy("stream", CODE, handler="app.stream")
        yield daemon


def fronts(daemon: RunningDaemon) -> list[dict[str, int]]:
    found: list[dict[str, int]] = daemon.health()["fronts"]
    return found


def test_health_shows_them(fronted: RunningDaemon) -> None:
    rows = fronts(fronted)
    assert [row["front"] for row in rows] == [1, 2]
    for row in rows:
        command = Path(f"/proc/{row['pid']}/cmdline").read_bytes()
        assert command.startswith(b"fastlam: front %d" % row["front"])
    assert sum(row["connections"] for row in rows) >= 1  # that of this very request


def test_a_daemon_without_them(daemon: RunningDaemon) -> None:
    assert fronts(daemon) == []


def test_the_sdk_in_many_threads(fronted: RunningDaemon) -> None:
    with ThreadPoolExecutor(16) as pool:
        results = pool.map(lambda number: fronted.invoke("echo", {"number": number}).result, range(CALLS))
        assert list(results) == list(range(CALLS))


@pytest.mark.parametrize("size", [1, 100_000, 260_000, 1_000_000, 5_000_000])
def test_payloads_of_every_size(fronted: RunningDaemon, size: int) -> None:
    assert fronted.invoke("echo", {"size": size}).result == "x" * size
    assert fronted.invoke("echo", {"text": "y" * size}).result == "y" * size


def test_the_same_head_again_and_again(fronted: RunningDaemon) -> None:
    """From the third on past the API, as load generators do it."""
    with socket.create_connection(("127.0.0.1", fronted.port)) as client, client.makefile("rb") as stream:
        for number in range(100, 150):
            body = b'{"number": %d}' % number
            client.sendall(
                b"POST /2015-03-31/functions/echo/invocations HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            lines = []
            while (line := stream.readline()) != b"\r\n":
                lines.append(line)
            assert lines[0] == b"HTTP/1.1 200 OK\r\n"
            assert stream.read(3) == b"%d" % number


@pytest.mark.parametrize(("count", "size"), [(0, 0), (3, 10), (200, 50_000)])
def test_streams(fronted: RunningDaemon, count: int, size: int) -> None:
    """The socket comes to the daemon's process when the answer begins; the connection serves what follows."""
    client = fronted.client()
    for _ in range(2):
        answer = client.invoke_with_response_stream(
            FunctionName="stream", Payload=b'{"count": %d, "size": %d}' % (count, size)
        )
        said = b"".join(event["PayloadChunk"]["Payload"] for event in answer["EventStream"] if "PayloadChunk" in event)
        assert said.decode() == "".join(f"piece {number} " + "." * size for number in range(count))
        assert fronted.invoke("echo", {"number": 1}, client=client).result == 1


def test_a_killed_front_and_invocations_in_work() -> None:
    """They finish; who asked through the other front is answered; a new client finds the daemon whole."""
    gate = Gate()
    try:
        with running_daemon("--fronts", "2", complains=True) as daemon, ThreadPoolExecutor(12) as pool:
            daemon.deploy("echo", CODE)
            events = [b'{"gate": %d, "number": %d}' % (gate.port, number) for number in range(12)]
            calls = [pool.submit(daemon.send_invoke, "echo", event) for event in events]
            assert len(gate.arrive(12)) == 12
            victim = fronts(daemon)[0]
            os.kill(victim["pid"], signal.SIGKILL)
            await_that(lambda: [one["front"] for one in fronts(daemon)] == [1, 2] and fronts(daemon)[0] != victim)
            gate.open()
            outcomes = [call.exception() or call.result().json for call in calls]
            answered = [number for number, outcome in enumerate(outcomes) if outcome == number]
            others = 2  # of the client that has deployed, and of who has asked for the health
            lost = len(outcomes) - len(answered)
            assert victim["connections"] - others <= lost <= victim["connections"]
            assert all(isinstance(one, OSError) for one in outcomes if not isinstance(one, int))
            await_that(lambda: daemon.health()["statistics"]["dispatcher"]["completed"] >= 12)
            assert daemon.invoke("echo", {"number": 5}).result == 5
            assert "another one is started" in daemon.stderr()
    finally:
        gate.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_they_end_with_the_daemon(number: signal.Signals, tmp_path: Path) -> None:
    own = {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}  # a killed daemon leaves its sockets' directory
    with running_daemon("--fronts", "3", environment=own) as daemon:
        family = descendants(daemon.process.pid)
        assert {row["pid"] for row in fronts(daemon)} <= {pid for pid, _ in family}
        daemon.stop(number)
        await_end(family)


def test_a_port_that_is_taken(fronted: RunningDaemon) -> None:
    with pytest.raises(AssertionError, match="is in use"), running_daemon("--fronts", "1", "--port", str(fronted.port)):
        pass
