"""A function's log: one record an invocation, turned into Lambda's START, END and REPORT lines when somebody reads.

The hot path only appends a record. Bounds: LOG_RECORDS_PER_FUNCTION_MAX records and LOG_BYTES_PER_FUNCTION_MAX bytes of
output; older ones are dropped and counted.
"""

from __future__ import annotations

import heapq
import itertools
import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastlam import limits

if TYPE_CHECKING:
    from fastlam.core.dispatcher import Invocation

# Errors of the process rather than of the code: REPORT then ends with a status, and an extra line says what happened.
_PLATFORM_ERRORS: Final = frozenset({"Sandbox.Timedout", "Runtime.ExitError", "Runtime.OutOfMemory"})

# The runtime's own error events hold several lines, parted by carriage returns while they are in the stream of output.
_ERROR_EVENT: Final = re.compile(r"\[ERROR\][^\r]*\rTraceback \(most recent call last\):")

RESTORE_TIMEOUT: Final = "Runtime.RestoreHookUserTimeout"
_TAIL_SEARCH_RECORDS: Final = 2048  # the tail is asked for when the invocation is over: its record is among the last


class Entry(NamedTuple):
    """What one invocation left. Times in nanoseconds, `epoch_ms` is its start. core.dispatcher writes these fields in
    this order.
    """

    sequence: int
    epoch_ms: int
    request_id: str
    duration_ns: int
    init_ns: int  # -1: no cold start
    cpu_ns: int
    queue_ns: int
    memory_peak_kib: int
    error_type: str
    error_payload: bytes | None  # the platform's; None for errors of the code
    init_logs: bytes | None
    logs: bytes | None
    logs_dropped_bytes: int


class InitReport(NamedTuple):
    """An INIT that failed, or any that no invocation has begun (of provisioned concurrency); the first have an
    `error_type`. `request_id` is that of the invocation that waited for it, empty if none did.
    """

    sequence: int
    epoch_ms: int
    request_id: str
    duration_ns: int
    phase: str
    error_type: str
    logs: bytes | None
    initialization_type: str = "on-demand"


class RestoreReport(NamedTuple):
    """A restore from a snapshot that failed. `request_id` is that of the invocation that waited for it."""

    sequence: int
    epoch_ms: int
    request_id: str
    duration_ns: int
    error_type: str
    logs: bytes | None


class Note(NamedTuple):
    """A line of fastlam's own, such as a warning."""

    sequence: int
    epoch_ms: int
    text: str


class Event(NamedTuple):
    """One log event as it is shown."""

    sequence: int
    timestamp_ms: int
    message: str


Record = Entry | InitReport | RestoreReport | Note
_OWN_KINDS: Final = (InitReport, RestoreReport, Note)  # what is not an Entry's plain tuple


class LogGroup:
    """The log of one function over all its versions, each of which writes one of its own; merged when read."""

    def __init__(self) -> None:
        self.next_sequence = itertools.count(1).__next__
        self.watchers: set[Callable[[], None]] = set()
        self._logs: list[FunctionLog] = []
        self._ended = 0  # the last sequence of logs that are no longer there

    def add(self, log: FunctionLog) -> None:
        """The log of a version, made with this group."""
        self._logs.append(log)

    def discard(self, log: FunctionLog) -> None:
        """The version is gone, and its log with it."""
        if log in self._logs:
            self._ended = max(self._ended, log.appended)
            self._logs.remove(log)

    @property
    def appended(self) -> int:
        """The sequence number of the newest record."""
        return max(self._ended, max((log.appended for log in self._logs), default=0))

    @property
    def dropped(self) -> int:
        """Records that the bounds, or the end of versions, have cost."""
        return max(0, self.appended - sum(len(log.records) for log in self._logs))

    def notify(self) -> None:
        for watcher in tuple(self.watchers):
            watcher()

    def events(self, after: int = 0, entries_max: int = 1000) -> tuple[list[Event], int]:
        """Events of the entries after `after`, and the sequence to go on from."""
        events: list[Event] = []
        last = after
        merged = heapq.merge(*(log.owned_entries(after) for log in self._logs), key=lambda item: item[0])
        for sequence, entry, log in itertools.islice(merged, entries_max):
            last = sequence
            events.extend(Event(sequence, entry.epoch_ms, message) for message in log.lines(entry))
        return events, last


class FunctionLog:
    """The log of one function version's environments. Written by the driver, read by anybody in its thread.

    The driver appends plain tuples in the order of Entry's fields (`Entry._make` when somebody reads); everything else
    goes through the methods.
    """

    def __init__(
        self,
        version: str,
        memory_mb: int,
        billed_ms: Callable[[int, int], int],
        json_format: bool,
        group: LogGroup | None = None,
    ) -> None:
        self.version = version
        self.memory_mb = memory_mb
        self.json_format = json_format
        self.restores = False  # environments come from a snapshot: what is called INIT in an Entry is their restore
        self.runtime_version_arn = ""
        self.runtime = ""
        self.records: deque[Any] = deque(maxlen=limits.LOG_RECORDS_PER_FUNCTION_MAX)
        group = group or LogGroup()
        self.next_sequence = group.next_sequence
        self.watchers = group.watchers
        self._billed_ms = billed_ms
        self._output_bytes = 0  # an upper bound: what the deque itself drops is found out in `added_output`

    def set_snapshot(self, restores: bool, runtime: str, runtime_version_arn: str) -> None:
        """Whether environments come from a snapshot, and of which runtime."""
        self.restores, self.runtime, self.runtime_version_arn = restores, runtime, runtime_version_arn

    @property
    def appended(self) -> int:
        """How many records there have been: the last one's sequence number."""
        return self.records[-1][0] if self.records else 0

    @property
    def dropped(self) -> int:
        """Records that the bounds have cost, where this is the only log of its function."""
        return self.appended - len(self.records)

    def added_output(self, size: int) -> None:
        """The driver's call after a record with output: keeps the bound on bytes."""
        self._output_bytes += size
        if self._output_bytes > limits.LOG_BYTES_PER_FUNCTION_MAX:
            self._output_bytes = sum(_size(record) for record in self.records)
            while self._output_bytes > limits.LOG_BYTES_PER_FUNCTION_MAX * 3 // 4 and len(self.records) > 1:
                self._output_bytes -= _size(self.records.popleft())

    def notify(self) -> None:
        """Tells those who follow the log."""
        for watcher in tuple(self.watchers):
            watcher()

    def append_init_report(
        self,
        duration_ns: int,
        phase: str,
        error_type: str,
        logs: bytes | None,
        request_id: str = "",
        initialization_type: str = "on-demand",
    ) -> None:
        """The driver's call after a failed INIT, and after any of provisioned concurrency; `request_id` is that of the
        invocation that waited for it, if any did.
        """
        sequence, now = self.next_sequence(), _now_ms()
        self.records.append(
            InitReport(sequence, now, request_id, duration_ns, phase, error_type, logs, initialization_type)
        )
        self.added_output(len(logs) if logs else 0)
        self.notify()

    def append_restore_report(
        self, duration_ns: int, error_type: str, logs: bytes | None, request_id: str = ""
    ) -> None:
        """The driver's call after a failed restore."""
        self.records.append(
            RestoreReport(self.next_sequence(), _now_ms(), request_id, duration_ns, error_type, logs)
        )
        self.added_output(len(logs) if logs else 0)
        self.notify()

    def note(self, text: str) -> None:
        """Adds a line of our own."""
        self.records.append(Note(self.next_sequence(), _now_ms(), text))
        self.notify()

    def entries(self, after: int = 0) -> Iterator[tuple[int, Record]]:
        """(sequence, entry) of those with a higher sequence number than `after`, oldest first. Sequences count from
        1.
        """
        for record in self.records:
            if record[0] > after:
                yield record[0], record if isinstance(record, _OWN_KINDS) else Entry._make(record)

    def owned_entries(self, after: int) -> Iterator[tuple[int, Record, FunctionLog]]:
        """As `entries`, each with this log: for a merge with others."""
        for sequence, entry in self.entries(after):
            yield sequence, entry, self

    def events(self, after: int = 0, entries_max: int = 1000) -> tuple[list[Event], int]:
        """Events of the entries after `after`, and the sequence to go on from."""
        events: list[Event] = []
        last = after
        for count, (sequence, entry) in enumerate(self.entries(after)):
            if count >= entries_max:
                break
            last = sequence
            for message in self.lines(entry):
                events.append(Event(sequence, entry.epoch_ms, message))
        return events, last

    def lines(self, entry: Record) -> Iterator[str]:
        """The log events of one entry, each with its line end."""
        if isinstance(entry, Note):
            yield entry.text + "\n"
        elif isinstance(entry, InitReport):
            yield from _split(entry.logs)
            yield self._init_report(entry)
        elif isinstance(entry, RestoreReport):
            yield self._restore_start(entry.epoch_ms - entry.duration_ns // 1_000_000)
            yield from _split(entry.logs)
            yield self._restore_report(entry.epoch_ms, entry.duration_ns, entry.error_type)
        else:
            restored = self.restores and entry.init_ns >= 0
            if restored:
                yield self._restore_start(entry.epoch_ms - entry.init_ns // 1_000_000)
            yield from _split(entry.init_logs)
            if restored:
                yield self._restore_report(entry.epoch_ms, entry.init_ns, "")
            yield self._start(entry)
            if entry.logs_dropped_bytes:
                yield f"[fastlam: {entry.logs_dropped_bytes} bytes of output dropped]\n"
            yield from _split(entry.logs)
            yield from self._end(entry)

    def tail(self, invocation: Invocation) -> bytes:
        """The last LOG_TAIL_BYTES of one invocation's log, for X-Amz-Log-Result."""
        found: list[Record] = []
        for record in itertools.islice(reversed(self.records), _TAIL_SEARCH_RECORDS):
            if record[2] == invocation.request_id:  # either kind of record: its failed attempts at INIT belong to it
                found.append(record if isinstance(record, _OWN_KINDS) else Entry._make(record))
                if not invocation.attempts:
                    break  # no INIT has failed for it
        text = "".join(line for entry in reversed(found) for line in self.lines(entry)).encode()
        if len(text) <= limits.LOG_TAIL_BYTES:
            return text
        return text[-limits.LOG_TAIL_BYTES :].decode("utf-8", "replace").encode()

    def _start(self, entry: Entry) -> str:
        if self.json_format:
            return _json(entry.epoch_ms, "platform.start", {"requestId": entry.request_id, "version": self.version})
        return f"START RequestId: {entry.request_id} Version: {self.version}\n"

    def _end(self, entry: Entry) -> Iterator[str]:
        duration_ms = entry.duration_ns / 1e6
        billed = self._billed_ms(entry.duration_ns, -1 if self.restores else entry.init_ns)
        memory_mb = max(1, -(-entry.memory_peak_kib // 1024))
        end_ms = entry.epoch_ms + int(duration_ms)
        status = ""
        if entry.error_type in _PLATFORM_ERRORS:
            status = "timeout" if entry.error_type == "Sandbox.Timedout" else "error"
        if self.json_format:
            metrics: dict[str, object] = {
                "durationMs": round(duration_ms, 3),
                "billedDurationMs": billed,
                "memorySizeMB": self.memory_mb,
                "maxMemoryUsedMB": memory_mb,
            }
            if entry.init_ns >= 0 and self.restores:
                metrics["restoreDurationMs"] = round(entry.init_ns / 1e6, 3)
                metrics["billedRestoreDurationMs"] = self._billed_ms(entry.init_ns, -1)
            elif entry.init_ns >= 0:
                metrics["initDurationMs"] = round(entry.init_ns / 1e6, 3)
            record: dict[str, object] = {
                "requestId": entry.request_id,
                "metrics": metrics,
                "status": status or ("error" if entry.error_type else "success"),
            }
            if entry.error_type:
                record["errorType"] = entry.error_type
            yield _json(end_ms, "platform.report", record)
            return
        message = _platform_message(entry.error_payload) if entry.error_payload else ""
        if status == "timeout":
            yield f"{_iso(end_ms)} {entry.request_id} {message.partition('Error: ')[2]}\n\n"
        yield f"END RequestId: {entry.request_id}\n"
        if status == "error":
            yield f"{message}\n{entry.error_type}\n"
        report = (
            f"REPORT RequestId: {entry.request_id}\tDuration: {duration_ms:.2f} ms\tBilled Duration: {billed} ms\t"
            f"Memory Size: {self.memory_mb} MB\tMax Memory Used: {memory_mb} MB"
        )
        if entry.init_ns >= 0 and self.restores:
            report += f"\tRestore Duration: {entry.init_ns / 1e6:.2f} ms"
            report += f"\tBilled Restore Duration: {self._billed_ms(entry.init_ns, -1)} ms"
        elif entry.init_ns >= 0:
            report += f"\tInit Duration: {entry.init_ns / 1e6:.2f} ms"
        if status:
            report += f"\tStatus: {status}"
            if status == "error":
                report += f"\tError Type: {entry.error_type}"
            yield report + "\n"
        else:
            yield report + "\t\n"

    def _init_report(self, entry: InitReport) -> str:
        duration_ms = entry.duration_ns / 1e6
        timed_out = entry.error_type == "Sandbox.Timedout"
        status = "timeout" if timed_out else "error" if entry.error_type else "success"
        if self.json_format:
            record: dict[str, object] = {
                "initializationType": entry.initialization_type,
                "phase": entry.phase,
                "status": status,
                "metrics": {"durationMs": round(duration_ms, 3)},
            }
            if status == "error":
                record["errorType"] = entry.error_type
            return _json(entry.epoch_ms, "platform.initReport", record)
        line = f"INIT_REPORT Init Duration: {duration_ms:.2f} ms\tPhase: {entry.phase}\tStatus: {status}"
        return f"{line}\tError Type: {entry.error_type}\n" if status == "error" else f"{line}\n"


    def _restore_start(self, epoch_ms: int) -> str:
        if self.json_format:
            record = {"functionVersion": self.version, "runtimeVersion": self.runtime}
            record["runtimeVersionArn"] = self.runtime_version_arn
            return _json(epoch_ms, "platform.restoreStart", dict(record))
        return f"RESTORE_START Runtime Version: {self.runtime}\tRuntime Version ARN: {self.runtime_version_arn}\n"

    def _restore_report(self, epoch_ms: int, duration_ns: int, error_type: str) -> str:
        duration_ms = duration_ns / 1e6
        timed_out = error_type == RESTORE_TIMEOUT
        status = "timeout" if timed_out else "error" if error_type else "success"
        if self.json_format:
            record: dict[str, object] = {"status": status, "metrics": {"durationMs": round(duration_ms, 3)}}
            if error_type:
                record["errorType"] = error_type
            return _json(epoch_ms, "platform.restoreReport", record)
        line = f"RESTORE_REPORT Restore Duration: {duration_ms:.2f} ms"
        if error_type:
            line += f"\tStatus: {status}" + ("" if timed_out else f"\tError Type: {error_type}")
        return f"{line}\n"


def _split(logs: bytes | None) -> Iterator[str]:
    """Output as log events: one a line; what has no line end yet is one too."""
    if logs:
        for line in logs.decode("utf-8", "replace").split("\n"):
            if _ERROR_EVENT.match(line):
                yield line.replace("\r", "\n") + "\n"
            elif line:
                yield line + "\n"


def _size(record: Any) -> int:
    if isinstance(record, Note):
        return 0
    if isinstance(record, (InitReport, RestoreReport)):
        return len(record.logs or b"")
    entry = Entry._make(record)
    return len(entry.logs or b"") + len(entry.init_logs or b"")


def _platform_message(payload: bytes) -> str:
    try:
        message = json.loads(payload).get("errorMessage", "")
    except (ValueError, AttributeError):
        return ""
    return message if isinstance(message, str) else ""


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def _iso(epoch_ms: int) -> str:
    moment = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{epoch_ms % 1000:03d}Z"


def _json(epoch_ms: int, kind: str, record: dict[str, object]) -> str:
    return json.dumps({"time": _iso(epoch_ms), "type": kind, "record": record}, separators=(",", ":")) + "\n"
