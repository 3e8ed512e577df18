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
# rtnetlink(7), tc-tbf(8), and of linux/pkt_sched.h struct tc_tbf_qopt.
_NETLINK_ROUTE: Final = 0
_RTM_NEWQDISC: Final = 36
_REPLACE: Final = 0x001 | 0x004 | 0x100 | 0x400  # NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE, NLM_F_CREATE
_NLMSGHDR: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_TCMSG: Final = struct.Struct("=B3xiIII")  # family, interface, handle, parent, info
_ROOT: Final = 0xFFFFFFFF  # TC_H_ROOT
_TCA_KIND: Final = 1
_TCA_OPTIONS: Final = 2
_TCA_TBF_PARMS: Final = 1
_TCA_TBF_RATE64: Final = 4
_TCA_TBF_BURST: Final = 6
_TBF: Final = struct.Struct("=BBHhHI 12x III")  # of the rate: -, link layer, -, -, -, bytes/s; limit, buffer, mtu
_LINKLAYER_ETHERNET: Final = 1
_BURST_BYTES_MIN: Final = 1 << 17  # two of the largest packets of `lo`
_BURST_SECONDS: Final = 0.02
_QUEUE_BYTES_MIN: Final = 1 << 20
_QUEUE_SECONDS: Final = 0.2
_ANSWER_BYTES: Final = 4096
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


def hold(name: str, bytes_per_second: int) -> None:
    """What is sent over the interface is no more than that from now on, by a token bucket; for `lo` that is what is
    received, too. Raises OSError.
    """
    burst_bytes = max(_BURST_BYTES_MIN, round(bytes_per_second * _BURST_SECONDS))
    queue_bytes = max(_QUEUE_BYTES_MIN, round(bytes_per_second * _QUEUE_SECONDS))
    rate = min(bytes_per_second, 0xFFFFFFFF)
    options = _attribute(_TCA_TBF_PARMS, _TBF.pack(0, _LINKLAYER_ETHERNET, 0, 0, 0, rate, queue_bytes, 0, 0))
    options += _attribute(_TCA_TBF_BURST, struct.pack("=I", burst_bytes))
    if bytes_per_second > rate:
        options += _attribute(_TCA_TBF_RATE64, struct.pack("=Q", bytes_per_second))
    body = _TCMSG.pack(0, socket.if_nametoindex(name), 0, _ROOT, 0)
    body += _attribute(_TCA_KIND, b"tbf\0") + _attribute(_TCA_OPTIONS, options)
    header = _NLMSGHDR.pack(_NLMSGHDR.size + len(body), _RTM_NEWQDISC, _REPLACE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        netlink.send(header + body)
        (status,) = struct.unpack_from("=i", netlink.recv(_ANSWER_BYTES), _NLMSGHDR.size)
    if status:
        raise OSError(-status, f"{os.strerror(-status)} (queueing discipline tbf)")


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


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
