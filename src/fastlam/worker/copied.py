"""The template of a function version whose environments are copies of it, made by criu, threads and all.

It is no fork of a zygote, whose files lie where nobody sees them from within the walls, but an interpreter of its own,
executed behind them. When its INIT is over it asks its keeper to be copied, and waits. What it is told then makes the
difference: the process that asked stays the template, and does nothing more; a copy is told whose environment it is.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from fastlam.core.channel import line_buffer_c_stdio
from fastlam.wire import control
from fastlam.wire.descriptors import receive
from fastlam.worker import imports, start
from fastlam.worker.functions import NoTemplate
from fastlam.worker.template import Template

_PROGRAM: Final = (
    "import sys\n"
    "numbers, *path = sys.argv[1:]\n"
    "sys.path[:0] = path[:1]\n"
    "sys.path += [entry for entry in path[1:] if entry not in sys.path]\n"
    "from fastlam.worker.copied import main\n"
    "main([int(number) for number in numbers.split(',')])\n"
)


def execute(descriptors: list[int], keeper: socket.socket, path: Sequence[str]) -> NoReturn:
    """In a child of the keeper: behind the walls of the template, and there another interpreter, with this path for the
    runtime's own modules. `descriptors` are those of wire.control.Fork.
    """
    spec_fd = os.dup(descriptors[0])
    spec, lane = start.settle(descriptors)
    given = [keeper.fileno(), spec_fd, *lane]
    for descriptor in given:
        os.set_inheritable(descriptor, True)
    numbers = ",".join(str(descriptor) for descriptor in given)
    os.execve(start.INTERPRETER, [start.INTERPRETER, "-I", "-c", _PROGRAM, numbers, *path], spec.environ)


def main(descriptors: list[int]) -> NoReturn:
    """In that interpreter."""
    started_ns = time.monotonic_ns()
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    keeper_fd, spec_fd, *lane = descriptors
    spec = start.read_spec(spec_fd)
    line_buffer_c_stdio()
    imports.hide_runtime_modules()
    start.make_template = Copied
    os._exit(start.run(spec, lane, started_ns, socket.socket(fileno=keeper_fd)))


class Copied(Template):
    """Template and copies, up to where these become environments."""

    def before_ready(self, handler: Callable[[Any, Any], Any]) -> None:
        self.run_hooks()
        gc.collect()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sockets = [os.fstat(end.fileno()).st_ino for end in (self.keeper, self.channel)]
        self.keeper.send(control.encode(control.TakeSnapshot(sockets)))
        packet, descriptors = receive(self.keeper, control.PACKET_BYTES_MAX, control.RESTORE_DESCRIPTORS_MAX)
        if not packet:
            raise SystemExit(0)  # the keeper is gone
        told = control.decode_from_keeper(packet)
        if isinstance(told, control.Restore):
            report_fd, *descriptors = descriptors
            self._restored(handler, report_fd, [], descriptors, False, told.began_ns)
            raise SystemExit(0)
        if told.reason:
            raise NoTemplate(control.NOT_COPIED, f"no copy can be made of what INIT has left: {told.reason}")

    def _serve(self, handler: Callable[[Any, Any], Any]) -> None:
        self.title.show("template")
        while self.keeper.recv(control.PACKET_BYTES_MAX):
            pass
