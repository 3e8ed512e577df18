"""The store that keeps nothing: records in dictionaries. The durable store is this one with a journal under it."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable
from typing import Any

from fastlam.model.key import RecordKey
from fastlam.store.records import KINDS, Change, Kind, R, Watcher, Watchers, Write


class MemoryStore:
    """Owned by one thread; nothing here locks."""

    def __init__(self) -> None:
        self._records: dict[str, dict[RecordKey, Any]] = {kind.name: {} for kind in KINDS}
        self._parts: dict[str, dict[RecordKey, set[RecordKey]]] = {kind.name: {} for kind in KINDS}  # by owner
        self._watchers = Watchers()

    def get(self, kind: Kind[R], key: RecordKey) -> R | None:
        return self._records[kind.name].get(key)

    def list(self, kind: Kind[R], account: str, region: str) -> builtins.list[R]:
        found = (key for key in self._records[kind.name] if key.account == account and key.region == region)
        return [self._records[kind.name][key] for key in sorted(found)]

    def parts(self, kind: Kind[R], owner: RecordKey) -> builtins.list[R]:
        records = self._records[kind.name]
        return [records[key] for key in sorted(self._parts[kind.name].get(owner.owner, ()))]

    def all(self, kind: Kind[R]) -> builtins.list[R]:
        return builtins.list(self._records[kind.name].values())

    def put(self, kind: Kind[R], record: R) -> None:
        self.apply([Write(kind, record.key, record)])

    def delete(self, kind: Kind[R], key: RecordKey) -> bool:
        existed = key in self._records[kind.name]
        if existed:
            self.apply([Write(kind, key, None)])
        return existed

    def apply(self, writes: Iterable[Write]) -> None:
        writes = builtins.list(writes)
        self._commit(writes)
        changes = []
        for kind, key, record in writes:
            previous = self._records[kind.name].get(key)
            if record is None:
                self._forget(kind.name, key)
            else:
                self._remember(kind.name, key, record)
            if previous is not None or record is not None:
                changes.append(Change(kind, key, record, previous))
        self._watchers.deliver(changes)

    def clear(self) -> None:
        self.apply([Write(kind, key, None) for kind in KINDS for key in self._records[kind.name]])

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        return self._watchers.add(watcher)

    def scrub(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _remember(self, kind: str, key: RecordKey, record: Any) -> None:
        self._records[kind][key] = record
        self._parts[kind].setdefault(key.owner, set()).add(key)

    def _forget(self, kind: str, key: RecordKey) -> None:
        if self._records[kind].pop(key, None) is not None:
            parts = self._parts[kind][key.owner]
            parts.discard(key)
            if not parts:
                del self._parts[kind][key.owner]

    def _commit(self, writes: builtins.list[Write]) -> None:
        """Make the writes durable, or raise and change nothing: for those who do keep something."""
