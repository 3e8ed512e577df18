"""What CreateEventSourceMapping is given for each kind of event source, and a control plane in memory to give it to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fastlam.control.event_source_mappings import EventSourceMappings
from fastlam.model.event_source_mapping import EventSourceMappingRecord
from memory_plane import CALLER, MemoryPlane

QUEUE: Final = "arn:aws:sqs:us-east-1:000000000000:queue"
STREAM: Final = "arn:aws:kinesis:us-east-1:000000000000:stream/s"
TABLE_STREAM: Final = "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2026-01-01T00:00:00.000"
CLUSTER: Final = "arn:aws:kafka:us-east-1:000000000000:cluster/c/1abef48b-2cd1-4609-8327-bd239c4b8304-2"
BROKER: Final = "arn:aws:mq:us-east-1:000000000000:broker:b:b-1"
DOCUMENT_CLUSTER: Final = "arn:aws:rds:us-east-1:000000000000:cluster:d"
BASIC_AUTH: Final = {"Type": "BASIC_AUTH", "URI": "arn:aws:secretsmanager:us-east-1:000000000000:secret:s"}

Members = dict[str, Any]

# Each is complete but for the function.
SQS: Final[Members] = {"EventSourceArn": QUEUE}
FIFO: Final[Members] = {"EventSourceArn": f"{QUEUE}.fifo"}
KINESIS: Final[Members] = {"EventSourceArn": STREAM, "StartingPosition": "LATEST"}
DYNAMODB: Final[Members] = {"EventSourceArn": TABLE_STREAM, "StartingPosition": "TRIM_HORIZON"}
MSK: Final[Members] = {"EventSourceArn": CLUSTER, "StartingPosition": "LATEST", "Topics": ["topic"]}
KAFKA: Final[Members] = {
    "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["a.example.com:9092", "b.example.com:9092"]}},
    "SourceAccessConfigurations": [BASIC_AUTH],
    "StartingPosition": "LATEST",
    "Topics": ["topic"],
}
MQ: Final[Members] = {"EventSourceArn": BROKER, "Queues": ["q"], "SourceAccessConfigurations": [BASIC_AUTH]}
DOCUMENTDB: Final[Members] = {
    "EventSourceArn": DOCUMENT_CLUSTER,
    "StartingPosition": "LATEST",
    "DocumentDBEventSourceConfig": {"DatabaseName": "db"},
    "SourceAccessConfigurations": [BASIC_AUTH],
}
EVERY: Final[dict[str, Members]] = {
    "sqs": SQS,
    "fifo": FIFO,
    "kinesis": KINESIS,
    "dynamodb": DYNAMODB,
    "msk": MSK,
    "kafka": KAFKA,
    "mq": MQ,
    "documentdb": DOCUMENTDB,
}


def on_failure(arn: str) -> Members:
    return {"DestinationConfig": {"OnFailure": {"Destination": arn}}}


def filters(*patterns: str | None) -> Members:
    return {"FilterCriteria": {"Filters": [{} if each is None else {"Pattern": each} for each in patterns]}}


class MappingPlane(MemoryPlane):
    """With the function `hello`, its version 1 and its alias `live`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.create()
        self.publish()
        self.alias("live", "1")

    @property
    def mappings(self) -> EventSourceMappings:
        return self.event_source_mappings

    def add(self, source: Members, function: str = "hello", **more: Any) -> EventSourceMappingRecord:
        """A new mapping that has settled."""
        mapping = self.mappings.create(CALLER, {"FunctionName": function, **source, **more})
        self.clock.advance(1)
        return self.get(mapping)

    def get(self, mapping: EventSourceMappingRecord) -> EventSourceMappingRecord:
        return self.mappings.get(CALLER, {"UUID": mapping.uuid})

    def update(self, mapping: EventSourceMappingRecord, **more: Any) -> EventSourceMappingRecord:
        """The mapping, settled again."""
        self.mappings.update(CALLER, {"UUID": mapping.uuid, **more})
        self.clock.advance(1)
        return self.get(mapping)
