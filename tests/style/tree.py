"""The files of the project, as git knows them; without git, those that are not obviously products."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CORE = ROOT / "src/fastlam/core"
CYTHON = (CORE, ROOT / "src/fastlam/http", ROOT / "src/fastlam/api")  # where there is some
_PRODUCTS = {"build", "dist", "__pycache__", "node_modules"}


@functools.cache
def files() -> tuple[Path, ...]:
    """Tracked files and new ones that no ignore rule names, below ROOT."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listing = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        ).stdout
        paths = [ROOT / os.fsdecode(name) for name in listing.split(b"\0") if name]
    else:
        paths = []
        for directory, below, names in os.walk(ROOT):
            below[:] = [name for name in below if name not in _PRODUCTS and not name.startswith(".")]
            paths += [Path(directory, name) for name in names if not name.endswith((".so", ".msgpack"))]
    return tuple(sorted(path for path in paths if path.is_file() and not path.is_symlink()))


def sources(*suffixes: str) -> list[Path]:
    """Those whose names end so."""
    return [path for path in files() if path.suffix in suffixes]


def name_of(path: Path) -> str:
    """The path as it is shown: relative to ROOT."""
    return path.relative_to(ROOT).as_posix()
