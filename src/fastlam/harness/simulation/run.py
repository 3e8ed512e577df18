"""One simulated run: the dispatcher with its pools and targets, and a source of calls for each function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from fastlam.core.dispatcher import (
    AccountPool,
    FunctionPool,
    SimulatedDispatcher,
    SimulatedLauncher,
    Source,
    Target,
)
from fastlam.dispatch.faults import Faults
from fastlam.harness.simulation.workload import Function, Limits

ACCOUNT = "000000000000"
REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Row:
    """How it stood at one moment; counts are since the row before."""

    seconds: float
    environments: int
    running: int
    waiting: int
    arrivals: int
    throttled: int
    rejected: int
    cold_starts: int


class Simulation:
    """Owns the dispatcher; a context manager, or call `close`."""

    def __init__(self, functions: Sequence[Function], limits: Limits, seed: int, sample_seconds: float = 0.0) -> None:
        self.functions = functions
        self.limits = limits
        self.dispatcher = SimulatedDispatcher(
            SimulatedLauncher(), Faults(), environments_max=limits.environments_max, pending_max=limits.pending_max
        )
        self.dispatcher.seed(seed)
        self.dispatcher.exits_take(limits.exit_seconds)
        if 0 < limits.keep_alive_seconds < math.inf:
            self.dispatcher.keep_alive(limits.keep_alive_seconds, limits.reap_period_seconds)
        if sample_seconds > 0:
            self.dispatcher.sample_every(sample_seconds)
        self.account = AccountPool(ACCOUNT, REGION, limits.concurrency, limits.enforce_rates)
        self.targets = [self._target(function) for function in functions]

    def _target(self, function: Function) -> Target:
        pool = FunctionPool(self.account, function.name)
        if function.reserved is not None:
            pool.set_reserved(function.reserved)
        target = Target(
            function.name,
            function.start,
            pool,
            max(1, round(function.timeout_seconds * 1000)),
            keepalive_seconds=0.0 if self.limits.keep_alive_seconds == 0 else -1.0,
        )
        self.dispatcher.add(function.arrivals.feed(Source(target, function.service)))
        return target

    def run(self, until_seconds: float) -> None:
        """Everything up to that time of the virtual clock."""
        self.dispatcher.run(until_seconds)

    def rows(self) -> list[Row]:
        """The samples since the beginning."""
        found: list[Row] = []
        before = (0, 0, 0, 0)
        for seconds, environments, running, waiting, *counts in self.dispatcher.samples:
            fresh = [count - old for count, old in zip(counts, before, strict=True)]
            found.append(Row(seconds, environments, running, waiting, fresh[0], fresh[1], fresh[2], fresh[3]))
            before = (counts[0], counts[1], counts[2], counts[3])
        return found

    def figures(self) -> dict[str, Any]:
        """The dispatcher's counts, and percentiles of the times."""
        found = self.dispatcher.figures()
        for name, histogram in (("wait", self.dispatcher.waits), ("response", self.dispatcher.responses)):
            found[f"{name}_seconds"] = {
                "mean": histogram.mean_seconds,
                "p50": histogram.quantile(0.5),
                "p90": histogram.quantile(0.9),
                "p99": histogram.quantile(0.99),
                "p999": histogram.quantile(0.999),
                "max": histogram.longest_ns / 1e9,
            }
        return found

    def close(self) -> None:
        self.dispatcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
