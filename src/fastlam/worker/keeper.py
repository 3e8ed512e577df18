"""The keeper of a template (SnapStart): a zygote of one function version.

It is forked from the zygote, runs no code of any function, and has the zygote's privileges: it makes the namespaces
that a restored environment enters, puts it into its control groups, and reaps it. The first process that it is told to
make is the template; all further ones the template forks on its order. To its owner it is a zygote like the other.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Final

import msgspec
import setproctitle

from fastlam.wire import control
from fastlam.worker import start, walls
from fastlam.worker.held import OK, PATIENCE_SECONDS, Namespaces, make_held, receive
from fastlam.worker.zygote import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, Zygote, prctl, resident_bytes

_IDLE_MS: Final = 10  # after the last order: environments that have just been made have their first call now
_QUICK: Final = "tasks"  # of groups of version 1: the file by which a single thread joins, without the kernel's lock


class Keeper(Zygote):
    """Serves `owner` until that is gone; then the template and all its environments end."""

    def __init__(self, owner: socket.socket, own_pids: bool) -> None:
        super().__init__(owner, start.start_worker)
        self.has_own_pids = own_pids
        self.template: socket.socket | None = None
        self.template_pid = -1
        self.walls: control.Walls | None = None
        self.spare: Namespaces | None = None
        self.spares = True  # one is made when nobody waits for anything

    def fork(self, order: control.Fork | control.Keep, descriptors: list[int]) -> None:
        try:
            if self.template_pid < 0:
                self.make_template(order.environment_id, descriptors)
            else:
                thaw_path = order.thaw_path if isinstance(order, control.Fork) else ""
                self.restore(order.environment_id, descriptors, thaw_path)
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            if isinstance(error, (EOFError, BrokenPipeError, ConnectionResetError, msgspec.MsgspecError)):
                self.end_template()  # its end is reported first
            self.send(control.ForkFailed(order.environment_id, str(error)[:1024]), [])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    # The template ----------------------------------------------------------------------------------

    def make_template(self, environment_id: int, descriptors: list[int]) -> None:
        self.walls = spec_of(descriptors).walls
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            ours.close()
            self.become(lambda: start.start_worker(list(descriptors), theirs))
        theirs.close()
        self.template, self.template_pid = ours, pid
        self.forked(environment_id, pid)

    def restore(self, environment_id: int, descriptors: list[int], thaw_path: str) -> None:
        """Raises OSError or EOFError; then nothing is left of the attempt."""
        if self.template is None:
            raise EOFError("the template is gone")
        plan = spec_of(descriptors).walls
        groups = [] if plan is None else plan.groups
        tmp = (-1, -1) if plan is None else start.pop_tmp(plan, descriptors)
        quick = [path for path in groups if os.path.basename(path) == _QUICK][: control.GROUPS_MAX]
        namespaces = self.take_namespaces()
        try:
            furnish_tmp(namespaces, tmp)
        except OSError:
            if namespaces is not None:
                os.kill(namespaces.first, signal.SIGKILL)
                namespaces.close()
            raise
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given: list[int] = []
        with ours:
            try:
                given = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in quick]
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                order = control.encode(control.Restore(environment_id, namespaces is not None, len(given)))
                entered = [] if namespaces is None else namespaces.descriptors
                socket.send_fds(self.template, [order], [theirs.fileno(), *entered, *given, *descriptors])
                theirs.close()
                _prepare_moving([path for path in groups if path not in quick])
                if namespaces is None:
                    self._await_restored(environment_id)  # its parent's death is its own: the child between goes first
                said, _, pid = receive(ours)
                if said != OK:
                    raise OSError(said[1:].decode(errors="replace") or "the template's child ended")
                for path in groups:
                    if path not in quick or not _is_in(path, pid):  # what it says of having joined is not believed
                        _write(path, str(pid))
                self.forked(environment_id, pid, thaw_path)
                ours.send(OK)
            except BaseException:
                if namespaces is not None:
                    os.kill(namespaces.first, signal.SIGKILL)
                raise
            finally:
                theirs.close()
                for descriptor in given:
                    os.close(descriptor)
                if namespaces is not None:
                    namespaces.close()
        if namespaces is not None:
            self.enters(pid, namespaces.first)
            try:
                self._await_restored(environment_id)
            except (OSError, EOFError, msgspec.MsgspecError):
                self.end_template()

    def end_template(self) -> None:
        if self.template is not None:
            os.kill(self.template_pid, signal.SIGKILL)
            os.waitid(os.P_PID, self.template_pid, os.WEXITED | os.WNOWAIT)
            self.reap()

    def _await_restored(self, environment_id: int) -> None:
        """The child between is gone: the environment is this process's."""
        assert self.template is not None
        if not select.select([self.template], [], [], PATIENCE_SECONDS)[0]:
            raise EOFError("the template does not answer")
        packet = self.template.recv(control.PACKET_BYTES_MAX)
        if not packet:
            raise EOFError("the template has ended")
        if control.decode_from_template(packet).environment_id != environment_id:
            raise EOFError("the template answers what it was not asked")

    def gone(self, pid: int) -> None:
        if self.spare is not None and pid == self.spare.first:
            self.spare.close()
            self.spare = None
        if pid == self.template_pid and self.template is not None:
            self.template.close()
            self.template = None
            if self.spare is not None:
                os.kill(self.spare.first, signal.SIGKILL)

    def kill_descendants(self) -> None:
        if not self.has_own_pids:  # else the namespace ends with this process, and all in it
            super().kill_descendants()

    # Namespaces ------------------------------------------------------------------------------------

    def take_namespaces(self) -> Namespaces | None:
        """Those of the next environment; None where environments have none of their own."""
        self.spares = True
        self._make_spare()
        taken, self.spare = self.spare, None
        return taken

    @property
    def patience_ms(self) -> int | None:
        return _IDLE_MS if self._lacks_spare else None

    def idle(self) -> None:
        """Namespaces take longer to make than the rest of a restore: one set is ready, made while nobody waits."""
        try:
            self._make_spare()
        except (OSError, EOFError):
            self.spares = False  # the next order says why

    @property
    def _lacks_spare(self) -> bool:
        if self.spare is not None or self.template is None or not self.spares:
            return False
        return self.walls is not None and self.walls.namespaces != 0

    def _make_spare(self) -> None:
        if self._lacks_spare and self.walls is not None:
            self.spare = make_namespaces(self.walls)


def furnish_tmp(namespaces: Namespaces | None, tmp: walls.Tmp) -> None:
    """Takes over the descriptors of `tmp`."""
    mount_fd, keeper_fd = tmp
    if namespaces is None:
        for descriptor in tmp:
            if descriptor >= 0:
                os.close(descriptor)
    elif mount_fd >= 0:
        walls.take_tmp_there(namespaces.descriptors[control.NAMESPACE_KINDS.index("mnt")], tmp)
    elif keeper_fd >= 0:
        walls.hand_over(keeper_fd, namespaces.further[0])


def make_namespaces(plan: control.Walls) -> Namespaces:
    """Those of one environment. Raises OSError or EOFError."""
    return make_held(
        control.NAMESPACE_KINDS, lambda: walls.prepare_namespaces(plan), lambda: walls.furnish_namespaces(plan)
    )


def spec_of(descriptors: list[int]) -> control.WorkerSpec:
    return control.decode_spec(os.pread(descriptors[0], os.fstat(descriptors[0]).st_size, 0))


def _is_in(path: str, pid: int) -> bool:
    with open(path) as file:
        return str(pid) in file.read().split()


def _prepare_moving(groups: list[str]) -> None:
    """The kernel's lock on control groups takes it milliseconds, unless somebody else has just had it: while the
    template forks, this process moves to where it is.
    """
    for path in groups[:1]:
        own = os.path.dirname(os.path.dirname(os.path.dirname(path)))
        with contextlib.suppress(OSError):
            _write(f"{own}/{os.path.basename(path)}", "0")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def main(owner_fd: int, own_pids: bool, kind: Callable[[socket.socket, bool], Keeper] = Keeper) -> None:
    """Becomes a keeper whose owner holds the other end of `owner_fd`."""
    began_ns = time.monotonic_ns()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL if own_pids else signal.SIGTERM)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    setproctitle.setproctitle("fastlam: keeper")
    owner = socket.socket(fileno=owner_fd)
    keeper = kind(owner, own_pids)
    keeper.send(control.Up(os.getpid(), time.monotonic_ns() - began_ns, resident_bytes()), [])
    keeper.run()
