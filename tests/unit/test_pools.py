"""Concurrency: who is admitted, who is throttled and with which of Lambda's reasons, and that every slot is given back."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlam.core.dispatcher import (
    OUTCOME_CANCELLED,
    OUTCOME_FAILED,
    OUTCOME_FUNCTION_ERROR,
    OUTCOME_OK,
    OUTCOME_PENDING,
    OUTCOME_REJECTED,
    OUTCOME_THROTTLED,
    AccountPool,
    FunctionPool,
    Invocation,
    Target,
    request_id,
)
from played_environments import Played, Stage, staged

ACCOUNT = "ConcurrentInvocationLimitExceeded"
RESERVED = "ReservedFunctionConcurrentInvocationLimitExceeded"
RATE = "FunctionInvocationRateLimitExceeded"
RESERVED_RATE = "ReservedFunctionInvocationRateLimitExceeded"


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as own:
        yield own


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


# ---- limits ------------------------------------------------------------------------------------------


def test_the_accounts_limit(stage: Stage) -> None:
    account = account_of(3)
    first, second = function_of(stage, account), function_of(stage, account)
    calls = running(stage, first, 2) + running(stage, second, 1)
    assert (throttled(stage, first), throttled(stage, second)) == (ACCOUNT, ACCOUNT)
    assert (first.throttles, second.throttles, first.queued) == (1, 1, 2)
    finish(stage, calls[0])
    running(stage, second, 1)
    assert throttled(stage, first) == ACCOUNT
    other = function_of(stage, account_of(3))
    running(stage, other, 3)


def test_the_accounts_limit_is_changed(stage: Stage) -> None:
    account = account_of(1)
    target = function_of(stage, account)
    calls = running(stage, target, 1)
    account.set_limit(3)
    calls += running(stage, target, 2)
    account.set_limit(2)
    assert throttled(stage, target) == ACCOUNT
    finish(stage, calls[0])
    assert throttled(stage, target) == ACCOUNT, "two still run"
    finish(stage, calls[1])
    running(stage, target, 1)


def test_a_reservation_is_a_ceiling(stage: Stage) -> None:
    account = account_of(10)
    target = function_of(stage, account, reserved=2)
    calls = running(stage, target, 2)
    assert throttled(stage, target) == RESERVED
    finish(stage, calls[0])
    running(stage, target, 1)


def test_a_reservation_is_a_floor(stage: Stage) -> None:
    account = account_of(5)
    mine, other = function_of(stage, account, reserved=2), function_of(stage, account)
    running(stage, other, 3)
    assert throttled(stage, other) == ACCOUNT, "two are set aside"
    running(stage, mine, 2)
    assert throttled(stage, mine) == RESERVED, "its own reason comes before the account's"


def test_a_reservation_of_zero_stops_a_function(stage: Stage) -> None:
    account = account_of(5)
    target = function_of(stage, account, reserved=0)
    assert throttled(stage, target) == RESERVED
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


# ---- every slot is given back ------------------------------------------------------------------------


def test_every_end_of_a_call_gives_its_slot_back(stage: Stage) -> None:
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


def test_a_call_that_the_machine_has_no_room_for_gives_its_slot_back() -> None:
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


# ---- rates -------------------------------------------------------------------------------------------


def burst(stage: Stage, target: Target, count: int) -> list[str]:
    """The throttle reasons of so many calls, one after the other."""
    reasons = []
    for _ in range(count):
        invocation = ask(stage, target)
        reasons.append(invocation.throttle_reason)
        if not invocation.done:
            finish(stage, invocation)
    return reasons


@pytest.mark.parametrize(("reserved", "reason"), [(None, RATE), (1, RESERVED_RATE)])
def test_ten_requests_a_second_for_each_slot(stage: Stage, reserved: int | None, reason: str) -> None:
    target = function_of(stage, account_of(1 if reserved is None else 1000, enforce_rates=True), reserved)
    reasons = burst(stage, target, 300)
    assert reasons[:10] == [""] * 10
    assert set(reasons[10:]) == {"", reason} or set(reasons[10:]) == {reason}
    assert reasons.count(reason) > 100, "300 calls would have taken half a minute"


def test_rates_are_not_enforced_unless_asked_for(stage: Stage) -> None:
    assert set(burst(stage, function_of(stage, account_of(1)), 300)) == {""}


def test_a_thousand_new_environments_at_once(stage: Stage) -> None:
    target = function_of(stage, account_of(10_000, enforce_rates=True))
    stage.refusal = OSError(errno.EMFILE, "too many open files")  # admitted, and ended at once
    reasons = [stage.call(target).throttle_reason for _ in range(3000)]
    assert reasons[:1000] == [""] * 1000
    assert set(reasons[1000:]) <= {"", RATE}
    assert reasons.count(RATE) > 100
    assert target.pool.running == 0


# ---- request ids -------------------------------------------------------------------------------------


def test_request_ids_are_random_uuids() -> None:
    count = 20_000
    ids = {request_id() for _ in range(count)}
    assert len(ids) == count
    form = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    assert all(form.fullmatch(one) for one in ids)
    for position in range(36):
        seen = {one[position] for one in ids}
        expected = {8: "-", 13: "-", 14: "4", 18: "-", 19: "89ab", 23: "-"}.get(position, "0123456789abcdef")
        assert seen == set(expected), f"position {position}"


FORKING = """
import os, sys
import fastlam
from fastlam import Runtime
from fastlam.core.dispatcher import request_id
Runtime  # what a program that forks has at hand
request_id()  # there is randomness in stock
sys.stdout.flush()
pids = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        break
    pids.append(pid)
os.write(1, "".join(request_id() + "\\n" for _ in range(100)).encode())
for pid in pids:
    os.waitpid(pid, 0)
"""


def test_forks_share_no_request_ids() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    ids = done.stdout.split()
    assert (len(ids), len(set(ids))) == (400, 400)


def test_a_given_request_id_is_kept(stage: Stage) -> None:
    target = function_of(stage, account_of(1))
    own = "01234567-89ab-4cde-8f01-23456789abcd"
    assert Invocation(target, b"", own).request_id == own
    assert Invocation(target, b"").request_id != Invocation(target, b"").request_id
