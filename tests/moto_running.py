"""An AWS-compatible server in a process of its own, for functions that use other services: moto's, with data in its
memory.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import boto3

_RUNNING: Final = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")


class AwsServer:
    """The services at `url`, as the daemon's --aws-endpoint takes it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def client(self, service: str, **credentials: str) -> Any:
        """Straight to the server, past the daemon; in moto's own account unless credentials say another one."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            **(credentials or {"aws_access_key_id": "000000000000", "aws_secret_access_key": "test"}),
        )


class Queue:
    """A queue there, which a test reads."""

    def __init__(self, aws: AwsServer, name: str, client: Any = None) -> None:
        self.client = client or aws.client("sqs")
        self.url = self.client.create_queue(QueueName=name)["QueueUrl"]
        self.arn = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]

    def take(self) -> list[dict[str, Any]]:
        """All messages that are there."""
        found: list[dict[str, Any]] = []
        while messages := self.client.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
        ).get("Messages"):
            found += messages
            for message in messages:
                self.client.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def one(self) -> dict[str, Any]:
        (message,) = self.take()
        return message


@contextmanager
def running_aws(port: int = 0) -> Iterator[AwsServer]:
    """Starts the server, on a free port unless told otherwise, and stops it."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            found = _RUNNING.search(line)
            if found is not None:
                break
        else:
            raise AssertionError(f"moto's server did not come up: {''.join(said)}")
        drain = threading.Thread(target=process.stderr.read)  # it writes a line for each request
        drain.start()
        try:
            yield AwsServer(found[1])
        finally:
            process.kill()
            drain.join()
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
