"""The owner of a process that makes something for it (sandbox.maker)."""

from __future__ import annotations

import signal
import socket

from fastlam.worker import kernel


def belong_to(owner_fd: int, title: str) -> socket.socket:
    """Ends with the owner, and not by what a terminal sends to both; returns the door to it."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        from setproctitle import setproctitle

        setproctitle(title)
    except ImportError:
        pass
    owner = socket.socket(fileno=owner_fd)
    owner.set_inheritable(False)
    return owner
