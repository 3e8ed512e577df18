"""Lists by pages: opaque markers that say after which item the next page begins."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from fastlam import limits
from fastlam.control.settings import Request
from fastlam.errors import invalid_parameter

T = TypeVar("T")

_PREFIX: Final = b"after:"


class Page(NamedTuple, Generic[T]):
    """A part of a list, and where the next part begins."""

    items: list[T]
    next_marker: str | None


def page(
    request: Request,
    items: Iterable[T],
    key: Callable[[T], Any],
    *,
    items_max: int = limits.LIST_PAGE_ITEMS_MAX,
    items_default: int | None = None,
) -> Page[T]:
    """The items, which come sorted by `key` (text, or a number), after the request's Marker, as many as its MaxItems
    and `items_max` allow. A marker stays good when items come and go.
    """
    after = read_marker(request.get("Marker"))
    size = min(request.get("MaxItems") or items_default or items_max, items_max)
    found: list[T] = []
    waiting = after is not None
    for item in items:
        if waiting and not _is_after(key(item), after):
            continue
        if len(found) == size:
            return Page(found, marker(key(found[-1])))
        found.append(item)
    return Page(found, None)


def _is_after(key: Any, after: Any) -> bool:
    if isinstance(key, int):
        try:
            return key > int(after)
        except ValueError:
            raise invalid_parameter("Invalid marker") from None
    return bool(key > after)


def marker(key: Any) -> str:
    return base64.urlsafe_b64encode(_PREFIX + str(key).encode()).decode()


def read_marker(text: str | None) -> str | None:
    """The key after which the page starts; None starts at the first."""
    if not text:
        return None
    try:
        decoded = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        if decoded.startswith(_PREFIX):
            return decoded[len(_PREFIX) :].decode()
    except (binascii.Error, UnicodeError, ValueError):
        pass
    raise invalid_parameter("Invalid marker")
