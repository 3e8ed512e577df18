"""The durable queue: what it keeps, in which order it gives it back, and what it refuses."""

from __future__ import annotations

import os
import queue
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastlam.errors import FastlamError
from fastlam.store.queue import DELIVERIES, EVENTS, Entry, EventQueue, Item, MemoryQueue, QueueKey, queue_of
from fastlam.store.queue_sqlite import SqliteQueue
from small_disk import SmallDisk, small_disk
from waiting import WAIT_SECONDS

HELLO = QueueKey(EVENTS, "000000000000", "us-east-1", "hello")
OTHER = QueueKey(EVENTS, "000000000000", "us-east-1", "other")
DEAD = QueueKey(DELIVERIES, "000000000000", "us-east-1", "arn:aws:sqs:us-east-1:000000000000:dead")


class Owner:
    """The thread that owns a queue: this one, which does what is to be done when it is told to."""

    def __init__(self) -> None:
        self.todo: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.later: list[Callable[[], None]] = []

    def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.todo.get(timeout=WAIT_SECONDS)()

    def open(self, path: Path) -> SqliteQueue:
        return SqliteQueue(
            path,
            soon=self.todo.put,
            from_writer=self.todo.put,
            later=lambda seconds, callback: self.later.append(callback),
        )

    def tick(self) -> None:
        """The time that something waits for is over."""
        later, self.later = self.later, []
        for callback in later:
            callback()

    def append(self, kept: EventQueue, number: int, *payloads: bytes) -> list[int]:
        """Items, safe when this returns."""
        outcomes: list[Exception | None] = []
        numbers = [kept.append(number, b"head of " + payload, payload, outcomes.append) for payload in payloads]
        self.until(lambda: len(outcomes) == len(payloads))
        assert outcomes == [None] * len(payloads)
        return numbers

    def read(self, kept: EventQueue, number: int, after: int = 0, items: int = 100, size: int = 1 << 20) -> list[Item]:
        found: list[list[Item]] = []
        kept.read(number, after, items, size, found.append)
        self.until(lambda: found)
        return found[0]

    def fetch(self, kept: EventQueue, *numbers: int) -> list[Item]:
        found: list[list[Item]] = []
        kept.fetch(numbers, found.append)
        self.until(lambda: found)
        return found[0]


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture(params=["memory", "sqlite"])
def kept(request: pytest.FixtureRequest, owner: Owner, tmp_path: Path) -> Iterator[EventQueue]:
    found: EventQueue = MemoryQueue(owner.todo.put) if request.param == "memory" else owner.open(tmp_path / "queue")
    yield found
    found.close()


def payloads(items: list[Item]) -> list[bytes]:
    return [item.payload for item in items]


def test_each_queue_gives_back_its_own_in_order(owner: Owner, kept: EventQueue) -> None:
    hello, other = kept.queue(HELLO), kept.queue(OTHER)
    assert kept.queue(HELLO) == hello != other
    first = owner.append(kept, hello, b"1", b"2")
    owner.append(kept, other, b"x")
    owner.append(kept, hello, b"3")
    assert payloads(owner.read(kept, hello)) == [b"1", b"2", b"3"]
    assert [item.header for item in owner.read(kept, other)] == [b"head of x"]
    assert payloads(owner.read(kept, hello, after=first[0])) == [b"2", b"3"]
    assert payloads(owner.read(kept, hello, items=2)) == [b"1", b"2"]
    assert payloads(owner.read(kept, hello, size=1)) == [b"1"], "one in any case"
    assert {queue_of(item.number) for item in owner.read(kept, hello)} == {hello}


def test_what_waits_is_fetched_and_not_read(owner: Owner, kept: EventQueue) -> None:
    hello = kept.queue(HELLO)
    one, two, three = owner.append(kept, hello, b"1", b"2", b"3")
    kept.amend(two, 123, b"other words", lambda: None)
    assert payloads(owner.read(kept, hello)) == [b"1", b"3"]
    assert owner.fetch(kept, three, two) in (
        [Item(two, 123, b"other words", b"2"), Item(three, 0, b"head of 3", b"3")],
        [Item(three, 0, b"head of 3", b"3"), Item(two, 123, b"other words", b"2")],
    )
    kept.remove(one)
    kept.remove(two)
    assert owner.fetch(kept, one, two) == []
    assert payloads(owner.read(kept, hello)) == [b"3"]


def test_an_item_turns_into_others(owner: Owner, kept: EventQueue) -> None:
    hello, dead = kept.queue(HELLO), kept.queue(DEAD)
    (one,) = owner.append(kept, hello, b"1")
    turned: list[list[int]] = []
    kept.turn(one, [Entry(dead, b"a", b"record"), Entry(dead, b"b", b"event")], turned.append)
    owner.until(lambda: turned)
    assert [item[:1] + item[2:] for item in owner.read(kept, dead)] == [
        (turned[0][0], b"a", b"record"),
        (turned[0][1], b"b", b"event"),
    ]
    assert owner.read(kept, hello) == []


def test_what_is_safe_is_there_again(owner: Owner, tmp_path: Path) -> None:
    kept = owner.open(tmp_path / "queue")
    assert list(kept.backlogs()) == []
    hello = kept.queue(HELLO)
    one, two, three, four = owner.append(kept, hello, b"1", b"2", b"33", b"4")
    kept.remove(one)
    kept.amend(three, 1234, b"waits", lambda: None)
    kept.queue(OTHER)
    kept.close()
    again = owner.open(tmp_path / "queue")
    (backlog,) = again.backlogs()
    assert (backlog.queue, backlog.key, backlog.ready) == (hello, HELLO, 2)
    assert [tuple(one) for one in backlog.waiting] == [(three, 1234, b"waits", 2)]
    (five,) = owner.append(again, hello, b"5")
    assert five > four
    assert payloads(owner.read(again, hello)) == [b"2", b"4", b"5"]
    assert two < three
    assert again.queue(OTHER) != hello
    again.close()


def test_many_come_into_one_group(owner: Owner, tmp_path: Path) -> None:
    kept = owner.open(tmp_path / "queue")
    hello = kept.queue(HELLO)
    owner.append(kept, hello, *(b"%d" % number for number in range(1000)))
    assert kept.statistics()["groups"] == 1
    assert payloads(owner.read(kept, hello, items=2000)) == [b"%d" % number for number in range(1000)]
    kept.close()


def test_payloads_of_every_size(owner: Owner, tmp_path: Path) -> None:
    kept = owner.open(tmp_path / "queue")
    hello = kept.queue(HELLO)
    written = [os.urandom(size) for size in (0, 1, 4096, 1_048_576)]
    owner.append(kept, hello, *written)
    assert payloads(owner.read(kept, hello, size=1 << 24)) == written
    kept.close()


def test_close_writes_what_is_asked_for(owner: Owner, tmp_path: Path) -> None:
    kept = owner.open(tmp_path / "queue")
    hello = kept.queue(HELLO)
    (one,) = owner.append(kept, hello, b"1")
    kept.append(hello, b"", b"2", lambda error: None)
    kept.remove(one)
    kept.close()
    with sqlite3.connect(tmp_path / "queue") as connection:
        assert connection.execute("SELECT payload FROM item").fetchall() == [(b"2",)]
    connection.close()


def test_a_newer_queue_is_refused(owner: Owner, tmp_path: Path) -> None:
    owner.open(tmp_path / "queue").close()
    with sqlite3.connect(tmp_path / "queue") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(FastlamError, match="newer fastlam"):
        owner.open(tmp_path / "queue")
    (tmp_path / "no database").write_text("hello " * 1000)
    with pytest.raises(FastlamError, match="cannot be used"):
        owner.open(tmp_path / "no database")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "small", 2) as mounted:
        yield mounted


def test_a_full_disk_refuses_and_loses_nothing(owner: Owner, disk: SmallDisk, caplog: pytest.LogCaptureFixture) -> None:
    kept = owner.open(disk.path / "queue")
    hello = kept.queue(HELLO)
    (safe,) = owner.append(kept, hello, b"safe")
    disk.fill()
    outcomes: list[Exception | None] = []
    for _ in range(10):
        kept.append(hello, b"", os.urandom(300_000), outcomes.append)
    kept.remove(safe)
    owner.until(lambda: len(outcomes) == 10)
    assert all(isinstance(error, sqlite3.Error) for error in outcomes)
    assert kept.statistics()["refused"] == 10 and kept.statistics()["failure"]
    disk.make_room()
    owner.tick()
    (other,) = owner.append(kept, hello, b"other")
    assert [item.number for item in owner.read(kept, hello)] == [other], "the removal has been tried again"
    assert kept.statistics()["failure"] == ""
    kept.close()
    again = owner.open(disk.path / "queue")
    assert [backlog.ready for backlog in again.backlogs()] == [1]
    again.close()
    assert "cannot be written" in caplog.text
