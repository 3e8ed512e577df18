"""The runtime management operations over HTTP."""

from __future__ import annotations

from typing import Any, Final

from fastlam.api.encoding import NULL
from fastlam.api.support import Call, Entries, Reply, Stored
from fastlam.control.runtime_management import RuntimeManagement
from fastlam.model.function import FunctionRecord
from fastlam.model.runtime_management import RuntimeManagementRecord

_MISSING: Final = "a function runs on the interpreter of the daemon, of which there is one version"


def entries(management: RuntimeManagement) -> Entries:
    def put(call: Call) -> Reply:
        return Reply(_config(*management.put(call.caller, call.parameters)))

    def get(call: Call) -> Reply:
        body = _config(*management.get(call.caller, call.parameters))
        if body["RuntimeVersionArn"] is None:
            body["RuntimeVersionArn"] = NULL
        return Reply(body)

    return {
        "PutRuntimeManagementConfig": Stored(put, _MISSING),
        "GetRuntimeManagementConfig": Stored(get, _MISSING),
    }


def _config(version: FunctionRecord, record: RuntimeManagementRecord) -> dict[str, Any]:
    return {
        "UpdateRuntimeOn": record.update_runtime_on,
        "FunctionArn": version.qualified_arn,
        "RuntimeVersionArn": record.runtime_version_arn,
    }
