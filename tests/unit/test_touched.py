"""Pages that a zygote's children write to: found by the kernel's word, made ahead in the next ones."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import resource
from array import array
from collections.abc import Iterator

import pytest

from fastlam.core.channel import populate_for_writing
from fastlam.worker.touched import SEEN_MAX, Run, Touched, coalesce

PAGE = mmap.PAGESIZE
PAGES = 200


@pytest.fixture
def touched() -> Iterator[Touched]:
    found = Touched()
    yield found
    for descriptor in found.descriptors:
        os.close(descriptor)


@pytest.fixture
def memory() -> Iterator[tuple[mmap.mmap, int]]:
    """Pages of this process's own, all there, and where they are."""
    with mmap.mmap(-1, PAGES * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as mapped:
        mapped[:] = b"x" * len(mapped)
        view = ctypes.c_char.from_buffer(mapped)
        yield mapped, ctypes.addressof(view)
        del view


def observe(touched: Touched, memory: mmap.mmap, written: set[int]) -> None:
    """By a helper, as in a zygote: a worker that has written to those pages."""
    reading, writing = os.pipe()
    done_reading, done_writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        for page in written:
            memory[page * PAGE] = 1
        os.write(writing, b"+")
        os.close(done_writing)
        os.read(done_reading, 1)
        os._exit(0)
    os.read(reading, 1)
    zygote = os.getpid()
    helper = os.fork()
    if helper == 0:
        try:
            touched.observe(worker, zygote)
        finally:
            os._exit(0)
    os.waitpid(helper, 0)
    os.close(done_writing)
    os.waitpid(worker, 0)
    for descriptor in (reading, writing, done_reading):
        os.close(descriptor)


def known(touched: Touched, address: int) -> set[int]:
    """Pages of the memory that are to be made ahead, by their numbers."""
    numbers = array("Q")
    numbers.frombytes(touched.runs())
    pages = {page for run in zip(numbers[::2], numbers[1::2], strict=True) for page in range(run[0], sum(run), PAGE)}
    return {(page - address) // PAGE for page in pages if address <= page < address + PAGES * PAGE}


def test_what_all_have_written_to_is_known(
    touched: Touched, memory: tuple[mmap.mmap, int], rng: random.Random
) -> None:
    mapped, address = memory
    everybody = set(rng.sample(range(PAGES), 40))
    for _ in range(SEEN_MAX):
        observe(touched, mapped, everybody | set(rng.sample(range(PAGES), 5)))
    assert everybody <= known(touched, address) <= everybody | set(range(PAGES))
    observe(touched, mapped, everybody)
    assert known(touched, address) == everybody


def test_only_the_last_few_count(touched: Touched, memory: tuple[mmap.mmap, int]) -> None:
    mapped, address = memory
    observe(touched, mapped, {1, 2, 3})
    for _ in range(SEEN_MAX):
        observe(touched, mapped, {2, 3, 150})
    assert known(touched, address) == {2, 3, 150}


def test_one_that_is_gone_changes_nothing(touched: Touched, memory: tuple[mmap.mmap, int]) -> None:
    mapped, address = memory
    observe(touched, mapped, {7})
    worker = os.fork()
    if worker == 0:
        os._exit(0)
    os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)  # dead, and not reaped: it has no memory any more
    touched.observe(worker, os.getpid())
    os.waitpid(worker, 0)
    touched.observe(worker, os.getpid())
    assert known(touched, address) == {7}


def test_copies_are_made_and_say_the_same(memory: tuple[mmap.mmap, int]) -> None:
    mapped, address = memory
    pages = range(0, PAGES, 2)
    runs = array("Q", [number for page in pages for number in (address + page * PAGE, PAGE)]).tobytes()
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        populate_for_writing(runs)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for page in pages:
            mapped[page * PAGE] = 2
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        same = all(mapped[page * PAGE + 1] == ord("x") for page in range(PAGES))
        os.write(writing, f"{faults} {same}".encode())
        os._exit(0)
    said = os.read(reading, 100).decode().split()
    os.waitpid(worker, 0)
    os.close(reading)
    os.close(writing)
    assert int(said[0]) < len(pages) // 2, said
    assert said[1] == "True"
    assert set(mapped[:]) == {ord("x")}


@pytest.mark.parametrize("runs", [b"", b"\0" * 16, b"\xff" * 64, b"\1" * 7, os.urandom(160)])
def test_runs_that_lead_nowhere(runs: bytes) -> None:
    populate_for_writing(runs)


def test_runs() -> None:
    assert coalesce([]) == []
    pages = [0, PAGE, 3 * PAGE, 4 * PAGE, 5 * PAGE, 9 * PAGE]
    assert coalesce(pages) == [Run(0, 2 * PAGE), Run(3 * PAGE, 3 * PAGE), Run(9 * PAGE, PAGE)]
