"""What this machine permits, by the word of other programs. A test that is skipped because fastlam finds a wall missing
would hide a wall that fastlam has only failed to raise.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import pytest

_KINDS: Final = ("--mount", "--pid", "--ipc", "--uts", "--cgroup", "--fork", "--mount-proc")
_AS_USER: Final = 'if [ "$(id -u)" = 0 ]; then exec unshare "$@"; else exec unshare --user --map-root-user "$@"; fi'


def no_namespaces(told: object, prefix: Sequence[str] = ()) -> NoReturn:
    """Skips the test, which fails instead if another program of the same user (`prefix`) can make namespaces and mount
    something in them. `told`: what fastlam says.
    """
    others = ["sh", "-c", _AS_USER, "sh", *_KINDS, "mount", "-t", "tmpfs", "none", "/mnt"]
    tried = subprocess.run([*prefix, *others], check=False, capture_output=True, text=True)
    assert tried.returncode != 0, f"unshare can make namespaces, and fastlam says: {told}"
    pytest.skip(f"this machine permits no namespaces: {told}; {tried.stderr.strip()}")


def group_can_be_made(controller: str) -> bool:
    """By a shell, as anybody would, in a hierarchy that has the controller."""
    for hierarchy in Path("/sys/fs/cgroup").iterdir():
        if controller in hierarchy.name.split(","):
            made = subprocess.run(["mkdir", str(hierarchy / f"try-{os.getpid()}")], check=False, capture_output=True)
            if made.returncode == 0:
                (hierarchy / f"try-{os.getpid()}").rmdir()
                return True
    return False


def no_group(controller: str, told: object) -> NoReturn:
    """As `no_namespaces`, of control groups, for root."""
    assert os.geteuid() != 0 or not group_can_be_made(controller), f"mkdir makes groups, and fastlam says: {told}"
    pytest.skip(f"this machine permits no control groups: {told}")
