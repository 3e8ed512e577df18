"""The operations on event source mappings over HTTP."""

from __future__ import annotations

from typing import Any

from fastlam.api.support import Call, Entries, Reply, Supported
from fastlam.control.event_source_mappings import EventSourceMappings
from fastlam.control.steps import Steps
from fastlam.model.event_source_mapping import EventSourceMappingRecord

_NOTE = (
    "sources of Lambda and of fastlam's own are read (docs/howto/event-sources.md); not DocumentDB's change streams,"
    " Kafka topics as queues, schema registries, failures to kafka:// topics, and IAM authentication of Kafka"
)


def entries(mappings: EventSourceMappings) -> Entries:
    def create(call: Call) -> Steps[Reply]:
        mapping = yield from mappings.create_steps(call.caller, call.parameters)
        return Reply(event_source_mapping_configuration(mapping))

    def get(call: Call) -> Reply:
        return Reply(event_source_mapping_configuration(mappings.get(call.caller, call.parameters)))

    def update(call: Call) -> Reply:
        return Reply(event_source_mapping_configuration(mappings.update(call.caller, call.parameters)))

    def delete(call: Call) -> Reply:
        return Reply(event_source_mapping_configuration(mappings.delete(call.caller, call.parameters)))

    def list_mappings(call: Call) -> Reply:
        page = mappings.list(call.caller, call.parameters)
        items = [event_source_mapping_configuration(mapping, listed=True) for mapping in page.items]
        return Reply({"EventSourceMappings": items, "NextMarker": page.next_marker})

    return {
        "CreateEventSourceMapping": Supported(create, _NOTE),
        "GetEventSourceMapping": Supported(get),
        "UpdateEventSourceMapping": Supported(update),
        "DeleteEventSourceMapping": Supported(delete),
        "ListEventSourceMappings": Supported(list_mappings),
    }


def event_source_mapping_configuration(mapping: EventSourceMappingRecord, *, listed: bool = False) -> dict[str, Any]:
    """Lists do not show filters that are encrypted with a key of the customer's own."""
    settings = mapping.settings
    if listed and "KMSKeyArn" in settings:
        settings = settings | {"FilterCriteria": None}
    return {
        "UUID": mapping.uuid,
        "EventSourceMappingArn": mapping.arn,
        "EventSourceArn": mapping.event_source_arn or None,
        "FunctionArn": mapping.function_arn,
        "LastModified": mapping.last_modified,
        "LastProcessingResult": mapping.last_processing_result,
        "State": mapping.state,
        "StateTransitionReason": mapping.state_transition_reason,
        **settings,
    }
