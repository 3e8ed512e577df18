"""Lanes: records of an ordered source, gathered into batches and delivered one batch after the other.

    reader ──► progress (what has been read, in order)
       │                     ▲ done
       └──► lane 1..n ──► batch ──► delivery          n: ParallelizationFactor; a key always has the same lane

The position that is kept is the last before the oldest record that is not done: what lies behind it may be delivered
again after a restart, nothing is left out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from zlib import crc32

from fastlam.sources.context import Context
from fastlam.sources.delivery import Delivery, Envelope, Item
from fastlam.sources.timing import first_of


class Progress:
    """How far one shard has come. `keep` is called with each new position that is safe to resume behind."""

    def __init__(self, keep: Callable[[str], None]) -> None:
        self._keep = keep
        self._read: deque[str] = deque()  # in order; what is done at its front is forgotten
        self._ended: set[str] = set()
        self.idle = asyncio.Event()  # nothing that was read is outstanding
        self.idle.set()

    def read(self, position: str) -> None:
        self._read.append(position)
        self.idle.clear()

    def done(self, positions: Sequence[str]) -> None:
        self._ended.update(positions)
        reached = ""
        while self._read and self._read[0] in self._ended:
            reached = self._read.popleft()
            self._ended.discard(reached)
        if reached:
            self._keep(reached)
        if not self._read:
            self.idle.set()


class Lane:
    """One queue of records with a delivery behind it."""

    def __init__(self, context: Context, envelope: Envelope, shard: str, progress: Progress) -> None:
        self.context = context
        self._envelope = envelope
        self._window_seconds = context.window_seconds
        self._items: deque[Item] = deque()
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._items_max = context.batch_size * 2
        self._delivery = Delivery(
            context, envelope, shard, lambda items: progress.done([item.position for item in items])
        )

    async def put(self, item: Item) -> None:
        """Waits while there is enough to do."""
        while len(self._items) >= self._items_max and not self.context.stopping.is_set():
            self._room.clear()
            await first_of(self._room, self.context.stopping)
        self._items.append(item)
        self._came.set()

    async def run(self) -> None:
        """Until the mapping stops; what has not been sent by then is read again."""
        while not self.context.stopping.is_set():
            self._came.clear()
            if not self._items:
                await first_of(self._came, self.context.stopping)
                continue
            await self._fill()
            if self.context.stopping.is_set():
                return
            if not await self._delivery.deliver(self._take()):
                return

    async def close(self) -> None:
        """There will be nothing more, and all that was put in is done."""

    async def _fill(self) -> None:
        """Waits for the end of the batching window, or for a full batch."""
        if not self._window_seconds:
            return
        timer = self.context.timing.timer(self._window_seconds)
        while not timer.done() and not self._full() and not self.context.stopping.is_set():
            self._came.clear()
            await first_of(self._came, self.context.stopping, asyncio.shield(timer))

    def _full(self) -> bool:
        if len(self._items) >= self.context.batch_size:
            return True
        return sum(len(item.record) + 1 for item in self._items) >= self._envelope.room_bytes

    def _take(self) -> list[Item]:
        batch: list[Item] = []
        room = self._envelope.room_bytes
        while self._items and len(batch) < self.context.batch_size:
            room -= len(self._items[0].record) + 1
            if batch and room < 0:
                break
            batch.append(self._items.popleft())
        self._room.set()
        return batch


class Lanes:
    """All lanes of one shard."""

    def __init__(
        self,
        context: Context,
        envelope: Envelope,
        shard: str,
        progress: Progress,
        make_lane: Callable[..., Lane] = Lane,
    ) -> None:
        count = int(context.settings.get("ParallelizationFactor") or 1)
        self._lanes = [make_lane(context, envelope, shard, progress) for _ in range(count)]

    async def put(self, item: Item) -> None:
        number = crc32(item.key.encode()) % len(self._lanes) if len(self._lanes) > 1 else 0
        await self._lanes[number].put(item)

    async def close(self) -> None:
        for lane in self._lanes:
            await lane.close()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.run())
