"""Redis Streams (and those of servers that speak its protocol): entries in their order, after the last that is done."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastlam.control.filter_matching import Payload
from fastlam.sources.context import Context
from fastlam.sources.delivery import Envelope
from fastlam.sources.kinds import library
from fastlam.sources.local import unreachable, url_with_user
from fastlam.sources.logs import Entry, LogPoller
from fastlam.sources.messages import RecordsEnvelope

_BLOCK_MS: Final = 20_000  # the server answers earlier, as soon as there is something


class RedisPoller(LogPoller):
    """One stream."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._redis = library("redis.asyncio", "redis")
        self._error = library("redis.exceptions", "redis").RedisError
        self._client: Any = None

    async def connect(self) -> None:
        try:
            self._client = self._redis.Redis.from_url(await url_with_user(self.context), socket_timeout=None)
            await self._client.ping()
        except (self._error, OSError, ValueError) as failure:
            raise unreachable(self.context, failure) from None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def first_position(self, kind: str, since_ms: int) -> str:
        if kind == "LATEST":
            last = await self._client.xrevrange(self.name, count=1)
            return last[0][0].decode() if last else "0-0"
        return f"{since_ms - 1}-{2**64 - 1}" if kind == "AT_TIMESTAMP" and since_ms else "0-0"

    async def entries_after(self, position: str) -> Sequence[Entry]:
        try:
            answer = await self._client.xread({self.name: position}, count=self.context.batch_size, block=_BLOCK_MS)
        except (self._error, OSError) as failure:
            raise unreachable(self.context, failure) from None
        if isinstance(answer, dict):  # of the third version of the protocol
            found = [entry for entries in answer.values() for part in entries for entry in part]
        else:
            found = [entry for _, entries in answer or () for entry in entries]
        return [self._entry(identifier.decode(), fields) for identifier, fields in found if fields is not None]

    def _entry(self, identifier: str, fields: Mapping[bytes, bytes]) -> Entry:
        shown, binary = {}, []
        for name, value in fields.items():
            try:
                shown[_text(name)] = value.decode()
            except UnicodeDecodeError:
                shown[_text(name)] = base64.b64encode(value).decode()
                binary.append(_text(name))
        time_ms = int(identifier.partition("-")[0])
        record = {
            "eventSource": "fastlam:redis",
            "eventSourceARN": self.context.arn,
            "stream": self.name,
            "id": identifier,
            "timestamp": time_ms,
            "fields": shown,
            **({"base64Fields": binary} if binary else {}),
        }
        view = None
        if self.context.filters:
            view = {**record, "fields": {_text(name): Payload(value) for name, value in fields.items()}}
        return Entry(identifier, time_ms, identifier, record, view)

    def envelope(self) -> Envelope:
        return RecordsEnvelope(name="RedisBatchInfo", stream=self.name, eventSourceArn=self.context.arn)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
