"""The durable queue: a SQLite database (WAL) of its own, written by one thread in groups.

    owner's thread                              writer
      append, remove ... ─► the open group
      end of this turn  ──────── group ───────► one transaction, COMMIT syncs the WAL (synchronous=FULL)
                                                reads
      callbacks        ◄──────── group ───────

While one group is being written the next one gathers, so the number of syncs does not grow with that of callers. The
writer makes few and large calls, each of which lets go of the interpreter for as long as SQLite works.

What cannot be written (a full disk) is refused item by item; removals, new words and turns are kept and tried again.
"""

from __future__ import annotations

import builtins
import itertools
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastlam import limits
from fastlam.errors import FastlamError
from fastlam.store.queue import NUMBER_BITS, Backlog, Entry, Item, Numbers, QueueKey, Stored, Waiting, within

log = logging.getLogger(__name__)

FILE_NAME: Final = "events.sqlite"
SCHEMA_VERSION: Final = 1
_AT_ONCE: Final = (256, 64, 16, 4, 1)  # rows of one INSERT: few statements, so that they stay prepared
_INSERTS: Final = {count: f"INSERT INTO item VALUES {','.join(['(?,0,?,?)'] * count)}" for count in _AT_ONCE}
_DELETE: Final = "DELETE FROM item WHERE number IN (SELECT value FROM json_each(?))"
_AMEND: Final = "UPDATE item SET due_ms=?, header=? WHERE number=?"
_QUEUE: Final = "INSERT OR IGNORE INTO queue VALUES (?, ?, ?, ?, ?)"
_NEXT: Final = (
    "SELECT number, due_ms, header, payload FROM item WHERE number>? AND number<? AND due_ms=0 ORDER BY number"
)
_THESE: Final = (
    "SELECT number, due_ms, header, payload FROM item WHERE number IN (SELECT value FROM json_each(?)) ORDER BY number"
)


class _Group:
    """What is written together."""

    __slots__ = ("amendments", "appended", "callbacks", "queues", "reads", "removed", "turns")

    def __init__(self) -> None:
        self.queues: list[tuple[int, QueueKey]] = []
        self.appended: list[tuple[int, bytes, bytes]] = []
        self.callbacks: list[Stored] = []  # of what is appended
        self.amendments: dict[int, tuple[int, bytes, Callable[[], None]]] = {}
        self.removed: list[int] = []
        self.turns: list[tuple[int, list[tuple[int, bytes, bytes]], Callable[[list[int]], None]]] = []
        self.reads: list[tuple[Callable[[sqlite3.Connection], list[Item]], Callable[[list[Item]], None]]] = []

    @property
    def writes(self) -> bool:
        return bool(self.appended or self.removed or self.amendments or self.turns or self.queues)

    @property
    def speaks(self) -> bool:
        """Whether it says anything that is to outlive the power."""
        return bool(self.appended or self.amendments or self.turns)

    def take_back(self, failed: _Group) -> None:
        """What another group has to be tried again with; what this one says is newer."""
        self.queues = failed.queues + self.queues
        self.removed = failed.removed + self.removed
        self.turns = failed.turns + self.turns
        self.amendments = failed.amendments | self.amendments


class _Outcome(NamedTuple):
    group: _Group
    failure: Exception | None  # of the transaction
    refusals: list[Exception | None]  # of each item that it was to append
    found: list[list[Item]]  # by each of its reads


class SqliteQueue:
    """`soon` runs a callback at the end of the owner's turn, `from_writer` has the owner's thread run one, whichever
    thread asks; `later(seconds, callback)` is real time.
    """

    def __init__(
        self,
        path: Path,
        *,
        soon: Callable[[Callable[[], None]], object],
        from_writer: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._path = path
        self._soon, self._from_writer, self._later = soon, from_writer, later
        self._numbers = Numbers()
        self._group = _Group()
        self._due = False  # the group is about to be handed over
        self._writing = False  # the writer has one
        self._resting = False  # after a failure, until something is to be tried again
        self._closing = False
        self._synchronous = True  # commits wait for the disk
        self._appended = self._groups = self._refused = 0
        self._failure = ""  # why the last write failed; "" after one that did not
        self._inbox: queue.SimpleQueue[_Group | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._backlogs = self._open()
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            raise FastlamError(f"The event queue {path} cannot be used: {error}.") from None
        self._writer = threading.Thread(target=self._work, name="fastlam-queue", daemon=True)
        self._writer.start()

    def _open(self) -> builtins.list[Backlog]:
        run = self._connection.execute
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")
        run("PRAGMA trusted_schema=OFF")
        run(f"PRAGMA wal_autocheckpoint={limits.QUEUE_CHECKPOINT_PAGES}")
        run(f"PRAGMA journal_size_limit={limits.QUEUE_JOURNAL_BYTES_MAX}")
        (version,) = run("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise FastlamError(
                f"The event queue {self._path} was written by a newer fastlam (schema {version}, this one knows"
                f" {SCHEMA_VERSION}): upgrade fastlam or choose another --data-dir."
            )
        if version == 0:
            run("BEGIN IMMEDIATE")
            run(
                "CREATE TABLE queue (queue INTEGER PRIMARY KEY, kind TEXT NOT NULL, account TEXT NOT NULL,"
                " region TEXT NOT NULL, name TEXT NOT NULL)"
            )
            run(
                "CREATE TABLE item (number INTEGER PRIMARY KEY, due_ms INTEGER NOT NULL, header BLOB NOT NULL,"
                " payload BLOB NOT NULL)"
            )
            run(f"PRAGMA user_version={SCHEMA_VERSION}")
            run("COMMIT")
        # Numbers of queues that hold nothing are given anew.
        run(
            "DELETE FROM queue WHERE NOT EXISTS (SELECT 1 FROM item WHERE number > (queue << ?)"
            " AND number < ((queue + 1) << ?))",
            (NUMBER_BITS, NUMBER_BITS),
        )
        found = []
        for number, kind, account, region, name in run("SELECT * FROM queue").fetchall():
            bounds = (number << NUMBER_BITS, (number + 1) << NUMBER_BITS)
            (last, ready) = run(
                "SELECT max(number), count(*) FILTER (WHERE due_ms=0) FROM item WHERE number>? AND number<?", bounds
            ).fetchone()
            waiting = run(
                "SELECT number, due_ms, header, length(payload) FROM item"
                " WHERE number>? AND number<? AND due_ms>0 ORDER BY number",
                bounds,
            )
            key = QueueKey(kind, account, region, name)
            self._numbers.know(key, number, last)
            found.append(Backlog(number, key, ready, [Waiting(*row) for row in waiting]))
        return found

    # The owner's thread ------------------------------------------------------------------------------

    def backlogs(self) -> Sequence[Backlog]:
        found, self._backlogs = self._backlogs, []
        return found

    def queue(self, key: QueueKey) -> int:
        found = self._numbers.find(key)
        if found is None:
            found = self._numbers.make(key)
            self._group.queues.append((found, key))
        return found

    def append(self, queue: int, header: bytes, payload: bytes, stored: Stored) -> int:
        number = self._numbers.next(queue)
        self._group.appended.append((number, header, payload))
        self._group.callbacks.append(stored)
        self._resting = False
        self._hand_over_soon()
        return number

    def amend(self, number: int, due_ms: int, header: bytes, stored: Callable[[], None]) -> None:
        self._group.amendments[number] = (due_ms, header, stored)
        self._hand_over_soon()

    def remove(self, number: int) -> None:
        removed = self._group.removed
        removed.append(number)
        if len(removed) >= limits.QUEUE_REMOVALS_MAX:
            self._hand_over_soon()
        elif len(removed) == 1:
            self._later(limits.QUEUE_REMOVAL_SECONDS, self._hand_over_soon)  # unless others are written before

    def turn(self, number: int, entries: Sequence[Entry], stored: Callable[[list[int]], None]) -> None:
        rows = [(self._numbers.next(entry.queue), entry.header, entry.payload) for entry in entries]
        self._group.turns.append((number, rows, stored))
        self._hand_over_soon()

    def read(self, queue: int, after: int, items_max: int, bytes_max: int, done: Callable[[list[Item]], None]) -> None:
        bounds = (max(after, queue << NUMBER_BITS), (queue + 1) << NUMBER_BITS)

        def find(connection: sqlite3.Connection) -> list[Item]:
            cursor = connection.execute(_NEXT, bounds)
            try:
                return within(itertools.starmap(Item, cursor), items_max, bytes_max)
            finally:
                cursor.close()

        self._group.reads.append((find, done))
        self._resting = False
        self._hand_over_soon()

    def fetch(self, numbers: Sequence[int], done: Callable[[list[Item]], None]) -> None:
        text = _json_of(numbers)
        self._group.reads.append((lambda connection: [Item(*row) for row in connection.execute(_THESE, (text,))], done))
        self._resting = False
        self._hand_over_soon()

    def statistics(self) -> dict[str, Any]:
        return {
            "durable": True,
            "appended": self._appended,
            "groups": self._groups,
            "refused": self._refused,
            "written": not self._writing and not self._group.writes,  # all that has been asked for
            "failure": self._failure,
        }

    def clear(self) -> None:
        raise FastlamError("A queue that keeps its items is not cleared.")

    def close(self) -> None:
        """What still comes back from the writer is not told any more."""
        if self._closing:
            return
        self._closing = True
        while self._writing or self._group.writes:
            if not self._writing:
                self._hand_over()
            outcome = self._outcomes.get()
            self._writing = False
            if outcome.failure is not None:
                log.warning("the event queue %s could not be brought up to date: %s", self._path, outcome.failure)
                break
        self._inbox.put(None)
        self._writer.join()
        self._connection.close()

    def _hand_over_soon(self) -> None:
        if not self._due and not self._writing and not self._resting:
            self._due = True
            self._soon(self._hand_over)

    def _hand_over(self) -> None:
        self._due = False
        if not self._writing and (self._group.writes or self._group.reads):
            group, self._group = self._group, _Group()
            self._writing = True
            self._inbox.put(group)

    def _written(self) -> None:
        """The writer is done with a group."""
        if self._closing:
            return
        group, failure, refusals, found = self._outcomes.get()
        self._writing = False
        self._failure = "" if failure is None else str(failure)
        if failure is not None:
            self._group.take_back(group)
            if group.removed or group.turns or group.amendments or group.queues:
                log.warning("the event queue %s cannot be written, and is tried again: %s", self._path, failure)
            if not self._group.appended and not self._group.reads:
                self._resting = True
                self._later(limits.QUEUE_RETRY_SECONDS, self._try_again)
        if self._group.appended or self._group.turns or self._group.amendments or self._group.reads:
            self._hand_over_soon()
        elif self._group.removed and failure is None:  # their time may have been over while the writer was at work
            self._later(limits.QUEUE_REMOVAL_SECONDS, self._hand_over_soon)
        self._groups += 1
        refused = sum(error is not None for error in refusals)
        self._refused += refused
        self._appended += len(group.callbacks) - refused
        for stored, error in zip(group.callbacks, refusals, strict=True):
            _tell(stored, error)
        if failure is None:
            for _, _, amended in group.amendments.values():
                _tell(amended)
            for _, rows, turned in group.turns:
                _tell(turned, [row[0] for row in rows])
        for (_, done), items in zip(group.reads, found, strict=True):
            _tell(done, items)

    def _try_again(self) -> None:
        self._resting = False
        self._hand_over_soon()

    # The writer --------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (group := self._inbox.get()) is not None:
            failure: Exception | None = None
            refusals: list[Exception | None] = [None] * len(group.callbacks)
            if group.writes:
                failure = self._transact(group, group.appended)
                if failure is not None and group.appended:
                    refusals = self._one_by_one(group)
            found = [self._find(find) for find, _ in group.reads]
            self._outcomes.put(_Outcome(group, failure, refusals, found))
            if not self._closing:
                self._from_writer(self._written)

    def _transact(self, group: _Group | None, appended: Sequence[tuple[int, bytes, bytes]]) -> Exception | None:
        """One transaction; None when it is on disk."""
        run = self._connection.execute
        try:
            # A removal that is lost with the power has an item run again: only a killed process must not lose it.
            self._synchronize(bool(appended) or group is None or group.speaks)
            run("BEGIN IMMEDIATE")
            removed: list[int] = []
            if group is not None:
                for queue_number, key in group.queues:
                    run(_QUEUE, (queue_number, *key))
                if group.amendments:
                    amendments = ((due_ms, header, number) for number, (due_ms, header, _) in group.amendments.items())
                    self._connection.executemany(_AMEND, amendments)
                removed += group.removed
                for number, rows, _ in group.turns:
                    removed.append(number)
                    self._insert(rows)
            self._insert(appended)
            if removed:
                run(_DELETE, (_json_of(removed),))
            run("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing of it is on disk
            try:
                if self._connection.in_transaction:
                    run("ROLLBACK")
            except sqlite3.Error as second:
                return second
            return error
        return None

    def _synchronize(self, full: bool) -> None:
        """Whether the next commit waits for the disk."""
        if full != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
            self._synchronous = full

    def _insert(self, rows: Sequence[tuple[int, bytes, bytes]]) -> None:
        run, begin, left = self._connection.execute, 0, len(rows)
        for count in _AT_ONCE:
            while left >= count:
                run(_INSERTS[count], list(itertools.chain.from_iterable(rows[begin : begin + count])))
                begin += count
                left -= count

    def _one_by_one(self, group: _Group) -> builtins.list[Exception | None]:
        """After the whole has failed: a small item may still fit."""
        outcomes: list[Exception | None] = []
        known = _Group()
        known.queues = group.queues
        failures = 0
        for row in group.appended:
            # A disk that has refused some in a row is not asked for the rest.
            if failures >= limits.QUEUE_REFUSALS_MAX:
                outcomes.append(outcomes[-1])
                continue
            outcomes.append(self._transact(known, (row,)))
            failures = failures + 1 if outcomes[-1] is not None else 0
        return outcomes

    def _find(self, find: Callable[[sqlite3.Connection], list[Item]]) -> builtins.list[Item]:
        try:
            return find(self._connection)
        except sqlite3.Error as error:
            log.error("the event queue %s cannot be read: %s", self._path, error)
            return []


def _json_of(numbers: Sequence[int]) -> str:
    return f"[{','.join(map(str, numbers))}]"


def _tell(callback: Callable[..., None], *values: Any) -> None:
    try:
        callback(*values)
    except Exception:  # the others are to hear of theirs
        log.exception("a callback of the event queue failed")
