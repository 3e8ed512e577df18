"""What a function may be beside its plain settings: durable, apart by tenant, managed, of signed code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastlam import limits
from fastlam.arn import FunctionAddress
from fastlam.control.authorize import Caller
from fastlam.control.code_signing import CodeSigning
from fastlam.control.managed import ManagedFunctions, check_bounds
from fastlam.control.settings import Fields, Request
from fastlam.errors import invalid_parameter, validation
from fastlam.model.function import FunctionRecord
from fastlam.store.records import Write


class FunctionRules:
    """Asked by the control of functions at every creation and update. `found` is what the plain settings came to."""

    def __init__(self, managed: ManagedFunctions | None = None, signing: CodeSigning | None = None) -> None:
        """Without a collaborator, what it would look after is kept as it comes."""
        self._managed = managed
        self._signing = signing

    @staticmethod
    def with_defaults(request: Request) -> Request:
        """CreateFunction's input, where a setting makes others default to something else."""
        return ManagedFunctions.with_defaults(request)

    def creation(
        self, caller: Caller, request: Request, address: FunctionAddress, package_type: str, found: Fields
    ) -> tuple[Fields, Sequence[Write]]:
        """Further fields of the new record, and what is to be written beside it."""
        tenancy: str = (request.get("TenancyConfig") or {}).get("TenantIsolationMode") or ""
        _check_tenancy(tenancy, found.get("snap_start"))
        fields: Fields = {
            "tenant_isolation_mode": tenancy,
            "durable_config": _durable(request.get("DurableConfig"), None),
            "capacity_provider_config": request.get("CapacityProviderConfig"),
        }
        if self._managed is not None:
            fields |= self._managed.fields(caller, request, None, found)
        if self._signing is None:
            return fields, []
        return fields, self._signing.check_creation(caller, request, address, package_type)

    @staticmethod
    def check_input(request: Request, current: FunctionRecord) -> None:
        """Bounds that are wider for some functions than for others."""
        findings = check_bounds(request, current)
        if findings:
            raise validation(findings)

    def update(self, caller: Caller, request: Request, current: FunctionRecord, found: Fields) -> Fields:
        """Further fields of the changed record."""
        _check_tenancy(current.tenant_isolation_mode, found.get("snap_start"))
        fields: Fields = {}
        if request.get("DurableConfig") is not None:
            if current.durable_config is None:
                raise invalid_parameter("DurableConfig can only be set when the function is created.")
            fields["durable_config"] = _durable(request["DurableConfig"], current.durable_config)
        if found.get("layers") and found["layers"] != current.layers:
            self.check_deployment(current)
        if self._managed is not None:
            fields |= self._managed.fields(caller, request, current, found)
        return fields

    def check_deployment(self, function: FunctionRecord) -> None:
        """Refuse new code, or new layers, for a function that takes none but signed ones."""
        if self._signing is not None:
            self._signing.check_deployment(function)


def _check_tenancy(mode: str, snap_start: str | None) -> None:
    if mode and snap_start == "PublishedVersions":
        raise invalid_parameter("SnapStart is not supported for functions with tenancy configuration.")


def _durable(given: Request | None, current: Request | None) -> dict[str, Any] | None:
    """The configuration complete; what an update does not name stays. An empty key takes the key away."""
    if given is None:
        return None
    config = {"RetentionPeriodInDays": limits.DURABLE_RETENTION_DAYS, **(current or {}), **given}
    if not config.get("KMSKeyArn"):
        config.pop("KMSKeyArn", None)
    return config
