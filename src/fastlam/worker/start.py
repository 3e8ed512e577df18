"""What a forked worker does before its loop: descriptors, environment, lane, imports out of sight, INIT."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import multiprocessing.spawn  # noqa: F401 - preloaded for tasks
import os
import pickle
import resource
import runpy
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import setproctitle

from fastlam import limits
from fastlam.core.channel import Channel, StateTitle, line_buffer_c_stdio, replace_environment
from fastlam.wire import control
from fastlam.wire import tasks as wire_tasks
from fastlam.worker import functions, imports, logs, tasks
from fastlam.worker.context import ContextFactory
from fastlam.worker.marshaller import Marshaller

# Set in zygotes whose workers have walls: a worker cannot import what is hidden from it by then.
raise_walls: Callable[[control.Walls, int, tuple[int, int], bool], None] | None = None
# Likewise, where workers may be templates: worker.template.Template, and worker.walls.enter_namespaces.
make_template: Callable[..., functions.FunctionWorker] | None = None
enter_namespaces: Callable[[Iterable[int], control.Walls], None] | None = None

_REHEARSALS: Final = 12  # the interpreter specialises code after eight
INTERPRETER: Final = f"/var/lang/bin/python{sys.version_info.major}.{sys.version_info.minor}"  # where it has a root


def rehearse_function() -> None:
    """Runs, in the zygote, what every worker of a function will run: the interpreter's caches and counters are then
    warm, and their memory is shared instead of being written anew by each worker (some 200 KB). The last thing that a
    zygote does: whatever comes between takes places in the cache of attributes again.
    """
    environ = {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.13"}
    spec = control.encode(control.WorkerSpec(kind="function", title="", environ=environ, directory="/", path=[]))
    path = list(sys.path)
    for _ in range(_REHEARSALS):
        control.decode_spec(spec)
        marshaller = Marshaller(environ["AWS_EXECUTION_ENV"])
        marshaller.unmarshal(b'{"rehearsal": 1}')
        marshaller.marshal({"statusCode": 200, "body": "rehearsal"})
        ContextFactory(environ).make("", 0, "")
        logs.set_request("")
        logs.rehearse()
        imports.set_path(())
        with contextlib.suppress(ImportError):
            importlib.import_module("no module of this name")
        sys.path[:] = path


def rehearse_tasks() -> None:
    """As `rehearse_function`, for workers that import a program's main module and run tasks (more than 1 MB each)."""
    import cloudpickle

    program = os.memfd_create("fastlam-rehearsal")
    os.write(program, b"import os\ndef task(argument):\n    return argument\n")
    spec = control.WorkerSpec(kind="tasks", title="", environ={}, directory="/", path=[])
    worker = tasks.TaskWorker(None, spec, None, 0)  # type: ignore[arg-type]
    arguments: tuple[tuple[Any, ...], ...] = ((1,), ([],))  # marshalled, pickled
    functions = (pickle.dumps(id), cloudpickle.dumps(lambda argument: argument))
    calls = [wire_tasks.pack_call(each, {}, function, pickle.dumps) for function in functions for each in arguments]
    try:
        for _ in range(_REHEARSALS):
            control.decode_spec(control.encode(spec))
            runpy.run_path(f"/proc/self/fd/{program}", run_name="__mp_main__")
            for call in calls:
                worker._call(call)  # type: ignore[arg-type]
    finally:
        os.close(program)


def start_worker(descriptors: list[int], keeper: socket.socket | None = None, *, ahead: bool = False) -> int:
    """Runs a worker to its end; returns its exit status. `descriptors` are those of wire.control.Fork. A template has a
    `keeper`. `ahead`: it has entered namespaces that were made for it before its order (worker.walls.enter_ahead).
    """
    started_ns = time.monotonic_ns()
    spec, lane = settle(descriptors, ahead=ahead)
    replace_environment(spec.environ)
    if "TZ" in spec.environ:
        time.tzset()
    return run(spec, lane, started_ns, keeper)


def settle(descriptors: list[int], *, ahead: bool = False) -> tuple[control.WorkerSpec, list[int]]:
    """What belongs to the process, and not to the interpreter in it: walls, limits, standard streams, directory.
    Returns what is left of the descriptors: listening socket, slot table, stdout where that is a memfd of its own or
    else -1, and those of an express lane.
    """
    spec_fd, listen_fd, slots_fd, stdout_fd, stderr_fd, *express = descriptors
    spec = read_spec(spec_fd)
    os.dup2(stdout_fd, 1)
    os.dup2(stderr_fd, 2)
    line_buffer_c_stdio()
    is_function = spec.kind == "function"
    if spec.walls is not None:
        assert raise_walls is not None, "workers of this zygote have no walls"
        network_fd = express.pop() if spec.walls.own_network else -1
        raise_walls(spec.walls, network_fd, pop_tmp(spec.walls, express), ahead)
    elif is_function:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft > limits.OPEN_FILES_MAX:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limits.OPEN_FILES_MAX, hard))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # The meter of printed bytes: the memfd's size. The executor's tasks print where the caller does.
    log_fd = stdout_fd if is_function else -1
    os.close(stderr_fd)
    if not is_function:
        os.close(stdout_fd)
    os.chdir(spec.directory)
    return spec, [listen_fd, slots_fd, log_fd, *express]


def run(spec: control.WorkerSpec, lane: list[int], started_ns: int, keeper: socket.socket | None) -> int:
    """The worker, from its lane to its end; returns its exit status. `lane` is what `settle` returns."""
    listen_fd, slots_fd, log_fd, *express = lane
    is_function = spec.kind == "function"
    if spec.walls is not None and spec.walls.root:
        sys.executable = INTERPRETER
    title = Title(spec.title)
    title.show("starting")

    channel = Channel(listen_fd, slots_fd, *express)
    os.close(listen_fd)
    os.close(slots_fd)
    if express:
        os.close(express[0])

    if is_function:
        sys.stdout, sys.stderr = logs.open_streams()
        worker: functions.FunctionWorker | tasks.TaskWorker
        if keeper is not None:
            assert make_template is not None, "this zygote has no templates"
            worker = make_template(
                channel, spec, log_fd, title, started_ns,
                keeper=keeper, own=express[1:], make_title=Title, enter=enter_namespaces,
            )  # fmt: skip
        else:
            worker = functions.FunctionWorker(channel, spec, log_fd, title, started_ns)
    else:
        # The zygote's own streams date from its start; these descriptors are the caller's.
        sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        worker = tasks.TaskWorker(channel, spec, title, started_ns)
    del channel  # a restored environment lets go of its template's
    if is_function and not spec.preparation:
        imports.set_path(spec.path)
    else:
        # The calling program's own code: nothing is hidden from it. What did not exist for the zygote may by now.
        sys.path[:] = spec.path
        for entry in [entry for entry, finder in sys.path_importer_cache.items() if finder is None]:
            del sys.path_importer_cache[entry]
    if spec.tmp:
        imports.set_temporary_directory(spec.tmp)
    status = 0
    try:
        worker.serve()
    except SystemExit as leaving:
        status = _exit_status(leaving)
    _run_exit_functions()
    return status


def pop_tmp(walls: control.Walls, descriptors: list[int]) -> tuple[int, int]:
    """What an order brings for /tmp (worker.walls.Tmp), taken from the end of its descriptors."""
    mount = descriptors.pop() if walls.given_tmp else -1
    return mount, descriptors.pop() if walls.keeps_tmp else -1


class Title:
    """The process title, so that `ps` shows the state of the house."""

    def __init__(self, name: str) -> None:
        self.prefix = f"fastlam: env {name} ["
        self.set = setproctitle.setproctitle
        self.texts = {state: f"{self.prefix}{state}]" for state in ("starting", "idle", "busy", "template")}

    def show(self, state: str) -> None:
        self.set(self.texts[state])

    def state(self) -> StateTitle:
        """The quick way from now on: between "idle", which must be shown already, and "busy"."""
        return StateTitle(os.fsencode(self.texts["idle"]))


def read_spec(fd: int) -> control.WorkerSpec:
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
