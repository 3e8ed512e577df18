"""The AWS SDK for Go, version 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import sdk_calls
from daemon_running import RunningDaemon
from toolbox import copied, fetch, require, run, sdk_environment


@pytest.mark.timeout(420)
def test_calls(daemon: RunningDaemon, tmp_path: Path) -> None:
    go = require("go", (1, 24), install="install Go 1.24 or later", version="version")
    program = copied("go_sdk", tmp_path)
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    fetch([go, "mod", "download"], program, environment)
    run([go, "build", "-mod=mod", "-o", "calls", "."], program, environment, 400)
    sdk_calls.deploy(daemon)
    sdk_calls.check(run(["./calls", sdk_calls.NAME], program, sdk_environment(daemon)), "Go")
