"""What happens to a function around its snapshot: hooks before it and after each restore, and what must not be the same
in two environments that come from one.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import tempfile
import threading
from typing import Any, Final

HOOKS_MODULE: Final = "snapshot_restore_py"  # the function's own copy of it, if its package carries one
_SEED_BYTES: Final = 64


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
    random.seed(os.urandom(_SEED_BYTES))
    tempfile._name_sequence = None  # type: ignore[attr-defined]
    if (ssl := sys.modules.get("ssl")) is not None:
        ssl.RAND_add(os.urandom(_SEED_BYTES), float(_SEED_BYTES))
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        with contextlib.suppress(Exception):  # another thing of that name
            numpy_random.seed()


def lost_threads() -> list[str]:
    """Names of the threads that a restored environment will not have."""
    return [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]


def copy_files(directory_fd: int, target: str) -> None:
    """Copies what lies in the open directory, wherever that is by now; what cannot be read is left out."""
    with contextlib.suppress(shutil.Error, OSError):
        shutil.copytree(f"/proc/self/fd/{directory_fd}", target, symlinks=True, dirs_exist_ok=True)
