"""Counting: which call a concurrency or rate limit turns away, and with which of Lambda's reasons.

The pools are used by the driver; here calls go through a real dispatcher whose launcher starts nothing, so that admitted
calls stay where they are: each counts as running until the dispatcher is closed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from fastlam.core.dispatcher import (
    OUTCOME_CANCELLED,
    OUTCOME_PENDING,
    OUTCOME_REJECTED,
    OUTCOME_THROTTLED,
    AccountPool,
    Dispatcher,
    FunctionPool,
    Invocation,
    Target,
)
from fastlam.dispatch.faults import Faults

ACCOUNT = "ConcurrentInvocationLimitExceeded"
RESERVED = "ReservedFunctionConcurrentInvocationLimitExceeded"
RATE = "FunctionInvocationRateLimitExceeded"
RESERVED_RATE = "ReservedFunctionInvocationRateLimitExceeded"


class NoLauncher:
    """Environments that never come up."""

    def __init__(self) -> None:
        self.launched: list[Any] = []

    def launch(self, environment: Any) -> None:
        self.launched.append(environment)

    def kill(self, environment: Any) -> bool:
        environment.process_exited(9, 0)
        return True

    def closed(self, environment: Any, lane: Any) -> None: ...


class Bench:
    """A dispatcher, and calls of it."""

    def __init__(self, **options: Any) -> None:
        self.launcher = NoLauncher()
        self.dispatcher = Dispatcher(self.launcher, Faults(), **options)
        self.targets: dict[int, Target] = {}

    def call(self, pool: FunctionPool, count: int = 1) -> Counter[str]:
        """Makes `count` calls; how many were admitted (""), and why the others were not."""
        target = self.targets.setdefault(id(pool), Target(pool.name, None, pool, 1000))
        calls = [Invocation(target, b"{}") for _ in range(count)]
        for call in calls:
            self.dispatcher.submit(call)
        for call in calls:
            assert (call.outcome == OUTCOME_THROTTLED) == bool(call.throttle_reason)
            assert call.outcome in (OUTCOME_THROTTLED, OUTCOME_PENDING)
        return Counter(call.throttle_reason for call in calls)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(environments_max=100_000)
    yield made
    made.dispatcher.close()


def account(limit: int, rates: bool = False) -> AccountPool:
    return AccountPool("000000000000", "us-east-1", limit, rates)


def test_the_account_is_full(bench: Bench) -> None:
    pool = account(10)
    first, second = FunctionPool(pool, "first"), FunctionPool(pool, "second")
    assert bench.call(first, 7) == {"": 7}
    assert bench.call(second, 7) == {"": 3, ACCOUNT: 4}
    assert (pool.running, pool.unreserved_running, first.running, second.running) == (10, 10, 7, 3)


def test_a_reservation_is_a_ceiling_and_a_floor(bench: Bench) -> None:
    pool = account(10)
    reserved, other = FunctionPool(pool, "reserved"), FunctionPool(pool, "other")
    reserved.set_reserved(4)
    assert pool.reserved_total == 4
    assert bench.call(other, 9) == {"": 6, ACCOUNT: 3}
    assert bench.call(reserved, 6) == {"": 4, RESERVED: 2}
    assert (pool.running, pool.unreserved_running) == (10, 6)


def test_a_reservation_of_nothing_turns_everything_away(bench: Bench) -> None:
    pool = account(10)
    function = FunctionPool(pool, "f")
    function.set_reserved(0)
    assert bench.call(function, 3) == {RESERVED: 3}
    assert bench.launcher.launched == []
    function.set_reserved(-1)
    assert bench.call(function, 1) == {"": 1}


def test_the_reservation_is_asked_before_the_account(bench: Bench) -> None:
    pool = account(2)
    reserved, other = FunctionPool(pool, "reserved"), FunctionPool(pool, "other")
    reserved.set_reserved(1)
    assert bench.call(reserved, 1) == {"": 1}
    assert bench.call(other, 1) == {"": 1}
    assert bench.call(reserved, 1) == {RESERVED: 1}
    assert bench.call(other, 1) == {ACCOUNT: 1}


def test_what_runs_counts_in_the_pool_that_the_function_now_has(bench: Bench) -> None:
    pool = account(10)
    function, other = FunctionPool(pool, "function"), FunctionPool(pool, "other")
    bench.call(function, 5)
    assert pool.unreserved_running == 5
    function.set_reserved(2)
    assert (pool.unreserved_running, pool.reserved_total, function.running) == (0, 2, 5)
    assert bench.call(function, 1) == {RESERVED: 1}, "below what is running: nothing new, nothing stopped"
    assert bench.call(other, 9) == {"": 5, ACCOUNT: 4}, "the account's own limit holds for all together"
    function.set_reserved(7)
    assert (pool.reserved_total, bench.call(function, 1)) == (7, {ACCOUNT: 1})
    function.set_reserved(-1)
    assert (pool.unreserved_running, pool.reserved_total) == (10, 0)


def test_the_limit_of_the_account_may_change(bench: Bench) -> None:
    pool = account(3)
    function = FunctionPool(pool, "f")
    assert bench.call(function, 4) == {"": 3, ACCOUNT: 1}
    pool.set_limit(5)
    assert bench.call(function, 4) == {"": 2, ACCOUNT: 2}
    pool.set_limit(1)
    assert bench.call(function, 1) == {ACCOUNT: 1}


def test_accounts_and_regions_do_not_share(bench: Bench) -> None:
    pools = [AccountPool(number, region, 1) for number in ("1" * 12, "2" * 12) for region in ("us-east-1", "eu-west-1")]
    for pool in pools:
        function = FunctionPool(pool, "same")
        assert bench.call(function, 2) == {"": 1, ACCOUNT: 1}


# --- rates --------------------------------------------------------------------------------------------


def test_rates_hold_only_where_they_are_asked_for(bench: Bench) -> None:
    lenient = FunctionPool(account(5000), "lenient")
    assert bench.call(lenient, 2000) == {"": 2000}


def test_no_more_than_a_thousand_environments_at_once(bench: Bench) -> None:
    """The scaling rate is each function's own: 1000, and another 100 a second."""
    pool = account(5000, rates=True)
    first, second = FunctionPool(pool, "first"), FunctionPool(pool, "second")
    tally = bench.call(first, 1500)
    assert set(tally) == {"", RATE}
    assert 1000 <= tally[""] < 1500
    assert bench.call(second, 100) == {"": 100}


def test_ten_requests_a_second_for_each_unit_of_concurrency(bench: Bench) -> None:
    """Turned-away calls run for no time at all: only the rate limits them."""
    pool = account(1000, rates=True)
    function, reserved = FunctionPool(pool, "function"), FunctionPool(pool, "reserved")
    reserved.set_reserved(2)
    tally = bench.call(reserved, 2)
    assert tally == {"": 2}
    reserved.set_reserved(100)
    tally = bench.call(reserved, 100)
    assert tally == {"": 98, RESERVED: 2}
    assert bench.call(function, 5) == {"": 5}


# --- this machine's own bound -------------------------------------------------------------------------


def test_calls_beyond_the_machines_bound_wait_and_too_many_are_rejected() -> None:
    bench = Bench(environments_max=3, pending_max=10)
    try:
        function = FunctionPool(account(1000), "f")
        target = Target("f", None, function, 1000)
        calls = [Invocation(target, b"{}") for _ in range(15)]
        for call in calls:
            bench.dispatcher.submit(call)
        assert len(bench.launcher.launched) == 3
        assert [call.outcome for call in calls] == [OUTCOME_PENDING] * 10 + [OUTCOME_REJECTED] * 5
        assert function.running == 10, "what was rejected holds nothing"
        assert bench.dispatcher.statistics()["waiting"] == 10
    finally:
        bench.dispatcher.close()
    assert [call.outcome for call in calls[:10]] == [OUTCOME_CANCELLED] * 10
    assert (function.running, function.account.running) == (0, 0)


def test_an_idle_line_of_failing_starts_does_not_recurse() -> None:
    """Ten thousand calls wait, and then no environment can be made any more: each is told so, and nothing overflows."""

    class Failing(NoLauncher):
        broken = False

        def launch(self, environment: Any) -> None:
            if self.broken:
                raise OSError(24, "no descriptors")
            super().launch(environment)

    launcher = Failing()
    dispatcher = Dispatcher(launcher, Faults(), environments_max=2, pending_max=20_000)
    function = FunctionPool(account(50_000), "f")
    target = Target("f", None, function, 1000)
    calls = [Invocation(target, b"{}") for _ in range(10_000)]
    for call in calls:
        dispatcher.submit(call)
    launcher.broken = True
    launcher.launched[0].start_failed("gone")
    assert all(call.done for call in calls[:1])
    launcher.launched[1].start_failed("gone")
    assert all(call.done for call in calls)
    assert [call.error for call in (calls[0], calls[-1])] == ["gone", "gone"]
    assert {call.error for call in calls[1:-1]} == {"OSError: [Errno 24] no descriptors"}
    assert (function.running, dispatcher.statistics()["waiting"], dispatcher.statistics()["outstanding"]) == (0, 0, 0)
    dispatcher.close()
