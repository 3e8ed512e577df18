"""The scripts in tests/scripts, each against a fresh daemon, with nothing set but what `fastlam env` says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon_running import running_daemon
from fastlam.cli.aws import find_aws
from needs import missing

SCRIPTS = Path(__file__).parent.parent / "scripts"
INVOCATIONS = 2000  # of the alias in the middle of its shift; test_invoke_versions has more


def run(*command: str, timeout: float) -> str:
    with running_daemon() as daemon:
        env = [sys.executable, "-m", "fastlam", "--endpoint-url", daemon.url, "env", "--json"]
        variables: dict[str, str] = json.loads(subprocess.run(env, check=True, capture_output=True, text=True).stdout)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        result = subprocess.run(
            command,
            check=False,
            env={**os.environ, **variables, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.mark.timeout(600)  # some ninety calls of a program that takes a second to start on a busy machine
def test_the_aws_command_line() -> None:
    if find_aws() is None:
        missing('there is no aws command line: pip install "fastlam[aws]"')
    assert run(str(SCRIPTS / "control_plane.sh"), timeout=580).endswith("58 answers are as documented\n")


def test_boto3() -> None:
    program = str(SCRIPTS / "control_plane.py")
    assert run(sys.executable, program, str(INVOCATIONS), timeout=110).endswith("57 answers are as documented\n")
