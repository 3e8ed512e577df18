"""Code artifacts: each deployment package once, by its SHA-256, as the zip it came in and unpacked beside it.

    <data_dir>/code/<sha256hex>.zip        what the client sent
    <data_dir>/code/<sha256hex>/           its content; there only when it is complete
    <data_dir>/code/.part-*, .gone-*       work of a call that still runs, or of a process that was killed: removed at
    opening

Function code and layers are kept alike; store/layer_trees.py makes a function's /opt of its layers.

`put_zip`, `layers` and what measures may run on any thread (they hold nothing but their own files until the final
renames); the rest belongs to the owner's thread.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import os
import shutil
import stat
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from fastlam import limits
from fastlam.errors import ApiError, FastlamError, invalid_parameter, service_fault, too_large
from fastlam.store import archive
from fastlam.store.layer_trees import LayerTrees

_UNZIP_TEXT: Final = "Could not unzip uploaded file. Please check your file, then try to upload again."
REASON_HEADER: Final = "X-Fastlam-Reason"
"""Response header that says what the service's own text leaves out."""


class Artifact(NamedTuple):
    """One stored deployment package."""

    sha256: str  # hexadecimal: its name in the store
    code_sha256: str  # base64: as the API shows it
    zip_bytes: int
    directory: Path  # unpacked; read-only by agreement
    zip_path: Path


class ArtifactStore:
    """Owner of `<data_dir>/code`, and with its trees of `<data_dir>/opt`."""

    def __init__(self, data_dir: Path, *, unzipped_bytes_max: int = limits.UNZIPPED_BYTES_MAX) -> None:
        self._root = data_dir / "code"
        self._unzipped_bytes_max = unzipped_bytes_max
        self._serial = itertools.count()
        self._mutex = threading.Lock()  # guards _held and the renames
        self._held: Counter[str] = Counter()
        self._unzipped_bytes: dict[str, int] = {}  # of those that were unpacked by us, or asked for
        try:
            self._root.mkdir(mode=0o755, exist_ok=True)
            self._trees = LayerTrees(data_dir, self._directory_of)
            for leftover in self._root.glob(".*-*"):
                _remove(leftover)
        except OSError as error:
            raise FastlamError(f"The data directory {data_dir} cannot be used: {error.strerror}.") from None

    def put_zip(self, data: bytes, *, zip_bytes_max: int = limits.ZIP_BYTES_MAX) -> Artifact:
        """Store and unpack. The artifact is held for the caller until `release`: collect() leaves it alone.

        Raises the API's own errors for what is no zip, is hostile or is too large; nothing of it stays behind. What
        comes from S3 may be as large zipped as unzipped.
        """
        if len(data) > zip_bytes_max:
            raise too_large(f"Zipped size must be smaller than {zip_bytes_max} bytes")
        if not data:
            raise invalid_parameter("Uploaded file must be a non-empty zip")
        digest = hashlib.sha256(data)
        artifact = self._artifact(digest.hexdigest(), len(data))
        with self._mutex:
            self._held[artifact.sha256] += 1
            if artifact.directory.is_dir() and artifact.zip_path.is_file():
                return artifact
        try:
            self._unpack(data, artifact)
        except BaseException as error:
            self.release(artifact.sha256)
            if isinstance(error, OSError):
                raise service_fault(f"The code could not be stored: {error.strerror}.") from error
            raise
        return artifact

    def hold(self, sha256: str) -> None:
        """Keep collect() away from an artifact, as often as it is held."""
        with self._mutex:
            self._held[sha256] += 1

    def release(self, sha256: str) -> None:
        with self._mutex:
            self._held[sha256] -= 1
            if self._held[sha256] <= 0:
                del self._held[sha256]

    def open(self, sha256: str) -> Artifact | None:
        """The artifact, unpacked anew if only its zip is left; None when there is no such code."""
        try:
            size = (self._root / f"{sha256}.zip").stat().st_size
        except (OSError, ValueError):
            return None
        artifact = self._artifact(sha256, size)
        if not artifact.directory.is_dir():
            self._unpack(artifact.zip_path.read_bytes(), artifact)
        return artifact

    def layers(self, artifacts: Sequence[str]) -> Path | None:
        """What a function with these layers has as /opt; None when one of them is missing."""
        try:
            return self._trees.open(artifacts)
        except OSError as error:
            raise service_fault(f"The layers could not be put together: {error.strerror}.") from error

    def check_unzipped(self, artifacts: Iterable[str]) -> None:
        """Raise the API's error if these, one function's code and layers, are too large together."""
        if sum(map(self.unzipped_bytes, artifacts)) > self._unzipped_bytes_max:
            raise _too_large_unzipped(self._unzipped_bytes_max)

    def unzipped_bytes(self, sha256: str) -> int:
        """What the files of an artifact take up, 0 for one that is missing. Known once it has been read.

        Not what lies in its directory, where environments may have left compiled modules by now.
        """
        known = self._unzipped_bytes.get(sha256)
        if known is None:
            try:
                data = (self._root / f"{sha256}.zip").read_bytes()
            except OSError:
                return 0
            entries = archive.read_entries(data)
            known = sum(entry.size for entry in entries if entry.kind == stat.S_IFREG)
            self._unzipped_bytes[sha256] = known
        return known

    def collect(
        self,
        referenced: Collection[str],
        in_background: Callable[[Callable[[], None]], object] | None = None,
    ) -> int:
        """Delete every artifact that is neither referenced nor held, and every tree of layers whose name (`tree_name`)
        is not referenced; returns how many artifacts.

        They are gone from the store when this returns, so that it must be called where `referenced` cannot grow stale:
        in the thread that owns the records. Only the files are removed by `in_background`, which defaults to here and
        now.
        """
        gone: list[Path] = self._trees.take_out(referenced)
        count = 0
        with self._mutex:
            for sha256 in {path.name.removesuffix(".zip") for path in self._root.iterdir() if path.name[0] != "."}:
                if sha256 in referenced or sha256 in self._held:
                    continue
                count += 1
                self._unzipped_bytes.pop(sha256, None)
                for path in (self._root / sha256, self._root / f"{sha256}.zip"):
                    trash = self._root / f".gone-{os.getpid()}-{next(self._serial)}"
                    with contextlib.suppress(FileNotFoundError):
                        path.rename(trash)
                        gone.append(trash)

        def remove() -> None:
            for trash in gone:
                _remove(trash)

        if gone:
            (in_background or (lambda work: work()))(remove)
        return count

    def clear(self) -> None:
        """Delete everything that nobody holds."""
        self.collect(())

    def _directory_of(self, sha256: str) -> Path | None:
        artifact = self.open(sha256)
        return None if artifact is None else artifact.directory

    def _artifact(self, sha256: str, size: int) -> Artifact:
        code_sha256 = base64.b64encode(bytes.fromhex(sha256)).decode()
        return Artifact(sha256, code_sha256, size, self._root / sha256, self._root / f"{sha256}.zip")

    def _unpack(self, data: bytes, artifact: Artifact) -> None:
        part = self._root / f".part-{os.getpid()}-{next(self._serial)}"
        part_zip = part.with_suffix(".zip")
        try:
            part.mkdir()
            part.chmod(0o755)
            try:
                archive.unpack(data, part, bytes_max=self._unzipped_bytes_max)
            except archive.ArchiveError as error:
                raise _refusal(error, self._unzipped_bytes_max) from None
            self._unzipped_bytes[artifact.sha256] = _bytes_of_files(part)
            part_zip.write_bytes(data)
            with self._mutex:
                part_zip.rename(artifact.zip_path)
                if not artifact.directory.is_dir():  # else another call with the same bytes was first
                    part.rename(artifact.directory)
        finally:
            _remove(part)
            _remove(part_zip)


def _refusal(error: archive.ArchiveError, bytes_max: int) -> ApiError:
    if isinstance(error, archive.EmptyArchive):
        return invalid_parameter("Uploaded file must be a non-empty zip")
    if isinstance(error, archive.ArchiveTooLarge):
        return _too_large_unzipped(bytes_max)
    return ApiError("InvalidParameterValueException", _UNZIP_TEXT, headers=((REASON_HEADER, str(error)),))


def _bytes_of_files(directory: Path) -> int:
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(directory)
        for name in names
        if not os.path.islink(os.path.join(folder, name))
    )


def _too_large_unzipped(bytes_max: int) -> ApiError:
    return invalid_parameter(f"Unzipped size must be smaller than {bytes_max} bytes")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
