"""The events of one function: which of them run now, which wait for a time, and which are on disk only.

    accepted ──► ready ──► running ──► over: removed, or turned into records for destinations
                   ▲ ▲        │
       on disk ────┘ │        ├─ the function failed: 60 s, then 120 s
    (read in order)  │        └─ throttled, or a fault of ours: 1 s, then twice as long each time
                     └──────── waiting (only its number is kept meanwhile)

As many run at a time as reserved concurrency lets, and few at first: short handlers are done sooner by few environments
than by many new ones. When one of them turns out to be long, twice as many may run, and so on.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from fastlam import limits
from fastlam.arn import FunctionAddress
from fastlam.core.dispatcher import (
    OUTCOME_CANCELLED,
    OUTCOME_FUNCTION_ERROR,
    OUTCOME_OK,
    OUTCOME_THROTTLED,
    FunctionPool,
    Invocation,
)
from fastlam.errors import ApiError
from fastlam.invoke.records import (
    EVENT_AGE_EXCEEDED,
    NO_RESPONSE,
    RECURSIVE,
    RETRIES_EXHAUSTED,
    SUCCESS,
    ZERO_CONCURRENCY,
    Over,
    Response,
)
from fastlam.invoke.settings import EventSettings
from fastlam.store.queue import NUMBER_BITS, Item, QueueKey, Waiting

if TYPE_CHECKING:
    from fastlam.invoke.event import Events

_SECOND_MS = 1000
_THROTTLED = Response(429)


class EventHeader(msgspec.Struct, array_like=True):
    """What is kept of an event beside its payload."""

    request_id: str
    qualifier: str | None
    version: str  # that the qualifier led to when the event was accepted
    accepted_ms: int  # since 1970
    attempts: int
    trace: str
    tenant_id: str | None
    recursive: bool  # the chain of invocations that it comes from has been here too often
    settings: EventSettings  # as they were when it was accepted


encode_header = msgspec.msgpack.Encoder().encode
decode_header = msgspec.msgpack.Decoder(EventHeader).decode


class Event:
    """One that is ready, or runs."""

    __slots__ = ("backoff", "header", "number", "payload", "since_ms")

    def __init__(self, number: int, header: EventHeader, payload: bytes, since_ms: int, backoff: int = 0) -> None:
        self.number = number
        self.header = header
        self.payload = payload
        self.since_ms = since_ms  # when it was accepted, by the clock's elapsed time
        self.backoff = backoff  # throttles and faults of ours since the last attempt


class _Later(NamedTuple):
    """One that waits for a time."""

    due_ms: float  # elapsed
    number: int
    backoff: int
    since_ms: int
    payload_bytes: int


class FunctionEvents:
    """Owned by `Events`, in the thread that drives."""

    def __init__(self, owner: Events, key: QueueKey, number: int) -> None:
        self._owner = owner
        self.key = key
        self.number = number
        self._ready: deque[Event] = deque()
        self._ready_bytes = 0
        self._running: dict[int, Invocation] = {}  # by number of the event, in the order of their start
        self._committing = 0  # accepted, not on disk yet, and kept in memory
        self._leaving = 0  # accepted, not on disk yet, and only there afterwards
        self._ending = 0  # attempts whose outcome is not on disk yet
        self._behind = 0  # on disk only, and not read
        self._cursor = number << NUMBER_BITS  # up to which all has been read, or never left
        self._waiting: list[_Later] = []  # heap
        self._armed: list[float] = []  # moments that timers are set to; they become earlier from one to the next
        self._due: deque[_Later] = deque()  # waited long enough, and on disk only
        self._fetching: dict[int, int] = {}  # numbers that are being read, with their backoff
        self._reading = False
        self._at_once = limits.EVENTS_AT_ONCE
        self._looks = False  # at how long what runs takes
        self._pool: FunctionPool | None = None
        self._pumping = False
        self._dropped = False  # nobody knows it any more
        self._worked = False  # whether the clock waits for us
        self.accepted = self.completed = self.failed = self.expired = self.retried = self.throttled = 0
        self.recursive = 0

    def drop(self) -> None:
        """Forgets all of its events; those that run end without being heard of."""
        self._dropped = True
        self._ready.clear()
        self._due.clear()
        self._waiting.clear()
        self._behind = 0
        self._note_work()

    # Coming in ---------------------------------------------------------------------------------------

    def resume(self, ready: int, waiting: Sequence[Waiting]) -> None:
        """What an earlier daemon has left. What ran then runs again."""
        self._behind = ready
        clock = self._owner.clock
        now_ms, wall_ms = clock.elapsed_ms(), clock.wall_ms()
        for one in waiting:
            due_ms = now_ms + max(0, one.due_ms - wall_ms)
            since_ms = now_ms - max(0, wall_ms - decode_header(one.header).accepted_ms)
            self._wait(_Later(due_ms, one.number, 0, since_ms, one.payload_bytes))
        self.pump()

    def accept(self, header: EventHeader, payload: bytes, answer: Callable[[Exception | None], None]) -> None:
        """Takes one; `answer(None)` comes when it is safe, `answer(error)` when it cannot be kept."""
        kept = (
            not self._behind
            and not self._leaving
            and not self._reading
            and len(self._ready) + self._committing < limits.EVENT_WINDOW_ITEMS
            and self._ready_bytes + len(payload) <= limits.EVENT_WINDOW_BYTES
        )
        since_ms = self._owner.clock.elapsed_ms()

        def stored(error: Exception | None) -> None:
            if kept:
                self._committing -= 1
            else:
                self._leaving -= 1
            if error is not None:
                self._ready_bytes -= size if kept else 0
            else:
                self.accepted += 1
                if self._dropped:
                    pass  # with all the others, between its coming and now
                elif kept:
                    self._ready.append(Event(number, header, payload, since_ms))
                else:
                    self._behind += 1
            try:
                answer(error)
            finally:
                self.pump()

        size = len(payload)
        number = self._owner.queue.append(self.number, encode_header(header), payload, stored)
        if kept:
            self._committing += 1
            self._ready_bytes += size
            self._cursor = number
        else:
            self._leaving += 1
        self._note_work()

    def _refill(self) -> None:
        """Reads on, what has waited before what is new."""
        queue = self._owner.queue
        if self._due:
            left = limits.EVENT_WINDOW_BYTES
            while self._due and left > 0 and len(self._fetching) < limits.EVENT_WINDOW_ITEMS:
                later = self._due.popleft()
                self._fetching[later.number] = later.backoff
                left -= later.payload_bytes
            self._reading = True
            queue.fetch(list(self._fetching), self._read)
        elif self._behind:
            self._reading = True
            queue.read(self.number, self._cursor, limits.EVENT_WINDOW_ITEMS, limits.EVENT_WINDOW_BYTES, self._read)

    def _read(self, items: list[Item]) -> None:
        self._reading = False
        if self._dropped:
            return
        clock = self._owner.clock
        now_ms, wall_ms = clock.elapsed_ms(), clock.wall_ms()
        fetched, self._fetching = self._fetching, {}
        for item in items:
            header = decode_header(item.header)
            since_ms = now_ms - max(0, wall_ms - header.accepted_ms)
            self._ready.append(Event(item.number, header, item.payload, since_ms, fetched.get(item.number, 0)))
            self._ready_bytes += len(item.payload)
            if item.number not in fetched:
                self._behind -= 1
                self._cursor = item.number
        if not items and not fetched:
            # Nothing where something should be: the disk does not let itself be read just now.
            self._owner.later(limits.QUEUE_RETRY_SECONDS, self.pump)
            self._note_work()
            return
        self.pump()

    # Running -----------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Starts what may run. Called whenever something has changed."""
        if self._pumping or self._dropped or self._owner.stopping:
            self._note_work()
            return
        self._pumping = True
        try:
            while self._ready and len(self._running) < self._limit():
                event = self._ready.popleft()
                self._ready_bytes -= len(event.payload)
                self._start(event)
            if not self._reading and (self._due or self._behind) and len(self._ready) < limits.EVENT_WINDOW_ITEMS // 2:
                self._refill()
        finally:
            self._pumping = False
        if self._ready:
            self._look_later()
        elif not self._running:
            self._at_once = limits.EVENTS_AT_ONCE
        self._note_work()

    def _limit(self) -> int:
        reserved = -1 if self._pool is None else self._pool.reserved
        return min(self._at_once, reserved) if reserved > 0 else self._at_once

    def _look_later(self) -> None:
        if not self._looks:
            self._looks = True
            self._owner.later(limits.EVENT_LONG_SECONDS, self._look)

    def _look(self) -> None:
        """More at a time, if those that run are long."""
        self._looks = False
        oldest = next(iter(self._running.values()), None)
        begun_ns = 0 if oldest is None else oldest.posted_ns  # 0: it waits for an environment
        if begun_ns and self._owner.now_ns() - begun_ns > limits.EVENT_LONG_SECONDS * 1e9:
            self._at_once = min(self._at_once * 2, limits.ACCOUNT_CONCURRENCY)
        self.pump()

    def _start(self, event: Event) -> None:
        """One attempt, unless it is known beforehand what comes of it."""
        owner, header = self._owner, event.header
        address = self._address(header)
        plan = owner.plan(address, header.version, header.tenant_id)
        settings = plan.settings or header.settings
        if owner.clock.elapsed_ms() - event.since_ms > settings.age_seconds * _SECOND_MS:
            self._end(event, settings, EVENT_AGE_EXCEEDED, _THROTTLED if event.backoff else NO_RESPONSE)
            return
        if isinstance(plan.resolved, ApiError):
            self._refused(event, settings, plan.resolved)
            return
        if header.recursive and not settings.loops_allowed:
            self.recursive += 1
            self._end(event, settings, RECURSIVE, Response(400, message=str(owner.recursive_error)))
            return
        target = plan.resolved.target
        self._pool = target.pool
        if target.pool.reserved == 0:
            self._end(event, settings, ZERO_CONCURRENCY, NO_RESPONSE)
            return
        invocation = Invocation(target, event.payload, header.request_id)
        invocation.invoked_function_arn = address.arn
        invocation.trace_id = header.trace
        invocation.tenant_id = header.tenant_id
        invocation.tag = event
        executed = plan.resolved.executed_version

        def done(finished: Invocation) -> None:
            del self._running[event.number]
            self._done(event, finished, executed)
            self.pump()

        invocation.on_done = done
        self._running[event.number] = invocation
        owner.dispatcher.submit(invocation)

    def _done(self, event: Event, finished: Invocation, executed: str) -> None:
        outcome, owner, header = finished.outcome, self._owner, event.header
        if outcome == OUTCOME_CANCELLED or owner.closed or self._dropped:
            return  # the daemon stops: the next one runs it
        plan = owner.plan(self._address(header), header.version, header.tenant_id)
        settings = plan.settings or header.settings
        if outcome == OUTCOME_OK:
            header.attempts += 1
            response = Response(200, executed, False, finished.result, _foreign(finished.content_type))
            self._end(event, settings, SUCCESS, response)
        elif outcome == OUTCOME_FUNCTION_ERROR:
            self._attempted(event, settings, Response(200, executed, True, finished.result))
        else:
            self.throttled += outcome == OUTCOME_THROTTLED
            self._back_off(event, settings, Response(429 if outcome == OUTCOME_THROTTLED else 500))

    def _refused(self, event: Event, settings: EventSettings, error: ApiError) -> None:
        """It cannot be invoked now. What is not there may be there again for the next attempt."""
        if error.status == 404:
            self._attempted(event, settings, Response(404, message=str(error)))
        else:
            self._back_off(event, settings, Response(error.status, message=str(error)))

    def _attempted(self, event: Event, settings: EventSettings, response: Response) -> None:
        """An attempt has failed, and counts."""
        header = event.header
        header.attempts += 1
        if header.attempts > settings.retries:
            self._end(event, settings, RETRIES_EXHAUSTED, response)
            return
        wait_seconds = self._owner.retry_seconds * header.attempts
        if self._too_old(event, settings, wait_seconds):
            self._end(event, settings, EVENT_AGE_EXCEEDED, response)
            return
        self.retried += 1
        clock, number = self._owner.clock, event.number
        self._ending += 1
        self._owner.queue.amend(number, clock.wall_ms() + int(wait_seconds * 1000), encode_header(header), self._ended)
        due_ms = clock.elapsed_ms() + wait_seconds * 1000
        self._wait(_Later(due_ms, number, 0, event.since_ms, len(event.payload)))

    def _back_off(self, event: Event, settings: EventSettings, response: Response) -> None:
        """No attempt: it did not come to one. The disk need not know, another daemon begins anew."""
        wait_seconds = min(limits.EVENT_BACKOFF_SECONDS_MAX, limits.EVENT_BACKOFF_SECONDS * 2 ** min(event.backoff, 16))
        if self._too_old(event, settings, wait_seconds):
            self._end(event, settings, EVENT_AGE_EXCEEDED, response)
            return
        due_ms = self._owner.clock.elapsed_ms() + wait_seconds * 1000
        self._wait(_Later(due_ms, event.number, event.backoff + 1, event.since_ms, len(event.payload)))

    def _too_old(self, event: Event, settings: EventSettings, wait_seconds: float) -> bool:
        """Whether it would be when it has waited."""
        age_ms = self._owner.clock.elapsed_ms() - event.since_ms
        return age_ms + wait_seconds * 1000 >= settings.age_seconds * _SECOND_MS

    def _end(self, event: Event, settings: EventSettings, condition: str, response: Response) -> None:
        header = event.header
        if condition == SUCCESS:
            self.completed += 1
        elif condition == EVENT_AGE_EXCEEDED:
            self.expired += 1
        else:
            self.failed += 1
        over = Over(
            header.request_id,
            self._address(header),
            condition,
            header.attempts,
            event.payload,
            response,
            header.trace,
        )
        self._ending += 1
        self._owner.end(event.number, over, settings, self._ended)

    def _ended(self) -> None:
        """What has come of an attempt is on disk."""
        self._ending -= 1
        self._note_work()

    # Waiting -----------------------------------------------------------------------------------------

    def _wait(self, later: _Later) -> None:
        heapq.heappush(self._waiting, later)
        self._arm()

    def _arm(self) -> None:
        """Has a timer run for the first that is due, unless there is one before it anyway."""
        if not self._waiting:
            return
        due_ms = self._waiting[0].due_ms
        if any(armed_ms <= due_ms for armed_ms in self._armed):
            return
        self._armed.append(due_ms)

        def wake() -> None:
            self._armed.remove(due_ms)
            self._wake()

        # A timer may come early by as much as a millisecond, which its clock does not show.
        self._owner.schedule(max(0.0, due_ms - self._owner.clock.elapsed_ms()) / 1000, wake)

    def _wake(self) -> None:
        """Time has passed."""
        now_ms = self._owner.clock.elapsed_ms()
        while self._waiting and self._waiting[0].due_ms <= now_ms:
            self._due.append(heapq.heappop(self._waiting))
        self._arm()
        self.pump()

    # Telling -----------------------------------------------------------------------------------------

    def _note_work(self) -> None:
        """Tells a virtual clock whether there is something that is not over at this moment."""
        if not self._owner.clock_waits:
            return
        works = bool(
            self._ready
            or self._running
            or self._committing
            or self._leaving
            or self._ending
            or self._behind
            or self._due
            or self._reading
        )
        if works != self._worked:
            self._worked = works
            (self._owner.clock.begin_work if works else self._owner.clock.end_work)()

    def _address(self, header: EventHeader) -> FunctionAddress:
        return FunctionAddress(self.key.account, self.key.region, self.key.name, header.qualifier)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting_retry(self) -> int:
        return len(self._waiting)

    @property
    def depth(self) -> int:
        """All that are not over."""
        away = len(self._waiting) + len(self._due) + len(self._fetching) + self._behind
        return len(self._ready) + len(self._running) + away

    def oldest_ms(self) -> int | None:
        """How long the oldest has been here. What has never been read is younger than what has."""
        since = [one.since_ms for each in (self._ready, self._waiting, self._due) for one in each]
        since += [invocation.tag.since_ms for invocation in self._running.values()]
        return self._owner.clock.elapsed_ms() - min(since) if since else None

    def row(self) -> dict[str, Any]:
        return {
            "function": self.key.name,
            "account": self.key.account,
            "region": self.key.region,
            "depth": self.depth,
            "oldest_seconds": None if (oldest_ms := self.oldest_ms()) is None else oldest_ms / 1000,
            "in_memory": len(self._ready),  # ahead of their turn, with their payloads
            "in_flight": self.running,
            "waiting_retry": self.waiting_retry,
            "accepted": self.accepted,
            "completed": self.completed,
            "retried": self.retried,
            "throttled": self.throttled,
            "dropped": self.failed + self.expired,
        }


def _foreign(content_type: str | None) -> str:
    """What says that a result is no JSON."""
    return "" if not content_type or content_type.startswith("application/json") else content_type
