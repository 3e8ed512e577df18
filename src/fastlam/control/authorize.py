"""Who calls, and the one question that is asked before anything is done for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple


class Caller(NamedTuple):
    """The identity behind one request."""

    account: str
    principal: str  # ARN of a user or role, or the name of a service
    region: str  # where the request is addressed to
    source_arn: str | None = None  # the resource on whose behalf a service calls


Authorize = Callable[[Caller, str, str], None]
"""`authorize(caller, action, resource)` raises ApiError 403 or returns."""


def authorize(caller: Caller, action: str, resource: str) -> None:
    """The default: everybody may do everything with what is in their account."""


_ACTIONS: Final = {
    "Invoke": "InvokeFunction",
    "InvokeAsync": "InvokeFunction",
    "InvokeWithResponseStream": "InvokeFunction",
    "GetLayerVersionByArn": "GetLayerVersion",
}


def action_of(operation: str) -> str:
    """The IAM action that an operation asks for."""
    return f"lambda:{_ACTIONS.get(operation, operation)}"
