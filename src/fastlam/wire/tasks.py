"""Payloads of executor tasks and their results.

::

    u32 pickle bytes of the function (bit 31: plain), 0: a result | u32 number of buffers | u64 bytes of each buffer
    pickle of the function | pickle of the arguments (or of the result) | buffers

All integers are little-endian. The function travels apart from its arguments so that the worker unpickles it once.
Plain are positional arguments that are all numbers, texts, None, True or False, and results of these types: they are
marshalled, which takes a fourth of pickle's time (both ends are the same interpreter, so the format cannot differ).
Buffers are the out-of-band data of pickle protocol 5: they are copied once into the message, and once more on the other
side, where they must be writable if they were so here.
"""

from __future__ import annotations

import marshal
import pickle
import struct
from collections.abc import Callable
from typing import Any, Final

_HEAD: Final = struct.Struct("<II")
_NO_BUFFERS_NO_FUNCTION: Final = _HEAD.pack(0, 0)
_PLAIN: Final = 1 << 31
_PLAIN_RESULT: Final = _HEAD.pack(_PLAIN, 0)
_MARSHAL_VERSION: Final = 2  # the last one that does not look for equal objects
_NO_KEYWORDS: Final[dict[str, Any]] = {}
_JOINED_BYTES_MAX: Final = 65_536  # longer pickles are neither copied to be joined to their head nor to be cut from it
_LENGTHS: Final = tuple(struct.Struct(f"<{count}Q") for count in range(17))

Dumps = Callable[..., bytes]


def _lengths(count: int) -> struct.Struct:
    return _LENGTHS[count] if count < len(_LENGTHS) else struct.Struct(f"<{count}Q")


def pack(value: Any, function: bytes = b"", dumps: Dumps = pickle.dumps) -> bytes | list[Any]:
    """The payload for `value` (arguments, or a result): bytes, or a list of buffers where some travel out of band."""
    buffers: list[pickle.PickleBuffer] = []
    data = dumps(value, protocol=5, buffer_callback=buffers.append)
    if not buffers:
        head = (_HEAD.pack(len(function), 0) if function else _NO_BUFFERS_NO_FUNCTION) + function
        return head + data if len(data) <= _JOINED_BYTES_MAX else [head, data]
    views = [buffer.raw() for buffer in buffers]
    lengths = _lengths(len(views)).pack(*(view.nbytes for view in views))
    return [_HEAD.pack(len(function), len(views)) + lengths + function + data, *views]


_PLAIN_TYPES: Final = frozenset({int, float, str, bool, type(None)})


def pack_call(args: tuple[Any, ...], keywords: dict[str, Any], function: bytes, dumps: Dumps) -> bytes | list[Any]:
    """The payload of one call; as `pack`, with a shorter way for the plainest arguments."""
    if not keywords:
        for value in args:
            if type(value) not in _PLAIN_TYPES:
                break
        else:
            return _HEAD.pack(len(function) | _PLAIN, 0) + function + marshal.dumps(args, _MARSHAL_VERSION)
    return pack((args, keywords), function, dumps)


def pack_result(value: Any, dumps: Dumps) -> bytes | list[Any]:
    """The payload of a result; as `pack`, with a shorter way for the plainest values."""
    if type(value) in _PLAIN_TYPES:
        return _PLAIN_RESULT + marshal.dumps(value, _MARSHAL_VERSION)
    return pack(value, dumps=dumps)


def unpack_call(payload: bytes) -> tuple[bytes, Any, dict[str, Any] | None]:
    """(function pickle, positional arguments, keywords) of a task. Where keywords are None, the arguments are a list of
    those of several calls.
    """
    function_bytes, _ = _HEAD.unpack_from(payload)
    if function_bytes & _PLAIN:
        split = _HEAD.size + (function_bytes ^ _PLAIN)
        return payload[_HEAD.size : split], marshal.loads(payload[split:]), _NO_KEYWORDS
    function, data, buffers = unpack_parts(payload)
    loaded = pickle.loads(data, buffers=buffers) if buffers else pickle.loads(data)
    return (function, loaded, None) if type(loaded) is list else (function, *loaded)


def unpack_parts(payload: bytes) -> tuple[bytes, memoryview | bytes, list[memoryview]]:
    """(function pickle, data pickle, buffers) of a payload; raises ValueError when its lengths do not fit."""
    function_bytes, count = _HEAD.unpack_from(payload)
    position = _HEAD.size
    if count == 0:
        split = position + function_bytes
        if len(payload) > _JOINED_BYTES_MAX:
            return payload[position:split], memoryview(payload)[split:], []
        return payload[position:split], payload[split:], []
    lengths_struct = _lengths(count)
    lengths = lengths_struct.unpack_from(payload, position)
    position += lengths_struct.size
    # A copy, but a writable one: what was writable there (an array, say) must be so here.
    view = memoryview(bytearray(payload))
    end = len(payload)
    first = end - sum(lengths)
    if first < position + function_bytes:
        raise ValueError("the lengths of a task payload do not fit its size")
    buffers = []
    start = first
    for length in lengths:
        buffers.append(view[start : start + length])
        start += length
    split = position + function_bytes
    return bytes(view[position:split]), view[split:first], buffers


def unpack(payload: bytes) -> Any:
    """The value of a payload without a function."""
    if payload.startswith(_PLAIN_RESULT):
        return marshal.loads(payload[_HEAD.size :])
    if payload.startswith(_NO_BUFFERS_NO_FUNCTION):
        return pickle.loads(memoryview(payload)[_HEAD.size :])
    _, data, buffers = unpack_parts(payload)
    return pickle.loads(data, buffers=buffers)
