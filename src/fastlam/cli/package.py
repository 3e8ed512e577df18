"""What `deploy` sends: a directory with its requirements, or a file, as a zip that depends on the content alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Final

from fastlam.cli.session import CommandError

SKIPPED_DIRECTORIES: Final = frozenset(
    {
        "__pycache__",
        ".git",
        ".hg",
        ".svn",
        ".venv",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".hypothesis",
        ".tox",
    }
)
SKIPPED_SUFFIXES: Final = (".pyc", ".pyo")
TIMESTAMP: Final = (1980, 1, 1, 0, 0, 0)  # the zip format's earliest: the same files make the same bytes


def package(path: Path, runtime: str) -> bytes:
    """The zip of what lies at `path`."""
    if path.is_dir():
        return _package_directory(path, runtime)
    if not path.is_file():
        raise CommandError(f"{path} does not exist.")
    if path.suffix == ".zip":
        if not zipfile.is_zipfile(path):
            raise CommandError(f"{path} is no zip file.")
        return path.read_bytes()
    return zip_files({path.name: path})


def default_handler(path: Path) -> str | None:
    """What the files suggest: the function `handler` of the one file or of app.py, or the name AWS's console gives."""
    if path.is_file():
        return f"{path.stem}.handler" if path.suffix == ".py" else None
    for module, function in (("app", "handler"), ("lambda_function", "lambda_handler")):
        if (path / f"{module}.py").is_file():
            return f"{module}.{function}"
    return None


def _package_directory(path: Path, runtime: str) -> bytes:
    own = collect(path)
    requirements = path / "requirements.txt"
    if not requirements.is_file() or not _requires_anything(requirements):
        return zip_files(own)
    with tempfile.TemporaryDirectory(prefix="fastlam-build-") as build:
        install_requirements(requirements, Path(build), runtime)
        return zip_files({**collect(Path(build)), **own})  # the project's own file wins


def _requires_anything(requirements: Path) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in requirements.read_text().splitlines())


def install_requirements(requirements: Path, target: Path, runtime: str) -> None:
    """Installs for the runtime's Python, which may be another than this one: then only ready-made wheels will do."""
    arguments = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    arguments += ["--no-compile", "--target", str(target), "--requirement", requirements.name]
    version = runtime.removeprefix("python")
    if runtime.startswith("python") and version != f"{sys.version_info.major}.{sys.version_info.minor}":
        arguments += ["--python-version", version, "--only-binary", ":all:"]
    # pip's own words go to the terminal; relative paths in the file mean the project's directory
    done = subprocess.run(arguments, cwd=requirements.parent, stdout=sys.stderr.fileno(), check=False)
    if done.returncode != 0:
        raise CommandError(f"pip could not install {requirements}: its reason stands above.")


def collect(root: Path) -> dict[str, Path]:
    """Name in the zip → file, for all of a directory that belongs into a package. Links are followed."""
    return dict(_walk(root, "", frozenset()))


def _walk(directory: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, Path]]:
    status = directory.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise CommandError(f"{directory} is a link to a directory that contains it: remove the link.")
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = directory / entry.name
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
        if stat.S_ISDIR(mode):
            if entry.name not in SKIPPED_DIRECTORIES:
                yield from _walk(path, f"{prefix}{entry.name}/", above | {identity})
        elif not stat.S_ISREG(mode):
            raise CommandError(f"{path} is neither a file nor a directory: it cannot be packaged.")
        elif not entry.name.endswith(SKIPPED_SUFFIXES):
            yield prefix + entry.name, path


def zip_files(files: dict[str, Path]) -> bytes:
    """Sorted names, one timestamp, two modes: the bytes depend on names, contents and the executable bit only."""
    if not files:
        raise CommandError("There is nothing to deploy: the directory holds no files.")
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(files):
            path = files[name]
            try:
                mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
                data = path.read_bytes()
            except OSError as error:
                raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
            entry = zipfile.ZipInfo(name, TIMESTAMP)
            entry.create_system = 3  # Unix: the modes count
            entry.external_attr = (stat.S_IFREG | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return buffer.getvalue()
