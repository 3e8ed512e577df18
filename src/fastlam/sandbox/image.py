"""The file system that a function sees: the machine's programs and libraries, read-only, and little else.

Nothing of the machine's is in it that is not named here: no home, no data directory, no runtime directory. What Lambda
has at certain places is there too: /var/task, /opt, /var/runtime, /var/lang, /tmp.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fastlam.wire.control import Mount

TASK_ROOT: Final = "/var/task"
LAYER_ROOT: Final = "/opt"
LANGUAGE_ROOT: Final = "/var/lang"
USER_ID: Final = 993  # where it is the only user of a user namespace
USER_NAME: Final = "sbx_user1051"  # as in Lambda
_EMPTY: Final = ("/var/runtime", "/run", LAYER_ROOT, TASK_ROOT, "/mnt", "/var/tmp")

_SYSTEM: Final = "/usr"
_BESIDE_SYSTEM: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")  # links into /usr, as a rule
# Name resolution, certificates, the linker, time zones: what libraries look up.
_SETTINGS: Final = (
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/pki",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/ssl/certs",
)


@functools.cache
def system_mounts() -> tuple[Mount, ...]:
    """Programs, libraries and settings of this machine, and the interpreter with what the runtime has installed. Looked
    for once: a cold start waits for none of it.
    """
    mounts = [Mount("bind", _SYSTEM, _SYSTEM)]
    mounts += [Mount("bind", path, path) for path in _BESIDE_SYSTEM if os.path.isdir(path) and not os.path.islink(path)]
    seen: set[str] = set()
    for path in _SETTINGS:
        real = os.path.realpath(path)
        if os.path.exists(real) and not any(real == one or real.startswith(f"{one}/") for one in seen):
            seen.add(real)
            mounts.append(Mount("bind", path, real))
    mounts += [Mount("bind", path, path) for path in interpreter_directories()]
    return tuple(mounts)


@functools.cache
def system_links() -> tuple[tuple[str, str], ...]:
    links = [(path, os.readlink(path)) for path in _BESIDE_SYSTEM if os.path.islink(path)]
    return (*links, (LANGUAGE_ROOT, sys.base_prefix), ("/etc/mtab", "/proc/self/mounts"))


def interpreter_directories() -> list[str]:
    """Where modules of the interpreter and of the runtime lie, without those below another one or below /usr."""
    package = str(Path(__file__).parents[1])
    entries = [sys.base_prefix, sys.base_exec_prefix, package]
    entries += [entry for entry in sys.path if os.path.isdir(entry) and _holds_packages(entry)]
    kept: list[str] = []
    for entry in sorted({os.path.abspath(entry) for entry in entries}):
        if not any(entry == one or entry.startswith(f"{one}/") for one in (_SYSTEM, *kept)):
            kept.append(entry)
    return kept


def _holds_packages(entry: str) -> bool:
    """Not so of a directory that is on the path only because the program was started there."""
    return os.path.basename(entry.rstrip("/")) in ("site-packages", "dist-packages", "lib-dynload")


def user_files(uid: int) -> list[tuple[str, bytes]]:
    """Who the function is, for those who look it up."""
    return [
        ("/etc/passwd", f"root:x:0:0:root:/:/sbin/nologin\n{USER_NAME}:x:{uid}:{uid}::/:/sbin/nologin\n".encode()),
        ("/etc/group", f"root:x:0:\n{USER_NAME}:x:{uid}:\n".encode()),
    ]


def function_mounts(
    code: str, opt: str, storage_mb: int, file_systems: Iterable[tuple[str, str]], *, given_tmp: bool = False
) -> list[Mount]:
    """The function's own part: its code, its layers, its /tmp of so many MB, and pairs of directory and mount path. A
    `given_tmp` comes by a descriptor.
    """
    mounts = [Mount("bind", TASK_ROOT, code)]
    if opt:
        mounts.append(Mount("bind", LAYER_ROOT, opt))
    mounts += [Mount("bind", target, source, writable=True) for source, target in file_systems]
    options = f"mode=1777,size={storage_bytes(storage_mb)}"
    mounts.append(Mount("given", "/tmp") if given_tmp else Mount("tmpfs", "/tmp", options=options))
    mounts.append(Mount("proc", "/proc"))
    return mounts


def storage_bytes(storage_mb: int) -> int:
    """What /tmp holds: in Lambda 538,333,184 bytes were free of 512 MB, and 10,738,335,744 of 10,240 MB."""
    return storage_mb * 1024 * 1024 + 1_462_272


def empty_directories() -> tuple[str, ...]:
    return _EMPTY
