"""How the provisioned concurrency of a version or alias follows its use, and the calendar."""

from __future__ import annotations

import msgspec

from fastlam.model.key import RecordKey


class ScheduledAction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """At these times the bounds become others, and the concurrency is brought within them."""

    name: str
    schedule: str  # see model.schedule
    minimum: int | None = None  # None: as it is
    maximum: int | None = None


class AutoScalingRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The setting for one version or alias. Without a `target_utilization` only scheduled actions change anything."""

    account: str
    region: str
    function: str
    qualifier: str
    minimum: int
    maximum: int
    target_utilization: float | None = None  # 0 to 1, of the environments made ahead
    period_seconds: float = 60.0  # between two looks at the utilization
    scheduled: tuple[ScheduledAction, ...] = ()
    created_ms: int = 0  # of the setting: rates count from it

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.function, self.qualifier)
