"""Packages from the registry, installed as people install them into a deployment package: `pip install --target`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path


class PackageCache:
    """Fetches each set of packages once and keeps it in `directory`, for this interpreter, over test sessions."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._zips: dict[tuple[str, ...], bytes] = {}

    def install(self, *requirements: str) -> Path:
        """A directory with the packages in it, not to be changed."""
        return self.fetch("install", "--no-compile", "--only-binary", ":all:", *requirements, into="--target")

    def download(self, requirement: str) -> Path:
        """The archive of that package alone."""
        (archive,) = self.fetch("download", "--no-deps", requirement, into="--dest").iterdir()
        return archive

    def fetch(self, *command: str, into: str) -> Path:
        """The directory that this command of pip's fills, once; the option `into` names it. Raises CalledProcessError."""
        words = "\n".join((sys.implementation.cache_tag, *command))
        target = self._directory / hashlib.sha256(words.encode()).hexdigest()[:16]
        if not target.exists():
            made = self._directory / f"{target.name}.{os.getpid()}"
            pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *command, into, str(made)], check=True)
            try:
                made.rename(target)
            except OSError:
                shutil.rmtree(made)
                if not target.exists():  # but for another process, which was quicker
                    raise
        return target

    def package(self, code: str | Mapping[str, str], *requirements: str) -> bytes:
        """A deployment package: the code (a text alone is app.py) and the packages."""
        if requirements not in self._zips:
            self._zips[requirements] = _zip(self.install(*requirements))
        buffer = BytesIO(self._zips[requirements])
        with zipfile.ZipFile(buffer, "a") as archive:
            for name, content in ({"app.py": code} if isinstance(code, str) else code).items():
                archive.writestr(name, content)
        return buffer.getvalue()


def _zip(directory: Path) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(directory))
    return buffer.getvalue()
