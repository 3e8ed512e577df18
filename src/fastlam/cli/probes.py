"""Probes of the machine: each does the real thing once, as the daemon would, and tells what came of it."""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import mmap
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastlam.errors import FastlamError

PR_SET_CHILD_SUBREAPER: Final = 36
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


def walls() -> list[Finding]:
    """Sends a process through all the walls of an environment, as a starting daemon does; one finding for each."""
    from fastlam.sandbox import isolation

    with tempfile.TemporaryDirectory(prefix="fastlam-doctor-") as stage:
        try:
            found = isolation.find("auto", stage, disk_rates=True, criu=None, tries_criu=True)
        except FastlamError as error:
            return [Finding("isolation", False, str(error))]
        if found.groups is not None:
            found.groups.close()
    findings = [
        Finding(f"wall: {name}", name not in found.missing, found.missing.get(name, standing))
        for name, standing in isolation.WALLS.items()
        if name != "user" or os.geteuid() == 0
    ]
    level = "full" if not found.missing else "all but " + ", ".join(sorted(found.missing))
    how = "; namespaces in a user's own" if found.user_namespace else ""
    findings.append(Finding("/tmp", None, isolation.TMP[found.tmp] + (f": {found.no_disk}" if found.no_disk else "")))
    rates = found.no_disk_rates or ("" if found.tmp == "disk" else "/tmp is on none; file systems are held to them")
    findings.append(Finding("disk rates", not found.no_disk_rates, rates or "follow memory with --cpu lambda"))
    rates = found.no_network_rate or "follow memory with --cpu lambda and --network loopback or none"
    findings.append(Finding("network rates", not found.no_network_rate, rates))
    copies = found.no_criu or "snapshots keep the threads that INIT has left"
    findings.append(Finding("criu", not found.no_criu, copies))
    freezer = isolation.freezer_missing()
    findings.append(Finding("freezer", not freezer, freezer or "environments stand still between calls with --freeze"))
    return [Finding("isolation", None, f"{level}{how}"), *findings]


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
