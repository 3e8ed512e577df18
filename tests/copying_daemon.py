"""A daemon whose snapshots are copies by criu."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

import needs
from daemon_running import RunningDaemon, running_daemon
from fastlam.sandbox.criu import check_version, command, find_criu


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
    """Skips only where criu itself and fastlam's trial of it both say that it cannot: each looks for more than the other
    needs. One that is too old is asked for.
    """
    try:
        check_version(find_criu(program))
    except OSError as error:
        needs.missing(f"install criu 4.1 or newer, or say by FASTLAM_TEST_CRIU where its program is: {error.args[-1]}")
    tried = subprocess.run([*command(find_criu(program)), "check"], check=False, capture_output=True, text=True)
    if not tried.returncode:
        return
    doctor = subprocess.run(
        [sys.executable, "-m", "fastlam", "doctor", "--json"],
        check=False, capture_output=True, text=True, env={**os.environ, "FASTLAM_CRIU": program},
    )  # fmt: skip
    (found,) = [one for one in json.loads(doctor.stdout) if one["topic"] == "criu"]
    if not found["works"]:
        pytest.skip(f"criu does not work on this machine: {tried.stderr.strip()[-300:]}; {found['detail']}")
