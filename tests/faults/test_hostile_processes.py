"""Functions that close what is not theirs, or leave children behind: their environment ends, and with it what it has made."""

from __future__ import annotations

import pytest

from daemon_running import RunningDaemon, await_end, descendants
from failed_calls import answered_or_exited, exited, left, suffered
from fastlam.config import lane_kind
from fault_makers import processes
from hostile_function import CODE, act, pid_now

pytestmark = [pytest.mark.lanes, pytest.mark.usefixtures("others_notice_nothing")]


@pytest.mark.parametrize("stay", [False, True])
def test_closing_every_descriptor(daemon: RunningDaemon, stay: bool) -> None:
    """One that returns cannot answer but through its ring; one that stays is found out, or runs into its timeout."""
    name = daemon.deploy(f"closing-{stay}", CODE, Timeout=5)
    for _ in range(2):
        pid = pid_now(daemon, name)
        invoked = act(daemon, "close_all", stay=stay, function=name)
        if stay:
            assert suffered(invoked)
        elif lane_kind() == "ring":
            answered_or_exited(invoked)
        else:
            exited(invoked)
        assert pid_now(daemon, name) != pid


def family_of(daemon: RunningDaemon, pids: list[int]) -> set[tuple[int, str]]:
    """Those of the processes that live below the daemon."""
    return {one for one in descendants(daemon.process.pid) if one[0] in pids}


@pytest.mark.parametrize("end", ["it leaves", "the function is deleted"])
def test_children_end_with_their_environment(daemon: RunningDaemon, end: str) -> None:
    name = daemon.deploy("breeding-" + end.rpartition(" ")[2], CODE)
    pids = act(daemon, "breed", kinds=["same", "same", "same"], function=name).result
    pids += act(daemon, "breed", kinds=["same", "same", "session"], function=name).result[:2]
    family = family_of(daemon, pids)
    assert len(family) == 5, "an environment that goes on keeps its children, as in Lambda"
    assert isinstance(pid_now(daemon, name), int)
    assert family_of(daemon, pids) == family
    if end == "it leaves":
        left(act(daemon, "leave", function=name))
    else:
        daemon.lambda_.delete_function(FunctionName=name)
    await_end(family)


@pytest.mark.parametrize("kind", ["group", "session"])
def test_children_that_went_away_end_with_the_daemon_at_the_latest(daemon: RunningDaemon, kind: str) -> None:
    (pid,) = act(daemon, "breed", kinds=[kind]).result
    left(act(daemon, "leave"))
    assert isinstance(pid_now(daemon), int)
    # Alive or not, it is still below the daemon, whose end the fixture watches.
    zygotes = processes(daemon.process.pid, "fastlam: zygote")
    if (found := family_of(daemon, [pid])) != set():
        assert found <= set().union(*(descendants(zygote) for zygote in zygotes))
