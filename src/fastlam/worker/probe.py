"""Tries the walls on a process of its own and says which of them this machine permits; started by module name.

The whole sequence is tried as an environment would go through it, since some systems permit the first call of a wall
and refuse a later one. What fails is left out of the next try.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

import msgspec

from fastlam.wire import control
from fastlam.wire.control import NAMESPACES, Criu, Findings, Probe, Walls, decode_probe, encode
from fastlam.worker import criu, criu_keeper, disk_maker, disks, keeper, kernel, network, start, walls
from fastlam.worker import user_namespace as namespace
from fastlam.worker.held import PATIENCE_SECONDS, Namespaces

_THREADS = b"2 threads"
_WITH_THREADS = (
    "import socket, sys, threading\n"
    "end = socket.socket(fileno=int(sys.argv[1]))\n"
    "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    "while True:\n"
    "    end.send(b'%d threads' % threading.active_count())\n"
    "    if not end.recv(1):\n"
    "        break\n"
)

# Each of these stands or falls with the others: half a namespace is a hole.
_OF_NAMESPACES = ("pid namespace", "namespaces", "host name", "root file system", "capabilities", "user namespace")


def try_walls(plan: Walls, *, user_namespace: bool, own_pids: bool) -> dict[str, str]:
    """What failed, and why: by the names of worker.walls.steps, all of the namespaces' as NAMESPACES."""
    missing: dict[str, str] = {}
    while True:
        failed, reason = _in_child(lambda: _raise(plan, user_namespace, own_pids))  # noqa: B023 - it runs at once
        if not failed:
            return missing
        if failed in _OF_NAMESPACES and NAMESPACES not in missing:
            missing[NAMESPACES] = f"{failed}: {reason}"
            if plan.own_network:
                missing["network"] = missing[NAMESPACES]  # the same privileges make both
            plan = msgspec.structs.replace(plan, namespaces=0, own_network=False, root="", own_user_namespace=False)
            user_namespace = own_pids = False
        elif failed not in missing:
            missing[failed] = reason
            if failed == "network":
                plan = msgspec.structs.replace(plan, own_network=False)
            elif failed == "user":
                plan = msgspec.structs.replace(plan, uid=-1)
            elif failed == "landlock":
                plan = msgspec.structs.replace(plan, landlock=0)
            elif failed == "seccomp":
                plan = msgspec.structs.replace(plan, seccomp=False)
            elif failed == "control groups":
                plan = msgspec.structs.replace(plan, groups=[])
            else:
                plan = msgspec.structs.replace(plan, limits=[])
        else:
            missing["?"] = f"{failed}: {reason}"  # it fails even when it is left out
            return missing


def _raise(plan: Walls, user_namespace: bool, own_pids: bool) -> tuple[str, str]:
    name = "user namespace"
    try:
        if user_namespace:
            namespace.enter_new()
            kernel.unshare(kernel.CLONE_NEWPID)
            return _in_child(lambda: _raise(plan, False, own_pids))
        name = "pid namespace"
        if own_pids:
            own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            kernel.unshare(kernel.CLONE_NEWPID)
            kernel.setns(own, kernel.CLONE_NEWPID)  # as zygotes return, between two forks
            kernel.unshare(kernel.CLONE_NEWPID)
            return _in_child(lambda: _raise(plan, False, False))
        for name, step in walls.steps(plan):  # noqa: B007 - the name of the one that fails
            step()
    except OSError as error:
        return name, str(error.args[1] if len(error.args) > 1 else error)
    return "", ""


def try_restoring(plan: Walls, *, user_namespace: bool, own_pids: bool) -> str:
    """Why no environment could be restored from a template (SnapStart) behind these walls; "" if one could."""
    name, reason = _in_child(lambda: _restore(plan, user_namespace, own_pids))
    return f"{name}: {reason}" if name else ""


def _restore(plan: Walls, user_namespace: bool, own_pids: bool) -> tuple[str, str]:
    try:
        if user_namespace:
            namespace.enter_new()
            kernel.unshare(kernel.CLONE_NEWPID)
            return _in_child(lambda: _restore(plan, False, own_pids))
        if own_pids:
            kernel.unshare(kernel.CLONE_NEWPID)
            return _in_child(lambda: _restore(plan, False, False))
        made = keeper.make_namespaces(plan)
        try:
            return _in_child(lambda: _enter(plan, made))
        finally:
            os.kill(made.first, signal.SIGKILL)
    except (OSError, EOFError) as error:
        return "namespaces", str(error)


def _enter(plan: Walls, made: Namespaces) -> tuple[str, str]:
    """As the template, and then as its child."""
    plan = msgspec.structs.replace(plan, restores=True, own_user_namespace=False, own_network=False, groups=[])
    try:
        for _, step in walls.steps(plan):
            step()
        walls.enter_namespaces(made.descriptors, plan)
    except OSError as error:
        return "entering", str(error)
    return "", ""


def try_copying(plan: Walls, paths: Criu) -> str:
    """Why criu cannot copy a process with threads from behind these walls into new namespaces; "" if it can."""

    def apart() -> tuple[str, str]:
        kernel.unshare(kernel.CLONE_NEWPID)
        return _in_child(lambda: _copy(plan, paths))

    return _in_child(apart)[1]


def _copy(plan: Walls, paths: Criu) -> tuple[str, str]:
    """As the first process of its namespace of pids, with which all ends that it starts."""
    plan = msgspec.structs.replace(plan, copied=True, own_user_namespace=False, own_network=False, groups=[])
    own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        program = criu.Criu(paths)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inode = os.fstat(theirs.fileno()).st_ino
        pid = criu_keeper.fork_with_number()
        if pid == 0:
            _be_copied(plan, theirs)
        theirs.close()
        _check_threads(ours, "the process to be copied")
        images = program.copy(pid, plan.uid, [inode])
        made = keeper.make_namespaces(plan)

        def become() -> None:
            criu_keeper.enter(made)
            if plan.landlock:
                walls.restrict_writing(plan)

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        place = [(inode, theirs)]
        program.restore(images, plan.uid, place, become, lambda: criu_keeper.fork_into(made, own_pids))
        theirs.close()
        ours.send(b"?")
        _check_threads(ours, "the copy")
    except (OSError, EOFError) as error:
        return "", str(error.args[1] if len(error.args) > 1 else error)
    return "", ""


def _be_copied(plan: Walls, theirs: socket.socket) -> NoReturn:
    """Behind the walls: an interpreter with two threads, that says so, and says it again when it is asked."""
    try:
        os.setsid()
        for _, step in walls.steps(plan):
            step()
        theirs.set_inheritable(True)
        os.execve(start.INTERPRETER, [start.INTERPRETER, "-I", "-c", _WITH_THREADS, str(theirs.fileno())], {})
    except OSError as error:
        theirs.send(str(error).encode())
    finally:
        os._exit(1)


def _check_threads(end: socket.socket, who: str) -> None:
    end.settimeout(PATIENCE_SECONDS)
    said = end.recv(control.PACKET_BYTES_MAX)
    if said != _THREADS:
        raise OSError(f"{who} says {said.decode(errors='replace') or 'nothing'}")


def try_network_rate(*, user_namespace: bool) -> str:
    """Why what goes over a network of an environment's own can be held to no rate; "" if it can."""
    return _in_child(lambda: ("", _hold(user_namespace)))[1]


def _hold(user_namespace: bool) -> str:
    try:
        if user_namespace:
            namespace.enter_new()
        for descriptor in network.make([]):
            os.close(descriptor)
        network.hold("lo", 1_000_000)
    except OSError as error:
        return str(error.args[1] if len(error.args) > 1 else error)
    return ""


def try_disk(order: Probe) -> str:
    """Why no disk for /tmp can be made; "" if one can."""
    if not order.disks:
        return ""
    try:
        mount, _ = disks.Disks(order.disks).make_mount(order.room_bytes)
        os.close(mount)
    except OSError as error:
        return disk_maker.text(error)
    return ""


def _in_child(function: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            name, reason = function()
            os.write(writing, f"{name}\n{reason}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    if "\n" not in text:
        return "seccomp", "the process was killed"  # by the one wall that kills
    name, _, reason = text.partition("\n")
    return name, reason


def main() -> None:
    """Reads a Probe from stdin and writes what is missing to stdout, both as msgpack."""
    order = decode_probe(sys.stdin.buffer.read())
    plan = order.walls
    if plan.landlock:
        plan.landlock = kernel.landlock_version()
    missing = try_walls(plan, user_namespace=order.user_namespace, own_pids=order.own_pids)
    if order.walls.landlock and not plan.landlock:
        missing["landlock"] = "this kernel has none, or it is not switched on"
    no_restore = no_copy = ""
    if NAMESPACES not in missing:
        left = {"landlock": 0} if "landlock" in missing else {}
        left |= {"seccomp": False} if "seccomp" in missing else {}
        left |= {"uid": -1} if "user" in missing else {}
        able = msgspec.structs.replace(plan, **left)
        no_restore = try_restoring(able, user_namespace=order.user_namespace, own_pids=order.own_pids)
        if order.criu is not None and not order.user_namespace:
            no_copy = try_copying(able, order.criu)
    found = Findings(
        missing=missing,
        landlock=plan.landlock,
        no_restore=no_restore,
        no_copy=no_copy,
        no_disk=try_disk(order),
        no_network_rate=try_network_rate(user_namespace=order.user_namespace),
    )
    sys.stdout.buffer.write(encode(found))
