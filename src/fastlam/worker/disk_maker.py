"""A process that makes disks for /tmp (worker.disks) for its owner, who never waits; root's only.

It is given to: `wire.control.MakeDisk` comes, `DiskMade` goes. Where no disk can be made, memory takes its place, and the
answer says why. It ends with its owner.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket

from fastlam.wire import control
from fastlam.worker import disks, kernel


def serve(owner: socket.socket, directory: str) -> None:
    """Until the owner is gone."""
    maker = disks.Disks(directory)
    while packet := owner.recv(control.PACKET_BYTES_MAX):
        order = control.decode_disk_order(packet)
        made, device, reason = -1, "", ""
        try:
            made, device = maker.make(order.room_bytes)
        except OSError as error:
            reason = text(error)
            with contextlib.suppress(OSError):
                made = disks.in_memory(order.room_bytes)
        try:
            answer = control.encode(control.DiskMade(device, reason[:1024]))
            socket.send_fds(owner, [answer], [made] if made >= 0 else [])
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            if made >= 0:
                os.close(made)


def text(error: OSError) -> str:
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


def main(owner_fd: int, directory_fd: int) -> None:
    """Started by module name."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        from setproctitle import setproctitle

        setproctitle("fastlam: disks")
    except ImportError:
        pass
    with socket.socket(fileno=owner_fd) as owner:
        owner.set_inheritable(False)
        os.set_inheritable(directory_fd, False)
        serve(owner, f"/proc/self/fd/{directory_fd}")
