"""Asynchronous invocations: accepted when they are safe, then run in the background, tried again, and told of.

    accept ─► EventQueue: on disk ─► answer (202)
                   │
                   ▼
              FunctionEvents: attempts, one line for each function
                   │ over
                   ▼
              Deliveries: records for destinations and dead-letter queues, one line for each of those

What an event goes through is in the rules of AWS ("How Lambda handles errors and retries with asynchronous
invocation"). Whatever waits, waits by the clock that users can make virtual; what runs is real.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from fastlam import limits
from fastlam.arn import FunctionAddress, parse_locator
from fastlam.clock import Clock, Schedule, VirtualClock
from fastlam.core.dispatcher import Dispatcher, request_id
from fastlam.dispatch import lineage
from fastlam.dispatch.lineage import Step
from fastlam.dispatch.targets import Resolved
from fastlam.errors import ApiError, function_not_found, service_fault, throttled, too_large
from fastlam.invoke.deliveries import Deliveries
from fastlam.invoke.function_events import EventHeader, FunctionEvents
from fastlam.invoke.records import Over, parcels
from fastlam.invoke.settings import DEFAULT, EventSettings, SettingsSource
from fastlam.store.queue import EVENTS, EventQueue, QueueKey

Answer = Callable[[ApiError | None], None]
"""`answer(None)`: the event is safe. `answer(error)`: it has not been taken."""

Resolve = Callable[[FunctionAddress], Resolved]
ResolveAccepted = Callable[[FunctionAddress, str, str | None], Resolved]
"""As the methods of Targets."""


class Plan(NamedTuple):
    """What the events of one address run, and what holds for them, until something changes."""

    resolved: Resolved | ApiError
    settings: EventSettings | None  # None: the version is gone


class Events:
    """All of one daemon or runtime, in the thread that drives. `begin` once; `stop`, then `close`."""

    recursive_error: Final = lineage.recursive()

    def __init__(
        self,
        dispatcher: Dispatcher,
        queue: EventQueue,
        deliveries: Deliveries,
        *,
        resolve: Resolve,
        resolve_accepted: ResolveAccepted,
        settings: SettingsSource,
        schedule: Schedule,
        clock: Clock,
        later: Schedule,
        retry_seconds: float = limits.EVENT_RETRY_SECONDS,
        on_over: Callable[[Over], None] | None = None,
    ) -> None:
        self.dispatcher = dispatcher
        self.queue = queue
        self.deliveries = deliveries
        self.schedule = schedule
        self.clock = clock
        self.clock_waits = isinstance(clock, VirtualClock)  # for what is under way
        self.later = later  # in real time, whatever the clock
        self.retry_seconds = retry_seconds
        self.now_ns = time.monotonic_ns
        self.stopping = False
        self.closed = False
        self._resolve = resolve
        self._resolve_accepted = resolve_accepted
        self._settings = settings
        self._on_over = on_over
        self._functions: dict[QueueKey, FunctionEvents] = {}
        self._plans: dict[tuple[FunctionAddress, str, str | None], Plan] = {}

    def begin(self) -> None:
        """Goes on with what an earlier daemon has left."""
        backlogs = self.queue.backlogs()
        self.deliveries.resume(backlogs)
        for backlog in backlogs:
            if backlog.key.kind == EVENTS:
                function = self._functions[backlog.key] = FunctionEvents(self, backlog.key, backlog.queue)
                function.resume(backlog.ready, backlog.waiting)

    def accept(
        self,
        resolved: Resolved,
        payload: bytes,
        request_id: str,
        step: Step,
        tenant_id: str | None,
        answer: Answer,
    ) -> None:
        """Takes one event. Raises ApiError when more come than are accepted in a second."""
        if not resolved.target.pool.account.accepts_event():
            raise throttled("FunctionInvocationRateLimitExceeded")
        address = resolved.address
        key = QueueKey(EVENTS, address.account, address.region, address.name)
        plan = self.plan(address, resolved.executed_version, tenant_id)
        header = EventHeader(
            request_id,
            address.qualifier,
            resolved.executed_version,
            self.clock.wall_ms(),
            0,
            step.trace,
            tenant_id,
            step.too_often,
            plan.settings or DEFAULT,
        )

        def stored(error: Exception | None) -> None:
            if error is None:
                answer(None)
            else:
                answer(service_fault(f"The event could not be kept ({error}): see that the disk has room."))

        self._function(key).accept(header, payload, stored)

    def invoke(self, arn: str, payload: bytes, trace: str, accepted: Answer) -> None:
        """As `abc.EventInvoker`: for a function by its ARN, by what is no caller of the API."""
        locator = parse_locator(arn)
        if locator is None or locator.account is None or locator.region is None:
            raise function_not_found(arn)
        if len(payload) > limits.ASYNC_PAYLOAD_BYTES_MAX:
            raise too_large(f"{len(payload)} byte payload is too large (limit {limits.ASYNC_PAYLOAD_BYTES_MAX} bytes)")
        address = FunctionAddress(locator.account, locator.region, locator.name, locator.qualifier)
        identifier = request_id()
        resolved = self._resolve(address).pick()
        step = lineage.step(trace, resolved.mark) if trace else lineage.begun(identifier, resolved.mark)
        self.accept(resolved, payload, identifier, step, None, accepted)

    def plan(self, address: FunctionAddress, version: str, tenant_id: str | None) -> Plan:
        key = (address, version, tenant_id)
        plan = self._plans.get(key)
        if plan is None:
            resolved: Resolved | ApiError
            executed = version
            try:
                resolved = self._resolve_accepted(address, version, tenant_id)
                executed = resolved.executed_version
            except ApiError as error:
                resolved = error
            if len(self._plans) >= limits.TARGET_CACHE_ENTRIES_MAX:
                self._plans.clear()
            plan = self._plans[key] = Plan(resolved, self._settings.of(address, executed))
        return plan

    def forget(self) -> None:
        """Something changed: every address is resolved anew."""
        self._plans.clear()

    def end(self, number: int, over: Over, settings: EventSettings, ended: Callable[[], None]) -> None:
        """An event is over: what is told of it takes its place."""
        found = parcels(over, settings, self.clock.wall_ms())
        if self._on_over is not None:
            self._on_over(over)
        if found:
            self.deliveries.turn(number, found, ended)
        else:
            self.queue.remove(number)
            ended()

    def _function(self, key: QueueKey) -> FunctionEvents:
        function = self._functions.get(key)
        if function is None:
            function = self._functions[key] = FunctionEvents(self, key, self.queue.queue(key))
        return function

    def clear(self) -> None:
        """Forgets every event and every record that waits, where they are kept in memory."""
        for function in self._functions.values():
            function.drop()
        self._functions.clear()
        self.deliveries.clear()
        self.queue.clear()

    # Stopping ----------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Nothing new begins."""
        self.stopping = self.deliveries.stopping = True

    @property
    def quiet(self) -> bool:
        """Whether nothing is under way, after `stop`."""
        return not self.deliveries.sending and not any(function.running for function in self._functions.values())

    def close(self) -> None:
        """What still ends is not heard of: it runs again."""
        self.stop()
        self.closed = True

    # Telling -----------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        return sum(function.depth for function in self._functions.values())

    def statistics(self) -> dict[str, Any]:
        functions = self._functions.values()
        counts: dict[str, Any] = {
            name: sum(getattr(function, name) for function in functions)
            for name in ("accepted", "completed", "failed", "expired", "retried", "throttled", "recursive")
        }
        return counts | {
            "dropped": counts["failed"] + counts["expired"],
            "pending": self.pending,
            "in_flight": sum(function.running for function in functions),
            "waiting_retry": sum(function.waiting_retry for function in functions),
            "waiting_delivery": self.deliveries.waiting,
            "delivered": self.deliveries.delivered,
            "deliveries_failed": self.deliveries.failed,
            "queue": self.queue.statistics(),
        }

    def rows(self) -> dict[str, Any]:
        return {
            "functions": [function.row() for function in self._functions.values()],
            "destinations": self.deliveries.rows(),
        }
