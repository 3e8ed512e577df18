"""Functions that abuse their output: the daemon holds only so much of it, and is not misled by what they do to its memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from daemon_running import RunningDaemon
from failed_calls import exited, timed_out
from fastlam import limits
from hostile_function import CODE, act, pid_now, resident_bytes

pytestmark = [pytest.mark.lanes, pytest.mark.usefixtures("others_notice_nothing", "little_is_held")]

MAX = limits.LOG_BYTES_PER_INVOCATION_MAX


@pytest.fixture
def little_is_held(daemon: RunningDaemon, hostile: str) -> Iterator[None]:
    """After the test the function goes on, and the daemon has not grown by what was printed."""
    before = resident_bytes(daemon)
    yield
    assert isinstance(pid_now(daemon), int)
    assert resident_bytes(daemon) < before + 10 * MAX


def output_bytes(daemon: RunningDaemon) -> tuple[int, int]:
    """(memory, size) of the largest output memfd that the daemon holds."""
    found = [(0, 0)]
    directory = f"/proc/{daemon.process.pid}/fd"
    for name in os.listdir(directory):
        try:
            if "fastlam-output" in os.readlink(f"{directory}/{name}"):
                status = os.stat(f"{directory}/{name}")
                found.append((status.st_blocks * 512, status.st_size))
        except FileNotFoundError:
            pass
    return max(found)


def dropped_bytes(daemon: RunningDaemon) -> int:
    count: int = daemon.health()["statistics"]["dispatcher"]["log_dropped_bytes"]
    return count


@pytest.mark.parametrize("deed", ["print_on", "write_on"])
def test_printing_without_end(daemon: RunningDaemon, callers: ThreadPoolExecutor, deed: str) -> None:
    name = daemon.deploy(deed, CODE, Timeout=2)
    dropped = dropped_bytes(daemon)
    most = printed = 0
    call = callers.submit(act, daemon, deed, function=name)
    ticks = threading.Event()
    while not call.done():
        memory, size = output_bytes(daemon)
        most, printed = max(most, memory), max(printed, size)
        ticks.wait(0.02)  # a sampling interval: nothing depends on it
    timed_out(call.result(), 2)
    assert printed > 4 * MAX, "it was not enough to show anything"
    assert most < printed / 2, f"{most} bytes of {printed} were held"
    assert dropped_bytes(daemon) > dropped + MAX
    kept = daemon.logs(name)
    assert sum(map(len, kept)) <= MAX + 100_000
    assert any("bytes of output dropped" in line for line in kept)
    daemon.lambda_.delete_function(FunctionName=name)


@pytest.mark.parametrize("again", [False, True], ids=["left so", "printed to"])
def test_an_output_that_is_cut_and_stretched(daemon: RunningDaemon, again: bool) -> None:
    for size in (0, 10_000_000_000, 1 << 40, 1 << 60, (1 << 63) - 1, 5):
        invoked = act(daemon, "stretch", size=size, again=again)
        if invoked.error is None:
            assert invoked.result == "done"
        else:
            exited(invoked)


@pytest.mark.parametrize("what", ["flags", "seal", "hole"])
def test_tampering_with_the_output(daemon: RunningDaemon, what: str) -> None:
    invoked = act(daemon, "tamper", what=what)
    if what == "seal":
        assert invoked.result == 1, "EPERM: the output cannot be frozen"
    elif invoked.error is None:
        assert invoked.result == "done"
    else:
        exited(invoked)
