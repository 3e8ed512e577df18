"""What an account uses, counted without HTTP."""

from __future__ import annotations

from pathlib import Path

from fastlam.control.account_settings import AccountSettings, AccountUsage
from fastlam.control.authorize import Caller
from fastlam.control.concurrency import AccountConcurrency
from memory_plane import CALLER, MemoryPlane, package

ELSEWHERE = Caller("111111111111", "arn:aws:iam::111111111111:root", "us-east-1")


def test_usage(tmp_path: Path) -> None:
    plane = MemoryPlane(tmp_path, account_concurrency=500)
    settings = plane.account_settings
    assert settings.get(CALLER) == AccountUsage(500, 500, 0, 0)
    code_bytes = len(package())
    plane.create()
    plane.create("other")
    assert settings.get(CALLER) == AccountUsage(500, 500, 2 * code_bytes, 2)  # the shared zip counts twice
    plane.publish()
    assert settings.get(CALLER) == AccountUsage(500, 500, 3 * code_bytes, 2)
    layer = package("x = 1\n" * 1000)
    for _ in range(2):
        version = plane.layers.publish(CALLER, {"LayerName": "base", "Content": {"ZipFile": layer}})
    assert version.code_bytes == len(layer)
    assert settings.get(CALLER) == AccountUsage(500, 500, 3 * code_bytes + 2 * len(layer), 2)
    plane.reserved_concurrency.put(CALLER, {"FunctionName": "hello", "ReservedConcurrentExecutions": 8})
    plane.functions.delete(CALLER, {"FunctionName": "other"})
    assert settings.get(CALLER) == AccountUsage(500, 492, 2 * code_bytes + 2 * len(layer), 1)
    assert settings.get(ELSEWHERE) == AccountUsage(500, 500, 0, 0)


def test_a_lower_limit_than_was_reserved(tmp_path: Path) -> None:
    plane = MemoryPlane(tmp_path)
    plane.create()
    plane.reserved_concurrency.put(CALLER, {"FunctionName": "hello", "ReservedConcurrentExecutions": 900})
    usage = AccountSettings(plane.store, AccountConcurrency(plane.store, 100)).get(CALLER)
    assert usage.unreserved_concurrency == 0


def test_deprecated_runtimes(tmp_path: Path) -> None:
    plane = MemoryPlane(tmp_path)
    plane.create()
    assert not plane.account_settings.get(CALLER).has_deprecated_runtime
    plane.clock.advance(10 * 366 * 24 * 3600)
    assert plane.account_settings.get(CALLER).has_deprecated_runtime
