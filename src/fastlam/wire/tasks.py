"""Payloads of executor tasks and their results.

::

    u32 pickle bytes of the function, 0: see arguments | u32 number of buffers | u64 bytes of each buffer
    pickle of the function | pickle of the arguments (or of the result) | buffers

All integers are little-endian. The function travels apart from its arguments so that the worker unpickles it once.
Buffers are the out-of-band data of pickle protocol 5: they are copied once into the message, and once more on the other
side, where they must be writable if they were so here.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any, Final

_HEAD: Final = struct.Struct("<II")
_NO_BUFFERS_NO_FUNCTION: Final = _HEAD.pack(0, 0)
_LENGTHS: Final = tuple(struct.Struct(f"<{count}Q") for count in range(17))

Dumps = Callable[..., bytes]


def _lengths(count: int) -> struct.Struct:
    return _LENGTHS[count] if count < len(_LENGTHS) else struct.Struct(f"<{count}Q")


def pack(value: Any, function: bytes = b"", dumps: Dumps = pickle.dumps) -> bytes | list[Any]:
    """The payload for `value` (arguments, or a result): bytes, or a list of buffers where some travel out of band."""
    buffers: list[pickle.PickleBuffer] = []
    data = dumps(value, protocol=5, buffer_callback=buffers.append)
    if not buffers:
        return (_HEAD.pack(len(function), 0) if function else _NO_BUFFERS_NO_FUNCTION) + function + data
    views = [buffer.raw() for buffer in buffers]
    lengths = _lengths(len(views)).pack(*(view.nbytes for view in views))
    return [_HEAD.pack(len(function), len(views)) + lengths + function + data, *views]


_PLAIN: Final = frozenset({int, float, str, bool, type(None)})  # never out of band


def pack_call(args: tuple[Any, ...], keywords: dict[str, Any], function: bytes, dumps: Dumps) -> bytes | list[Any]:
    """The payload of one call; as `pack`, with a shorter way for the plainest arguments."""
    if not keywords:
        for value in args:
            if type(value) not in _PLAIN:
                break
        else:
            return _HEAD.pack(len(function), 0) + function + pickle.dumps((args, keywords), 5)
    return pack((args, keywords), function, dumps)


def unpack_parts(payload: bytes) -> tuple[bytes, memoryview | bytes, list[memoryview]]:
    """(function pickle, data pickle, buffers) of a payload; raises ValueError when its lengths do not fit."""
    function_bytes, count = _HEAD.unpack_from(payload)
    position = _HEAD.size
    if count == 0:
        if function_bytes == 0:
            return b"", payload[position:], []
        split = position + function_bytes
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
    if payload.startswith(_NO_BUFFERS_NO_FUNCTION):
        return pickle.loads(memoryview(payload)[_HEAD.size :])
    _, data, buffers = unpack_parts(payload)
    return pickle.loads(data, buffers=buffers)
