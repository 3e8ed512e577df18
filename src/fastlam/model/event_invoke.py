"""The event invoke record: what becomes of the asynchronous events of one function, version or alias."""

from __future__ import annotations

import msgspec

from fastlam.arn import function_arn
from fastlam.model.key import RecordKey


class EventInvokeRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The settings of one qualifier; events sent through another one do not see them."""

    account: str
    region: str
    function: str
    qualifier: str  # $LATEST, which stands for no qualifier too; a version; an alias
    maximum_retry_attempts: int | None = None
    maximum_event_age_seconds: int | None = None
    on_success_arn: str = ""
    on_failure_arn: str = ""
    last_modified: float  # seconds since 1970

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.function, self.qualifier)

    @property
    def arn(self) -> str:
        return function_arn(self.region, self.account, self.function, self.qualifier)
