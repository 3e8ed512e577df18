"""Provisioned concurrency: how many environments one version or alias is to have ready, and how far that has come."""

from __future__ import annotations

from typing import Final

import msgspec

from fastlam.arn import function_arn
from fastlam.model.key import RecordKey

ALLOCATING: Final = "IN_PROGRESS"
READY: Final = "READY"
FAILED: Final = "FAILED"
INIT_FAILED: Final = "FUNCTION_ERROR_INIT_FAILURE"  # a reason


class ProvisionedConcurrencyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The configuration of one version or alias."""

    account: str
    region: str
    function: str
    qualifier: str
    requested: int
    allocated: int = 0  # of these, what calls are promised, or as far as it has come
    available: int = 0  # environments whose INIT is over
    status: str = ALLOCATING
    status_reason: str | None = None
    last_modified: str  # of the request: 2026-09-28T09:33:40+0000

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.function, self.qualifier)

    @property
    def arn(self) -> str:
        return function_arn(self.region, self.account, self.function, self.qualifier)
