"""Writes docs/compatibility.md: what the API does with every operation of Lambda's service model, and with every
setting of a function.

The words come from the code: the entries of `api/operations.py`, and the table of `api/settings_support.py`. An
operation of the model that is nowhere declared ends the program with its name. `compatibility.py --check` only says
whether the page is what it would be.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fastlam.api import operations, service_model
from fastlam.api.code import CodeLinks
from fastlam.api.settings_support import SETTINGS
from fastlam.api.settings_support import Supported as SupportedSetting
from fastlam.api.support import Entries, Refused, Stored
from fastlam.control.plane import ControlPlane
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.memory import MemoryStore

PAGE = Path(__file__).parent.parent / "docs/compatibility.md"
HEAD = """\
# Compatibility

What fastlam does with each operation of Lambda's service model (API version {api_version}, {operations} operations)
and with each setting of a function. This page is written by `make compatibility` from the declarations in the code.

- **supported**: it has its effect; some test sees it outside of the API that has set it.
- **stored**: it is checked as the service checks it, kept and given back; the effect is still missing. Operations that
  read, list or delete such a thing are counted with it.
- **refused**: it is answered with an error of the model that says why.

Errors, states, pagination and the order of lists are those of the service in all of them.
"""
Row = tuple[str, str, str]
"""A name, one of the three words, and what there is to know."""


def main(arguments: list[str]) -> str | None:
    """The reason to fail, if there is one."""
    missing = undeclared_operations()
    if missing:
        return f"neither supported nor stored nor refused: {', '.join(missing)}"
    text = page()
    if arguments == ["--check"]:
        current = PAGE.read_text() if PAGE.exists() else ""
        return None if current == text else f"{PAGE} is not what the code says: run `make compatibility`"
    if arguments:
        return "usage: python tools/compatibility.py [--check]"
    PAGE.write_text(text)
    return None


def page() -> str:
    model = service_model.load()
    head = HEAD.format(api_version=model.api_version, operations=len(model.operations))
    parts = [head, *section("Operations", "operation", operation_rows())]
    parts += section("Settings of functions", "setting", setting_rows())
    return "\n".join(parts)


def section(title: str, column: str, rows: list[Row]) -> Iterator[str]:
    counts = Counter(state for _, state, _ in rows)
    said = ", ".join(f"{counts[state]} {state}" for state in ("supported", "stored", "refused") if counts[state])
    yield f"## {title}\n\n{said}.\n\n| {column} | | |\n|---|---|---|"
    first: dict[str, str] = {}  # the name that a text stands at; the others refer to it
    for name, state, note in rows:
        said = f" {note}" if first.setdefault(note, name) == name else f" as `{first[note]}`"
        yield f"| `{name}` | {state} |{said if note else ''} |"
    yield ""


# ---- what the code declares --------------------------------------------------------------------------


def entries() -> Entries:
    """Of a control plane that nobody uses."""
    with tempfile.TemporaryDirectory() as directory:
        artifacts = ArtifactStore(Path(directory))
        plane = ControlPlane(MemoryStore(), artifacts, lambda seconds, callback: None)
        return operations.entries(plane, CodeLinks(artifacts, lambda work, done: None))


def operation_rows() -> list[Row]:
    declared = entries()
    rows: list[Row] = []
    for operation in sorted(service_model.load().operations, key=lambda operation: operation.name):
        entry = declared.get(operation.name)
        if entry is None:
            rows.append((operation.name, "supported", operations.INVOCATIONS[operation.name]))
        elif isinstance(entry, Stored):
            rows.append((operation.name, "stored", entry.missing))
        elif isinstance(entry, Refused):
            rows.append((operation.name, "refused", entry.why))
        else:
            rows.append((operation.name, "supported", entry.note))
    return rows


def setting_rows() -> list[Row]:
    return [
        (name, "supported", setting.note)
        if isinstance(setting, SupportedSetting)
        else (name, "stored", setting.missing)
        for name, setting in SETTINGS.items()
    ]


def undeclared_operations() -> list[str]:
    declared = entries().keys() | operations.INVOCATIONS.keys()
    return sorted({operation.name for operation in service_model.load().operations} - declared)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
