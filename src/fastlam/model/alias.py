"""The alias record: a name for one published version, or for two with weights."""

from __future__ import annotations

import msgspec

from fastlam.arn import function_arn
from fastlam.model.key import RecordKey


class AliasRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One alias of one function."""

    account: str
    region: str
    function: str
    name: str
    function_version: str
    additional_weights: dict[str, float] = {}  # at most one: the version that takes this part of the invocations
    description: str = ""
    revision_id: str

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.function, self.name)

    @property
    def arn(self) -> str:
        return function_arn(self.region, self.account, self.function, self.name)

    @property
    def versions(self) -> frozenset[str]:
        """Every version that this alias leads to."""
        return frozenset({self.function_version, *self.additional_weights})
