"""The dispatcher and launcher that all executors of one process share, and all runtimes with the same walls."""

from __future__ import annotations

import os
import threading

from fastlam import limits
from fastlam.config import lane_kind
from fastlam.core.dispatcher import Dispatcher, forget_randomness
from fastlam.dispatch.faults import Faults
from fastlam.embed import loops
from fastlam.sandbox.isolation import Isolation
from fastlam.sandbox.launcher import Launcher
from fastlam.sandbox.spinning import spin_ns

_lock = threading.Lock()
_current: dict[bool, Engine] = {}  # by whether its environments have walls


class Engine:
    """Made by the first `acquire`, closed by the last `release`."""

    def __init__(self, isolation: str) -> None:
        self._walled = bool(isolation)
        self.pid = os.getpid()
        self.foreign = False  # True in a fork of the process that made it: nothing of it may be used there
        self.users = 0
        self.launcher = Launcher(lane_kind(), isolation)
        self.dispatcher = Dispatcher(
            self.launcher,
            Faults(),
            environments_max=limits.ENVIRONMENTS_MAX,
            spin_ns=spin_ns(),
        )
        self.launcher.dispatcher = self.dispatcher
        try:
            # With walls there are no callables of the program's.
            self.dispatcher.run_as_driver(lambda: self.launcher.zygote("plain" if isolation else "embedded"))
            self.dispatcher.ensure_background()
        except BaseException:
            self._close()
            raise

    def release(self) -> None:
        """One user less."""
        with _lock:
            self.users -= 1
            if self.users > 0 or self.foreign:
                return
            if _current.get(self._walled) is self:
                del _current[self._walled]
        self._close()

    @property
    def isolation(self) -> Isolation | None:
        """The walls of its environments; None without any."""
        return self.launcher.isolation

    def _close(self) -> None:
        self.dispatcher.close()
        loops.leave(self.dispatcher)
        self.launcher.close()


def acquire(isolation: str = "") -> Engine:
    """The engine of this process with walls of that level (sandbox.isolation), with one user more. Raises FastlamError
    where they cannot be had.
    """
    with _lock:
        found = _current.get(bool(isolation))
        if found is None or found.foreign:
            found = _current[bool(isolation)] = Engine(isolation)
        elif isolation == "full" and found.isolation is not None:
            found.isolation.check_full()
        found.users += 1
        return found


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    forget_randomness()
    for each in _current.values():
        each.foreign = True
        each.dispatcher.disown()
        each.launcher.disown()
    _current.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
