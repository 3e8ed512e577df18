"""AWS::Lambda::Permission and AWS::Lambda::Url."""

from __future__ import annotations

from typing import Any, Final

from fastlam.deploy.made import Context, Made, check_properties
from fastlam.deploy.statements import grant

_PERMISSION: Final = frozenset(
    {
        "Action",
        "EventSourceToken",
        "FunctionName",
        "FunctionUrlAuthType",
        "InvokedViaFunctionUrl",
        "Principal",
        "PrincipalOrgID",
        "SourceAccount",
        "SourceArn",
    }
)
_URL: Final = frozenset({"AuthType", "Cors", "InvokeMode", "Qualifier", "TargetFunctionArn"})


def make_permission(context: Context, where: str, given: dict[str, Any]) -> Made:
    check_properties(where, given, _PERMISSION, ("Action", "FunctionName", "Principal"))
    wanted = {key: value for key, value in given.items() if key != "FunctionName"}
    changes = grant(context.service, "Function", {"FunctionName": given["FunctionName"]}, where, wanted)
    return Made(where, {"Id": where}, changes)


def make_url(context: Context, where: str, given: dict[str, Any]) -> Made:
    check_properties(where, given, _URL, ("AuthType", "TargetFunctionArn"))
    service = context.service
    address = {"FunctionName": given["TargetFunctionArn"], "Qualifier": given.get("Qualifier")}
    wanted = service.coerced(
        "UpdateFunctionUrlConfig",
        {
            "AuthType": given["AuthType"],
            "Cors": given.get("Cors") or {},
            "InvokeMode": given.get("InvokeMode") or "BUFFERED",
        },
    )
    current = service.find("GetFunctionUrlConfig", **address)
    if current is None:
        made = service.call("CreateFunctionUrlConfig", **address, **wanted)
        changes = [f"created {made['FunctionUrl']}"]
    else:
        made, changes = current, []
        if any((current.get(key) or {}) != (value or {}) for key, value in wanted.items()):
            made = service.call("UpdateFunctionUrlConfig", **address, **wanted)
            changes = [f"updated {made['FunctionUrl']}"]
    return Made(made["FunctionArn"], {"FunctionUrl": made["FunctionUrl"], "FunctionArn": made["FunctionArn"]}, changes)
