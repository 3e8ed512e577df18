"""`application/vnd.amazon.eventstream`: the messages of which the answer to InvokeWithResponseStream consists.

    u32 bytes in all │ u32 bytes of headers │ u32 CRC-32 of these eight │ headers │ payload │ u32 CRC-32 of all before
    a header: u8 bytes of the name │ name │ u8 type, 7 for a text │ u16 bytes of the value │ value

All integers are big-endian (Smithy: "Amazon Event Stream"). The order of the headers is the service's.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

CONTENT_TYPE: Final = b"application/vnd.amazon.eventstream"

_TEXT: Final = 7
_PRELUDE_BYTES: Final = 12
_CHECKSUM_BYTES: Final = 4


def _headers(event_type: str, content_type: str) -> bytes:
    block = b""
    for name, value in ((":event-type", event_type), (":content-type", content_type), (":message-type", "event")):
        block += struct.pack(f">B{len(name)}sBH", len(name), name.encode(), _TEXT, len(value)) + value.encode()
    return block


_PAYLOAD_CHUNK: Final = _headers("PayloadChunk", "application/octet-stream")
_INVOKE_COMPLETE: Final = _headers("InvokeComplete", "application/json")


def payload_chunk(payload: bytes) -> bytes:
    """A piece of the function's response."""
    return _message(_PAYLOAD_CHUNK, payload)


def invoke_complete(document: bytes) -> bytes:
    """The last message; `document` is a JSON object with what is to be said of the invocation."""
    return _message(_INVOKE_COMPLETE, document)


def _message(headers: bytes, payload: bytes) -> bytes:
    total = _PRELUDE_BYTES + len(headers) + len(payload) + _CHECKSUM_BYTES
    lengths = struct.pack(">II", total, len(headers))
    prelude = lengths + struct.pack(">I", crc32(lengths))
    checksum = crc32(payload, crc32(headers, crc32(prelude)))
    return b"".join((prelude, headers, payload, struct.pack(">I", checksum)))
