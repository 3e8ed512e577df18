"""The future of one task: a concurrent.futures.Future that costs little while nobody looks at it from elsewhere.

The standard library's Future makes a condition variable for each task, which costs more than the task's journey. Here
it comes into being when somebody needs it (`as_completed`, `wait`, callbacks, a second thread). The invocation decides,
in one step, who came first (`watch`, `unwatched`): a condition is there when somebody has looked before the task was
done, and the outcome is then stored under it; otherwise the task was done before anybody looked, and the outcome needs
no lock.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, LOGGER, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from fastlam.core.dispatcher import Dispatcher, Invocation

T = TypeVar("T")

OVER = (FINISHED, CANCELLED, CANCELLED_AND_NOTIFIED)


class TaskFuture(Future[T]):
    """Returned by Executor.submit. `result` drives the dispatcher instead of sleeping on a condition."""

    # As long as nothing has happened, the class has it: a future that is only waited for by `result` sets four
    # attributes.
    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _waiters: list[Any]  # these two come into being with the condition
    _done_callbacks: list[Any]

    def __init__(self, dispatcher: Dispatcher | None) -> None:
        self._dispatcher = dispatcher
        self._invocation: Invocation | None = None

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        """What the standard library's functions lock while they look at the state, add a waiter or a callback."""
        attributes = self.__dict__
        condition: threading.Condition | None = attributes.get("_lock")
        if condition is not None:
            return condition
        attributes.setdefault("_waiters", [])
        attributes.setdefault("_done_callbacks", [])
        invocation = self._invocation
        if invocation is not None:
            condition = invocation.watch(threading.Condition())
        if condition is not None:
            attributes["_lock"] = condition  # the same one, whoever came first
            return condition
        while self._state not in OVER:
            time.sleep(0)  # the driver is between two lines of `_store`
        late: threading.Condition = attributes.setdefault("_late_lock", threading.Condition())
        return late

    # -- the executor's side, in the driver -------------------------------------------------------

    def complete(self, value: Any, exception: BaseException | None) -> None:
        """Sets the outcome; called once."""
        self._result = value
        if exception is not None:
            self._exception = exception
        self._store(FINISHED)

    def complete_cancelled(self) -> None:
        """The task was taken back before a worker began it; called once."""
        self._store(CANCELLED_AND_NOTIFIED)

    def _store(self, state: str) -> None:
        invocation = self._invocation
        condition = None if invocation is None else invocation.unwatched()
        if condition is None:
            self._state = state
            self._invocation = self._dispatcher = None
            return
        with condition:
            self._state = state
            for waiter in self._waiters:
                if state != FINISHED:
                    waiter.add_cancelled(self)
                elif self._exception is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            condition.notify_all()
        self._invocation = self._dispatcher = None
        self._invoke_callbacks()

    def _invoke_callbacks(self) -> None:
        """Calls each of them once, even if an interrupt comes between them and this is called again."""
        callbacks = self.__dict__.get("_done_callbacks")
        while callbacks:
            callback = callbacks.pop(0)
            try:
                callback(self)
            except Exception:
                LOGGER.exception("exception calling callback for %r", self)

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
        return self._state in OVER

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
        if self._state in OVER:
            return
        invocation, dispatcher = self._invocation, self._dispatcher
        if invocation is not None and dispatcher is not None and not dispatcher.wait(invocation, timeout):
            raise TimeoutError()
        if self._state not in OVER:
            # Another thread is just about to store the outcome.
            condition = self._condition
            with condition:
                if not condition.wait_for(lambda: self._state in OVER, timeout):
                    raise TimeoutError()
