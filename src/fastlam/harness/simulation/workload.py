"""What a simulation is given: functions, how long they run, and when they are called."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fastlam.core.dispatcher import Sampler, Source
from fastlam.limits import TIMEOUT_SECONDS_MAX


class Arrivals(Protocol):
    """When calls arrive."""

    def feed(self, source: Source) -> Source:
        """Tells the source."""


@dataclass(frozen=True, slots=True)
class Poisson:
    """At random, at a rate that may follow a profile and be there in bursts only; see `Source.at_rate`."""

    per_second: float
    profile: Sequence[float] | None = None
    on_seconds: float = 0.0
    off_seconds: float = 0.0

    def feed(self, source: Source) -> Source:
        return source.at_rate(self.per_second, self.profile, on_seconds=self.on_seconds, off_seconds=self.off_seconds)


@dataclass(frozen=True, slots=True)
class Periodic:
    """As a timer does."""

    seconds: float
    offset_seconds: float = 0.0

    def feed(self, source: Source) -> Source:
        return source.at_period(self.seconds, self.offset_seconds)


@dataclass(frozen=True, slots=True)
class PerMinute:
    """So many in each minute, at random within it, as the Azure data set counts them."""

    counts: array[int]

    def feed(self, source: Source) -> Source:
        return source.at_counts(self.counts)


@dataclass(frozen=True, slots=True)
class Function:
    """One function of a workload."""

    name: str
    service: Sampler
    arrivals: Arrivals
    trigger: str = "http"
    memory_mb: float = 128.0
    timeout_seconds: float = TIMEOUT_SECONDS_MAX
    reserved: int | None = None
    start: Sampler | None = None  # None: cold starts take no time


@dataclass(frozen=True, slots=True)
class Limits:
    """Under which the functions run: Lambda's and this machine's, as the daemon is given them."""

    concurrency: int = 1000
    environments_max: int = 1_000_000
    pending_max: int = 1_000_000
    enforce_rates: bool = False
    keep_alive_seconds: float = 600.0  # 0: every call has an environment of its own; inf: for good
    reap_period_seconds: float = 0.25  # of the daemon
    exit_seconds: float = field(default=0.002)  # from the kill of a process to the report of its end
