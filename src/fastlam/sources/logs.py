"""Pollers of logs that are one ordered sequence and are asked for what follows a position: Redis Streams, NATS
JetStream.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from fastlam.sources.context import Context
from fastlam.sources.delivery import Envelope, Item
from fastlam.sources.lanes import Lanes, Progress
from fastlam.sources.timing import unless


class Entry(NamedTuple):
    """One entry of a log."""

    position: str
    time_ms: int
    key: str
    shown: Mapping[str, Any]  # as the function sees it
    view: Mapping[str, Any] | None  # as filters see it; None where there are none


class LogPoller(ABC):
    """One log. Subclasses know how it is read."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.name: str = context.settings["Queues"][0]

    @abstractmethod
    async def connect(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def first_position(self, kind: str, since_ms: int) -> str:
        """What `entries_after` takes to begin at TRIM_HORIZON, LATEST or AT_TIMESTAMP."""

    @abstractmethod
    async def entries_after(self, position: str) -> Sequence[Entry]:
        """What follows; waits for it, a while at most."""

    @abstractmethod
    def envelope(self) -> Envelope: ...

    async def run(self) -> None:
        context = self.context
        await self.connect()
        try:
            position = await self._begin()
            context.reached()
            progress = Progress(lambda reached: context.save(self.name, reached))
            lanes = Lanes(context, self.envelope(), self.name, progress)
            working = asyncio.ensure_future(lanes.run())
            try:
                while not context.stopping.is_set() and not working.done():
                    for entry in await unless(context.stopping, self.entries_after(position)) or ():
                        position = entry.position
                        await self._pass_on(entry, progress, lanes)
                await working
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
        finally:
            await self.close()

    async def _begin(self) -> str:
        kept = self.context.position(self.name)
        if kept is not None:
            return kept.position
        settings = self.context.settings
        since_ms = int(float(settings.get("StartingPositionTimestamp") or 0) * 1000)
        position = await self.first_position(settings["StartingPosition"], since_ms)
        self.context.save(self.name, position)  # it must not be another place after a restart
        return position

    async def _pass_on(self, entry: Entry, progress: Progress, lanes: Lanes) -> None:
        counters = self.context.counters
        counters.polled += 1
        counters.iterator_age_ms = max(0, self.context.timing.wall_ms() - entry.time_ms)
        progress.read(entry.position)
        if entry.view is not None and not self.context.filters.passes(entry.view):
            counters.filtered_out += 1
            progress.done([entry.position])
            return
        await lanes.put(Item(msgspec.json.encode(entry.shown), entry.position, entry.time_ms, entry.key))
