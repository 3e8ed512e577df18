"""The AWS SDK for JavaScript, version 3, in Node.js."""

from __future__ import annotations

from pathlib import Path

import pytest

import sdk_calls
from daemon_running import RunningDaemon
from toolbox import copied, npm_install, require, run, sdk_environment


@pytest.mark.timeout(420)
def test_calls(daemon: RunningDaemon, tmp_path: Path) -> None:
    node = require("node", (20, 0), install="install Node.js 20 or later")
    program = copied("node_sdk", tmp_path)
    npm_install(program)
    sdk_calls.deploy(daemon)
    sdk_calls.check(run([node, "main.mjs", sdk_calls.NAME], program, sdk_environment(daemon)), "JavaScript")
