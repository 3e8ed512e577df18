"""Batches of ordered sources on their way to the function: tried until they are done, or given up by the rules of the
mapping.

    an attempt fails ──► split in two (BisectBatchOnFunctionError); that uses up no retry
                     ──► from the first record that the function has named as failed (ReportBatchItemFailures)
                     ──► again, after a while, up to MaximumRetryAttempts and MaximumRecordAgeInSeconds
                     ──► given up: a record goes to the on-failure destination, and what follows is next

Without bounds a batch is tried until it succeeds, and what follows it in its shard waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol
from uuid import uuid4

from fastlam import limits
from fastlam.abc import FailedBatch, Invoked, Outcome
from fastlam.errors import FastlamError
from fastlam.sources.context import CALL_FAILED, OK, Context
from fastlam.sources.responses import WholeBatch, failed_items
from fastlam.sources.timing import unless

log = logging.getLogger(__name__)

_SEND_ATTEMPTS: Final = 3
EXHAUSTED: Final = "RetryAttemptsExhausted"
TOO_OLD: Final = "RecordAgeExceeded"


class Item(NamedTuple):
    """One record of an ordered source."""

    record: bytes  # JSON, as the function gets it
    position: str  # in the source's own words; unique within its shard
    time_ms: int  # when it came to the source
    key: str  # records of one key stay in order


class Envelope(Protocol):
    """How one kind of source shows batches: to functions, and to those who are told of failures."""

    @property
    def room_bytes(self) -> int:
        """For records, with the commas between them."""

    def payload(self, items: Sequence[Item]) -> bytes: ...

    def failed_index(self, answer: bytes, items: Sequence[Item]) -> int | None:
        """The first record that the function says has failed; 0 also for an answer that makes no sense."""

    def failure_info(self, items: Sequence[Item], payload: bytes) -> tuple[str, dict[str, Any]]:
        """The member of an on-failure record that says where the batch is."""


def first_failed(answer: bytes, items: Sequence[Item]) -> int | None:
    """`Envelope.failed_index` of sources whose records are named by their positions."""
    failed = failed_items(answer)
    if isinstance(failed, WholeBatch):
        return 0
    if not failed:
        return None
    index = {item.position: number for number, item in enumerate(items)}
    if not all(isinstance(each, str) and each in index for each in failed):
        return 0
    return min(index[each] for each in failed)


class Delivery:
    """Delivers the batches of one lane, one after the other.

    `done` is called with records, in order, as soon as they are dealt with; `answered` with what the function returned
    for a batch that it has taken.
    """

    def __init__(
        self,
        context: Context,
        envelope: Envelope,
        shard: str,
        done: Callable[[Sequence[Item]], None],
        answered: Callable[[bytes], None] = lambda answer: None,
    ) -> None:
        settings = context.settings
        self._context = context
        self._envelope = envelope
        self._shard = shard
        self._done = done
        self._answered = answered
        self._retries = int(settings.get("MaximumRetryAttempts", -1))
        self._age_seconds = int(settings.get("MaximumRecordAgeInSeconds", -1))
        self._bisects = bool(settings.get("BisectBatchOnFunctionError"))
        on_failure = (settings.get("DestinationConfig") or {}).get("OnFailure") or {}
        self._destination: str = on_failure.get("Destination") or ""
        if self._destination and self._retries == -1 and "Topics" in settings:
            self._retries = 10  # what "no bound" means for Kafka with a destination

    async def deliver(self, items: Sequence[Item]) -> bool:
        """False when the mapping stops before all of them are dealt with."""
        return await self._deliver(items, 0)

    async def deliver_nothing(self) -> bool:
        """Invokes once without records, which the envelope has a reason for; False when the mapping stops before."""
        attempts = 0
        while not self._context.stopping.is_set():
            invoked = await self._invoked(self._envelope.payload([]), str(uuid4()))
            if invoked is None:
                return False
            attempts += 1
            if invoked.outcome is Outcome.OK or -1 < self._retries < attempts:
                self._context.report(OK if invoked.outcome is Outcome.OK else CALL_FAILED)
                return True
            self._context.report(CALL_FAILED)
            await self._pause(attempts)
        return False

    async def _deliver(self, items: Sequence[Item], attempts: int) -> bool:
        context, request_id = self._context, str(uuid4())
        last: Invoked | None = None
        while True:
            if context.stopping.is_set():
                return False
            young = await self._drop_old(items, attempts, request_id, last)
            if len(young) < len(items):
                items, attempts, last, request_id = young, 0, None, str(uuid4())
            if not items:
                return True
            payload = self._envelope.payload(items)
            if len(payload) > limits.SYNC_PAYLOAD_BYTES_MAX:
                await self._give_up(items, EXHAUSTED, 1 + max(0, self._retries), request_id, None, payload)
                return True
            invoked = await self._invoked(payload, request_id)
            if invoked is None:
                return False
            attempts += 1
            context.counters.invoked += len(items)
            failed = self._failed_index(invoked, items)
            if failed is None:
                context.report(OK)
                self._answered(invoked.payload)
                self._done(items)
                return True
            last = invoked
            context.report(CALL_FAILED)
            context.counters.failed_invoke += len(items) - failed
            if failed:
                self._done(items[:failed])
                items, request_id = items[failed:], str(uuid4())
            elif self._bisects and len(items) > 1:
                half = len(items) // 2
                if not await self._deliver(items[:half], attempts - 1):
                    return False
                items, attempts, request_id = items[half:], attempts - 1, str(uuid4())
                continue
            if self._retries != -1 and attempts > self._retries:
                await self._give_up(items, EXHAUSTED, attempts, request_id, last, payload)
                return True
            await self._pause(attempts)

    async def _pause(self, attempts: int) -> None:
        """Before the next attempt, by the clock that may be virtual."""
        wait_seconds = limits.SOURCE_DELIVERY_RETRY_SECONDS * 2 ** min(max(0, attempts - 1), 16)
        wait_seconds = min(wait_seconds, limits.SOURCE_DELIVERY_RETRY_SECONDS_MAX)
        await unless(self._context.stopping, self._context.timing.sleep(wait_seconds))

    def _failed_index(self, invoked: Invoked, items: Sequence[Item]) -> int | None:
        if invoked.outcome is Outcome.FUNCTION_ERROR:
            return 0
        return self._envelope.failed_index(invoked.payload, items) if self._context.reports_items else None

    async def _invoked(self, payload: bytes, request_id: str) -> Invoked | None:
        """The end of an invocation that has run; None when the mapping stops before. What does not run is no failure of
        the function, and is tried again.
        """
        wait_seconds = limits.SOURCE_DELIVERY_RETRY_SECONDS
        while True:
            invoked = await self._context.invoke(payload, request_id)
            if invoked.outcome in (Outcome.OK, Outcome.FUNCTION_ERROR):
                return invoked
            if self._context.stopping.is_set():
                return None
            if invoked.outcome is Outcome.UNAVAILABLE:
                self._context.report(f"{CALL_FAILED}: {invoked.reason}")
            await unless(self._context.stopping, asyncio.sleep(wait_seconds))
            if self._context.stopping.is_set():
                return None
            wait_seconds = min(wait_seconds * 2, limits.SOURCE_DELIVERY_RETRY_SECONDS_MAX)

    # Giving up

    async def _drop_old(
        self, items: Sequence[Item], attempts: int, request_id: str, last: Invoked | None
    ) -> Sequence[Item]:
        if self._age_seconds == -1:
            return items
        oldest_ms = self._context.timing.wall_ms() - self._age_seconds * 1000
        old = [item for item in items if item.time_ms < oldest_ms]
        if not old:
            return items
        payload = self._envelope.payload(old)
        await self._give_up(old, TOO_OLD, max(1, attempts), request_id, last, payload)
        return [item for item in items if item.time_ms >= oldest_ms]

    async def _give_up(
        self,
        items: Sequence[Item],
        condition: str,
        attempts: int,
        request_id: str,
        last: Invoked | None,
        payload: bytes,
    ) -> None:
        if not self._destination:
            self._context.counters.dropped += len(items)
        else:
            record = self._record(items, condition, attempts, request_id, last, payload)
            if await self._sent(record, items, payload):
                self._context.counters.delivered_on_failure += len(items)
            else:
                self._context.counters.dropped += len(items)
        self._done(items)

    def _record(
        self,
        items: Sequence[Item],
        condition: str,
        attempts: int,
        request_id: str,
        last: Invoked | None,
        payload: bytes,
    ) -> dict[str, Any]:
        record: dict[str, Any] = {
            "requestContext": {
                "requestId": request_id if last is None else last.request_id,
                "functionArn": self._context.mapping.function_arn,
                "condition": condition,
                "approximateInvokeCount": attempts,
            }
        }
        if last is not None:
            record["responseContext"] = {
                "statusCode": 200,
                "executedVersion": last.executed_version,
                # What the function has only reported is no error of its own.
                "functionError": "Unhandled" if last.outcome is Outcome.FUNCTION_ERROR else None,
            }
        record |= {"version": "1.0", "timestamp": iso_time(self._context.timing.wall_ms())}
        name, info = self._envelope.failure_info(items, payload)
        return record | {name: info}

    async def _sent(self, record: dict[str, Any], items: Sequence[Item], payload: bytes) -> bool:
        context = self._context
        failure = FailedBatch(
            destination=self._destination,
            role=context.role,
            region=context.mapping.region,
            record=record,
            payload=self._envelope.payload(items) if len(items) else payload,
            place=f"{context.mapping.uuid}/{self._shard}",
        )
        for attempt in range(_SEND_ATTEMPTS):
            try:
                await context.around.failures.send_failure(failure)
                return True
            except (FastlamError, OSError) as refusal:
                trouble = refusal
            await unless(context.stopping, asyncio.sleep(limits.SOURCE_DELIVERY_RETRY_SECONDS * 2**attempt))
        log.warning(
            "event source mapping %s: %d records are lost, %s has not taken them: %s",
            context.mapping.uuid,
            len(items),
            self._destination,
            trouble,
        )
        return False


def iso_time(wall_ms: int, *, seconds_only: bool = False) -> str:
    """2025-11-25T16:35:32.123Z"""
    moment = datetime.fromtimestamp(wall_ms / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}{'' if seconds_only else f'.{wall_ms % 1000:03}'}Z"
