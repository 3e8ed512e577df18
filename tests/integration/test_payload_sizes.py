"""Payloads of every size that a lane treats in a way of its own: inline in a ring, beside it, by the connection; both ways,
for functions and for tasks; one at a time and so many at once that there is no room.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError

import executor_tasks as tasks
from daemon_running import RunningDaemon
from fastlam import Executor, limits

pytestmark = pytest.mark.lanes

KIB: Final = 1024
MIB: Final = 1024 * 1024
INLINE: Final = 16 * KIB  # of a record, its head included
MOST: Final = limits.SYNC_PAYLOAD_BYTES_MAX
HEADS: Final = 200  # no record's head is longer
# All sizes around the place where a record ceases to lie in the ring: one of them is that place, whatever the head is.
AROUND_INLINE: Final = tuple(range(INLINE - HEADS, INLINE + 2))
AROUND_RINGS: Final = tuple(
    size + more
    for size in (limits.EXPRESS_RING_BYTES // 2, limits.EXPRESS_RING_BYTES, 2 * limits.EXPRESS_RING_BYTES, 4 * KIB)
    for more in (-HEADS, -9, -8, -1, 0, 1, 7, 8)
)
SIZES: Final = (2, 3, 7, 8, 9, 255, 256, *AROUND_RINGS, MIB, 5 * MIB)
CODE: Final = """
def handler(event, context):
    if isinstance(event, str):
        return [len(event), event[:1], event[-1:]]
    return event["fill"] * event["size"]

def mirror(event, context):
    return event
"""


@pytest.fixture(scope="module")
def function(daemon: RunningDaemon) -> str:
    return daemon.deploy("sizes", CODE, Timeout=60)


@pytest.fixture(scope="module")
def mirror(daemon: RunningDaemon) -> str:
    return daemon.deploy("mirror", CODE, handler="app.mirror", Timeout=60)


@pytest.fixture(scope="module")
def pool(lane_in_use: str) -> Iterator[Executor]:
    with Executor(1) as executor:
        yield executor


# --- functions ----------------------------------------------------------------------------------------


def there(daemon: RunningDaemon, name: str, size: int) -> None:
    """An event of so many bytes, quotes included."""
    event = b'"' + b"a" * (size - 3) + b'z"' if size > 2 else b'""'
    answer = daemon.send_invoke(name, event)
    assert (answer.status, answer.json) == (
        200,
        [size - 2, "a" if size > 3 else "z" if size > 2 else "", event[-2:-1].decode().strip('"')],
    )


def back(daemon: RunningDaemon, name: str, size: int) -> None:
    """A response of so many bytes, quotes included."""
    answer = daemon.send_invoke(name, json.dumps({"fill": "b", "size": size - 2}).encode())
    assert answer.status == 200
    assert answer.body == b'"' + b"b" * (size - 2) + b'"'


@pytest.mark.parametrize("direction", [there, back])
def test_sizes_of_functions(daemon: RunningDaemon, function: str, direction: Any) -> None:
    for size in (*SIZES, *AROUND_INLINE):
        direction(daemon, function, size)


def test_nothing_at_all(daemon: RunningDaemon, mirror: str) -> None:
    answer = daemon.send_invoke(mirror, b"")
    assert (answer.status, answer.body) == (200, b"{}")


def test_the_largest_event_and_the_first_that_is_refused(daemon: RunningDaemon, function: str) -> None:
    there(daemon, function, MOST)
    with pytest.raises(ClientError) as caught:
        daemon.invoke(function, b'"' + b"a" * (MOST - 1) + b'"')
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    there(daemon, function, MOST)


def test_the_largest_response_and_the_first_that_is_refused(daemon: RunningDaemon, function: str) -> None:
    back(daemon, function, MOST)
    back(daemon, function, limits.RESPONSE_BYTES_MAX)
    refused = daemon.invoke(function, {"fill": "b", "size": limits.RESPONSE_BYTES_MAX - 1})
    assert refused.json["errorType"] == "Function.ResponseSizeTooLarge"
    back(daemon, function, MOST)


def test_random_sizes_at_once(daemon: RunningDaemon, mirror: str, rng: random.Random) -> None:
    """Each comes back as it was sent, to whoever sent it."""
    calls = []
    with ThreadPoolExecutor(8) as callers:
        for _ in range(150):
            size = int(2 ** rng.uniform(0, 22))
            event = json.dumps(rng.randbytes(size // 2 + 1).hex()).encode()
            calls.append((event, callers.submit(daemon.send_invoke, mirror, event)))
        for event, call in calls:
            assert call.result().body == event


# --- tasks --------------------------------------------------------------------------------------------


def length(data: bytes) -> tuple[int, bytes, bytes]:
    return len(data), data[:5], data[-5:]


def filled(size: int, fill: bytes) -> bytes:
    return fill * size


def same(data: Any) -> Any:
    return data


@pytest.mark.parametrize("sizes", [(0, 1, *SIZES), AROUND_INLINE, (6 * MIB, 6 * MIB + 1, limits.EXPRESS_REGION_BYTES)])
def test_sizes_of_tasks(pool: Executor, sizes: tuple[int, ...]) -> None:
    for size in sizes:
        data = b"a" * size
        assert pool.submit(length, data).result() == length(data)
        assert pool.submit(filled, size, b"b").result() == b"b" * size


def test_sizes_around_a_region(pool: Executor) -> None:
    """What is longer goes by the connection."""
    for size in range(limits.EXPRESS_REGION_BYTES - 150, limits.EXPRESS_REGION_BYTES + 10, 7):
        data = b"a" * size
        assert pool.submit(length, data).result() == length(data)
        assert pool.submit(filled, size, b"b").result() == b"b" * size


def test_texts_around_the_plainest_ones(pool: Executor) -> None:
    for size in (*range(480, 560), *range(8100, 8220), *AROUND_INLINE[:-1:3]):
        text = "x" * size
        assert pool.submit(same, text).result() == text


def test_fifty_megabytes_among_others(pool: Executor) -> None:
    """What is said after them comes after them."""
    large = random.Random(1).randbytes(50 * MIB)
    futures = []
    for number in range(6):
        futures.append((number, pool.submit(same, number)))
        if number % 2:
            futures.append((large, pool.submit(same, large)))
    for value, future in futures:
        assert future.result() == value


def test_many_large_tasks_in_flight() -> None:
    """Rings and regions are full in both directions."""
    with Executor(2) as pool:
        window: list[tuple[int, Future[bytes]]] = []
        for number in range(200):
            if len(window) == 64:
                expected, future = window.pop(0)
                assert future.result() == bytes([expected]) * MIB
            window.append((number, pool.submit(same, bytes([number]) * MIB)))
        for expected, future in window:
            assert future.result() == bytes([expected]) * MIB


def test_random_sizes_in_flight(pool: Executor, rng: random.Random) -> None:
    window: list[tuple[Any, Future[Any]]] = []
    for _ in range(1500):
        if len(window) == rng.choice((64, 64, 1)):
            expected, future = window.pop(0)
            assert future.result() == expected
        kind = rng.random()
        value: Any = rng.randrange(-(2**40), 2**40)
        if kind < 0.5:
            value = rng.randbytes(int(2 ** rng.uniform(0, 15)))
        elif kind < 0.6:
            value = rng.randbytes(int(2 ** rng.uniform(14, 23)))
        elif kind < 0.7:
            value = "ä" * rng.randrange(2000)
        window.append((value, pool.submit(same, value)))
    for expected, future in window:
        assert future.result() == expected


def test_a_worker_of_large_tasks_that_dies(rng: random.Random) -> None:
    """What had not begun runs elsewhere; nothing is mixed up."""
    from concurrent.futures.process import BrokenProcessPool

    with Executor(2) as pool:
        futures = [pool.submit(same, bytes([number]) * (MIB // 2)) for number in range(30)]
        futures.insert(rng.randrange(30), pool.submit(tasks.kill_self))
        done = lost = 0
        for future in futures:
            try:
                result = future.result()
                assert result == result[:1] * (MIB // 2)
                done += 1
            except BrokenProcessPool:
                lost += 1
        assert (done + lost, lost >= 1) == (31, True)
