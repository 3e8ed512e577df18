"""What goes over the wires comes back as it was: frames, zygote messages, payloads of tasks."""

from __future__ import annotations

import pickle
import struct
from array import array
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlam.wire import control, tasks
from fastlam.wire.frames import (
    PROTOCOL_VERSION,
    Chunk,
    FromEnvironment,
    InitFailed,
    Invoke,
    Ready,
    Result,
    Stop,
    Task,
    TaskResult,
    Tasks,
    ToEnvironment,
)

COUNTS = st.integers(0, 1 << 53)
TEXTS = st.text(max_size=30)
MAYBE = st.none() | TEXTS
SLOTS = st.integers(0, 63)

TO_ENVIRONMENT = st.one_of(
    st.builds(Invoke, SLOTS, TEXTS, COUNTS, TEXTS, MAYBE, MAYBE, MAYBE, MAYBE, st.booleans()),
    st.builds(Task, SLOTS),
    st.just(Stop()),
    st.builds(Tasks, st.lists(SLOTS, max_size=8), st.lists(COUNTS, max_size=8)),
)
FROM_ENVIRONMENT = st.one_of(
    st.builds(Ready, st.just(PROTOCOL_VERSION), COUNTS, COUNTS, COUNTS),
    st.builds(InitFailed, st.just(PROTOCOL_VERSION), COUNTS, COUNTS, COUNTS, TEXTS),
    st.builds(Result, SLOTS, COUNTS, COUNTS, COUNTS, COUNTS, TEXTS, TEXTS),
    st.builds(TaskResult, SLOTS, COUNTS, st.booleans()),
    st.builds(Chunk, SLOTS, TEXTS),
)


@given(TO_ENVIRONMENT)
def test_frames_to_an_environment(frame: Any) -> None:
    raw = msgspec.msgpack.encode(frame)
    found = msgspec.msgpack.decode(raw, type=ToEnvironment)
    assert (found, type(found)) == (frame, type(frame))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(raw, type=FromEnvironment)  # the other direction's are refused


@given(FROM_ENVIRONMENT)
def test_frames_from_an_environment(frame: Any) -> None:
    raw = msgspec.msgpack.encode(frame)
    found = msgspec.msgpack.decode(raw, type=FromEnvironment)
    assert (found, type(found)) == (frame, type(frame))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(raw, type=ToEnvironment)


@pytest.mark.parametrize(
    "frame", [Ready(1, 2, 3, 4), Result(0, 1, 2, 3, 4, "Error", "text/plain"), TaskResult(3, 1, True)]
)
@pytest.mark.parametrize("value", [-1, (1 << 53) + 1, 2**63, 2**64 - 1, "1", 1.5, None, []])
def test_numbers_out_of_bounds_are_refused(frame: Any, value: Any) -> None:
    """The dispatcher reckons with them in C."""
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(frame))
    numbers = [index for index, field in enumerate(fields) if type(field) is int and index > (type(frame) is Ready)]
    assert len(numbers) >= 2
    for index in numbers:
        raw = msgspec.msgpack.encode([*fields[:index], value, *fields[index + 1 :]])
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(raw, type=FromEnvironment)


def test_frames_are_small() -> None:
    """Tags and fields, no names."""
    assert len(msgspec.msgpack.encode(Task(5))) == 3
    assert len(msgspec.msgpack.encode(Result(0, 1000, 1000, 1000, 100))) < 20


def test_tags_are_all_different() -> None:
    kinds = [Invoke, Task, Stop, Tasks, Ready, InitFailed, Result, TaskResult]
    assert [kind.__struct_config__.tag for kind in kinds] == [1, 2, 3, 4, 16, 17, 18, 19]


# ---- an owner and its zygote -------------------------------------------------------------------------


@pytest.mark.parametrize("message", [control.Fork(7), control.Kill(2**31)])
def test_orders(message: Any) -> None:
    assert control.decode_from_owner(control.encode(message)) == message
    with pytest.raises(msgspec.ValidationError):
        control.decode_from_zygote(control.encode(message))


@pytest.mark.parametrize(
    "message",
    [
        control.Up(1, 10**9, 20 << 20),
        control.Forked(7, 4242),
        control.Exited(7, 9, 31_000),
        control.ForkFailed(7, "fork: no memory"),
    ],
)
def test_reports(message: Any) -> None:
    raw = control.encode(message)
    assert control.decode_from_zygote(raw) == message
    assert len(raw) <= control.PACKET_BYTES_MAX
    with pytest.raises(msgspec.ValidationError):
        control.decode_from_owner(raw)


@given(st.dictionaries(TEXTS, TEXTS, max_size=5), st.lists(TEXTS, max_size=3), st.binary(max_size=100))
def test_worker_specs(environ: dict[str, str], path: list[str], payload: bytes) -> None:
    spec = control.WorkerSpec(
        kind="function",
        title="f:$LATEST",
        environ=environ,
        directory="/",
        path=path,
        handler="app.handler",
        callable_payload=payload,
    )
    assert control.decode_spec(control.encode(spec)) == spec


# ---- payloads of tasks -------------------------------------------------------------------------------


def joined(payload: bytes | list[Any]) -> bytes:
    """As the dispatcher puts it into one message."""
    return payload if isinstance(payload, bytes) else b"".join(bytes(part) for part in payload)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.binary(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=10,
)


@given(PLAIN)
def test_plain_values(value: Any) -> None:
    assert tasks.unpack(joined(tasks.pack(value))) == value


@given(st.lists(st.binary(max_size=200), max_size=40), st.binary(max_size=20))
def test_buffers_travel_out_of_band(contents: list[bytes], function: bytes) -> None:
    """Also more of them than there are prepared headers for, empty ones, and what was writable is writable again."""
    value = [pickle.PickleBuffer(bytearray(content)) for content in contents]
    packed = tasks.pack(value, function)
    assert isinstance(packed, bytes) == (not contents)
    raw = joined(packed)
    found_function, data, buffers = tasks.unpack_parts(raw)
    assert (bytes(found_function), len(buffers)) == (function, len(contents))
    found = pickle.loads(data, buffers=buffers)
    assert [bytes(one) for one in found] == contents
    for one in found:
        view = memoryview(one)
        assert not view.readonly
        if view.nbytes:
            view[0] ^= 1
    _, _, again = tasks.unpack_parts(raw)
    assert [bytes(one) for one in again] == contents, "the message is as it was"


def test_an_array_keeps_its_type() -> None:
    numbers = array("d", [1.5, 2.5])
    raw = joined(tasks.pack((pickle.PickleBuffer(numbers), "more")))
    buffer, more = tasks.unpack(raw)
    assert (memoryview(buffer).cast("B").cast("d").tolist(), more) == ([1.5, 2.5], "more")


class Number(int):
    """A number that is more than one: marshal would make a plain one of it."""


VALUES = (
    st.integers()
    | st.text(st.characters())  # lone surrogates too
    | st.none()
    | st.booleans()
    | st.floats()
    | st.binary(max_size=9)
    | st.builds(Number, st.integers())
)


def exact(value: Any) -> list[Any]:
    """Equal for values that are the same in type, sign and bits."""
    return [(type(one), repr(one)) for one in value]


@given(st.lists(VALUES, max_size=4), st.dictionaries(TEXTS, st.integers(), max_size=2))
def test_calls(args: list[Any], keywords: dict[str, Any]) -> None:
    raw = joined(tasks.pack_call(tuple(args), keywords, b"function", pickle.dumps))
    function, found_args, found_keywords = tasks.unpack_call(raw)
    assert (function, type(found_args), found_keywords) == (b"function", tuple, keywords)
    assert exact(found_args) == exact(args)


@given(st.lists(st.tuples(VALUES, VALUES), max_size=4))
def test_several_calls_in_one_task(arguments: list[tuple[Any, Any]]) -> None:
    raw = joined(tasks.pack(arguments, b"function"))
    function, found, keywords = tasks.unpack_call(raw)
    assert (function, keywords) == (b"function", None)
    assert [exact(each) for each in found] == [exact(each) for each in arguments]


@given(VALUES | st.lists(VALUES))
def test_results(value: Any) -> None:
    assert exact([tasks.unpack(joined(tasks.pack_result(value, pickle.dumps)))]) == exact([value])


@given(st.binary(max_size=200))
def test_lengths_that_do_not_fit_are_refused(raw: bytes) -> None:
    """Noise gives an error of one of these kinds, or parts that lie within it."""
    try:
        function, data, buffers = tasks.unpack_parts(raw)
    except (ValueError, struct.error, MemoryError):
        return
    assert len(function) + len(data) + sum(len(one) for one in buffers) <= len(raw)
