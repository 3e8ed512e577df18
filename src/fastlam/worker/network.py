"""Network namespaces: one in which there is `lo`, and nothing else to reach.

Sockets that are made in it belong to it for good, wherever they go: a door is a socket that listens there and is
accepted from outside.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import Final

from fastlam.limits import DOOR_BACKLOG
from fastlam.worker import kernel

_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_IFREQ: Final = struct.Struct("16sH22x")  # name and flags, of struct ifreq


def make(doors: list[tuple[str, int]]) -> list[int]:
    """Moves this thread into a new one with `lo` up; its descriptor, then those of sockets that listen at the doors."""
    kernel.unshare(kernel.CLONE_NEWNET)
    _bring_up("lo")
    made = [os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)]
    try:
        made += [_listen(door) for door in doors]
    except OSError:
        for fd in made:
            os.close(fd)
        raise
    return made


def enter(namespace_fd: int) -> None:
    """Takes over the descriptor."""
    kernel.setns(namespace_fd, kernel.CLONE_NEWNET)
    os.close(namespace_fd)


def _bring_up(name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        request = fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(name.encode(), 0))
        flags = _IFREQ.unpack(request)[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(name.encode(), flags | _IFF_UP))


def _listen(door: tuple[str, int]) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets have it from here
        listener.bind(door)
        listener.listen(DOOR_BACKLOG)
        return listener.detach()
