"""The dispatcher and launcher that all executors and runtimes of one process share."""

from __future__ import annotations

import os
import threading

from fastlam import limits
from fastlam.config import lane_kind
from fastlam.core.dispatcher import Dispatcher, forget_randomness
from fastlam.dispatch.faults import Faults
from fastlam.embed import loops
from fastlam.sandbox.launcher import Launcher
from fastlam.sandbox.spinning import spin_ns

_lock = threading.Lock()
_current: Engine | None = None


class Engine:
    """Made by the first `acquire`, closed by the last `release`."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.foreign = False  # True in a fork of the process that made it: nothing of it may be used there
        self.users = 0
        self.launcher = Launcher(lane_kind())
        self.dispatcher = Dispatcher(
            self.launcher,
            Faults(),
            environments_max=limits.ENVIRONMENTS_MAX,
            spin_ns=spin_ns(),
        )
        self.launcher.dispatcher = self.dispatcher
        try:
            self.dispatcher.run_as_driver(lambda: self.launcher.zygote("embedded"))
            self.dispatcher.ensure_background()
        except BaseException:
            self._close()
            raise

    def release(self) -> None:
        """One user less."""
        global _current
        with _lock:
            self.users -= 1
            if self.users > 0 or self.foreign:
                return
            if _current is self:
                _current = None
        self._close()

    def _close(self) -> None:
        self.dispatcher.close()
        loops.leave(self.dispatcher)
        self.launcher.close()


def acquire() -> Engine:
    """The engine of this process, with one user more."""
    global _current
    with _lock:
        if _current is None or _current.foreign:
            _current = Engine()
        _current.users += 1
        return _current


def _after_fork_in_child() -> None:
    global _current, _lock
    _lock = threading.Lock()
    forget_randomness()
    if _current is not None:
        _current.foreign = True
        _current.dispatcher.disown()
        _current.launcher.disown()
        _current = None


os.register_at_fork(after_in_child=_after_fork_in_child)
