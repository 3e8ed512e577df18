"""From an HTTP request to an operation's input: path, query string, headers and JSON body, converted as the model says.

What has the wrong type is a SerializationException, as in rest-json services; members the model does not know are
ignored; null members are absent. Numbers with a fraction are truncated towards zero and kept within 32 (or 64) bits
before validation.
"""

from __future__ import annotations

import binascii
import contextlib
import math
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

from fastlam import limits
from fastlam.api.service_model import Operation, ServiceModel
from fastlam.errors import ApiError, serialization
from fastlam.http.server import Request

_INTEGER_BITS: Final = {"integer": 31, "long": 63}
_BASE64_CHARACTERS: Final = 128 * 1024  # a multiple of four
_decode_json: Final = msgspec.json.Decoder().decode


def unquote(raw: bytes) -> str:
    return unquote_to_bytes(raw).decode("utf-8", "replace")


def query_of(raw: bytes) -> dict[str, list[str]]:
    """The query string; every value of a name, in order."""
    found: dict[str, list[str]] = {}
    for pair in raw.split(b"&") if raw else ():
        name, _, value = pair.partition(b"=")
        found.setdefault(unquote(name.replace(b"+", b" ")), []).append(unquote(value.replace(b"+", b" ")))
    return found


def decode(
    model: ServiceModel,
    operation: Operation,
    request: Request,
    labels: Mapping[str, str],
    query: Mapping[str, list[str]],
) -> dict[str, Any]:
    """The operation's input by member name. May take long for a large body; touches nothing but its arguments."""
    if len(request.body) > limits.BLOCKING_BODY_BYTES:
        lifted = Lifted.of(request.body)
        if lifted is not None:
            with contextlib.suppress(ApiError):  # which is worded better without the detour
                parameters = _decode(model, operation, request, labels, query, lifted)
                if lifted.used:
                    return parameters
    return _decode(model, operation, request, labels, query, None)


class Lifted:
    """A large deployment package taken out of its body, which is then small: a decoder would hold the interpreter's
    lock for as long as it takes to read the whole text. An unguessable word stands in its place; `used` says that the
    word turned up where a blob belongs and nowhere else, otherwise the result is void."""

    _WORD: Final = f"lifted:{secrets.token_hex(16)}"
    _KEY: Final = re.compile(rb'"ZipFile"\s*:\s*"')

    def __init__(self, body: bytes, text: memoryview) -> None:
        self.body = body
        self.text = text
        self.used = False

    @classmethod
    def of(cls, body: bytes) -> Lifted | None:
        match = cls._KEY.search(body, max(0, body.find(b'"ZipFile"')))
        if match is None:
            return None
        start = match.end()
        end = body.find(b'"', start)
        if end < 0 or body.find(b"\\", start, end) >= 0:
            return None
        return cls(body[:start] + cls._WORD.encode() + body[end:], memoryview(body)[start:end])

    def take(self, value: str) -> memoryview | None:
        if value != self._WORD:
            return None
        self.used = True
        return self.text


def _decode(
    model: ServiceModel,
    operation: Operation,
    request: Request,
    labels: Mapping[str, str],
    query: Mapping[str, list[str]],
    lifted: Lifted | None,
) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if not operation.input:
        return parameters
    body: Mapping[str, Any] | None = None
    for member in model.shapes[operation.input].members:
        value: Any = None
        if member.location == "uri":
            value = _from_text(model, member.shape, labels[member.wire_name])
        elif member.location == "querystring":
            value = _from_query(model, member.shape, query.get(member.wire_name))
        elif member.location == "header":
            raw = request.header(member.wire_name.lower().encode())
            value = None if raw is None else _from_text(model, member.shape, raw.decode("latin-1"))
        elif operation.payload == member.name and model.shapes[member.shape].type == "blob":
            value = request.body
        elif operation.payload == member.name:
            value = convert(model, member.shape, _json_object(request.body), member.name)
        else:
            if body is None:
                body = _json_object(request.body if lifted is None else lifted.body)
            value = convert(model, member.shape, body.get(member.wire_name), member.name, lifted)
        if value is not None:
            parameters[member.name] = value
    return parameters


def _json_object(body: bytes) -> Mapping[str, Any]:
    if not body:
        return {}
    try:
        value = _decode_json(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise serialization(f"Could not parse request body into json: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise serialization("Could not parse request body into json: the body is not a JSON object")
    return value


def convert(model: ServiceModel, shape_name: str, value: Any, path: str, lifted: Lifted | None = None) -> Any:
    """A JSON value as the model's type."""
    if value is None:
        return None
    shape = model.shapes[shape_name]
    kind = shape.type
    if kind == "structure":
        _expect(value, dict, path, "a structure")
        found = {
            member.name: convert(model, member.shape, value.get(member.wire_name), f"{path}.{member.name}", lifted)
            for member in shape.members
        }
        return {name: item for name, item in found.items() if item is not None}
    if kind == "list":
        _expect(value, list, path, "a list")
        return [convert(model, shape.element, item, path, lifted) for item in value]
    if kind == "map":
        _expect(value, dict, path, "a map")
        return {name: convert(model, shape.element, item, path, lifted) for name, item in value.items()}
    if kind == "string":
        _expect(value, str, path, "a String")
        return value
    if kind == "boolean":
        _expect(value, bool, path, "a Boolean")
        return value
    if kind == "blob":
        _expect(value, str, path, "a Blob")
        return _from_base64((lifted and lifted.take(value)) or value, path)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise serialization(f"{path}: {_kind_of(value)} can not be converted to {_article(kind)}")
    if kind in _INTEGER_BITS:
        bits = _INTEGER_BITS[kind]
        if isinstance(value, float) and not math.isfinite(value):
            value = 2.0**bits if value > 0 else -(2.0**bits)
        return max(-(1 << bits), min(int(value), (1 << bits) - 1))
    return float(value)  # double, timestamp


def _from_base64(text: str | memoryview, path: str) -> bytes:
    """In pieces: each holds the interpreter's lock for a millisecond, so that the loop thread gets its turns
    meanwhile.
    """
    pieces = []
    try:
        for position in range(0, len(text), _BASE64_CHARACTERS):
            piece = text[position : position + _BASE64_CHARACTERS]
            raw = piece.encode("ascii") if isinstance(piece, str) else bytes(piece)
            if b"=" in raw and position + len(raw) < len(text):
                raise ValueError("padding in the middle")
            pieces.append(binascii.a2b_base64(raw, strict_mode=True))
    except ValueError:  # of binascii or of a character that is not ASCII
        raise serialization(f"{path}: the value is not valid base64") from None
    return b"".join(pieces)


def _from_query(model: ServiceModel, shape_name: str, values: list[str] | None) -> Any:
    if not values:
        return None
    if model.shapes[shape_name].type == "list":
        return values
    return _from_text(model, shape_name, values[0])


def _from_text(model: ServiceModel, shape_name: str, text: str) -> Any:
    kind = model.shapes[shape_name].type
    if kind in _INTEGER_BITS:
        try:
            if len(text) > 64:
                raise ValueError(text)
            return convert(model, shape_name, int(text), shape_name)
        except ValueError:
            raise serialization(f"STRING_VALUE can not be converted to {_article(kind)}") from None
    if kind == "boolean":
        if text not in ("true", "false"):
            raise serialization(f"STRING_VALUE can not be converted to {_article(kind)}")
        return text == "true"
    return text  # strings; timestamps of a query string stay text (ISO 8601)


def _expect(value: Any, kind: type, path: str, expected: str) -> None:
    if not isinstance(value, kind):
        raise serialization(f"{path}: {_kind_of(value)} can not be converted to {expected}")


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    if isinstance(value, int):
        return "NUMBER_VALUE"
    if isinstance(value, float):
        return "DECIMAL_VALUE"
    if isinstance(value, str):
        return "STRING_VALUE"
    return "a list" if isinstance(value, list) else "a structure or map"


def _article(kind: str) -> str:
    return {"integer": "an Integer", "long": "a Long", "double": "a Double"}.get(kind, f"a {kind.capitalize()}")
