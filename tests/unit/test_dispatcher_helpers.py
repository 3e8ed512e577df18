"""Workers that come because tasks lie behind others."""

from __future__ import annotations

from fastlam.core.dispatcher import Target
from fastlam.wire.frames import TaskResult
from played_environments import Stage


def test_a_worker_that_takes_what_waited_leaves_none_behind_others(stage: Stage) -> None:
    """One worker dies with a task behind what it ran while another one starts: that one takes the task, and a third has
    to come for what lies behind the long task of the first.
    """
    target = Target("tasks", None, slots_per_environment=8, environments_max=3)
    stage.call(target)
    first = stage.played[0]
    first.ready()
    stage.drive()
    first.begin()
    stolen = stage.call(target)
    second = stage.played[1]
    second.ready()
    stage.drive()
    slot = second.begin()[0].slot
    second.reply(slot, TaskResult(slot, 1000, False), b"")  # so short that others may stand behind it
    stage.drive()
    assert stolen.done
    stage.call(target)
    second.begin()
    for _ in range(2):  # one behind each of the two that run
        stage.call(target)
    assert len(stage.played) == 3
    stage.die(second.environment, 9)
    stage.drive()
    stage.played[2].ready()
    stage.drive()
    assert [one.environment.snapshot()["outstanding"] for one in (first, stage.played[2])] == [2, 1]
    fourth = stage.played[3]
    fourth.ready()
    stage.drive()
    assert [one.environment.snapshot()["outstanding"] for one in (first, fourth)] == [1, 1]
    stage.dismiss(target)
