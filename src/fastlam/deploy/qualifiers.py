"""AWS::Lambda::Version and AWS::Lambda::Alias."""

from __future__ import annotations

from typing import Any, Final

from fastlam.deploy.functions import settle
from fastlam.deploy.made import Context, Made, check_properties
from fastlam.deploy.service import Service
from fastlam.deploy.template import TemplateError

_VERSION: Final = frozenset({"CodeSha256", "Description", "FunctionName", "ProvisionedConcurrencyConfig"})
_ALIAS: Final = frozenset(
    {"Description", "FunctionName", "FunctionVersion", "Name", "ProvisionedConcurrencyConfig", "RoutingConfig"}
)


def make_version(context: Context, where: str, given: dict[str, Any]) -> Made:
    """Publishes; a function that has not changed since keeps its newest version."""
    check_properties(where, given, _VERSION, ("FunctionName",))
    service, function = context.service, given["FunctionName"]
    before = {one["Version"] for one in service.all("ListVersionsByFunction", "Versions", FunctionName=function)}
    published = service.call(
        "PublishVersion",
        FunctionName=function,
        Description=given.get("Description"),
        CodeSha256=given.get("CodeSha256"),
    )
    name, number, arn = published["FunctionName"], published["Version"], published["FunctionArn"]
    settle(service, name, number)
    changes = [] if number in before else [f"published {name}:{number}"]
    changes += _provision(service, name, number, given.get("ProvisionedConcurrencyConfig"))
    return Made(arn, {"Version": number, "FunctionArn": arn}, changes)


def make_alias(context: Context, where: str, given: dict[str, Any]) -> Made:
    check_properties(where, given, _ALIAS, ("FunctionName", "FunctionVersion", "Name"))
    service, function, name = context.service, given["FunctionName"], str(given["Name"])
    wanted = {
        "FunctionVersion": str(given["FunctionVersion"]),
        "Description": given.get("Description") or "",
        "RoutingConfig": {"AdditionalVersionWeights": _weights(where, given.get("RoutingConfig"))},
    }
    current = service.find("GetAlias", FunctionName=function, Name=name)
    if current is None:
        made = service.call("CreateAlias", FunctionName=function, Name=name, **wanted)
        changes = [f"created alias {name} for version {made['FunctionVersion']}"]
    else:
        routing = (current.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
        now = {**current, "RoutingConfig": {"AdditionalVersionWeights": routing}}
        made, changes = current, []
        if any(now.get(key) != value for key, value in wanted.items()):
            made = service.call("UpdateAlias", FunctionName=function, Name=name, **wanted)
            changes = [f"updated alias {name}: {_shown(current)} -> {_shown(made)}"]
    changes += _provision(service, function, name, given.get("ProvisionedConcurrencyConfig"))
    return Made(made["AliasArn"], {"AliasArn": made["AliasArn"]}, changes)


def _weights(where: str, routing: Any) -> dict[str, float]:
    """CloudFormation has a list where the API has a mapping."""
    try:
        items = (routing or {}).get("AdditionalVersionWeights") or []
        if isinstance(items, dict):
            return {str(version): float(weight) for version, weight in items.items()}
        return {str(item["FunctionVersion"]): float(item["FunctionWeight"]) for item in items}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise TemplateError(
            f"{where}: AdditionalVersionWeights is a list of FunctionVersion and FunctionWeight."
        ) from None


def _shown(alias: dict[str, Any]) -> str:
    """`version 2, 1 with 0.1`."""
    weights = (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
    return ", ".join(
        (f"version {alias['FunctionVersion']}", *(f"{one} with {weight:g}" for one, weight in weights.items()))
    )


def _provision(service: Service, function: str, qualifier: str, config: Any) -> list[str]:
    wanted = (config or {}).get("ProvisionedConcurrentExecutions")
    current = service.find("GetProvisionedConcurrencyConfig", FunctionName=function, Qualifier=qualifier)
    now = (current or {}).get("RequestedProvisionedConcurrentExecutions")
    if str(wanted) == str(now):
        return []
    if wanted is None:
        service.call("DeleteProvisionedConcurrencyConfig", FunctionName=function, Qualifier=qualifier)
        return [f"{qualifier} has no provisioned concurrency any more"]
    service.call(
        "PutProvisionedConcurrencyConfig",
        FunctionName=function,
        Qualifier=qualifier,
        ProvisionedConcurrentExecutions=wanted,
    )
    return [f"provisioned a concurrency of {wanted} for {qualifier}"]
