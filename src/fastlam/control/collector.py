"""Deletes code that no record refers to any more, once nothing can still be running on it."""

from __future__ import annotations

from collections.abc import Callable

from fastlam import limits
from fastlam.clock import Clock, Schedule
from fastlam.model.function import FunctionRecord
from fastlam.model.layer import LayerVersionRecord
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.layer_trees import tree_name
from fastlam.store.records import FUNCTION, LAYER_VERSION, VERSION, RecordStore


class CodeCollector:
    """Owner of the wait between the end of a reference and the end of the files."""

    def __init__(
        self,
        store: RecordStore,
        artifacts: ArtifactStore,
        schedule: Schedule,
        clock: Clock,
        in_background: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """`in_background` runs what may take long and that nobody waits for (deleting files); default: at once."""
        self._store = store
        self._artifacts = artifacts
        self._schedule = schedule
        self._clock = clock
        self._in_background = in_background or (lambda work: work())
        self._retired: dict[str, int] = {}  # what was let go, and when (elapsed ms) it may be deleted
        self._due = False

    def retire(self, *records: FunctionRecord | LayerVersionRecord) -> None:
        """These are gone or replaced. Their code stays for as long as an invocation that began on it, or a link to it,
        may last.
        """
        due = self._clock.elapsed_ms() + limits.CODE_GRACE_SECONDS * 1000
        for record in records:
            self._retired.update(dict.fromkeys(_names(record), due))
        self._collect_later()

    def collect(self) -> None:
        """Delete what no record refers to and whose time is over."""
        now = self._clock.elapsed_ms()
        self._retired = {artifact: due for artifact, due in self._retired.items() if due > now}
        self._artifacts.collect(self._referenced() | self._retired.keys(), self._in_background)

    def _referenced(self) -> set[str]:
        found: set[str] = set()
        for kind in (FUNCTION, VERSION):
            for record in self._store.all(kind):
                found |= _names(record)
        for layer in self._store.all(LAYER_VERSION):
            found |= _names(layer)
        return found

    def _collect_later(self) -> None:
        if self._due or not self._retired:
            return
        self._due = True

        def collect() -> None:
            self._due = False
            self.collect()
            self._collect_later()

        wait_ms = max(0, min(self._retired.values()) - self._clock.elapsed_ms())
        self._schedule(wait_ms / 1000, collect)


def _names(record: FunctionRecord | LayerVersionRecord) -> set[str]:
    """What the record needs of the artifact store: packages, and the tree of several layers."""
    if isinstance(record, LayerVersionRecord):
        return {record.artifact}
    return {*record.artifacts, tree_name([layer.artifact for layer in record.layers])} - {""}
