"""The system calls that a function may not make, as a seccomp filter.

A deny list: what runs in Lambda must run here, and Lambda's own list is not published. It holds what an unprivileged
program has no use for and what has let programs out of containers: namespaces and mounts, other processes' memory,
kernel modules, keys, tracing, bpf, io_uring, the clock, and the raw kinds of sockets. A refused call gets EPERM, one
of another architecture's table kills; clone3, whose flags a filter cannot see, gets ENOSYS, and C libraries then use
clone.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Container
from typing import Final

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_KILL_PROCESS: Final = 0x80000000
_EPERM: Final = 1
_ENOSYS: Final = 38
_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT: Final = 0x40000000

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_NR: Final = 0  # offsets in struct seccomp_data
_ARCH: Final = 4
_FIRST_ARGUMENT: Final = 16  # its lower half, on little-endian machines
_SECOND_ARGUMENT: Final = 24
_THIRD_ARGUMENT: Final = 32
_FOURTH_ARGUMENT: Final = 40

# Every CLONE_NEW* flag but CLONE_NEWTIME, which shares its bit with the exit signal and is unshare's alone.
_NAMESPACE_FLAGS: Final = 0x7E020000
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
_AF_UNIX: Final = 1
_AF_INET: Final = 2
_AF_INET6: Final = 10
_AF_NETLINK: Final = 16
_SOCK_STREAM: Final = 1
_SOCKET_TYPE_MASK: Final = 0xF  # the rest of that argument is flags
_IPPROTO_TCP: Final = 6
_MSG_FASTOPEN: Final = 0x20000000
_REFUSED_FAMILIES: Final = (17, 38, 40, 44)  # AF_PACKET, AF_ALG, AF_VSOCK, AF_XDP

# By name: numbers on x86-64 and on arm64 (-1: has none), from the kernel's tables.
_DENIED: Final = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "settimeofday": (164, 170),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, -1),
    "iopl": (172, -1),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "open_tree": (428, 428),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
_CLONE: Final = (56, 220)
_CLONE3: Final = (435, 435)
_IOCTL: Final = (16, 29)
_SOCKET: Final = (41, 198)
_SENDTO: Final = (44, 206)
_SENDMSG: Final = (46, 211)
_SENDMMSG: Final = (307, 269)


def filter_program(machine: str = "", *, tcp_only: bool = False, allowed: Container[str] = ()) -> bytes:
    """The filter for this machine, or the one named; raises OSError where its system calls are not known. `tcp_only`
    leaves TCP as the only protocol, besides unix sockets and the kernel's own netlink, and lets no data go ahead of a
    connection: what landlock then says about ports is all there is to say. `allowed` are names that it lets pass for
    once.
    """
    machine = machine or platform.machine()
    if machine not in _AUDIT_ARCH:
        raise OSError(_ENOSYS, f"seccomp: the system calls of {machine} are not known")
    column = list(_AUDIT_ARCH).index(machine)
    instructions: list[tuple[int, int, int, int]] = []

    def add(code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        instructions.append((code, if_true, if_false, value))

    def refuse_if(argument: int, code: int, values: tuple[int, ...]) -> None:
        """The rest of the program for a call of which only some arguments are refused."""
        add(_LOAD, argument)
        for value in values:
            add(code, value, 0, 1)
            add(_RETURN, _ERRNO | _EPERM)
        add(_RETURN, _ALLOW)

    add(_LOAD, _ARCH)
    add(_EQUAL, _AUDIT_ARCH[machine], 1, 0)
    add(_RETURN, _KILL_PROCESS)
    add(_LOAD, _NR)
    if machine == "x86_64":
        add(_AT_LEAST, _X32_BIT, 0, 1)
        add(_RETURN, _KILL_PROCESS)
    add(_EQUAL, _CLONE3[column], 0, 1)
    add(_RETURN, _ERRNO | _ENOSYS)
    if tcp_only:
        # Each test goes on to the next, or to one of the two answers at the end.
        add(_EQUAL, _SOCKET[column], 0, 13)
        add(_LOAD, _FIRST_ARGUMENT)
        add(_EQUAL, _AF_UNIX, 10, 0)
        add(_EQUAL, _AF_NETLINK, 9, 0)
        add(_EQUAL, _AF_INET, 1, 0)
        add(_EQUAL, _AF_INET6, 0, 6)
        add(_LOAD, _SECOND_ARGUMENT)
        add(_AND, _SOCKET_TYPE_MASK)
        add(_EQUAL, _SOCK_STREAM, 0, 3)
        add(_LOAD, _THIRD_ARGUMENT)
        add(_EQUAL, 0, 2, 0)
        add(_EQUAL, _IPPROTO_TCP, 1, 0)
        add(_RETURN, _ERRNO | _EPERM)
        add(_RETURN, _ALLOW)
        sends = ((_SENDTO, _FOURTH_ARGUMENT), (_SENDMSG, _THIRD_ARGUMENT), (_SENDMMSG, _FOURTH_ARGUMENT))
        for numbers, argument in sends:
            add(_EQUAL, numbers[column], 0, 4)
            refuse_if(argument, _ANY_BIT, (_MSG_FASTOPEN,))
    for numbers, argument, code, values in (
        (_CLONE, _FIRST_ARGUMENT, _ANY_BIT, (_NAMESPACE_FLAGS,)),
        (_SOCKET, _FIRST_ARGUMENT, _EQUAL, _REFUSED_FAMILIES),
        (_IOCTL, _SECOND_ARGUMENT, _EQUAL, (_TIOCSTI, _TIOCLINUX)),
    ):
        add(_EQUAL, numbers[column], 0, 2 * len(values) + 2)
        refuse_if(argument, code, values)
    denied = sorted(
        numbers[column] for name, numbers in _DENIED.items() if numbers[column] >= 0 and name not in allowed
    )
    for index, number in enumerate(denied):
        add(_EQUAL, number, len(denied) - index, 0)
    add(_RETURN, _ALLOW)
    add(_RETURN, _ERRNO | _EPERM)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
