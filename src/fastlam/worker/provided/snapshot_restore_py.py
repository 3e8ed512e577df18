"""What a function registers to be called around its snapshot: before it is taken, and in each environment restored from
it. Names and signatures are those of the module of this name in Lambda's Python runtimes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Hook = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
F = TypeVar("F", bound=Callable[..., Any])

_before_snapshot: list[Hook] = []
_after_restore: list[Hook] = []


def register_before_snapshot(func: F, *args: Any, **kwargs: Any) -> F:
    """Has `func(*args, **kwargs)` called before the snapshot; what was registered last goes first. Also a decorator."""
    _before_snapshot.append((func, args, kwargs))
    return func


def register_after_restore(func: F, *args: Any, **kwargs: Any) -> F:
    """Has it called after each restore, in the order of registration. Also a decorator."""
    _after_restore.append((func, args, kwargs))
    return func


def get_before_snapshot() -> list[Hook]:
    """The runtime's own: it takes them from the end."""
    return _before_snapshot


def get_after_restore() -> list[Hook]:
    """The runtime's own."""
    return _after_restore
