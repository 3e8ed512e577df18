"""Numbers that are never given twice: the last one of each series, which outlives what the numbers were given to."""

from __future__ import annotations

import msgspec

from fastlam.model.key import RecordKey


class CounterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The last number of one series: `function:<name>` counts versions, `layer:<name>` those of a layer."""

    account: str
    region: str
    series: str
    last: int

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.series)
