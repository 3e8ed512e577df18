"""How callables and arguments become bytes: pickle where the worker can import what they name, cloudpickle where it
cannot.

A program whose `__main__` is a file or a module is prepared in the worker as multiprocessing's spawn does it, so that
its functions go by reference. In a REPL or a notebook there is nothing to import: what lives in `__main__` goes by
value.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from multiprocessing import spawn
from types import BuiltinFunctionType, FunctionType
from typing import Any

_NOT_SENT = ("start_method", "log_to_stderr", "log_level")


def preparation() -> tuple[bytes, bool]:
    """(pickle of spawn's preparation data, whether the worker will have our `__main__`).

    Raises RuntimeError, in the standard library's words, where a worker's own import of `__main__` got here (a script
    without the `if __name__ == "__main__"` guard).
    """
    data = spawn.get_preparation_data("fastlam worker")
    for name in _NOT_SENT:
        data.pop(name, None)
    # As plain bytes: the key's own class refuses to be pickled for anybody but multiprocessing's children. With it,
    # tasks reach the queues and proxies of the caller's managers.
    data["authkey"] = bytes(data["authkey"])
    # What spawn would not find or not import: a program on stdin, and the __main__.py of a package.
    if not os.path.exists(data.get("init_main_from_path", "")):
        data.pop("init_main_from_path", None)
    if data.get("init_main_from_name", "").endswith(".__main__"):
        del data["init_main_from_name"]
    has_main = "init_main_from_name" in data or "init_main_from_path" in data
    return pickle.dumps(data), has_main


class CallablePickler:
    """Pickles of callables; those of plain functions, which go by reference, are remembered."""

    def __init__(self, has_main: bool) -> None:
        self._has_main = has_main
        self._last: tuple[Any, bytes] = (None, b"")

    def __call__(self, function: Callable[..., Any]) -> bytes:
        last, pickled = self._last
        if last is function:
            return pickled
        kind = type(function)
        if kind is FunctionType or kind is BuiltinFunctionType:
            pickled = self._by_reference(function)
            if pickled:
                self._last = (function, pickled)
                return pickled
        return self.dumps(function)

    def remembers(self, function: Callable[..., Any]) -> bool:
        """Whether the function goes by reference: its pickle stays the same, and keeping it does no harm."""
        return self._last[0] is function

    def _by_reference(self, function: Any) -> bytes:
        """The pickle of an importable function; empty for lambdas, closures and what a worker could not import."""
        module = getattr(function, "__module__", None)
        name = getattr(function, "__qualname__", "")
        if module is None or "<" in name or (module == "__main__" and not self._has_main):
            return b""
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        return pickle.dumps(function) if found is function else b""

    def dumps(self, value: Any, **options: Any) -> bytes:
        """The pickle of anything; cloudpickle's where pickle would refuse, or refer to a `__main__` that workers have
        not.
        """
        if self._has_main:
            try:
                return pickle.dumps(value, **options)
            except (pickle.PicklingError, AttributeError, TypeError):
                pass
            except RecursionError as error:
                raise pickle.PicklingError(f"too deeply nested to be pickled: {error}") from error
            if "buffer_callback" in options:
                options["buffer_callback"].__self__.clear()  # a list's append: what the first attempt has put aside
        import cloudpickle

        pickled: bytes = cloudpickle.dumps(value, **options)
        return pickled
