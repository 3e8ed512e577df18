"""What a caller asks to act on, as the ARN that permissions are written for (AWS: "Actions, resources, and condition
keys for AWS Lambda").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastlam.api.permissions import addressed
from fastlam.arn import PARTITION
from fastlam.control.authorize import Caller

EVERYTHING: Final = "*"

# Lists, and what makes resources whose ids are the service's to choose, are permitted or not as a whole.
_OF_EVERYTHING: Final = frozenset({"CreateEventSourceMapping", "CreateCodeSigningConfig", "GetAccountSettings"})
# Lists of what belongs to one resource.
_LISTS_OF_ONE: Final = frozenset(
    {
        "ListAliases",
        "ListDurableExecutionsByFunction",
        "ListFunctionEventInvokeConfigs",
        "ListFunctionUrlConfigs",
        "ListFunctionVersionsByCapacityProvider",
        "ListFunctionsByCodeSigningConfig",
        "ListProvisionedConcurrencyConfigs",
        "ListTags",
        "ListVersionsByFunction",
    }
)

# Members that hold the ARN itself.
_ARNS: Final = ("ResourceArn", "Resource", "Arn", "CodeSigningConfigArn", "DurableExecutionArn")


def resource_of(caller: Caller, operation: str, parameters: Mapping[str, Any]) -> str:
    """The ARN, as addressed; "*" where there is none."""
    if operation in _OF_EVERYTHING or (operation.startswith("List") and operation not in _LISTS_OF_ONE):
        return EVERYTHING
    address = addressed(caller, operation, parameters)
    if address is not None:
        return address.arn
    for member in _ARNS:
        if isinstance(parameters.get(member), str):
            return str(parameters[member])
    for member, kind in (
        ("UUID", "event-source-mapping"),
        ("LayerName", "layer"),
        ("CapacityProviderName", "capacity-provider"),
    ):
        name = parameters.get(member)
        if isinstance(name, str):
            arn = name if name.startswith("arn:") else _arn(caller, kind, name)
            version = parameters.get("VersionNumber")
            return arn if version is None else f"{arn}:{version}"
    return EVERYTHING


def _arn(caller: Caller, kind: str, name: str) -> str:
    return f"arn:{PARTITION}:lambda:{caller.region}:{caller.account}:{kind}:{name}"
