"""What the figures of one run depend on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

MEMORY_MB: Final = 1769  # of every measured function: one whole CPU, in Lambda
PEERS: Final = (
    "fastlam", "pyzmq", "uvloop", "httptools", "msgspec", "boto3", "awslambdaric", "ministack", "loky", "pebble",
    "simplejson",
)  # fmt: skip


def fingerprint() -> dict[str, str]:
    """Name to value, in the order in which they are printed."""
    load = os.getloadavg()
    found = {
        "CPU": _cpu_model(),
        "CPUs": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}",
        "virtual machine": "yes" if "hypervisor" in _cpu_flags() else "not seen",
        "load average before": " ".join(f"{value:.2f}" for value in load),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "C library": " ".join(platform.libc_ver()),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "function memory": f"{MEMORY_MB} MB",
        "CPU mode": os.environ.get("FASTLAM_CPU", "free"),
        "isolation": os.environ.get("FASTLAM_ISOLATION", "auto") + " (of the daemon; embedded: none)",
        "hot modules": _hot_modules(),
    }
    share = _cpu_share()
    if share:
        found["CPU share of the run"] = share
    for name in PEERS:
        found[name] = _version(name)
    found["wrk"] = _wrk_version()
    return found


def _cpu_lines() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines()


def _cpu_model() -> str:
    names = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith(("model name", "CPU part"))]
    return names[0] if names else platform.processor() or "unknown"


def _cpu_flags() -> list[str]:
    return next((line.split() for line in _cpu_lines() if line.startswith("flags")), [])


def _hot_modules() -> str:
    from fastlam.embed import executor

    return "compiled" if executor.__file__.endswith(".so") else "NOT compiled (FASTLAM_PURE)"


def _cpu_share() -> str:
    """The weight of this process's cgroup where it is not the default: others on the machine then had less."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for root, name, default in (
            ("/sys/fs/cgroup/cpu", "cpu.shares", "1024"),
            ("/sys/fs/cgroup", "cpu.weight", "100"),
        ):
            if controllers not in ("", "cpu", "cpu,cpuacct") or path == "/":
                continue
            try:
                value = Path(root + path, name).read_text().strip()
            except OSError:
                continue
            if value != default:
                return f"{name} {value} (default {default})"
    return ""


def _version(distribution: str) -> str:
    if distribution == "fastlam":
        from fastlam.version import VERSION

        return VERSION
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _wrk_version() -> str:
    if shutil.which("wrk") is None:
        return "not installed"
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
    words = (said.stdout + said.stderr).split()
    return " ".join(words[1:3]) if len(words) > 2 else "unknown"
