"""Makes the process, the lane and the shared memory of an execution environment, and takes them away again.

One launcher belongs to one dispatcher; all of it runs in the driver. It owns the zygotes and the directory of the
sockets. Per environment it makes, and closes: a listening unix socket (handed to the worker), the lane connected to it,
the memfds of output and slots.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from typing import TYPE_CHECKING, Any

import msgspec

from fastlam import limits
from fastlam.sandbox import image
from fastlam.sandbox.disks import Disk, Disks, on_disk
from fastlam.sandbox.environment_groups import EnvironmentGroups
from fastlam.sandbox.estates import Estates
from fastlam.sandbox.isolation import HOST, find
from fastlam.sandbox.keeper import Keeper
from fastlam.sandbox.lanes import lanes_of_kind
from fastlam.sandbox.networks import Door, Networks
from fastlam.sandbox.programs import make_user_namespace
from fastlam.sandbox.runtime_directory import RuntimeDirectory
from fastlam.sandbox.templates import Templates
from fastlam.sandbox.zygotes import EMBEDDED, STATUS_KILLED, Zygote
from fastlam.wire import control

if TYPE_CHECKING:
    from fastlam.abc import LaunchSpec
    from fastlam.core.dispatcher import Dispatcher, Environment


class Launcher:
    """See the module's docstring. `dispatcher` is set once, by whoever makes both."""

    dispatcher: Dispatcher

    def __init__(
        self,
        lane: str,
        isolation: str = "",
        *,
        network: str = "host",
        cpu_follows_memory: bool = False,
        freezing: bool = False,
        disks: str = "",
        disk_rate_bytes: int = 0,
        network_rate_bytes: int = 0,
        criu: str | None = "",
    ) -> None:
        """`isolation` is a level of sandbox.isolation; without one there are no walls. `network`: what functions reach.
        `cpu_follows_memory`: they have the part of a CPU that Lambda gives for their memory. `freezing`: the dispatcher
        will want to freeze environments. `disks`: the directory for disks of /tmp; without one, that of the sockets.
        `disk_rate_bytes`: with `cpu_follows_memory`, what one with the memory of a whole CPU may read from a disk in a
        second, and write to it; 0: no bound. `network_rate_bytes`: likewise, what goes over a network of its own.
        `criu`: the program that copies templates which cannot be forked, None: what this machine has; without one they
        are forked all the same.
        """
        self.lanes = lanes_of_kind(lane)
        self.directory = RuntimeDirectory()
        stage = self.directory.path / "stage"
        stage.mkdir()
        try:
            disks = on_disk([*([disks] if disks else []), str(self.directory.path), "/var/tmp"])
            disk_rate_bytes = disk_rate_bytes if cpu_follows_memory else 0
            network_rate_bytes = network_rate_bytes if cpu_follows_memory else 0
            self.isolation = None
            if isolation:
                self.isolation = find(
                    isolation, str(stage), network, freezing, disks,
                    disk_rates=bool(disk_rate_bytes), network_rates=bool(network_rate_bytes), criu=criu,
                )  # fmt: skip
            in_user_namespace = self.isolation is not None and self.isolation.user_namespace
            # One for all zygotes: who is in another could not enter a network that is made in this one.
            self._user_namespace_fd = make_user_namespace() if in_user_namespace else -1
        except BaseException:
            self.directory.close()
            raise
        self.groups = EnvironmentGroups(
            None if self.isolation is None else self.isolation.groups,
            disk_rate_bytes,
            lambda environment: self.estates.device(environment),
        )
        self._cpu_follows_memory = cpu_follows_memory
        self._network_rate_bytes = network_rate_bytes
        self.keeper = Keeper()
        self.zygotes: dict[str, Zygote] = {}
        self.homes: dict[int, Zygote] = {}  # environment id -> the zygote that its process came from
        self.templates = Templates(self)
        self._held: dict[int, tuple[Environment, list[int]]] = {}  # descriptors of those that wait for disk or network
        self.networks = Networks(
            self.keeper,
            lambda fd, callback: self.dispatcher.add_reader(fd, callback),
            lambda fd: self.dispatcher.remove_reader(fd),
            self._user_namespace_fd,
            holds=network_rate_bytes > 0,
        )
        self.disks: Disks | None = None
        if self.isolation is not None and self.isolation.tmp == "disk":
            self.disks = Disks(
                disks,
                self.keeper,
                lambda fd, callback: self.dispatcher.add_reader(fd, callback),
                lambda fd: self.dispatcher.remove_reader(fd),
                self._disks_are_memory,
            )
        self.estates = Estates(
            lambda fd, callback: self.dispatcher.add_reader(fd, callback),
            lambda fd: self.dispatcher.remove_reader(fd),
            lambda disk: self.disks.give_back(disk) if self.disks is not None else None,
        )

    def zygote(self, kind: str) -> Zygote:
        """The zygote of that kind, started if there is none."""
        zygote = self.zygotes.get(kind)
        if zygote is None:
            zygote = self.zygotes[kind] = Zygote(
                kind,
                self.keeper,
                self._zygote_ended,
                user_namespace_fd=self._user_namespace_fd if kind != EMBEDDED else -1,
                before_fork=self.before_fork,
                memory_peak_kib=self.memory_peak_kib,
                thaw_path=self.groups.thaw_path,
            )
            self.dispatcher.add_reader(zygote.fileno, zygote.on_readable)
        return zygote

    def _disks_are_memory(self, reason: str) -> None:
        assert self.isolation is not None
        self.isolation.no_disk = reason

    def _zygote_ended(self, zygote: Zygote) -> None:
        self.dispatcher.remove_reader(zygote.fileno)
        if self.zygotes.get(zygote.kind) is zygote:
            del self.zygotes[zygote.kind]

    def open_doors(self, doors: list[Door]) -> None:
        """What environments with a network of their own reach there; call once, before the first one."""
        self.networks.open_doors(doors)
        if self.disks is not None:
            self.disks.prepare(image.storage_bytes(limits.EPHEMERAL_STORAGE_MB_MIN))
        if self.isolation is not None:
            self.isolation.doors = [door.port for door in doors]
            if self.isolation.network != HOST:
                self.networks.prepare()

    def launch(self, environment: Environment) -> None:
        """Orders the process of a new environment; what fails raises OSError and leaves nothing open."""
        spec: LaunchSpec = environment.target.spec
        descriptors: list[int] = []
        log_fd = tmp_fd = -1
        path = f"{self.directory.path}/{environment.id}"
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listen_fd = listener.detach()
            descriptors.append(listen_fd)
            with socket.socket(fileno=os.dup(listen_fd)) as listening:
                listening.bind(path)
                listening.listen(1)
            slots_fd = os.memfd_create("fastlam-slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            descriptors.append(slots_fd)
            environment.attach_slots(slots_fd, self.lanes.mirror_bytes)
            if spec.captures_output:
                log_fd = os.memfd_create("fastlam-output", os.MFD_CLOEXEC)
                fcntl.fcntl(log_fd, fcntl.F_SETFL, os.O_APPEND)
                descriptors += [os.dup(log_fd), os.dup(log_fd)]
            else:
                descriptors += [_dup_or_null(1), _dup_or_null(2)]
            worker, own_pids = spec.worker, False
            estate, tmp_fd = self.estates.take(environment)
            if self.isolation is not None and spec.confinement is not None:
                group = self.groups.make(environment)
                if self._cpu_follows_memory:  # INIT is not held back
                    environment.on_ready = self._hold_back
                given_tmp = tmp_fd >= 0 or self.disks is not None
                walls = self.isolation.walls(spec.confinement, estate.number, group, given_tmp=given_tmp)
                walls.restores = worker.template == control.FORKED and walls.namespaces != 0
                walls.copied = worker.template == control.COPIED
                walls.own_user_namespace = walls.own_user_namespace and not walls.restores
                estate.given = walls.given_tmp and walls.keeps_tmp
                worker, own_pids = msgspec.structs.replace(worker, walls=walls), self.isolation.own_root
            if worker.kind == "function" and (worker.walls is None or not worker.walls.root):
                worker = msgspec.structs.replace(worker, tmp=estate.begin_directory(str(self.directory.path)))
            descriptors.insert(0, self._spec_memfd(worker, estate.stream if not spec.snapshot else ""))
            descriptors += self.lanes.memory(environment)
            if worker.walls is not None and worker.walls.keeps_tmp:
                descriptors.append(estate.begin_tmp())
            inherits = tmp_fd >= 0
            if inherits:
                descriptors.append(tmp_fd)
                tmp_fd = -1
            zygote = self.zygote(spec.zygote_kind)
            given_log_fd, log_fd = log_fd, -1
            self.lanes.open(environment, path, spec.frame_bytes_max, given_log_fd)
            given, descriptors = descriptors, []
            if inherits or worker.walls is None or not worker.walls.given_tmp:
                self._order(environment, zygote, given, worker, own_pids=own_pids)
            else:
                self._order_with_disk(environment, zygote, given, worker, own_pids=own_pids)
        except OSError as error:
            self.groups.remove(environment)
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise OSError(
                    error.errno,
                    "too many open files for another execution environment; raise the limit (ulimit -n) or lower"
                    " the number of environments",
                ) from error
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            if log_fd >= 0:
                os.close(log_fd)
            if tmp_fd >= 0:
                self.estates.close_later(tmp_fd)

    def _order(
        self,
        environment: Environment,
        zygote: Zygote,
        descriptors: list[int],
        worker: control.WorkerSpec,
        *,
        own_pids: bool,
    ) -> None:
        """Takes over the descriptors; raises OSError."""
        spec: LaunchSpec = environment.target.spec
        if worker.template:
            self.templates.make(environment, zygote, descriptors, own_pids=own_pids)
        elif spec.snapshot:
            self.templates.restore(environment, descriptors)
        elif worker.walls is not None and worker.walls.own_network:
            assert spec.confinement is not None
            self.homes[environment.id] = zygote
            self._fork_with_network(environment, descriptors, spec.confinement.network)
        else:
            self.homes[environment.id] = zygote
            zygote.fork(environment, descriptors, own_pids=own_pids)

    def _order_with_disk(
        self,
        environment: Environment,
        zygote: Zygote,
        descriptors: list[int],
        worker: control.WorkerSpec,
        *,
        own_pids: bool,
    ) -> None:
        """As soon as there is a disk for its /tmp. Takes over the descriptors."""
        spec: LaunchSpec = environment.target.spec
        assert self.disks is not None
        assert spec.confinement is not None

        def order(mount_fd: int, disk: Disk) -> None:
            del self._held[environment.id]
            estate = self.estates.of(environment)
            if estate is not None:
                estate.disk = disk
            # The zygote may have ended meanwhile.
            living = zygote if not zygote.ended else self.zygote(spec.zygote_kind)
            try:
                self._order(environment, living, [*descriptors, mount_fd], worker, own_pids=own_pids)
            except OSError as error:
                environment.start_failed(str(error))

        def fail(reason: str) -> None:
            self._let_go(environment.id)
            environment.start_failed(reason)

        self._held[environment.id] = environment, descriptors
        self.disks.take(environment.id, image.storage_bytes(spec.confinement.storage_mb), order, fail)

    def _fork_with_network(self, environment: Environment, descriptors: list[int], name: str) -> None:
        """Orders the process as soon as its network is there."""

        def fork(namespace_fd: int) -> None:
            del self._held[environment.id]
            # It may have ended meanwhile.
            zygote = self.homes[environment.id] = self.zygote(environment.target.spec.zygote_kind)
            zygote.fork(environment, [*descriptors, namespace_fd], own_pids=True)

        def fail(reason: str) -> None:
            self._let_go(environment.id)
            environment.start_failed(reason)

        self._held[environment.id] = environment, descriptors
        self.networks.take(environment.id, name, fork, fail)

    def _hold_back(self, environment: Environment) -> None:
        spec: LaunchSpec = environment.target.spec
        assert spec.confinement is not None
        share = spec.confinement.memory_mb / limits.MEMORY_MB_PER_CPU
        self.groups.hold_back(environment, share)
        if self._network_rate_bytes:
            self.networks.hold(environment.id, round(self._network_rate_bytes * share))

    def _let_go(self, environment_id: int) -> None:
        _, descriptors = self._held.pop(environment_id)
        for descriptor in descriptors:
            os.close(descriptor)

    def _spec_memfd(self, worker: control.WorkerSpec, stream: str) -> int:
        environ = worker.environ
        if worker.kind == "function" and stream:
            environ = {**environ, "AWS_LAMBDA_LOG_STREAM_NAME": stream}
        data = control.encode(msgspec.structs.replace(worker, environ=environ))
        fd = os.memfd_create("fastlam-spec", os.MFD_CLOEXEC)
        written = 0
        while written < len(data):
            written += os.write(fd, data[written:])
        return fd

    def before_fork(self, environment: Environment) -> None:
        home = self.homes.get(environment.id)
        if home is not None:
            self.groups.limit(environment, home.resident_bytes)

    def memory_peak_kib(self, environment: Environment) -> int:
        home = self.homes.get(environment.id)
        return 0 if home is None else self.groups.memory_peak_kib(environment, home.resident_bytes)

    def kill(self, environment: Environment) -> bool:
        """Kills what is left of the environment's process group; its end is reported as any other. False if there is
        nothing that could be killed.
        """
        if self.networks.cancel(environment.id) or (self.disks is not None and self.disks.cancel(environment.id)):
            self._let_go(environment.id)
            environment.process_exited(STATUS_KILLED, 0)
            return True
        if self.templates.forget(environment):
            environment.process_exited(STATUS_KILLED, 0)
            return True
        zygote = self.homes.get(environment.id)
        if zygote is None or zygote.ended:
            return False
        zygote.kill(environment.id)
        return True

    def freeze(self, environment: Environment) -> bool:
        """Stops all processes of an idle environment, until `thaw`; False if they cannot be."""
        return self.groups.freeze(environment)

    def thaw(self, environment: Environment) -> None:
        self.groups.thaw(environment)

    def closed(self, environment: Environment, lane: Any) -> None:
        """The dispatcher has forgotten the environment: its lane and its socket go."""
        self.homes.pop(environment.id, None)
        self.networks.left(environment.id)
        self.templates.forget(environment)
        self.estates.leave(environment)
        self.groups.remove(environment)
        self.lanes.closed(lane)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.directory.path}/{environment.id}")

    def close(self) -> None:
        """Ends the zygotes and with them every process; call after the dispatcher has closed its environments."""
        self.templates.close()
        for zygote in list(self.zygotes.values()):
            zygote.close()
        self.networks.close()
        if self.disks is not None:
            self.disks.close()
        for environment_id in list(self._held):
            self._let_go(environment_id)
        if self._user_namespace_fd >= 0:
            os.close(self._user_namespace_fd)
            self._user_namespace_fd = -1
        self.keeper.close()
        self.estates.close()
        self.groups.close()
        self.lanes.close()
        self.directory.close()

    def disown(self) -> None:
        """In a fork of the owner: lets go of what would keep the zygotes alive beyond their owner; touches nothing
        else.
        """
        self.templates.disown()
        for zygote in self.zygotes.values():
            zygote.disown()
        self.networks.disown()
        if self.disks is not None:
            self.disks.disown()


def _dup_or_null(fd: int) -> int:
    """A duplicate of the descriptor, or /dev/null where the program has closed it."""
    try:
        return os.dup(fd)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)
