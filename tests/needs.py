"""What a machine lacks that a test needs."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skips the test, except in CI, where everything is there that can be installed: fails it. The reason names what to
    install.
    """
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def criu() -> str:
    """The program that copies processes."""
    program = os.environ.get("FASTLAM_TEST_CRIU") or shutil.which("criu") or shutil.which("criu", path="/usr/sbin")
    return program or missing("install criu 4.1 or newer, or say by FASTLAM_TEST_CRIU where its program is")
