"""The code of a function that tries to get out of its environment; see tests/integration/test_walls.py."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
NAME = os.urandom(8).hex()
NUMBERS = {
    "x86_64": {"add_key": 248, "bpf": 321, "perf_event_open": 298, "finit_module": 313, "userfaultfd": 323, "pivot": 155},
    "aarch64": {"add_key": 217, "bpf": 280, "perf_event_open": 241, "finit_module": 273, "userfaultfd": 282, "pivot": 41},
}[platform.machine()]
IO_URING_SETUP = 425


def handler(event: dict[str, Any], context: object) -> Any:
    try:
        return globals()[event["do"]](**event.get("with", {}))
    except OSError as error:
        return f"refused: {error!r}"


def called(result: int, what: str) -> str:
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return "done"


def pid() -> int:
    return os.getpid()


def environment_name() -> str:
    return NAME


def environment() -> str:
    return repr(dict(os.environ))


def list_directory(path: str) -> Any:
    return sorted(os.listdir(path))


def read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(1 << 20).decode(errors="replace")


def write(path: str) -> str:
    with open(path, "w") as file:
        file.write("x")
    return "done"


def find_environments() -> Any:
    return [f"/proc/{name}/environ" for name in os.listdir("/proc") if name.isdigit()]


def processes() -> Any:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def send_signal(pid: int) -> str:
    os.kill(pid, 0)
    return "done"


def signal_all() -> str:
    os.kill(-1, 0)
    return "done"


def trace(pid: int) -> str:
    attach = 16
    return called(libc.ptrace(attach, pid, 0, 0), "ptrace")


def identity() -> dict[str, Any]:
    status = dict(line.split(":\t", 1) for line in read("/proc/self/status").splitlines() if ":\t" in line)
    wanted = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    return {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "name": pwd.getpwuid(os.getuid()).pw_name,
        "groups": os.getgroups(),
        **{name: status[name].strip() for name in wanted},
    }


def descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that listed them
    return found


def shrink(fd: int) -> str:
    os.ftruncate(fd, 0)
    return "done"


def mount() -> str:
    return called(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None), "mount")


def unmount() -> str:
    return called(libc.umount2(b"/proc", 2), "umount2")


def new_namespaces() -> str:
    for flags in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x10020000):
        if libc.unshare(flags) == 0:
            return f"unshared {flags:#x}"
    fork_with_user_namespace = libc.syscall(56 if platform.machine() == "x86_64" else 220, 0x10000000 | 17, 0, 0, 0, 0)
    if fork_with_user_namespace == 0:
        os._exit(0)
    return called(fork_with_user_namespace, "clone")


def new_root() -> str:
    if libc.chroot(b"/tmp") == 0:
        return "chroot"
    return called(libc.syscall(NUMBERS["pivot"], b"/tmp", b"/tmp"), "pivot_root")


def make_device() -> str:
    os.mknod("/tmp/disk", 0o60666, os.makedev(254, 0))
    return "done"


def host_name() -> str:
    socket.sethostname("mine")
    return "done"


def clock() -> str:
    time.clock_settime(time.CLOCK_REALTIME, time.time())
    return "done"


def raw_socket() -> str:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    return "done"


def packet_socket() -> str:
    socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
    return "done"


def keys() -> str:
    return called(libc.syscall(NUMBERS["add_key"], b"user", b"x", b"x", 1, -3), "add_key")


def bpf() -> str:
    return called(libc.syscall(NUMBERS["bpf"], 0, ctypes.create_string_buffer(128), 128), "bpf")


def io_uring() -> str:
    return called(libc.syscall(IO_URING_SETUP, 8, ctypes.create_string_buffer(128)), "io_uring_setup")


def perf() -> str:
    return called(libc.syscall(NUMBERS["perf_event_open"], ctypes.create_string_buffer(128), 0, -1, -1, 0), "perf")


def modules() -> str:
    return called(libc.syscall(NUMBERS["finit_module"], 0, b"", 0), "finit_module")


def userfaultfd() -> str:
    user_mode_only = 1
    return called(libc.syscall(NUMBERS["userfaultfd"], user_mode_only), "userfaultfd")


def run(argv: Any) -> str:
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False).stdout


def connect_abstract(name: str) -> str:
    with socket.socket(socket.AF_UNIX) as connecting:
        connecting.connect(f"\0{name}")
    return "done"


def connect_unix(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as connecting:
        connecting.connect(path)
    return "done"


def make_shared_memory(key: int) -> str:
    create = 0o1666
    return called(libc.shmget(key, 4096, create), "shmget")


def attach_shared_memory(key: int) -> str:
    return called(libc.shmget(key, 4096, 0o666), "shmget")


def fill(path: str, mb: int = 1 << 20) -> dict[str, Any]:
    space = os.statvfs(os.path.dirname(path))
    written, error = 0, ""
    with open(path, "wb", buffering=0) as file:
        try:
            while written < mb << 20:
                written += file.write(bytes(1 << 20))
        except OSError as full:
            error = errno.errorcode[full.errno or 0]
    os.unlink(path)
    return {"free": space.f_bavail * space.f_frsize, "written": written, "error": error}


def eat(mb: int) -> int:
    return len([bytearray(b"x") * (1 << 20) for _ in range(mb)])


def eat_in_children(children: int, mb: int) -> str:
    program = f"held = bytearray(b'x') * ({mb} << 20); print(1, flush=True); input(); print(2, flush=True); input()"
    command = [sys.executable, "-I", "-c", program]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0) for _ in range(children)]
    try:
        said = [child.stdout.readline() for child in started if child.stdout]
        for child in started:  # one that has had its memory may have been killed for the next one's
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(b"\n") if child.stdin else None
        said += [child.stdout.readline() for child in started if child.stdout]
        return "killed" if b"" in said else "all live"
    finally:
        for child in started:
            child.kill()
            child.wait()


def start_processes(count: int) -> dict[str, Any]:
    started, error = [], ""
    try:
        for _ in range(count):
            child = os.fork()
            if child == 0:
                signal.pause()
            started.append(child)
    except OSError as full:
        error = errno.errorcode[full.errno or 0]
    finally:
        for child in started:
            os.kill(child, signal.SIGKILL)
        for child in started:
            os.waitpid(child, 0)
    return {"started": len(started), "error": error}


def open_files() -> int:
    opened = []
    try:
        while len(opened) < 100_000:
            opened.append(tempfile.TemporaryFile())  # noqa: SIM115
    except OSError:
        pass
    finally:
        for file in opened:
            file.close()
    return len(opened)


def fork_bomb() -> None:
    while True:
        try:
            os.fork()
        except OSError:
            continue


def kill_itself(number: int) -> None:
    os.kill(os.getpid(), number)


def leave_orphans(count: int) -> int:
    """Children of children that end: how many processes are left, seen once the last has ended."""
    reading, writing = os.pipe()
    for _ in range(count):
        if os.fork() == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
        os.wait()
    os.close(writing)
    os.read(reading, 1)  # ends when no child holds the other end any more
    os.close(reading)
    deadline = time.monotonic() + 10
    while len(processes()) > 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    return len(processes())
