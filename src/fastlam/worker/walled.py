"""A zygote whose workers have walls: while nobody waits it makes the next one, as far as it is the same for all.

    no order for a while ──► pids, mounts, host name and System V objects of an environment, a process that holds them,
                             and a worker that has entered them and waits, with copies of the pages that it will write
                             to (worker.touched)
    an order             ──► the worker is handed its descriptors, joins its groups, and mounts what is its own

That is more than half of a cold start's time otherwise. An order that finds none ready has its worker make its own.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import Final, NamedTuple

import msgspec
import setproctitle

from fastlam.core.channel import populate_for_writing
from fastlam.wire import control
from fastlam.wire.descriptors import receive
from fastlam.worker import kernel, walls
from fastlam.worker.held import OK, make_held
from fastlam.worker.touched import SEEN_MAX, Touched
from fastlam.worker.zygote import Zygote

TITLE: Final = "fastlam: next environment"
_IDLE_MS: Final = 10  # after the last order: environments that have just been made have their first call now
_KINDS: Final = ("pid", *walls.AHEAD)


class Waiting(NamedTuple):
    """A worker that waits for what makes it somebody's."""

    pid: int
    first: int  # of its namespaces
    door: socket.socket


class WalledZygote(Zygote):
    """See the module's docstring."""

    _plan: control.Walls | None = None  # of the order before: what is made ahead is the same in all of them
    _waiting: Waiting | None = None
    _may_wait = True  # until making one has failed, or one has ended before its order
    _last = -1  # worker that was ordered, -1: none that still runs
    _looks = 0  # at workers that were to be killed
    _own_pid: int
    _touched: Touched

    def run(self) -> None:
        self._own_pid = os.getpid()
        self._touched = Touched()
        self.private += self._touched.descriptors
        super().run()

    def fork_child(self, order: control.Fork | control.Keep, descriptors: list[int]) -> int:
        if not order.own_pids or isinstance(order, control.Keep):
            return super().fork_child(order, descriptors)
        if self._plan is None:
            self._plan = control.decode_spec(os.pread(descriptors[0], os.fstat(descriptors[0]).st_size, 0)).walls
        self._may_wait = True
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return super().fork_child(order, descriptors)
        with waiting.door:
            try:
                socket.send_fds(waiting.door, [OK], descriptors)
            except OSError:  # it has ended: that is yet to be seen here
                return super().fork_child(order, descriptors)
        self._last = waiting.pid
        return waiting.pid

    @property
    def patience_ms(self) -> int | None:
        return _IDLE_MS if self._waiting is None and self._plan is not None and self._may_wait else None

    def idle(self) -> None:
        assert self._plan is not None
        try:
            self._waiting = self._make_waiting(self._plan)
        except (OSError, EOFError, msgspec.MsgspecError):
            self._may_wait = False  # the next worker makes its own, and says what fails

    def _make_waiting(self, plan: control.Walls) -> Waiting:
        """Raises OSError or EOFError; then nothing is left of the attempt."""
        namespaces = make_held(_KINDS, self._prepare, lambda: walls.furnish_ahead(plan))
        pids, *others = namespaces.descriptors
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = -1
        try:
            kernel.setns(pids, kernel.CLONE_NEWPID)
            pid = os.fork()
        finally:
            if pid != 0:
                kernel.setns(self.own_pids, kernel.CLONE_NEWPID)
                namespaces.close()
                theirs.close()
                if pid < 0:
                    ours.close()
                    os.kill(namespaces.first, signal.SIGKILL)
        if pid == 0:
            ours.close()
            os.close(pids)
            runs = self._touched.runs()
            self.become(lambda: self._wait(theirs, others, plan, runs))
        self.enters(pid, namespaces.first)
        return Waiting(pid, namespaces.first, ours)

    def _prepare(self) -> None:
        """In the helper that the namespaces come from, which nobody waits for."""
        if self._last >= 0:
            self._touched.observe(self._last, self._own_pid)
        kernel.unshare(kernel.CLONE_NEWPID)

    def kill_worker(self, pid: int) -> None:
        """Those that live for one call only are looked at now, the first few of them."""
        if pid == self._last and self._looks < SEEN_MAX:
            self._looks += 1
            helper = os.fork()
            if helper == 0:
                try:
                    signal.set_wakeup_fd(-1)
                    self._touched.observe(pid, self._own_pid)
                finally:
                    os._exit(0)
            os.waitpid(helper, 0)
        super().kill_worker(pid)

    def _wait(self, door: socket.socket, namespaces: list[int], plan: control.Walls, runs: bytes) -> int:
        """In the worker, whose environment is not known yet."""
        setproctitle.setproctitle(TITLE)
        walls.enter_ahead(namespaces, plan)
        populate_for_writing(runs)
        said, descriptors = receive(door, len(OK), control.DESCRIPTORS_MAX)
        door.close()
        return self.start_worker(descriptors, ahead=True) if said == OK else 0

    def gone(self, pid: int) -> None:
        if pid == self._last:
            self._last = -1
        if self._waiting is not None and pid in (self._waiting.pid, self._waiting.first):
            self._waiting.door.close()
            self._waiting = None
            self._may_wait = False
