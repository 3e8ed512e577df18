"""What a record store is: kinds of records, atomic changes, and watchers that hear of each committed change."""

from __future__ import annotations

import builtins
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from fastlam.model.function import FunctionKey, FunctionRecord, ReservedConcurrencyRecord

log = logging.getLogger(__name__)


class Record(Protocol):
    @property
    def key(self) -> FunctionKey: ...


R = TypeVar("R", bound=Record)


class Kind(Generic[R]):
    """One kind of record: its name in the database and its type."""

    __slots__ = ("decode", "name", "type")

    def __init__(self, name: str, type: type[R]) -> None:
        self.name = name
        self.type = type
        self.decode: Callable[[bytes], R] = msgspec.json.Decoder(type).decode

    def __repr__(self) -> str:
        return f"Kind({self.name!r})"


FUNCTION: Final = Kind("function", FunctionRecord)
RESERVED_CONCURRENCY: Final = Kind("reserved_concurrency", ReservedConcurrencyRecord)

KINDS: Final[tuple[Kind[Any], ...]] = (FUNCTION, RESERVED_CONCURRENCY)


class Change(NamedTuple):
    """One committed change. `record` is None after a deletion; `previous` is None after a creation."""

    kind: Kind[Any]
    key: FunctionKey
    record: Any
    previous: Any


class Write(NamedTuple):
    """One part of an atomic change: the record to put, or None to delete what is at the key."""

    kind: Kind[Any]
    key: FunctionKey
    record: Any


Watcher = Callable[[Change], None]


class RecordStore(Protocol):
    """Records by kind and key. Used from one thread; every call answers from memory, only changes touch the disk."""

    def get(self, kind: Kind[R], key: FunctionKey) -> R | None: ...

    def list(self, kind: Kind[R], account: str, region: str) -> builtins.list[R]:
        """The records of one account and region, sorted by name."""

    def all(self, kind: Kind[R]) -> builtins.list[R]:
        """Every record of the kind, whoever owns it."""

    def put(self, kind: Kind[R], record: R) -> None: ...

    def delete(self, kind: Kind[R], key: FunctionKey) -> bool:
        """False when there was nothing."""

    def apply(self, writes: Iterable[Write]) -> None:
        """All of the writes or, when it raises, none; watchers hear of them in this order."""

    def clear(self) -> None:
        """Delete everything, and tell the watchers."""

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have the watcher called after each committed change, in the thread that made it; returns how to stop that."""

    def close(self) -> None: ...


class Watchers:
    """Delivers changes in the order of their commits, also when a watcher itself changes records."""

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []
        self._queue: deque[Change] = deque()
        self._delivering = False

    def add(self, watcher: Watcher) -> Callable[[], None]:
        self._watchers.append(watcher)

        def stop() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

        return stop

    def deliver(self, changes: Iterable[Change]) -> None:
        self._queue.extend(changes)
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._queue:
                change = self._queue.popleft()
                for watcher in tuple(self._watchers):
                    try:
                        watcher(change)
                    except Exception:
                        # The change is committed: the caller must not be told that it failed.
                        log.exception("a watcher failed on %s %s", change.kind.name, change.key)
        finally:
            self._delivering = False
