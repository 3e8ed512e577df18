"""Tumbling windows: batches of one stretch of time, whose state the function hands from one invocation to the next.

[start, end)  records of this window, with the state so far ──► {"state": ...} is the next one's
              when the window is over, once more, with isFinalInvokeForWindow and no records
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from fastlam import limits
from fastlam.sources.context import Context
from fastlam.sources.delivery import Delivery, Envelope, Item, iso_time
from fastlam.sources.lanes import Lane, Progress
from fastlam.sources.timing import first_of

_MEMBERS_BYTES: Final = 1024  # of a payload, beside records and state


class _WindowEnvelope:
    """The source's own envelope, with the members of the window added."""

    def __init__(self, inner: Envelope, members: Callable[[], dict[str, Any]]) -> None:
        self._inner = inner
        self._members = members

    @property
    def room_bytes(self) -> int:
        return self._inner.room_bytes - _MEMBERS_BYTES - len(msgspec.json.encode(self._members()["state"]))

    def payload(self, items: Sequence[Item]) -> bytes:
        members = msgspec.json.encode(self._members())
        return self._inner.payload(items)[:-1] + b"," + members[1:]

    def failed_index(self, answer: bytes, items: Sequence[Item]) -> int | None:
        return self._inner.failed_index(answer, items)

    def failure_info(self, items: Sequence[Item], payload: bytes) -> tuple[str, dict[str, Any]]:
        return self._inner.failure_info(items, payload)


class TumblingLane(Lane):
    """The one lane of a shard whose mapping has tumbling windows."""

    def __init__(
        self,
        context: Context,
        envelope: Envelope,
        shard: str,
        progress: Progress,
        *,
        window: dict[str, Any] | None,
        keep: Callable[[dict[str, Any] | None, bool], None],
    ) -> None:
        super().__init__(context, envelope, shard, progress)
        self._shard = shard
        self._keep = keep
        self._length_ms = int(context.settings["TumblingWindowInSeconds"]) * 1000
        self._start_ms: int | None = None if window is None else int(window["start"])
        self._state: Any = {} if window is None else window["state"]
        self._final = False
        self._early = False
        self._closing = False
        self._closed = asyncio.Event()
        self._envelope = _WindowEnvelope(envelope, self._members)

        def done(items: Sequence[Item]) -> None:
            progress.done([item.position for item in items])

        self._delivery = Delivery(context, self._envelope, shard, done, self._answered)

    async def close(self) -> None:
        """The shard is at its end: so is the window that is open."""
        self._closing = True
        self._came.set()
        await first_of(self._closed, self.context.stopping)

    async def run(self) -> None:
        while not self.context.stopping.is_set():
            self._came.clear()
            if self._start_ms is not None and (self._early or self._is_over()):
                if not await self._end():
                    return
            elif self._items:
                if not await self._deliver_window():
                    return
            elif self._closing:
                self._closed.set()
                await self.context.stopping.wait()
            else:
                await self._wait()

    def _is_over(self) -> bool:
        """Nothing of the open window can come any more, and what has come is done."""
        assert self._start_ms is not None
        end_ms = self._start_ms + self._length_ms
        if self._items:
            return self._items[0].time_ms >= end_ms
        return self._closing or self.context.timing.wall_ms() >= end_ms

    async def _wait(self) -> None:
        """For a record, or for the end of the window."""
        waits: list[Any] = [self._came, self.context.stopping]
        if self._start_ms is not None:
            left_ms = self._start_ms + self._length_ms - self.context.timing.wall_ms()
            waits.append(self.context.timing.timer(max(1, left_ms) / 1000))
        await first_of(*waits)

    async def _deliver_window(self) -> bool:
        await self._fill()
        if self.context.stopping.is_set():
            return False
        if self._start_ms is None:
            time_ms = self._items[0].time_ms
            self._start_ms = time_ms - time_ms % self._length_ms
        batch = self._take_within(self._start_ms + self._length_ms)
        return await self._delivery.deliver(batch)

    def _take_within(self, end_ms: int) -> list[Item]:
        """Of the records at the front, those of the open window; late ones of an earlier window belong to it, too."""
        batch = self._take()
        for number, item in enumerate(batch):
            if item.time_ms >= end_ms:
                self._items.extendleft(reversed(batch[number:]))
                return batch[:number]
        return batch

    async def _end(self) -> bool:
        """The last invocation of the window."""
        self._final = True
        try:
            ended = await self._delivery.deliver_nothing()
        finally:
            self._final = self._early = False
        if ended:
            self._start_ms, self._state = None, {}
            self._keep(None, True)
        return ended

    def _members(self) -> dict[str, Any]:
        start_ms = self._start_ms or 0
        return {
            "window": {
                "start": iso_time(start_ms, seconds_only=True),
                "end": iso_time(start_ms + self._length_ms, seconds_only=True),
            },
            "state": self._state,
            "shardId": self._shard,
            "eventSourceARN": self.context.arn,
            "isFinalInvokeForWindow": self._final,
            "isWindowTerminatedEarly": self._early,
        }

    def _answered(self, answer: bytes) -> None:
        if self._final:
            return
        try:
            given = msgspec.json.decode(answer) if answer else None
        except msgspec.DecodeError:
            given = None
        state = given.get("state") if isinstance(given, dict) else None
        if state is None or len(msgspec.json.encode(state)) > limits.STREAM_STATE_BYTES_MAX:
            # Without a state that can be handed on the window ends here.
            self._early = True
            state = self._state
        self._state = state
        self._keep({"start": self._start_ms, "state": state}, False)  # goes to the disk together with the position
