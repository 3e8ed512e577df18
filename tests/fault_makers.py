"""What tests of faults share: processes found by their titles, killed without hitting another of the same number."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from daemon_running import descendants


def title_of(pid: int) -> str:
    """The process's title; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def processes(ancestor: int, title: str) -> list[int]:
    """Those below `ancestor` whose titles begin so."""
    return [pid for pid, _ in descendants(ancestor) if title_of(pid).startswith(title)]


def children(parent: int, title: str) -> list[int]:
    """Those that are its direct children."""
    below = processes(parent, title)
    grandchildren = {pid for child, _ in descendants(parent) for pid, _ in descendants(child)}
    return [pid for pid in below if pid not in grandchildren]


def send(pid: int, title: str, number: int) -> bool:
    """Sends a signal to the process if it still is the one of that title."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not title_of(pid).startswith(title):
            return False
        signal.pidfd_send_signal(pidfd, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
