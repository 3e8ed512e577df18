"""A concurrent.futures.Executor whose workers are forked from a zygote and fed by the dispatcher.

::

    submit ─► pickle ─► dispatcher (ring, lanes) ─► worker: unpickle, call, pickle
       │                                               │
    TaskFuture ◄──────────── reply, in the driver ◄────┘

Unlike the standard library's pool, a worker that dies takes only the task with it that it was running: that one raises
WorkerDied, tasks that were queued behind it run elsewhere, and the pool stays usable.
"""

from __future__ import annotations

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
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from fastlam import limits
from fastlam.abc import LaunchSpec
from fastlam.core.dispatcher import (
    OUTCOME_CANCELLED,
    OUTCOME_FAILED,
    OUTCOME_FUNCTION_ERROR,
    OUTCOME_LOST,
    OUTCOME_OK,
    DispatcherClosed,
    Invocation,
    Target,
)
from fastlam.dispatch.faults import describe_exit
from fastlam.embed import engine
from fastlam.embed.future import OVER, TaskFuture
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


class Executor(StandardExecutor):
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
        self._shutdown = False
        self._broken: str | None = None
        self._closed = threading.Event()
        self._finalizer = weakref.finalize(self, _close_in_background, self._engine, self._target, self._closed)
        self._finalizer.atexit = False  # _python_exit does it, in time for threads to be joined
        _executors.add(self)

    # -- submitting -------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        if self._shutdown or _exiting or self._broken is not None or self._engine.foreign:
            self._check_usable()
        future: TaskFuture[T] = TaskFuture(self._dispatcher)
        try:
            payload = tasks.pack_call(args, kwargs, self._pickle(fn), self._pickle.dumps)
        except Exception as error:
            future.complete(None, error)
            return future
        invocation = Invocation(self._target, payload)
        invocation.tag = future
        invocation.on_done = self._on_done
        future._invocation = invocation
        self._dispatcher.submit(invocation)
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
        payloads = self._payloads(fn, arguments, chunksize)
        started: deque[Invocation | Exception] = deque()
        first = payloads if buffersize is None else itertools.islice(payloads, buffersize)
        batch: list[Invocation] = []
        for payload in first:
            if isinstance(payload, Exception):
                started.append(payload)
                continue
            invocation = Invocation(self._target, payload)
            started.append(invocation)
            batch.append(invocation)
            if len(batch) == _SUBMIT_BATCH:
                self._dispatcher.submit_all(batch)
                batch = []
        if batch:
            self._dispatcher.submit_all(batch)
        return self._results(started, payloads if buffersize is not None else None, end, chunksize)

    def _payloads(self, fn: Callable[..., Any], arguments: Iterator[Any], chunksize: int) -> Iterator[Any]:
        """Task payloads; a pickling error takes the place of its task."""
        try:
            function = self._pickle(fn)
        except Exception as error:
            for _ in arguments:
                yield error
            return
        dumps = self._pickle.dumps
        while True:
            if chunksize == 1:
                values = next(arguments, None)
                if values is None:
                    return
                value: Any = values
            else:
                value = list(itertools.islice(arguments, chunksize))
                if not value:
                    return
            try:
                if chunksize == 1:
                    yield tasks.pack_call(value, {}, function, dumps)
                else:
                    yield tasks.pack(value, function, dumps)
            except Exception as error:
                yield error

    def _results(
        self, started: deque[Invocation | Exception], more: Iterator[Any] | None, end: float | None, chunksize: int
    ) -> Iterator[Any]:
        wait = self._dispatcher.wait
        try:
            while started:
                head = started[0]
                if isinstance(head, Exception):
                    raise head
                if not head.done:
                    remaining = None if end is None else end - time.monotonic()
                    if not wait(head, remaining):
                        raise TimeoutError()
                started.popleft()
                payload = None if more is None else next(more, None)
                if payload is not None:
                    self._check_usable()
                    if isinstance(payload, Exception):
                        started.append(payload)
                    else:
                        invocation = Invocation(self._target, payload)
                        started.append(invocation)
                        self._dispatcher.submit(invocation)
                value, error = self._outcome(head)
                head = None  # type: ignore[assignment]
                if error is not None:
                    try:
                        raise error
                    finally:
                        del error
                # This frame keeps no reference to what it has handed out.
                results = [value] if chunksize == 1 else value
                value = None
                if chunksize != 1:
                    results.reverse()
                while results:
                    yield results.pop()
        finally:
            for left in started:
                if isinstance(left, Invocation) and not left.done:
                    with contextlib.suppress(RuntimeError):
                        self._dispatcher.cancel(left)

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

    def _on_done(self, invocation: Invocation) -> None:
        future: TaskFuture[Any] = invocation.tag
        if future._state in OVER:
            future._invoke_callbacks()  # an interrupt came between them
        elif invocation.outcome == OUTCOME_OK:
            try:
                value = tasks.unpack(invocation.result)
            except (Exception, SystemExit) as failure:
                future.complete(None, failure)
            else:
                future.complete(value, None)
        elif invocation.outcome == OUTCOME_CANCELLED:
            future.complete_cancelled()
        else:
            future.complete(*self._outcome(invocation))

    def _outcome(self, invocation: Invocation) -> tuple[Any, BaseException | None]:
        """(value, exception) of a task that is done."""
        outcome = invocation.outcome
        try:
            if outcome == OUTCOME_OK:
                return tasks.unpack(invocation.result), None
            if outcome == OUTCOME_FUNCTION_ERROR:
                error, text = tasks.unpack(invocation.result)
                error.__cause__ = RemoteTraceback(text)
                return None, error
        except (Exception, SystemExit) as failure:
            return None, failure
        if outcome == OUTCOME_LOST:
            return None, WorkerDied(_death(invocation))
        if outcome == OUTCOME_FAILED:
            reason = invocation.result.decode("utf-8", "replace") or invocation.error or "a worker could not be started"
            self._broken = f"A worker could not be initialised; the executor is not usable any more: {reason}"
            return None, BrokenProcessPool(self._broken)
        return None, RuntimeError("the executor was closed before this task ran")

    # -- the end ----------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No new tasks; those submitted still run, unless `cancel_futures` takes back what no worker has begun."""
        if self._engine.foreign:
            self._finalizer.detach()
            return
        if wait and self._dispatcher.driving_here:
            raise RuntimeError("a completion callback must not wait for the end of the executor: shutdown(wait=False)")
        self._shutdown = True
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


_SUBMIT_BATCH = 256
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
        executor.shutdown(wait=True)
    for thread in list(_closing):
        thread.join()


# Runs before the interpreter waits for its threads, as the standard library's own executors need it to.
threading._register_atexit(_python_exit)  # type: ignore[attr-defined]


def _death(invocation: Invocation) -> str:
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
