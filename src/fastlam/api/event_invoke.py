"""The operations on event invoke configurations over HTTP."""

from __future__ import annotations

from typing import Any

from fastlam.api.support import Call, Entries, Reply, Supported
from fastlam.control.event_invoke import EventInvokeConfigs
from fastlam.model.event_invoke import EventInvokeRecord

_NOTE = (
    "destinations are reached at --aws-endpoint, $AWS_ENDPOINT_URL or AWS; whether the role may send there is found out"
    " when something is sent"
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
        "PutFunctionEventInvokeConfig": Supported(put, _NOTE),
        "UpdateFunctionEventInvokeConfig": Supported(update, _NOTE),
        "GetFunctionEventInvokeConfig": Supported(get, _NOTE),
        "DeleteFunctionEventInvokeConfig": Supported(delete, _NOTE),
        "ListFunctionEventInvokeConfigs": Supported(list_configs, _NOTE),
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
