"""Provisioned concurrency: environments that are made before they are called, and kept.

    record (IN_PROGRESS) ──► shares, one a version ──► environments ──all up──► open to calls, record READY
                                                             └──INIT fails──► given up, record FAILED

The control plane writes what is asked for, this module how far it has come. A version's environments belong to one
configuration: its own, or that of an alias that leads to it. Until all that were asked for are up, calls have what they
had before: the environments of an earlier request, also of the version that an alias led to. Lives in the driver's
thread.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from fastlam import limits
from fastlam.clock import Schedule
from fastlam.core.dispatcher import Dispatcher, ProvisionedTarget
from fastlam.dispatch.targets import Targets
from fastlam.errors import ApiError
from fastlam.model.function import PENDING
from fastlam.model.key import RecordKey
from fastlam.model.provisioned_concurrency import ALLOCATING, FAILED, INIT_FAILED, READY, ProvisionedConcurrencyRecord
from fastlam.store.records import ALIAS, PROVISIONED_CONCURRENCY, VERSION, Change, RecordStore

log = logging.getLogger(__name__)

_UNAVAILABLE: Final = "Sandbox.Unavailable"  # the failure of an environment that could not even be started


class _Allocation:
    """What there is for one configuration."""

    def __init__(self, key: RecordKey) -> None:
        self.key = key
        self.shares: dict[RecordKey, int] = {}  # how many environments of each version are asked for
        self.targets: dict[RecordKey, ProvisionedTarget] = {}  # of these versions, and of those that still serve
        self.waits = False  # for a version that is still being made
        self.given_up = False
        self.retry_seconds = 0.0
        self.retry_ahead = False
        self.invocations = 0  # of targets that are gone
        self.spillovers = 0

    @property
    def complete(self) -> bool:
        """Whether calls may use all that is asked for."""
        return all(
            version in self.targets and self.targets[version].open_to >= share for version, share in self.shares.items()
        )

    @property
    def promised(self) -> int:
        """So many calls are served at a time, as long as no environment dies."""
        return sum(target.open_to for target in self.targets.values())

    @property
    def up(self) -> int:
        """Environments that are there of those asked for."""
        return sum(
            min(self.targets[version].up, share) for version, share in self.shares.items() if version in self.targets
        )

    @property
    def serving(self) -> int:
        """Environments that are there and open to calls."""
        return sum(min(target.up, target.open_to) for target in self.targets.values())

    @property
    def busy(self) -> int:
        return sum(target.pool.running for target in self.targets.values())


class Provisioner:
    """Owner of the environments made ahead. `begin` once the functions' endpoint is known."""

    def __init__(self, dispatcher: Dispatcher, store: RecordStore, targets: Targets, schedule: Schedule) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._targets = targets
        self._schedule = schedule
        self._allocations: dict[RecordKey, _Allocation] = {}
        self._asked: set[RecordKey] = set()  # configurations that have been changed
        self._progressed: set[RecordKey] = set()  # and those whose environments have
        self._look_ahead = False
        self._written: ProvisionedConcurrencyRecord | None = None  # by this object, last

    def begin(self) -> None:
        """Makes what the records ask for. Environments of an earlier process are gone with it."""
        self._store.watch(self._changed)
        for record in self._store.all(PROVISIONED_CONCURRENCY):
            self._store.put(
                PROVISIONED_CONCURRENCY,
                replace(record, status=ALLOCATING, status_reason=None, allocated=0, available=0),
            )

    # What is to be seen ----------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """Each configuration as it stands."""
        rows = []
        for record in self._store.all(PROVISIONED_CONCURRENCY):
            allocation = self._allocations.get(record.key) or _Allocation(record.key)
            rows.append(
                {
                    "account": record.account,
                    "region": record.region,
                    "function": record.function,
                    "qualifier": record.qualifier,
                    "status": record.status,
                    "status_reason": record.status_reason,
                    "requested": record.requested,
                    "allocated": record.allocated,
                    "available": record.available,
                    "busy": allocation.busy,
                    "utilization": allocation.busy / allocation.promised if allocation.promised else 0.0,
                    "invocations": allocation.invocations
                    + sum(target.invocations for target in allocation.targets.values()),
                    "spillover_invocations": allocation.spillovers
                    + sum(target.spillovers for target in allocation.targets.values()),
                }
            )
        return rows

    def utilization_most(self, key: RecordKey) -> float | None:
        """The highest utilization of a configuration since this was last asked; None while nothing is allocated."""
        allocation = self._allocations.get(key)
        if allocation is None or not allocation.promised:
            return None
        return sum(target.take_running_most() for target in allocation.targets.values()) / allocation.promised

    # What is asked for -----------------------------------------------------------------------------

    def _changed(self, change: Change) -> None:
        if change.kind is PROVISIONED_CONCURRENCY:
            if change.record is None or change.record is not self._written:
                self._asked.add(change.key)
                self._look_soon()
        elif change.kind is VERSION and change.record is not None:
            waiting = [key for key, allocation in self._allocations.items() if allocation.waits]
            if waiting:
                self._asked.update(waiting)
                self._look_soon()

    def _look_soon(self) -> None:
        """Not at once: the dispatcher may be in the middle of its work, and there may be more."""
        if not self._look_ahead:
            self._look_ahead = True
            self._schedule(limits.PROVISIONED_PROGRESS_SECONDS, self._look_at_all)

    def _look_at_all(self) -> None:
        self._look_ahead = False
        asked, self._asked = self._asked, set()
        progressed, self._progressed = self._progressed, set()
        for key in sorted(asked, key=lambda key: self._store.get(PROVISIONED_CONCURRENCY, key) is not None):
            self._allocate(key)  # those that are gone first: they make room
        for key in progressed | asked:
            self._look(key)

    def _allocate(self, key: RecordKey) -> None:
        record = self._store.get(PROVISIONED_CONCURRENCY, key)
        if record is None:
            self._release(key)
            return
        if record.status != ALLOCATING:
            return
        allocation = self._allocations.setdefault(key, _Allocation(key))
        shares = self._shares(record)
        versions = [self._store.get(VERSION, version) for version in shares]
        allocation.waits = any(version is None or version.state == PENDING for version in versions)
        if allocation.waits:
            return
        allocation.shares = shares
        allocation.given_up = False
        allocation.retry_seconds = 0.0
        reason = self._make_room(allocation)
        if reason is not None:
            self._give_up(allocation, reason)
            return
        for version, target in tuple(allocation.targets.items()):
            if version not in shares and not target.open_to:
                self._drop(allocation, version)  # of an earlier request that has not come to its end
        try:
            for version, share in shares.items():
                target = self._target(allocation, version)
                self._dispatcher.provide(target, max(share, target.open_to), target.open_to)
        except ApiError as error:
            self._give_up(allocation, str(error))

    def _shares(self, record: ProvisionedConcurrencyRecord) -> dict[RecordKey, int]:
        """How many environments each version is to have: an alias's weights split them as they split its calls."""
        alias = self._store.get(ALIAS, record.key)
        if alias is None:
            return {record.key: record.requested}
        shares = {}
        left = record.requested
        for version, weight in alias.additional_weights.items():
            shares[version] = int(record.requested * weight + 0.5)
            left -= shares[version]
        shares[alias.function_version] = left
        return {record.key._replace(part=version): share for version, share in shares.items() if share > 0}

    def _make_room(self, allocation: _Allocation) -> str | None:
        """The reason why this machine cannot hold what is asked for. If it cannot hold that beside what was there
        before, the latter goes.
        """
        others = sum(
            target.wanted
            for other in self._allocations.values()
            if other is not allocation
            for target in other.targets.values()
        )
        most = self._dispatcher.environments_max - 1  # one is for calls that find no environment made ahead
        wanted = sum(allocation.shares.values())
        if others + wanted > most:
            return (
                f"This machine holds {most} environments made ahead (--environments-max), {others} of them are taken"
                f" and {wanted} were asked for: raise the bound, or ask for fewer."
            )
        kept = sum(
            max(0, target.open_to - allocation.shares.get(version, 0)) for version, target in allocation.targets.items()
        )
        if others + wanted + kept > most:
            for version, target in tuple(allocation.targets.items()):
                share = allocation.shares.get(version, 0)
                if share:
                    self._dispatcher.provide(target, share, min(share, target.open_to))
                else:
                    self._drop(allocation, version)
            self._set_aside(allocation.key)
        return None

    def _target(self, allocation: _Allocation, version: RecordKey) -> ProvisionedTarget:
        """The environments of a version, which may still be those of another configuration."""
        target = None
        for owner in self._allocations.values():
            if version in owner.targets and not owner.targets[version].retired:
                target = owner.targets.pop(version)
        if target is None:
            target = self._targets.make_ahead(version)
        target.on_progress = partial(self._on_progress, allocation.key)
        allocation.targets[version] = target
        return target

    def _on_progress(self, key: RecordKey) -> None:
        self._progressed.add(key)
        self._look_soon()

    # How far it has come ---------------------------------------------------------------------------

    def _look(self, key: RecordKey) -> None:
        allocation, record = self._allocations.get(key), self._store.get(PROVISIONED_CONCURRENCY, key)
        if allocation is None or record is None or allocation.waits:
            return
        asked = (allocation.targets[version] for version in allocation.shares if version in allocation.targets)
        failed = next((target for target in asked if target.failure is not None), None)
        if failed is not None:
            reason = INIT_FAILED
            if failed.failure == _UNAVAILABLE:
                reason = f"The execution environment could not be started: {failed.failure_reason}"
            if allocation.complete or allocation.given_up:
                self._retry_later(allocation)
                self._write(allocation, record, FAILED, reason)
            else:
                self._give_up(allocation, reason)
        elif allocation.given_up:
            self._write(allocation, record, FAILED, record.status_reason)
        elif allocation.up == record.requested:
            self._complete(allocation, record)
        else:
            self._write(allocation, record, record.status, record.status_reason)

    def _complete(self, allocation: _Allocation, record: ProvisionedConcurrencyRecord) -> None:
        """All are up: calls may use them, and what served before goes."""
        for version, share in allocation.shares.items():
            target = allocation.targets[version]
            if (target.wanted, target.open_to) != (share, share):
                self._dispatcher.provide(target, share, share)
        for version in allocation.targets.keys() - allocation.shares.keys():
            self._drop(allocation, version)
        allocation.retry_seconds = 0.0
        self._set_aside(allocation.key)
        self._write(allocation, record, READY, None)

    def _give_up(self, allocation: _Allocation, reason: str) -> None:
        """What was open to calls before stays so; the rest goes."""
        allocation.given_up = True
        for version, target in tuple(allocation.targets.items()):
            if target.open_to:
                self._dispatcher.provide(target, target.open_to, target.open_to)
            else:
                self._drop(allocation, version)
        allocation.shares = {version: target.open_to for version, target in allocation.targets.items()}
        self._set_aside(allocation.key)
        record = self._store.get(PROVISIONED_CONCURRENCY, allocation.key)
        assert record is not None
        if reason != INIT_FAILED:  # which the function has to answer for, and its log tells
            log.warning("provisioned concurrency of %s: %s", record.arn, reason)
        self._write(allocation, record, FAILED, reason)

    def _retry_later(self, allocation: _Allocation) -> None:
        """An environment that was to replace another one did not come up."""
        if allocation.retry_ahead:
            return
        allocation.retry_ahead = True
        allocation.retry_seconds = min(
            limits.PROVISIONED_RETRY_SECONDS_MAX, allocation.retry_seconds * 2 or limits.PROVISIONED_RETRY_SECONDS
        )

        def retry() -> None:
            allocation.retry_ahead = False
            for target in tuple(allocation.targets.values()):
                if target.failure is not None and not target.retired:
                    self._dispatcher.provide(target, target.wanted, target.open_to)

        self._schedule(allocation.retry_seconds, retry)

    def _write(
        self, allocation: _Allocation, record: ProvisionedConcurrencyRecord, status: str, reason: str | None
    ) -> None:
        written = replace(
            record,
            status=status,
            status_reason=reason,
            allocated=min(record.requested, max(allocation.promised, allocation.up)),
            available=min(record.requested, max(allocation.serving, allocation.up)),
        )
        if written != record:
            self._written = written
            self._store.put(PROVISIONED_CONCURRENCY, written)

    # What goes -------------------------------------------------------------------------------------

    def _release(self, key: RecordKey) -> None:
        """The configuration is gone."""
        allocation = self._allocations.pop(key, None)
        if allocation is not None:
            for version in tuple(allocation.targets):
                self._drop(allocation, version)
            self._set_aside(key)

    def _drop(self, allocation: _Allocation, version: RecordKey) -> None:
        target = allocation.targets.pop(version)
        target.on_progress = None
        allocation.invocations += target.invocations
        allocation.spillovers += target.spillovers
        if not target.retired:
            self._targets.drop_ahead(version)

    def _set_aside(self, key: RecordKey) -> None:
        """Tells the function's pool how much of its concurrency is open to calls of provisioned versions."""
        promised = sum(
            allocation.promised for allocation in self._allocations.values() if allocation.key.owner == key.owner
        )
        self._targets.set_provisioned(key, promised)
