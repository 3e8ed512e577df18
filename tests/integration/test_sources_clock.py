"""Event sources on a virtual clock: windows and retries pass with it, and it stands still while functions run."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon_running import GATE_CODE, Gate, RunningDaemon, running_daemon
from event_running import advance
from moto_running import AwsServer, Queue
from source_sink import Sink
from waiting import await_that


@pytest.fixture(scope="module")
def daemon(aws: AwsServer) -> Iterator[RunningDaemon]:
    with running_daemon("--aws-endpoint", aws.url, "--clock", "virtual") as running:
        yield running


def test_a_window_ends_when_its_time_has_passed(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    queue = Queue(aws, "window")
    sink = Sink(daemon, "window", tmp_path)
    uuid = sink.map(queue.arn, MaximumBatchingWindowInSeconds=300)
    queue.client.send_message(QueueUrl=queue.url, MessageBody="alone")
    await_that(lambda: sink.metrics(uuid)["PolledEventCount"] == 1)
    advance(daemon, "299s")
    assert sink.events() == []
    advance(daemon, "1s")
    assert [record["body"] for record in sink.records()] == ["alone"]


def test_time_stands_still_while_a_function_runs(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path, gate: Gate) -> None:
    queue = Queue(aws, "held")
    sink = Sink(daemon, "held", tmp_path, f"{GATE_CODE}\ndef behave(event): wait_at({gate.port})", Timeout=25)
    uuid = sink.map(queue.arn, MaximumBatchingWindowInSeconds=60)
    queue.client.send_message(QueueUrl=queue.url, MessageBody="held")
    await_that(lambda: sink.metrics(uuid)["PolledEventCount"] == 1)
    before_ms = clock_ms(daemon)
    with ThreadPoolExecutor(1) as pool:
        passing = pool.submit(advance, daemon, "1h")
        gate.arrive()
        assert clock_ms(daemon) == before_ms + 60_000
        assert not passing.done()
        gate.open()
        passing.result()
    assert clock_ms(daemon) == before_ms + 3_600_000
    await_that(lambda: sink.metrics(uuid)["DeletedEventCount"] == 1)


def clock_ms(daemon: RunningDaemon) -> int:
    elapsed_ms: int = daemon.send("GET", "/_fastlam/clock").json["elapsed_ms"]
    return elapsed_ms


def test_retries_of_a_stream_take_no_time(daemon: RunningDaemon, aws: AwsServer, tmp_path: Path) -> None:
    """The waits between them add up to minutes: one advance sees all of them, and the end."""
    kinesis = aws.client("kinesis")
    kinesis.create_stream(StreamName="retried", ShardCount=1)
    arn = kinesis.describe_stream_summary(StreamName="retried")["StreamDescriptionSummary"]["StreamARN"]
    kinesis.put_record(StreamName="retried", PartitionKey="k", Data=b"poison")
    sink = Sink(daemon, "retried", tmp_path, "def behave(event): raise ValueError('always')")
    uuid = sink.map(arn, StartingPosition="TRIM_HORIZON", MaximumRetryAttempts=8)
    sink.await_events(1)
    advance(daemon, "1h")
    assert len(sink.events()) == 9
    await_that(lambda: sink.metrics(uuid)["DroppedEventCount"] == 1)
    assert len({call["request_id"] for call in sink.calls()}) == 1
