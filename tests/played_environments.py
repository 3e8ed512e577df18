"""Execution environments without processes: the test itself plays the workers, over real rings, socket pairs and slot
tables.

`Stage` is the launcher of a real dispatcher, which the calling thread drives; `Played` is the worker's end of one
environment, on the lane that FASTLAM_LANE names. Nothing here takes time: what a played worker has sent is there when
the dispatcher looks.
"""

from __future__ import annotations

import itertools
import mmap
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgspec

from fastlam.config import lane_kind
from fastlam.core.dispatcher import (
    AccountPool,
    Dispatcher,
    Environment,
    FunctionPool,
    Invocation,
    Target,
)
from fastlam.dispatch.faults import Faults
from fastlam.limits import FRAME_BYTES_MAX
from fastlam.sandbox.lanes import lanes_of_kind
from fastlam.wire.frames import PROTOCOL_VERSION, Frame, Ready, Result, Task, TaskResult, ToEnvironment
from played_rings import BY_SOCKET, FRAME, INVOKE, TASK, Rings, invoke_of

# The layout of fl_slots.c: a line of header, then the slots, each a line of control words and the room for its reply.
LINE_BYTES: Final = 64
NOT_MIRRORED: Final = 0xFFFFFFFF
QUEUED, STARTED, DONE = 1, 2, 3
STALE_ONE: Final = 0x100

_decode = msgspec.msgpack.Decoder(ToEnvironment).decode


class SlotTable:
    """The worker's side of a slot table, for a worker in the dispatcher's own thread: nothing here need be atomic."""

    def __init__(self, fd: int, mirror_bytes: int) -> None:
        self.memory = mmap.mmap(fd, 0)
        self.mirror_bytes = mirror_bytes

    def _at(self, slot: int) -> int:
        return LINE_BYTES + slot * (LINE_BYTES + self.mirror_bytes)

    def claim(self, slot: int) -> bool:
        at = self._at(slot)
        (word,) = struct.unpack_from("<I", self.memory, at)
        if word >= STALE_ONE:
            struct.pack_into("<I", self.memory, at, word - STALE_ONE)
            return False
        if word != QUEUED:
            return False
        struct.pack_into("<I4xQ", self.memory, at, STARTED, time.monotonic_ns())
        return True

    def finish(self, slot: int, reply: bytes) -> None:
        at = self._at(slot)
        assert struct.unpack_from("<I", self.memory, at) == (STARTED,), "it has not begun"
        mirrored = len(reply) <= self.mirror_bytes
        struct.pack_into("<I", self.memory, at + 16, len(reply) if mirrored else NOT_MIRRORED)
        if mirrored:
            self.memory[at + LINE_BYTES : at + LINE_BYTES + len(reply)] = reply
        struct.pack_into("<I", self.memory, at, DONE)


class Peer:
    """The other end of a lane: ZMTP 3.0 by the letter of its specification, and nothing checked."""

    GREETING: Final = b"\xff" + bytes(7) + b"\x01\x7f\x03\x00NULL" + bytes(48)
    READY: Final = b"\x05READY\x0bSocket-Type\x00\x00\x00\x04PAIR"

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.setblocking(False)
        connection.sendall(self.GREETING + bytes([4, len(self.READY)]) + self.READY)
        said = len(self.GREETING) + 2 + len(self.READY)
        assert connection.recv(said) == self.GREETING + bytes([4, len(self.READY)]) + self.READY
        self.received = b""

    def send(self, *parts: bytes) -> None:
        self.send_raw(b"".join(zmtp(part, int(index < len(parts))) for index, part in enumerate(parts, 1)))

    def send_raw(self, data: bytes) -> None:
        """As much of it as the socket takes; of a lane that the dispatcher has closed, nothing."""
        with suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
            self.connection.sendall(data)

    def receive(self) -> bytes | None:
        """The next message if it is there, all of it."""
        with suppress(BlockingIOError, ConnectionResetError):
            while data := self.connection.recv(1 << 20):
                self.received += data
        if not self.received:
            return None
        head = 9 if self.received[0] & 2 else 2
        end = head + int.from_bytes(self.received[1:head], "big")
        assert len(self.received) >= end, "a message came only in part"
        body, self.received = self.received[head:end], self.received[end:]
        return body

    def close(self) -> None:
        self.connection.close()


class Played:
    """The worker's end of one environment."""

    def __init__(self, environment: Environment, peer: Peer, slots: SlotTable, rings: Rings | None) -> None:
        self.environment = environment
        self.peer = peer
        self.slots = slots
        self.rings = rings  # None: all frames go by the connection
        self._unsent = b""

    @property
    def state(self) -> str:
        state: str = self.environment.snapshot()["state"]
        return state

    def say(self, *parts: bytes) -> None:
        """One message as it stands, of so many parts. Of several there is no record: they go by the connection."""
        self.send_rest()
        if self.rings is None or len(parts) > 1:
            self.peer.send(*parts)
        else:
            assert self.rings.put_frame(parts[0]), "there is no room"

    def takes(self, frame: bytes) -> bool:
        """Sends one frame, as far as the lane takes it now; the next call sends the rest. False: not a byte of it."""
        if self.rings is not None:
            return self.rings.put_frame(frame)
        self.send_rest()
        if self._unsent:
            return False
        self._unsent = zmtp(frame)
        self.send_rest()
        return True

    def send_rest(self) -> None:
        """Of a frame that was taken in part."""
        with suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self.peer.connection.send(self._unsent) :]

    def pour(self, frame: bytes) -> int:
        """The frame, again and again, for as long as the lane takes it; how many bytes of such frames that is."""
        poured = 0
        while self.takes(frame):
            poured += len(frame)
        return poured

    def ready(self) -> None:
        self.say(message(Ready(PROTOCOL_VERSION, 1_000_000, 1000, 0)))

    def take(self) -> tuple[Any, bytes]:
        """The next frame, which must be there, and its payload."""
        data = self.peer.receive() if self.rings is None else self._take_record(self.rings)
        assert data is not None, "nothing was posted to this environment"
        end = 4 + int.from_bytes(data[:4], "little")
        return _decode(data[4:end]), data[end:]

    def _take_record(self, rings: Rings) -> bytes | None:
        content = rings.take()
        if content is None:
            return None
        kind = int.from_bytes(content[:4], "little")
        if kind == FRAME:
            return content[4:]
        if kind == BY_SOCKET:
            return self.peer.receive()
        if kind == INVOKE:
            return message(*invoke_of(content))
        assert kind == TASK
        return message(Task(int.from_bytes(content[4:8], "little")), content[8:])

    def begin(self) -> tuple[Any, bytes]:
        """Takes the next call and begins it."""
        frame, payload = self.take()
        assert self.slots.claim(frame.slot)
        return frame, payload

    def answer(self, slot: int, body: bytes, error_type: str = "", duration_ns: int = 1_000_000) -> None:
        """The end of an invocation that has begun."""
        self.reply(slot, Result(slot, duration_ns, 500_000, 2000, 0, error_type), body)

    def answer_task(self, slot: int, body: bytes, failed: bool = False) -> None:
        self.reply(slot, TaskResult(slot, 1_000_000, failed), body)

    def reply(self, slot: int, frame: Frame, body: bytes) -> None:
        data = message(frame, body)
        self.slots.finish(slot, data)
        self.say(data)

    def close(self) -> None:
        self.peer.close()
        self.slots.memory.close()
        if self.rings is not None:
            self.rings.close()


class Stage:
    """A launcher whose processes are `Played`, and the dispatcher that it serves; use `staged`."""

    def __init__(self, **options: Any) -> None:
        self.played: list[Played] = []  # in the order of their start
        self.refusal: OSError | None = None  # raised by every launch
        self.lanes = lanes_of_kind(lane_kind())
        self._numbers = itertools.count()
        self._dying: list[tuple[Environment, int]] = []
        self._death_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.dispatcher = Dispatcher(self, Faults(), **options)
        self.dispatcher.adopt()
        self.dispatcher.add_reader(self._death_fd, self._bury)
        self.account = AccountPool("000000000000", "us-east-1", 1000)

    # -- what the dispatcher asks of a launcher --------------------------------------------------

    def launch(self, environment: Environment) -> None:
        if self.refusal is not None:
            raise self.refusal
        peer, lane = socket.socketpair()
        lane.setblocking(False)
        slots_fd = os.memfd_create("slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        rings = None
        try:
            environment.attach_slots(slots_fd, self.lanes.mirror_bytes)
            if given := self.lanes.memory(environment):
                rings = Rings(*given)
            environment.attach_lane(lane.detach(), FRAME_BYTES_MAX, -1)
            slots = SlotTable(slots_fd, self.lanes.mirror_bytes)
            self.played.append(Played(environment, Peer(peer), slots, rings))
        finally:
            os.close(slots_fd)

    def kill(self, environment: Environment) -> bool:
        self.die(environment, int(signal.SIGKILL))
        return True

    def closed(self, environment: Environment, lane: Any) -> None:
        for played in self.played:
            if played.environment is environment:
                played.close()

    # -- what a test does ------------------------------------------------------------------------

    def die(self, environment: Environment, wait_status: int) -> None:
        """The environment's process is gone; the dispatcher hears of it when it next looks."""
        self._dying.append((environment, wait_status))
        os.eventfd_write(self._death_fd, 1)

    def _bury(self) -> None:
        os.eventfd_read(self._death_fd)
        dying, self._dying = self._dying, []
        for environment, wait_status in dying:
            environment.process_exited(wait_status, 0)

    def function(self, pool: FunctionPool | None = None, **options: Any) -> Target:
        name = f"f{next(self._numbers)}"
        return Target(name, None, pool or FunctionPool(self.account, name), **options)

    def call(self, target: Target, payload: bytes = b"{}") -> Invocation:
        """One call, handed over."""
        invocation = Invocation(target, payload)
        self.dispatcher.submit(invocation)
        self.drive()
        return invocation

    def drive(self) -> None:
        """Passes of the dispatcher until nothing is left for it to do."""
        self.dispatcher.drive_ready()
        while select.select([self.dispatcher.fileno()], [], [], 0)[0]:
            self.dispatcher.drive_ready()

    def serve(self, target: Target, payload: bytes, answer: bytes) -> Invocation:
        """A call that finds an honest worker, new if need be; it is done when this returns."""
        invocation = self.call(target, payload)
        played = next((one for one in self.played if one.environment.id == invocation.environment_id), None)
        if played is None:
            played = self.played[-1]
            played.ready()
            self.drive()
        frame, event = played.begin()
        assert (frame.request_id, event) == (invocation.request_id, payload)
        played.answer(frame.slot, answer)
        self.drive()
        return invocation

    def dismiss(self, target: Target) -> None:
        """Gives up what waits for the target, and kills all of its environments."""
        self.dispatcher.take_waiting(target)
        self.dispatcher.dismiss(target, True)
        self.drive()
        assert self.dispatcher.environments_of(target) == []
        self.played = [one for one in self.played if one.environment.target is not target]

    def close(self) -> None:
        self.dispatcher.close()
        os.close(self._death_fd)


@contextmanager
def staged(**options: Any) -> Iterator[Stage]:
    """A stage; `options` are the dispatcher's."""
    stage = Stage(**options)
    try:
        yield stage
    finally:
        stage.close()


def message(frame: Frame | list[Any], payload: bytes = b"") -> bytes:
    """A frame as it stands in a message; a list where no frame may be."""
    header = msgspec.msgpack.encode(frame)
    return len(header).to_bytes(4, "little") + header + payload


def zmtp(body: bytes, flags: int = 0) -> bytes:
    """A message part as ZMTP 3 writes it: 1 means that more follow, 4 that it is a command."""
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | 2]) + struct.pack(">Q", len(body)) + body
