"""What the daemon has to know about a function's unpacked code before it chooses how to run it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

# boto3 and what it is made of, and packages that change what boto3 does where they can be imported. A function that
# carries one of them must not find another copy of boto3 already loaded.
_PRELOAD_CONFLICTS: Final = frozenset(
    {
        "boto3",
        "botocore",
        "dateutil",
        "jmespath",
        "s3transfer",
        "six",
        "urllib3",
        # optional dependencies of botocore and urllib3
        "OpenSSL",
        "awscrt",
        "brotli",
        "brotlicffi",
        "certifi",
        "h2",
        "socks",
        "zstandard",
    }
)

# "_speedups.cpython-312-x86_64-linux-gnu.so": module name, then interpreter and platform. abi3 files fit every version.
_TAGGED_EXTENSION: Final = re.compile(r"(?P<module>[^.]+)\.(?P<tag>(?:cpython-|pypy|graalpy)[^.]*)\.so")


def package_carries_boto3(directory: Path) -> bool:
    """Whether importing boto3 with this directory on sys.path gives, or is changed by, something from this directory.

    A layer's directory is asked for separately.
    """
    try:
        with os.scandir(directory) as entries:
            return any(entry.name.partition(".")[0] in _PRELOAD_CONFLICTS for entry in entries if _is_importable(entry))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_importable(entry: os.DirEntry[str]) -> bool:
    # "boto3-1.40.0.dist-info" is no package, but then its name up to the first dot is not one's either.
    return entry.name.endswith((".py", ".pyc", ".so")) or entry.is_dir()


def foreign_abi_extensions(
    directory: Path, suffixes: Sequence[str] = EXTENSION_SUFFIXES, *, but_in: Path | None = None
) -> list[str]:
    """Extension modules that were built for another interpreter or platform, as sorted paths relative to the directory.

    `suffixes` are those that the interpreter in question loads; this process's own unless told otherwise. A module that
    lies there for this interpreter too is left out, as are files whose name says nothing, and what lies below `but_in`.
    """
    foreign = []
    for folder, files in _folders(directory, but_in):
        names = set(files)
        for name in files:
            match = _TAGGED_EXTENSION.fullmatch(name)
            if match is None or f".{match['tag']}.so" in suffixes:
                continue
            if not any(f"{match['module']}{suffix}" in names for suffix in suffixes):
                foreign.append(os.path.relpath(os.path.join(folder, name), directory))
    return sorted(foreign)


def _folders(directory: Path, but_in: Path | None) -> Iterator[tuple[str, list[str]]]:
    left_out = "" if but_in is None else os.fspath(but_in)
    for folder, folders, files in os.walk(directory):
        if folder == left_out:
            folders.clear()
            continue
        yield folder, [name for name in files if name.endswith(".so")]
