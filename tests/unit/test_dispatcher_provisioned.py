"""Environments made ahead of calls: who gets them, how they are counted, and what keeps them alive."""

from __future__ import annotations

import random
import re
import signal

import pytest

from counted_calls import ACCOUNT, RESERVED, account_of, ask, finish, function_of, played_by, running, throttled
from fastlam import limits
from fastlam.core.dispatcher import (
    OUTCOME_FUNCTION_ERROR,
    OUTCOME_OK,
    AccountPool,
    Invocation,
    ProvisionedTarget,
    Target,
)
from fastlam.telemetry.logs import FunctionLog
from fastlam.wire.frames import PROTOCOL_VERSION, InitFailed
from played_environments import Played, Stage, message, staged
from waiting import await_that


def ahead_of(target: Target, slots: int = 1) -> ProvisionedTarget:
    ahead = ProvisionedTarget(
        target.name,
        None,
        target.pool.provisioned_pool(),
        target.timeout_ns // 1_000_000,
        slots_per_environment=slots,
        log=target.log,
    )
    ahead.stand_before(target)
    return ahead


def played_of(stage: Stage, target: Target) -> list[Played]:
    """The environments that the target has, oldest first."""
    there = stage.dispatcher.environments_of(target)
    return [one for one in stage.played if one.environment in there]


def bring_up(stage: Stage, target: Target) -> None:
    while waiting := [one for one in played_of(stage, target) if one.state == "starting"]:
        for one in waiting:
            one.ready()
        stage.drive()


def provisioned(stage: Stage, target: Target, count: int, slots: int = 1) -> ProvisionedTarget:
    """So many environments made ahead, all of them up and open to calls."""
    ahead = ahead_of(target, slots)
    stage.dispatcher.provide(ahead, count, 0)
    bring_up(stage, ahead)
    stage.dispatcher.provide(ahead, count, count)
    target.pool.set_provisioned(count)
    return ahead


def went_ahead(calls: list[Invocation], ahead: ProvisionedTarget) -> list[bool]:
    return [call.target is ahead for call in calls]


# --- who gets them ------------------------------------------------------------------------------------


def test_none_is_used_before_it_is_open(stage: Stage) -> None:
    target = stage.function()
    ahead = ahead_of(target)
    stage.dispatcher.provide(ahead, 2, 0)
    assert (ahead.wanted, ahead.open_to, ahead.up, len(stage.played)) == (2, 0, 0, 2)
    stage.played[0].ready()
    stage.drive()
    assert (ahead.up, ahead.counts) == (1, (1, 1, 0, 0))
    call = ask(stage, target)
    assert (call.target, len(stage.played), ahead.spillovers) == (target, 3, 0)


def test_calls_take_them_first_and_the_rest_spills_over(stage: Stage) -> None:
    target = stage.function()
    ahead = provisioned(stage, target, 3)
    calls = running(stage, target, 5)
    assert went_ahead(calls, ahead) == [True] * 3 + [False] * 2
    assert len({call.environment_id for call in calls}) == 5
    assert (ahead.invocations, ahead.spillovers, target.invocations, target.cold_starts) == (3, 2, 2, 2)
    assert ahead.take_running_most() == 3
    for call in calls:
        finish(stage, call)
    assert went_ahead(running(stage, target, 4), ahead) == [True] * 3 + [False], "also where others are warm"
    assert ahead.spillovers == 3


def test_their_init_is_none_of_a_call(stage: Stage) -> None:
    log = FunctionLog("1", 128, lambda duration_ns, init_ns: 1, False)
    target = stage.function(log=log)
    ahead = provisioned(stage, target, 1)
    (event,) = log.events()[0]
    assert re.fullmatch(r"INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: init\tStatus: success\n", event.message)
    call = stage.serve(target, b"1", b"2")
    assert (call.target, call.init_ns, call.init_logs, ahead.cold_starts) == (ahead, -1, None, 0)
    assert "Init Duration" not in log.tail(call).decode()
    assert "REPORT RequestId" in log.tail(call).decode()


def test_init_report_as_json(stage: Stage) -> None:
    log = FunctionLog("1", 128, lambda duration_ns, init_ns: 1, True)
    target = stage.function(log=log)
    provisioned(stage, target, 1)
    (event,) = log.events()[0]
    assert '"initializationType":"provisioned-concurrency","phase":"init","status":"success"' in event.message


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_calls_lie_behind_one_another_as_everywhere(stage: Stage, count: int) -> None:
    """But no more of them at a time than there are environments."""
    target = stage.function(slots_per_environment=16)
    ahead = provisioned(stage, target, count, slots=16)
    for _ in range(20):
        call = stage.call(target)
        frame, _ = played_by(stage, call).begin()
        played_by(stage, call).answer(frame.slot, b"1", duration_ns=1000)
        stage.drive()
    calls = [stage.call(target) for _ in range(count)]
    assert went_ahead(calls, ahead) == [True] * count
    assert not stage.call(target).target.provisioned
    assert (ahead.pool.running, ahead.spillovers) == (count, 1)


def test_after_they_are_retired_calls_go_elsewhere(stage: Stage) -> None:
    target = stage.function()
    ahead = provisioned(stage, target, 2)
    (held,) = running(stage, target, 1)
    stage.dispatcher.retire(ahead)
    stage.drive()
    assert ahead.counts == (0, 0, 1, 0), "what runs goes on"
    (other,) = running(stage, target, 1)
    assert other.target is target
    finish(stage, held)
    assert (stage.dispatcher.environments_of(ahead), ahead.spillovers) == ([], 0)
    assert target.pool.running == 1


# --- how they are counted -----------------------------------------------------------------------------


def test_they_are_no_part_of_the_unreserved(stage: Stage) -> None:
    account = account_of(5)
    target, other = function_of(stage, account), function_of(stage, account)
    ahead = provisioned(stage, target, 3)
    assert account.provisioned_total == 3
    calls = running(stage, other, 2)
    assert throttled(stage, other) == ACCOUNT, "three are set aside"
    calls += running(stage, target, 3)
    assert (account.running, account.unreserved_running, target.pool.provisioned_running) == (5, 2, 3)
    assert throttled(stage, target) == ACCOUNT
    assert ahead.spillovers == 0, "a call that is throttled has spilled nowhere"
    finish(stage, calls[0])
    (spilled,) = running(stage, target, 1)
    assert spilled.target is target
    for call in [*calls[1:], spilled]:
        finish(stage, call)
    assert (account.running, account.unreserved_running, target.pool.provisioned_running) == (0, 0, 0)


def test_all_of_a_reservation(stage: Stage) -> None:
    """What is not provisioned then never runs."""
    target = function_of(stage, account_of(100), reserved=2)
    ahead = provisioned(stage, target, 2)
    latest = stage.function(target.pool)
    assert throttled(stage, latest) == RESERVED
    calls = running(stage, target, 2)
    assert went_ahead(calls, ahead) == [True, True]
    assert (throttled(stage, target), throttled(stage, latest)) == (RESERVED, RESERVED)


def test_a_part_of_a_reservation(stage: Stage) -> None:
    account = account_of(100)
    target = function_of(stage, account, reserved=3)
    provisioned(stage, target, 2)
    latest = stage.function(target.pool)
    assert (account.reserved_total, account.provisioned_total) == (3, 0)
    (call,) = running(stage, latest, 1)
    assert throttled(stage, latest) == RESERVED
    running(stage, target, 2)
    assert throttled(stage, target) == RESERVED
    finish(stage, call)
    running(stage, target, 1)


def test_a_lowered_reservation_holds_for_them_too(stage: Stage) -> None:
    target = function_of(stage, account_of(100), reserved=3)
    provisioned(stage, target, 3)
    target.pool.set_reserved(1)
    running(stage, target, 1)
    assert throttled(stage, target) == RESERVED


def test_the_accounts_limit_holds_for_them_too(stage: Stage) -> None:
    account = account_of(4)
    target = function_of(stage, account)
    provisioned(stage, target, 3)
    account.set_limit(2)
    running(stage, target, 2)
    assert throttled(stage, target) == ACCOUNT


def test_rates_of_their_own(stage: Stage) -> None:
    """Ten requests a second for each, however many the account has."""
    target = function_of(stage, account_of(1000, enforce_rates=True))
    provisioned(stage, target, 2)
    reasons = []
    for _ in range(25):
        call = stage.call(target)
        if call.running:
            finish(stage, call)
        reasons.append(call.throttle_reason)
    assert reasons[:20] == [""] * 20
    assert "FunctionInvocationRateLimitExceeded" in reasons[20:]


def test_counts_under_any_order_of_events(rng: random.Random) -> None:
    """Whatever runs, ends, is reserved or set aside: the pools' sums are those of the calls, and all comes back to 0."""
    with staged() as stage:
        account = AccountPool("000000000000", "us-east-1", 12)
        targets = [function_of(stage, account) for _ in range(2)]
        aheads = [provisioned(stage, target, 3) for target in targets]
        calls: list[Invocation] = []
        for _ in range(300):
            step, which = rng.randrange(6), rng.randrange(2)
            pool = targets[which].pool
            if step < 3:
                call = ask(stage, targets[which])
                calls += [call] if call.running else []
            elif step == 3 and calls:
                finish(stage, calls.pop(rng.randrange(len(calls))))
            elif step == 4:
                pool.set_reserved(rng.choice([-1, 3, 5]))
            else:
                count = rng.randrange(4)
                stage.dispatcher.provide(aheads[which], count, count)
                pool.set_provisioned(count)
                bring_up(stage, aheads[which])
            for target, ahead in zip(targets, aheads, strict=True):
                mine = [call for call in calls if call.target in (target, ahead)]
                assert target.pool.running == len(mine)
                assert target.pool.provisioned_running == ahead.pool.running == sum(went_ahead(mine, ahead))
            unreserved = [target for target in targets if target.pool.reserved < 0]
            assert account.running == len(calls)
            assert account.unreserved_running == sum(call.target in unreserved for call in calls)
            assert account.provisioned_total == sum(target.pool.provisioned for target in unreserved)
        for call in calls:
            finish(stage, call)
        assert (account.running, account.unreserved_running) == (0, 0)


# --- what keeps them alive ----------------------------------------------------------------------------


def test_idleness_ends_none(stage: Stage) -> None:
    target, other = stage.function(), stage.function()
    ahead = provisioned(stage, target, 2)
    stage.serve(other, b"1", b"2")
    assert stage.dispatcher.stop_idle(0.0) == 1
    stage.drive()
    assert (ahead.counts, other.counts) == ((0, 2, 0, 0), (0, 0, 0, 0))


def test_one_that_dies_is_replaced(stage: Stage) -> None:
    target = stage.function()
    ahead = provisioned(stage, target, 2)
    told: list[int] = []
    ahead.on_progress = lambda: told.append(ahead.up)
    stage.die(played_of(stage, ahead)[0].environment, signal.SIGKILL)
    stage.drive()
    assert (ahead.counts, ahead.up, told[-1]) == ((1, 1, 0, 0), 1, 1)
    calls = running(stage, target, 2)
    assert went_ahead(calls, ahead) == [True, False], "meanwhile there is one less"
    bring_up(stage, ahead)
    assert (ahead.up, told[-1]) == (2, 2)
    assert went_ahead(running(stage, target, 1), ahead) == [True]


def test_one_that_dies_with_a_call_is_replaced(stage: Stage) -> None:
    target = stage.function()
    ahead = provisioned(stage, target, 1)
    (call,) = running(stage, target, 1)
    played_by(stage, call).begin()
    stage.die(played_by(stage, call).environment, signal.SIGKILL)
    stage.drive()
    assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")
    bring_up(stage, ahead)
    assert (ahead.up, ahead.pool.running, target.pool.running) == (1, 0, 0)


def test_a_call_that_had_not_begun_goes_elsewhere(stage: Stage) -> None:
    target = stage.function()
    ahead = provisioned(stage, target, 1)
    (call,) = running(stage, target, 1)
    stage.die(played_by(stage, call).environment, signal.SIGKILL)
    stage.drive()
    assert (call.target, target.counts[3], ahead.pool.running) == (target, 1, 0)
    for one in played_of(stage, target):
        one.ready()
    stage.drive()
    assert call.running
    finish(stage, call)
    assert (target.pool.running, target.pool.account.running) == (0, 0)


def test_fewer(stage: Stage) -> None:
    """Idle ones end at once, busy ones after their call, and those that start are the first to go."""
    target = stage.function()
    ahead = provisioned(stage, target, 4)
    calls = running(stage, target, 3)
    stage.dispatcher.provide(ahead, 5, 4)
    assert ahead.counts == (1, 1, 3, 0)
    stage.dispatcher.provide(ahead, 2, 2)
    stage.drive()
    assert ahead.counts == (0, 0, 3, 0)
    finish(stage, calls[0])
    assert ahead.counts == (0, 0, 2, 0)
    finish(stage, calls[1])
    assert ahead.counts == (0, 1, 1, 0)
    stage.dispatcher.provide(ahead, 0, 0)
    stage.drive()
    assert ahead.counts == (0, 0, 1, 0)


def test_an_init_that_fails_is_not_repeated(stage: Stage) -> None:
    log = FunctionLog("1", 128, lambda duration_ns, init_ns: 1, False)
    target = stage.function(log=log)
    ahead = ahead_of(target)
    told: list[str | None] = []
    ahead.on_progress = lambda: told.append(ahead.failure)
    stage.dispatcher.provide(ahead, 1, 0)
    stage.played[0].say(message(InitFailed(PROTOCOL_VERSION, 2_000_000, 1000, 0, "Runtime.ImportModuleError"), b"{}"))
    stage.drive()
    assert (ahead.failure, told[-1], ahead.counts, len(stage.played)) == (
        "Runtime.ImportModuleError", "Runtime.ImportModuleError", (0, 0, 0, 0), 1,
    )  # fmt: skip
    (event,) = log.events()[0]
    assert event.message.endswith("Phase: init\tStatus: error\tError Type: Runtime.ImportModuleError\n")
    stage.dispatcher.provide(ahead, 1, 0)
    assert (ahead.failure, len(stage.played)) == (None, 2)
    bring_up(stage, ahead)
    assert ahead.up == 1


def test_a_process_that_ends_during_its_init(stage: Stage) -> None:
    ahead = ahead_of(stage.function())
    stage.dispatcher.provide(ahead, 1, 0)
    stage.die(stage.played[0].environment, 256)
    stage.drive()
    assert (ahead.failure, ahead.counts, len(stage.played)) == ("Runtime.ExitError", (0, 0, 0, 0), 1)


def test_one_that_cannot_be_started(stage: Stage) -> None:
    ahead = ahead_of(stage.function())
    stage.refusal = OSError("no more processes")
    stage.dispatcher.provide(ahead, 3, 0)
    stage.drive()
    assert (ahead.failure, ahead.counts) == ("Sandbox.Unavailable", (0, 0, 0, 0))
    assert ahead.failure_reason == "OSError: no more processes"


@pytest.mark.parametrize(("timeout_seconds", "init_seconds"), [(3, 130), (200, 200), (5400, 900)])
def test_how_long_their_init_may_take(stage: Stage, timeout_seconds: int, init_seconds: int) -> None:
    ahead = ahead_of(stage.function(timeout_ms=timeout_seconds * 1000))
    assert ahead.init_timeout_ns == init_seconds * 10**9


def test_an_init_that_takes_longer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own limit ends it, not that of others."""
    monkeypatch.setattr(limits, "PROVISIONED_INIT_TIMEOUT_MS", 20)
    monkeypatch.setattr(limits, "INIT_TIMEOUT_MS", 900_000)
    ahead = ahead_of(stage.function())
    stage.dispatcher.provide(ahead, 1, 0)
    stage.played[0].environment.attach_process(2**22, -1)  # its time begins when its process is there

    def failed() -> bool:
        stage.drive()
        return ahead.failure is not None

    await_that(failed)
    assert ahead.failure == "Sandbox.Timedout"


# --- on a machine that is full ------------------------------------------------------------------------


def test_they_are_taken_from_nobody() -> None:
    with staged(environments_max=3) as stage:
        target, other = stage.function(), stage.function()
        ahead = provisioned(stage, target, 2)
        (held,) = running(stage, other, 1)
        waiting = stage.call(other)
        assert (ahead.counts, waiting.running) == ((0, 2, 0, 0), False)
        finish(stage, held)
        assert waiting.running
        assert ahead.counts == (0, 2, 0, 0)


def test_they_take_the_place_of_idle_ones() -> None:
    with staged(environments_max=2) as stage:
        target, other = stage.function(), stage.function()
        stage.serve(other, b"1", b"2")
        ahead = ahead_of(target)
        stage.dispatcher.provide(ahead, 2, 0)
        stage.drive()
        assert (ahead.counts, other.counts) == ((2, 0, 0, 0), (0, 0, 0, 0))


@pytest.mark.parametrize("more_calls", [0, 2])
def test_busy_ones_make_room_after_their_call(more_calls: int) -> None:
    """Where further calls wait for these, too: they give up one of them."""
    with staged(environments_max=2) as stage:
        target, other = stage.function(), stage.function()
        held = running(stage, other, 2)
        later = [stage.call(other) for _ in range(more_calls)]
        ahead = ahead_of(target)
        stage.dispatcher.provide(ahead, 1, 0)
        stage.drive()
        assert ahead.counts == (0, 0, 0, 0)
        finish(stage, held[0])
        finish(stage, held[1])
        assert ahead.counts == (1, 0, 0, 0)
        for call in later:
            finish(stage, call)
        assert all(call.outcome == OUTCOME_OK for call in later)
        assert ahead.counts == (1, 0, 0, 0)


def test_not_all_start_at_a_time(stage: Stage) -> None:
    ahead = ahead_of(stage.function())
    stage.dispatcher.provide(ahead, 40, 0)
    assert ahead.counts == (32, 0, 0, 0)
    stage.played[0].ready()
    stage.drive()
    assert ahead.counts == (32, 1, 0, 0)
    bring_up(stage, ahead)
    assert ahead.counts == (0, 40, 0, 0)
