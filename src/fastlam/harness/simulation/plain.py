"""The simplest workload: equal functions, called at random, and what queueing theory says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from fastlam.core.dispatcher import Sampler
from fastlam.harness.simulation import formulas
from fastlam.harness.simulation.workload import Function, Limits, Poisson

SERVICES: Final = ("exponential", "constant", "lognormal")
LOGNORMAL_DEVIATION: Final = 1.0  # of the logarithm


def service(kind: str, mean_seconds: float) -> Sampler:
    """A service time with that mean."""
    if kind == "lognormal":
        return Sampler(kind, math.log(mean_seconds) - LOGNORMAL_DEVIATION**2 / 2, LOGNORMAL_DEVIATION)
    return Sampler(kind, mean_seconds)


def plain(
    count: int,
    per_second: float,
    kind: str,
    mean_seconds: float,
    *,
    reserved: int | None = None,
    timeout_seconds: float = 900.0,
    start: Sampler | None = None,
) -> list[Function]:
    """`count` functions that share the rate."""
    return [
        Function(
            f"function-{number:05d}",
            service(kind, mean_seconds),
            Poisson(per_second / count),
            reserved=reserved,
            timeout_seconds=timeout_seconds,
            start=start,
        )
        for number in range(count)
    ]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a closed form says of the steady state."""

    model: str
    figure: str  # of `Simulation.figures`, as it is compared
    value: float


def expected(
    count: int, per_second: float, kind: str, mean_seconds: float, limits: Limits, reserved: int | None
) -> list[Expected]:
    """As far as there is a closed form; cold starts and timeouts are not in it."""
    servers = limits.concurrency if reserved is None else reserved
    offered = per_second * mean_seconds
    if reserved is not None:
        offered /= count
    if limits.environments_max < servers:
        if kind != "exponential" or count > 1:
            return []
        model = f"M/M/{limits.environments_max}"
        rate = per_second
        return [
            Expected(model, "delayed / ok", formulas.erlang_c(limits.environments_max, offered)),
            Expected(model, "wait mean", formulas.wait_mean(limits.environments_max, rate, mean_seconds)),
            Expected(model, "wait p99", formulas.wait_quantile(limits.environments_max, rate, mean_seconds, 0.99)),
        ]
    return [Expected(f"Erlang B, {servers} servers", "throttled / arrivals", formulas.erlang_b(servers, offered))]


def found(figures: dict[str, object], figure: str) -> float:
    """The simulated value of an expected one."""
    first, _, second = figure.partition(" / ")
    if second:
        below = figures[second]
        assert isinstance(below, int)
        above = figures[first]
        assert isinstance(above, int)
        return above / below if below else 0.0
    name, _, part = figure.partition(" ")
    times = figures[f"{name}_seconds"]
    assert isinstance(times, dict)
    return float(times[part])
