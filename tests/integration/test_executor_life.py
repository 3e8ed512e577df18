"""Beginnings and ends of executors: programs of every shape, shutdown, interpreter exit, forks, signals, leaks."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path

import pytest
import zmq

import executor_tasks as tasks
import fastlam
from fastlam import Executor
from interrupts import Interrupts
from waiting import await_that

pytestmark = pytest.mark.lanes

SECONDS = 60
SOURCES = str(Path(fastlam.__file__).parents[1])


def run(arguments: list[str], directory: Path, *, status: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A Python program of its own; its processes and socket directory must be gone when it is."""
    temporary = directory / "t"
    temporary.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, *arguments],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([SOURCES, str(Path(__file__).parent)]),
            "TMPDIR": str(temporary),
            "XDG_RUNTIME_DIR": str(temporary),
            "PYTHONWARNINGS": "error",
        },
        cwd=directory,
        input=stdin,
        capture_output=True,  # returns only when every process that inherited the pipes is gone
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert sorted(temporary.rglob("*")) == []
    return done


def script(directory: Path, text: str, **options: int) -> subprocess.CompletedProcess[str]:
    path = directory / "program.py"
    path.write_text(textwrap.dedent(text))
    return run([str(path)], directory, **options)


# --- programs of every shape --------------------------------------------------------------------------


def test_a_script_with_the_usual_guard(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import sys
        from fastlam import Executor

        class Point:
            def __init__(self, x): self.x = x

        def double(point):
            print("in the worker", flush=True)
            return Point(point.x * 2)

        if __name__ == "__main__":
            with Executor(2) as executor:
                point = executor.submit(double, Point(21)).result()
                assert type(point) is Point
                print(point.x, *executor.map(abs, [-1, -2]))
                print(executor.submit(lambda: sys.argv).result() == sys.argv)
        """,
    )
    assert sorted(done.stdout.splitlines()) == ["42 1 2", "True", "in the worker"]
    assert done.stderr == ""


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        from fastlam import Executor
        with Executor(1) as executor:
            print(executor.submit(abs, -1).result())
        """,
        status=1,
    )
    assert done.stdout == ""
    assert 'if __name__ == "__main__"' in done.stderr or "if __name__ == '__main__'" in done.stderr
    assert "BrokenProcessPool" in done.stderr


PROGRAM = """
from fastlam import Executor

class Point:
    def __init__(self, x): self.x = x

factor = 2

def double(point):
    return Point(point.x * factor)

with Executor(1) as executor:
    point = executor.submit(double, Point(21)).result()
    print(type(point) is Point, point.x)
    print([p.x for p in executor.map(double, map(Point, range(3)))])
    print(executor.submit(lambda left, right: left + right, 1, right=2).result())
"""
PROGRAM_SAYS = ["True 42", "[0, 2, 4]", "3"]


def test_python_c(tmp_path: Path) -> None:
    assert run(["-c", PROGRAM], tmp_path).stdout.splitlines() == PROGRAM_SAYS


def test_a_program_on_stdin(tmp_path: Path) -> None:
    assert run(["-"], tmp_path, stdin=PROGRAM).stdout.splitlines() == PROGRAM_SAYS


def test_a_repl(tmp_path: Path) -> None:
    statements = [block + "\n" for block in PROGRAM.replace("\n\n", "\n\x00").split("\x00")]
    done = run(["-i", "-q"], tmp_path, stdin="\n".join(statements))
    assert done.stdout.splitlines() == PROGRAM_SAYS


def test_a_module_run_by_name(tmp_path: Path) -> None:
    package = tmp_path / "job"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "from fastlam import Executor\n"
        "def double(x):\n    return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    with Executor(1) as executor:\n        print(executor.submit(double, 4).result())\n"
    )
    assert run(["-m", "job"], tmp_path).stdout == "8\n"


def test_a_pool_inside_a_task(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        from fastlam import Executor

        def inner(numbers):
            with Executor(2) as executor:
                return sum(executor.map(abs, numbers))

        if __name__ == "__main__":
            with Executor(1) as executor:
                print(executor.submit(inner, range(-10, 0)).result())
        """,
    )
    assert (done.stdout, done.stderr) == ("55\n", "")


def test_a_program_with_zeromq_threads_and_a_loop_of_its_own(tmp_path: Path) -> None:
    context = zmq.Context()
    left, right = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    try:
        left.bind("inproc://test")
        right.connect("inproc://test")
        with Executor(2) as executor:
            left.send(b"before")
            assert list(executor.map(tasks.square, range(100))) == [number**2 for number in range(100)]
            assert right.recv() == b"before"
        left.send(b"after")
        assert right.recv() == b"after"
    finally:
        left.close()
        right.close()
        context.term()


def test_an_interpreter_that_cannot_be_started(descriptors: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The zygote is another one of it: the error says so, and what had been made for it is gone."""
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nonexistent/python")
        for _ in range(3):
            with pytest.raises(FileNotFoundError, match="/nonexistent/python"):
                Executor(1)
    assert not any(thread.name.startswith("fastlam") for thread in threading.enumerate())
    assert descriptors() == before
    with Executor(1) as executor:
        assert executor.submit(tasks.square, 3).result() == 9


def test_the_thread_that_made_an_executor_may_end() -> None:
    """Processes would be told of its end as of their parent's, had it started them itself."""
    made: list[Executor] = []
    pids: list[int] = []
    for work in (
        lambda: made.append(Executor(1)),
        lambda: pids.append(made[0].submit(tasks.pid_of_worker).result()),
    ):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert made[0].submit(tasks.pid_of_worker).result() == pids[0]
    made[0].shutdown()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="an option of Python 3.13")
def test_the_interpreter_may_be_told_how_many_cpus_there_are(tmp_path: Path) -> None:
    program = "from fastlam import Executor\nwith Executor() as executor:\n    print(executor._max_workers)"
    assert run(["-X", "cpu_count=3", "-c", program], tmp_path).stdout == "3\n"


# --- shutdown -----------------------------------------------------------------------------------------


def test_what_was_submitted_is_finished_before_shutdown_returns(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    executor = Executor(2)
    futures = [executor.submit(tasks.note, str(lines), number) for number in range(500)]
    executor.map(tasks.note, [str(lines)] * 100, range(500, 600))
    executor.shutdown()
    assert all(future.done() for future in futures)
    assert sorted(map(int, lines.read_text().split())) == list(range(600))
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(tasks.square, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(tasks.square, [1])
    executor.shutdown()
    executor.shutdown(wait=False, cancel_futures=True)


def test_shutdown_without_waiting_and_then_waiting(tmp_path: Path) -> None:
    executor = Executor(1)
    hold = tasks.Hold(executor, tmp_path, 1)
    executor.shutdown(wait=False)
    returned = threading.Event()

    def close() -> None:
        executor.shutdown(wait=True)
        returned.set()

    closers = [threading.Thread(target=close) for _ in range(2)]
    for closer in closers:
        closer.start()
    assert not hold.futures[0].done()
    assert not returned.is_set(), "a task is still running"
    hold.release()
    for closer in closers:
        closer.join(SECONDS)
    assert returned.is_set()
    assert hold.futures[0].done()


def test_shutdown_from_a_callback_does_not_hang(caplog: pytest.LogCaptureFixture) -> None:
    executor = Executor(1)
    heard = threading.Event()

    def callback(_: object) -> None:
        try:
            executor.shutdown(wait=True)
        finally:
            heard.set()

    executor.submit(tasks.square, 1).add_done_callback(callback)
    assert heard.wait(SECONDS)
    executor.shutdown()
    assert "must not wait" in caplog.text


@pytest.mark.parametrize("way", ["del", "shutdown"])
def test_an_executor_that_is_let_go_finishes_its_work(tmp_path: Path, way: str) -> None:
    lines = tmp_path / "lines"
    executor = Executor(1)
    futures = [executor.submit(tasks.note, str(lines), number) for number in range(50)]
    gone = weakref.ref(executor)
    if way == "shutdown":
        executor.shutdown(wait=False)
    del executor
    wait(futures)
    assert sorted(map(int, lines.read_text().split())) == list(range(50))
    del futures
    await_that(lambda: gc.collect() >= 0 and gone() is None)
    await_no_engine()


def await_no_engine() -> None:
    """The last executor is gone: so must be its threads and processes."""
    await_that(lambda: not any(thread.name.startswith("fastlam") for thread in threading.enumerate()))


def test_submitting_while_another_thread_shuts_down() -> None:
    """Each call either is refused or gets its result; none is forgotten."""
    for _ in range(20):
        executor = Executor(1)
        executor.submit(tasks.square, 1).result()
        futures = []
        start = threading.Barrier(2)

        def submit(executor: Executor = executor, futures: list = futures, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                for number in range(100_000):
                    futures.append(executor.submit(tasks.square, number))
            except RuntimeError:
                pass

        thread = threading.Thread(target=submit)
        thread.start()
        start.wait()
        executor.shutdown()
        thread.join()
        done, pending = wait(futures, timeout=SECONDS)
        assert not pending
        assert all(future.cancelled() or future.exception() or isinstance(future.result(), int) for future in done)


# --- interpreter exit ---------------------------------------------------------------------------------


def test_exit_with_pending_work(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        from fastlam import Executor

        def say(word):
            print(word, flush=True)

        if __name__ == "__main__":
            executor = Executor(2)
            for number in range(20):
                executor.submit(say, number)
            print("leaving", flush=True)
        """,
    )
    assert done.stdout.splitlines()[0] == "leaving" or "leaving" in done.stdout
    assert sorted(done.stdout.split()) == sorted([*map(str, range(20)), "leaving"])
    assert done.stderr == ""


def test_exit_after_a_shutdown_that_did_not_wait(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        from fastlam import Executor

        def say(word):
            print(word, flush=True)

        if __name__ == "__main__":
            executor = Executor(1)
            for number in range(5):
                executor.submit(say, number)
            executor.shutdown(wait=False)
        """,
    )
    assert (done.stdout.split(), done.stderr) == (list("01234"), "")


def test_submitting_at_exit_is_refused(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import atexit
        from fastlam import Executor

        def late():
            try:
                executor.submit(abs, 1)
            except RuntimeError as error:
                print(error)

        if __name__ == "__main__":
            atexit.register(late)
            executor = Executor(1)
            executor.submit(abs, 1).result()
        """,
    )
    assert (done.stdout, done.stderr) == ("cannot schedule new futures after shutdown\n", "")


def test_a_program_that_fails_or_is_killed_leaves_nothing(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        from fastlam import Executor

        def stay():
            signal.pause()

        if __name__ == "__main__":
            executor = Executor(2)
            executor.submit(abs, -1).result()
            {end}
        """
    done = script(tmp_path, program.format(end='raise SystemExit("enough")'), status=1)
    assert done.stderr == "enough\n"
    (tmp_path / "program.py").write_text(
        textwrap.dedent(program.format(end="executor.submit(stay); os.kill(os.getpid(), 9)"))
    )
    # subprocess.run returns when the last holder of the pipes is gone: the workers and the zygote must follow.
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        env={**os.environ, "PYTHONPATH": SOURCES, "TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": ""},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("fastlam-*"))) == 1, "nobody was there to remove the sockets"
    subprocess.run(
        [sys.executable, "-c", "from fastlam import Executor\nwith Executor(1) as e: e.submit(abs, 1).result()"],
        env={**os.environ, "PYTHONPATH": SOURCES, "TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": ""},
        timeout=SECONDS,
        check=True,
    )
    assert list(tmp_path.glob("fastlam-*")) == [], "the next program cleans up"


# --- forks --------------------------------------------------------------------------------------------


def test_a_program_that_forks(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import os, sys
        from fastlam import Executor

        if __name__ == "__main__":
            executor = Executor(1)
            pending = executor.submit(pow, 2, 3)
            assert executor.submit(abs, -1).result() == 1
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                for attempt in (lambda: executor.submit(abs, 1), lambda: executor.map(abs, [1])):
                    try:
                        attempt()
                    except RuntimeError as error:
                        print("child:", str(os.getppid()) in str(error), error)
                try:
                    unfinished.result(timeout=5)
                except (RuntimeError, NameError):
                    pass
                executor.shutdown()
                with Executor(1) as own:
                    print("child:", own.submit(pow, 3, 3).result())
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            print("parent:", executor.submit(pow, 2, 5).result(), pending.result())
            executor.shutdown()
        """,
    )
    lines = done.stdout.splitlines()
    assert [line.partition(" of which")[0].rpartition(" ")[0] for line in lines[:2]] == [
        "child: True this executor belongs to process"
    ] * 2
    assert lines[2:] == ["child: 27", "parent: 32 8"]
    assert done.stderr == ""


def test_the_future_of_a_task_is_of_no_use_in_a_fork(tmp_path: Path) -> None:
    gate = tasks.Gate(tmp_path / "gate")
    read, write = os.pipe()
    with Executor(1) as executor:
        future = executor.submit(gate.wait)
        child = os.fork()
        if child == 0:
            try:
                future.result(timeout=10)
            except BaseException as error:
                os.write(write, f"{type(error).__name__}: {error}".encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        said = os.read(read, 1000).decode()
        os.close(read)
        gate.open()
        future.result()
    assert "RuntimeError" in said or "DispatcherClosed" in said
    assert str(os.getpid()) in said


def test_the_parent_may_die_while_its_fork_lives_on(tmp_path: Path) -> None:
    """A fork holds copies of the owner's descriptors: the zygote must not take it for its owner."""
    done = script(
        tmp_path,
        """
        import os, sys, time
        from fastlam import Executor

        if __name__ == "__main__":
            executor = Executor(1)
            worker = executor.submit(os.getpid).result()
            read, write = os.pipe()
            if os.fork():
                os.write(write, b"x")
                os.kill(os.getpid(), 9)
            os.read(read, 1)
            pidfd = os.pidfd_open(worker) if os.path.exists(f"/proc/{worker}") else None
            if pidfd is not None:
                import select
                assert select.select([pidfd], [], [], 30)[0], "the worker outlives its owner"
            print("gone", flush=True)
            os.system(f"rm -rf {os.environ['TMPDIR']}/fastlam-*")
            os._exit(0)
        """,
        status=-signal.SIGKILL,
    )
    assert done.stdout == "gone\n"


# --- signals ------------------------------------------------------------------------------------------


def test_ctrl_c_ends_the_wait_and_not_the_work(tmp_path: Path) -> None:
    with Executor(1) as executor:
        hold = tasks.Hold(executor, tmp_path, 1)
        queued = executor.submit(tasks.square, 5)
        main = threading.main_thread().ident
        assert main is not None
        for wait_for in (hold.futures[0].result, queued.exception, lambda: wait([queued]), lambda: list(results)):
            results = executor.map(tasks.square, range(3))
            timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                timer.start()
                wait_for()
            timer.join()
        hold.release()
        assert queued.result() == 25
        assert list(executor.map(tasks.square, range(50))) == [number**2 for number in range(50)]


def test_an_interrupt_that_comes_as_one_falls_asleep(tmp_path: Path, rng: random.Random) -> None:
    """Whoever waits looks for work before it sleeps: a signal that comes meanwhile must not wait for the next reply."""
    main = threading.main_thread().ident
    assert main is not None
    due = threading.Lock()  # an interrupt in the middle of a semaphore's own code would break it
    due.acquire()
    delays_seconds = [rng.uniform(0, 0.0006) for _ in range(5000)]

    def interrupt() -> None:
        for delay_seconds in delays_seconds:
            due.acquire()
            time.sleep(delay_seconds)  # any moment will do
            signal.pthread_kill(main, signal.SIGINT)

    sender = threading.Thread(target=interrupt)
    with Executor(1) as executor:
        hold = tasks.Hold(executor, tmp_path, 1)
        sender.start()
        try:
            for _ in delays_seconds:
                with pytest.raises(KeyboardInterrupt):
                    due.release()
                    hold.futures[0].result(timeout=SECONDS)
        finally:
            hold.release()
        sender.join()


# An interrupt may also come in the middle of somebody else's garbage collection callback (hypothesis has one).
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_under_load_lose_nothing() -> None:
    """KeyboardInterrupts at arbitrary moments of a drive: every future still gets its result."""
    with Executor(2) as executor:
        futures = [executor.submit(tasks.out_of_band, list(range(number % 3000))) for number in range(4000)]
        remaining = list(reversed(futures))
        with Interrupts(0.003) as interrupts:
            while remaining:
                # No loop in here: in Python 3.13 an interrupt at the jump back to its head passes by the `except`.
                try:
                    interrupts.armed = True
                    remaining[-1].result(timeout=SECONDS)
                    remaining.pop()
                    interrupts.armed = False
                except KeyboardInterrupt:
                    pass
        assert interrupts.count > 0
        assert [future.result()[1] for future in futures] == [number % 3000 for number in range(4000)]


def test_a_signal_handler_runs_while_one_waits(tmp_path: Path) -> None:
    heard: list[int] = []
    with Executor(1) as executor:
        hold = tasks.Hold(executor, tmp_path, 1)

        def handler(number: int, _: object) -> None:
            heard.append(number)
            hold.gates[0].open()

        before = signal.signal(signal.SIGUSR1, handler)
        try:
            timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            assert hold.futures[0].result(timeout=SECONDS) > 0
            timer.join()
        finally:
            signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]


# --- leaks --------------------------------------------------------------------------------------------


@pytest.fixture
def descriptors() -> Iterator[Callable[[], int]]:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    with Executor(1) as executor:  # whatever is opened once and for all is open from now on
        executor.submit(tasks.square, 1).result()
    yield count


def test_fifty_executors_leave_no_descriptor(descriptors: Callable[[], int]) -> None:
    before = descriptors()
    for turn in range(50):
        with Executor(1) as executor:
            assert executor.submit(tasks.square, turn).result() == turn**2
    assert descriptors() == before


def test_workers_that_come_and_go_leave_no_descriptor(descriptors: Callable[[], int]) -> None:
    with Executor(1, max_tasks_per_child=1) as executor:
        executor.submit(tasks.square, 1).result()
        wait([executor.submit(tasks.square, number) for number in range(3)])
        before = descriptors()
        assert len(set(executor.map(tasks.pid_of_worker, range(60)))) == 60
        await_that(lambda: descriptors() <= before)


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def test_memory_does_not_grow_with_the_number_of_tasks() -> None:
    def load(count: int) -> None:
        for _ in range(count // 10_000):
            assert sum(1 for _ in executor.map(tasks.square, range(5_000))) == 5_000
            for future in [executor.submit(tasks.square, number) for number in range(5_000)]:
                future.result()

    with Executor(2) as executor:
        load(60_000)
        gc.collect()
        before = resident_kib()
        load(140_000)
        gc.collect()
        assert resident_kib() - before < 8 * 1024
