"""A concurrent.futures.Executor whose workers are forked from a zygote and fed by the dispatcher.

::

    submit ─► pickle ─► dispatcher (ring, lanes) ─► worker: unpickle, call, pickle
       │                                               │
    TaskFuture ◄──────────── reply, in the driver ◄────┘

Unlike the standard library's pool, a worker that dies takes only the task with it that it was running: that one raises
WorkerDied, tasks that were queued behind it run elsewhere, and the pool stays usable.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import Future
from concurrent.futures._base import LOGGER
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, TypeVar

from fastlam import limits
from fastlam.abc import LaunchSpec
from fastlam.core.dispatcher import (
    OUTCOME_FAILED,
    OUTCOME_FUNCTION_ERROR,
    OUTCOME_LOST,
    DispatcherClosed,
    MappedCall,
    MapResults,
    Target,
    TaskCall,
    TaskDoor,
)
from fastlam.dispatch.faults import describe_exit
from fastlam.embed import engine
from fastlam.embed.future import TaskFuture
from fastlam.embed.loops import AwaitedFuture, door_of
from fastlam.embed.pickling import CallablePickler, preparation
from fastlam.wire import tasks
from fastlam.wire.control import WorkerSpec

T = TypeVar("T")

_executors: weakref.WeakSet[Executor] = weakref.WeakSet()
_numbers = itertools.count(1)


class WorkerDied(BrokenProcessPool):
    """The worker ended while it ran this task. Other tasks, and the executor, are unharmed."""


class RemoteTraceback(Exception):
    """The traceback of an exception in the worker, as the cause of the exception here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Executor(TaskDoor, StandardExecutor):
    """Runs calls in `max_workers` processes (default: one a CPU), started as they are needed.

    `initializer(*initargs)` runs in each worker first; if it raises, the pool is broken. `max_tasks_per_child` replaces
    a worker after so many tasks. Usable from any number of threads.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        if max_workers is None:
            max_workers = _usable_cpus()
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        prepared, has_main = preparation()
        self._pickle = CallablePickler(has_main)
        self._max_workers = max_workers
        spec = WorkerSpec(
            kind="tasks",
            title=f"executor-{next(_numbers)}",
            environ=dict(os.environ),
            directory=_working_directory(),
            path=[os.path.abspath(entry) if entry else os.getcwd() for entry in sys.path],
            preparation=prepared,
            initializer=b"" if initializer is None else self._pickle.dumps((initializer, initargs)),
        )
        self._engine = engine.acquire()
        self._dispatcher = self._engine.dispatcher
        self._target = Target(
            spec.title,
            LaunchSpec(spec, zygote_kind="embedded", captures_output=False, frame_bytes_max=-1),
            slots_per_environment=limits.SLOTS_PER_ENVIRONMENT,
            environments_max=max_workers,
            tasks_per_environment_max=max_tasks_per_child or 0,
        )
        self.open_door(self._dispatcher, self._target, TaskFuture, self._pickle, self._pack, tasks.unpack)
        self._shutdown = False
        self._broken: str | None = None
        self._closed = threading.Event()
        self._finalizer = weakref.finalize(self, _close_in_background, self._engine, self._target, self._closed)
        self._finalizer.atexit = False  # _python_exit does it, in time for threads to be joined
        _executors.add(self)

    # -- submitting -------------------------------------------------------------------------------

    if TYPE_CHECKING:

        def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]: ...

    def asubmit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> asyncio.Future[T]:
        """As `submit`, for asyncio: `value = await executor.asubmit(fn, *args)`.

        The task is under way when this returns. Cancelling the future takes it back if no worker has begun it.
        """
        if self.refuses or self._engine.foreign:
            self._check_usable()
        loop = asyncio.get_running_loop()
        future = AwaitedFuture(loop=loop)
        future.call = door_of(loop, self._dispatcher).submit(self, future, fn, args, kwargs)
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As the standard library's, `chunksize` and (Python 3.14) `buffersize` included. Results come in order."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        self._check_usable()
        end = None if timeout is None else time.monotonic() + timeout
        arguments = zip(*iterables, strict=False)
        if chunksize == 1:
            calls = self.map_tasks(fn, arguments, buffersize)
            if buffersize is None:
                return MapResults(calls, end)
            more = (call for each in arguments for call in self.map_tasks(fn, iter([each]), None))
            return self._results(deque(calls), more, end, chunksize)
        chunks = self._chunks(fn, arguments, chunksize)
        started = deque(itertools.islice(chunks, buffersize))
        self._dispatcher.submit_all(list(started))
        return self._results(started, self._submitted(chunks) if buffersize is not None else None, end, chunksize)

    def _chunks(self, fn: Callable[..., Any], arguments: Iterator[Any], chunksize: int) -> Iterator[MappedCall]:
        """Tasks of `chunksize` calls each, not submitted yet; those that cannot be pickled are over already."""
        while chunk := list(itertools.islice(arguments, chunksize)):
            try:
                call = self.packed_task(tasks.pack(chunk, self._pickle(fn), self._pickle.dumps))
            except Exception as error:
                call = self.failed_task(error)
            yield call

    def _submitted(self, calls: Iterator[MappedCall]) -> Iterator[MappedCall]:
        for call in calls:
            self._dispatcher.submit_all([call])
            yield call

    def _results(
        self, started: deque[MappedCall], more: Iterator[MappedCall] | None, end: float | None, chunksize: int
    ) -> Iterator[Any]:
        try:
            while started:
                head = started[0]
                value = head.result(None if end is None else end - time.monotonic())
                started.popleft()
                if more is not None:
                    self._check_usable()
                    started.extend(itertools.islice(more, 1))
                head = None  # type: ignore[assignment]
                # This frame keeps no reference to what it has handed out.
                if chunksize == 1:
                    results = [value]
                else:
                    results = value
                    results.reverse()
                value = None
                while results:
                    yield results.pop()
        finally:
            for left in started:
                with contextlib.suppress(RuntimeError):
                    left.cancel()

    def _pack(self, args: tuple[Any, ...], keywords: dict[str, Any], function: bytes) -> bytes | list[Any]:
        return tasks.pack_call(args, keywords, function, self._pickle.dumps)

    def _check_usable(self) -> None:
        if self._engine.foreign:
            raise RuntimeError(
                f"this executor belongs to process {self._engine.pid}, of which this one is a fork: make an executor"
                " here"
            )
        if self._broken is not None:
            raise BrokenProcessPool(self._broken)
        if self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    # -- outcomes: in the driver ------------------------------------------------------------------

    def _outcome(self, call: TaskCall, answer: bytes) -> BaseException:
        """The exception of a task that has no value."""
        outcome = call.outcome
        if outcome == OUTCOME_FUNCTION_ERROR:
            try:
                error, text = tasks.unpack(answer)
                error.__cause__ = RemoteTraceback(text)
                return error  # type: ignore[no-any-return]
            except (Exception, SystemExit) as failure:
                return failure
        if outcome == OUTCOME_LOST:
            return WorkerDied(_death(call))
        if outcome == OUTCOME_FAILED:
            reason = answer.decode("utf-8", "replace") or call.error or "a worker could not be started"
            self._broken = f"A worker could not be initialised; the executor is not usable any more: {reason}"
            self.refuses = True
            return BrokenProcessPool(self._broken)
        return RuntimeError("the executor was closed before this task ran")

    def _callback_failed(self, call: TaskCall) -> None:
        LOGGER.exception("exception calling callback for %r", call)

    # -- the end ----------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No new tasks; those submitted still run, unless `cancel_futures` takes back what no worker has begun."""
        if self._engine.foreign:
            self._finalizer.detach()
            return
        if wait and self._dispatcher.driving_here:
            raise RuntimeError("a completion callback must not wait for the end of the executor: shutdown(wait=False)")
        self._shutdown = self.refuses = True
        if cancel_futures and not self._closed.is_set():
            with contextlib.suppress(DispatcherClosed):
                self._dispatcher.run_as_driver(lambda: self._dispatcher.take_waiting(self._target))
        if not wait:
            self._finalizer()
        elif self._finalizer.detach() is None:
            self._closed.wait()
        else:
            try:
                close(self._engine, self._target, self._closed)
            except BaseException:
                # Interrupted: what has been submitted is still finished, but this caller does not wait for it.
                _close_in_background(self._engine, self._target, self._closed)
                raise
        _executors.discard(self)

    def statistics(self) -> dict[str, int]:
        """Counters of this executor's tasks and workers."""
        starting, idle, busy, waiting = self._target.counts
        return {
            "tasks": self._target.invocations,
            "workers_starting": starting,
            "workers_idle": idle,
            "workers_busy": busy,
            "tasks_waiting": waiting,
        }


_exiting = False


def close(owner: engine.Engine, target: Target, closed: threading.Event) -> None:
    """Waits until all tasks are done, lets the workers leave, and releases the engine."""
    dispatcher = owner.dispatcher
    while not dispatcher.drive_until(lambda: dispatcher.quiet(target), 3600.0):
        pass
    dispatcher.run_as_driver(lambda: dispatcher.dismiss(target, False))
    if not dispatcher.drive_until(lambda: not dispatcher.environments_of(target), 10.0):
        dispatcher.run_as_driver(lambda: dispatcher.dismiss(target, True))
        dispatcher.drive_until(lambda: not dispatcher.environments_of(target), 10.0)
    owner.release()
    closed.set()


def _close_in_background(owner: engine.Engine, target: Target, closed: threading.Event) -> None:
    if owner.foreign:
        return
    thread = threading.Thread(target=close, args=(owner, target, closed), name="fastlam-close", daemon=True)
    thread.start()
    _closing.add(thread)


_closing: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def _python_exit() -> None:
    """At the end of the interpreter: what was submitted is finished, as the standard library's pools do it."""
    global _exiting
    _exiting = True
    for executor in list(_executors):
        executor.refuses = True
    for executor in list(_executors):
        executor.shutdown(wait=True)
    for thread in list(_closing):
        thread.join()


# Runs before the interpreter waits for its threads, as the standard library's own executors need it to.
threading._register_atexit(_python_exit)  # type: ignore[attr-defined]


def _death(invocation: TaskCall) -> str:
    status = invocation.cpu_ns  # the wait status, for tasks that were lost
    how = describe_exit(status).removeprefix("Runtime exited with error: ").removeprefix("Runtime ")
    reason = f" ({invocation.error})" if invocation.error else ""
    return f"The worker that ran this task ended: {how}{reason}. Other tasks are not affected."


def _usable_cpus() -> int:
    """From Python 3.13 on also what `-X cpu_count` and PYTHON_CPU_COUNT say."""
    if sys.version_info >= (3, 13):
        count = os.process_cpu_count()
    else:
        count = len(os.sched_getaffinity(0))
    return count or 1


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"
