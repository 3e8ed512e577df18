"""Our worker against AWS's own Python client, package awslambdaric: same events and results in, same bytes out."""

from __future__ import annotations

import collections
import dataclasses
import decimal
import enum
import json
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import simplejson  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from fastlam.worker import faults
from lambda_client import (
    ENVIRONMENTS,
    JSON_VALUES,
    OURS,
    REQUEST_ID,
    THEIRS,
    Recorder,
    generated,
    recording,
    ric_client,
    ric_fault,
)

# Events ----------------------------------------------------------------------------------------

JSON_TEXTS = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode(),
    JSON_VALUES,
    st.booleans(),
    st.sampled_from([None, 0, 1]),
)
DIGITS = st.text("0123456789", max_size=25)
NUMBERS = st.builds(
    lambda sign, whole, point, exponent: f"{sign}{whole}{point}{exponent}".encode(),
    st.sampled_from(["", "-", "+"]),
    DIGITS | st.just("0") | st.integers(4295, 4305).map("9".__mul__) | st.integers(300, 400).map("7".__mul__),
    st.just("") | DIGITS.map(".{}".format) | st.integers(300, 800).map(lambda count: f".{'0' * count}1"),
    st.just("") | st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), DIGITS),
)
STRINGS = st.lists(
    st.sampled_from(
        [r"\ud83d", r"\ude00", r"\u0041", r"\uDFFF", r"\u12", "\\", '"', r"\n", r"\x", "\x00", "\x1f", "\x7f"]
    )
    | st.sampled_from(["a", "\u2028", "é", "\U0001f600", r"\/", r"\u00e9", r"\u"]),
    max_size=6,
).map(lambda parts: f'"{"".join(parts)}"'.encode())
TOKENS = st.lists(
    st.sampled_from([b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\t", b'"a"', b'"b"', b"1", b"-0", b"-0.0"])
    | st.sampled_from([b"01", b"1e400", b"true", b"null", b"NaN", b"-Infinity", b"Infinity", b"'", b"\x0b"])
    | st.sampled_from([b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80"]),
    max_size=10,
).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A JSON text with a few bytes changed, put in, or lost."""
    text = bytearray(draw(JSON_TEXTS))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        byte = draw(st.integers(0, 255) | st.sampled_from(b'{}[]",:\\ 0eE.-'))
        how = draw(st.integers(0, 2))
        text[at : at + (how > 0)] = b"" if how == 2 else bytes([byte])
    return bytes(text)


EVENTS = JSON_TEXTS | NUMBERS | STRINGS | TOKENS | damaged() | st.binary(max_size=12)


def unmarshalled_by_us(execution_env: str, payload: bytes) -> tuple[str, Any]:
    try:
        return "value", OURS[execution_env].unmarshal(memoryview(payload))
    except faults.Fault as fault:
        return fault.error_type, fault.message


def unmarshalled_by_them(execution_env: str, payload: bytes) -> tuple[str, Any]:
    try:
        return "value", THEIRS[execution_env].unmarshal_request(payload)
    except ric_fault as fault:
        return fault.exception_type, fault.msg


def shape(value: Any) -> str:
    """Tells values apart that are equal: types, the sign of zero, the order of keys."""
    return repr(value)


@generated(7000)
@given(EVENTS)
def test_events(payload: bytes) -> None:
    kind, value = unmarshalled_by_us(ENVIRONMENTS[0], payload)
    expected_kind, expected = unmarshalled_by_them(ENVIRONMENTS[0], payload)
    assert (kind, shape(value)) == (expected_kind, shape(expected))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"\xef\xbb\xbf{}",
        b'{"a":1,"b":2,"a":3}',
        b"1" * 4300,
        b"1" * 4301,
        b"1e400",
        b"-1e400",
        b"1e-400",
        b"0e99999999999999999999",
        b"1e99999999999999999999",
        b"18446744073709551616",
        b'"\\ud800"',
        b"NaN",
        b'"\xed\xa0\x80"',
        b'{"a":1}' + b" " * 2000,
        json.dumps({"k" * 40: ["é" * 700, 1.5, None]}).encode(),
    ],
    ids=lambda payload: repr(payload[:24]),
)
def test_chosen_events(payload: bytes) -> None:
    kind, value = unmarshalled_by_us(ENVIRONMENTS[0], payload)
    expected_kind, expected = unmarshalled_by_them(ENVIRONMENTS[0], payload)
    assert (kind, shape(value)) == (expected_kind, shape(expected))


def first_refused(accepts: Callable[[int], bool]) -> int:
    """About the depth at which AWS's client gives up. The bound is the interpreter's: some 1000 levels in Python 3.11,
    1500 in 3.12, 10000 in 3.13.
    """
    accepted, refused = 1, 100_000
    while refused - accepted > 1:
        depth = (accepted + refused) // 2
        if accepts(depth):
            accepted = depth
        else:
            refused = depth
    return refused


@pytest.mark.parametrize(
    "nest",
    [
        lambda depth: b"[" * depth + b"]" * depth,
        lambda depth: b"[" * depth + b"1" + b"]" * depth,
        lambda depth: b"[" * depth + b"1.5" + b"]" * depth,
        lambda depth: b'{"a":' * depth + b"1" + b"}" * depth,
        lambda depth: b'[{"a":' * (depth // 2) + b"1" + b"}]" * (depth // 2),
    ],
)
@pytest.mark.parametrize("execution_env", ENVIRONMENTS)
def test_deeply_nested_events(execution_env: str, nest: Callable[[int], bytes]) -> None:
    refused = first_refused(lambda depth: unmarshalled_by_them(execution_env, nest(depth))[0] == "value")
    kinds = []
    for depth in range(refused - 40, refused + 20):
        ours = unmarshalled_by_us(execution_env, nest(depth))
        theirs = unmarshalled_by_them(execution_env, nest(depth))
        kinds.append(ours[0])
        assert ours[0] == theirs[0], depth
        if ours[0] != "value":
            assert ours[1] == theirs[1]
    assert set(kinds) == {"value", faults.UNMARSHAL_ERROR}


# Results ---------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Mask(enum.IntFlag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Order:
    number: int


class LoudText(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "loud"


class LoudInteger(int):
    def __str__(self) -> str:
        return "loud"

    __repr__ = __str__


class LoudFloat(float):
    def __repr__(self) -> str:
        return "loud"


class SpeaksJson:
    def for_json(self) -> dict[str, int]:
        return {"for_json": 1}


class WrongAsdict:
    def _asdict(self) -> int:
        return 1


class FailingAsdict:
    def _asdict(self) -> int:
        raise KeyError("no")


class BrokenAsdict:
    @property
    def _asdict(self) -> int:
        raise LookupError("broken")


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=6)
INTEGERS = st.integers() | st.integers(4290, 4310).map(lambda digits: 10**digits) | st.integers(-(2**70), 2**70)
ODD_VALUES = st.one_of(
    st.binary(max_size=6),
    st.decimals(),
    st.sampled_from(
        [decimal.Decimal(t) for t in ("sNaN", "-NaN", "-Infinity", "1E+30", "-0", "0E-10", "NaN123", "1.10")]
    ),
    st.datetimes() | st.dates() | st.times() | st.timedeltas(),
    st.uuids(),
    st.fractions() | st.complex_numbers(),
    st.sampled_from([Colour.RED, Level.LOW, Word.YES, Mask.A, Mask.A | Mask.B, int, Ellipsis, range(3), print]),
    st.builds(Order, st.integers()),
    st.builds(LoudText, ANY_TEXT) | st.builds(LoudInteger, st.integers()) | st.builds(LoudFloat, st.floats()),
    st.sampled_from([SpeaksJson, WrongAsdict, FailingAsdict, BrokenAsdict, object]).map(lambda kind: kind()),
    st.builds(simplejson.RawJSON, st.just('{"raw":1}')),
    st.builds(bytearray, st.binary(max_size=3)) | st.binary(max_size=3).map(lambda raw: memoryview(raw)),
    st.builds(lambda: (item for item in "ab")),
    st.sets(st.integers(), max_size=2) | st.frozensets(st.text(max_size=2), max_size=2),
)
PLAIN_VALUES = st.none() | st.booleans() | INTEGERS | st.floats() | ANY_TEXT
ODD_KEYS = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats(),
    st.binary(max_size=4),
    st.sampled_from([decimal.Decimal("1.5"), Level.LOW, Word.YES, Colour.RED, (1, 2), LoudInteger(7), LoudFloat(1.5)]),
    st.builds(LoudText, ANY_TEXT),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(ANY_TEXT, inner, max_size=4),
        st.dictionaries(ANY_TEXT | ODD_KEYS, inner, max_size=3),
        st.tuples(inner, inner),
        st.builds(Point, inner, inner),
        st.builds(lambda items: collections.OrderedDict(items), st.lists(st.tuples(ANY_TEXT, inner), max_size=2)),
        st.builds(lambda value: collections.defaultdict(list, {"a": value}), inner),
        st.builds(lambda items: collections.deque(items), st.lists(inner, max_size=2)),
        st.builds(lambda value: types.MappingProxyType({"a": value}), inner),
    )


PLAIN_RESULTS = st.recursive(
    PLAIN_VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=8,
)
ODD_RESULTS = st.recursive(PLAIN_VALUES | ODD_VALUES, containers, max_leaves=6)


def marshalled_by_us(execution_env: str, result: Any) -> tuple[Any, ...]:
    try:
        return "payload", *OURS[execution_env].marshal(result)
    except faults.Fault as fault:
        return fault.error_type, fault.message
    except faults.RuntimeCrash as crash:
        return "crash", type(crash.error).__name__, str(crash.error)


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with recording() as own:
        yield own


def marshalled_by_them(execution_env: str, result: Any, recorder: Recorder) -> tuple[Any, ...]:
    try:
        payload, content_type = THEIRS[execution_env].marshal_response(result)
    except ric_fault as fault:
        return fault.exception_type, fault.msg
    try:
        ric_client.LambdaRuntimeClient("").post_invocation_result(REQUEST_ID, payload, content_type)
    except Exception as error:
        return "crash", type(error).__name__, str(error)
    return recorder.sent


def assert_same_result(result: Any, recorder: Recorder) -> None:
    for execution_env in ENVIRONMENTS:
        assert marshalled_by_us(execution_env, result) == marshalled_by_them(execution_env, result, recorder)


@generated(4000)
@given(result=PLAIN_RESULTS)
def test_plain_results(recorder: Recorder, result: Any) -> None:
    assert_same_result(result, recorder)


@generated(4500)
@given(result=ODD_RESULTS)
def test_odd_results(recorder: Recorder, result: Any) -> None:
    assert_same_result(result, recorder)


@generated(4000)
@given(value=st.floats() | st.floats(width=32) | st.integers(-(10**17), 10**17).map(float))
def test_floats(recorder: Recorder, value: float) -> None:
    assert_same_result([value, {"v": value}], recorder)


def circular() -> list[Any]:
    items: list[Any] = [1]
    items.append({"again": items})
    return items


@pytest.mark.parametrize(
    "result",
    [
        circular(),
        "".join(map(chr, range(0x100))),
        "\u2028\u2029\x7f\x80\ufeff\uffff\U0010ffff",
        "\ud800",
        {"\ud800": 1},
        b"\xff",
        [b"\xff"],
        {"statusCode": 200, "body": "é"},
        {1: "a", "1": "b", None: 0, False: 1, 1.5: 2},
        "x" * 100_000,
        {"big": ["é" * 1000] * 50},
        [{}] * 3,
    ],
    ids=lambda result: repr(result)[:24].encode("ascii", "backslashreplace").decode(),
)
def test_chosen_results(recorder: Recorder, result: Any) -> None:
    assert_same_result(result, recorder)


@pytest.mark.parametrize("unit", ["x", "\n", "\x01", "\x7f", '"', "é", "\u20ac", "\U0001f600"])
def test_texts_of_every_length(recorder: Recorder, unit: str) -> None:
    """The writer works on eight bytes at a time and changes its buffer on the way."""
    for length in [*range(40), *range(980, 1060), 5000]:
        assert_same_result(["x" * (length % 8), unit * length, "x" * length + unit], recorder)


def test_integers_of_every_length(recorder: Recorder) -> None:
    bounds = [2**bits + step for bits in (7, 31, 32, 53, 62, 63, 64) for step in (-1, 0, 1)]
    powers = [10**digits + step for digits in range(22) for step in (-1, 0)]
    assert_same_result([sign * number for number in bounds + powers for sign in (1, -1)], recorder)


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}, lambda value: (value, 1)])
def test_deeply_nested_results(recorder: Recorder, wrap: Callable[[Any], Any]) -> None:
    def nested(depth: int) -> Any:
        result: Any = 1
        for _ in range(depth):
            result = wrap(result)
        return result

    refused = first_refused(lambda depth: marshalled_by_them(ENVIRONMENTS[1], nested(depth), recorder)[0] == "payload")
    kinds = set()
    # Where the writer gives up, and where the general encoder does.
    for depth in (*range(95, 105), *range(refused - 40, refused + 20)):
        ours = marshalled_by_us(ENVIRONMENTS[1], nested(depth))
        assert ours == marshalled_by_them(ENVIRONMENTS[1], nested(depth), recorder), depth
        kinds.add(ours[0])
    assert kinds == {"payload", faults.MARSHAL_ERROR}
