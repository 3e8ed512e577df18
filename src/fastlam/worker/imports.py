"""What a function can import: its own packages, the standard library and what Lambda's Python brings along.

The process of an execution environment has imported the runtime's modules, from directories that a function must not
see. They are taken out of the import system before user code is loaded, and go on working for whoever holds them. The
order in a zygote is: `hide_runtime_modules()`, `preload_boto3()` for functions that carry no copy of their own, fork,
`set_path()`.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from importlib.abc import Loader
    from importlib.metadata import Distribution, DistributionFinder

# Packages that `import boto3` loads, each with the name of its distribution.
BOTO3_PACKAGES: Final = {
    "boto3": "boto3",
    "botocore": "botocore",
    "dateutil": "python-dateutil",
    "jmespath": "jmespath",
    "s3transfer": "s3transfer",
    "six": "six",
    "urllib3": "urllib3",
}
# Lambda's Python runtimes have these in their own site-packages; those that are installed here are served. (requests,
# for one, decodes with simplejson where it finds it.)
RUNTIME_PACKAGES: Final = BOTO3_PACKAGES | {
    "awslambdaric": "awslambdaric",
    "simplejson": "simplejson",
    "snapshot_restore_py": "snapshot-restore-py",
}

# boto3 and what its clients and resources would load at their first use.
_PRELOADED_MODULES: Final = (
    "boto3",
    "boto3.dynamodb.transform",
    "boto3.ec2.createtags",
    "boto3.s3.inject",
    "encodings.idna",
)

# The second is multiprocessing's name for the first.
_PROGRAM_NAMES: Final = frozenset({"__main__", "__mp_main__"})

_STDLIB_DIRECTORY: Final = os.path.dirname(os.path.realpath(os.__file__))
_STDLIB_ARCHIVE: Final = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
_FOREIGN_PARTS: Final = frozenset({"site-packages", "dist-packages"})


class RuntimePackagesFinder:
    """Finds the runtime's own packages; last of sys.meta_path, so that a function's packages come first."""

    def __init__(self, package_directories: Iterable[str], hidden: Sequence[ModuleType] = ()) -> None:
        self.package_directories = tuple(package_directories)
        # Nothing else may hold some of them: a module that is let go loses its state.
        self.hidden_modules = tuple(hidden)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or fullname not in RUNTIME_PACKAGES:
            return None  # a package of ours finds its own submodules by its __path__
        return PathFinder.find_spec(fullname, self.package_directories, target)

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterator[Distribution]:
        """Metadata of the same packages and of no others."""
        import importlib.metadata  # takes milliseconds, and few functions ask

        if context is not None and "path" in vars(context):
            return  # asks for certain directories, not for what can be imported
        name = None if context is None else context.name
        for distribution in RUNTIME_PACKAGES.values():
            if name is None or _normalized(name) == distribution:
                yield from importlib.metadata.distributions(name=distribution, path=list(self.package_directories))

    def invalidate_caches(self) -> None:
        """Nothing is cached here."""


def hide_runtime_modules(*, keep_boto3: bool = False) -> None:
    """Leaves the standard library in the import system and serves RUNTIME_PACKAGES, nothing else.

    Modules from anywhere else leave sys.modules, their directories leave sys.path, their finders leave sys.meta_path
    and sys.path_hooks. `keep_boto3` leaves boto3 and what belongs to it loaded. A second call hides what has come
    since.
    """
    kept = BOTO3_PACKAGES if keep_boto3 else {}
    names = [name for name, module in sys.modules.items() if not _stays(name, module, kept)]
    hidden = [*(sys.modules.pop(name) for name in names), *hide_program()]
    directories = [entry for entry in sys.path if not _is_stdlib_entry(entry)]
    for finder in sys.meta_path:
        if isinstance(finder, RuntimePackagesFinder):
            directories += finder.package_directories
            hidden += finder.hidden_modules
    sys.meta_path[:] = [finder for finder in sys.meta_path if _module_of(finder) in sys.modules]
    sys.path_hooks[:] = [hook for hook in sys.path_hooks if _module_of(hook) in sys.modules]
    sys.path_importer_cache.clear()
    set_path(())
    sys.meta_path.append(RuntimePackagesFinder(_holding_packages(directories), hidden))


class _TemporaryFinder:
    """First of sys.meta_path until somebody imports tempfile, which few functions do and which takes milliseconds."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "tempfile":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _TemporaryLoader(spec.loader, self.directory)  # type: ignore[assignment]
        return spec


class _TemporaryLoader:
    """In the place of tempfile's own, until it is loaded. (Its base class would bring tempfile along.)"""

    def __init__(self, own: Loader, directory: str) -> None:
        self.own = own
        self.directory = directory

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.own
        if module.__spec__ is not None:
            module.__spec__.loader = self.own
        self.own.exec_module(module)
        module.tempdir = self.directory  # type: ignore[attr-defined]


def set_temporary_directory(directory: str) -> None:
    """What tempfile makes lies there, unless the function has it elsewhere. (TMPDIR would be a variable that Lambda
    does not set.)
    """
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _TemporaryFinder)]
    if os.environ.get("TMPDIR"):
        return
    if (module := sys.modules.get("tempfile")) is not None:
        module.tempdir = directory  # type: ignore[attr-defined]
    else:
        sys.meta_path.insert(0, _TemporaryFinder(directory))


def hide_program() -> list[ModuleType]:
    """Puts an empty module in the place of the program's own, which it returns; without a file, so that multiprocessing
    does not run it again.
    """
    program = ModuleType("__main__")
    hidden = []
    for name in _PROGRAM_NAMES & sys.modules.keys():
        hidden.append(sys.modules[name])
        sys.modules[name] = program
    return hidden


def set_path(entries: Iterable[str]) -> None:
    """Makes sys.path the given directories (the function's, in order) and the standard library."""
    sys.path[:] = [*entries, *(entry for entry in sys.path if _is_stdlib_entry(entry))]


def preload_boto3() -> None:
    """Imports boto3 with all that a first client needs, seeing neither the runtime's other packages nor a function's.

    No session, no loader and no credentials exist before user code makes them.
    """
    path, meta_path = list(sys.path), list(sys.meta_path)
    if not any(isinstance(finder, RuntimePackagesFinder) for finder in meta_path):
        directories = _holding_packages(entry for entry in path if not _is_stdlib_entry(entry))
        sys.meta_path.append(RuntimePackagesFinder(directories))
    before = tuple(sys.meta_path)
    set_path(())
    try:
        for name in _PRELOADED_MODULES:
            importlib.import_module(name)
    finally:
        sys.path[:] = path
        # six brings finders of its own, which stay.
        sys.meta_path[:] = [*meta_path, *(finder for finder in sys.meta_path if finder not in before)]


def _stays(name: str, module: Any, kept: Iterable[str]) -> bool:
    top = name.partition(".")[0]
    if top in kept or name in _PROGRAM_NAMES:
        return True
    spec = getattr(module, "__spec__", None)
    origin = getattr(module, "__file__", None) or getattr(spec, "origin", None)
    if isinstance(origin, str) and origin not in ("built-in", "frozen"):
        return _is_stdlib_path(origin)
    return top in sys.stdlib_module_names


def _is_stdlib_path(path: str) -> bool:
    real = os.path.realpath(path)
    return real.startswith(f"{_STDLIB_DIRECTORY}/") and _FOREIGN_PARTS.isdisjoint(real.split("/"))


@functools.cache  # the zygote's entries are its workers' too
def _is_stdlib_entry(entry: str) -> bool:
    return (
        os.path.realpath(entry) == _STDLIB_DIRECTORY
        or _is_stdlib_path(entry)
        or os.path.basename(entry) == _STDLIB_ARCHIVE
    )


def _module_of(finder: Any) -> str:
    name = getattr(finder, "__module__", None) or type(finder).__module__
    return str(name)


def _holding_packages(directories: Iterable[str]) -> list[str]:
    """Those of the directories in which one of the runtime packages lies, in their order."""
    found = []
    for directory in dict.fromkeys(directories):
        if any(
            os.path.isdir(os.path.join(directory, name)) or os.path.isfile(os.path.join(directory, f"{name}.py"))
            for name in RUNTIME_PACKAGES
        ):
            found.append(directory)
    return found


def _normalized(distribution: str) -> str:
    return distribution.lower().replace("_", "-").replace(".", "-")
