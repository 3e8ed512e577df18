"""Fixtures of the integration tests: a daemon for each module, and packages from the registry to put into functions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daemon_running import RunningDaemon, running_daemon


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """One daemon for all tests of a module; they tell their functions apart by name."""
    with running_daemon() as running:
        yield running
