"""Dead-letter queues and destinations: what arrives at real servers of each kind, field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from daemon_running import REGION, RunningDaemon, running_daemon
from event_running import ATTEMPTS, Sent, advance, counters, destination_row, settle
from moto_running import AwsServer, Queue

AWS_ACCOUNT: Final = "123456789012"  # in which moto puts what nobody's role asks for
ROLE: Final = f"arn:aws:iam::{AWS_ACCOUNT}:role/lambda-role"
NAME: Final = re.compile(r"[^a-zA-Z0-9]+")


@pytest.fixture(scope="module")
def virtual(aws: AwsServer) -> Iterator[RunningDaemon]:
    with running_daemon("--clock", "virtual", "--aws-endpoint", aws.url, "--account", AWS_ACCOUNT) as daemon:
        yield daemon


def attributes(message: dict[str, Any]) -> dict[str, tuple[str, str]]:
    found = message.get("MessageAttributes", {})
    return {name: (value["DataType"], value["StringValue"]) for name, value in found.items()}


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return NAME.sub("-", request.node.name)[5:50].strip("-")


def deploy(daemon: RunningDaemon, name: str, role: str = ROLE, account: str = AWS_ACCOUNT, **more: Any) -> Any:
    """The function, and the client of its account."""
    client = daemon.client(account=account)
    daemon.deploy(name, ATTEMPTS, client=client, Role=role, **more)
    return client


def configure(client: Any, name: str, **arns: str) -> None:
    client.put_function_event_invoke_config(
        FunctionName=name, DestinationConfig={side: {"Destination": arn} for side, arn in arns.items()}
    )


def check_record(record: dict[str, Any], sent: Sent, name: str, failed: bool) -> None:
    """The whole invocation record of an event that has succeeded, or failed three times."""
    record = dict(record)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("timestamp"))
    payload = record.pop("responsePayload")
    response = {"statusCode": 200, "executedVersion": "$LATEST"}
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": sent.request_id,
            "functionArn": f"arn:aws:lambda:{REGION}:{AWS_ACCOUNT}:function:{name}:$LATEST",
            "condition": "RetriesExhausted" if failed else "Success",
            "approximateInvokeCount": 3 if failed else 1,
        },
        "requestPayload": sent.event,
        "responseContext": {**response, "functionError": "Unhandled"} if failed else response,
    }
    if failed:
        assert (payload["errorMessage"], payload["errorType"]) == (sent.event["fail"], "ValueError")
    else:
        assert payload == {"word": "first"}


Reader = Callable[[], dict[str, Any]]


def to_sqs(aws: AwsServer, name: str) -> tuple[str, Callable[[bool, str], dict[str, Any]]]:
    queue = Queue(aws, name)

    def read(failed: bool, function_arn: str) -> dict[str, Any]:
        message = queue.one()
        assert attributes(message) == {} and "AWSTraceHeader" not in message["Attributes"]
        return json.loads(message["Body"])

    return queue.arn, read


def to_sns(aws: AwsServer, name: str) -> tuple[str, Callable[[bool, str], dict[str, Any]]]:
    queue, sns = Queue(aws, name), aws.client("sns")
    topic = sns.create_topic(Name=name)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue.arn)

    def read(failed: bool, function_arn: str) -> dict[str, Any]:
        notification = json.loads(queue.one()["Body"])
        assert notification["TopicArn"] == topic
        assert "Subject" not in notification and not notification.get("MessageAttributes")
        return json.loads(notification["Message"])

    return topic, read


def to_eventbridge(aws: AwsServer, name: str) -> tuple[str, Callable[[bool, str], dict[str, Any]]]:
    queue, events = Queue(aws, name), aws.client("events")
    bus = events.create_event_bus(Name=name)["EventBusArn"]
    events.put_rule(Name=name, EventBusName=name, EventPattern=json.dumps({"source": ["lambda"]}))
    events.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "queue", "Arn": queue.arn}])

    def read(failed: bool, function_arn: str) -> dict[str, Any]:
        event = json.loads(queue.one()["Body"])
        assert event["source"] == "lambda"
        assert event["detail-type"] == f"Lambda Function Invocation Result - {'Failure' if failed else 'Success'}"
        assert event["resources"] == [bus, function_arn]
        return event["detail"]

    return bus, read


def to_s3(aws: AwsServer, name: str) -> tuple[str, Callable[[bool, str], dict[str, Any]]]:
    bucket, s3 = name.lower(), aws.client("s3")
    s3.create_bucket(Bucket=bucket)

    def read(failed: bool, function_arn: str) -> dict[str, Any]:
        (entry,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
        found = s3.get_object(Bucket=bucket, Key=entry["Key"])
        assert found["ContentType"] == "application/octet-stream"
        record = json.loads(found["Body"].read())
        day, moment = record["timestamp"][:10], record["timestamp"][:19].replace(":", ".")
        uuid = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
        function = function_arn.split(":")[6]
        expected = f"aws/lambda/async/{function}/{day.replace('-', '/')}/{moment}-{uuid}"
        assert re.fullmatch(expected, entry["Key"]), (expected, entry["Key"])
        return record

    return f"arn:aws:s3:::{bucket}", read


KINDS: Final = {"sqs": to_sqs, "sns": to_sns, "eventbridge": to_eventbridge, "s3": to_s3}


@pytest.mark.parametrize(
    ("kind", "failed"),
    [(kind, failed) for kind in KINDS for failed in (False, True) if failed or kind != "s3"],
    ids=lambda value: value if isinstance(value, str) else "failure" if value else "success",
)
def test_a_record_arrives(
    virtual: RunningDaemon, aws: AwsServer, tmp_path: Path, name: str, kind: str, failed: bool
) -> None:
    arn, read = KINDS[kind](aws, name)
    client = deploy(virtual, name)
    configure(client, name, **{"OnFailure" if failed else "OnSuccess": arn})
    sent = Sent(virtual, name, tmp_path / "attempts", client, **({"fail": "no"} if failed else {}))
    advance(virtual, "3m")
    function_arn = f"arn:aws:lambda:{REGION}:{AWS_ACCOUNT}:function:{name}:$LATEST"
    check_record(read(failed, function_arn), sent, name, failed)
    assert len(sent.words) == (3 if failed else 1)


def test_the_story_on_the_machines_clock(aws: AwsServer, tmp_path: Path, name: str) -> None:
    queue, dead = Queue(aws, name), Queue(aws, f"{name}-dead")
    with running_daemon("--retry-delay", "40ms", "--aws-endpoint", aws.url, "--account", AWS_ACCOUNT) as daemon:
        client = deploy(daemon, name, DeadLetterConfig={"TargetArn": dead.arn})
        configure(client, name, OnFailure=queue.arn)
        sent = Sent(daemon, name, tmp_path / "attempts", client, fail="no")
        settle(daemon)
        assert len(sent.words) == 3
        check_record(json.loads(queue.one()["Body"]), sent, name, True)
        assert json.loads(dead.one()["Body"]) == sent.event


def test_a_dead_letter_is_the_event_itself(virtual: RunningDaemon, aws: AwsServer, tmp_path: Path, name: str) -> None:
    dead = Queue(aws, name)
    client = deploy(virtual, name, DeadLetterConfig={"TargetArn": dead.arn})
    sent = Sent(virtual, name, tmp_path / "attempts", client, fail="ä" * 2000)
    advance(virtual, "3m")
    message = dead.one()
    assert json.loads(message["Body"]) == sent.event
    assert attributes(message) == {
        "RequestID": ("String", sent.request_id),
        "ErrorCode": ("Number", "200"),
        "ErrorMessage": ("String", "ä" * 512),
    }
    Sent(virtual, name, tmp_path / "attempts", client)
    advance(virtual, "3m")
    assert dead.take() == [], "what succeeds is not dead"


def test_a_dead_letter_topic(virtual: RunningDaemon, aws: AwsServer, tmp_path: Path, name: str) -> None:
    queue, sns = Queue(aws, name), aws.client("sns")
    topic = sns.create_topic(Name=name)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue.arn)
    client = deploy(virtual, name, DeadLetterConfig={"TargetArn": topic})
    sent = Sent(virtual, name, tmp_path / "attempts", client, fail="no")
    advance(virtual, "3m")
    notification = json.loads(queue.one()["Body"])
    assert json.loads(notification["Message"]) == sent.event
    assert "Subject" not in notification
    assert {key: (value["Type"], value["Value"]) for key, value in notification["MessageAttributes"].items()} == {
        "RequestID": ("String", sent.request_id),
        "ErrorCode": ("Number", "200"),
        "ErrorMessage": ("String", "no"),
    }


def test_a_dead_letter_without_concurrency_has_no_code(
    virtual: RunningDaemon, aws: AwsServer, tmp_path: Path, name: str
) -> None:
    dead = Queue(aws, name)
    client = deploy(virtual, name, DeadLetterConfig={"TargetArn": dead.arn})
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    sent = Sent(virtual, name, tmp_path / "attempts", client)
    advance(virtual, 0)
    found = attributes(dead.one())
    assert sorted(found) == ["ErrorMessage", "RequestID"]
    assert found["RequestID"] == ("String", sent.request_id) and "zero reserved concurrent" in found["ErrorMessage"][1]


def test_a_dead_letter_of_a_function_that_is_gone(
    virtual: RunningDaemon, aws: AwsServer, tmp_path: Path, name: str
) -> None:
    dead = Queue(aws, name)
    client = deploy(virtual, name, DeadLetterConfig={"TargetArn": dead.arn})
    sent = Sent(virtual, name, tmp_path / "attempts", client, fail="no")
    advance(virtual, "1s")
    client.delete_function(FunctionName=name)
    advance(virtual, "10m")
    arn = f"arn:aws:lambda:{REGION}:{AWS_ACCOUNT}:function:{name}:$LATEST"
    assert attributes(dead.one()) == {
        "RequestID": ("String", sent.request_id),
        "ErrorCode": ("Number", "404"),
        "ErrorMessage": ("String", f"Function not found: {arn}"),
    }


def test_both_get_theirs_and_the_trace_of_what_is_traced(
    virtual: RunningDaemon, aws: AwsServer, tmp_path: Path, name: str
) -> None:
    queue, dead = Queue(aws, name), Queue(aws, f"{name}-dead")
    client = deploy(virtual, name, DeadLetterConfig={"TargetArn": dead.arn}, TracingConfig={"Mode": "Active"})
    configure(client, name, OnFailure=queue.arn)
    sent = Sent(virtual, name, tmp_path / "attempts", client, fail="no")
    advance(virtual, "3m")
    message = queue.one()
    check_record(json.loads(message["Body"]), sent, name, True)
    assert message["Attributes"]["AWSTraceHeader"].startswith("Root=1-")
    assert json.loads(dead.one()["Body"]) == sent.event


def test_a_delivery_is_made_as_the_functions_role(
    virtual: RunningDaemon, aws: AwsServer, tmp_path: Path, name: str
) -> None:
    account, role = "222222222222", "arn:aws:iam::222222222222:role/delivers"
    given = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    there = aws.client(
        "sqs",
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
    )
    queue = Queue(aws, name, there)
    assert queue.arn.split(":")[4] == account, "moto keeps accounts apart"
    client = deploy(virtual, name, role, account)
    configure(client, name, OnSuccess=queue.arn)
    sent = Sent(virtual, name, tmp_path / "attempts", client)
    advance(virtual, 0)
    assert json.loads(queue.one()["Body"])["requestContext"]["requestId"] == sent.request_id


def test_a_queue_that_is_not_there_yet(virtual: RunningDaemon, aws: AwsServer, tmp_path: Path, name: str) -> None:
    arn = f"arn:aws:sqs:{REGION}:{AWS_ACCOUNT}:{name}"
    client = deploy(virtual, name)
    configure(client, name, OnSuccess=arn)
    first = Sent(virtual, name, tmp_path / "attempts", client)
    second = Sent(virtual, name, tmp_path / "attempts", client)
    advance(virtual, 10)
    waiting = destination_row(virtual, arn)
    assert (waiting["waiting"], waiting["delivered"]) == (2, 0)
    assert "NonExistentQueue" in waiting["last_error"] or "does not exist" in waiting["last_error"]
    queue = Queue(aws, name)
    advance(virtual, "10m")
    found = {json.loads(message["Body"])["requestContext"]["requestId"] for message in queue.take()}
    assert found == {first.request_id, second.request_id}
    assert destination_row(virtual, arn)["waiting"] == 0


def test_what_is_refused_for_six_hours_is_dropped(aws: AwsServer, tmp_path: Path, name: str) -> None:
    arn = f"arn:aws:sqs:{REGION}:{AWS_ACCOUNT}:{name}"
    with running_daemon(
        "--clock", "virtual", "--aws-endpoint", aws.url, "--account", AWS_ACCOUNT, complains=True
    ) as daemon:
        client = deploy(daemon, name)
        configure(client, name, OnSuccess=arn)
        Sent(daemon, name, tmp_path / "attempts", client)
        advance(daemon, "5h50m")
        assert destination_row(daemon, arn)["waiting"] == 1
        advance(daemon, "20m")
        row = destination_row(daemon, arn)
        assert (row["waiting"], row["failed"]) == (0, 1)
        assert f"a record for {arn} is dropped" in daemon.stderr()


def test_a_record_that_is_too_large_is_dropped_at_once(aws: AwsServer, tmp_path: Path, name: str) -> None:
    queue = Queue(aws, name)
    with running_daemon(
        "--clock", "virtual", "--aws-endpoint", aws.url, "--account", AWS_ACCOUNT, complains=True
    ) as daemon:
        client = deploy(daemon, name)
        configure(client, name, OnSuccess=queue.arn)
        Sent(daemon, name, tmp_path / "attempts", client, pad="x" * 1_048_300)
        small = Sent(daemon, name, tmp_path / "attempts", client)
        advance(daemon, 0)
        row = destination_row(daemon, queue.arn)
        assert (row["waiting"], row["failed"], row["delivered"]) == (0, 1, 1)
        assert json.loads(queue.one()["Body"])["requestContext"]["requestId"] == small.request_id
        assert counters(daemon)["deliveries_failed"] == 1
