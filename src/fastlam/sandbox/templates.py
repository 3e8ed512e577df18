"""The owner's side of templates (SnapStart): one a function version, kept by a process that is a zygote to this side.

    a template's environment is launched ──► keeper (forked from a zygote) ──► template ──Ready──► forks environments

Environments that are wanted while there is no template wait for the next one, which whoever keeps templates alive makes
(dispatch.snapshots). All of it belongs to the dispatcher's driver.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from fastlam.sandbox.keeper import Keeper
from fastlam.sandbox.zygotes import Zygote, close_all
from fastlam.wire import control

if TYPE_CHECKING:
    from fastlam.core.dispatcher import Environment
    from fastlam.sandbox.launcher import Launcher

_TRIES_MAX: Final = 4  # of one environment, at templates that end under it
_keeper_ids = itertools.count(-1, -1).__next__


class _KeeperProcess:
    """A keeper's process, to the zygote that it is forked from: what an Environment is for a worker's."""

    def __init__(self, home: TemplateHome) -> None:
        self.id = _keeper_ids()
        self._home = home

    def attach_process(self, pid: int, pidfd: int) -> None:
        if pidfd >= 0:
            os.close(pidfd)  # it ends with its socket

    def process_exited(self, wait_status: int, memory_peak_kib: int) -> None:
        self._home.lost()

    def start_failed(self, reason: str) -> None:
        self._home.lost(reason)


class TemplateHome(Zygote):
    """A keeper, its template and what has been restored from it."""

    def __init__(
        self,
        parent: Zygote,
        keeper: Keeper,
        on_end: Callable[[Zygote], None],
        retry: Callable[[Environment, list[int], str], None],
        *,
        own_pids: bool,
        criu: control.Criu | None,
        before_fork: Callable[[Environment], None],
        memory_peak_kib: Callable[[Environment], int],
    ) -> None:
        self.parent = parent
        self.own_pids = own_pids
        self.template: Environment | None = None
        self._criu = criu
        self._why_not_made = ""
        self.ready = False  # environments can be ordered
        self.retry = retry
        self._held: dict[int, list[int]] = {}  # by environment: its descriptors, until it is there
        super().__init__(
            f"template of {parent.kind}", keeper, on_end,
            user_namespace_fd=parent.user_namespace_fd, before_fork=before_fork, memory_peak_kib=memory_peak_kib,
            thaw_path=parent.thaw_path,
        )  # fmt: skip

    def _begin(self, keeper: Keeper, theirs: socket.socket) -> subprocess.Popen[bytes] | None:
        process: Any = _KeeperProcess(self)
        self.parent._order(process, [os.dup(theirs.fileno())], control.Keep(process.id, self.own_pids, self._criu))
        return None

    @property
    def numbers_differ(self) -> bool:
        return self.own_pids or super().numbers_differ

    def begin(self, environment: Environment, descriptors: list[int]) -> None:
        """Orders the template; takes over the descriptors."""
        self.template = environment
        self.fork(environment, descriptors)

    def _sent(self, environment: Environment, descriptors: list[int]) -> None:
        self._held[environment.id] = descriptors

    def _report(self, report: control.FromZygote, descriptors: list[int]) -> None:
        if isinstance(report, control.Forked):
            close_all(self._held.pop(report.environment_id, []))
        super()._report(report, descriptors)
        if isinstance(report, control.Exited):
            if self.template is not None and report.environment_id == self.template.id:
                self.ready = False
                self._give_back()
            if not self.environments and not self.ended:
                self.close()

    def _fork_failed(self, environment: Environment, reason: str) -> None:
        held = self._held.pop(environment.id, [])
        if environment is self.template:
            close_all(held)
            super()._fork_failed(environment, reason)
        else:
            self.retry(environment, held, reason)

    def _give_back(self) -> None:
        """What has not been ordered yet waits for another template; the template itself ends with its keeper."""
        orders, self._orders = self._orders, type(self._orders)()
        for environment, descriptors, _ in orders:
            if environment is self.template:
                close_all(descriptors)
                continue
            del self.environments[environment.id]
            self.retry(environment, descriptors, "the template has ended")

    def lost(self, reason: str = "") -> None:
        """The keeper is gone, if its end of file has not told so already; with a reason, it could not be made."""
        if not self.ended:
            self._why_not_made = reason
            self._end()

    def _why_never_up(self, status: int) -> str:
        return self._why_not_made

    def _end(self) -> None:
        self.ready = False
        if not self.ended:
            self._give_back()
            for number, descriptors in list(self._held.items()):
                environment = self.environments.get(number)
                if environment is None or environment is self.template:
                    close_all(self._held.pop(number))
                else:
                    del self._held[number], self.environments[number]
                    self.retry(environment, descriptors, "the template has ended")
        super()._end()

    def disown(self) -> None:
        self.ready = False
        super().disown()
        for descriptors in self._held.values():
            close_all(descriptors)
        self._held.clear()


class Templates:
    """All templates of one launcher, and the environments that wait for one."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._homes: set[TemplateHome] = set()
        self._current: dict[str, TemplateHome] = {}  # by the name of the snapshot
        self._waiting: dict[int, tuple[Environment, list[int]]] = {}  # by environment
        self._tries: dict[int, int] = {}
        self._failures: dict[str, str] = {}  # by the name of a snapshot: why there is no template at present

    def make(self, environment: Environment, zygote: Zygote, descriptors: list[int], *, own_pids: bool) -> None:
        """The environment is a template; takes over the descriptors. Raises OSError."""
        launcher, name = self._launcher, environment.target.spec.snapshot
        criu = None
        if environment.target.spec.worker.template == control.COPIED:
            assert launcher.isolation is not None
            criu = launcher.isolation.criu
            assert criu is not None
        try:
            home = TemplateHome(
                zygote, launcher.keeper, self._ended, self._retry,
                own_pids=own_pids, criu=criu, before_fork=launcher.before_fork,
                memory_peak_kib=launcher.memory_peak_kib,
            )  # fmt: skip
        except BaseException:
            close_all(descriptors)
            raise
        self._failures.pop(name, None)
        self._homes.add(home)
        self._current[name] = home
        launcher.dispatcher.add_reader(home.fileno, home.on_readable)
        launcher.homes[environment.id] = home
        environment.on_ready = self._ready  # and with --cpu lambda it is not held back, since nothing runs in it
        home.begin(environment, descriptors)

    def restore(self, environment: Environment, descriptors: list[int]) -> None:
        """The environment is to be forked from its template, when there is one; takes over the descriptors. Raises
        OSError when there will be none for a while.
        """
        name = environment.target.spec.snapshot
        home = self._current.get(name)
        if home is None or not home.ready:
            if name in self._failures:
                close_all(descriptors)
                raise OSError(errno.EAGAIN, f"there is no snapshot: {self._failures[name]}")
            self._waiting[environment.id] = environment, descriptors
            return
        self._launcher.homes[environment.id] = home
        home.fork(environment, descriptors)

    def forget(self, environment: Environment) -> bool:
        """Whether the environment was waiting for a template."""
        self._tries.pop(environment.id, None)
        waited = self._waiting.pop(environment.id, None)
        if waited is not None:
            close_all(waited[1])
        return waited is not None

    def fail(self, name: str, reason: str) -> None:
        """There will be no template for a while: what waits for it does so in vain."""
        self._failures[name] = reason
        for environment, descriptors in list(self._waiting.values()):
            if environment.target.spec.snapshot == name:
                del self._waiting[environment.id]
                close_all(descriptors)
                environment.start_failed(f"there is no snapshot: {reason}")

    def _ready(self, environment: Environment) -> None:
        name = environment.target.spec.snapshot
        home = self._current.get(name)
        if home is None or home.template is not environment:
            return
        if environment.target.spec.worker.template == control.FORKED:
            home.resident_bytes = environment.memory_peak_kib << 10  # which its environments share
        home.ready = True
        for waiting, descriptors in list(self._waiting.values()):
            if waiting.target.spec.snapshot == name:
                del self._waiting[waiting.id]
                try:
                    self.restore(waiting, descriptors)
                except OSError as error:
                    waiting.start_failed(str(error))

    def _retry(self, environment: Environment, descriptors: list[int], reason: str) -> None:
        """Its template has ended under it, or could not make it."""
        self._launcher.homes.pop(environment.id, None)
        tries = self._tries[environment.id] = self._tries.get(environment.id, 0) + 1
        if tries >= _TRIES_MAX:
            close_all(descriptors)
            environment.start_failed(f"nothing could be restored: {reason}")
            return
        try:
            self.restore(environment, self._launcher.estates.order_again(environment, descriptors))
        except OSError as error:
            environment.start_failed(str(error))

    def _ended(self, zygote: Zygote) -> None:
        self._launcher.dispatcher.remove_reader(zygote.fileno)
        assert isinstance(zygote, TemplateHome)
        self._homes.discard(zygote)
        for name, home in list(self._current.items()):
            if home is zygote:
                del self._current[name]

    def close(self) -> None:
        for home in list(self._homes):
            home.close()

    def disown(self) -> None:
        for home in self._homes:
            home.disown()
