"""Kafka topics, self-managed and of MSK: every partition in its order, one batch of each at a time.

All partitions are read here, whatever the group has: one daemon is one consumer. How far it has come is committed for
the mapping's consumer group, where anybody can look at it, and kept in the data directory for brokers that have no
groups.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from fastlam import limits
from fastlam.control.event_sources import SOURCES
from fastlam.control.filter_matching import Payload
from fastlam.sources.aws.reach import reach
from fastlam.sources.aws.service import AwsService
from fastlam.sources.context import Context, SourceProblem
from fastlam.sources.delivery import Item
from fastlam.sources.kinds import library
from fastlam.sources.lanes import Lanes, Progress
from fastlam.sources.responses import WholeBatch, failed_items
from fastlam.sources.secrets import access_of, part_of, secret
from fastlam.sources.timing import first_of, unless

_GROUP_SECONDS: Final = 10.0  # for the broker's word on a consumer group; then it is taken to have none
_FETCH_MS: Final = 1000  # a broker answers earlier, as soon as there is something
_TIMESTAMPS: Final = ("CREATE_TIME", "LOG_APPEND_TIME")


class KafkaPoller:
    """One topic of one cluster."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._aiokafka = library("aiokafka", "kafka")
        self._errors = library("aiokafka.errors", "kafka")
        self._topic: str = context.settings["Topics"][0]
        config = context.settings.get(SOURCES[context.mapping.source].consumer_config) or {}
        if config.get("ConsumptionMode") == "Queue":
            raise SourceProblem("Topics are read as streams only: share groups have no client here.")
        self._group: str = config.get("ConsumerGroupId") or context.mapping.uuid
        self._has_group = True
        self._consumer: Any = None
        self._readers: dict[int, asyncio.Task[None]] = {}
        self._behind: dict[Any, int] = {}  # partition -> the offset to be committed
        self._commit_due = asyncio.Event()

    async def run(self) -> None:
        try:
            await self._run()
        except self._errors.KafkaError as error:
            # Lambda's own words come first.
            raise SourceProblem(
                f"Connection error. Please check your event source connection configuration. {error!r}"
            ) from None

    async def _run(self) -> None:
        self._servers = await self._bootstrap_servers()
        await self._connect()
        committing = asyncio.ensure_future(self._commit_all())
        try:
            await self._look_for_partitions()
            self._context.reached()
            while not self._context.stopping.is_set():
                await self._look_for_partitions()
                waits = [asyncio.shield(task) for task in self._readers.values()]
                await first_of(self._context.stopping, asyncio.sleep(limits.STREAM_SHARDS_SECONDS), *waits)
                for task in self._readers.values():
                    if task.done():
                        task.result()
            await asyncio.gather(*self._readers.values())
        finally:
            for task in (*self._readers.values(), committing):
                task.cancel()
            await asyncio.gather(*self._readers.values(), committing, return_exceptions=True)
            await self._commit()
            await self._consumer.stop()

    # The cluster

    async def _bootstrap_servers(self) -> list[str]:
        settings = self._context.settings
        if self._context.mapping.source == "self-managed-kafka":
            return list(settings["SelfManagedEventSource"]["Endpoints"]["KAFKA_BOOTSTRAP_SERVERS"])

        async def brokers(client: AwsService) -> Any:
            return await client.call("GetBootstrapBrokers", ClusterArn=self._context.arn)

        _, answer = await reach(self._context, "kafka", brokers)
        if access_of(self._context, "SASL_SCRAM_512_AUTH"):
            names = ["BootstrapBrokerStringSaslScram"]
        elif access_of(self._context, "CLIENT_CERTIFICATE_TLS_AUTH"):
            names = ["BootstrapBrokerStringTls"]
        else:
            names = ["BootstrapBrokerString", "BootstrapBrokerStringTls"]
        for name in names:
            if answer.get(name):
                return str(answer[name]).split(",")
        raise SourceProblem(f"The cluster {self._context.arn} has no brokers that can be reached in this way.")

    async def _options(self) -> dict[str, Any]:
        """How to authenticate. A secret may name the protocol as `securityProtocol`, which is SASL_SSL otherwise."""
        options: dict[str, Any] = {"security_protocol": "PLAINTEXT"}
        sasl = access_of(self._context, "BASIC_AUTH", "SASL_SCRAM_256_AUTH", "SASL_SCRAM_512_AUTH")
        if sasl is not None:
            kind, uri = sasl
            found = await secret(self._context, uri)
            options = {
                "security_protocol": found.get("securityProtocol") or "SASL_SSL",
                "sasl_mechanism": {"BASIC_AUTH": "PLAIN"}.get(kind, f"SCRAM-SHA-{kind.split('_')[-2]}"),
                "sasl_plain_username": part_of(found, uri, "username"),
                "sasl_plain_password": part_of(found, uri, "password"),
            }
        client = access_of(self._context, "CLIENT_CERTIFICATE_TLS_AUTH")
        root = access_of(self._context, "SERVER_ROOT_CA_CERTIFICATE")
        if client is not None or root is not None:
            context = ssl.create_default_context()
            for access, load in ((root, _load_authority), (client, _load_certificate)):
                if access is not None:
                    await self._load(context, access[1], load)
            options["ssl_context"] = context
        if options["security_protocol"] == "PLAINTEXT" and "ssl_context" in options:
            options["security_protocol"] = "SSL"
        if options["security_protocol"].endswith("SSL"):
            options.setdefault("ssl_context", ssl.create_default_context())
        return options

    async def _load(
        self, context: ssl.SSLContext, uri: str, load: Callable[[ssl.SSLContext, Mapping[str, Any], str], None]
    ) -> None:
        found = await secret(self._context, uri)
        try:
            load(context, found, uri)
        except (ssl.SSLError, ValueError) as failure:
            raise SourceProblem(f"The certificate in the secret {uri} cannot be used: {failure}") from None

    async def _connect(self) -> None:
        options = await self._options()
        while True:
            self._consumer = self._aiokafka.AIOKafkaConsumer(
                bootstrap_servers=self._servers,
                group_id=self._group if self._has_group else None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                max_partition_fetch_bytes=limits.SYNC_PAYLOAD_BYTES_MAX,
                **options,
            )
            try:
                await self._consumer.start()
                if not self._has_group:
                    return
                partition = self._aiokafka.TopicPartition(self._topic, 0)
                self._consumer.assign([partition])
                async with asyncio.timeout(_GROUP_SECONDS):
                    await self._consumer.committed(partition)
                return
            except (TimeoutError, self._errors.GroupCoordinatorNotAvailableError):
                await self._consumer.stop()
                self._has_group = False
            except BaseException:
                await self._consumer.stop()
                raise

    # Partitions

    async def _look_for_partitions(self) -> None:
        await self._consumer.topics()  # asks the brokers
        numbers = self._consumer.partitions_for_topic(self._topic)
        if not numbers:
            raise SourceProblem(f"The topic {self._topic} does not exist.")
        new = sorted(set(numbers) - self._readers.keys())
        if not new:
            return
        began = bool(self._readers)
        make = self._aiokafka.TopicPartition
        offsets = {number: await self._first_offset(make(self._topic, number), began) for number in new}
        kept = {number: await self._consumer.position(make(self._topic, number)) for number in self._readers}
        self._consumer.assign([make(self._topic, number) for number in sorted({*self._readers, *new})])
        for number, offset in {**kept, **offsets}.items():
            self._consumer.seek(make(self._topic, number), offset)
        for number in new:
            self._readers[number] = asyncio.ensure_future(self._read(make(self._topic, number)))

    async def _first_offset(self, partition: Any, began: bool) -> int:
        if self._has_group:
            committed = await self._consumer.committed(partition)
            if committed is not None:
                return int(committed)
        kept = self._context.position(_name(partition))
        if kept is not None and kept.position:
            return int(kept.position) + 1
        settings = self._context.settings
        position = "TRIM_HORIZON" if began else settings["StartingPosition"]
        if position == "AT_TIMESTAMP":
            since_ms = int(float(settings["StartingPositionTimestamp"]) * 1000)
            found = (await self._consumer.offsets_for_times({partition: since_ms}))[partition]
            offset = None if found is None else found.offset
        elif position == "TRIM_HORIZON":
            offset = (await self._consumer.beginning_offsets([partition]))[partition]
        else:
            offset = None
        if offset is None:
            offset = (await self._consumer.end_offsets([partition]))[partition]
        # Where it began must not be another place after a restart.
        self._keep(partition, int(offset) - 1)
        return int(offset)

    async def _read(self, partition: Any) -> None:
        context, name = self._context, _name(partition)
        progress = Progress(lambda position: self._keep(partition, int(position)))
        envelope = KafkaEnvelope(context, self._servers, partition)
        lanes = Lanes(context, envelope, name, progress)
        working = asyncio.ensure_future(lanes.run())
        try:
            while not context.stopping.is_set() and not working.done():
                getting = self._consumer.getmany(partition, timeout_ms=_FETCH_MS, max_records=context.batch_size)
                try:
                    fetched = await unless(context.stopping, getting)
                except self._errors.OffsetOutOfRangeError:
                    first = (await self._consumer.beginning_offsets([partition]))[partition]
                    self._consumer.seek(partition, first)
                    continue
                for record in (fetched or {}).get(partition, ()):
                    await self._pass_on(record, progress, lanes)
            await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _pass_on(self, record: Any, progress: Progress, lanes: Lanes) -> None:
        context = self._context
        context.counters.polled += 1
        context.counters.iterator_age_ms = max(0, context.timing.wall_ms() - record.timestamp)
        position = str(record.offset)
        progress.read(position)
        shown = shown_record(record)
        if context.filters and not context.filters.passes(view_of(record, shown)):
            context.counters.filtered_out += 1
            progress.done([position])
            return
        await lanes.put(Item(msgspec.json.encode(shown), position, record.timestamp, ""))

    # Positions

    def _keep(self, partition: Any, offset: int) -> None:
        self._context.save(_name(partition), str(offset))
        self._behind[partition] = offset + 1
        self._commit_due.set()

    async def _commit_all(self) -> None:
        while True:
            await self._commit_due.wait()
            self._commit_due.clear()
            await self._commit()

    async def _commit(self) -> None:
        behind, self._behind = self._behind, {}
        if not behind or not self._has_group:
            return
        try:
            async with asyncio.timeout(_GROUP_SECONDS):
                await self._consumer.commit(behind)
        except (TimeoutError, self._errors.KafkaError):
            # The data directory has it; the next commit brings the group up to date.
            self._behind = {**behind, **self._behind}


class KafkaEnvelope:
    """Batches of one partition."""

    def __init__(self, context: Context, servers: Sequence[str], partition: Any) -> None:
        self._context = context
        self._servers = ",".join(servers)
        self._partition = partition
        head: dict[str, Any] = {
            "eventSource": "aws:kafka" if context.arn else "SelfManagedKafka",
            **({"eventSourceArn": context.arn} if context.arn else {}),
            "bootstrapServers": self._servers,
        }
        self._head = msgspec.json.encode(head)[:-1] + b',"records":{' + msgspec.json.encode(_name(partition)) + b":["
        self._tail = b"]}}"

    @property
    def room_bytes(self) -> int:
        return limits.SYNC_PAYLOAD_BYTES_MAX - len(self._head) - len(self._tail)

    def payload(self, items: Sequence[Item]) -> bytes:
        return self._head + b",".join(item.record for item in items) + self._tail

    def failed_index(self, answer: bytes, items: Sequence[Item]) -> int | None:
        failed = failed_items(answer)
        if isinstance(failed, WholeBatch):
            return 0
        if not failed:
            return None
        index = {int(item.position): number for number, item in enumerate(items)}
        first = len(items)
        for each in failed:
            if not isinstance(each, dict) or each.get("partition") != _name(self._partition):
                return 0
            offset = each.get("offset")
            if not isinstance(offset, int) or offset not in index:
                return 0
            first = min(first, index[offset])
        return first

    def failure_info(self, items: Sequence[Item], payload: bytes) -> tuple[str, dict[str, Any]]:
        info: dict[str, Any] = {"batchSize": len(items)}
        if self._context.arn:
            info["eventSourceArn"] = self._context.arn
        return "KafkaBatchInfo", info | {
            "bootstrapServers": self._servers,
            "payloadSize": len(payload),
            "recordsInfo": {
                _name(self._partition): {
                    "firstRecordOffset": items[0].position,
                    "lastRecordOffset": items[-1].position,
                    "firstRecordTimestamp": items[0].time_ms,
                    "lastRecordTimestamp": items[-1].time_ms,
                }
            },
        }


def shown_record(record: Any) -> dict[str, Any]:
    """A record as functions see it."""
    shown: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "timestampType": _TIMESTAMPS[record.timestamp_type or 0],
    }
    if record.key is not None:
        shown["key"] = base64.b64encode(record.key).decode()
    if record.value is not None:
        shown["value"] = base64.b64encode(record.value).decode()
    shown["headers"] = [{name: signed_bytes(value or b"")} for name, value in record.headers]
    return shown


def view_of(record: Any, shown: Mapping[str, Any]) -> dict[str, Any]:
    """A record as filters see it."""
    view = dict(shown)
    for name in ("key", "value"):
        if name in view:
            view[name] = Payload(getattr(record, name))
    return view


def signed_bytes(data: bytes) -> list[int]:
    """As Java's JSON has them."""
    return [byte - 256 if byte > 127 else byte for byte in data]


def _name(partition: Any) -> str:
    return f"{partition.topic}-{partition.partition}"


def _load_authority(context: ssl.SSLContext, found: Mapping[str, Any], uri: str) -> None:
    context.load_verify_locations(cadata=part_of(found, uri, "certificate"))


def _load_certificate(context: ssl.SSLContext, found: Mapping[str, Any], uri: str) -> None:
    """Python reads certificates from files only. Where a password is missing, none is asked for."""
    password = found.get("privateKeyPassword")
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(f"{part_of(found, uri, 'certificate')}\n{part_of(found, uri, 'privateKey')}\n")
        file.flush()
        context.load_cert_chain(file.name, password=password if isinstance(password, str) else "")
