"""The durable store: the memory store, with every change committed to a SQLite database (WAL) before anybody hears of
it.

A killed process loses nothing that was answered: a committed transaction is in the WAL file, and the next opener
replays it. `synchronous=NORMAL` spares the loop thread an fsync for each change; a power cut may take the last changes
with it, whole transactions only.
"""

from __future__ import annotations

import builtins
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from fastlam.errors import FastlamError
from fastlam.model.key import RecordKey
from fastlam.store.memory import MemoryStore
from fastlam.store.records import KINDS, Write

FILE_NAME: Final = "records.sqlite"

Migration = Callable[[sqlite3.Connection], None]


def _create(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE record ("
        " kind TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,"
        " PRIMARY KEY (kind, account, region, name)) WITHOUT ROWID"
    )


def _add_part(connection: sqlite3.Connection) -> None:
    """Keys of versions, aliases and whatever else is a part of something."""
    connection.execute("ALTER TABLE record RENAME TO record_without_part")
    connection.execute(
        "CREATE TABLE record ("
        " kind TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL, part TEXT NOT NULL,"
        " body BLOB NOT NULL, PRIMARY KEY (kind, account, region, name, part)) WITHOUT ROWID"
    )
    connection.execute("INSERT INTO record SELECT kind, account, region, name, '', body FROM record_without_part")
    connection.execute("DROP TABLE record_without_part")


# Step i brings a database from version i to version i + 1; released steps are never changed, new ones are appended.
MIGRATIONS: Final[Sequence[Migration]] = (_create, _add_part)


class SqliteStore(MemoryStore):
    """Owner of the connection; used from one thread, and by one process (the data directory's lock sees to that)."""

    def __init__(self, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        super().__init__()
        self._path = path
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._open(migrations)
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            raise FastlamError(f"The record database {path} cannot be used: {error}.") from None

    def _open(self, migrations: Sequence[Migration]) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=NORMAL")
        run("PRAGMA trusted_schema=OFF")
        run("PRAGMA secure_delete=ON")  # what is replaced is overwritten, too
        (version,) = run("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise FastlamError(
                f"The data directory {self._path.parent} was written by a newer fastlam (schema {version}, this one"
                f" knows {len(migrations)}): upgrade fastlam or choose another --data-dir."
            )
        for number in range(version, len(migrations)):
            run("BEGIN IMMEDIATE")
            try:
                migrations[number](self._connection)
                run(f"PRAGMA user_version={number + 1}")
                run("COMMIT")
            except BaseException:
                run("ROLLBACK")
                raise
        kinds = {kind.name: kind for kind in KINDS}
        rows = run("SELECT kind, account, region, name, part, body FROM record")
        for kind, account, region, name, part, body in rows:
            if kind not in kinds:
                raise FastlamError(f"The record database {self._path} holds records of an unknown kind: {kind!r}.")
            try:
                self._remember(kind, RecordKey(account, region, name, part), kinds[kind].decode(body))
            except msgspec.DecodeError as error:
                raise FastlamError(f"The {kind} record {name!r} in {self._path} cannot be read: {error}.") from None

    def _commit(self, writes: builtins.list[Write]) -> None:
        if not writes:
            return
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            for kind, key, record in writes:
                if record is None:
                    run(
                        "DELETE FROM record WHERE kind=? AND account=? AND region=? AND name=? AND part=?",
                        (kind.name, *key),
                    )
                else:
                    body = msgspec.json.encode(record)
                    run("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?)", (kind.name, *key, body))
            run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise

    def scrub(self) -> None:
        self._connection.execute("VACUUM")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._connection.close()
