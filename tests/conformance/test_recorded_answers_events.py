"""What the service was seen to answer about event invoke configurations and event source mappings."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from daemon_running import RunningDaemon, running_daemon
from recorded_answers import (
    ANY,
    FUNCTION,
    FUNCTIONS,
    LAMBDA,
    NUMBER,
    UUID,
    Error,
    Has,
    Keep,
    Row,
    Script,
    ask,
    conflict,
    constraint,
    everything,
    invalid,
    locator,
    missing,
    names,
    ok,
    refusal,
    set_up,
)
from waiting import WAIT_SECONDS, await_that

CONFIGS: Final = "/2019-09-25/functions"
CONFIG: Final = f"{CONFIGS}/staged/event-invoke-config"
MAPPINGS: Final = "/2015-03-31/event-source-mappings"
NO_RESOURCE: Final = missing("The resource you requested does not exist.")
NO_FUNCTION: Final = missing("The function doesn't exist.")
NOTHING: Final = invalid("You must specify at least one of error handling or destination setting.")
QUEUE: Final = "arn:aws:sqs:us-east-1:000000000000:queue"
FIFO_QUEUE: Final = f"{QUEUE}.fifo"
TOPIC: Final = "arn:aws:sns:us-east-1:000000000000:topic"
STREAM: Final = "arn:aws:kinesis:us-east-1:000000000000:stream/events"
TABLE: Final = "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2026-01-01T00:00:00.000"
NOBODY: Final = "00000000-0000-4000-8000-000000000000"
DESTINATION_PATTERN: Final = (
    r"$|kafka://([^.]([a-zA-Z0-9\-_.]{0,248}))|arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:((eusc-)?[a-z]{2}((-gov)|"
    r"(-iso([a-z]?)))?-[a-z]+-\d{1})?:(\d{12})?:(.*)"
)


def _on_failure(arn: str) -> dict[str, Any]:
    return {"DestinationConfig": {"OnFailure": {"Destination": arn}}}


def _on_success(arn: str) -> dict[str, Any]:
    return {"DestinationConfig": {"OnSuccess": {"Destination": arn}}}


def _put(fact: str, error: Error, body: Any, target: str = CONFIG) -> Row:
    return refusal(fact, f"PUT {target}", error, body)


def _lacks(arn: str) -> Error:
    return missing(f"The function {FUNCTION}:{arn} doesn't have an EventInvokeConfig")


def _map(fact: str, error: Error, source: str | None = QUEUE, **more: Any) -> Row:
    body = {"FunctionName": "plain", "EventSourceArn": source, **more}
    return refusal(fact, f"POST {MAPPINGS}", error, {name: value for name, value in body.items() if value is not None})


KAFKA: Final = {
    "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["a.example:9092", "b.example:9092"]}},
    "Topics": ["orders"],
    "StartingPosition": "LATEST",
    "SourceAccessConfigurations": [
        {"Type": "BASIC_AUTH", "URI": "arn:aws:secretsmanager:us-east-1:000000000000:secret:s"}
    ],
}
DOCUMENTS: Final = "arn:aws:rds:us-east-1:000000000000:cluster:documents"
DOCUMENT_SOURCE: Final = {
    "StartingPosition": "LATEST",
    "DocumentDBEventSourceConfig": {"DatabaseName": "db"},
    "SourceAccessConfigurations": KAFKA["SourceAccessConfigurations"],
}
FILTERS: Final = {"Filters": [{"Pattern": '{"a": ["b"]}'}]}
KAFKA_ENDPOINTS: Final = '"a.example:9092,b.example:9092"'
NO_FILTER: Final = invalid("Invalid filter pattern definition.")
NO_ONFAILURE: Final = invalid("Unsupported DestinationConfig parameter for given event source mapping type.")

# `staged` has a configuration of its own and one of `live`; `staged:live` has mappings of the queue, the stream and Kafka.
REFUSED: Final[list[Row]] = [
    _put("nothing given", NOTHING, {}),
    _put("no destination given", NOTHING, {"DestinationConfig": {}}),
    refusal("nothing to change", f"POST {CONFIG}", NOTHING, {}),
    *(
        refusal(f"{what} without one, {name}", f"{method} {CONFIGS}/{target}", _lacks(name), body)
        for what, method, body in (
            ("GetFunctionEventInvokeConfig", "GET", None),
            ("DeleteFunctionEventInvokeConfig", "DELETE", None),
            ("UpdateFunctionEventInvokeConfig", "POST", {"MaximumRetryAttempts": 1}),
        )
        for target, name in (
            ("plain/event-invoke-config", "plain:$LATEST"),
            ("staged/event-invoke-config?Qualifier=1", "staged:1"),
            ("staged:gone/event-invoke-config", "staged:gone"),
            ("nowhere/event-invoke-config", "nowhere:$LATEST"),
        )
    ),
    _put("of no function", NO_FUNCTION, {"MaximumRetryAttempts": 1}, f"{CONFIGS}/nowhere/event-invoke-config"),
    _put("of no alias", NO_FUNCTION, {"MaximumRetryAttempts": 1}, f"{CONFIG}?Qualifier=gone"),
    refusal("none to list of no function", f"GET {CONFIGS}/nowhere/event-invoke-config/list", NO_FUNCTION),
    _put(
        "three retries",
        constraint("'3' at 'maximumRetryAttempts': Member must have value less than or equal to 2"),
        {"MaximumRetryAttempts": 3},
    ),
    _put(
        "an age below a minute",
        constraint("'59' at 'maximumEventAgeInSeconds': Member must have value greater than or equal to 60"),
        {"MaximumEventAgeInSeconds": 59},
    ),
    _put(
        "a FIFO topic",
        invalid("FIFO-type Amazon SNS topics aren't supported as a destination."),
        _on_failure(f"{TOPIC}.fifo"),
    ),
    _put("a FIFO queue", invalid(f"The destination ARN {FIFO_QUEUE} is invalid."), _on_failure(FIFO_QUEUE)),
    _put(
        "a bucket for success", invalid("The destination ARN arn:aws:s3:::b is invalid."), _on_success("arn:aws:s3:::b")
    ),
    _put(
        "itself",
        invalid("You can't specify the function as a destination for itself."),
        _on_failure(f"{FUNCTION}:staged"),
    ),
    _put(
        "no function",
        invalid(f"The destination ARN {FUNCTION}:nowhere is invalid."),
        _on_failure(f"{FUNCTION}:nowhere"),
    ),
    _put(
        "another service",
        invalid(
            f"The provided destination config DestinationConfig(onSuccess=OnSuccess(destination={STREAM}), onFailure=null)"
            " is invalid."
        ),
        _on_success(STREAM),
    ),
    _put(
        "what is no ARN",
        constraint(
            f"'x' at 'destinationConfig.onFailure.destination': Member must satisfy regular expression pattern:"
            f" {DESTINATION_PATTERN}"
        ),
        _on_failure("x"),
    ),
    refusal(
        "more than 50 at once",
        f"GET {CONFIG}/list?MaxItems=51",
        constraint("'51' at 'maxItems': Member must have value less than or equal to 50"),
    ),
    _map("no source", invalid("Unrecognized event source."), None),
    _map("no function", invalid("Function does not exist"), FunctionName="nowhere"),
    _map("no alias", invalid("Function does not exist"), FunctionName="staged:gone"),
    *(
        _map(
            f"{what} from where?",
            invalid(
                "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not"
                " be null."
            ),
            source,
        )
        for what, source in (("a stream", STREAM), ("a table", TABLE))
    ),
    _map(
        "from nowhere",
        constraint(
            "'x' at 'startingPosition': Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"
        ),
        STREAM,
        StartingPosition="x",
    ),
    _map(
        "a table has no times",
        invalid(f"Unsupported starting position for arn type: {TABLE}"),
        TABLE,
        StartingPosition="AT_TIMESTAMP",
        StartingPositionTimestamp=1_767_225_600,
    ),
    _map(
        "more than ten at once",
        invalid("Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"),
        BatchSize=11,
    ),
    _map("a queue has no destinations", NO_ONFAILURE, **_on_failure(TOPIC)),
    _map("nor has a stream for success", NO_ONFAILURE, STREAM, StartingPosition="LATEST", **_on_success(TOPIC)),
    *(
        _map(f"a filter that is none: {pattern}", NO_FILTER, FilterCriteria={"Filters": [{"Pattern": pattern}]})
        for pattern in ("x", "null", '"text"', '{"body": 1}', '{"body": [{"unknown": 1}]}', "[1]")
    ),
    _map(
        "a queue twice",
        conflict(
            f'An event source mapping with SQS arn (" {QUEUE} ") and function (" staged ") already exists. Please update or'
            " delete the existing mapping with UUID <<queue>>"
        ),
        FunctionName="staged",
    ),
    _map(
        "a stream twice",
        conflict(
            f'The event source arn (" {STREAM} ") and function (" staged ") provided mapping already exists. Please update or'
            " delete the existing mapping with UUID <<stream>>"
        ),
        STREAM,
        FunctionName="staged",
        StartingPosition="LATEST",
    ),
    _map(
        "a topic twice",
        conflict(
            f'An event source mapping with event source ({KAFKA_ENDPOINTS}), function ("{FUNCTION}:staged"), topics ("orders")'
            " already exists. Please update or delete the existing mapping with UUID <<kafka>>"
        ),
        None,
        FunctionName="staged",
        **KAFKA,
    ),
    _map(
        "Kafka without access",
        invalid("Required 'sourceAccessConfigurations' parameter is missing."),
        None,
        **{name: value for name, value in KAFKA.items() if name != "SourceAccessConfigurations"},
    ),
    refusal(
        "an update to more than ten at once",
        f"PUT {MAPPINGS}/<<queue>>",
        invalid("Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"),
        {"BatchSize": 11},
    ),
    refusal(
        "an update to no function",
        f"PUT {MAPPINGS}/<<queue>>",
        invalid("Function does not exist"),
        {"FunctionName": "nowhere"},
    ),
    refusal(
        "an update to a filter that is none",
        f"PUT {MAPPINGS}/<<queue>>",
        NO_FILTER,
        {"FilterCriteria": {"Filters": [{"Pattern": "x"}]}},
    ),
    refusal("GetEventSourceMapping of none", f"GET {MAPPINGS}/{NOBODY}", NO_RESOURCE),
    refusal("DeleteEventSourceMapping of none", f"DELETE {MAPPINGS}/{NOBODY}", NO_RESOURCE),
    refusal("UpdateEventSourceMapping of none", f"PUT {MAPPINGS}/{NOBODY}", NO_RESOURCE, {"BatchSize": 5}),
    _map(
        "a batch of none",
        constraint("'0' at 'batchSize': Member must have value greater than or equal to 1"),
        BatchSize=0,
    ),
    _map(
        "an age of a minute at least",
        Error("InvalidParameterValue", re.compile(".+")),
        STREAM,
        StartingPosition="LATEST",
        MaximumRecordAgeInSeconds=59,
    ),
]


def _config(arn: str, **more: Any) -> dict[str, Any]:
    return {
        "FunctionArn": f"{FUNCTION}:{arn}",
        "LastModified": NUMBER,
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {}},
        **more,
    }


def _mapping(word: str, **more: Any) -> dict[str, Any]:
    return {
        "UUID": f"<<{word}>>",
        "EventSourceMappingArn": f"{LAMBDA}:event-source-mapping:<<{word}>>",
        "FunctionArn": f"{FUNCTION}:staged",
        "LastModified": NUMBER,
        "State": "Enabled",
        **more,
    }


# Nothing here can be read, which the mapping says as soon as it has been tried; a queue's says nothing before.
NOTHING_READ: Final = re.compile("No records processed|PROBLEM: .*")
QUEUE_MAPPING: Final = _mapping(
    "queue",
    EventSourceArn=QUEUE,
    BatchSize=10,
    MaximumBatchingWindowInSeconds=0,
    FunctionResponseTypes=[],
    StateTransitionReason="USER_INITIATED",
)
STREAM_MAPPING: Final = _mapping(
    "stream",
    EventSourceArn=STREAM,
    BatchSize=100,
    BisectBatchOnFunctionError=False,
    DestinationConfig={"OnFailure": {}},
    FunctionResponseTypes=[],
    LastProcessingResult=NOTHING_READ,
    MaximumBatchingWindowInSeconds=0,
    MaximumRecordAgeInSeconds=-1,
    MaximumRetryAttempts=-1,
    ParallelizationFactor=1,
    StartingPosition="LATEST",
    TumblingWindowInSeconds=0,
    StateTransitionReason="User action",
)
KAFKA_MAPPING: Final = _mapping(
    "kafka",
    BatchSize=100,
    SelfManagedEventSource={"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["a.example:9092", "b.example:9092"]}},
    SelfManagedKafkaEventSourceConfig={"ConsumerGroupId": "<<kafka>>"},
    SourceAccessConfigurations=KAFKA["SourceAccessConfigurations"],
    StartingPosition="LATEST",
    Topics=["orders"],
    LastProcessingResult=NOTHING_READ,
    StateTransitionReason="USER_INITIATED",
)

HARMLESS: Final[list[Row]] = [
    ok("of a function", f"GET {CONFIG}", 200, _config("staged:$LATEST", MaximumRetryAttempts=0)),
    ok("of an alias", f"GET {CONFIG}?Qualifier=live", 200, _config("staged:live", MaximumEventAgeInSeconds=60)),
    ok(
        "all of a function",
        f"GET {CONFIG}/list",
        200,
        {
            "FunctionEventInvokeConfigs": [
                _config("staged:$LATEST", MaximumRetryAttempts=0),
                _config("staged:live", MaximumEventAgeInSeconds=60),
            ]
        },
    ),
    ok("none of a function", f"GET {CONFIGS}/plain/event-invoke-config/list", 200, {"FunctionEventInvokeConfigs": []}),
    ok("a queue's mapping", f"GET {MAPPINGS}/<<queue>>", 200, Has(QUEUE_MAPPING)),
    ok("a stream's mapping", f"GET {MAPPINGS}/<<stream>>", 200, STREAM_MAPPING),
    ok("a cluster's mapping", f"GET {MAPPINGS}/<<kafka>>", 200, Has(KAFKA_MAPPING)),
    ok(
        "mappings of a queue",
        f"GET {MAPPINGS}?EventSourceArn={locator(QUEUE)}",
        200,
        {"EventSourceMappings": [Has(QUEUE_MAPPING)]},
    ),
    ok("mappings of a function", f"GET {MAPPINGS}?FunctionName=staged", 200, {"EventSourceMappings": [ANY, ANY, ANY]}),
    ok("none of its alias", f"GET {MAPPINGS}?FunctionName=staged:live", 200, {"EventSourceMappings": []}),
]

OWN: Final = f"{CONFIGS}/plain/event-invoke-config"
LIFE: Final[list[Row]] = [
    ok("settings", f"PUT {OWN}", 200, _config("plain:$LATEST", MaximumRetryAttempts=1), {"MaximumRetryAttempts": 1}),
    ok(
        "an update keeps what it does not say",
        f"POST {OWN}",
        200,
        _config("plain:$LATEST", MaximumRetryAttempts=1)
        | {"DestinationConfig": {"OnSuccess": {}, "OnFailure": {"Destination": QUEUE}}},
        _on_failure(QUEUE),
    ),
    ok(
        "nothing for a side leaves it",
        f"POST {OWN}",
        200,
        _config("plain:$LATEST", MaximumRetryAttempts=1)
        | {"DestinationConfig": {"OnSuccess": {}, "OnFailure": {"Destination": QUEUE}}},
        {"DestinationConfig": {"OnFailure": {}}},
    ),
    ok(
        "an empty destination clears",
        f"POST {OWN}",
        200,
        _config("plain:$LATEST", MaximumRetryAttempts=1),
        _on_failure(""),
    ),
    ok(
        "a function, an event bus",
        f"PUT {OWN}?Qualifier=$LATEST",
        200,
        _config("plain:$LATEST")
        | {
            "DestinationConfig": {
                "OnSuccess": {"Destination": f"{FUNCTION}:staged"},
                "OnFailure": {"Destination": "arn:aws:events:us-east-1:000000000000:event-bus/default"},
            }
        },
        {
            "DestinationConfig": {
                "OnSuccess": {"Destination": f"{FUNCTION}:staged"},
                "OnFailure": {"Destination": "arn:aws:events:us-east-1:000000000000:event-bus/default"},
            }
        },
    ),
    ok(
        "Put replaces everything", f"PUT {OWN}", 200, _config("plain:$LATEST"), {"DestinationConfig": {"OnFailure": {}}}
    ),
    ok("deletion", f"DELETE {OWN}", 204),
    refusal("and gone", f"GET {OWN}", _lacks("plain:$LATEST")),
    ok(
        "a queue that is not to be read is Disabled at once",
        f"POST {MAPPINGS}",
        202,
        Has({"State": "Disabled", "UUID": Keep("own", UUID), "FunctionArn": f"{FUNCTION}:plain"}),
        {"FunctionName": "plain", "EventSourceArn": QUEUE, "Enabled": False},
    ),
    ok(
        "a stream's passes through Creating",
        f"POST {MAPPINGS}",
        202,
        Has({"State": "Creating"}),
        {"FunctionName": "plain", "EventSourceArn": STREAM, "Enabled": False, "StartingPosition": "TRIM_HORIZON"},
    ),
    ok(
        "of an alias, beside the function's",
        f"POST {MAPPINGS}",
        202,
        Has({"State": "Creating", "FunctionArn": f"{FUNCTION}:staged:live", "UUID": Keep("alias", UUID)}),
        {"FunctionName": "staged:live", "EventSourceArn": QUEUE},
    ),
    ok("an update", f"PUT {MAPPINGS}/<<own>>", 202, Has({"BatchSize": 5, "UUID": "<<own>>"}), {"BatchSize": 5}),
]


IN_USE: Final[list[Row]] = [
    refusal(
        "in transition it is in use",
        f"PUT {MAPPINGS}/<<alias>>",
        Error("ResourceInUse", "Cannot update the event source mapping because it is in use."),
        {"BatchSize": 5},
    ),
    refusal(
        "for a deletion, too",
        f"DELETE {MAPPINGS}/<<alias>>",
        Error("ResourceInUse", "Cannot delete the event source mapping because it is in use."),
    ),
]

MOVING: Final[list[tuple[Row, str | None]]] = [
    (
        ok(
            "what was asked for is shown",
            f"POST {MAPPINGS}",
            202,
            Has(
                {
                    "State": "Creating",
                    "UUID": Keep("moving", UUID),
                    "StartingPosition": "AT_TIMESTAMP",
                    "StartingPositionTimestamp": 1_767_225_600.5,
                    "FunctionArn": f"{FUNCTION}:staged:1",
                },
                without=("FilterCriteria",),
            ),
            {
                "FunctionName": "staged:1",
                "EventSourceArn": STREAM,
                "StartingPosition": "AT_TIMESTAMP",
                "StartingPositionTimestamp": 1_767_225_600.5,
                "FilterCriteria": {"Filters": []},
            },
        ),
        "Enabled",
    ),
    (ok("off", f"PUT {MAPPINGS}/<<moving>>", 202, Has({"State": "Disabling"}), {"Enabled": False}), "Disabled"),
    (ok("on", f"PUT {MAPPINGS}/<<moving>>", 202, Has({"State": "Enabling"}), {"Enabled": True}), "Enabled"),
    (
        ok(
            "to a version by its name",
            f"PUT {MAPPINGS}/<<moving>>",
            202,
            Has({"State": "Updating", "FunctionArn": f"{FUNCTION}:staged:2"}),
            {"FunctionName": "staged:2", "FilterCriteria": FILTERS},
        ),
        "Enabled",
    ),
    (ok("filters are shown", f"GET {MAPPINGS}/<<moving>>", 200, Has({"FilterCriteria": FILTERS})), "Enabled"),
    (ok("the function goes", f"DELETE {FUNCTIONS}/staged", 204), "Enabled"),
    (ok("deletion", f"DELETE {MAPPINGS}/<<moving>>", 202, Has({"State": "Deleting", "UUID": "<<moving>>"})), None),
]


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """It warns of mappings that are not read from yet."""
    with running_daemon(complains=True) as running:
        yield running


@pytest.fixture(scope="module")
def stage(daemon: RunningDaemon) -> Iterator[tuple[Script, dict[str, Any]]]:
    set_up(daemon)
    ask(daemon, f"PUT {CONFIG}", {"MaximumRetryAttempts": 0})
    ask(daemon, f"PUT {CONFIG}?Qualifier=live", {"MaximumEventAgeInSeconds": 60})
    script = Script(daemon)
    for word, body in (
        ("queue", {"EventSourceArn": QUEUE}),
        ("stream", {"EventSourceArn": STREAM, "StartingPosition": "LATEST"}),
        ("kafka", KAFKA),
    ):
        script.kept[word] = ask(daemon, f"POST {MAPPINGS}", {"FunctionName": "staged", **body})["UUID"]
        deadline = time.monotonic() + WAIT_SECONDS
        while ask(daemon, f"GET {MAPPINGS}/{script.kept[word]}")["State"] != "Enabled":
            assert time.monotonic() < deadline
    yield script, everything(daemon)


@pytest.mark.parametrize("row", REFUSED, ids=names(REFUSED))
def test_refused(daemon: RunningDaemon, stage: tuple[Script, dict[str, Any]], row: Row) -> None:
    stage[0].run([row])
    assert everything(daemon) == stage[1]


@pytest.mark.parametrize("row", HARMLESS, ids=names(HARMLESS))
def test_harmless(daemon: RunningDaemon, stage: tuple[Script, dict[str, Any]], row: Row) -> None:
    stage[0].run([row])
    assert everything(daemon) == stage[1]


def test_life(stage: tuple[Script, dict[str, Any]]) -> None:
    stage[0].run(LIFE)


@pytest.mark.parametrize("row", IN_USE, ids=names(IN_USE))
def test_in_use(daemon: RunningDaemon, stage: tuple[Script, dict[str, Any]], row: Row) -> None:
    script = stage[0]
    source = f"{QUEUE}-{names(IN_USE).index(row.fact)}"

    def begin() -> None:
        for mapping in ask(daemon, f"GET {MAPPINGS}?EventSourceArn={locator(source)}")["EventSourceMappings"]:
            target = f"{MAPPINGS}/{mapping['UUID']}"
            await_that(lambda: daemon.send("DELETE", target).status == 404)
        body = {"FunctionName": "plain", "EventSourceArn": source}
        script.kept["alias"] = ask(daemon, f"POST {MAPPINGS}", body)["UUID"]

    script.run_at_once(begin, row)


def test_states(daemon: RunningDaemon, stage: tuple[Script, dict[str, Any]]) -> None:
    """Where a mapping goes after each request, though its function is deleted meanwhile."""
    script = stage[0]
    for row, state in MOVING:
        script.run([row])
        target = f"{MAPPINGS}/{script.kept['moving']}"
        if state is None:
            await_that(lambda target=target: daemon.send("GET", target).status == 404)  # type: ignore[misc]
            script.run([refusal("gone", f"GET {target}", NO_RESOURCE)])
        else:
            await_that(lambda target=target, state=state: ask(daemon, f"GET {target}")["State"] == state)  # type: ignore[misc]
