"""How a daemon ends: killed, told to stop once or twice, interrupted. Nothing survives it, and the next one starts well."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError

from daemon_running import GATE_CODE, READY, Gate, RunningDaemon, await_end, descendants, running_daemon
from fault_makers import processes, send
from waiting import WAIT_SECONDS, await_that

pytestmark = pytest.mark.lanes

HELD = GATE_CODE + "def handler(event, context):\n    wait_at(event['gate'])\n    return 'done'\n"


def hold(daemon: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate, count: int) -> list[Future[Any]]:
    """So many invocations inside the handler of "held", which it deploys."""
    daemon.deploy("held", HELD, Timeout=60)
    running = [callers.submit(daemon.invoke, "held", {"gate": gate.port}) for _ in range(count)]
    gate.arrive(count)
    return running


def await_gone(pids: list[int], end: Callable[[], object]) -> None:
    """Calls `end`, and returns when all of these processes are gone, by their pidfds."""
    pidfds = [os.pidfd_open(pid) for pid in pids]
    try:
        end()
        for pid, pidfd in zip(pids, pidfds, strict=True):
            ready, _, _ = select.select([pidfd], [], [], WAIT_SECONDS)
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
                except Exception as error:  # noqa: BLE001 - http.client has many words for a connection that broke
                    ends.append(error)

            threads = [threading.Thread(target=call) for _ in range(4)]
            for thread in threads:
                thread.start()
            for _ in range(40):
                assert answered.acquire(timeout=WAIT_SECONDS)
            family = [pid for pid, _ in descendants(daemon.process.pid)]
            assert len(processes(daemon.process.pid, "fastlam: env kept:")) >= 1
            await_gone(family, daemon.process.kill)
            daemon.process.wait()
            for thread in threads:
                thread.join(WAIT_SECONDS)
                assert not thread.is_alive(), "a caller waits for a dead daemon"
            assert not any(isinstance(end, AssertionError) for end in ends)
    assert len(list(sockets.iterdir())) == 1, "the last one's is still there"
    with running_daemon("--data-dir", str(data), ephemeral=False, environment=own) as daemon:
        assert isinstance(daemon.invoke("kept").result, int)
    assert list(sockets.iterdir()) == []


STRAY = """
import os, signal

def handler(event, context):
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    while True:
        signal.pause()
"""


def test_a_killed_daemon_takes_all_its_processes_along(
    directory: Path, callers: ThreadPoolExecutor, gate: Gate
) -> None:
    """Those that are at work too, and one that has left its session. The next daemon finds all functions."""
    sockets, data = directory / "s", directory / "data"
    sockets.mkdir()
    own = {"TMPDIR": str(sockets), "XDG_RUNTIME_DIR": str(sockets)}
    with running_daemon("--data-dir", str(data), ephemeral=False, environment=own) as daemon:
        running = hold(daemon, callers, gate, 3)
        stray = daemon.invoke(daemon.deploy("stray", STRAY)).result
        family = [pid for pid, _ in descendants(daemon.process.pid)]
        assert stray in family
        assert len(family) >= 6, "a zygote, four workers, the stray"
        await_gone(family, daemon.process.kill)
        daemon.process.wait()
        for future in running:
            assert isinstance(future.exception(), BotoCoreError), "the caller hears that the connection is gone"
    left = list(sockets.iterdir())
    assert len(left) == 1
    with running_daemon("--data-dir", str(data), ephemeral=False, environment=own) as daemon:
        assert left[0] not in list(sockets.iterdir())
        assert {one["FunctionName"] for one in daemon.lambda_.list_functions()["Functions"]} == {"held", "stray"}
        assert isinstance(daemon.invoke("stray").result, int)
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
                send(pid, "fastlam: zygote", signal.SIGKILL)

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
        running = hold(daemon, callers, gate, 3)
        daemon.process.send_signal(number)
        await_that(lambda: not answers(daemon))
        assert daemon.process.poll() is None
        gate.open()
        assert [future.result().result for future in running] == ["done"] * 3
        assert daemon.process.wait(WAIT_SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_hurries(callers: ThreadPoolExecutor, gate: Gate, number: int) -> None:
    with running_daemon() as daemon:
        running = hold(daemon, callers, gate, 3)
        family = descendants(daemon.process.pid)
        daemon.process.send_signal(number)
        await_that(lambda: not answers(daemon))
        daemon.process.send_signal(number)
        # The gate stays closed: what runs cannot end by itself, and the drain alone would take half a minute.
        assert daemon.process.wait(20) == 0
        for future in running:
            assert isinstance(future.exception(), BotoCoreError), "the caller hears that the connection is gone"
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
        running = hold(daemon, callers, gate, 2)
        family = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        await_that(lambda: not answers(daemon))
        gate.open()
        assert [future.result().result for future in running] == ["done"] * 2, "workers are not in the group"
        _, errors = process.communicate(timeout=WAIT_SECONDS)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.communicate()
    await_end(family)
    assert list(directory.iterdir()) == []
