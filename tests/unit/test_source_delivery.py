"""Batches of ordered sources: retries, ages, windows and lanes on the virtual clock, with a function that is played."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from fastlam import limits
from fastlam.abc import FailedBatch, Invoked, Outcome
from fastlam.arn import FunctionAddress
from fastlam.clock import VirtualClock
from fastlam.errors import FastlamError
from fastlam.model.event_source_mapping import ENABLED, EventSourceMappingRecord
from fastlam.sources.aws.service import AwsClients, AwsError
from fastlam.sources.context import Context, Counters, Surroundings
from fastlam.sources.delivery import Delivery, Item
from fastlam.sources.filters import Filters
from fastlam.sources.lanes import Lane, Progress
from fastlam.sources.pollers.kinesis import RecordsEnvelope
from fastlam.sources.shards import Read, Shard, ShardedPoller
from fastlam.sources.timing import Timing
from fastlam.sources.tumbling import TumblingLane
from fastlam.store.memory import MemoryStore
from fastlam.store.records import EVENT_SOURCE_MAPPING

ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/s"
Answer = Callable[[Any], Any]  # the event -> the function's result; raises for an error of the function


class Played:
    """A function, and a destination of failures, that keep what they are given."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.events: list[Any] = []
        self.requests: list[str | None] = []
        self.failures: list[FailedBatch] = []
        self.refusals = 0  # so many failures are not taken

    async def invoke(
        self, address: FunctionAddress, payload: bytes, *, source_arn: str, request_id: str | None = None
    ) -> Invoked:
        event = json.loads(payload)
        self.events.append(event)
        self.requests.append(request_id)
        await asyncio.sleep(0)
        try:
            answer = self.answer(event)
        except ValueError:
            return Invoked(Outcome.FUNCTION_ERROR, b"{}", request_id or "", "$LATEST")
        return Invoked(Outcome.OK, json.dumps(answer).encode(), request_id or "", "$LATEST")

    async def send_failure(self, failure: FailedBatch) -> None:
        if self.refusals:
            self.refusals -= 1
            raise FastlamError("not now")
        self.failures.append(failure)

    def data(self) -> list[list[int]]:
        return [[record["n"] for record in event["Records"]] for event in self.events]


class Room:
    """One mapping's surroundings, on a clock of their own."""

    def __init__(self, answer: Answer = lambda event: None, **settings: Any) -> None:
        self.clock = VirtualClock()
        self.function = Played(answer)
        self.store = MemoryStore()
        self.done: list[int] = []
        self.reports: list[str] = []
        mapping = EventSourceMappingRecord(
            account="000000000000",
            region="us-east-1",
            uuid="u",
            source="kinesis",
            event_source_arn=ARN,
            function="f",
            state=ENABLED,
            state_transition_reason="",
            last_modified=0.0,
            settings={"BatchSize": 10, "StartingPosition": "TRIM_HORIZON", **settings},
        )
        self.store.put(EVENT_SOURCE_MAPPING, mapping)
        timing = Timing(self.clock, self.clock.schedule)
        around = Surroundings(self.store, self.function, timing, AwsClients(), self.function)
        self.context = Context(mapping, around, Filters({}), Counters(), self.reports.append, lambda: None)
        self.envelope = RecordsEnvelope("KinesisBatchInfo", "shard", ARN)

    def items(self, *numbers: int, age_seconds: float = 0.0) -> list[Item]:
        now_ms = self.clock.wall_ms()
        return [Item(json.dumps({"n": n}).encode(), str(n), now_ms - int(age_seconds * 1000), "k") for n in numbers]

    def delivery(self) -> Delivery:
        def done(items: Sequence[Item]) -> None:
            self.done += [int(item.position) for item in items]

        return Delivery(self.context, self.envelope, "shard", done)

    async def passing(self, work: Awaitable[Any]) -> Any:
        """The result of the work, while time goes by as fast as anything waits for it."""
        task = asyncio.ensure_future(work)
        while not task.done():
            for _ in range(50):
                await asyncio.sleep(0)
            if not task.done() and self.clock.pending:
                self.clock.advance_then(0.1, lambda: None)
        return task.result()


def failing(count: int) -> Answer:
    """The first calls raise."""
    left = [count]

    def answer(event: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise ValueError
        return None

    return answer


def test_retries_by_the_clock() -> None:
    """The waits grow twofold; a batch without bounds is tried until it succeeds."""

    async def run() -> None:
        room = Room(failing(5))
        began = room.clock.elapsed_ms()
        assert await room.passing(room.delivery().deliver(room.items(1, 2)))
        assert room.function.data() == [[1, 2]] * 6
        assert len(set(room.function.requests)) == 1
        assert room.clock.elapsed_ms() - began >= 1000 * limits.SOURCE_DELIVERY_RETRY_SECONDS * (1 + 2 + 4 + 8 + 16)
        assert room.done == [1, 2]
        assert room.reports[-2:] == ["PROBLEM: Function call failed", "OK"]

    asyncio.run(run())


def test_records_that_grow_too_old() -> None:
    """They are given up between two attempts, with as many as there were."""

    async def run() -> None:
        destination = {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:q"}}
        room = Room(failing(1000), MaximumRecordAgeInSeconds=60, DestinationConfig=destination)
        assert await room.passing(room.delivery().deliver(room.items(1, 2)))
        (failure,) = room.function.failures
        request = failure.record["requestContext"]
        assert (request["condition"], request["approximateInvokeCount"]) == (
            "RecordAgeExceeded",
            len(room.function.events),
        )
        assert len(room.function.events) > 3
        assert room.done == [1, 2]

    asyncio.run(run())


def test_records_that_are_too_old_at_once() -> None:
    """Without an attempt; younger ones of the same batch are delivered."""

    async def run() -> None:
        destination = {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:q"}}
        room = Room(MaximumRecordAgeInSeconds=60, DestinationConfig=destination)
        items = room.items(1, 2, age_seconds=100) + room.items(3)
        assert await room.passing(room.delivery().deliver(items))
        (failure,) = room.function.failures
        assert failure.record["requestContext"]["condition"] == "RecordAgeExceeded"
        assert failure.record["requestContext"]["approximateInvokeCount"] == 1
        assert "responseContext" not in failure.record
        assert failure.record["KinesisBatchInfo"]["batchSize"] == 2
        assert room.function.data() == [[3]]
        assert room.done == [1, 2, 3]

    asyncio.run(run())


def test_bisection_uses_up_no_retry() -> None:
    async def run() -> None:
        def answer(event: Any) -> None:
            if any(record["n"] == 5 for record in event["Records"]):
                raise ValueError

        room = Room(answer, MaximumRetryAttempts=0, BisectBatchOnFunctionError=True)
        assert await room.passing(room.delivery().deliver(room.items(*range(8))))
        assert room.function.data() == [
            [0, 1, 2, 3, 4, 5, 6, 7],
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [4, 5],
            [4],
            [5],
            [6, 7],
        ]
        assert room.done == list(range(8))
        assert room.context.counters.dropped == 1

    asyncio.run(run())


def test_halves_have_all_retries() -> None:
    async def run() -> None:
        def answer(event: Any) -> None:
            if any(record["n"] == 0 for record in event["Records"]):
                raise ValueError

        room = Room(answer, MaximumRetryAttempts=2, BisectBatchOnFunctionError=True)
        assert await room.passing(room.delivery().deliver(room.items(*range(4))))
        assert room.function.data().count([0]) == 3
        assert room.done == list(range(4))

    asyncio.run(run())


def test_partial_failures_move_on() -> None:
    async def run() -> None:
        def answer(event: Any) -> Any:
            first = event["Records"][0]["n"]
            return {"batchItemFailures": [{"itemIdentifier": str(min(first + 2, 5))}]} if first < 5 else None

        room = Room(answer, FunctionResponseTypes=["ReportBatchItemFailures"], MaximumRetryAttempts=10)
        assert await room.passing(room.delivery().deliver(room.items(*range(6))))
        assert room.function.data() == [[0, 1, 2, 3, 4, 5], [2, 3, 4, 5], [4, 5], [5]]
        assert room.done == list(range(6))

    asyncio.run(run())


def test_what_is_too_large() -> None:
    """A record that no invocation can hold is given up without one."""

    async def run() -> None:
        destination = {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:q"}}
        room = Room(MaximumRetryAttempts=2, DestinationConfig=destination)
        large = [Item(b'"' + b"x" * limits.SYNC_PAYLOAD_BYTES_MAX + b'"', "1", room.clock.wall_ms(), "k")]
        assert await room.passing(room.delivery().deliver(large))
        (failure,) = room.function.failures
        assert failure.record["requestContext"]["approximateInvokeCount"] == 3
        assert "responseContext" not in failure.record
        assert room.function.events == []

    asyncio.run(run())


@pytest.mark.parametrize(("refusals", "taken"), [(2, True), (3, False)])
def test_destination_that_is_down(refusals: int, taken: bool) -> None:
    async def run() -> None:
        destination = {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:q"}}
        room = Room(failing(1000), MaximumRetryAttempts=0, DestinationConfig=destination)
        room.function.refusals = refusals
        assert await room.delivery().deliver(room.items(1))
        assert len(room.function.failures) == taken
        assert (room.context.counters.delivered_on_failure, room.context.counters.dropped) == (taken, not taken)
        assert room.done == [1]

    asyncio.run(run())


def test_stop_in_the_middle() -> None:
    """What is not done stays so."""

    async def run() -> None:
        room = Room(failing(1000))
        working = asyncio.ensure_future(room.delivery().deliver(room.items(1)))
        while not room.function.events:
            await asyncio.sleep(0)
        room.context.stopping.set()
        assert await working is False
        assert room.done == []

    asyncio.run(run())


def test_progress() -> None:
    """The position before the oldest record that is not done."""
    kept: list[str] = []
    progress = Progress(kept.append)
    for position in "abcd":
        progress.read(position)
    progress.done(["b", "c"])
    assert kept == []
    progress.done(["a"])
    assert kept == ["c"]
    assert not progress.idle.is_set()
    progress.done(["d"])
    assert kept == ["c", "d"]
    assert progress.idle.is_set()


def test_window_of_a_lane() -> None:
    """By the clock, or as soon as the batch is full."""

    async def run() -> None:
        room = Room(MaximumBatchingWindowInSeconds=60, BatchSize=3)
        progress = Progress(lambda position: room.done.append(int(position)))
        lane = Lane(room.context, room.envelope, "shard", progress)
        working = asyncio.ensure_future(lane.run())

        async def put(*numbers: int) -> None:
            for item in room.items(*numbers):
                progress.read(item.position)
                await lane.put(item)
            for _ in range(50):
                await asyncio.sleep(0)

        await put(1, 2)
        room.clock.advance_then(59, lambda: None)
        await put()
        assert room.function.data() == []
        room.clock.advance_then(2, lambda: None)
        await put()
        assert room.function.data() == [[1, 2]]
        await put(3, 4, 5, 6)
        assert room.function.data() == [[1, 2], [3, 4, 5]]
        assert room.done == [2, 5]
        room.context.stopping.set()
        await working

    asyncio.run(run())


def test_tumbling_window_that_loses_its_state() -> None:
    """It ends early, with the state that it had."""

    async def run() -> None:
        def answer(event: Any) -> Any:
            return (
                {"state": {"n": event["Records"][0]["n"]}}
                if event["Records"] and event["Records"][0]["n"] < 3
                else None
            )

        room = Room(answer, TumblingWindowInSeconds=60, BatchSize=1)
        kept: list[Any] = []
        progress = Progress(lambda position: None)
        lane = TumblingLane(
            room.context, room.envelope, "shard", progress, window=None, keep=lambda window, now: kept.append(window)
        )
        working = asyncio.ensure_future(lane.run())
        for item in room.items(1, 2, 3):
            progress.read(item.position)
            await lane.put(item)
        while len(room.function.events) < 4:
            await asyncio.sleep(0)
        events = room.function.events
        assert [event["state"] for event in events] == [{}, {"n": 1}, {"n": 2}, {"n": 2}]
        assert [event["isFinalInvokeForWindow"] for event in events] == [False, False, False, True]
        assert events[3]["isWindowTerminatedEarly"] is True
        assert kept[-1] is None or kept[-1]["state"] == {"n": 2}
        room.context.stopping.set()
        await working

    asyncio.run(run())


class PlayedStream:
    """One shard, whose iterators expire after one use."""

    idle_seconds = 0.0

    def __init__(self, room: Room) -> None:
        self.room = room
        self.asked: list[tuple[str, str]] = []
        self.expired = False

    async def open(self) -> None:
        pass

    async def shards(self) -> list[Shard]:
        return [Shard("shard", (), closed=False)]

    async def iterator(self, shard: str, kind: str, position: str = "", since_ms: int = 0) -> str:
        self.asked.append((kind, position))
        return position or "0"

    async def read(self, iterator: str) -> Read:
        self.expired = not self.expired
        if not self.expired:
            raise AwsError("kinesis", "GetRecords", "ExpiredIteratorException", "", 400)
        number = int(iterator) + 1
        return Read([number], str(number))

    def envelope(self, shard: str) -> RecordsEnvelope:
        return self.room.envelope

    def item(self, shard: str, record: Any) -> tuple[Item, dict[str, Any] | None]:
        return self.room.items(record)[0], None


def test_iterators_that_expire() -> None:
    """Reading goes on behind the last record that was read."""

    async def run() -> None:
        room = Room(BatchSize=1)
        stream = PlayedStream(room)
        poller = asyncio.ensure_future(ShardedPoller(room.context, stream).run())
        while len(room.function.events) < 4:
            await asyncio.sleep(0)
        room.context.stopping.set()
        await poller
        assert room.function.data()[:4] == [[1], [2], [3], [4]]
        assert stream.asked[:3] == [
            ("TRIM_HORIZON", ""),
            ("AFTER_SEQUENCE_NUMBER", "1"),
            ("AFTER_SEQUENCE_NUMBER", "2"),
        ]
        position = room.context.position("shard")
        assert position is not None
        assert int(position.position) >= 3

    asyncio.run(run())
