"""Sources that Lambda does not have, each against a real server of its kind."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from daemon_running import RunningDaemon, running_daemon
from fastlam.cli import cli
from local_servers import Server, directory, running_mosquitto, running_nats, running_postgresql, running_redis
from mapping_plane import filters
from source_sink import HANGS_ONCE, Sink
from waiting import await_that


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    with running_daemon(complains=True) as running:  # the servers are stopped before it
        yield running


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a path that sockets can have."""
    with directory() as path:
        yield path


def arn(url: str) -> str:
    return f"arn:aws:fastlam:::{url}"


# Redis ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Server]:
    pytest.importorskip("redis")
    with running_redis() as server:
        yield server


def redis_client(server: Server) -> Any:
    import redis

    return redis.Redis(port=server.port)


def test_redis(daemon: RunningDaemon, redis_server: Server, tmp_path: Path) -> None:
    sink = Sink(daemon, "redis", tmp_path)
    with redis_client(redis_server) as client:
        first = client.xadd("orders", {"state": "new", "blob": b"\xff"}).decode()
        address = arn(f"redis://127.0.0.1:{redis_server.port}/0")
        uuid = sink.map(address, Queues=["orders"], StartingPosition="TRIM_HORIZON", BatchSize=2)
        (record,) = sink.await_records(1)
        assert record == {
            "eventSource": "fastlam:redis",
            "eventSourceARN": address,
            "stream": "orders",
            "id": first,
            "timestamp": int(first.partition("-")[0]),
            "fields": {"state": "new", "blob": "/w=="},
            "base64Fields": ["blob"],
        }
        for number in range(20):
            client.xadd("orders", {"number": str(number)})
        records = sink.await_records(21)
        assert [each["fields"].get("number") for each in records[1:]] == [str(number) for number in range(20)]
        assert all(len(event["Records"]) <= 2 for event in sink.events())
        sink.update(uuid, **filters('{"fields": {"order": {"state": ["paid"]}}}'))
        client.xadd("orders", {"order": '{"state": "new"}'})
        client.xadd("orders", {"order": '{"state": "paid"}'})
        assert sink.await_records(22)[-1]["fields"] == {"order": '{"state": "paid"}'}
        assert len(sink.records()) == 22


def test_redis_goes_away(redis_server: Server, tmp_path: Path) -> None:
    """The mapping shows it, and goes on by itself where it was."""
    with running_daemon(complains=True) as daemon:
        sink = Sink(daemon, "redis-away", tmp_path)
        address = arn(f"redis://127.0.0.1:{redis_server.port}/0")
        uuid = sink.map(address, Queues=["away"], StartingPosition="LATEST")
        with redis_client(redis_server) as client:
            client.xadd("away", {"number": "1"})
        sink.await_records(1)
        redis_server.stop()
        await_that(lambda: "cannot be read" in sink.mapping(uuid)["LastProcessingResult"])
        assert sink.mapping(uuid)["State"] == "Enabled"
        redis_server.start()
        with redis_client(redis_server) as client:
            client.xadd("away", {"number": "2"})
        assert [each["fields"]["number"] for each in sink.await_records(2)] == ["1", "2"]
        await_that(lambda: sink.mapping(uuid)["LastProcessingResult"] == "OK")


def test_redis_position_survives_restart(redis_server: Server, tmp_path: Path) -> None:
    address = arn(f"redis://127.0.0.1:{redis_server.port}/0")
    options = ("--data-dir", str(tmp_path / "data"))
    with redis_client(redis_server) as client:
        with running_daemon(*options, ephemeral=False) as daemon:
            sink = Sink(daemon, "redis-restart", tmp_path)
            uuid = sink.map(address, Queues=["restart"], StartingPosition="LATEST")
            client.xadd("restart", {"number": "1"})
            sink.await_records(1)
            await_that(lambda: sink.mapping(uuid)["LastProcessingResult"] == "OK")
        client.xadd("restart", {"number": "2"})  # nobody reads
        with running_daemon(*options, ephemeral=False) as daemon:
            sink.daemon = daemon
            assert [each["fields"]["number"] for each in sink.await_records(2)] == ["1", "2"]
            client.xadd("restart", {"number": "3"})
            assert [each["fields"]["number"] for each in sink.await_records(3)] == ["1", "2", "3"]


# NATS ----------------------------------------------------------------------------------------------


def test_redis_unhandled_entries_come_again(redis_server: Server, tmp_path: Path, short: Path) -> None:
    """A daemon that is killed in the middle has not gone past what was not handled."""
    options = ("--data-dir", str(tmp_path / "data"))
    own = {"TMPDIR": str(short), "XDG_RUNTIME_DIR": str(short)}  # a killed daemon leaves its sockets
    with redis_client(redis_server) as client:
        with running_daemon(*options, ephemeral=False, environment=own) as daemon:
            sink = Sink(daemon, "redis-killed", tmp_path, HANGS_ONCE, Timeout=60)
            client.xadd("killed", {"number": "1"})
            address = arn(f"redis://127.0.0.1:{redis_server.port}/0")
            sink.map(address, Queues=["killed"], StartingPosition="TRIM_HORIZON", BatchSize=1)
            sink.kill_daemon()
        with running_daemon(*options, ephemeral=False, environment=own) as daemon:
            sink.daemon = daemon
            assert {each["fields"]["number"] for each in sink.await_records(2)} == {"1"}


@pytest.fixture(scope="module")
def nats_server() -> Iterator[Server]:
    pytest.importorskip("nats")
    with running_nats() as server:
        yield server


def publish(server: Server, stream: str, subjects: list[str], messages: list[tuple[str, bytes]]) -> None:
    import nats

    async def run() -> None:
        connection = await nats.connect(f"nats://127.0.0.1:{server.port}")
        jetstream = connection.jetstream()
        await jetstream.add_stream(name=stream, subjects=subjects)
        for subject, data in messages:
            await jetstream.publish(subject, data, headers={"Kind": "test"})
        await connection.close()

    asyncio.run(run())


def test_nats(daemon: RunningDaemon, nats_server: Server, tmp_path: Path) -> None:
    sink = Sink(daemon, "nats", tmp_path)
    address = arn(f"nats://127.0.0.1:{nats_server.port}")
    publish(nats_server, "ORDERS", ["orders.>"], [("orders.eu.1", b"first")])
    uuid = sink.map(address, Queues=["ORDERS"], StartingPosition="TRIM_HORIZON", BatchSize=10)
    (record,) = sink.await_records(1)
    assert record | {"timestamp": 0} == {
        "eventSource": "fastlam:nats",
        "eventSourceARN": address,
        "stream": "ORDERS",
        "subject": "orders.eu.1",
        "sequence": 1,
        "timestamp": 0,
        "headers": {"Kind": "test"},
        "data": base64.b64encode(b"first").decode(),
    }
    publish(nats_server, "ORDERS", ["orders.>"], [("orders.us.1", str(number).encode()) for number in range(50)])
    records = sink.await_records(51)
    assert [base64.b64decode(each["data"]) for each in records[1:]] == [str(number).encode() for number in range(50)]
    sink.update(uuid, **filters('{"data": {"total": [{"numeric": [">", 10]}]}}'))
    publish(nats_server, "ORDERS", ["orders.>"], [("orders.eu.2", b'{"total": 3}'), ("orders.eu.2", b'{"total": 30}')])
    assert base64.b64decode(sink.await_records(52)[-1]["data"]) == b'{"total": 30}'
    assert len(sink.records()) == 52


def test_nats_subject(daemon: RunningDaemon, nats_server: Server, tmp_path: Path) -> None:
    sink = Sink(daemon, "nats-subject", tmp_path)
    publish(nats_server, "MIXED", ["mixed.>"], [("mixed.a", b"1"), ("mixed.b", b"2"), ("mixed.a", b"3")])
    sink.map(arn(f"nats://127.0.0.1:{nats_server.port}"), Queues=["MIXED/mixed.a"], StartingPosition="TRIM_HORIZON")
    assert [each["sequence"] for each in sink.await_records(2)] == [1, 3]


# MQTT ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mosquitto() -> Iterator[Server]:
    pytest.importorskip("aiomqtt")
    with running_mosquitto() as server:
        yield server


def mqtt_publish(server: Server, topic: str, *messages: bytes) -> None:
    from paho.mqtt import publish as paho

    paho.multiple([(topic, message, 1, False) for message in messages], hostname="127.0.0.1", port=server.port)


def test_mqtt(daemon: RunningDaemon, mosquitto: Server, tmp_path: Path) -> None:
    sink = Sink(daemon, "mqtt", tmp_path)
    address = arn(f"mqtt://127.0.0.1:{mosquitto.port}")
    uuid = sink.map(address, Queues=["sensors/+/temperature"], **filters('{"topic": [{"prefix": "sensors/"}]}'))
    mqtt_publish(mosquitto, "sensors/1/temperature", b"21")
    (record,) = sink.await_records(1)
    assert record | {"timestamp": 0} == {
        "eventSource": "fastlam:mqtt",
        "eventSourceARN": address,
        "topic": "sensors/1/temperature",
        "qos": 1,
        "retain": False,
        "timestamp": 0,
        "data": base64.b64encode(b"21").decode(),
    }
    # A session of its own: what comes while it is disabled is kept by the broker.
    sink.update(uuid, Enabled=False)
    mqtt_publish(mosquitto, "sensors/2/temperature", b"22", b"23")
    sink.update(uuid, Enabled=True)
    records = sink.await_records(3)
    assert [base64.b64decode(each["data"]) for each in records] == [b"21", b"22", b"23"]


def test_mqtt_unhandled_messages_come_again(mosquitto: Server, tmp_path: Path, short: Path) -> None:
    """A daemon that is killed in the middle has acknowledged nothing that was not handled."""
    options = ("--data-dir", str(tmp_path / "data"))
    own = {"TMPDIR": str(short), "XDG_RUNTIME_DIR": str(short)}  # a killed daemon leaves its sockets
    with running_daemon(*options, ephemeral=False, environment=own) as daemon:
        sink = Sink(daemon, "mqtt-killed", tmp_path, HANGS_ONCE, Timeout=60)
        sink.map(arn(f"mqtt://127.0.0.1:{mosquitto.port}"), Queues=["killed"], BatchSize=1)
        mqtt_publish(mosquitto, "killed", b"1")
        sink.kill_daemon()
    with running_daemon(*options, ephemeral=False, environment=own) as daemon:
        sink.daemon = daemon
        assert {each["data"] for each in sink.await_records(2)} == {base64.b64encode(b"1").decode()}


# PostgreSQL ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    pytest.importorskip("asyncpg")
    with running_postgresql() as server:
        yield server


def notify(server: Server, channel: str, *payloads: str) -> None:
    import asyncpg

    async def run() -> None:
        connection = await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{server.port}/postgres")
        for payload in payloads:
            await connection.execute("SELECT pg_notify($1, $2)", channel, payload)
        await connection.close()

    asyncio.run(run())


def test_postgresql(daemon: RunningDaemon, postgresql: Server, tmp_path: Path) -> None:
    sink = Sink(daemon, "postgresql", tmp_path)
    address = arn(f"postgresql://postgres@127.0.0.1:{postgresql.port}/postgres")
    uuid = sink.map(address, Queues=["changes"], **filters('{"payload": {"op": ["insert"]}}', '{"payload": ["plain"]}'))
    notify(postgresql, "changes", json.dumps({"op": "insert", "id": 1}), json.dumps({"op": "update"}), "plain", "other")
    records = sink.await_records(2)
    assert [each["payload"] for each in records] == ['{"op": "insert", "id": 1}', "plain"]
    assert records[0]["channel"] == "changes"
    await_that(lambda: sink.metrics(uuid)["FilteredOutEventCount"] == 2)


# A directory ---------------------------------------------------------------------------------------


def test_directory(daemon: RunningDaemon, tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    watched = tmp_path / "inbox"
    watched.mkdir()
    (watched / "old.txt").write_text("old")
    sink = Sink(daemon, "directory", tmp_path)
    sink.map(arn(f"file://{watched}"))
    (watched / "new file.txt").write_text("hello")
    (record,) = sink.await_records(1)
    assert (record["eventSource"], record["eventName"]) == ("aws:s3", "ObjectCreated:Put")
    assert record["s3"]["bucket"]["name"] == "inbox"
    found = record["s3"]["object"]
    assert (found["key"], found["size"], found["eTag"]) == ("new+file.txt", 5, "5d41402abc4b2a76b9719d911017c592")
    (watched / "old.txt").unlink()
    removed = sink.await_records(2)[-1]
    assert (removed["eventName"], removed["s3"]["object"]["key"]) == ("ObjectRemoved:Delete", "old.txt")
    assert "size" not in removed["s3"]["object"]


def test_directory_while_the_daemon_is_away(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    watched = tmp_path / "inbox"
    watched.mkdir()
    (watched / "a").write_text("a")
    options = ("--data-dir", str(tmp_path / "data"))
    with running_daemon(*options, ephemeral=False) as daemon:
        sink = Sink(daemon, "directory-away", tmp_path)
        sink.map(arn(f"file://{watched}"), StartingPosition="TRIM_HORIZON")
        sink.await_records(1)
    (watched / "b").write_text("b")
    (watched / "a").unlink()
    with running_daemon(*options, ephemeral=False) as daemon:
        records = sink.await_records(3)
    told = [(each["eventName"], each["s3"]["object"]["key"]) for each in records]
    assert told == [("ObjectCreated:Put", "a"), ("ObjectRemoved:Delete", "a"), ("ObjectCreated:Put", "b")]


def test_command_line(daemon: RunningDaemon, tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    watched = tmp_path / "inbox"
    watched.mkdir()
    (watched / "a.txt").write_text("a")
    sink = Sink(daemon, "commanded", tmp_path)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(cli, ["--endpoint-url", daemon.url, "sources", *arguments], catch_exceptions=False)

    pattern = '{"s3": {"object": {"key": [{"suffix": ".txt"}]}}}'
    uuid = run("add", "commanded", f"file://{watched}", "--from", "oldest", "--filter", pattern).stdout.strip()
    assert sink.await_records(1)[0]["s3"]["object"]["key"] == "a.txt"
    await_that(lambda: any(uuid in line and "Enabled" in line for line in run().stdout.splitlines()))
    assert run("rm", uuid).exit_code == 0
    await_that(lambda: uuid not in run().stdout)
    refused = run("add", "commanded", "gopher://127.0.0.1")
    assert (refused.exit_code, "Unrecognized event source." in refused.output) == (2, True)
