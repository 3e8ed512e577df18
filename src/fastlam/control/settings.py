"""A function's settings: read from a request, checked against the service's rules, turned into fields of the record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Final

from fastlam import limits
from fastlam.control.runtimes import check_runtime, supports_snap_start
from fastlam.errors import invalid_parameter
from fastlam.model.function import IMAGE, FunctionRecord, LayerReference

Request = Mapping[str, Any]
Fields = dict[str, Any]

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

# Members that the record holds as they come: what a request says replaces what there was.
_PLAIN: Final = (
    ("Role", "role"),
    ("Handler", "handler"),
    ("Description", "description"),
    ("Timeout", "timeout_seconds"),
    ("MemorySize", "memory_mb"),
    ("KMSKeyArn", "kms_key_arn"),
    ("FileSystemConfigs", "file_system_configs"),
    ("ImageConfig", "image_config"),
    ("AcceleratorConfig", "accelerator_config"),
    ("RuntimeConfig", "runtime_config"),
)

FindLayers = Callable[[list[str]], tuple[LayerReference, ...]]
"""From ARNs of layer versions to what the record keeps of them; raises the service's refusals."""


def fields(
    request: Request, current: FunctionRecord | None, *, region: str, today: date, find_layers: FindLayers
) -> Fields:
    """The record fields that a create (`current` is None) or update request sets; the environment is set apart."""
    found: Fields = {}
    for member, field in _PLAIN:
        if request.get(member) is not None:
            found[field] = request[member]
    if request.get("Runtime") is not None:
        check_runtime(request["Runtime"], today, creating=current is None)
        found["runtime"] = request["Runtime"]
    if (request.get("EphemeralStorage") or {}).get("Size") is not None:
        found["ephemeral_storage_mb"] = request["EphemeralStorage"]["Size"]
    if (request.get("TracingConfig") or {}).get("Mode") is not None:
        found["tracing_mode"] = request["TracingConfig"]["Mode"]
    if request.get("LoggingConfig") is not None:
        found |= _logging(request["LoggingConfig"], current)
    if request.get("VpcConfig") is not None:
        found |= _vpc(request["VpcConfig"], current)
    if request.get("DeadLetterConfig") is not None:
        found["dead_letter_target_arn"] = _dead_letter_target(request["DeadLetterConfig"].get("TargetArn"), region)
    if request.get("Layers") is not None:
        found["layers"] = find_layers(request["Layers"])
    if (request.get("SnapStart") or {}).get("ApplyOn") is not None:
        found["snap_start"] = request["SnapStart"]["ApplyOn"]
    if current is not None and current.package_type == IMAGE:
        for member in ("Runtime", "Handler", "Layers"):
            if request.get(member):
                raise invalid_parameter(
                    f"Please don't provide {member} when updating a function with packageType Image."
                )
    _check_snap_start(found, current)
    return found


def check_environment(variables: Mapping[str, str]) -> dict[str, str]:
    reserved = [key for key in variables if key in _RESERVED_KEYS]
    if reserved:
        raise invalid_parameter(
            "Lambda was unable to configure your environment variables because the environment variables you have"
            " provided"
            " contains reserved keys that are currently not supported for modification. Reserved keys used in this"
            " request: " + ", ".join(reserved)
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


def _logging(given: Request, current: FunctionRecord | None) -> Fields:
    log_format = given.get("LogFormat") or (current.log_format if current else "Text")
    log_group = given.get("LogGroup") or (current.log_group if current else "")
    found: Fields = {"log_format": log_format, "log_group": log_group}
    for member, field in (("ApplicationLogLevel", "application_log_level"), ("SystemLogLevel", "system_log_level")):
        level = given.get(member)
        if log_format == "JSON":
            found[field] = level or getattr(current, field, None) or "INFO"
        elif level is not None:
            raise invalid_parameter(
                'LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change'
                ' the LogFormat to "JSON" and try again.'
            )
        else:
            found[field] = None
    return found


def _vpc(given: Request, current: FunctionRecord | None) -> Fields:
    """The VPC's id is made from the first subnet's: there is no VPC here that could tell its own."""
    before = (current.vpc_config if current else None) or {}
    subnets = given.get("SubnetIds", before.get("SubnetIds")) or []
    groups = given.get("SecurityGroupIds", before.get("SecurityGroupIds")) or []
    if not subnets and not groups and current is None:
        return {}
    if bool(subnets) != bool(groups):
        raise invalid_parameter("SubnetIds and SecurityGroupIds must coexist or be both empty list.")
    vpc_id = f"vpc-{hashlib.sha256(subnets[0].encode()).hexdigest()[:17]}" if subnets else ""
    dual_stack = given.get("Ipv6AllowedForDualStack")
    if dual_stack is None:
        dual_stack = bool(subnets) and before.get("Ipv6AllowedForDualStack", False)
    return {
        "vpc_config": {
            "SubnetIds": list(subnets),
            "SecurityGroupIds": list(groups),
            "VpcId": vpc_id,
            "Ipv6AllowedForDualStack": dual_stack,
        }
    }


def _dead_letter_target(arn: str | None, region: str) -> str:
    """A standard SQS queue or SNS topic; "" for none."""
    if not arn:
        return ""
    service = arn.split(":")[2] if arn.count(":") >= 5 else ""
    prefix = "Invalid dead letter queue ARN: "
    if service not in ("sqs", "sns"):
        raise invalid_parameter(f"{prefix}Only Amazon SQS queues and Amazon SNS topics are supported.")
    if arn.split(":")[3] != region:
        raise invalid_parameter(
            f"{prefix}The resource specified by the TargetArn must be in the same region as the Lambda function it's"
            " associated with."
        )
    if arn.endswith(".fifo"):
        kind = "FIFO SQS queue" if service == "sqs" else "FIFO SNS topic"
        raise invalid_parameter(f"{prefix}{kind} is not supported for dead letter configuration")
    return arn


def _check_snap_start(found: Fields, current: FunctionRecord | None) -> None:
    apply_on = found.get("snap_start", current.snap_start if current else "None")
    runtime = found.get("runtime", current.runtime if current else "")
    if apply_on == "PublishedVersions" and not supports_snap_start(runtime):
        raise invalid_parameter(f"{runtime} is not supported for SnapStart enabled functions.")
