"""Where looking instead of sleeping is allowed: not with one CPU, and not under a quota, wherever that is set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastlam.sandbox import spinning
from fastlam.sandbox.spinning import SPIN_NS, has_quota, spin_ns
from trees import write_tree

V2 = "0::/user.slice/session.scope\n"
V1 = "5:memory:/jobs/one\n3:cpu,cpuacct:/jobs/one\n1:name=systemd:/\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        pytest.param(V2, {}, False, id="v2, nothing set"),
        pytest.param(V2, {"user.slice/session.scope/cpu.max": "max 100000\n"}, False, id="v2, unbounded"),
        pytest.param(V2, {"user.slice/session.scope/cpu.max": "20000 100000\n"}, True, id="v2, its own"),
        pytest.param(V2, {"user.slice/cpu.max": "150000 100000\n"}, True, id="v2, above it"),
        pytest.param(V2, {"cpu.max": "150000 100000\n"}, True, id="v2, in a container"),
        pytest.param(V2, {"unified/user.slice/cpu.max": "150000 100000\n"}, True, id="v2 beside v1"),
        pytest.param(V2, {"user.slice/other.scope/cpu.max": "20000 100000\n"}, False, id="v2, another's"),
        pytest.param(V2, {"user.slice/cpu.max": ""}, False, id="v2, an empty file"),
        pytest.param("0::/\n", {"cpu.max": "1000 100000\n"}, True, id="v2, the root that a container sees"),
        pytest.param(V1, {"cpu,cpuacct/jobs/one/cpu.cfs_quota_us": "-1\n"}, False, id="v1, unbounded"),
        pytest.param(V1, {"cpu,cpuacct/jobs/one/cpu.cfs_quota_us": "50000\n"}, True, id="v1, its own"),
        pytest.param(V1, {"cpu,cpuacct/jobs/cpu.cfs_quota_us": "50000\n"}, True, id="v1, above it"),
        pytest.param(V1, {"cpu/jobs/one/cpu.cfs_quota_us": "50000\n"}, True, id="v1, by its short name"),
        pytest.param(V1, {"memory/jobs/one/cpu.cfs_quota_us": "50000\n"}, False, id="v1, another controller"),
        pytest.param("", {"cpu.max": "1000 100000\n"}, False, id="no groups at all"),
        pytest.param("4:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "5000\n"}, False, id="cpuset is not cpu"),
    ],
)
def test_quotas(tmp_path: Path, own: str, files: dict[str, str], expected: bool) -> None:
    assert has_quota(own, write_tree(tmp_path, files)) is expected


def test_a_group_that_is_out_of_sight(tmp_path: Path) -> None:
    """A path with .. (of a process that has left its namespace's root) leads nowhere, and to no end either."""
    assert has_quota("0::/../../other\n", write_tree(tmp_path / "root", {"cpu.max": "max 100000\n"})) is False


@pytest.mark.parametrize(
    ("cpus", "quota", "expected"), [({0}, False, 0), ({3}, True, 0), ({0, 1}, False, SPIN_NS), ({0, 1}, True, 0)]
)
def test_how_long(monkeypatch: pytest.MonkeyPatch, cpus: set[int], quota: bool, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cpus)
    monkeypatch.setattr(spinning, "has_quota", lambda: quota)
    assert spin_ns() == expected
