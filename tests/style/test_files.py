"""Habits of the tree: sizes, names, and nothing in it that belongs to one machine."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tree import CYTHON, ROOT, files, name_of, sources

LINES_MAX = 600
# Files past the bound, each with its reason. A file that has shrunk must leave the list.
LONGER = {
    "src/fastlam/core/driver.pxi": "submitting, waiting and driving are one hand-over, to be read in one piece",
    "tests/integration/test_executor_life.py": "every way in which an executor's life can end, one after the other",
}
# In pieces, so that this file does not find itself.
TRACES = re.compile(
    "|".join(["/wo" + "rk/", "/ro" + "ot/", "/fa" + "rm/", "hel" + "per session", r"\bstee" + r"ring\b"]), re.IGNORECASE
)
TEXT = {
    ".py",
    ".pyi",
    ".pyx",
    ".pxd",
    ".pxi",
    ".c",
    ".h",
    ".md",
    ".toml",
    ".sh",
    ".in",
    ".cfg",
    ".yml",
    ".template",
    "",
}


@pytest.mark.parametrize("path", sources(".py", ".pyx", ".pxd", ".pxi", ".c", ".h"), ids=name_of)
def test_length(path: Path) -> None:
    lines = path.read_text().count("\n")
    if name_of(path) in LONGER:
        assert lines > LINES_MAX, f"{lines} lines: take it out of LONGER"
    else:
        assert lines <= LINES_MAX, f"{lines} lines: does it hold two subjects?"


def test_exceptions_exist() -> None:
    assert set(LONGER) <= {name_of(path) for path in files()}


def test_no_traces() -> None:
    """No path of a machine, no word about how the tree came to be."""
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in files()
        if path.suffix in TEXT and "corpus" not in path.parts
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if TRACES.search(line)
    ]
    assert found == []


def test_names_of_test_modules_are_unique() -> None:
    """pytest imports them by their bare names."""
    names = Counter(path.name for path in files() if path.is_relative_to(ROOT / "tests") and path.suffix == ".py")
    assert [name for name, count in names.items() if count > 1 and name not in ("conftest.py", "__init__.py")] == []


def test_every_module_says_its_role() -> None:
    """The first line of a Python or Cython module is its docstring."""
    silent = [
        name_of(path)
        for path in sources(".py", ".pyx")
        if path.read_text().strip() and not re.match(r'(#.*\n)*r?"""\S', path.read_text())
    ]
    assert silent == []


def test_every_cython_module_has_a_stub() -> None:
    for directory in CYTHON:
        assert {path.stem for path in directory.glob("*.pyx")} == {path.stem for path in directory.glob("*.pyi")}


def test_every_cython_module_is_built() -> None:
    setup = (ROOT / "setup.py").read_text()
    modules = {f"{path.parent.name}.{path.stem}" for directory in CYTHON for path in directory.glob("*.pyx")}
    assert modules == set(re.findall(r'extension\("(\w+\.\w+)"', setup))


def test_nothing_compiled_is_older_than_its_source() -> None:
    """A compiled module goes before the Python file beside it: an edit without a build would change nothing."""
    stale = []
    for compiled in (ROOT / "src").rglob("*.so"):
        stem = compiled.name.partition(".")[0]
        found = [
            path for path in (compiled.with_name(f"{stem}{suffix}") for suffix in (".pyx", ".py")) if path.exists()
        ]
        if not found or found[0].stat().st_mtime > compiled.stat().st_mtime:
            stale.append(name_of(compiled))
    assert stale == [], "run `make build`"
