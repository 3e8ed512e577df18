"""Asynchronous invocations of a Runtime's functions: queued in memory, tried again, told of, as a daemon's are.

Everything here is done in the dispatcher's driver, one thread at a time. Callables that hear of records are called in a
thread of their own.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from fastlam.arn import FunctionAddress, parse_locator
from fastlam.clock import Clock, SystemClock, VirtualClock
from fastlam.core.dispatcher import DispatcherClosed
from fastlam.destinations.clients import Clients
from fastlam.destinations.parcel import REFUSED, DeliveryError, Parcel
from fastlam.destinations.sending import Destinations, Sent
from fastlam.dispatch.lineage import begun, mark_of
from fastlam.dispatch.targets import Resolved
from fastlam.embed.timers import Timers
from fastlam.errors import FastlamError, function_not_found
from fastlam.invoke.deliveries import Deliveries
from fastlam.invoke.event import Events
from fastlam.invoke.records import Over, invocation_record
from fastlam.invoke.settings import EventSettings
from fastlam.store.queue import MemoryQueue

if TYPE_CHECKING:
    from fastlam.core.dispatcher import Dispatcher
    from fastlam.embed.function import Function

_LATEST: Final = "$LATEST"
_CALLABLE: Final = "arn:fastlam:python:::"


class SentEvent:
    """One asynchronous invocation. `condition` is None until it is over; then Success, RetriesExhausted,
    EventAgeExceeded, ZeroReservedConcurrency or RecursiveInvocation.
    """

    def __init__(self, request_id: str, wait: Callable[[Callable[[], bool], float], bool]) -> None:
        self.request_id = request_id
        self.condition: str | None = None
        self.attempts = 0
        self._wait = wait
        self._record = b""

    @property
    def done(self) -> bool:
        return self.condition is not None

    @property
    def record(self) -> dict[str, Any]:
        """The invocation record, as destinations get it; FastlamError before it is over."""
        if not self.done:
            raise FastlamError(f"The event {self.request_id} is not over.")
        found: dict[str, Any] = json.loads(self._record)
        return found

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is over, in real time; False when `timeout` (seconds) is. No virtual clock moves meanwhile."""
        return self._wait(lambda: self.done, math.inf if timeout is None else timeout)

    def _over(self, over: Over, wall_ms: int) -> None:
        self.attempts = over.attempts
        self._record = invocation_record(over, wall_ms)
        self.condition = over.condition

    def __repr__(self) -> str:
        return f"<SentEvent {self.request_id} {self.condition or 'under way'}>"


class RuntimeEvents:
    """Made when the first event is sent, or a function has settings for its events."""

    def __init__(self, dispatcher: Dispatcher, account: str, clock: Clock, retry_seconds: float) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._functions: dict[str, tuple[Function, EventSettings]] = {}
        self._sent: dict[str, SentEvent] = {}
        self._callables: dict[str, Callable[[dict[str, Any]], object]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False
        self._turns = 0  # one within another
        self._at_end: deque[Callable[[], None]] = deque()  # of this turn
        self._end_due = False
        self._timers = Timers(self._in_driver)
        schedule = self._timers.schedule
        if isinstance(clock, VirtualClock):
            schedule = clock.schedule  # type: ignore[assignment]
            clock.run = self._in_driver
            clock.wait_idle = lambda condition: self._wait(condition, math.inf)
        elif not isinstance(clock, SystemClock):
            raise TypeError(f"clock is {clock!r}: give a VirtualClock, or none")
        queue = MemoryQueue(self._soon)
        self._destinations = Destinations(
            Clients(None, account=account), lambda *asked: self._events.invoke(*asked), self._in_driver
        )
        self._events = Events(
            dispatcher,
            queue,
            Deliveries(queue, _Sender(self), schedule=schedule, clock=clock),
            resolve=lambda address: self._resolved(address, _LATEST, None),
            resolve_accepted=self._resolved,
            settings=self,
            schedule=schedule,
            clock=clock,
            later=self._timers.schedule,
            retry_seconds=retry_seconds,
            on_over=self._over,
        )

    # From other threads ------------------------------------------------------------------------------

    def declare(self, function: Function) -> None:
        """Events for its name are its from now on."""
        options = function.event_options
        settings = EventSettings(
            retries=options.retries,
            age_seconds=options.age_seconds,
            on_success_arn=self._arn_of(options.on_success),
            on_failure_arn=self._arn_of(options.on_failure),
        )

        def declared() -> None:
            self._functions[function.name] = (function, settings)
            self._events.forget()

        self._in_driver(declared)

    def send(self, function: Function, payload: bytes, request_id: str) -> SentEvent:
        sent = SentEvent(request_id, self._wait)

        def accept() -> None:
            address = _address_of(function)
            mark = mark_of(address.account, address.region, address.name)
            resolved = self._resolved(address, _LATEST, None)
            self._sent[request_id] = sent
            self._events.accept(resolved, payload, request_id, begun(request_id, mark), None, lambda _: None)

        self._in_driver(accept)
        return sent

    def close(self) -> None:
        """What is under way is not heard of any more."""
        self._closed = True
        self._events.close()
        self._timers.close()
        self._destinations.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    # In the driver -----------------------------------------------------------------------------------

    def of(self, address: FunctionAddress, version: str) -> EventSettings | None:
        """As `SettingsSource`."""
        found = self._functions.get(address.name)
        return None if found is None else found[1]

    def _resolved(self, address: FunctionAddress, version: str, tenant_id: str | None) -> Resolved:
        found = self._functions.get(address.name)
        if found is None:
            raise function_not_found(address.arn_with_version)
        mark = mark_of(address.account, address.region, address.name)
        return Resolved(found[0].target, address.arn, _LATEST, address, mark)

    def _over(self, over: Over) -> None:
        sent = self._sent.pop(over.request_id, None)
        if sent is not None:
            sent._over(over, self._clock.wall_ms())

    def send_parcel(self, parcel: Parcel, sent: Sent) -> None:
        handler = self._callables.get(parcel.target_arn)
        if handler is None:
            self._destinations.send(parcel, sent)
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(1, thread_name_prefix="fastlam-records")

        def tell() -> None:
            failure: DeliveryError | None = None
            try:
                handler(json.loads(parcel.body))
            except Exception as error:  # noqa: BLE001 - it is asked again, as any destination
                failure = DeliveryError(REFUSED, f"{type(error).__name__}: {error}")
            self._in_driver(lambda: sent(failure))

        self._threads.submit(tell)

    # -------------------------------------------------------------------------------------------------

    def _arn_of(self, destination: Any) -> str:
        from fastlam.embed.function import Function

        if destination is None or isinstance(destination, str):
            return destination or ""
        if isinstance(destination, Function):
            return destination.arn
        if not callable(destination):
            raise TypeError(f"{destination!r} is no destination: give a function of this Runtime, a callable or an ARN")
        arn = f"{_CALLABLE}{len(self._callables)}"
        self._callables[arn] = destination
        return arn

    def _in_driver(self, callback: Callable[[], None]) -> None:
        if not self._closed:
            with contextlib.suppress(DispatcherClosed):  # with the Runtime
                self._dispatcher.run_as_driver(lambda: self._turn(callback))

    def _turn(self, callback: Callable[[], None]) -> None:
        """The callback, and what it wants to be done at its end."""
        self._turns += 1
        try:
            callback()
            while self._turns == 1 and self._at_end:
                self._at_end.popleft()()
        finally:
            self._turns -= 1

    def _soon(self, callback: Callable[[], None]) -> None:
        """At the end of this turn; out of one, in the next, which comes at once."""
        self._at_end.append(callback)
        if self._turns == 0 and not self._end_due:
            self._end_due = True
            self._timers.schedule(0.0, self._end)

    def _end(self) -> None:
        self._end_due = False

    def _wait(self, condition: Callable[[], bool], timeout_seconds: float) -> bool:
        return self._dispatcher.drive_until(condition, min(timeout_seconds, 1e9))


class _Sender:
    """Callables of the program, and what else there is."""

    def __init__(self, events: RuntimeEvents) -> None:
        self._events = events

    def send(self, parcel: Parcel, sent: Sent) -> None:
        self._events.send_parcel(parcel, sent)


def _address_of(function: Function) -> FunctionAddress:
    locator = parse_locator(function.arn)
    assert locator is not None and locator.account is not None and locator.region is not None
    return FunctionAddress(locator.account, locator.region, locator.name, None)
