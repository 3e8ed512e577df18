"""Packages from the registry, installed as people install them into a deployment package: `pip install --target`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path


class PackageCache:
    """Installs each set of requirements once and keeps it in `directory`, for this interpreter, over test sessions."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._zips: dict[tuple[str, ...], bytes] = {}

    def install(self, *requirements: str) -> Path:
        """A directory with the packages in it, not to be changed."""
        words = "\n".join((sys.implementation.cache_tag, *requirements))
        target = self._directory / hashlib.sha256(words.encode()).hexdigest()[:16]
        if not target.exists():
            made = self._directory / f"{target.name}.{os.getpid()}"
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
            subprocess.run([*command, "--only-binary", ":all:", "--target", str(made), *requirements], check=True)
            made.rename(target)
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
