"""Settings of auto scaling: a matter of this machine, asked for through the daemon's own routes. (AWS has them in
another service, Application Auto Scaling.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fastlam import limits
from fastlam.clock import Clock
from fastlam.errors import invalid_parameter, not_found
from fastlam.model import schedule
from fastlam.model.autoscaling import AutoScalingRecord
from fastlam.model.key import RecordKey
from fastlam.store.records import ALIAS, AUTO_SCALING, VERSION, RecordStore


class AutoScaling:
    """Owner of the settings. Lives in the thread of the store."""

    def __init__(self, store: RecordStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def put(self, key: RecordKey, setting: Mapping[str, Any]) -> AutoScalingRecord:
        """Of a version or alias that exists; a setting replaces the one before. Raises ApiError."""
        if self._store.get(VERSION, key) is None and self._store.get(ALIAS, key) is None:
            raise not_found(f"There is no version or alias {key.name}:{key.part}.")
        own = {
            "account": key.account,
            "region": key.region,
            "function": key.name,
            "qualifier": key.part,
            "created_ms": self._clock.wall_ms(),
        }
        try:
            record = msgspec.convert({**setting, **own}, AutoScalingRecord)
            for action in record.scheduled:
                schedule.parse(action.schedule)
        except (msgspec.ValidationError, ValueError) as error:
            raise invalid_parameter(str(error)) from None
        if not 1 <= record.minimum <= record.maximum:
            raise invalid_parameter("`minimum` is at least 1, and `maximum` no less than that.")
        for action in record.scheduled:
            minimum, maximum = action.minimum, action.maximum
            if any(bound is not None and bound < 1 for bound in (minimum, maximum)) or (
                minimum is not None and maximum is not None and minimum > maximum
            ):
                raise invalid_parameter(f"{action.name}: `minimum` is at least 1, and `maximum` no less than that.")
        if record.target_utilization is not None and not 0.1 <= record.target_utilization <= 0.9:
            raise invalid_parameter("`target_utilization` is between 0.1 and 0.9.")
        if not record.period_seconds >= limits.AUTO_SCALING_PERIOD_SECONDS_MIN:
            raise invalid_parameter(f"`period_seconds` is at least {limits.AUTO_SCALING_PERIOD_SECONDS_MIN}.")
        self._store.put(AUTO_SCALING, record)
        return record

    def delete(self, key: RecordKey) -> None:
        """The provisioned concurrency stays as it is."""
        if not self._store.delete(AUTO_SCALING, key):
            raise not_found(f"There is no auto scaling for {key.name}:{key.part}.")

    def list(self) -> list[AutoScalingRecord]:
        return self._store.all(AUTO_SCALING)
