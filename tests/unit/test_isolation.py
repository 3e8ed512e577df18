"""What is asked for and cannot be had, where the machine that runs the tests may have it."""

from __future__ import annotations

from typing import Any

import pytest

from fastlam.errors import FastlamError
from fastlam.sandbox import isolation

PERMITTED: dict[str, Any] = {"own_root": True, "landlock": 7, "seccomp": True}


def found(network: str, **more: Any) -> isolation.Isolation:
    return isolation.Isolation("auto", "", network=network, **{**PERMITTED, **more})


@pytest.mark.parametrize("network", [isolation.LOOPBACK, isolation.NONE])
def test_where_all_is_permitted_nothing_is_said(network: str) -> None:
    isolation._check_network(found(network))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"landlock": 3}, "it stands on landlock's rules for ports"),
        ({"landlock": 0, "missing": {"landlock": "this kernel has none"}}, "this kernel has none"),
        ({"seccomp": False, "missing": {"seccomp": "not on this machine"}}, "it stands on seccomp: not on this machine"),
    ],
)
def test_none_needs_more_than_loopback(more: dict[str, Any], reason: str) -> None:
    isolation._check_network(found(isolation.LOOPBACK, **more))
    with pytest.raises(FastlamError, match=f"--network none is not possible here: .*{reason}"):
        isolation._check_network(found(isolation.NONE, **more))


@pytest.mark.parametrize("network", [isolation.LOOPBACK, isolation.NONE])
def test_without_namespaces_there_is_none(network: str) -> None:
    with pytest.raises(FastlamError, match=f"--network {network} is not possible here: no namespaces"):
        isolation._check_network(found(network, missing={"network": "no namespaces"}))


def test_it_is_shown() -> None:
    assert found(isolation.HOST).summary() == "isolation: full"
    assert found(isolation.LOOPBACK).summary() == "isolation: full; network: loopback"
    assert found(isolation.LOOPBACK).state()["network"] == "loopback"
