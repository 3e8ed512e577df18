"""The owner's end of an environment's lane.

``ring`` is the express lane: a pair of rings in shared memory (csrc/fl_express.h), beside a connection that carries
what is too long for them and tells by its end that the worker is gone. The others speak ZeroMQ's wire protocol on that
connection alone, and a worker cannot tell one from the other: ``zmq`` is the dispatcher's own end (csrc/fl_zmtp.h: no
other thread, and nothing is kept of a message that is refused), ``libzmq`` a PAIR socket of pyzmq, to compare with. It
costs about twice the time, and a hostile function can fill memory with the parts of one endless message, for which
libzmq has no bound.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastlam import limits
from fastlam.config import LANE_KINDS
from fastlam.errors import FastlamError

if TYPE_CHECKING:
    import zmq

    from fastlam.core.dispatcher import Environment


class Lanes(Protocol):
    """Makes lanes of one kind."""

    mirror_bytes: (
        int  # of a reply that the slot table keeps a copy of: where a worker's death would lose what it has sent
    )

    def memory(self, environment: Environment) -> list[int]:
        """Makes what the environment and its worker share; returns the descriptors that the worker is to be given: they
        are the caller's. Raises OSError.
        """

    def open(self, environment: Environment, path: str, frame_bytes_max: int, log_fd: int) -> None:
        """Connects to the socket at `path` and hands the lane over with `log_fd`, which is the environment's from then
        on whatever happens. Raises OSError.
        """

    def closed(self, lane: Any) -> None:
        """The dispatcher is done with what it was given."""

    def close(self) -> None:
        """After all lanes have been closed."""


class ZmtpLanes:
    """Connections that the dispatcher serves itself, and closes itself."""

    mirror_bytes = limits.SLOT_MIRROR_BYTES

    def memory(self, environment: Environment) -> list[int]:
        return []

    def open(self, environment: Environment, path: str, frame_bytes_max: int, log_fd: int) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lane:
            lane.setblocking(False)
            lane.connect(path)  # at once: the worker's socket listens, and nobody else connects to it
            environment.attach_lane(lane.detach(), frame_bytes_max, log_fd)

    def closed(self, lane: None) -> None:
        pass

    def close(self) -> None:
        pass


class RingLanes(ZmtpLanes):
    """Shared memory beside the connection. What has been published in a ring outlives the worker: nothing is copied."""

    mirror_bytes = 0

    def memory(self, environment: Environment) -> list[int]:
        given = [os.memfd_create("fastlam-express", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)]
        try:
            given.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            environment.attach_express(
                given[0], os.dup(given[1]), limits.EXPRESS_RING_BYTES, limits.EXPRESS_REGION_BYTES
            )
        except BaseException:
            for descriptor in given:
                os.close(descriptor)
            raise
        return given


# Of a stream whose reader is slow: libzmq reads no further, and the worker waits.
_UNREAD_MESSAGES_MAX: Final = 64


class LibzmqLanes:
    """PAIR sockets of one ZeroMQ context."""

    mirror_bytes = limits.SLOT_MIRROR_BYTES

    def __init__(self) -> None:
        import zmq

        self._zmq = zmq
        self._context = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, 65_000)

    def memory(self, environment: Environment) -> list[int]:
        return []

    def open(self, environment: Environment, path: str, frame_bytes_max: int, log_fd: int) -> None:
        zmq = self._zmq
        lane = self._context.socket(zmq.PAIR)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.SNDHWM, 0),
            (zmq.RCVHWM, _UNREAD_MESSAGES_MAX),
            (zmq.RECONNECT_IVL, -1),
            (zmq.MAXMSGSIZE, frame_bytes_max),
        ):
            lane.setsockopt(option, value)
        lane.connect(f"ipc://{path}")
        environment.attach_socket(lane, log_fd)

    def closed(self, lane: zmq.Socket[bytes] | None) -> None:
        if lane is not None:
            lane.close(0)

    def close(self) -> None:
        self._context.destroy(linger=0)


def lanes_of_kind(kind: str) -> Lanes:
    """The maker of lanes of that kind. Raises FastlamError for a word that is none of `config.LANE_KINDS`."""
    if kind not in LANE_KINDS:
        raise FastlamError(f"There is no lane {kind!r}: --lane and FASTLAM_LANE take {' or '.join(LANE_KINDS)}.")
    return _KINDS[kind]()


_KINDS: Final[dict[str, type[RingLanes | ZmtpLanes | LibzmqLanes]]] = {
    "ring": RingLanes,
    "zmq": ZmtpLanes,
    "libzmq": LibzmqLanes,
}
