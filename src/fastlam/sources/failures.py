"""On-failure destinations of streams and topics: records of what was given up, sent to a queue, a topic or a bucket."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import msgspec

from fastlam.abc import FailedBatch
from fastlam.errors import FastlamError
from fastlam.sources.aws.service import AwsClients, AwsError


class FailureRecords:
    """An `abc.FailureSender` for SQS, SNS and S3."""

    def __init__(self, aws: AwsClients) -> None:
        self._aws = aws

    async def send_failure(self, failure: FailedBatch) -> None:
        if not failure.destination.startswith("arn:"):
            raise FastlamError(f"On-failure records are not sent to {failure.destination}.")
        service = failure.destination.split(":", 5)[2]
        try:
            await self._send(service, failure, failure.role)
        except AwsError as refusal:
            if refusal.busy or self._aws.is_aws(service):
                raise
            # An emulator may keep it in another account than the role's.
            await self._send(service, failure, "")

    async def _send(self, service: str, failure: FailedBatch, role: str) -> None:
        *_, region, account, name = failure.destination.split(":", 5)
        client = await self._aws.client(service, region or failure.region, role)
        text = msgspec.json.encode(failure.record)
        if service == "sqs":
            found = await client.call("GetQueueUrl", QueueName=name, QueueOwnerAWSAccountId=account)
            await client.call("SendMessage", QueueUrl=found["QueueUrl"], MessageBody=text.decode())
        elif service == "sns":
            await client.call("Publish", TopicArn=failure.destination, Message=text.decode())
        else:
            body = msgspec.json.encode({**failure.record, "payload": msgspec.Raw(failure.payload)})
            # Addressed by path, as every server understands it.
            await client.call("PutObject", Bucket=name, Key=_object_key(failure.place), Body=body)


def _object_key(place: str) -> str:
    """aws/lambda/<mapping>/<shard>/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-<random>"""
    now = datetime.now(UTC)
    return f"aws/lambda/{place}/{now:%Y/%m/%d}/{now:%Y-%m-%dT%H.%M.%S}-{uuid4()}"
