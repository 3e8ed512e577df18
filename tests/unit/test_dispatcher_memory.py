"""Whose word an environment's peak of memory is: the kernel's where something counts it, the worker's where nothing does."""

from __future__ import annotations

import os
import tempfile

from fastlam.core.dispatcher import Invocation
from played_environments import Played, Stage

MB = 1 << 20
WORKER_SAYS_KIB = 2000  # in every answer of a played environment
LOOK_NS = 100_000  # of handlers' time between two looks


def counted(stage: Stage, said_bytes: int, base_bytes: int = 10 * MB, bytes_max: int = 128 * MB) -> tuple[Played, int]:
    """An environment in INIT, and the file that stands for the kernel's count."""
    stage.call(stage.function())
    (played,) = stage.played
    fd = os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR)
    says(fd, said_bytes)
    played.environment.measure_memory(os.dup(fd), base_bytes, bytes_max)
    return played, fd


def says(fd: int, peak_bytes: int) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % peak_bytes, 0)


def run(stage: Stage, played: Played, duration_ns: int = LOOK_NS) -> Invocation:
    call = stage.call(played.environment.target)
    frame, _ = played.begin()
    played.answer(frame.slot, b"1", duration_ns=duration_ns)
    stage.drive()
    assert call.done
    return call


def warm(stage: Stage, played: Played) -> None:
    played.ready()
    stage.drive()
    frame, _ = played.begin()
    played.answer(frame.slot, b"1")
    stage.drive()


def test_what_nothing_counts_the_worker_says(stage: Stage) -> None:
    stage.call(stage.function())
    (played,) = stage.played
    warm(stage, played)
    assert run(stage, played).memory_peak_kib == WORKER_SAYS_KIB


def test_the_kernels_count_and_what_is_shared(stage: Stage) -> None:
    played, fd = counted(stage, 20 * MB)
    played.ready()
    stage.drive()
    assert played.environment.snapshot()["memory_peak_kib"] == 30 << 10, "INIT counts"
    warm_frame, _ = played.begin()
    played.answer(warm_frame.slot, b"1")
    stage.drive()
    says(fd, 40 * MB)
    assert run(stage, played).memory_peak_kib == 50 << 10
    os.close(fd)


def test_it_is_looked_at_from_time_to_time(stage: Stage) -> None:
    """A look costs a system call: calls that take no time go without, until they have taken some together."""
    played, fd = counted(stage, 20 * MB)
    warm(stage, played)
    says(fd, 40 * MB)
    seen = [run(stage, played, LOOK_NS // 4).memory_peak_kib >> 10 for _ in range(5)]
    assert seen == [30, 30, 30, 50, 50]
    os.close(fd)


def test_no_more_than_it_has_and_never_less_than_before(stage: Stage) -> None:
    played, fd = counted(stage, 20 * MB)
    warm(stage, played)
    for said, peak in ((5 * MB, 30), (1 << 70, 128), (127 * MB, 128), (0, 128)):
        says(fd, said)
        assert run(stage, played).memory_peak_kib == peak << 10
    os.close(fd)


def test_a_count_that_is_gone(stage: Stage) -> None:
    """Somebody has removed the group: what was known stays."""
    played, fd = counted(stage, 20 * MB)
    warm(stage, played)
    os.ftruncate(fd, 0)
    assert run(stage, played).memory_peak_kib == 30 << 10
    os.close(fd)


def test_its_descriptor_goes_with_the_environment(stage: Stage) -> None:
    before = len(os.listdir("/proc/self/fd"))
    played, fd = counted(stage, 20 * MB)
    played.environment.measure_memory(os.dup(fd), 0, MB)
    warm(stage, played)
    stage.dismiss(played.environment.target)
    os.close(fd)
    stage.played.clear()
    del played
    assert len(os.listdir("/proc/self/fd")) <= before
