"""When tests run where several pytest processes (`pytest -n`) share them: what takes longest goes first, by the time that
it is given; what has to be alone comes last, and holds a lock on which every other test has a share while it runs.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def longest_first(items: list[pytest.Item]) -> None:
    """Sorts files; the order within them stays."""
    seconds: dict[Path, float] = {}
    for item in items:
        mark = item.get_closest_marker("timeout")
        if mark is not None:
            seconds[item.path] = max(seconds.get(item.path, 0.0), *mark.args)
    items.sort(key=lambda item: (_is_alone(item), -seconds.get(item.path, 0.0)))


@contextmanager
def turn(item: pytest.Item, lock: Path) -> Iterator[None]:
    """The time of one test with all of its fixtures."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if _is_alone(item) else fcntl.LOCK_SH)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # whatever child of the test may have a copy of the descriptor
        os.close(descriptor)


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None
