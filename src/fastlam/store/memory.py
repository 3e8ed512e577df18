"""The store that keeps nothing: records in dictionaries. The durable store is this one with a journal under it."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable
from typing import Any

from fastlam.model.function import FunctionKey
from fastlam.store.records import KINDS, Change, Kind, R, Watcher, Watchers, Write


class MemoryStore:
    """Owned by one thread; nothing here locks."""

    def __init__(self) -> None:
        self._records: dict[str, dict[FunctionKey, Any]] = {kind.name: {} for kind in KINDS}
        self._watchers = Watchers()

    def get(self, kind: Kind[R], key: FunctionKey) -> R | None:
        return self._records[kind.name].get(key)

    def list(self, kind: Kind[R], account: str, region: str) -> builtins.list[R]:
        found = (key for key in self._records[kind.name] if key.account == account and key.region == region)
        return [self._records[kind.name][key] for key in sorted(found)]

    def all(self, kind: Kind[R]) -> builtins.list[R]:
        return builtins.list(self._records[kind.name].values())

    def put(self, kind: Kind[R], record: R) -> None:
        self.apply([Write(kind, record.key, record)])

    def delete(self, kind: Kind[R], key: FunctionKey) -> bool:
        existed = key in self._records[kind.name]
        if existed:
            self.apply([Write(kind, key, None)])
        return existed

    def apply(self, writes: Iterable[Write]) -> None:
        writes = builtins.list(writes)
        self._commit(writes)
        changes = []
        for kind, key, record in writes:
            table = self._records[kind.name]
            previous = table.get(key)
            if record is None:
                table.pop(key, None)
            else:
                table[key] = record
            if previous is not None or record is not None:
                changes.append(Change(kind, key, record, previous))
        self._watchers.deliver(changes)

    def clear(self) -> None:
        self.apply([Write(kind, key, None) for kind in KINDS for key in self._records[kind.name]])

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        return self._watchers.add(watcher)

    def close(self) -> None:
        pass

    def _commit(self, writes: builtins.list[Write]) -> None:
        """Make the writes durable, or raise and change nothing: for those who do keep something."""
