"""What a forked worker does before its loop: descriptors, environment, lane, imports out of sight, INIT."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import multiprocessing.spawn  # noqa: F401 - preloaded for tasks
import os
import resource
import sys
import time
from types import ModuleType
from typing import Any, Final, NamedTuple

import setproctitle

from fastlam.core.channel import Channel, StateTitle, line_buffer_c_stdio, replace_environment
from fastlam.wire import control
from fastlam.worker import functions, imports, logs, tasks
from fastlam.worker.context import ContextFactory
from fastlam.worker.marshaller import Marshaller


class ImportSystem(NamedTuple):
    """The interpreter's import system as it was before the runtime's modules were hidden."""

    meta_path: list[Any]
    path_hooks: list[Any]
    modules: dict[str, ModuleType]

    def restore(self, path: list[str]) -> None:
        """For workers that run the calling program's own code: its path, and the finders that an editable installation
        has put in place. Modules that the zygote has loaded are the ones that the program itself has loaded to get
        here.
        """
        sys.meta_path[:], sys.path_hooks[:] = self.meta_path, self.path_hooks
        sys.path_importer_cache.clear()
        sys.path[:] = path
        main = sys.modules["__main__"]
        sys.modules.update(self.modules)
        sys.modules["__main__"] = main


_REHEARSALS: Final = 12  # the interpreter specialises code after eight
OPEN_FILES_MAX: Final = 1024  # as in Lambda


def rehearse() -> None:
    """Runs, in the zygote, what every worker will run: the interpreter's caches and counters are then warm, and their
    memory is shared instead of being written anew by each worker (some 200 KB)."""
    environ = {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.13"}
    spec = control.encode(
        control.WorkerSpec(kind="function", title="", environ=environ, directory="/", path=[])
    )
    path = list(sys.path)
    for _ in range(_REHEARSALS):
        control.decode_spec(spec)
        marshaller = Marshaller(environ["AWS_EXECUTION_ENV"])
        marshaller.unmarshal(b'{"rehearsal": 1}')
        marshaller.marshal({"statusCode": 200, "body": "rehearsal"})
        ContextFactory(environ).make("", 0, "")
        logs.set_request("")
        imports.set_path(())
        with contextlib.suppress(ImportError):
            importlib.import_module("no module of this name")
        sys.path[:] = path


def start_worker(caller_imports: ImportSystem, descriptors: list[int]) -> int:
    """Runs a worker to its end; returns the exit status of the process.

    `caller_imports` is what the runtime's modules were hidden from; `descriptors` are those of wire.control.Fork.
    """
    spec_fd, listen_fd, slots_fd, stdout_fd, stderr_fd = descriptors
    started_ns = time.monotonic_ns()
    spec = _read_spec(spec_fd)
    os.dup2(stdout_fd, 1)
    os.dup2(stderr_fd, 2)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    line_buffer_c_stdio()
    is_function = spec.kind == "function"
    if is_function:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft > OPEN_FILES_MAX:
            resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES_MAX, hard))
    # The meter of printed bytes: the memfd's size. The executor's tasks print where the caller does.
    log_fd = stdout_fd if is_function else -1
    os.close(stderr_fd)
    if not is_function:
        os.close(stdout_fd)
    replace_environment(spec.environ)
    if "TZ" in spec.environ:
        time.tzset()
    os.chdir(spec.directory)
    title = Title(spec.title)
    title.show("starting")

    channel = Channel(listen_fd, slots_fd)
    os.close(listen_fd)
    os.close(slots_fd)

    if is_function:
        sys.stdout, sys.stderr = logs.open_streams()
        worker: functions.FunctionWorker | tasks.TaskWorker = functions.FunctionWorker(
            channel, spec, log_fd, title, started_ns
        )
    else:
        # The zygote's own streams date from its start; these descriptors are the caller's.
        sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        worker = tasks.TaskWorker(channel, spec, title, started_ns)
    if is_function and not spec.preparation:
        imports.set_path(spec.path)
    else:
        caller_imports.restore(spec.path)
    status = 0
    try:
        worker.run()
    except SystemExit as leaving:
        status = _exit_status(leaving)
    _run_exit_functions()
    return status


class Title:
    """The process title, so that `ps` shows the state of the house."""

    def __init__(self, name: str) -> None:
        self.prefix = f"fastlam: env {name} ["
        self.set = setproctitle.setproctitle
        self.texts = {state: f"{self.prefix}{state}]" for state in ("starting", "idle", "busy")}

    def show(self, state: str) -> None:
        self.set(self.texts[state])

    def state(self) -> StateTitle:
        """The quick way from now on: between "idle", which must be shown already, and "busy"."""
        return StateTitle(os.fsencode(self.texts["idle"]))


def _read_spec(fd: int) -> control.WorkerSpec:
    spec = control.decode_spec(os.pread(fd, os.fstat(fd).st_size, 0))
    os.close(fd)
    return spec


def _exit_status(leaving: SystemExit) -> int:
    """As the interpreter would end for this SystemExit."""
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code & 0xFF
    print(leaving.code, file=sys.stderr)
    return 1


def _run_exit_functions() -> None:
    """What the end of an interpreter does and os._exit does not: exit functions, then the streams."""
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()


