"""Function.stream: responses in pieces inside a Python program."""

from __future__ import annotations

import gc
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import streaming_handlers as handlers
from fastlam import Runtime
from fastlam.embed.function import FunctionError, Throttled
from waiting import WAIT_SECONDS, await_that

pytestmark = pytest.mark.lanes


@pytest.fixture(scope="module")
def runtime(lane_in_use: str) -> Iterator[Runtime]:
    with Runtime(inline=False) as runtime:
        yield runtime


@pytest.fixture(params=["environment", "inline"])
def either(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """The same calls must give the same pieces in both."""
    with Runtime(inline=request.param == "inline") as runtime:
        yield runtime


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A path for a handler to wait at, and the descriptor whose bytes let it go on."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    yield str(path), descriptor
    os.close(descriptor)


def function(runtime: Runtime, handler: Any, timeout: int = 60, **more: Any) -> Any:
    return runtime.function(handler.__name__, handler, timeout=timeout, **more)


def states(runtime: Runtime, name: str) -> list[str]:
    return [row["state"] for row in runtime._engine.dispatcher.snapshot() if row["name"] == f"{name}:$LATEST"]


@pytest.mark.parametrize("handler", [handlers.count, handlers.count_asynchronously, handlers.write])
@pytest.mark.parametrize("count", [0, 1, 100])
def test_pieces(either: Runtime, handler: Any, count: int) -> None:
    if handler is handlers.write and count == 0:
        return  # which uses no stream
    counting = function(either, handler)
    stream = counting.stream({"count": count})
    assert list(stream) == [b"%d " % number for number in range(count)]
    assert stream.result.function_error is None
    assert stream.result.duration_ms > 0
    assert list(stream) == []
    assert counting.invoke({"count": count}).raw == b"".join(b"%d " % number for number in range(count))


def test_a_piece_is_there_while_the_function_runs(runtime: Runtime, pipe: tuple[str, int]) -> None:
    path, release = pipe
    stream = function(runtime, handlers.count).stream({"count": 20, "pipe": path})
    for number in range(20):
        assert next(stream) == b"%d " % number
        os.write(release, b"x")
    assert list(stream) == []


def test_a_plain_result_is_one_piece(either: Runtime) -> None:
    plain = function(either, handlers.plain)
    stream = plain.stream({"a": [1]})
    assert [json.loads(piece) for piece in stream] == [{"a": [1]}]
    assert stream.result.payload == {"a": [1]}
    assert list(plain.stream("nothing")) == []


@pytest.mark.parametrize(
    ("handler", "event", "pieces", "error_type"),
    [
        (handlers.half, None, [b"half"], "LookupError"),
        (handlers.early, None, [], "LookupError"),
        (handlers.wrong, 5, [], "Runtime.MarshalError"),
        (handlers.plain, "raise", [], "LookupError"),
    ],
)
def test_a_failure_comes_after_the_pieces(
    either: Runtime, handler: Any, event: Any, pieces: list[bytes], error_type: str
) -> None:
    failing = function(either, handler)
    stream = failing.stream(event)
    got: list[bytes] = []
    with pytest.raises(FunctionError) as caught:
        got.extend(stream)
    assert got == pieces
    assert caught.value.payload["errorType"] == stream.result.error_type == error_type
    assert list(stream) == []
    assert failing.invoke(event).error_type == error_type
    whole, streamed = failing.invoke(event).payload, caught.value.payload
    assert streamed | {"requestId": ""} == whole | {"requestId": ""}


def test_a_process_that_ends_in_the_middle(runtime: Runtime) -> None:
    stream = function(runtime, handlers.half).stream("exit")
    assert next(stream) == b"half"
    with pytest.raises(FunctionError, match="exit status 3"):
        next(stream)


def test_over_a_limit_nothing_runs(runtime: Runtime) -> None:
    with pytest.raises(Throttled):
        next(function(runtime, handlers.flood, reserved=0).stream({"pieces": 1}))


def test_a_function_waits_for_a_program_that_takes_nothing(runtime: Runtime) -> None:
    """Until its time is over; had it not waited, it would have come to its end long before. What is under way then depends
    on how soon the program was told to stop reading.
    """
    stream = function(runtime, handlers.flood, timeout=2).stream({"pieces": 3000})
    invocation = stream._invocation
    await_that(lambda: invocation.done)
    pieces: list[bytes] = []
    with pytest.raises(FunctionError, match="timed out"):
        pieces.extend(stream)
    assert 0 < len(pieces) < 300


def test_everything_arrives_however_slowly_it_is_taken(runtime: Runtime) -> None:
    stream = function(runtime, handlers.flood).stream({"pieces": 500})
    taken = 0
    for piece in stream:
        taken += len(piece)
        if taken % 4_000_000 < 65536:
            runtime._engine.dispatcher.wait(stream._invocation, 0.01)  # others drive meanwhile, and fill what they may
    assert taken == 500 * 65536


@pytest.mark.parametrize("how", ["closed", "let go of", "let go of unread"])
def test_a_stream_that_nobody_wants_any_more(runtime: Runtime, tmp_path: Path, how: str) -> None:
    """The function runs to its end, and its environment is used again."""
    flood, said = function(runtime, handlers.flood), tmp_path / "said"
    stream = flood.stream({"pieces": 1000, "file": str(said)})
    if how != "let go of unread":
        next(stream)
    if how == "closed":
        stream.close()
        assert list(stream) == []
    del stream
    gc.collect()
    await_that(said.exists)
    await_that(lambda: states(runtime, "flood") == ["idle"])
    assert sum(map(len, flood.stream({"pieces": 3}))) == 3 * 65536


def test_streams_in_several_threads(runtime: Runtime) -> None:
    """One of them drives for all."""
    flood, counting = function(runtime, handlers.flood), function(runtime, handlers.count)
    found: dict[int, int] = {}

    def take(index: int) -> None:
        for _ in range(5):
            if index % 2:
                found[index] = sum(map(len, flood.stream({"pieces": 100 + index})))
            else:
                found[index] = len(list(counting.stream({"count": 100 + index})))

    threads = [threading.Thread(target=take, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert found == {index: (100 + index) * (65536 if index % 2 else 1) for index in range(8)}


def test_a_program_that_ends_with_a_stream_open() -> None:
    runtime = Runtime(inline=False)
    stream = function(runtime, handlers.flood).stream({"pieces": 3000})
    assert len(next(stream)) == 65536
    runtime.close()
    with pytest.raises(Exception, match="killed|closed"):
        for _ in stream:
            pass


def test_a_function_within_a_function_has_its_own_stream() -> None:
    with Runtime(inline=True) as runtime:
        handlers.inner = runtime.function("inner", handlers.count)
        try:
            assert b"".join(function(runtime, handlers.write_from_within).stream()) == b"before 0 1 after"
        finally:
            handlers.inner = None
