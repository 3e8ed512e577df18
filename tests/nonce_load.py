"""A load of calls under which processes are killed: each carries a nonce that its handler notes before all else, so that it
shows when a call was executed twice, or had a result without being executed.
"""

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

from daemon_running import RunningDaemon, await_end, descendants, zipped
from fastlam import Runtime
from fault_makers import children, processes, send
from waiting import WAIT_SECONDS, await_that

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

    def loop(self) -> None:
        """What one caller does."""
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
            assert self._changed.wait_for(lambda: self.failures or len(self.answers) >= wanted, WAIT_SECONDS)
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
        assert errors < len(self.answers), "nothing was answered"
        return errors


@contextmanager
def under_load(call: Call) -> Iterator[Load]:
    load = Load(call)
    threads = [threading.Thread(target=load.loop, name=f"caller-{number}") for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stopping = True
        for thread in threads:
            thread.join(2 * WAIT_SECONDS)
        assert not any(thread.is_alive() for thread in threads), "a caller waits for ever"


def kill_some(load: Load, rng: random.Random, title: str, ancestor: int, count: int, at_once: int = 1) -> None:
    """SIGKILL to random processes of that title, up to `at_once` of them in one go, with calls ending in between. A zygote
    must have forked already: one that ends before it was up counts as one that cannot start.
    """
    between = 3 * CALLERS if "zygote" in title else CALLS_BETWEEN
    killed = 0
    while killed < count:
        assert load.failures == []
        if "zygote" in title:
            found = [pid for pid in children(ancestor, title) if descendants(pid)]
        else:
            found = processes(ancestor, title)
        victims = rng.sample(found, min(len(found), rng.randint(1, at_once)))
        hits = sum(send(pid, title, signal.SIGKILL) for pid in victims)
        if hits:
            killed += hits
            load.await_answers(between)


def through(daemon: RunningDaemon, name: str, file: Path) -> Call:
    """Calls of a daemon's function."""

    def call(nonce: int) -> tuple[Any, str | None]:
        event = {"nonce": nonce, "file": str(file), "busy": nonce % 2}
        answer = daemon.send_invoke(name, json.dumps(event).encode())
        assert answer.status == 200, answer
        return answer.json, answer.headers.get("x-amz-function-error")

    return call


@contextmanager
def embedded(file: Path) -> Iterator[Call]:
    """Calls of a function that this process runs; on the way out the pool is whole, and then gone."""
    with Runtime() as runtime:
        function = runtime.function("embedded", "app.handler", code=zipped(CODE), timeout=30)

        def call(nonce: int) -> tuple[Any, str | None]:
            event = {"nonce": nonce, "file": str(file), "busy": nonce % 2}
            result = function.invoke(event, timeout=WAIT_SECONDS)
            return result.payload, result.function_error

        yield call
        for nonce in range(-20, 0):
            assert call(nonce) == (nonce, None)
        workers = processes(os.getpid(), "fastlam: env embedded:")
        assert 1 <= len(workers) <= CALLERS
        family = {one for one in descendants(os.getpid()) if one[0] in workers}
    await_end(family)
    assert children(os.getpid(), "fastlam: zygote") == []


def settled(daemon: RunningDaemon, name: str, call: Call) -> None:
    """Nothing is outstanding, all environments are idle and theirs are the processes that there are; new calls succeed."""
    statistics = daemon.health()["statistics"]["dispatcher"]
    assert (statistics["outstanding"], statistics["waiting"], statistics["in_ring"]) == (0, 0, 0)
    for nonce in range(-30, -10):
        assert call(nonce) == (nonce, None)
    await_that(lambda: {one["state"] for one in daemon.environments(name)} == {"idle"})
    title = f"fastlam: env {name}:"
    await_that(lambda: {one["pid"] for one in daemon.environments(name)} == set(processes(daemon.process.pid, title)))
    assert len(daemon.environments(name)) <= CALLERS
    await_that(lambda: daemon.health()["environments"]["stopping"] == 0)
    health = daemon.health()
    assert health["statistics"]["dispatcher"]["environments_live"] == sum(health["environments"].values())
