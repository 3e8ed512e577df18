"""User namespaces, in which an ordinary user's processes may raise walls."""

from __future__ import annotations

import os
import signal
import socket
from typing import Final

from fastlam.worker import kernel

USER_ID: Final = 993  # of sbx_user1051, in Lambda's images
GROUP_ID: Final = 990


def enter_new() -> None:
    """The calling process has all privileges in it, and none outside; it is Lambda's user there."""
    outer = os.getuid(), os.getgid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    _map(USER_ID, GROUP_ID, *outer)


def make(socket_fd: int) -> None:
    """Makes one for others to enter: who holds the descriptor that comes by the socket holds the namespace."""
    enter_new()
    namespace = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    with socket.socket(fileno=socket_fd) as owner:
        socket.send_fds(owner, [b"+"], [namespace])
    os.close(namespace)


def enter(namespace_fd: int) -> None:
    """Enters one that this user has made, as a process with one thread; takes over the descriptor."""
    kernel.setns(namespace_fd, kernel.CLONE_NEWUSER)
    os.close(namespace_fd)


def enter_own() -> None:
    """One within the zygote's: the kernel's limit of processes then counts those of one environment."""
    uid, gid = os.getuid(), os.getgid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    _map(uid, gid, uid, gid)


def enter_for(uid: int) -> None:
    """One that a process without privileges, if it is `uid`'s (negative: this user's), may enter and so has all of them
    in; and pids for the children. The kernel gives them to who owns the namespace.
    """
    if uid >= 0:
        kernel.keep_capabilities()
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # changing the user has closed /proc/self to it
        kernel.raise_capabilities()  # systems that refuse namespaces to users are asked by one that is more
    own = os.getuid(), os.getgid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID)
    _map(*own, *own)


def continue_as_first_process() -> None:
    """Returns in a child, the first process of the pid namespace that was unshared; this process waits for it and ends
    as it does. It holds no descriptor of the child's.
    """
    pid = os.fork()
    if pid == 0:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != 0 and os.getpid() == 1:  # a parent outside shows as 0
            os._exit(1)
        return
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) != signal.SIGKILL else None
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def _map(uid: int, gid: int, outer_uid: int, outer_gid: int) -> None:
    for name, content in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, content.encode())
        finally:
            os.close(fd)
