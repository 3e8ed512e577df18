"""SQS queues, standard and FIFO: long polls side by side, batches, deletion of what has been handled.

    receivers (up to 5 while messages come, one while none do) ──► filter ──► batch (at once, or within the window)
        ▲                                                                      │
        └── as many invocations as the mapping may have ◄── delete ◄── invoke ◄┘

A message is in its handler as soon as the queue has answered. What fails stays in the queue and comes again after its
visibility timeout; a queue's redrive policy does the rest. A FIFO queue itself holds a group back while some of it is
in flight.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from fastlam import limits
from fastlam.abc import Outcome
from fastlam.control.filter_matching import Payload
from fastlam.sources.aws.http import NoAnswer
from fastlam.sources.aws.reach import reach
from fastlam.sources.aws.service import AwsError, AwsService
from fastlam.sources.context import Context, SourceProblem
from fastlam.sources.responses import WholeBatch, failed_texts
from fastlam.sources.timing import unless

_HEAD: Final = b'{"Records":['
_TAIL: Final = b"]}"
_ATTRIBUTES: Final = (
    *("ApproximateReceiveCount", "AWSTraceHeader", "SentTimestamp", "SequenceNumber", "MessageGroupId"),
    *("SenderId", "MessageDeduplicationId", "ApproximateFirstReceiveTimestamp", "DeadLetterQueueSourceArn"),
)
_THROTTLE_SECONDS: Final = 0.1  # the first wait for concurrency
_THROTTLE_SECONDS_MAX: Final = 5.0
_HELD_SECONDS: Final = 0.2  # between two looks at a FIFO queue that may hold groups back


class Message(NamedTuple):
    """One received message."""

    id: str
    receipt: str
    record: bytes  # as the function gets it
    until: float  # loop time at which the queue shows it again


class SqsPoller:
    """One queue's."""

    def __init__(self, context: Context) -> None:
        self._context = context
        settings = context.settings
        self._window = context.window_seconds
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._receiving: set[asyncio.Task[None]] = set()
        self._delivering: set[asyncio.Task[None]] = set()
        self._ready: deque[list[Message]] = deque()  # batches that wait for their turn
        self._gathered: list[Message] = []  # within the window
        self._gathered_bytes = 0
        self._window_number = 0
        self._timers: set[asyncio.Task[None]] = set()
        self._deleting: set[asyncio.Task[None]] = set()  # what the filters have let through to nobody
        self._failure: BaseException | None = None
        self._flowing = False  # the newest poll has brought something
        self._visibility = 30.0
        self._held_until = 0.0  # loop time: a FIFO queue holds back groups of which a message has failed
        self._queue = ""
        self._scale(settings)

    def _scale(self, settings: Mapping[str, Any]) -> None:
        provisioned = settings.get("ProvisionedPollerConfig")
        if provisioned:
            each = limits.SQS_PROVISIONED_CONCURRENCY_PER_POLLER
            self._allowed = float(provisioned["MinimumPollers"] * each)
            self._allowed_max = min(provisioned["MaximumPollers"] * each, limits.SQS_PROVISIONED_CONCURRENCY_MAX)
            self._pollers = max(limits.SQS_POLLERS, int(provisioned["MinimumPollers"]))
        else:
            most = (settings.get("ScalingConfig") or {}).get("MaximumConcurrency")
            self._allowed_max = int(most or limits.SQS_CONCURRENCY_MAX)
            self._allowed = float(min(limits.SQS_POLLERS, self._allowed_max))
            self._pollers = limits.SQS_POLLERS
        self._fifo = self._context.mapping.source == "sqs-fifo"
        if self._fifo:
            self._pollers = 1  # the order of a group is that of the answers
        self._allowed_first = self._allowed
        self._grown = self._loop.time()

    # The life of the poller

    async def find(self) -> None:
        """Whether the queue is there, and good for the function."""
        self._client, _ = await reach(self._context, "sqs", self._find_queue)

    async def run(self) -> None:
        await self.find()
        self._context.reached()
        stop = asyncio.ensure_future(self._context.stopping.wait())
        stop.add_done_callback(lambda _: self._changed.set())
        try:
            while not self._context.stopping.is_set() and self._failure is None:
                self._changed.clear()
                self._spread()
                await self._wait()
        finally:
            stop.cancel()
            await self._wind_up()
        if self._failure is not None:
            raise self._failure

    async def _find_queue(self, client: AwsService) -> None:
        _, _, _, _, account, name = self._context.arn.split(":", 5)
        emulated = not self._context.around.aws.is_aws("sqs")
        try:
            found = await client.call("GetQueueUrl", QueueName=name, QueueOwnerAWSAccountId=account)
        except AwsError:
            if not emulated:
                raise
            found = await client.call("GetQueueUrl", QueueName=name)  # whose accounts may be others than the daemon's
        self._queue = found["QueueUrl"]
        answer = await client.call(
            "GetQueueAttributes", QueueUrl=self._queue, AttributeNames=["VisibilityTimeout", "QueueArn"]
        )
        attributes = answer.get("Attributes") or {}
        if not emulated and attributes.get("QueueArn", self._context.arn) != self._context.arn:
            raise AwsError("sqs", "GetQueueAttributes", "AWS.SimpleQueueService.NonExistentQueue", "", 400)
        self._visibility = float(attributes.get("VisibilityTimeout", 30))
        if self._visibility < self._context.timeout_seconds:
            raise SourceProblem(
                f"Queue visibility timeout: {self._visibility:g} seconds is less than Function timeout:"
                f" {self._context.timeout_seconds:g} seconds"
            )

    async def _wait(self) -> None:
        """Until something has changed; while all invocations are taken, also until there may be more of them."""
        saturated = len(self._delivering) >= int(self._allowed) < self._allowed_max
        try:
            async with asyncio.timeout(1 / limits.SQS_CONCURRENCY_STEP_PER_SECOND if saturated else None):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _wind_up(self) -> None:
        for task in self._timers:
            task.cancel()
        self._leave_polls()
        held = [message for batch in self._ready for message in batch] + self._gathered
        self._ready.clear()
        self._gathered = []
        pending = [*self._timers, *self._deleting, *self._delivering]
        try:
            await asyncio.gather(*pending, return_exceptions=True)
        except asyncio.CancelledError:
            for task in self._delivering:
                task.cancel()
            raise
        if held and self._failure is None:
            await self._give_back([message.receipt for message in held])

    def _leave_polls(self) -> None:
        """A queue may not notice that a long poll is given up, and still hand it the next message, which would then be
        away for its visibility timeout: polls go on in the background, and give back what comes.
        """
        for task in self._receiving:
            if self._failure is None:
                self._context.around.background.add(task)
                task.add_done_callback(self._context.around.background.discard)
            else:
                task.cancel()
        self._receiving = set()

    # Who does what next

    def _spread(self) -> None:
        """Starts deliveries and polls, as many as may be."""
        self._grow()
        allowed = int(self._allowed)
        while self._ready and len(self._delivering) < allowed:
            self._start(self._deliver(self._ready.popleft()), self._delivering)
        pollers = self._pollers if self._flowing else 1
        room = allowed - len(self._delivering) - len(self._ready)
        while len(self._receiving) < min(pollers, room):
            self._start(self._receive(), self._receiving)

    def _grow(self) -> None:
        now = self._loop.time()
        if len(self._delivering) >= int(self._allowed):
            step = (now - self._grown) * limits.SQS_CONCURRENCY_STEP_PER_SECOND
            if step >= 1:
                self._allowed = min(self._allowed_max, self._allowed + int(step))
                self._grown = now
        else:
            self._grown = now
            if not self._delivering and not self._flowing:
                self._allowed = self._allowed_first

    def _start(self, work: Any, tasks: set[asyncio.Task[None]]) -> None:
        task = self._loop.create_task(work)
        tasks.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            tasks.discard(done)
            if not done.cancelled() and done.exception() is not None and self._failure is None:
                self._failure = done.exception()
            self._changed.set()

        task.add_done_callback(ended)

    # Receiving

    async def _receive(self) -> None:
        # Some FIFO queues do not notice during a long poll that a group is free again.
        held = self._fifo and (bool(self._delivering) or self._loop.time() < self._held_until)
        answer = await self._client.call(
            "ReceiveMessage",
            timeout_seconds=limits.SOURCE_LONG_POLL_SECONDS + limits.SOURCE_ANSWER_SECONDS,
            QueueUrl=self._queue,
            MaxNumberOfMessages=min(limits.SQS_RECEIVE_MESSAGES_MAX, self._context.batch_size),
            WaitTimeSeconds=0 if held else limits.SOURCE_LONG_POLL_SECONDS,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        received = answer.get("Messages") or []
        if self._context.stopping.is_set():
            await self._give_back([message["ReceiptHandle"] for message in received])
            return
        self._flowing = bool(received)
        if held and not received:
            nothing = self._loop.create_future()
            await asyncio.wait({nothing, *self._delivering}, timeout=_HELD_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return
        self._context.counters.polled += len(received)
        until = self._loop.time() + self._visibility
        taken: list[Message] = []
        passed_over: list[Message] = []
        for each in received:
            record = record_of(each, self._context.arn, windowed=self._window > 0)
            message = Message(each["MessageId"], each["ReceiptHandle"], msgspec.json.encode(record), until)
            passes = not self._context.filters or self._context.filters.passes(view_of(record))
            (taken if passes else passed_over).append(message)
        if self._window:
            self._gather(taken)
        elif taken:
            self._ready.extend(_within_payload(taken))
        if passed_over:
            self._context.counters.filtered_out += len(passed_over)
            self._start(self._delete(passed_over), self._deleting)

    def _gather(self, messages: Iterable[Message]) -> None:
        """Into the batch of the window, which begins with its first message."""
        for message in messages:
            size = len(message.record) + 1
            if self._gathered and self._gathered_bytes + size > _ROOM:
                self._close_window()
            if not self._gathered:
                self._start(self._end_window(self._window_number), self._timers)
            self._gathered.append(message)
            self._gathered_bytes += size
            if len(self._gathered) >= self._context.batch_size:
                self._close_window()

    async def _end_window(self, number: int) -> None:
        await self._context.timing.sleep(self._window)
        if number == self._window_number and self._gathered:
            self._close_window()

    def _close_window(self) -> None:
        self._window_number += 1
        self._ready.append(self._gathered)
        self._gathered, self._gathered_bytes = [], 0
        self._changed.set()

    # Delivering

    async def _deliver(self, batch: list[Message]) -> None:
        counters = self._context.counters
        payload = _HEAD + b",".join(message.record for message in batch) + _TAIL
        until = min(message.until for message in batch)
        wait_seconds = _THROTTLE_SECONDS
        while True:
            invoked = await self._context.invoke(payload)
            if invoked.outcome in (Outcome.OK, Outcome.FUNCTION_ERROR):
                break
            # No error of the function: again, while the queue keeps the messages for us.
            if self._context.stopping.is_set() or self._loop.time() + wait_seconds >= until:
                self._held_until = until
                return
            await unless(self._context.stopping, asyncio.sleep(wait_seconds))
            wait_seconds = min(wait_seconds * 2, _THROTTLE_SECONDS_MAX)
        counters.invoked += len(batch)
        done = batch
        if invoked.outcome is Outcome.FUNCTION_ERROR:
            done = []
        elif self._context.reports_items:
            failed = failed_texts(invoked.payload, {message.id: message for message in batch})
            done = [] if isinstance(failed, WholeBatch) else [each for each in batch if each.id not in failed]
        counters.failed_invoke += len(batch) - len(done)
        if len(done) < len(batch):
            self._held_until = until
        if done:
            await self._delete(done)

    async def _delete(self, messages: list[Message]) -> None:
        """What cannot be deleted comes again."""
        for start in range(0, len(messages), 10):
            part = messages[start : start + 10]
            entries = [{"Id": str(number), "ReceiptHandle": each.receipt} for number, each in enumerate(part)]
            answer = await self._persistently("DeleteMessageBatch", entries)
            self._context.counters.deleted += len(answer.get("Successful") or ())

    async def _give_back(self, receipts: list[str]) -> None:
        """What was received and has not been tried is there again at once."""
        for start in range(0, len(receipts), 10):
            entries = [
                {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                for number, receipt in enumerate(receipts[start : start + 10])
            ]
            try:
                await self._client.call("ChangeMessageVisibilityBatch", QueueUrl=self._queue, Entries=entries)
            except (AwsError, NoAnswer):
                return

    async def _persistently(self, operation: str, entries: list[dict[str, Any]]) -> Any:
        """Tries twice: what was handled is not to be handled again for one lost answer."""
        try:
            return await self._client.call(operation, QueueUrl=self._queue, Entries=entries)
        except NoAnswer:
            return await self._client.call(operation, QueueUrl=self._queue, Entries=entries)
        except AwsError as refusal:
            if not refusal.busy:
                raise
            await asyncio.sleep(_THROTTLE_SECONDS)
            return await self._client.call(operation, QueueUrl=self._queue, Entries=entries)


_ROOM: Final = limits.SYNC_PAYLOAD_BYTES_MAX - len(_HEAD) - len(_TAIL)


def _within_payload(messages: list[Message]) -> Iterable[list[Message]]:
    """As few batches as the payload limit allows."""
    batch: list[Message] = []
    size = 0
    for message in messages:
        if batch and size + len(message.record) + 1 > _ROOM:
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += len(message.record) + 1
    if batch:
        yield batch


def record_of(message: Mapping[str, Any], arn: str, *, windowed: bool = False) -> dict[str, Any]:
    """A message as functions see it."""
    given = message.get("Attributes") or {}
    attributes = {name: given[name] for name in _ATTRIBUTES if name in given}
    attributes |= {name: value for name, value in given.items() if name not in attributes}
    record: dict[str, Any] = {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message.get("Body", ""),
        "attributes": attributes,
        "messageAttributes": {
            name: _attribute(value) for name, value in (message.get("MessageAttributes") or {}).items()
        },
    }
    if "MD5OfMessageAttributes" in message or windowed:
        record["md5OfMessageAttributes"] = message.get("MD5OfMessageAttributes")
    record |= {
        "md5OfBody": message.get("MD5OfBody", ""),
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": arn.split(":")[3],
    }
    return record


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if value.get("StringValue") is not None:
        shown["stringValue"] = value["StringValue"]
    if value.get("BinaryValue") is not None:
        shown["binaryValue"] = value["BinaryValue"]
    return shown | {"stringListValues": [], "binaryListValues": [], "dataType": value.get("DataType", "String")}


def view_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as filters see it."""
    return {**record, "body": Payload(record["body"])}
