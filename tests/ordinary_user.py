"""Runs a program as a user without privileges, for tests that root runs.

Interpreter and sources may lie in a directory that others must not enter, root's home for one: in a mount namespace of
the program's own they are put where they are, but with directories around them that all may enter.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

import pytest

import fastlam
from fastlam.sandbox.groups import hierarchies

USER_ID: Final = 64_123  # nobody has it
_numbers = count()  # of those who have become one: several may be one at a time


@contextmanager
def as_ordinary_user() -> Iterator[list[str]]:
    """What goes before the program and its arguments. The program has control groups of its own to command, as a
    session of systemd's gives them to its user, where this machine has any. Skips the test if this is not root: it runs as the others do."""
    if os.geteuid() != 0:
        pytest.skip("only root can become an ordinary user: the same tests as the user who runs them say it")
    assert shutil.which("unshare") and shutil.which("setpriv"), "install util-linux"
    if subprocess.run(["unshare", "--mount", "--propagation", "private", "true"], check=False).returncode:
        pytest.skip("root may not unshare its mounts here, which puts the interpreter in an ordinary user's reach")
    needed = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, Path(fastlam.__file__).parents[1])}
    needed |= {sys.prefix, str(Path(__file__).parent)}
    closed = {top for path in needed if (top := _closed_ancestor(Path(path)))}
    hidden = sorted(path for path in needed if _closed_ancestor(Path(path)))
    script = ["set -e"]
    if hidden:
        script.append("mount -t tmpfs none /mnt")
        script += [f"mkdir /mnt/{n} && mount --bind {shlex.quote(path)} /mnt/{n}" for n, path in enumerate(hidden)]
        script += [f"mount -t tmpfs -o mode=755 none {shlex.quote(str(top))}" for top in sorted(closed)]
        for number, path in enumerate(hidden):
            script.append(f"mkdir -p {shlex.quote(path)} && mount --bind /mnt/{number} {shlex.quote(path)}")
        script.append("umount -l /mnt")
    groups = _delegated_groups()
    script += [f"echo $$ > {shlex.quote(str(group))}/cgroup.procs" for group in groups]
    script.append(f'exec setpriv --reuid {USER_ID} --regid {USER_ID} --clear-groups "$@"')
    try:
        yield ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(script), "sh"]
    finally:
        for group in groups:
            group.rmdir()


def _delegated_groups() -> list[Path]:
    made: list[Path] = []
    number = next(_numbers)
    with suppress(OSError):
        for hierarchy in hierarchies():
            group = hierarchy.own / f"test-{os.getpid()}-{number}"
            group.mkdir()
            made.append(group)
            for path in (group, *group.iterdir()):
                os.chown(path, USER_ID, USER_ID)
    return made


def _closed_ancestor(path: Path) -> Path | None:
    """The highest directory above the path that others may not enter."""
    found = None
    for parent in path.parents:
        if not parent.stat().st_mode & stat.S_IXOTH:
            found = parent
    return found
