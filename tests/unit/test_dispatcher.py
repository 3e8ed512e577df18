"""The dispatcher from outside: request ids, states of a call, statistics, closing, threads, and its two kinds of sockets."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fastlam import limits
from fastlam.config import LANE_KINDS
from fastlam.core.dispatcher import (
    OUTCOME_CANCELLED,
    OUTCOME_FAILED,
    OUTCOME_FUNCTION_ERROR,
    OUTCOME_OK,
    OUTCOME_PENDING,
    AccountPool,
    Dispatcher,
    DispatcherClosed,
    FunctionPool,
    Invocation,
    Target,
)
from fastlam.dispatch.faults import Faults
from fastlam.sandbox.launcher import Launcher
from no_launcher import NoLauncher

STATISTICS = {
    "submitted",
    "completed",
    "outstanding",
    "waiting",
    "in_ring",
    "environments_live",
    "environments_started",
    "environments_failed",
    "environments_reaped",
    "environments_recycled",
    "environments_evicted",
    "environments_retired",
    "environments_reset",
    "cold_starts",
    "held_up",
    "rejected",
    "bad_frames",
    "late_replies",
    "requeued",
    "stolen",
    "log_dropped_bytes",
    "passes",
    "sleeps",
    "wakes",
}


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    made = Dispatcher(NoLauncher(), Faults())
    yield made
    made.close()


def function(name: str = "f") -> Target:
    return Target(name, None, FunctionPool(AccountPool("0" * 12, "us-east-1", 1000), name), 1000)


# --- calls --------------------------------------------------------------------------------------------


def test_a_call_that_waits_for_an_environment(dispatcher: Dispatcher) -> None:
    call = Invocation(function(), b"{}")
    assert (call.done, call.running, call.outcome, call.queue_ns) == (False, False, OUTCOME_PENDING, 0)
    dispatcher.submit(call)
    assert not call.done
    assert not dispatcher.wait(call, 0.01)
    assert call.target.counts == (1, 0, 0, 1)
    statistics = dispatcher.statistics()
    assert (statistics["submitted"], statistics["outstanding"], statistics["waiting"]) == (1, 1, 1)
    assert dispatcher.cancel(call)
    assert (call.done, call.outcome) == (True, OUTCOME_CANCELLED)
    assert not dispatcher.cancel(call)
    assert call.target.pool.running == 0


def test_a_target_has_bounds() -> None:
    for slots in (0, 65, -1):
        with pytest.raises(ValueError, match="slots_per_environment"):
            Target("t", None, slots_per_environment=slots)


def test_statistics_are_integers_by_fixed_names(dispatcher: Dispatcher) -> None:
    statistics = dispatcher.statistics()
    assert set(statistics) >= STATISTICS
    assert all(type(value) is int for value in statistics.values())


def test_closing_cancels_what_waits_and_refuses_what_comes() -> None:
    dispatcher = Dispatcher(NoLauncher(), Faults())
    heard: list[Invocation] = []
    calls = [Invocation(function(name), b"{}") for name in "abc"]
    for call in calls:
        call.on_done = heard.append
        dispatcher.submit(call)
    dispatcher.close()
    assert [call.outcome for call in heard] == [OUTCOME_CANCELLED] * 3
    assert {id(call) for call in heard} == {id(call) for call in calls}
    dispatcher.close()
    for use in (
        lambda: dispatcher.submit(Invocation(function(), b"")),
        lambda: dispatcher.submit_all([Invocation(function(), b"")]),
        lambda: dispatcher.wait(Invocation(function(), b""), 1),
    ):
        with pytest.raises(DispatcherClosed):
            use()


def test_a_waiting_thread_hears_of_the_close() -> None:
    dispatcher = Dispatcher(NoLauncher(), Faults())
    dispatcher.ensure_background()
    call = Invocation(function(), b"{}")
    dispatcher.submit(call)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (dispatcher.wait(call), done.set()))
    thread.start()
    dispatcher.close()
    assert done.wait(30)
    thread.join()
    assert call.outcome == OUTCOME_CANCELLED


def test_an_order_is_carried_out_by_the_thread_that_drives() -> None:
    dispatcher = Dispatcher(NoLauncher(), Faults())
    call = Invocation(function(), b"{}")
    dispatcher.submit(call)
    driver = threading.Thread(target=dispatcher.wait, args=(call, 30))
    driver.start()
    while not dispatcher.statistics()["sleeps"]:
        pass
    assert dispatcher.run_as_driver(threading.current_thread) is driver
    with pytest.raises(ZeroDivisionError):
        dispatcher.run_as_driver(lambda: 1 // 0)
    assert dispatcher.cancel(call)
    driver.join()
    assert dispatcher.run_as_driver(threading.current_thread) is threading.current_thread()
    dispatcher.close()


def test_more_submissions_than_the_ring_holds(dispatcher: Dispatcher) -> None:
    target = Target("tasks", None, environments_max=1)
    calls = [Invocation(target, b"") for _ in range(3 * limits.SUBMIT_RING_SLOTS)]
    threads = [
        threading.Thread(target=lambda part=calls[index::3]: [dispatcher.submit(call) for call in part])  # type: ignore[misc]
        for index in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dispatcher.take_waiting(target) == len(calls)
    assert {call.outcome for call in calls} == {OUTCOME_CANCELLED}


# --- environments that do not come up -----------------------------------------------------------------


def test_a_launcher_that_fails_is_the_calls_error() -> None:
    class Failing(NoLauncher):
        def launch(self, environment: Any) -> None:
            raise RuntimeError("no room")

    dispatcher = Dispatcher(Failing(), Faults())
    call = Invocation(function(), b"{}")
    dispatcher.submit(call)
    assert (call.outcome, call.error) == (OUTCOME_FAILED, "RuntimeError: no room")
    assert dispatcher.statistics()["environments_live"] == 0
    dispatcher.close()


def test_an_init_that_takes_too_long_is_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds in Lambda; the second attempt has the function's own time. No process is involved here."""
    monkeypatch.setattr(limits, "INIT_TIMEOUT_MS", 20)
    phases: list[str] = []

    class Noting(NoLauncher):
        def launch(self, environment: Any) -> None:
            phases.append(environment.phase)
            environment.attach_process(2**22, -1)

    dispatcher = Dispatcher(Noting(), Faults())
    target = Target("f", None, FunctionPool(AccountPool("0" * 12, "us-east-1", 1000), "f"), 40)
    call = Invocation(target, b"{}")
    dispatcher.submit(call)
    assert dispatcher.wait(call, 30)
    assert phases[0] == "init"
    assert phases.count("invoke") == 1
    assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Sandbox.Timedout")
    assert b"Task timed out after 0.04 seconds" in call.result
    assert call.duration_ns == 40_000_000
    assert target.pool.running == 0
    dispatcher.close()


def test_a_process_that_is_not_made_in_time_is_the_calls_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is no part of INIT's, however short that is."""
    monkeypatch.setattr(limits, "PROCESS_START_SECONDS", 1)
    monkeypatch.setattr(limits, "INIT_TIMEOUT_MS", 1)
    launcher = NoLauncher()
    dispatcher = Dispatcher(launcher, Faults())
    target = Target("f", None, FunctionPool(AccountPool("0" * 12, "us-east-1", 1000), "f"), 1)
    calls = [Invocation(target, b"{}") for _ in range(2)]
    for call in calls:
        dispatcher.submit(call)
        assert dispatcher.wait(call, 30)
        assert call.done_ns - call.submitted_ns >= 1_000_000_000
        assert (call.outcome, call.error) == (OUTCOME_FAILED, "no process was made within 1 s")
    assert len(launcher.launched) == 2
    found = dispatcher.statistics()
    assert [found[name] for name in ("environments_failed", "environments_reset", "environments_live")] == [2, 0, 0]
    assert target.pool.running == 0
    dispatcher.close()


# --- both kinds of lanes ------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", LANE_KINDS)
def test_a_task_goes_to_a_real_worker_and_back(lane: str) -> None:
    import pickle

    from fastlam.abc import LaunchSpec
    from fastlam.embed.pickling import preparation
    from fastlam.wire import tasks
    from fastlam.wire.control import WorkerSpec

    launcher = Launcher(lane)
    dispatcher = Dispatcher(launcher, Faults())
    launcher.dispatcher = dispatcher
    spec = WorkerSpec(
        kind="tasks",
        title="unit",
        environ=dict(os.environ),
        directory="/",
        path=__import__("sys").path,
        preparation=preparation()[0],
    )
    try:
        target = Target(
            "unit",
            LaunchSpec(spec, captures_output=False, frame_bytes_max=-1),
            slots_per_environment=8,
            environments_max=1,
        )
        calls = [
            Invocation(target, tasks.pack(((size,), {}), pickle.dumps(bytes))) for size in (0, 10, 2000, 300_000) * 50
        ]
        dispatcher.submit_all(calls)
        for call, size in zip(calls, (0, 10, 2000, 300_000) * 50, strict=True):
            assert dispatcher.wait(call, 60)
            assert (call.outcome, tasks.unpack(call.result)) == (OUTCOME_OK, bytes(size))
        buffers = Invocation(target, tasks.pack(((pickle.PickleBuffer(b"x" * 1000),), {}), pickle.dumps(len)))
        dispatcher.submit(buffers)
        assert dispatcher.wait(buffers, 60)
        assert tasks.unpack(buffers.result) == 1000
        (environment,) = dispatcher.environments_of(target)
        signal.pidfd_send_signal(environment.pidfd, signal.SIGKILL)
        again = Invocation(target, tasks.pack(((5,), {}), pickle.dumps(bytes)))
        dispatcher.submit(again)
        assert dispatcher.wait(again, 60)
        assert tasks.unpack(again.result) == bytes(5)
    finally:
        dispatcher.close()
        launcher.close()
