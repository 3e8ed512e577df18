"""Descriptors that come with a packet."""

from __future__ import annotations

import socket
import struct
from typing import Final

_NUMBER: Final = struct.Struct("i")


def receive(sock: socket.socket, bytes_max: int, descriptors_max: int, flags: int = 0) -> tuple[bytes, list[int]]:
    """One packet, with the descriptors that are attached to it; programs that are executed do not inherit them. Raises
    OSError. (socket.recv_fds takes flags too, and up to Python 3.11 ignores them.)
    """
    room = socket.CMSG_LEN(descriptors_max * _NUMBER.size)
    data, attached, _, _ = sock.recvmsg(bytes_max, room, flags | socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, numbers in attached:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(numbers) - len(numbers) % _NUMBER.size
            descriptors += [number for (number,) in _NUMBER.iter_unpack(numbers[:whole])]
    return data, descriptors
