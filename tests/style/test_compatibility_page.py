"""docs/compatibility.md says what the code declares, and the code declares every operation."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys

import pytest

from fastlam.api import service_model
from fastlam.api.operations import INVOCATIONS
from fastlam.api.support import Refused, Stored, Supported
from tree import ROOT

TOOL = runpy.run_path(str(ROOT / "tools/compatibility.py"))
MODEL = {operation.name for operation in service_model.load().operations}
TEXT = re.compile(r"[a-z$`/][^|\n]*[^.|\n]")  # goes on in a table


def test_the_page_is_what_the_code_says() -> None:
    assert TOOL["PAGE"].read_text() == TOOL["page"](), "run `make compatibility`"
    checked = subprocess.run([sys.executable, ROOT / "tools/compatibility.py", "--check"], check=False)
    assert checked.returncode == 0


def test_every_operation_is_declared_once() -> None:
    entries = TOOL["entries"]()
    assert entries.keys() | INVOCATIONS.keys() == MODEL
    assert not entries.keys() & INVOCATIONS.keys()
    assert TOOL["undeclared_operations"]() == []


def test_only_durable_executions_are_refused() -> None:
    refused = {name for name, entry in TOOL["entries"]().items() if isinstance(entry, Refused)}
    assert refused and all("DurableExecution" in name for name in refused)


def test_every_declaration_says_what_it_has_to() -> None:
    for name, entry in TOOL["entries"]().items():
        if isinstance(entry, Stored):
            assert TEXT.fullmatch(entry.missing), name
        elif isinstance(entry, Refused):
            assert TEXT.fullmatch(entry.why), name
        else:
            assert isinstance(entry, Supported)
            assert not entry.note or TEXT.fullmatch(entry.note), name


def test_an_undeclared_operation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(INVOCATIONS, "Invoke")
    assert TOOL["main"]([]) == "neither supported nor stored nor refused: Invoke"
