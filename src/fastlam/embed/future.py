"""The future of one task: a concurrent.futures.Future that costs little while nobody looks at it from elsewhere.

The standard library's Future makes a condition variable for each task, which costs more than the task's journey. Here
it comes into being when somebody needs it (`as_completed`, `wait`, callbacks, a second thread). Whoever completes a
future first stores the result and the state, then looks for a condition; whoever waits first makes the condition, then
looks at the state: one of them sees the other.
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from fastlam.core.dispatcher import Dispatcher, Invocation

T = TypeVar("T")

_OVER = (FINISHED, CANCELLED, CANCELLED_AND_NOTIFIED)


class TaskFuture(Future[T]):
    """Returned by Executor.submit. `result` drives the dispatcher instead of sleeping on a condition."""

    def __init__(self, dispatcher: Dispatcher | None) -> None:
        self._dispatcher = dispatcher
        self._invocation: Invocation | None = None
        self._state = PENDING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        if name == "_condition":
            return self.__dict__.setdefault("_condition", threading.Condition())
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # -- the executor's side, in the driver -------------------------------------------------------

    def complete(self, value: Any, exception: BaseException | None) -> None:
        """Sets the outcome; called once."""
        self._invocation = self._dispatcher = None
        self._result = value
        self._exception = exception
        self._state = FINISHED
        if "_condition" in self.__dict__:
            with self._condition:
                for waiter in self._waiters:
                    if exception is None:
                        waiter.add_result(self)
                    else:
                        waiter.add_exception(self)
                self._condition.notify_all()
            self._invoke_callbacks()

    def complete_cancelled(self) -> None:
        """The task was taken back before a worker began it; called once."""
        self._invocation = self._dispatcher = None
        self._state = CANCELLED_AND_NOTIFIED
        if "_condition" in self.__dict__:
            with self._condition:
                for waiter in self._waiters:
                    waiter.add_cancelled(self)
                self._condition.notify_all()
            self._invoke_callbacks()

    # -- the user's side --------------------------------------------------------------------------

    def cancel(self) -> bool:
        """Takes the task back if no worker has begun it."""
        if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
            return True
        invocation, dispatcher = self._invocation, self._dispatcher
        if invocation is None or dispatcher is None:
            return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)
        return bool(dispatcher.cancel(invocation))

    def running(self) -> bool:
        """True while a worker holds the task."""
        invocation = self._invocation
        return self._state == RUNNING or (invocation is not None and invocation.running)

    def done(self) -> bool:
        return self._state in _OVER

    def cancelled(self) -> bool:
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def result(self, timeout: float | None = None) -> T:
        self._wait(timeout)
        if self._state != FINISHED:
            raise CancelledError()
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                # No cycle between the exception's traceback and this frame.
                self = None  # type: ignore[assignment]
        value: T = self._result
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._wait(timeout)
        if self._state != FINISHED:
            raise CancelledError()
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        if self._state in _OVER:
            return
        invocation, dispatcher = self._invocation, self._dispatcher
        if invocation is not None and dispatcher is not None and not dispatcher.wait(invocation, timeout):
            raise TimeoutError()
        if self._state not in _OVER:
            # Another thread is just about to store the outcome.
            condition = self._condition
            with condition:
                if not condition.wait_for(lambda: self._state in _OVER, timeout):
                    raise TimeoutError()
