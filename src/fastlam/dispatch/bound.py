"""Says when this machine's bound on execution environments bites: in a word now and then, not once for each call."""

from __future__ import annotations

from collections.abc import Callable

from fastlam import limits
from fastlam.core.dispatcher import Dispatcher


class BoundNotice:
    """Compares the dispatcher's counts with those of the last notice. `now_seconds` reads a monotonic clock."""

    def __init__(self, dispatcher: Dispatcher, say: Callable[[str], None], now_seconds: Callable[[], float]) -> None:
        self._dispatcher = dispatcher
        self._say = say
        self._now_seconds = now_seconds
        self._told = self._counts()
        self._silent_until = 0.0

    def _counts(self) -> tuple[int, int, int]:
        dispatcher = self._dispatcher
        return dispatcher.held_up, dispatcher.environments_evicted, dispatcher.rejected

    def look(self) -> None:
        """Tells what the bound has done since the last notice, if anything, and if that one was long enough ago."""
        counts = self._counts()
        if counts == self._told or self._now_seconds() < self._silent_until:
            return
        held_up, evicted, rejected = (count - told for count, told in zip(counts, self._told, strict=True))
        parts = [
            f"{held_up:,} invocations waited for one" if held_up else "",
            f"{evicted:,} idle ones made room" if evicted else "",
            f"{rejected:,} invocations found no room to wait" if rejected else "",
        ]
        self._told = counts
        self._silent_until = self._now_seconds() + limits.BOUND_NOTICE_SECONDS
        self._say(
            f"this machine's bound of {self._dispatcher.environments_max:,} execution environments is reached:"
            f" {', '.join(part for part in parts if part)} (--environments-max raises it)"
        )
