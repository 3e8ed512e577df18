"""The worker's end of a lane against the real libzmq: what one of them sends, the other one receives."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastlam import limits
from fastlam.core.channel import Channel, ChannelError
from fastlam.wire.frames import PROTOCOL_VERSION, Invoke, Ready, Result, Stop, Task, Tasks


class Lane:
    """A libzmq PAIR socket and a Channel, connected as launcher and worker connect them."""

    def __init__(self, directory: Path, kind: int = zmq.PAIR) -> None:
        from fastlam.core.dispatcher import Dispatcher, Environment, Target

        path = str(directory / "lane")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.dispatcher = Dispatcher(None)
        self.slots_fd = os.memfd_create("slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.environment = Environment(self.dispatcher, Target("lane", None), 1)
        self.environment.attach_slots(self.slots_fd, limits.SLOT_MIRROR_BYTES)
        self.context = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 20_000)
        self.socket.connect(f"ipc://{path}")

    def channel(self) -> Channel:
        return Channel(self.listener.fileno(), self.slots_fd)

    def close(self) -> None:
        self.context.destroy(linger=0)
        self.listener.close()
        os.close(self.slots_fd)
        self.dispatcher.close()


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Lane]:
    lane = Lane(tmp_path)
    yield lane
    lane.close()


def header_of(message: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(message[:4], "little")
    return message[4 : 4 + size], message[4 + size :]


def framed(frame: Any, payload: bytes = b"") -> bytes:
    import msgspec

    header = msgspec.msgpack.encode(frame)
    return len(header).to_bytes(4, "little") + header + payload


SIZES = [0, 1, 100, 255, 256, 257, 4000, 4096, 5000, 65_535, 65_536, 70_000, 1_000_000, 6_291_556]


@pytest.mark.parametrize("size", SIZES)
def test_sizes_both_ways(lane: Lane, size: int) -> None:
    channel = lane.channel()
    payload = os.urandom(size)
    lane.socket.send(framed(Invoke(0, "id", 1, "arn"), payload))
    frame, received = channel.receive()
    assert frame == Invoke(0, "id", 1, "arn")
    assert received == payload
    done = threading.Thread(target=lambda: channel.send(Result(0, 1, 2, 3, 4), payload))
    done.start()
    _, answered = header_of(lane.socket.recv())
    done.join()
    assert answered == payload


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.binary(max_size=5000), max_size=8))
def test_buffers_are_sent_one_behind_the_other(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    lane = Lane(tmp_path_factory.mktemp("lane"))
    try:
        lane.channel().send(Ready(PROTOCOL_VERSION, 1, 2, 3), [memoryview(part) for part in parts])
        _, payload = header_of(lane.socket.recv())
        assert payload == b"".join(parts)
    finally:
        lane.close()


def test_more_buffers_than_one_call_takes(lane: Lane) -> None:
    channel = lane.channel()
    channel.send(Ready(PROTOCOL_VERSION, 1, 2, 3), [b"%d," % number for number in range(3000)])
    assert header_of(lane.socket.recv())[1] == b"".join(b"%d," % number for number in range(3000))


def test_many_messages_in_a_row_keep_their_order(lane: Lane) -> None:
    channel = lane.channel()
    for number in range(5000):
        lane.socket.send(framed(Task(number), b"x" * (number % 700)))
    for number in range(5000):
        frame, payload = channel.receive()
        assert (frame.slot, len(payload)) == (number, number % 700)
        channel.send(Result(number, 0, 0, 0, 0), payload)
    for number in range(5000):
        assert len(header_of(lane.socket.recv())[1]) == number % 700


def test_all_frames_for_an_environment_are_understood(lane: Lane) -> None:
    channel = lane.channel()
    for frame in (Stop(), Tasks([1, 2], [3, 4]), Invoke(0, "r", 5, "a", "t", "{}", "tenant", "{}")):
        lane.socket.send(framed(frame, b"1234567"))
        assert channel.receive() == (frame, b"1234567")


def test_the_end_of_the_dispatcher_is_an_error(lane: Lane) -> None:
    channel = lane.channel()
    lane.context.destroy(linger=0)
    with pytest.raises(ChannelError, match="lane to the dispatcher is broken"):
        channel.receive()


@pytest.mark.parametrize("message", [b"", b"abc", b"\xff\xff\xff\xffabc", b"\x01\x00\x00\x00\xc1"])
def test_what_is_no_frame_is_an_error(lane: Lane, message: bytes) -> None:
    channel = lane.channel()
    lane.socket.send(message)
    with pytest.raises(ChannelError, match="frame"):
        channel.receive()


def test_a_message_in_parts_is_an_error(lane: Lane) -> None:
    channel = lane.channel()
    lane.socket.send_multipart([b"one", b"two"])
    with pytest.raises(ChannelError, match="Protocol error"):
        channel.receive()
