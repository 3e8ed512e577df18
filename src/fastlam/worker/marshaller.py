"""Events and results as JSON, byte for byte as Lambda's Python runtimes read and write them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from math import nan
from typing import Any, Final

import msgspec
import simplejson
from simplejson.raw_json import RawJSON

from fastlam.core.jsonwriter import write
from fastlam.worker.faults import MARSHAL_ERROR, UNMARSHAL_ERROR, Fault, RuntimeCrash

JSON_CONTENT_TYPE: Final = "application/json"
BYTES_CONTENT_TYPE: Final = "application/unknown"

# Below this size no JSON text can be nested so deeply that the two decoders' recursion limits differ: half as many
# levels as bytes.
_SHALLOW_BYTES: Final = 1024
# On the same text simplejson spends some levels of recursion more than msgspec does: three Python calls, which count up
# to Python 3.11, and two or three within C, which are all that counts from Python 3.12 on.
_EXTRA_CALLS: Final = 6 if sys.version_info < (3, 12) else 0

decode_event: Final[Any] = msgspec.json.Decoder().decode


class _Encoder(simplejson.JSONEncoder):  # type: ignore[misc]
    """simplejson with Lambda's choices: decimals are numbers as they print themselves, NaN is allowed."""

    def __init__(self, *, ensure_ascii: bool) -> None:
        super().__init__(use_decimal=False, ensure_ascii=ensure_ascii, allow_nan=True)

    def default(self, o: Any) -> Any:
        if isinstance(o, Decimal):
            # Signalling and negative NaNs too: they are all written as NaN.
            return nan if o.is_nan() else RawJSON(str(o))
        return super().default(o)


def writes_ascii(execution_env: str) -> bool:
    """Whether the runtime writes non-ASCII characters as escapes: those before python3.12 do."""
    match = re.fullmatch(r"AWS_Lambda_python3\.(\d+)", execution_env)
    return match is None or int(match.group(1)) < 12


# Made once, in the zygote: every worker shares their memory.
_ENCODERS: Final = {ascii_only: _Encoder(ensure_ascii=ascii_only).encode for ascii_only in (False, True)}


class Marshaller:
    """Owned by one execution environment; `execution_env` is the value of AWS_EXECUTION_ENV."""

    def __init__(self, execution_env: str) -> None:
        self._ascii_only = writes_ascii(execution_env)
        self._encode: Callable[[object], str] = _ENCODERS[self._ascii_only]

    def unmarshal(self, payload: bytes | memoryview) -> object:
        """The event as a Python object; raises Fault.

        msgspec decodes what it can: where it succeeds, the value is the one that simplejson would give. Everything it
        refuses (huge exponents, lone surrogates, a byte order mark, faulty texts, ...) is read again by simplejson,
        whose word is final.
        """
        try:
            if len(payload) <= _SHALLOW_BYTES:
                return decode_event(payload)
            return _decode_deeper(payload, _EXTRA_CALLS)
        except Exception:
            pass
        try:
            return simplejson.loads(bytes(payload))
        except Exception as error:
            raise Fault(UNMARSHAL_ERROR, f"Unable to unmarshal input: {error}") from error

    def marshal(self, result: object) -> tuple[bytes, str]:
        """The handler's result as (payload, content type); raises Fault, or RuntimeCrash for what UTF-8 cannot hold."""
        if isinstance(result, bytes):
            return result, BYTES_CONTENT_TYPE
        payload = write(result, self._ascii_only)
        if payload is not None:
            return payload, JSON_CONTENT_TYPE
        try:
            text = self._encode(result)
        except Exception as error:
            raise Fault(MARSHAL_ERROR, f"Unable to marshal response: {error}") from error
        return _utf8(text), JSON_CONTENT_TYPE

    def write(self, result: object) -> bytes | None:
        """An ordinary result as JSON; None for what `marshal` must look at."""
        return write(result, self._ascii_only)

    def encode_error(self, payload: Mapping[str, object]) -> bytes:
        """An error document as bytes; raises RuntimeCrash for a text that UTF-8 cannot hold."""
        return write(payload, self._ascii_only) or _utf8(self._encode(payload))

    def encode_text(self, value: Mapping[str, object]) -> str:
        """The same JSON as text, for log lines."""
        return self._encode(value)


def _decode_deeper(payload: bytes | memoryview, calls: int) -> object:
    """Decodes some calls further down, so that msgspec meets the recursion limit no later than simplejson would. The
    slot is a detour within C.
    """
    return decode_event.__call__(payload) if calls == 0 else _decode_deeper(payload, calls - 1)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RuntimeCrash(error) from error
