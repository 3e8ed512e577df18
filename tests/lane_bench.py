"""A dispatcher whose environments are played by the test: it holds the other end of each lane, no process is involved."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import zmq

from fastlam import limits
from fastlam.core.dispatcher import AccountPool, Dispatcher, Environment, FunctionPool, Invocation, Target
from fastlam.core.native_path import zmq_module_path
from fastlam.dispatch.faults import Faults
from fastlam.wire import frames

WAIT_SECONDS = 30


def encoded(header: Any, payload: bytes = b"") -> bytes:
    """One frame; `header` is a frame struct or its bytes."""
    data = header if isinstance(header, bytes) else msgspec.msgpack.encode(header)
    return struct.pack("<I", len(data)) + data + payload


class LaneBench:
    """A launcher and its dispatcher. `peers` are the environments' ends, by environment id."""

    def __init__(self, native: bool = True) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="lanes-")
        self.context = zmq.Context()
        self.peers: dict[int, zmq.Socket[bytes]] = {}
        self.environments: dict[int, Environment] = {}
        self.dispatcher = Dispatcher(self, Faults(), zmq_module_path=zmq_module_path() if native else None)

    # -- what a launcher does ---------------------------------------------------------------------

    def launch(self, environment: Environment) -> None:
        endpoint = f"ipc://{Path(self._directory.name, str(environment.id))}"
        peer, lane = self._pair(), self._pair()
        peer.bind(endpoint)
        lane.setsockopt(zmq.MAXMSGSIZE, limits.FRAME_BYTES_MAX)
        lane.connect(endpoint)
        slots = os.memfd_create("slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        environment.attach_slots(slots, limits.SLOT_MIRROR_BYTES)
        os.close(slots)
        environment.attach_lane(lane, -1)
        self.peers[environment.id] = peer
        self.environments[environment.id] = environment

    def _pair(self) -> zmq.Socket[bytes]:
        made = self.context.socket(zmq.PAIR)
        for option in (zmq.LINGER, zmq.SNDHWM, zmq.RCVHWM):
            made.setsockopt(option, 0)
        return made

    def kill(self, environment: Environment) -> bool:
        """The process is gone at once."""
        environment.process_exited(9, 0)
        return True

    def closed(self, environment: Environment, lane: Any) -> None:
        lane.close(0)
        self.peers.pop(environment.id).close(0)
        del self.environments[environment.id]

    # -- what a test does -------------------------------------------------------------------------

    def function(self, name: str = "f", timeout_ms: int = 600_000) -> Target:
        return Target(name, None, FunctionPool(AccountPool("0" * 12, "us-east-1", 1000), name), timeout_ms)

    def submit(self, target: Target, payload: bytes = b"{}") -> Invocation:
        call = Invocation(target, payload)
        self.dispatcher.submit(call)
        return call

    def ready(self, identifier: int) -> None:
        self.peers[identifier].send(encoded(frames.Ready(frames.PROTOCOL_VERSION, 5, 5, 0)))

    def received(self, identifier: int) -> tuple[Any, bytes]:
        """The next frame that the dispatcher has sent to this environment."""
        peer = self.peers[identifier]
        while not peer.poll(1):
            self.drive()
        data = peer.recv()
        (size,) = struct.unpack_from("<I", data)
        return msgspec.msgpack.decode(data[4 : 4 + size], type=frames.ToEnvironment), data[4 + size :]

    def drive(self) -> None:
        """One pass."""
        self.dispatcher.drive_ready()

    def drive_until(self, condition: Any) -> bool:
        return bool(self.dispatcher.drive_until(condition, WAIT_SECONDS))

    def close(self) -> None:
        self.dispatcher.close()
        with contextlib.suppress(zmq.ZMQError):
            self.context.destroy(0)
        self._directory.cleanup()
