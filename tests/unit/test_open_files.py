"""How many execution environments the limit on open files holds."""

from __future__ import annotations

import logging
import sys

import pytest

from fastlam import limits
from fastlam.app import within_open_files
from fastlam.config import DaemonConfig


def config(environments_max: int, network: str = "host") -> DaemonConfig:
    return DaemonConfig(ephemeral=True, data_dir=None, environments_max=environments_max, network=network)


@pytest.mark.parametrize(
    "open_files", [limits.DESCRIPTORS_BESIDE + 1000 * limits.DESCRIPTORS_PER_ENVIRONMENT, sys.maxsize]
)
def test_enough_of_them_change_nothing(open_files: int, caplog: pytest.LogCaptureFixture) -> None:
    given = config(1000)
    assert within_open_files(given, open_files) is given
    assert caplog.records == []


def test_too_few_lower_the_bound_and_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        lowered = within_open_files(config(1000), 1024)
    assert lowered.environments_max == 64
    assert lowered == config(64)
    (said,) = caplog.messages
    assert said.startswith("1,024 open files are allowed: they hold 64 execution environments instead of 1,000")
    needed = int(said.rpartition("ulimit -n ")[2].rstrip(")"))
    assert within_open_files(config(1000), needed).environments_max == 1000
    assert within_open_files(config(1000), needed - 1).environments_max == 999


@pytest.mark.parametrize("network", ["loopback", "none"])
def test_networks_take_some_too(network: str) -> None:
    each = limits.DESCRIPTORS_PER_ENVIRONMENT + limits.DESCRIPTORS_PER_NETWORK
    lowered = within_open_files(config(1000, network), limits.DESCRIPTORS_BESIDE + 10 * each)
    assert lowered == config(10, network)


def test_one_environment_is_always_tried(caplog: pytest.LogCaptureFixture) -> None:
    assert within_open_files(config(5), 64).environments_max == 1
