"""Workers and zygotes that are killed under load: every call ends, none is executed twice, and the pool is whole again."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from daemon_running import GATE_CODE, Gate, RunningDaemon, await_end, descendants, zipped
from fastlam import Runtime
from fault_makers import await_that, children, processes, send

KILLS: Final = 100  # through each of the two doors
CALLERS: Final = 6
CALLS_BETWEEN: Final = 3  # that must end between two kills
CODE: Final = """
import os, time

def handler(event, context):
    descriptor = os.open(event["file"], os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"%d\\n" % event["nonce"])
    os.close(descriptor)
    if event.get("busy"):
        time.sleep(0.002)   # so that a kill may find it at work
    return event["nonce"]
"""
KILLED: Final = re.compile(r"RequestId: ([0-9a-f-]{36}) Error: Runtime exited with error: signal: killed")

Call = Callable[[int], tuple[Any, str | None]]  # nonce -> (payload, error), as Lambda answers


class Load:
    """Callers in a loop. Each nonce is given out once, and everything that came of it is kept."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.answers: dict[int, tuple[Any, str | None]] = {}
        self.failures: list[BaseException] = []
        self.stopping = False
        self._changed = threading.Condition()
        self._nonce = 0

    def _loop(self) -> None:
        while not self.stopping:
            with self._changed:
                self._nonce += 1
                nonce = self._nonce
            try:
                answer = self.call(nonce)
            except BaseException as error:  # noqa: BLE001 - told in the test's own thread
                self.failures.append(error)
                self.stopping = True
                answer = (None, "none")
            with self._changed:
                self.answers[nonce] = answer
                self._changed.notify_all()

    def await_answers(self, more: int) -> None:
        """Returns when so many more calls have ended."""
        with self._changed:
            wanted = len(self.answers) + more
            assert self._changed.wait_for(lambda: self.failures or len(self.answers) >= wanted, 60)
        assert self.failures == []

    def check(self, file: Path) -> int:
        """Each call had a result or Lambda's error document, and no nonce was executed twice; how many errors there were."""
        assert self.failures == []
        assert len(self.answers) == self._nonce, "a call has not ended"
        executed = Counter(map(int, file.read_text().split()))
        assert [nonce for nonce, count in executed.items() if count > 1] == []
        errors = 0
        for nonce, (payload, error) in self.answers.items():
            if error is None:
                assert payload == nonce
                assert executed[nonce] == 1
            else:
                errors += 1
                assert error == "Unhandled"
                assert payload["errorType"] == "Runtime.ExitError", payload
                assert KILLED.fullmatch(payload["errorMessage"]), payload
        return errors


@contextmanager
def under_load(call: Call) -> Iterator[Load]:
    load = Load(call)
    threads = [threading.Thread(target=load._loop, name=f"caller-{number}") for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stopping = True
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads), "a caller waits for ever"


def kill_some(load: Load, rng: random.Random, title: str, ancestor: int, count: int) -> None:
    """SIGKILL to random processes of that title, with calls ending in between. A zygote must have forked already: one that
    ends before it was up counts as one that cannot start.
    """
    between = 3 * CALLERS if "zygote" in title else CALLS_BETWEEN
    killed = 0
    while killed < count:
        assert load.failures == []
        if "zygote" in title:
            found = [pid for pid in children(ancestor, title) if descendants(pid)]
        else:
            found = processes(ancestor, title)
        if found and send(rng.choice(found), title, signal.SIGKILL):
            killed += 1
            load.await_answers(between)


def through(daemon: RunningDaemon, name: str, file: Path) -> Call:
    def call(nonce: int) -> tuple[Any, str | None]:
        event = {"nonce": nonce, "file": str(file), "busy": nonce % 2}
        answer = daemon.send_invoke(name, json.dumps(event).encode())
        assert answer.status == 200, answer
        return answer.json, answer.headers.get("x-amz-function-error")

    return call


def settled(daemon: RunningDaemon, name: str, call: Call) -> None:
    """Nothing is outstanding, all environments are idle and theirs are the processes that there are; new calls succeed."""
    statistics = daemon.health()["statistics"]["dispatcher"]
    assert (statistics["outstanding"], statistics["waiting"], statistics["in_ring"]) == (0, 0, 0)
    for nonce in range(-30, -10):
        assert call(nonce) == (nonce, None)
    await_that(lambda: {one["state"] for one in daemon.environments(name)} == {"idle"})
    title = f"fastlam: env {name}:"
    await_that(
        lambda: {one["pid"] for one in daemon.environments(name)} == set(processes(daemon.process.pid, title))
    )
    assert len(daemon.environments(name)) <= CALLERS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where handlers note what they execute."""
    path = tmp_path / "executed"
    path.touch()
    return path


def test_workers_of_a_daemon_are_killed(daemon: RunningDaemon, file: Path, rng: random.Random) -> None:
    daemon.deploy("killed", CODE, Timeout=30)
    call = through(daemon, "killed", file)
    with under_load(call) as load:
        load.await_answers(CALLERS)
        kill_some(load, rng, "fastlam: env killed:", daemon.process.pid, KILLS)
    assert load.check(file) > 0, "no kill has hit a call"
    settled(daemon, "killed", call)


def test_the_zygote_of_a_daemon_is_killed(daemon: RunningDaemon, file: Path, rng: random.Random) -> None:
    daemon.deploy("orphaned", CODE, Timeout=30)
    call = through(daemon, "orphaned", file)
    with under_load(call) as load:
        load.await_answers(CALLERS)
        kill_some(load, rng, "fastlam: zygote", daemon.process.pid, 8)
        load.await_answers(CALLERS)
    load.check(file)
    settled(daemon, "orphaned", call)
    assert len(processes(daemon.process.pid, "fastlam: zygote")) == 1


@pytest.mark.parametrize(("title", "count"), [("fastlam: env embedded:", KILLS), ("fastlam: zygote", 8)])
def test_embedded_workers_and_zygotes_are_killed(file: Path, rng: random.Random, title: str, count: int) -> None:
    with Runtime() as runtime:
        function = runtime.function("embedded", "app.handler", code=zipped(CODE), timeout=30)

        def call(nonce: int) -> tuple[Any, str | None]:
            result = function.invoke({"nonce": nonce, "file": str(file), "busy": nonce % 2}, timeout=60)
            return result.payload, result.function_error

        with under_load(call) as load:
            load.await_answers(CALLERS)
            kill_some(load, rng, title, os.getpid(), count)
        errors = load.check(file)
        assert errors > 0 or "zygote" in title, "no kill has hit a call"
        for nonce in range(-20, 0):
            assert call(nonce) == (nonce, None)
        workers = processes(os.getpid(), "fastlam: env embedded:")
        assert 1 <= len(workers) <= CALLERS
        family = {one for one in descendants(os.getpid()) if one[0] in workers}
    await_end(family)
    assert children(os.getpid(), "fastlam: zygote") == []


def test_a_runtime_is_closed_while_workers_are_killed(file: Path, rng: random.Random) -> None:
    """Closing ends every call, also those whose environment starts for the second time or is killed just now."""
    for _ in range(5):
        runtime = Runtime()
        other = Runtime()  # keeps the engine, so that the end of one runtime is not the end of all
        function = runtime.function("closing", "app.handler", code=zipped(CODE), timeout=30)
        ended = threading.Semaphore(0)

        def call(nonce: int) -> None:
            try:
                while True:
                    function.invoke({"nonce": nonce, "file": str(file), "busy": 1}, timeout=60)
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
            assert ended.acquire(timeout=60)
        for pid in processes(os.getpid(), "fastlam: env closing:"):
            send(pid, "fastlam: env closing:", signal.SIGKILL)
        runtime.close()
        for thread in threads:
            thread.join(60)
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


@pytest.mark.parametrize("when", ["at work", "idle"])
def test_a_stopped_worker_runs_into_its_timeout(daemon: RunningDaemon, gate: Gate, when: str) -> None:
    code = GATE_CODE + (
        "import os\ndef handler(event, context):\n"
        "    if event:\n        wait_at(event['gate'], str(os.getpid()))\n    return os.getpid()\n"
    )
    name = daemon.deploy("stopped-" + when.replace(" ", "-"), code, Timeout=1)
    pid = daemon.invoke(name).result
    if when == "idle":
        assert send(pid, f"fastlam: env {name}:", signal.SIGSTOP)
        invoked = daemon.invoke(name)
    else:
        answers = []
        caller = threading.Thread(target=lambda: answers.append(daemon.invoke(name, {"gate": gate.port})))
        caller.start()
        assert gate.arrive() == [str(pid)]
        assert send(pid, f"fastlam: env {name}:", signal.SIGSTOP)
        caller.join(60)
        invoked = answers[0]
    assert invoked.error == "Unhandled"
    assert invoked.json["errorType"] == "Sandbox.Timedout"
    assert re.fullmatch(
        r"RequestId: [0-9a-f-]{36} Error: Task timed out after 1\.00 seconds", invoked.json["errorMessage"]
    )
    assert daemon.invoke(name).result != pid
    await_that(lambda: pid not in processes(daemon.process.pid, f"fastlam: env {name}:"))


def test_a_function_that_kills_its_zygote(daemon: RunningDaemon) -> None:
    """Every environment goes with it, and comes again."""
    code = "import os\ndef handler(event, context):\n    if event:\n        os.kill(os.getppid(), 9)\n    return os.getpid()\n"
    daemon.deploy("patricide", code)
    pid = daemon.invoke("patricide").result
    invoked = daemon.invoke("patricide", "kill")
    if invoked.error is not None:
        assert KILLED.fullmatch(invoked.json["errorMessage"])
    await_that(lambda: daemon.invoke("patricide").result != pid)
