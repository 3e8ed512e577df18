"""The engine of event source mappings: follows their records, and keeps one poller alive for each that is enabled.

    Creating, Enabling, Updating ──► a new poller is started ──► its source answers, or cannot be read ──► Enabled
    Disabling                    ──► the poller stops, what is in flight ends                           ──► Disabled
    Deleting                     ──► likewise                                                           ──► gone

A source that cannot be read is tried again, after a second and then twice as long each time up to a minute; what is
wrong stands in the mapping's LastProcessingResult meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from fastlam import limits
from fastlam.abc import FailureSender, Invoker
from fastlam.clock import Clock, Schedule
from fastlam.control.filter_patterns import InvalidPattern
from fastlam.errors import ApiError, FastlamError
from fastlam.model.event_source_mapping import DELETING, ENABLED, EventSourceMappingRecord
from fastlam.model.key import RecordKey
from fastlam.sources.aws.http import NoAnswer
from fastlam.sources.aws.service import AwsClients
from fastlam.sources.checks import check_source
from fastlam.sources.context import OK, Context, Counters, MakePoller, SourceProblem, Surroundings
from fastlam.sources.filters import Filters
from fastlam.sources.kinds import poller_of
from fastlam.sources.timing import Timing, unless
from fastlam.store.records import EVENT_SOURCE_MAPPING, Change, RecordStore

log = logging.getLogger(__name__)

Settle = Callable[[RecordKey], None]
"""The mapping is what it was to become: Enabled, Disabled or gone."""
Report = Callable[[RecordKey, str | None], None]
"""The mapping's new LastProcessingResult."""

_STARTS_ANEW: Final = ("function", "qualifier", "enabled", "settings", "event_source_arn", "source")


class SourceEngine:
    """The pollers of one daemon. Lives in the thread of the store and the loop."""

    def __init__(
        self,
        store: RecordStore,
        *,
        settle: Settle,
        report: Report,
        invoker: Invoker,
        aws: AwsClients,
        failures: FailureSender,
        clock: Clock,
        schedule: Schedule,
        make_poller: Callable[[str], MakePoller] = poller_of,
    ) -> None:
        self._store = store
        self._settle = settle
        self._report = report
        self._around = Surroundings(store, invoker, Timing(clock, schedule), aws, failures)
        self._make_poller = make_poller
        self._supervisors: dict[RecordKey, _Supervisor] = {}
        self._stop_watching: Callable[[], None] = lambda: None
        self._stopping = False

    def begin(self) -> None:
        """Starts what the records say, and follows them from now on."""
        self._stop_watching = self._store.watch(self._changed)
        for mapping in self._store.all(EVENT_SOURCE_MAPPING):
            self._supervise(mapping.key)

    def _changed(self, change: Change) -> None:
        if change.kind is EVENT_SOURCE_MAPPING and not self._stopping:
            self._supervise(change.key)

    def _supervise(self, key: RecordKey) -> None:
        supervisor = self._supervisors.get(key)
        if supervisor is not None:
            supervisor.changed.set()
        elif self._store.get(EVENT_SOURCE_MAPPING, key) is not None:
            supervisor = self._supervisors[key] = _Supervisor(
                key, self._around, self._settle, self._report, self._make_poller
            )
            supervisor.task = asyncio.get_running_loop().create_task(supervisor.run(), name=f"mapping {key.name}")
            supervisor.task.add_done_callback(lambda _: self._supervisors.pop(key, None))

    async def stop(self, seconds: float = limits.SOURCE_DRAIN_SECONDS) -> None:
        """Nothing more is read; what is in flight may end, at most that long. What does not is read again by the next
        daemon.
        """
        self._stopping = True
        self._stop_watching()
        tasks = []
        for supervisor in list(self._supervisors.values()):
            supervisor.leave()
            if supervisor.task is not None:
                tasks.append(supervisor.task)
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=seconds)
            for task in pending:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        background = list(self._around.background)
        for left in background:
            left.cancel()
        await asyncio.gather(*background, return_exceptions=True)

    async def check(self, mapping: EventSourceMappingRecord) -> None:
        """Raises ApiError when a new mapping's source is not there, or cannot be read by the function's role."""
        nothing = Context(mapping, self._around, Filters({}), Counters(), lambda result: None, lambda: None)
        try:
            async with asyncio.timeout(limits.SOURCE_CHECK_SECONDS):
                await check_source(nothing)
        except TimeoutError:
            log.info("event source mapping %s: its source does not answer", mapping.uuid)

    def rows(self) -> list[dict[str, Any]]:
        """Each mapping that is followed, with what has gone through it since the daemon's start."""
        found = []
        for key, supervisor in sorted(self._supervisors.items()):
            mapping = self._store.get(EVENT_SOURCE_MAPPING, key)
            if mapping is not None:
                found.append(
                    {
                        "uuid": mapping.uuid,
                        "account": mapping.account,
                        "region": mapping.region,
                        "source": mapping.source,
                        "event_source_arn": mapping.event_source_arn,
                        "function_arn": mapping.function_arn,
                        "state": mapping.state,
                        "last_processing_result": mapping.last_processing_result,
                        "metrics": supervisor.counters.as_dict(),
                    }
                )
        return found


class _Supervisor:
    """Of one mapping: brings what runs in line with what its record says."""

    def __init__(
        self,
        key: RecordKey,
        around: Surroundings,
        settle: Settle,
        report: Report,
        make_poller: Callable[[str], MakePoller],
    ) -> None:
        self.key = key
        self.counters = Counters()
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._around = around
        self._settle = settle
        self._report = report
        self._make_poller = make_poller
        self._leaving = False
        self._running: EventSourceMappingRecord | None = None  # what the poller was started for
        self._context: Context | None = None
        self._poller: asyncio.Task[None] | None = None
        self._settled = False  # what runs has got through to its source, or has said why not
        self._trouble = ""

    def leave(self) -> None:
        self._leaving = True
        self.changed.set()
        if self._context is not None:
            self._context.stopping.set()

    async def run(self) -> None:
        try:
            while True:
                self.changed.clear()
                mapping = self._around.store.get(EVENT_SOURCE_MAPPING, self.key)
                if mapping is None or self._leaving:
                    await self._stop_poller()
                    return
                if mapping.state == DELETING or not mapping.enabled:
                    await self._stop_poller()
                    self._call(self._settle, self.key)
                elif self._running is None or _differ(self._running, mapping):
                    await self._stop_poller()
                    self._start_poller(mapping)
                elif self._settled and mapping.state != ENABLED:  # an update that has changed nothing of what runs
                    self._call(self._settle, self.key)
                await self.changed.wait()
        finally:
            if self._poller is not None:
                self._poller.cancel()
                await asyncio.gather(self._poller, return_exceptions=True)

    def _start_poller(self, mapping: EventSourceMappingRecord) -> None:
        self._running = mapping
        self._settled = False
        self._trouble = ""
        self._poller = asyncio.get_running_loop().create_task(self._poll(mapping), name=f"poller {mapping.uuid}")

    async def _stop_poller(self) -> None:
        if self._context is not None:
            self._context.stopping.set()
        if self._poller is not None:
            await asyncio.gather(self._poller, return_exceptions=True)
        self._running = self._context = self._poller = None

    async def _poll(self, mapping: EventSourceMappingRecord) -> None:
        """Runs pollers, one after the other has failed, until the mapping is to change."""
        stopping = asyncio.Event()
        wait_seconds = limits.SOURCE_RETRY_SECONDS
        while not stopping.is_set():
            began = asyncio.get_running_loop().time()
            try:
                context = self._context = Context(
                    mapping,
                    self._around,
                    Filters(mapping.settings),
                    self.counters,
                    self._reporting,
                    self._reached,
                    stopping,
                )
                await self._make_poller(mapping.source)(context).run()
                continue
            except asyncio.CancelledError:
                raise
            except (SourceProblem, FastlamError, NoAnswer, OSError, InvalidPattern) as failure:
                trouble = _words(failure)
            except Exception as failure:
                log.exception("event source mapping %s: its poller failed", mapping.uuid)
                trouble = f"{type(failure).__name__}: {failure}"
            if stopping.is_set():
                return
            self._tell(mapping, trouble)
            if asyncio.get_running_loop().time() - began > limits.SOURCE_RETRY_SECONDS_MAX:
                wait_seconds = limits.SOURCE_RETRY_SECONDS  # it has worked for a while
            await unless(stopping, asyncio.sleep(wait_seconds))
            wait_seconds = min(wait_seconds * 2, limits.SOURCE_RETRY_SECONDS_MAX)

    # What pollers say

    def _reached(self) -> None:
        if self._trouble:
            log.warning("event source mapping %s: its source can be read again", self.key.name)
            self._trouble = ""
            mapping = self._around.store.get(EVENT_SOURCE_MAPPING, self.key)
            if mapping is not None and (mapping.last_processing_result or "").startswith("PROBLEM"):
                self._call(self._report, self.key, OK)
        self._settled = True
        self._call(self._settle, self.key)

    def _tell(self, mapping: EventSourceMappingRecord, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("event source mapping %s of %s: %s", mapping.uuid, mapping.function_arn, trouble)
            self._trouble = trouble
        self._call(self._report, self.key, f"PROBLEM: {trouble}")
        self._settled = True
        self._call(self._settle, self.key)

    def _reporting(self, result: str) -> None:
        self._call(self._report, self.key, result)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        """A change of the record; a store that is full or closed must not end a poller."""
        try:
            function(*arguments)
        except (ApiError, OSError, RuntimeError):
            log.exception("event source mapping %s: its state cannot be kept", self.key.name)


def _differ(one: EventSourceMappingRecord, other: EventSourceMappingRecord) -> bool:
    return any(getattr(one, name) != getattr(other, name) for name in _STARTS_ANEW)


def _words(failure: BaseException) -> str:
    text = " ".join(str(failure).split()) or type(failure).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."
