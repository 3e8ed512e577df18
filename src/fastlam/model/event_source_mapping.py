"""The event source mapping record: a queue or a stream whose records go to a function."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fastlam.arn import PARTITION, function_arn
from fastlam.model.key import RecordKey

CREATING: Final = "Creating"
ENABLING: Final = "Enabling"
ENABLED: Final = "Enabled"
DISABLING: Final = "Disabling"
DISABLED: Final = "Disabled"
UPDATING: Final = "Updating"
DELETING: Final = "Deleting"


class EventSourceMappingRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One mapping. It is not bound to its function, and stays when that is deleted."""

    account: str
    region: str
    uuid: str
    source: str  # its kind (control/event_sources.py)
    event_source_arn: str = ""  # "" for a self-managed cluster
    function: str
    qualifier: str | None = None  # as the client gave it: None is not $LATEST
    enabled: bool = True  # what the present transition leads to
    state: str
    state_transition_reason: str
    last_processing_result: str | None = None  # None: such sources report none
    last_modified: float  # seconds since 1970
    settings: dict[str, Any]  # by API member: BatchSize, FilterCriteria ...; defaults included

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.uuid)

    @property
    def resource(self) -> str:
        """The end of its ARN, from the type on."""
        return f"event-source-mapping:{self.uuid}"

    @property
    def arn(self) -> str:
        return f"arn:{PARTITION}:lambda:{self.region}:{self.account}:{self.resource}"

    @property
    def function_arn(self) -> str:
        return function_arn(self.region, self.account, self.function, self.qualifier)

    @property
    def settled(self) -> bool:
        """Not in transition."""
        return self.state in (ENABLED, DISABLED)
