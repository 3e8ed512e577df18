"""Fixtures of the tests with other people's tools: what they install is kept where pytest keeps its cache."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from needs import missing
from real_packages import PackageCache


class Packages(PackageCache):
    """Where no registry answers, the test is skipped, but for CI, which has Python's."""

    def fetch(self, *command: str, into: str) -> Path:
        try:
            return super().fetch(*command, into=into)
        except subprocess.CalledProcessError as error:
            missing(f"a registry of Python packages is needed: {error}")


@pytest.fixture(scope="session")
def cached(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that is there again the next time, where pytest has a cache."""
    cache = getattr(request.config, "cache", None)
    return tmp_path_factory.mktemp("tools") if cache is None else Path(cache.mkdir("tools"))


@pytest.fixture(scope="session")
def packages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PackageCache:
    """Packages of Python's registry, each set in a directory of its own; the integration tests keep theirs there too."""
    cache = getattr(request.config, "cache", None)
    return Packages(tmp_path_factory.mktemp("packages") if cache is None else Path(cache.mkdir("packages")))
