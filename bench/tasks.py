"""Calls for process pools, in a module that costs a worker nothing to import."""

from __future__ import annotations


def tiny(value: int) -> int:
    return value + 1
