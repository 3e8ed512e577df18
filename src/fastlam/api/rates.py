"""How many requests a second the control plane takes of an account, where rates are limited (`--rates lambda`).

Lambda's: GetFunction 100, GetPolicy 15, all other operations together 15, for each account and region
(https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html, API requests). What is unused does not
accumulate beyond one second's worth.
"""

from __future__ import annotations

from typing import Final

from fastlam.clock import Clock
from fastlam.control.authorize import Caller
from fastlam.errors import throttled

OTHERS: Final = "all other operations"
_BUCKETS_MAX: Final = 10_000  # beyond so many, those that are full again are forgotten
PER_SECOND: Final = {"GetFunction": 100, "GetPolicy": 15, OTHERS: 15}


class RequestRates:
    """A token bucket for each account, region and kind of operation."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left: dict[tuple[str, str, str], tuple[float, int]] = {}  # requests that are left, and when they were

    def take(self, caller: Caller, operation: str) -> None:
        """Raises ApiError (429 TooManyRequestsException, CallerRateLimitExceeded)."""
        kind = operation if operation in PER_SECOND else OTHERS
        most, now_ms = PER_SECOND[kind], self._clock.elapsed_ms()
        key = caller.account, caller.region, kind
        if len(self._left) >= _BUCKETS_MAX:
            self._left = {one: known for one, known in self._left.items() if now_ms - known[1] < 1000}
        left, then_ms = self._left.get(key, (float(most), now_ms))
        left = min(most, left + (now_ms - then_ms) * most / 1000)
        if left < 1:
            self._left[key] = left, now_ms
            raise throttled("CallerRateLimitExceeded", "Rate exceeded")
        self._left[key] = left - 1, now_ms
