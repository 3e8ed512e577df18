"""Layers as an environment sees them: the files of a function's layers in one directory, its /opt.

    <data_dir>/opt/<name>/                 the layers of one list laid over one another; there only when it is complete
    <data_dir>/opt/.part-*, .gone-*        work of a call that still runs, or of a process that was killed: removed at
    opening

One layer alone needs no tree: its /opt is its artifact. A tree is made of hard links to the unpacked artifacts, so that
it costs no space but its directories. `open` may run on any thread; the rest belongs to the owner's.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import stat
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

_CACHES: Final = "__pycache__"


def tree_name(artifacts: Sequence[str]) -> str:
    """Of the tree that these artifacts make in this order; "" when none is needed."""
    return hashlib.sha256("\n".join(artifacts).encode()).hexdigest() if len(artifacts) > 1 else ""


class LayerTrees:
    """Owner of `<data_dir>/opt`, which is there once it is needed."""

    def __init__(self, data_dir: Path, directory_of: Callable[[str], Path | None]) -> None:
        """`directory_of` an artifact is where it lies unpacked, None when there is no such artifact."""
        self._root = data_dir / "opt"
        self._directory_of = directory_of
        self._serial = itertools.count()
        self._mutex = threading.Lock()  # guards the renames
        for leftover in self._root.glob(".*-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def open(self, artifacts: Sequence[str]) -> Path | None:
        """The directory with the content of all of them, later ones over earlier ones, built if it is not there; None
        when one of them is missing.
        """
        name = tree_name(artifacts)
        tree = self._root / name
        if name and tree.is_dir():
            return tree
        sources = [self._directory_of(artifact) for artifact in artifacts]
        found = [source for source in sources if source is not None]
        if len(found) < len(sources):
            return None
        if not name:
            return found[0] if found else None
        part = self._root / f".part-{os.getpid()}-{next(self._serial)}"
        try:
            self._root.mkdir(mode=0o755, exist_ok=True)
            part.mkdir()
            part.chmod(0o755)
            for source in found:
                _lay(os.fspath(source), os.fspath(part))
            with self._mutex:
                if not tree.is_dir():  # else another call for the same list was first
                    part.rename(tree)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return tree

    def take_out(self, referenced: Collection[str]) -> list[Path]:
        """Trees that are not referenced are no trees any more when this returns: directories for the caller to
        remove.
        """
        gone = []
        with self._mutex:
            for path in self._root.glob("[!.]*"):
                if path.name in referenced:
                    continue
                trash = self._root / f".gone-{os.getpid()}-{next(self._serial)}"
                with contextlib.suppress(FileNotFoundError):
                    path.rename(trash)
                    gone.append(trash)
        return gone


def _lay(source: str, target: str) -> None:
    """Put everything in `source` into `target`. Where both have a name, directories become one and anything else gives
    way to what comes; no link is followed, neither on the one side nor on the other.
    """
    caches = os.path.basename(source) == _CACHES
    with os.scandir(source) as entries:
        for entry in entries:
            if caches and entry.name.endswith(".pyc"):
                # Written by environments that had this layer alone; told from another layer's by time and size only.
                continue
            there = os.path.join(target, entry.name)
            if entry.is_dir(follow_symlinks=False):
                _make_directory(there)
                _lay(entry.path, there)
            elif entry.is_symlink():
                _make_way(there)
                os.symlink(os.readlink(entry.path), there)
            else:
                _link(entry.path, there)


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path)
    except FileExistsError:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            return
        os.unlink(path)
        os.mkdir(path)
    os.chmod(path, 0o755)


def _link(source: str, path: str) -> None:
    try:
        os.link(source, path, follow_symlinks=False)
        return
    except FileExistsError:
        _make_way(path)
    except OSError:
        pass  # another file system, or one without hard links, or a file with too many
    try:
        os.link(source, path, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, path, follow_symlinks=False)


def _make_way(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
