"""Kafka topics and the queues of RabbitMQ and ActiveMQ, each against a real broker."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_servers import running_activemq, running_kafka, running_rabbitmq
from daemon_running import RunningDaemon, running_daemon
from kafka_client import committed, kafka_records, produce, source, topic, values
from local_servers import Server, directory
from mapping_plane import filters
from moto_running import running_aws
from source_sink import HANGS_ONCE, Sink
from waiting import await_that


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    with running_daemon(complains=True) as running:  # the brokers are stopped before it
        yield running


# Kafka ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kafka() -> Iterator[Server]:
    pytest.importorskip("aiokafka")
    with running_kafka() as server:
        yield server


def test_kafka_event(daemon: RunningDaemon, kafka: Server, tmp_path: Path) -> None:
    name = topic(kafka, "event")
    sink = Sink(daemon, "kafka-event", tmp_path)
    produce(kafka, name, b"first")
    sink.map(**source(kafka, name))
    (event,) = sink.await_events(1)
    (record,) = event["records"]["event-0"]
    assert event | {"records": {}} == {
        "eventSource": "SelfManagedKafka",
        "bootstrapServers": f"127.0.0.1:{kafka.port}",
        "records": {},
    }
    assert record | {"timestamp": 0} == {
        "topic": "event",
        "partition": 0,
        "offset": 0,
        "timestamp": 0,
        "timestampType": "CREATE_TIME",
        "key": "aw==",
        "value": "Zmlyc3Q=",
        "headers": [{"h": [-1, 49]}],
    }


def test_kafka_partitions_in_order(daemon: RunningDaemon, kafka: Server, tmp_path: Path) -> None:
    """A batch is of one partition; new partitions are found; filters see into key and value."""
    name = topic(kafka, "order", 2)
    sink = Sink(daemon, "kafka-order", tmp_path)
    uuid = sink.map(
        **source(kafka, name, BatchSize=7, **filters('{"value": {"number": [{"anything-but": [13]}]}, "key": ["k"]}'))
    )
    for partition in (0, 1):
        produce(kafka, name, *(json.dumps({"number": number}).encode() for number in range(50)), partition=partition)
    produce(kafka, name, b'{"number": 1}', key=b"other")
    records = sink.await_records(98, kafka_records)
    assert all(len(event["records"]) == 1 and len(kafka_records(event)) <= 7 for event in sink.events())
    for partition in (0, 1):
        seen = [
            json.loads(value)["number"]
            for value in values([each for each in records if each["partition"] == partition])
        ]
        assert seen == [number for number in range(50) if number != 13]
    await_that(lambda: sink.metrics(uuid)["FilteredOutEventCount"] == 3)
    await_that(lambda: committed(kafka, uuid, name) == 51)
    sink.update(uuid, Enabled=False)
    topic(kafka, name, 3)
    produce(kafka, name, b'{"number": 100}', partition=2)
    sink.update(uuid, Enabled=True)
    assert sink.await_records(99, kafka_records)[-1]["partition"] == 2


def test_kafka_failures_are_tried_until_they_succeed(daemon: RunningDaemon, kafka: Server, tmp_path: Path) -> None:
    name = topic(kafka, "failing")
    behaviour = """
def behave(event):
    if len(seen()) < 3:
        raise ValueError("not yet")
"""
    sink = Sink(daemon, "kafka-failing", tmp_path, behaviour)
    produce(kafka, name, b"1", b"2")
    uuid = sink.map(**source(kafka, name))
    sink.await_events(3)
    await_that(lambda: sink.mapping(uuid)["LastProcessingResult"] == "OK")
    assert [values(kafka_records(event)) for event in sink.events()] == [["1", "2"]] * 3
    assert len({call["request_id"] for call in sink.calls()}) == 1


def test_kafka_partial_failures(daemon: RunningDaemon, kafka: Server, tmp_path: Path) -> None:
    """Provisioned mode: what was named as failed is tried again, what was never sent fails the batch."""
    name = topic(kafka, "partial")
    behaviour = """
def behave(event):
    number = len(seen())
    offset = {1: 2, 2: 99}.get(number)
    if offset is not None:
        return {"batchItemFailures": [{"itemIdentifier": {"partition": "partial-0", "offset": offset}}]}
"""
    sink = Sink(daemon, "kafka-partial", tmp_path, behaviour)
    produce(kafka, name, b"0", b"1", b"2", b"3")
    provisioned = {
        "ProvisionedPollerConfig": {"MinimumPollers": 1},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
    }
    sink.map(**source(kafka, name, **provisioned))
    sink.await_events(3)
    assert [values(kafka_records(event)) for event in sink.events()] == [["0", "1", "2", "3"], ["2", "3"], ["2", "3"]]


def test_kafka_restart_in_the_middle(kafka: Server, tmp_path: Path) -> None:
    name = topic(kafka, "restart")
    options = ("--data-dir", str(tmp_path / "data"))
    with running_daemon(*options, ephemeral=False, complains=True) as daemon:
        sink = Sink(daemon, "kafka-restart", tmp_path)
        uuid = sink.map(**source(kafka, name, StartingPosition="LATEST"))
        produce(kafka, name, b"0", b"1")
        sink.await_records(2, kafka_records)
        await_that(lambda: committed(kafka, uuid, name) == 2)
    produce(kafka, name, b"2")
    with running_daemon(*options, ephemeral=False, complains=True) as daemon:
        assert values(sink.await_records(3, kafka_records)) == ["0", "1", "2"]


def test_kafka_unhandled_records_come_again(kafka: Server, tmp_path: Path) -> None:
    """A daemon that is killed in the middle has not gone past what was not handled."""
    name = topic(kafka, "killed")
    options = ("--data-dir", str(tmp_path / "data"))
    with directory() as short:
        own = {"TMPDIR": str(short), "XDG_RUNTIME_DIR": str(short)}  # a killed daemon leaves its sockets
        with running_daemon(*options, ephemeral=False, complains=True, environment=own) as daemon:
            sink = Sink(daemon, "kafka-killed", tmp_path, HANGS_ONCE, Timeout=60)
            produce(kafka, name, b"1")
            sink.map(**source(kafka, name, BatchSize=1))
            sink.kill_daemon()
        with running_daemon(*options, ephemeral=False, complains=True, environment=own) as daemon:
            sink.daemon = daemon
            assert set(values(sink.await_records(2, kafka_records))) == {"1"}


def test_kafka_missing_topic(daemon: RunningDaemon, kafka: Server, tmp_path: Path) -> None:
    sink = Sink(daemon, "kafka-missing", tmp_path)
    uuid = sink.map(**source(kafka, "not-there"))
    await_that(lambda: "not-there" in sink.mapping(uuid)["LastProcessingResult"])
    topic(kafka, "not-there")
    produce(kafka, "not-there", b"late")
    assert values(sink.await_records(1, kafka_records)) == ["late"]
    await_that(lambda: sink.mapping(uuid)["LastProcessingResult"] == "OK")


# RabbitMQ ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[Server]:
    pytest.importorskip("aio_pika")
    with running_rabbitmq() as server:
        yield server


def amqp_publish(server: Server, queue: str, *bodies: bytes) -> None:
    import aio_pika

    async def run() -> None:
        connection = await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{server.port}/")
        channel = await connection.channel()
        await channel.declare_queue(queue, durable=True)
        for body in bodies:
            message = aio_pika.Message(body, content_type="text/plain", headers={"h": "v"}, priority=3)
            await channel.default_exchange.publish(message, queue)
        await connection.close()

    asyncio.run(run())


def amqp_waiting(server: Server, queue: str) -> int:
    import aio_pika

    async def run() -> int:
        connection = await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{server.port}/")
        channel = await connection.channel()
        declared = await channel.declare_queue(queue, passive=True)
        await connection.close()
        return int(declared.declaration_result.message_count or 0)

    return asyncio.run(run())


def test_rabbitmq(daemon: RunningDaemon, rabbitmq: Server, tmp_path: Path) -> None:
    sink = Sink(daemon, "rabbitmq", tmp_path)
    amqp_publish(rabbitmq, "jobs", b"first")
    address = f"arn:aws:fastlam:::amqp://guest:guest@127.0.0.1:{rabbitmq.port}/"
    uuid = sink.map(address, Queues=["jobs"], BatchSize=2)
    (event,) = sink.await_events(1)
    ((queue, (message,)),) = event["rmqMessagesByQueue"].items()
    assert (event["eventSource"], event["eventSourceArn"], queue) == ("aws:rmq", address, "jobs::/")
    assert (message["data"], message["redelivered"]) == ("Zmlyc3Q=", False)
    properties = message["basicProperties"]
    assert properties["headers"] == {"h": {"bytes": [118]}}
    assert (properties["contentType"], properties["priority"], properties["bodySize"]) == ("text/plain", 3, 5)
    amqp_publish(rabbitmq, "jobs", *(str(number).encode() for number in range(9)))
    rows = sink.await_records(10, lambda event: event["rmqMessagesByQueue"]["jobs::/"])
    assert [base64.b64decode(row["data"]) for row in rows[1:]] == [str(number).encode() for number in range(9)]
    sink.update(uuid, Enabled=False)
    assert amqp_waiting(rabbitmq, "jobs") == 0  # all were acknowledged


def test_rabbitmq_missing_queue(daemon: RunningDaemon, rabbitmq: Server, tmp_path: Path) -> None:
    sink = Sink(daemon, "rabbitmq-missing", tmp_path)
    uuid = sink.map(f"arn:aws:fastlam:::amqp://guest:guest@127.0.0.1:{rabbitmq.port}/", Queues=["not-there"])
    await_that(lambda: "not-there" in sink.mapping(uuid)["LastProcessingResult"])
    amqp_publish(rabbitmq, "not-there", b"late")
    sink.await_events(1)


def test_rabbitmq_with_a_secret(rabbitmq: Server, tmp_path: Path) -> None:
    """User and password from Secrets Manager; a wrong one is shown, and the right one found by itself."""
    with running_aws() as aws, running_daemon("--aws-endpoint", aws.url, complains=True) as daemon:
        secrets = aws.client("secretsmanager")
        wrong = json.dumps({"username": "guest", "password": "wrong"})
        uri = secrets.create_secret(Name="rabbit", SecretString=wrong)["ARN"]
        amqp_publish(rabbitmq, "guarded", b"first")
        sink = Sink(daemon, "rabbitmq-secret", tmp_path)
        access = [{"Type": "BASIC_AUTH", "URI": uri}, {"Type": "VIRTUAL_HOST", "URI": "/"}]
        address = f"arn:aws:fastlam:::amqp://127.0.0.1:{rabbitmq.port}"
        uuid = sink.map(address, Queues=["guarded"], SourceAccessConfigurations=access)
        await_that(lambda: "cannot be read" in sink.mapping(uuid).get("LastProcessingResult", ""))
        assert "wrong" not in sink.mapping(uuid)["LastProcessingResult"]
        secrets.put_secret_value(SecretId=uri, SecretString=json.dumps({"username": "guest", "password": "guest"}))
        sink.await_events(1)
        await_that(lambda: sink.mapping(uuid)["LastProcessingResult"] == "OK")


def test_library_that_is_missing(tmp_path: Path) -> None:
    """The mapping says what to install."""
    (tmp_path / "aio_pika.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with running_daemon(complains=True, environment={"PYTHONPATH": path}) as daemon:
        sink = Sink(daemon, "rabbitmq-missing-library", tmp_path)
        uuid = sink.map("arn:aws:fastlam:::amqp://127.0.0.1:1/", Queues=["q"])
        expected = "PROBLEM: The Python package for this source is not installed: pip install 'fastlam[rabbitmq]'."
        await_that(lambda: sink.mapping(uuid)["LastProcessingResult"] == expected)


# ActiveMQ ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def activemq() -> Iterator[Server]:
    pytest.importorskip("stompman")
    with running_activemq() as server:
        yield server


def stomp_send(server: Server, queue: str, *bodies: bytes) -> None:
    import stompman

    async def run() -> None:
        place = stompman.ConnectionParameters("127.0.0.1", server.port, "", "")
        async with stompman.Client([place]) as client:
            for body in bodies:
                await client.send(body, f"/queue/{queue}", headers={"persistent": "true", "color": "red"})

    asyncio.run(run())


def test_activemq(daemon: RunningDaemon, activemq: Server, tmp_path: Path) -> None:
    behaviour = """
def behave(event):
    if len(seen()) == 1:
        raise ValueError("once")
"""
    sink = Sink(daemon, "activemq", tmp_path, behaviour)
    address = f"arn:aws:fastlam:::stomp://127.0.0.1:{activemq.port}"
    stomp_send(activemq, "jobs", b"first")
    sink.map(address, Queues=["jobs"])
    event = sink.await_events(2)[1]
    assert event == sink.events()[0]  # tried again until it succeeds
    (message,) = event["messages"]
    assert (event["eventSource"], event["eventSourceArn"]) == ("aws:mq", address)
    assert (message["data"], message["destination"]) == ("Zmlyc3Q=", {"physicalName": "jobs"})
    assert message["properties"]["color"] == "red"
    assert (message["messageType"], message["deliveryMode"]) == ("jms/bytes-message", 2)
    stomp_send(activemq, "jobs", *(str(number).encode() for number in range(9)))
    rows = sink.await_records(11, lambda event: event["messages"])
    assert [base64.b64decode(row["data"]) for row in rows[2:]] == [str(number).encode() for number in range(9)]
