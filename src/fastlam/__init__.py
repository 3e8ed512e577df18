"""fastlam runs AWS Lambda functions on your own machine, without Docker, at the speed of the machine.

::

    from fastlam import Executor, Runtime

    with Executor() as executor:                       # a concurrent.futures.Executor
        print(executor.submit(pow, 2, 10).result())

    with Runtime() as runtime:                         # Lambda functions in this program
        hello = runtime.function("hello", handler=lambda event, context: {"hello": event["name"]})
        print(hello.invoke({"name": "world"}).payload)
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from fastlam.version import VERSION as __version__

if not sys.platform.startswith("linux"):
    raise ImportError(
        f"fastlam runs on Linux only and this is {sys.platform!r}: use WSL2, a Linux VM or a container"
        " (docs/howto/install.md)."
    )

if TYPE_CHECKING:
    from fastlam.clock import VirtualClock
    from fastlam.embed.executor import Executor, WorkerDied
    from fastlam.embed.function import Function, InvokeResult, Throttled
    from fastlam.embed.runtime import Runtime

__all__ = ["Executor", "Function", "InvokeResult", "Runtime", "Throttled", "VirtualClock", "WorkerDied", "__version__"]

# Handed out when asked for: a worker imports this package too, and needs none of them.
_PLACES = {
    "Executor": "fastlam.embed.executor",
    "WorkerDied": "fastlam.embed.executor",
    "Function": "fastlam.embed.function",
    "InvokeResult": "fastlam.embed.function",
    "Runtime": "fastlam.embed.runtime",
    "Throttled": "fastlam.embed.function",
    "VirtualClock": "fastlam.clock",
}


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'fastlam' has no attribute {name!r}")
    from importlib import import_module

    try:
        value = getattr(import_module(place), name)
    except ModuleNotFoundError as error:
        from fastlam.errors import native_module_missing

        reason = native_module_missing(error)
        if reason is not None:
            raise ImportError(reason) from error
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
