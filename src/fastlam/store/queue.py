"""What a durable queue is: items of many queues, kept until somebody says that they are finished.

A queue has a key (what kind it is, whose, and of what) and a number; an item's number begins with that of its queue, so
that the items of one queue lie together and can be read in their order. An item is a header, which may be replaced, and
a payload, which may not, and which the reader need not hold meanwhile: it is there to be read back.

All methods are called in the thread that owns the queue, which also gets the callbacks; none of them waits for a disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

NUMBER_BITS: Final = 40  # of an item's number that count within its queue


class QueueKey(NamedTuple):
    kind: str  # EVENTS or DELIVERIES
    account: str
    region: str
    name: str  # of the function; ARN of the destination


EVENTS: Final = "event"
DELIVERIES: Final = "delivery"


class Item(NamedTuple):
    number: int
    due_ms: int  # since 1970: not before; 0: at once
    header: bytes
    payload: bytes


class Entry(NamedTuple):
    """An item that is about to come into a queue."""

    queue: int
    header: bytes
    payload: bytes


class Waiting(NamedTuple):
    """An item that has a time to wait for, as it was found when the queue was opened; `fetch` has the rest of it."""

    number: int
    due_ms: int
    header: bytes
    payload_bytes: int


class Backlog(NamedTuple):
    """What one queue held when it was opened."""

    queue: int
    key: QueueKey
    ready: int  # items without a time to wait for
    waiting: Sequence[Waiting]


Stored = Callable[[Exception | None], None]
"""`stored(error)`: what was given is safe, or will not be and is forgotten."""


class EventQueue(Protocol):
    def backlogs(self) -> Sequence[Backlog]:
        """What was there when it was opened; asked once, before anything else."""

    def queue(self, key: QueueKey) -> int:
        """The number of a queue, which is made if there is none."""

    def append(self, queue: int, header: bytes, payload: bytes, stored: Stored) -> int:
        """Takes an item; returns its number. `stored(None)` comes when it survives whatever happens."""

    def amend(self, number: int, due_ms: int, header: bytes, stored: Callable[[], None]) -> None:
        """Other words about an item, and when it is due. It is tried until it succeeds."""

    def remove(self, number: int) -> None:
        """It is finished. A crash may undo that as long as the next group has not been written."""

    def turn(self, number: int, entries: Sequence[Entry], stored: Callable[[list[int]], None]) -> None:
        """Removes an item and takes others in its place: both or neither. It is tried until it succeeds; `stored` is
        given their numbers."""

    def read(self, queue: int, after: int, items_max: int, bytes_max: int, done: Callable[[list[Item]], None]) -> None:
        """The next items of a queue that have no time to wait for; at least one if there is one."""

    def fetch(self, numbers: Sequence[int], done: Callable[[list[Item]], None]) -> None:
        """These items, as far as they are there."""

    def statistics(self) -> dict[str, Any]: ...

    def clear(self) -> None:
        """Forgets every item."""

    def close(self) -> None:
        """Returns when everything that was asked for is on disk."""


def queue_of(number: int) -> int:
    return number >> NUMBER_BITS


class Numbers:
    """Gives queues and items their numbers."""

    def __init__(self) -> None:
        self._queues: dict[QueueKey, int] = {}
        self._last: dict[int, int] = {}  # by queue
        self.made = 0  # the highest number of a queue

    def know(self, key: QueueKey, queue: int, last: int) -> None:
        self._queues[key] = queue
        self._last[queue] = max(last, queue << NUMBER_BITS)
        self.made = max(self.made, queue)

    def find(self, key: QueueKey) -> int | None:
        return self._queues.get(key)

    def make(self, key: QueueKey) -> int:
        queue = self.made + 1
        self.know(key, queue, 0)
        return queue

    def next(self, queue: int) -> int:
        number = self._last[queue] = self._last[queue] + 1
        return number


class MemoryQueue:
    """Keeps nothing: items in a dictionary. `soon` runs a callback a moment later in the same thread."""

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self._soon = soon
        self._numbers = Numbers()
        self._items: dict[int, dict[int, Item]] = {}  # by queue, in their order
        self._appended = 0

    def backlogs(self) -> Sequence[Backlog]:
        return ()

    def queue(self, key: QueueKey) -> int:
        found = self._numbers.find(key)
        if found is None:
            found = self._numbers.make(key)
            self._items[found] = {}
        return found

    def _put(self, entry: Entry) -> int:
        number = self._numbers.next(entry.queue)
        self._items[entry.queue][number] = Item(number, 0, entry.header, entry.payload)
        self._appended += 1
        return number

    def append(self, queue: int, header: bytes, payload: bytes, stored: Stored) -> int:
        number = self._put(Entry(queue, header, payload))
        self._soon(lambda: stored(None))
        return number

    def amend(self, number: int, due_ms: int, header: bytes, stored: Callable[[], None]) -> None:
        items = self._items[queue_of(number)]
        if number in items:
            items[number] = items[number]._replace(due_ms=due_ms, header=header)
        self._soon(stored)

    def remove(self, number: int) -> None:
        self._items[queue_of(number)].pop(number, None)

    def turn(self, number: int, entries: Sequence[Entry], stored: Callable[[list[int]], None]) -> None:
        self.remove(number)
        numbers = [self._put(entry) for entry in entries]
        self._soon(lambda: stored(numbers))

    def read(self, queue: int, after: int, items_max: int, bytes_max: int, done: Callable[[list[Item]], None]) -> None:
        found = within(
            (item for item in self._items[queue].values() if item.number > after and not item.due_ms),
            items_max,
            bytes_max,
        )
        self._soon(lambda: done(found))

    def fetch(self, numbers: Sequence[int], done: Callable[[list[Item]], None]) -> None:
        found = [item for number in numbers if (item := self._items[queue_of(number)].get(number)) is not None]
        self._soon(lambda: done(found))

    def statistics(self) -> dict[str, Any]:
        return {"durable": False, "appended": self._appended}

    def clear(self) -> None:
        for items in self._items.values():
            items.clear()

    def close(self) -> None:
        pass


def within(items: Iterable[Item], items_max: int, bytes_max: int) -> list[Item]:
    """So many of them; at least one."""
    found: list[Item] = []
    left = bytes_max
    for item in items:
        found.append(item)
        left -= len(item.payload)
        if len(found) >= items_max or left <= 0:
            break
    return found
