"""Short invocations lie behind one another in an environment; where one is longer than it was expected to be, or is the
end of its environment, those behind it are run elsewhere and nobody notices.
"""

from __future__ import annotations

import time
from typing import Final

import pytest

from fastlam.core.dispatcher import (
    OUTCOME_CANCELLED,
    OUTCOME_FUNCTION_ERROR,
    OUTCOME_OK,
    FunctionPool,
    Invocation,
    Target,
)
from played_environments import Played, Stage, staged
from waiting import await_that

SHORT_NS: Final = 1000
SLOTS: Final = 8


pytestmark = pytest.mark.usefixtures("ring_lane")


def environment_of(stage: Stage, call: Invocation) -> Played:
    return next(one for one in stage.played if one.environment.id == call.environment_id)


def run_next(stage: Stage, played: Played, body: bytes = b"1", **result: object) -> None:
    frame, _ = played.begin()
    played.answer(frame.slot, body, **{"duration_ns": SHORT_NS, **result})  # type: ignore[arg-type]
    stage.drive()


def warmed(stage: Stage, environments: int = 2, duration_ns: int = SHORT_NS, **options: object) -> Target:
    """A function whose calls have been so short so far, with idle environments."""
    target = stage.function(**{"slots_per_environment": SLOTS, "timeout_ms": 600_000, **options})  # type: ignore[arg-type]
    calls = [stage.call(target) for _ in range(environments)]
    for played in stage.played[-environments:]:
        played.ready()
        stage.drive()
    for call in calls:
        run_next(stage, environment_of(stage, call), duration_ns=duration_ns)
    return target


def nothing_was_posted(played: Played) -> bool:
    assert played.rings is not None
    return played.rings.take() is None


def submitted(stage: Stage, target: Target, count: int) -> tuple[list[Invocation], Played]:
    """Calls that lie in one environment, one behind the other."""
    calls = [stage.call(target) for _ in range(count)]
    assert len({call.environment_id for call in calls}) == 1
    return calls, environment_of(stage, calls[0])


def test_short_calls_lie_behind_one_another(stage: Stage) -> None:
    target = warmed(stage)
    calls, played = submitted(stage, target, 3)
    (other,) = [one for one in stage.played if one is not played]
    for number, call in enumerate(calls):
        assert [one.done for one in calls] == [index < number for index in range(3)]
        run_next(stage, played, b"%d" % number)
        assert (call.outcome, call.result) == (OUTCOME_OK, b"%d" % number)
    assert nothing_was_posted(other)
    assert target.invocations == 5
    assert target.pool.running == 0


def test_a_worker_that_has_taken_all_is_given_more(stage: Stage) -> None:
    """What it has answered may not have been read yet: that it has come to an end of its work, its ring shows."""
    duration_ns = 8000
    target = warmed(stage, duration_ns=duration_ns)
    calls = [Invocation(target, b"{}") for _ in range(SLOTS + 1)]
    stage.dispatcher.submit(calls[0])
    played = environment_of(stage, calls[0])
    for call in calls[1:SLOTS]:
        frame, _ = played.begin()
        played.answer(frame.slot, b"1", duration_ns=duration_ns)
        stage.dispatcher.submit(call)  # without a look at the answers
        assert call.environment_id == played.environment.id
    stage.dispatcher.submit(calls[SLOTS])
    assert calls[SLOTS].environment_id != played.environment.id, "it has no slot left"


@pytest.mark.parametrize("duration_ns", [50_000, 10**9])
def test_longer_calls_do_not(stage: Stage, duration_ns: int) -> None:
    target = warmed(stage, duration_ns=duration_ns)
    assert len({stage.call(target).environment_id for _ in range(2)}) == 2


def test_a_long_payload_does_not(stage: Stage) -> None:
    target = warmed(stage)
    first, second = stage.call(target), stage.call(target, b'"%s"' % (b"x" * 5000))
    assert first.environment_id != second.environment_id


@pytest.mark.parametrize("place", [0, 1])
def test_a_stream_does_not(stage: Stage, place: int) -> None:
    target = warmed(stage)
    calls = [Invocation(target, b"{}") for _ in range(2)]
    calls[place].streams = True
    for call in calls:
        stage.dispatcher.submit(call)
    assert calls[0].environment_id != calls[1].environment_id


def test_not_by_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTLAM_LANE", "zmq")
    with staged() as stage:
        target = warmed(stage)
        assert len({stage.call(target).environment_id for _ in range(2)}) == 2


def test_where_no_environment_idles_one_is_started(stage: Stage) -> None:
    """Each call that runs has an environment of its own by rights."""
    target = warmed(stage, environments=1)
    calls = [stage.call(target) for _ in range(2)]
    assert calls[0].running
    assert not calls[1].running
    assert len(stage.played) == 2


def test_what_waits_is_given_out_in_bunches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTLAM_LANE", "ring")
    with staged(environments_max=1) as stage:
        target = warmed(stage, environments=1)
        calls = [stage.call(target) for _ in range(4)]
        assert [call.running for call in calls] == [True, False, False, False]
        (played,) = stage.played
        run_next(stage, played)
        assert [call.running for call in calls] == [False, True, True, True]
        for _ in range(3):
            run_next(stage, played)
        assert [call.outcome for call in calls] == [OUTCOME_OK] * 4
        assert target.queued == 1 + 3  # with the one that has met the cold start


def test_an_error_of_the_function_is_its_own(stage: Stage) -> None:
    calls, played = submitted(stage, warmed(stage), 2)
    run_next(stage, played, b'{"errorType": "E"}', error_type="E")
    run_next(stage, played)
    assert [call.outcome for call in calls] == [OUTCOME_FUNCTION_ERROR, OUTCOME_OK]


def spread(stage: Stage, *calls: Invocation, away_from: Played) -> None:
    def gone() -> bool:
        stage.drive()
        return all(call.environment_id != away_from.environment.id for call in calls)

    await_that(gone)


def test_one_that_takes_longer_keeps_nobody_waiting(stage: Stage) -> None:
    """Those behind it go to the idle environment, and to a new one."""
    target = warmed(stage)
    (first, *others), played = submitted(stage, target, 3)
    slow, _ = played.begin()
    stage.drive()

    def moved() -> bool:
        stage.drive()
        return len(stage.played) == 3

    await_that(moved)
    stage.played[2].ready()
    stage.drive()
    spread(stage, *others, away_from=played)
    assert len({call.environment_id for call in others}) == 2
    for call in others:
        run_next(stage, environment_of(stage, call))
        assert call.outcome == OUTCOME_OK
    assert not first.done
    played.answer(slow.slot, b"1", duration_ns=SHORT_NS)
    stage.drive()
    assert first.outcome == OUTCOME_OK
    for _ in others:  # which have been taken back
        frame, _ = played.take()
        assert not played.slots.claim(frame.slot)
    assert target.invocations == 5
    assert target.pool.running == 0
    assert stage.dispatcher.bad_frames == 0
    again = [stage.call(target) for _ in range(2)]
    assert again[0].environment_id != again[1].environment_id, "nothing is stacked for a while"


def test_the_death_of_the_worker_is_that_of_one_call(stage: Stage) -> None:
    target = warmed(stage)
    (first, *others), played = submitted(stage, target, 3)
    played.begin()
    stage.die(played.environment, 1 << 8)
    stage.drive()
    assert (first.outcome, first.error_type) == (OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")
    stage.played[-1].ready()  # one idled, and one has been started
    stage.drive()
    assert len({call.environment_id for call in others}) == 2
    for call in others:
        assert call.attempts == 0, "it has lost nothing of its own"
        run_next(stage, environment_of(stage, call))
        assert call.outcome == OUTCOME_OK
    assert target.invocations == 5
    assert target.pool.running == 0


def test_nothing_is_put_behind_calls_that_kill(stage: Stage) -> None:
    target = warmed(stage, environments=3)
    _, played = submitted(stage, target, 1)
    played.begin()
    stage.die(played.environment, 1 << 8)
    stage.drive()
    assert len({stage.call(target).environment_id for _ in range(2)}) == 2


def test_each_has_its_own_time(stage: Stage) -> None:
    """The second one's begins when the first is done."""
    target = warmed(stage, timeout_ms=300)
    (first, second), played = submitted(stage, target, 2)
    frame, _ = played.begin()
    hung, _ = played.begin()  # so that nobody takes it back
    played.answer(frame.slot, b"1", duration_ns=SHORT_NS)
    stage.drive()
    assert first.outcome == OUTCOME_OK
    assert not second.done

    def over() -> bool:
        stage.drive()
        return second.done

    await_that(over)
    assert second.error_type == "Sandbox.Timedout"
    assert second.done_ns >= first.done_ns + 300_000_000
    assert hung.request_id == second.request_id


def test_one_answered_out_of_turn_gives_the_other_no_time(stage: Stage) -> None:
    """As a hostile worker might."""
    target = warmed(stage, timeout_ms=1000)
    (first, second), played = submitted(stage, target, 2)
    played.begin()
    frame, _ = played.begin()
    half = first.posted_ns + 500_000_000

    def half_over() -> bool:
        stage.drive()
        return time.monotonic_ns() >= half

    await_that(half_over)
    played.answer(frame.slot, b"1", duration_ns=SHORT_NS)
    stage.drive()
    assert second.outcome == OUTCOME_OK

    def over() -> bool:
        stage.drive()
        return first.done

    await_that(over)
    assert first.error_type == "Sandbox.Timedout"
    assert first.done_ns < second.done_ns + 1_000_000_000


def test_a_time_limit_ends_one_call(stage: Stage) -> None:
    target = warmed(stage, timeout_ms=100)
    (first, second), played = submitted(stage, target, 2)
    played.begin()
    spread(stage, second, away_from=played)
    run_next(stage, environment_of(stage, second))
    assert second.outcome == OUTCOME_OK

    def over() -> bool:
        stage.drive()
        return first.done

    await_that(over)
    assert first.error_type == "Sandbox.Timedout"


def test_cancelling_one_leaves_the_others(stage: Stage) -> None:
    target = warmed(stage)
    (first, second, third), played = submitted(stage, target, 3)
    played.begin()
    assert stage.dispatcher.cancel(second)
    assert not stage.dispatcher.cancel(first)
    assert second.outcome == OUTCOME_CANCELLED
    played.answer(0, b"1", duration_ns=SHORT_NS)
    stage.drive()
    frame, _ = played.take()
    assert not played.slots.claim(frame.slot)
    run_next(stage, played)
    assert [first.outcome, third.outcome] == [OUTCOME_OK, OUTCOME_OK]
    assert target.pool.running == 0


def test_a_version_that_is_replaced_finishes_them(stage: Stage) -> None:
    target = warmed(stage)
    calls, played = submitted(stage, target, 3)
    stage.dispatcher.retire(target)
    for call in calls:
        assert played.state == "busy"
        run_next(stage, played)
        assert call.outcome == OUTCOME_OK
    assert stage.dispatcher.environments_of(target) == []


def test_limits_count_each_of_them(stage: Stage) -> None:
    pool = FunctionPool(stage.account, "limited")
    target = warmed(stage, pool=pool)
    pool.set_reserved(3)
    submitted(stage, target, 3)
    refused = stage.call(target)
    assert refused.throttle_reason == "ReservedFunctionConcurrentInvocationLimitExceeded"
