"""Control groups: one for each environment, in every hierarchy that can limit something.

Version 2 has one hierarchy for all controllers, version 1 one for each, and a machine may have both. All groups of one
daemon lie in a group of its own below the daemon's, which goes when the daemon does; what a killed daemon has left is
removed by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

CONTROLLERS: Final = ("memory", "pids", "cpu")
FREEZER: Final = "freezer"  # a controller of version 1; in version 2 every group can be frozen
IO: Final = "io"  # rates of disks; version 1 has another name for it
_NAMES_1: Final = {IO: "blkio"}  # of controllers that have another one there
CPU_PERIOD_US: Final = 20_000  # Lambda's own, as observed
_BESIDE: Final = "-daemon"
_STATE_FILE: Final = "freezer.state"
_AGAIN_SECONDS: Final = 0.01  # between two tries to remove a group
_TRIES: Final = 100
_NAME: Final = re.compile(r"fastlam-(\d+)-(\d+)")


@dataclass(frozen=True)
class Hierarchy:
    """A mounted hierarchy, and the group of this process in it."""

    version: int
    controllers: tuple[str, ...]  # of CONTROLLERS, FREEZER and IO
    own: Path

    @property
    def handed_down(self) -> list[str]:
        """What groups of version 2 have to be given by those above them."""
        return [each for each in self.controllers if each != FREEZER]


class ControlGroups:
    """The groups of one daemon. `controllers` are those that can limit something here; `missing` says why the others
    cannot. With `freezing` they can be frozen too, or `freezer_missing` says why not; with `disks` their use of disks
    can be held to rates, or `io_missing` says why not.
    """

    def __init__(self, *, freezing: bool = False, disks: bool = False) -> None:
        self.missing: dict[str, str] = {}
        self._bases: list[tuple[Hierarchy, Path]] = []
        self.controllers: set[str] = set()
        found = hierarchies()
        for hierarchy in sorted(found, key=lambda each: FREEZER not in each.controllers):
            remove_abandoned(hierarchy.own)  # what is frozen first: nothing else ends it
        # Version 2 first: what is killed while it is frozen dies there.
        for hierarchy in sorted(found, key=lambda each: -each.version):
            if FREEZER in hierarchy.controllers and (not freezing or FREEZER in self.controllers):
                hierarchy = replace(hierarchy, controllers=tuple(hierarchy.handed_down))
            if IO in hierarchy.controllers and not disks:
                hierarchy = replace(hierarchy, controllers=tuple(each for each in hierarchy.controllers if each != IO))
            if not hierarchy.controllers:
                continue
            try:
                self._bases.append((hierarchy, _make_base(hierarchy)))
                self.controllers |= set(hierarchy.controllers)
            except OSError as error:
                for controller in hierarchy.controllers:
                    self.missing[controller] = f"no group can be made in {hierarchy.own}: {error.strerror}"
        for controller in (*CONTROLLERS, FREEZER, IO):
            if controller in self.controllers:
                self.missing.pop(controller, None)
            else:
                self.missing.setdefault(controller, "no hierarchy of control groups has this controller")
        self.freezer_missing = self.missing.pop(FREEZER, "")
        self.io_missing = self.missing.pop(IO, "")

    def make(self, name: str) -> ControlGroup:
        """A group in each hierarchy; raises OSError and leaves none."""
        group = ControlGroup({}, [])
        try:
            for hierarchy, base in self._bases:
                path = base / name
                try:
                    path.mkdir()
                except FileNotFoundError:  # somebody has removed the daemon's own group
                    _make_base(hierarchy)
                    path.mkdir()
                group.paths.append(path)
                for controller in hierarchy.controllers:
                    group.by_controller[controller] = (hierarchy.version, path)
        except OSError:
            group.remove()
            raise
        return group

    def close(self) -> None:
        """Removes the daemon's own groups; those in them must be gone."""
        for hierarchy, base in self._bases:
            _remove_tree(base)
            with contextlib.suppress(OSError):
                _move_back(hierarchy)
        self._bases.clear()


@dataclass
class ControlGroup:
    """One environment's groups."""

    by_controller: dict[str, tuple[int, Path]]  # version and directory
    paths: list[Path]
    _memory_bytes: int = 0  # its limit; 0: none
    _freezer_fd: int = -1  # of the file that freezes, once it has been written to

    @property
    def exists(self) -> bool:
        return all(path.is_dir() for path in self.paths)

    @property
    def procs_files(self) -> list[str]:
        """What a process of one thread writes a 0 into to join. In version 1 that is the file for threads: for a thread
        that moves itself nobody waits; for a whole process the kernel first stops all forks of the machine, which takes
        5 to 12 ms (kernel/cgroup/cgroup.c, cgroup_procs_write_start).
        """
        by_threads = {path for version, path in self.by_controller.values() if version == 1}
        return [str(path / ("tasks" if path in by_threads else "cgroup.procs")) for path in self.paths]

    def limit_memory(self, memory_bytes: int) -> None:
        """Takes the kernel some tenths of a millisecond; nothing if this is the limit."""
        if "memory" not in self.by_controller or memory_bytes == self._memory_bytes:
            return
        version, path = self.by_controller["memory"]
        if version == 2:
            _write(path / "memory.max", memory_bytes)
            _write(path / "memory.swap.max", 0, optional=True)
            _write(path / "memory.oom.group", 1, optional=True)
        else:
            # Never above the limit of both together, which a second call may have to raise first.
            _write(path / "memory.memsw.limit_in_bytes", -1, optional=True)
            _write(path / "memory.limit_in_bytes", memory_bytes)
            _write(path / "memory.memsw.limit_in_bytes", memory_bytes, optional=True)
        self._memory_bytes = memory_bytes

    def limit_pids(self, pids_max: int) -> None:
        if "pids" in self.by_controller:
            _write(self.by_controller["pids"][1] / "pids.max", pids_max)

    def limit_cpu(self, share: float) -> None:
        """So many CPUs' time; 0: no limit."""
        if "cpu" not in self.by_controller:
            return
        version, path = self.by_controller["cpu"]
        quota_us = max(1000, round(CPU_PERIOD_US * share)) if share > 0 else -1
        if version == 2:
            _write(path / "cpu.max", f"{quota_us if quota_us > 0 else 'max'} {CPU_PERIOD_US}")
        else:
            _write(path / "cpu.cfs_period_us", CPU_PERIOD_US)
            _write(path / "cpu.cfs_quota_us", quota_us)

    def limit_disk(self, device: str, bytes_per_second: int) -> None:
        """Of a whole disk, by its major:minor: so much may be read, and so much written."""
        if IO not in self.by_controller:
            return
        version, path = self.by_controller[IO]
        if version == 2:
            _write(path / "io.max", f"{device} rbps={bytes_per_second} wbps={bytes_per_second}")
        else:
            for kind in ("read", "write"):
                _write(path / f"blkio.throttle.{kind}_bps_device", f"{device} {bytes_per_second}")

    @property
    def thaw_path(self) -> str:
        """The file that a killed process has to be thawed by, to die; "" where it dies frozen."""
        version, path = self.by_controller.get(FREEZER, (2, Path()))
        return "" if version == 2 else str(path / _STATE_FILE)

    def freeze(self, *, frozen: bool = True) -> None:
        """Stops all in it, or has it go on. Returns at once: the last of them stops a moment later."""
        version, path = self.by_controller[FREEZER]
        if self._freezer_fd < 0:
            name = "cgroup.freeze" if version == 2 else _STATE_FILE
            self._freezer_fd = os.open(path / name, os.O_WRONLY | os.O_CLOEXEC)
        words = (b"0", b"1") if version == 2 else (b"THAWED", b"FROZEN")
        os.write(self._freezer_fd, words[frozen])

    @property
    def memory_peak_path(self) -> str:
        """The file that says how much memory the group has had at most, in bytes; "" if nothing counts it."""
        if "memory" not in self.by_controller:
            return ""
        version, path = self.by_controller["memory"]
        peak = path / ("memory.peak" if version == 2 else "memory.max_usage_in_bytes")
        return str(peak) if peak.exists() else ""

    @property
    def memory_stat_path(self) -> str:
        """The file that says what the memory of the group is; "" if nothing counts it."""
        return str(self.by_controller["memory"][1] / "memory.stat") if "memory" in self.by_controller else ""

    def memory_peak_bytes(self) -> int:
        """Page cache included. 0 if nothing counts it."""
        path = self.memory_peak_path
        try:
            return int(Path(path).read_text()) if path else 0
        except OSError:
            return 0

    def cache_bytes(self) -> int:
        """Page cache that it has now; 0 if nothing counts it."""
        try:
            text = Path(self.memory_stat_path).read_text() if self.memory_stat_path else ""
        except OSError:
            return 0
        return sum(int(size) for size in re.findall(r"^(?:in)?active_file (\d+)$", text, re.MULTILINE))

    def oom_kills(self) -> int:
        """How many processes the kernel has killed for want of memory."""
        if "memory" not in self.by_controller:
            return 0
        version, path = self.by_controller["memory"]
        try:
            text = (path / ("memory.events" if version == 2 else "memory.oom_control")).read_text()
        except OSError:
            return 0
        found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        return int(found[1]) if found else 0

    def kill(self) -> None:
        """Kills whatever is left in it."""
        for path in self.paths:
            with contextlib.suppress(OSError):
                for word in (path / "cgroup.procs").read_text().split():
                    with contextlib.suppress(OSError):
                        os.kill(int(word), 9)
            if (path / _STATE_FILE).exists():
                with contextlib.suppress(OSError):
                    _write(path / _STATE_FILE, "THAWED")  # frozen processes of version 1 do not die

    def remove(self) -> bool:
        """False while a process in it still lives."""
        if self._freezer_fd >= 0:
            os.close(self._freezer_fd)
            self._freezer_fd = -1
        left = []
        for path in self.paths:
            try:
                path.rmdir()
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                left.append(path)
        self.paths[:] = left
        return not left


def hierarchies() -> list[Hierarchy]:
    """Those of this machine that have one of CONTROLLERS, each controller once."""
    own: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, listed, path = line.split(":", 2)
        for name in listed.split(","):
            own[name] = path.lstrip("/")
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        mount_point = Path(left.split()[4])
        if kind == "cgroup2":
            group = mount_point / own.get("", "")
            with contextlib.suppress(OSError):
                usable = (group / "cgroup.controllers").read_text().split()
                found.append(Hierarchy(2, (*(each for each in (*CONTROLLERS, IO) if each in usable), FREEZER), group))
        elif kind == "cgroup":
            names = set(re.split(r"[ ,]", options))
            controllers = tuple(each for each in (*CONTROLLERS, FREEZER, IO) if _NAMES_1.get(each, each) in names)
            if controllers:
                first = _NAMES_1.get(controllers[0], controllers[0])
                found.append(Hierarchy(1, controllers, mount_point / own.get(first, "")))
    return found


def remove_abandoned(own: Path) -> None:
    """Removes the groups of daemons that are gone, with what is left in them."""
    with contextlib.suppress(OSError):
        for path in own.iterdir():
            named = _NAME.fullmatch(path.name)
            if named and _start_ticks(int(named[1])) != int(named[2]):
                _remove_tree(path)


def _make_base(hierarchy: Hierarchy) -> Path:
    own = hierarchy.own
    if hierarchy.version == 2:
        enabled = (own / "cgroup.subtree_control").read_text().split()
        wanted = [each for each in hierarchy.handed_down if each not in enabled]
        if wanted:
            if (own / "cgroup.type").exists():
                _move_beside(own)
            _write(own / "cgroup.subtree_control", " ".join(f"+{each}" for each in wanted))
    base = own / _base_name()
    base.mkdir(exist_ok=True)
    if hierarchy.version == 2 and hierarchy.handed_down:
        _write(base / "cgroup.subtree_control", " ".join(f"+{each}" for each in hierarchy.handed_down))
    return base


def _move_beside(own: Path) -> None:
    """A group with processes cannot hand controllers down: this one goes into a group beside those of its environments.
    Others are not ours to move: then nothing is done.
    """
    members = (own / "cgroup.procs").read_text().split()
    if members == [str(os.getpid())]:
        beside = own / f"{_base_name()}{_BESIDE}"
        beside.mkdir(exist_ok=True)
        _write(beside / "cgroup.procs", os.getpid())
    elif members:
        raise OSError(errno.EBUSY, "others are in it: systemd-run --user --scope -p Delegate=yes gives another")


def _move_back(hierarchy: Hierarchy) -> None:
    beside = hierarchy.own / f"{_base_name()}{_BESIDE}"
    if beside.is_dir():
        _write(hierarchy.own / "cgroup.subtree_control", " ".join(f"-{each}" for each in hierarchy.handed_down))
        _write(hierarchy.own / "cgroup.procs", os.getpid())
        beside.rmdir()


def _base_name() -> str:
    return f"fastlam-{os.getpid()}-{_start_ticks(os.getpid())}"


def _start_ticks(pid: int) -> int:
    """When the process began, which tells it from a later one of the same number; -1 if there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return -1


def _remove_tree(path: Path) -> None:
    with contextlib.suppress(OSError):
        for inner in [each for each in path.iterdir() if each.is_dir()]:
            group = ControlGroup({}, [inner])
            for _ in range(_TRIES):
                group.kill()
                _remove_tree(inner)
                if not inner.exists():
                    break
                time.sleep(_AGAIN_SECONDS)  # what has been killed is just ending
        path.rmdir()


def _write(path: Path, value: object, *, optional: bool = False) -> None:
    try:
        path.write_text(str(value))
    except OSError:
        if not optional:
            raise

