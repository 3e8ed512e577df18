"""Fixtures of the fault tests: a daemon for each module; its helpers are those of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daemon_running import RunningDaemon, running_daemon


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """One daemon for all tests of a module; they tell their functions apart by name."""
    with running_daemon() as running:
        yield running
