"""PostgreSQL LISTEN/NOTIFY: what is notified while the connection lives. The server keeps nothing for later."""

from __future__ import annotations

import asyncio
from typing import Any

from fastlam.control.filter_matching import Payload
from fastlam.sources.context import Context
from fastlam.sources.delivery import Envelope
from fastlam.sources.kinds import library
from fastlam.sources.local import unreachable, url_with_user
from fastlam.sources.messages import MessagePoller, RecordsEnvelope


class PostgresqlPoller(MessagePoller):
    """One channel of one database."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._asyncpg = library("asyncpg", "postgresql")
        self._connection: Any = None
        self._notified: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    async def connect(self) -> None:
        try:
            self._connection = await self._asyncpg.connect(await url_with_user(self.context), timeout=10)
            self._connection.add_termination_listener(
                lambda _: self.lost(unreachable(self.context, ConnectionError("the connection was lost")))
            )
            await self._connection.add_listener(self.shard, self._heard)
        except (self._asyncpg.PostgresError, self._asyncpg.InterfaceError, OSError, ValueError) as failure:
            raise unreachable(self.context, failure) from None

    def _heard(self, connection: Any, pid: int, channel: str, payload: str) -> None:
        self._notified.put_nowait((pid, payload))

    async def receive(self) -> None:
        while True:
            pid, payload = await self._notified.get()
            record = {
                "eventSource": "fastlam:postgresql",
                "eventSourceARN": self.context.arn,
                "channel": self.shard,
                "pid": pid,
                "timestamp": self.context.timing.wall_ms(),
                "payload": payload,
            }
            view = {**record, "payload": Payload(payload)} if self.context.filters else None
            await self.accept(record, view)

    async def close(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            try:
                await self._connection.close(timeout=5)
            except (self._asyncpg.PostgresError, self._asyncpg.InterfaceError, OSError, TimeoutError):
                self._connection.terminate()

    def envelope(self) -> Envelope:
        return RecordsEnvelope(name="PostgresqlBatchInfo", channel=self.shard, eventSourceArn=self.context.arn)
