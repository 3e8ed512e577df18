"""Records on their way to destinations: durable, one line for each destination, tried until they are there.

A destination that does not answer holds up nothing but its own line. It is asked again after one second, then twice as
long each time up to five minutes, one record at a time; what waits is on disk, and a part of it in memory. What a
destination refuses goes to the back of the line, and is given up after six hours.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from fastlam import limits
from fastlam.clock import Clock, Schedule
from fastlam.destinations.parcel import IMPOSSIBLE, REFUSED, DeliveryError, Parcel
from fastlam.destinations.sending import Sender
from fastlam.store.queue import DELIVERIES, NUMBER_BITS, Backlog, Entry, EventQueue, Item, QueueKey

log = logging.getLogger(__name__)


class _Header(msgspec.Struct, array_like=True):
    parcel: Parcel  # without its body, which is the payload
    made_ms: int  # since 1970


class _Record(NamedTuple):
    number: int
    parcel: Parcel
    made_ms: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Header).decode


class _Line:
    """The records for one destination."""

    def __init__(self, owner: Deliveries, key: QueueKey, number: int, behind: int = 0) -> None:
        self._owner = owner
        self.key = key
        self.number = number
        self._ready: deque[_Record] = deque()
        self._behind = behind  # on disk only
        self._cursor = number << NUMBER_BITS  # what has been read
        self._reading = False
        self.sending = 0
        self._failures = 0  # in a row
        self._paused = False
        self._dropped = False  # nobody knows it any more
        self._worked = False  # whether the clock waits for us
        self.delivered = 0
        self.failed = 0
        self.last_error = ""

    @property
    def waiting(self) -> int:
        return len(self._ready) + self._behind + self.sending

    def take(self, number: int, parcel: Parcel, made_ms: int) -> None:
        if self._behind or self._reading or len(self._ready) >= limits.DELIVERY_WINDOW_ITEMS:
            self._behind += 1
        else:
            self._cursor = number
            self._ready.append(_Record(number, parcel, made_ms))
        self.pump()

    def drop(self) -> None:
        """Forgets its records; those that are being sent end without being heard of."""
        self._dropped = True
        self._ready.clear()
        self._behind = 0
        self.pump()

    def pump(self) -> None:
        while self._ready and not self._paused and not self._owner.stopping:
            if self.sending >= (1 if self._failures else limits.DELIVERIES_AT_ONCE):
                break
            self._send(self._ready.popleft())
        if self._behind and not self._reading and len(self._ready) < limits.DELIVERY_WINDOW_ITEMS // 2:
            self._reading = True
            self._owner.queue.read(
                self.number, self._cursor, limits.DELIVERY_WINDOW_ITEMS, limits.DELIVERY_WINDOW_BYTES, self._read
            )
        works = bool(self.sending or self._reading or (not self._paused and (self._ready or self._behind)))
        if works != self._worked:
            self._worked = works
            (self._owner.clock.begin_work if works else self._owner.clock.end_work)()

    def _read(self, items: list[Item]) -> None:
        self._reading = False
        if self._dropped:
            items = []
        for item in items:
            header = _decode(item.header)
            self._ready.append(_Record(item.number, replace(header.parcel, body=item.payload), header.made_ms))
            self._cursor = item.number
        self._behind = max(0, self._behind - len(items)) if items else 0
        self.pump()

    def _send(self, record: _Record) -> None:
        self.sending += 1

        def sent(error: DeliveryError | None) -> None:
            self.sending -= 1
            if not self._dropped:
                self._sent(record, error)
            self.pump()

        self._owner.sender.send(record.parcel, sent)

    def _sent(self, record: _Record, error: DeliveryError | None) -> None:
        owner = self._owner
        if error is None:
            self._failures = 0
            self.last_error = ""
            self.delivered += 1
            owner.queue.remove(record.number)
            return
        self.last_error = str(error)
        too_old = owner.clock.wall_ms() - record.made_ms >= limits.DELIVERY_AGE_SECONDS_MAX * 1000
        if error.kind == IMPOSSIBLE or (error.kind == REFUSED and too_old):
            self.failed += 1
            log.warning("a record for %s is dropped: %s", self.key.name, error)
            owner.queue.remove(record.number)
            return
        if error.kind == REFUSED:
            self._ready.append(record)
        else:
            self._ready.appendleft(record)
        if not self._paused:
            self._paused = True
            self._failures += 1
            wait_seconds = min(
                limits.EVENT_BACKOFF_SECONDS_MAX, limits.EVENT_BACKOFF_SECONDS * 2 ** min(self._failures - 1, 16)
            )
            owner.schedule(wait_seconds, self._resume)

    def _resume(self) -> None:
        self._paused = False
        self.pump()

    def row(self) -> dict[str, Any]:
        return {
            "destination": self.key.name,
            "account": self.key.account,
            "region": self.key.region,
            "waiting": self.waiting,
            "delivered": self.delivered,
            "failed": self.failed,
            "attempts_failed": self._failures,
            "last_error": self.last_error,
        }


class Deliveries:
    """The lines of all destinations."""

    def __init__(self, queue: EventQueue, sender: Sender, *, schedule: Schedule, clock: Clock) -> None:
        self.queue = queue
        self.sender = sender
        self.schedule = schedule
        self.clock = clock
        self.stopping = False
        self._lines: dict[QueueKey, _Line] = {}

    def resume(self, backlogs: Sequence[Backlog]) -> None:
        """What an earlier daemon has left."""
        for backlog in backlogs:
            if backlog.key.kind == DELIVERIES:
                line = _Line(self, backlog.key, backlog.queue, backlog.ready)
                self._lines[backlog.key] = line
        for line in self._lines.values():
            line.pump()

    def turn(self, number: int, parcels: Sequence[Parcel], stored: Callable[[], None]) -> None:
        """In the place of an event that is over come the records of it; `stored` is called when they are safe."""
        made_ms = self.clock.wall_ms()
        lines = [self._line(parcel) for parcel in parcels]
        entries = [
            Entry(line.number, _encode(_Header(replace(parcel, body=b""), made_ms)), parcel.body)
            for line, parcel in zip(lines, parcels, strict=True)
        ]

        def turned(numbers: list[int]) -> None:
            for line, parcel, new in zip(lines, parcels, numbers, strict=True):
                line.take(new, parcel, made_ms)
            stored()

        self.queue.turn(number, entries, turned)

    def clear(self) -> None:
        for line in self._lines.values():
            line.drop()
        self._lines.clear()

    def _line(self, parcel: Parcel) -> _Line:
        key = QueueKey(DELIVERIES, parcel.account, parcel.region, parcel.target_arn)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(self, key, self.queue.queue(key))
        return line

    @property
    def waiting(self) -> int:
        return sum(line.waiting for line in self._lines.values())

    @property
    def sending(self) -> int:
        return sum(line.sending for line in self._lines.values())

    @property
    def delivered(self) -> int:
        return sum(line.delivered for line in self._lines.values())

    @property
    def failed(self) -> int:
        return sum(line.failed for line in self._lines.values())

    def rows(self) -> list[dict[str, Any]]:
        return [line.row() for line in self._lines.values()]
