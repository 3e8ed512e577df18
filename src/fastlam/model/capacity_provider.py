"""Capacity providers, and what the functions that run on one ("managed instances") have of their own."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fastlam.arn import PARTITION
from fastlam.model.function import FunctionRecord
from fastlam.model.key import RecordKey

LATEST_PUBLISHED: Final = "$LATEST.PUBLISHED"
"""The version that is replaced by each publication to it, instead of being followed by another."""

# States beside those of every function.
ACTIVE_NON_INVOCABLE: Final = "ActiveNonInvocable"  # `$LATEST` of a managed function: only what is published runs
DEACTIVATING: Final = "Deactivating"
DEACTIVATED: Final = "Deactivated"
DELETING: Final = "Deleting"


class CapacityProviderRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One capacity provider. Structures are kept in the API's own form."""

    account: str
    region: str
    name: str
    state: str
    vpc_config: dict[str, Any]
    permissions_config: dict[str, Any]
    instance_requirements: dict[str, Any]
    scaling_config: dict[str, Any]
    kms_key_arn: str = ""
    propagate_tags: dict[str, Any]
    telemetry_config: dict[str, Any]
    last_modified: str  # 2025-11-25T02:26:54.123+0000

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.name)

    @property
    def arn(self) -> str:
        return capacity_provider_arn(self.region, self.account, self.name)


def capacity_provider_arn(region: str, account: str, name: str) -> str:
    return f"arn:{PARTITION}:lambda:{region}:{account}:capacity-provider:{name}"


def provider_arn_of(record: FunctionRecord) -> str | None:
    """The capacity provider that a function version runs on, if it does."""
    config = record.capacity_provider_config
    if config is None:
        return None
    arn: str = config["LambdaManagedInstancesCapacityProviderConfig"]["CapacityProviderArn"]
    return arn
