"""Kinesis and DynamoDB streams as event sources, against moto's server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon_running import RunningDaemon, running_daemon
from local_servers import directory
from mapping_plane import filters, on_failure
from moto_running import AwsServer
from source_sink import Sink
from waiting import await_that


@pytest.fixture(scope="module")
def daemon(aws: AwsServer) -> Iterator[RunningDaemon]:
    with running_daemon("--aws-endpoint", aws.url, complains=True) as running:  # it tells of streams that are gone
        yield running


class Stream:
    """One Kinesis stream of the server."""

    def __init__(self, aws: AwsServer, name: str, shards: int = 1) -> None:
        self.client = aws.client("kinesis")
        self.name = name
        self.client.create_stream(StreamName=name, ShardCount=shards)
        self.arn: str = self.client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]

    def put(self, *data: str, key: str = "k") -> list[str]:
        """Their sequence numbers."""
        return [
            self.client.put_record(StreamName=self.name, PartitionKey=key, Data=each.encode())["SequenceNumber"]
            for each in data
        ]


def data_of(event: Any) -> list[str]:
    return [base64.b64decode(record["kinesis"]["data"]).decode() for record in event["Records"]]


def queue(aws: AwsServer, name: str) -> tuple[str, str]:
    """URL and ARN of a new queue."""
    client = aws.client("sqs")
    url = client.create_queue(QueueName=name)["QueueUrl"]
    return url, client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def await_message(aws: AwsServer, url: str) -> Any:
    found: list[Any] = []

    def came() -> bool:
        answer = aws.client("sqs").receive_message(QueueUrl=url, WaitTimeSeconds=1)
        found.extend(answer.get("Messages") or ())
        return bool(found)

    await_that(came)
    return json.loads(found[0]["Body"])


def test_kinesis_event(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    stream = Stream(aws, "event")
    (sequence,) = stream.put("hello", key="a key")
    sink = Sink(daemon, "kinesis-event", tmp_path)
    sink.map(stream.arn, StartingPosition="TRIM_HORIZON")
    (record,) = sink.await_records(1)
    arrived = record["kinesis"].pop("approximateArrivalTimestamp")
    assert isinstance(arrived, float)
    assert record == {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "a key",
            "sequenceNumber": sequence,
            "data": base64.b64encode(b"hello").decode(),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-000000000000:{sequence}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::000000000000:role/lambda-role",
        "awsRegion": "us-east-1",
        "eventSourceARN": stream.arn,
    }


def test_kinesis_order(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    """Of each key, over shards and parallel lanes; batches are full where there is enough."""
    stream = Stream(aws, "order", 2)
    for number in range(30):
        for key in "abcdef":
            stream.put(f"{key}{number}", key=key)
    sink = Sink(daemon, "kinesis-order", tmp_path)
    sink.map(stream.arn, StartingPosition="TRIM_HORIZON", BatchSize=10, ParallelizationFactor=3)
    sink.await_records(180)
    seen = [data for event in sink.events() for data in data_of(event)]
    for key in "abcdef":
        assert [each for each in seen if each[0] == key] == [f"{key}{number}" for number in range(30)]
    assert max(len(event["Records"]) for event in sink.events()) == 10


def test_kinesis_latest_and_restart(aws: AwsServer, tmp_path: Path) -> None:
    """What comes while nobody reads is read later, nothing twice, and nothing from before the mapping."""
    stream = Stream(aws, "restart")
    stream.put("before")
    options = ("--data-dir", str(tmp_path / "data"), "--aws-endpoint", aws.url)
    with running_daemon(*options, ephemeral=False) as daemon:
        sink = Sink(daemon, "kinesis-restart", tmp_path)
        uuid = sink.map(stream.arn, StartingPosition="LATEST")
        stream.put("1")
        sink.await_events(1)
        await_that(lambda: sink.mapping(uuid)["LastProcessingResult"] == "OK")
    stream.put("2")
    with running_daemon(*options, ephemeral=False) as daemon:
        sink.daemon = daemon
        sink.await_events(2)
        stream.put("3")
        sink.await_events(3)
    assert [data_of(event) for event in sink.events()] == [["1"], ["2"], ["3"]]


def test_kinesis_restart_in_the_middle(aws: AwsServer, tmp_path: Path) -> None:
    """Of a daemon that is killed nothing is lost, and each key stays in order."""
    stream = Stream(aws, "killed", 2)
    for number in range(40):
        for key in "ab":
            stream.put(f"{key}{number}", key=key)
    with directory() as short:  # a killed daemon leaves its sockets
        own = {"TMPDIR": str(short), "XDG_RUNTIME_DIR": str(short)}
        options = ("--data-dir", str(tmp_path / "data"), "--aws-endpoint", aws.url)
        with running_daemon(*options, ephemeral=False, environment=own) as daemon:
            sink = Sink(daemon, "kinesis-killed", tmp_path, "import time\ndef behave(event): time.sleep(0.02)")
            sink.map(stream.arn, StartingPosition="TRIM_HORIZON", BatchSize=3)
        for count in (20, 50):
            with running_daemon(*options, ephemeral=False, environment=own) as daemon:
                sink.daemon = daemon
                sink.await_records(count)
                daemon.process.kill()
                daemon.process.wait()
        with running_daemon(*options, ephemeral=False, environment=own):
            await_that(lambda: {"a39", "b39"} <= {data for event in sink.events() for data in data_of(event)})
    seen = [data for event in sink.events() for data in data_of(event)]
    for key in "ab":
        first_times = list(dict.fromkeys(each for each in seen if each[0] == key))
        assert first_times == [f"{key}{number}" for number in range(40)]
    assert len(seen) < 110  # not all of it again


def test_kinesis_retries_and_failure_record(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    stream, (url, arn) = Stream(aws, "retries"), queue(aws, "retries-failed")
    sink = Sink(daemon, "kinesis-retries", tmp_path, "def behave(event): raise ValueError('always')")
    sequences = stream.put("1", "2")
    uuid = sink.map(stream.arn, StartingPosition="TRIM_HORIZON", MaximumRetryAttempts=1, BatchSize=2, **on_failure(arn))
    record = await_message(aws, url)
    first, second = sink.calls()
    assert first == second  # the same request
    info = record["KinesisBatchInfo"]
    assert info["approximateArrivalOfFirstRecord"].endswith("Z")
    varying = {"approximateArrivalOfFirstRecord": "", "approximateArrivalOfLastRecord": ""}
    assert record | {"timestamp": "", "KinesisBatchInfo": info | varying} == {
        "requestContext": {
            "requestId": first["request_id"],
            "functionArn": "arn:aws:lambda:us-east-1:000000000000:function:kinesis-retries",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 2,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": "",
        "KinesisBatchInfo": {
            "shardId": "shardId-000000000000",
            "startSequenceNumber": sequences[0],
            "endSequenceNumber": sequences[1],
            **varying,
            "batchSize": 2,
            "streamArn": stream.arn,
        },
    }
    assert sink.mapping(uuid)["LastProcessingResult"] == "PROBLEM: Function call failed"
    await_that(lambda: sink.metrics(uuid)["OnFailureDestinationDeliveredEventCount"] == 2)
    stream.put("3")  # what follows is read
    await_that(lambda: data_of(sink.events()[-1]) == ["3"])


def test_kinesis_failures_to_a_bucket(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    """It gets the event, too."""
    stream, s3 = Stream(aws, "bucket"), aws.client("s3")
    s3.create_bucket(Bucket="failed-batches")
    sink = Sink(daemon, "kinesis-bucket", tmp_path, "def behave(event): raise ValueError('always')")
    stream.put("1")
    uuid = sink.map(
        stream.arn, StartingPosition="TRIM_HORIZON", MaximumRetryAttempts=0, **on_failure("arn:aws:s3:::failed-batches")
    )
    await_that(lambda: s3.list_objects_v2(Bucket="failed-batches")["KeyCount"] == 1)
    key = s3.list_objects_v2(Bucket="failed-batches")["Contents"][0]["Key"]
    assert key.startswith(f"aws/lambda/{uuid}/shardId-000000000000/20")
    record = json.loads(s3.get_object(Bucket="failed-batches", Key=key)["Body"].read())
    assert record["payload"] == sink.events()[0]


def test_kinesis_bisects_around_poison(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    """Only the record that fails is given up; all others succeed, in order."""
    stream, (url, arn) = Stream(aws, "bisect"), queue(aws, "bisect-failed")
    behaviour = """
import base64
def behave(event):
    if any(base64.b64decode(r["kinesis"]["data"]) == b"poison" for r in event["Records"]):
        raise ValueError("poison")
    with open(os.environ["SINK"] + ".done", "a") as done:
        for r in event["Records"]:
            done.write(base64.b64decode(r["kinesis"]["data"]).decode() + "\\n")
"""
    sink = Sink(daemon, "kinesis-bisect", tmp_path, behaviour)
    names = [str(number) for number in range(8)]
    sequences = stream.put(*names[:5], "poison", *names[5:])
    sink.map(
        stream.arn,
        StartingPosition="TRIM_HORIZON",
        MaximumRetryAttempts=1,
        BisectBatchOnFunctionError=True,
        **on_failure(arn),
    )
    record = await_message(aws, url)
    info = record["KinesisBatchInfo"]
    assert (info["startSequenceNumber"], info["endSequenceNumber"], info["batchSize"]) == (sequences[5],) * 2 + (1,)
    done = Path(f"{sink.path}.done")
    await_that(lambda: done.read_text().split() == names)


def test_kinesis_partial_failures(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    """From the first record that was named; one that was never sent fails the whole batch."""
    stream = Stream(aws, "partial")
    behaviour = """
def behave(event):
    number = len(seen())
    sequences = [r["kinesis"]["sequenceNumber"] for r in event["Records"]]
    failed = {1: sequences[2:4], 2: ["never sent"]}.get(number)
    return failed and {"batchItemFailures": [{"itemIdentifier": each} for each in reversed(failed)]}
"""
    sink = Sink(daemon, "kinesis-partial", tmp_path, behaviour)
    stream.put("0", "1", "2", "3")
    sink.map(stream.arn, StartingPosition="TRIM_HORIZON", FunctionResponseTypes=["ReportBatchItemFailures"])
    sink.await_events(3)
    assert [data_of(event) for event in sink.events()] == [["0", "1", "2", "3"], ["2", "3"], ["2", "3"]]
    requests = [call["request_id"] for call in sink.calls()]
    assert requests[0] != requests[1] == requests[2]


def test_kinesis_filters(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    stream = Stream(aws, "filters")
    sink = Sink(daemon, "kinesis-filters", tmp_path)
    uuid = sink.map(
        stream.arn,
        StartingPosition="TRIM_HORIZON",
        **filters('{"data": {"kind": ["a", {"prefix": "b"}]}, "partitionKey": ["k"]}'),
    )
    stream.put('{"kind": "a"}', '{"kind": "c"}', '{"kind": "bb"}', "no json")
    stream.put('{"kind": "a"}', key="other")
    sink.await_records(2)
    await_that(lambda: sink.metrics(uuid)["FilteredOutEventCount"] == 3)
    assert [data for event in sink.events() for data in data_of(event)] == ['{"kind": "a"}', '{"kind": "bb"}']


def test_kinesis_shards_that_split(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    """Children are read when their parent has been, to its end; also those of a split that nobody saw."""
    stream = Stream(aws, "split")
    stream.put("1", "2")
    middle = str(2**127)
    stream.client.split_shard(StreamName="split", ShardToSplit="shardId-000000000000", NewStartingHashKey=middle)
    stream.put("3", "4")
    sink = Sink(daemon, "kinesis-split", tmp_path)
    sink.map(stream.arn, StartingPosition="TRIM_HORIZON", BatchSize=1)
    sink.await_records(4)
    assert [data for event in sink.events() for data in data_of(event)] == ["1", "2", "3", "4"]
    open_shards = [
        shard["ShardId"]
        for shard in stream.client.list_shards(StreamName="split")["Shards"]
        if "EndingSequenceNumber" not in shard["SequenceNumberRange"]
    ]
    stream.client.merge_shards(StreamName="split", ShardToMerge=open_shards[0], AdjacentShardToMerge=open_shards[1])
    stream.put("5")
    sink.await_records(5)
    assert data_of(sink.events()[-1]) == ["5"]


def test_kinesis_window(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    stream = Stream(aws, "window")
    sink = Sink(daemon, "kinesis-window", tmp_path)
    sink.map(stream.arn, StartingPosition="TRIM_HORIZON", BatchSize=5, MaximumBatchingWindowInSeconds=300)
    stream.put("1", "2", "3")
    stream.put("4", "5", "6")
    (event,) = sink.await_events(1)
    assert data_of(event) == ["1", "2", "3", "4", "5"]  # full before the window was over


def test_kinesis_tumbling_window(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    """The state goes from batch to batch, and ends with the window."""
    stream = Stream(aws, "tumbling")
    behaviour = """
import base64
def behave(event):
    total = event["state"].get("total", 0)
    return {"state": {"total": total + sum(int(base64.b64decode(r["kinesis"]["data"])) for r in event["Records"])}}
"""
    sink = Sink(daemon, "kinesis-tumbling", tmp_path, behaviour)
    sink.map(stream.arn, StartingPosition="TRIM_HORIZON", BatchSize=1, TumblingWindowInSeconds=1)
    stream.put("1", "2", "3", "4")

    def finals() -> list[Any]:
        return [event for event in sink.events() if event["isFinalInvokeForWindow"]]

    await_that(lambda: sum(event["state"]["total"] for event in finals()) == 10)
    event = finals()[0]
    assert (event["Records"], event["isWindowTerminatedEarly"]) == ([], False)
    assert (event["shardId"], event["eventSourceARN"]) == ("shardId-000000000000", stream.arn)
    assert event["window"].keys() == {"start", "end"}
    starts = [each["window"]["start"] for each in sink.events()]
    assert starts == sorted(starts)


def test_kinesis_stream_that_vanishes(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    stream = Stream(aws, "vanishing")
    sink = Sink(daemon, "kinesis-vanishing", tmp_path)
    uuid = sink.map(stream.arn, StartingPosition="TRIM_HORIZON")
    stream.put("1")
    sink.await_events(1)
    stream.client.delete_stream(StreamName="vanishing")
    await_that(lambda: f"Stream not found: {stream.arn}" in sink.mapping(uuid)["LastProcessingResult"])


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:kinesis:us-east-1:123456789012:stream/nowhere",
        "arn:aws:dynamodb:us-east-1:123456789012:table/nowhere/stream/2026-01-01T00:00:00.000",
    ],
    ids=["kinesis", "dynamodb"],
)
def test_streams_that_are_not_there(
    daemon: RunningDaemon, aws: AwsServer, tmp_path: Path, request: pytest.FixtureRequest, arn: str
) -> None:
    name = f"nowhere-{request.node.callspec.id}"
    Sink(daemon, name, tmp_path)
    with pytest.raises(daemon.lambda_.exceptions.InvalidParameterValueException, match=f"Stream not found: {arn}"):
        daemon.lambda_.create_event_source_mapping(FunctionName=name, EventSourceArn=arn, StartingPosition="LATEST")


# DynamoDB ------------------------------------------------------------------------------------------


def table(aws: AwsServer, name: str) -> tuple[Any, str]:
    """The client, and the ARN of the stream of a new table."""
    client = aws.client("dynamodb")
    created = client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    return client, created["TableDescription"]["LatestStreamArn"]


def test_dynamodb(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    client, arn = table(aws, "changes")
    sink = Sink(daemon, "dynamodb", tmp_path)
    sink.map(arn, StartingPosition="TRIM_HORIZON")
    item = {"id": {"S": "1"}, "n": {"N": "5"}, "b": {"B": b"\xff"}}
    client.put_item(TableName="changes", Item=item)
    client.put_item(TableName="changes", Item={**item, "n": {"N": "6"}})
    client.delete_item(TableName="changes", Key={"id": {"S": "1"}})
    created, modified, removed = sink.await_records(3)
    assert [each["eventName"] for each in (created, modified, removed)] == ["INSERT", "MODIFY", "REMOVE"]
    assert created.keys() == {
        *("eventID", "eventName", "eventVersion", "eventSource", "awsRegion", "dynamodb", "eventSourceARN")
    }
    assert (created["eventSource"], created["awsRegion"], created["eventSourceARN"]) == (
        "aws:dynamodb",
        "us-east-1",
        arn,
    )
    change = created["dynamodb"]
    assert change["Keys"] == {"id": {"S": "1"}}
    assert change["NewImage"] == {"id": {"S": "1"}, "n": {"N": "5"}, "b": {"B": "/w=="}}
    assert change["StreamViewType"] == "NEW_AND_OLD_IMAGES"
    assert (change["SequenceNumber"].isdecimal(), isinstance(change["SizeBytes"], int)) == (True, True)
    assert modified["dynamodb"]["OldImage"]["n"] == {"N": "5"}
    assert "NewImage" not in removed["dynamodb"]


def test_dynamodb_failures_and_filters(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    (client, arn), (url, destination) = table(aws, "failing"), queue(aws, "table-failed")
    sink = Sink(daemon, "dynamodb-failing", tmp_path, "def behave(event): raise ValueError('always')")
    sink.map(
        arn,
        StartingPosition="TRIM_HORIZON",
        MaximumRetryAttempts=0,
        **on_failure(destination),
        **filters('{"eventName": ["INSERT"], "dynamodb": {"NewImage": {"kind": {"S": ["bad"]}}}}'),
    )
    for kind in ("good", "bad", "fine"):
        client.put_item(TableName="failing", Item={"id": {"S": kind}, "kind": {"S": kind}})
    record = await_message(aws, url)
    info = record["DDBStreamBatchInfo"]
    assert (record["requestContext"]["approximateInvokeCount"], info["batchSize"], info["streamArn"]) == (1, 1, arn)
    assert len(info["approximateArrivalOfFirstRecord"]) == len("2025-11-25T16:35:01Z")
    (event,) = sink.events()
    assert event["Records"][0]["dynamodb"]["Keys"] == {"id": {"S": "bad"}}


def test_dynamodb_restart(aws: AwsServer, tmp_path: Path) -> None:
    client, arn = table(aws, "restarted")
    options = ("--data-dir", str(tmp_path / "data"), "--aws-endpoint", aws.url)
    with running_daemon(*options, ephemeral=False) as daemon:
        sink = Sink(daemon, "dynamodb-restart", tmp_path)
        uuid = sink.map(arn, StartingPosition="LATEST")
        client.put_item(TableName="restarted", Item={"id": {"S": "1"}})
        sink.await_records(1)
        await_that(lambda: sink.mapping(uuid)["LastProcessingResult"] == "OK")
    client.put_item(TableName="restarted", Item={"id": {"S": "2"}})
    with running_daemon(*options, ephemeral=False) as daemon:
        sink.await_records(2)
        client.put_item(TableName="restarted", Item={"id": {"S": "3"}})
        records = sink.await_records(3)
    assert [each["dynamodb"]["Keys"]["id"]["S"] for each in records] == ["1", "2", "3"]
