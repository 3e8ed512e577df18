"""Receives from a queue and deletes, and runs nothing: `sqs_consumer.py URL QUEUE_URL RECORD_FILE POLLS`.

It uses the client that the daemon uses, with as many long polls side by side, and writes what bench/functions/sqs_sink
writes: what is left between the two is invoking the function.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time

import uvloop

from fastlam.sources.aws.service import AwsClients, AwsService


async def receive(client: AwsService, queue: str, record: int) -> None:
    while True:
        answer = await client.call(
            "ReceiveMessage",
            QueueUrl=queue,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=20,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        now = time.monotonic_ns()
        messages = answer.get("Messages") or []
        if not messages:
            continue
        os.write(record, b"".join(struct.pack("<qq", int(each["Body"]), now) for each in messages))
        entries = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(messages)]
        await client.call("DeleteMessageBatch", QueueUrl=queue, Entries=entries)


async def main(url: str, queue: str, record: str, polls: int) -> None:
    client = await AwsClients(url).client("sqs", "us-east-1")
    opened = os.open(record, os.O_WRONLY | os.O_APPEND)
    print("1", flush=True)  # it is ready
    await asyncio.gather(*(receive(client, queue, opened) for _ in range(polls)))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
