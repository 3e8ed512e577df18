"""What a machine lacks that a test needs."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skips the test, except in CI, where everything is there that can be installed: fails it. The reason names what to
    install.
    """
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)
