"""Which walls the environments of one daemon have: what was asked for, less what this machine does not permit.

`full` asks for all of them, `auto` for those that are permitted, `process` for resource limits only. What is missing is
kept with the reason, for the console, for `fastlam doctor` and for refusals.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastlam import limits
from fastlam.abc import Confinement
from fastlam.errors import FastlamError
from fastlam.sandbox import image, networks
from fastlam.sandbox.criu import check_version, find_criu, installed_program
from fastlam.sandbox.groups import FREEZER, ControlGroup, ControlGroups
from fastlam.wire import control

LEVELS: Final = ("auto", "full", "process")
HOST: Final = "host"
LOOPBACK: Final = "loopback"
NONE: Final = "none"

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWCGROUP: Final = 0x02000000
_CLONE_NEWUTS: Final = 0x04000000
_CLONE_NEWIPC: Final = 0x08000000
_NAMESPACES: Final = _CLONE_NEWNS | _CLONE_NEWCGROUP | _CLONE_NEWUTS | _CLONE_NEWIPC
_USER_IDS_FROM: Final = 0x70000000  # above the range that systemd gives to containers
_USER_IDS: Final = 1 << 16
_LANDLOCK_WITH_PORTS: Final = 4
_ANY_LANDLOCK: Final = 1  # the probe puts the kernel's own version in its place

# What each wall gives, and what is so without it.
WALLS: Final = {
    control.NAMESPACES: "a file system, processes and System V objects of their own; read-only code; /tmp of its size",
    "network": "--network loopback, and networks that the functions of a VpcConfig have for themselves",
    "memory": "a function that uses more memory than it has is killed",
    "pids": "a function has 1024 processes and threads at most",
    "cpu": "--cpu lambda holds CPU time to the share of the memory",
    "landlock": "writing and abstract sockets are confined a second time",
    "seccomp": "system calls that have let programs out of containers are refused",
    "user": "each environment is a user of its own",
}
_WITHOUT: Final = {
    control.NAMESPACES: "functions see this machine's files and processes",
    "network": "functions reach what this machine reaches, whatever their VpcConfig",
    "memory": "a function may use more memory than it has",
    "pids": "only a user's limit bounds the processes of a function",
    "cpu": "--cpu lambda has no effect",
    "landlock": "mounts and permissions alone protect files",
    "seccomp": "functions may make every system call",
    "user": "all functions run as the same user",
}

# By Isolation.tmp.
TMP: Final = {
    "disk": "each environment has a disk of its own",
    "memory": "each environment has its own, in memory, which counts as the function's where a group counts it",
    "machine": "functions share this machine's",
}
_PROBE: Final = (
    "import sys\n"
    "sys.path[:0] = sys.argv[1:2]\n"
    "sys.path += [entry for entry in sys.argv[2:] if entry not in sys.path]\n"
    "from fastlam.worker.probe import main\n"
    "main()\n"
)
_PROBE_SECONDS_MAX: Final = 60.0


@dataclass
class Isolation:
    """What `find` has found; makes the walls of each environment."""

    level: str
    stage: str  # an empty directory, where roots are put together
    groups: ControlGroups | None = None
    user_namespace: bool = False  # of the zygotes, which could not raise walls otherwise
    own_root: bool = False
    own_user: bool = False
    landlock: int = 0
    seccomp: bool = False
    network: str = HOST  # what environments are given, unless a VpcConfig says otherwise
    doors: list[int] = field(default_factory=list)  # the ports of what they reach in a network of their own
    missing: dict[str, str] = field(default_factory=dict)  # wall: why it is not there
    no_restore: str = ""  # why environments cannot be restored from a template (SnapStart) with these walls
    no_network_rate: str = ""  # why what goes over networks of environments' own can be held to no rate
    network_rate_due: bool = False  # it is asked for
    no_disk_rates: str = ""  # why the use of disks is not held to rates that were asked for
    criu: control.Criu | None = None
    no_criu: str = ""  # why no template can be copied
    no_disk: str = ""  # why /tmp is in memory, and counts as the function's, and not on a disk of its own

    @property
    def own_network(self) -> bool:
        """Whether environments can have one."""
        return self.own_root and "network" not in self.missing

    def summary(self) -> str:
        """One line for the console."""
        if self.level == "process":
            return "isolation: process (resource limits only; --isolation auto gives more)"
        more = "" if self.network == HOST else f"; network: {self.network}"
        if self.tmp == "memory" and os.geteuid() == 0:
            more += f"; /tmp in memory, which counts as the function's: {self.no_disk}"
        if self.no_disk_rates:
            more += f"; no rates of disks: {self.no_disk_rates}"
        if self.network_rate_due and self.no_network_rate:
            more += f"; no rates of networks: {self.no_network_rate}"
        if not self.missing:
            return f"isolation: full{more}"
        return "isolation: all but " + "; ".join(self.shortcomings()) + more

    def state(self) -> dict[str, Any]:
        """For programs: the level, which walls stand, and why others do not."""
        standing = () if self.level == "process" else [name for name in WALLS if name not in self.missing]
        return {
            "level": self.level,
            "walls": sorted(standing),
            "missing": dict(self.missing),
            "network": self.network,
            "tmp": self.tmp,
            "tmp_reason": self.no_disk,
            "no_disk_rates": self.no_disk_rates,
            "no_network_rate": self.no_network_rate,
            "no_criu": self.no_criu,
        }

    def check_full(self) -> None:
        """Raises FastlamError if something is missing."""
        if self.missing:
            raise FastlamError(
                "--isolation full is not possible here: " + "; ".join(self.shortcomings()) + ". Start fastlam as root"
                " on a machine that permits it (fastlam doctor), or use --isolation auto."
            )

    @property
    def tmp(self) -> str:
        """Where /tmp is: on a "disk" of its own, in "memory" of its own, or this "machine"'s."""
        return "machine" if not self.own_root else "memory" if self.no_disk else "disk"

    def shortcomings(self) -> list[str]:
        """What is missing, what that means, and why."""
        return [f"{name} ({_WITHOUT.get(name, 'a wall')}): {reason}" for name, reason in sorted(self.missing.items())]

    def walls(
        self, confinement: Confinement, user: int, group: ControlGroup | None, *, given_tmp: bool = False
    ) -> control.Walls:
        """The walls of one environment, which is a user of that number. `given_tmp`: the mount of its /tmp is there
        already.
        """
        uid = _USER_IDS_FROM + user % _USER_IDS if self.own_user else -1
        plan = control.Walls(
            groups=[] if group is None else group.procs_files,
            limits=_limits(own_count=self.own_user or self.user_namespace),
            uid=uid,
            landlock=self.landlock if self.own_root else 0,
            seccomp=self.seccomp,
        )
        if self.own_root:
            _furnish(plan, self.stage, confinement, uid, given_tmp=given_tmp)
            plan.given_tmp, plan.keeps_tmp = given_tmp, True
            plan.own_user_namespace = self.user_namespace
            plan.own_network = bool(confinement.network)
            if self.network == NONE:
                plan.tcp_ports = list(self.doors)
        return plan


def find(
    level: str,
    stage: str,
    network: str = HOST,
    freezing: bool = False,
    disks: str = "",
    *,
    disk_rates: bool = False,
    network_rates: bool = False,
    criu: str | None = "",
    tries_criu: bool = False,
) -> Isolation:
    """Tries out what this machine permits. `disks` is the directory for disks of /tmp, the stage if there is
    none; `disk_rates`, `network_rates`: the use of disks and of networks is to be held to rates. `criu`: what
    copies templates, None: what this machine has, "": none is to; it is tried only with `tries_criu`. Raises
    FastlamError where `full` is asked for and something is missing, or the network cannot be had, or
    environments cannot be frozen that are to be.
    """
    isolation = Isolation(level, stage, network=network, network_rate_due=network_rates and network != HOST)
    if level == "process":
        isolation.no_criu = "it needs namespaces, and --isolation process has none"
        _check_criu(isolation, criu)
        return isolation
    isolation.groups = ControlGroups(freezing=freezing, disks=disk_rates)
    isolation.no_disk_rates = isolation.groups.io_missing if disk_rates else ""
    try:
        program = installed_program() if criu is None else criu
        no_copy = _probe(isolation, disks or stage, program if tries_criu else "")
        _choose_criu(isolation, program, no_copy)
        _check_criu(isolation, criu)
        if level == "full":
            isolation.check_full()
        if network != HOST:
            _check_network(isolation)
        if freezing:
            _check_freezing(isolation)
    except BaseException:
        isolation.groups.close()
        raise
    return isolation


def _probe(isolation: Isolation, disks: str, criu: str) -> str:
    """Why criu can make no copy, if there is a reason."""
    assert isolation.groups is not None
    isolation.missing |= isolation.groups.missing
    root = os.geteuid() == 0
    for user_namespace in (False, True) if root else (True,):
        become = root and not user_namespace
        tried = Trial(disks="" if user_namespace else disks, criu="" if user_namespace else criu)
        found = _try(isolation, tried, user_namespace=user_namespace, become=become)
        missing = found.missing
        if control.NAMESPACES not in missing:
            break
    for name, reason in missing.items():
        if name == "control groups":
            isolation.missing |= dict.fromkeys(isolation.groups.controllers, reason)
            isolation.groups.close()
            isolation.groups.controllers = set()
        else:
            isolation.missing[name] = reason
    isolation.own_root = control.NAMESPACES not in missing
    isolation.user_namespace = user_namespace and isolation.own_root
    isolation.own_user = root and not isolation.user_namespace and "user" not in missing
    isolation.landlock = 0 if "landlock" in missing else found.landlock
    isolation.seccomp = "seccomp" not in missing
    isolation.no_restore = found.no_restore if isolation.own_root else ""
    isolation.no_network_rate = missing.get("network", "") or found.no_network_rate
    isolation.no_disk = "only root can mount one" if user_namespace else found.no_disk
    return found.no_copy


def _choose_criu(isolation: Isolation, program: str, no_copy: str) -> None:
    try:
        isolation.criu = _usable_criu(isolation, program) if program else None
        isolation.no_criu = no_copy if program else "there is none on the PATH, and none was named (--criu)"
    except OSError as error:
        isolation.no_criu = str(error.args[-1])


def _check_criu(isolation: Isolation, named: str | None) -> None:
    if named and isolation.no_criu:
        raise FastlamError(
            f"--criu {named} is not possible here: {isolation.no_criu}. Without --criu, snapshots are forks, which have"
            " no threads."
        )


def _usable_criu(isolation: Isolation, program: str) -> control.Criu:
    if isolation.user_namespace:
        raise OSError("only root may copy processes")
    if not isolation.own_root:
        raise OSError(f"it needs namespaces: {isolation.missing.get(control.NAMESPACES, 'there are none')}")
    if not isolation.own_user:
        raise OSError(f"it needs users of environments' own: {isolation.missing.get('user', 'there are none')}")
    criu = find_criu(program)
    check_version(criu)
    return criu


def _check_network(isolation: Isolation) -> None:
    reason = isolation.missing.get("network", "")
    if isolation.network == NONE and not reason:
        if not isolation.seccomp:
            reason = f"it stands on seccomp: {isolation.missing['seccomp']}"
        elif isolation.landlock < _LANDLOCK_WITH_PORTS:
            reason = "it stands on landlock's rules for ports, which Linux has from 6.7 on" + (
                f": {isolation.missing['landlock']}" if "landlock" in isolation.missing else ""
            )
    if reason:
        raise FastlamError(
            f"--network {isolation.network} is not possible here: {reason}. fastlam doctor tells which walls this"
            " machine permits; without --network functions reach what the machine reaches."
        )


def freezer_missing() -> str:
    """Why environments cannot be frozen here; "" if they can."""
    groups = ControlGroups(freezing=True)
    try:
        return _try_freezer(groups)
    finally:
        groups.close()


def _try_freezer(groups: ControlGroups) -> str:
    if groups.freezer_missing:
        return groups.freezer_missing
    group = groups.make("freezing")
    try:
        group.freeze()
    except OSError as error:
        return error.strerror or str(error)
    finally:
        group.remove()
    return ""


def _check_freezing(isolation: Isolation) -> None:
    assert isolation.groups is not None
    # Without controllers the trial has found that no process may join.
    joins = FREEZER in isolation.groups.controllers or isolation.groups.freezer_missing
    reason = _try_freezer(isolation.groups) if joins else isolation.missing.get("memory", "no process may join a group")
    if reason:
        raise FastlamError(
            f"--freeze is not possible here: {reason}. It takes control groups that this user may command: start"
            " fastlam as root or by systemd-run --user --scope -p Delegate=yes, or do without --freeze."
        )


class Trial(NamedTuple):
    """What is tried beside the walls; "": nothing."""

    disks: str  # the directory for one
    criu: str


def _try(isolation: Isolation, beside: Trial, *, user_namespace: bool, become: bool) -> control.Findings:
    """What failed in a process that went through all of it."""
    assert isolation.groups is not None
    nothing = Confinement(
        isolation.stage, "", limits.MEMORY_MB_MIN, limits.EPHEMERAL_STORAGE_MB_MIN, network=networks.OWN
    )
    group = isolation.groups.make("probe")
    try:
        trial = Isolation(
            "full", isolation.stage, None, user_namespace, own_root=True, own_user=become, landlock=_ANY_LANDLOCK,
            seccomp=True,
        )  # fmt: skip
        plan = trial.walls(nothing, 0, group)
        plan.keeps_tmp = False
        room_bytes = image.storage_bytes(limits.EPHEMERAL_STORAGE_MB_MIN)
        criu = None
        if beside.criu:
            with contextlib.suppress(OSError):  # why it is none is said where it is chosen
                criu = find_criu(beside.criu)
        order = control.Probe(
            walls=plan, user_namespace=user_namespace, own_pids=True, disks=beside.disks, room_bytes=room_bytes,
            criu=criu,
        )  # fmt: skip
        path = [os.path.abspath(entry) for entry in sys.path if entry]
        probe = subprocess.run(
            [sys.executable, "-I", "-c", _PROBE, str(Path(__file__).parents[2]), *path],
            input=control.encode(order),
            capture_output=True,
            timeout=_PROBE_SECONDS_MAX,
            check=False,
        )
        if probe.returncode:
            last = probe.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise FastlamError(f"The walls could not be tried out: {last or f'exit status {probe.returncode}'}")
        return control.decode_findings(probe.stdout)
    finally:
        group.kill()
        group.remove()


def _furnish(plan: control.Walls, stage: str, confinement: Confinement, uid: int, *, given_tmp: bool) -> None:
    plan.namespaces = _NAMESPACES
    plan.root = stage
    plan.directories = list(image.empty_directories())
    plan.links = list(image.system_links())
    plan.files = image.user_files(uid if uid >= 0 else image.USER_ID)
    plan.mounts = list(image.system_mounts())
    plan.own_mounts = image.function_mounts(
        confinement.code, confinement.opt, confinement.storage_mb, confinement.file_systems, given_tmp=given_tmp
    )
    plan.writable = [target for _, target in confinement.file_systems]


def _limits(*, own_count: bool) -> list[tuple[int, int, int]]:
    """Lambda's: as recorded in an environment. Processes are counted for each user: without a count of its own an
    environment would have those of all of them.
    """
    table = [
        (resource.RLIMIT_NOFILE, limits.OPEN_FILES_MAX, limits.OPEN_FILES_MAX),
        (resource.RLIMIT_CORE, limits.CORE_BYTES_MAX, limits.CORE_BYTES_MAX),
        (resource.RLIMIT_MEMLOCK, limits.LOCKED_BYTES_MAX, limits.LOCKED_BYTES_MAX),
    ]
    if own_count:
        table.append((resource.RLIMIT_NPROC, limits.PROCESSES_MAX, limits.PROCESSES_MAX))
    return table


