"""How a daemon ends, and how it does not start: killed, told to stop once or twice, interrupted, or in another one's place."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from daemon_running import GATE_CODE, READY, Gate, RunningDaemon, await_end, descendants, running_daemon
from fault_makers import await_that, processes

HELD = GATE_CODE + (
    "def handler(event, context):\n    if event:\n        wait_at(event['gate'])\n    return 'done'\n"
)


@pytest.fixture
def directory() -> Iterator[Path]:
    """For sockets and data of daemons that end without clearing up. A short path: a socket's may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="flt-") as path:
        yield Path(path)


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def hold(daemon: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate, count: int) -> list[Future[Any]]:
    """So many invocations inside the handler of "held"."""
    running = [callers.submit(daemon.invoke, "held", {"gate": gate.port}) for _ in range(count)]
    gate.arrive(count)
    return running


def await_gone(pids: list[int], end: Any) -> None:
    """Calls `end`, and returns when all of these processes are gone, by their pidfds."""
    pidfds = [os.pidfd_open(pid) for pid in pids]
    try:
        end()
        for pid, pidfd in zip(pids, pidfds, strict=True):
            ready, _, _ = select.select([pidfd], [], [], 30)
            assert ready, f"{pid} lives on: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}"
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def test_a_daemon_is_killed_under_load(directory: Path) -> None:
    sockets, data = directory / "s", directory / "data"
    sockets.mkdir()
    own = {"TMPDIR": str(sockets), "XDG_RUNTIME_DIR": str(sockets)}
    for turn in range(3):
        with running_daemon("--data-dir", str(data), ephemeral=False, environment=own) as daemon:
            # What the killed predecessor has left is gone, and what it was told is there.
            assert len(list(sockets.iterdir())) == 1, "its own directory alone"
            if turn == 0:
                daemon.deploy("kept", "import os\ndef handler(event, context):\n    return os.getpid()\n", Timeout=30)
            answered = threading.Semaphore(0)
            ends: list[BaseException] = []

            def call(daemon: RunningDaemon = daemon, answered: threading.Semaphore = answered) -> None:
                try:
                    while True:
                        assert daemon.send_invoke("kept").status == 200
                        answered.release()
                except (ConnectionError, OSError) as error:
                    ends.append(error)
                except Exception as error:  # noqa: BLE001 - http.client has many words for a connection that broke
                    ends.append(error)

            threads = [threading.Thread(target=call) for _ in range(4)]
            for thread in threads:
                thread.start()
            for _ in range(40):
                assert answered.acquire(timeout=60)
            family = [pid for pid, _ in descendants(daemon.process.pid)]
            assert len(processes(daemon.process.pid, "fastlam: env kept:")) >= 1
            await_gone(family, daemon.process.kill)
            daemon.process.wait()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive(), "a caller waits for a dead daemon"
            assert not any(isinstance(end, AssertionError) for end in ends)
    assert len(list(sockets.iterdir())) == 1, "the last one's is still there"
    with running_daemon("--data-dir", str(data), ephemeral=False, environment=own) as daemon:
        assert isinstance(daemon.invoke("kept").result, int)
    assert list(sockets.iterdir()) == []


def test_a_daemon_and_its_zygote_are_killed_at_once(directory: Path) -> None:
    own = {"TMPDIR": str(directory), "XDG_RUNTIME_DIR": str(directory)}
    with running_daemon(environment=own) as daemon:
        daemon.deploy("doomed", "def handler(event, context):\n    return 1\n")
        daemon.invoke("doomed")
        zygotes = processes(daemon.process.pid, "fastlam: zygote")
        family = [pid for pid, _ in descendants(daemon.process.pid)]
        assert len(family) > len(zygotes) >= 1

        def end() -> None:
            daemon.process.kill()
            for pid in zygotes:
                os.kill(pid, signal.SIGKILL)

        await_gone(family, end)
        daemon.process.wait()


def answers(daemon: RunningDaemon) -> bool:
    try:
        return daemon.send("GET", "/_fastlam/health").status == 200
    except ConnectionError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_what_runs_end(callers: ThreadPoolExecutor, gate: Gate, number: int) -> None:
    with running_daemon() as daemon:
        daemon.deploy("held", HELD, Timeout=60)
        running = hold(daemon, callers, gate, 3)
        daemon.process.send_signal(number)
        await_that(lambda: not answers(daemon))
        assert daemon.process.poll() is None
        gate.open()
        assert [future.result().result for future in running] == ["done"] * 3
        assert daemon.process.wait(60) == 0


def test_the_second_signal_hurries(callers: ThreadPoolExecutor, gate: Gate) -> None:
    with running_daemon() as daemon:
        daemon.deploy("held", HELD, Timeout=60)
        running = hold(daemon, callers, gate, 3)
        family = descendants(daemon.process.pid)
        daemon.process.send_signal(signal.SIGTERM)
        await_that(lambda: not answers(daemon))
        daemon.process.send_signal(signal.SIGTERM)
        # The gate stays closed: what runs cannot end by itself, and the drain alone would take half a minute.
        assert daemon.process.wait(20) == 0
        for future in running:
            assert future.exception() is not None, "the caller hears that the connection is gone"
        await_end(family)


def test_an_interrupted_process_group_leaves_nothing(callers: ThreadPoolExecutor, gate: Gate, directory: Path) -> None:
    """Ctrl-C in a terminal goes to all processes of the foreground group at once."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fastlam", "serve", "--port", "0", "--ephemeral"],
        env={**os.environ, "TMPDIR": str(directory), "XDG_RUNTIME_DIR": str(directory), "HOME": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        match = READY.match(process.stdout.readline())
        assert match is not None
        daemon = RunningDaemon(process, match[1], directory / "none")
        daemon.deploy("held", HELD, Timeout=60)
        assert daemon.invoke("held").result == "done"
        running = hold(daemon, callers, gate, 2)
        family = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        await_that(lambda: not answers(daemon))
        gate.open()
        assert [future.result().result for future in running] == ["done"] * 2, "workers are not in the group"
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.communicate()
    await_end(family)
    assert list(directory.iterdir()) == []


# ---- daemons that do not start -----------------------------------------------------------------------


def refused(directory: Path, *options: str) -> str:
    """The sentence with which a daemon gives up."""
    sockets = directory / "refused"
    sockets.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "fastlam", "serve", *options],
        env={**os.environ, "TMPDIR": str(sockets), "XDG_RUNTIME_DIR": str(sockets), "HOME": str(directory)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in lines[0] and lines[0].endswith(".")
    assert list(sockets.iterdir()) == [], "it has left its socket directory"
    return lines[0]


def test_the_port_is_taken(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        sentence = refused(directory, "--ephemeral", "--port", str(port))
    assert re.search(rf"Port {port} on 127\.0\.0\.1 is in use", sentence)


def test_the_port_is_another_daemons(directory: Path) -> None:
    with running_daemon() as daemon:
        sentence = refused(directory, "--ephemeral", "--port", str(daemon.port))
        assert f"Port {daemon.port} " in sentence
        assert answers(daemon)


def test_the_data_directory_is_another_daemons(directory: Path) -> None:
    data = directory / "data"
    with running_daemon("--data-dir", str(data), ephemeral=False) as daemon:
        daemon.deploy("one", "def handler(event, context):\n    return 1\n")
        sentence = refused(directory, "--port", "0", "--data-dir", str(data))
        assert str(data) in sentence
        assert f"pid {daemon.process.pid}" in sentence
        assert daemon.invoke("one").result == 1


@pytest.mark.parametrize("case", ["below a file", "in a file system of the kernel's", "read-only"])
def test_the_data_directory_cannot_be_made(directory: Path, case: str) -> None:
    if case == "below a file":
        (directory / "file").write_text("")
        data = directory / "file" / "data"
    elif case == "read-only":
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        data = directory / "closed"
        data.mkdir(mode=0o500)
    else:
        data = Path("/proc/self/fastlam")
    assert str(data) in refused(directory, "--port", "0", "--data-dir", str(data))


@pytest.mark.parametrize("case", ["lock", "records.sqlite", "code", "no database"])
def test_the_data_directory_holds_something_else(directory: Path, case: str) -> None:
    data = directory / "data"
    data.mkdir()
    if case == "code":
        (data / "code").write_text("a file")
    elif case == "no database":
        (data / "records.sqlite").write_bytes(b"no database" * 1000)
    else:
        (data / case).mkdir()
    assert str(data) in refused(directory, "--port", "0", "--data-dir", str(data))
