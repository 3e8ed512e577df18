"""Calls as admission counts them: pools to count in, and a stage on which calls run and end as the test says."""

from __future__ import annotations

from typing import Final

from fastlam.core.dispatcher import (
    OUTCOME_OK,
    OUTCOME_THROTTLED,
    AccountPool,
    FunctionPool,
    Invocation,
    Target,
)
from played_environments import Played, Stage

# Lambda's reasons for a 429.
ACCOUNT: Final = "ConcurrentInvocationLimitExceeded"
RESERVED: Final = "ReservedFunctionConcurrentInvocationLimitExceeded"
RATE: Final = "FunctionInvocationRateLimitExceeded"
RESERVED_RATE: Final = "ReservedFunctionInvocationRateLimitExceeded"


def account_of(limit: int, enforce_rates: bool = False) -> AccountPool:
    return AccountPool("000000000000", "us-east-1", limit, enforce_rates)


def function_of(stage: Stage, account: AccountPool, reserved: int | None = None) -> Target:
    pool = FunctionPool(account, "f")
    if reserved is not None:
        pool.set_reserved(reserved)
    return stage.function(pool)


def played_by(stage: Stage, invocation: Invocation) -> Played:
    """The environment that runs the call."""
    return next(one for one in stage.played if one.environment.id == invocation.environment_id)


def ask(stage: Stage, target: Target) -> Invocation:
    """A call that runs when this returns, unless it was throttled."""
    invocation = stage.call(target)
    if not invocation.done and not invocation.running:
        stage.played[-1].ready()
        stage.drive()
    assert invocation.running or invocation.outcome == OUTCOME_THROTTLED
    return invocation


def running(stage: Stage, target: Target, count: int) -> list[Invocation]:
    """So many calls, all admitted."""
    calls = [ask(stage, target) for _ in range(count)]
    assert [call.throttle_reason for call in calls] == [""] * count
    return calls


def finish(stage: Stage, invocation: Invocation) -> None:
    played = played_by(stage, invocation)
    frame, _ = played.begin()
    played.answer(frame.slot, b"1")
    stage.drive()
    assert invocation.outcome == OUTCOME_OK


def throttled(stage: Stage, target: Target) -> str:
    """The reason why the next call is throttled; it is done at once, without a result and without an environment."""
    environments = len(stage.played)
    invocation = stage.call(target)
    assert (invocation.done, invocation.outcome, invocation.result) == (True, OUTCOME_THROTTLED, b"")
    assert len(stage.played) == environments
    return invocation.throttle_reason
