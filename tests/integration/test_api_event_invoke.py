"""The operations on event invoke configurations as boto3 sees them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from api_server import ARN, ApiServer, create, error_of, refused, wait

PATH = "/2019-09-25/functions/hello/event-invoke-config"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:queue"
IPV = "InvalidParameterValueException"
RNF = "ResourceNotFoundException"


def test_every_operation(client: Any) -> None:
    create(client)
    put = client.put_function_event_invoke_config(
        FunctionName="hello",
        MaximumRetryAttempts=1,
        MaximumEventAgeInSeconds=100,
        DestinationConfig={"OnFailure": {"Destination": QUEUE}},
    )
    metadata = put.pop("ResponseMetadata")
    assert metadata["HTTPStatusCode"] == 200
    assert isinstance(put["LastModified"], datetime)
    assert put | {"LastModified": None} == {
        "LastModified": None,
        "FunctionArn": f"{ARN}:hello:$LATEST",
        "MaximumRetryAttempts": 1,
        "MaximumEventAgeInSeconds": 100,
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {"Destination": QUEUE}},
    }
    got = client.get_function_event_invoke_config(FunctionName="hello")
    del got["ResponseMetadata"]
    assert got == put
    updated = client.update_function_event_invoke_config(
        FunctionName="hello", DestinationConfig={"OnSuccess": {"Destination": QUEUE}, "OnFailure": {"Destination": ""}}
    )
    assert updated["DestinationConfig"] == {"OnSuccess": {"Destination": QUEUE}, "OnFailure": {}}
    assert (updated["MaximumRetryAttempts"], updated["MaximumEventAgeInSeconds"]) == (1, 100)
    deleted = client.delete_function_event_invoke_config(FunctionName="hello")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    message = f"The function {ARN}:hello:$LATEST doesn't have an EventInvokeConfig"
    for call in (client.get_function_event_invoke_config, client.delete_function_event_invoke_config):
        refused(call, RNF, 404, message, FunctionName="hello")
    refused(client.update_function_event_invoke_config, RNF, 404, message, FunctionName="hello", MaximumRetryAttempts=0)


def test_bodies(server: ApiServer) -> None:
    """What boto3 does not show: members that are not there, and the spelling of refusals."""
    create(server.client())
    answer = server.send("PUT", PATH, {"MaximumRetryAttempts": 0})
    body = answer.json
    assert isinstance(body.pop("LastModified"), float)
    assert body == {
        "FunctionArn": f"{ARN}:hello:$LATEST",
        "MaximumRetryAttempts": 0,
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {}},
    }
    nothing = server.send("POST", PATH, {"DestinationConfig": {}})
    assert (nothing.status, nothing.json) == (
        400,
        {"Type": "User", "message": "You must specify at least one of error handling or destination setting."},
    )
    assert server.send("DELETE", PATH).body == b""
    gone = server.send("DELETE", PATH)
    assert gone.status == 404
    assert set(gone.json) == {"Type", "Message"}


def test_by_qualifier(client: Any) -> None:
    create(client, Publish=True)
    wait(client)
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    for attempts, qualifier in enumerate(("live", "1", "$LATEST")):
        config = client.put_function_event_invoke_config(
            FunctionName="hello", Qualifier=qualifier, MaximumRetryAttempts=attempts
        )
        assert config["FunctionArn"] == f"{ARN}:hello:{qualifier}"
    pages = client.get_paginator("list_function_event_invoke_configs").paginate(
        FunctionName="hello", PaginationConfig={"PageSize": 2}
    )
    arns = [[config["FunctionArn"] for config in page["FunctionEventInvokeConfigs"]] for page in pages]
    assert arns == [[f"{ARN}:hello:$LATEST", f"{ARN}:hello:1"], [f"{ARN}:hello:live"]]
    client.delete_alias(FunctionName="hello", Name="live")
    left = client.list_function_event_invoke_configs(FunctionName="hello")["FunctionEventInvokeConfigs"]
    assert [config["MaximumRetryAttempts"] for config in left] == [2, 1]


def test_input(client: Any) -> None:
    create(client)

    def message(**members: Any) -> str:
        error = error_of(client.put_function_event_invoke_config, FunctionName="hello", **members)
        assert error.response["Error"]["Code"] == "ValidationException"
        return str(error.response["Error"]["Message"])

    assert message(MaximumRetryAttempts=3, MaximumEventAgeInSeconds=59) == (
        "2 validation errors detected: Value '3' at 'maximumRetryAttempts' failed to satisfy constraint: Member must have"
        " value less than or equal to 2; Value '59' at 'maximumEventAgeInSeconds' failed to satisfy constraint: Member must"
        " have value greater than or equal to 60"
    )
    assert "at 'destinationConfig.onFailure.destination'" in message(
        DestinationConfig={"OnFailure": {"Destination": "queue"}}
    )
    error = error_of(client.list_function_event_invoke_configs, FunctionName="hello", MaxItems=51)
    assert error.response["Error"]["Code"] == "ValidationException"


def test_refusals(client: Any) -> None:
    create(client)
    refused(
        client.put_function_event_invoke_config,
        IPV,
        400,
        "You can't specify the function as a destination for itself.",
        FunctionName="hello",
        DestinationConfig={"OnSuccess": {"Destination": f"{ARN}:hello"}},
    )
    missing = "The function doesn't exist."
    refused(client.put_function_event_invoke_config, RNF, 404, missing, FunctionName="other", MaximumRetryAttempts=1)
    refused(
        client.put_function_event_invoke_config,
        RNF,
        404,
        missing,
        FunctionName="hello",
        Qualifier="live",
        MaximumRetryAttempts=1,
    )
    refused(client.list_function_event_invoke_configs, RNF, 404, missing, FunctionName="other")
    assert client.list_function_event_invoke_configs(FunctionName="hello")["FunctionEventInvokeConfigs"] == []
