"""What making one resource gives: what references to it mean from then on, and what was changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastlam.deploy.service import Service
from fastlam.deploy.template import TemplateError
from fastlam.errors import FastlamError

POLL_SECONDS: Final = 0.02
SETTLE_SECONDS: Final = 300


class Packaging(NamedTuple):
    """How files on this machine become zips."""

    function: Callable[[Path, str], bytes]
    """`function(path, runtime)`: a directory (its requirements installed for the runtime), a file or a zip."""
    layer: Callable[[Path], bytes]


class Context(NamedTuple):
    """What making a resource may use."""

    service: Service
    folder: Path  # of the template: its paths start there
    packaging: Packaging


class Made(NamedTuple):
    ref: Any  # what Ref gives
    attributes: dict[str, Any]  # what GetAtt gives
    changes: list[str]  # in words; none where everything was so already


def await_settled(ask: Callable[[], dict[str, Any]], moving: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """What `ask` gives once `moving` says nothing of it any more; until then it says what goes on."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found = ask()
        state = moving(found)
        if not state:
            return found
        if time.monotonic() > deadline:
            raise FastlamError(f"{state}, still after {SETTLE_SECONDS} s.")
        time.sleep(POLL_SECONDS)


def check_properties(where: str, given: dict[str, Any], known: frozenset[str], required: tuple[str, ...]) -> None:
    """Refuse a misspelt property before anything is made from the others."""
    unknown = sorted(given.keys() - known)
    if unknown:
        raise TemplateError(f"{where} has a property that is not known: {', '.join(unknown)}.")
    missing = [name for name in required if given.get(name) in (None, "")]
    if missing:
        raise TemplateError(f"{where} has no {' and no '.join(missing)}.")
