"""Whether the dispatcher and its workers may look for one another for a moment instead of sleeping.

Two processes that both look answer one another in a microsecond, and two that sleep in tens of them; but who looks
holds a CPU. With one CPU, or under a quota, that is a CPU that the other side needs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

SPIN_NS: Final = 80_000
_CGROUPS: Final = Path("/sys/fs/cgroup")


def spin_ns() -> int:
    """Nanoseconds to look for, 0 for not at all."""
    if len(os.sched_getaffinity(0)) < 2 or has_quota():
        return 0
    return SPIN_NS


def has_quota(own: str | None = None, root: Path = _CGROUPS) -> bool:
    """Whether this process's control group, or one above it, bounds its CPU time. `own` is the text of
    /proc/self/cgroup.
    """
    if own is None:
        try:
            own = Path("/proc/self/cgroup").read_text()
        except OSError:
            return False
    for line in own.splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            directories = [root, root / "unified"]
        elif "cpu" in controllers.split(","):
            directories = [root / controllers, root / "cpu"]
        else:
            continue
        if any(_bounded(directory, path) for directory in directories):
            return True
    return False


def _bounded(directory: Path, path: str) -> bool:
    group = directory / path.lstrip("/")
    while True:
        for name, unbounded in (("cpu.max", "max"), ("cpu.cfs_quota_us", "-1")):
            try:
                value = (group / name).read_text().split()
            except OSError:
                continue
            if value and value[0] != unbounded:
                return True
        if group == directory:
            return False
        group = group.parent
