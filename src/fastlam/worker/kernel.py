"""The system calls of the walls that Python 3.11 has no function for. Each raises OSError with the call's name."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import struct
from collections.abc import Iterable
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
for _name in ("mount", "prctl", "sethostname", "setns", "syscall", "umount2", "unshare"):
    getattr(_libc, _name)  # looked for here, once, and not by every worker

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
_MNT_DETACH: Final = 2
MOUNT_ATTR_RDONLY: Final = 1
MOUNT_ATTR_NOSUID: Final = 2
MOUNT_ATTR_NODEV: Final = 4
_AT_RECURSIVE: Final = 0x8000
_AT_FDCWD: Final = -100
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_CAPBSET_DROP: Final = 24
PR_SET_SECCOMP: Final = 22
PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
SECCOMP_MODE_FILTER: Final = 2

# The same on every architecture, being newer than the common table of system calls.
_SYS_OPEN_TREE: Final = 428
_SYS_MOVE_MOUNT: Final = 429
_SYS_FSOPEN: Final = 430
_SYS_FSCONFIG: Final = 431
_SYS_FSMOUNT: Final = 432
_SYS_MOUNT_SETATTR: Final = 442
_SYS_LANDLOCK_CREATE_RULESET: Final = 444
_SYS_LANDLOCK_ADD_RULE: Final = 445
_SYS_LANDLOCK_RESTRICT_SELF: Final = 446
_SYS_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}.get(platform.machine(), -1)
_SYS_CAPGET: Final = {"x86_64": 125, "aarch64": 90}.get(platform.machine(), -1)
_SYS_CAPSET: Final = {"x86_64": 126, "aarch64": 91}.get(platform.machine(), -1)

_CAPABILITY_VERSION_3: Final = 0x20080522


def _check(result: int, call: str, detail: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}{f' {detail}' if detail else ''}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare", f"{flags:#x}")


def setns(fd: int, kind: int) -> None:
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2); an empty text stands for none."""
    _check(
        _libc.mount(_text(source), _text(target), _text(kind), ctypes.c_ulong(flags), _text(options)), "mount", target
    )


def restrict_mount(path: str, attributes: int, *, recursive: bool = True) -> None:
    """Adds attributes (MOUNT_ATTR_*) to the mount at the path, and to those below it; takes none away."""
    change = struct.pack("QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    result = _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, _text(path), flags, change, len(change))
    _check(result, "mount_setattr", path)


def copy_mount(path: str) -> int:
    """A descriptor of a second mount of what is mounted at the path: it is nowhere, and outlives the first one."""
    return _check(
        _libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, _text(path), _OPEN_TREE_CLONE | os.O_CLOEXEC), "open_tree", path
    )


def attach_mount(descriptor: int, target: str) -> None:
    """Mounts what is mounted nowhere; the descriptor stays the caller's."""
    result = _libc.syscall(_SYS_MOVE_MOUNT, descriptor, b"", _AT_FDCWD, _text(target), _MOVE_MOUNT_F_EMPTY_PATH)
    _check(result, "move_mount", target)


def unmount(path: str) -> None:
    """At once, and for good when nobody uses it any more."""
    _check(_libc.umount2(_text(path), _MNT_DETACH), "umount2", path)


def new_mount(kind: str, options: Iterable[tuple[str, str]], attributes: int) -> int:
    """A descriptor of a new mount that is nowhere. An option without a value has an empty one; attributes are
    MOUNT_ATTR_*.
    """
    context = _check(_libc.syscall(_SYS_FSOPEN, _text(kind), _FSOPEN_CLOEXEC), "fsopen", kind)
    try:
        for name, value in options:
            command = _FSCONFIG_SET_STRING if value else _FSCONFIG_SET_FLAG
            _check(_libc.syscall(_SYS_FSCONFIG, context, command, _text(name), _text(value), 0), "fsconfig", name)
        _check(_libc.syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0), "fsconfig", kind)
        return _check(_libc.syscall(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes), "fsmount", kind)
    finally:
        os.close(context)


def pivot_root_here() -> None:
    """Makes the working directory, which is a mount, the root, and detaches the old one."""
    if _SYS_PIVOT_ROOT < 0:
        raise OSError(38, f"pivot_root: its number on {platform.machine()} is not known")
    _check(_libc.syscall(_SYS_PIVOT_ROOT, b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount2")


def prctl(option: int, value: int = 0, third: int = 0) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(third), 0, 0), "prctl", str(option))


def drop_bounding_set() -> None:
    """No program that is executed from now on can have a capability, whatever its file says."""
    for capability in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            if ctypes.get_errno() == 22:  # beyond the last one that this kernel has
                return
            _check(-1, "prctl", "PR_CAPBSET_DROP")


def drop_capabilities() -> None:
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.syscall(_SYS_CAPSET, header, bytes(24)), "capset")


def keep_capabilities() -> None:
    """The next change of the user takes none of the permitted ones away."""
    prctl(PR_SET_KEEPCAPS, 1)


def raise_capabilities() -> None:
    """Uses all that are permitted."""
    low, high = _permitted_capabilities()
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.syscall(_SYS_CAPSET, header, struct.pack("IIIIII", low, low, 0, high, high, 0)), "capset")


def _permitted_capabilities() -> tuple[int, int]:
    """As sets of bits: numbers 0 to 31, and those above."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    _check(_libc.syscall(_SYS_CAPGET, header, data), "capget")
    low, high = (struct.unpack_from("III", data, 12 * half)[1] for half in (0, 1))
    return low, high


def become_user_with(uid: int, capabilities: Iterable[int]) -> None:
    """From root to another user, who keeps some of root's capabilities, as far as there are any, and hands them to what
    it executes.
    """
    keep_capabilities()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    wanted = sum(1 << number for number in capabilities)
    low, high = _permitted_capabilities()
    low, high = low & wanted, high & wanted >> 32
    kept = low | high << 32
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.syscall(_SYS_CAPSET, header, struct.pack("IIIIII", low, low, low, high, high, high)), "capset")
    for number in capabilities:
        if kept >> number & 1:
            prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def sethostname(name: str) -> None:
    data = name.encode()
    _check(_libc.sethostname(data, len(data)), "sethostname")


# Landlock (the kernel's Documentation/userspace-api/landlock.rst) ----------------------------------------------------

_WRITE_FILE: Final = 1 << 1
# Of directories: remove, and make of every kind; from the first version on.
_CHANGE_DIRECTORIES: Final = sum(1 << bit for bit in range(4, 13))
_REFER: Final = 1 << 13  # from version 2 on
_TRUNCATE: Final = 1 << 14  # 3
LANDLOCK_WITH_PORTS: Final = 4  # the version from which on it knows TCP ports
_BIND_TCP: Final = 1
_CONNECT_TCP: Final = 2
_SCOPE_ABSTRACT_UNIX_SOCKET: Final = 1  # 6
_SCOPE_SIGNAL: Final = 2  # 6
_RULE_PATH_BENEATH: Final = 1
_RULE_NET_PORT: Final = 2
_CREATE_RULESET_VERSION: Final = 1


def landlock_version() -> int:
    """0 where the kernel has none."""
    return max(0, int(_libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)))


def restrict(paths: Iterable[str], version: int, tcp_ports: Iterable[int] | None = None) -> None:
    """From now on this process, and all it starts, changes files below these paths only; it reaches abstract unix
    sockets, and sends signals, of its own kind only, where the kernel is new enough. With `tcp_ports` it connects to
    these ports alone, by TCP, and binds to none. Needs no_new_privs.
    """
    if tcp_ports is not None and version < LANDLOCK_WITH_PORTS:
        raise OSError(errno.ENOSYS, f"landlock: version {version} knows no TCP ports")
    rights = _WRITE_FILE | _CHANGE_DIRECTORIES
    rights |= (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    scoped = _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL if version >= 6 else 0
    attributes = struct.pack("QQQ", rights, 0 if tcp_ports is None else _BIND_TCP | _CONNECT_TCP, scoped)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _check(_libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, attributes, size, 0), "landlock_create_ruleset")
    try:
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                allowed = rights if os.path.isdir(path) else rights & (_WRITE_FILE | _TRUNCATE)
                rule = struct.pack("=Qi", allowed, fd)
                result = _libc.syscall(_SYS_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
                _check(result, "landlock_add_rule", path)
            finally:
                os.close(fd)
        for port in tcp_ports or ():
            rule = struct.pack("=QQ", _CONNECT_TCP, port)
            result = _libc.syscall(_SYS_LANDLOCK_ADD_RULE, ruleset, _RULE_NET_PORT, rule, 0)
            _check(result, "landlock_add_rule", f"port {port}")
        _check(_libc.syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


# seccomp -------------------------------------------------------------------------------------------------------------


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


@functools.cache
def prepare_filter(program: bytes) -> tuple[ctypes.Array[ctypes.c_char], _Program]:
    """What `install_filter` hands to the kernel, made once: making it costs a worker 100 KB of memory."""
    buffer = ctypes.create_string_buffer(program, len(program))
    return buffer, _Program(len(program) // 8, ctypes.addressof(buffer))


def install_filter(program: bytes) -> None:
    """Installs a seccomp filter of `struct sock_filter`s; needs no_new_privs."""
    _, header = prepare_filter(program)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header))


def _text(value: str) -> bytes | None:
    return os.fsencode(value) if value else None
