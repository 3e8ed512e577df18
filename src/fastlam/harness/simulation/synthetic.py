"""A workload like Azure's where no trace is at hand. What it follows, and how closely, is in docs/howto/simulation.md.

The figures are of Shahrad et al., "Serverless in the Wild", USENIX ATC 2020, unless a comment says that they are ours.
"""

from __future__ import annotations

import itertools
import math
import random
from array import array
from statistics import NormalDist
from typing import Final, NamedTuple

from fastlam.core.dispatcher import Sampler
from fastlam.errors import FastlamError
from fastlam.harness.simulation.workload import Arrivals, Function, Periodic, Poisson

DAY_SECONDS: Final = 86_400
MINUTES: Final = 1440

# The fit to functions' mean execution times: the logarithm of the seconds.
DURATION_LOG_MEAN: Final = -0.38
DURATION_LOG_DEVIATION: Final = 2.36
DURATION_SECONDS_MIN: Final = 0.001
DURATION_SECONDS_MAX: Final = 600.0  # ours: what a function of the consumption plan may run
WITHIN_FUNCTION_DEVIATION: Final = 0.5  # ours: of the logarithm, from call to call

# The fit to applications' memory in MB: a Burr distribution.
MEMORY_C: Final = 11.652
MEMORY_K: Final = 0.221
MEMORY_SCALE_MB: Final = 107.083

# Invocations a day below which a share of applications lies: 45 % are called at most once an hour, 81 % once a minute.
# The least is one in two weeks, the length of the study; the greatest comes from the number of calls asked for.
POPULARITY: Final = ((0.0, 1 / 14), (0.45, 24.0), (0.81, 1440.0))
INVOCATIONS_A_DAY: Final = 31_500  # ours, per function: then the most popular 18.6 % have 99.6 % of all calls


class Trigger(NamedTuple):
    """Shares, in per cent, of the functions and of the invocations."""

    functions: float
    invocations: float


TRIGGERS: Final = {
    "http": Trigger(55, 36),
    "queue": Trigger(15, 34),
    "event": Trigger(2, 25),
    "timer": Trigger(16, 2),
    "orchestration": Trigger(7, 2),
    "others": Trigger(5, 1),
}
TIMER_PERIODS: Final = (1, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)  # ours
BURSTY_SHARE: Final = 0.4  # ours: of the functions without timers
BURST_SECONDS: Final = 60.0  # ours
PAUSE_SECONDS: Final = 240.0  # ours
STEPS: Final = 200


def burr_mb(level: float) -> float:
    """The memory that this share of the applications does not exceed."""
    bounded: float = ((1.0 - level) ** (-1.0 / MEMORY_K) - 1.0) ** (1.0 / MEMORY_C)
    return MEMORY_SCALE_MB * bounded


MEMORY_MEDIAN_MB: Final = burr_mb(0.5)


def daily_profile() -> array[float]:
    """Factors of the rate, one a minute: half of the peak never goes away, and the peak is in the early afternoon."""
    return array("d", (1.0 + math.cos(2 * math.pi * (minute - 840) / MINUTES) / 3.0 for minute in range(MINUTES)))


def popularity(level: float, greatest: float) -> float:
    """Invocations a day of the function at that level, straight between the points on a logarithmic scale."""
    points = [*POPULARITY, (1.0, greatest)]
    for (low, first), (high, second) in itertools.pairwise(points):
        if level <= high:
            share = (level - low) / (high - low)
            return math.exp(math.log(first) + share * (math.log(second) - math.log(first)))
    return greatest


def greatest_popularity(mean: float) -> float:
    """The popularity of the most popular for which the functions' mean is this; at least that of the last point."""
    low, high = math.log(POPULARITY[-1][1]), math.log(1e12)
    for _ in range(STEPS):
        middle = (low + high) / 2
        if _mean_popularity(math.exp(middle)) < mean:
            low = middle
        else:
            high = middle
    return math.exp(high)


def _mean_popularity(greatest: float) -> float:
    points = [*POPULARITY, (1.0, greatest)]
    total = 0.0
    for (low, first), (high, second) in itertools.pairwise(points):
        ratio = math.log(second / first)
        total += (high - low) * ((second - first) / ratio if ratio > 1e-9 else first)
    return total


def share_triggers(rates: list[float]) -> list[str]:
    """A trigger for each of the rates, which fall: next is what needs the most calls for each function it lacks."""
    total = sum(rates)
    functions = {name: share.functions / 100 * len(rates) for name, share in TRIGGERS.items()}
    calls = {name: share.invocations / 100 * total for name, share in TRIGGERS.items()}
    found = []
    for rate in rates:
        name = max(
            (one for one in TRIGGERS if functions[one] > 0.0),
            key=lambda one: calls[one] / max(functions[one], 1.0),
            default="http",
        )
        functions[name] -= 1.0
        calls[name] -= rate
        found.append(name)
    return found


def azure_like(
    count: int, seed: int, invocations_a_day: float | None = None, start: Sampler | None = None
) -> list[Function]:
    """So many functions; by default with as many calls as the published shares ask for. FastlamError: fewer calls than
    the less popular functions alone have.
    """
    rng = random.Random(seed)
    mean = INVOCATIONS_A_DAY if invocations_a_day is None else invocations_a_day / count
    least = _mean_popularity(POPULARITY[-1][1])
    if mean < least:
        raise FastlamError(
            f"{count:,} functions of which 81 % are called at most once a minute have {math.ceil(least * count):,}"
            " calls a day or more: ask for as many, or for fewer functions."
        )
    greatest = greatest_popularity(mean)
    # One from each of `count` equal parts of a distribution: what is rare is there as often as it should be.
    levels = [(index + rng.random()) / count for index in range(count)]
    rates = sorted((popularity(level, greatest) for level in levels), reverse=True)
    # Chance shows most in the few that are called most: they make the sum what it should be.
    busy = sum(rate for rate in rates if rate > POPULARITY[-1][1])
    rest = sum(rates) - busy
    if busy and mean * count > rest:
        rates = [rate * (mean * count - rest) / busy if rate > POPULARITY[-1][1] else rate for rate in rates]
    durations = [(index + rng.random()) / count for index in range(count)]
    memory = [(index + rng.random()) / count for index in range(count)]
    rng.shuffle(durations)
    rng.shuffle(memory)
    profile = daily_profile()
    functions = []
    for index, (rate, trigger) in enumerate(zip(rates, share_triggers(rates), strict=True)):
        functions.append(
            Function(
                f"{trigger}-{index:05d}",
                _service(durations[index]),
                _arrivals(rng, rate, trigger, profile),
                trigger=trigger,
                memory_mb=burr_mb(memory[index]),
                start=start,
            )
        )
    return functions


def _service(level: float) -> Sampler:
    mean = math.exp(DURATION_LOG_MEAN + DURATION_LOG_DEVIATION * normal_quantile(level))
    mean = min(max(mean, DURATION_SECONDS_MIN), DURATION_SECONDS_MAX)
    deviation = WITHIN_FUNCTION_DEVIATION
    return Sampler("lognormal", math.log(mean) - deviation * deviation / 2, deviation)


def normal_quantile(level: float) -> float:
    """Of the standard normal distribution."""
    return NormalDist().inv_cdf(min(max(level, 1e-12), 1 - 1e-12))


def _arrivals(rng: random.Random, a_day: float, trigger: str, profile: array[float]) -> Arrivals:
    per_second = a_day / DAY_SECONDS
    if trigger == "timer":
        period = min(TIMER_PERIODS, key=lambda one: abs(math.log(one * per_second)))
        # At fixed minutes: many fire in the same second.
        offset = 0 if period < 60 else 60 * rng.randrange(period // 60)
        return Periodic(float(period), float(offset))
    if rng.random() < BURSTY_SHARE:
        return Poisson(per_second, profile, BURST_SECONDS, PAUSE_SECONDS)
    return Poisson(per_second, profile)
