"""Calls on machines that have no CPU to spare for those who look instead of sleeping: one CPU, a quota, more work than
CPUs, many callers. Nothing is lost, and nothing hangs.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

import executor_tasks as tasks
import fastlam
from daemon_running import zipped
from fastlam import Executor, Runtime
from interrupts import Interrupts
from waiting import WAIT_SECONDS

pytestmark = pytest.mark.lanes

SOURCES: Final = str(Path(fastlam.__file__).parents[1])
PROGRAM: Final = """
    import os, sys

    def start():
        {start}

    if __name__ == "__main__":
        start()
        from concurrent.futures import wait
        from fastlam import Executor
        from fastlam.sandbox.spinning import spin_ns
        import executor_tasks as tasks

        print("spins", spin_ns() != 0)
        with Executor(2) as executor:
            for number in range(300):
                assert executor.submit(tasks.square, number).result() == number**2
            futures = [executor.submit(tasks.square, number) for number in range(3000)]
            assert not wait(futures).not_done
            assert [future.result() for future in futures] == [number**2 for number in range(3000)]
            assert list(executor.map(tasks.square, range(3000))) == [number**2 for number in range(3000)]
        print("done")
"""


def run(directory: Path, start: str) -> list[str]:
    path = directory / "program.py"
    path.write_text(textwrap.dedent(PROGRAM).format(start=start))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([SOURCES, str(Path(__file__).parent)]),
        "TMPDIR": str(directory),
        "XDG_RUNTIME_DIR": str(directory),
    }
    done = subprocess.run(
        [sys.executable, str(path)], env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_one_cpu(tmp_path: Path) -> None:
    """For the caller and all workers: who looks would keep the other from answering."""
    cpu = min(os.sched_getaffinity(0))
    assert run(tmp_path, f"os.sched_setaffinity(0, {{{cpu}}})") == ["spins False", "done"]


def test_one_cpu_taken_away_later() -> None:
    """Nobody notices that; what is lost is time, not answers."""
    cpus = os.sched_getaffinity(0)
    if len(cpus) < 2:
        pytest.skip("this machine has one CPU")
    with Executor(2) as executor:
        assert executor.submit(tasks.square, 1).result() == 1
        try:
            for pid in (0, *[environment.pid for environment in tasks.workers_of(executor)]):
                os.sched_setaffinity(pid, {min(cpus)})
            for number in range(500):
                assert executor.submit(tasks.square, number).result() == number**2
            assert list(executor.map(tasks.square, range(2000))) == [number**2 for number in range(2000)]
        finally:
            os.sched_setaffinity(0, cpus)


@contextmanager
def quota() -> Iterator[Path]:
    """A control group that may use a fifth of a CPU, where this user may make one; the file that takes processes in."""
    for root, name, value in (
        (Path("/sys/fs/cgroup/cpu"), "cpu.cfs_quota_us", "20000"),
        (Path("/sys/fs/cgroup"), "cpu.max", "20000 100000"),
    ):
        group = root / f"fastlam-test-{os.getpid()}"
        try:
            group.mkdir()
        except (FileNotFoundError, PermissionError):
            continue
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            continue
        try:
            if not (group / name).exists():
                continue  # the controller of CPUs is not to be had there
            (group / name).write_text(value)
            yield group / "cgroup.procs"
            return
        finally:
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    (root / "cgroup.procs").write_text(pid)
            group.rmdir()
    pytest.skip(
        "this user may not make a control group with a quota: run the tests as root, with cgroups writable and"
        " the cpu controller enabled"
    )


def test_a_quota(tmp_path: Path) -> None:
    with quota() as processes:
        lines = run(tmp_path, f"open({str(processes)!r}, 'w').write(str(os.getpid()))")
    assert lines == ["spins False", "done"]


@contextmanager
def burners(count: int) -> Iterator[None]:
    """Processes that want to run all the time."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def test_more_to_run_than_cpus() -> None:
    with burners(2 * len(os.sched_getaffinity(0))), Executor(2) as executor:
        for number in range(300):
            assert executor.submit(tasks.square, number).result() == number**2
        assert list(executor.map(tasks.square, range(2000))) == [number**2 for number in range(2000)]


def test_many_callers() -> None:
    """Each drives for a while, or waits for one who does."""
    wrong: list[object] = []

    def call(caller: int) -> None:
        for number in range(60):
            value = caller * 1000 + number
            result = executor.submit(tasks.square, value).result(timeout=WAIT_SECONDS)
            if result != value**2:
                wrong.append((value, result))
        finished.append(caller)

    finished: list[int] = []
    with Executor(3) as executor:
        threads = [threading.Thread(target=call, args=(caller,)) for caller in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (sorted(finished), wrong) == (list(range(40)), [])


def test_interrupts_while_one_looks() -> None:
    """Tiny tasks, one at a time: the caller is nearly always looking, or about to sleep."""
    number = 0
    with Executor(2) as executor, Interrupts(0.002) as interrupts:
        while interrupts.count < 100:
            future = executor.submit(tasks.square, number)
            while not future.done():
                try:
                    interrupts.armed = True
                    future.result(timeout=WAIT_SECONDS)
                    interrupts.armed = False
                except KeyboardInterrupt:
                    pass
            interrupts.armed = False
            assert future.result() == number**2
            number += 1


def test_closing_while_workers_look() -> None:
    """They have answered a moment ago, and look for what comes next."""
    for number in range(10):
        with Executor(2) as executor:
            assert executor.submit(tasks.square, number).result() == number**2
    code = zipped("def handler(event, context):\n    return event\n")
    for number in range(10):
        with Runtime() as runtime:
            assert runtime.function("quick", "app.handler", code=code).invoke(number).payload == number


def test_killing_workers_while_they_look() -> None:
    with Executor(1) as executor:
        for number in range(20):
            assert executor.submit(tasks.square, number).result() == number**2
            (worker,) = tasks.workers_of(executor)
            assert tasks.kill(worker)
            with suppress(fastlam.embed.executor.WorkerDied):
                executor.submit(tasks.square, number).result()
