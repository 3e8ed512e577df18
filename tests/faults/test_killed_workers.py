"""Workers that are killed or stopped: every call ends, none is executed twice, and the pool is whole again."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon_running import GATE_CODE, Gate, RunningDaemon, zipped
from failed_calls import timed_out
from fastlam import Runtime
from fault_makers import processes, send
from nonce_load import CALLERS, CODE, embedded, kill_some, settled, through, under_load
from waiting import WAIT_SECONDS, await_that

pytestmark = pytest.mark.lanes


@pytest.mark.parametrize(("count", "at_once"), [(100, 1), (250, CALLERS)], ids=["one by one", "many at once"])
def test_workers_of_a_daemon_are_killed(
    daemon: RunningDaemon, executed: Path, rng: random.Random, count: int, at_once: int
) -> None:
    name = daemon.deploy(f"killed-{at_once}", CODE, Timeout=30)
    call = through(daemon, name, executed)
    with under_load(call) as load:
        load.await_answers(CALLERS)
        kill_some(load, rng, f"fastlam: env {name}:", daemon.process.pid, count, at_once)
    assert load.check(executed) > 0, "no kill has hit a call"
    settled(daemon, name, call)


def test_embedded_workers_are_killed(executed: Path, rng: random.Random) -> None:
    with embedded(executed) as call:
        with under_load(call) as load:
            load.await_answers(CALLERS)
            kill_some(load, rng, "fastlam: env embedded:", os.getpid(), 100)
        assert load.check(executed) > 0, "no kill has hit a call"


def test_a_runtime_is_closed_while_workers_are_killed(executed: Path) -> None:
    """Closing ends every call, also those whose environment starts for the second time or is killed just now."""
    for _ in range(5):
        runtime = Runtime()
        other = Runtime()  # keeps the engine, so that the end of one runtime is not the end of all
        function = runtime.function("closing", "app.handler", code=zipped(CODE), timeout=30)
        ended = threading.Semaphore(0)

        def call(nonce: int) -> None:
            try:
                while True:
                    function.invoke({"nonce": nonce, "file": str(executed), "busy": 1}, timeout=WAIT_SECONDS)
                    ended.release()
            except TimeoutError:
                raise
            except Exception as error:
                # The sentences for "was not run" and "has been closed".
                assert re.search("closed", str(error)), error
                ended.release()

        threads = [threading.Thread(target=call, args=(0,)) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for _ in range(CALLERS):
            assert ended.acquire(timeout=WAIT_SECONDS)
        for pid in processes(os.getpid(), "fastlam: env closing:"):
            send(pid, "fastlam: env closing:", signal.SIGKILL)
        runtime.close()
        for thread in threads:
            thread.join(WAIT_SECONDS)
        alive = [thread.name for thread in threads if thread.is_alive()]
        other.close()
        assert alive == []


def test_a_worker_that_is_killed_while_idle_is_not_missed(daemon: RunningDaemon) -> None:
    """Also when the next call comes before anybody knows that the worker is gone."""
    daemon.deploy("idle", "import os\ndef handler(event, context):\n    return os.getpid()\n")
    seen = set()
    for turn in range(20):
        pid = daemon.invoke("idle").result
        assert pid not in seen
        seen.add(pid)
        assert send(pid, "fastlam: env idle:", signal.SIGKILL)
        if turn % 2:
            await_that(lambda: pid not in {one["pid"] for one in daemon.environments("idle")})
    assert daemon.health()["statistics"]["dispatcher"]["outstanding"] == 0


STOPPED = (
    GATE_CODE
    + """
import os, signal

def handler(event, context):
    if event == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif event:
        wait_at(event["gate"], str(os.getpid()))
    return os.getpid()
"""
)


@pytest.mark.parametrize("when", ["idle", "at work", "by itself"])
def test_a_stopped_worker_runs_into_its_timeout(
    daemon: RunningDaemon, gate: Gate, callers: ThreadPoolExecutor, when: str
) -> None:
    name = daemon.deploy("stopped-" + when.replace(" ", "-"), STOPPED, Timeout=1)
    title = f"fastlam: env {name}:"
    pid = daemon.invoke(name).result
    if when == "idle":
        assert send(pid, title, signal.SIGSTOP)
        invoked = daemon.invoke(name)
    elif when == "at work":
        answer = callers.submit(daemon.invoke, name, {"gate": gate.port})
        assert gate.arrive() == [str(pid)]
        assert send(pid, title, signal.SIGSTOP)
        invoked = answer.result()
    else:
        invoked = daemon.invoke(name, "stop")
    timed_out(invoked, 1)
    assert daemon.invoke(name).result != pid
    await_that(lambda: pid not in processes(daemon.process.pid, title))
