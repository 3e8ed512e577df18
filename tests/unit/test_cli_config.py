"""DaemonConfig: defaults, and one sentence for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastlam.config import DaemonConfig, default_data_dir
from fastlam.errors import FastlamError


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTLAM_DATA_DIR", "/data")
    config = DaemonConfig()
    assert (config.host, config.port, config.account, config.region) == ("127.0.0.1", 4566, "000000000000", "us-east-1")
    assert config.data_dir == Path("/data") and not config.ephemeral
    assert DaemonConfig(ephemeral=True, data_dir=None).data_dir is None


def test_where_data_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    for name in ("FASTLAM_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert default_data_dir() == Path("/home/ada/.local/share/fastlam")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # to be ignored, says the XDG specification
    assert default_data_dir() == Path("/home/ada/.local/share/fastlam")
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    assert default_data_dir() == Path("/xdg/fastlam")
    monkeypatch.setenv("FASTLAM_DATA_DIR", "~/own")
    assert default_data_dir() == Path("/home/ada/own")


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        ({"host": ""}, "--host"),
        ({"host": "a b"}, "--host"),
        ({"port": -1}, "--port"),
        ({"port": 65536}, "--port"),
        ({"account": "123"}, "--account"),
        ({"account": "12345678901a"}, "--account"),
        ({"account": "١٢٣٤٥٦٧٨٩٠١٢"}, "--account"),
        ({"region": "US-EAST-1"}, "--region"),
        ({"region": "here"}, "--region"),
        ({"aws_endpoint": "localhost:5000"}, "--aws-endpoint"),
        ({"aws_endpoint": "ftp://localhost"}, "--aws-endpoint"),
        ({"aws_endpoint": "http://[::1"}, "--aws-endpoint"),
        ({"aws_endpoint": "http://h:port"}, "--aws-endpoint"),
        ({"concurrency": 0}, "--concurrency"),
        ({"environments_max": 0}, "--environments-max"),
        ({"fronts": -1}, "--fronts"),
        ({"fronts": 65}, "--fronts"),
        ({"keepalive_seconds": -1.0}, "--keepalive"),
        ({"keepalive_seconds": float("nan")}, "--keepalive"),
        ({"recycle_after_seconds": -0.1}, "--recycle-after"),
        ({"recycle_after_seconds": float("nan")}, "--recycle-after"),
        ({"rates": "fast"}, "--rates"),
        ({"clock": "fast"}, "--clock"),
        ({"retry_seconds": -1.0}, "--retry-delay"),
        ({"retry_seconds": 21601.0}, "--retry-delay"),
        ({"retry_seconds": float("nan")}, "--retry-delay"),
        ({"network": "vpc"}, "--network"),
        ({"network": "none", "isolation": "process"}, "--network none"),
        ({"freeze": True, "isolation": "process"}, "--freeze"),
        ({"data_dir": None}, "--data-dir"),
        ({"data_dir": Path(__file__)}, "--data-dir"),
    ],
)
def test_a_mistake_is_named_in_one_sentence(mistake: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(FastlamError) as caught:
        DaemonConfig(**{"data_dir": tmp_path, **mistake})
    sentence = str(caught.value)
    assert sentence.startswith((named, "A daemon")) and named in sentence
    assert sentence.endswith(".") and "\n" not in sentence


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-2", "us-gov-west-1", "ap-southeast-10", "us-iso-east-1"])
def test_regions(region: str, tmp_path: Path) -> None:
    assert DaemonConfig(region=region, data_dir=tmp_path).region == region
