"""ActiveMQ queues, of Amazon MQ or anywhere, over STOMP: acknowledged when the function has succeeded."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from fastlam.control.filter_matching import Payload
from fastlam.sources.brokers import broker_urls
from fastlam.sources.context import Context, SourceProblem
from fastlam.sources.delivery import Envelope
from fastlam.sources.kinds import library
from fastlam.sources.local import shown_url
from fastlam.sources.messages import MessagePoller, RecordsEnvelope

_PORTS: Final = {"stomp": 61613, "stomp+ssl": 61614}
# Headers of STOMP and of ActiveMQ's mapping of JMS onto it; all others are properties of the message.
_HEADERS: Final = frozenset(
    {
        "ack",
        "content-length",
        "content-type",
        "correlation-id",
        "destination",
        "expires",
        "message-id",
        "original-destination",
    }
    | {"persistent", "priority", "redelivered", "reply-to", "subscription", "timestamp", "transformation", "type"}
)


class ActivemqPoller(MessagePoller):
    """One queue."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._stompman = library("stompman", "activemq")
        self._stack = contextlib.AsyncExitStack()
        self._came: asyncio.Queue[Any] = asyncio.Queue()

    async def connect(self) -> None:
        trouble: Exception | None = None
        for url in await broker_urls(self.context, "stomp+ssl", "stomp"):
            parts = urlsplit(url)
            server = self._stompman.ConnectionParameters(
                host=parts.hostname or "",
                port=parts.port or _PORTS[parts.scheme],
                login=unquote(parts.username or ""),
                passcode=unquote(parts.password or ""),
            )
            client = self._stompman.Client(
                servers=[server],
                ssl=ssl.create_default_context() if parts.scheme == "stomp+ssl" else None,
                connect_retry_attempts=1,
                on_error_frame=self._refused,
            )
            try:
                await self._stack.enter_async_context(client)
                await client.subscribe_with_manual_ack(
                    f"/queue/{self.shard}",
                    self._take,
                    ack="client-individual",
                    headers={"activemq.prefetchSize": str(self.context.batch_size * 2)},
                )
                return
            except (self._stompman.Error, OSError) as failure:
                trouble = SourceProblem(f"{shown_url(url)} cannot be read: {failure or type(failure).__name__}")
        raise trouble or SourceProblem("The broker has no endpoint for STOMP.")

    def _refused(self, frame: Any) -> None:
        self.lost(SourceProblem(f"The broker says: {frame.headers.get('message', 'no reason')}"))

    async def _take(self, frame: Any) -> None:
        """In a task of the client's: it waits for nothing, so that heartbeats go on."""
        self._came.put_nowait(frame)

    async def receive(self) -> None:
        while True:
            frame = await self._came.get()
            shown = shown_message(frame.headers, frame.body, self.shard)
            view = {**shown, "data": Payload(frame.body)} if self.context.filters else None
            await self.accept(shown, view, position=frame.headers["message-id"], token=frame)

    async def acknowledge(self, tokens: Sequence[Any]) -> None:
        for frame in tokens:
            try:
                await frame.ack()
            except (self._stompman.Error, OSError) as failure:
                raise SourceProblem(f"The broker has closed the connection: {failure}") from None

    async def close(self) -> None:
        with contextlib.suppress(self._stompman.Error, OSError):  # it may be gone already
            await self._stack.aclose()

    def envelope(self) -> Envelope:
        head = {"eventSource": "aws:mq", "eventSourceArn": self.context.arn}
        return RecordsEnvelope(msgspec.json.encode(head)[:-1] + b',"messages":[', b"]}", queue=self.shard)


def shown_message(headers: Mapping[str, str], body: bytes, queue: str) -> dict[str, Any]:
    """A message as functions see it. STOMP calls a message with a length one of bytes."""
    time_ms = int(headers.get("timestamp") or 0)
    return {
        "messageID": headers.get("message-id"),
        "messageType": "jms/bytes-message" if "content-length" in headers else "jms/text-message",
        "deliveryMode": 2 if headers.get("persistent") == "true" else 1,
        "replyTo": headers.get("reply-to"),
        "type": headers.get("type"),
        "expiration": headers.get("expires", "0"),
        "priority": int(headers.get("priority") or 4),
        "correlationId": headers.get("correlation-id"),
        "redelivered": headers.get("redelivered") == "true",
        "destination": {"physicalName": queue},
        "data": base64.b64encode(body).decode(),
        "timestamp": time_ms,
        "brokerInTime": time_ms,
        "brokerOutTime": time_ms,
        "properties": {name: value for name, value in headers.items() if name not in _HEADERS},
    }
