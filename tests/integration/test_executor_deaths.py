"""Workers that die: only the task that a worker was running is lost, every other one runs exactly once."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter as Tally
from collections.abc import Callable
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

import executor_tasks as tasks
from fastlam import Executor
from fastlam.embed.executor import WorkerDied

pytestmark = pytest.mark.lanes


def warm(executor: Executor) -> None:
    """Teaches the executor that its tasks are tiny: from now on it hands out several at a time."""
    assert sum(executor.map(tasks.square, range(3000))) == sum(number**2 for number in range(3000))


def lines_of(path: Path) -> Tally[int]:
    return Tally(map(int, path.read_text().split()))


@pytest.mark.parametrize(
    ("death", "arguments", "words"),
    [
        (tasks.leave, (3,), "exit status 3"),
        (tasks.leave, (0,), "exited without providing a reason"),
        (tasks.kill_self, (), "signal: killed"),
        (tasks.segfault, (), "signal: segmentation fault"),
    ],
)
def test_a_task_that_ends_its_worker_loses_only_itself(
    tmp_path: Path, death: Callable[..., Any], arguments: tuple[Any, ...], words: str
) -> None:
    lines = tmp_path / "lines"
    with Executor(1) as executor:
        warm(executor)
        before = [executor.submit(tasks.note, str(lines), number) for number in range(10)]
        dying = executor.submit(death, *arguments)
        behind = [executor.submit(tasks.note, str(lines), number) for number in range(10, 60)]
        with pytest.raises(WorkerDied, match=words) as caught:
            dying.result()
        assert isinstance(caught.value, BrokenProcessPool), "as the standard library's pool calls it"
        assert [future.result() for future in before + behind] == list(range(60))
        assert executor.submit(tasks.square, 9).result() == 81
    assert lines_of(lines) == Tally(range(60))


def test_a_death_in_the_middle_of_a_map(tmp_path: Path) -> None:
    with Executor(2) as executor:
        results = executor.map(lambda number: os._exit(4) if number == 500 else number, range(1000))
        got = []
        with pytest.raises(WorkerDied, match="exit status 4"):
            got.extend(results)
        assert got == list(range(500))
        assert list(executor.map(tasks.square, range(10))) == [number**2 for number in range(10)]


def test_many_deaths_each_costs_one_task(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    with Executor(2) as executor:
        warm(executor)
        futures: list[Future[Any]] = []
        for number in range(1500):
            futures.append(executor.submit(tasks.note, str(lines), number))
            if number % 50 == 25:
                futures.append(
                    executor.submit(
                        *tasks.DEATHS["exit" if number % 100 == 25 else "kill"][:1],
                        *([3] if number % 100 == 25 else []),
                    )
                )
        wait(futures)
        died = [future for future in futures if isinstance(future.exception(), WorkerDied)]
        assert len(died) == 30
        assert sorted(future.result() for future in futures if future not in died) == list(range(1500))
    assert lines_of(lines) == Tally(range(1500))


def test_workers_killed_at_random_under_load(tmp_path: Path, rng: random.Random) -> None:
    """Each task ends with its result or with WorkerDied; none runs twice; the pool is whole afterwards."""
    lines = tmp_path / "lines"
    killed = 0
    stop = threading.Event()

    def kill() -> None:
        nonlocal killed
        while not stop.wait(0.003):
            workers = tasks.workers_of(executor)
            if workers:
                killed += tasks.kill(rng.choice(workers))

    with Executor(3) as executor:
        killer = threading.Thread(target=kill)
        killer.start()
        outcomes: Tally[str] = Tally()
        number = 0
        try:
            while killed < 150:
                futures = [executor.submit(tasks.note, str(lines), number + index) for index in range(100)]
                for index, future in enumerate(futures):
                    error = future.exception(timeout=60)
                    assert error is None or isinstance(error, WorkerDied), error
                    outcomes["died" if error else "done"] += 1
                    assert error or future.result() == number + index
                number += 100
        finally:
            stop.set()
            killer.join()
        assert outcomes["done"] > 0
        with tasks.Hold(executor, tmp_path, 3) as hold:
            assert len(set(hold.release())) == 3
    tally = lines_of(lines)
    assert max(tally.values()) == 1, "a task ran twice"
    assert len(tally) >= outcomes["done"], "a result came of a task that never ran"


def test_an_idle_worker_that_is_killed_is_replaced() -> None:
    with Executor(1) as executor:
        for turn in range(20):
            os.kill(executor.submit(tasks.pid_of_worker).result(), signal.SIGKILL)
            assert executor.submit(tasks.square, turn).result(timeout=60) == turn**2


def test_a_worker_killed_while_it_starts_is_replaced(tmp_path: Path) -> None:
    gates = [tasks.Gate(tmp_path / f"gate{number}") for number in range(3)]
    lines = tmp_path / "lines"
    with Executor(1, initializer=announce_and_wait, initargs=(str(lines), gates)) as executor:
        future = executor.submit(tasks.square, 7)
        gates[0].open()
        first = int(lines.read_text())
        os.kill(first, signal.SIGKILL)
        gates[2].open()
        assert future.result(timeout=60) == 49
        assert len(lines.read_text().split()) == 2


def announce_and_wait(path: str, gates: list[tasks.Gate]) -> None:
    """The first worker gets stuck at the second gate; the next one goes through the third."""
    tasks.write_line(path, str(os.getpid()))
    first = len(Path(path).read_text().split()) == 1
    for gate in gates[:2] if first else gates[2:]:
        gate.wait()


def test_workers_that_never_come_up_break_the_executor(tmp_path: Path) -> None:
    """Killed each time they start: no endless loop, an error that says so."""
    lines = tmp_path / "lines"
    with Executor(1, initializer=note_and_die, initargs=(str(lines),)) as executor:
        with pytest.raises(BrokenProcessPool, match="not usable any more"):
            executor.submit(tasks.square, 1).result(timeout=60)
    assert 1 <= len(lines.read_text().split()) <= 10


def note_and_die(path: str) -> None:
    tasks.write_line(path, "1")
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_initializer_that_ends_the_process_breaks_the_executor() -> None:
    with Executor(1, initializer=os._exit, initargs=(9,)) as executor:
        with pytest.raises(BrokenProcessPool, match="ended while it started"):
            executor.submit(tasks.square, 1).result(timeout=60)


def test_the_zygote_dies(tmp_path: Path) -> None:
    """Its workers die with it; what they ran is lost, what waited runs under the next zygote."""
    lines = tmp_path / "lines"
    with Executor(2) as executor:
        for turn in range(3):
            hold = tasks.Hold(executor, tmp_path, 2)
            behind = [executor.submit(tasks.note, str(lines), 100 * turn + number) for number in range(50)]
            os.kill(executor._engine.launcher.zygotes["embedded"].process.pid, signal.SIGKILL)
            for future in hold.futures:
                with pytest.raises(WorkerDied, match="killed"):
                    future.result(timeout=60)
            assert [future.result(timeout=60) for future in behind] == [100 * turn + n for n in range(50)]
    assert lines_of(lines) == Tally(100 * turn + number for turn in range(3) for number in range(50))


def test_a_reply_survives_the_death_of_its_worker(tmp_path: Path) -> None:
    """A worker that dies right after a task, in the next one, does not take the answer with it, however large that is."""
    with Executor(1) as executor:
        warm(executor)
        for size in (10, 1000, 5000, 200_000, 3_000_000):
            for _ in range(5):
                first = executor.submit(bytes, size)
                second = executor.submit(tasks.kill_self)
                assert len(first.result(timeout=60)) == size
                with pytest.raises(WorkerDied):
                    second.result(timeout=60)


def test_a_worker_dies_with_large_data_on_its_way(tmp_path: Path) -> None:
    with Executor(1) as executor:
        dying = executor.submit(tasks.leave, 1)
        large = executor.submit(len, bytes(20_000_000))
        with pytest.raises(WorkerDied):
            dying.result(timeout=60)
        assert large.result(timeout=60) == 20_000_000


def test_what_a_task_leaves_running_ends_with_its_worker(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with Executor(1) as executor:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        executor.submit(leave_children, str(path)).result()
        os.set_blocking(reader, True)
    # End of file: no process holds the pipe any more.
    assert os.read(reader, 100) in (b"", b"x", b"xx")
    while os.read(reader, 100):
        pass
    for descriptor in (reader, read, write):
        os.close(descriptor)


def leave_children(path: str) -> None:
    """Two processes that never end by themselves, one of them in a session of its own."""
    descriptor = os.open(path, os.O_WRONLY)
    for detached in (False, True):
        if os.fork() == 0:
            if detached:
                os.setsid()
            os.write(descriptor, b"x")
            while True:
                signal.pause()
