"""Small programs of the worker's package, started by module name: nothing here imports it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from fastlam.wire.descriptors import receive

_PROGRAM: Final = (
    "import sys\n"
    "module, function, fds, *path = sys.argv[1:]\n"
    "sys.path[:0] = [path[0]]\n"
    "sys.path += [entry for entry in path[1:] if entry not in sys.path]\n"
    "from importlib import import_module\n"
    "getattr(import_module('fastlam.worker.' + module), function)(*map(int, fds.split(',')))\n"
)
_SECONDS_MAX: Final = 60.0


def start(module: str, function: str, *descriptors: int) -> subprocess.Popen[bytes]:
    """Calls a function of a worker's module in a process of its own, with the numbers of the descriptors that it is
    given; -1 stands for none.
    """
    package_root = str(Path(__file__).parents[2])
    path = [os.path.abspath(entry) for entry in sys.path if entry]
    fds = ",".join(map(str, descriptors))
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _PROGRAM, module, function, fds, package_root, *path],
        pass_fds=[fd for fd in descriptors if fd >= 0],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def make_user_namespace() -> int:
    """The descriptor of a user namespace in which this process's user can do everything. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            process = start("user_namespace", "make", theirs.fileno())
        ours.settimeout(_SECONDS_MAX)
        try:
            _, descriptors = receive(ours, 1, 1)
        finally:
            process.wait()
    if not descriptors:
        raise OSError(f"no user namespace could be made (status {process.returncode})")
    return descriptors[0]
