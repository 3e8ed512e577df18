"""MQTT topics: a persistent session of the mapping's own, messages at least once where the broker keeps them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Sequence
from typing import Any, Final

from fastlam.control.filter_matching import Payload
from fastlam.sources.context import Context
from fastlam.sources.delivery import Envelope
from fastlam.sources.kinds import library
from fastlam.sources.local import parts_of, unreachable
from fastlam.sources.messages import MessagePoller, RecordsEnvelope
from fastlam.sources.secrets import user_of

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_QOS: Final = 1


class MqttPoller(MessagePoller):
    """One topic filter of one broker."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._aiomqtt = library("aiomqtt", "mqtt")
        self._client: Any = None
        self._entered = False

    async def connect(self) -> None:
        parts = parts_of(self.context)
        user = await user_of(self.context) or (parts.username, parts.password)
        self._client = self._aiomqtt.Client(
            parts.hostname or "",
            parts.port or _PORTS[parts.scheme],
            username=user[0],
            password=user[1],
            identifier=f"fastlam-{self.context.mapping.uuid}",
            clean_session=False,
            tls_context=ssl.create_default_context() if parts.scheme == "mqtts" else None,
        )
        try:
            # What has not been handled is not acknowledged: the broker sends it again to the next session.
            self._client._client.manual_ack_set(True)
            await self._client.__aenter__()
            self._entered = True
            await self._client.subscribe(self.shard, qos=_QOS)
        except (self._aiomqtt.MqttError, OSError) as failure:
            raise unreachable(self.context, failure) from None

    async def close(self) -> None:
        if self._entered:
            with contextlib.suppress(self._aiomqtt.MqttError):  # it may be gone already
                await self._client.__aexit__(None, None, None)

    async def receive(self) -> None:
        try:
            async for message in self._client.messages:
                await self._take(message)
        except self._aiomqtt.MqttError as failure:
            raise unreachable(self.context, failure) from None

    async def _take(self, message: Any) -> None:
        payload = message.payload if isinstance(message.payload, bytes) else str(message.payload or "").encode()
        record = {
            "eventSource": "fastlam:mqtt",
            "eventSourceARN": self.context.arn,
            "topic": str(message.topic),
            "qos": message.qos,
            "retain": bool(message.retain),
            "timestamp": self.context.timing.wall_ms(),
            "data": base64.b64encode(payload).decode(),
        }
        view = {**record, "data": Payload(payload)} if self.context.filters else None
        await self.accept(record, view, token=(message.mid, message.qos))

    async def acknowledge(self, tokens: Sequence[Any]) -> None:
        for mid, qos in tokens:
            if qos:
                self._client._client.ack(mid, qos)
        await asyncio.sleep(0)

    def envelope(self) -> Envelope:
        return RecordsEnvelope(name="MqttBatchInfo", topic=self.shard, eventSourceArn=self.context.arn)
