"""Toolchains that tests need: looked for, and run. What is missing skips a test, except in CI, where it fails one. A
registry of packages that CI may not reach either skips it there too; that is all that `fetch` is for, and what is built
of the packages is built by `run`, so that no mistake of ours looks like a registry that does not answer.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from daemon_running import REGION, RunningDaemon
from needs import missing

HERE: Final = Path(__file__).parent
_VERSION: Final = re.compile(r"(\d+)\.(\d+)")


def require(program: str, minimum: tuple[int, int] = (0, 0), *, install: str, version: str = "--version") -> str:
    """The path of a program that is at least so new; `install` says how to come by it."""
    path = shutil.which(program)
    if path is None:
        missing(f"there is no {program}: {install}")
    if minimum > (0, 0):
        said = subprocess.run([path, version], check=True, capture_output=True, text=True).stdout
        found = _VERSION.search(said)
        assert found is not None, said
        if (int(found[1]), int(found[2])) < minimum:
            missing(f"{program} {found[0]} is older than {minimum[0]}.{minimum[1]}: {install}")
    return path


def fetch(
    command: Sequence[str], place: Path, environment: Mapping[str, str] | None = None, seconds: float = 300
) -> str:
    """Runs what does nothing but download from a registry; where none answers, the test is skipped."""
    status, output = _run(command, place, environment, seconds)
    if status != 0:
        pytest.skip(f"{' '.join(command[:3])} failed, which needs a package registry: {output[-2000:]}")
    return output


def run(command: Sequence[str], place: Path, environment: Mapping[str, str] | None = None, seconds: float = 100) -> str:
    """What a program prints on stdout; the test fails if the program does."""
    status, output = _run(command, place, environment, seconds, subprocess.PIPE)
    assert status == 0, output
    return output


def sdk_environment(daemon: RunningDaemon, **more: str) -> dict[str, str]:
    """What `fastlam env` sets, and nothing else that speaks of AWS: the endpoint, a region, stand-in keys."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **kept,
        "AWS_ENDPOINT_URL": daemon.url,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        **more,
    }


def copied(name: str, place: Path) -> Path:
    """The program of that name, where it may be built."""
    return Path(shutil.copytree(HERE / name, place / name))


def npm_install(place: Path) -> None:
    """The packages that package.json names; no lock file, since it would name the registry."""
    npm = require("npm", install="install Node.js 20 or later with npm")
    fetch([npm, "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"], place)


def _run(
    command: Sequence[str],
    place: Path,
    environment: Mapping[str, str] | None,
    seconds: float,
    stderr: int = subprocess.STDOUT,
) -> tuple[int, str]:
    """Exit status and output. The program has a session of its own, so that its children end with it."""
    with subprocess.Popen(
        command,
        cwd=place,
        env=None if environment is None else dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, output if process.returncode == 0 else f"{output}\n{errors or ''}"
