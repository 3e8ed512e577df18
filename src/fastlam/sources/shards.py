"""Streams that consist of shards: which are there, in what order they are read, and reading each of them.

A shard is read when its parents have been read to their end. How one kind of stream is asked, `pollers/kinesis.py` and
`pollers/dynamodb.py` say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from fastlam import limits
from fastlam.sources.aws.service import AwsError
from fastlam.sources.context import Context
from fastlam.sources.delivery import Envelope, Item
from fastlam.sources.lanes import Lane, Lanes, Progress
from fastlam.sources.timing import first_of, unless
from fastlam.sources.tumbling import TumblingLane

_SINCE: Final = "@"  # before a time (ms): a position of a shard of which nothing has been read yet
_BUSY_SECONDS: Final = 0.5
_BUSY_SECONDS_MAX: Final = 10.0


class Shard(NamedTuple):
    """One shard as the stream lists it."""

    id: str
    parents: tuple[str, ...]
    closed: bool


class Read(NamedTuple):
    """What one look at a shard has brought."""

    records: Sequence[Any]
    next: str | None  # where the next look begins; None: the shard is closed and read to its end


class Stream(Protocol):
    """One kind of stream."""

    idle_seconds: float  # between two looks at a shard that has brought nothing

    async def open(self) -> None:
        """Finds the stream."""

    async def shards(self) -> list[Shard]: ...

    async def iterator(self, shard: str, kind: str, position: str = "", since_ms: int = 0) -> str:
        """`kind`: TRIM_HORIZON, LATEST, AFTER_SEQUENCE_NUMBER or AT_TIMESTAMP."""

    async def read(self, iterator: str) -> Read: ...

    def envelope(self, shard: str) -> Envelope: ...

    def item(self, shard: str, record: Any) -> tuple[Item, dict[str, Any] | None]:
        """The record, and how filters see it (None where nobody asks)."""


class ShardedPoller:
    """All shards of one stream."""

    def __init__(self, context: Context, stream: Stream) -> None:
        self._context = context
        self._stream = stream
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._look = asyncio.Event()  # the shards may be others now
        self._begun: list[asyncio.Event] = []

    async def run(self) -> None:
        await self._stream.open()
        reached = False
        try:
            while not self._context.stopping.is_set():
                self._look.clear()
                self._start(await self._stream.shards())
                if not reached:
                    # What is put from now on is read, also where reading begins with the latest.
                    await unless(self._context.stopping, self._all_begun())
                    self._context.reached()
                    reached = True
                timer = asyncio.sleep(limits.STREAM_SHARDS_SECONDS)
                await first_of(self._look, self._context.stopping, timer)
                for shard, task in list(self._readers.items()):
                    if task.done():
                        del self._readers[shard]
                        task.result()  # raises what has gone wrong
            await asyncio.gather(*self._readers.values())
        finally:
            for task in self._readers.values():
                task.cancel()
            await asyncio.gather(*self._readers.values(), return_exceptions=True)

    def _start(self, shards: list[Shard]) -> None:
        there = {shard.id for shard in shards}
        begun = any(self._context.position(shard.id) is not None for shard in shards)
        for shard in shards:
            if shard.id in self._readers or self._is_finished(shard.id):
                continue
            if not begun and shard.closed and self._context.settings["StartingPosition"] == "LATEST":
                self._context.save(shard.id, "", finished=True)  # it will have no newer ones
                continue
            if all(parent not in there or self._is_finished(parent) for parent in shard.parents):
                reader = _Reader(self._context, self._stream, shard, first=not begun)
                self._begun.append(reader.begun)
                task = asyncio.get_running_loop().create_task(reader.run())
                task.add_done_callback(lambda _: self._look.set())
                task.add_done_callback(reader.has_begun)
                self._readers[shard.id] = task

    async def _all_begun(self) -> None:
        for begun in self._begun:
            await begun.wait()

    def _is_finished(self, shard: str) -> bool:
        position = self._context.position(shard)
        return position is not None and position.finished


class _Reader:
    """Of one shard."""

    def __init__(self, context: Context, stream: Stream, shard: Shard, *, first: bool) -> None:
        self._context = context
        self._stream = stream
        self._shard = shard
        self.begun = asyncio.Event()  # it has its first iterator, or has failed
        self._first = first  # one of those that were there when the mapping began
        kept = context.position(shard.id)
        self._read_to = "" if kept is None else kept.position  # the last that has been read
        self._progress = Progress(self._keep)
        self._window: dict[str, Any] | None = None if kept is None else kept.window
        self._kept = self._read_to

    def has_begun(self, _: object = None) -> None:
        self.begun.set()

    def _keep(self, position: str) -> None:
        self._kept = position
        self._context.save(self._shard.id, position, window=self._window)

    def _keep_window(self, window: dict[str, Any] | None, now: bool) -> None:
        self._window = window
        if now:
            self._context.save(self._shard.id, self._kept, window=window)

    async def run(self) -> None:
        envelope = self._stream.envelope(self._shard.id)

        def make_lane(*arguments: Any) -> Lane:
            if self._context.settings.get("TumblingWindowInSeconds"):
                return TumblingLane(*arguments, window=self._window, keep=self._keep_window)
            return Lane(*arguments)

        lanes = Lanes(self._context, envelope, self._shard.id, self._progress, make_lane)
        working = asyncio.ensure_future(lanes.run())
        reading = asyncio.ensure_future(self._read_all(lanes))
        try:
            await asyncio.wait({working, reading}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()  # it ends by itself only when the mapping stops, or by a fault
            await reading
            if not self._context.stopping.is_set():
                await first_of(self._progress.idle, self._context.stopping, asyncio.shield(working))
                if self._progress.idle.is_set():
                    await lanes.close()
                    self._context.save(self._shard.id, self._kept, finished=True)
                    working.cancel()
            else:
                await working
        finally:
            for task in (working, reading):
                task.cancel()
            await asyncio.gather(working, reading, return_exceptions=True)

    async def _read_all(self, lanes: Lanes) -> None:
        """To the end of a closed shard, or until the mapping stops."""
        iterator: str | None = None
        wait_seconds = _BUSY_SECONDS
        while not self._context.stopping.is_set():
            try:
                if iterator is None:
                    iterator = await self._iterator()
                    self.begun.set()
                read = await self._stream.read(iterator)
            except AwsError as refusal:
                if refusal.code in ("ExpiredIteratorException", "TrimmedDataAccessException"):
                    if refusal.code == "TrimmedDataAccessException":
                        self._read_to, self._first = "", False  # what it was to begin with is gone: the oldest there is
                    iterator = None
                    continue
                if not refusal.busy:
                    raise
                await unless(self._context.stopping, asyncio.sleep(wait_seconds))
                wait_seconds = min(wait_seconds * 2, _BUSY_SECONDS_MAX)
                continue
            wait_seconds = _BUSY_SECONDS
            if read.records:
                await self._pass_on(read.records, lanes)
            if read.next is None:
                return
            iterator = read.next
            if not read.records:
                await unless(self._context.stopping, asyncio.sleep(self._stream.idle_seconds))

    async def _iterator(self) -> str:
        stream, shard = self._stream, self._shard.id
        if self._read_to.startswith(_SINCE):
            return await stream.iterator(shard, "AT_TIMESTAMP", since_ms=int(self._read_to[1:]))
        if self._read_to:
            return await stream.iterator(shard, "AFTER_SEQUENCE_NUMBER", self._read_to)
        if not self._first:
            return await stream.iterator(shard, "TRIM_HORIZON")
        settings = self._context.settings
        if settings["StartingPosition"] == "AT_TIMESTAMP":
            since_ms = int(float(settings["StartingPositionTimestamp"]) * 1000)
            return await stream.iterator(shard, "AT_TIMESTAMP", since_ms=since_ms)
        now_ms = self._context.timing.wall_ms()
        iterator = await stream.iterator(shard, settings["StartingPosition"])
        if settings["StartingPosition"] == "LATEST":
            # There is no sequence number to come back to yet, but a time.
            self._read_to = f"{_SINCE}{now_ms}"
            self._keep(self._read_to)
        return iterator

    async def _pass_on(self, records: Sequence[Any], lanes: Lanes) -> None:
        context, counters = self._context, self._context.counters
        counters.polled += len(records)
        items = [self._stream.item(self._shard.id, record) for record in records]
        since_ms = int(self._read_to[1:]) if self._read_to.startswith(_SINCE) else 0
        counters.iterator_age_ms = max(0, context.timing.wall_ms() - items[-1][0].time_ms)
        for item, _ in items:
            self._progress.read(item.position)
        for item, view in items:
            if context.stopping.is_set():
                return
            self._read_to = item.position
            if item.time_ms < since_ms - 1000:  # some streams know seconds only
                self._progress.done([item.position])
            elif view is not None and not context.filters.passes(view):
                counters.filtered_out += 1
                self._progress.done([item.position])
            else:
                await lanes.put(item)
