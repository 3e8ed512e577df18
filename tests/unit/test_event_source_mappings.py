"""Event source mappings without HTTP: states over a virtual clock, targets, duplicates, lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastlam.control.event_source_mappings import EventSourceMappings
from fastlam.errors import ApiError, invalid_parameter
from fastlam.model.event_source_mapping import EventSourceMappingRecord
from fastlam.model.source_position import SourcePositionRecord
from fastlam.store.records import EVENT_SOURCE_MAPPING, SOURCE_POSITION, TAGS
from mapping_plane import (
    BASIC_AUTH,
    CLUSTER,
    DOCUMENTDB,
    DYNAMODB,
    EVERY,
    FIFO,
    KAFKA,
    KINESIS,
    MQ,
    MSK,
    QUEUE,
    SQS,
    STREAM,
    MappingPlane,
    Members,
)
from memory_plane import ARN, CALLER, refused

HELLO = f"{ARN}:hello"
IPV = "InvalidParameterValueException"
RNF = "ResourceNotFoundException"
RCE = "ResourceConflictException"
IN_USE = "ResourceInUseException"


@pytest.fixture
def plane(tmp_path: Path) -> MappingPlane:
    return MappingPlane(tmp_path)


# States --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", EVERY.values(), ids=EVERY)
def test_states_of_a_new_mapping(plane: MappingPlane, source: Members) -> None:
    request = {"FunctionName": "hello", **source}
    created = plane.mappings.create(CALLER, request)
    assert created.state == "Creating"
    assert created.last_modified == plane.clock.wall_ms() / 1000
    in_use = "Cannot {} the event source mapping because it is in use."
    assert refused(IN_USE, plane.mappings.update, CALLER, {"UUID": created.uuid, "BatchSize": 1}) == in_use.format(
        "update"
    )
    assert refused(IN_USE, plane.mappings.delete, CALLER, {"UUID": created.uuid}) == in_use.format("delete")
    assert plane.get(created) == created
    plane.clock.advance(1)
    enabled = plane.get(created)
    assert (enabled.state, enabled.last_modified) == ("Enabled", created.last_modified)
    assert plane.clock.pending == 0


@pytest.mark.parametrize("source", EVERY.values(), ids=EVERY)
def test_states_of_updates(plane: MappingPlane, source: Members) -> None:
    mapping = plane.add(source)

    def passes(expected: list[str], **more: Any) -> None:
        plane.clock.advance(1)
        updated = plane.mappings.update(CALLER, {"UUID": mapping.uuid, **more})
        assert updated.last_modified == plane.clock.wall_ms() / 1000
        states = [updated.state]
        plane.clock.advance(1)
        if plane.get(mapping).state != updated.state:
            states.append(plane.get(mapping).state)
        assert states == expected
        assert plane.clock.pending == 0

    passes(["Updating", "Enabled"])
    passes(["Updating", "Enabled"], Enabled=True, BatchSize=7)
    passes(["Disabling", "Disabled"], Enabled=False)
    # A queue that is not read has nothing to be told of a change.
    passes(["Disabled"] if source in (SQS, FIFO) else ["Updating", "Disabled"], BatchSize=8)
    passes(["Enabling", "Enabled"], Enabled=True)
    assert plane.get(mapping).settings["BatchSize"] == 8


@pytest.mark.parametrize("source", EVERY.values(), ids=EVERY)
def test_created_disabled(plane: MappingPlane, source: Members) -> None:
    created = plane.mappings.create(CALLER, {"FunctionName": "hello", "Enabled": False, **source})
    assert created.state == ("Disabled" if source in (SQS, FIFO) else "Creating")
    plane.clock.advance(1)
    assert plane.get(created).state == "Disabled"


def test_deletion(plane: MappingPlane) -> None:
    mapping = plane.add(SQS)
    plane.clock.advance(1)
    deleting = plane.mappings.delete(CALLER, {"UUID": mapping.uuid})
    assert (deleting.state, deleting.last_modified) == ("Deleting", plane.clock.wall_ms() / 1000)
    assert plane.get(mapping) == deleting
    refused(IN_USE, plane.mappings.delete, CALLER, {"UUID": mapping.uuid})
    refused(IN_USE, plane.mappings.update, CALLER, {"UUID": mapping.uuid})
    plane.clock.advance(1)
    for call in (plane.mappings.get, plane.mappings.update, plane.mappings.delete):
        assert refused(RNF, call, CALLER, {"UUID": mapping.uuid}) == "The resource you requested does not exist."
    plane.add(SQS)


def test_settled_by_the_next_start(plane: MappingPlane) -> None:
    leaving, disabling, settled = plane.add(SQS), plane.add(KINESIS), plane.add(DYNAMODB)
    plane.mappings.delete(CALLER, {"UUID": leaving.uuid})
    plane.mappings.update(CALLER, {"UUID": disabling.uuid, "Enabled": False})
    creating = plane.mappings.create(CALLER, {"FunctionName": "hello", **MQ})
    plane.restart()
    refused(RNF, plane.mappings.get, CALLER, {"UUID": leaving.uuid})
    assert plane.get(disabling).state == "Disabled"
    assert plane.get(creating).state == "Enabled"
    assert plane.get(settled) == settled
    assert {each.state for each in plane.store.all(EVENT_SOURCE_MAPPING)} == {"Disabled", "Enabled"}


def test_outlives_its_function(plane: MappingPlane) -> None:
    mapping, aliased = plane.add(SQS), plane.add(SQS, "hello:live")
    plane.aliases.delete(CALLER, {"FunctionName": "hello", "Name": "live"})
    plane.functions.delete(CALLER, {"FunctionName": "hello"})
    assert (plane.get(mapping).state, plane.get(aliased).state) == ("Enabled", "Enabled")
    assert plane.mappings.list(CALLER, {"FunctionName": "hello"}).items == [mapping]
    message = refused(IPV, plane.mappings.update, CALLER, {"UUID": mapping.uuid, "BatchSize": 1})
    assert message == "Function does not exist"
    assert plane.get(mapping) == mapping
    plane.mappings.delete(CALLER, {"UUID": mapping.uuid})


def test_settled_by_those_who_poll(tmp_path: Path) -> None:
    """Where an engine reads the sources, it says when a mapping is what it was to become, and how it fares."""
    plane = MappingPlane(tmp_path)
    mappings = EventSourceMappings(plane.store, plane.clock.schedule, plane.tags, plane.clock, polled=True)
    mapping = mappings.create(CALLER, {"FunctionName": "hello", **KINESIS})
    plane.clock.advance(60)
    assert plane.get(mapping).state == "Creating"
    mappings.settle(mapping.key)
    assert plane.get(mapping).state == "Enabled"
    mappings.report(mapping.key, "OK")
    assert plane.get(mapping).last_processing_result == "OK"
    position = SourcePositionRecord(
        account=mapping.account, region=mapping.region, uuid=mapping.uuid, shard="s", position="1"
    )
    plane.store.put(SOURCE_POSITION, position)
    mappings.delete(CALLER, {"UUID": mapping.uuid})
    assert plane.get(mapping).state == "Deleting"
    mappings.settle(mapping.key)
    assert plane.store.all(EVENT_SOURCE_MAPPING) == plane.store.all(SOURCE_POSITION) == []


def test_queues_have_a_result_only_while_there_is_a_problem(plane: MappingPlane) -> None:
    mapping = plane.add(SQS)
    for given, shown in (("OK", None), ("PROBLEM: gone", "PROBLEM: gone"), ("OK", None)):
        plane.mappings.report(mapping.key, given)
        assert plane.get(mapping).last_processing_result == shown


def test_sources_that_are_refused(plane: MappingPlane) -> None:
    def refuse(mapping: EventSourceMappingRecord) -> None:
        raise invalid_parameter(f"Stream not found: {mapping.event_source_arn}")

    plane.mappings.check_source = refuse
    request = {"FunctionName": "hello", **KINESIS}
    assert refused(IPV, plane.mappings.create, CALLER, request) == f"Stream not found: {STREAM}"
    assert plane.mappings.list(CALLER, {}).items == []


# Functions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arn"),
    [
        ("hello", HELLO),
        ("function:hello", HELLO),
        ("000000000000:function:hello", HELLO),
        (HELLO, HELLO),
        ("hello:$LATEST", f"{HELLO}:$LATEST"),
        ("hello:1", f"{HELLO}:1"),
        (f"{HELLO}:live", f"{HELLO}:live"),
    ],
)
def test_targets(plane: MappingPlane, name: str, arn: str) -> None:
    mapping = plane.add(SQS, name)
    assert mapping.function_arn == arn
    assert plane.mappings.list(CALLER, {"FunctionName": name}).items == [mapping]


@pytest.mark.parametrize("name", ["missing", "hello:2", "hello:dead", f"{HELLO}x", "hello:$LATEST.PUBLISHED"])
def test_targets_that_are_not_there(plane: MappingPlane, name: str) -> None:
    assert refused(IPV, plane.mappings.create, CALLER, {"FunctionName": name, **SQS}) == "Function does not exist"
    mapping = plane.add(SQS)
    request = {"UUID": mapping.uuid, "FunctionName": name}
    assert refused(IPV, plane.mappings.update, CALLER, request) == "Function does not exist"
    assert plane.get(mapping) == mapping


def test_another_target(plane: MappingPlane) -> None:
    mapping = plane.add(SQS, BatchSize=5)
    moved = plane.update(mapping, FunctionName="hello:live")
    assert (moved.function_arn, moved.settings["BatchSize"]) == (f"{HELLO}:live", 5)
    assert plane.update(mapping, BatchSize=6).function_arn == f"{HELLO}:live"
    assert plane.update(mapping, FunctionName="hello").function_arn == HELLO


def test_durable_functions(plane: MappingPlane) -> None:
    for name, seconds in (("short", 900), ("long", 901)):
        plane.create(name, DurableConfig={"ExecutionTimeout": seconds})
        assert refused(IPV, plane.mappings.create, CALLER, {"FunctionName": name, **SQS}) == (
            "The function name of a durable function must include a version or an alias."
        )
    plane.add(SQS, "short:$LATEST")
    assert refused(IPV, plane.mappings.create, CALLER, {"FunctionName": "long:$LATEST", **SQS}) == (
        "The execution timeout of a durable function with an event source must not exceed 900 seconds."
    )


# Duplicates ----------------------------------------------------------------------------------------


SERVERS = "a.example.com:9092,b.example.com:9092"


@pytest.mark.parametrize(
    ("source", "what"),
    [
        *(
            (source, f'An event source mapping with SQS arn (" {source["EventSourceArn"]} ") and function (" hello ")')
            for source in (SQS, FIFO)
        ),
        *(
            (source, f'The event source arn (" {source["EventSourceArn"]} ") and function (" hello ") provided mapping')
            for source in (KINESIS, DYNAMODB, MQ, DOCUMENTDB)
        ),
        *(
            (source, f'An event source mapping with event source ("{named}"), function ("{HELLO}"), topics ("topic")')
            for source, named in ((MSK, CLUSTER), (KAFKA, SERVERS))
        ),
    ],
)
def test_one_mapping_for_each_target(plane: MappingPlane, source: Members, what: str) -> None:
    mapping = plane.add(source)
    message = f"{what} already exists. Please update or delete the existing mapping with UUID {mapping.uuid}"
    assert refused(RCE, plane.mappings.create, CALLER, {"FunctionName": "hello", **source}) == message
    assert plane.store.all(EVENT_SOURCE_MAPPING) == [mapping]
    other = plane.add(source, "hello:1")
    for name in ("hello:live", "hello:$LATEST"):
        plane.add(source, name)
    assert refused(RCE, plane.mappings.update, CALLER, {"UUID": other.uuid, "FunctionName": "hello"}) == message
    assert plane.get(other) == other
    plane.mappings.delete(CALLER, {"UUID": mapping.uuid})
    assert refused(RCE, plane.mappings.create, CALLER, {"FunctionName": "hello", **source}) == message
    plane.clock.advance(1)
    assert plane.update(other, FunctionName="hello").function_arn == HELLO


def servers(*addresses: str) -> Members:
    return {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": list(addresses)}}}


@pytest.mark.parametrize(
    ("source", "different"),
    [
        (SQS, {"EventSourceArn": f"{QUEUE}-2"}),
        (MSK, {"Topics": ["other"]}),
        (KAFKA, {"Topics": ["other"]}),
        (KAFKA, servers("c.example.com:9092")),
        (MQ, {"Queues": ["other"]}),
        (MQ, {"SourceAccessConfigurations": [BASIC_AUTH, {"Type": "VIRTUAL_HOST", "URI": "/x"}]}),
        (DOCUMENTDB, {"DocumentDBEventSourceConfig": {"DatabaseName": "other"}}),
        (DOCUMENTDB, {"DocumentDBEventSourceConfig": {"DatabaseName": "db", "CollectionName": "c"}}),
    ],
)
def test_what_is_no_duplicate(plane: MappingPlane, source: Members, different: Members) -> None:
    plane.add(source)
    plane.add(source | different)
    assert len(plane.store.all(EVENT_SOURCE_MAPPING)) == 2


@pytest.mark.parametrize(
    ("source", "same"),
    [
        (KAFKA, servers("c.example.com:9092", "b.example.com:9092")),
        (MQ, {"SourceAccessConfigurations": [BASIC_AUTH, {"Type": "VIRTUAL_HOST", "URI": "/"}]}),
        (DOCUMENTDB, {"DocumentDBEventSourceConfig": {"DatabaseName": "db", "FullDocument": "UpdateLookup"}}),
        (KINESIS, {"StartingPosition": "TRIM_HORIZON", "BatchSize": 1}),
    ],
)
def test_what_is_one(plane: MappingPlane, source: Members, same: Members) -> None:
    plane.add(source)
    refused(RCE, plane.mappings.create, CALLER, {"FunctionName": "hello", **source, **same})


def test_other_accounts_and_regions(plane: MappingPlane) -> None:
    mapping = plane.add(SQS)
    for other in (CALLER._replace(account="111111111111"), CALLER._replace(region="eu-west-1")):
        with pytest.raises(ApiError) as caught:
            plane.mappings.get(other, {"UUID": mapping.uuid})
        assert caught.value.code == RNF
        assert plane.mappings.list(other, {}).items == []


# Lists and tags ------------------------------------------------------------------------------------


def test_list(plane: MappingPlane) -> None:
    plane.create("other")
    by_target = {
        (arn, name): plane.add({"EventSourceArn": arn}, name)
        for arn in (QUEUE, f"{QUEUE}-2")
        for name in ("hello", "hello:live", "other")
    }
    all_of_them = sorted(by_target.values(), key=lambda mapping: mapping.uuid)

    def listed(**more: Any) -> list[EventSourceMappingRecord]:
        return plane.mappings.list(CALLER, more).items

    assert listed() == all_of_them
    assert listed(EventSourceArn=QUEUE) == [each for each in all_of_them if each.event_source_arn == QUEUE]
    assert len(listed(FunctionName="hello")) == len(listed(FunctionName=f"{HELLO}:live")) == 2
    assert listed(FunctionName="hello:live", EventSourceArn=QUEUE) == [by_target[QUEUE, "hello:live"]]
    assert listed(FunctionName="hello:1") == listed(FunctionName="missing") == listed(EventSourceArn=STREAM) == []
    first = plane.mappings.list(CALLER, {"MaxItems": 4})
    second = plane.mappings.list(CALLER, {"MaxItems": 4, "Marker": first.next_marker})
    assert (first.items + second.items, second.next_marker) == (all_of_them, None)


def test_a_page_has_a_hundred(plane: MappingPlane) -> None:
    for number in range(101):
        plane.mappings.create(CALLER, {"FunctionName": "hello", "EventSourceArn": f"{QUEUE}{number}"})
    page = plane.mappings.list(CALLER, {"MaxItems": 10_000})
    assert len(page.items) == 100
    assert len(plane.mappings.list(CALLER, {"Marker": page.next_marker}).items) == 1


def test_tags(plane: MappingPlane) -> None:
    mapping = plane.add(SQS, Tags={"team": "a"})
    assert plane.tags.of("event-source-mapping", mapping.key) == {"team": "a"}
    plane.add(KINESIS)
    assert len(plane.store.all(TAGS)) == 1
    too_many = {f"k{number}": "v" for number in range(51)}
    message = refused(IPV, plane.mappings.create, CALLER, {"FunctionName": "hello", **DYNAMODB, "Tags": too_many})
    assert message == "Number of tags exceeds resource tag limit."
    assert len(plane.store.all(EVENT_SOURCE_MAPPING)) == 2
    plane.mappings.delete(CALLER, {"UUID": mapping.uuid})
    plane.clock.advance(1)
    assert plane.store.all(TAGS) == []


@pytest.mark.parametrize("source", EVERY.values(), ids=EVERY)
def test_record_is_kept_as_it_is(plane: MappingPlane, source: Members) -> None:
    mapping = plane.add(source, "hello:live", Enabled=False)
    assert EVENT_SOURCE_MAPPING.decode(msgspec.json.encode(mapping)) == mapping
