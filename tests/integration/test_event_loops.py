"""Event loops as callers: Function.ainvoke and Executor.asubmit, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvloop

import executor_tasks as tasks
from executor_tasks import Gate
from fastlam import Executor, Runtime
from runtime_handlers import echo

pytestmark = pytest.mark.lanes

WAIT_SECONDS = 60
Run = Callable[[Coroutine[Any, Any, Any]], Any]
MakeLoop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(scope="module")
def pool(lane_in_use: str) -> Iterator[Executor]:
    with Executor(2) as executor:
        yield executor


@pytest.fixture
def single() -> Iterator[Executor]:
    """One that never has more than the one worker that it has already."""
    with Executor(1) as executor:
        executor.submit(tasks.square, 1).result()
        gc.collect()
        yield executor


@pytest.fixture(scope="module")
def runtime(lane_in_use: str) -> Iterator[Runtime]:
    with Runtime() as runtime:
        yield runtime


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def make_loop(request: pytest.FixtureRequest) -> MakeLoop:
    make: MakeLoop = request.param
    return make


@pytest.fixture
def run(make_loop: MakeLoop) -> Run:
    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            return runner.run(asyncio.wait_for(main, WAIT_SECONDS))

    return run


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def descriptors() -> set[tuple[str, str]]:
    """The open descriptors of the kinds that a door has, and a loop."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the directory's own
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return {each for each in found if each[1] in ("anon_inode:[eventpoll]", "anon_inode:[eventfd]")}


# --- values -------------------------------------------------------------------------------------------


def test_values_and_exceptions(run: Run, pool: Executor) -> None:
    async def main() -> None:
        assert await pool.asubmit(tasks.add, 40, right=2) == 42
        assert await pool.asubmit(dict, self=1, fn=2) == {"self": 1, "fn": 2}
        assert await pool.asubmit(bytes, 100_000) == bytes(100_000)
        with pytest.raises(ZeroDivisionError) as raised:
            await pool.asubmit(divmod, 1, 0)
        assert "divmod" in str(raised.value.__cause__) or "ZeroDivisionError" in str(raised.value.__cause__)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await pool.asubmit(next, iter([]))
        with pytest.raises((AttributeError, TypeError)):
            await pool.asubmit(threading.Lock())  # cannot be pickled
        assert await pool.asubmit(tasks.square, 3) == 9

    run(main())


def test_a_call_needs_a_loop_and_an_open_executor(run: Run) -> None:
    executor = Executor(1)
    with pytest.raises(RuntimeError, match="no running event loop"):
        executor.asubmit(tasks.square, 1)
    executor.shutdown()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="after shutdown"):
            await executor.asubmit(tasks.square, 1)

    run(main())


# --- many ---------------------------------------------------------------------------------------------


def test_thousands_at_once(run: Run, pool: Executor, runtime: Runtime) -> None:
    function = runtime.function("thousands", echo, reserved=4)
    dispatcher = pool.dispatcher

    async def some(first: int) -> list[Any]:
        return [(await function.ainvoke(number)).payload for number in range(first, first + 100)]

    async def main() -> None:
        before = dispatcher.loop_wakes
        values = await asyncio.gather(*(pool.asubmit(tasks.square, number) for number in range(5000)))
        assert values == [number * number for number in range(5000)]
        rows = await asyncio.gather(*(some(first) for first in range(0, 400, 100)))
        assert [number for row in rows for number in row] == list(range(400))
        assert dispatcher.loop_wakes - before < 2700  # the loop has driven, or has been woken for many at a time

    run(main())


def test_one_wake_for_all_that_came_meanwhile(run: Run, gate: Gate) -> None:
    """While the loop's thread is elsewhere, what is done rings its descriptor once."""

    async def main(pool: Executor) -> None:
        dispatcher = pool.dispatcher
        held = pool.asubmit(gate.wait)
        futures = [pool.asubmit(tasks.square, number) for number in range(300)]
        await asyncio.to_thread(lambda: None)
        before, completed = dispatcher.loop_wakes, dispatcher.completed
        opener = threading.Thread(target=gate.open)
        opener.start()
        last = pool.submit(tasks.square, 2)
        assert last.result(WAIT_SECONDS) == 4  # this thread drives, and its loop stands still
        opener.join()
        assert dispatcher.completed - completed >= 300
        assert not any(future.done() for future in futures)
        assert dispatcher.loop_wakes - before <= 1
        assert await asyncio.gather(*futures) == [number * number for number in range(300)]
        assert await held > 0

    with Executor(1) as pool:
        run(main(pool))


def test_loops_in_threads_beside_blocking_callers(make_loop: MakeLoop, pool: Executor, runtime: Runtime) -> None:
    function = runtime.function("mixed", echo, reserved=12)

    async def one_by_one(first: int) -> None:
        for number in range(first, first + 150):
            assert await pool.asubmit(tasks.square, number) == number * number
            assert (await function.ainvoke(number)).payload == number

    async def main(first: int) -> None:
        await asyncio.wait_for(asyncio.gather(one_by_one(first), one_by_one(first + 1000)), WAIT_SECONDS)
        values = await asyncio.gather(*(pool.asubmit(tasks.square, number) for number in range(500)))
        assert values == [number * number for number in range(500)]

    def looping(first: int) -> None:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(main(first))

    def blocking(first: int) -> None:
        for number in range(first, first + 300):
            assert pool.submit(tasks.square, number).result(WAIT_SECONDS) == number * number
            assert function.invoke(number, timeout=WAIT_SECONDS).payload == number

    with ThreadPoolExecutor(6) as threads:
        work = [threads.submit(looping, first) for first in range(0, 40_000, 10_000)]
        work += [threads.submit(blocking, first) for first in (100_000, 200_000)]
        for each in work:
            each.result()


# --- who drives ---------------------------------------------------------------------------------------


def test_a_loop_makes_progress_without_the_background_thread(make_loop: MakeLoop) -> None:
    script = (
        "import asyncio, sys, threading, uvloop\n"
        "from fastlam.core.dispatcher import Dispatcher\n"
        "from fastlam.embed import engine\n"
        "from fastlam import Executor\n"
        "class Alone(Dispatcher):\n"
        "    def ensure_background(self): pass\n"
        "engine.Dispatcher = Alone\n"
        "async def main(executor):\n"
        "    for number in range(200):\n"
        "        assert await executor.asubmit(abs, -number) == number\n"
        "    assert await asyncio.gather(*(executor.asubmit(abs, -n) for n in range(1000))) == list(range(1000))\n"
        "    slow = executor.asubmit(__import__('time').sleep, 0.05)\n"
        "    thread = asyncio.to_thread(lambda: [executor.submit(abs, -n).result() for n in range(50)])\n"
        "    assert await asyncio.gather(slow, thread) == [None, list(range(50))]\n"
        "    assert 'fastlam-driver' not in {thread.name for thread in threading.enumerate()}\n"
        "if __name__ == '__main__':\n"
        "    with Executor(2) as executor:\n"
        "        loop = uvloop.new_event_loop if sys.argv[1] == 'uvloop' else asyncio.new_event_loop\n"
        "        with asyncio.Runner(loop_factory=loop) as runner:\n"
        "            runner.run(asyncio.wait_for(main(executor), 60))\n"
        "    print('done')\n"
    )
    kind = "uvloop" if make_loop is uvloop.new_event_loop else "asyncio"
    run = functools.partial(subprocess.run, capture_output=True, text=True, timeout=90)
    said = run([sys.executable, "-c", script, kind])
    assert said.stdout == "done\n", said.stderr


def test_a_loop_that_stands_still_holds_nobody_up(run: Run, pool: Executor, gate: Gate) -> None:
    """A future's callback comes while the only loop with calls under way is busy with something else."""

    async def main() -> None:
        held = pool.asubmit(gate.wait)
        await asyncio.to_thread(lambda: None)
        for number in range(5):
            called = threading.Event()
            pool.submit(tasks.square, number).add_done_callback(lambda _, called=called: called.set())
            assert called.wait(WAIT_SECONDS)
        await asyncio.to_thread(gate.open)
        assert await held > 0

    run(main())


def test_a_blocking_caller_hands_over_to_the_loop(run: Run, pool: Executor, gate: Gate, tmp_path: Path) -> None:
    """A thread drives for long; when it leaves, the loop's own call still comes back."""
    other = Gate(tmp_path / "other")

    async def main() -> None:
        mine = pool.asubmit(gate.wait)
        theirs = asyncio.to_thread(lambda: pool.submit(other.wait).result(WAIT_SECONDS))
        waiting = asyncio.create_task(theirs)
        await asyncio.to_thread(other.open)
        assert await waiting > 0
        assert not mine.done()
        await asyncio.to_thread(gate.open)
        assert await mine > 0

    run(main())


# --- ends ---------------------------------------------------------------------------------------------


def test_cancelling_takes_back_what_no_worker_has_begun(run: Run, tmp_path: Path) -> None:
    gate, never = Gate(tmp_path / "gate"), tmp_path / "never"

    async def main(executor: Executor) -> None:
        held = executor.asubmit(gate.wait)
        queued = executor.asubmit(Path.touch, never)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        dropped = executor.asubmit(tasks.square, 4)
        await asyncio.to_thread(gate.open)
        assert await held > 0
        assert await dropped == 16
        held.cancel()

    with Executor(1) as executor:
        executor.submit(tasks.square, 1).result()
        run(main(executor))
    assert not never.exists()


def test_a_cancelled_await_leaves_the_task_running(run: Run, tmp_path: Path) -> None:
    arrived, leave = Gate(tmp_path / "arrived"), Gate(tmp_path / "leave")

    async def main(executor: Executor) -> None:
        future = executor.asubmit(tasks_in_turn, arrived, leave, tmp_path / "ran")
        await asyncio.to_thread(arrived.open)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        await asyncio.to_thread(leave.open)
        assert await executor.asubmit(tasks.square, 5) == 25

    with Executor(1) as executor:
        run(main(executor))
    assert (tmp_path / "ran").exists()


def tasks_in_turn(arrived: Gate, leave: Gate, ran: Path) -> None:
    arrived.wait()
    leave.wait()
    ran.touch()


def test_no_descriptor_outlives_its_loop(make_loop: MakeLoop, single: Executor, runtime: Runtime) -> None:
    function = runtime.function("descriptors", echo, reserved=1)
    function.invoke(1)
    before = descriptors()

    async def main() -> None:
        await asyncio.gather(function.ainvoke(1), single.asubmit(tasks.square, 2))

    for _ in range(20):
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(main())
            assert descriptors() > before
        loop = make_loop()
        loop.run_until_complete(main())
        loop.close()
    assert descriptors() <= before


def test_a_loop_closed_before_the_answer_comes(make_loop: MakeLoop, single: Executor, gate: Gate) -> None:
    before = descriptors()
    loop = make_loop()

    async def begin() -> None:
        future = single.asubmit(gate.wait)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not future.done()

    loop.run_until_complete(begin())
    loop.close()
    assert descriptors() <= before
    gone = weakref.ref(loop)
    del loop
    gate.open()
    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(squares(single)) == [0, 1, 4]
    single.submit(tasks.square, 1).result()
    gc.collect()
    assert gone() is None
    assert descriptors() <= before


async def squares(executor: Executor) -> list[int]:
    return await asyncio.gather(*(executor.asubmit(tasks.square, number) for number in range(3)))


def test_one_loop_and_one_executor_after_another(run: Run) -> None:
    async def main() -> None:
        for _ in range(3):
            executor = Executor(1)
            assert await squares(executor) == [0, 1, 4]
            await asyncio.to_thread(executor.shutdown)
            # The numbers of its descriptors are free again; the loop has forgotten them.
            reader, writer = os.pipe()
            seen = asyncio.Event()
            asyncio.get_running_loop().add_reader(reader, seen.set)
            os.write(writer, b"x")
            await seen.wait()
            asyncio.get_running_loop().remove_reader(reader)
            os.close(reader)
            os.close(writer)

    run(main())


def test_an_interrupt_leaves_the_loop_usable(make_loop: MakeLoop, pool: Executor) -> None:
    loop = make_loop()

    async def main() -> list[int]:
        futures = [pool.asubmit(tasks.square, number) for number in range(200)]
        return await asyncio.gather(*futures)

    def interrupt() -> None:
        raise KeyboardInterrupt

    task = loop.create_task(main())
    loop.call_soon(interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert loop.run_until_complete(asyncio.wait_for(task, WAIT_SECONDS)) == [number**2 for number in range(200)]
    loop.close()


def test_a_fork_has_loops_of_its_own(make_loop: MakeLoop) -> None:
    script = (
        "import asyncio, os, sys, uvloop\n"
        "from fastlam import Executor\n"
        "async def some(executor):\n"
        "    return await asyncio.gather(*(executor.asubmit(abs, -n) for n in range(20)))\n"
        "if __name__ == '__main__':\n"
        "    make = uvloop.new_event_loop if sys.argv[1] == 'uvloop' else asyncio.new_event_loop\n"
        "    with Executor(1) as executor:\n"
        "        loop = make()\n"
        "        assert loop.run_until_complete(some(executor)) == list(range(20))\n"
        "        child = os.fork()\n"
        "        if child == 0:\n"
        "            with Executor(1) as own, asyncio.Runner(loop_factory=make) as runner:\n"
        "                assert runner.run(some(own)) == list(range(20))\n"
        "            os._exit(7)\n"
        "        assert loop.run_until_complete(some(executor)) == list(range(20))\n"
        "        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "        assert loop.run_until_complete(some(executor)) == list(range(20))\n"
        "        loop.close()\n"
        "    print('done')\n"
    )
    kind = "uvloop" if make_loop is uvloop.new_event_loop else "asyncio"
    said = subprocess.run([sys.executable, "-c", script, kind], capture_output=True, text=True, timeout=90)
    assert said.stdout == "done\n", said.stderr
