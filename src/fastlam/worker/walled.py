"""A zygote whose workers have walls: it makes the namespaces of the next one while nobody waits.

    no order for a while ──► pids, mounts, host name and System V objects of an environment, a process that holds them
    an order             ──► the worker is forked into them, and mounts what is its own

They take half of a cold start's time otherwise. An order that finds none ready has its worker make its own.
"""

from __future__ import annotations

import os
import signal
from typing import Final

import msgspec

from fastlam.wire import control
from fastlam.worker import kernel, walls
from fastlam.worker.held import Namespaces, make_held
from fastlam.worker.zygote import Zygote

_IDLE_MS: Final = 10  # after the last order: environments that have just been made have their first call now
_KINDS: Final = ("pid", *walls.AHEAD)


class WalledZygote(Zygote):
    """See the module's docstring."""

    _plan: control.Walls | None = None  # of the order before: what is made ahead is the same in all of them
    _spare: Namespaces | None = None
    _may_spare = True  # until making some has failed

    def fork_child(self, order: control.Fork | control.Keep, descriptors: list[int]) -> int:
        if not order.own_pids or isinstance(order, control.Keep):
            return super().fork_child(order, descriptors)
        if self._plan is None:
            self._plan = control.decode_spec(os.pread(descriptors[0], os.fstat(descriptors[0]).st_size, 0)).walls
        spare, self._spare = self._spare, None
        if spare is None:
            return super().fork_child(order, descriptors)
        pids, *self.prepared = spare.descriptors
        pid = -1
        try:
            kernel.setns(pids, kernel.CLONE_NEWPID)
            pid = os.fork()
        finally:
            if pid != 0:
                kernel.setns(self.own_pids, kernel.CLONE_NEWPID)
                self.prepared = []
                spare.close()
                if pid < 0:
                    os.kill(spare.first, signal.SIGKILL)
        if pid == 0:
            os.close(pids)
        else:
            self.enters(pid, spare.first)
        return pid

    @property
    def patience_ms(self) -> int | None:
        return _IDLE_MS if self._spare is None and self._plan is not None and self._may_spare else None

    def idle(self) -> None:
        assert self._plan is not None
        plan = self._plan
        try:
            self._spare = make_held(
                _KINDS, lambda: kernel.unshare(kernel.CLONE_NEWPID), lambda: walls.furnish_ahead(plan)
            )
        except (OSError, EOFError, msgspec.MsgspecError):
            self._may_spare = False  # workers make their own, and say what fails

    def gone(self, pid: int) -> None:
        if self._spare is not None and pid == self._spare.first:
            self._spare.close()
            self._spare = None
