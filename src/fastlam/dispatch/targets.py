"""From function records to core targets, and from changes of the store to replaced handles. Lives in the driver's
thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from fastlam.arn import LATEST, FunctionAddress
from fastlam.core.dispatcher import AccountPool, Dispatcher, FunctionPool, Target
from fastlam.errors import ApiError, FastlamError, conflict, function_not_found
from fastlam.model.function import PENDING, FunctionKey, FunctionRecord
from fastlam.runtimes import python
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.records import FUNCTION, RESERVED_CONCURRENCY, Change, RecordStore
from fastlam.telemetry.logs import FunctionLog

log = logging.getLogger(__name__)

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
)


class Resolved(NamedTuple):
    """An address made ready for invocations."""

    target: Target
    invoked_arn: str  # as the caller addressed it
    executed_version: str
    address: FunctionAddress


class Targets:
    """Owner of the pools and of all function targets of one daemon or runtime."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: RecordStore,
        artifacts: ArtifactStore,
        *,
        account_concurrency: int,
        endpoint_url: str | None,
        billed_ms: Callable[[int, int], int],
        enforce_rates: bool = False,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.dispatcher = dispatcher
        self.endpoint_url = endpoint_url
        self._store = store
        self._artifacts = artifacts
        self._account_concurrency = account_concurrency
        self._billed_ms = billed_ms
        self._enforce_rates = enforce_rates
        self._on_change = on_change
        self._accounts: dict[tuple[str, str], AccountPool] = {}
        self._functions: dict[FunctionKey, FunctionPool] = {}
        self._targets: dict[FunctionKey, Target] = {}
        self._records: dict[FunctionKey, FunctionRecord] = {}  # what each target was made from
        self._logs: dict[FunctionKey, FunctionLog] = {}
        store.watch(self._changed)
        for reservation in store.all(RESERVED_CONCURRENCY):
            self._pool(reservation.key).set_reserved(reservation.concurrency)

    def resolve(self, address: FunctionAddress) -> Resolved:
        """The handle for an address; raises ApiError when it cannot be invoked. Until versions exist, `$LATEST` is all
        there is.
        """
        key = FunctionKey(address.account, address.region, address.name)
        record = self._store.get(FUNCTION, key)
        if record is None or address.qualifier not in (None, LATEST):
            raise function_not_found(address.arn_with_version)
        if record.state == PENDING:
            raise conflict(
                "The operation cannot be performed at this time. The function is currently in the following state:"
                " Pending"
            )
        target = self._targets.get(key)
        if target is None:
            target = self._make(record)
        return Resolved(target, address.arn, record.version, address)

    def log_of(self, key: FunctionKey) -> FunctionLog | None:
        """The log of a function that exists; None otherwise."""
        record = self._store.get(FUNCTION, key)
        return None if record is None else self._log(record)

    def _log(self, record: FunctionRecord) -> FunctionLog:
        function_log = self._logs.get(record.key)
        if function_log is None:
            function_log = self._logs[record.key] = FunctionLog(
                record.version, record.memory_mb, self._billed_ms, record.log_format == "JSON"
            )
        return function_log

    def _make(self, record: FunctionRecord) -> Target:
        artifact = self._artifacts.open(record.artifact)
        if artifact is None:
            raise ApiError("ServiceException", f"The code of {record.name} is missing from the data directory.")
        function_log = self._log(record)
        try:
            spec, warning = python.launch_spec(record, artifact.directory, self.endpoint_url)
        except FastlamError as error:
            function_log.note(f"[fastlam: {error}]")
            raise ApiError("InvalidRuntimeException", str(error)) from None
        if warning is not None:
            function_log.note(warning)
            log.warning("%s", warning)
        function_log.memory_mb = record.memory_mb
        function_log.json_format = record.log_format == "JSON"
        target = Target(
            f"{record.name}:{record.version}",
            spec,
            self._pool(record.key),
            record.timeout_seconds * 1000,
            log=function_log,
        )
        self._targets[record.key] = target
        self._records[record.key] = record
        return target

    def _account(self, account: str, region: str) -> AccountPool:
        pool = self._accounts.get((account, region))
        if pool is None:
            pool = AccountPool(account, region, self._account_concurrency, self._enforce_rates)
            self._accounts[account, region] = pool
        return pool

    def _pool(self, key: FunctionKey) -> FunctionPool:
        pool = self._functions.get(key)
        if pool is None:
            pool = self._functions[key] = FunctionPool(self._account(key.account, key.region), key.name)
        return pool

    def _changed(self, change: Change) -> None:
        """A committed change of the store. While an update is in progress, the previous code goes on being invoked."""
        if change.kind is RESERVED_CONCURRENCY:
            self._pool(change.key).set_reserved(-1 if change.record is None else change.record.concurrency)
        elif change.record is None:
            self._retire(change.key)
            self._logs.pop(change.key, None)
        elif change.record.settled and self._launches_differ(change.record):
            self._retire(change.key)
        self._on_change()

    def _launches_differ(self, record: FunctionRecord) -> bool:
        used = self._records.get(record.key)
        return used is not None and any(getattr(used, name) != getattr(record, name) for name in _LAUNCH_FIELDS)

    def _retire(self, key: FunctionKey) -> None:
        target = self._targets.pop(key, None)
        self._records.pop(key, None)
        if target is not None:
            self.dispatcher.retire(target)

    def targets(self) -> dict[FunctionKey, Target]:
        """The handles in use, by function."""
        return dict(self._targets)


