"""The keeper of a template whose environments are copies of it (worker.copied), by criu.

    template asks ──► copied once, into images in memory ──► it is told so, says Ready and waits for its end
    an order      ──► namespaces as ever; criu, in their pids and behind landlock, makes the processes of the images
                      there once more; the first of them is this process's child, and reads its order in the place of
                      an answer
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from fastlam.wire import control
from fastlam.wire.descriptors import receive
from fastlam.worker import copied, kernel, snapshots, start, walls
from fastlam.worker.criu import Criu
from fastlam.worker.held import OK, Namespaces
from fastlam.worker.held import receive as receive_report
from fastlam.worker.keeper import Keeper, furnish_tmp, spec_of

# A copy has the numbers of its original, threads' too: they lie above those that criu and the namespace's first process
# have there.
_FIRST_PID: Final = 300
_LAST_PID_FILE: Final = "/proc/sys/kernel/ns_last_pid"
_SOCKETS: Final = 2  # of a template, that lead elsewhere: to its keeper and to the dispatcher
_PRIVATE: Final = ("mnt", "uts", "ipc", "cgroup")  # what criu enters before it restores; the pids are entered by a fork


class CriuKeeper(Keeper):
    """See the module's docstring. `path`: where the runtime's own modules lie."""

    def __init__(self, owner: socket.socket, own_pids: bool, *, criu: control.Criu, path: Sequence[str]) -> None:
        super().__init__(owner, own_pids)
        self._paths = criu
        self._path = path
        self._criu: Criu | None = None
        self._images = -1
        self._tmp = -1  # the template's
        self._sockets: list[int] = []

    def make_template(self, environment_id: int, descriptors: list[int]) -> None:
        self.walls = spec_of(descriptors).walls
        self._criu = Criu(self._paths)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = fork_with_number()
        if pid == 0:
            os.setsid()  # its session is copied with it; and before anybody makes it the leader of a mere group
            theirs.send(OK)
            self.become(lambda: copied.execute(list(descriptors), theirs, self._path))
        theirs.close()
        ours.recv(len(OK))
        self.template, self.template_pid = ours, pid
        self.poll.register(ours, select.POLLIN)
        self.forked(environment_id, pid)

    def readable(self, fd: int) -> None:
        """The template asks to be copied, or has ended."""
        assert self.template is not None
        assert self._criu is not None
        assert self.walls is not None
        self.poll.unregister(fd)
        try:
            packet, _ = receive(self.template, control.PACKET_BYTES_MAX, 0)
            if not packet:  # its end, which is seen as any other, or nothing that it has said
                raise OSError("the template has ended, or says nothing")
            asked = control.decode_from_template(packet)
            if not isinstance(asked, control.TakeSnapshot) or len(asked.sockets) != _SOCKETS:
                raise OSError("the template says what it has no business with")
            self._tmp = walls.open_there(self.template_pid, walls.TMP)
            self._images = self._criu.copy(self.template_pid, self.walls.uid, asked.sockets)
            self._sockets = asked.sockets
            answer = control.SnapshotTaken()
        except (OSError, msgspec.MsgspecError) as error:
            answer = control.SnapshotTaken(str(error))
        with contextlib.suppress(OSError):  # it has ended meanwhile
            self.template.send(control.encode(answer))

    def restore(self, environment_id: int, descriptors: list[int], thaw_path: str) -> None:
        began_ns = time.monotonic_ns()
        if self.template is None:
            raise EOFError("the template is gone")
        plan = spec_of(descriptors).walls
        assert plan is not None, "an environment without walls has no pids of its own"
        tmp = start.pop_tmp(plan, descriptors)
        namespaces = self.take_namespaces()
        assert namespaces is not None
        try:
            furnish_tmp(namespaces, tmp)
            self._copy_into(namespaces, environment_id, plan, descriptors, began_ns, thaw_path)
        except BaseException:
            os.kill(namespaces.first, signal.SIGKILL)
            raise
        finally:
            namespaces.close()

    def _copy_into(
        self,
        namespaces: Namespaces,
        environment_id: int,
        plan: control.Walls,
        descriptors: list[int],
        began_ns: int,
        thaw_path: str,
    ) -> None:
        """Raises OSError."""
        assert self._criu is not None
        assert self.walls is not None
        uid = self.walls.uid  # its template's, as whatever comes from one

        def become() -> None:
            for path in plan.groups:
                with open(path, "w") as file:
                    file.write("0")
            enter(namespaces)
            _copy_files(self._tmp, uid)
            if plan.landlock:
                walls.restrict_writing(plan)

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        report, reporting = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # In the places of the template's other connections, which a copy closes at once.
        others = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in self._sockets[1:]]
        with ours, theirs, report:
            with reporting:
                report.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                order = control.encode(control.Restore(environment_id, began_ns=began_ns))
                socket.send_fds(ours, [order], [reporting.fileno(), *descriptors])
            try:
                places = list(zip(self._sockets, (theirs, *others), strict=True))
                self._criu.restore(self._images, uid, places, become, lambda: fork_into(namespaces, self.own_pids))
            finally:
                for other in others:
                    other.close()
            said, _, pid = receive_report(report)
            if said != OK:
                raise OSError("the copy does not say who it is")
            self._check_new(pid)
            self.enters(pid, namespaces.first)
            self.forked(environment_id, pid, thaw_path)
            report.send(OK)

    def _check_new(self, pid: int) -> None:
        """A copy may have handed on the means to answer. Raises OSError unless it is a child that nobody knows yet."""
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            known = pid in self.pids or (self.spare is not None and pid == self.spare.first)
        except ChildProcessError:
            known = True
        if known:
            raise OSError("somebody else answers for the copy")

    def end_template(self) -> None:
        super().end_template()
        for descriptor in (self._images, self._tmp):
            if descriptor >= 0:
                os.close(descriptor)
        self._images = self._tmp = -1


def fork_with_number() -> int:
    """As fork(2); the child's number, and those of what it starts, are free in other namespaces of pids."""
    with open(_LAST_PID_FILE, "w") as file:
        file.write(str(_FIRST_PID - 1))
    return os.fork()


def fork_into(namespaces: Namespaces, own_pids: int) -> int:
    """As fork(2), into their pids; `own_pids` is the namespace of this process's."""
    kernel.setns(namespaces.descriptors[control.NAMESPACE_KINDS.index("pid")], kernel.CLONE_NEWPID)
    pid = -1
    try:
        pid = os.fork()
    finally:
        if pid != 0:
            kernel.setns(own_pids, kernel.CLONE_NEWPID)
    return pid


def enter(namespaces: Namespaces) -> None:
    """The rest of them, but for the user namespace: whose they are is not who enters them."""
    for kind, descriptor in zip(control.NAMESPACE_KINDS, namespaces.descriptors, strict=True):
        if kind in _PRIVATE:
            kernel.setns(descriptor, 0)


def _copy_files(source: int, uid: int) -> None:
    """What INIT has left in /tmp, as its user; not where somebody has been before (a reset)."""
    if os.listdir(walls.TMP) or not os.listdir(source):
        return
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            snapshots.copy_files(source, walls.TMP)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
