"""Everything at once: threads that submit, map, wait, cancel and give up, while workers are killed. Every future ends."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, as_completed, wait

import pytest

import executor_tasks as tasks
from fastlam import Executor
from fastlam.embed.executor import WorkerDied
from waiting import await_that

pytestmark = pytest.mark.lanes

THREADS = 6
ROUNDS = 60  # of each thread
SECONDS = 60


def look_at_all(executor: Executor, futures: list[Future[int]], rng: random.Random) -> None:
    assert len(list(as_completed(futures, timeout=SECONDS))) == len(futures)


def cancel_some(executor: Executor, futures: list[Future[int]], rng: random.Random) -> None:
    for future in rng.sample(futures, len(futures) // 2):
        assert future.cancel() == future.cancelled()


def take_results(executor: Executor, futures: list[Future[int]], rng: random.Random) -> None:
    for number, future in enumerate(futures):
        with contextlib.suppress(WorkerDied):
            assert future.result(timeout=SECONDS) == number * number


def map_others(executor: Executor, futures: list[Future[int]], rng: random.Random) -> None:
    with contextlib.suppress(WorkerDied):
        found = executor.map(tasks.square, range(300), chunksize=rng.choice([1, 7]))
        assert list(found) == [number**2 for number in range(300)]


def begin_a_map(executor: Executor, futures: list[Future[int]], rng: random.Random) -> None:
    results = executor.map(tasks.square, range(1000), buffersize=rng.randrange(1, 50))
    with contextlib.suppress(WorkerDied):
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]


def give_up(executor: Executor, futures: list[Future[int]], rng: random.Random) -> None:
    with contextlib.suppress(TimeoutError, WorkerDied):
        futures[-1].result(timeout=0.0001)


def be_called(executor: Executor, futures: list[Future[int]], rng: random.Random) -> None:
    heard, ready = [], threading.Event()

    def callback(future: Future[int]) -> None:
        heard.append(future)
        if len(heard) == len(futures):
            ready.set()

    for future in futures:
        future.add_done_callback(callback)
    assert ready.wait(SECONDS)
    assert set(heard) == set(futures)


DEEDS: tuple[Callable[[Executor, list[Future[int]], random.Random], None], ...] = (
    look_at_all,
    cancel_some,
    take_results,
    map_others,
    begin_a_map,
    give_up,
    be_called,
)


@pytest.mark.parametrize("max_tasks_per_child", [None, 1500])
def test_chaos(rng: random.Random, max_tasks_per_child: int | None) -> None:
    outcomes: Counter[str] = Counter()
    failures: list[BaseException] = []

    def caller(own: random.Random) -> None:
        try:
            for _ in range(ROUNDS):
                futures = [executor.submit(tasks.square, number) for number in range(own.randrange(1, 150))]
                own.choice(DEEDS)(executor, futures, own)
                done, pending = wait(futures, timeout=SECONDS)
                assert not pending
                for future in done:
                    kind = "cancelled" if future.cancelled() else type(future.exception()).__name__
                    outcomes[kind] += 1
        except BaseException as failure:
            failures.append(failure)

    with Executor(3, max_tasks_per_child=max_tasks_per_child) as executor:
        threads = [threading.Thread(target=caller, args=(random.Random(rng.random()),)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            workers = tasks.workers_of(executor)
            if workers:
                tasks.kill(rng.choice(workers))
            threads[0].join(0.03)
        assert failures == []
        assert set(outcomes) <= {"NoneType", "cancelled", "WorkerDied"}
        assert outcomes["NoneType"] > 0
        # A map that was given up leaves the tasks that had begun, of which no future tells.
        left = ("outstanding", "waiting", "in_ring")
        await_that(lambda: [executor._dispatcher.statistics()[name] for name in left] == [0, 0, 0])
