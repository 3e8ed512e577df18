"""Fixtures of the tests in which something dies or lies: a daemon for each module, and where its workers are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daemon_running import Gate, RunningDaemon, running_daemon


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """One daemon for all tests of a module; they tell their functions apart by name."""
    with running_daemon() as running:
        yield running


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Where invocations wait for the test; see GATE_CODE."""
    own = Gate()
    yield own
    own.close()
