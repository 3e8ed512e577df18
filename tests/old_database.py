"""A record database as the first version of its schema had it: keys without parts, variables in the clear."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

from fastlam.model.function import FunctionRecord


def write_old_database(path: Path, functions: Iterable[FunctionRecord], *, deleted: str = "") -> None:
    """Schema 1 with these functions, of which one was deleted again."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA secure_delete=OFF")
    connection.execute(
        "CREATE TABLE record (kind TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,"
        " body BLOB NOT NULL, PRIMARY KEY (kind, account, region, name)) WITHOUT ROWID"
    )
    connection.execute("PRAGMA user_version=1")
    for record in functions:
        row = ("function", record.account, record.region, record.name, msgspec.json.encode(record))
        connection.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?)", row)
    connection.execute("DELETE FROM record WHERE name = ?", (deleted,))
    connection.close()
