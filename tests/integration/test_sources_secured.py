"""Event sources that are reached by TLS, with certificates and passwords: each against a real server."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from broker_servers import KAFKA_USER, running_activemq, running_rabbitmq, running_secured_kafka
from certificates import Authority
from daemon_running import RunningDaemon, running_daemon
from kafka_client import kafka_records, produce, topic, values
from local_servers import Server, directory, running_mosquitto, running_nats, running_redis
from moto_running import AwsServer
from source_sink import Sink
from waiting import await_that


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with directory() as path:
        yield Authority(path)


@pytest.fixture(scope="module")
def daemon(aws: AwsServer, authority: Authority) -> Iterator[RunningDaemon]:
    """It trusts the authority as it would those of the machine."""
    own = {"SSL_CERT_FILE": str(authority.authority_path)}
    with running_daemon("--aws-endpoint", aws.url, complains=True, environment=own) as running:
        yield running


@pytest.fixture
def trusting(authority: Authority) -> ssl.SSLContext:
    """For the tests' own clients."""
    return ssl.create_default_context(cadata=authority.certificate)


def arn(scheme: str, server: Server) -> str:
    return f"arn:aws:fastlam:::{scheme}://127.0.0.1:{server.port}"


# Kafka ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kafka(authority: Authority) -> Iterator[tuple[Server, int, int]]:
    pytest.importorskip("aiokafka")
    with running_secured_kafka(authority) as servers:
        yield servers


def secret(aws: AwsServer, name: str, **content: str) -> str:
    uri: str = aws.client("secretsmanager").create_secret(Name=name, SecretString=json.dumps(content))["ARN"]
    return uri


def secured(name: str, port: int, access: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A mapping of the topic at that port."""
    return {
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [f"127.0.0.1:{port}"]}},
        "SourceAccessConfigurations": [{"Type": kind, "URI": uri} for kind, uri in access],
        "Topics": [name],
        "StartingPosition": "TRIM_HORIZON",
    }


@pytest.mark.parametrize("kind", ["BASIC_AUTH", "SASL_SCRAM_256_AUTH", "SASL_SCRAM_512_AUTH"])
def test_kafka_with_a_password(
    daemon: RunningDaemon,
    aws: AwsServer,
    authority: Authority,
    kafka: tuple[Server, int, int],
    tmp_path: Path,
    kind: str,
) -> None:
    """A wrong one is shown, and the right one found by itself."""
    server, port, _ = kafka
    name = topic(server, kind)
    produce(server, name, b"guarded")
    user, password = KAFKA_USER
    uri = secret(aws, kind, username=user, password="wrong")
    root = secret(aws, f"root-{kind}", certificate=authority.certificate)
    sink = Sink(daemon, f"kafka-{kind}", tmp_path)
    uuid = sink.map(**secured(name, port, [(kind, uri), ("SERVER_ROOT_CA_CERTIFICATE", root)]))
    await_that(lambda: "Connection error" in sink.mapping(uuid).get("LastProcessingResult", ""))
    assert "wrong" not in sink.mapping(uuid)["LastProcessingResult"]
    right = json.dumps({"username": user, "password": password})
    aws.client("secretsmanager").put_secret_value(SecretId=uri, SecretString=right)
    assert values(sink.await_records(1, kafka_records)) == ["guarded"]


@pytest.mark.parametrize("password", ["", "of-the-key"])
def test_kafka_with_a_certificate(
    daemon: RunningDaemon,
    aws: AwsServer,
    authority: Authority,
    kafka: tuple[Server, int, int],
    tmp_path: Path,
    password: str,
) -> None:
    """A key's password that is missing is shown, and found by itself."""
    server, _, port = kafka
    name = topic(server, f"certificate-{password}")
    produce(server, name, b"guarded")
    client = authority.identity("client.example")
    key = client.encrypted_key(password) if password else client.key
    content = {"certificate": client.certificate, "privateKey": key}
    uri = secret(aws, f"client-{password}", **content)
    root = secret(aws, f"root-{password}", certificate=authority.certificate)
    sink = Sink(daemon, f"kafka-certificate-{password}", tmp_path)
    access = [("CLIENT_CERTIFICATE_TLS_AUTH", uri), ("SERVER_ROOT_CA_CERTIFICATE", root)]
    uuid = sink.map(**secured(name, port, access))
    if password:
        await_that(lambda: uri in sink.mapping(uuid).get("LastProcessingResult", ""))
        whole = json.dumps({**content, "privateKeyPassword": password})
        aws.client("secretsmanager").put_secret_value(SecretId=uri, SecretString=whole)
    assert values(sink.await_records(1, kafka_records)) == ["guarded"]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("CLIENT_CERTIFICATE_TLS_AUTH", {}),
        ("CLIENT_CERTIFICATE_TLS_AUTH", {"certificate": "none", "privateKey": "none"}),
        ("SERVER_ROOT_CA_CERTIFICATE", {}),
        ("SERVER_ROOT_CA_CERTIFICATE", {"certificate": "none"}),
        ("BASIC_AUTH", {}),
    ],
)
def test_kafka_secrets_that_cannot_be_used(
    daemon: RunningDaemon,
    aws: AwsServer,
    kafka: tuple[Server, int, int],
    tmp_path: Path,
    kind: str,
    content: dict[str, str],
) -> None:
    """The mapping says which."""
    server, _, port = kafka
    name = f"unusable-{kind}-{len(content)}"
    topic(server, name)
    uri = secret(aws, name, **content)
    sink = Sink(daemon, name, tmp_path)
    uuid = sink.map(**secured(name, port, [(kind, uri)]))
    await_that(lambda: uri in sink.mapping(uuid).get("LastProcessingResult", ""))


def test_kafka_that_nobody_vouches_for(
    aws: AwsServer, kafka: tuple[Server, int, int], tmp_path: Path
) -> None:
    server, port, _ = kafka
    name = topic(server, "unknown")
    user, password = KAFKA_USER
    uri = secret(aws, "unknown", username=user, password=password)
    with running_daemon("--aws-endpoint", aws.url, complains=True) as daemon:
        sink = Sink(daemon, "kafka-unknown", tmp_path)
        uuid = sink.map(**secured(name, port, [("BASIC_AUTH", uri)]))
        await_that(lambda: "Connection error" in sink.mapping(uuid).get("LastProcessingResult", ""))


# The others ----------------------------------------------------------------------------------------


def test_redis(daemon: RunningDaemon, authority: Authority, tmp_path: Path) -> None:
    redis = pytest.importorskip("redis")
    with running_redis(authority) as server:
        sink = Sink(daemon, "rediss", tmp_path)
        with redis.Redis("127.0.0.1", server.port, ssl=True, ssl_ca_certs=str(authority.authority_path)) as client:
            client.xadd("orders", {"state": "new"})
        sink.map(arn("rediss", server), Queues=["orders"], StartingPosition="TRIM_HORIZON")
        (record,) = sink.await_records(1)
        assert record["fields"] == {"state": "new"}


def test_nats(daemon: RunningDaemon, trusting: ssl.SSLContext, authority: Authority, tmp_path: Path) -> None:
    nats = pytest.importorskip("nats")

    async def publish(server: Server) -> None:
        connection = await nats.connect(f"tls://127.0.0.1:{server.port}", tls=trusting)
        jetstream = connection.jetstream()
        await jetstream.add_stream(name="ORDERS", subjects=["orders"])
        await jetstream.publish("orders", b"new")
        await connection.close()

    with running_nats(authority) as server:
        asyncio.run(publish(server))
        sink = Sink(daemon, "nats-tls", tmp_path)
        sink.map(arn("tls", server), Queues=["ORDERS"], StartingPosition="TRIM_HORIZON")
        (record,) = sink.await_records(1)
        assert base64.b64decode(record["data"]) == b"new"


def test_mqtt(daemon: RunningDaemon, authority: Authority, tmp_path: Path) -> None:
    pytest.importorskip("aiomqtt")
    from paho.mqtt import publish

    with running_mosquitto(authority) as server:
        sink = Sink(daemon, "mqtts", tmp_path)
        sink.map(arn("mqtts", server), Queues=["orders"])
        tls: Any = {"ca_certs": str(authority.authority_path)}
        publish.single("orders", b"new", 1, hostname="127.0.0.1", port=server.port, tls=tls)
        (record,) = sink.await_records(1)
        assert base64.b64decode(record["data"]) == b"new"


def test_rabbitmq(daemon: RunningDaemon, trusting: ssl.SSLContext, authority: Authority, tmp_path: Path) -> None:
    aio_pika = pytest.importorskip("aio_pika")

    async def publish(server: Server) -> None:
        connection = await aio_pika.connect(f"amqps://guest:guest@127.0.0.1:{server.port}/", ssl_context=trusting)
        channel = await connection.channel()
        await channel.declare_queue("orders", durable=True)
        await channel.default_exchange.publish(aio_pika.Message(b"new"), "orders")
        await connection.close()

    with running_rabbitmq(authority) as server:
        asyncio.run(publish(server))
        sink = Sink(daemon, "amqps", tmp_path)
        sink.map(f"arn:aws:fastlam:::amqps://guest:guest@127.0.0.1:{server.port}/", Queues=["orders"])
        (message,) = sink.await_records(1, lambda event: event["rmqMessagesByQueue"]["orders::/"])
        assert base64.b64decode(message["data"]) == b"new"


def test_activemq(daemon: RunningDaemon, trusting: ssl.SSLContext, authority: Authority, tmp_path: Path) -> None:
    stompman = pytest.importorskip("stompman")

    async def send(server: Server) -> None:
        place = stompman.ConnectionParameters("127.0.0.1", server.port, "", "")
        async with stompman.Client([place], ssl=trusting) as client:
            await client.send(b"new", "/queue/orders")

    with running_activemq(authority) as server:
        asyncio.run(send(server))
        sink = Sink(daemon, "stomp-ssl", tmp_path)
        sink.map(arn("stomp+ssl", server), Queues=["orders"])
        (message,) = sink.await_records(1, lambda event: event["messages"])
        assert base64.b64decode(message["data"]) == b"new"
