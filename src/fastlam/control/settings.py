"""A function's settings: read from a request, checked against the service's rules, turned into fields of the record.

What this version cannot honour is refused in one sentence; it is never stored and then ignored. Members that switch
nothing on (an empty VpcConfig, SnapStart None, an empty list of layers) are let through, since SDKs and templates send
them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from fastlam import limits
from fastlam.control.runtimes import check_runtime
from fastlam.errors import invalid_parameter

Request = Mapping[str, Any]

_RESERVED: Final = (
    "AWS_ACCESS_KEY AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_REGION AWS_DEFAULT_REGION"
    " AWS_EXECUTION_ENV"
    " AWS_LAMBDA_FUNCTION_NAME AWS_LAMBDA_FUNCTION_VERSION AWS_LAMBDA_FUNCTION_MEMORY_SIZE AWS_LAMBDA_LOG_GROUP_NAME"
    " AWS_LAMBDA_LOG_STREAM_NAME AWS_LAMBDA_INITIALIZATION_TYPE AWS_LAMBDA_RUNTIME_API AWS_LAMBDA_METADATA_API"
    " AWS_LAMBDA_METADATA_TOKEN AWS_LAMBDA_MAX_CONCURRENCY AWS_CONTAINER_CREDENTIALS_FULL_URI"
    " AWS_CONTAINER_AUTHORIZATION_TOKEN _HANDLER _X_AMZN_TRACE_ID _AWS_XRAY_DAEMON_ADDRESS _AWS_XRAY_DAEMON_PORT"
    " LAMBDA_TASK_ROOT LAMBDA_RUNTIME_DIR"
)
_RESERVED_KEYS: Final = frozenset(_RESERVED.split())


def _filled(value: Any) -> bool:
    """Anything but nothing: None, False, "", empty lists and structures of such."""
    if isinstance(value, Mapping):
        return any(_filled(inner) for inner in value.values())
    return value is not False and value not in (None, "", [])


# Member, when it asks for something, and what it asks for.
_UNSUPPORTED: Final[tuple[tuple[str, Callable[[Any], bool], str], ...]] = (
    ("PackageType", lambda value: value == "Image", "container images (PackageType Image)"),
    ("ImageConfig", _filled, "container images (ImageConfig)"),
    ("ImageUri", _filled, "container images (ImageUri)"),
    ("S3Bucket", _filled, "code from S3 (S3Bucket); send the deployment package itself (ZipFile)"),
    ("S3Key", _filled, "code from S3 (S3Key); send the deployment package itself (ZipFile)"),
    ("S3ObjectVersion", _filled, "code from S3 (S3ObjectVersion); send the deployment package itself (ZipFile)"),
    (
        "S3ObjectStorageMode",
        _filled,
        "code from S3 (S3ObjectStorageMode); send the deployment package itself (ZipFile)",
    ),
    ("SourceKMSKeyArn", _filled, "customer-managed keys (SourceKMSKeyArn)"),
    ("Publish", _filled, "function versions (Publish)"),
    ("PublishTo", _filled, "function versions (PublishTo)"),
    ("VpcConfig", _filled, "VPCs (VpcConfig)"),
    ("DeadLetterConfig", _filled, "dead-letter queues (DeadLetterConfig)"),
    ("KMSKeyArn", _filled, "customer-managed keys (KMSKeyArn)"),
    ("Layers", _filled, "layers (Layers)"),
    ("FileSystemConfigs", _filled, "file systems (FileSystemConfigs)"),
    ("CodeSigningConfigArn", _filled, "code signing (CodeSigningConfigArn)"),
    ("SnapStart", lambda value: value.get("ApplyOn") not in (None, "None"), "SnapStart (SnapStart)"),
    ("CapacityProviderConfig", _filled, "managed instances (CapacityProviderConfig)"),
    ("AcceleratorConfig", _filled, "accelerators (AcceleratorConfig)"),
    ("DurableConfig", _filled, "durable functions (DurableConfig)"),
    ("TenancyConfig", _filled, "tenant isolation (TenancyConfig)"),
    ("RuntimeConfig", _filled, "custom runtimes (RuntimeConfig)"),
)


def refuse_unsupported(request: Request) -> None:
    for member, asks, feature in _UNSUPPORTED:
        value = request.get(member)
        if value is not None and asks(value):
            raise invalid_parameter(f"fastlam does not support {feature} yet.")


def zip_bytes(code: Request) -> bytes:
    """The deployment package in a request; anything else that could be a source of code is refused."""
    refuse_unsupported(code)
    data = code.get("ZipFile")
    if data is None:
        raise invalid_parameter("Please provide a source for function code.")
    return bytes(data)


def fields(request: Request, current: Mapping[str, Any]) -> dict[str, Any]:
    """The record fields that a create or update request sets. `current` holds the logging fields in force before it."""
    refuse_unsupported(request)
    found: dict[str, Any] = {}
    for member, field in (
        ("Role", "role"),
        ("Handler", "handler"),
        ("Description", "description"),
        ("Timeout", "timeout_seconds"),
        ("MemorySize", "memory_mb"),
    ):
        if request.get(member) is not None:
            found[field] = request[member]
    if request.get("Runtime") is not None:
        check_runtime(request["Runtime"])
        found["runtime"] = request["Runtime"]
    if request.get("Environment") is not None:
        found["environment"] = check_environment(request["Environment"].get("Variables") or {})
    if (request.get("EphemeralStorage") or {}).get("Size") is not None:
        found["ephemeral_storage_mb"] = request["EphemeralStorage"]["Size"]
    if (request.get("TracingConfig") or {}).get("Mode") is not None:
        found["tracing_mode"] = request["TracingConfig"]["Mode"]
    if request.get("LoggingConfig") is not None:
        found |= _logging(request["LoggingConfig"], current)
    return found


def check_environment(variables: Mapping[str, str]) -> dict[str, str]:
    reserved = [key for key in variables if key in _RESERVED_KEYS]
    if reserved:
        raise invalid_parameter(
            "Lambda was unable to configure your environment variables because the environment variables you have"
            " provided"
            " contains reserved keys that are currently not supported for modification. Reserved keys used in this"
            " request: "
            + ", ".join(reserved)
        )
    measured = json.dumps(dict(variables), separators=(",", ":"), ensure_ascii=False)
    if len(measured.encode("utf-8", "surrogatepass")) > limits.ENVIRONMENT_BYTES_MAX:
        raise invalid_parameter(
            "Lambda was unable to configure your environment variables because the environment variables you have"
            " provided"
            f" exceeded the 4KB limit. String measured: {measured}"
        )
    return dict(variables)


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    if len(tags) > limits.TAGS_MAX:
        raise invalid_parameter("Number of tags exceeds resource tag limit.")
    for key in tags:
        if key.lower().startswith("aws:"):
            raise invalid_parameter(f"Tag keys must not start with aws: (given: {key}).")
    return dict(tags)


def _logging(given: Request, current: Mapping[str, Any]) -> dict[str, Any]:
    log_format = given.get("LogFormat") or current["log_format"]
    found: dict[str, Any] = {"log_format": log_format, "log_group": given.get("LogGroup") or current["log_group"]}
    for member, field in (("ApplicationLogLevel", "application_log_level"), ("SystemLogLevel", "system_log_level")):
        level = given.get(member)
        if log_format == "JSON":
            found[field] = level or current[field] or "INFO"
        elif level is not None:
            raise invalid_parameter(
                'LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change'
                ' the LogFormat to "JSON" and try again.'
            )
        else:
            found[field] = None
    return found
