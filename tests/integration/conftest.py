"""Fixtures of the integration tests: a daemon for each module, and packages from the registry to put into functions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daemon_running import Gate, RunningDaemon, running_daemon
from real_packages import PackageCache


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


@pytest.fixture(scope="session")
def packages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PackageCache:
    """Real packages for deployment packages, kept in pytest's cache directory where there is one."""
    cache = getattr(request.config, "cache", None)
    return PackageCache(tmp_path_factory.mktemp("packages") if cache is None else cache.mkdir("packages"))
