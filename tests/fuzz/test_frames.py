"""Frames of a hostile environment: whatever comes over its lane is valid or ends that environment, and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastlam.core.dispatcher import (
    OUTCOME_CANCELLED,
    OUTCOME_FUNCTION_ERROR,
    OUTCOME_LOST,
    OUTCOME_OK,
    Invocation,
    Target,
)
from fastlam.limits import CHUNK_BYTES_MAX, FRAME_HEADER_BYTES_MAX
from fastlam.wire.frames import (
    PROTOCOL_VERSION,
    Chunk,
    Frame,
    FromEnvironment,
    InitFailed,
    Invoke,
    Ready,
    Result,
    Stop,
    Task,
    TaskResult,
)
from played_environments import Played, Stage, message, staged

pytestmark = pytest.mark.lanes

NUMBERS = st.sampled_from(
    (0, 1, 2, -1, 31, 63, 64, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))
)
SMALL = st.sampled_from((0, 0, 0, 1))
TEXTS = st.one_of(st.sampled_from(("", "Error", "a\r\nb", "\0", "ä" * 40)), st.text(max_size=20))
PAYLOADS = st.one_of(st.sampled_from((b"", b"{}", b"x" * 2000)), st.binary(max_size=40))
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Ready, st.just(PROTOCOL_VERSION), NUMBERS, NUMBERS, NUMBERS),
    st.builds(Ready, NUMBERS, SMALL, SMALL, SMALL),
    st.builds(InitFailed, SMALL, NUMBERS, SMALL, SMALL, TEXTS),
    st.builds(InitFailed, st.just(PROTOCOL_VERSION), SMALL, SMALL, SMALL, TEXTS),
    st.builds(Result, SMALL, NUMBERS, NUMBERS, NUMBERS, NUMBERS, TEXTS, TEXTS),
    st.builds(Result, NUMBERS, SMALL, SMALL, SMALL, SMALL),
    st.builds(TaskResult, NUMBERS, SMALL, st.booleans()),
    st.builds(TaskResult, SMALL, NUMBERS, st.booleans()),
    st.builds(Chunk, SMALL, TEXTS),
    st.builds(Chunk, NUMBERS),
    st.builds(Invoke, SMALL, TEXTS, SMALL, TEXTS),
    st.builds(Task, SMALL),
    st.just(Stop()),
)
VALID = st.builds(message, FRAMES, PAYLOADS)
# A header with what is no frame in it: other types, other lengths, deep nesting, texts that are no UTF-8.
LISTS = st.lists(
    st.one_of(NUMBERS, TEXTS, st.binary(max_size=4), st.none(), st.booleans(), st.lists(NUMBERS, max_size=3)),
    max_size=9,
)
HEADERS = st.one_of(
    st.builds(msgspec.msgpack.encode, LISTS),
    st.builds(lambda tag, rest: msgspec.msgpack.encode([tag, *rest]), st.sampled_from((16, 17, 18, 19, 20)), LISTS),
    st.binary(max_size=60),
    st.sampled_from((b"\x91" * 1000, b"\x91" * FRAME_HEADER_BYTES_MAX, b"\x97\x12\x00\x01\x01\x01\x00\xa2\xff\xfe")),
)


def framed(header: bytes, payload: bytes, length: int | None) -> bytes:
    return (len(header) if length is None else length).to_bytes(4, "little") + header + payload


LENGTHS = st.one_of(st.none(), st.sampled_from((0, 1, 5, 2**16, 2**16 + 1, 2**31, 2**32 - 1)))
BUILT = st.builds(framed, HEADERS, PAYLOADS, LENGTHS)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid message, cut, with bytes flipped or put in."""
    data = bytearray(draw(VALID))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("cut", "flip", "insert", "delete")))
        if kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=5))
        elif kind == "delete":
            del data[at : at + draw(st.integers(1, 8))]
        elif at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


SINGLE = st.one_of(VALID, mutated(), BUILT, st.binary(max_size=40))
MESSAGES = st.lists(
    st.one_of(st.lists(SINGLE, min_size=1, max_size=1), st.lists(SINGLE, min_size=2, max_size=4)),
    min_size=1,
    max_size=5,
)


class Model:
    """What the protocol's description says of a function's environment, with one call: "starting", "posted" (the worker
    has not begun), "begun", "over" (its reply was sent), "idle", or "gone". `pieces` are those of a call that streams.
    """

    def __init__(self, state: str, streams: bool) -> None:
        self.state = state
        self.streams = streams
        self.pieces: list[bytes] = []
        self.broken = False

    def hear(self, parts: list[bytes]) -> None:
        if self.state == "gone" or self.broken:
            return
        frame = read(parts)
        if isinstance(frame, Ready) and self.state == "starting" and frame.protocol_version == PROTOCOL_VERSION:
            self.state = "posted"
        elif isinstance(frame, InitFailed) and self.state == "starting" and frame.protocol_version == PROTOCOL_VERSION:
            self.state = "gone"
        elif isinstance(frame, Result) and self.state == "over" and frame.slot == 0:
            self.state = "idle"
        elif isinstance(frame, Chunk) and self.state == "begun" and self.streams and frame.slot == 0:
            self.pieces.append(parts[0][4 + int.from_bytes(parts[0][:4], "little") :])
            self.broken = len(self.pieces[-1]) > CHUNK_BYTES_MAX
        else:
            self.broken = True


def read(parts: list[bytes]) -> Any:
    """The frame in a message, or None."""
    if len(parts) != 1 or len(parts[0]) < 4:
        return None
    header_bytes = int.from_bytes(parts[0][:4], "little")
    if header_bytes > FRAME_HEADER_BYTES_MAX or header_bytes > len(parts[0]) - 4:
        return None
    try:
        return msgspec.msgpack.decode(parts[0][4 : 4 + header_bytes], type=FromEnvironment)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def bring(stage: Stage, target: Target, state: str, streams: bool) -> tuple[Invocation, Played]:
    """A call, and the environment that it is for, in that state of the model."""
    invocation = Invocation(target, b"{}")
    invocation.streams = streams
    stage.dispatcher.submit(invocation)
    stage.drive()
    played = stage.played[-1]
    if state == "starting":
        return invocation, played
    played.ready()
    stage.drive()
    if state in ("begun", "over", "idle"):
        frame, _ = played.begin()
        if state != "begun":
            played.answer(frame.slot, b'"honest"')
    if state == "idle":
        stage.drive()
    return invocation, played


def check_function(stage: Stage, state: str, messages: list[list[bytes]], streams: bool = False) -> None:
    target = stage.function(timeout_ms=60_000)
    bystander = stage.function()
    before = stage.dispatcher.bad_frames
    invocation, played = bring(stage, target, state, streams)
    model = Model(state, streams)
    if state == "over":
        model.state = "idle"  # the honest reply goes ahead of what follows it
    for parts in messages:
        played.say(*parts)
        model.hear(parts)
    stage.drive()
    if played.rings is not None and state == "idle" and model.broken:
        # Nobody looks into the ring of an idle environment: what lies there costs nothing until a call is posted.
        stage.call(target)
    if model.broken or model.state != "gone":  # what comes from one that ends anyway may be counted or not
        assert (stage.dispatcher.bad_frames > before) == model.broken
    if model.broken:
        assert played.state == "dead"
        reason = played.environment.end_reason
        assert reason is not None and reason.startswith("the environment broke the protocol: ")
    elif model.state != "gone":
        assert played.state == (
            "idle" if model.state == "idle" else "starting" if model.state == "starting" else "busy"
        )
    assert b"".join(stage.dispatcher.take_pieces(invocation)) == b"".join(model.pieces)
    if state in ("over", "idle"):
        assert (invocation.outcome, invocation.result) == (OUTCOME_OK, b'"honest"')
    if played.state == "dead" and not invocation.done:
        # It had not begun: another environment has it.
        successor = stage.played[-1]
        assert successor is not played
        successor.ready()
        stage.drive()
        frame, _ = successor.begin()
        successor.answer(frame.slot, b'"later"')
        stage.drive()
        assert (invocation.outcome, invocation.result) == (OUTCOME_OK, b'"later"')
    # Nobody else has noticed.
    assert stage.serve(bystander, b"1", b"2").result == b"2"
    for one in (target, bystander):
        stage.dismiss(one)
    # Those that had not begun were given up just now.
    assert invocation.done and invocation.outcome in (OUTCOME_OK, OUTCOME_FUNCTION_ERROR, OUTCOME_CANCELLED)
    statistics = stage.dispatcher.statistics()
    assert (statistics["outstanding"], statistics["waiting"], statistics["environments_live"]) == (0, 0, 0)
    assert (target.pool.running, stage.account.running) == (0, 0)


STATES = ("starting", "posted", "begun", "over", "idle")


@settings(max_examples=400)
@given(st.sampled_from(STATES), MESSAGES, st.booleans())
@example("begun", [[b"\x0a\x00\x00\x00\x97\x12\x00\x01\x01\x01\x00\xa2\xff\xfe"]], False)
@example("starting", [[message(Ready(PROTOCOL_VERSION, 2**63, 1, 1))]], False)
@example(
    "starting",
    [[message(InitFailed(PROTOCOL_VERSION, 0, 0, 0, ""))], [message(Ready(PROTOCOL_VERSION, 0, 0, 0))], [b""]],
    False,
)
@example("begun", [[message(InitFailed(PROTOCOL_VERSION, 1, 1, 1, "Late"))]], False)
@example("begun", [[b"x", b"", b""]], False)
@example("begun", [[message(Chunk(0), b"a")], [message(Chunk(0), b"b")], [message(Chunk(1), b"c")]], True)
@example("idle", [[message(Chunk(0), b"late")]], True)
def test_whatever_a_functions_environment_sends(state: str, messages: list[list[bytes]], streams: bool) -> None:
    with staged() as stage:
        check_function(stage, state, messages, streams)


def test_every_legal_frame_is_taken() -> None:
    """What the tests above compare with is no dispatcher that refuses everything."""
    with staged() as stage:
        check_function(stage, "starting", [[message(Ready(PROTOCOL_VERSION, 5, 5, 5))]])
        check_function(stage, "starting", [[message(InitFailed(PROTOCOL_VERSION, 5, 5, 5, "Error"), b"{}")]])
        check_function(stage, "begun", [[message(Chunk(0), b"a")], [message(Chunk(0), b"")]], streams=True)
        check_function(stage, "over", [])
        check_function(stage, "idle", [])
        assert stage.dispatcher.bad_frames == 0


@settings(max_examples=200)
@given(st.integers(1, 4), st.booleans(), MESSAGES)
def test_whatever_a_worker_of_tasks_sends(tasks: int, up: bool, messages: list[list[bytes]]) -> None:
    with staged() as stage:
        target = Target("tasks", None, slots_per_environment=4, environments_max=1)
        calls = [stage.call(target, b"task") for _ in range(tasks)]
        played = stage.played[-1]
        if up:
            played.ready()
            stage.drive()
            frame, _ = played.begin()
            played.answer_task(frame.slot, b"first")
        for parts in messages:
            played.say(*parts)
        stage.drive()
        if up:
            assert (calls[0].outcome, calls[0].result) == (OUTCOME_OK, b"first")
        stage.dismiss(target)
        assert all(call.done for call in calls)
        assert {call.outcome for call in calls[1:]}.isdisjoint({OUTCOME_OK}), "only the first was run"
        assert stage.dispatcher.statistics()["outstanding"] == 0


def test_a_lost_task_says_what_its_worker_did() -> None:
    with staged() as stage:
        target = Target("tasks", None, slots_per_environment=4, environments_max=1)
        call = stage.call(target, b"task")
        played = stage.played[-1]
        played.ready()
        stage.drive()
        played.begin()
        played.say(b"abc")
        stage.drive()
        assert (call.outcome, call.error) == (
            OUTCOME_LOST,
            "the environment broke the protocol: a frame of 3 bytes is too short",
        )
        stage.dismiss(target)
