"""What is delivered, and how a delivery fails."""

from __future__ import annotations

from typing import Final

import msgspec

from fastlam.errors import FastlamError

UNREACHABLE: Final = "unreachable"  # nobody answers, or not now
REFUSED: Final = "refused"  # who answers will not have it: no such queue, no permission
IMPOSSIBLE: Final = "impossible"  # nobody will ever have it: too large


class Parcel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record or event on its way. All but the target is said of the function that it is sent for."""

    target_arn: str
    body: bytes  # JSON
    account: str
    region: str
    function_arn: str  # with its qualifier
    role_arn: str = ""
    succeeded: bool = False  # what EventBridge is told
    attributes: dict[str, tuple[str, str]] = {}  # of a message to a queue or topic: data type and value by name
    trace: str = ""  # X-Ray header, for who takes one
    object_key: str = ""  # in a bucket

    @property
    def service(self) -> str:
        """The kind of the target, as ARNs call it."""
        return service_of(self.target_arn)


class DeliveryError(FastlamError):
    """An attempt that came to nothing. `kind` tells whether another one may fare better."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def service_of(arn: str) -> str:
    return arn.split(":", 3)[2] if arn.count(":") >= 3 else ""


def region_of(parcel: Parcel) -> str:
    """The target's, where its ARN names one."""
    return parcel.target_arn.split(":", 4)[3] or parcel.region


def account_of(arn: str) -> str:
    return arn.split(":", 5)[4]


def resource_of(arn: str) -> str:
    return arn.split(":", 5)[5]
