"""A start that fails for want of descriptors keeps none, however many there were."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fastlam.core.dispatcher import OUTCOME_FAILED, Dispatcher, Environment, Invocation, Target
from fastlam.dispatch.faults import Faults
from fastlam.sandbox.lanes import RingLanes
from no_launcher import NoLauncher


class Starved(NoLauncher):
    """Makes the shared memory of environments as long as there are descriptors, and no process."""

    def __init__(self) -> None:
        super().__init__()
        self.complete = 0

    def launch(self, environment: Environment) -> None:
        for descriptor in RingLanes().memory(environment):
            os.close(descriptor)
        self.complete += 1
        raise OSError(errno.EAGAIN, "no process")


def open_descriptors() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]  # but for the directory's own


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """So many may be opened; the gaps between those that are open do not count."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers = []
    highest = max(open_descriptors())
    while not fillers or fillers[-1] < highest:
        fillers.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1 + count, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)


@pytest.mark.parametrize("count", range(5))
def test_a_start_that_lacks_descriptors_keeps_none(count: int) -> None:
    launcher = Starved()
    dispatcher = Dispatcher(launcher, Faults())
    try:
        before = open_descriptors()
        call = Invocation(Target("f", None), b"")
        with descriptors_left(count):
            dispatcher.submit(call)
        assert call.outcome == OUTCOME_FAILED
        assert open_descriptors() == before
        assert (launcher.complete == 1) == (count >= 3), "a memfd and both ends of a bell"
    finally:
        dispatcher.close()
