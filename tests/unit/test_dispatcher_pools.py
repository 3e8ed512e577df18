"""Concurrency: which call is admitted, and which one an account's limit or a function's reservation turns away, and why."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from counted_calls import ACCOUNT, RESERVED, account_of, ask, finish, function_of, running, throttled
from fastlam.core.dispatcher import AccountPool, FunctionPool, Invocation
from played_environments import Stage, staged


def test_the_accounts_limit(stage: Stage) -> None:
    account = account_of(3)
    first, second = function_of(stage, account), function_of(stage, account)
    calls = running(stage, first, 2) + running(stage, second, 1)
    assert (account.running, account.unreserved_running, first.pool.running, second.pool.running) == (3, 3, 2, 1)
    assert (throttled(stage, first), throttled(stage, second)) == (ACCOUNT, ACCOUNT)
    assert (first.throttles, second.throttles, first.queued) == (1, 1, 2)
    finish(stage, calls[0])
    running(stage, second, 1)
    assert throttled(stage, first) == ACCOUNT


def test_accounts_and_regions_do_not_share(stage: Stage) -> None:
    for account in ("1" * 12, "2" * 12):
        for region in ("us-east-1", "eu-west-1"):
            target = stage.function(FunctionPool(AccountPool(account, region, 1), "same"))
            running(stage, target, 1)
            assert throttled(stage, target) == ACCOUNT


def test_the_accounts_limit_is_changed(stage: Stage) -> None:
    account = account_of(1)
    target = function_of(stage, account)
    calls = running(stage, target, 1)
    assert throttled(stage, target) == ACCOUNT
    account.set_limit(3)
    calls += running(stage, target, 2)
    assert throttled(stage, target) == ACCOUNT
    account.set_limit(2)
    assert throttled(stage, target) == ACCOUNT
    finish(stage, calls[0])
    assert throttled(stage, target) == ACCOUNT, "two still run"
    finish(stage, calls[1])
    running(stage, target, 1)


def test_a_reservation_is_a_ceiling(stage: Stage) -> None:
    account = account_of(10)
    target = function_of(stage, account, reserved=2)
    assert account.reserved_total == 2
    calls = running(stage, target, 2)
    assert throttled(stage, target) == RESERVED
    assert (account.running, account.unreserved_running) == (2, 0)
    finish(stage, calls[0])
    running(stage, target, 1)


def test_a_reservation_is_a_floor(stage: Stage) -> None:
    account = account_of(5)
    mine, other = function_of(stage, account, reserved=2), function_of(stage, account)
    running(stage, other, 3)
    assert throttled(stage, other) == ACCOUNT, "two are set aside"
    running(stage, mine, 2)
    assert throttled(stage, mine) == RESERVED, "its own reason comes before the account's"
    assert throttled(stage, other) == ACCOUNT
    assert (account.running, account.unreserved_running) == (5, 3)


def test_a_reservation_of_zero_stops_a_function(stage: Stage) -> None:
    account = account_of(5)
    target = function_of(stage, account, reserved=0)
    assert [throttled(stage, target) for _ in range(3)] == [RESERVED] * 3
    target.pool.set_reserved(-1)
    running(stage, target, 5)


def test_a_reservation_is_lowered_below_what_runs(stage: Stage) -> None:
    account = account_of(10)
    target = function_of(stage, account, reserved=4)
    calls = running(stage, target, 4)
    target.pool.set_reserved(1)
    assert all(call.running for call in calls), "what runs is not stopped"
    for call in calls[:3]:
        assert throttled(stage, target) == RESERVED
        finish(stage, call)
    assert throttled(stage, target) == RESERVED
    finish(stage, calls[3])
    running(stage, target, 1)


def test_what_runs_counts_where_its_function_now_belongs(stage: Stage) -> None:
    account = account_of(6)
    moving, other = function_of(stage, account), function_of(stage, account)
    calls = running(stage, moving, 3)
    assert account.unreserved_running == 3
    moving.pool.set_reserved(3)
    assert (account.unreserved_running, account.reserved_total) == (0, 3)
    rest = running(stage, other, 3)
    assert throttled(stage, other) == ACCOUNT
    moving.pool.set_reserved(-1)
    assert (account.unreserved_running, account.reserved_total, account.running) == (6, 0, 6)
    for call in calls + rest:
        finish(stage, call)
    assert (account.unreserved_running, account.running) == (0, 0)


def test_the_accounts_limit_holds_for_all_together(stage: Stage) -> None:
    """Also where a reservation that was made or raised while much was running leaves more than there is."""
    account = account_of(10)
    mine, other = function_of(stage, account), function_of(stage, account)
    running(stage, mine, 5)
    mine.pool.set_reserved(2)
    assert (account.unreserved_running, account.reserved_total, mine.pool.running) == (0, 2, 5)
    assert throttled(stage, mine) == RESERVED
    running(stage, other, 5)
    assert throttled(stage, other) == ACCOUNT, "eight are unreserved, but ten run"
    mine.pool.set_reserved(7)
    assert account.reserved_total == 7
    assert throttled(stage, mine) == ACCOUNT
    mine.pool.set_reserved(-1)
    assert (account.unreserved_running, account.reserved_total) == (10, 0)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(0, 2)),
        st.tuples(st.just("call"), st.integers(0, 2)),
        st.tuples(st.just("finish"), st.integers(0, 20)),
        st.tuples(st.just("reserve"), st.tuples(st.integers(0, 2), st.integers(-1, 3))),
        st.tuples(st.just("limit"), st.integers(1, 6)),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(OPERATIONS)
def test_admission_is_as_described(operations: list[tuple[str, object]]) -> None:
    """Against the description's own words: reservation, account, what is left for those without a reservation."""
    with staged() as stage:
        limit = 4
        account = account_of(limit)
        targets = [function_of(stage, account) for _ in range(3)]
        reserved = [-1] * 3
        live: list[tuple[int, Invocation]] = []
        for kind, argument in operations:
            if kind == "call":
                assert isinstance(argument, int)
                own = sum(index == argument for index, _ in live)
                unreserved = sum(reserved[index] < 0 for index, _ in live)
                if reserved[argument] >= 0 and own >= reserved[argument]:
                    reason = RESERVED
                elif len(live) >= limit or (
                    reserved[argument] < 0 and unreserved >= limit - sum(one for one in reserved if one > 0)
                ):
                    reason = ACCOUNT
                else:
                    reason = ""
                invocation = ask(stage, targets[argument])
                assert invocation.throttle_reason == reason
                if not reason:
                    live.append((argument, invocation))
            elif kind == "finish" and live:
                assert isinstance(argument, int)
                finish(stage, live.pop(argument % len(live))[1])
            elif kind == "reserve":
                assert isinstance(argument, tuple)
                index, value = argument
                targets[index].pool.set_reserved(value)
                reserved[index] = value
            elif kind == "limit":
                assert isinstance(argument, int)
                limit = argument
                account.set_limit(limit)
            assert account.running == len(live)
            assert [target.pool.running for target in targets] == [
                sum(index == number for index, _ in live) for number in range(3)
            ]
