"""Asynchronous invocations on every lane, on the machine's clock; what they go through is told by test_event_retries."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from daemon_running import Gate, RunningDaemon
from event_running import ATTEMPTS, Sent, attempts_with, counters, row, settle
from waiting import await_that

pytestmark = pytest.mark.lanes


def test_events_run_once_each(daemon: RunningDaemon, tmp_path: Path) -> None:
    name = daemon.deploy("once", ATTEMPTS)
    before = counters(daemon)
    sent = [Sent(daemon, name, tmp_path / "attempts") for _ in range(50)]
    settle(daemon)
    assert [one.words for one in sent] == [["first"]] * 50
    after = counters(daemon)
    assert [after[key] - before[key] for key in ("accepted", "completed", "dropped")] == [50, 50, 0]


def test_a_throttled_event_runs_later_and_on_new_code(daemon: RunningDaemon, tmp_path: Path, gate: Gate) -> None:
    name = daemon.deploy("later", ATTEMPTS, Timeout=60)
    daemon.lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    event = {"path": str(tmp_path / "other"), "gate": gate.port}
    call = threading.Thread(target=daemon.invoke, args=(name, event))
    call.start()
    gate.arrive()
    sent = Sent(daemon, name, tmp_path / "attempts")
    await_that(lambda: row(daemon, name)["throttled"] == 1)
    daemon.update(name, attempts_with("second"))
    assert sent.words == []
    gate.open()
    call.join()
    settle(daemon)
    assert sent.words == ["second"]
