"""The operations on event source mappings as boto3 sees them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from api_server import ARN, ApiServer, api_server, create, error_of, refused, wait
from mapping_plane import EVERY, KINESIS, QUEUE, SQS, STREAM, Members, filters
from waiting import await_that

PATH = "/2015-03-31/event-source-mappings"
IPV = "InvalidParameterValueException"
RNF = "ResourceNotFoundException"
MISSING = "6fa459ea-ee8a-4ca4-894e-db77e160355e"


def settled(client: Any, uuid: str) -> dict[str, Any]:
    """The mapping, when it is Enabled or Disabled."""
    found: dict[str, Any] = {}

    def arrived() -> bool:
        found.update(client.get_event_source_mapping(UUID=uuid))
        return found["State"] in ("Enabled", "Disabled")

    await_that(arrived)
    return found


def gone(client: Any, uuid: str) -> bool:
    uuids = [mapping["UUID"] for mapping in client.list_event_source_mappings()["EventSourceMappings"]]
    return uuid not in uuids


def test_life_of_a_mapping(client: Any) -> None:
    create(client)
    created = client.create_event_source_mapping(FunctionName="hello", **SQS)
    assert created.pop("ResponseMetadata")["HTTPStatusCode"] == 202
    uuid = created["UUID"]
    assert isinstance(created["LastModified"], datetime)
    assert created | {"LastModified": None} == {
        "UUID": uuid,
        "EventSourceMappingArn": f"arn:aws:lambda:us-east-1:000000000000:event-source-mapping:{uuid}",
        "EventSourceArn": QUEUE,
        "FunctionArn": f"{ARN}:hello",
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 0,
        "FunctionResponseTypes": [],
        "LastModified": None,
        "State": "Creating",
        "StateTransitionReason": "USER_INITIATED",
    }
    enabled = settled(client, uuid)
    assert enabled["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert (enabled["State"], enabled["LastModified"]) == ("Enabled", created["LastModified"])
    updated = client.update_event_source_mapping(UUID=uuid, Enabled=False, BatchSize=3)
    assert (updated["State"], updated["BatchSize"]) == ("Disabling", 3)
    assert updated["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert settled(client, uuid)["State"] == "Disabled"
    deleting = client.delete_event_source_mapping(UUID=uuid)
    assert (deleting["State"], deleting["BatchSize"]) == ("Deleting", 3)
    assert deleting["ResponseMetadata"]["HTTPStatusCode"] == 202
    await_that(lambda: gone(client, uuid))
    refused(client.get_event_source_mapping, RNF, 404, "The resource you requested does not exist.", UUID=uuid)


@pytest.mark.parametrize("source", EVERY.values(), ids=EVERY)
def test_every_source(client: Any, source: Members) -> None:
    """What was given comes back, from each operation alike."""
    create(client)
    created = client.create_event_source_mapping(FunctionName="hello", Enabled=False, **source)
    for name in source.keys() - {"DocumentDBEventSourceConfig"}:
        assert created[name] == source[name]
    assert created["State"] == ("Disabled" if "sqs" in source.get("EventSourceArn", "") else "Creating")
    disabled = settled(client, created["UUID"])
    assert disabled | {name: created[name] for name in ("State", "ResponseMetadata")} == created
    del disabled["ResponseMetadata"]
    assert client.list_event_source_mappings()["EventSourceMappings"] == [disabled]


def test_bodies(server: ApiServer) -> None:
    """What boto3 does not show: times as numbers, members that are not there, the spelling of refusals."""
    client = server.client()
    create(client)
    answer = server.send("POST", PATH, {"FunctionName": "hello", **KINESIS, "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1.5})  # fmt: skip
    body = answer.json
    assert answer.status == 202
    assert isinstance(body.pop("LastModified"), float)
    uuid = body.pop("UUID")
    assert body == {
        "EventSourceMappingArn": f"arn:aws:lambda:us-east-1:000000000000:event-source-mapping:{uuid}",
        "EventSourceArn": STREAM,
        "FunctionArn": f"{ARN}:hello",
        "State": "Creating",
        "StateTransitionReason": "User action",
        "LastProcessingResult": "No records processed",
        "BatchSize": 100,
        "BisectBatchOnFunctionError": False,
        "DestinationConfig": {"OnFailure": {}},
        "FunctionResponseTypes": [],
        "MaximumBatchingWindowInSeconds": 0,
        "MaximumRecordAgeInSeconds": -1,
        "MaximumRetryAttempts": -1,
        "ParallelizationFactor": 1,
        "StartingPosition": "AT_TIMESTAMP",
        "StartingPositionTimestamp": 1.5,
        "TumblingWindowInSeconds": 0,
    }
    settled(client, uuid)
    assert server.send("PUT", f"{PATH}/{uuid}", {"BatchSize": 1, "Enabled": None}).json["State"] == "Updating"
    in_use = server.send("DELETE", f"{PATH}/{uuid}")
    assert (in_use.status, in_use.headers["x-amzn-errortype"]) == (400, "ResourceInUseException")
    assert in_use.json == {
        "Type": "User",
        "Message": "Cannot delete the event source mapping because it is in use.",
    }
    settled(client, uuid)
    assert server.send("GET", f"{PATH}/{MISSING}").json == {
        "Type": "User",
        "Message": "The resource you requested does not exist.",
    }


def test_input(client: Any) -> None:
    create(client)

    def message(call: Any = client.create_event_source_mapping, **members: Any) -> str:
        error = error_of(call, **members)
        assert error.response["Error"]["Code"] == "ValidationException"
        return str(error.response["Error"]["Message"])

    assert message(FunctionName="hello", EventSourceArn=STREAM, StartingPosition="NOW") == (
        "1 validation error detected: Value 'NOW' at 'startingPosition' failed to satisfy constraint: Member must satisfy"
        " enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"
    )
    assert message(FunctionName="hello", Topics=["one", "two"], **SQS) == (
        "1 validation error detected: Value '[one, two]' at 'topics' failed to satisfy constraint: Member must have length"
        " less than or equal to 1"
    )
    assert message(**SQS) == (
        "1 validation error detected: Value null at 'functionName' failed to satisfy constraint: Member must not be null"
    )
    assert "at 'batchSize'" in message(FunctionName="hello", BatchSize=10_001, **SQS)
    assert "at 'scalingConfig.maximumConcurrency'" in message(
        FunctionName="hello", ScalingConfig={"MaximumConcurrency": 1}, **SQS
    )
    assert "at 'filterCriteria.filters.1.member.pattern'" in message(
        FunctionName="hello", **filters('{"a": ["' + "x" * 4096 + '"]}'), **SQS
    )
    assert "at 'uUID'" in message(client.get_event_source_mapping, UUID="short")
    assert client.list_event_source_mappings()["EventSourceMappings"] == []


def test_refusals(client: Any) -> None:
    create(client)
    call = client.create_event_source_mapping
    refused(call, IPV, 400, "Unrecognized event source.", FunctionName="hello")
    refused(call, IPV, 400, "Function does not exist", FunctionName="other", **SQS)
    refused(call, IPV, 400, "Invalid filter pattern definition.", FunctionName="hello", **SQS, **filters("no pattern"))
    first = call(FunctionName="hello", **SQS)
    refused(
        call,
        "ResourceConflictException",
        409,
        f'An event source mapping with SQS arn (" {QUEUE} ") and function (" hello ") already exists. Please update or'
        f" delete the existing mapping with UUID {first['UUID']}",
        FunctionName="hello",
        **SQS,
    )
    settled(client, first["UUID"])
    for unknown in (client.get_event_source_mapping, client.update_event_source_mapping, client.delete_event_source_mapping):  # fmt: skip
        refused(unknown, RNF, 404, "The resource you requested does not exist.", UUID=MISSING)
    refused(
        call,
        RNF,
        404,
        "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
        FunctionName=f"{ARN.replace('us-east-1', 'eu-west-1')}:hello",
        **SQS,
    )
    error = error_of(call, FunctionName="111111111111:function:hello", **SQS)
    assert error.response["Error"]["Code"] == "AccessDeniedException"


def test_lists(client: Any) -> None:
    create(client, Publish=True)
    wait(client)
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    uuids = {
        name: client.create_event_source_mapping(FunctionName=name, Enabled=False, **SQS)["UUID"]
        for name in ("hello", "hello:1", "hello:live")
    }
    pages = list(client.get_paginator("list_event_source_mappings").paginate(PaginationConfig={"PageSize": 2}))
    assert [len(page["EventSourceMappings"]) for page in pages] == [2, 1]
    listed = [mapping["UUID"] for page in pages for mapping in page["EventSourceMappings"]]
    assert sorted(listed) == sorted(uuids.values())
    client.delete_function(FunctionName="hello")
    for name, uuid in uuids.items():
        (mapping,) = client.list_event_source_mappings(FunctionName=name, EventSourceArn=QUEUE)["EventSourceMappings"]
        assert mapping["UUID"] == uuid
    assert client.list_event_source_mappings(EventSourceArn=STREAM)["EventSourceMappings"] == []
    error = error_of(client.list_event_source_mappings, Marker="nowhere")
    assert error.response["Error"]["Code"] == IPV


def test_filters_under_a_key(client: Any) -> None:
    """Lists do not show them, everything else does."""
    create(client)
    given = filters('{"body": {"state": ["new"]}}')
    created = client.create_event_source_mapping(
        FunctionName="hello", KMSKeyArn="arn:aws:kms:us-east-1:000000000000:key/k", Enabled=False, **SQS, **given
    )
    assert created["FilterCriteria"] == given["FilterCriteria"]
    uuid = created["UUID"]

    def listed() -> dict[str, Any]:
        (mapping,) = client.list_event_source_mappings()["EventSourceMappings"]
        return dict(mapping)

    assert "FilterCriteria" not in listed()
    assert client.get_event_source_mapping(UUID=uuid)["FilterCriteria"] == given["FilterCriteria"]
    updated = client.update_event_source_mapping(UUID=uuid, KMSKeyArn="")
    assert "KMSKeyArn" not in updated
    assert listed()["FilterCriteria"] == given["FilterCriteria"]
    assert "FilterCriteria" not in client.update_event_source_mapping(UUID=uuid, FilterCriteria={})
    assert client.delete_event_source_mapping(UUID=uuid)["State"] == "Deleting"
    await_that(lambda: gone(client, uuid))


def test_tags(client: Any) -> None:
    create(client)
    mapping = client.create_event_source_mapping(FunctionName="hello", Enabled=False, Tags={"team": "a"}, **SQS)
    assert "Tags" not in mapping
    arn = mapping["EventSourceMappingArn"]
    assert client.list_tags(Resource=arn)["Tags"] == {"team": "a"}
    client.tag_resource(Resource=arn, Tags={"stage": "test"})
    assert client.list_tags(Resource=arn)["Tags"] == {"team": "a", "stage": "test"}
    client.delete_event_source_mapping(UUID=mapping["UUID"])
    await_that(lambda: gone(client, mapping["UUID"]))
    assert error_of(client.list_tags, Resource=arn).response["Error"]["Code"] == RNF


def test_kept_over_a_restart(tmp_path: Path) -> None:
    """One that was left in transition is settled by the next server."""
    with api_server(tmp_path) as server:
        client = server.client()
        create(client)
        kept = client.create_event_source_mapping(FunctionName="hello", Enabled=False, **SQS, **filters('{"a": [1]}'))
        moving = client.create_event_source_mapping(FunctionName="hello", **KINESIS)
    with api_server(tmp_path) as server:
        client = server.client()
        again = client.get_event_source_mapping(UUID=kept["UUID"])
        assert again | {"ResponseMetadata": None} == kept | {"ResponseMetadata": None}
        assert client.get_event_source_mapping(UUID=moving["UUID"])["State"] == "Enabled"
