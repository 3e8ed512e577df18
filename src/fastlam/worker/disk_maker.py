"""A process that makes disks for /tmp (worker.disks) for its owner, who never waits; root's only.

It is given to: `wire.control.MakeDisk` comes, `DiskMade` goes, and some day `ReturnDisk` comes. Where no disk can be
made, memory takes its place, and the answer says why. What comes back is emptied by a thread, and given out again. It
ends with its owner.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import deque
from queue import SimpleQueue
from typing import Final

from fastlam.wire import control
from fastlam.worker import disks
from fastlam.worker.owner import belong_to

SPARE_MAX: Final = 8  # emptied ones of a size that wait to be given out


class Maker:
    """Serves `owner`. The thread shares with it `_spare` and `_returned`, and the disks that pass through them."""

    def __init__(self, owner: socket.socket, directory: str, stage: str, broken: OSError | None) -> None:
        """`broken`: why there is no stage."""
        self._owner = owner
        self._broken = broken
        self._disks = disks.Disks(directory, stage)
        self._out: dict[int, disks.Disk] = {}
        self._number = 0
        self._spare: dict[int, deque[disks.Disk]] = {}  # by room
        self._returned: SimpleQueue[disks.Disk] = SimpleQueue()

    def serve(self) -> None:
        """Until the owner is gone."""
        threading.Thread(target=self._renew_all, name="fastlam-renew", daemon=True).start()
        while packet := self._owner.recv(control.PACKET_BYTES_MAX):
            order = control.decode_disk_order(packet)
            if isinstance(order, control.ReturnDisk):
                if order.number in self._out:
                    self._returned.put(self._out.pop(order.number))
            else:
                self._make(order.room_bytes)

    def _make(self, room_bytes: int) -> None:
        made, device, reason = -1, "", ""
        self._number += 1
        try:
            if self._broken is not None:
                raise self._broken
            disk = self._take_spare(room_bytes) or self._disks.make(room_bytes)
            made, device = disks.tmp_of(disk), disk.device
            self._out[self._number] = disk
        except OSError as error:
            reason = text(error)
            with contextlib.suppress(OSError):
                made = disks.in_memory(room_bytes)
        try:
            answer = control.encode(control.DiskMade(self._number, device, reason[:1024]))
            socket.send_fds(self._owner, [answer], [made] if made >= 0 else [])
        finally:
            if made >= 0:
                os.close(made)

    def _take_spare(self, room_bytes: int) -> disks.Disk | None:
        try:
            return self._spare[room_bytes].popleft()
        except LookupError:
            return None

    def _renew_all(self) -> None:
        while True:
            disk = self._returned.get()
            spare = self._spare.setdefault(disk.room_bytes, deque())
            try:
                disks.renew(disk)
            except OSError:
                self._discard(disk)
                continue
            if len(spare) < SPARE_MAX:
                spare.append(disk)
            else:
                self._discard(disk)

    def _discard(self, disk: disks.Disk) -> None:
        with contextlib.suppress(OSError):
            disks.discard(disk)


def text(error: OSError) -> str:
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


def main(owner_fd: int, directory_fd: int) -> None:
    """Started by module name. The directory of the files is the stage too, in this process's own mounts."""
    owner = belong_to(owner_fd, "fastlam: disks")
    os.set_inheritable(directory_fd, False)
    stage = os.readlink(f"/proc/self/fd/{directory_fd}")
    broken = None
    try:
        disks.enter_stage(stage)
    except OSError as error:
        broken = error
    with owner, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        Maker(owner, f"/proc/self/fd/{directory_fd}", stage, broken).serve()
