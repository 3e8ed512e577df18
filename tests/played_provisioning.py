"""Provisioned concurrency without a data plane, for tests of the control plane: what is asked for is there a moment
later.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from fastlam import limits
from fastlam.clock import Schedule
from fastlam.model.provisioned_concurrency import ALLOCATING, READY, ProvisionedConcurrencyRecord
from fastlam.store.records import PROVISIONED_CONCURRENCY, Change, RecordStore


def play_provisioning(store: RecordStore, schedule: Schedule) -> Callable[[], None]:
    """Returns how to stop it."""

    def ready(record: ProvisionedConcurrencyRecord) -> None:
        if store.get(PROVISIONED_CONCURRENCY, record.key) is record:  # not another request's by now
            there = replace(record, status=READY, allocated=record.requested, available=record.requested)
            store.put(PROVISIONED_CONCURRENCY, there)

    def changed(change: Change) -> None:
        if change.kind is PROVISIONED_CONCURRENCY and change.record is not None and change.record.status == ALLOCATING:
            schedule(limits.STATE_CHANGE_SECONDS, lambda: ready(change.record))

    return store.watch(changed)
