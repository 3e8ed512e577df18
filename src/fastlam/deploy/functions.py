"""AWS::Lambda::Function: created, or changed where it differs from what the template says.

What the template leaves out has its default: a template describes the whole function. Only what Lambda keeps apart from
the configuration (recursion, runtime management, code signing) stays as it is unless the template names it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final

from fastlam.deploy.made import Context, Made, await_settled, check_properties
from fastlam.deploy.packages import function_code
from fastlam.deploy.service import Service
from fastlam.deploy.template import TemplateError
from fastlam.errors import FastlamError

# Property -> member of the API, where they differ.
_MEMBERS: Final = {"KmsKeyArn": "KMSKeyArn"}
_DEFAULTS: Final[Mapping[str, Any]] = {
    "Description": "",
    "Timeout": 3,
    "MemorySize": 128,
    "Environment": {"Variables": {}},
    "Layers": [],
    "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []},
    "DeadLetterConfig": {"TargetArn": ""},
    "KMSKeyArn": "",
    "TracingConfig": {"Mode": "PassThrough"},
    "FileSystemConfigs": [],
    "EphemeralStorage": {"Size": 512},
    "SnapStart": {"ApplyOn": "None"},
}
_CHANGEABLE: Final = (*_DEFAULTS, "Handler", "Runtime", "Role", "LoggingConfig", "ImageConfig")
_AT_CREATION: Final = ("CapacityProviderConfig", "DurableConfig", "TenancyConfig")
_APART: Final = ("CodeSigningConfigArn", "RecursiveLoop", "ReservedConcurrentExecutions", "RuntimeManagementConfig")
_PROPERTIES: Final = frozenset(
    {"Architectures", "Code", "FunctionName", "KmsKeyArn", "PackageType", "Tags", *_CHANGEABLE, *_AT_CREATION, *_APART}
    - {"KMSKeyArn"}
)


def make_function(context: Context, where: str, given: dict[str, Any]) -> Made:
    check_properties(where, given, _PROPERTIES, ())
    service = context.service
    name = str(given.get("FunctionName") or where)
    role = given.get("Role") or f"arn:aws:iam::{service.account}:role/lambda"
    wanted = {_MEMBERS.get(key, key): value for key, value in given.items() if _MEMBERS.get(key, key) in _CHANGEABLE}
    wanted["Role"] = role
    code = function_code(context, where, given.get("Code"), str(given.get("Runtime") or ""))
    package_type = given.get("PackageType") or ("Image" if "ImageUri" in code else "Zip")
    tags = _tags(where, given.get("Tags"))
    current = service.find("GetFunction", FunctionName=name)
    if current is None:
        changes = [f"created {name}"]
        service.call(
            "CreateFunction",
            FunctionName=name,
            Code=code,
            PackageType=package_type,
            Architectures=given.get("Architectures"),
            Tags=tags or None,
            **wanted,
            **{key: given[key] for key in _AT_CREATION if key in given},
        )
        current = {"Configuration": settle(service, name)}
    else:
        if current["Configuration"]["PackageType"] != package_type:
            raise TemplateError(
                f"{where}: {name} has the package type {current['Configuration']['PackageType']}, which cannot become"
                f" {package_type}: delete it first (fastlam rm {name})."
            )
        changes = _update_code(service, name, current, code, given.get("Architectures") or ["x86_64"])
        changes += _update_configuration(service, name, current["Configuration"], wanted)
        changes += _update_tags(service, name, current, tags)
    changes += _apart(service, name, current, given)
    arn = current["Configuration"]["FunctionArn"]
    return Made(name, {"Arn": arn, "Role": role}, changes)


def settle(service: Service, name: str, qualifier: str | None = None) -> dict[str, Any]:
    """The configuration, once no change is under way; an error says why a function cannot be used."""

    def moving(found: dict[str, Any]) -> str:
        state, update = found.get("State"), found.get("LastUpdateStatus")
        return f"{name} is {state}, its update {update}" if state == "Pending" or update == "InProgress" else ""

    found = await_settled(
        lambda: service.call("GetFunctionConfiguration", FunctionName=name, Qualifier=qualifier), moving
    )
    for status, reason in (("State", "StateReason"), ("LastUpdateStatus", "LastUpdateStatusReason")):
        if found.get(status) == "Failed":
            raise FastlamError(f"{name} cannot be used: {found.get(reason, 'no reason is given')}")
    return found


# Changing -----------------------------------------------------------------------------------------


def _update_code(
    service: Service, name: str, current: Mapping[str, Any], code: dict[str, Any], architectures: list[str]
) -> list[str]:
    configuration = current["Configuration"]
    if "ZipFile" in code:
        same = base64.b64encode(hashlib.sha256(code["ZipFile"]).digest()).decode() == configuration["CodeSha256"]
    elif "ImageUri" in code:
        same = code["ImageUri"] == current.get("Code", {}).get("ImageUri")
    else:
        tried = service.call("UpdateFunctionCode", FunctionName=name, DryRun=True, **code)
        same = tried.get("CodeSha256") == configuration["CodeSha256"]
    if same and architectures == configuration.get("Architectures"):
        return []
    service.call("UpdateFunctionCode", FunctionName=name, Architectures=architectures, **code)
    settle(service, name)
    return [f"updated the code of {name}"]


def _update_configuration(
    service: Service, name: str, configuration: Mapping[str, Any], wanted: dict[str, Any]
) -> list[str]:
    complete = service.coerced("UpdateFunctionConfiguration", {**_DEFAULTS, **_logging(name, wanted), **wanted})
    complete["LoggingConfig"] = _logging(name, complete)["LoggingConfig"]
    now = _comparable(configuration)
    if configuration["PackageType"] == "Image":
        complete.setdefault("ImageConfig", {})
    differing = {key: value for key, value in complete.items() if value != now.get(key)}
    if not differing:
        return []
    service.call("UpdateFunctionConfiguration", FunctionName=name, **differing)
    settle(service, name)
    return [f"updated {name}: {_change(key, now.get(key), value)}" for key, value in sorted(differing.items())]


def _logging(name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """As the function shows it: with the levels that JSON has, and the group that it gets by default."""
    given = dict(wanted.get("LoggingConfig") or {})
    given.setdefault("LogFormat", "Text")
    given.setdefault("LogGroup", f"/aws/lambda/{name}")
    if given["LogFormat"] == "JSON":
        given.setdefault("ApplicationLogLevel", "INFO")
        given.setdefault("SystemLogLevel", "INFO")
    return {"LoggingConfig": given}


def _comparable(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in the form of a request for it."""
    found = {key: configuration[key] for key in _CHANGEABLE if key in configuration}
    found["Environment"] = {"Variables": (configuration.get("Environment") or {}).get("Variables") or {}}
    found["Layers"] = [layer["Arn"] for layer in configuration.get("Layers") or []]
    vpc = configuration.get("VpcConfig") or {}
    found["VpcConfig"] = {key: vpc.get(key) or [] for key in ("SubnetIds", "SecurityGroupIds")}
    if vpc.get("Ipv6AllowedForDualStack"):
        found["VpcConfig"]["Ipv6AllowedForDualStack"] = True
    found["SnapStart"] = {"ApplyOn": (configuration.get("SnapStart") or {}).get("ApplyOn", "None")}
    found["ImageConfig"] = (configuration.get("ImageConfigResponse") or {}).get("ImageConfig") or {}
    return {**_DEFAULTS, **found}


def _change(key: str, old: Any, new: Any) -> str:
    if key == "Environment":  # values may be secrets
        return f"environment variables are now {', '.join(sorted(new['Variables'])) or 'none'}"
    return f"{key} {old} -> {new}"


def _update_tags(service: Service, name: str, current: Mapping[str, Any], tags: dict[str, str]) -> list[str]:
    before = current.get("Tags") or {}
    if before == tags:
        return []
    arn = current["Configuration"]["FunctionArn"]
    gone = sorted(before.keys() - tags.keys())
    new = {key: value for key, value in tags.items() if before.get(key) != value}
    if gone:
        service.call("UntagResource", Resource=arn, TagKeys=gone)
    if new:
        service.call("TagResource", Resource=arn, Tags=new)
    return [f"updated the tags of {name}"]


def _apart(service: Service, name: str, current: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """What has operations of its own."""
    changes = _update_concurrency(service, name, current, given.get("ReservedConcurrentExecutions"))
    for operation, key, wanted in (
        ("FunctionRecursionConfig", "RecursiveLoop", {"RecursiveLoop": given.get("RecursiveLoop")}),
        ("RuntimeManagementConfig", "RuntimeManagementConfig", given.get("RuntimeManagementConfig")),
        (
            "FunctionCodeSigningConfig",
            "CodeSigningConfigArn",
            {"CodeSigningConfigArn": given.get("CodeSigningConfigArn")},
        ),
    ):
        if given.get(key) is None or not isinstance(wanted, dict):
            continue
        now = service.call(f"Get{operation}", FunctionName=name)
        if any(now.get(member) != value for member, value in wanted.items()):
            service.call(f"Put{operation}", FunctionName=name, **wanted)
            changes.append(f"updated {name}: {key}")
    return changes


def _update_concurrency(service: Service, name: str, current: Mapping[str, Any], given: Any) -> list[str]:
    member = "ReservedConcurrentExecutions"
    wanted = service.coerced("PutFunctionConcurrency", {member: given}).get(member)
    now = (current.get("Concurrency") or {}).get(member)
    if wanted == now:
        return []
    if wanted is None:
        service.call("DeleteFunctionConcurrency", FunctionName=name)
        return [f"{name} has no reserved concurrency any more"]
    service.call("PutFunctionConcurrency", FunctionName=name, ReservedConcurrentExecutions=wanted)
    return [f"reserved a concurrency of {wanted} for {name}"]


def _tags(where: str, given: Any) -> dict[str, str]:
    """A mapping as SAM has it, or CloudFormation's list of keys and values."""
    if isinstance(given, dict):
        return {key: str(value) for key, value in given.items()}
    try:
        return {str(tag["Key"]): str(tag["Value"]) for tag in given or ()}
    except (KeyError, TypeError):
        raise TemplateError(f"{where}: Tags are a mapping, or a list of Key and Value.") from None
