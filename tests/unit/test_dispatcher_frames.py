"""Which frames a dispatcher takes from an environment in which state, and what becomes of one that sends another."""

from __future__ import annotations

import msgspec
import pytest

from fastlam import limits
from fastlam.core.dispatcher import OUTCOME_FUNCTION_ERROR, OUTCOME_OK, Invocation
from fastlam.wire import frames
from played_environments import Played, Stage


def encoded(header: frames.Frame | bytes, payload: bytes = b"") -> bytes:
    """A frame as it stands in a message; bytes where no frame may be."""
    data = header if isinstance(header, bytes) else msgspec.msgpack.encode(header)
    return len(data).to_bytes(4, "little") + data + payload


def begun(stage: Stage) -> tuple[Invocation, Played]:
    """A call that its worker has begun."""
    call = stage.call(stage.function(timeout_ms=600_000))
    played = stage.played[-1]
    played.ready()
    stage.drive()
    played.begin()
    return call, played


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        b"\xff" * 20,
        encoded(b""),
        encoded(b"\xc1"),
        encoded(b"\x91" * 5000),
        encoded(msgspec.msgpack.encode([18, 0, 1, 1, 1, 0, "AB", ""]).replace(b"AB", b"\xff\xfe")),
        encoded(msgspec.msgpack.encode([18, 0, 2**64 - 1, 1, 1, 0])),
        encoded(frames.Stop()),
        encoded(frames.Result(1, 1, 1, 1, 0)),
        encoded(frames.Result(0, 1, 1, 1, 0), b'"before the call is over"'),
        encoded(frames.TaskResult(0, 1, False)),
        encoded(frames.Ready(frames.PROTOCOL_VERSION, 1, 1, 0)),
        encoded(frames.Ready(99, 1, 1, 0)),
        encoded(frames.InitFailed(frames.PROTOCOL_VERSION, 1, 1, 0, "kind")),
        bytes(4) + bytes(limits.FRAME_HEADER_BYTES_MAX + 1),
    ],
)
def test_a_frame_out_of_place_ends_this_environment_only(stage: Stage, data: bytes) -> None:
    other, good = begun(stage)
    call, bad = begun(stage)
    bad.say(data)
    stage.drive()
    assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")
    assert "broke the protocol" in (call.error or "")
    assert stage.dispatcher.environments_all() == [good.environment]
    assert not other.done
    assert stage.dispatcher.statistics()["bad_frames"] == 1
    good.answer(0, b"1")
    stage.drive()
    assert (other.outcome, other.result) == (OUTCOME_OK, b"1")


def test_several_parts_are_no_frame(stage: Stage) -> None:
    call, played = begun(stage)
    played.say(encoded(frames.Stop()), b"more")
    stage.drive()
    assert call.error_type == "Runtime.ExitError"


def test_an_answer_that_comes_twice_is_not_the_next_calls(stage: Stage) -> None:
    first, played = begun(stage)
    second = stage.call(first.target)
    stage.played[-1].ready()  # the second call has an environment of its own coming
    played.answer(0, b'"first"')
    played.say(encoded(frames.Result(0, 1, 1, 1, 0), b'"first"'))
    stage.drive()
    assert first.result == b'"first"'
    assert not second.done
    assert played.environment not in stage.dispatcher.environments_all()


def test_an_environment_that_closes_its_lane(stage: Stage) -> None:
    """No process has ended and no frame has come: the dispatcher finds out by itself."""
    call, played = begun(stage)
    played.peer.close()
    assert stage.dispatcher.drive_until(lambda: call.done, 30)
    assert "closed its lane" in call.error


def test_garbage_instead_of_ready_is_tried_twice(stage: Stage) -> None:
    call = stage.call(stage.function(timeout_ms=600_000))
    for turn in (1, 2):
        assert len(stage.played) == turn
        stage.played[-1].say(b"garbage")
        stage.drive()
    assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")
    assert len(stage.played) == 2
    assert stage.dispatcher.environments_all() == []
    assert call.target.pool.running == 0


def test_init_failed_gives_the_runtimes_own_error(stage: Stage) -> None:
    call = stage.call(stage.function(timeout_ms=600_000))
    failed = frames.InitFailed(frames.PROTOCOL_VERSION, 5, 5, 0, "Runtime.ImportModuleError")
    for _ in range(2):
        stage.played[-1].say(encoded(failed, b'{"errorType": "its own"}'))
        stage.drive()
    assert (call.error_type, call.result) == ("Runtime.ImportModuleError", b'{"errorType": "its own"}')
