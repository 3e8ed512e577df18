"""Capacity providers: the instances that managed functions ask to run on.

    CreateCapacityProvider ── Pending ──(a moment)──► Active
    DeleteCapacityProvider ── Deleting ──(a moment)──► gone

The moments are scheduled; what a stopped process left in between is settled when its successor starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from fastlam import limits
from fastlam.clock import Clock, Schedule
from fastlam.control.authorize import Caller
from fastlam.control.pages import Page, page
from fastlam.control.settings import Request
from fastlam.control.tags import Tags
from fastlam.control.times import timestamp
from fastlam.control.versions import version_number
from fastlam.errors import ApiError, access_denied, conflict, invalid_parameter, not_found
from fastlam.model.capacity_provider import DELETING, CapacityProviderRecord, capacity_provider_arn, provider_arn_of
from fastlam.model.function import ACTIVE, PENDING, FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.store.records import CAPACITY_PROVIDER, FUNCTION, VERSION, RecordStore, Write

_TAGGED: Final = "capacity-provider"
_VCPU_COUNT_DEFAULT: Final = 400
_AUTO: Final = "Auto"


class CapacityProviders:
    """Owner of the records. Lives in the thread of the store."""

    def __init__(self, store: RecordStore, schedule: Schedule, clock: Clock, tags: Tags) -> None:
        self._store = store
        self._schedule = schedule
        self._clock = clock
        self._tags = tags
        tags.register(_TAGGED, lambda key: store.get(CAPACITY_PROVIDER, key) is not None)
        for record in store.all(CAPACITY_PROVIDER):
            self._settle(record)

    def create(self, caller: Caller, request: Request) -> CapacityProviderRecord:
        key = _new_key(caller, request["CapacityProviderName"])
        record = CapacityProviderRecord(
            account=key.account,
            region=key.region,
            name=key.name,
            state=PENDING,
            vpc_config=dict(request["VpcConfig"]),
            permissions_config=dict(request["PermissionsConfig"]),
            instance_requirements=_instance_requirements(request.get("InstanceRequirements") or {}),
            scaling_config=_scaling({}, request.get("CapacityProviderScalingConfig") or {}),
            kms_key_arn=request.get("KmsKeyArn") or "",
            propagate_tags=_propagated(request.get("PropagateTags") or {}),
            telemetry_config=_telemetry(key.name, {}, request.get("TelemetryConfig") or {}),
            last_modified=timestamp(self._clock),
        )
        tags = self._tags.new(_TAGGED, key, request.get("Tags"))
        if self._store.get(CAPACITY_PROVIDER, key) is not None:
            raise conflict(f"Capacity provider already exists: {record.arn}")
        if len(self._store.list(CAPACITY_PROVIDER, key.account, key.region)) >= limits.CAPACITY_PROVIDERS_MAX:
            raise ApiError(
                "CapacityProviderLimitExceededException",
                f"The limit of {limits.CAPACITY_PROVIDERS_MAX} capacity providers is reached.",
            )
        self._store.apply([Write(CAPACITY_PROVIDER, key, record), *tags])
        self._settle_later(record)
        return record

    def get(self, caller: Caller, request: Request) -> CapacityProviderRecord:
        return self._found(caller, request["CapacityProviderName"])

    def update(self, caller: Caller, request: Request) -> CapacityProviderRecord:
        record = self._found(caller, request["CapacityProviderName"])
        if record.state != ACTIVE:
            raise _busy(record)
        fields: dict[str, Any] = {"last_modified": timestamp(self._clock)}
        if request.get("CapacityProviderScalingConfig") is not None:
            fields["scaling_config"] = _scaling(record.scaling_config, request["CapacityProviderScalingConfig"])
        if request.get("PropagateTags") is not None:
            fields["propagate_tags"] = _propagated(request["PropagateTags"])
        if request.get("TelemetryConfig") is not None:
            fields["telemetry_config"] = _telemetry(record.name, record.telemetry_config, request["TelemetryConfig"])
        updated = replace(record, **fields)
        self._store.put(CAPACITY_PROVIDER, updated)
        return updated

    def delete(self, caller: Caller, request: Request) -> CapacityProviderRecord:
        record = self._found(caller, request["CapacityProviderName"])
        if record.state == DELETING:
            return record
        attached = self._attached(record)
        if attached:
            raise conflict(
                f"The capacity provider {record.arn} cannot be deleted because function versions are attached to it:"
                f" [{', '.join(version.qualified_arn for version in attached[:10])}]"
            )
        deleting = replace(record, state=DELETING, last_modified=timestamp(self._clock))
        self._store.put(CAPACITY_PROVIDER, deleting)
        self._settle_later(deleting)
        return deleting

    def list(self, caller: Caller, request: Request) -> Page[CapacityProviderRecord]:
        records = self._store.list(CAPACITY_PROVIDER, caller.account, caller.region)
        state = request.get("State")
        if state is not None:
            records = [record for record in records if record.state == state]
        return page(request, records, lambda record: record.name)

    def list_versions(self, caller: Caller, request: Request) -> tuple[CapacityProviderRecord, Page[FunctionRecord]]:
        """The provider, and what is attached to it: by function, `$LATEST` first."""
        record = self._found(caller, request["CapacityProviderName"])
        return record, page(request, self._attached(record), _version_key)

    # For the control of functions --------------------------------------------------------------------

    def usable(self, caller: Caller, arn: str) -> CapacityProviderRecord:
        """The provider for a function that is to run on it."""
        record = self._found(caller, arn)
        if record.state != ACTIVE:
            raise _busy(record)
        return record

    # Inside ----------------------------------------------------------------------------------------

    def _found(self, caller: Caller, name: str) -> CapacityProviderRecord:
        key = RecordKey(caller.account, caller.region, name.rpartition(":")[2])
        record = self._store.get(CAPACITY_PROVIDER, key)
        if record is None or (":" in name and name != record.arn):
            arn = name if ":" in name else _arn_of(key)
            raise not_found(f"Capacity provider not found: {arn}")
        return record

    def _attached(self, provider: CapacityProviderRecord) -> Sequence[FunctionRecord]:
        arn = provider.arn
        found = [
            record
            for kind in (FUNCTION, VERSION)
            for record in self._store.list(kind, provider.account, provider.region)
            if provider_arn_of(record) == arn
        ]
        return sorted(found, key=_version_key)

    def _settle_later(self, record: CapacityProviderRecord) -> None:
        def settle() -> None:
            if self._store.get(CAPACITY_PROVIDER, record.key) is record:  # not another request's by now
                self._settle(record)

        self._schedule(limits.STATE_CHANGE_SECONDS, settle)

    def _settle(self, record: CapacityProviderRecord) -> None:
        if record.state == PENDING:
            self._store.put(CAPACITY_PROVIDER, replace(record, state=ACTIVE))
        elif record.state == DELETING:
            self._store.apply([Write(CAPACITY_PROVIDER, record.key, None), self._tags.gone(_TAGGED, record.key)])


def _new_key(caller: Caller, name: str) -> RecordKey:
    """Of a provider to be created, whose name may come as an ARN."""
    if ":" in name:
        region, account = name.split(":")[3:5]
        if account != caller.account:
            raise access_denied(None)
        if region != caller.region:
            raise invalid_parameter(f"The capacity provider {name} is not in region {caller.region}.")
    return RecordKey(caller.account, caller.region, name.rpartition(":")[2])


def _arn_of(key: RecordKey) -> str:
    return capacity_provider_arn(key.region, key.account, key.name)


def _version_key(record: FunctionRecord) -> str:
    return f"{record.name} {version_number(record.version):020d}"


def _busy(record: CapacityProviderRecord) -> ApiError:
    return conflict(
        "The operation cannot be performed at this time. The capacity provider is currently in the following state:"
        f" {record.state}"
    )


def _instance_requirements(given: Request) -> dict[str, Any]:
    if given.get("AllowedInstanceTypes") and given.get("ExcludedInstanceTypes"):
        raise invalid_parameter("AllowedInstanceTypes and ExcludedInstanceTypes can't be specified together.")
    return {"Architectures": given.get("Architectures") or ["x86_64"]} | {
        member: list(given[member]) for member in ("AllowedInstanceTypes", "ExcludedInstanceTypes") if given.get(member)
    }


def _scaling(current: Request, given: Request) -> dict[str, Any]:
    """What is not given stays as it is, or as it is by default."""
    mode = given.get("ScalingMode") or current.get("ScalingMode") or _AUTO
    policies = given.get("ScalingPolicies")
    if mode == _AUTO and policies:
        raise invalid_parameter("A scaling policy can't be specified when the scalingMode is set to Auto")
    if policies is None and mode != _AUTO:
        policies = current.get("ScalingPolicies")
        if not policies:
            raise invalid_parameter(f"A scaling policy must be specified when the scalingMode is set to {mode}")
    scaling: dict[str, Any] = {
        "MaxVCpuCount": given.get("MaxVCpuCount") or current.get("MaxVCpuCount") or _VCPU_COUNT_DEFAULT,
        "ScalingMode": mode,
    }
    return scaling | ({"ScalingPolicies": policies} if policies else {})


def _propagated(given: Request) -> dict[str, Any]:
    tags = given.get("ExplicitTags") or {}
    mode = given.get("Mode") or ("Explicit" if tags else "None")
    if mode == "Explicit" and not tags:
        raise invalid_parameter("ExplicitTags must be specified when the PropagateTags mode is set to Explicit.")
    if mode == "None" and tags:
        raise invalid_parameter("ExplicitTags can't be specified when the PropagateTags mode is set to None.")
    return {"Mode": mode} | ({"ExplicitTags": dict(tags)} if tags else {})


def _telemetry(name: str, current: Request, given: Request) -> dict[str, Any]:
    before = current.get("LoggingConfig") or {}
    logging = given.get("LoggingConfig") or {}
    return {
        "LoggingConfig": {
            "SystemLogLevel": logging.get("SystemLogLevel") or before.get("SystemLogLevel") or "INFO",
            "LogGroup": logging.get("LogGroup") or before.get("LogGroup") or f"/aws/lambda/capacity-provider/{name}",
        }
    }
