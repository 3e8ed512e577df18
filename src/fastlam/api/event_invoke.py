"""The operations on event invoke configurations over HTTP."""

from __future__ import annotations

from typing import Any

from fastlam.api.support import Call, Entries, Reply, Stored
from fastlam.control.event_invoke import EventInvokeConfigs
from fastlam.model.event_invoke import EventInvokeRecord

_MISSING = (
    "what is set has no effect yet: a throttled event is tried again for six hours, a function error is final, and"
    " nothing is sent to destinations"
)


def entries(configs: EventInvokeConfigs) -> Entries:
    def put(call: Call) -> Reply:
        return Reply(event_invoke_config(configs.put(call.caller, call.parameters)))

    def update(call: Call) -> Reply:
        return Reply(event_invoke_config(configs.update(call.caller, call.parameters)))

    def get(call: Call) -> Reply:
        return Reply(event_invoke_config(configs.get(call.caller, call.parameters)))

    def delete(call: Call) -> Reply:
        configs.delete(call.caller, call.parameters)
        return Reply(None)

    def list_configs(call: Call) -> Reply:
        page = configs.list(call.caller, call.parameters)
        return Reply(
            {
                "FunctionEventInvokeConfigs": [event_invoke_config(record) for record in page.items],
                "NextMarker": page.next_marker,
            }
        )

    return {
        "PutFunctionEventInvokeConfig": Stored(put, _MISSING),
        "UpdateFunctionEventInvokeConfig": Stored(update, _MISSING),
        "GetFunctionEventInvokeConfig": Stored(get, _MISSING),
        "DeleteFunctionEventInvokeConfig": Stored(delete, _MISSING),
        "ListFunctionEventInvokeConfigs": Stored(list_configs, _MISSING),
    }


def event_invoke_config(record: EventInvokeRecord) -> dict[str, Any]:
    return {
        "LastModified": record.last_modified,
        "FunctionArn": record.arn,
        "MaximumRetryAttempts": record.maximum_retry_attempts,
        "MaximumEventAgeInSeconds": record.maximum_event_age_seconds,
        "DestinationConfig": {
            "OnSuccess": {"Destination": record.on_success_arn or None},
            "OnFailure": {"Destination": record.on_failure_arn or None},
        },
    }
