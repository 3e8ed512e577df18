"""The values that tasks and results carry in a form of their own (core/plain.pxd), against marshal and pickle, which they must
not differ from: at the edges of what fits, and where something only looks like one of them.
"""

from __future__ import annotations

import enum
import marshal
import math
import random
import struct
from collections.abc import Iterator
from typing import Any, Final

import pytest

from fastlam import Executor

pytestmark = pytest.mark.lanes

INTS: Final = tuple(
    sign * (2**bits + more)
    for bits in (0, 7, 8, 15, 16, 30, 31, 32, 62, 63, 64, 100)
    for more in (-1, 0, 1)
    for sign in (1, -1)
)
FLOATS: Final = (
    0.0,
    -0.0,
    1.5,
    -1e308,
    5e-324,
    math.inf,
    -math.inf,
    math.nan,
    struct.unpack("<d", b"\1\0\0\0\0\0\xf8\xff")[0],
)
TEXTS: Final = (
    "", "a", "\0", "a\0b", "\x7f", "\x80", "é", "\u20ac", "\U0001f600", "\ud800", "a\udcff", "\udfff\ud800", "i\0\0\0\0", "N",
    *("x" * size for size in (*range(490, 530), 1000, 16384, 70_000)),
    *("ä" * size for size in (*range(240, 260), 511, 512, 513)),
)  # fmt: skip
SINGLES: Final = (None, True, False)


class Number(int):
    pass


class Word(str):
    pass


class Real(float):
    pass


class Row(tuple[Any, ...]):
    pass


class Colour(enum.IntEnum):
    RED = 1


LOOKALIKES: Final = (
    Number(5), Word("word"), Real(1.5), Colour.RED, Row((1, 2)), (), (1,), (1, 2, 3), tuple(range(12)), (None, "a", 1.5),
    [1], {}, {"a": 1}, b"", b"bytes", bytearray(b"x"), 1j, Ellipsis, {1}, frozenset({2}), range(3), NotImplemented,
)  # fmt: skip


@pytest.fixture(scope="module")
def pool(lane_in_use: str) -> Iterator[Executor]:
    with Executor(1) as executor:
        yield executor


def same(value: Any) -> Any:
    return value


def several(*values: Any) -> Any:
    return [(type(value).__name__, marshalled(value)) for value in values]


def marshalled(value: Any) -> Any:
    """As exact as can be: a NaN is not equal to itself, and 0.0 is to -0.0."""
    try:
        return marshal.dumps(value, 2)
    except ValueError:
        return value


def alike(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if type(left) is float:
        assert struct.pack("<d", left) == struct.pack("<d", right)
    else:
        assert left == right


@pytest.mark.parametrize(
    "values", [INTS, FLOATS, TEXTS, SINGLES, LOOKALIKES], ids=["ints", "floats", "texts", "singles", "others"]
)
def test_a_value_there_and_back(pool: Executor, values: tuple[Any, ...]) -> None:
    for value in values:
        alike(pool.submit(same, value).result(), value)


def test_what_looks_like_a_plain_value_keeps_its_type(pool: Executor) -> None:
    for value in LOOKALIKES:
        (found,) = pool.submit(several, value).result()
        assert found[0] == type(value).__name__


def test_lists_of_arguments(pool: Executor, rng: random.Random) -> None:
    """Up to a dozen, of one kind and of all; small numbers alone are read in another way than the rest."""
    plain = (*INTS, *FLOATS, *TEXTS[:14], *SINGLES)
    small = (0, 1, -1, 2**31 - 1, -(2**31))
    for count in range(13):
        for _ in range(12):
            for source in (small, INTS, plain, (*plain, *LOOKALIKES)):
                values = [rng.choice(source) for _ in range(count)]
                assert pool.submit(several, *values).result() == several(*values)


def test_keywords_are_no_arguments_by_position(pool: Executor) -> None:
    assert pool.submit(pow, 2, 5, mod=7).result() == 4
    assert pool.submit(dict, a=1, b=2).result() == {"a": 1, "b": 2}


def test_values_at_random(pool: Executor, rng: random.Random) -> None:
    for _ in range(1500):
        kind = rng.randrange(4)
        value: Any
        if kind == 0:
            value = rng.randrange(-(2 ** rng.randrange(1, 70)), 2 ** rng.randrange(1, 70))
        elif kind == 1:
            value = struct.unpack("<d", rng.randbytes(8))[0]
        elif kind == 2:
            value = "".join(
                chr(rng.choice((rng.randrange(128), rng.randrange(0x110000)))) for _ in range(rng.randrange(40))
            )
        else:
            value = "".join(chr(rng.randrange(128)) for _ in range(rng.randrange(480, 540)))
        future = pool.submit(same, value)
        if kind == 1 and math.isnan(value):
            assert math.isnan(future.result())
        else:
            alike(future.result(), value)


def test_a_result_is_the_callers_own(pool: Executor) -> None:
    """Asked for twice it is one object; of two calls it is two, where that can be told."""
    future = pool.submit(same, "x" * 100)
    assert future.result() is future.result()
    assert pool.submit(same, [1]).result() is not pool.submit(same, [1]).result()
