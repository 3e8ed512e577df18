"""Records as the API shows them: response bodies, members in the order of the service model."""

from __future__ import annotations

from typing import Any

from fastlam.arn import LATEST, function_arn
from fastlam.control.functions import FunctionView
from fastlam.control.runtimes import runtime_version_arn
from fastlam.model.function import FunctionRecord


def function_configuration(
    record: FunctionRecord, qualifier: str | None = None, *, listed: bool = False
) -> dict[str, Any]:
    """FunctionConfiguration. Items of a list carry neither states nor the version of the runtime."""
    body: dict[str, Any] = {
        "FunctionName": record.name,
        "FunctionArn": function_arn(record.region, record.account, record.name, qualifier),
        "Runtime": record.runtime,
        "Role": record.role,
        "Handler": record.handler,
        "CodeSize": record.code_bytes,
        "Description": record.description,
        "Timeout": record.timeout_seconds,
        "MemorySize": record.memory_mb,
        "LastModified": record.last_modified,
        "CodeSha256": record.code_sha256,
        "Version": record.version,
    }
    if record.environment is not None:
        body["Environment"] = {"Variables": record.environment}
    body["TracingConfig"] = {"Mode": record.tracing_mode}
    body["RevisionId"] = record.revision_id
    if not listed:
        body |= _states(record)
    body["PackageType"] = "Zip"
    body["Architectures"] = list(record.architectures)
    body["EphemeralStorage"] = {"Size": record.ephemeral_storage_mb}
    body["SnapStart"] = {"ApplyOn": "None", "OptimizationStatus": "Off"}
    if not listed:
        body["RuntimeVersionConfig"] = {"RuntimeVersionArn": runtime_version_arn(record.region, record.runtime)}
    body["LoggingConfig"] = _logging(record)
    return body


def _states(record: FunctionRecord) -> dict[str, str]:
    states = {
        "State": record.state,
        "StateReason": record.state_reason,
        "StateReasonCode": record.state_reason_code,
        "LastUpdateStatus": record.last_update_status,
        "LastUpdateStatusReason": record.last_update_status_reason,
        "LastUpdateStatusReasonCode": record.last_update_status_reason_code,
    }
    return {name: value for name, value in states.items() if value is not None}


def _logging(record: FunctionRecord) -> dict[str, str]:
    logging = {"LogFormat": record.log_format}
    if record.application_log_level is not None:
        logging["ApplicationLogLevel"] = record.application_log_level
    if record.system_log_level is not None:
        logging["SystemLogLevel"] = record.system_log_level
    logging["LogGroup"] = record.log_group_name
    return logging


def function_with_code(view: FunctionView, location: str) -> dict[str, Any]:
    """GetFunction: tags and concurrency belong to the function, not to what a qualifier points at."""
    body: dict[str, Any] = {
        "Configuration": function_configuration(view.record, view.qualifier),
        "Code": {"RepositoryType": "S3", "Location": location},
    }
    if view.qualifier is None and view.record.tags:
        body["Tags"] = view.record.tags
    if view.qualifier is None and view.reserved_concurrency is not None:
        body["Concurrency"] = {"ReservedConcurrentExecutions": view.reserved_concurrency}
    return body


def listed_function(record: FunctionRecord, *, all_versions: bool) -> dict[str, Any]:
    return function_configuration(record, LATEST if all_versions else None, listed=True)
