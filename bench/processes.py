"""What /proc says about a daemon and the processes below it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    pid: int
    parent: int
    state: str  # "Z": ended and not reaped


def family(pid: int) -> list[Process]:
    """All processes below `pid`."""
    below: dict[int, list[Process]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        below.setdefault(int(fields[1]), []).append(Process(int(entry), int(fields[1]), fields[0]))
    found: list[Process] = []
    ahead = [pid]
    while ahead:
        children = below.get(ahead.pop(), [])
        found += children
        ahead += [child.pid for child in children]
    return found


def beside(pid: int) -> list[int]:
    """The others of its pid namespace, if that is not this program's too."""
    try:
        namespace = os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return []
    if namespace == os.stat("/proc/self/ns/pid").st_ino:
        return []
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != pid:
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{entry}/ns/pid").st_ino == namespace:
                    found.append(int(entry))
    return found


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
