"""The messages of a streamed answer, byte for byte, and as AWS's own decoder reads them."""

from __future__ import annotations

import pytest
from botocore.eventstream import EventStreamBuffer, EventStreamMessage

from fastlam.wire.eventstream import invoke_complete, payload_chunk

HEADERS = {":message-type": "event"}
CHUNK = {":event-type": "PayloadChunk", ":content-type": "application/octet-stream", **HEADERS}
COMPLETE = {":event-type": "InvokeComplete", ":content-type": "application/json", **HEADERS}


def decoded(data: bytes) -> list[EventStreamMessage]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return list(buffer)


def test_a_chunk_is_what_the_service_sends() -> None:
    assert payload_chunk(b"hi").hex() == (
        "0000006c0000005ab25efdcf0b3a6576656e742d7479706507000c5061796c6f61644368756e6b0d3a636f6e74656e742d7479706507"
        "00186170706c69636174696f6e2f6f637465742d73747265616d0d3a6d6573736167652d747970650700056576656e7468691162e469"
    )


def test_the_end_is_what_the_service_sends() -> None:
    assert invoke_complete(b"{}").hex() == (
        "00000066000000541f56c8690b3a6576656e742d7479706507000e496e766f6b65436f6d706c6574650d3a636f6e74656e742d747970"
        "650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d747970650700056576656e747b7d7006d467"
    )


@pytest.mark.parametrize("payload", [b"", b"\0", b"x" * 255, bytes(range(256)) * 256, b"y" * 6_291_556])
def test_botocore_reads_a_chunk(payload: bytes) -> None:
    (message,) = decoded(payload_chunk(payload))
    assert (message.headers, message.payload) == (CHUNK, payload)
    assert list(message.headers) == list(CHUNK), "the order of the headers"


def test_botocore_reads_several_messages_in_any_pieces() -> None:
    data = payload_chunk(b"one") + payload_chunk(b"two") + invoke_complete(b'{"LogResult":"eA=="}')
    buffer = EventStreamBuffer()
    messages = []
    for index in range(len(data)):
        buffer.add_data(data[index : index + 1])
        messages += list(buffer)
    assert [message.payload for message in messages] == [b"one", b"two", b'{"LogResult":"eA=="}']
    assert messages[-1].headers == COMPLETE
