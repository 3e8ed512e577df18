"""Runtime management: when a function version moves to a new version of its managed runtime."""

from __future__ import annotations

from fastlam.arn import LATEST, FunctionAddress
from fastlam.control.authorize import Caller
from fastlam.control.lookup import address_of, key_of
from fastlam.control.settings import Request
from fastlam.control.versions import busy
from fastlam.errors import function_not_found, invalid_parameter
from fastlam.model.function import IMAGE, FunctionRecord
from fastlam.model.runtime_management import RuntimeManagementRecord
from fastlam.store.finding import find_version
from fastlam.store.records import RUNTIME_MANAGEMENT, RecordStore

_AUTO = "Auto"
_MANUAL = "Manual"


class RuntimeManagement:
    """Owner of the settings: one for each version of a function, `$LATEST` among them."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store

    def put(self, caller: Caller, request: Request) -> tuple[FunctionRecord, RuntimeManagementRecord]:
        """The version, and its new setting."""
        version = self._version(address_of(caller, request, "PutRuntimeManagementConfig"))
        mode: str = request["UpdateRuntimeOn"]
        arn = request.get("RuntimeVersionArn")
        if mode == _MANUAL and arn is None:
            raise invalid_parameter("RuntimeVersionArn is required when UpdateRuntimeOn is set to Manual.")
        if mode != _MANUAL and arn is not None:
            raise invalid_parameter(f"RuntimeVersionArn is not supported when UpdateRuntimeOn is set to {mode}.")
        if arn is not None and arn.split(":")[3] != version.region:
            raise invalid_parameter(f"The runtime version {arn} does not exist in region {version.region}.")
        if not version.settled:
            raise busy(version)
        record = RuntimeManagementRecord(
            account=version.account,
            region=version.region,
            function=version.name,
            qualifier=version.key.part,
            update_runtime_on=mode,
            runtime_version_arn=arn,
        )
        self._store.put(RUNTIME_MANAGEMENT, record)
        return version, record

    def get(self, caller: Caller, request: Request) -> tuple[FunctionRecord, RuntimeManagementRecord]:
        version = self._version(address_of(caller, request, "GetRuntimeManagementConfig"))
        record = self._store.get(RUNTIME_MANAGEMENT, version.key)
        return version, record or RuntimeManagementRecord(
            account=version.account, region=version.region, function=version.name, update_runtime_on=_AUTO
        )

    def _version(self, address: FunctionAddress) -> FunctionRecord:
        """Aliases have no setting of their own."""
        version = find_version(self._store, key_of(address), address.qualifier or LATEST)
        if version is None:
            raise function_not_found(address.arn)
        if version.package_type == IMAGE:
            raise invalid_parameter("Runtime management is not supported for functions with packageType Image.")
        return version
