"""What a mapping of each kind of event source may set, and what it has unless told otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastlam.store.records import EVENT_SOURCE_MAPPING
from mapping_plane import (
    BASIC_AUTH,
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
    TABLE_STREAM,
    MappingPlane,
    Members,
    filters,
    on_failure,
)
from memory_plane import ARN, CALLER, refused

HELLO = f"{ARN}:hello"
IPV = "InvalidParameterValueException"
PROVISIONED: Members = {"ProvisionedPollerConfig": {"MinimumPollers": 1}}


@pytest.fixture
def plane(tmp_path: Path) -> MappingPlane:
    return MappingPlane(tmp_path)


# Settings by source --------------------------------------------------------------------------------


def test_queue(plane: MappingPlane) -> None:
    mapping = plane.add(SQS)
    assert mapping.settings == {"BatchSize": 10, "MaximumBatchingWindowInSeconds": 0, "FunctionResponseTypes": []}
    assert (mapping.state_transition_reason, mapping.last_processing_result) == ("USER_INITIATED", None)
    assert mapping.event_source_arn == QUEUE
    assert mapping.arn == f"arn:aws:lambda:us-east-1:000000000000:event-source-mapping:{mapping.uuid}"


@pytest.mark.parametrize("source", [KINESIS, DYNAMODB])
def test_stream(plane: MappingPlane, source: Members) -> None:
    mapping = plane.add(source)
    assert mapping.settings == {
        "BatchSize": 100,
        "BisectBatchOnFunctionError": False,
        "DestinationConfig": {"OnFailure": {}},
        "FunctionResponseTypes": [],
        "MaximumBatchingWindowInSeconds": 0,
        "MaximumRecordAgeInSeconds": -1,
        "MaximumRetryAttempts": -1,
        "ParallelizationFactor": 1,
        "StartingPosition": source["StartingPosition"],
        "TumblingWindowInSeconds": 0,
    }
    assert (mapping.state_transition_reason, mapping.last_processing_result) == ("User action", "No records processed")


def test_kafka(plane: MappingPlane) -> None:
    """The batching window of half a second is not shown: it has no whole seconds."""
    mapping = plane.add(KAFKA)
    assert mapping.settings == {
        "BatchSize": 100,
        "SelfManagedEventSource": KAFKA["SelfManagedEventSource"],
        "SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": mapping.uuid},
        "SourceAccessConfigurations": [BASIC_AUTH],
        "StartingPosition": "LATEST",
        "Topics": ["topic"],
    }
    assert (mapping.state_transition_reason, mapping.last_processing_result) == (
        "USER_INITIATED",
        "No records processed",
    )
    assert mapping.event_source_arn == ""
    managed = plane.add(MSK, AmazonManagedKafkaEventSourceConfig={"ConsumerGroupId": "mine"})
    assert managed.settings["AmazonManagedKafkaEventSourceConfig"] == {"ConsumerGroupId": "mine"}
    assert "SourceAccessConfigurations" not in managed.settings


def test_kafka_in_provisioned_mode(plane: MappingPlane) -> None:
    mapping = plane.add(
        MSK,
        ProvisionedPollerConfig={"MaximumPollers": 5, "PollerGroupName": "group"},
        MaximumRetryAttempts=0,
        BisectBatchOnFunctionError=True,
        FunctionResponseTypes=["ReportBatchItemFailures"],
        LoggingConfig={"SystemLogLevel": "DEBUG"},
        MetricsConfig={"Metrics": ["EventCount", "KafkaMetrics"]},
        **on_failure("kafka://failures"),
    )
    pollers = {"MinimumPollers": 1, "MaximumPollers": 5, "PollerGroupName": "group"}
    assert mapping.settings["ProvisionedPollerConfig"] == pollers
    alone = plane.update(mapping, ProvisionedPollerConfig={"PollerGroupName": "", "MinimumPollers": 2})
    assert alone.settings["ProvisionedPollerConfig"] == {"MinimumPollers": 2, "MaximumPollers": 5}
    assert alone.settings | {"ProvisionedPollerConfig": pollers} == mapping.settings
    leave = {"UUID": mapping.uuid, "ProvisionedPollerConfig": {}}
    message = refused(IPV, plane.mappings.update, CALLER, leave)
    assert message == "Unsupported 'maximumRetryAttempts' parameter for given event source mapping type."
    assert plane.get(mapping) == alone
    neutral = {
        "MaximumRetryAttempts": -1,
        "BisectBatchOnFunctionError": False,
        "FunctionResponseTypes": [],
        "LoggingConfig": {},
        "MetricsConfig": {"Metrics": []},
        "DestinationConfig": {},
    }
    assert "ProvisionedPollerConfig" not in plane.update(mapping, ProvisionedPollerConfig={}, **neutral).settings


def test_kafka_configuration_after_creation(plane: MappingPlane) -> None:
    registry = {"SchemaRegistryURI": "https://example.com", "EventRecordFormat": "JSON"}
    mapping = plane.add(KAFKA | {"SelfManagedKafkaEventSourceConfig": {"SchemaRegistryConfig": registry}})
    config = {"ConsumerGroupId": mapping.uuid, "SchemaRegistryConfig": registry}
    assert mapping.settings["SelfManagedKafkaEventSourceConfig"] == config
    for member, named in (
        ("ConsumerGroupId", "selfManagedKafkaEventSourceConfig.consumerGroupId"),
        ("ConsumptionMode", "ConsumptionMode"),
    ):
        request = {"UUID": mapping.uuid, "SelfManagedKafkaEventSourceConfig": {member: mapping.uuid}}
        message = refused(IPV, plane.mappings.update, CALLER, request)
        assert message == f"Unsupported '{named}' parameter for given event source mapping type."
    kept = plane.update(mapping, SelfManagedKafkaEventSourceConfig={})
    assert kept.settings["SelfManagedKafkaEventSourceConfig"] == config
    cleared = plane.update(mapping, SelfManagedKafkaEventSourceConfig={"SchemaRegistryConfig": {}})
    assert cleared.settings["SelfManagedKafkaEventSourceConfig"] == {"ConsumerGroupId": mapping.uuid}


def test_kafka_topic_read_as_a_queue(plane: MappingPlane) -> None:
    """It has no positions to start from."""
    queue = {"SelfManagedKafkaEventSourceConfig": {"ConsumptionMode": "Queue"}}
    source = {name: value for name, value in KAFKA.items() if name != "StartingPosition"}
    assert "StartingPosition" not in plane.add(source | queue).settings
    message = refused(IPV, plane.mappings.create, CALLER, {"FunctionName": "hello", **KAFKA, **queue})
    assert message == "Unsupported 'startingPosition' parameter for given event source mapping type."


def test_broker_and_documents(plane: MappingPlane) -> None:
    broker = plane.add(MQ, SourceAccessConfigurations=[BASIC_AUTH, {"Type": "VIRTUAL_HOST", "URI": "/x"}])
    assert broker.settings["Queues"] == ["q"]
    assert (broker.state_transition_reason, broker.last_processing_result) == ("USER_INITIATED", "No records processed")
    documents = plane.add(DOCUMENTDB)
    assert documents.settings == {
        "BatchSize": 100,
        "DocumentDBEventSourceConfig": {"DatabaseName": "db", "FullDocument": "Default"},
        "SourceAccessConfigurations": [BASIC_AUTH],
        "StartingPosition": "LATEST",
    }
    assert documents.state_transition_reason == "User action"
    changed = plane.update(documents, DocumentDBEventSourceConfig={"FullDocument": "UpdateLookup"})
    assert changed.settings["DocumentDBEventSourceConfig"] == {"DatabaseName": "db", "FullDocument": "UpdateLookup"}


def test_what_an_update_clears(plane: MappingPlane) -> None:
    pattern = '{"body": {"a": [1]}}'
    mapping = plane.add(
        SQS,
        ScalingConfig={"MaximumConcurrency": 5},
        KMSKeyArn="arn:aws:kms:us-east-1:000000000000:key/k",
        MetricsConfig={"Metrics": ["EventCount"]},
        FunctionResponseTypes=["ReportBatchItemFailures"],
        **filters(pattern),
    )
    full = mapping.settings
    assert full["FilterCriteria"] == {"Filters": [{"Pattern": pattern}]}
    assert full["ScalingConfig"] == {"MaximumConcurrency": 5}
    assert plane.update(mapping).settings == full
    for member, empty in (
        ("ScalingConfig", {}),
        ("KMSKeyArn", ""),
        ("MetricsConfig", {"Metrics": []}),
        ("FilterCriteria", {}),
    ):
        full = {name: value for name, value in full.items() if name != member}
        assert plane.update(mapping, **{member: empty}).settings == full
    assert plane.update(mapping, FunctionResponseTypes=[]).settings["FunctionResponseTypes"] == []
    plane.update(mapping, **filters(pattern))
    assert "FilterCriteria" not in plane.update(mapping, FilterCriteria={"Filters": []}).settings


def test_destination_of_a_stream(plane: MappingPlane) -> None:
    mapping = plane.add(KINESIS, **on_failure("arn:aws:s3:::bucket"))
    assert mapping.settings["DestinationConfig"] == {"OnFailure": {"Destination": "arn:aws:s3:::bucket"}}
    topic = plane.update(mapping, **on_failure("arn:aws:sns:us-east-1:000000000000:topic"))
    assert topic.settings["DestinationConfig"]["OnFailure"]["Destination"].endswith(":topic")
    assert plane.update(mapping, DestinationConfig={}).settings["DestinationConfig"] == {"OnFailure": {}}
    assert plane.update(mapping, **on_failure("")).settings["DestinationConfig"] == {"OnFailure": {}}


def test_queue_in_provisioned_mode(plane: MappingPlane) -> None:
    mapping = plane.add(SQS, ProvisionedPollerConfig={"MinimumPollers": 3})
    assert mapping.settings["ProvisionedPollerConfig"] == {"MinimumPollers": 3, "MaximumPollers": 200}
    changed = plane.update(mapping, ProvisionedPollerConfig={"MaximumPollers": 10_000})
    assert changed.settings["ProvisionedPollerConfig"] == {"MinimumPollers": 3, "MaximumPollers": 10_000}
    assert "ProvisionedPollerConfig" not in plane.update(mapping, ProvisionedPollerConfig={}).settings


def test_position_in_time(plane: MappingPlane) -> None:
    now = plane.clock.wall_ms() / 1000
    mapping = plane.add(KINESIS, StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp=now)
    assert mapping.settings["StartingPositionTimestamp"] == now
    ignored = plane.add(KINESIS, "hello:1", StartingPositionTimestamp=now)
    assert "StartingPositionTimestamp" not in ignored.settings


# Refusals ------------------------------------------------------------------------------------------

UNSUPPORTED = "Unsupported '{}' parameter for given event source mapping type."
DESTINATION = "Unsupported DestinationConfig parameter for given event source mapping type."
BIG_BATCH = "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
AGE = "MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)"
FILTER = "Invalid filter pattern definition."
TIME = "When the starting position is 'AT_TIMESTAMP', a starting position timestamp must be provided."
POLLERS = "MinimumPollers should be between [{}, 200] and MaximumPollers should be between [MinimumPollers, {}]"
METRICS = (
    "MetricsConfig is only available for Provisioned Mode. Enable Provisioned Mode by specifying MinimumPollers in"
    " ProvisionedPollerConfig."
)
NO_POSITION = "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null."
BOTH_SCALINGS = (
    "Provisioned mode for SQS ESM does not support maximum concurrency feature. Use MaximumPollers as the control"
    " mechanism and remove maximum concurrency."
)

# On creation only.
REFUSED_NEW: list[tuple[Members, str]] = [
    ({}, "Unrecognized event source."),
    ({"SelfManagedEventSource": {}}, "Unrecognized event source."),
    ({"EventSourceArn": "arn:aws:sns:us-east-1:000000000000:topic"}, "Unrecognized event source."),
    ({"EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:"}, "Unrecognized event source."),
    ({"EventSourceArn": "arn:aws:dynamodb:us-east-1:000000000000:table/t"}, "Unrecognized event source."),
    ({"EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:s"}, "Unrecognized event source."),
    ({"EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:stream/"}, "Unrecognized event source."),
    ({"EventSourceArn": "arn:aws:mq:us-east-1:000000000000:configuration:c"}, "Unrecognized event source."),
    ({"EventSourceArn": "arn:aws:rds:us-east-1:000000000000:db:d"}, "Unrecognized event source."),
    (
        {"EventSourceArn": "arn:aws:sqs:eu-west-1:000000000000:q"},
        "Event source is not in the same region as the function. Event source is expected to be in region us-east-1.",
    ),
    ({"EventSourceArn": STREAM}, NO_POSITION),
    ({"EventSourceArn": TABLE_STREAM}, NO_POSITION),
    ({**MSK, "StartingPosition": None}, NO_POSITION),
    ({**KAFKA, "StartingPosition": None}, NO_POSITION),
    ({**DOCUMENTDB, "StartingPosition": None}, NO_POSITION),
    ({**DYNAMODB, "StartingPosition": "AT_TIMESTAMP"}, f"Unsupported starting position for arn type: {TABLE_STREAM}"),
    *(({**source, "StartingPosition": "AT_TIMESTAMP"}, TIME) for source in (KINESIS, MSK, KAFKA, DOCUMENTDB)),
    (
        {**KINESIS, "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 4e9},
        "StartingPositionTimestamp cannot be in the future.",
    ),
    ({**SQS, "StartingPosition": "LATEST"}, UNSUPPORTED.format("startingPosition")),
    ({**SQS, "Topics": ["t1"]}, UNSUPPORTED.format("topics")),
    ({**KINESIS, "Queues": ["q"]}, UNSUPPORTED.format("queues")),
    ({**MSK, "Queues": ["q"]}, UNSUPPORTED.format("queues")),
    (
        {**MSK, "SelfManagedEventSource": KAFKA["SelfManagedEventSource"]},
        UNSUPPORTED.format("selfManagedEventSource"),
    ),
    (
        {**KAFKA, "AmazonManagedKafkaEventSourceConfig": {"ConsumerGroupId": "g"}},
        UNSUPPORTED.format("amazonManagedKafkaEventSourceConfig"),
    ),
    ({**MSK, "Topics": None}, "Required 'topics' parameter is missing."),
    ({**KAFKA, "Topics": None, "SourceAccessConfigurations": None}, "Required 'topics' parameter is missing."),
    ({**MQ, "Queues": None}, "Required 'queues' parameter is missing."),
    (
        {**DOCUMENTDB, "DocumentDBEventSourceConfig": None},
        "Invalid parameters: documentDBEventSourceConfig, databaseName",
    ),
    ({**DOCUMENTDB, "DocumentDBEventSourceConfig": {"CollectionName": "c"}}, "Invalid parameters: databaseName"),
    (
        {**DOCUMENTDB, "SourceAccessConfigurations": None},
        "Invalid parameters: sourceAccessConfigurations, sourceAccessConfigurations",
    ),
    ({**DOCUMENTDB, "Topics": ["t1"]}, "Invalid parameters: topics"),
    *(
        (
            {**source, "ProvisionedPollerConfig": config},
            "Either MinimumPollers or MaximumPollers are required if ProvisionedPollerConfig is provided.",
        )
        for source in (SQS, MSK)
        for config in ({}, {"PollerGroupName": "g"})
    ),
]

# On creation and by an update alike.
REFUSED: list[tuple[Members, Members, str]] = [
    (SQS, {"BatchSize": 11}, BIG_BATCH),
    (FIFO, {"BatchSize": 11}, BIG_BATCH),
    (FIFO, {"MaximumBatchingWindowInSeconds": 1}, "Batching window is not supported for FIFO queues"),
    (FIFO, {"MaximumBatchingWindowInSeconds": 1, "BatchSize": 11}, "Batching window is not supported for FIFO queues"),
    (SQS, on_failure(f"{QUEUE}-2"), DESTINATION),
    (MQ, on_failure(f"{QUEUE}-2"), DESTINATION),
    (KINESIS, {"DestinationConfig": {"OnSuccess": {"Destination": QUEUE}}}, DESTINATION),
    (KINESIS, on_failure(f"{QUEUE}.fifo"), DESTINATION),
    (KINESIS, on_failure("arn:aws:sns:us-east-1:000000000000:topic.fifo"), DESTINATION),
    (KINESIS, on_failure(HELLO), DESTINATION),
    (KINESIS, on_failure("arn:aws:sqs:us-east-1:000000000000:"), DESTINATION),
    (KINESIS, on_failure("kafka://topic-2"), DESTINATION),
    (MSK, on_failure("kafka://topic-2"), DESTINATION),
    (MSK, {**PROVISIONED, **on_failure("kafka://topic")}, DESTINATION),
    *(
        (source, {member: value}, UNSUPPORTED.format(member[:1].lower() + member[1:]))
        for source in (SQS, MQ)
        for member, value in (
            ("ParallelizationFactor", 1),
            ("MaximumRecordAgeInSeconds", -1),
            ("MaximumRetryAttempts", -1),
            ("BisectBatchOnFunctionError", False),
            ("TumblingWindowInSeconds", 0),
            ("LoggingConfig", {"SystemLogLevel": "INFO"}),
        )
    ),
    *(
        (source, {"ScalingConfig": {"MaximumConcurrency": 2}}, UNSUPPORTED.format("scalingConfig"))
        for source in (KINESIS, DYNAMODB, MSK, KAFKA, MQ)
    ),
    (KINESIS, PROVISIONED, UNSUPPORTED.format("provisionedPollerConfig")),
    (KINESIS, {"SourceAccessConfigurations": [BASIC_AUTH]}, UNSUPPORTED.format("sourceAccessConfigurations")),
    (MQ, {"FunctionResponseTypes": ["ReportBatchItemFailures"]}, UNSUPPORTED.format("functionResponseTypes")),
    (DOCUMENTDB, filters('{"a": [1]}'), "Invalid parameters: filterCriteria"),
    (DOCUMENTDB, {"FunctionResponseTypes": ["ReportBatchItemFailures"]}, "Invalid parameters: functionResponseTypes"),
    (DOCUMENTDB, {"SourceAccessConfigurations": [BASIC_AUTH] * 2}, "Invalid parameters: sourceAccessConfigurations"),
    (
        MQ,
        {"SourceAccessConfigurations": [{"Type": "VIRTUAL_HOST", "URI": "/"}]},
        "Invalid parameters: sourceAccessConfigurations",
    ),
    (
        MQ,
        {"SourceAccessConfigurations": [BASIC_AUTH, {"Type": "IAM_AUTH"}]},
        "Invalid parameters: sourceAccessConfigurations",
    ),
    (
        KAFKA,
        {"SourceAccessConfigurations": [{"Type": "VIRTUAL_HOST", "URI": "/"}]},
        "Invalid parameters: sourceAccessConfigurations",
    ),
    (MQ, {"SourceAccessConfigurations": []}, "Required 'sourceAccessConfigurations' parameter is missing."),
    (KAFKA, {"SourceAccessConfigurations": []}, "Required 'sourceAccessConfigurations' parameter is missing."),
    (KINESIS, {"MaximumRecordAgeInSeconds": 0}, AGE),
    (KINESIS, {"MaximumRecordAgeInSeconds": 59}, AGE),
    (
        KINESIS,
        {"TumblingWindowInSeconds": 1, **filters('{"a": [1]}')},
        "Tumbling windows cannot be combined with filter criteria.",
    ),
    (
        KINESIS,
        {"TumblingWindowInSeconds": 1, "ParallelizationFactor": 2},
        "Tumbling windows cannot be combined with a ParallelizationFactor above 1.",
    ),
    (SQS, {"ProvisionedPollerConfig": {"MinimumPollers": 1}}, POLLERS.format(2, 10_000)),
    (SQS, {"ProvisionedPollerConfig": {"MinimumPollers": 10, "MaximumPollers": 9}}, POLLERS.format(2, 10_000)),
    (SQS, {"ProvisionedPollerConfig": {"MaximumPollers": 1}}, POLLERS.format(2, 10_000)),
    (MSK, {"ProvisionedPollerConfig": {"MaximumPollers": 2001}}, POLLERS.format(1, 2000)),
    (
        SQS,
        {"ProvisionedPollerConfig": {"MinimumPollers": 2, "PollerGroupName": "g"}},
        UNSUPPORTED.format("provisionedPollerConfig.pollerGroupName"),
    ),
    (
        SQS,
        {"ProvisionedPollerConfig": {"MinimumPollers": 2}, "ScalingConfig": {"MaximumConcurrency": 2}},
        BOTH_SCALINGS,
    ),
    *((source, {"MetricsConfig": {"Metrics": ["EventCount"]}}, METRICS) for source in (MSK, KAFKA)),
    (SQS, {"MetricsConfig": {"Metrics": ["EventCount", "ErrorCount"]}}, UNSUPPORTED.format("metricsConfig")),
    *(
        (KAFKA, {member: value}, UNSUPPORTED.format(member[:1].lower() + member[1:]))
        for member, value in (
            ("MaximumRetryAttempts", 0),
            ("MaximumRecordAgeInSeconds", 60),
            ("BisectBatchOnFunctionError", True),
            ("FunctionResponseTypes", ["ReportBatchItemFailures"]),
            ("LoggingConfig", {"SystemLogLevel": "INFO"}),
        )
    ),
    *(
        (source, filters(pattern), FILTER)
        for source in (SQS, KINESIS, MSK, MQ)
        for pattern in (None, "", "null", "simple string", '{"eventSource": "aws:sqs"}', '{"eventSource": []}')
    ),
    (SQS, filters('{"a": [1]}', '{"a": [{"wildcard": "*"}]}'), FILTER),
    (SQS, filters(*['{"a": [1]}'] * 6), "Number of filters exceeds the limit of 5."),
]


@pytest.mark.parametrize(("request_", "message"), REFUSED_NEW)
def test_refused_creations(plane: MappingPlane, request_: Members, message: str) -> None:
    assert refused(IPV, plane.mappings.create, CALLER, {"FunctionName": "hello", **request_}) == message
    assert plane.store.all(EVENT_SOURCE_MAPPING) == []


@pytest.mark.parametrize(("source", "more", "message"), REFUSED)
def test_refused_settings(plane: MappingPlane, source: Members, more: Members, message: str) -> None:
    assert refused(IPV, plane.mappings.create, CALLER, {"FunctionName": "hello", **source, **more}) == message
    assert plane.store.all(EVENT_SOURCE_MAPPING) == []
    mapping = plane.add(source)
    assert refused(IPV, plane.mappings.update, CALLER, {"UUID": mapping.uuid, **more}) == message
    assert plane.get(mapping) == mapping


def test_what_goes_together_is_judged_with_what_there_is(plane: MappingPlane) -> None:
    queue = plane.add(SQS, BatchSize=100, MaximumBatchingWindowInSeconds=5)
    message = refused(IPV, plane.mappings.update, CALLER, {"UUID": queue.uuid, "MaximumBatchingWindowInSeconds": 0})
    assert message == BIG_BATCH
    stream = plane.add(KINESIS, TumblingWindowInSeconds=30)
    refused(IPV, plane.mappings.update, CALLER, {"UUID": stream.uuid, "ParallelizationFactor": 2})
    refused(IPV, plane.mappings.update, CALLER, {"UUID": stream.uuid, **filters('{"a": [1]}')})
    plane.update(stream, ParallelizationFactor=2, TumblingWindowInSeconds=0)


@pytest.mark.parametrize("source", EVERY.values(), ids=EVERY)
def test_empty_settings_of_other_sources(plane: MappingPlane, source: Members) -> None:
    """What says nothing is nowhere refused."""
    empty: Members = {"Topics": [], "Queues": [], "FunctionResponseTypes": [], "DestinationConfig": {}}
    mapping = plane.add(empty | {"ScalingConfig": {}, "FilterCriteria": {}, "LoggingConfig": {}} | source)
    plain = plane.add(source, "hello:1")
    assert set(mapping.settings) - {"DestinationConfig", "FunctionResponseTypes"} <= set(plain.settings)
