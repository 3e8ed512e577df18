"""Fixtures of the tests in which something dies or lies: a hostile function and one that must not notice it, threads for
callers, and places for files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import hostile_function
from daemon_running import RunningDaemon

BYSTANDER = "import os\ndef handler(event, context):\n    return [event, os.getpid()]\n"


@pytest.fixture(scope="module")
def hostile(daemon: RunningDaemon) -> str:
    """The hostile function, with more time than any test takes."""
    return daemon.deploy("hostile", hostile_function.CODE, Timeout=60)


@pytest.fixture(scope="module")
def bystander(daemon: RunningDaemon) -> str:
    return daemon.deploy("bystander", BYSTANDER, Timeout=60)


@pytest.fixture
def others_notice_nothing(daemon: RunningDaemon, hostile: str, bystander: str) -> Iterator[None]:
    """After the test another function answers from the same warm environment, and the house is in order."""
    before = daemon.invoke(bystander, 0).result[1]
    assert [row["pid"] for row in daemon.environments(bystander)] == [before]
    yield
    assert daemon.invoke(bystander, [1]).result == [[1], before]
    assert [row["pid"] for row in daemon.environments(bystander)] == [before]
    health = daemon.health()
    assert health["pid"] == daemon.process.pid
    statistics = health["statistics"]["dispatcher"]
    assert (statistics["outstanding"], statistics["waiting"]) == (0, 0)
    assert daemon.stderr() == ""


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    """For calls that a test does not wait for at once."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def executed(tmp_path: Path) -> Path:
    """Where handlers note what they execute; see nonce_load."""
    path = tmp_path / "executed"
    path.touch()
    return path


@pytest.fixture
def directory() -> Iterator[Path]:
    """For sockets and data of daemons that end without clearing up. A short path: a socket's may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="flt-") as path:
        yield Path(path)
