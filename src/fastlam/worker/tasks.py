"""The loop of an executor's worker: receive, unpickle, call, pickle."""

from __future__ import annotations

import pickle
import sys
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastlam.core.channel import Channel, now_ns, peak_memory_kib
from fastlam.wire import tasks
from fastlam.wire.control import WorkerSpec
from fastlam.wire.frames import PROTOCOL_VERSION, InitFailed, Ready, Stop, Task, Tasks
from fastlam.worker.preparation import prepare

if TYPE_CHECKING:
    from fastlam.worker.start import Title

FUNCTIONS_CACHED_MAX = 256


class TaskWorker:
    """One worker of one executor."""

    def __init__(self, channel: Channel, spec: WorkerSpec, title: Title, started_ns: int) -> None:
        self.channel = channel
        self.spec = spec
        self.title = title
        self.started_ns = started_ns
        self.functions: dict[bytes, Callable[..., Any]] = {}

    def serve(self) -> None:
        """Preparation and initializer, then tasks until told to stop."""
        try:
            prepare(self.spec.preparation)
            if self.spec.initializer:
                function, arguments = pickle.loads(self.spec.initializer)
                function(*arguments)
        except Exception as error:
            self._init_failed(error)
            return
        self.title.show("idle")
        self.channel.send(Ready(PROTOCOL_VERSION, time.monotonic_ns() - self.started_ns, peak_memory_kib(), 0), b"")
        self._serve()

    def _init_failed(self, error: Exception) -> None:
        traceback.print_exc()
        frame = InitFailed(
            PROTOCOL_VERSION, time.monotonic_ns() - self.started_ns, peak_memory_kib(), 0, type(error).__name__
        )
        self.channel.send(frame, "".join(traceback.format_exception(error)).encode(errors="replace"))
        while type(self.channel.receive()[0]) is not Stop:
            pass

    def _serve(self) -> None:
        if self.channel.has_rings:
            # Of the frames only Stop is left.
            self.channel.serve_tasks(self._function, self._call, _exception_payload, _result_payload)
            return
        receive, run = self.channel.receive, self._run
        while True:
            frame, payload = receive()
            kind = type(frame)
            if kind is Task:
                run(frame.slot, payload)
            elif kind is Tasks:
                start = 0
                for slot, size in zip(frame.slots, frame.payload_bytes, strict=True):
                    run(slot, payload[start : start + size])
                    start += size
            else:
                return
            frame = payload = None  # type: ignore[assignment]

    def _run(self, slot: int, payload: bytes) -> None:
        """One task, unless the dispatcher has taken it back."""
        if not self.channel.claim(slot):
            return
        before_ns = now_ns()
        failed = False
        try:
            reply = self._call(payload)
        except BaseException as error:
            # SystemExit too goes to the caller, as with the standard library's pools: only this task asked for it.
            failed = True
            reply = _exception_payload(error)
        self.channel.reply_task(slot, now_ns() - before_ns, failed, reply)

    def _call(self, payload: bytes) -> bytes | list[Any]:
        function_pickle, arguments, keywords = tasks.unpack_call(payload)
        function = self.functions.get(function_pickle)
        if function is None:
            function = self._load(function_pickle)
        if keywords is None:
            # Positional arguments of several calls in one task (map with a chunksize).
            return tasks.pack([function(*each) for each in arguments], dumps=_dumps)
        return tasks.pack_result(function(*arguments, **keywords), _dumps)

    def _function(self, function_pickle: bytes) -> tuple[Callable[..., Any], bool]:
        """The function, and whether the next task with this pickle may have the same object."""
        function = self.functions.get(function_pickle)
        if function is None:
            function = self._load(function_pickle)
        return function, function_pickle in self.functions

    def _load(self, function_pickle: bytes) -> Callable[..., Any]:
        function: Callable[..., Any] = pickle.loads(function_pickle)
        if _is_importable(function):
            if len(self.functions) >= FUNCTIONS_CACHED_MAX:
                self.functions.clear()
            self.functions[function_pickle] = function
        return function


def _result_payload(value: Any) -> bytes | list[Any]:
    return tasks.pack_result(value, _dumps)


def _dumps(value: Any, **options: Any) -> bytes:
    """The pickle of a result; cloudpickle's for instances of classes that came by value, from a REPL or a notebook."""
    try:
        return pickle.dumps(value, **options)
    except (pickle.PicklingError, AttributeError):
        options["buffer_callback"].__self__.clear()  # a list's append: what the first attempt has put aside
        import cloudpickle

        pickled: bytes = cloudpickle.dumps(value, **options)
        return pickled


def _is_importable(function: Callable[..., Any]) -> bool:
    """Whether every unpickling gives this same object. Others (bound methods, closures, partials) carry a state of
    their own, which each task gets afresh.
    """
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for part in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found is function


def _exception_payload(error: BaseException) -> bytes | list[Any]:
    """The exception and its traceback's text; one that cannot be pickled, or not be rebuilt, is replaced by its
    description.
    """
    error_traceback = error.__traceback__
    # The first frames are this module's own.
    own = "fastlam/worker/tasks.py"
    while error_traceback is not None and error_traceback.tb_frame.f_code.co_filename.endswith(own):
        error_traceback = error_traceback.tb_next
    text = "".join(traceback.format_exception(type(error), error, error_traceback))
    error.__traceback__ = None
    try:
        payload = tasks.pack((error, text), dumps=_dumps)
        tasks.unpack(payload if isinstance(payload, bytes) else b"".join(payload))
        return payload
    except Exception as failure:
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        substitute = RuntimeError(f"{name} was raised and cannot be sent back ({_words(failure)}): {_words(error)}")
        return tasks.pack((substitute, text))


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:
        return f"its own text failed with {type(failure).__name__}"
