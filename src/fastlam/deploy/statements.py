"""Statements of resource policies, as what AddPermission was asked for and back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fastlam.deploy.service import Service

# Operator and key of a condition -> the property that makes it.
_CONDITIONS: Final = {
    ("ArnLike", "aws:sourcearn"): "SourceArn",
    ("StringEquals", "aws:sourceaccount"): "SourceAccount",
    ("StringEquals", "aws:principalorgid"): "PrincipalOrgID",
    ("StringEquals", "lambda:eventsourcetoken"): "EventSourceToken",
    ("StringEquals", "lambda:functionurlauthtype"): "FunctionUrlAuthType",
    ("Bool", "lambda:invokedviafunctionurl"): "InvokedViaFunctionUrl",
}
_ROOT: Final = re.compile(r"arn:[a-z-]+:iam::(\d{12}):root")


def statements(service: Service, operation: str, **resource: Any) -> list[dict[str, Any]]:
    """Of the policy of a function, version, alias or layer version."""
    found = service.find(operation, **resource)
    if found is None:
        return []
    listed = json.loads(found["Policy"]).get("Statement") or []
    return listed if isinstance(listed, list) else [listed]


def properties_of(statement: Mapping[str, Any]) -> dict[str, Any] | None:
    """What AddPermission was given for a statement; None where it cannot have made it."""
    principal, action = statement.get("Principal"), statement.get("Action")
    if isinstance(principal, dict) and len(principal) == 1:
        (principal,) = principal.values()
    if statement.get("Effect") != "Allow" or not isinstance(principal, str) or not isinstance(action, str):
        return None
    account = _ROOT.fullmatch(principal)
    found: dict[str, Any] = {"Action": action, "Principal": account[1] if account else principal}
    for operator, keys in (statement.get("Condition") or {}).items():
        for key, value in keys.items():
            name = _CONDITIONS.get((operator, key.lower()))
            if name is None or not isinstance(value, (str, bool)):
                return None
            found[name] = str(value).lower() == "true" if name == "InvokedViaFunctionUrl" else value
    return found


def grant(service: Service, kind: str, resource: dict[str, Any], sid: str, wanted: Mapping[str, Any]) -> list[str]:
    """Add the statement unless there is one that says the same; `sid` is its id if it is new, or has changed."""
    add = "AddLayerVersionPermission" if kind == "LayerVersion" else "AddPermission"
    present = statements(service, "GetLayerVersionPolicy" if kind == "LayerVersion" else "GetPolicy", **resource)
    asked = _comparable(service.coerced(add, wanted))
    if any(_comparable(properties_of(one)) == asked for one in present):
        return []
    if sid in _sids(present):
        service.call(add.replace("Add", "Remove"), StatementId=sid, **resource)
    service.call(add, StatementId=sid, **resource, **wanted)
    return [f"allowed {wanted['Principal']} to {wanted['Action']}"]


def _comparable(properties: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if properties is None:
        return None
    found = dict(properties)
    account = _ROOT.fullmatch(str(found.get("Principal")))
    if account:
        found["Principal"] = account[1]
    if "OrganizationId" in found:
        found["PrincipalOrgID"] = found.pop("OrganizationId")
    return found


def _sids(present: Iterable[Mapping[str, Any]]) -> set[Any]:
    return {one.get("Sid") for one in present}
