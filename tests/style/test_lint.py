"""The linters, as tests: `make test` and CI have them installed; elsewhere those that are missing are skipped."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from needs import missing
from tree import ROOT

SCRIPTS = Path(sys.executable).parent
LINTERS = {
    "ruff": ("ruff", ["ruff", "check", "."]),
    "mypy": ("mypy", ["mypy", "--no-error-summary"]),
    "cython-lint": ("cython_lint", ["cython-lint", "src"]),
    "import-linter": ("importlinter", ["lint-imports", "--no-logo", "--no-cache"]),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", LINTERS)
def test_linter_is_content(name: str) -> None:
    module, (program, *arguments) = LINTERS[name]
    if importlib.util.find_spec(module) is None:
        missing(f"{name} is not installed: make lint installs it")
    environment = {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    result = subprocess.run(
        [str(SCRIPTS / program), *arguments], cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
