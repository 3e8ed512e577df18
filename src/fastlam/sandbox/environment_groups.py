"""The control groups of environments that live: made with them, and removed when the last of their processes is gone.

All of it runs in the driver, but for what takes the kernel long and nobody waits for: a thread of its own removes
groups, and makes those of the next environment.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from fastlam import limits
from fastlam.sandbox.groups import FREEZER, ControlGroup, ControlGroups

if TYPE_CHECKING:
    from fastlam.abc import Confinement
    from fastlam.core.dispatcher import Environment

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 0.01  # between two tries to remove groups whose processes are just ending
_TRIES: Final = 500
_AHEAD_SECONDS: Final = 0.01  # from an environment to the groups of the next one: it has its first call now


class EnvironmentGroups:
    """By the environment's id. Without groups of its own (None) nothing here does anything."""

    def __init__(
        self,
        groups: ControlGroups | None,
        disk_rate_bytes: int = 0,
        tmp_device: Callable[[Environment], str] = lambda environment: "",
    ) -> None:
        """`disk_rate_bytes`: what an environment with the memory of a whole CPU may read from a disk in a second, and
        write to it; 0: as much as it can. `tmp_device`: the disk that /tmp is on, as major:minor; "" if on none.
        """
        self._disk_rate_bytes = disk_rate_bytes
        self._tmp_device = tmp_device
        self._groups = groups if groups is not None and groups.controllers else None
        self._freezes = self._groups is not None and FREEZER in self._groups.controllers
        self._live: dict[int, ControlGroup] = {}
        self._names = itertools.count()
        self._ahead: deque[ControlGroup] = deque()  # one, or none: of the next environment
        self._memory_bytes = 0  # the limit of the environment before, which is likely to be that of the next one
        self._work: SimpleQueue[ControlGroup | bool] = SimpleQueue()  # to be removed; True: make one ahead; False: end
        self._worker: threading.Thread | None = None
        self.left = 0  # that could not be removed

    def make(self, environment: Environment) -> ControlGroup | None:
        """Raises OSError."""
        if self._groups is None:
            return None
        group = self._ahead.popleft() if self._ahead else None
        if group is None or not group.exists:  # somebody may have removed it
            group = self._make(self._groups)
        self._live[environment.id] = group
        self._hand_over(True)
        return group

    def limit(self, environment: Environment, shared_bytes: int) -> None:
        """Once the size of what the environment shares with its zygote is known: its group does not count that, but it
        is the function's memory too.
        """
        group = self._live.get(environment.id)
        if group is not None:
            memory_bytes = environment.target.spec.confinement.memory_mb << 20
            self._memory_bytes = max(memory_bytes - shared_bytes, _LEAST_BYTES)
            group.limit_memory(self._memory_bytes)
            if path := group.memory_peak_path:
                with contextlib.suppress(OSError):
                    counted = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    environment.measure_memory(counted, shared_bytes, memory_bytes, os.fsencode(group.memory_stat_path))

    def hold_back(self, environment: Environment, share: float) -> None:
        """It has that part of a CPU from now on, and of what a whole one reads from disks and writes to them."""
        group = self._live.get(environment.id)
        if group is None:
            return
        confinement: Confinement = environment.target.spec.confinement
        group.limit_cpu(share)
        if self._disk_rate_bytes:
            disks = {self._tmp_device(environment), *(disk_of(source) for source, _ in confinement.file_systems)}
            for device in disks - {""}:
                try:
                    group.limit_disk(device, round(self._disk_rate_bytes * share))
                except OSError as error:
                    log.warning("the use of the disk %s is held to no rate: %s", device, error)

    def freeze(self, environment: Environment) -> bool:
        """Stops all of its processes where they are; False if they cannot be."""
        group = self._live.get(environment.id)
        if group is None or not self._freezes:
            return False
        try:
            group.freeze()
        except OSError as error:
            log.warning("environment %d could not be frozen: %s", environment.id, error)
            return False
        return True

    def thaw(self, environment: Environment) -> None:
        """They go on."""
        group = self._live.get(environment.id)
        if group is not None:
            try:
                group.freeze(frozen=False)
            except OSError as error:  # whoever waits for it hears of it by his timeout
                log.error("environment %d could not be thawed: %s", environment.id, error)

    def thaw_path(self, environment: Environment) -> str:
        """What its zygote writes to when it kills it; "" if it need not."""
        group = self._live.get(environment.id)
        return "" if group is None or not self._freezes else group.thaw_path

    def memory_peak_kib(self, environment: Environment, shared_bytes: int) -> int:
        """What it has had at most; its whole memory if it has died for want of more. 0 if nothing counts it."""
        group = self._live.get(environment.id)
        if group is None:
            return 0
        memory_kib: int = environment.target.spec.confinement.memory_mb << 10
        if group.oom_kills():
            return memory_kib
        peak_bytes = group.memory_peak_bytes() - max(group.cache_bytes(), environment.memory_cache_bytes)
        return min((peak_bytes + shared_bytes) >> 10, memory_kib) if peak_bytes > 0 else 0

    def remove(self, environment: Environment) -> None:
        """Its processes are dying or gone."""
        group = self._live.pop(environment.id, None)
        if group is None:
            return
        self._hand_over(group)

    def _hand_over(self, work: ControlGroup | bool) -> None:
        if self._worker is None:
            self._worker = threading.Thread(target=self._run, name="fastlam-groups", daemon=True)
            self._worker.start()
        self._work.put(work)

    def _run(self) -> None:
        pause = threading.Event()  # never set
        while (work := self._work.get()) is not False:
            if work is True:
                pause.wait(_AHEAD_SECONDS)
                if not self._ahead and self._groups is not None:
                    with contextlib.suppress(OSError):  # the next environment's own try says why
                        self._ahead.append(self._make(self._groups, self._memory_bytes))
                continue
            for _ in range(_TRIES):
                work.kill()
                if work.remove():
                    break
                pause.wait(_AGAIN_SECONDS)
            else:
                self.left += 1

    def _make(self, groups: ControlGroups, memory_bytes: int = 0) -> ControlGroup:
        """Raises OSError."""
        group = groups.make(str(next(self._names)))
        try:
            group.limit_pids(limits.PROCESSES_MAX)
            if memory_bytes:
                group.limit_memory(memory_bytes)
        except OSError:
            group.remove()
            raise
        return group

    def close(self) -> None:
        """All environments are gone."""
        if self._worker is not None:
            self._work.put(False)
            self._worker.join()
            self._worker = None
        while self._ahead:
            self._ahead.popleft().remove()
        if self._groups is not None:
            self._groups.close()
            self._groups = None


def disk_of(path: str) -> str:
    """The whole disk that the path lies on, as major:minor; "" if it is on none, or on several."""
    number = os.stat(path).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    entry = os.path.realpath(f"/sys/dev/block/{device}")
    try:
        if os.path.exists(f"{entry}/partition"):
            with open(f"{os.path.dirname(entry)}/dev") as file:
                return file.read().strip()
    except OSError:
        return ""
    return device if os.path.isdir(entry) else ""


_LEAST_BYTES: Final = 8 << 20  # a worker needs some of its own
