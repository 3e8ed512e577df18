"""The AWS SDK for Rust, with the HTTP client that has no TLS in it: that would double the time of the build."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import sdk_calls
from daemon_running import RunningDaemon
from toolbox import copied, fetch, require, run, sdk_environment


@pytest.mark.skipif("FASTLAM_TEST_RUST" not in os.environ, reason="builds for minutes: only with FASTLAM_TEST_RUST=1")
@pytest.mark.timeout(620)
def test_calls(daemon: RunningDaemon, tmp_path: Path, cached: Path) -> None:
    cargo = require("cargo", (1, 94), install="install Rust 1.94 or later, by rustup for instance")
    program = copied("rust_sdk", tmp_path)
    target = cached / "rust"
    fetch([cargo, "fetch", "--quiet"], program)
    run([cargo, "build", "--quiet", "--target-dir", str(target)], program, seconds=550)
    sdk_calls.deploy(daemon)
    saw = run([str(target / "debug/calls"), sdk_calls.NAME], program, sdk_environment(daemon))
    sdk_calls.check(saw, "Rust")
