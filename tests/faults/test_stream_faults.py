"""Streamed responses whose client does not read or goes away, whose function dies or lies: each ends, nothing else notices, and
nobody's memory fills.
"""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from botocore.eventstream import EventStreamBuffer

from daemon_running import GATE_CODE, Gate, RunningDaemon, running_daemon
from failed_calls import killed
from fastlam import limits
from fastlam.wire.frames import Chunk, Result
from fault_makers import send
from hostile_function import BROKE_THE_PROTOCOL, CODE, bad_frames, event_of, pid_now, resident_bytes
from played_environments import message
from waiting import WAIT_SECONDS, await_that

pytestmark = [pytest.mark.lanes, pytest.mark.usefixtures("others_notice_nothing")]

MIB: Final = 1024 * 1024
KEPT_MAX: Final = 40 * MIB  # by kernel, connection and dispatcher together, of a stream that nobody reads
STREAMER: Final = (
    GATE_CODE
    + '''
import os

def handler(event, context):
    """Numbered pieces of 64 KiB, which it counts in a file; a gate behind the first, where one is given."""
    file = os.open(event["file"], os.O_WRONLY) if "file" in event else None
    for number in range(event["pieces"]):
        yield f"{number:08}" * 8192
        if file is not None:
            os.pwrite(file, b"%08d" % number, 0)
        if number == 0 and "gate" in event:
            wait_at(event["gate"])
    print("came to its end")
'''
)
PIECE_BYTES: Final = 65536


@pytest.fixture(scope="module")
def streamer(daemon: RunningDaemon) -> str:
    return daemon.deploy("streamer", STREAMER, Timeout=60)


@pytest.fixture(scope="module")
def hasty(daemon: RunningDaemon) -> str:
    """The same, which may take two seconds."""
    return daemon.deploy("hasty", STREAMER, Timeout=2)


@pytest.fixture
def counted(tmp_path: Path) -> Path:
    path = tmp_path / "counted"
    path.write_text("00000000")
    return path


class Reader:
    """A client that reads what it is told to, through a small window."""

    def __init__(self, port: int, name: str, event: Any) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE_BYTES)
        self._socket.settimeout(WAIT_SECONDS)
        self._socket.connect(("127.0.0.1", port))
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._connection.sock = self._socket
        path = f"/2021-11-15/functions/{name}/response-streaming-invocations"
        self._connection.request("POST", path, json.dumps(event).encode())
        self._response = self._connection.getresponse()
        self.request_id = self._response.headers["x-amzn-requestid"]
        self._buffer = EventStreamBuffer()
        self.ended = False

    def pieces(self) -> Iterator[bytes]:
        """Each piece as it comes, until the last message has come, which must say nothing; the answer ends there."""
        while True:
            data = self._response.read1(PIECE_BYTES)
            if not data:
                assert self.ended, "it was cut off"
                return
            self._buffer.add_data(data)
            for found in self._buffer:
                assert not self.ended
                if found.headers[":event-type"] == "InvokeComplete":
                    assert found.payload == b"{}"
                    self.ended = True
                else:
                    yield found.payload

    def numbers(self) -> list[int]:
        """The rest of a streamer's pieces, by their numbers."""
        return [number_of(piece) for piece in self.pieces()]

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def number_of(piece: bytes) -> int:
    assert piece == piece[:8] * 8192
    return int(piece[:8])


@contextmanager
def reading(daemon: RunningDaemon, name: str, **event: Any) -> Iterator[Reader]:
    reader = Reader(daemon.port, name, event)
    try:
        yield reader
    finally:
        reader.close()


def stuck(counted: Path) -> None:
    """Returns when the function seems to have come as far as it can."""
    seen: list[str] = []
    await_that(lambda: seen.append(counted.read_text()) or (len(seen) > 20 and len(set(seen[-20:])) == 1))


def report_of(daemon: RunningDaemon, name: str, request_id: str) -> str:
    start = f"REPORT RequestId: {request_id}"
    lines = daemon.logs(name, until=lambda log: any(line.startswith(start) for line in log))
    return next(line for line in lines if line.startswith(start))


# --- clients ------------------------------------------------------------------------------------------


def test_a_client_that_reads_nothing_makes_the_function_wait(daemon: RunningDaemon, hasty: str, counted: Path) -> None:
    """Until its time is over; had it not waited, it would have come to its end in that time."""
    before = resident_bytes(daemon)
    with reading(daemon, hasty, pieces=limits.STREAM_BYTES_MAX // PIECE_BYTES, file=str(counted)) as reader:
        report = report_of(daemon, hasty, reader.request_id)
        assert report.endswith("\tStatus: timeout\n")
        assert int(counted.read_text()) * PIECE_BYTES < KEPT_MAX
        assert resident_bytes(daemon) - before < KEPT_MAX
        numbers = reader.numbers()  # what there was by then is cut short and ends properly
    assert numbers == list(range(len(numbers)))
    assert 0 < len(numbers) * PIECE_BYTES < KEPT_MAX
    assert daemon.invoke(hasty, {"pieces": 1}).error is None


def test_a_client_that_pauses_gets_everything(
    daemon: RunningDaemon, streamer: str, counted: Path, rng: random.Random
) -> None:
    with reading(daemon, streamer, pieces=1000, file=str(counted)) as reader:
        numbers = []
        for piece in reader.pieces():
            numbers.append(number_of(piece))
            if rng.random() < 0.004:
                stuck(counted)
    assert numbers == list(range(1000))
    assert not report_of(daemon, streamer, reader.request_id).endswith("timeout\n")


@pytest.mark.parametrize("when", ["at once", "when the function waits for it"])
def test_a_client_that_goes_away_does_not_stop_the_function(
    daemon: RunningDaemon, streamer: str, counted: Path, when: str
) -> None:
    with reading(daemon, streamer, pieces=2000, file=str(counted)) as reader:
        if when != "at once":
            stuck(counted)
            assert int(counted.read_text()) < 1999
    assert "Status" not in report_of(daemon, streamer, reader.request_id)
    assert counted.read_text() == "00001999"
    assert "idle" in [row["state"] for row in daemon.environments(streamer)]


def test_clients_that_come_and_go(daemon: RunningDaemon, streamer: str, rng: random.Random) -> None:
    for _ in range(40):
        with reading(daemon, streamer, pieces=rng.choice((1, 2, 50, 200))) as reader:
            pieces = reader.pieces()
            for _ in range(rng.choice((0, 1, 30))):
                next(pieces, None)
    await_that(lambda: daemon.health()["statistics"]["dispatcher"]["outstanding"] == 0)
    assert all(row["state"] in ("idle", "stopping") for row in daemon.environments(streamer))


# --- functions that die -------------------------------------------------------------------------------


def test_a_worker_is_killed_in_the_middle(daemon: RunningDaemon, streamer: str, gate: Gate) -> None:
    with reading(daemon, streamer, pieces=5, gate=gate.port) as reader:
        pieces = reader.pieces()
        assert number_of(next(pieces)) == 0
        gate.arrive()
        (row,) = [row for row in daemon.environments(streamer) if row["state"] == "busy"]
        send(row["pid"], "fastlam: env streamer", signal.SIGKILL)
        assert list(pieces) == []
    assert "\tStatus: error\tError Type: Runtime.ExitError" in report_of(daemon, streamer, reader.request_id)
    assert row["pid"] not in [one["pid"] for one in daemon.environments(streamer)]
    assert daemon.invoke(streamer, {"pieces": 1}).error is None


def test_a_worker_is_killed_while_nobody_reads(daemon: RunningDaemon, streamer: str, counted: Path) -> None:
    with reading(daemon, streamer, pieces=2000, file=str(counted)) as reader:
        stuck(counted)
        (row,) = [row for row in daemon.environments(streamer) if row["state"] == "busy"]
        send(row["pid"], "fastlam: env streamer", signal.SIGKILL)
        assert "Runtime.ExitError" in report_of(daemon, streamer, reader.request_id)
        numbers = reader.numbers()
    # Every piece that it had written is there, and perhaps the one that it was about to count.
    assert numbers == list(range(len(numbers)))
    assert len(numbers) - int(counted.read_text()) in (0, 1, 2)


def test_workers_are_killed_under_a_load_of_streams(daemon: RunningDaemon, streamer: str, rng: random.Random) -> None:
    ends: list[int] = []
    failures: list[BaseException] = []
    stopping = threading.Event()

    def load() -> None:
        try:
            while not stopping.is_set():
                with reading(daemon, streamer, pieces=60) as reader:
                    numbers = reader.numbers()
                assert numbers == list(range(len(numbers)))
                ends.append(len(numbers))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(60):
        before = len(ends)
        await_that(lambda before=before: failures or len(ends) > before)
        # Looking through /proc would take longer than the streams do, since these threads hardly leave the interpreter.
        victims = [row["pid"] for row in daemon.environments(streamer) if row["pid"] is not None]
        if victims:
            send(rng.choice(victims), "fastlam: env streamer", signal.SIGKILL)
    stopping.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert min(ends) < 60 == max(ends), "no kill has hit a stream, or all have"
    await_that(lambda: daemon.health()["statistics"]["dispatcher"]["outstanding"] == 0)
    assert daemon.invoke(streamer, {"pieces": 1}).error is None


# --- functions that lie -------------------------------------------------------------------------------


def frame(piece: bytes) -> bytes:
    return message(Chunk(0), piece)


def deed(daemon: RunningDaemon, what: str, *data: bytes, function: str = "hostile", **more: Any) -> list[bytes]:
    """The pieces that come of the deed."""
    with reading(daemon, function, **event_of(what, *data, **more)) as reader:
        return list(reader.pieces())


def test_pieces_past_the_runtime_are_pieces(daemon: RunningDaemon) -> None:
    """They are the function's own; its environment has done nothing that it may not."""
    pid = pid_now(daemon)
    assert deed(daemon, "say", frame(b"forged"), frame(b"")) == [b"forged"]
    assert pid_now(daemon) == pid


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(message(Chunk(1), b"x"), id="another slot"),
        pytest.param(message([20, -1], b"x"), id="a negative slot"),
        pytest.param(frame(b"x" * (limits.CHUNK_BYTES_MAX + 1)), id="too large"),
        pytest.param(message(Result(0, 5, 5, 5, 0), b""), id="an answer before the end"),
    ],
)
def test_a_bad_frame_in_the_middle(daemon: RunningDaemon, data: bytes) -> None:
    pid, frames = pid_now(daemon), bad_frames(daemon)
    assert deed(daemon, "say", frame(b"good"), data, stay=True) == [b"good"]
    assert bad_frames(daemon) == frames + 1
    assert pid_now(daemon) != pid
    daemon.logs("hostile", until=lambda log: any(BROKE_THE_PROTOCOL in line for line in log))


def test_a_piece_behind_the_answer(daemon: RunningDaemon) -> None:
    """Sent by a thread once its invocation was over."""
    frames = bad_frames(daemon)
    pid = int(deed(daemon, "say_when_idle", frame(b"late"))[0])
    await_that(lambda: bad_frames(daemon) == frames + 1)
    await_that(lambda: pid not in [row["pid"] for row in daemon.environments("hostile")])
    assert pid_now(daemon) != pid


@pytest.fixture(scope="module")
def pouring(daemon: RunningDaemon) -> str:
    """The hostile function, which may take so long only."""
    return daemon.deploy("pouring", CODE, Timeout=3)


def poured(data: bytes) -> dict[str, str]:
    """For the deed that never ends."""
    return {"act": "gush", "data": b64encode(data).decode()}


def test_pieces_without_end(daemon: RunningDaemon, pouring: str) -> None:
    """However much is sent, and read: the answer has its limit, and the function its time."""
    before = resident_bytes(daemon)
    with reading(daemon, pouring, **poured(frame(b"x" * PIECE_BYTES))) as reader:
        received = sum(map(len, reader.pieces()))
    assert MIB < received <= limits.STREAM_BYTES_MAX
    assert resident_bytes(daemon) - before < KEPT_MAX
    assert report_of(daemon, pouring, reader.request_id).endswith("\tStatus: timeout\n")


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES])
def test_pieces_without_end_that_nobody_reads(daemon: RunningDaemon, pouring: str, size: int) -> None:
    before = resident_bytes(daemon)
    with reading(daemon, pouring, **poured(frame(b"x" * size))) as reader:
        assert report_of(daemon, pouring, reader.request_id).endswith("\tStatus: timeout\n")
        assert resident_bytes(daemon) - before < KEPT_MAX


def test_pieces_without_end_to_a_caller_who_wants_none(daemon: RunningDaemon, pouring: str) -> None:
    frames = bad_frames(daemon)
    killed(daemon.invoke(pouring, poured(frame(b"x" * 1000))))
    assert bad_frames(daemon) == frames + 1


# --- the daemon's end ---------------------------------------------------------------------------------


def test_a_daemon_that_stops_lets_a_stream_end(gate: Gate) -> None:
    with running_daemon() as own:
        own.deploy("streamer", STREAMER, Timeout=60)
        with reading(own, "streamer", pieces=100, gate=gate.port) as reader:
            pieces = reader.pieces()
            first = next(pieces)
            gate.arrive()
            own.process.send_signal(signal.SIGTERM)
            gate.open()
            assert [number_of(piece) for piece in (first, *pieces)] == list(range(100))
        own.process.wait(WAIT_SECONDS)
        assert own.process.returncode == 0
