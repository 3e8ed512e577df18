"""SQS queues as event sources, against moto's server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from daemon_running import GATE_CODE, Gate, RunningDaemon, running_daemon
from local_servers import free_port
from mapping_plane import filters
from moto_running import AwsServer, running_aws
from source_sink import Sink
from waiting import await_that

LIMIT = 6_291_456


@pytest.fixture(scope="module")
def daemon(aws: AwsServer) -> Iterator[RunningDaemon]:
    with running_daemon("--aws-endpoint", aws.url, complains=True) as running:  # it tells of queues that are gone
        yield running


class Queue:
    """One queue of the server."""

    def __init__(self, aws: AwsServer, name: str, **attributes: str) -> None:
        self.client = aws.client("sqs")
        self.name = name
        self.url = self.client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        self.arn: str = self.attribute("QueueArn")

    def attribute(self, name: str) -> str:
        found: str = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=[name])["Attributes"][name]
        return found

    def send(self, *bodies: str, **more: Any) -> None:
        for start in range(0, len(bodies), 10):
            entries = [{"Id": str(n), "MessageBody": body, **more} for n, body in enumerate(bodies[start : start + 10])]
            answer = self.client.send_message_batch(QueueUrl=self.url, Entries=entries)
            assert not answer.get("Failed"), answer

    def count(self) -> int:
        """Messages that are there, in flight or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)


def bodies(event: Any) -> list[str]:
    return [record["body"] for record in event["Records"]]


def test_event(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    queue = Queue(aws, "event")
    sink = Sink(daemon, "sqs-event", tmp_path)
    sink.map(queue.arn)
    sent = queue.client.send_message(
        QueueUrl=queue.url,
        MessageBody="hello ü",
        MessageAttributes={
            "Author": {"DataType": "String", "StringValue": "x"},
            "Blob": {"DataType": "Binary", "BinaryValue": b"\xff"},
        },
    )
    (event,) = sink.await_events(1)
    (record,) = event["Records"]
    assert list(record) == [
        *("messageId", "receiptHandle", "body", "attributes", "messageAttributes", "md5OfMessageAttributes"),
        *("md5OfBody", "eventSource", "eventSourceARN", "awsRegion"),
    ]
    assert record["attributes"].keys() == {
        *("ApproximateReceiveCount", "SentTimestamp", "SenderId", "ApproximateFirstReceiveTimestamp"),
    }
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    varying = {"attributes": {}, "receiptHandle": ""}
    assert record | varying == {
        "messageId": sent["MessageId"],
        "receiptHandle": "",
        "body": "hello ü",
        "attributes": {},
        "messageAttributes": {
            "Author": {"stringValue": "x", "stringListValues": [], "binaryListValues": [], "dataType": "String"},
            "Blob": {"binaryValue": "/w==", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"},
        },
        "md5OfMessageAttributes": sent["MD5OfMessageAttributes"],
        "md5OfBody": sent["MD5OfMessageBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue.arn,
        "awsRegion": "us-east-1",
    }
    await_that(lambda: queue.count() == 0)
    queue.send("plain")
    assert "md5OfMessageAttributes" not in sink.await_records(2)[1]


def test_an_update_that_changes_nothing(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    queue = Queue(aws, "unchanged")
    sink = Sink(daemon, "sqs-unchanged", tmp_path)
    uuid = sink.map(queue.arn, BatchSize=5)
    for _ in range(3):
        sink.update(uuid, BatchSize=5)
        assert sink.mapping(uuid)["State"] == "Enabled"
    queue.send("after")
    assert bodies(sink.await_events(1)[0]) == ["after"]


def test_many_messages(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    """Nothing is lost, and what was handled is deleted."""
    queue = Queue(aws, "many")
    sink = Sink(daemon, "sqs-many", tmp_path)
    uuid = sink.map(queue.arn)
    queue.send(*map(str, range(300)))
    records = sink.await_records(300)
    assert {record["body"] for record in records} == set(map(str, range(300)))
    await_that(lambda: queue.count() == 0)
    assert all(len(event["Records"]) <= 10 for event in sink.events())
    await_that(lambda: sink.metrics(uuid)["DeletedEventCount"] >= 300)
    # The server hands out some of them twice when several ask at a time: those may still be under way.
    await_that(lambda: len({sink.metrics(uuid)[f"{what}EventCount"] for what in ("Polled", "Invoked")}) == 1)
    assert sink.metrics(uuid)["PolledEventCount"] >= 300


def test_window(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    """A full batch does not wait for the end of the window."""
    queue = Queue(aws, "window")
    sink = Sink(daemon, "sqs-window", tmp_path)
    uuid = sink.map(queue.arn, BatchSize=15, MaximumBatchingWindowInSeconds=300)
    queue.send(*map(str, range(16)))
    (event,) = sink.await_events(1)
    assert len(event["Records"]) == 15
    assert event["Records"][0]["md5OfMessageAttributes"] is None
    # The one that waits is given back.
    await_that(lambda: sink.metrics(uuid)["PolledEventCount"] == 16)
    sink.update(uuid, MaximumBatchingWindowInSeconds=1)
    assert len(sink.await_events(2)[1]["Records"]) == 1


def test_payload_limit(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    queue = Queue(aws, "large")
    sink = Sink(daemon, "sqs-large", tmp_path)
    sink.map(queue.arn, BatchSize=100, MaximumBatchingWindowInSeconds=3)
    for _ in range(30):
        queue.client.send_message(QueueUrl=queue.url, MessageBody="x" * 250_000)
    sink.await_records(30)
    sizes = [len(json.dumps(event, separators=(",", ":"))) for event in sink.events()]
    assert max(sizes) <= LIMIT
    assert len(sizes) >= 2


def test_partial_failures(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    """What was named as failed stays in the queue, the others are deleted."""
    queue = Queue(aws, "partial", VisibilityTimeout="1")
    behaviour = """
def behave(event):
    failed = [r["messageId"] for r in event["Records"] if r["body"] == "bad" and r["attributes"]["ApproximateReceiveCount"] == "1"]
    return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}
"""
    sink = Sink(daemon, "sqs-partial", tmp_path, behaviour, Timeout=1)
    uuid = sink.map(queue.arn, FunctionResponseTypes=["ReportBatchItemFailures"])
    queue.send("good", "bad", "fine")
    sink.await_records(4)
    await_that(lambda: queue.count() == 0)
    assert sorted(record["body"] for record in sink.records()) == ["bad", "bad", "fine", "good"]
    assert sink.metrics(uuid)["FailedInvokeEventCount"] == 1


@pytest.mark.parametrize(
    "answer",
    ['{"batchItemFailures": [{"itemIdentifier": "never sent"}]}', '{"batchItemFailures": [{"itemIdentifier": ""}]}'],
    ids=["unknown", "empty"],
)
def test_senseless_partial_failures(
    daemon: RunningDaemon, aws: AwsServer, tmp_path: Path, request: pytest.FixtureRequest, answer: str
) -> None:
    """The whole batch comes again."""
    name = f"senseless-{request.node.callspec.id}"
    queue = Queue(aws, name, VisibilityTimeout="1")
    behaviour = f"""
def behave(event):
    if event["Records"][0]["attributes"]["ApproximateReceiveCount"] == "1":
        return {answer}
"""
    sink = Sink(daemon, f"sqs-{name}", tmp_path, behaviour, Timeout=1)
    sink.map(queue.arn, FunctionResponseTypes=["ReportBatchItemFailures"])
    queue.send("a", "b")
    await_that(lambda: sorted(record["body"] for record in sink.records()) == ["a", "a", "b", "b"])
    await_that(lambda: queue.count() == 0)


def test_errors_go_to_the_dead_letter_queue(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    """The queue's own redrive policy decides."""
    dead = Queue(aws, "dead")
    redrive = json.dumps({"deadLetterTargetArn": dead.arn, "maxReceiveCount": 2})
    queue = Queue(aws, "poisoned", VisibilityTimeout="1", RedrivePolicy=redrive)
    behaviour = """
def behave(event):
    if any(record["body"] == "poison" for record in event["Records"]):
        raise ValueError("poison")
"""
    sink = Sink(daemon, "sqs-poisoned", tmp_path, behaviour, Timeout=1)
    sink.map(queue.arn, BatchSize=1)
    queue.send("fine", "poison", "good")
    await_that(lambda: dead.count() == 1)
    await_that(lambda: queue.count() == 0)
    assert sorted(record["body"] for record in sink.records()) == ["fine", "good", "poison", "poison"]


def test_filters(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    """What does not match is deleted, a body that is no JSON too."""
    queue = Queue(aws, "filtered")
    sink = Sink(daemon, "sqs-filtered", tmp_path)
    uuid = sink.map(queue.arn, **filters('{"body": {"n": [{"numeric": [">=", 5]}]}}', '{"body": ["exactly"]}'))
    queue.send(*(json.dumps({"n": n}) for n in range(10)), "no json", "exactly")
    sink.await_records(6)
    await_that(lambda: queue.count() == 0)
    expected = {*(json.dumps({"n": n}) for n in range(5, 10)), "exactly"}
    assert {record["body"] for record in sink.records()} == expected
    assert sink.metrics(uuid)["FilteredOutEventCount"] == 6


def test_fifo(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    """Each group in its order, also when a message of it has failed."""
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true", "VisibilityTimeout": "1"}
    queue = Queue(aws, "ordered.fifo", **attributes)
    behaviour = """
def behave(event):
    for record in event["Records"]:
        if record["body"] == "a3" and record["attributes"]["ApproximateReceiveCount"] == "1":
            raise ValueError("once")
"""
    sink = Sink(daemon, "sqs-fifo", tmp_path, behaviour, Timeout=1)
    sink.map(queue.arn, BatchSize=2)
    for group in "ab":
        queue.send(*(f"{group}{number}" for number in range(8)), MessageGroupId=group)
    await_that(lambda: queue.count() == 0)
    for group in "ab":
        mine = [record["body"] for record in sink.records() if record["attributes"]["MessageGroupId"] == group]
        assert list(dict.fromkeys(mine)) == [f"{group}{number}" for number in range(8)]  # the first time of each
    assert sink.records()[0]["attributes"].keys() >= {"MessageGroupId", "MessageDeduplicationId"}


def test_maximum_concurrency(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path, gate: Gate) -> None:
    """Each call is held until two are there: whatever more the mapping wanted would have an environment of its own."""
    queue = Queue(aws, "concurrent")
    behaviour = f"{GATE_CODE}\ndef behave(event): wait_at({gate.port})"
    sink = Sink(daemon, "sqs-concurrent", tmp_path, behaviour, Timeout=25)
    uuid = sink.map(queue.arn, BatchSize=1, ScalingConfig={"MaximumConcurrency": 2})
    queue.send(*map(str, range(20)))
    for _ in range(10):
        gate.arrive(2)
        assert len(daemon.environments("sqs-concurrent")) == 2
        gate.open()
    await_that(lambda: sink.metrics(uuid)["DeletedEventCount"] >= 20)
    assert len(daemon.environments("sqs-concurrent")) == 2


def test_queue_that_vanishes(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    queue = Queue(aws, "vanishing")
    sink = Sink(daemon, "sqs-vanishing", tmp_path)
    uuid = sink.map(queue.arn)
    queue.send("before")
    sink.await_records(1)
    assert "LastProcessingResult" not in sink.mapping(uuid)
    queue.client.delete_queue(QueueUrl=queue.url)
    await_that(lambda: "NonExistentQueue" in sink.mapping(uuid).get("LastProcessingResult", ""))
    assert sink.mapping(uuid)["State"] == "Enabled"
    Queue(aws, "vanishing").send("after")
    assert [record["body"] for record in sink.await_records(2)] == ["before", "after"]
    await_that(lambda: "LastProcessingResult" not in sink.mapping(uuid))


def refused_creation(daemon: RunningDaemon, **request: Any) -> str:
    with pytest.raises(daemon.lambda_.exceptions.InvalidParameterValueException) as caught:
        daemon.lambda_.create_event_source_mapping(**request)
    return str(caught.value.response["Error"]["Message"])


def test_visibility_too_short(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    """Refused at once, and shown where it comes later."""
    queue = Queue(aws, "short", VisibilityTimeout="5")
    sink = Sink(daemon, "sqs-short", tmp_path, Timeout=10)
    expected = "Queue visibility timeout: 5 seconds is less than Function timeout: 10 seconds"
    assert refused_creation(daemon, FunctionName="sqs-short", EventSourceArn=queue.arn) == expected
    queue.client.set_queue_attributes(QueueUrl=queue.url, Attributes={"VisibilityTimeout": "30"})
    uuid = sink.map(queue.arn)
    queue.client.set_queue_attributes(QueueUrl=queue.url, Attributes={"VisibilityTimeout": "5"})
    sink.update(uuid, BatchSize=5)
    await_that(lambda: expected in sink.mapping(uuid).get("LastProcessingResult", ""))


def test_queue_that_is_not_there(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    Sink(daemon, "sqs-nowhere", tmp_path)
    message = refused_creation(
        daemon, FunctionName="sqs-nowhere", EventSourceArn="arn:aws:sqs:us-east-1:123456789012:nowhere"
    )
    assert message == (
        "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message:"
        " The specified queue does not exist."
    )


def test_disabled_changed_deleted(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    queue = Queue(aws, "changing")
    first, second = Sink(daemon, "sqs-first", tmp_path), Sink(daemon, "sqs-second", tmp_path)
    uuid = first.map(queue.arn)
    queue.send("1")
    first.await_records(1)
    first.update(uuid, Enabled=False)
    assert first.mapping(uuid)["State"] == "Disabled"
    queue.send("2")
    first.update(uuid, Enabled=True, FunctionName="sqs-second")
    second.await_records(1)
    first.delete(uuid)
    queue.send("3")
    assert queue.count() == 1
    assert [len(first.records()), len(second.records())] == [1, 1]


def test_endpoint_that_is_down(tmp_path: Path) -> None:
    """The mapping shows it, and goes on by itself."""
    port = free_port()
    with ExitStack() as stack:
        daemon = stack.enter_context(running_daemon("--aws-endpoint", f"http://127.0.0.1:{port}", complains=True))
        sink = Sink(daemon, "sqs-down", tmp_path)
        uuid = sink.map("arn:aws:sqs:us-east-1:123456789012:down")
        await_that(lambda: "cannot be reached" in sink.mapping(uuid).get("LastProcessingResult", ""))
        aws = stack.enter_context(running_aws(port))
        Queue(aws, "down").send("late")
        assert [record["body"] for record in sink.await_records(1)] == ["late"]


def test_no_credentials(tmp_path: Path) -> None:
    """Without an endpoint it would be AWS, and nobody to call it as."""
    nobody = {"AWS_EC2_METADATA_DISABLED": "true"}
    with running_daemon(complains=True, environment=nobody) as daemon:
        sink = Sink(daemon, "sqs-nobody", tmp_path)
        uuid = sink.map("arn:aws:sqs:us-east-1:123456789012:q")
        await_that(lambda: "There are no AWS credentials" in sink.mapping(uuid).get("LastProcessingResult", ""))
