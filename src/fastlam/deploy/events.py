"""AWS::Lambda::EventInvokeConfig and AWS::Lambda::EventSourceMapping."""

from __future__ import annotations

from typing import Any, Final

from fastlam.deploy.made import Context, Made, await_settled, check_properties
from fastlam.deploy.service import Service

_EVENT_INVOKE: Final = frozenset(
    {"DestinationConfig", "FunctionName", "MaximumEventAgeInSeconds", "MaximumRetryAttempts", "Qualifier"}
)
_FIXED: Final = ("EventSourceArn", "SelfManagedEventSource", "Topics", "Queues")  # what tells mappings apart
_AT_CREATION: Final = (*_FIXED, "StartingPosition", "StartingPositionTimestamp")
_MAPPING: Final = frozenset(
    {
        *_AT_CREATION,
        "AmazonManagedKafkaEventSourceConfig",
        "BatchSize",
        "BisectBatchOnFunctionError",
        "DestinationConfig",
        "DocumentDBEventSourceConfig",
        "Enabled",
        "FilterCriteria",
        "FunctionName",
        "FunctionResponseTypes",
        "KmsKeyArn",
        "LoggingConfig",
        "MaximumBatchingWindowInSeconds",
        "MaximumRecordAgeInSeconds",
        "MaximumRetryAttempts",
        "MetricsConfig",
        "ParallelizationFactor",
        "ProvisionedPollerConfig",
        "ScalingConfig",
        "SelfManagedKafkaEventSourceConfig",
        "SourceAccessConfigurations",
        "Tags",
        "TumblingWindowInSeconds",
    }
)


def make_event_invoke_config(context: Context, where: str, given: dict[str, Any]) -> Made:
    check_properties(where, given, _EVENT_INVOKE, ("FunctionName", "Qualifier"))
    service = context.service
    wanted = service.coerced("PutFunctionEventInvokeConfig", given)
    address = {key: wanted.pop(key) for key in ("FunctionName", "Qualifier")}
    current = service.find("GetFunctionEventInvokeConfig", **address) or {}
    now = {key: current[key] for key in _EVENT_INVOKE & current.keys()}
    if _without_empty(now) == _without_empty(wanted):
        return Made(where, {}, [])
    service.call("PutFunctionEventInvokeConfig", **address, **wanted)
    return Made(where, {}, [f"updated how events are retried of {address['FunctionName']}:{address['Qualifier']}"])


def make_event_source_mapping(context: Context, where: str, given: dict[str, Any]) -> Made:
    check_properties(where, given, _MAPPING, ("FunctionName",))
    service = context.service
    properties = {("KMSKeyArn" if key == "KmsKeyArn" else key): value for key, value in given.items()}
    if isinstance(properties.get("Tags"), list):
        properties["Tags"] = {tag["Key"]: tag["Value"] for tag in properties["Tags"]}
    wanted = service.coerced("CreateEventSourceMapping", properties)
    current = _find(service, wanted)
    if current is None:
        made = _settle(service, service.call("CreateEventSourceMapping", **wanted)["UUID"])
        changes = [f"created the event source mapping of {_source(wanted)}"]
    else:
        made, changes = current, []
        current = _settle(service, current["UUID"])
        now = {**current, "Enabled": current.get("State") == "Enabled"}
        changed = {key: value for key, value in wanted.items() if key not in (*_AT_CREATION, "Tags", "FunctionName")}
        if any(_without_empty(now.get(key)) != _without_empty(value) for key, value in changed.items()):
            service.call("UpdateEventSourceMapping", UUID=current["UUID"], **changed)
            made = _settle(service, current["UUID"])
            changes = [f"updated the event source mapping of {_source(wanted)}"]
    return Made(made["UUID"], {"Id": made["UUID"], "EventSourceMappingArn": made.get("EventSourceMappingArn")}, changes)


def _find(service: Service, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The mapping of the same function on the same source."""
    listed = service.all(
        "ListEventSourceMappings",
        "EventSourceMappings",
        FunctionName=wanted["FunctionName"],
        EventSourceArn=wanted.get("EventSourceArn"),
    )
    return next((one for one in listed if all(one.get(key) == wanted.get(key) for key in _FIXED)), None)


def _settle(service: Service, uuid: str) -> dict[str, Any]:
    def moving(found: dict[str, Any]) -> str:
        state = str(found.get("State"))
        return f"the event source mapping {uuid} is {state}" if state.endswith("ing") else ""  # Creating, Updating ...

    return await_settled(lambda: service.call("GetEventSourceMapping", UUID=uuid), moving)


def _source(wanted: dict[str, Any]) -> str:
    return str(wanted.get("EventSourceArn") or wanted.get("SelfManagedEventSource"))


def _without_empty(value: Any) -> Any:
    """{} and [] within a value mean the same as their absence."""
    if isinstance(value, dict):
        found = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item not in ({}, [], None)}
    return value
