"""Function records as the API shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastlam.arn import function_arn, runtime_version_arn
from fastlam.model.function import ACTIVE, IMAGE, PENDING, FunctionRecord, applies_snap_start
from fastlam.store.vault import CannotOpen

Variables = Callable[[FunctionRecord], dict[str, str]]


def function_configuration(
    record: FunctionRecord, variables: Variables, qualifier: str | None = None, *, listed: bool = False
) -> dict[str, Any]:
    """FunctionConfiguration. Items of a list carry neither states nor the version of the runtime."""
    image = record.package_type == IMAGE
    body: dict[str, Any] = {
        "FunctionName": record.name,
        "FunctionArn": function_arn(record.region, record.account, record.name, qualifier),
        "Runtime": record.runtime or None,
        "Role": record.role,
        "Handler": record.handler or None,
        "CodeSize": record.code_bytes,
        "Description": record.description,
        "Timeout": record.timeout_seconds,
        "MemorySize": record.memory_mb,
        "LastModified": record.last_modified,
        # Of code that stays in S3 the service knows it only when the function is there.
        "CodeSha256": "" if record.s3_object is not None and record.state == PENDING else record.code_sha256,
        "Version": record.version,
        "VpcConfig": record.vpc_config,
        "DeadLetterConfig": _given("TargetArn", record.dead_letter_target_arn),
        "Environment": _environment(record, variables),
        "KMSKeyArn": record.kms_key_arn or None,
        "TracingConfig": {"Mode": record.tracing_mode},
        "RevisionId": record.revision_id,
        "Layers": [{"Arn": layer.arn, "CodeSize": layer.code_bytes} for layer in record.layers] or None,
        "FileSystemConfigs": record.file_system_configs or None,
        "PackageType": record.package_type,
        "ImageConfigResponse": {"ImageConfig": record.image_config} if record.image_config else None,
        "SigningProfileVersionArn": record.signing_profile_version_arn or None,
        "SigningJobArn": record.signing_job_arn or None,
        "Architectures": list(record.architectures),
        "EphemeralStorage": {"Size": record.ephemeral_storage_mb},
        "SnapStart": {"ApplyOn": record.snap_start, "OptimizationStatus": _snap_start_status(record)},
        "LoggingConfig": _logging(record),
        "CapacityProviderConfig": record.capacity_provider_config,
        "DurableConfig": record.durable_config,
        "TenancyConfig": _given("TenantIsolationMode", record.tenant_isolation_mode),
        "AcceleratorConfig": record.accelerator_config,
        "RuntimeConfig": record.runtime_config,
    }
    if not listed:
        body["State"] = record.state
        body["StateReason"] = record.state_reason
        body["StateReasonCode"] = record.state_reason_code
        body["LastUpdateStatus"] = record.last_update_status
        body["LastUpdateStatusReason"] = record.last_update_status_reason
        body["LastUpdateStatusReasonCode"] = record.last_update_status_reason_code
        if not image:
            body["RuntimeVersionConfig"] = {"RuntimeVersionArn": runtime_version_arn(record.region, record.runtime)}
    return body


def function_code(record: FunctionRecord, location: str | None) -> dict[str, Any]:
    """FunctionCodeLocation."""
    if record.package_type == IMAGE:
        path, slash, last = record.image_uri.partition("@")[0].rpartition("/")
        repository = path + slash + last.partition(":")[0]  # a colon before the last slash is that of a port
        return {
            "RepositoryType": "ECR",
            "ImageUri": record.image_uri,
            "ResolvedImageUri": f"{repository}@sha256:{record.code_sha256}",
        }
    if record.s3_object is not None:
        return {"RepositoryType": "S3", "ResolvedS3Object": record.s3_object}
    return {
        "RepositoryType": "S3",
        "Location": location,
        "SourceKMSKeyArn": record.source_kms_key_arn or None,
    }


def _snap_start_status(record: FunctionRecord) -> str:
    """On for a version that is ready; one that has no snapshot says why in its StateReason."""
    ready = applies_snap_start(record) and record.state == ACTIVE and record.state_reason is None
    return "On" if ready else "Off"


def _given(member: str, value: str) -> dict[str, str] | None:
    return {member: value} if value else None


def _environment(record: FunctionRecord, variables: Variables) -> dict[str, Any] | None:
    if record.environment is None:
        return None
    try:
        return {"Variables": variables(record)}
    except CannotOpen as error:
        message = f"Lambda was unable to decrypt the environment variables. {error}"
        return {"Error": {"ErrorCode": "KMSNotFoundException", "Message": message}}


def _logging(record: FunctionRecord) -> dict[str, Any]:
    return {
        "LogFormat": record.log_format,
        "ApplicationLogLevel": record.application_log_level,
        "SystemLogLevel": record.system_log_level,
        "LogGroup": record.log_group_name,
    }
