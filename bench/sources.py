"""SQS messages on their way to a function, beside the queue's own way to a client that runs nothing.

The queue is an emulator's (ministack) in a process of its own. A trip begins before the message is sent and ends when
the handler begins, or when the client has it. Throughput is of messages that wait in the queue already: from the first
to the last that arrives.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.daemon import START_SECONDS, Server, deploy, end, fastlam_daemon, server
from bench.http_load import INSTALL
from bench.measure import Metrics, Topic

OURS: Final = "function behind an event source mapping"
PLAIN: Final = "client that receives and deletes"
TRIP: Final = "p50"
RATE: Final = "messages"
POLLS: Final = 5  # long polls side by side, of both
_ENTRY: Final = struct.Struct("<qq")


@contextlib.contextmanager
def queues() -> Iterator[str]:
    """The address of an emulator with queues alone."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ministack-") as directory:
        environment = {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "SERVICES": "sqs,sts", "LOG_LEVEL": "ERROR"}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ministack"],
            env=os.environ | environment | {"TMPDIR": directory, "HOME": directory},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"ministack did not come up on port {port}")
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            end(process)


class Taker:
    """Whoever takes messages from a queue of its own, and writes down when."""

    def __init__(self, sqs: Any, name: str, directory: str) -> None:
        self.sqs = sqs
        self.queue: str = sqs.create_queue(QueueName=name)["QueueUrl"]
        self.record = Path(directory) / f"{name}.record"
        self.record.touch()

    def entries(self) -> list[tuple[int, int]]:
        return list(_ENTRY.iter_unpack(self.record.read_bytes()))

    def wait(self, count: int) -> list[tuple[int, int]]:
        """The entries, when there are so many."""
        deadline = time.monotonic() + 120
        while self.record.stat().st_size < count * _ENTRY.size:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(self.entries())} of {count} messages have arrived")
            time.sleep(0.0005)
        return self.entries()

    def trips(self, count: int) -> Metrics:
        """One message after the other."""
        before = len(self.entries())
        for number in range(count):
            self.sqs.send_message(QueueUrl=self.queue, MessageBody=str(time.monotonic_ns()))
            self.wait(before + number + 1)
        found = [(arrived - sent) / 1e6 for sent, arrived in self.entries()[before:]]
        return {TRIP: statistics.median(found)}

    def fill(self, count: int) -> None:
        for start in range(0, count, 10):
            entries = [{"Id": str(n), "MessageBody": "0"} for n in range(min(10, count - start))]
            self.sqs.send_message_batch(QueueUrl=self.queue, Entries=entries)

    def rate(self, count: int) -> float:
        """Messages a second, of so many that waited."""
        arrived = sorted(entry[1] for entry in self.wait(count))
        return (count - 1) / ((arrived[-1] - arrived[0]) / 1e9)


def run(topic: Topic) -> None:
    if importlib.util.find_spec("ministack") is None:
        topic.missing("ministack", INSTALL)
        return
    messages, trips = topic.scale(3000, 500), topic.scale(200, 50)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(queues())
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="sources-"))
        daemon = stack.enter_context(fastlam_daemon("--isolation", "process", "--aws-endpoint", url))
        sqs = _sqs(url)

        def ours(name: str) -> Taker:
            taker = Taker(sqs, name, directory)
            client = deploy(daemon.url, name, _FUNCTION, Environment={"Variables": {"RECORD": str(taker.record)}})
            return _mapped(client, taker, name)

        def plain(name: str) -> Taker:
            taker = Taker(sqs, name, directory)
            stack.enter_context(_consumer(url, taker))
            return taker

        mapped, received = ours("trips-ours"), plain("trips-plain")
        for taker in (mapped, received):
            taker.trips(20)  # environments and connections are there then
        topic.in_turns(
            {OURS: lambda: mapped.trips(trips), PLAIN: lambda: received.trips(trips)},
            {TRIP: "ms"},
        )
        topic.ratio("p50 from sending to the handler: function / client", (OURS, TRIP), (PLAIN, TRIP), at_most=1.5)

        rounds = iter(range(1000))

        def rate_of_ours() -> Metrics:
            name = f"rate-ours-{next(rounds)}"
            taker = Taker(sqs, name, directory)
            taker.fill(messages)
            client = deploy(daemon.url, name, _FUNCTION, Environment={"Variables": {"RECORD": str(taker.record)}})
            client.invoke(FunctionName=name, Payload=b'{"Records": []}')
            _mapped(client, taker, name)
            return {RATE: taker.rate(messages)}

        def rate_of_plain() -> Metrics:
            taker = Taker(sqs, f"rate-plain-{next(rounds)}", directory)
            taker.fill(messages)
            with _consumer(url, taker):
                return {RATE: taker.rate(messages)}

        topic.in_turns({OURS: rate_of_ours, PLAIN: rate_of_plain}, {RATE: "/s"})
        topic.ratio("messages/s: function / client", (OURS, RATE), (PLAIN, RATE))
        limit = topic.series(PLAIN, RATE).median
        topic.check(
            "messages/s through a function",
            topic.series(OURS, RATE).median,
            "/s",
            at_least=min(1000.0, limit),
            detail=f"the server's own limit, with {POLLS} clients that run nothing: {limit:,.0f} /s",
        )
    topic.note(f"{trips} trips a round; {messages} messages that wait; ministack, {os.cpu_count()} CPUs for everything.")


_FUNCTION: Final = Path(__file__).parent / "functions" / "sqs_sink"


def _mapped(client: Any, taker: Taker, name: str) -> Taker:
    names = ["QueueArn"]
    arn = taker.sqs.get_queue_attributes(QueueUrl=taker.queue, AttributeNames=names)["Attributes"]["QueueArn"]
    client.create_event_source_mapping(FunctionName=name, EventSourceArn=arn)
    return taker


def _consumer(url: str, taker: Taker) -> contextlib.AbstractContextManager[Server]:
    program = str(Path(__file__).with_name("sqs_consumer.py"))
    return server([sys.executable, program, url, taker.queue, str(taker.record), str(POLLS)], r"^(\d+)$")


def _sqs(url: str) -> Any:
    import boto3

    return boto3.client(
        "sqs", endpoint_url=url, region_name="us-east-1", aws_access_key_id="000000000000", aws_secret_access_key="none"
    )
