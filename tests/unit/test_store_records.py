"""The record stores: one contract, held against both; what only the durable one does; the lock of the data
directory.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fastlam.errors import FastlamError
from fastlam.model.concurrency import ReservedConcurrencyRecord
from fastlam.model.function import FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.store.directory import DataDirectory
from fastlam.store.memory import MemoryStore
from fastlam.store.records import ALIAS, FUNCTION, RESERVED_CONCURRENCY, VERSION, Change, RecordStore, Write
from fastlam.store.sqlite import FILE_NAME, MIGRATIONS, SqliteStore
from old_database import write_old_database


def function(
    name: str = "hello", account: str = "000000000000", region: str = "us-east-1", **more: object
) -> FunctionRecord:
    fields: dict[str, object] = {
        "account": account,
        "region": region,
        "name": name,
        "runtime": "python3.11",
        "handler": "app.handler",
        "role": "arn:aws:iam::000000000000:role/r",
        "code_sha256": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "code_bytes": 10,
        "revision_id": "r1",
        "last_modified": "2026-01-01T00:00:00.000+0000",
    }
    return FunctionRecord(**{**fields, **more})  # type: ignore[arg-type]


def reserved(name: str = "hello", concurrency: int = 5) -> ReservedConcurrencyRecord:
    return ReservedConcurrencyRecord(account="000000000000", region="us-east-1", name=name, concurrency=concurrency)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RecordStore]:
    opened: RecordStore = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / FILE_NAME)
    yield opened
    opened.close()


# Both --------------------------------------------------------------------------------------------


def test_put_get_delete(store: RecordStore) -> None:
    record = function()
    assert store.get(FUNCTION, record.key) is None
    store.put(FUNCTION, record)
    assert store.get(FUNCTION, record.key) == record
    changed = replace(record, memory_mb=256)
    store.put(FUNCTION, changed)
    assert store.get(FUNCTION, record.key) == changed
    assert store.delete(FUNCTION, record.key)
    assert not store.delete(FUNCTION, record.key)
    assert store.get(FUNCTION, record.key) is None


def test_kinds_and_owners_are_apart(store: RecordStore) -> None:
    for name in ("b", "a", "C"):
        store.put(FUNCTION, function(name))
    store.put(FUNCTION, function("a", account="111111111111"))
    store.put(FUNCTION, function("a", region="eu-west-1"))
    store.put(RESERVED_CONCURRENCY, reserved("a"))
    assert [record.name for record in store.list(FUNCTION, "000000000000", "us-east-1")] == ["C", "a", "b"]
    assert len(store.all(FUNCTION)) == 5
    assert store.list(RESERVED_CONCURRENCY, "000000000000", "us-east-1") == [reserved("a")]
    assert store.list(FUNCTION, "222222222222", "us-east-1") == []
    store.clear()
    assert store.all(FUNCTION) == []
    assert store.all(RESERVED_CONCURRENCY) == []


def test_watchers_hear_of_committed_changes_in_order(store: RecordStore) -> None:
    heard: list[Change] = []
    stop = store.watch(heard.append)
    one, two = function("one"), function("two")
    store.put(FUNCTION, one)
    store.apply(
        [Write(FUNCTION, two.key, two), Write(RESERVED_CONCURRENCY, one.key, None), Write(FUNCTION, one.key, None)]
    )
    store.delete(FUNCTION, one.key)
    assert heard == [
        Change(FUNCTION, one.key, one, None),
        Change(FUNCTION, two.key, two, None),
        Change(FUNCTION, one.key, None, one),
    ]
    store.clear()
    assert heard[3:] == [Change(FUNCTION, two.key, None, two)]
    stop()
    store.put(FUNCTION, one)
    assert len(heard) == 4


def test_a_watcher_that_changes_records(store: RecordStore) -> None:
    heard: list[tuple[str, str]] = []
    other = function("other")

    def react(change: Change) -> None:
        if change.key.name == "hello":
            store.put(FUNCTION, other)
        heard.append(("first", change.key.name))

    store.watch(react)
    store.watch(lambda change: heard.append(("second", change.key.name)))
    store.put(FUNCTION, function("hello"))
    assert heard == [("first", "hello"), ("second", "hello"), ("first", "other"), ("second", "other")]


def test_a_watcher_that_fails_fails_alone(store: RecordStore, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Change] = []

    def fail(change: Change) -> None:
        raise RuntimeError("no")

    store.watch(fail)
    store.watch(heard.append)
    store.put(FUNCTION, function())
    assert len(heard) == 1
    assert store.get(FUNCTION, function().key) is not None
    assert "a watcher failed on function" in caplog.text


# The durable one ---------------------------------------------------------------------------------

text = st.text(st.characters(codec="utf-8"), max_size=20)


@given(
    record=st.builds(
        function,
        description=text,
        environment=st.none() | st.dictionaries(text, text, max_size=3),
        tags=st.dictionaries(text, text, max_size=3),
        timeout_seconds=st.integers(1, 900),
        state=st.sampled_from(["Pending", "Active"]),
        last_update_status=st.none() | st.sampled_from(["InProgress", "Successful"]),
        architectures=st.sampled_from([("arm64",), ("x86_64",)]),
    )
)
def test_records_come_back_as_they_were(record: FunctionRecord, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("store") / FILE_NAME
    store = SqliteStore(path)
    store.put(FUNCTION, record)
    store.close()
    again = SqliteStore(path)
    assert again.get(FUNCTION, record.key) == record
    again.close()


def test_nothing_of_a_write_that_failed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / FILE_NAME)
    record = function()
    store.put(FUNCTION, record)
    heard: list[Change] = []
    store.watch(heard.append)
    bad = RecordKey("000000000000", "us-east-1", None)  # type: ignore[arg-type]
    with pytest.raises(sqlite3.IntegrityError):
        store.apply([Write(FUNCTION, record.key, None), Write(FUNCTION, bad, record)])
    assert store.get(FUNCTION, record.key) == record
    assert heard == []
    store.delete(FUNCTION, record.key)
    store.close()
    again = SqliteStore(tmp_path / FILE_NAME)
    assert again.all(FUNCTION) == []
    again.close()


def test_older_databases_are_migrated(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    store = SqliteStore(path)
    store.put(FUNCTION, function())
    store.close()

    def describe(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE record SET body = json_set(body, '$.description', 'migrated')")

    later = [*MIGRATIONS, describe]
    for _ in range(2):  # the second time it is already done
        store = SqliteStore(path, later)
        record = store.get(FUNCTION, function().key)
        assert record is not None
        assert record.description == "migrated"
        store.put(FUNCTION, record)
        store.close()


def test_the_first_schema_is_read(tmp_path: Path) -> None:
    """Its keys had no parts. What is written then can be told apart by them."""
    path = tmp_path / FILE_NAME
    old = [function("a"), function("b", environment={"K": "v"}), function("a", account="111111111111")]
    write_old_database(path, old)
    for _ in range(2):  # the second time it is of today's schema
        store = SqliteStore(path)
        assert sorted(store.all(FUNCTION), key=lambda record: record.key) == sorted(old, key=lambda record: record.key)
        assert all(record.key.part == "" for record in store.all(FUNCTION))
        store.put(VERSION, function("a", version="1"))
        assert store.parts(FUNCTION, old[0].key) == [old[0]]
        assert store.parts(VERSION, old[0].key) == [function("a", version="1")]
        store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")] == ["record"]
    connection.close()


def test_a_migration_that_is_interrupted_is_done_by_the_next(tmp_path: Path) -> None:
    """Whatever statement it dies at: each step is one transaction."""
    for stop in range(1, 8):
        path = tmp_path / f"{stop}.sqlite"
        write_old_database(path, [function()])
        program = (
            "import os, sqlite3, sys; from pathlib import Path; from fastlam.store import sqlite\n"
            "left = [int(sys.argv[2])]\n"
            "class Dying(sqlite3.Connection):\n"
            "    def execute(self, *arguments):\n"
            "        if not arguments[0].startswith('PRAGMA'):\n"
            "            left[0] -= 1\n"
            "        if left[0] == 0: os.kill(os.getpid(), 9)\n"
            "        return super().execute(*arguments)\n"
            "connect = sqlite3.connect\n"
            "sqlite3.connect = lambda *arguments, **more: connect(*arguments, **more, factory=Dying)\n"
            "sqlite.SqliteStore(Path(sys.argv[1])).close()\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        ended = subprocess.run([sys.executable, "-c", program, str(path), str(stop)], check=False, env=environment)
        assert ended.returncode == -signal.SIGKILL
        store = SqliteStore(path)
        assert store.all(FUNCTION) == [function()]
        store.close()


def test_nothing_is_left_of_what_was_scrubbed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / FILE_NAME)
    for number in range(50):
        store.put(FUNCTION, function(f"f{number}", description="the first secret " * 100))
    for number in range(50):
        store.put(FUNCTION, function(f"f{number}"))
    store.put(FUNCTION, function("f0", description="the second secret"))
    store.delete(FUNCTION, function("f0").key)
    store.scrub()
    for path in tmp_path.iterdir():
        assert b"secret" not in path.read_bytes()
    assert len(store.all(FUNCTION)) == 49
    store.close()


def test_parts_of_an_owner(store: RecordStore) -> None:
    """They come sorted, without those of names that begin alike, and go one by one."""
    for name in ("hello", "hello2", "hell"):
        store.put(FUNCTION, function(name))
        for version in ("1", "10", "2"):
            store.put(VERSION, function(name, version=version))
    owner = function().key
    assert [record.version for record in store.parts(VERSION, owner)] == ["1", "10", "2"]
    assert [record.name for record in store.parts(VERSION, owner._replace(part="2"))] == ["hello"] * 3
    assert store.parts(FUNCTION, owner) == [function()]
    assert store.get(VERSION, owner) is None
    store.delete(VERSION, owner._replace(part="10"))
    assert [record.version for record in store.parts(VERSION, owner)] == ["1", "2"]
    assert store.parts(ALIAS, owner) == []
    store.clear()
    assert store.parts(VERSION, owner) == []


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    store = SqliteStore(path)
    store.put(FUNCTION, function())
    store.close()

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM record")
        connection.execute("SELECT nonsense")

    with pytest.raises(FastlamError, match=r"cannot be used: no such column: nonsense"):
        SqliteStore(path, [*MIGRATIONS, fail])
    store = SqliteStore(path)
    assert store.all(FUNCTION) == [function()]
    store.close()


def test_newer_databases_are_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    SqliteStore(path, [*MIGRATIONS, lambda connection: None]).close()
    known = len(MIGRATIONS)
    message = rf"was written by a newer fastlam \(schema {known + 1}, this one knows {known}\): upgrade fastlam"
    with pytest.raises(FastlamError, match=message):
        SqliteStore(path)


@pytest.mark.parametrize(
    "content", [b"this is no database, it is a text of some length" * 100, b"SQLite format 3\0" + b"\xff" * 500]
)
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(FastlamError, match=r"cannot be used: file is not a database"):
        SqliteStore(tmp_path / FILE_NAME)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE record SET body = '{}'", r"The function record 'hello' in .* cannot be read: .*required field"),
        ("UPDATE record SET kind = 'shape'", r"holds records of an unknown kind: 'shape'"),
    ],
)
def test_records_that_cannot_be_read(tmp_path: Path, statement: str, message: str) -> None:
    path = tmp_path / FILE_NAME
    store = SqliteStore(path)
    store.put(FUNCTION, function())
    store.close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(FastlamError, match=message):
        SqliteStore(path)


WRITER = """
import sys
from pathlib import Path
from msgspec.structs import replace
from fastlam.store.directory import DataDirectory
from fastlam.store.records import FUNCTION, RESERVED_CONCURRENCY, Write
from fastlam.store.sqlite import SqliteStore, FILE_NAME
sys.path.insert(0, sys.argv[2])
from test_store_records import function, reserved
path = Path(sys.argv[1])
directory = DataDirectory(path)
store = SqliteStore(path / FILE_NAME)
for number in range(1_000_000):
    name = f"f{number % 50}"
    store.apply([
        Write(FUNCTION, function(name).key, function(name, code_bytes=number)),
        Write(RESERVED_CONCURRENCY, reserved(name).key, reserved(name, number)),
    ])
    print(number, flush=True)
"""


def test_a_killed_process_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    acknowledged = -1
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert writer.stdout is not None
        with writer.stdout:
            for _ in range(200):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout:  # what it managed to say before it died
                if line.endswith(b"\n"):
                    acknowledged = int(line)
        writer.wait()
        with DataDirectory(tmp_path):
            store = SqliteStore(tmp_path / FILE_NAME)
            functions = {record.name: record.code_bytes for record in store.all(FUNCTION)}
            assert max(functions.values()) >= acknowledged
            assert functions == {record.name: record.concurrency for record in store.all(RESERVED_CONCURRENCY)}
            store.clear()
            store.close()


# The data directory ------------------------------------------------------------------------------


def test_one_process_owns_the_data_directory(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "new" / "data"):
        message = rf"is in use by another fastlam \(pid {os.getpid()}\): stop it, or choose another --data-dir\."
        with pytest.raises(FastlamError, match=message):
            DataDirectory(tmp_path / "new" / "data")
    DataDirectory(tmp_path / "new" / "data").close()


def test_a_data_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    opener: Callable[[Path], DataDirectory] = DataDirectory
    with pytest.raises(FastlamError, match=r"cannot be used: (File exists|Not a directory)\."):
        opener(tmp_path / "file")
