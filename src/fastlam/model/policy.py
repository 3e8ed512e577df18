"""The resource policy record: who besides its owner may use a function, a version or an alias."""

from __future__ import annotations

from typing import Any

import msgspec

from fastlam.model.key import RecordKey


class PolicyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The policy of one ARN: the function's unqualified one, or one with a qualifier. Each has a policy of its own."""

    account: str
    region: str
    function: str
    qualifier: str = ""  # a version, $LATEST or an alias; "": the unqualified ARN
    document: dict[str, Any]  # as IAM writes it; Statement is a list of at least one

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.function, self.qualifier)

    @property
    def statements(self) -> list[dict[str, Any]]:
        statements: list[dict[str, Any]] = self.document["Statement"]
        return statements
