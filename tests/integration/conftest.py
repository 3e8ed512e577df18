"""Fixtures of the integration tests: the API alone, other services, and packages from the registry to put into functions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_server import ApiServer, api_server
from http_running import Running
from moto_running import AwsServer, running_aws
from real_packages import PackageCache


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    """The Lambda API without the data plane, on an empty data directory."""
    with api_server(tmp_path / "data") as running:
        yield running


@pytest.fixture
def client(server: ApiServer) -> Any:
    """boto3's client for `server`."""
    return server.client()


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsServer]:
    """Other services of AWS: moto's server."""
    with running_aws() as running:
        yield running


@pytest.fixture(scope="session")
def packages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PackageCache:
    """Real packages for deployment packages, kept in pytest's cache directory where there is one."""
    cache = getattr(request.config, "cache", None)
    return PackageCache(tmp_path_factory.mktemp("packages") if cache is None else cache.mkdir("packages"))


@pytest.fixture(params=[0, 2], ids=lambda count: f"fronts:{count}")
def fronts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """HTTP servers have their sockets themselves, and then in two front processes."""
    count: int = request.param
    monkeypatch.setattr(Running, "fronts", count)
    return count
