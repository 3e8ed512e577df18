"""Asynchronous invocations: accepted, then run in the background. In memory: a daemon that stops loses what has not
run.

What is throttled is tried again, after one second and then twice as long each time up to five minutes, as long as
Lambda would (AWS: "Error handling for asynchronous invocation"); function errors are final here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastlam import limits
from fastlam.clock import Clock, Schedule
from fastlam.core.dispatcher import OUTCOME_REJECTED, OUTCOME_THROTTLED, Dispatcher, Invocation
from fastlam.errors import ApiError, throttled

_FIRST_WAIT_SECONDS: Final = 1.0
_WAIT_SECONDS_MAX: Final = 300.0


class Events:
    """The background runs of one daemon. Counters are shown by the health answer."""

    def __init__(self, dispatcher: Dispatcher, schedule: Schedule, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._schedule = schedule
        self._clock = clock
        self.accepted = 0
        self.completed = 0
        self.failed = 0
        self.expired = 0
        self.pending = 0

    def accept(self, make: Callable[[], Invocation]) -> str:
        """Takes one event on; `make` gives a fresh invocation of it for each attempt, or raises ApiError when it cannot
        be invoked any more. Returns the request id. Raises ApiError, too, when more come than are accepted in a second.
        """
        invocation = make()
        if not invocation.target.pool.account.accepts_event():
            raise throttled("FunctionInvocationRateLimitExceeded")
        self.accepted += 1
        self.pending += 1
        request_id: str = invocation.request_id
        self._run(make, invocation, self._clock.elapsed_ms(), _FIRST_WAIT_SECONDS)
        return request_id

    def _try_again(self, make: Callable[[], Invocation], since_ms: int, wait_seconds: float) -> None:
        try:
            invocation = make()
        except ApiError:
            # The function has been deleted meanwhile, or cannot be invoked any more.
            self.failed += 1
            self.pending -= 1
            return
        self._run(make, invocation, since_ms, wait_seconds)

    def _run(self, make: Callable[[], Invocation], invocation: Invocation, since_ms: int, wait_seconds: float) -> None:
        def done(finished: Invocation) -> None:
            if finished.outcome in (OUTCOME_THROTTLED, OUTCOME_REJECTED):
                age_seconds = (self._clock.elapsed_ms() - since_ms) / 1000
                if age_seconds + wait_seconds <= limits.EVENT_AGE_SECONDS_MAX:
                    again = min(_WAIT_SECONDS_MAX, wait_seconds * 2)
                    self._schedule(wait_seconds, lambda: self._try_again(make, since_ms, again))
                    return
                self.expired += 1
            elif finished.outcome == 0:
                self.completed += 1
            else:
                self.failed += 1
            self.pending -= 1

        invocation.on_done = done
        self._dispatcher.submit(invocation)
