"""fastlam.Executor as concurrent.futures knows an executor: submit, map, futures, callbacks, asyncio, initializer."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections import Counter as Tally
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError, Future, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

import executor_tasks as tasks
from fastlam import Executor

pytestmark = pytest.mark.lanes


@pytest.fixture(scope="module")
def pool(lane_in_use: str) -> Iterator[Executor]:
    with Executor(2) as executor:
        yield executor


@pytest.fixture
def gate(tmp_path: Path) -> tasks.Gate:
    return tasks.Gate(tmp_path / "gate")


# --- submit and its future ----------------------------------------------------------------------------


def test_submit_passes_arguments_and_keywords(pool: Executor) -> None:
    assert pool.submit(tasks.add, 40, right=2).result() == 42
    assert pool.submit(dict, self=1, fn=2).result() == {"self": 1, "fn": 2}
    assert pool.submit(tasks.pid_of_worker).result() != os.getpid()


def test_a_future_tells_its_states(pool: Executor, gate: tasks.Gate) -> None:
    future = pool.submit(gate.wait)
    assert not future.done()
    with pytest.raises(TimeoutError):
        future.result(timeout=0.01)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0)
    gate.open()
    assert future.result() == future.result()
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert future.exception() is None
    assert not future.cancel()


def test_a_running_task_cannot_be_cancelled(pool: Executor, gate: tasks.Gate, tmp_path: Path) -> None:
    arrived = tasks.Gate(tmp_path / "arrived")
    future = pool.submit(tasks.meet_and_wait, arrived, gate)
    arrived.open()
    assert future.running()
    assert not future.cancel()
    gate.open()
    assert future.result() > 0


def test_an_exception_is_the_result_and_carries_the_remote_traceback(pool: Executor) -> None:
    future = pool.submit(tasks.raise_from_deep, 2)
    error = future.exception()
    assert isinstance(error, ValueError)
    assert error.args == ("at the bottom",)
    with pytest.raises(ValueError, match="at the bottom") as caught:
        future.result()
    assert caught.value is error
    text = str(error.__cause__)
    assert text.count("in raise_from_deep") == 3
    assert "the line that a traceback must show" in text
    assert "tasks.py" in text
    assert "fastlam/worker" not in text, "frames of ours are of no use to the caller"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt("not yours"), GeneratorExit()])
def test_what_ends_an_interpreter_ends_only_the_task(pool: Executor, error: BaseException) -> None:
    before = {pool.submit(tasks.pid_of_worker).result() for _ in range(20)}
    raised = pool.submit(tasks.fail, error).exception()
    assert type(raised) is type(error)
    assert raised.args == error.args
    assert pool.submit(tasks.pid_of_worker).result() in before


def test_as_completed_wait_and_done_callbacks(pool: Executor, gate: tasks.Gate) -> None:
    slow = pool.submit(gate.wait)
    fast = [pool.submit(tasks.square, number) for number in range(20)]
    done, pending = wait([slow, *fast], return_when=FIRST_COMPLETED)
    assert done
    assert slow in pending
    finished = set(itertools.islice(as_completed([slow, *fast]), 20))
    assert finished == set(fast)
    heard: list[Future[int]] = []
    ready = threading.Event()
    slow.add_done_callback(heard.append)
    slow.add_done_callback(lambda _: ready.set())
    gate.open()
    assert ready.wait(60), "a callback must come although nobody waits for the future"
    assert heard == [slow]
    late: list[Future[int]] = []
    slow.add_done_callback(late.append)
    assert late == [slow], "the future is done: the callback comes at once"
    failing = pool.submit(tasks.fail, ValueError("first"))
    done, pending = wait([failing, *fast], return_when=FIRST_EXCEPTION)
    assert failing in done


def test_a_callback_may_submit_and_may_fail(pool: Executor, caplog: pytest.LogCaptureFixture) -> None:
    results: list[int] = []
    ready = threading.Event()

    def last(future: Future[int]) -> None:
        results.append(future.result())
        ready.set()

    def first(future: Future[int]) -> None:
        results.append(future.result())
        pool.submit(tasks.square, 4).add_done_callback(last)
        raise RuntimeError("a callback's own fault")

    pool.submit(tasks.square, 3).add_done_callback(first)
    assert ready.wait(60)
    assert results == [9, 16]
    assert "a callback's own fault" in caplog.text


def test_a_callback_may_not_wait(pool: Executor, gate: tasks.Gate, caplog: pytest.LogCaptureFixture) -> None:
    """It runs in the driver: waiting there would wait for itself. It is told so, and nothing hangs."""
    held = pool.submit(gate.wait)
    ready = threading.Event()

    def callback(_: Future[int]) -> None:
        try:
            held.result()
        finally:
            ready.set()

    pool.submit(tasks.square, 3).add_done_callback(callback)
    assert ready.wait(60)
    gate.open()
    held.result()
    assert "must not wait" in caplog.text


def test_thousands_of_futures_completed_while_as_completed_installs_itself(pool: Executor) -> None:
    """Each future is reported once, whichever of the two comes first to it."""
    for _ in range(5):
        futures = [pool.submit(tasks.square, number) for number in range(3000)]
        assert Tally(as_completed(futures)) == Tally(futures)
        futures = [pool.submit(tasks.square, number) for number in range(3000)]
        done, pending = wait(futures)
        assert not pending
        assert all(future.done() for future in done)


# --- map ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 2, 7, 1000])
def test_map_keeps_the_order(pool: Executor, chunksize: int) -> None:
    assert list(pool.map(tasks.square, range(500), chunksize=chunksize)) == [number**2 for number in range(500)]
    assert list(pool.map(pow, range(10), itertools.count(), chunksize=chunksize)) == [n**n for n in range(10)]
    assert list(pool.map(tasks.square, [], chunksize=chunksize)) == []
    assert list(pool.map(tasks.out_of_band, [[None]], chunksize=chunksize)) == [("list", 1, [None])]


def test_map_of_many_tiny_tasks(pool: Executor) -> None:
    assert sum(pool.map(tasks.square, range(30_000))) == sum(number**2 for number in range(30_000))


def test_map_raises_where_the_failing_call_stands(pool: Executor) -> None:
    results = pool.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert [next(results), next(results)] == [(0, 1), (0, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    results = pool.map(tasks.square, [1, tasks.Unpicklable(), 3])  # type: ignore[list-item]
    assert next(results) == 1
    with pytest.raises(TypeError, match="stays at home"):
        next(results)


def test_map_times_out_and_takes_back_what_has_not_begun(tmp_path: Path) -> None:
    gates = [tasks.Gate(tmp_path / f"gate{number}") for number in range(2)]
    lines = tmp_path / "lines"
    with Executor(2) as executor:
        held = [executor.submit(gate.wait) for gate in gates]
        results = executor.map(tasks.note, [str(lines)] * 50, range(50), timeout=0.01)
        with pytest.raises(TimeoutError):
            next(results)
        for gate in gates:
            gate.open()
        wait(held)
    assert not lines.exists(), "none of these tasks had begun"


@pytest.mark.parametrize("chunksize", [1, 3])
def test_map_takes_from_its_source_no_more_than_the_buffersize(pool: Executor, chunksize: int) -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    results = pool.map(tasks.square, source(), buffersize=4, chunksize=chunksize)
    assert len(taken) == 4 * chunksize
    assert next(results) == 0
    assert len(taken) == 5 * chunksize
    assert list(itertools.islice(results, 100)) == [number**2 for number in range(1, 101)]


def test_map_with_a_buffersize_ends_with_its_executor() -> None:
    with Executor(1) as other, Executor(1) as executor:
        results = executor.map(tasks.square, range(10), buffersize=2)
        assert next(results) == 0
        executor.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            list(results)
        assert other.submit(tasks.square, 3).result() == 9


def test_wrong_arguments_are_refused_by_name(pool: Executor) -> None:
    for number in (0, -1):
        with pytest.raises(ValueError, match="max_workers"):
            Executor(number)
        with pytest.raises(ValueError, match="chunksize"):
            pool.map(tasks.square, [1], chunksize=number)
        with pytest.raises(ValueError, match="buffersize"):
            pool.map(tasks.square, [1], buffersize=number)
        with pytest.raises(ValueError, match="max_tasks_per_child"):
            Executor(1, max_tasks_per_child=number)
    with pytest.raises(TypeError, match="initializer"):
        Executor(1, initializer="no function")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_tasks_per_child"):
        Executor(1, max_tasks_per_child=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="buffersize"):
        pool.map(tasks.square, [1], buffersize=1.5)  # type: ignore[arg-type]


# --- asyncio ------------------------------------------------------------------------------------------


def test_asyncio_waits_for_tasks_without_blocking(pool: Executor, gate: tasks.Gate) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        held = asyncio.wrap_future(pool.submit(gate.wait))
        squares = await asyncio.gather(*(loop.run_in_executor(pool, tasks.square, n) for n in range(200)))
        assert squares == [number**2 for number in range(200)]
        assert not held.done()
        with pytest.raises(ZeroDivisionError):
            await asyncio.wrap_future(pool.submit(divmod, 1, 0))
        # A blocking wait inside a running loop is the caller's choice: it works all the same.
        assert pool.submit(tasks.square, 5).result() == 25
        await loop.run_in_executor(None, gate.open)
        await held

    asyncio.run(main())
    asyncio.run(main())


def test_cancelling_an_asyncio_future_takes_the_task_back(tmp_path: Path) -> None:
    gate, lines = tasks.Gate(tmp_path / "gate"), tmp_path / "lines"

    async def main(executor: Executor) -> None:
        held = asyncio.wrap_future(executor.submit(gate.wait))
        queued = executor.submit(tasks.note, str(lines), 1)
        wrapped = asyncio.wrap_future(queued)
        wrapped.cancel()
        await asyncio.sleep(0)  # asyncio passes a cancellation on in the next turn of the loop
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        assert queued.cancelled()
        await asyncio.get_running_loop().run_in_executor(None, gate.open)
        await held

    with Executor(1) as executor:
        asyncio.run(main(executor))
    assert not lines.exists()


# --- threads, several executors -----------------------------------------------------------------------


def test_many_threads_submit_at_once(pool: Executor) -> None:
    start = threading.Barrier(12)
    wrong: list[object] = []

    def caller(base: int) -> None:
        start.wait()
        futures = [pool.submit(tasks.square, base + number) for number in range(300)]
        if base % 2000:
            results = [future.result() for future in futures]
        else:
            wait(futures)
            results = [future.result() for future in futures]
        results += pool.map(tasks.square, range(base, base + 300))
        if results != [(base + number) ** 2 for number in range(300)] * 2:
            wrong.append(results)

    threads = [threading.Thread(target=caller, args=(1000 * index,)) for index in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_two_executors_have_workers_of_their_own(tmp_path: Path) -> None:
    with Executor(1) as first, Executor(2, initializer=tasks.initialize, initargs=(1,)) as second:
        pids = [tasks.Hold(executor, tmp_path, count) for executor, count in ((first, 1), (second, 2))]
        assert len({pid for hold in pids for pid in hold.release()}) == 3
        assert first.submit(tasks.initialized).result() == []
        assert second.submit(tasks.initialized).result() == [(1,)]
        first.shutdown()
        assert second.submit(tasks.square, 7).result() == 49


def test_a_worker_is_what_its_caller_was(pool: Executor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EXECUTOR_TEST", "value")
    monkeypatch.chdir(tmp_path)
    with Executor(1) as executor:
        assert executor.submit(tasks.environment, "EXECUTOR_TEST").result() == ("value", str(tmp_path))


def test_the_default_is_a_worker_for_each_cpu(tmp_path: Path) -> None:
    cpus = len(os.sched_getaffinity(0))
    with Executor() as executor:
        with tasks.Hold(executor, tmp_path, cpus) as hold:
            extra = executor.submit(tasks.pid_of_worker)
            pids = set(hold.release())
        assert len(pids) == cpus
        assert extra.result() in pids
        assert executor.statistics()["tasks"] == cpus + 1


# --- initializer, max_tasks_per_child -----------------------------------------------------------------


def test_the_initializer_runs_once_in_each_worker(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    with Executor(3, initializer=tasks.note, initargs=(str(lines), 5)) as executor:
        with tasks.Hold(executor, tmp_path, 3):
            pass
        list(executor.map(tasks.square, range(100)))
    assert lines.read_text() == "5\n" * 3


def test_a_failing_initializer_breaks_the_executor(capfd: pytest.CaptureFixture[str]) -> None:
    with Executor(2, initializer=tasks.fail_initializer) as executor:
        futures = [executor.submit(tasks.square, number) for number in range(10)]
        for future in futures:
            with pytest.raises(BrokenProcessPool, match=r"(?s)not usable any more.*no license found"):
                future.result()
        with pytest.raises(BrokenProcessPool, match="no license found"):
            executor.submit(tasks.square, 1)
        with pytest.raises(BrokenProcessPool, match="no license found"):
            executor.map(tasks.square, [1])
    assert "LookupError: no license found" in capfd.readouterr().err


@pytest.mark.parametrize("workers", [1, 3])
def test_max_tasks_per_child_is_exact(workers: int) -> None:
    with Executor(workers, max_tasks_per_child=3) as executor:
        tally = Tally(executor.map(tasks.pid_of_worker, range(60)))
        tally += Tally(future.result() for future in [executor.submit(tasks.pid_of_worker) for _ in range(60)])
    assert sum(tally.values()) == 120
    assert max(tally.values()) <= 3, tally


def test_max_tasks_per_child_counts_what_ran() -> None:
    """A worker is used up by tasks, not by those that were cancelled before it began them."""
    with Executor(1, max_tasks_per_child=2) as executor:
        first = executor.submit(tasks.pid_of_worker).result()
        for _ in range(20):
            future = executor.submit(tasks.square, 1)
            if future.cancel():
                with pytest.raises(CancelledError):
                    future.result()
            else:
                break
        else:
            assert executor.submit(tasks.pid_of_worker).result() == first
        assert executor.submit(tasks.pid_of_worker).result() != first
