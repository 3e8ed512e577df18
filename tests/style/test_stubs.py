"""The stubs of compiled modules say what the modules export: the same names, the same parameters."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tree import CYTHON

STUBS = {path.stem: path for directory in CYTHON for path in sorted(directory.glob("*.pyi"))}
MODULES = list(STUBS)


def stub(name: str) -> ast.Module:
    return ast.parse(STUBS[name].read_text())


def module_of(name: str) -> ModuleType:
    return importlib.import_module(f"fastlam.{STUBS[name].parent.name}.{name}")


def stated(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Public names of a stub, or of a class in it. What begins with an underscore is the stub's own."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return {name: node for name, node in found.items() if not name.startswith("_")}


def exported(module: ModuleType, told: set[str]) -> set[str]:
    """Public names that a module makes itself; what it has imported is not among them, nor are the classes of which
    another one is the whole, unless the stub has `told` of them.
    """
    names = set()
    parts = {base for value in vars(module).values() if isinstance(value, type) for base in value.__mro__[1:]}
    parts = {part for part in parts if part.__name__ not in told}
    for name, value in vars(module).items():
        if name.startswith("_") or isinstance(value, ModuleType) or (isinstance(value, type) and value in parts):
            continue
        home = getattr(value, "__module__", None)
        if home in (None, module.__name__) and not (home is None and name in _imported(module)):
            names.add(name)
    return names


def _imported(module: ModuleType) -> set[str]:
    """Names that the sources import from our own modules; a constant does not tell where it comes from."""
    name = module.__name__.rpartition(".")[2]
    text = STUBS[name].with_suffix(".pyx").read_text()
    lists = re.findall(r"^from fastlam[\w.]* import (?:\(([^)]*)\)|(.*))$", text, re.MULTILINE)
    return {word for pair in lists for words in pair for word in re.findall(r"\w+", words)}


def attributes(cls: type, told: set[str]) -> set[str]:
    """Of the class and of the parts it is made of, down to a base that the stub tells of by itself."""
    own: list[type] = []
    for base in cls.__mro__:
        if base.__module__ != cls.__module__ or (base is not cls and base.__name__ in told):
            break
        own.append(base)
    return {name for base in own for name in vars(base) if not name.startswith("_")}


def parameters(function: Any) -> list[str] | None:
    try:
        return [name for name in inspect.signature(function).parameters if name != "self"]
    except ValueError:
        return None


def told_parameters(statement: ast.FunctionDef) -> list[str]:
    """Names of what a method takes, but for itself, in the order in which Python tells them."""
    told = statement.args
    every = [*[*told.posonlyargs, *told.args][1:], told.vararg, *told.kwonlyargs, told.kwarg]
    return [one.arg for one in every if one is not None]


@pytest.mark.parametrize("name", MODULES)
def test_names(name: str) -> None:
    module = module_of(name)
    assert Path(str(module.__file__)).suffix == ".so"
    told = set(stated(stub(name).body))
    assert told == exported(module, told)


def classes() -> list[tuple[str, str]]:
    return [
        (name, node.name)
        for name in MODULES
        for node in stub(name).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


@pytest.mark.parametrize(("name", "class_name"), classes(), ids=lambda value: value)
def test_members(name: str, class_name: str) -> None:
    cls = getattr(module_of(name), class_name)
    told = stated(stub(name).body)
    node = told[class_name]
    assert isinstance(node, ast.ClassDef)
    members = stated(node.body)
    own = attributes(cls, set(told))
    inherited = set(dir(cls)) - own  # may be told again, with a narrower type
    assert set(members) - inherited == own
    for member, statement in members.items():
        value = inspect.getattr_static(cls, member)
        is_method = inspect.isroutine(value)
        has_setter = isinstance(statement, ast.AnnAssign)
        is_property = isinstance(statement, ast.FunctionDef) and bool(statement.decorator_list)
        assert is_method == (isinstance(statement, ast.FunctionDef) and not is_property), member
        if is_method and isinstance(statement, ast.FunctionDef):
            actual = parameters(value)
            assert actual is None or actual == told_parameters(statement), member
        elif issubclass(cls, BaseException):
            continue
        else:
            assert has_setter or is_property, member
