"""The data directory and its lock: one process owns it, the second is told who."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from fastlam.errors import FastlamError


class DataDirectory:
    """Holds `<path>/lock` for as long as it is open. The kernel drops the lock with the process, however that ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise FastlamError(f"The data directory {path} cannot be used: {error.strerror}.") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise FastlamError(
                f"The data directory {path} is in use by another fastlam (pid {owner or 'unknown'}):"
                " stop it, or choose another --data-dir."
            ) from None
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(descriptor)
            raise FastlamError(f"The data directory {path} cannot be used: {error.strerror}.") from None
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
