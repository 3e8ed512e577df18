"""The private directory of one dispatcher's sockets, and the removal of those whose owners died without doing so."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from fastlam.errors import FastlamError

SOCKET_PATH_BYTES_MAX: Final = 107  # what the kernel takes (unix(7)), less the byte that ends it


def _base(prefix: str) -> Path:
    """Where sockets may lie: the user's runtime directory, or the directory for temporary files."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    bases = [given] if given and os.access(given, os.W_OK) else []
    bases += [tempfile.gettempdir(), "/tmp"]
    name_bytes = len(f"/{prefix}12345678/1234567890")
    for base in bases:
        if len(os.fsencode(base)) + name_bytes <= SOCKET_PATH_BYTES_MAX:
            return Path(base)
    raise FastlamError(f"The paths of sockets in {bases[0]} would be too long: set TMPDIR to a shorter one.")


class RuntimeDirectory:
    """A directory of mode 0700 with a lock file in it: as long as the lock is held, the owner lives."""

    def __init__(self) -> None:
        prefix = f"fastlam-{os.getuid()}-"
        base = _base(prefix)
        remove_abandoned(base, prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
        # Locked before it has its name: a file of that name that nobody has locked is one whose owner is gone.
        self._lock_fd = os.open(self.path / "new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        os.rename(self.path / "new", self.path / "lock")

    def close(self) -> None:
        """Removes the directory. Idempotent."""
        if self._lock_fd >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock_fd)
            self._lock_fd = -1


def remove_abandoned(base: Path, prefix: str) -> int:
    """Removes directories whose lock nobody holds; returns how many."""
    removed = 0
    for directory in base.glob(f"{prefix}*"):
        try:
            if directory.stat().st_uid != os.getuid() or directory.is_symlink():
                continue
            lock_fd = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # another owner is just making it, or just removing it
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass
        else:
            with contextlib.suppress(OSError):
                shutil.rmtree(directory)
                removed += 1
        finally:
            os.close(lock_fd)
    return removed
