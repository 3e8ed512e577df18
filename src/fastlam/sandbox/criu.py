"""Where the machine's criu is, and what it takes to run it where its files are not."""

from __future__ import annotations

import errno
import glob
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from fastlam.wire.control import Criu

_ELF: Final = b"\x7fELF"
_LOADERS: Final = {"x86_64": "lib64/ld-linux-x86-64.so.2", "aarch64": "lib/ld-linux-aarch64.so.1"}
_SEEN: Final = "/usr"  # what environments see of the machine, at the same place
_OLDEST: Final = (4, 1)  # that copies without root's user (--unprivileged), on kernels of today
_ANSWER_SECONDS_MAX: Final = 10.0
_BESIDE_PATH: Final = "/usr/sbin:/usr/local/sbin"  # which a user's PATH often lacks


def installed_program() -> str:
    """$FASTLAM_CRIU, or criu on the PATH; "" where there is none."""
    return os.environ.get("FASTLAM_CRIU") or shutil.which("criu") or shutil.which("criu", path=_BESIDE_PATH) or ""


def find_criu(program: str) -> Criu:
    """The program at that path. One that lies in a tree with a C library of its own (packages of another release,
    unpacked) is run with that. Raises OSError with a sentence.
    """
    path = os.path.realpath(program)
    try:
        with open(path, "rb") as file:
            begin = file.read(len(_ELF))
    except OSError as error:
        raise OSError(error.errno, f"{program}: {error.strerror}") from None
    if begin != _ELF:
        raise OSError(errno.ENOEXEC, f"{program} is a script, or something else: name the program itself (--criu)")
    if path.startswith(f"{_SEEN}/"):
        return Criu(path)
    loader = _LOADERS.get(platform.machine(), "")
    for root in Path(path).parents[1:-1]:
        if loader and (root / loader).is_file():
            libraries = glob.glob(f"{glob.escape(str(root))}/lib/*-linux-gnu") or [str(root / "lib")]
            return Criu(path, str(root / loader), libraries[0])
    raise OSError(
        errno.ENOENT, f"{program} lies neither below {_SEEN}, which environments see, nor beside a C library of its own"
    )


def command(criu: Criu) -> list[str]:
    """Runs it where its files are."""
    return [criu.loader, "--library-path", criu.libraries, criu.program] if criu.loader else [criu.program]


def check_version(criu: Criu) -> None:
    """Raises OSError with a sentence where it is too old, or does not run at all."""
    try:
        said = subprocess.run(
            [*command(criu), "--version"],
            check=False, capture_output=True, text=True, timeout=_ANSWER_SECONDS_MAX, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"{criu.program} does not say which version it is") from None
    found = re.search(r"^Version: (\d+)\.(\d+)\S*", said.stdout, re.MULTILINE)
    if found is None:
        told = (said.stderr.strip() or said.stdout.strip()).partition("\n")[0]
        raise OSError(errno.ENOEXEC, f"{criu.program} does not say which version it is: {told or said.returncode}")
    if (int(found[1]), int(found[2])) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        version = found[0].split()[1]
        raise OSError(errno.ENOSYS, f"criu {version} is too old: {oldest} is needed (docs/howto/snapstart.md)")
