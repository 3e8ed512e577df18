"""RabbitMQ queues, of Amazon MQ or anywhere: AMQP 0-9-1, acknowledged when the function has succeeded."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from fastlam.control.filter_matching import Payload
from fastlam.sources.brokers import broker_urls
from fastlam.sources.context import Context, SourceProblem
from fastlam.sources.delivery import Envelope
from fastlam.sources.kinds import library
from fastlam.sources.local import shown_url
from fastlam.sources.messages import MessagePoller, RecordsEnvelope
from fastlam.sources.pollers.kafka import signed_bytes
from fastlam.sources.secrets import access_of


class RabbitmqPoller(MessagePoller):
    """One queue of one virtual host."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._aio_pika = library("aio_pika", "rabbitmq")
        library("aiormq", "rabbitmq")  # which it is made of
        self._connection: Any = None
        access = access_of(context, "VIRTUAL_HOST")
        self._virtual_host = "/" if access is None else access[1]

    async def connect(self) -> None:
        trouble: Exception | None = None
        for url in await broker_urls(self.context, "amqps", "amqp"):
            try:
                address = url if access_of(self.context, "VIRTUAL_HOST") is None else self._in_virtual_host(url)
                self._connection = await self._aio_pika.connect(address, timeout=10)
                break
            except (self._aio_pika.exceptions.AMQPError, OSError, TimeoutError) as failure:
                trouble = SourceProblem(f"{shown_url(url)} cannot be read: {failure or type(failure).__name__}")
        if self._connection is None:
            raise trouble or SourceProblem("The broker has no endpoint for AMQP.")
        try:
            channel = await self._connection.channel()
            await channel.set_qos(prefetch_count=min(65_535, self.context.batch_size * 2))
            queue = await channel.get_queue(self.shard)
            self._connection.close_callbacks.add(self._closed)
            channel.close_callbacks.add(self._closed)
            await queue.consume(self._take)
        except (self._aio_pika.exceptions.AMQPError, OSError) as failure:
            raise SourceProblem(f"The queue {self.shard} cannot be read: {failure}") from None

    def _in_virtual_host(self, url: str) -> str:
        scheme, _, rest = url.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}/{quote(self._virtual_host, safe='')}"

    def _closed(self, _: Any, failure: BaseException | None = None) -> None:
        self.lost(SourceProblem(f"The broker has closed the connection: {failure or 'it said nothing'}"))

    async def _take(self, message: Any) -> None:
        properties = message.properties
        shown = {
            "basicProperties": _properties(properties, len(message.body)),
            "redelivered": bool(message.redelivered),
            "data": base64.b64encode(message.body).decode(),
        }
        view = {**shown, "data": Payload(message.body)} if self.context.filters else None
        await self.accept(shown, view, position=str(message.delivery_tag), token=message)

    async def acknowledge(self, tokens: Sequence[Any]) -> None:
        for message in tokens:
            try:
                await message.ack()
            except (self._aio_pika.exceptions.AMQPError, OSError) as failure:
                raise SourceProblem(f"The broker has closed the connection: {failure}") from None

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close_callbacks.discard(self._closed)
            await self._connection.close()

    def envelope(self) -> Envelope:
        head = {"eventSource": "aws:rmq", "eventSourceArn": self.context.arn}
        queue = msgspec.json.encode(f"{self.shard}::{self._virtual_host}")
        return RecordsEnvelope(
            msgspec.json.encode(head)[:-1] + b',"rmqMessagesByQueue":{' + queue + b":[", b"]}}", queue=self.shard
        )


def _properties(given: Any, body_bytes: int) -> dict[str, Any]:
    """As the Java client of Lambda's poller writes them."""
    mode = given.delivery_mode
    return {
        "contentType": given.content_type,
        "contentEncoding": given.content_encoding,
        "headers": {name: _header(value) for name, value in (given.headers or {}).items()},
        "deliveryMode": None if mode is None else int(mode),
        "priority": given.priority,
        "correlationId": given.correlation_id,
        "replyTo": given.reply_to,
        "expiration": given.expiration,
        "messageId": given.message_id,
        "timestamp": _java_time(given.timestamp),
        "type": given.message_type,
        "userId": given.user_id,
        "appId": given.app_id,
        "clusterId": getattr(given, "cluster_id", None) or None,
        "bodySize": body_bytes,
    }


def _header(value: Any) -> Any:
    if isinstance(value, str):
        return {"bytes": signed_bytes(value.encode())}
    if isinstance(value, bytes):
        return {"bytes": signed_bytes(value)}
    if isinstance(value, Mapping):
        return {name: _header(each) for name, each in value.items()}
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, list):
        return [_header(each) for each in value]
    return str(value)


def _java_time(moment: Any) -> str | None:
    """Jan 1, 1970, 12:33:41 AM"""
    if not isinstance(moment, datetime):
        return None
    hour = moment.hour % 12 or 12
    return f"{moment:%b} {moment.day}, {moment.year}, {hour}:{moment:%M:%S %p}"
