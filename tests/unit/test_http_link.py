"""What a front process says is checked: a link believes no number, no length and no head that it has not looked at."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from typing import Any, Final

import pytest

from fastlam.http.link import Link, Links, Tally
from fastlam.http.server import HttpServer, Request
from played_rings import Rings

RING_BYTES: Final = 1 << 20
READY, HEAD, REQUEST, LONE, GONE, HELD, ANSWERED, UNREAD, UNSENT, MOVED, RETURNED, REFUSED, DRAINED = range(1, 14)
ORDER_ANSWER, ORDER_RECALL, ORDER_DRAIN = 32, 33, 34
GET: Final = b"GET /a HTTP/1.1\r\n\r\n"
POST: Final = b"POST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\n"


def record(kind: int, number: int = 0, request_id: int = 0, rest: bytes = b"") -> bytes:
    return struct.pack("<IIQ", kind, number, request_id) + rest


class Played:
    """A link, its owner, and the process at the other end."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.broken: list[BaseException] = []
        self.events: list[str] = []
        server = HttpServer(self.seen.append, body_bytes_max=1000)
        self.tally = Tally(2)
        memory = os.memfd_create("played", os.MFD_ALLOW_SEALING)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK)
        self.dispatcher_bell = os.eventfd(0, os.EFD_NONBLOCK)
        self.link = Link(Links(server), self, self.tally, 1, memory, self.bell)
        self.rings = Rings(memory, self.dispatcher_bell, RING_BYTES)

    def on_ready(self) -> None:
        self.events.append("ready")

    def on_drained(self) -> None:
        self.events.append("drained")

    def on_broken(self, error: BaseException) -> None:
        self.broken.append(error)

    def received_socket(self) -> int:
        return -1

    def hear_soon(self) -> None:
        self.events.append("soon")

    def say(self, *records: bytes) -> None:
        for one in records:
            assert self.rings.put(one)
        self.link.hear()

    def close(self) -> None:
        self.rings.memory.close()
        for fd in (self.rings.fd, self.bell, self.dispatcher_bell):
            os.close(fd)
        self.tally.close()


@pytest.fixture
def played() -> Iterator[Played]:
    one = Played()
    yield one
    one.close()


def test_requests_and_their_answers(played: Played) -> None:
    played.say(record(READY), record(LONE, len(GET), 7 << 24, GET), record(HEAD, 5, rest=POST))
    played.say(record(REQUEST, 5, 8 << 24 | 1, b"abc"))
    first, second = played.seen
    assert (first.method, first.target, first.body, first.repeated) == (b"GET", b"/a", b"", False)
    assert (second.method, second.target, second.body, second.repeated) == (b"POST", b"/b", b"abc", True)
    assert second.headers == [(b"content-length", b"3")]
    assert played.link.in_work == 2
    second.respond(200, b"X: y\r\n", b"body")
    answer = played.rings.take()
    assert answer is not None
    assert answer[:16] == record(ORDER_ANSWER, 0, 8 << 24 | 1)
    assert answer[16:].startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"X: y\r\n\r\nbody")
    played.say(record(GONE, 0, 7 << 24))
    assert first.closed
    first.respond(200, b"", b"nobody hears it")
    assert played.rings.take() is None
    assert played.link.in_work == 0
    assert (played.events, played.broken) == (["ready"], [])


def test_a_place_is_used_again_and_an_old_id_is_nobodys(played: Played) -> None:
    played.say(record(LONE, len(GET), 1 << 24, GET))
    played.seen[0].respond(200, b"", b"")
    played.say(record(LONE, len(GET), 2 << 24, GET), record(GONE, 0, 1 << 24))
    assert not played.seen[1].closed
    assert played.link.in_work == 1


def test_a_long_answer_calls_for_the_connection(played: Played) -> None:
    played.say(record(LONE, len(GET), 1 << 24, GET))
    played.seen[0].respond(200, b"", b"x" * 300_000)
    assert played.rings.take() == record(ORDER_RECALL, 0, 1 << 24)
    assert played.seen[0].answered
    with pytest.raises(RuntimeError, match="already"):
        played.seen[0].respond(200, b"", b"")
    played.say(record(GONE, 0, 1 << 24))
    assert played.seen[0].closed


def test_answers_wait_for_room(played: Played) -> None:
    """More answers than the ring holds while the process does not read."""
    count = 40
    played.say(*[record(LONE, len(GET), (1 << 24) | number, GET) for number in range(count)])
    for number, request in enumerate(played.seen):
        request.respond(200, b"", bytes([number]) * 100_000)
    numbers = []
    while (answer := played.rings.take()) is not None:
        numbers.append(answer[-1])
        played.link.hear()
    assert numbers == list(range(count))


def test_a_process_that_ends_has_lost_its_clients(played: Played) -> None:
    played.say(record(LONE, len(GET), 1 << 24, GET))
    assert played.rings.put(record(LONE, len(GET), 2 << 24 | 1, GET))  # told, and not heard yet
    played.link.end()
    assert [request.closed for request in played.seen] == [True, True]
    for request in played.seen:
        request.respond(200, b"", b"")
    assert played.rings.take() is None


BROKEN: Final = {
    "nothing": b"",
    "half a record": b"\x01\0\0\0",
    "a kind that there is not": record(77),
    "a kind of ours": record(ORDER_DRAIN),
    "a request without a head": record(REQUEST, 9, 1 << 24),
    "a request whose head has an impossible number": record(REQUEST, 1 << 31, 1 << 24),
    "a request with another length": record(REQUEST, 3, 1 << 24 | 1, b"abcd"),
    "a request in another's place": record(LONE, len(GET), 2 << 24, GET),
    "a request out of turn": record(LONE, len(GET), 2 << 24 | 2, GET),
    "a request far out of turn": record(LONE, len(GET), (1 << 64) - 1, GET),
    "a head that is longer than the record": record(LONE, len(GET) + 1, 1 << 24 | 1, GET),
    "a head that is no head": record(LONE, 5, 1 << 24 | 1, b"GET /"),
    "a head that is not plain": record(HEAD, 4, rest=b"GET /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "two heads": record(HEAD, 4, rest=GET + GET),
    "a head without a number": record(HEAD, 0, rest=GET),
    "a head with an impossible number": record(HEAD, 1024, rest=GET),
    "a body that is too short": record(LONE, len(POST), 1 << 24 | 1, POST + b"ab"),
    "a connection without its socket": record(MOVED, 0, 0, bytes(24)),
    "a connection without its counts": record(MOVED, 0, 0, bytes(16)),
    "a refused one without its socket": record(REFUSED),
    "too much to read": record(UNREAD, rest=bytes((1 << 18) + 1)),
}


@pytest.mark.parametrize("bad", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_impossible_ends_the_process(played: Played, bad: bytes) -> None:
    played.say(record(HEAD, 3, rest=POST), record(LONE, len(GET), 1 << 24, GET))
    assert played.broken == []
    played.say(bad)
    assert len(played.broken) == 1 and len(played.seen) == 1
    played.say(record(LONE, len(GET), 3 << 24 | 1, GET))
    assert len(played.broken) == len(played.seen) == 1  # it is not heard any more
    played.link.end()
    assert played.seen[0].closed


def test_endless_parts_of_a_connection(played: Played) -> None:
    while not played.broken:
        played.say(record(UNSENT, rest=b"x"))
        assert played.rings.written < RING_BYTES


def test_anything_at_all(rng: random.Random) -> None:
    """Records of random kinds and numbers: heard or refused, and nothing else."""
    for _ in range(300):
        played = Played()
        while not played.broken and played.rings.written < RING_BYTES // 2:
            rest: Any = rng.choice((b"", GET, POST, POST + b"abc", rng.randbytes(rng.randrange(64))))
            number = rng.choice((0, 1, 3, len(GET), len(POST), rng.randrange(1 << 32)))
            place = rng.choice((0, 1, 2, played.link.in_work, rng.randrange(1 << 64)))
            played.say(record(rng.randrange(16), number, rng.choice((place, 1 << 24 | place & 0xFF)), rest))
        played.link.end()
        assert all(request.closed for request in played.seen)
        played.close()
