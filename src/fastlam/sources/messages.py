"""Pollers of sources that push: a client library hands messages over, each is acknowledged when it has been dealt with.

    subscription ──► filter ──► lane (batches, window, retries) ──► acknowledgement

A source that is far ahead of the function is held back: by its own means (prefetch, no acknowledgement), or by waiting
in `accept`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from fastlam import limits
from fastlam.sources.context import Context
from fastlam.sources.delivery import Envelope, Item, first_failed
from fastlam.sources.lanes import Lane, Progress
from fastlam.sources.timing import first_of


class RecordsEnvelope:
    """Batches whose records stand in one array: {"Records": [...]}, unless told otherwise."""

    def __init__(
        self, head: bytes = b'{"Records":[', tail: bytes = b"]}", *, name: str = "BatchInfo", **info: Any
    ) -> None:
        self._head = head
        self._tail = tail
        self._name = name
        self._info = info

    @property
    def room_bytes(self) -> int:
        return limits.SYNC_PAYLOAD_BYTES_MAX - len(self._head) - len(self._tail)

    def payload(self, items: Sequence[Item]) -> bytes:
        return self._head + b",".join(item.record for item in items) + self._tail

    def failed_index(self, answer: bytes, items: Sequence[Item]) -> int | None:
        return first_failed(answer, items)

    def failure_info(self, items: Sequence[Item], payload: bytes) -> tuple[str, dict[str, Any]]:
        return self._name, {
            **self._info,
            "first": items[0].position,
            "last": items[-1].position,
            "batchSize": len(items),
            "payloadSize": len(payload),
        }


class Acknowledging(Progress):
    """Says of each message that it is done, in whatever order that happens."""

    def __init__(self, acknowledge: Any) -> None:
        super().__init__(lambda position: None)
        self._acknowledge = acknowledge

    def done(self, positions: Sequence[str]) -> None:
        self._acknowledge(positions)


class MessagePoller(ABC):
    """One subscription. A subclass connects, and calls `accept` for each message that comes."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._loop = asyncio.get_running_loop()
        self._acknowledgements: dict[str, Any] = {}  # position -> what the subclass acknowledges by
        self._due: list[Any] = []
        self._some_due = asyncio.Event()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._number = 0

    @abstractmethod
    async def connect(self) -> None:
        """Connects and subscribes. What goes wrong is raised as SourceProblem."""

    @abstractmethod
    async def close(self) -> None: ...

    async def acknowledge(self, tokens: Sequence[Any]) -> None:
        """These are done. Nothing where the source does not ask."""
        del tokens

    async def receive(self) -> None:
        """For libraries that are asked for messages: asks, until it is cancelled."""
        await self.context.stopping.wait()

    @abstractmethod
    def envelope(self) -> Envelope: ...

    async def run(self) -> None:
        lane = Lane(self.context, self.envelope(), self.shard, Acknowledging(self._done))
        self._lane = lane
        working = asyncio.ensure_future(lane.run())
        acknowledging = asyncio.ensure_future(self._acknowledge_all())
        receiving: asyncio.Future[None] | None = None
        try:
            await self.connect()
            self.context.reached()
            receiving = asyncio.ensure_future(self.receive())
            waits = [asyncio.shield(each) for each in (receiving, working, acknowledging, self._lost)]
            await first_of(self.context.stopping, *waits)
            for each in (receiving, working, acknowledging, self._lost):
                if each.done():
                    each.result()
            receiving.cancel()
            await working
            await self._acknowledge_due()
        finally:
            tasks = [each for each in (working, acknowledging, receiving) if each is not None]
            for task in tasks:
                task.cancel()
            self._lost.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close()

    @property
    def shard(self) -> str:
        """Under which positions and failures are filed."""
        queues = self.context.settings.get("Queues")
        return str(queues[0]) if queues else "source"

    async def accept(
        self,
        shown: Mapping[str, Any],
        view: Mapping[str, Any] | None,
        *,
        position: str = "",
        time_ms: int | None = None,
        token: Any = None,
    ) -> None:
        """One message, as the function and as filters see it. Waits while the function is behind."""
        counters = self.context.counters
        counters.polled += 1
        self._number += 1
        position = position or str(self._number)
        if token is not None:
            self._acknowledgements[position] = token
        if view is not None and not self.context.filters.passes(view):
            counters.filtered_out += 1
            self._done([position])
            return
        time_ms = self.context.timing.wall_ms() if time_ms is None else time_ms
        counters.iterator_age_ms = max(0, self.context.timing.wall_ms() - time_ms)
        await self._lane.put(Item(msgspec.json.encode(shown), position, time_ms, ""))

    def lost(self, failure: BaseException) -> None:
        """The connection is gone: the poller is started anew."""
        if not self._lost.done():
            self._lost.set_exception(failure)

    def _done(self, positions: Sequence[str]) -> None:
        for position in positions:
            token = self._acknowledgements.pop(position, None)
            if token is not None:
                self._due.append(token)
        if self._due:
            self._some_due.set()

    async def _acknowledge_all(self) -> None:
        while True:
            await self._some_due.wait()
            self._some_due.clear()
            await self._acknowledge_due()

    async def _acknowledge_due(self) -> None:
        due, self._due = self._due, []
        if due:
            await self.acknowledge(due)
