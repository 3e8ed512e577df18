"""Tasks that take a worker no longer than the dispatcher itself are all given to one worker, for as long as that is so."""

from __future__ import annotations

from typing import Final

import pytest

from fastlam.core.dispatcher import OUTCOME_OK, Invocation, Target
from fastlam.wire.frames import TaskResult
from played_environments import Played, Stage
from waiting import await_that

TINY_NS: Final = 500
SLOTS: Final = 8


pytestmark = pytest.mark.usefixtures("ring_lane")


@pytest.fixture
def target(stage: Stage) -> Target:
    """Three workers without work, after tasks that were tiny."""
    target = Target("tasks", None, slots_per_environment=SLOTS, environments_max=3)
    calls = []
    for number in range(3):  # nobody knows yet how long a task takes: each waits for a worker of its own
        calls.append(stage.call(target))
        stage.played[number].ready()
        stage.drive()
    for played in stage.played:
        run_next(stage, played)
    assert all(call.outcome == OUTCOME_OK for call in calls)
    assert target.counts == (0, 3, 0, 0)
    return target


def run_next(stage: Stage, played: Played, body: bytes = b"", duration_ns: int = TINY_NS) -> None:
    slot = played.begin()[0].slot
    played.reply(slot, TaskResult(slot, duration_ns, False), body)
    stage.drive()


def run_all(stage: Stage, workers: list[Played]) -> None:
    """What they have been given and nobody has taken from them again."""
    for worker in workers:
        while outstanding(worker):
            slot = worker.take()[0].slot
            if worker.slots.claim(slot):
                worker.reply(slot, TaskResult(slot, TINY_NS, False), b"")
            stage.drive()


def outstanding(played: Played) -> int:
    count: int = played.environment.snapshot()["outstanding"]
    return count


def busy(stage: Stage, calls: list[Invocation]) -> tuple[Played, list[Played]]:
    """The worker that has all that were given out, and begun none of them; and the others."""
    (worker,) = [one for one in stage.played if one.environment.id == calls[0].environment_id]
    others = [one for one in stage.played if one is not worker]
    assert outstanding(worker) == SLOTS
    assert not any(map(outstanding, others))
    return worker, others


def somebody_helps(stage: Stage, others: list[Played]) -> None:
    def helps() -> bool:
        stage.drive()
        return any(map(outstanding, others))

    await_that(helps)


def test_one_worker_does_them_in_their_order(stage: Stage, target: Target) -> None:
    calls = [stage.call(target) for _ in range(3 * SLOTS)]
    worker, others = busy(stage, calls)
    for number, call in enumerate(calls):
        assert not call.done
        run_next(stage, worker, b"%d" % number)
        assert (call.outcome, call.result) == (OUTCOME_OK, b"%d" % number)
    for other in others:
        assert other.rings is not None
        assert other.rings.take() is None
    assert stage.dispatcher.stolen == 0


def test_behind_one_that_takes_long_they_go_to_the_other_workers(stage: Stage, target: Target) -> None:
    calls = [stage.call(target) for _ in range(3 * SLOTS)]
    worker, others = busy(stage, calls)
    slow = worker.begin()[0].slot

    def all_others_are_done() -> bool:
        stage.drive()
        run_all(stage, others)
        return all(call.done for call in calls[1:])

    await_that(all_others_are_done)
    assert not calls[0].done
    worker.reply(slow, TaskResult(slow, TINY_NS, False), b"")
    stage.drive()
    assert calls[0].outcome == OUTCOME_OK
    assert target.counts == (0, 3, 0, 0)


def test_tasks_that_are_longer_than_they_were_are_for_all(stage: Stage, target: Target) -> None:
    """The one worker makes progress all the time, but the others could do most of it."""
    calls = [stage.call(target) for _ in range(3 * SLOTS)]
    worker, others = busy(stage, calls)

    def somebody_has_some() -> bool:
        run_next(stage, worker, duration_ns=300_000)
        return any(map(outstanding, others))

    await_that(somebody_has_some)
    assert not calls[-1].done
    stage.dismiss(target)


def test_one_that_comes_later_does_not_overtake(stage: Stage, target: Target) -> None:
    """Once a second worker is worth its while, it begins with what has waited longest."""
    calls = [stage.call(target) for _ in range(2 * SLOTS)]
    worker, others = busy(stage, calls)
    run_next(stage, worker, duration_ns=500_000)
    calls.append(stage.call(target))
    begun = [call for call in calls for other in others if call.environment_id == other.environment.id]
    assert begun
    assert calls[-1] not in begun
    stage.dismiss(target)


def test_the_line_outlives_its_worker(stage: Stage, target: Target) -> None:
    calls = [stage.call(target) for _ in range(2 * SLOTS)]
    worker, others = busy(stage, calls)
    worker.begin()
    stage.die(worker.environment, 9)
    stage.drive()
    run_all(stage, others)
    assert all(call.outcome == OUTCOME_OK for call in calls[1:])
    stage.dismiss(target)


def test_the_death_of_a_worker_that_idles_gives_them_to_nobody(stage: Stage, target: Target) -> None:
    calls = [stage.call(target) for _ in range(2 * SLOTS)]
    _, (one, other) = busy(stage, calls)
    stage.die(one.environment, 9)
    stage.drive()
    assert outstanding(other) == 0
    stage.dismiss(target)


def test_a_place_that_becomes_free_is_for_the_first_in_line(stage: Stage, target: Target) -> None:
    calls = [stage.call(target) for _ in range(SLOTS + 1)]
    worker, _ = busy(stage, calls)
    assert stage.dispatcher.cancel(calls[SLOTS - 1])
    late = stage.call(target)
    assert late.environment_id == -1
    run_next(stage, worker)
    assert calls[SLOTS].environment_id == late.environment_id == worker.environment.id
    stage.dismiss(target)


def test_a_worker_that_comes_up_leaves_them_to_the_other(stage: Stage) -> None:
    """For as long as they are tiny."""
    target = Target("tasks", None, slots_per_environment=SLOTS, environments_max=2)
    stage.call(target)
    (worker,) = stage.played
    worker.ready()
    stage.drive()
    run_next(stage, worker)
    for _ in range(SLOTS):
        stage.call(target)
    worker.begin()
    other = stage.played[1]
    other.ready()
    stage.drive()
    assert (outstanding(worker), outstanding(other)) == (SLOTS, 0)
    somebody_helps(stage, [other])
    stage.dismiss(target)


def test_the_line_behind_a_single_long_task(stage: Stage, target: Target) -> None:
    """What the worker had behind it is done; what waits has not been given out, since tasks have become long."""
    calls = [stage.call(target) for _ in range(2 * SLOTS)]
    worker, others = busy(stage, calls)
    for _ in range(SLOTS - 1):
        run_next(stage, worker, duration_ns=10**9)
    somebody_helps(stage, others)
    stage.dismiss(target)


@pytest.mark.parametrize("attempt", range(32))
def test_whoever_comes_up_helps_others_than_the_one_that_is_given_them(stage: Stage, attempt: int) -> None:
    """Which may have one task in hand that is over at any moment, as far as anybody knows. Of two that hold as many tasks
    either may be helped first: it is tried several times.
    """
    target = Target("tasks", None, slots_per_environment=SLOTS, environments_max=4)
    stage.call(target)
    stage.played[0].ready()
    stage.drive()
    run_next(stage, stage.played[0], duration_ns=30 * TINY_NS)
    calls = [stage.call(target) for _ in range(4)]
    stage.played[0].begin()
    for number, held in ((1, [2, 2]), (2, [1, 1, 2]), (3, [1, 1, 1, 1])):
        stage.played[number].ready()
        stage.drive()
        assert sorted(outstanding(one) for one in stage.played[: number + 1]) == held
        stage.played[number].begin()
    assert len({call.environment_id for call in calls}) == 4
    stage.dismiss(target)
