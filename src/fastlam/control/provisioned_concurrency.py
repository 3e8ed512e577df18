"""Provisioned concurrency: environments that a version or alias is to have ready before it is invoked.

    PutProvisionedConcurrencyConfig ── IN_PROGRESS ──► READY, or FAILED with a reason
    UpdateAlias to other versions   ── IN_PROGRESS ──► READY, or FAILED with a reason

Here a request is checked and written down. How far it has come is written by what makes the environments, which
watches the records (dispatch/provisioned.py).
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from fastlam import limits
from fastlam.arn import LATEST, FunctionAddress
from fastlam.clock import Clock
from fastlam.control.authorize import Caller
from fastlam.control.concurrency import AccountConcurrency
from fastlam.control.lookup import address_of, function_of, key_of
from fastlam.control.pages import Page, page
from fastlam.control.settings import Request
from fastlam.control.tenancy import refuse_tenancy
from fastlam.control.times import timestamp_seconds
from fastlam.errors import ApiError, conflict, function_not_found, invalid_parameter, not_found
from fastlam.model.alias import AliasRecord
from fastlam.model.key import RecordKey
from fastlam.model.provisioned_concurrency import ALLOCATING, ProvisionedConcurrencyRecord
from fastlam.store.records import (
    ALIAS,
    PROVISIONED_CONCURRENCY,
    RESERVED_CONCURRENCY,
    VERSION,
    Change,
    RecordStore,
)

_UNPUBLISHED = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
_ALREADY_PROVISIONED = "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"


class ProvisionedConcurrency:
    """Owner of the configurations. Lives in the thread of the store."""

    def __init__(self, store: RecordStore, clock: Clock, account: AccountConcurrency) -> None:
        self._store = store
        self._clock = clock
        self._account = account
        store.watch(self._alias_changed)

    def put(self, caller: Caller, request: Request) -> ProvisionedConcurrencyRecord:
        address = address_of(caller, request, "PutProvisionedConcurrencyConfig")
        if address.qualifier == LATEST:
            raise invalid_parameter(_UNPUBLISHED)
        key = self._key(address)
        self._check_target(key, self._store.get(ALIAS, key))
        wanted: int = request["ProvisionedConcurrentExecutions"]
        self._check_room(key, wanted)
        current = self._store.get(PROVISIONED_CONCURRENCY, key)
        record = ProvisionedConcurrencyRecord(
            account=key.account,
            region=key.region,
            function=key.name,
            qualifier=key.part,
            requested=wanted,
            allocated=min(current.allocated, wanted) if current else 0,  # what is there goes on serving
            available=min(current.available, wanted) if current else 0,
            last_modified=timestamp_seconds(self._clock),
        )
        self._store.put(PROVISIONED_CONCURRENCY, record)
        return record

    def get(self, caller: Caller, request: Request) -> ProvisionedConcurrencyRecord:
        address = self._published(address_of(caller, request, "GetProvisionedConcurrencyConfig"))
        record = self._store.get(PROVISIONED_CONCURRENCY, self._key(address))
        if record is None:
            raise ApiError(
                "ProvisionedConcurrencyConfigNotFoundException",
                "No Provisioned Concurrency Config found for this function",
            )
        return record

    def delete(self, caller: Caller, request: Request) -> None:
        """Of a configuration that is not there, too."""
        address = self._published(address_of(caller, request, "DeleteProvisionedConcurrencyConfig"))
        self._store.delete(PROVISIONED_CONCURRENCY, self._key(address))

    def list(self, caller: Caller, request: Request) -> Page[ProvisionedConcurrencyRecord]:
        function = function_of(self._store, address_of(caller, request, "ListProvisionedConcurrencyConfigs"))
        records = self._store.parts(PROVISIONED_CONCURRENCY, function.key)
        return page(request, records, lambda record: record.qualifier)

    def check_move(self, alias: AliasRecord) -> None:
        """Refuse to let an alias that has a configuration lead to where none may be."""
        if self._store.get(PROVISIONED_CONCURRENCY, alias.key) is not None:
            self._check_target(alias.key, alias)

    # Inside ----------------------------------------------------------------------------------------

    def _published(self, address: FunctionAddress) -> FunctionAddress:
        if address.qualifier == LATEST:
            raise invalid_parameter("The function resource provided must be an alias or a published version.")
        return address

    def _key(self, address: FunctionAddress) -> RecordKey:
        """Of the version or alias, which must exist."""
        if address.qualifier is None:
            raise invalid_parameter("The function resource provided must be an alias or a published version.")
        function_of(self._store, address, address.arn)
        key = key_of(address)._replace(part=address.qualifier)
        if address.qualifier.isdecimal():
            if self._store.get(VERSION, key) is None:
                raise function_not_found(address.arn)
        elif self._store.get(ALIAS, key) is None:
            raise not_found(f"Cannot find alias arn: {address.arn}")
        return key

    def _check_target(self, key: RecordKey, alias: AliasRecord | None) -> None:
        """One version has its environments from one configuration at most, and can have them made ahead at all."""
        if alias is None:
            versions = {key.part}
        else:
            versions = set(alias.versions)
            if LATEST in versions:
                raise invalid_parameter(_UNPUBLISHED)
        for version in versions:
            record = self._store.get(VERSION, key._replace(part=version))
            if record is None:
                continue
            refuse_tenancy(record, "Provisioned concurrency")
            if record.snap_start == "PublishedVersions":
                raise invalid_parameter("Provisioned concurrency is not supported for SnapStart enabled functions.")
            if record.capacity_provider_config is not None:
                raise invalid_parameter(
                    "Provisioned concurrency isn't supported for Lambda Managed Instances functions."
                )
        for other in self._store.parts(PROVISIONED_CONCURRENCY, key):
            if other.key == key:
                continue
            other_alias = self._store.get(ALIAS, other.key)
            taken = {other.qualifier} if other_alias is None else other_alias.versions
            if versions & taken:
                raise conflict(
                    "Version is pointed by a Provisioned Concurrency alias" if alias is None else _ALREADY_PROVISIONED
                )

    def _check_room(self, key: RecordKey, wanted: int) -> None:
        reservation = self._store.get(RESERVED_CONCURRENCY, key.owner)
        if reservation is not None:
            if self._account.provisioned(key, besides=key) + wanted > reservation.concurrency:
                raise invalid_parameter(
                    "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for"
                    " function"
                )
            return
        left = self._account.unreserved(key.account, key.region, besides=key)
        if wanted > left:
            raise invalid_parameter(
                "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency"
                f" [{left}].",
                typed=False,
            )
        if left - wanted < limits.UNRESERVED_CONCURRENCY_MIN:
            raise invalid_parameter(
                "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below"
                f" its minimum value of [{limits.UNRESERVED_CONCURRENCY_MIN}]."
            )

    def _alias_changed(self, change: Change) -> None:
        """An alias that leads elsewhere has its environments made anew; until then the old ones serve."""
        if change.kind is not ALIAS or change.record is None or change.previous is None:
            return
        if _targets(change.record) != _targets(change.previous):
            record = self._store.get(PROVISIONED_CONCURRENCY, change.key)
            if record is not None:
                self._store.put(PROVISIONED_CONCURRENCY, replace(record, status=ALLOCATING, status_reason=None))


def _targets(alias: AliasRecord) -> tuple[Any, ...]:
    return alias.function_version, alias.additional_weights
