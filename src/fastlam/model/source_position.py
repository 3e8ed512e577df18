"""The source position record: how far a mapping has come in one shard, partition or stream of its source."""

from __future__ import annotations

from typing import Any

import msgspec

from fastlam.model.key import RecordKey


class SourcePositionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lies before the position has been dealt with: delivered, filtered out or given up."""

    account: str
    region: str
    uuid: str  # of the mapping
    shard: str
    position: str  # the last that is done, in the source's own words; "": none yet
    finished: bool = False  # the shard is closed, and nothing of it is left
    window: dict[str, Any] | None = None  # the tumbling window that is open: its start (ms) and its state

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.uuid, self.shard)
