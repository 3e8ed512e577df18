"""Event source mappings: which queue or stream goes to which function.

    CreateEventSourceMapping ── Creating ──(a moment)──► Enabled, or Disabled
    UpdateEventSourceMapping ── Updating, Enabling, Disabling ──(a moment)──► Enabled, or Disabled
    DeleteEventSourceMapping ── Deleting ──(a moment)──► gone

The moment ends when the engine of the sources says so (`settle`): its poller has reached the source, or has stopped.
Where nobody polls the moments are scheduled. A mapping that a stopped process left in between is settled when its
successor starts. In between a mapping can be read, not changed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final
from uuid import uuid4

from msgspec.structs import replace

from fastlam import limits
from fastlam.arn import FunctionAddress
from fastlam.clock import Clock, Schedule, SystemClock
from fastlam.control.authorize import Caller
from fastlam.control.event_sources import (
    QUEUES,
    SOURCES,
    Source,
    already_exists,
    changed,
    duplicates,
    initial,
    source_of,
)
from fastlam.control.lookup import address_of, find
from fastlam.control.pages import Page, page
from fastlam.control.settings import Request
from fastlam.control.steps import Steps, complete
from fastlam.control.tags import Tags
from fastlam.control.tenancy import refuse_tenancy
from fastlam.control.times import epoch_seconds
from fastlam.errors import ApiError, conflict, invalid_parameter, not_found
from fastlam.model.event_source_mapping import (
    CREATING,
    DELETING,
    DISABLED,
    DISABLING,
    ENABLED,
    ENABLING,
    UPDATING,
    EventSourceMappingRecord,
)
from fastlam.model.key import RecordKey
from fastlam.store.records import EVENT_SOURCE_MAPPING, SOURCE_POSITION, RecordStore, Write

_RESOURCE: Final = "event-source-mapping"
_MAPPINGS_PER_PAGE_MAX: Final = 100


class EventSourceMappings:
    """Owner of the event source mapping records. Lives in the thread of the store."""

    def __init__(
        self, store: RecordStore, schedule: Schedule, tags: Tags, clock: Clock | None = None, *, polled: bool = False
    ) -> None:
        self._store = store
        self._polled = polled  # by an engine, which settles them
        # Set where there is one: raises ApiError for a source that is not there; called on a worker thread.
        self.check_source: Callable[[EventSourceMappingRecord], None] | None = None
        self._schedule = schedule
        self._tags = tags
        self._clock = clock or SystemClock()
        tags.register(_RESOURCE, lambda key: store.get(EVENT_SOURCE_MAPPING, key) is not None)
        for mapping in store.all(EVENT_SOURCE_MAPPING) if not polled else ():
            self.settle(mapping.key)

    def create(self, caller: Caller, request: Request) -> EventSourceMappingRecord:
        return complete(self.create_steps(caller, request))

    def create_steps(self, caller: Caller, request: Request) -> Steps[EventSourceMappingRecord]:
        """The source is asked in between, which takes its time."""
        address = address_of(caller, request, "CreateEventSourceMapping")
        source = source_of(request, caller.region)
        uuid = str(uuid4())
        now_seconds = epoch_seconds(self._clock)
        settings = initial(source, request, uuid=uuid, now_seconds=now_seconds)
        self._check_function(address)
        enabled = request.get("Enabled") is not False
        mapping = EventSourceMappingRecord(
            account=caller.account,
            region=caller.region,
            uuid=uuid,
            source=source.kind,
            event_source_arn=request.get("EventSourceArn") or "",
            function=address.name,
            qualifier=address.qualifier,
            enabled=enabled,
            # A queue that is not to be read needs no poller first.
            state=CREATING if enabled or source not in QUEUES else DISABLED,
            state_transition_reason=source.transition_reason,
            last_processing_result=None if source in QUEUES else "No records processed",
            last_modified=now_seconds,
            settings=settings,
        )
        self._refuse_duplicate(mapping)
        if self.check_source is not None:
            yield partial(self.check_source, mapping)
            # Whatever has changed meanwhile.
            self._check_function(address)
            self._refuse_duplicate(mapping)
        tags = self._tags.new(_RESOURCE, mapping.key, request.get("Tags"))
        self._store.apply([Write(EVENT_SOURCE_MAPPING, mapping.key, mapping), *tags])
        self._settle_later(mapping)
        return mapping

    def get(self, caller: Caller, request: Request) -> EventSourceMappingRecord:
        mapping = self._store.get(EVENT_SOURCE_MAPPING, _key(caller, request))
        if mapping is None:
            raise not_found("The resource you requested does not exist.")
        return mapping

    def update(self, caller: Caller, request: Request) -> EventSourceMappingRecord:
        mapping = self.get(caller, request)
        if not mapping.settled:
            raise _in_use("update")
        source = SOURCES[mapping.source]
        address = FunctionAddress(mapping.account, mapping.region, mapping.function, mapping.qualifier)
        if request.get("FunctionName") is not None:
            address = address_of(caller, request, "UpdateEventSourceMapping")
        settings = changed(source, mapping.settings, request)
        self._check_function(address)
        enabled = mapping.enabled if request.get("Enabled") is None else request["Enabled"]
        updated = replace(
            mapping,
            function=address.name,
            qualifier=address.qualifier,
            enabled=enabled,
            state=_state_of_update(source, mapping, enabled),
            state_transition_reason=source.transition_reason,
            last_modified=epoch_seconds(self._clock),
            settings=settings,
        )
        self._refuse_duplicate(updated)
        self._store.put(EVENT_SOURCE_MAPPING, updated)
        self._settle_later(updated)
        return updated

    def delete(self, caller: Caller, request: Request) -> EventSourceMappingRecord:
        mapping = self.get(caller, request)
        if not mapping.settled:
            raise _in_use("delete")
        deleting = replace(mapping, state=DELETING, last_modified=epoch_seconds(self._clock))
        self._store.put(EVENT_SOURCE_MAPPING, deleting)
        self._settle_later(deleting)
        return deleting

    def list(self, caller: Caller, request: Request) -> Page[EventSourceMappingRecord]:
        """By id; of a function only those with exactly the given target, whether that exists or not."""
        mappings = self._store.list(EVENT_SOURCE_MAPPING, caller.account, caller.region)
        if request.get("EventSourceArn") is not None:
            mappings = [mapping for mapping in mappings if mapping.event_source_arn == request["EventSourceArn"]]
        if request.get("FunctionName") is not None:
            target = address_of(caller, request, "ListEventSourceMappings").arn
            mappings = [mapping for mapping in mappings if mapping.function_arn == target]
        return page(request, mappings, lambda mapping: mapping.uuid, items_max=_MAPPINGS_PER_PAGE_MAX)

    # What the engine of the sources says ---------------------------------------------------------------

    def settle(self, key: RecordKey) -> None:
        """The mapping is what it was to become; nothing when it was that already."""
        mapping = self._store.get(EVENT_SOURCE_MAPPING, key)
        if mapping is None or mapping.settled:
            return
        if mapping.state == DELETING:
            positions = [Write(SOURCE_POSITION, each.key, None) for each in self._store.parts(SOURCE_POSITION, key)]
            self._store.apply([Write(EVENT_SOURCE_MAPPING, key, None), self._tags.gone(_RESOURCE, key), *positions])
        else:
            self._store.put(EVENT_SOURCE_MAPPING, replace(mapping, state=ENABLED if mapping.enabled else DISABLED))

    def report(self, key: RecordKey, result: str | None) -> None:
        """A new LastProcessingResult. Queues of SQS have none, as in Lambda, but while there is a problem."""
        mapping = self._store.get(EVENT_SOURCE_MAPPING, key)
        if mapping is None:
            return
        if SOURCES[mapping.source] in QUEUES and result is not None and not result.startswith("PROBLEM"):
            result = None
        if mapping.last_processing_result != result:
            self._store.put(EVENT_SOURCE_MAPPING, replace(mapping, last_processing_result=result))

    # Inside ----------------------------------------------------------------------------------------

    def _check_function(self, address: FunctionAddress) -> None:
        found = find(self._store, address)
        if found is None:
            raise invalid_parameter("Function does not exist")
        refuse_tenancy(found.record, "An event source mapping")
        durable = found.record.durable_config
        if durable is None:
            return
        if address.qualifier is None:
            raise invalid_parameter("The function name of a durable function must include a version or an alias.")
        if (durable.get("ExecutionTimeout") or 0) > limits.TIMEOUT_SECONDS_MAX:
            raise invalid_parameter(
                "The execution timeout of a durable function with an event source must not exceed"
                f" {limits.TIMEOUT_SECONDS_MAX} seconds."
            )

    def _refuse_duplicate(self, mapping: EventSourceMappingRecord) -> None:
        for other in self._store.list(EVENT_SOURCE_MAPPING, mapping.account, mapping.region):
            if other.uuid != mapping.uuid and duplicates(mapping, other):
                raise conflict(already_exists(mapping, other))

    def _settle_later(self, mapping: EventSourceMappingRecord) -> None:
        if not mapping.settled and not self._polled:
            self._schedule(limits.STATE_CHANGE_SECONDS, lambda: self.settle(mapping.key))


def _state_of_update(source: Source, mapping: EventSourceMappingRecord, enabled: bool) -> str:
    if enabled != mapping.enabled:
        return ENABLING if enabled else DISABLING
    if source in QUEUES and not enabled:
        return DISABLED
    return UPDATING


def _key(caller: Caller, request: Request) -> RecordKey:
    return RecordKey(caller.account, caller.region, request["UUID"])


def _in_use(what: str) -> ApiError:
    return ApiError("ResourceInUseException", f"Cannot {what} the event source mapping because it is in use.")
