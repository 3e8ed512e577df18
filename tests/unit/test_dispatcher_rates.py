"""Rates: which call is turned away for coming too soon after others, where that is asked for."""

from __future__ import annotations

import errno

import pytest

from counted_calls import RATE, RESERVED, RESERVED_RATE, account_of, ask, finish, function_of
from fastlam.core.dispatcher import Target
from played_environments import Stage


def burst(stage: Stage, target: Target, count: int) -> list[str]:
    """The throttle reasons of so many calls, one after the other."""
    reasons = []
    for _ in range(count):
        invocation = ask(stage, target)
        reasons.append(invocation.throttle_reason)
        if not invocation.done:
            finish(stage, invocation)
    return reasons


def starts(stage: Stage, target: Target, count: int) -> list[str]:
    """The throttle reasons of so many calls of which each one, once admitted, wants an environment of its own and ends
    because there is none to be had.
    """
    stage.refusal = OSError(errno.EMFILE, "too many open files")
    return [stage.call(target).throttle_reason for _ in range(count)]


@pytest.mark.parametrize(("reserved", "reason"), [(None, RATE), (1, RESERVED_RATE)])
def test_ten_requests_a_second_for_each_unit_of_concurrency(stage: Stage, reserved: int | None, reason: str) -> None:
    target = function_of(stage, account_of(1 if reserved is None else 1000, enforce_rates=True), reserved)
    reasons = burst(stage, target, 300)
    assert reasons[:10] == [""] * 10
    assert set(reasons[10:]) == {"", reason} or set(reasons[10:]) == {reason}
    assert reasons.count(reason) > 100, "300 calls would have taken half a minute"


def test_the_rate_grows_with_the_reservation(stage: Stage) -> None:
    """It is no limit here: what is turned away is so for its concurrency."""
    account = account_of(1000, enforce_rates=True)
    reserved, other = function_of(stage, account, reserved=2), function_of(stage, account)
    assert [stage.call(reserved).throttle_reason for _ in range(2)] == [""] * 2
    reserved.pool.set_reserved(100)
    assert [stage.call(reserved).throttle_reason for _ in range(100)] == [""] * 98 + [RESERVED] * 2
    assert [stage.call(other).throttle_reason for _ in range(5)] == [""] * 5


def test_a_thousand_new_environments_at_once(stage: Stage) -> None:
    """And another hundred a second: each function for itself."""
    account = account_of(10_000, enforce_rates=True)
    first, second = function_of(stage, account), function_of(stage, account)
    reasons = starts(stage, first, 3000)
    assert reasons[:1000] == [""] * 1000
    assert set(reasons[1000:]) <= {"", RATE}
    assert reasons.count(RATE) > 100
    assert first.pool.running == 0
    assert set(starts(stage, second, 1000)) == {""}


def test_a_call_over_its_rate_leaves_the_new_environments_alone(stage: Stage) -> None:
    """Those that were turned away for the rate of requests have not started any."""
    account = account_of(60, enforce_rates=True)
    first, second = function_of(stage, account), function_of(stage, account)
    stage.refusal = OSError(errno.EMFILE, "too many open files")
    while not stage.call(first).throttle_reason:
        pass
    turned_away = [stage.call(second).throttle_reason for _ in range(3000)]
    assert turned_away.count(RATE) > 1000, "600 requests a second are the account's"
    account.set_limit(10_000)
    # Requests come back at 100,000 a second, environments at 100: had they been used up, hardly one would be started.
    assert [stage.call(second).throttle_reason for _ in range(1000)].count("") > 100


def test_events_are_accepted_at_the_accounts_rate_and_counted_apart(stage: Stage) -> None:
    account = account_of(2, enforce_rates=True)
    accepted = [account.accepts_event() for _ in range(200)]
    assert accepted[:20] == [True] * 20
    assert accepted.count(False) > 100
    assert stage.call(function_of(stage, account)).throttle_reason == ""
    assert all(account_of(1).accepts_event() for _ in range(200))


def test_rates_are_not_enforced_unless_asked_for(stage: Stage) -> None:
    assert set(burst(stage, function_of(stage, account_of(1)), 300)) == {""}
    assert set(starts(stage, function_of(stage, account_of(5000)), 2000)) == {""}
