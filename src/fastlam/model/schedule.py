"""When something is due, in the words of AWS's schedule expressions: at(...), rate(...), cron(...). All in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

_UNITS_MS: Final = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
_MINUTES_MAX: Final = 1440  # of the past that are looked at: what a machine has slept through is not made up for
_MONTH_NAMES: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_MONTHS: Final = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_DAYS: Final = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}


class At(NamedTuple):
    """Once."""

    epoch_ms: int

    def due(self, after_ms: int, until_ms: int, since_ms: int) -> bool:
        return after_ms < self.epoch_ms <= until_ms


class Rate(NamedTuple):
    """Every so often, counted from `since_ms`."""

    period_ms: int

    def due(self, after_ms: int, until_ms: int, since_ms: int) -> bool:
        return (until_ms - since_ms) // self.period_ms > (max(after_ms, since_ms) - since_ms) // self.period_ms


class Cron(NamedTuple):
    """In minutes whose parts are among these; an empty set of days (of the month, of the week) asks for none."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 1 is Sunday
    years: frozenset[int]

    def due(self, after_ms: int, until_ms: int, since_ms: int) -> bool:
        first, last = after_ms // 60_000 + 1, until_ms // 60_000
        return any(self._holds(minute) for minute in range(max(first, last - _MINUTES_MAX), last + 1))

    def _holds(self, epoch_minute: int) -> bool:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=epoch_minute)
        return (
            moment.minute in self.minutes
            and moment.hour in self.hours
            and (not self.days or moment.day in self.days)
            and moment.month in self.months
            and (not self.weekdays or moment.isoweekday() % 7 + 1 in self.weekdays)
            and moment.year in self.years
        )


Schedule = At | Rate | Cron


@lru_cache(maxsize=1024)
def parse(text: str) -> Schedule:
    """Raises ValueError with a sentence."""
    found = re.fullmatch(r"(at|rate|cron)\((.*)\)", text)
    if found is None:
        raise ValueError(f"{text!r} is no schedule: write at(...), rate(...) or cron(...).")
    kind, content = found.groups()
    if kind == "at":
        try:
            moment = datetime.strptime(content, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
        except ValueError:
            raise ValueError(f"{text!r} names no time: write at(2026-01-31T08:00:00), in UTC.") from None
        return At(int(moment.timestamp() * 1000))
    if kind == "rate":
        parts = re.fullmatch(r"([1-9][0-9]{0,8}) (minute|hour|day)s?", content)
        if parts is None:
            raise ValueError(f"{text!r} names no period: write rate(5 minutes), in minutes, hours or days.")
        return Rate(int(parts[1]) * _UNITS_MS[parts[2]])
    fields = content.split()
    if len(fields) != 6:
        raise ValueError(f"{text!r} has {len(fields)} fields: minute, hour, day, month, weekday and year are needed.")
    if (fields[2] == "?") == (fields[4] == "?"):
        raise ValueError(f"{text!r} needs a ? for either the day of the month or the day of the week.")
    try:
        return Cron(
            _field(fields[0], 0, 59),
            _field(fields[1], 0, 23),
            _field(fields[2], 1, 31),
            _field(fields[3], 1, 12, _MONTHS),
            _field(fields[4], 1, 7, _DAYS),
            _field(fields[5], 1970, 2199),
        )
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


def _field(text: str, least: int, most: int, names: dict[str, int] | None = None) -> frozenset[int]:
    values: set[int] = set()
    if text == "?":
        return frozenset()
    for part in text.upper().split(","):
        found = re.fullmatch(r"(\*|\w+)(?:-(\w+))?(?:/([1-9]\d{0,3}))?", part)
        if found is None:
            raise ValueError(f"{part!r} is no number, range or step (L, W and # are not understood)")
        first = least if found[1] == "*" else _number(found[1], least, most, names or {})
        last = first if found[2] is None and found[3] is None else most
        if found[1] == "*":
            last = most
        if found[2] is not None:
            last = _number(found[2], least, most, names or {})
        if last < first:
            raise ValueError(f"{part!r} runs backwards")
        values.update(range(first, last + 1, int(found[3] or 1)))
    return frozenset(values)


def _number(text: str, least: int, most: int, names: dict[str, int]) -> int:
    number = names.get(text, int(text) if text.isdecimal() and len(text) <= 4 else -1)
    if not least <= number <= most:
        raise ValueError(f"{text!r} is not between {least} and {most}")
    return number
