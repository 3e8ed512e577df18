"""Imports of compiled modules, cimport and #include keep to the layers, which import-linter cannot see.

The rows are read from import-linter's own contract in pyproject.toml, so that they stand in one place.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tree import CORE, ROOT, name_of, sources
from tree import CYTHON as CYTHON_PLACES

PACKAGE = ROOT / "src/fastlam"
# What a process that runs user code may load of us (worker/), and what of core is made for it.
WORKER_MAY_IMPORT = {"worker", "wire", "errors", "limits", "core"}
WORKER_SIDE_OF_CORE = {"channel", "jsonwriter", "scan"}
# Headers of the system that csrc and core may ask for, besides C's own: Linux, POSIX, glibc and musl all have them.
C_HEADER = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
EXTERN = re.compile(r'^\s*cdef extern from "([^"]+)"', re.MULTILINE)
CYTHON_INCLUDE = re.compile(r'^\s*include "([^"]+)"', re.MULTILINE)
CIMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+cimport\b|cimport\s+([\w.]+))", re.MULTILINE)
IMPORT = re.compile(r"^\s*(?:from\s+(fastlam[\w.]*)\s+import\s+\(?([^)\n]*)|import\s+(fastlam[\w.]*))", re.MULTILINE)


def rows() -> dict[str, int]:
    """Height of each top-level name of the package; names in one row have one height."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "layers")
    return {name.strip(" ()"): len(layers) - index for index, layer in enumerate(layers) for name in layer.split("|")}


ROWS = rows()


def imported_names(path: Path) -> Iterator[str]:
    """Modules of ours that a Python file imports, at any depth of its code: `fastlam.core.channel`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            for alias in node.names:
                yield f"{node.module}.{alias.name}" if node.module in ("fastlam", "fastlam.core") else str(node.module)


def top(module: str) -> str | None:
    """`core` of fastlam.core.channel; None for what is not ours and for the package itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "fastlam" and len(parts) > 1 else None


def owner(path: Path) -> str:
    """The top-level name that a file of the package belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(path.suffix)


def allowed(importer: str, imported: str) -> bool:
    return importer == imported or ROWS[importer] > ROWS[imported]


PYTHON = [path for path in sources(".py", ".pyi") if path.is_relative_to(PACKAGE)]
CYTHON = sources(".pyx", ".pxd", ".pxi")
C = [path for path in sources(".c", ".h") if path.is_relative_to(ROOT / "csrc")]


def test_there_is_something_to_look_at() -> None:
    assert len(PYTHON) > 50
    assert len(CYTHON) >= 5
    assert len(C) >= 10
    assert ROWS["cli"] > ROWS["core"] > ROWS["wire"] > ROWS["limits"]


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_python_imports(path: Path) -> None:
    importer = owner(path)
    for module in imported_names(path):
        imported = top(module)
        if imported is None or importer in ("__init__", "__main__"):
            continue
        if imported == "__version__":
            imported = "version"
        assert importer == "worker" or imported != "worker", f"{name_of(path)} imports {module}"
        if importer == "worker":
            assert imported in WORKER_MAY_IMPORT, f"{name_of(path)} imports {module}"
            if imported == "core":
                assert module.split(".")[2] in WORKER_SIDE_OF_CORE, f"{name_of(path)} imports {module}"
        else:
            assert allowed(importer, imported), f"{name_of(path)} imports {module}, which is not below it"


@pytest.mark.parametrize("path", CYTHON, ids=name_of)
def test_cython_imports(path: Path) -> None:
    """Cython knows Python's and C's own, its package, and the rows below; what it includes lies beside it."""
    assert path.parent in CYTHON_PLACES, f"Cython lives in {[place.name for place in CYTHON_PLACES]}"
    text = path.read_text()
    worker_side = path.parent == CORE and path.stem in WORKER_SIDE_OF_CORE
    for first, second in CIMPORT.findall(text):
        module = first or second
        ours = module.startswith("fastlam.") and allowed(owner(path), str(top(module)))
        assert module.split(".")[0] in ("cpython", "libc", "cython") or ours, module
        assert not (worker_side and module == "fastlam.core.dispatcher"), module
    for module, names, plain in IMPORT.findall(text):
        modules = [plain] if plain else [module]
        if module == "fastlam":
            modules = [f"fastlam.{name.split(' as ')[0].strip()}" for name in names.split(",") if name.strip()]
        for imported in modules:
            assert allowed(owner(path), str(top(imported))), f"{name_of(path)} imports {imported}"
    for included in CYTHON_INCLUDE.findall(text):
        assert (path.parent / included).is_file(), included
        assert Path(included).suffix == ".pxi", included
    for header in EXTERN.findall(text):
        ours = (ROOT / "csrc" / header).is_file()
        assert ours or header.startswith("<") or header == "Python.h", f"{name_of(path)} declares {header}"


@pytest.mark.parametrize("path", C, ids=name_of)
def test_c_includes(path: Path) -> None:
    """csrc knows C, the system and itself, never Python; each source begins with its own contract."""
    assert path.name.startswith("fl_"), "every file of csrc has the prefix fl_"
    included = C_HEADER.findall(path.read_text())
    for bracket, header in included:
        if bracket == '"':
            assert (ROOT / "csrc" / header).is_file(), header
        else:
            assert not re.search(r"(?i)python|pyconfig|cython|zmq", header), header
    if path.suffix == ".c":
        own = path.with_suffix(".h").name
        assert next(header for bracket, header in included if bracket == '"') == own


def declared(text: str) -> set[str]:
    """Function declarations in one form: `int fl_wake_clear(int fd)`."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    found = re.findall(r"^\s*((?:const\s+)?\w[\w ]*?[ *]+fl_\w+\([^()]*\))", text, re.MULTILINE)
    # Cython names a struct without the word.
    return {re.sub(r"\s+", " ", one).replace("(void)", "()").replace("struct ", "").strip() for one in found}


def test_declarations_agree_with_headers() -> None:
    """A declaration that Cython has wrong compiles silently, and a call of it then does anything."""
    compared = 0
    for block in [
        block
        for place in CYTHON_PLACES
        for path in place.glob("native.pxd")
        for block in re.split(r"^cdef extern from ", path.read_text(), flags=re.MULTILINE)[1:]
    ]:
        header = ROOT / "csrc" / block.split('"')[1]
        if header.is_file():
            body = block.split("\n\n\n")[0]
            missing = declared(body) - declared(header.read_text())
            assert not missing, f"{header.name} does not declare {missing}"
            compared += len(declared(body))
    assert compared > 20
