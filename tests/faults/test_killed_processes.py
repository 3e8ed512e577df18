"""Processes that are killed: workers, the zygote, the daemon. Each call ends with a result or with Lambda's error, the pool
is whole afterwards, and nothing survives its owner.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError

from daemon_running import READY, WAIT_SECONDS, RunningDaemon, _stat, descendants, running_daemon, zipped

NONCE = """
import os

def handler(event, context):
    descriptor = os.open(event["path"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{event['nonce']}\\n".encode())
    os.close(descriptor)
    return event["nonce"]
"""

HOLD = """
import os

def handler(event, context):
    descriptor = os.open(event["arrived"], os.O_WRONLY)
    os.write(descriptor, b"x")
    with open(event["gate"], "rb") as gate:
        gate.read()
    return os.getpid()
"""


def await_truth(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Held:
    """Invocations that stand at a gate; `arrivals` of them have begun when `await_arrivals` returns."""

    def __init__(self, daemon: RunningDaemon, name: str, directory: Path, count: int) -> None:
        self.event = {"arrived": str(directory / "arrived"), "gate": str(directory / "gate")}
        for path in self.event.values():
            os.mkfifo(path)
        self.reader = os.open(self.event["arrived"], os.O_RDONLY | os.O_NONBLOCK)
        self.threads = ThreadPoolExecutor(count)
        self.answers = [self.threads.submit(daemon.invoke, name, self.event) for _ in range(count)]

    def await_arrivals(self, count: int) -> None:
        seen = 0
        while seen < count:
            assert select.select([self.reader], [], [], WAIT_SECONDS)[0]
            seen += len(os.read(self.reader, 1000))
            time.sleep(0.001)  # end of file between two writers is readable too

    def release(self) -> None:
        """Everybody who stands at the gate, and who comes later."""
        self.writer = os.open(self.event["gate"], os.O_WRONLY)
        os.close(self.writer)

    def close(self) -> None:
        os.close(self.reader)
        self.threads.shutdown()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Callable[..., Held]]:
    made: list[Held] = []

    def hold(daemon: RunningDaemon, name: str, count: int) -> Held:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        made.append(Held(daemon, name, directory, count))
        return made[-1]

    yield hold
    for one in made:
        one.close()


def all_gone(pids: Iterable[int]) -> bool:
    return not any(_stat(pid) for pid in pids)


def exit_error(body: Any) -> bool:
    message: str = body["errorMessage"]
    return body["errorType"] == "Runtime.ExitError" and message.endswith(
        "Error: Runtime exited with error: signal: killed"
    )


def test_workers_killed_at_random_under_load(daemon: RunningDaemon, tmp_path: Path, rng: random.Random) -> None:
    name, path = daemon.deploy("nonces", NONCE), tmp_path / "nonces"
    stop = threading.Event()
    killed = 0
    outcomes: Counter[str] = Counter()
    results: list[str] = []

    def caller(base: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            nonce = f"{base}-{number}"
            answer = daemon.invoke(name, {"path": str(path), "nonce": nonce})
            if answer.error is None:
                assert answer.json == nonce
                results.append(nonce)
            else:
                assert exit_error(answer.json), answer.raw
                outcomes["error"] += 1

    with ThreadPoolExecutor(6) as threads:
        callers = [threads.submit(caller, base) for base in range(6)]
        try:
            while killed < 250:
                for row in daemon.environments(name):
                    if row["state"] in ("idle", "busy") and (row["pid"] or 0) > 1 and rng.random() < 0.5:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(row["pid"], signal.SIGKILL)
                            killed += 1
                assert not any(one.done() for one in callers)
        finally:
            stop.set()
        for one in callers:
            one.result()
    ran = Counter(path.read_text().split())
    assert max(ran.values()) == 1, "a nonce ran twice"
    assert set(results) <= set(ran), "an answer without a run"
    assert results
    # The pool is whole: what is left serves, nothing is counted that is not there.
    assert daemon.invoke(name, {"path": str(path), "nonce": "after"}).result == "after"
    await_truth(lambda: daemon.health()["environments"]["stopping"] == 0)
    statistics = daemon.health()["statistics"]["dispatcher"]
    assert statistics["outstanding"] == 0
    assert statistics["waiting"] == 0
    assert statistics["environments_live"] == sum(daemon.health()["environments"].values())


def test_the_zygote_is_killed(daemon: RunningDaemon, held: Callable[..., Held]) -> None:
    name = daemon.deploy("held-zygote", HOLD, Timeout=60)
    for _ in range(2):
        hold = held(daemon, name, 4)
        hold.await_arrivals(4)
        pids = [row["pid"] for row in daemon.environments(name)]
        zygote = int(_stat(pids[0])[1])  # type: ignore[index]
        assert zygote > 1
        assert zygote != daemon.process.pid
        os.kill(zygote, signal.SIGKILL)
        for answer in hold.answers:
            assert exit_error(answer.result().json), answer.result().raw
        await_truth(functools.partial(all_gone, pids))
        after = held(daemon, name, 1)
        after.await_arrivals(1)
        after.release()
        assert after.answers[0].result().result not in pids


def test_the_zygote_is_killed_under_load(daemon: RunningDaemon, tmp_path: Path) -> None:
    name, path = daemon.deploy("zygote-load", NONCE), tmp_path / "nonces"
    zygotes = 0
    with ThreadPoolExecutor(6) as threads:
        for turn in range(4):
            answers = [
                threads.submit(daemon.invoke, name, {"path": str(path), "nonce": f"{turn}-{index}"})
                for index in range(60)
            ]
            rows = [
                row for row in daemon.environments(name) if (row["pid"] or 0) > 1 and row["state"] in ("busy", "idle")
            ]
            fields = _stat(rows[0]["pid"]) if rows else None
            if fields is not None and int(fields[1]) > 1 and int(fields[1]) != daemon.process.pid:
                os.kill(int(fields[1]), signal.SIGKILL)
                zygotes += 1
            for index, answer in enumerate(answers):
                got = answer.result()
                assert got.error or got.json == f"{turn}-{index}"
                assert not got.error or exit_error(got.json), got.raw
    assert zygotes > 0
    assert max(Counter(path.read_text().split()).values()) == 1
    assert daemon.invoke(name, {"path": str(path), "nonce": "after"}).result == "after"


# --- the daemon itself --------------------------------------------------------------------------------


class Own:
    """A daemon outside of `running_daemon`, which would not let it be killed."""

    def __init__(self, base: Path, *options: str) -> None:
        self.temporary = base / "t"
        self.temporary.mkdir(exist_ok=True)
        self.stderr = base / "stderr"
        environment = {**os.environ, "TMPDIR": str(self.temporary), "XDG_RUNTIME_DIR": "", "HOME": str(base)}
        with self.stderr.open("a") as complaints:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fastlam", "serve", "--port", "0", *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
        assert self.process.stdout is not None
        match = READY.match(self.process.stdout.readline())
        assert match is not None, self.stderr.read_text()
        self.daemon = RunningDaemon(self.process, match[1], self.stderr)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def base() -> Iterator[Path]:
    """Short, since the paths of sockets may only have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="fastlam-test-") as directory:
        yield Path(directory)


def test_the_daemon_is_killed(base: Path, held: Callable[..., Held]) -> None:
    """None of its processes survives, not even one that has left its session; the next start removes the sockets and
    finds the functions.
    """
    own = Own(base, "--data-dir", str(base / "data"))
    daemon = own.daemon
    name = daemon.deploy("held", HOLD, Timeout=60)
    stray = daemon.deploy(
        "stray",
        "import os, signal\ndef handler(event, context):\n    pid = os.fork()\n    if pid:\n        return pid\n"
        "    os.setsid()\n    while True:\n        signal.pause()\n",
    )
    hold = held(daemon, name, 3)
    hold.await_arrivals(3)
    stray_pid = daemon.invoke(stray, {}).result
    family = descendants(own.process.pid)
    assert stray_pid in {pid for pid, _ in family}
    assert len(family) >= 6
    watches = [os.pidfd_open(pid) for pid, _ in family]
    own.process.kill()
    own.process.wait()
    for watch in watches:
        assert select.select([watch], [], [], WAIT_SECONDS)[0], "a process of the daemon survives it"
        os.close(watch)
    for answer in hold.answers:
        assert isinstance(answer.exception(), BotoCoreError)
    left = sorted(own.temporary.glob("fastlam-*"))
    assert len(left) == 1
    own.close()
    again = Own(base, "--data-dir", str(base / "data"))
    try:
        assert left[0] not in list(again.temporary.glob("fastlam-*"))
        assert isinstance(again.daemon.invoke(stray, {}).result, int)
        assert {f["FunctionName"] for f in again.daemon.lambda_.list_functions()["Functions"]} == {"held", "stray"}
        again.process.send_signal(signal.SIGTERM)
        again.process.wait(WAIT_SECONDS)
        assert again.process.returncode == 0
        assert list(again.temporary.glob("fastlam-*")) == []
    finally:
        again.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(held: Callable[..., Held], number: int) -> None:
    """What is in flight ends with its result; nobody else gets in."""
    with running_daemon() as daemon:
        name = daemon.deploy("held", HOLD, Timeout=60)
        hold = held(daemon, name, 2)
        hold.await_arrivals(2)
        daemon.process.send_signal(number)
        await_truth(lambda: refused(daemon))
        assert daemon.process.poll() is None
        hold.release()
        assert len({answer.result().result for answer in hold.answers}) == 2
        assert daemon.process.wait(WAIT_SECONDS) == 0


def refused(daemon: RunningDaemon) -> bool:
    try:
        daemon.send("GET", "/_fastlam/health")
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def test_a_second_signal_hurries(held: Callable[..., Held]) -> None:
    with running_daemon() as daemon:
        name = daemon.deploy("held", HOLD, Timeout=60)
        hold = held(daemon, name, 1)
        hold.await_arrivals(1)
        family = descendants(daemon.process.pid)
        watches = [os.pidfd_open(pid) for pid, _ in family]
        daemon.process.send_signal(signal.SIGINT)
        await_truth(lambda: refused(daemon))
        daemon.process.send_signal(signal.SIGINT)
        daemon.process.wait(WAIT_SECONDS)
        assert daemon.process.returncode == 0
        assert isinstance(hold.answers[0].exception(), BotoCoreError)
        for watch in watches:
            assert select.select([watch], [], [], WAIT_SECONDS)[0]
            os.close(watch)


# --- the data directory -------------------------------------------------------------------------------


def sentence(*options: str, directory: Path, status: int = 1) -> str:
    """What a daemon that cannot start says."""
    done = subprocess.run(
        [sys.executable, "-m", "fastlam", "serve", "--port", "0", *options],
        env={**os.environ, "TMPDIR": str(directory), "XDG_RUNTIME_DIR": "", "HOME": str(directory)},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    assert list(directory.glob("fastlam-*")) == []
    return done.stderr


def test_a_data_directory_that_cannot_be_written(base: Path) -> None:
    (base / "file").write_text("")
    for place in (base / "file" / "below", Path("/proc/none")):
        said = sentence("--data-dir", str(place), directory=base)
        assert len(said.strip().splitlines()) == 1, said
        assert str(place) in said
    said = sentence("--data-dir", str(base / "file"), directory=base, status=2)
    assert "is a file: give a directory" in said


def test_a_damaged_data_directory(base: Path) -> None:
    data = base / "data"
    data.mkdir()
    (data / "records.sqlite").write_bytes(b"this is no database" * 1000)
    said = sentence("--data-dir", str(data), directory=base)
    assert len(said.strip().splitlines()) == 1, said
    assert "Traceback" not in said


@pytest.fixture
def tiny(base: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    mount = base / "tiny"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a small file system needs the right to mount: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk(base: Path, tiny: Path) -> None:
    """Creating a function fails with an answer; the daemon goes on, and so does the function that was there."""
    own = Own(base, "--data-dir", str(tiny / "data"))
    try:
        daemon = own.daemon
        small = daemon.deploy("small", "def handler(event, context):\n    return event\n")
        body = json.dumps(
            {
                "FunctionName": "large",
                "Runtime": "python3.11",
                "Role": "arn:aws:iam::000000000000:role/lambda-role",
                "Handler": "app.handler",
                "Code": {"ZipFile": zipped_noise(2_000_000)},
            }
        ).encode()
        answer = daemon.send("POST", "/2015-03-31/functions", body)
        assert answer.status >= 500, answer
        assert "No space left" in answer.json.get("Message", answer.json.get("message", "")), answer
        assert daemon.invoke(small, 5).result == 5
        assert [f["FunctionName"] for f in daemon.lambda_.list_functions()["Functions"]] == ["small"]
        # No room for the lock; then for it alone, and not for the records.
        for room in (0, 4096, 8192):
            fill(tiny / "filler", room)
            said = sentence("--data-dir", str(tiny / f"other{room}"), directory=base)
            assert len(said.strip().splitlines()) == 1, said
            assert str(tiny) in said
        (tiny / "filler").unlink()
        assert daemon.invoke(small, 6).result == 6
        own.process.send_signal(signal.SIGTERM)
        assert own.process.wait(WAIT_SECONDS) == 0
    finally:
        own.close()


def fill(path: Path, room: int) -> None:
    """Takes all the space that is left, but for `room` bytes."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    os.truncate(path, path.stat().st_size - room)


def zipped_noise(size: int) -> str:
    return base64.b64encode(zipped({"app.py": "", "noise": random.randbytes(size)})).decode()
