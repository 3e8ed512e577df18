"""Topics of a Kafka broker that tests have started, their records, and mappings of them."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Final

from local_servers import Server

NO_SECRET: Final = [{"Type": "VPC_SUBNET", "URI": "subnet:subnet-1"}]


def topic(server: Server, name: str, partitions: int = 1) -> str:
    from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic

    async def run() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{server.port}")
        await admin.start()
        if name in await admin.list_topics():
            await admin.create_partitions({name: NewPartitions(partitions)})
        else:
            await admin.create_topics([NewTopic(name, partitions, 1)])
        await admin.close()

    asyncio.run(run())
    return name


def produce(server: Server, topic: str, *values: bytes, partition: int = 0, key: bytes | None = b"k") -> None:
    from aiokafka import AIOKafkaProducer

    async def run() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{server.port}")
        await producer.start()
        for value in values:
            await producer.send(topic, value, key=key, partition=partition, headers=[("h", b"\xff1")])
        await producer.stop()

    asyncio.run(run())


def committed(server: Server, group: str, topic: str, partition: int = 0) -> int | None:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.structs import TopicPartition

    async def run() -> int | None:
        admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{server.port}")
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(group)
        finally:
            await admin.close()
        found = offsets.get(TopicPartition(topic, partition))
        return None if found is None else int(found.offset)

    return asyncio.run(run())


def source(server: Server, topic: str, **more: Any) -> dict[str, Any]:
    return {
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [f"127.0.0.1:{server.port}"]}},
        "SourceAccessConfigurations": NO_SECRET,
        "Topics": [topic],
        "StartingPosition": "TRIM_HORIZON",
        "MaximumBatchingWindowInSeconds": 0,
        **more,
    }


def kafka_records(event: Any) -> list[Any]:
    return [record for records in event["records"].values() for record in records]


def values(records: list[Any]) -> list[str]:
    return [base64.b64decode(record["value"]).decode() for record in records]
