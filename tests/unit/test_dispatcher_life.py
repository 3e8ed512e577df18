"""How long environments live: what stops them when nothing is wrong, what ends them otherwise, and what is counted."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from counted_calls import ask, finish, played_by
from fastlam import limits
from fastlam.core.dispatcher import OUTCOME_FUNCTION_ERROR, Invocation, Target
from fastlam.dispatch.bound import BoundNotice
from played_environments import Stage, staged
from waiting import WAIT_SECONDS

pytestmark = pytest.mark.lanes

A_MOMENT = 1e-9  # in seconds: shorter than anything takes


def counts(stage: Stage, *names: str) -> tuple[int, ...]:
    found = stage.dispatcher.statistics()
    return tuple(found[name] for name in names)


def drive_until(stage: Stage, condition: Callable[[], object]) -> None:
    assert stage.dispatcher.drive_until(condition, WAIT_SECONDS), "it has not come to pass"


def served(stage: Stage, target: Target) -> int:
    """The id of the environment of a call that is over."""
    invocation = ask(stage, target)
    finish(stage, invocation)
    return invocation.environment_id


def gone(stage: Stage, target: Target) -> bool:
    return stage.dispatcher.environments_of(target) == []


# --- keep-alive ---------------------------------------------------------------------------------------


def test_what_has_idled_for_its_time_is_stopped_and_nothing_else(stage: Stage) -> None:
    short = stage.function(keepalive_seconds=0.001)
    working, long, endless = (stage.function(keepalive_seconds=seconds) for seconds in (0.001, 3600.0, float("inf")))
    call = ask(stage, working)
    for target in (short, long, endless):
        served(stage, target)
    drive_until(stage, lambda: gone(stage, short))
    assert [len(stage.dispatcher.environments_of(one)) for one in (working, long, endless)] == [1, 1, 1]
    assert counts(stage, "environments_reaped", "environments_recycled", "environments_reset") == (1, 0, 0)
    finish(stage, call)
    drive_until(stage, lambda: gone(stage, working))
    assert counts(stage, "environments_reaped") == (2,)
    assert len(stage.dispatcher.environments_of(long)) == 1


def test_without_keep_alive_each_call_has_an_environment_of_its_own(stage: Stage) -> None:
    target = stage.function(keepalive_seconds=0.0, slots_per_environment=16)
    assert len({served(stage, target) for _ in range(5)}) == 5
    assert counts(stage, "cold_starts", "environments_started", "environments_reaped") == (5, 5, 5)
    assert gone(stage, target)
    assert target.cold_starts == 5


def test_without_keep_alive_short_calls_do_not_share_one_either(stage: Stage) -> None:
    """Where environments are kept, calls of a microsecond lie behind one another in the one that is awake."""
    target = stage.function(keepalive_seconds=0.0, slots_per_environment=16)
    for _ in range(3):
        call = ask(stage, target)
        frame, _ = played_by(stage, call).begin()
        played_by(stage, call).answer(frame.slot, b"1", duration_ns=1000)
        stage.drive()
    calls = [ask(stage, target) for _ in range(4)]
    waiting = [stage.call(target) for _ in range(3)]
    assert len({call.environment_id for call in calls}) == 4
    for call in calls:
        finish(stage, call)
    assert not any(call.running for call in waiting), "none takes over an environment that has had its call"
    for played in stage.played[-3:]:
        played.ready()
    stage.drive()
    assert len({call.environment_id for call in (*calls, *waiting)}) == 7


def test_its_environment_is_dying_when_the_caller_hears(stage: Stage) -> None:
    target = stage.function(keepalive_seconds=0.0)
    states: list[str] = []
    invocation = ask(stage, target)
    played = played_by(stage, invocation)
    invocation.on_done = lambda _: states.append(played.state)
    finish(stage, invocation)
    assert states == ["stopping"]


def test_functions_take_turns_on_a_full_machine_without_keep_alive() -> None:
    """Calls of one function always wait; those of the others run all the same, and in their turn."""
    with staged(environments_max=1) as stage:
        busy, *others = (stage.function(keepalive_seconds=0.0) for _ in range(3))
        queued = [stage.call(busy) for _ in range(10)]
        queued += [stage.call(target) for target in others for _ in range(2)]
        order: list[str] = []
        while len(order) < len(queued):
            stage.played[-1].ready()
            stage.drive()
            (running,) = [call for call in queued if call.running]
            order.append(running.target.name)
            finish(stage, running)
        turns = [busy.name, others[0].name, others[1].name]
        assert sorted(order[1:7]) == sorted(turns * 2)
        assert order[7:] == [busy.name] * 7
        assert counts(stage, "held_up", "environments_started") == (13, 14)


def test_a_worker_that_nobody_needed_goes_as_well(stage: Stage) -> None:
    target = stage.function(keepalive_seconds=0.0)
    invocation = stage.call(target)
    assert stage.dispatcher.cancel(invocation)
    stage.played[-1].ready()
    drive_until(stage, lambda: gone(stage, target))
    assert counts(stage, "environments_reaped", "cold_starts") == (1, 0)


# --- age ----------------------------------------------------------------------------------------------


def test_one_that_is_too_old_goes_when_it_has_no_call(stage: Stage) -> None:
    idle, young = stage.function(recycle_after_seconds=A_MOMENT), stage.function(recycle_after_seconds=3600.0)
    for target in (idle, young):
        served(stage, target)
    drive_until(stage, lambda: gone(stage, idle))
    assert len(stage.dispatcher.environments_of(young)) == 1
    assert counts(stage, "environments_recycled", "environments_reaped") == (1, 0)


def test_one_that_is_too_old_and_busy_ends_with_its_call(stage: Stage) -> None:
    """However many calls wait: they get another one."""
    old, witness = (stage.function(recycle_after_seconds=A_MOMENT, slots_per_environment=16) for _ in range(2))
    call = ask(stage, old)
    first = played_by(stage, call)
    served(stage, witness)
    drive_until(stage, lambda: gone(stage, witness))  # the look that has found this one has found the busy one too
    assert call.running
    waiting = stage.call(old)
    finish(stage, call)
    assert first.state in ("stopping", "dead")
    assert not waiting.running
    stage.played[-1].ready()
    stage.drive()
    assert waiting.running
    assert waiting.environment_id != call.environment_id
    assert counts(stage, "environments_recycled") == (2,)


# --- changes ------------------------------------------------------------------------------------------


def test_a_replaced_target_keeps_what_runs_and_nothing_else(stage: Stage) -> None:
    target = stage.function()
    call = ask(stage, target)
    second = ask(stage, target)
    finish(stage, second)
    stage.dispatcher.retire(target)
    stage.drive()
    assert [one.id for one in stage.dispatcher.environments_of(target)] == [call.environment_id]
    assert call.running
    finish(stage, call)
    stage.drive()
    assert gone(stage, target)
    assert counts(stage, "environments_retired", "environments_reset") == (2, 0)


# --- resets -------------------------------------------------------------------------------------------


def test_timeouts_and_crashes_are_resets_and_orderly_ends_are_not(stage: Stage) -> None:
    kept: list[Any] = []

    def noted(target: Target) -> Invocation:
        invocation = ask(stage, target)
        kept.append(played_by(stage, invocation).environment)
        return invocation

    slow = noted(stage.function(timeout_ms=20))
    assert stage.dispatcher.wait(slow, WAIT_SECONDS)
    crashing = noted(stage.function())
    played_by(stage, crashing).begin()
    stage.die(kept[-1], 11)
    stage.drive()
    assert (crashing.outcome, crashing.error_type) == (OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")
    failing = noted(stage.function())
    played = played_by(stage, failing)
    frame, _ = played.begin()
    played.answer(frame.slot, b"{}", "ValueError")
    stage.drive()
    reaped = noted(stage.function(keepalive_seconds=0.0))
    finish(stage, reaped)
    starting = stage.function(timeout_ms=60_000)
    stage.call(starting)
    kept.append(stage.played[-1].environment)
    stage.die(kept[-1], 9)
    stage.drive()
    assert [one.was_reset for one in kept] == [True, True, False, False, True]
    assert counts(stage, "environments_reset") == (3,)
    stage.dismiss(starting)


def test_a_process_that_could_not_be_made_is_no_reset(stage: Stage) -> None:
    stage.refusal = OSError(errno.EMFILE, "too many open files")
    stage.call(stage.function())
    assert counts(stage, "environments_failed", "environments_reset") == (1, 0)


# --- this machine's bound -----------------------------------------------------------------------------


def test_the_bound_is_told_of_once_a_minute() -> None:
    with staged(environments_max=1, pending_max=2) as stage:
        said: list[str] = []
        clock = [1000.0]
        notice = BoundNotice(stage.dispatcher, said.append, lambda: clock[0])
        first, second = stage.function(), stage.function()
        served(stage, first)
        notice.look()
        assert said == []
        call = ask(stage, second)  # that of the first makes room
        notice.look()
        assert said == [
            "this machine's bound of 1 execution environments is reached: 1 idle ones made room (--environments-max"
            " raises it)"
        ]
        waiting = [stage.call(second) for _ in range(2)]
        rejected = stage.call(second)
        assert rejected.done
        clock[0] += limits.BOUND_NOTICE_SECONDS - 1
        notice.look()
        assert len(said) == 1
        clock[0] += 1
        notice.look()
        assert "2 invocations waited for one, 1 invocations found no room to wait (" in said[1]
        clock[0] += 1000
        notice.look()
        assert len(said) == 2, "nothing has happened since"
        for one in (call, *waiting):
            finish(stage, one)
        assert counts(stage, "held_up", "environments_evicted", "rejected") == (2, 1, 1)
