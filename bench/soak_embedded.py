"""Ten million calls in a row inside a program: nine of ten through an Executor, one of ten through a Runtime function.

They come in blocks: invocations of the function, a map, a window of 64, and single submits, one after the other. Every
call has a number of its own and every result is held against it. Descriptors and resident memory of the program, its
zygotes and its workers are looked at after the first tenth, between blocks, and at the end.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from bench.executors import WINDOW, WORKERS
from bench.fingerprint import MEMORY_MB
from bench.measure import Topic
from bench.processes import resident_kib
from bench.soak import SAMPLES, Watch
from bench.tasks import slow_pid, tiny

if TYPE_CHECKING:
    from fastlam import Executor
    from fastlam.embed.function import Function

COUNT_DEFAULT: Final = 10_000_000
BLOCK: Final = 10_000  # calls, at most
TENTHS_INVOKED: Final = 1  # of a block
TENTHS_MAPPED: Final = 5
TENTHS_IN_WINDOW: Final = 3  # what is left is submitted one by one


def echo(event: Any, context: Any) -> Any:
    return event


class Calls:
    """Numbered calls by each way there is; what came back is counted."""

    def __init__(self, executor: Executor, function: Function) -> None:
        self.executor, self.function = executor, function
        self.answered = self.wrong = 0
        self.first_wrong = ""

    def block(self, start: int, stop: int) -> None:
        """The calls of these numbers, each once."""
        tenth = (stop - start) / 10
        mapped = start + round(tenth * TENTHS_INVOKED)
        windowed = mapped + round(tenth * TENTHS_MAPPED)
        single = windowed + round(tenth * TENTHS_IN_WINDOW)
        self._invoke(range(start, mapped))
        self._map(range(mapped, windowed))
        self._window(range(windowed, single))
        self._submit(range(single, stop))

    def _invoke(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            result = self.function.invoke(b"%d" % number).raise_for_error()
            self._check("invoke", number, result.payload, number)

    def _map(self, numbers: range) -> None:
        answers = self.executor.map(tiny, numbers, chunksize=1)
        for number, answer in zip(numbers, answers, strict=True):
            self._check("map", number, answer, number + 1)

    def _window(self, numbers: Iterable[int]) -> None:
        waiting: deque[tuple[int, Future[int]]] = deque()
        for number in numbers:
            if len(waiting) == WINDOW:
                self._finish(*waiting.popleft())
            waiting.append((number, self.executor.submit(tiny, number)))
        while waiting:
            self._finish(*waiting.popleft())

    def _finish(self, number: int, future: Future[int]) -> None:
        self._check(f"window of {WINDOW}", number, future.result(), number + 1)

    def _submit(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._check("submit", number, self.executor.submit(tiny, number).result(), number + 1)

    def _check(self, way: str, number: int, answer: Any, expected: int) -> None:
        self.answered += 1
        if answer != expected:
            self.wrong += 1
            self.first_wrong = self.first_wrong or f"{way} of {number} gave {answer!r}"


def run(topic: Topic) -> None:
    from fastlam import Executor, Runtime

    count = topic.count or topic.scale(COUNT_DEFAULT, 100_000)
    size = max(1, min(BLOCK, count // 10))
    every = max(1, count // SAMPLES)
    watch = Watch(os.getpid())
    with Runtime() as runtime, Executor(WORKERS) as executor:
        function = runtime.function("echo", handler=echo, memory=MEMORY_MB, timeout=10)
        workers: set[int] = set()
        while len(workers) < WORKERS:  # one would do all the tiny calls, and the other come at any time
            workers |= set(executor.map(slow_pid, range(4 * WORKERS)))
        calls = Calls(executor, function)
        there_at_first: set[int] = set()
        settled = next_sample = max(size, count // 10)
        begun = time.monotonic()
        for start in range(0, count, size):
            calls.block(start, min(start + size, count))
            if calls.answered >= next_sample or calls.answered == count:
                watch.sample()
                there_at_first = there_at_first or set(watch.first)
                next_sample = calls.answered + every
                rate = calls.answered / (time.monotonic() - begun)
                memory = resident_kib(watch.root) / 1024
                topic.log(f"{calls.answered:,} of {count:,}, {rate:,.0f}/s, {memory:.1f} MB")
        seconds = time.monotonic() - begun
    topic.check("calls", calls.answered, "", exactly=count, detail=f"{count / seconds:,.0f}/s")
    topic.check("results that were not their own", calls.wrong, "", exactly=0, detail=calls.first_wrong)
    topic.check(f"processes that were not there at {settled:,}", len(set(watch.first) - there_at_first), "", exactly=0)
    below = sorted(there_at_first - {watch.root})
    for what, pids in (("program", [watch.root]), ("zygotes and workers", below)):
        more, share = watch.growth(pids)
        topic.check(f"{what}: descriptors more than at {settled:,}, at most", more, "", at_most=0)
        # Without a target: a Runtime keeps the logs of so many invocations, and a short soak ends before they are full.
        detail = f"{max(watch.most[pid][1] for pid in pids) / 1024:.1f} MB at most"
        topic.check(f"{what}: resident memory, of that at {settled:,}", share, "×", detail=detail)
    topic.note(f"{WORKERS} workers, one environment, {len(below)} processes below the program; blocks of {size:,} calls.")
