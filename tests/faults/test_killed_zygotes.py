"""Zygotes that are killed: their environments go with them, every call ends, none is executed twice, and a new zygote takes
the place.
"""

from __future__ import annotations

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon_running import GATE_CODE, Gate, RunningDaemon, await_end, descendants
from failed_calls import killed
from fault_makers import children, processes, send
from nonce_load import CALLERS, CODE, KILLED, embedded, kill_some, settled, through, under_load
from waiting import await_that

pytestmark = pytest.mark.lanes

ZYGOTE = "fastlam: zygote"
KILLS = 8


def test_the_zygote_of_a_daemon_is_killed(daemon: RunningDaemon, executed: Path, rng: random.Random) -> None:
    daemon.deploy("orphaned", CODE, Timeout=30)
    call = through(daemon, "orphaned", executed)
    with under_load(call) as load:
        load.await_answers(CALLERS)
        kill_some(load, rng, ZYGOTE, daemon.process.pid, KILLS)
        load.await_answers(CALLERS)
    load.check(executed)
    settled(daemon, "orphaned", call)
    assert len(processes(daemon.process.pid, ZYGOTE)) == 1


def test_the_zygote_of_an_embedding_program_is_killed(executed: Path, rng: random.Random) -> None:
    with embedded(executed) as call:
        with under_load(call) as load:
            load.await_answers(CALLERS)
            kill_some(load, rng, ZYGOTE, os.getpid(), KILLS)
        load.check(executed)


def test_calls_at_work_end_with_their_zygote(daemon: RunningDaemon, gate: Gate, callers: ThreadPoolExecutor) -> None:
    code = "import os\ndef handler(event, context):\n    wait_at(event['gate'])\n    return os.getpid()\n"
    daemon.deploy("held", GATE_CODE + code, Timeout=60)
    for _ in range(2):
        answers = [callers.submit(daemon.invoke, "held", {"gate": gate.port}) for _ in range(4)]
        gate.arrive(4)
        (zygote,) = [pid for pid in children(daemon.process.pid, ZYGOTE) if descendants(pid)]
        pids = {row["pid"] for row in daemon.environments("held")}
        family = {one for one in descendants(zygote) if one[0] in pids}
        assert len(family) == 4
        assert send(zygote, ZYGOTE, signal.SIGKILL)
        for answer in answers:
            killed(answer.result())
        await_end(family)
        after = callers.submit(daemon.invoke, "held", {"gate": gate.port})
        gate.arrive()
        gate.open()
        assert after.result().result not in pids


def test_a_function_that_kills_its_zygote(daemon: RunningDaemon) -> None:
    """Every environment goes with it, and comes again."""
    daemon.deploy(
        "patricide",
        "import os\ndef handler(event, context):\n    parent = os.getppid()\n"
        "    if event and parent > 1:\n        os.kill(parent, 9)\n    return os.getpid()\n",
    )
    pid = daemon.invoke("patricide").result
    invoked = daemon.invoke("patricide", "kill")
    if invoked.error is not None:
        assert KILLED.fullmatch(invoked.json["errorMessage"])
    await_that(lambda: daemon.invoke("patricide").result != pid)
