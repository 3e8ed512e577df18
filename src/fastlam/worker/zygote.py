"""The zygote: a small single-threaded process from which execution environments are forked.

It is exec'd by its owner, talks to it over a socketpair (wire.control), and owns no ZeroMQ socket, no event loop and no
thread, so that a fork of it is always sound. It alone reaps workers: it sends a pidfd when one is made and the wait
status when one is gone. When the socketpair ends, for whatever reason, it kills all its descendants and leaves: that is
the guarantee against orphans. PR_SET_PDEATHSIG is the second one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fastlam.core.channel import be_first_process, settle_child
from fastlam.wire import control
from fastlam.wire.descriptors import receive
from fastlam.worker import kernel
from fastlam.worker import user_namespace as namespace

# By the kind of zygote, what its workers would otherwise import one by one: a program that embeds fastlam has imported
# these itself, each worker of an executor imports the program's main module, and lambdas and closures need cloudpickle.
PRELOADED = {"embedded": ("fastlam.embed.executor", "fastlam.embed.runtime", "cloudpickle")}
_REPORT = struct.Struct("=i4xq")  # fl_first_report: wait status, peak resident set in KiB
_NO_WORKER = 70  # EX_SOFTWARE
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """prctl(2); failures are ignored because each use is a second line of defence."""
    _libc.prctl(option, value, 0, 0, 0)


class Zygote:
    """Takes orders from `owner`, one at a time."""

    def __init__(
        self,
        owner: socket.socket,
        start_worker: Callable[..., int],
        start_keeper: Callable[[int, control.Keep], None] | None = None,
    ) -> None:
        self.owner = owner
        self.own_pidfd = os.pidfd_open(os.getpid())
        self.own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.start_worker = start_worker
        self.start_keeper = start_keeper  # its socket, and its order; serves until that ends
        self.poll = select.poll()
        self.private: list[int] = []  # further descriptors that no worker has any business with
        self.pids: dict[int, int] = {}  # pid -> environment id
        self.environments: dict[int, int] = {}  # environment id -> pid
        self.reports: dict[int, int] = {}  # pid -> descriptor, of first processes that tell how their worker has ended
        self.thaw_paths: dict[int, str] = {}  # pid -> what thaws a worker that may be frozen
        self._firsts: dict[int, int] = {}  # pid -> the first process of the namespaces that it has entered
        self._inhabitants: dict[int, int] = {}  # and the other way round
        self.leaving = False
        self.wake_read, self.wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Serves until the owner is gone."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self.on_terminate)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        self.poll.register(self.owner, select.POLLIN)
        self.poll.register(self.wake_read, select.POLLIN)
        try:
            while True:
                ready = self.poll.poll(self.patience_ms)
                if not ready:
                    self.idle()
                for fd, _ in ready:
                    if fd == self.wake_read:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self.wake_read, 4096)
                        if self.leaving:
                            return
                        self.reap()
                    elif fd != self.owner.fileno():
                        self.readable(fd)
                    elif not self.take_order():
                        return
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self.kill_descendants()

    def on_terminate(self, *_: object) -> None:
        """SIGTERM: only noted here, for an exception out of a handler could come in the middle of a fork."""
        self.leaving = True

    def send(self, message: control.Message, descriptors: list[int]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the owner is gone: its end of file follows
            socket.send_fds(self.owner, [control.encode(message)], descriptors)

    def take_order(self) -> bool:
        """One packet; False at end of file."""
        try:
            packet, descriptors = receive(self.owner, control.PACKET_BYTES_MAX, control.DESCRIPTORS_MAX)
        except ConnectionResetError:
            return False
        if not packet:
            return False
        order = control.decode_from_owner(packet)
        if isinstance(order, control.Fork | control.Keep):
            self.fork(order, descriptors)
        elif order.environment_id in self.environments:
            self.kill_worker(self.environments[order.environment_id])
        return True

    def fork(self, order: control.Fork | control.Keep, descriptors: list[int]) -> None:
        try:
            pid = self.fork_child(order, descriptors)
        except OSError as error:
            self.send(control.ForkFailed(order.environment_id, f"fork: {error.strerror}"), [])
            for descriptor in descriptors:
                os.close(descriptor)
            return
        if pid == 0:
            if isinstance(order, control.Keep):
                self.become(partial(self.keep, descriptors[0], order))
            self.become(lambda: self.start_worker(descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        self.forked(order.environment_id, pid, order.thaw_path if isinstance(order, control.Fork) else "")

    def fork_child(self, order: control.Fork | control.Keep, descriptors: list[int]) -> int:
        """As fork(2), or a child that has been made before; raises OSError."""
        return self.fork_in_own_pids() if order.own_pids else os.fork()

    def keep(self, owner_fd: int, order: control.Keep) -> int:
        assert self.start_keeper is not None, "this zygote has no templates"
        self.start_keeper(owner_fd, order)
        return 0

    def forked(self, environment_id: int, pid: int, thaw_path: str = "") -> None:
        """Reports a child that has just been made."""
        # Also done by the child; whoever comes first makes the group exist before anybody may have to kill it.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        self.pids[pid] = environment_id
        self.environments[environment_id] = pid
        if thaw_path:
            self.thaw_paths[pid] = thaw_path
        pidfd = os.pidfd_open(pid)
        self.send(control.Forked(environment_id, pid), [pidfd])
        os.close(pidfd)

    def fork_in_own_pids(self) -> int:
        """A child in a pid namespace of its own: it sees no other process. Returns the first one of the namespace,
        whose only work is to wait for the worker, and with whose end all in it end; 0 in the worker.
        """
        kernel.unshare(kernel.CLONE_NEWPID)
        pid = reading = -1
        try:
            reading, writing = os.pipe()
            try:
                pid = os.fork()
                if pid == 0:
                    return self.fork_worker(reading, writing)
            finally:
                os.close(writing)
        finally:
            if pid != 0:
                kernel.setns(self.own_pids, kernel.CLONE_NEWPID)
                if pid < 0 and reading >= 0:
                    os.close(reading)
        self.reports[pid] = reading
        return pid

    def fork_worker(self, reading: int, writing: int) -> int:
        """In the first process: 0 in the worker, and nowhere else does it return."""
        try:
            signal.set_wakeup_fd(-1)
            settle_child()
            if not select.select([self.own_pidfd], [], [], 0)[0]:
                os.close(reading)
                worker = os.fork()
                if worker == 0:
                    return 0
                be_first_process(worker, writing)
        except OSError:
            pass  # no worker could be forked: the namespace ends, and the report is missing
        os._exit(_NO_WORKER)

    def become(self, work: Callable[[], int]) -> None:
        """In the child: sheds what is the zygote's, does its own work and never returns."""
        status = 70  # EX_SOFTWARE: the worker's own code failed before it could report anything
        try:
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)
            settle_child()
            if select.select([self.own_pidfd], [], [], 0)[0]:
                os._exit(status)  # the zygote was gone before its end could be a signal
            for fd in (self.own_pidfd, self.own_pids, *self.reports.values(), *self.private):
                os.close(fd)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.owner.close()
            os.close(self.wake_read)
            os.close(self.wake_write)
            status = work()
        except BaseException:  # noqa: BLE001 - nothing may climb back into the zygote's loop
            with contextlib.suppress(BaseException):
                sys.excepthook(*sys.exc_info())
                sys.stderr.flush()
        finally:
            os._exit(status)

    def kill_worker(self, pid: int) -> None:
        self.kill_group(pid)

    def kill_group(self, pid: int) -> None:
        """Kills a worker's process group; sound because the worker has not been reaped, so its number is still its
        own.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        if pid in self.thaw_paths:
            with contextlib.suppress(OSError):  # it is gone already
                Path(self.thaw_paths[pid]).write_text("THAWED")

    def reap(self) -> None:
        """Reaps all that have ended, orphans of workers included."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid = ended.si_pid
            environment_id = self.pids.pop(pid, None)
            if environment_id is not None:
                self.kill_group(pid)
                self.thaw_paths.pop(pid, None)
            _, wait_status, usage = os.wait4(pid, 0)
            memory_peak_kib = usage.ru_maxrss
            if (report_fd := self.reports.pop(pid, None)) is not None:
                report = os.read(report_fd, _REPORT.size)  # nobody writes any more
                os.close(report_fd)
                if len(report) == _REPORT.size:
                    wait_status, memory_peak_kib = _REPORT.unpack(report)
            self.leave_namespaces(pid)
            self.gone(pid)
            if environment_id is not None:
                del self.environments[environment_id]
                self.send(control.Exited(environment_id, wait_status, memory_peak_kib), [])

    def enters(self, pid: int, first: int) -> None:
        """A child has entered namespaces that another one holds."""
        self._firsts[pid] = first
        self._inhabitants[first] = pid

    def leave_namespaces(self, pid: int) -> None:
        """With the child that has entered them, their first process ends, and with that all that is left in them."""
        if pid in self._firsts:
            first = self._firsts.pop(pid)
            del self._inhabitants[first]
            os.kill(first, signal.SIGKILL)  # which has not been reaped: its number is still its own
        elif pid in self._inhabitants:
            del self._firsts[self._inhabitants.pop(pid)]

    def readable(self, fd: int) -> None:
        """For a subclass: something else that it polls."""

    @property
    def patience_ms(self) -> int | None:
        """For a subclass: after so long without an order it is `idle`."""
        return None

    def idle(self) -> None:
        """For a subclass: nobody asks for anything."""

    def gone(self, pid: int) -> None:
        """For a subclass: a child, or an orphan of one, has been reaped."""

    def kill_descendants(self) -> None:
        """Kills workers, their groups, and whatever of theirs has been handed to this subreaper."""
        signal.set_wakeup_fd(-1)
        for pid in list(self.pids):
            self.kill_group(pid)
        if os.getpid() == 1:  # its namespace ends with it; and /proc, the machine's, has other numbers
            return
        children_file = Path("/proc/thread-self/children")
        for _ in range(1000):
            try:
                children = [int(word) for word in children_file.read_text().split()]
            except OSError:
                return
            if not children:
                return
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            # In the order of their ends: the first process of a namespace waits until the others have been reaped.
            with contextlib.suppress(ChildProcessError):
                for _ in children:
                    os.wait()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(owner_fd: int, kind: str, user_namespace_fd: int = -1) -> None:
    """Becomes a zygote of `kind` ("plain", "boto3" or "embedded") whose owner holds the other end of `owner_fd`; in a
    user namespace if its workers are to have walls that it could not raise otherwise. It has pids of its own there: a
    zygote may return only to a pid namespace that is its own to command.
    """
    started_ns = time.monotonic_ns()
    if user_namespace_fd >= 0:
        namespace.enter(user_namespace_fd)
        kernel.unshare(kernel.CLONE_NEWPID)
        namespace.continue_as_first_process()
    # SIGTERM and not SIGKILL: descendants that only this process can find are killed on the way out (see Zygote.run).
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    owner = socket.socket(fileno=owner_fd)
    owner.set_inheritable(False)

    import setproctitle

    runtime_path = tuple(sys.path)  # which is hidden below
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    setproctitle.setproctitle(f"fastlam: zygote python{version}" + ("" if kind == "plain" else f" {kind}"))
    # Imported before the first fork, so that every worker has them for nothing.
    from fastlam.worker import imports, packing, start

    for name in PRELOADED.get(kind, ()):
        importlib.import_module(name)
    start_keeper = None
    if kind == "embedded":
        imports.hide_program()
    else:
        from fastlam.worker import criu_keeper, keeper, template, walled, walls

        walls.prepare()
        start.raise_walls, start.enter_namespaces = walls.raise_walls, walls.enter_namespaces
        start.make_template = template.Template

        def start_keeper(owner_fd: int, order: control.Keep) -> None:
            kind: Callable[[socket.socket, bool], keeper.Keeper] = keeper.Keeper
            if order.criu is not None:
                kind = partial(criu_keeper.CriuKeeper, criu=order.criu, path=runtime_path)
            keeper.main(owner_fd, order.own_pids, kind)

        imports.hide_runtime_modules()
    if kind == "boto3":
        imports.preload_boto3()
        imports.hide_runtime_modules(keep_boto3=True)
    os.chdir("/")
    # The cache of attributes holds their names: a worker that puts in another one writes to the page of the name, which
    # may lie anywhere (0.1 MB in all).
    sys._clear_type_cache()
    start.rehearse_function()
    if kind == "embedded":
        start.rehearse_tasks()
    gc.collect()
    gc.freeze()
    kept = packing.fill_gaps()
    kind_of_zygote = Zygote if kind == "embedded" else walled.WalledZygote
    zygote = kind_of_zygote(owner, start.start_worker, start_keeper)
    zygote.send(control.Up(os.getpid(), time.monotonic_ns() - started_ns, resident_bytes()), [])
    zygote.run()
    del kept
