"""The environment that is made before it is needed: killed, it is missed by nobody; and it goes with its daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from daemon_running import RunningDaemon, await_end, descendants, running_daemon
from fastlam.worker.walled import TITLE
from fault_makers import processes, send, title_of
from ordinary_user import as_ordinary_user
from permitted import no_namespaces
from waiting import await_that

CODE = "import os\ndef handler(event, context):\n    return os.getpid()\n"


@pytest.fixture
def walled() -> Iterator[RunningDaemon]:
    """Each call has a cold start."""
    with running_daemon("--keepalive", "0", isolation="auto") as daemon:
        if "namespaces" in daemon.health()["isolation"]["missing"]:
            no_namespaces(daemon.health()["isolation"])
        daemon.deploy("hello", CODE)
        assert not processes(daemon.process.pid, TITLE)  # what is the same in all of them is not known yet
        daemon.invoke("hello", {})
        yield daemon


def next_environment(daemon: RunningDaemon) -> tuple[int, int]:
    """The one that waits, and the process that holds its namespaces."""
    await_that(lambda: processes(daemon.process.pid, TITLE))
    (pid,) = processes(daemon.process.pid, TITLE)
    namespace = Path(f"/proc/{pid}/ns/pid").readlink()
    (first,) = [
        one
        for one, _ in descendants(daemon.process.pid)
        if one != pid and Path(f"/proc/{one}/ns/pid").readlink() == namespace
    ]
    return pid, first


@pytest.mark.parametrize("which", [0, 1])
def test_one_that_is_killed_is_not_missed(walled: RunningDaemon, which: int) -> None:
    for _ in range(3):
        before = next_environment(walled)
        victim = before[which]
        assert send(victim, title_of(victim), signal.SIGKILL)
        await_end({one for one in descendants(walled.process.pid) if one[0] in before})
        assert walled.invoke("hello", {}).result > 0
    assert walled.stderr() == ""


def test_it_becomes_the_environment_of_the_next_call_and_another_takes_its_place(walled: RunningDaemon) -> None:
    seen = set()
    for _ in range(5):
        waiting, first = next_environment(walled)
        seen.add(waiting)
        family = {one for one in descendants(walled.process.pid) if one[0] in (waiting, first)}
        assert walled.invoke("hello", {}).result == 2  # the second process of its namespace
        await_end(family)
    assert len(seen) == 5


@pytest.mark.parametrize("keepalive", ["0", "600"])
@pytest.mark.parametrize("who", ["root", "user"])
def test_it_has_copies_of_the_pages_that_it_writes_to(who: str, keepalive: str) -> None:
    """After those before it have shown which these are; by its count of page faults."""
    user = as_ordinary_user() if who == "user" and os.geteuid() == 0 else nullcontext([])
    with user as prefix, running_daemon("--keepalive", keepalive, isolation="auto", prefix=prefix) as daemon:
        if "namespaces" in daemon.health()["isolation"]["missing"]:
            no_namespaces(daemon.health()["isolation"])
        code = (
            "import resource\ndef handler(event, context):\n"
            "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        )
        faults = []
        for number in range(8):
            name = daemon.deploy(f"faults-{number}", code)
            if number:
                waiting, _ = next_environment(daemon)
                await_that(lambda: _state_and_faults(waiting)[0] == "S")
                before = _state_and_faults(waiting)[1]
                faults.append(daemon.invoke(name, {}).result - before)
            else:
                daemon.invoke(name, {})
        assert min(faults[3:]) < faults[0] / 2, faults


def _state_and_faults(pid: int) -> tuple[str, int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[7])
