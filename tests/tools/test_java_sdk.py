"""The AWS SDK for Java, version 2."""

from __future__ import annotations

from pathlib import Path

import pytest

import sdk_calls
from daemon_running import RunningDaemon
from toolbox import copied, fetch, require, run, sdk_environment

INSTALL = "install a JDK, 17 or later, and Maven (Debian: apt-get install openjdk-17-jdk-headless maven)"


@pytest.mark.timeout(420)
def test_calls(daemon: RunningDaemon, tmp_path: Path) -> None:
    java = require("java", install=INSTALL)
    require("javac", (17, 0), install=INSTALL)
    maven = require("mvn", install=INSTALL)
    program = copied("java_sdk", tmp_path)
    quiet = [maven, "-q", "-B", "-ntp"]
    fetch([*quiet, "dependency:build-classpath", "-Dmdep.outputFile=target/classpath"], program)
    run([*quiet, "compile"], program, seconds=300)
    classpath = f"target/classes:{(program / 'target/classpath').read_text()}"
    sdk_calls.deploy(daemon)
    saw = run([java, "-cp", classpath, "Calls", sdk_calls.NAME], program, sdk_environment(daemon))
    sdk_calls.check(saw, "Java", streams=False)
