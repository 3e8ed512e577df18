"""How tests wait for what tells of no change by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

WAIT_SECONDS: Final = 60.0  # for what must come; a test that needs so long has failed
POLL_SECONDS: Final = 0.005  # between two looks


def await_that(condition: Callable[[], object]) -> None:
    """Returns when the condition holds; a test that waits too long has failed."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it has not come to pass"
        time.sleep(POLL_SECONDS)
