"""Calls for process pools, in a module that costs a worker nothing to import."""

from __future__ import annotations

import os
import time


def tiny(value: int) -> int:
    return value + 1


def slow_pid(_: int) -> int:
    """Takes long enough for every worker to get one."""
    time.sleep(0.2)
    return os.getpid()
