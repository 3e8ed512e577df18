"""Probes of the machine: each does the real thing once, as the daemon would, and tells what came of it."""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import mmap
import os
import platform
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
MS_REC_PRIVATE: Final = 0x4000 | 0x40000
MNT_DETACH: Final = 2
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
SECCOMP_SET_MODE_FILTER: Final = 1
SECCOMP_RET_ALLOW: Final = 0x7FFF0000
BPF_RETURN: Final = 0x06
LANDLOCK_CREATE_RULESET_VERSION: Final = 1
SYS_LANDLOCK_CREATE_RULESET: Final = 444  # the same number everywhere, as for all system calls of recent years
SYS_BY_MACHINE: Final = {"x86_64": {"pivot_root": 155, "seccomp": 317}, "aarch64": {"pivot_root": 41, "seccomp": 277}}
CHILD_SECONDS: Final = 10
PROGRAM_SECONDS: Final = 20

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe found. `works` is None for facts that are neither good nor bad."""

    topic: str
    works: bool | None
    detail: str
    required: bool = False  # fastlam does not run without it


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(name: str, *arguments: object) -> int:
    numbers = SYS_BY_MACHINE.get(platform.machine(), {})
    if name not in numbers:
        raise OSError(f"{name}: number not known for {platform.machine()}")
    return _check(_libc.syscall(numbers[name], *arguments), name)


def in_child(action: Callable[[], str]) -> tuple[bool, str]:
    """Runs what cannot be undone in a forked child; its text, or why it failed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(CHILD_SECONDS)
        try:
            answer = "+" + action()
        except OSError as error:
            answer = "-" + (error.strerror or str(error))
        except BaseException as error:  # noqa: BLE001  a child must not run on in the parent's code
            answer = "-" + repr(error)
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    return answer.startswith("+"), answer[1:] or "the probe was killed"


def _attempt(topic: str, action: Callable[[], str], *, required: bool = False) -> Finding:
    try:
        return Finding(topic, True, action(), required)
    except (OSError, AttributeError) as error:
        return Finding(topic, False, getattr(error, "strerror", None) or str(error), required)


# --- the machine -------------------------------------------------------------------------------------


def kernel() -> Finding:
    return Finding("kernel", None, f"{platform.system()} {platform.release()} {platform.machine()}")


def processors() -> Finding:
    usable = len(os.sched_getaffinity(0))
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return Finding("processors", None, f"{usable} usable, {memory_mb} MB memory")


def memfd() -> Finding:
    def action() -> str:
        descriptor = os.memfd_create("fastlam-doctor", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, mmap.PAGESIZE)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            try:
                os.ftruncate(descriptor, 0)
            except PermissionError:
                return "created and sealed"
            raise OSError("a seal did not hold")
        finally:
            os.close(descriptor)

    return _attempt("memfd with seals", action, required=True)


def pidfd() -> Finding:
    def action() -> str:
        descriptor = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(descriptor, 0)  # 0: only whether a signal could be sent
        finally:
            os.close(descriptor)
        return "opened and signalled"

    return _attempt("pidfd", action, required=True)


def subreaper() -> Finding:
    def action() -> str:
        _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")
        return "orphans of functions can be collected"

    works, detail = in_child(action)
    return Finding("child subreaper", works, detail)


def open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def action() -> str:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return f"{hard} reachable (now {soft})"

    works, detail = in_child(action)
    return Finding("open files", works, detail)


# --- isolation ---------------------------------------------------------------------------------------


def namespaces() -> Finding:
    """The whole way into a root directory of one's own: on some systems unshare succeeds and mount then fails."""

    def action() -> str:
        uid, gid = os.getuid(), os.getgid()
        _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        _check(_libc.mount(None, b"/", None, MS_REC_PRIVATE, None), "mount --make-private /")
        root = tempfile.gettempdir()  # covered in this child's own mount namespace only
        _check(_libc.mount(b"tmpfs", root.encode(), b"tmpfs", 0, b"size=64k"), "mount tmpfs")
        os.chdir(root)
        _syscall("pivot_root", b".", b".")
        _check(_libc.umount2(b".", MNT_DETACH), "umount")
        if os.listdir("/"):
            raise OSError("pivot_root: the old root is still there")
        return "user and mount namespace, tmpfs, pivot_root"

    works, detail = in_child(action)
    return Finding("user namespaces", works, detail)


def landlock() -> Finding:
    def action() -> str:
        abi = _check(
            _libc.syscall(SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_CREATE_RULESET_VERSION),
            "landlock_create_ruleset",
        )
        return f"ABI {abi}"

    return _attempt("landlock", action)


def seccomp() -> Finding:
    """Loads a filter that allows everything."""

    def action() -> str:
        instruction = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW))
        program = struct.pack("HP", 1, ctypes.addressof(instruction))
        _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        _syscall("seccomp", SECCOMP_SET_MODE_FILTER, 0, ctypes.create_string_buffer(program))
        return "no_new_privs set, filter loaded"

    works, detail = in_child(action)
    return Finding("seccomp", works, detail)


def control_groups() -> list[Finding]:
    """Tries to make a group below this process's own in every hierarchy that can limit memory, CPU or processes."""
    findings = []
    own = _own_groups()
    for mount_point, kind, controllers in _group_mounts():
        if kind == "cgroup2":
            base = Path(mount_point + own.get("", "/"))
            findings.append(_group_finding("cgroup v2", base, "memory.max", "pids.max"))
        elif "memory" in controllers:
            base = Path(mount_point + own.get("memory", "/"))
            findings.append(_group_finding("cgroup v1 memory", base, "memory.limit_in_bytes"))
        elif "cpu" in controllers:
            base = Path(mount_point + own.get("cpu", "/"))
            findings.append(_group_finding("cgroup v1 cpu", base, "cpu.cfs_quota_us"))
    return findings or [Finding("cgroups", False, "none is mounted")]


def _own_groups() -> dict[str, str]:
    groups = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = "" if path == "/" else path
    return groups


def _group_mounts() -> list[tuple[str, str, set[str]]]:
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            mounts.append((left.split()[4], kind, set(re.split(r"[ ,]", options))))
    return mounts


def _group_finding(topic: str, base: Path, *limits: str) -> Finding:
    group = base / f"fastlam-doctor-{os.getpid()}"

    def action() -> str:
        if not base.is_dir():
            raise OSError(f"{base} is not visible here")
        group.mkdir()
        try:
            usable = [limit for limit in limits if (group / limit).exists()]
            for limit in usable:
                path = group / limit
                path.write_text(path.read_text())
        finally:
            group.rmdir()
        if not usable:
            raise OSError(f"groups can be made, but without {' and '.join(limits)}: the controllers are elsewhere")
        return f"group made below {base}, {', '.join(usable)} writable"

    return _attempt(topic, action)


# --- what fastlam stands on --------------------------------------------------------------------------


def interpreter() -> Finding:
    return Finding("interpreter", None, f"Python {platform.python_version()} at {sys.executable}")


def native_core() -> Finding:
    def action() -> str:
        try:
            module = importlib.import_module("fastlam.core.dispatcher")
        except ImportError as error:
            raise OSError(f"not compiled for this Python: {error}") from error
        return f"compiled, {os.path.basename(module.__file__ or '')}"

    return _attempt("native core", action, required=True)


def libzmq() -> Finding:
    """Sends a message through pyzmq, as `--lane libzmq` would."""

    def action() -> str:
        import zmq

        with zmq.Context() as context, context.socket(zmq.PAIR) as left, context.socket(zmq.PAIR) as right:
            left.bind("inproc://probe")
            right.connect("inproc://probe")
            left.send(b"probe", zmq.DONTWAIT)
            if right.recv(zmq.DONTWAIT) != b"probe":
                raise OSError("a message did not arrive")
        return f"libzmq {zmq.zmq_version()} in pyzmq {zmq.__version__}; used with --lane libzmq only"

    return _attempt("libzmq", action)


def runtimes() -> list[Finding]:
    """Every Python of a Lambda runtime that can be started."""
    findings = []
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for minor in range(10, 16):
        name = f"python3.{minor}"
        path = sys.executable if name == own else shutil.which(name)
        output = _output([path, "--version"]) if path else None
        if path and output:
            findings.append(Finding(f"runtime {name}", True, f"{output} at {path}"))
    return findings


def aws_command_line() -> Finding:
    from fastlam.cli.aws import find_aws

    path = find_aws()
    output = _output([path, "--version"]) if path else None
    if output:
        return Finding("aws command line", True, f"{output.split()[0]} at {path}")
    return Finding("aws command line", False, 'not installed: pip install "fastlam[aws]"')


def _output(command: list[str]) -> str | None:
    """What a program prints, or None if it cannot be run."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout or done.stderr).strip() or None
