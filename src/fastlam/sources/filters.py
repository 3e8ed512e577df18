"""The filters of one mapping: which of the records of its source its function gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastlam.control.filter_matching import Matcher, compile_pattern
from fastlam.control.filter_patterns import InvalidPattern, parse


class Filters:
    """Patterns of which one must match; none at all lets everything pass. Raises InvalidPattern."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        given = (settings.get("FilterCriteria") or {}).get("Filters") or ()
        self._matchers: list[Matcher] = []
        for number, each in enumerate(given, 1):
            try:
                self._matchers.append(compile_pattern(parse(each.get("Pattern") or "")))
            except InvalidPattern as error:
                raise InvalidPattern(f"filter {number}: {error}") from None

    def __bool__(self) -> bool:
        """Whether there is anything to ask: without filters nobody needs to prepare a view of a record."""
        return bool(self._matchers)

    def passes(self, view: Mapping[str, Any]) -> bool:
        """`view` is the record with what is in its data (`Payload`)."""
        return any(matches(view) for matches in self._matchers)
