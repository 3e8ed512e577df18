"""Kinesis data streams, by name or by an enhanced fan-out consumer of theirs (which is polled as well)."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from fastlam import limits
from fastlam.control.filter_matching import Payload
from fastlam.sources.aws.reach import reach
from fastlam.sources.aws.service import AwsError, AwsService
from fastlam.sources.context import Context, SourceProblem
from fastlam.sources.delivery import Item, first_failed, iso_time
from fastlam.sources.shards import Read, Shard, ShardedPoller

_HEAD: Final = b'{"Records":['
_TAIL: Final = b"]}"
_AWS_IDLE_SECONDS: Final = 1.0  # Lambda's own pace


def kinesis_poller(context: Context) -> ShardedPoller:
    return ShardedPoller(context, KinesisStream(context))


class RecordsEnvelope:
    """Batches of Kinesis and DynamoDB: {"Records": [...]}."""

    room_bytes = limits.SYNC_PAYLOAD_BYTES_MAX - len(_HEAD) - len(_TAIL)

    def __init__(self, name: str, shard: str, arn: str, *, seconds_only: bool = False) -> None:
        self._name = name
        self._shard = shard
        self._arn = arn
        self._seconds_only = seconds_only

    def payload(self, items: Sequence[Item]) -> bytes:
        return _HEAD + b",".join(item.record for item in items) + _TAIL

    def failed_index(self, answer: bytes, items: Sequence[Item]) -> int | None:
        return first_failed(answer, items)

    def failure_info(self, items: Sequence[Item], payload: bytes) -> tuple[str, dict[str, Any]]:
        return self._name, {
            "shardId": self._shard,
            "startSequenceNumber": items[0].position,
            "endSequenceNumber": items[-1].position,
            "approximateArrivalOfFirstRecord": iso_time(items[0].time_ms, seconds_only=self._seconds_only),
            "approximateArrivalOfLastRecord": iso_time(items[-1].time_ms, seconds_only=self._seconds_only),
            "batchSize": len(items),
            "streamArn": self._arn,
        }


class KinesisStream:
    """One stream."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._name = context.arn.split(":", 5)[5].split("/")[1]
        self._client: AwsService
        self.idle_seconds = _AWS_IDLE_SECONDS
        self._role = ""

    async def open(self) -> None:
        self.idle_seconds = (
            _AWS_IDLE_SECONDS if self._context.around.aws.is_aws("kinesis") else limits.STREAM_IDLE_SECONDS
        )
        self._role = self._context.role
        try:
            self._client, _ = await reach(self._context, "kinesis", self._described)
        except AwsError as refusal:
            if refusal.code == "ResourceNotFoundException":
                raise SourceProblem(f"Stream not found: {self._context.arn}") from None
            raise

    async def _described(self, client: AwsService) -> None:
        answer = await client.call("DescribeStreamSummary", StreamName=self._name)
        found = answer["StreamDescriptionSummary"].get("StreamARN")
        if found is not None and found != self._context.arn.split("/consumer/")[0]:
            raise AwsError("kinesis", "DescribeStreamSummary", "ResourceNotFoundException", "", 400)

    async def shards(self) -> list[Shard]:
        found: list[Shard] = []
        request: dict[str, Any] = {"StreamName": self._name}
        while True:
            answer = await self._client.call("ListShards", **request)
            for each in answer["Shards"]:
                parents = (each.get("ParentShardId"), each.get("AdjacentParentShardId"))
                closed = each["SequenceNumberRange"].get("EndingSequenceNumber") is not None
                found.append(Shard(each["ShardId"], tuple(filter(None, parents)), closed))
            if not answer.get("NextToken"):
                return found
            request = {"NextToken": answer["NextToken"]}

    async def iterator(self, shard: str, kind: str, position: str = "", since_ms: int = 0) -> str:
        request: dict[str, Any] = {"StreamName": self._name, "ShardId": shard, "ShardIteratorType": kind}
        if kind == "AFTER_SEQUENCE_NUMBER":
            request["StartingSequenceNumber"] = position
        elif kind == "AT_TIMESTAMP":
            request["Timestamp"] = since_ms / 1000
        answer = await self._client.call("GetShardIterator", **request)
        return str(answer["ShardIterator"])

    async def read(self, iterator: str) -> Read:
        factor = int(self._context.settings.get("ParallelizationFactor") or 1)
        count = min(limits.STREAM_READ_RECORDS_MAX, self._context.batch_size * factor)
        answer = await self._client.call("GetRecords", ShardIterator=iterator, Limit=count)
        return Read(answer["Records"], answer.get("NextShardIterator") or None)

    def envelope(self, shard: str) -> RecordsEnvelope:
        return RecordsEnvelope("KinesisBatchInfo", shard, self._context.arn)

    def item(self, shard: str, record: Any) -> tuple[Item, dict[str, Any] | None]:
        context = self._context
        arrived = float(record["ApproximateArrivalTimestamp"])
        kinesis = {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record["PartitionKey"],
            "sequenceNumber": record["SequenceNumber"],
            "data": record["Data"],
            "approximateArrivalTimestamp": round(arrived, 3),
        }
        shown = {
            "kinesis": kinesis,
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"{shard}:{record['SequenceNumber']}",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": self._role,
            "awsRegion": context.mapping.region,
            "eventSourceARN": context.arn,
        }
        item = Item(msgspec.json.encode(shown), record["SequenceNumber"], int(arrived * 1000), record["PartitionKey"])
        if not context.filters:
            return item, None
        return item, {**shown, **kinesis, "data": Payload(binascii.a2b_base64(record["Data"]))}
