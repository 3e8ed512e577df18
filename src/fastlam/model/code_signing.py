"""Code signing: configurations that name the publishers whose packages are trusted, and which function has which."""

from __future__ import annotations

from typing import Final

import msgspec

from fastlam.arn import PARTITION, function_arn
from fastlam.model.key import RecordKey

WARN: Final = "Warn"
ENFORCE: Final = "Enforce"


class CodeSigningConfigRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One configuration."""

    account: str
    region: str
    config_id: str  # csc-<17 characters>
    publishers: tuple[str, ...]  # ARNs of signing profile versions
    policy: str = WARN
    description: str = ""
    last_modified: str  # 2025-11-25T02:26:54.123Z

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.config_id)

    @property
    def arn(self) -> str:
        return f"arn:{PARTITION}:lambda:{self.region}:{self.account}:code-signing-config:{self.config_id}"


class FunctionCodeSigningRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration that one function's packages are held against."""

    account: str
    region: str
    function: str
    config_arn: str

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.function)

    @property
    def function_arn(self) -> str:
        return function_arn(self.region, self.account, self.function)
