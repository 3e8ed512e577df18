"""What a poller works with: its mapping, the function behind it, the clock, the store of positions, and the words it
leaves for whoever looks at the mapping.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from fastlam.abc import FailureSender, Invoked, Invoker
from fastlam.arn import FunctionAddress
from fastlam.errors import FastlamError
from fastlam.model.event_source_mapping import EventSourceMappingRecord
from fastlam.model.source_position import SourcePositionRecord
from fastlam.sources.aws.service import AwsClients, AwsService
from fastlam.sources.filters import Filters
from fastlam.sources.timing import Timing
from fastlam.store.finding import find
from fastlam.store.records import EVENT_SOURCE_MAPPING, SOURCE_POSITION, RecordStore

NO_RECORDS: Final = "No records processed"
OK: Final = "OK"
CALL_FAILED: Final = "PROBLEM: Function call failed"

_WINDOW_SECONDS: Final = {"self-managed-kafka": 0.5, "msk": 0.5, "mq": 0.5}


class SourceProblem(FastlamError):
    """The source cannot be read now. One sentence, which the mapping shows; the poller is started again later."""


@dataclass
class Counters:
    """Of one mapping, since the daemon's start: the names of Lambda's own metrics of event source mappings."""

    polled: int = 0
    filtered_out: int = 0
    invoked: int = 0
    failed_invoke: int = 0
    dropped: int = 0
    delivered_on_failure: int = 0
    deleted: int = 0
    iterator_age_ms: int = 0  # of the newest batch: the age of its last record when it was read

    def as_dict(self) -> dict[str, int]:
        return {
            "PolledEventCount": self.polled,
            "FilteredOutEventCount": self.filtered_out,
            "InvokedEventCount": self.invoked,
            "FailedInvokeEventCount": self.failed_invoke,
            "DroppedEventCount": self.dropped,
            "OnFailureDestinationDeliveredEventCount": self.delivered_on_failure,
            "DeletedEventCount": self.deleted,
            "IteratorAge": self.iterator_age_ms,
        }


@dataclass(frozen=True)
class Surroundings:
    """What all pollers of a daemon share."""

    store: RecordStore
    invoker: Invoker
    timing: Timing
    aws: AwsClients
    failures: FailureSender
    background: set[asyncio.Task[None]] = field(default_factory=set)  # what pollers leave behind; ends with the daemon


@dataclass
class Context:
    """One poller's, for one life of it: as long as the mapping stays as it is."""

    mapping: EventSourceMappingRecord
    around: Surroundings
    filters: Filters
    counters: Counters
    report: Callable[[str], None]  # the new LastProcessingResult
    reached: Callable[[], None]  # the source answers: the mapping is what it wants to be
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.mapping.settings

    @property
    def arn(self) -> str:
        return self.mapping.event_source_arn

    @property
    def batch_size(self) -> int:
        return int(self.settings["BatchSize"])

    @property
    def window_seconds(self) -> float:
        """The batching window; some sources have half a second unless told otherwise."""
        given = self.settings.get("MaximumBatchingWindowInSeconds")
        return float(given if given is not None else _WINDOW_SECONDS.get(self.mapping.source, 0.0))

    @property
    def reports_items(self) -> bool:
        return "ReportBatchItemFailures" in (self.settings.get("FunctionResponseTypes") or ())

    @property
    def address(self) -> FunctionAddress:
        mapping = self.mapping
        return FunctionAddress(mapping.account, mapping.region, mapping.function, mapping.qualifier)

    @property
    def timing(self) -> Timing:
        return self.around.timing

    async def invoke(self, payload: bytes, request_id: str | None = None) -> Invoked:
        return await self.around.invoker.invoke(
            self.address, payload, source_arn=self.mapping.arn, request_id=request_id
        )

    @property
    def role(self) -> str:
        """The execution role of the function as it is now; "" when there is no function."""
        found = find(self.around.store, self.address)
        return "" if found is None else found.record.role

    @property
    def timeout_seconds(self) -> float:
        """The function's; 0 when there is none."""
        found = find(self.around.store, self.address)
        return 0.0 if found is None else float(found.record.timeout_seconds)

    async def aws(self, service: str, *, plain: bool = False) -> AwsService:
        """A client of a service in the source's region, as the function's role."""
        return await self.around.aws.client(
            service, self.mapping.region, "" if plain else self.role, "" if plain else self.mapping.function[:64]
        )

    # Positions

    def position(self, shard: str) -> SourcePositionRecord | None:
        return self.around.store.get(SOURCE_POSITION, self.mapping.key._replace(part=shard))

    def save(self, shard: str, position: str, *, finished: bool = False, window: dict[str, Any] | None = None) -> None:
        """Kept before the next batch of the shard is sent. Nothing is kept for a mapping that is gone."""
        mapping = self.mapping
        record = SourcePositionRecord(
            account=mapping.account,
            region=mapping.region,
            uuid=mapping.uuid,
            shard=shard,
            position=position,
            finished=finished,
            window=window,
        )
        if self.around.store.get(EVENT_SOURCE_MAPPING, mapping.key) is not None:
            self.around.store.put(SOURCE_POSITION, record)


class Poller(Protocol):
    """Reads one source for one mapping."""

    async def run(self) -> None:
        """Until `stopping` is set and what is in flight has ended, or until it is cancelled. Raises SourceProblem,
        AwsError, NoAnswer or OSError when the source cannot be read.
        """


MakePoller = Callable[[Context], Poller]
