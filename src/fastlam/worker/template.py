"""The template of a function version (SnapStart): a worker that has had its INIT, and then forks environments.

Functions have written in its memory: nothing here has a privilege, and what it tells its keeper is believed only as
far as it concerns environments of this version. An environment is a grandchild: the child between enters the namespaces
that the keeper has made (worker.walls), and with its end the kernel gives the environment to the keeper.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from fastlam.core.channel import Channel, fork_between, settle_child
from fastlam.wire import control
from fastlam.wire.descriptors import receive
from fastlam.worker import imports, logs, snapshots
from fastlam.worker.faults import AFTER_RESTORE_ERROR, BEFORE_SNAPSHOT_ERROR, payload_from_exception
from fastlam.worker.functions import FunctionWorker, HookFailure, NoTemplate
from fastlam.worker.held import FAILED, OK

if TYPE_CHECKING:
    from fastlam.worker.start import Title

_TEMPORARY: Final = "/tmp"
_FAILED: Final = 70  # EX_SOFTWARE


class Template(FunctionWorker):
    """Serves its keeper after INIT. `enter` is worker.walls.enter_namespaces; `own` are descriptors of this process
    that no environment has any business with.
    """

    def __init__(
        self,
        channel: Channel,
        spec: control.WorkerSpec,
        log_fd: int,
        title: Title,
        started_ns: int,
        *,
        keeper: socket.socket,
        own: Iterable[int],
        make_title: Callable[[str], Title],
        enter: Callable[[Iterable[int], control.Walls], None],
    ) -> None:
        super().__init__(channel, spec, log_fd, title, started_ns)
        self.keeper = keeper
        self.own = tuple(own)
        self.make_title = make_title
        self.enter = enter

    def before_ready(self, handler: Callable[[Any, Any], Any]) -> None:
        self.run_hooks()
        if names := snapshots.lost_threads():
            if self.spec.keeps_threads:
                raise NoTemplate(
                    control.THREADS_LEFT,
                    f"a fork has no threads, and some run now ({', '.join(names)}): INIT runs once more, in a process"
                    " that criu copies",
                )
            print(
                f"[fastlam: threads that run now are not in environments restored from here: {', '.join(names)}]",
                file=sys.stderr,
            )
        gc.collect()
        gc.freeze()

    def run_hooks(self) -> None:
        try:
            snapshots.run_before_snapshot()
        except BaseException as error:
            raise HookFailure(BEFORE_SNAPSHOT_ERROR, error) from None

    def _serve(self, handler: Callable[[Any, Any], Any]) -> None:
        self.title.show("template")
        while True:
            packet, descriptors = receive(self.keeper, control.PACKET_BYTES_MAX, control.RESTORE_DESCRIPTORS_MAX)
            if not packet:
                return  # the keeper is gone
            began_ns = time.monotonic_ns()
            order = control.decode_from_keeper(packet)
            assert isinstance(order, control.Restore)
            report_fd, *descriptors = descriptors
            entered = [descriptors.pop(0) for _ in control.NAMESPACE_KINDS] if order.namespaces else []
            groups = [descriptors.pop(0) for _ in range(order.groups)]
            self.files_fd = os.open(_TEMPORARY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if entered else -1
            try:
                child = fork_between(lambda: self._enter(entered, report_fd))  # noqa: B023 - it runs at once
            except OSError as error:
                os.write(report_fd, FAILED + str(error).encode())
                child = -1
            if child == 0:
                for descriptor in entered:
                    os.close(descriptor)
                self._restored(handler, report_fd, groups, descriptors, bool(entered), began_ns)
                return
            descriptors += [*entered, *groups, *([self.files_fd] if entered else [])]
            for descriptor in (report_fd, *descriptors):
                os.close(descriptor)
            if child > 0:
                os.waitpid(child, 0)
            self.keeper.send(control.encode(control.Restored(order.environment_id)))

    def _enter(self, entered: list[int], report_fd: int) -> None:
        """In the child between, before it forks: out of the template's namespaces. It has the template's memory;
        descriptors are copies.
        """
        try:
            if entered:
                assert self.spec.walls is not None
                self.enter(entered, self.spec.walls)
                os.chdir(self.spec.directory)
        except BaseException as error:
            os.write(report_fd, FAILED + str(error).encode(errors="replace")[:1024])
            raise

    def _restored(
        self,
        handler: Callable[[Any, Any], Any],
        report_fd: int,
        groups: list[int],
        descriptors: list[int],
        namespaces: bool,
        began_ns: int,
    ) -> None:
        """In the environment: until its end."""
        self.keeper.close()
        if os.getpgrp() != os.getpid():
            os.setpgid(0, 0)
        for group in groups:
            os.write(group, b"0")
            os.close(group)
        report = socket.socket(fileno=report_fd)
        report.send(OK)
        spec_fd, listen_fd, slots_fd, stdout_fd, stderr_fd, *express = descriptors
        spec = control.decode_spec(os.pread(spec_fd, os.fstat(spec_fd).st_size, 0))
        os.dup2(stdout_fd, 1)
        os.dup2(stderr_fd, 2)
        self.channel = None  # type: ignore[assignment]
        for descriptor in (spec_fd, stderr_fd, self.log_fd, *self.own):
            os.close(descriptor)
        if spec.tmp:
            imports.set_temporary_directory(spec.tmp)
        title = self.make_title(spec.title)
        title.show("starting")
        channel = Channel(listen_fd, slots_fd, *express)
        for descriptor in (listen_fd, slots_fd, *express[:1]):
            os.close(descriptor)
        with report:
            if report.recv(len(OK)) != OK:  # from here on it is in its control groups, and the dispatcher knows it
                os._exit(_FAILED)
        if not namespaces:  # whose first process ends with the keeper, and with it all in them
            settle_child()
        elif os.listdir(self.files_fd) and not os.listdir(_TEMPORARY):  # what a reset has left there stays as it is
            snapshots.copy_files(self.files_fd, _TEMPORARY)
        if namespaces:
            os.close(self.files_fd)
        Restored(channel, self.spec, stdout_fd, title, began_ns, handler).serve()


class Restored(FunctionWorker):
    """An environment that has a template's INIT behind it."""

    def __init__(
        self,
        channel: Channel,
        spec: control.WorkerSpec,
        log_fd: int,
        title: Title,
        started_ns: int,
        handler: Callable[[Any, Any], Any],
    ) -> None:
        super().__init__(channel, spec, log_fd, title, started_ns)
        self._given = handler

    def _init(self) -> Callable[[Any, Any], Any] | None:
        logs.set_request("")
        snapshots.reseed()
        try:
            snapshots.run_after_restore()
        except BaseException as error:
            self._init_failed(payload_from_exception(error, None, **self._roots), AFTER_RESTORE_ERROR)
            return None
        self._ready()
        return self._given

