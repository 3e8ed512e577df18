"""scan_json's messages: Jackson's texts and positions, inside the frame of Lambda's InvalidRequestContentException."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastlam.core.scan import scan_json
from fastlam.limits import EVENT_DEPTH_MAX, SCAN_WITHOUT_GIL_BYTES_MIN

FRAME = "Could not parse request body into json: Could not parse payload into json: "
VALUES = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')"


def place(line: int, column: int) -> str:
    source = "REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled)"
    return f"[Source: {source}; line: {line}, column: {column}]"


def unexpected(character: str, comment: str) -> str:
    return f"Unexpected character ({character}): {comment}"


def number(character: str, comment: str) -> str:
    return f"Unexpected character ({character}) in numeric value: {comment}"


def token(word: str) -> str:
    return f"Unrecognized token '{word}': was expecting {VALUES}"


def unquoted(code: int, where: str) -> str:
    escaped = f"has to be escaped using backslash to be included in {where}"
    return f"Illegal unquoted character ((CTRL-CHAR, code {code})): {escaped}"


def closing(kind: str, column: int) -> str:
    return f"Unexpected end-of-input: expected close marker for {kind} (start marker at {place(1, column)})"


def mismatched(found: str, expected: str, scope: str, column: int) -> str:
    return f"Unexpected close marker '{found}': expected '{expected}' (for {scope} starting at {place(1, column)})"


def trailing(kind: str) -> str:
    bound = "`com.fasterxml.jackson.databind.JsonNode`"
    refused = "not allowed as per `DeserializationFeature.FAIL_ON_TRAILING_TOKENS`"
    return f"Trailing token (of type {kind}) found after value (bound as {bound}): {refused}"


NO_VALUE = f"expected a valid value {VALUES}"
COMMENT = (
    "maybe a (non-standard) comment? (not recognized as one since Feature 'ALLOW_COMMENTS' not enabled for parser)"
)
NOT_STANDARD = "Non-standard token '%s': enable `JsonReadFeature.ALLOW_NON_NUMERIC_NUMBERS` to allow"
PLUS = (
    "JSON spec does not allow numbers to have plus signs:"
    " enable `JsonReadFeature.ALLOW_LEADING_PLUS_SIGN_FOR_NUMBERS` to allow"
)
NO_DIGIT = "expected digit (0-9) to follow minus sign, for valid numeric value"
SPACE = "only regular white space (\\r, \\n, \\t) is allowed between tokens"

TEXTS: list[tuple[bytes, str, int, int]] = [
    # What the CLI sends when it takes a text for base64.
    (b"\x9b+-\xb6)\xe0", unexpected("(CTRL-CHAR, code 155)", NO_VALUE), 1, 1),
    (b"\x99\xe9m", unexpected("(CTRL-CHAR, code 153)", NO_VALUE), 1, 1),
    (b"\xb2x", unexpected("'²' (code 178)", NO_VALUE), 1, 1),
    (b"\xaa\x87", "Invalid UTF-8 start byte 0x87", 1, 3),
    (b"\xaa\xc3(", "Invalid UTF-8 middle byte 0x28", 1, 4),
    (b"0D\xa3", unexpected("'D' (code 68)", "Expected space separating root-level values"), 1, 2),
    (b"1\x84", unexpected("(CTRL-CHAR, code 132)", "Expected space separating root-level values"), 1, 2),
    (b"z{\xec\xb5\xa8", token("z"), 1, 3),
    (b"test data", token("test"), 1, 6),
    (b"------WebKit", number("'-' (code 45)", NO_DIGIT), 1, 2),
    # The input ends.
    (b"", "No content to map due to end-of-input", 1, 0),
    (b" \n ", "No content to map due to end-of-input", 1, 0),
    (b"{", closing("Object", 1), 1, 2),
    (b" [1", closing("Array", 2), 1, 4),
    (b"[1,", "Unexpected end-of-input within/between Array entries", 1, 4),
    (b'{"a"', "Unexpected end-of-input within/between Object entries", 1, 5),
    (b'{"a":', "Unexpected end-of-input within/between Object entries", 1, 6),
    (b'{"a', "Unexpected end-of-input in field name", 1, 4),
    (b'{"', "Unexpected end-of-input: was expecting closing '\"' for name", 1, 3),
    (b'{"\\"', "Unexpected end-of-input in field name", 1, 5),
    (b'"a', "Unexpected end-of-input in VALUE_STRING", 1, 3),
    (b'"\\u1', "Unexpected end-of-input in character escape sequence", 1, 5),
    (b"1.", number("'.' (code 46)", "Decimal point not followed by a digit"), 1, 2),
    (b"nul", token("nul"), 1, 4),
    # Strings.
    (b'"\xff"', "Invalid UTF-8 start byte 0xff", 1, 3),
    (b'"\xc3("', "Invalid UTF-8 middle byte 0x28", 1, 4),
    (b'"a\nb"', unquoted(10, "string value"), 1, 3),
    (b'{"a\tb":1}', unquoted(9, "name"), 1, 4),
    (b'"\\q"', "Unrecognized character escape 'q' (code 113)", 1, 3),
    (b'"\\\xe2\x82\xac"', "Unrecognized character escape '€' (code 8364 / 0x20ac)", 1, 5),
    (b'"\\u12x4"', unexpected("'x' (code 120)", "expected a hex-digit for character escape sequence"), 1, 6),
    # Numbers and words.
    (b"01", "Invalid numeric value: Leading zeroes not allowed", 1, 2),
    (b"[-]", number("']' (code 93)", NO_DIGIT), 1, 3),
    (b"-.5", unexpected("'.' (code 46)", NO_VALUE), 1, 2),
    (b"[1.]", number("']' (code 93)", "Decimal point not followed by a digit"), 1, 4),
    (b"[1e]", number("']' (code 93)", "Exponent indicator not followed by a digit"), 1, 4),
    (b"+1", number("'+' (code 43)", PLUS), 1, 2),
    (b"[NaN]", NOT_STANDARD % "NaN", 1, 5),
    (b"Infinity", NOT_STANDARD % "Infinity", 1, 9),
    (b"-Infinity", NOT_STANDARD % "-Infinity", 1, 10),
    (b"Nano", token("Nano"), 1, 5),
    (b"truex ", token("truex"), 1, 7),
    (b"x\xc3\xa9 ", token("xé"), 1, 5),
    (b"\xc3\xa9", "Invalid UTF-8 start byte 0xa9", 1, 3),
    (b"x" * 300, token("x" * 256 + "..."), 1, 257),
    # Between tokens.
    (b"/**/1", unexpected("'/' (code 47)", COMMENT), 1, 1),
    (b"[1 //", unexpected("'/' (code 47)", COMMENT), 1, 4),
    (b"[1\x01", f"Illegal character ((CTRL-CHAR, code 1)): {SPACE}", 1, 3),
    (b"'a'", unexpected("''' (code 39)", NO_VALUE), 1, 1),
    (b"[1 2]", unexpected("'2' (code 50)", "was expecting comma to separate Array entries"), 1, 4),
    (b'{"a":1\r\n"b"', unexpected("'\"' (code 34)", "was expecting comma to separate Object entries"), 2, 1),
    (b'{"a" 1}', unexpected("'1' (code 49)", "was expecting a colon to separate field name and value"), 1, 6),
    (b"{a:1}", unexpected("'a' (code 97)", "was expecting double-quote to start field name"), 1, 2),
    (b'{"a":1,}', unexpected("'}' (code 125)", "was expecting double-quote to start field name"), 1, 8),
    (b"[1,]", unexpected("']' (code 93)", "expected a value"), 1, 4),
    (b'{"a":}', unexpected("'}' (code 125)", "expected a value"), 1, 6),
    (b'{"a":]', unexpected("']' (code 93)", NO_VALUE), 1, 6),
    (b"[}", mismatched("}", "]", "Array", 1), 1, 2),
    (b'{"a":1]', mismatched("]", "}", "Object", 1), 1, 7),
    (b"]", mismatched("]", "}", "root", 0), 1, 1),
    # After the value.
    (b"{} {}", trailing("START_OBJECT"), 1, 4),
    (b'""\n"x"', trailing("VALUE_STRING"), 2, 1),
    (b"1 2.5,", trailing("VALUE_NUMBER_FLOAT"), 1, 3),
    (b"[] -1", trailing("VALUE_NUMBER_INT"), 1, 4),
    (b"[] null", trailing("VALUE_NULL"), 1, 4),
    (b"[]nullx", token("nullx"), 1, 8),
    (b"{},", unexpected("',' (code 44)", "expected a value"), 1, 3),
    (b"{}}", mismatched("}", "]", "root", 0), 1, 3),
]


@pytest.mark.parametrize(("data", "text", "line", "column"), TEXTS, ids=[repr(case[0][:20]) for case in TEXTS])
def test_text(data: bytes, text: str, line: int, column: int) -> None:
    assert scan_json(data) == f"{FRAME}{text}\n at {place(line, column)}"


@pytest.mark.parametrize(
    "data", [b"{}", b"null", b' {"a": [1, 2.5e-3, "\xe2\x82\xac"]}\n', b'"\\ud800"', b'{"a":1,"a":2}']
)
def test_good(data: bytes) -> None:
    assert scan_json(data) is None


def test_depth() -> None:
    assert scan_json(b"[" * EVENT_DEPTH_MAX + b"]" * EVENT_DEPTH_MAX) is None
    deeper = EVENT_DEPTH_MAX + 1
    limit = f"{EVENT_DEPTH_MAX}, from `StreamReadConstraints.getMaxNestingDepth()`"
    expected = f"{FRAME}Document nesting depth ({deeper}) exceeds the maximum allowed ({limit})"
    assert scan_json(b"[" * deeper + b"]" * deeper) == expected


def test_large_events_in_threads() -> None:
    good = json.dumps({"text": "é" * SCAN_WITHOUT_GIL_BYTES_MIN, "list": list(range(1000))}).encode()
    bad = good[:-1] + b"]"
    assert len(good) > SCAN_WITHOUT_GIL_BYTES_MIN
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(scan_json, [good, bad] * 20))
    assert results[::2] == [None] * 20
    assert results[1::2] == [f"{FRAME}{mismatched(']', '}', 'Object', 1)}\n at {place(1, len(good))}"] * 20


def test_only_bytes() -> None:
    for wrong in (None, "{}", bytearray(b"{}")):
        with pytest.raises(TypeError):
            scan_json(wrong)  # type: ignore[arg-type]
