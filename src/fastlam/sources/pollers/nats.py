"""NATS JetStream: the messages of one stream in their order, after the last that is done.

What of a stream is read is its name, or its name and a subject: `ORDERS`, `ORDERS/orders.eu.>`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from fastlam.control.filter_matching import Payload
from fastlam.sources.context import Context
from fastlam.sources.delivery import Envelope
from fastlam.sources.kinds import library
from fastlam.sources.local import unreachable, url_with_user
from fastlam.sources.logs import Entry, LogPoller
from fastlam.sources.messages import RecordsEnvelope

_WAIT_SECONDS: Final = 20.0
_CONNECT_SECONDS: Final = 5


class NatsPoller(LogPoller):
    """One stream of one server."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._nats = library("nats", "nats")
        self._errors = library("nats.errors", "nats")
        self._api = library("nats.js.api", "nats")
        self._stream, _, self._subject = self.name.partition("/")
        self._connection: Any = None
        self._subscription: Any = None
        self._lost = asyncio.Event()

    async def connect(self) -> None:
        async def on_lost(*_: Any) -> None:
            self._lost.set()

        async def on_error(error: Exception) -> None:
            """The next look at the stream says it in its own way."""

        try:
            self._connection = await self._nats.connect(
                await url_with_user(self.context),
                allow_reconnect=False,
                connect_timeout=_CONNECT_SECONDS,
                disconnected_cb=on_lost,
                closed_cb=on_lost,
                error_cb=on_error,
            )
            self._jetstream = self._connection.jetstream()
            await self._jetstream.stream_info(self._stream)
        except (self._errors.Error, OSError, TimeoutError) as failure:
            raise unreachable(self.context, failure) from None

    async def close(self) -> None:
        if self._connection is not None and not self._connection.is_closed:
            await self._connection.close()

    async def first_position(self, kind: str, since_ms: int) -> str:
        state = (await self._jetstream.stream_info(self._stream)).state
        if kind == "LATEST":
            return str(state.last_seq)
        return f"@{since_ms}" if kind == "AT_TIMESTAMP" else "0"

    async def entries_after(self, position: str) -> Sequence[Entry]:
        try:
            if self._subscription is None:
                await self._subscribe(position)
            messages = [await self._next(_WAIT_SECONDS)]
            # Those that have come with it.
            while len(messages) < self.context.batch_size and self._subscription.pending_msgs:
                messages.append(await self._next(0.001))
        except (self._errors.Error, OSError) as failure:
            raise unreachable(self.context, failure) from None
        return [self._entry(message) for message in messages if message is not None]

    async def _next(self, seconds: float) -> Any:
        """The next message, or None when there is none; raises when the server is gone."""
        waiting = asyncio.ensure_future(self._subscription.next_msg(timeout=seconds))
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({waiting, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise ConnectionError("the connection was lost")
            return waiting.result()
        except (TimeoutError, self._errors.TimeoutError):
            return None
        finally:
            for task in (waiting, lost):
                task.cancel()
            await asyncio.gather(waiting, lost, return_exceptions=True)

    async def _subscribe(self, position: str) -> None:
        config = self._api.ConsumerConfig(ack_policy=self._api.AckPolicy.NONE)
        if position.startswith("@"):
            config.deliver_policy = self._api.DeliverPolicy.BY_START_TIME
            config.opt_start_time = datetime.fromtimestamp(int(position[1:]) / 1000, UTC)
        else:
            config.deliver_policy = self._api.DeliverPolicy.BY_START_SEQUENCE
            config.opt_start_seq = int(position) + 1
        self._subscription = await self._jetstream.subscribe(
            self._subject or ">", stream=self._stream, config=config, ordered_consumer=True
        )

    def _entry(self, message: Any) -> Entry:
        metadata = message.metadata
        time_ms = int(metadata.timestamp.timestamp() * 1000)
        sequence = metadata.sequence.stream
        record = {
            "eventSource": "fastlam:nats",
            "eventSourceARN": self.context.arn,
            "stream": self._stream,
            "subject": message.subject,
            "sequence": sequence,
            "timestamp": time_ms,
            "headers": dict(message.headers or {}),
            "data": base64.b64encode(message.data).decode(),
        }
        view = {**record, "data": Payload(message.data)} if self.context.filters else None
        return Entry(str(sequence), time_ms, message.subject, record, view)

    def envelope(self) -> Envelope:
        return RecordsEnvelope(name="NatsBatchInfo", stream=self._stream, eventSourceArn=self.context.arn)
