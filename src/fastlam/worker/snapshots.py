"""What happens to a function around its snapshot: hooks before it and after each restore, and what must not be the same
in two environments that come from one.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
from typing import Any, Final

HOOKS_MODULE: Final = "snapshot_restore_py"  # the function's own copy of it, if its package carries one
_SEED_BYTES: Final = 64
_COPY_BYTES: Final = 1 << 30


def run_before_snapshot() -> None:
    """What was registered last goes first; each once."""
    hooks = _hooks("get_before_snapshot")
    while hooks:
        function, arguments, keywords = hooks.pop()
        function(*arguments, **keywords)


def run_after_restore() -> None:
    """In the order of registration."""
    for function, arguments, keywords in _hooks("get_after_restore"):
        function(*arguments, **keywords)


def _hooks(getter: str) -> list[Any]:
    """Those that a function has registered: none, if it has not even imported the module."""
    module = sys.modules.get(HOOKS_MODULE)
    found: list[Any] = [] if module is None else getattr(module, getter)()
    return found


def reseed() -> None:
    """New randomness for what a snapshot has copied: of the standard library, of OpenSSL and of numpy. Generators that
    the function has made for itself are its own affair, as in Lambda.
    """
    # Only where the function has imported them: in a zygote, `random` would make every worker seed it at its fork.
    if (generator := sys.modules.get("random")) is not None:
        generator.seed(os.urandom(_SEED_BYTES))
    if (temporary := sys.modules.get("tempfile")) is not None:
        temporary._name_sequence = None  # type: ignore[attr-defined]
    if (ssl := sys.modules.get("ssl")) is not None:
        ssl.RAND_add(os.urandom(_SEED_BYTES), float(_SEED_BYTES))
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        with contextlib.suppress(Exception):  # another thing of that name
            numpy_random.seed()


def lost_threads() -> list[str]:
    """Names of the threads that a restored environment will not have."""
    return [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]


def copy_files(directory_fd: int, target: str) -> None:
    """Copies what lies in the open directory, wherever that is by now: directories, files and symbolic links, with
    their permissions and times. What cannot be read, or is something else, is left out.
    """
    with os.scandir(directory_fd) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                _copy(directory_fd, entry.name, f"{target}/{entry.name}")


def _copy(directory_fd: int, name: str, target: str) -> None:
    found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=directory_fd), target)
        return
    if not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
        return
    source_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(target, 0o700)
            copy_files(source_fd, target)
        else:
            target_fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                while os.sendfile(target_fd, source_fd, None, _COPY_BYTES):
                    pass
            finally:
                os.close(target_fd)
        os.chmod(target, stat.S_IMODE(found.st_mode))
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
    finally:
        os.close(source_fd)
