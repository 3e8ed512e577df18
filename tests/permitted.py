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

from needs import missing

_KINDS: Final = ("--mount", "--pid", "--ipc", "--uts", "--cgroup", "--fork", "--mount-proc")
_SHAPED: Final = "ip link set lo up && tc qdisc add dev lo root tbf rate 8mbit burst 128kb latency 100ms"
_LOOP_MOUNTED: Final = (
    'd=$(mktemp -d) && trap "rm -rf $d" EXIT && truncate -s 16M "$d/disk" && mkfs.ext4 -q "$d/disk" && mkdir "$d/at"'
    ' && mount -o loop "$d/disk" "$d/at" && umount "$d/at"'
)
# In the hierarchy of version 1 that has the controller, or else in that of version 2.
_GROUP_BELOW: Final = (
    'at=$(awk -F: -v c="$1" \'{ n = split($2, a, ","); for (i = 1; i <= n; i++) if (a[i] == c)'
    ' print "/sys/fs/cgroup/" $2 $3 }\' /proc/self/cgroup)'
    ' && [ -n "$at" ] || at=/sys/fs/cgroup$(sed -n "s/^0:://p" /proc/self/cgroup)'
    ' && mkdir "$at/try-$$" && { [ ! -e "$at/cgroup.controllers" ] || grep -qw "$1" "$at/try-$$/cgroup.controllers"; };'
    ' status=$?; rmdir "$at/try-$$"; exit $status'
)
_NOT_FOUND: Final = 127  # a shell's status where there is no such program
_AS_USER: Final = 'if [ "$(id -u)" = 0 ]; then exec unshare "$@"; else exec unshare --user --map-root-user "$@"; fi'


def no_namespaces(told: object, prefix: Sequence[str] = ()) -> NoReturn:
    """Skips the test, which fails instead if another program of the same user (`prefix`) can make namespaces and mount
    something in them. `told`: what fastlam says.
    """
    refused = _refused([*_KINDS, "mount", "-t", "tmpfs", "none", "/tmp"], prefix, "util-linux")
    assert refused, f"unshare can make namespaces, and fastlam says: {told}"
    pytest.skip(f"this machine permits no namespaces: {told}; {refused}")


def no_network_rate(told: object, prefix: Sequence[str] = ()) -> NoReturn:
    """The same, of rates of what goes over `lo` of a network namespace, which tc sets."""
    refused = _refused(["--net", "sh", "-c", _SHAPED], prefix, "iproute2")
    assert refused, f"tc holds a network to a rate, and fastlam says: {told}"
    pytest.skip(f"this machine holds networks to no rate: {told}; {refused}")


def no_disk(told: object, *, as_root: bool) -> NoReturn:
    """The same, of a file system in a file (a loop device), which only root can mount."""
    if as_root:
        refused = _refused(["--mount", "--propagation", "private", "sh", "-c", _LOOP_MOUNTED], (), "e2fsprogs")
        assert refused, f"mount has a file system in a file, and fastlam says: {told}"
        pytest.skip(f"this machine has no loop devices: {told}; {refused}")
    pytest.skip(f"/tmp is in memory: {told}")


def _refused(arguments: Sequence[str], prefix: Sequence[str], package: str) -> str:
    """Why unshare cannot do it; "" if it can. The test asks for the package where a program is not there."""
    tried = subprocess.run(
        [*prefix, "sh", "-c", _AS_USER, "sh", *arguments], check=False, capture_output=True, text=True
    )
    if tried.returncode == _NOT_FOUND:
        missing(f"install the package {package}, whose programs tell what this machine permits: {tried.stderr.strip()}")
    return "" if tried.returncode == 0 else tried.stderr.strip() or f"exit status {tried.returncode}"


def group_can_be_made(controller: str) -> bool:
    """By a shell, as anybody would, in a hierarchy that has the controller, of either version."""
    root = Path("/sys/fs/cgroup")
    for hierarchy in (root, *root.iterdir()):
        unified = (hierarchy / "cgroup.controllers").is_file() and (hierarchy / "cgroup.subtree_control").is_file()
        if not unified and controller not in hierarchy.name.split(","):
            continue
        group = hierarchy / f"try-{os.getpid()}"
        if subprocess.run(["mkdir", str(group)], check=False, capture_output=True).returncode:
            continue
        try:
            if not unified or controller in (group / "cgroup.controllers").read_text().split():
                return True
        finally:
            group.rmdir()
    return False


def no_group(controller: str, told: object, prefix: Sequence[str] = ()) -> NoReturn:
    """As `no_namespaces`, of control groups: for root, or for another user (`prefix`) below its own group."""
    if prefix:
        tried = subprocess.run(
            [*prefix, "sh", "-c", _GROUP_BELOW, "sh", controller], check=False, capture_output=True, text=True
        )
        assert tried.returncode, f"that user's mkdir makes groups, and fastlam says: {told}"
        pytest.skip(f"this machine permits that user no control groups: {told}; {tried.stderr.strip()}")
    assert os.geteuid() != 0 or not group_can_be_made(controller), f"mkdir makes groups, and fastlam says: {told}"
    pytest.skip(f"this machine permits no control groups: {told}")
