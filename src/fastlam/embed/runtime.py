"""Lambda functions inside a Python program: the daemon's environments and meter without its HTTP."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import msgspec

from fastlam import limits
from fastlam.abc import LaunchSpec
from fastlam.arn import function_arn
from fastlam.billing.duration import billed_ms
from fastlam.clock import SystemClock, VirtualClock, seconds_of
from fastlam.core.dispatcher import AccountPool, FunctionPool, Target
from fastlam.embed import engine
from fastlam.embed.function import Destination, EventOptions, Function, Throttled
from fastlam.embed.inline import InlineFunction
from fastlam.embed.pickling import CallablePickler, preparation
from fastlam.errors import FastlamError
from fastlam.model.function import FunctionRecord
from fastlam.runtimes import python
from fastlam.sandbox.runtime_directory import RuntimeDirectory
from fastlam.store.artifacts import ArtifactStore
from fastlam.telemetry.logs import FunctionLog

if TYPE_CHECKING:
    from fastlam.core.dispatcher import Dispatcher
    from fastlam.embed.events import RuntimeEvents

__all__ = ["Runtime", "Throttled"]

Handler = Callable[[Any, Any], Any]


class _Holdings:
    """What a Runtime has open: nothing until something needs it. Apart from the Runtime, since its finalizer closes
    it.
    """

    def __init__(self, isolation: str) -> None:
        self.pid = os.getpid()
        self._isolation = isolation
        self.targets: list[Target] = []
        self.events: RuntimeEvents | None = None
        self._lock = threading.Lock()
        self._engine: engine.Engine | None = None
        self._scratch: RuntimeDirectory | None = None
        self._artifacts: ArtifactStore | None = None

    @property
    def foreign(self) -> bool:
        """Whether this process is a fork of the one that all of it belongs to."""
        return os.getpid() != self.pid if self._engine is None else self._engine.foreign

    @property
    def engine(self) -> engine.Engine:
        """What runs environments; inline functions do without."""
        with self._lock:
            if self._engine is None:
                self._engine = engine.acquire(self._isolation)
            return self._engine

    @property
    def scratch(self) -> RuntimeDirectory:
        """Where code that comes as a zip is unpacked."""
        with self._lock:
            if self._scratch is None:
                self._scratch = RuntimeDirectory()
                self._artifacts = ArtifactStore(self._scratch.path)
            return self._scratch

    def put_zip(self, data: bytes) -> Path:
        """The directory with the content of the zip."""
        assert self.scratch is not None and self._artifacts is not None
        return self._artifacts.put_zip(data).directory

    def close(self) -> None:
        """Called once, by the finalizer."""
        if self.foreign:
            # Processes and directory are the parent's.
            return
        if self._engine is not None:
            dispatcher = self._engine.dispatcher
            if dispatcher.driving_here:
                # Collected as garbage in the middle of a completion callback, which must not wait.
                threading.Thread(target=self.close, name="fastlam-close").start()
                return
            if self.events is not None:
                self.events.close()
            for target in self.targets:
                _dismiss(dispatcher, target)
            self._engine.release()
        if self._scratch is not None:
            self._scratch.close()


class Runtime:
    """A context manager that owns functions; leaving it ends their environments. One that has no call for `keepalive`
    seconds is ended before, with 0 after each call, so that all of them are cold starts; math.inf keeps them.

    ``FASTLAM_INLINE=1`` in the environment, or ``inline=True``, runs handlers in the calling process instead, so that
    breakpoints work; no other process is started then.

    `isolation` is "full" or "auto": walls around functions that are given by their code, as those of the daemon's
    (docs/howto/isolation.md). "full" raises FastlamError where this machine does not permit one, "auto" does without. A
    callable cannot have any, since it is a part of the program; nor can inline functions.

    Events (`Function.send`) wait by `clock`: the machine's, or a VirtualClock, which `runtime.clock.advance("2m")` lets
    pass. `retry_delay` is the time before a second attempt, and twice that before the third.
    """

    def __init__(
        self,
        *,
        account: str = "000000000000",
        region: str = "us-east-1",
        concurrency: int = limits.ACCOUNT_CONCURRENCY,
        keepalive: float = limits.KEEPALIVE_SECONDS,
        endpoint_url: str | None = None,
        inline: bool | None = None,
        isolation: str | None = None,
        clock: VirtualClock | None = None,
        retry_delay: float | str = limits.EVENT_RETRY_SECONDS,
    ) -> None:
        if not keepalive >= 0:
            raise ValueError(f"keepalive is {keepalive} s; it must be 0 or more")
        if isolation not in (None, "auto", "full"):
            raise ValueError(f"isolation is {isolation!r}; it must be 'auto' or 'full', or None for no walls")
        self.account = account
        self.region = region
        self.isolation = isolation
        self.keepalive_seconds = keepalive
        self.inline = os.environ.get("FASTLAM_INLINE", "") not in ("", "0") if inline is None else inline
        self.clock: VirtualClock | SystemClock = SystemClock() if clock is None else clock
        self._retry_seconds = seconds_of(retry_delay)
        self._events_mutex = threading.Lock()
        self._endpoint_url = endpoint_url
        self._pool = AccountPool(account, region, concurrency)
        self._functions: dict[str, Function | InlineFunction] = {}
        self._holdings = _Holdings(isolation or "")
        self._finalizer = weakref.finalize(self, self._holdings.close)
        if not self.inline:
            _ = self._engine  # processes that take a while to come up are better begun at once

    def function(
        self,
        name: str,
        handler: Handler | str,
        *,
        code: str | os.PathLike[str] | bytes | None = None,
        memory: int = limits.MEMORY_MB_MIN,
        timeout: int = 3,
        environment: Mapping[str, str] | None = None,
        reserved: int | None = None,
        retries: int = limits.EVENT_RETRIES_MAX,
        event_age: float | str = limits.EVENT_AGE_SECONDS_MAX,
        on_success: Destination = None,
        on_failure: Destination = None,
    ) -> Function:
        """Declares a function. `handler` is a callable, or "module.attribute" with `code`: a directory, a zip file or a
        zip's bytes.

        `memory` is in MB, `timeout` in seconds, `reserved` its reserved concurrency. Declaring a name again replaces
        the function.

        For its events: how often they are tried again, for how long, and who gets the record of those that succeed or
        fail for good: a function of this Runtime, a callable, or a destination of AWS by its ARN.
        """
        self._check()
        if not limits.MEMORY_MB_MIN <= memory <= limits.MEMORY_MB_MAX:
            raise ValueError(f"memory is {memory} MB; it must be {limits.MEMORY_MB_MIN} to {limits.MEMORY_MB_MAX}")
        if not 1 <= timeout <= limits.TIMEOUT_SECONDS_MAX:
            raise ValueError(f"timeout is {timeout} s; it must be 1 to {limits.TIMEOUT_SECONDS_MAX}")
        directory = self._directory(handler, code)
        handler_name = handler if isinstance(handler, str) else _name_of(handler)
        record = self._record(name, handler_name, memory, timeout, environment)
        arn = function_arn(self.region, self.account, name)
        if self.inline:
            inline = InlineFunction(record, arn, handler, directory, self._endpoint_url)
            self._functions[name] = inline
            return inline  # type: ignore[return-value]  # the same calls, in this process
        walls = self._engine.isolation
        own_root = walls is not None and walls.own_root
        packaged = isinstance(handler, str)
        if walls is not None and not packaged:
            raise ValueError(
                f"function {name!r} is a callable, which needs the modules of this program, and walls hide them: give"
                " its code=, or declare it with a Runtime without isolation"
            )
        spec, warning = python.launch_spec(
            record, directory, self._endpoint_url, packaged=packaged, own_root=own_root
        )
        if not isinstance(handler, str):
            spec = _with_callable(spec, handler, directory)
        log = FunctionLog(record.version, memory, billed_ms, False)
        if warning is not None:
            log.note(warning)
        pool = FunctionPool(self._pool, name)
        if reserved is not None:
            pool.set_reserved(reserved)
        target = Target(
            f"{name}:{record.version}",
            spec,
            pool,
            timeout * 1000,
            slots_per_environment=limits.INVOCATIONS_PER_ENVIRONMENT,
            log=log,
            keepalive_seconds=self.keepalive_seconds,
        )
        dispatcher = self._engine.dispatcher
        previous = self._functions.get(name)
        if isinstance(previous, Function):
            dispatcher.run_as_driver(lambda: dispatcher.retire(previous.target))
        function = Function(name, arn, dispatcher, target, self._check, self._events)
        function.event_options = EventOptions(retries, int(seconds_of(event_age)), on_success, on_failure)
        self._functions[name] = function
        if self._holdings.events is not None:
            self._holdings.events.declare(function)
        self._holdings.targets.append(target)
        return function

    def _directory(self, handler: Handler | str, code: str | os.PathLike[str] | bytes | None) -> Path:
        if code is None:
            if isinstance(handler, str):
                raise ValueError(f"handler {handler!r} is a name: give code= (a directory, a zip file or its bytes)")
            return Path.cwd()
        if isinstance(code, bytes):
            return self._holdings.put_zip(code)
        path = Path(code).absolute()
        if path.is_dir():
            return path
        if path.is_file():
            return self._holdings.put_zip(path.read_bytes())
        raise FileNotFoundError(f"code={os.fspath(code)!r} is neither a directory nor a zip file")

    def _record(
        self, name: str, handler: str, memory: int, timeout: int, environment: Mapping[str, str] | None
    ) -> FunctionRecord:
        return FunctionRecord(
            account=self.account,
            region=self.region,
            name=name,
            runtime=python.INTERPRETER,
            handler=handler,
            role=f"arn:aws:iam::{self.account}:role/fastlam",
            timeout_seconds=timeout,
            memory_mb=memory,
            environment=dict(environment or {}),
            code_sha256="",
            code_bytes=0,
            revision_id=str(uuid4()),
            last_modified="",
        )

    @property
    def _engine(self) -> engine.Engine:
        return self._holdings.engine

    def _events(self) -> RuntimeEvents:
        """What runs events: imported and made for the first one."""
        holdings = self._holdings
        with self._events_mutex:
            if holdings.events is None:
                from fastlam.embed.events import RuntimeEvents

                events = RuntimeEvents(self._engine.dispatcher, self.account, self.clock, self._retry_seconds)
                for function in list(self._functions.values()):
                    if isinstance(function, Function):
                        events.declare(function)
                holdings.events = events
            return holdings.events

    @property
    def _scratch(self) -> RuntimeDirectory:
        return self._holdings.scratch

    def _check(self) -> None:
        if not self._finalizer.alive:
            raise FastlamError("this Runtime has been closed")
        if self._holdings.foreign:
            raise FastlamError(
                f"this Runtime belongs to process {self._holdings.pid}, of which this one is a fork: make a Runtime"
                " here"
            )

    def close(self) -> None:
        """Ends all environments. Idempotent."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _with_callable(spec: LaunchSpec, handler: Handler, directory: Path) -> LaunchSpec:
    """A spec whose environments unpickle their handler, with the caller's modules in reach."""
    prepared, has_main = preparation()
    pickler = CallablePickler(has_main)
    worker = msgspec.structs.replace(
        spec.worker,
        callable_payload=pickler(handler),
        preparation=prepared,
        path=[os.path.abspath(entry) if entry else os.getcwd() for entry in sys.path],
    )
    return LaunchSpec(worker, zygote_kind="embedded")


def _name_of(handler: Handler) -> str:
    return f"{getattr(handler, '__module__', '?')}.{getattr(handler, '__qualname__', type(handler).__name__)}"


def _dismiss(dispatcher: Dispatcher, target: Target) -> None:
    """Ends the target's environments and returns when they are gone."""
    # What waits is given up first: it would have new environments started in the place of those that are killed.
    dispatcher.run_as_driver(lambda: dispatcher.take_waiting(target))
    dispatcher.run_as_driver(lambda: dispatcher.dismiss(target, True))
    dispatcher.drive_until(lambda: not dispatcher.environments_of(target), 10.0)
