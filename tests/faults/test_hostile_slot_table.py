"""Functions that write over the slot table that they share with the dispatcher: it believes nothing of it."""

from __future__ import annotations

import pytest

from daemon_running import RunningDaemon
from failed_calls import suffered
from hostile_function import CODE, act, pid_now

pytestmark = [pytest.mark.lanes, pytest.mark.usefixtures("others_notice_nothing")]


@pytest.mark.parametrize("value", [0, 1, 2, 3, 4, 0x7F, 0xFF, "noise"])
def test_a_slot_table_that_is_written_over(daemon: RunningDaemon, value: int | str) -> None:
    """The environment may fail this call or the next one. Then it is gone."""
    name = daemon.deploy(f"scribbling-{value}", CODE, Timeout=1)
    for times in (1, 3):
        calls = [act(daemon, "scribble", value=value, function=name) for _ in range(times)]
        calls.append(act(daemon, "hold", function=name))
        if any([suffered(call) for call in calls][-2:]):
            assert isinstance(pid_now(daemon, name), int)
    daemon.lambda_.delete_function(FunctionName=name)


def test_a_slot_table_that_is_written_over_all_the_time(daemon: RunningDaemon) -> None:
    name = daemon.deploy("scribbling", CODE, Timeout=1)
    calls = [act(daemon, deed, function=name) for deed in ["scribble_on", "hold", "hold"] * 3]
    assert any([suffered(call) for call in calls]), "the noise has hit nothing"
    daemon.lambda_.delete_function(FunctionName=name)
