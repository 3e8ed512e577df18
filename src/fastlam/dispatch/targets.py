"""From function records to core targets, and from changes of the store to replaced handles. Lives in the driver's
thread.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NamedTuple

from fastlam import limits
from fastlam.abc import LaunchSpec
from fastlam.arn import FunctionAddress, runtime_version_arn
from fastlam.core.dispatcher import AccountPool, Dispatcher, FunctionPool, ProvisionedTarget, Target
from fastlam.dispatch.launching import SNAP_START, Launches, ahead_of_calls, restored_from, takes_snapshots, template_of
from fastlam.dispatch.lineage import Step, mark_of, recursive
from fastlam.errors import ApiError, conflict, function_not_found, invalid_parameter, throttled
from fastlam.model.capacity_provider import ACTIVE_NON_INVOCABLE, DEACTIVATED, DEACTIVATING, LATEST_PUBLISHED
from fastlam.model.function import FAILED, PENDING, FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.model.recursion import ALLOW
from fastlam.store.finding import find, find_version, key_of
from fastlam.store.records import (
    FUNCTION,
    PROVISIONED_CONCURRENCY,
    RECURSION,
    RESERVED_CONCURRENCY,
    VERSION,
    Change,
    RecordStore,
)
from fastlam.telemetry.logs import FunctionLog, LogGroup

# What makes environments differ: a change of anything else leaves warm ones alone.
_LAUNCH_FIELDS: Final = (
    "runtime",
    "handler",
    "role",
    "timeout_seconds",
    "memory_mb",
    "environment",
    "log_format",
    "log_group",
    "application_log_level",
    "code_sha256",
    "layers",
    "ephemeral_storage_mb",
    "file_system_configs",
    "image_config",
    "vpc_config",
)


class Resolved(NamedTuple):
    """An address made ready for invocations."""

    target: Target
    invoked_arn: str  # as the caller addressed it
    executed_version: str
    address: FunctionAddress
    mark: str  # of the function in trace headers
    other: Resolved | None = None  # an alias's second version
    other_weight: float = 0.0  # the part of the invocations that it takes

    @property
    def weighted(self) -> bool:
        """Whether each invocation has to `pick`."""
        return self.other is not None

    def pick(self) -> Resolved:
        """One of the two versions behind an alias, by chance."""
        return self.other if self.other is not None and random.random() < self.other_weight else self


class _TargetKey(NamedTuple):
    version: RecordKey
    tenant_id: str  # "" but for functions that keep their tenants apart


class Targets:
    """Owner of the pools and of all function targets of one daemon or runtime."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: RecordStore,
        launches: Launches,
        *,
        account_concurrency: int,
        billed_ms: Callable[[int, int], int],
        enforce_rates: bool = False,
        freezes: bool = False,
        keepalive_seconds: float = limits.KEEPALIVE_SECONDS,
        recycle_after_seconds: float = limits.RECYCLE_AFTER_SECONDS,
        on_change: Callable[[], None] = lambda: None,
        on_restoring: Callable[[RecordKey], None] = lambda key: None,
    ) -> None:
        self.dispatcher = dispatcher
        self._store = store
        self._launches = launches
        self._account_concurrency = account_concurrency
        self._billed_ms = billed_ms
        self._enforce_rates = enforce_rates
        self._freezes = freezes  # environments, between their invocations
        # Where they freeze, no call lies behind another: each is to find its environment as the one before has left it.
        self._slots_per_environment = 1 if freezes else limits.INVOCATIONS_PER_ENVIRONMENT
        self._keepalive_seconds = keepalive_seconds
        self._recycle_after_seconds = recycle_after_seconds
        self._on_change = on_change
        self._on_restoring = on_restoring  # calls are about to ask for restored environments of this version
        self.loops_ended = 0
        self._accounts: dict[tuple[str, str], AccountPool] = {}
        self._functions: dict[RecordKey, FunctionPool] = {}
        self._targets: dict[_TargetKey, Target] = {}
        self._ahead: dict[RecordKey, ProvisionedTarget] = {}  # by version: of provisioned concurrency
        self._templates: dict[RecordKey, ProvisionedTarget] = {}  # by version: of SnapStart
        self._snapshots: dict[RecordKey, LaunchSpec] = {}  # of what is restored from them
        self._snapshots_named = 0
        self._records: dict[RecordKey, FunctionRecord] = {}  # what the targets of a version were made from
        self._previous: dict[RecordKey, FunctionRecord] = {}  # what is invoked while an update is in progress
        self._groups: dict[RecordKey, LogGroup] = {}  # by function
        self._logs: dict[RecordKey, FunctionLog] = {}  # by version
        store.watch(self._changed)
        for reservation in store.all(RESERVED_CONCURRENCY):
            self._pool(reservation.key).set_reserved(reservation.concurrency)

    def resolve(self, address: FunctionAddress, tenant_id: str | None = None) -> Resolved:
        """The handle for an address; raises ApiError when it cannot be invoked."""
        found = find(self._store, address)
        if found is None:
            raise function_not_found(address.arn_with_version)
        resolved = self._resolved(found.record, address, tenant_id)
        if found.alias is not None and found.alias.additional_weights:
            ((version, weight),) = found.alias.additional_weights.items()
            record = find_version(self._store, found.record.key, version)
            if record is None:
                raise function_not_found(address.arn_with_version)
            resolved = resolved._replace(other=self._resolved(record, address, tenant_id), other_weight=weight)
        return resolved

    def resolve_accepted(self, address: FunctionAddress, version: str, tenant_id: str | None) -> Resolved:
        """The handle for an event that was accepted when its address led to that version: it runs this one, if an
        alias still leads anywhere, and $LATEST as it is by now. Raises ApiError.
        """
        found = find(self._store, address)
        if found is None:
            raise function_not_found(address.arn_with_version)
        record = found.record
        if found.alias is not None:
            record = find_version(self._store, record.key, version) or record
        return self._resolved(record, address, tenant_id)

    def check(self, address: FunctionAddress, tenant_id: str | None = None) -> None:
        """As `resolve`, without asking whether this machine can run it: what a dry run is told."""
        found = find(self._store, address)
        if found is None:
            raise function_not_found(address.arn_with_version)
        self._invocable(found.record, address, tenant_id)

    def _resolved(self, record: FunctionRecord, address: FunctionAddress, tenant_id: str | None) -> Resolved:
        record = self._invocable(record, address, tenant_id)
        target = self._targets.get(_TargetKey(record.key, tenant_id or ""))
        if target is None:
            target = self._make(record, tenant_id or "")
        mark = mark_of(record.account, record.region, record.name)
        return Resolved(target, address.arn, record.version, address, mark)

    def _invocable(self, record: FunctionRecord, address: FunctionAddress, tenant_id: str | None) -> FunctionRecord:
        """The version that an invocation of this one runs, if its state and its tenants permit one."""
        if record.state == ACTIVE_NON_INVOCABLE:  # of a managed function only what is published runs
            published = find_version(self._store, record.key, LATEST_PUBLISHED) if address.qualifier is None else None
            if published is None:
                raise ApiError(
                    "NoPublishedVersionException",
                    f"The function has no published version to invoke: {address.arn_with_version}",
                )
            record = published
        if record.state == PENDING and takes_snapshots(record):
            raise ApiError(
                "SnapStartNotReadyException",
                "Lambda is initializing your function. It will be ready to invoke once your function state becomes"
                " Active.",
            )
        if record.state in (PENDING, FAILED, DEACTIVATING, DEACTIVATED):
            raise conflict(
                "The operation cannot be performed at this time. The function is currently in the following state:"
                f" {record.state}"
            )
        if record.tenant_isolation_mode and not tenant_id:
            raise invalid_parameter(
                "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and"
                " try again."
            )
        if tenant_id and not record.tenant_isolation_mode:
            raise invalid_parameter(
                "The invoked function is not enabled with tenancy configuration. Remove the tenant ID from your request"
                " and try again."
            )
        return record

    def check_loop(self, resolved: Resolved, step: Step) -> None:
        """Raises ApiError where the chain that an invocation comes from has been here too often, and is to end."""
        if step.too_often:
            setting = self._store.get(RECURSION, key_of(resolved.address))
            if setting is None or setting.recursive_loop != ALLOW:
                self.loops_ended += 1
                raise recursive()

    # Logs ------------------------------------------------------------------------------------------

    def log_of(self, key: RecordKey) -> LogGroup | None:
        """The log of a function that exists; None otherwise."""
        return None if self._store.get(FUNCTION, key) is None else self._group(key)

    def _group(self, key: RecordKey) -> LogGroup:
        group = self._groups.get(key.owner)
        if group is None:
            group = self._groups[key.owner] = LogGroup()
        return group

    def _log(self, record: FunctionRecord) -> FunctionLog:
        function_log = self._logs.get(record.key)
        if function_log is None:
            group = self._group(record.key)
            function_log = FunctionLog(
                record.version, record.memory_mb, self._billed_ms, record.log_format == "JSON", group
            )
            self._logs[record.key] = function_log
            group.add(function_log)
        return function_log

    # Targets and pools -----------------------------------------------------------------------------

    def _make(self, record: FunctionRecord, tenant_id: str) -> Target:
        if tenant_id:
            self._make_room_for_tenant(record.key)
        record = self._previous.get(record.key, record)
        function_log = self._log(record)
        restores = self._launches.restores(record)
        spec = self._restored_spec(record, function_log) if restores else self._launches.spec(record, function_log)
        function_log.memory_mb = record.memory_mb
        function_log.json_format = record.log_format == "JSON"
        if restores:
            self._on_restoring(record.key)
        function_log.set_snapshot(restores, record.runtime, runtime_version_arn(record.region, record.runtime))
        target = Target(
            f"{record.name}:{record.version}",
            spec,
            self._pool(record.key),
            record.timeout_seconds * 1000,
            slots_per_environment=self._slots_per_environment,
            freezes=self._freezes,
            log=function_log,
            keepalive_seconds=self._keepalive_seconds,
            recycle_after_seconds=self._recycle_after_seconds,
            restores=restores,
        )
        self._targets[_TargetKey(record.key, tenant_id)] = target
        self._records[record.key] = record
        ahead = self._ahead.get(record.key)
        if ahead is not None:
            ahead.stand_before(target)
        return target

    def make_ahead(self, key: RecordKey) -> ProvisionedTarget:
        """For environments of a published version that are made ahead of its calls, which take them first from now on.
        Raises ApiError when it cannot run here.
        """
        record = self._store.get(VERSION, key)
        if record is None:
            raise function_not_found(f"{key.name}:{key.part}")
        behind = self._targets.get(_TargetKey(key, "")) or self._make(record, "")
        ahead = ProvisionedTarget(
            behind.name,
            ahead_of_calls(behind.spec),
            self._pool(key).provisioned_pool(),
            record.timeout_seconds * 1000,
            slots_per_environment=self._slots_per_environment,
            freezes=self._freezes,
            log=behind.log,
        )
        ahead.stand_before(behind)
        self._ahead[key] = ahead
        return ahead

    def make_template(self, key: RecordKey, kind: str, *, keeps_threads: bool = False) -> ProvisionedTarget:
        """For the template of a version that has SnapStart: it takes no calls. Kind and `keeps_threads` are those of
        launching.template_of. One that was there before ends; `drop_template` ends this one. Raises ApiError when it
        cannot run here.
        """
        record = self._store.get(VERSION, key)
        if record is None:
            raise function_not_found(f"{key.name}:{key.part}")
        function_log = self._log(record)
        template = ProvisionedTarget(
            f"{record.name}:{record.version}",
            template_of(self._restored_spec(record, function_log), kind, keeps_threads=keeps_threads),
            self._pool(key).provisioned_pool(),
            record.timeout_seconds * 1000,
            log=function_log,
        )
        template.initialization_type = SNAP_START
        previous = self._templates.get(key)
        if previous is not None:
            self.dispatcher.retire(previous)
        self._templates[key] = template
        return template

    def drop_template(self, key: RecordKey) -> None:
        """It ends; environments that were restored from it do so by themselves."""
        template = self._templates.pop(key, None)
        self._snapshots.pop(key, None)
        if template is not None:
            self.dispatcher.retire(template)

    def _restored_spec(self, record: FunctionRecord, function_log: FunctionLog) -> LaunchSpec:
        """The same as long as the version exists: environments are found by it to belong to their template."""
        spec = self._snapshots.get(record.key)
        if spec is None:
            plain = self._launches.spec(record, function_log)
            self._snapshots_named += 1
            spec = restored_from(plain, f"{record.name}:{record.version}#{self._snapshots_named}")
            self._snapshots[record.key] = spec
        return spec

    def drop_ahead(self, key: RecordKey) -> None:
        """Its environments end, busy ones after their call; calls of the version get others again."""
        ahead = self._ahead.pop(key, None)
        if ahead is not None:
            self.dispatcher.retire(ahead)

    def set_provisioned(self, key: RecordKey, concurrency: int) -> None:
        """How much of its concurrency a function has set aside for environments made ahead."""
        self._pool(key).set_provisioned(concurrency)

    def _make_room_for_tenant(self, key: RecordKey) -> None:
        """Tenants are named by callers: those without an environment are forgotten where there are too many."""
        tenants_max = limits.TENANTS_PER_CONCURRENCY * self._account_concurrency
        tenants = {each: target for each, target in self._targets.items() if each.version == key}
        if len(tenants) < tenants_max:
            return
        idle = [each for each, target in tenants.items() if not self.dispatcher.environments_of(target)]
        if not idle:
            raise throttled("ConcurrentInvocationLimitExceeded")
        for each in idle:
            self.dispatcher.retire(self._targets.pop(each))
        self._on_change()

    def _account(self, account: str, region: str) -> AccountPool:
        pool = self._accounts.get((account, region))
        if pool is None:
            pool = AccountPool(account, region, self._account_concurrency, self._enforce_rates)
            self._accounts[account, region] = pool
        return pool

    def _pool(self, key: RecordKey) -> FunctionPool:
        """One for all versions: reserved concurrency is the function's."""
        pool = self._functions.get(key.owner)
        if pool is None:
            pool = self._functions[key.owner] = FunctionPool(self._account(key.account, key.region), key.name)
        return pool

    def _changed(self, change: Change) -> None:
        """A committed change of the store. While an update is in progress, the previous code goes on being invoked."""
        if change.kind is PROVISIONED_CONCURRENCY:
            return  # which environment a call takes is no part of its address
        if change.kind is RESERVED_CONCURRENCY:
            self._pool(change.key).set_reserved(-1 if change.record is None else change.record.concurrency)
        elif change.kind is FUNCTION or change.kind is VERSION:
            if change.record is None:
                self._previous.pop(change.key, None)
                self._retire(change.key)
                self.drop_template(change.key)
                self._forget_log(change.key)
            elif not change.record.settled:
                if change.previous is not None and change.previous.settled:
                    self._previous[change.key] = change.previous
            else:
                self._previous.pop(change.key, None)
                if self._launches_differ(change.record):
                    self._retire(change.key)
        self._on_change()

    def _launches_differ(self, record: FunctionRecord) -> bool:
        used = self._records.get(record.key)
        return used is not None and any(getattr(used, name) != getattr(record, name) for name in _LAUNCH_FIELDS)

    def _retire(self, key: RecordKey) -> None:
        self._records.pop(key, None)
        self.drop_ahead(key)
        for each in [each for each in self._targets if each.version == key]:
            self.dispatcher.retire(self._targets.pop(each))

    def _forget_log(self, key: RecordKey) -> None:
        function_log = self._logs.pop(key, None)
        group = self._groups.get(key.owner)
        if group is not None and function_log is not None:
            group.discard(function_log)
        if not key.part and group is not None:
            del self._groups[key]
            group.notify()

    def owners(self) -> dict[int, RecordKey]:
        """The versions that handles in use belong to, by the identity of the handle."""
        owners = {id(target): key.version for key, target in self._targets.items()}
        ahead = (*self._ahead.items(), *self._templates.items())
        return owners | {id(target): key for key, target in ahead}
