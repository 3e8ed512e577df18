"""Frames: what they look like on the wire, and which of them a dispatcher takes from an environment in which state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from fastlam import limits
from fastlam.core.dispatcher import OUTCOME_FUNCTION_ERROR
from fastlam.wire import frames
from lane_bench import LaneBench, encoded

EXAMPLES: list[tuple[frames.Frame, list[Any]]] = [
    (frames.Invoke(0, "id", 1, "arn"), [1, 0, "id", 1, "arn", None, None, None, None]),
    (frames.Task(3), [2, 3]),
    (frames.Stop(), [3]),
    (frames.Ready(1, 2, 3, 4), [16, 1, 2, 3, 4]),
    (frames.InitFailed(1, 2, 3, 4, "kind"), [17, 1, 2, 3, 4, "kind"]),
    (frames.Result(0, 1, 2, 3, 4), [18, 0, 1, 2, 3, 4, "", ""]),
    (frames.TaskResult(5, 6, True), [19, 5, 6, True]),
]
FROM = msgspec.msgpack.Decoder(frames.FromEnvironment)


@pytest.mark.parametrize(("frame", "fields"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_a_frame_is_an_array_that_begins_with_its_tag(frame: frames.Frame, fields: list[Any]) -> None:
    """The protocol's numbers: changing one is a new PROTOCOL_VERSION."""
    data = msgspec.msgpack.encode(frame)
    assert msgspec.msgpack.decode(data) == fields
    both = frames.ToEnvironment | frames.FromEnvironment
    assert msgspec.msgpack.decode(data, type=both) == frame


def test_no_number_exceeds_what_the_dispatcher_can_reckon_with() -> None:
    for name in ("slot", "duration_ns", "cpu_ns", "memory_peak_kib", "log_end_bytes"):
        for value in (-1, (1 << 53) + 1, 1 << 63, (1 << 64) - 1, -(1 << 63)):
            bad = msgspec.structs.replace(frames.Result(0, 1, 2, 3, 4), **{name: value})
            with pytest.raises(msgspec.ValidationError):
                FROM.decode(msgspec.msgpack.encode(bad))
        fine = msgspec.structs.replace(frames.Result(0, 1, 2, 3, 4), **{name: 1 << 53})
        assert FROM.decode(msgspec.msgpack.encode(fine)) == fine


@pytest.fixture(params=[True, False], ids=["libzmq", "pyzmq"])
def bench(request: pytest.FixtureRequest) -> Iterator[LaneBench]:
    made = LaneBench(native=request.param)
    yield made
    made.close()


def test_a_call_on_its_way(bench: LaneBench) -> None:
    call = bench.submit(bench.function(), b'{"n": 1}')
    (identifier,) = bench.peers
    bench.ready(identifier)
    frame, payload = bench.received(identifier)
    assert isinstance(frame, frames.Invoke)
    assert (frame.slot, frame.request_id, payload) == (0, call.request_id, b'{"n": 1}')
    assert call.running
    assert call.environment_id == identifier


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"abc",
        b"\xff" * 20,
        encoded(b""),
        encoded(b"\xc1"),
        encoded(b"\x91" * 5000),
        encoded(msgspec.msgpack.encode([18, 0, 1, 1, 1, 0, "AB", ""]).replace(b"AB", b"\xff\xfe")),
        encoded(frames.Stop()),
        encoded(frames.Result(1, 1, 1, 1, 0)),
        encoded(frames.Result(0, 1, 1, 1, 0), b'"forged"'),
        encoded(frames.TaskResult(0, 1, False)),
        encoded(frames.Ready(frames.PROTOCOL_VERSION, 1, 1, 0)),
        encoded(frames.Ready(99, 1, 1, 0)),
        encoded(frames.InitFailed(frames.PROTOCOL_VERSION, 1, 1, 0, "kind")),
        bytes(4) + bytes(limits.FRAME_HEADER_BYTES_MAX + 1),
    ],
)
def test_a_frame_out_of_place_ends_this_environment_only(bench: LaneBench, message: bytes) -> None:
    call, other = bench.submit(bench.function("bad")), bench.submit(bench.function("good"))
    bad, good = bench.peers
    for identifier in (bad, good):
        bench.ready(identifier)
        bench.received(identifier)
    bench.peers[bad].send(message)
    assert bench.drive_until(lambda: call.done)
    assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")
    assert "broke the protocol" in call.error
    assert bad not in bench.environments
    assert good in bench.environments
    assert not other.done
    assert bench.dispatcher.statistics()["bad_frames"] == 1


def test_several_parts_are_no_frame(bench: LaneBench) -> None:
    call = bench.submit(bench.function())
    (identifier,) = bench.peers
    bench.ready(identifier)
    bench.received(identifier)
    bench.peers[identifier].send_multipart([encoded(frames.Stop()), b"more"])
    assert bench.drive_until(lambda: call.done)
    assert call.error_type == "Runtime.ExitError"


def test_an_environment_that_closes_its_lane(bench: LaneBench) -> None:
    """No process has ended and no frame has come: the dispatcher finds out by itself."""
    call = bench.submit(bench.function())
    (identifier,) = bench.peers
    bench.ready(identifier)
    bench.received(identifier)
    bench.peers[identifier].close(0)
    assert bench.drive_until(lambda: call.done)
    assert "closed its lane" in call.error


def test_garbage_instead_of_ready_is_tried_twice(bench: LaneBench) -> None:
    call = bench.submit(bench.function())
    for _ in range(2):
        (identifier,) = bench.peers
        bench.peers[identifier].send(b"garbage")
        assert bench.drive_until(lambda identifier=identifier: identifier not in bench.environments)
    assert call.done
    assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")
    assert bench.peers == {}
    assert call.target.pool.running == 0


def test_init_failed_gives_the_runtimes_own_error(bench: LaneBench) -> None:
    call = bench.submit(bench.function())
    for _ in range(2):
        (identifier,) = bench.peers
        failed = frames.InitFailed(frames.PROTOCOL_VERSION, 5, 5, 0, "Runtime.ImportModuleError")
        bench.peers[identifier].send(encoded(failed, b'{"errorType": "its own"}'))
        assert bench.drive_until(lambda identifier=identifier: identifier not in bench.environments)
    assert (call.error_type, call.result) == ("Runtime.ImportModuleError", b'{"errorType": "its own"}')
