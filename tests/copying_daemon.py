"""A daemon whose snapshots are copies by criu."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

import needs
from daemon_running import RunningDaemon, running_daemon
from fastlam.sandbox.criu import command, find_criu


@contextmanager
def copying_daemon(
    *options: str, environment: Mapping[str, str] | None = None, **more: Any
) -> Iterator[RunningDaemon]:
    """With walls, as root; what is snapped leaves a thread. Skips where criu cannot work."""
    if os.geteuid() != 0:
        pytest.skip("only root may copy processes")
    program = needs.criu()
    _check(program)
    with running_daemon(
        "--criu", program, *options, isolation="auto", environment=environment, complains=True, **more
    ) as daemon:
        daemon.leaves_threads = True
        yield daemon


def _check(program: str) -> None:
    """By criu's own word: what it cannot do on this kernel, fastlam cannot have done by it."""
    tried = subprocess.run([*command(find_criu(program)), "check"], check=False, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"criu does not work on this machine: {tried.stderr.strip()[-300:]}")
