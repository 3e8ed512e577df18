"""However a call ends, it gives back what it has counted for; and calls that this machine has no room for wait in a line,
which has a bound.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest

from counted_calls import account_of, ask, finish, function_of, played_by
from fastlam.core.dispatcher import (
    OUTCOME_CANCELLED,
    OUTCOME_FAILED,
    OUTCOME_FUNCTION_ERROR,
    OUTCOME_PENDING,
    OUTCOME_REJECTED,
    Dispatcher,
    FunctionPool,
    Invocation,
    Target,
)
from fastlam.dispatch.faults import Faults
from no_launcher import NoLauncher
from played_environments import Stage, staged

pytestmark = pytest.mark.lanes


def test_every_end_of_a_call_gives_its_concurrency_back(stage: Stage) -> None:
    account = account_of(1)
    target = stage.function(FunctionPool(account, "f"), timeout_ms=50)

    def ended(invocation: Invocation, outcome: int, error_type: str = "") -> None:
        assert (invocation.outcome, invocation.error_type) == (outcome, error_type)
        assert (account.running, account.unreserved_running, target.pool.running) == (0, 0, 0)

    failing = ask(stage, target)
    frame, _ = played_by(stage, failing).begin()
    played_by(stage, failing).answer(frame.slot, b"{}", "ValueError")
    stage.drive()
    ended(failing, OUTCOME_FUNCTION_ERROR, "ValueError")

    dying = ask(stage, target)
    played_by(stage, dying).begin()
    stage.die(played_by(stage, dying).environment, 11)
    stage.drive()
    ended(dying, OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")
    assert b"segmentation fault" in dying.result

    slow = ask(stage, target)
    assert stage.dispatcher.wait(slow, 60)
    ended(slow, OUTCOME_FUNCTION_ERROR, "Sandbox.Timedout")

    waiting = stage.call(target)
    assert waiting.outcome == OUTCOME_PENDING
    assert stage.dispatcher.cancel(waiting)
    ended(waiting, OUTCOME_CANCELLED)

    given_up = ask(stage, target)
    stage.dispatcher.take_waiting(target)  # posted, but no worker has begun it
    ended(given_up, OUTCOME_CANCELLED)
    stage.dismiss(target)

    stage.refusal = OSError(errno.EMFILE, "too many open files")
    ended(stage.call(stage.function(target.pool)), OUTCOME_FAILED, "Sandbox.Unavailable")


def test_a_call_whose_second_start_is_dismissed_ends(stage: Stage) -> None:
    """It stands in no line any more, but belongs to the environment that starts for it."""
    account = account_of(1)
    target = stage.function(FunctionPool(account, "f"), timeout_ms=60_000)
    invocation = stage.call(target)
    stage.die(stage.played[-1].environment, 9)
    stage.drive()
    assert (len(stage.played), invocation.outcome) == (2, OUTCOME_PENDING)
    stage.dismiss(target)
    assert (invocation.outcome, account.running) == (OUTCOME_CANCELLED, 0)


# --- this machine's own bound -------------------------------------------------------------------------


def test_a_call_that_has_waited_for_room_runs() -> None:
    with staged(environments_max=1, pending_max=1) as stage:
        account = account_of(10)
        target = function_of(stage, account)
        first = ask(stage, target)
        second, third = stage.call(target), stage.call(target)
        assert (second.outcome, third.outcome) == (OUTCOME_PENDING, OUTCOME_REJECTED)
        assert account.running == 2
        finish(stage, first)
        finish(stage, second)
        assert account.running == 0


def test_too_many_that_wait_are_rejected_and_the_close_cancels_the_others() -> None:
    launcher = NoLauncher()
    dispatcher = Dispatcher(launcher, Faults(), environments_max=3, pending_max=10)
    pool = FunctionPool(account_of(1000), "f")
    target = Target("f", None, pool, 1000)
    try:
        calls = [Invocation(target, b"{}") for _ in range(15)]
        for call in calls:
            dispatcher.submit(call)
        assert len(launcher.launched) == 3
        assert [call.outcome for call in calls] == [OUTCOME_PENDING] * 10 + [OUTCOME_REJECTED] * 5
        assert pool.running == 10, "what was rejected holds nothing"
        assert dispatcher.statistics()["waiting"] == 10
    finally:
        dispatcher.close()
    assert [call.outcome for call in calls[:10]] == [OUTCOME_CANCELLED] * 10
    assert (pool.running, pool.account.running) == (0, 0)


def test_a_line_of_failing_starts_does_not_recurse() -> None:
    """Ten thousand calls wait, and then no environment can be made any more: each is told so, and nothing overflows."""

    class Failing(NoLauncher):
        broken = False

        def launch(self, environment: Any) -> None:
            if self.broken:
                raise OSError(errno.EMFILE, "no descriptors")
            super().launch(environment)

    launcher = Failing()
    dispatcher = Dispatcher(launcher, Faults(), environments_max=2, pending_max=20_000)
    pool = FunctionPool(account_of(50_000), "f")
    target = Target("f", None, pool, 1000)
    calls = [Invocation(target, b"{}") for _ in range(10_000)]
    for call in calls:
        dispatcher.submit(call)
    launcher.broken = True
    launcher.launched[0].start_failed("gone")
    assert calls[0].done
    launcher.launched[1].start_failed("gone")
    assert all(call.done for call in calls)
    assert [call.error for call in (calls[0], calls[-1])] == ["gone", "gone"]
    assert {call.error for call in calls[1:-1]} == {"OSError: [Errno 24] no descriptors"}
    assert (pool.running, dispatcher.statistics()["waiting"], dispatcher.statistics()["outstanding"]) == (0, 0, 0)
    dispatcher.close()
