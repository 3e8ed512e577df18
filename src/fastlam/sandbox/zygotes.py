"""The owner's side of a zygote: starts it, orders forks, and passes its reports to the environments.

All of it belongs to the dispatcher's driver. Orders are bounded: descriptors under way to a process count against this
one's open-files limit, so that no more than ORDERS_MAX forks are under way at a time and the others wait here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastlam.sandbox.keeper import Keeper
from fastlam.wire import control
from fastlam.wire.descriptors import receive

if TYPE_CHECKING:
    from fastlam.core.dispatcher import Environment

ORDERS_MAX: Final = 32
EMBEDDED: Final = "embedded"  # the kind whose workers run the calling program's own code
_SEND_BUFFER_BYTES: Final = 1 << 20
STATUS_KILLED: Final = int(signal.SIGKILL)  # the wait status of a process that SIGKILL ended

_PROGRAM: Final = (
    "import sys\n"
    "fd, kind, user_namespace_fd, *path = sys.argv[1:]\n"
    "sys.path[:0] = [path[0]]\n"
    "sys.path += [entry for entry in path[1:] if entry not in sys.path]\n"
    "from fastlam.worker.zygote import main\n"
    "main(int(fd), kind, int(user_namespace_fd))\n"
)


class Zygote:
    """One zygote process of one kind. `on_end` is called once, when the process is gone."""

    def __init__(
        self,
        kind: str,
        keeper: Keeper,
        on_end: Callable[[Zygote], None],
        *,
        user_namespace_fd: int = -1,
        before_fork: Callable[[Environment], None] = lambda environment: None,
        memory_peak_kib: Callable[[Environment], int] = lambda environment: 0,
        thaw_path: Callable[[Environment], str] = lambda environment: "",
    ) -> None:
        self.kind = kind
        self.on_end = on_end
        self.user_namespace_fd = user_namespace_fd  # that it and its workers are in; -1: the owner's own
        self.before_fork = before_fork
        self.memory_peak_kib = memory_peak_kib  # of an environment whose process is gone, as the kernel has counted it
        self.thaw_path = thaw_path
        self.resident_bytes = 0  # of the zygote, which its workers share; known once it is up
        self.up = False
        self.ended = False
        self.environments: dict[int, Environment] = {}
        self._orders: deque[tuple[Environment, list[int], control.Fork | control.Keep]] = deque()
        self._unanswered = 0
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.socket.setblocking(False)
            for end in (self.socket, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            self.process = self._begin(keeper, theirs)
        except BaseException:
            self.socket.close()
            raise
        finally:
            theirs.close()

    def _begin(self, keeper: Keeper, theirs: socket.socket) -> subprocess.Popen[bytes] | None:
        return keeper.run(lambda: self._spawn(theirs.fileno()))

    def _spawn(self, fd: int) -> subprocess.Popen[bytes]:
        package_root = str(Path(__file__).parents[2])
        path = [os.path.abspath(entry) for entry in sys.path if entry]
        program = [sys.executable, "-I", "-c", _PROGRAM]
        given = [fd] if self.user_namespace_fd < 0 else [fd, self.user_namespace_fd]
        return subprocess.Popen(
            [*program, str(fd), self.kind, str(self.user_namespace_fd), package_root, *path],
            pass_fds=given,
            env=None if self.kind == EMBEDDED else _minimal_environment(),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def numbers_differ(self) -> bool:
        """Whether it knows its workers by other pids than this process does."""
        return self.user_namespace_fd >= 0

    def fork(self, environment: Environment, descriptors: list[int], *, own_pids: bool = False) -> None:
        """Orders a worker; takes over the descriptors."""
        self._order(environment, descriptors, control.Fork(environment.id, own_pids, self.thaw_path(environment)))

    def _order(self, environment: Environment, descriptors: list[int], order: control.Fork | control.Keep) -> None:
        self.environments[environment.id] = environment
        self._orders.append((environment, descriptors, order))
        self._pump()

    def kill(self, environment_id: int) -> None:
        """Orders the death of a worker's process group; its exit is reported as any other."""
        for index, (environment, descriptors, _) in enumerate(self._orders):
            if environment.id == environment_id:
                # Not even ordered yet.
                del self._orders[index]
                close_all(descriptors)
                del self.environments[environment_id]
                environment.process_exited(STATUS_KILLED, 0)
                return
        with contextlib.suppress(OSError):
            self.socket.send(control.encode(control.Kill(environment_id)))

    def _pump(self) -> None:
        while self.up and self._orders and self._unanswered < ORDERS_MAX:
            environment, descriptors, order = self._orders[0]
            self.before_fork(environment)
            try:
                socket.send_fds(self.socket, [control.encode(order)], descriptors)
            except BlockingIOError:
                return  # answers are on their way, and with them another try
            except OSError:
                return  # the zygote is gone: its end of file follows
            self._orders.popleft()
            self._unanswered += 1
            self._sent(environment, descriptors)

    def _sent(self, environment: Environment, descriptors: list[int]) -> None:
        """It has been ordered: the descriptors are under way."""
        close_all(descriptors)

    def on_readable(self) -> None:
        """Takes all reports that have come."""
        while not self.ended:
            try:
                packet, descriptors = receive(self.socket, control.PACKET_BYTES_MAX, control.DESCRIPTORS_MAX)
            except BlockingIOError:
                return
            except ConnectionResetError:
                packet, descriptors = b"", []
            if not packet:
                self._end()
                return
            self._report(control.decode_from_zygote(packet), descriptors)

    def _report(self, report: control.FromZygote, descriptors: list[int]) -> None:
        if isinstance(report, control.Up):
            self.up = True
            self.resident_bytes = report.resident_bytes
            self._pump()
            return
        if isinstance(report, control.Exited):
            environment = self.environments.pop(report.environment_id, None)
            if environment is not None:
                peak_kib = max(report.memory_peak_kib, self.memory_peak_kib(environment))
                environment.process_exited(report.wait_status, peak_kib)
            return
        self._unanswered -= 1
        if isinstance(report, control.Forked):
            environment = self.environments.get(report.environment_id)
            if environment is not None:
                # Without a descriptor free there is no pidfd; the zygote's own way of killing remains.
                pid = _pid_of(descriptors[0]) if descriptors and self.numbers_differ else report.pid
                environment.attach_process(pid, descriptors[0] if descriptors else -1)
            else:
                close_all(descriptors)
        else:
            environment = self.environments.pop(report.environment_id, None)
            if environment is not None:
                self._fork_failed(environment, report.reason)
        self._pump()

    def _fork_failed(self, environment: Environment, reason: str) -> None:
        environment.start_failed(f"no worker could be forked: {reason}")

    def _end(self) -> None:
        """The process is gone, and the kernel has killed its workers with it."""
        if self.ended:
            return
        self.ended = True
        self.on_end(self)
        self.socket.close()
        reason = self._why_never_up(-signal.SIGKILL if self.process is None else self.process.wait())
        for _, descriptors, _ in self._orders:
            close_all(descriptors)
        self._orders.clear()
        environments, self.environments = self.environments, {}
        for environment in environments.values():
            if reason:
                environment.start_failed(reason)
            else:
                environment.process_exited(STATUS_KILLED, 0)

    def _why_never_up(self, status: int) -> str:
        """"" where it was, or was killed."""
        if self.up or status == -signal.SIGKILL:
            return ""
        return f"the zygote ended with status {status} before it was up; its own message is on this program's stderr"

    def close(self) -> None:
        """Ends the zygote, which kills its descendants first; returns when it is gone."""
        if self.ended:
            return
        self.on_end(self)
        self.disown()
        if self.process is None:
            return
        try:
            self.process.wait(5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def disown(self) -> None:
        """Closes this process's ends; all that may be done in a fork of the owner."""
        self.ended = True
        self.socket.close()
        for _, descriptors, _ in self._orders:
            close_all(descriptors)
        self._orders.clear()


def _pid_of(pidfd: int) -> int:
    """The process's number here: the zygote, in a pid namespace of its own, knows it by another."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    return -1


def _minimal_environment() -> dict[str, str]:
    """Of zygotes of functions: a function can read in /proc/self/environ what its process was started with."""
    kept = ["PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"]
    kept += ["ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "COVERAGE_PROCESS_START"]
    return {name: os.environ[name] for name in kept if name in os.environ}


def close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
