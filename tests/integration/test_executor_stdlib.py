"""The standard library's own executor tests, run on fastlam.Executor.

CPython's `test.test_concurrent_futures` is one module in Python 3.11 and a package later. Its test classes are mixins
over an `executor_type`: here that is ours. What is left out is named with its reason; everything else must pass.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import multiprocessing
import multiprocessing.resource_tracker
import sys
import unittest
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fastlam

_PACKAGE = "test.test_concurrent_futures"
_MODULES = ("executor", "util", "test_wait", "test_as_completed", "test_process_pool", "test_init", "test_shutdown")


def _standard_modules() -> list[ModuleType]:
    """The modules that hold the tests; the module is skipped where the interpreter has been installed without them."""
    # Pythons are often built without their tests: the distribution's, of the same minor version, do as well. They are found
    # through sys.path, because workers have that too.
    name = _PACKAGE
    distribution = Path(f"/usr/lib/python{sys.version_info.major}.{sys.version_info.minor}/test")
    if importlib.util.find_spec("test") is None or importlib.util.find_spec(name) is None:
        if distribution.is_dir():
            sys.path.append(str(distribution))
        name = name.rpartition(".")[2]
    try:
        package = importlib.import_module(name)
        if not hasattr(package, "__path__"):
            return [package]
        return [importlib.import_module(f"{name}.{module}") for module in (*_MODULES, "test_deadlock")]
    except ImportError as error:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        pytest.skip(
            f"this Python has no {_PACKAGE} ({error}): install its test suite, on Debian and Ubuntu the package"
            f" libpython{version}-testsuite, on Fedora python{version}-test, or build CPython with its tests",
            allow_module_level=True,
        )


_modules = _standard_modules()


def _found(name: str) -> Any:
    for module in _modules:
        if hasattr(module, name):
            return getattr(module, name)
    raise AssertionError(f"{_PACKAGE} of Python {sys.version} has no {name}")


class AdaptedExecutor(fastlam.Executor):
    """Takes the multiprocessing context that the tests give (there is no choice of start method here), and shows its
    workers the way the tests look at them.
    """

    def __init__(self, max_workers: int | None = None, mp_context: Any = None, **options: Any) -> None:
        super().__init__(max_workers, **options)

    @property
    def _processes(self) -> Mapping[int, Any]:
        return {
            environment.pid: environment
            for environment in self._dispatcher.environments_of(self._target)
            if environment.snapshot()["state"] in ("starting", "idle", "busy")
        }


class OurMixin(_found("ExecutorMixin")):  # type: ignore[misc]
    """Takes the place of ProcessPoolSpawnMixin and its siblings."""

    executor_type = AdaptedExecutor

    def get_context(self) -> Any:
        return multiprocessing.get_context("spawn")


_INTERNALS = "looks into ProcessPoolExecutor's own queues, threads and processes"
_SEMAPHORE = "needs multiprocessing's semaphores, which only its own children may inherit"
_SCRIPT = "a script that imports the class from concurrent.futures by name; test_executor.py runs the like with ours"

_LEFT_OUT: Mapping[str, Mapping[str, str]] = {
    "WaitTests": {},
    "AsCompletedTests": {},
    "InitializerMixin": {},
    "FailingInitializerMixin": {},
    "ExecutorShutdownTest": {
        "test_interpreter_shutdown": _SCRIPT,
        "test_submit_after_interpreter_shutdown": _SCRIPT,
        "test_hang_gh83386": _SCRIPT,
        "test_hang_gh94440": _INTERNALS,
        "test_cancel_futures": "expects that a task was begun at once: here none is before a worker is up",
    },
    "ProcessPoolExecutorTest": {
        "test_max_workers_too_large": "a limit of Windows",
        "test_killed_child": "the whole pool breaks there: here only the task of the dead worker is lost",
        "test_traceback": "names the private class of the cause; test_executor.py tests ours",
        "test_saturation": _SEMAPHORE,
        "test_max_tasks_per_child_defaults_to_spawn_context": "there is no choice of start method",
        "test_python_finalization_error": _INTERNALS,
    },
    "ExecutorDeadlockTest": {
        "test_error_at_task_unpickle": "breaks the pool there: here the task fails with the error itself",
        "test_exit_at_task_unpickle": "as test_error_at_task_unpickle",
        "test_error_during_result_unpickle_in_result_handler": "as test_error_at_task_unpickle",
        "test_exit_during_result_unpickle_in_result_handler": "as test_error_at_task_unpickle",
        "test_shutdown_deadlock_pickle": _INTERNALS,
        "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": _INTERNALS,
        "test_crash_big_data": "expects the whole pool to break; test_executor.py loses a worker with large data",
    },
}


def _left_out(reason: str) -> Any:
    @unittest.skip(reason)
    def test(self: unittest.TestCase) -> None: ...

    return test


def _adapted(name: str, **extra: Any) -> type:
    """The test class of that name with our executor, under a name that pytest collects."""
    standard = _found(name)
    bases: tuple[Any, ...] = (standard, OurMixin, _found("BaseTestCase"))
    if issubclass(standard, _found("ExecutorMixin")):
        extra = {"executor_type": AdaptedExecutor, "get_context": OurMixin.get_context, **extra}
        bases = (standard, _found("BaseTestCase"))
    members = {test: _left_out(reason) for test, reason in _LEFT_OUT[name].items() if hasattr(standard, test)}
    return type(f"Test{name}", bases, {"__module__": __name__, **members, **extra})


def tearDownModule() -> None:
    """Some of the tests use multiprocessing's managers, whose tracker process would stay."""
    multiprocessing.resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


@contextlib.contextmanager
def _to_stderr(self: unittest.TestCase, message: str) -> Iterator[None]:
    """The traceback of a failing initializer is on the worker's stderr, which is ours: no logger is shared."""
    yield


TestWait = _adapted("WaitTests")
TestAsCompleted = _adapted("AsCompletedTests")
TestInitializer = _adapted("InitializerMixin")
TestFailingInitializer = _adapted("FailingInitializerMixin", _assert_logged=_to_stderr)
TestShutdown = _adapted("ExecutorShutdownTest")
TestProcessPool = _adapted("ProcessPoolExecutorTest")
TestDeadlock = _adapted("ExecutorDeadlockTest")
