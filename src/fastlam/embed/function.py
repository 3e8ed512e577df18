"""One Lambda function inside a Python program, and what an invocation of it gives."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Union

import msgspec

from fastlam.billing.duration import billed_ms
from fastlam.core.dispatcher import (
    OUTCOME_FUNCTION_ERROR,
    OUTCOME_OK,
    OUTCOME_THROTTLED,
    Invocation,
    Target,
    request_id,
)
from fastlam.embed.loops import door_of
from fastlam.errors import FastlamError

if TYPE_CHECKING:
    from fastlam.core.dispatcher import Dispatcher
    from fastlam.embed.events import RuntimeEvents, SentEvent

_MAP_WINDOW_DEFAULT: Final = 8
_encode: Final = msgspec.json.Encoder().encode


class Throttled(FastlamError):
    """The invocation was not run: a concurrency limit was reached. `reason` is Lambda's."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Rate Exceeded. ({reason})")
        self.reason = reason


class FunctionError(FastlamError):
    """Raised by `InvokeResult.raise_for_error`; `payload` is the error document."""

    def __init__(self, payload: Any) -> None:
        message = payload.get("errorMessage", "") if isinstance(payload, dict) else str(payload)
        kind = payload.get("errorType", "Error") if isinstance(payload, dict) else "Error"
        super().__init__(f"{kind}: {message}")
        self.payload = payload


class InvokeResult:
    """The outcome of one invocation. Durations are in milliseconds; `memory_mb` is the peak of the environment."""

    __slots__ = ("_invocation", "_payload")

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._payload: Any = _MISSING

    @property
    def payload(self) -> Any:
        """The function's result decoded from JSON; bytes if the function returned bytes; the error document after an
        error.
        """
        if self._payload is _MISSING:
            raw = self._invocation.result
            self._payload = raw if self._invocation.content_type else json.loads(raw)
        return self._payload

    @property
    def raw(self) -> bytes:
        """The payload as the function's runtime sent it."""
        result: bytes = self._invocation.result
        return result

    @property
    def function_error(self) -> str | None:
        """ "Unhandled" when the function failed, None otherwise (as in X-Amz-Function-Error)."""
        return "Unhandled" if self._invocation.outcome == OUTCOME_FUNCTION_ERROR else None

    @property
    def error_type(self) -> str | None:
        return self._invocation.error_type or None

    @property
    def request_id(self) -> str:
        return self._invocation.request_id

    @property
    def duration_ms(self) -> float:
        return self._invocation.duration_ns / 1e6

    @property
    def billed_duration_ms(self) -> int:
        return billed_ms(self._invocation.duration_ns, self._invocation.init_ns)

    @property
    def init_duration_ms(self) -> float | None:
        """INIT of the environment, for the first invocation in it; None for warm ones."""
        init_ns = self._invocation.init_ns
        return None if init_ns < 0 else init_ns / 1e6

    @property
    def cpu_ms(self) -> float:
        """CPU time of the environment's process during the handler."""
        return self._invocation.cpu_ns / 1e6

    @property
    def queue_ms(self) -> float:
        """From submission until an environment had the call, cold start included."""
        return self._invocation.queue_ns / 1e6

    @property
    def memory_mb(self) -> int:
        return -(-self._invocation.memory_peak_kib // 1024)

    @property
    def log_tail(self) -> str:
        """The last 4 KB of the invocation's log, START and REPORT lines included."""
        log = self._invocation.target.log
        return "" if log is None else log.tail(self._invocation).decode("utf-8", "replace")

    def raise_for_error(self) -> InvokeResult:
        """Self, or FunctionError when the function failed."""
        if self.function_error is not None:
            raise FunctionError(self.payload)
        return self

    def __repr__(self) -> str:
        state = self.error_type or "ok"
        return f"<InvokeResult {self.request_id} {state} {self.duration_ms:.2f} ms>"


_MISSING: Final = object()


class ResponseStream(Iterator[bytes]):
    """What Function.stream returns: the pieces of one response, each as it comes; a response that is no stream is one
    piece.

    A function that fails ends the iteration with FunctionError, after the pieces that came before. `result` is there
    when the iteration is over. Closing it, or letting go of it, does not stop the function: it runs to its end, and
    what it still writes is thrown away.
    """

    def __init__(self, dispatcher: Dispatcher, invocation: Invocation) -> None:
        self.result: InvokeResult | None = None
        self._dispatcher = dispatcher
        self._invocation: Invocation | None = invocation
        self._pieces: deque[bytes] = deque()
        invocation.streams = True
        dispatcher.submit(invocation)

    def __next__(self) -> bytes:
        while not self._pieces:
            invocation = self._invocation
            if invocation is None:
                raise StopIteration
            self._dispatcher.wait(invocation, None, pieces=True)
            done = invocation.done  # looked at first: what comes before the end is taken before it
            self._pieces.extend(self._dispatcher.take_pieces(invocation))
            if done and not self._pieces:
                self._invocation = None
                self.result = _result(invocation)
                self.result.raise_for_error()
                if not invocation.streamed and self.result.raw:
                    return self.result.raw
        return self._pieces.popleft()

    def close(self) -> None:
        """No more is wanted."""
        invocation, self._invocation = self._invocation, None
        self._pieces.clear()
        if invocation is not None and not invocation.done:
            invocation.on_chunk = self._dispatcher.take_pieces
            self._dispatcher.take_pieces(invocation)

    def __del__(self) -> None:
        self.close()


Destination = Union["Function", Callable[[dict[str, Any]], object], str, None]


class EventOptions(NamedTuple):
    """What becomes of a function's events, as Runtime.function has been told."""

    retries: int
    age_seconds: int
    on_success: Destination
    on_failure: Destination


class Function:
    """Made by Runtime.function. Usable from any number of threads and event loops."""

    def __init__(
        self,
        name: str,
        arn: str,
        dispatcher: Dispatcher,
        target: Target,
        check: Callable[[], None],
        events: Callable[[], RuntimeEvents],
    ) -> None:
        self.name = name
        self.arn = arn
        self.target = target
        self._dispatcher = dispatcher
        self._check = check
        self._events = events  # what queues its events, made when there are some
        self.event_options: EventOptions

    def invoke(self, event: Any = None, *, timeout: float | None = None) -> InvokeResult:
        """Runs the function once and waits. A function that fails is a result, not an exception (see
        `raise_for_error`).

        Raises Throttled over a concurrency limit, TimeoutError when the caller's own `timeout` (seconds) is over,
        FastlamError when no environment could be started.
        """
        invocation = self._invocation(event)
        self._dispatcher.submit(invocation)
        if not self._dispatcher.wait(invocation, timeout):
            raise TimeoutError(f"{self.name} has not answered within {timeout} s; it runs on")
        return _result(invocation)

    def stream(self, event: Any = None) -> ResponseStream:
        """Runs the function once; an iterator over the pieces of its response, each as soon as it is there. The
        function waits while they are not taken.

        What `invoke` raises, the iteration does. It has no timeout but the function's own.
        """
        return ResponseStream(self._dispatcher, self._invocation(event))

    async def ainvoke(self, event: Any = None) -> InvokeResult:
        """As `invoke`, for asyncio. Cancelling the wait leaves the function running."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        invocation = self._invocation(event)
        door_of(loop, self._dispatcher).invoke(invocation, future)
        await future
        return _result(invocation)

    def send(self, event: Any = None) -> SentEvent:
        """Invokes it asynchronously: queued, run in the background, and tried again when it fails, as
        Runtime.function has been told. Waiting goes by the Runtime's clock.
        """
        self._check()
        payload = event if type(event) is bytes else _json(event)
        return self._events().send(self, payload, request_id())

    def map(self, events: Iterable[Any], *, concurrency: int = _MAP_WINDOW_DEFAULT) -> Iterator[InvokeResult]:
        """Results in the order of the events, with at most `concurrency` invocations at a time."""
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; it must be at least 1")
        source = iter(events)
        window: deque[Invocation] = deque()
        while True:
            while len(window) < concurrency:
                try:
                    event = next(source)
                except StopIteration:
                    break
                invocation = self._invocation(event)
                window.append(invocation)
                self._dispatcher.submit(invocation)
            if not window:
                return
            head = window.popleft()
            self._dispatcher.wait(head, None)
            yield _result(head)

    def _invocation(self, event: Any) -> Invocation:
        self._check()
        payload = event if type(event) is bytes else _json(event)
        invocation = Invocation(self.target, payload)
        invocation.invoked_function_arn = self.arn
        return invocation


def _json(event: Any) -> bytes:
    """An event as JSON; what JSON cannot say is refused by name."""
    try:
        return _encode(event)
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        return json.dumps(event).encode()
    except (TypeError, ValueError) as error:
        raise TypeError(f"the event cannot be sent as JSON: {error}") from None


def _result(invocation: Invocation) -> InvokeResult:
    outcome = invocation.outcome
    if outcome in (OUTCOME_OK, OUTCOME_FUNCTION_ERROR):
        return InvokeResult(invocation)
    if outcome == OUTCOME_THROTTLED:
        raise Throttled(invocation.throttle_reason)
    if invocation.error:
        raise FastlamError(f"{invocation.target.name}: {invocation.error}")
    raise FastlamError(f"{invocation.target.name} was not run: the runtime was closed, or too many calls wait.")
