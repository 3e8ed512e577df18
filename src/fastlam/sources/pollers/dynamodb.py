"""DynamoDB Streams: the changes of a table."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fastlam import limits
from fastlam.sources.aws.reach import reach
from fastlam.sources.aws.service import AwsError, AwsService
from fastlam.sources.context import Context, SourceProblem
from fastlam.sources.delivery import Item
from fastlam.sources.pollers.kinesis import RecordsEnvelope
from fastlam.sources.shards import Read, Shard, ShardedPoller

_SERVICE: Final = "dynamodbstreams"
_AWS_IDLE_SECONDS: Final = 0.25  # Lambda's own pace
_RECORDS_MAX: Final = 1000  # of one read


def dynamodb_poller(context: Context) -> ShardedPoller:
    return ShardedPoller(context, TableStream(context))


class TableStream:
    """The stream of one table."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._client: AwsService
        self.idle_seconds = _AWS_IDLE_SECONDS

    async def open(self) -> None:
        self.idle_seconds = (
            _AWS_IDLE_SECONDS if self._context.around.aws.is_aws(_SERVICE) else limits.STREAM_IDLE_SECONDS
        )
        try:
            self._client, _ = await reach(self._context, _SERVICE, self._described)
        except AwsError as refusal:
            if refusal.code == "ResourceNotFoundException":
                raise SourceProblem(f"Stream not found: {self._context.arn}") from None
            raise

    async def _described(self, client: AwsService) -> Any:
        return await client.call("DescribeStream", StreamArn=self._context.arn)

    async def shards(self) -> list[Shard]:
        found: list[Shard] = []
        request: dict[str, Any] = {"StreamArn": self._context.arn}
        while True:
            answer = (await self._client.call("DescribeStream", **request))["StreamDescription"]
            for each in answer.get("Shards") or ():
                parent = each.get("ParentShardId")
                closed = (each.get("SequenceNumberRange") or {}).get("EndingSequenceNumber") is not None
                found.append(Shard(each["ShardId"], (parent,) if parent else (), closed))
            last = answer.get("LastEvaluatedShardId")
            if not last:
                return found
            request["ExclusiveStartShardId"] = last

    async def iterator(self, shard: str, kind: str, position: str = "", since_ms: int = 0) -> str:
        # There are no times to begin at: what is older is passed over when it has been read.
        kind = "TRIM_HORIZON" if kind == "AT_TIMESTAMP" else kind
        request: dict[str, Any] = {"StreamArn": self._context.arn, "ShardId": shard, "ShardIteratorType": kind}
        if kind == "AFTER_SEQUENCE_NUMBER":
            request["SequenceNumber"] = position
        return str((await self._client.call("GetShardIterator", **request))["ShardIterator"])

    async def read(self, iterator: str) -> Read:
        count = min(
            _RECORDS_MAX, self._context.batch_size * int(self._context.settings.get("ParallelizationFactor") or 1)
        )
        answer = await self._client.call("GetRecords", ShardIterator=iterator, Limit=count)
        return Read(answer.get("Records") or (), answer.get("NextShardIterator") or None)

    def envelope(self, shard: str) -> RecordsEnvelope:
        return RecordsEnvelope("DDBStreamBatchInfo", shard, self._context.arn, seconds_only=True)

    def item(self, shard: str, record: Any) -> tuple[Item, dict[str, Any] | None]:
        context, change = self._context, record["dynamodb"]
        shown = {
            "eventID": record["eventID"],
            "eventName": record["eventName"],
            "eventVersion": record.get("eventVersion", "1.1"),
            "eventSource": "aws:dynamodb",
            "awsRegion": record.get("awsRegion") or context.mapping.region,
            "dynamodb": change,
        }
        identity = record.get("userIdentity")
        if identity:
            shown["userIdentity"] = {name[:1].lower() + name[1:]: value for name, value in identity.items()}
        shown["eventSourceARN"] = context.arn
        created = float(change.get("ApproximateCreationDateTime") or 0)
        key = msgspec.json.encode(change.get("Keys")).decode()
        item = Item(msgspec.json.encode(shown), change["SequenceNumber"], int(created * 1000), key)
        return item, shown if context.filters else None
