"""The C scanner against Python's json module: both accept a text or both refuse it."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from toolchain import CSRC, HERE, Source, compile_program, compiler

DEPTH_MAX = 500  # below the recursion limit of Python's own parser
Accepts = Callable[[bytes], bool]


@pytest.fixture(scope="module")
def accepts(tmp_path_factory: pytest.TempPathFactory) -> Accepts:
    command = compiler()
    library_path = tmp_path_factory.mktemp("scan") / "libfl_json.so"
    compile_program(command, [Source(CSRC / "fl_json.c")], ("-O2", "-fPIC"), library_path, link=["-shared"])
    scan = ctypes.CDLL(str(library_path)).fl_json_scan
    scan.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_void_p]
    scan.restype = ctypes.c_int

    def accepts(data: bytes) -> bool:
        result: int = scan(data, len(data), DEPTH_MAX, None)
        assert result in (0, -1)
        return result == 0

    return accepts


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def python_accepts(data: bytes) -> bool:
    try:
        json.loads(data.decode(), parse_constant=refuse, parse_int=str, parse_float=str)
    except ValueError:  # JSONDecodeError and UnicodeDecodeError are kinds of it
        return False
    return True


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner, max_size=5),
    max_leaves=30,
)
documents = st.builds(
    lambda value, ascii_only, indent, before, after: (
        before + json.dumps(value, ensure_ascii=ascii_only, indent=indent) + after
    ).encode("utf-8", "surrogatepass"),
    values,
    st.booleans(),
    st.sampled_from([None, 0, 1, 4, 17]),
    st.text(" \t\r\n", max_size=3),
    st.text(" \t\r\n", max_size=20),
)
TELLING = b'{}[]":,\\/ \n\t\x00\x1f\x7f\x80\xbf\xc0\xc3\xed\xa0\xf4\xff0123.-+eEtrufalsnN'
TOKENS = [*'"\\u01-.e[]{},: \né', "00", "d800", "E5", "true", "null", '"a"', '{"a":']
edits = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete"]),
        st.integers(0, 1 << 16),
        st.sampled_from([bytes([byte]) for byte in TELLING]),
        st.integers(1, 4),
    ),
    min_size=1,
    max_size=4,
)
relaxed = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@relaxed
@given(data=documents)
def test_what_python_writes_is_accepted(accepts: Accepts, data: bytes) -> None:
    assert accepts(data) == python_accepts(data)


@settings(relaxed, max_examples=1500)
@given(data=documents, changes=edits)
def test_damaged_documents(accepts: Accepts, data: bytes, changes: list[tuple[str, int, bytes, int]]) -> None:
    damaged = bytearray(data)
    for kind, place, byte, count in changes:
        at = place % (len(damaged) + 1)
        if kind == "insert":
            damaged[at:at] = byte * count
        elif kind == "replace":
            damaged[at : at + 1] = byte
        else:
            del damaged[at : at + count]
    assert accepts(bytes(damaged)) == python_accepts(bytes(damaged)), bytes(damaged)


@settings(relaxed, max_examples=1500)
@given(parts=st.lists(st.sampled_from(TOKENS), max_size=12))
def test_texts_of_tokens(accepts: Accepts, parts: list[str]) -> None:
    data = "".join(parts).encode()
    assert accepts(data) == python_accepts(data), data


@relaxed
@given(body=st.binary(max_size=40))
@example(body=b"\xed\xa0\x80")
@example(body=b"\xc0\xaf")
@example(body=b"\xf4\x90\x80\x80")
@example(body=b"\xef\xbf\xbf")
def test_strings_of_bytes(accepts: Accepts, body: bytes) -> None:
    data = b'"' + body + b'"'
    assert accepts(data) == python_accepts(data), data


@pytest.mark.parametrize("path", sorted((HERE / "corpus" / "json").iterdir()), ids=lambda path: path.name)
def test_corpus(accepts: Accepts, path: Path) -> None:
    data = path.read_bytes()
    for length in range(len(data) + 1):
        assert accepts(data[:length]) == python_accepts(data[:length]), data[:length]


def test_byte_order_mark_is_refused(accepts: Accepts) -> None:
    assert not accepts(b"\xef\xbb\xbf{}")
    assert not python_accepts(b"\xef\xbb\xbf{}")
