"""Cancelling tasks, and who waits behind whom: what no worker has begun can be taken back or moved to another
worker.
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path

import pytest

import executor_tasks as tasks
from fastlam import Executor
from waiting import await_that

pytestmark = pytest.mark.lanes


def warm(executor: Executor) -> None:
    """Teaches the executor that its tasks are tiny: from now on it hands out several at a time."""
    assert sum(executor.map(tasks.square, range(3000))) == sum(number**2 for number in range(3000))


def test_a_queued_task_is_cancelled(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    with Executor(1) as executor, tasks.Hold(executor, tmp_path, 1):
        queued = executor.submit(tasks.note, str(lines), 1)
        heard: list[Future[int]] = []
        queued.add_done_callback(heard.append)
        assert not queued.running()
        assert queued.cancel()
        assert queued.cancelled()
        assert queued.done()
        assert queued.cancel(), "a second time is no error"
        assert heard == [queued]
        with pytest.raises(CancelledError):
            queued.result()
        with pytest.raises(CancelledError):
            queued.exception()
        assert wait([queued], timeout=0).done == {queued}
    assert not lines.exists()


def test_tasks_that_a_worker_holds_but_has_not_begun_are_cancelled(tmp_path: Path) -> None:
    with Executor(1) as executor:
        for turn in range(100):
            lines = tmp_path / f"lines{turn}"
            warm(executor)
            with tasks.Hold(executor, tmp_path, 1) as hold:
                queued = [executor.submit(tasks.note, str(lines), number) for number in range(40)]
                handed_out = sum(future.running() for future in queued)
                assert not hold.futures[0].cancel()
                kept = queued[::4]
                for future in queued:
                    if future not in kept:
                        assert future.cancel()
            assert [future.result() for future in kept] == list(range(0, 40, 4))
            assert [int(line) for line in lines.read_text().split()] == list(range(0, 40, 4))
            if handed_out > 1:
                return
    raise AssertionError("however short the tasks, the worker never got more than one at a time")


def test_cancelled_slots_are_used_again(tmp_path: Path) -> None:
    """Messages of cancelled tasks are still on their way when their slots carry new ones."""
    with Executor(1) as executor:
        warm(executor)
        for turn in range(30):
            with tasks.Hold(executor, tmp_path, 1):
                for _ in range(3):
                    assert all(future.cancel() for future in [executor.submit(tasks.square, 1) for _ in range(50)])
                kept = [executor.submit(tasks.square, number) for number in range(turn)]
            assert [future.result() for future in kept] == [number**2 for number in range(turn)]


def test_another_thread_cancels_while_one_waits(tmp_path: Path) -> None:
    """The thread that waits drives, perhaps for hours: who cancels does not wait for it to finish."""
    with Executor(1) as executor:
        hold = tasks.Hold(executor, tmp_path, 1)
        waiter = threading.Thread(target=hold.futures[0].result, daemon=True)
        waiter.start()
        try:
            cancelled = []
            queued = [executor.submit(tasks.square, number) for number in range(20)]
            canceller = threading.Thread(
                target=lambda: cancelled.extend(future.cancel() for future in queued), daemon=True
            )
            canceller.start()
            canceller.join(20)
            assert not canceller.is_alive(), "it waits for the task of another thread"
            assert cancelled == [True] * 20
            assert waiter.is_alive()
        finally:
            hold.release()
            waiter.join()


def test_shutdown_by_another_thread_cancels_while_one_waits(tmp_path: Path) -> None:
    with Executor(1) as executor:
        hold = tasks.Hold(executor, tmp_path, 1)
        waiter = threading.Thread(target=hold.futures[0].result, daemon=True)
        waiter.start()
        try:
            queued = executor.submit(tasks.square, 1)
            heard = threading.Event()
            queued.add_done_callback(lambda _: heard.set())
            closer = threading.Thread(target=lambda: executor.shutdown(wait=False, cancel_futures=True), daemon=True)
            closer.start()
            assert heard.wait(20)
            assert queued.cancelled()
            closer.join(20)
            assert not closer.is_alive()
        finally:
            hold.release()
            waiter.join()


def test_a_callback_may_cancel(tmp_path: Path) -> None:
    """The first result makes the others superfluous."""
    with Executor(1) as executor:
        hold = tasks.Hold(executor, tmp_path, 1)
        queued = [executor.submit(tasks.square, number) for number in range(10)]
        answers: list[bool] = []
        ready = threading.Event()

        def callback(_: Future[int]) -> None:
            answers.extend([future.cancel() for future in reversed(queued)])
            ready.set()

        hold.futures[0].add_done_callback(callback)
        hold.release()
        assert ready.wait(60)
        wait(queued)
        # The worker may have begun the first of them by then, no more.
        assert answers[:8] == [True] * 8
        assert [future.cancelled() for future in reversed(queued)] == answers


def test_a_callback_of_a_cancelled_task_may_wait_for_another(tmp_path: Path) -> None:
    """It runs in the thread that cancels, not in the driver."""
    with Executor(2) as executor, tasks.Hold(executor, tmp_path, 2) as hold:
        queued = executor.submit(tasks.square, 1)
        outcome: list[int] = []
        failed: list[BaseException] = []

        def callback(_: Future[int]) -> None:
            try:
                outcome.append(executor.submit(tasks.square, 3).result())
            except BaseException as error:
                failed.append(error)

        queued.add_done_callback(callback)
        canceller = threading.Thread(target=queued.cancel, daemon=True)
        canceller.start()
        hold.release()
        canceller.join(20)
        assert not canceller.is_alive()
        await_that(lambda: outcome or failed)  # it came too late, it may be: then the driver calls back, after the task
        # Waiting works, or is refused in a clear sentence; it never hangs.
        assert outcome == [9] or "must not wait" in str(failed[0])


@pytest.mark.parametrize("is_warm", [False, True])
def test_cancel_futures_takes_back_what_no_worker_has_begun(tmp_path: Path, is_warm: bool) -> None:
    lines = tmp_path / "lines"
    with Executor(2) as executor:
        if is_warm:
            warm(executor)
        hold = tasks.Hold(executor, tmp_path, 2)
        queued = [executor.submit(tasks.note, str(lines), number) for number in range(100)]
        executor.shutdown(wait=False, cancel_futures=True)
        wait(queued, timeout=60)
        assert all(future.cancelled() for future in queued)
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(tasks.square, 1)
        assert len(set(hold.release())) == 2
    assert not lines.exists()


def test_a_long_task_does_not_hold_up_those_behind_it(tmp_path: Path) -> None:
    """Tiny tasks are handed out by the dozen; when one of them turns out long, other workers take what lies behind
    it.
    """
    gate = tasks.Gate(tmp_path / "gate")
    with Executor(2) as executor:
        list(executor.map(tasks.stand_or_note, [("note", number) for number in range(3000)]))
        items = [("note", number) for number in range(200)]
        items[20] = ("wait", gate)
        futures = [executor.submit(tasks.stand_or_note, item) for item in items]
        short = futures[:20] + futures[21:]
        assert [future.result(timeout=60) for future in short] == [value for kind, value in items if kind == "note"]
        assert not futures[20].done()
        gate.open()
        assert isinstance(futures[20].result(), int)


def test_a_lost_worker_is_replaced_for_what_waits_behind_a_long_task(tmp_path: Path) -> None:
    """Nothing waits in the line, but tasks lie behind a long one: when the other worker dies, a new one takes them."""
    gate = tasks.Gate(tmp_path / "gate")
    with Executor(2) as executor:
        list(executor.map(tasks.stand_or_note, [("note", number) for number in range(3000)]))
        with tasks.Hold(executor, tmp_path, 2) as hold:
            dying = executor.submit(tasks.leave, 1)
            long = executor.submit(tasks.stand_or_note, ("wait", gate))
            short = [executor.submit(tasks.stand_or_note, ("note", number)) for number in range(20)]
            hold.release()
        assert "exit status 1" in str(dying.exception())
        assert [future.result(timeout=60) for future in short] == list(range(20))
        gate.open()
        long.result()


def test_long_tasks_after_tiny_ones_get_all_the_workers(tmp_path: Path) -> None:
    """One worker was enough for tiny tasks one by one; what is then handed to it by the dozen must not stay there."""
    with Executor(4) as executor:
        for number in range(1000):
            assert executor.submit(tasks.square, number).result() == number**2
        with tasks.Hold(executor, tmp_path, 4) as hold:
            assert len(set(hold.release())) == 4
