"""Namespaces that lie ready before somebody enters them: a process of their own, the first of its pids, holds them.

Making them takes the kernel longer than anything else of a cold start; entering them takes microseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, NoReturn

from fastlam.core.channel import hold_namespaces, settle_child
from fastlam.wire import control

PATIENCE_SECONDS: Final = 20.0  # for an answer of somebody who has nothing else to do
OK: Final = b"+"
FAILED: Final = b"!"
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid, as the kernel has seen them
_DESCRIPTOR: Final = struct.Struct("i")


class Namespaces(NamedTuple):
    """Those of one environment, and the process that holds them."""

    first: int
    descriptors: list[int]  # one for each kind that was asked for, in that order
    further: list[int]  # what was prepared beside them

    def close(self) -> None:
        for descriptor in (*self.descriptors, *self.further):
            os.close(descriptor)


def make_held(
    kinds: Sequence[str], prepare: Callable[[], Sequence[int] | None], furnish: Callable[[], None]
) -> Namespaces:
    """Namespaces of these kinds (names below /proc/self/ns). `prepare` runs in a helper, and unshares the pids at
    least; it may return further descriptors. `furnish` runs in the helper's child, which is the first of the namespaces
    and holds them all. That process is this one's child, if this is a subreaper. Raises OSError or EOFError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with theirs:
            helper = os.fork()
            if helper == 0:
                _hold(theirs, kinds, prepare, furnish)
        os.waitpid(helper, 0)
        said, descriptors, first = receive(ours)
        if said != OK or len(descriptors) < len(kinds):
            for descriptor in descriptors:
                os.close(descriptor)
            raise OSError(f"no namespaces: {said[1:].decode(errors='replace')}")
        ours.send(OK)
    return Namespaces(first, descriptors[: len(kinds)], descriptors[len(kinds) :])


def _hold(
    report: socket.socket,
    kinds: Sequence[str],
    prepare: Callable[[], Sequence[int] | None],
    furnish: Callable[[], None],
) -> NoReturn:
    """In the helper, and in its child: the helper ends first, so that the other is the maker's child."""
    try:
        signal.set_wakeup_fd(-1)
        further = prepare() or ()
        if os.fork() == 0:
            furnish()
            descriptors = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in kinds]
            socket.send_fds(report, [OK], [*descriptors, *further])
            if report.recv(1) == OK:
                settle_child()
                hold_namespaces()
    except BaseException as error:  # noqa: BLE001 - nothing may climb back into the maker
        with contextlib.suppress(OSError):
            report.send(FAILED + str(error).encode(errors="replace")[:1024])
    finally:
        os._exit(0)


def receive(report: socket.socket) -> tuple[bytes, list[int], int]:
    """What it says, with which descriptors, and its pid here. Raises OSError, or EOFError if it says nothing at all."""
    if not select.select([report], [], [], PATIENCE_SECONDS)[0]:
        raise EOFError("no answer")
    room = socket.CMSG_SPACE(control.DESCRIPTORS_MAX * _DESCRIPTOR.size) + socket.CMSG_SPACE(_CREDENTIALS.size)
    said, attached, _, _ = report.recvmsg(control.PACKET_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    pid = -1
    for level, kind, data in attached:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(data) - len(data) % _DESCRIPTOR.size
            descriptors += [number for (number,) in _DESCRIPTOR.iter_unpack(data[:whole])]
        elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid = _CREDENTIALS.unpack(data)[0]
    if not said:
        raise OSError("it ended without a word")
    return said, descriptors, pid
