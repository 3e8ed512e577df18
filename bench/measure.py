"""What a topic measures: values by rounds, ratios with an interval, limits, and the verdict on each target.

Two things are only ever compared within one run, in turns: a ratio is taken round by round, the figure is the median of
these ratios, and its interval is the bootstrap's (95 %) for that median.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

RESAMPLES: Final = 2000
CONFIDENCE: Final = 0.95

HOLDS: Final = "holds"
NARROWLY: Final = "holds narrowly"  # the median does, a part of the interval does not
MISSED: Final = "MISSED"

Metrics = Mapping[str, float]
Side = Callable[[], Metrics]


class Target(msgspec.Struct, frozen=True):
    """At most one bound; which one it is says in which direction better lies."""

    at_most: float | None = None
    at_least: float | None = None
    exactly: float | None = None

    def __bool__(self) -> bool:
        return not (self.at_most is None and self.at_least is None and self.exactly is None)

    def met_by(self, value: float) -> bool:
        if self.at_most is not None:
            return value <= self.at_most
        if self.at_least is not None:
            return value >= self.at_least
        return self.exactly is None or value == self.exactly

    def __str__(self) -> str:
        for sign, bound in (("≤", self.at_most), ("≥", self.at_least), ("=", self.exactly)):
            if bound is not None:
                return f"{sign} {number(bound)}"
        return ""


class Series(msgspec.Struct):
    """One metric of one side, a value for each round."""

    side: str
    metric: str
    unit: str
    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


class Ratio(msgspec.Struct):
    """`over` divided by `under`, round by round."""

    what: str
    rounds: list[float]
    median: float
    low: float
    high: float
    target: Target
    verdict: str  # "" where there is no target


class Check(msgspec.Struct):
    """A figure that stands for itself."""

    what: str
    value: float
    unit: str
    target: Target
    verdict: str
    detail: str = ""


class Result(msgspec.Struct):
    """All that one topic found."""

    name: str
    title: str
    series: list[Series] = []
    ratios: list[Ratio] = []
    checks: list[Check] = []
    notes: list[str] = []
    missing: list[str] = []  # peers that are not installed, with what to install
    seconds: float = 0.0
    failed: str = ""  # why the topic ended early


class Topic:
    """What a topic's `run` is given: options, and a place for what it finds."""

    def __init__(self, name: str, title: str, rounds: int, quick: bool, count: int = 0) -> None:
        self.rounds = rounds
        self.quick = quick
        self.count = count  # 0: the topic's own default
        self.result = Result(name, title)

    def scale(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def in_turns(self, sides: Mapping[str, Side], units: Mapping[str, str], rounds: int | None = None) -> None:
        """Runs every side once a round, beginning with another one each time; values go into series."""
        names = list(sides)
        found: dict[tuple[str, str], Series] = {}
        for number_of_round in range(rounds or self.rounds):
            first = number_of_round % len(names)
            for name in names[first:] + names[:first]:
                self.progress(f"round {number_of_round + 1}: {name}")
                for metric, value in sides[name]().items():
                    key = name, metric
                    if key not in found:
                        found[key] = Series(name, metric, units[metric], [])
                    found[key].values.append(value)
        order = list(units)
        self.result.series += sorted(found.values(), key=lambda series: order.index(series.metric))

    def series(self, side: str, metric: str) -> Series:
        return next(one for one in self.result.series if (one.side, one.metric) == (side, metric))

    def has(self, side: str) -> bool:
        return any(one.side == side for one in self.result.series)

    def ratio(
        self,
        what: str,
        over: tuple[str, str],
        under: tuple[str, str],
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """Adds over/under, each a (side, metric) that has been measured in the same rounds."""
        pairs = zip(self.series(*over).values, self.series(*under).values, strict=True)
        rounds = [first / second for first, second in pairs]
        target = Target(at_most, at_least)
        median = statistics.median(rounds)
        low, high = median_interval(rounds)
        self.result.ratios.append(Ratio(what, rounds, median, low, high, target, verdict(target, median, low, high)))

    def check(
        self,
        what: str,
        value: float,
        unit: str,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        exactly: float | None = None,
        detail: str = "",
    ) -> None:
        target = Target(at_most, at_least, exactly)
        self.result.checks.append(Check(what, value, unit, target, verdict(target, value, value, value), detail))

    def note(self, text: str) -> None:
        self.result.notes.append(text)

    def missing(self, peer: str, install: str) -> None:
        self.result.missing.append(f"{peer} is not here and was left out: {install}")

    def progress(self, text: str) -> None:
        """What goes on, where somebody watches: one line on a terminal, written over."""
        if sys.stderr.isatty():
            print(f"\r\x1b[K{self.result.name}: {text}", end="", file=sys.stderr, flush=True)

    def log(self, text: str) -> None:
        """What goes on in topics that take hours: lines, where there is no terminal."""
        if sys.stderr.isatty():
            self.progress(text)
        else:
            print(f"{self.result.name}: {text}", file=sys.stderr, flush=True)


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The bootstrap's interval for the median; the same for the same values."""
    if len(values) < 2:
        return values[0], values[0]
    generator = random.Random(len(values))
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = (1 - CONFIDENCE) / 2
    return medians[int(tail * RESAMPLES)], medians[int((1 - tail) * RESAMPLES) - 1]


def verdict(target: Target, median: float, low: float, high: float) -> str:
    if not target:
        return ""
    if not target.met_by(median):
        return MISSED
    return HOLDS if target.met_by(low) and target.met_by(high) else NARROWLY


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` per cent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


def times_us(call: Callable[[], object], count: int) -> list[float]:
    """How long each of so many calls took, one after the other, in microseconds."""
    clock = time.perf_counter_ns
    times = []
    for _ in range(count):
        begun = clock()
        call()
        times.append((clock() - begun) / 1e3)
    return times


def p50_us(call: Callable[[], object], count: int) -> float:
    """Median time of one call, in microseconds."""
    return statistics.median(times_us(call, count))


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
