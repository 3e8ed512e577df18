"""On-failure destinations of streams and topics: records of what was given up, sent to a queue, a topic or a bucket."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec

from fastlam.sources.aws.service import AwsClients, AwsError


class FailureRecords:
    """An `abc.FailureSender` for SQS, SNS and S3."""

    def __init__(self, aws: AwsClients) -> None:
        self._aws = aws

    async def send_failure(
        self, destination: str, role: str, region: str, record: Mapping[str, Any], payload: bytes | None
    ) -> None:
        _, _, service, destination_region, _, _ = destination.split(":", 5)
        where = destination_region or region
        try:
            await self._send(service, destination, where, role, record, payload)
        except AwsError as refusal:
            if refusal.busy or self._aws.is_aws(service):
                raise
            # An emulator may keep it in another account than the role's.
            await self._send(service, destination, where, "", record, payload)

    async def _send(
        self,
        service: str,
        destination: str,
        region: str,
        role: str,
        record: Mapping[str, Any],
        payload: bytes | None,
    ) -> None:
        client = await self._aws.client(service, region, role)
        *_, account, name = destination.split(":", 5)
        text = msgspec.json.encode(record).decode()
        if service == "sqs":
            found = await client.call("GetQueueUrl", QueueName=name, QueueOwnerAWSAccountId=account)
            await client.call("SendMessage", QueueUrl=found["QueueUrl"], MessageBody=text)
        elif service == "sns":
            await client.call("Publish", TopicArn=destination, Message=text)
        else:
            body = msgspec.json.encode(record if payload is None else {**record, "payload": msgspec.Raw(payload)})
            # Addressed by path, as every server understands it.
            await client.call("PutObject", Bucket=name, Key=_object_key(record), Body=body)


def _object_key(record: Mapping[str, Any]) -> str:
    """aws/lambda/<mapping>/<shard>/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-<random>"""
    now = datetime.now(UTC)
    info: Mapping[str, Any] = next(
        (value for name, value in record.items() if name.endswith("BatchInfo") and isinstance(value, Mapping)), {}
    )
    shard = info.get("shardId") or next(iter(info.get("recordsInfo") or ()), "batch")
    mapping = record["requestContext"].get("eventSourceMapping", "")
    return f"aws/lambda/{mapping}/{shard}/{now:%Y/%m/%d}/{now:%Y-%m-%dT%H.%M.%S}-{uuid4()}"


