"""Requests that have slow work in the middle (unpacking, hashing), written as one function each.

Such a function is a generator: it yields each piece of slow work as a callable and gets its result back. Between the
pieces it runs in the thread that owns the records. `complete` runs it where nobody minds waiting; the API server runs
the pieces on a worker thread instead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")

Steps = Generator[Callable[[], Any], Any, T]


def complete(steps: Steps[T]) -> T:
    """Run the slow pieces here and now."""
    try:
        work = next(steps)
        while True:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - the generator's to handle
                work = steps.throw(error)
            else:
                work = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
