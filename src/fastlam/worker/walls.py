"""What stands between a function and the machine: raised in the forked worker before it opens a socket.

`raise_walls` does what the plan says, in an order that the kernel dictates: control groups while their files can still
be seen; namespaces, then mounts, while privileges last; then the user changes, and filters come last, since they would
refuse what went before. A wall that fails ends the worker: which ones this machine permits was found out before
(worker.probe), and none is left out silently.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from fastlam.wire.control import Mount, Walls
from fastlam.worker import kernel, network, user_namespace
from fastlam.worker.syscall_filter import filter_program

WRITABLE: Final = ("/tmp", "/mnt", "/dev", "/proc")  # what is writable there, by its own permissions, stays so
TMP: Final = "/tmp"
AHEAD: Final = ("mnt", "uts", "ipc")  # kinds of namespaces that can be made before it is known for whom
_HOST_NAME: Final = "169.254.100.1"
_ROOT_OPTIONS: Final = "mode=755,size=1m,nr_inodes=4096"
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS: Final = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
)

# A template's children enter namespaces that others have made for them, and then take the whole filter.
_OF_TEMPLATES: Final = ("setns",)

Tmp = tuple[int, int]  # descriptors that an order brings for /tmp, -1: none: Walls.given_tmp, Walls.keeps_tmp
_NO_TMP: Final = (-1, -1)

_filters: dict[tuple[bool, bool], bytes] = {}  # by whether only TCP is let through, and whether for a template


def prepare() -> None:
    """In the zygote: what every worker would otherwise make for itself."""
    with contextlib.suppress(OSError):
        for tcp_only, template in ((False, False), (True, False), (False, True)):
            _filters[tcp_only, template] = program = _program(tcp_only=tcp_only, template=template)
            kernel.prepare_filter(program)


def _program(*, tcp_only: bool, template: bool) -> bytes:
    return filter_program(tcp_only=tcp_only, allowed=_OF_TEMPLATES if template else ())


def raise_walls(walls: Walls, network_fd: int = -1, tmp: Tmp = _NO_TMP, ahead: bool = False) -> None:
    """Raises all walls of the plan, or OSError with the name of what was not permitted. Takes over the descriptors: of
    the network namespace, and of /tmp. `ahead`: after `enter_ahead`.
    """
    for _, step in steps(walls, network_fd, tmp, ahead=ahead):
        step()


def steps(
    walls: Walls, network_fd: int = -1, tmp: Tmp = _NO_TMP, *, ahead: bool = False
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The walls by their names, in their order; each must be raised before the next is asked for. Without a network
    namespace one is made where the plan wants one: by those who only try.
    """
    if walls.groups:
        yield "control groups", lambda: _join_groups(walls.groups)
    if ahead:  # the view of control groups is made by who has joined some
        yield "namespaces", lambda: kernel.unshare(walls.namespaces & kernel.CLONE_NEWCGROUP)
    elif walls.namespaces:
        yield "namespaces", lambda: kernel.unshare(walls.namespaces)
    if walls.own_network:
        yield "network", lambda: network.enter(network.make([])[0] if network_fd < 0 else network_fd)
    if walls.namespaces & kernel.CLONE_NEWUTS and not ahead:
        yield "host name", lambda: kernel.sethostname(_HOST_NAME)
    if walls.root:
        yield "root file system", lambda: _finish_root(walls, tmp) if ahead else _enter_root(walls, tmp)
    if walls.limits:
        yield "resource limits", lambda: _limit(walls.limits)
    if walls.own_user_namespace:
        yield "user namespace", user_namespace.enter_own
    if walls.namespaces & kernel.CLONE_NEWNS and not (ahead and _drops_ahead(walls)):
        yield "capabilities", kernel.drop_bounding_set
    if walls.uid >= 0:
        yield "user", lambda: _become(walls.uid)
    yield "no new privileges", _give_up_privileges
    # It goes by the files themselves, and those of a restored environment's /tmp will be others.
    if walls.landlock and not (walls.restores or walls.copied):
        yield "landlock", lambda: restrict_writing(walls)
    if walls.seccomp:
        yield "seccomp", lambda: _filter_calls(walls, template=walls.restores)


def furnish_ahead(walls: Walls) -> None:
    """In the first process of a pid namespace, before anybody needs it: the namespaces AHEAD, with what is the same in
    all environments.
    """
    kernel.unshare(walls.namespaces & ~kernel.CLONE_NEWCGROUP)
    kernel.sethostname(_HOST_NAME)
    _begin_root(walls)


def enter_ahead(namespaces: Iterable[int], walls: Walls) -> None:
    """In a worker that waits: what `furnish_ahead` has prepared, and walls that need not be known for whom they are.
    Takes over the descriptors.
    """
    for descriptor in namespaces:
        kernel.setns(descriptor, 0)
        os.close(descriptor)
    if _drops_ahead(walls):
        kernel.drop_bounding_set()


def _drops_ahead(walls: Walls) -> bool:
    """A user namespace of its own, which is made later, would begin with all capabilities again."""
    return not walls.own_user_namespace


def prepare_namespaces(walls: Walls) -> list[int]:
    """In a process with privileges, before it becomes the first of its namespaces: the root that a restored environment
    will have, which only privileges can reach together. What is left is done within the namespaces. Returns a
    descriptor: a copy of /tmp's mount; none where /tmp comes with the order.
    """
    kernel.unshare(kernel.CLONE_NEWNS)
    _enter_root(walls)
    copies = [] if walls.given_tmp else [kernel.copy_mount(TMP)]
    user_namespace.enter_for(walls.uid)
    return copies


def furnish_namespaces(walls: Walls) -> None:
    """In the first process of the namespaces: they are its user namespace's from now on."""
    kernel.unshare(walls.namespaces)
    if walls.namespaces & kernel.CLONE_NEWUTS:
        kernel.sethostname(_HOST_NAME)
    # Of its own processes; that of the keeper's lies below, out of sight.
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)


def enter_namespaces(descriptors: Iterable[int], walls: Walls) -> None:
    """In a child of a template: from the template's namespaces into those made for it, and there through the walls that
    are still missing. It has no privilege before, and none afterwards; the filter stays in force all the time.
    """
    for descriptor in descriptors:
        kernel.setns(descriptor, 0)
    kernel.drop_bounding_set()
    _give_up_privileges()
    if walls.landlock:
        restrict_writing(walls)
    if walls.seccomp:
        _filter_calls(walls, template=False)


def _filter_calls(walls: Walls, *, template: bool) -> None:
    tcp_only = walls.tcp_ports is not None
    kernel.install_filter(_filters.get((tcp_only, template)) or _program(tcp_only=tcp_only, template=template))


def take_tmp_there(namespace_fd: int, tmp: Tmp) -> None:
    """As `take_tmp`, in the mount namespace of a restored environment. Raises OSError."""
    if os.geteuid() == 0:
        with _within(namespace_fd):
            take_tmp(tmp, TMP)
        return
    pid = os.fork()  # an ordinary user's process would find no way back
    if pid == 0:
        status = 1
        try:
            kernel.setns(namespace_fd, kernel.CLONE_NEWNS)
            take_tmp(tmp, TMP)
            status = 0
        except OSError as error:
            status = error.errno or 1
        finally:
            os._exit(status)
    for descriptor in tmp:
        if descriptor >= 0:
            os.close(descriptor)
    _, waited = os.waitpid(pid, 0)
    if waited:
        raise OSError(os.waitstatus_to_exitcode(waited), "the mount of /tmp")


@contextlib.contextmanager
def _within(mounts_of: int) -> Iterator[None]:
    """For root: for a while in the mount namespace, or in that of a process (pidfd)."""
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    own_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.setns(mounts_of, kernel.CLONE_NEWNS)
        try:
            yield
        finally:
            kernel.setns(own_fd, kernel.CLONE_NEWNS)
            os.fchdir(root_fd)
            os.chroot(".")  # what was the root may have been none of the namespace's
    finally:
        os.close(own_fd)
        os.close(root_fd)


def open_there(pid: int, path: str) -> int:
    """A directory as the process sees it; for root. Raises OSError."""
    pidfd = os.pidfd_open(pid)
    try:
        with _within(pidfd):
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    finally:
        os.close(pidfd)


def restrict_writing(walls: Walls) -> None:
    kernel.restrict((*WRITABLE, *walls.writable), walls.landlock, walls.tcp_ports)


def _join_groups(groups: list[str]) -> None:
    for path in groups:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)


def _enter_root(walls: Walls, tmp: Tmp = _NO_TMP) -> None:
    """A small file system in memory with what the plan mounts into it takes the place of the machine's."""
    _begin_root(walls)
    _finish_root(walls, tmp)


def take_tmp(tmp: Tmp, target: str) -> None:
    """Mounts the one that came with the order, if any; who keeps what outlives this process gets a copy."""
    mount_fd, keeper_fd = tmp
    if mount_fd >= 0:
        kernel.attach_mount(mount_fd, target)
        os.close(mount_fd)
    if keeper_fd >= 0:
        copy = kernel.copy_mount(target)
        hand_over(keeper_fd, copy)
        os.close(copy)


def hand_over(keeper_fd: int, mount_fd: int) -> None:
    """The mount waits in the socket until somebody asks for it. Takes over the socket."""
    with socket.socket(fileno=keeper_fd) as keeper, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        socket.send_fds(keeper, [b"+"], [mount_fd])


def _begin_root(walls: Walls) -> None:
    """What is the same in all environments."""
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    root = walls.root
    kernel.mount("fastlam", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, _ROOT_OPTIONS)
    for target in walls.directories:
        _make_directory(root, target)
    for target, source in walls.links:
        _make_directory(root, os.path.dirname(target))
        os.symlink(source, root + target)
    for mount in walls.mounts:
        _mount(root, mount)
    _make_devices(root)


def _finish_root(walls: Walls, tmp: Tmp) -> None:
    root = walls.root
    for target, content in walls.files:
        _make_directory(root, os.path.dirname(target))
        fd = os.open(root + target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        os.write(fd, content)
        os.close(fd)
    for mount in walls.own_mounts:
        _mount(root, mount)
    take_tmp(tmp, root + TMP)
    os.chdir(root)
    kernel.pivot_root_here()
    kernel.restrict_mount("/", kernel.MOUNT_ATTR_RDONLY, recursive=False)


def _mount(root: str, mount: Mount) -> None:
    target = root + mount.target
    if mount.kind == "bind" and not os.path.isdir(mount.source):
        _make_directory(root, os.path.dirname(mount.target))
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    else:
        _make_directory(root, mount.target)
    if mount.kind == "bind":
        kernel.mount(mount.source, target, "", kernel.MS_BIND | kernel.MS_REC)
        attributes = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
        kernel.restrict_mount(target, attributes | (0 if mount.writable else kernel.MOUNT_ATTR_RDONLY))
    elif mount.kind == "proc":
        kernel.mount("proc", target, "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    elif mount.kind == "tmpfs":
        kernel.mount("tmpfs", target, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, mount.options)


def _make_devices(root: str) -> None:
    """The machine's own nodes: making new ones is not permitted to users."""
    _make_directory(root, "/dev")
    for name in _DEVICES:
        os.close(os.open(f"{root}/dev/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
        kernel.mount(f"/dev/{name}", f"{root}/dev/{name}", "", kernel.MS_BIND)
    for source, name in _DEVICE_LINKS:
        os.symlink(source, f"{root}/dev/{name}")


def _make_directory(root: str, path: str) -> None:
    """As makedirs below the root, which nobody else sees yet."""
    if os.path.isdir(root + path):
        return
    _make_directory(root, os.path.dirname(path))
    os.mkdir(root + path)
    os.chmod(root + path, 0o755)


def _limit(limits: list[tuple[int, int, int]]) -> None:
    for kind, soft, hard in limits:
        own_hard = resource.getrlimit(kind)[1]
        if own_hard != resource.RLIM_INFINITY:  # without privileges it cannot be raised
            soft, hard = (own_hard if value == -1 else min(value, own_hard) for value in (soft, hard))
        resource.setrlimit(kind, (soft, hard))


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _give_up_privileges() -> None:
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    # Changing the user has closed /proc/self to it, and has cleared the signal of the parent's death.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
