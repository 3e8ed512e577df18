"""Schedule expressions: which minutes they mean, and what is none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fastlam.model.schedule import parse


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def due(schedule: str, after: str, until: str, since: str = "2026-01-01T00:00:00") -> bool:
    return parse(schedule).due(ms(after), ms(until), ms(since))


def test_once() -> None:
    once = "at(2026-11-22T08:00:00)"
    assert due(once, "2026-11-22T07:59:59", "2026-11-22T08:00:00")
    assert not due(once, "2026-11-22T08:00:00", "2026-11-22T08:00:01")
    assert not due(once, "2026-11-22T07:59:58", "2026-11-22T07:59:59")


def test_every_so_often() -> None:
    since = "2026-11-22T08:00:30"
    assert not due("rate(5 minutes)", "2026-11-22T08:00:30", "2026-11-22T08:05:29", since)
    assert due("rate(5 minutes)", "2026-11-22T08:05:29", "2026-11-22T08:05:30", since)
    assert not due("rate(5 minutes)", "2026-11-22T08:05:30", "2026-11-22T08:10:29", since)
    assert due("rate(1 hour)", "2026-11-22T09:00:29", "2026-11-22T09:00:30", since)
    assert due("rate(1 day)", "2026-11-23T08:00:29", "2026-11-23T08:00:30", since)


@pytest.mark.parametrize(
    ("schedule", "moment", "is_due"),
    [
        ("cron(0 8 * * ? *)", "2026-11-22T08:00:00", True),
        ("cron(0 8 * * ? *)", "2026-11-22T08:01:00", False),
        ("cron(0 8 * * ? *)", "2026-11-22T09:00:00", False),
        ("cron(0 8 ? * MON-FRI *)", "2026-11-22T08:00:00", False),  # a Sunday
        ("cron(0 8 ? * MON-FRI *)", "2026-11-23T08:00:00", True),
        ("cron(0 8 ? * SUN *)", "2026-11-22T08:00:00", True),
        ("cron(0 8 ? * 1 *)", "2026-11-22T08:00:00", True),
        ("cron(0 8 ? * 7 *)", "2026-11-21T08:00:00", True),
        ("cron(0/15 * * * ? *)", "2026-11-22T08:45:00", True),
        ("cron(5/15 * * * ? *)", "2026-11-22T08:45:00", False),
        ("cron(5/15 * * * ? *)", "2026-11-22T08:50:00", True),
        ("cron(10-20/5,59 * * * ? *)", "2026-11-22T08:15:00", True),
        ("cron(10-20/5,59 * * * ? *)", "2026-11-22T08:59:00", True),
        ("cron(10-20/5,59 * * * ? *)", "2026-11-22T08:25:00", False),
        ("cron(0 0 1 jan ? 2027)", "2027-01-01T00:00:00", True),
        ("cron(0 0 1 jan ? 2027)", "2028-01-01T00:00:00", False),
        ("cron(0 0 31 * ? *)", "2026-12-31T00:00:00", True),
        ("cron(0 0 31 * ? *)", "2026-12-30T00:00:00", False),
    ],
)
def test_by_the_calendar(schedule: str, moment: str, is_due: bool) -> None:
    at_ms = ms(moment)
    assert parse(schedule).due(at_ms - 1, at_ms, 0) == is_due
    assert not parse(schedule).due(at_ms, at_ms + 59_999, 0), "once a minute at most"


def test_a_long_sleep_is_made_up_for_by_a_day_at_most() -> None:
    daily = parse("cron(0 8 1 * ? *)")
    until = ms("2026-11-10T00:00:00")
    assert not daily.due(ms("2026-10-01T00:00:00"), until, 0)
    assert daily.due(ms("2026-10-01T00:00:00"), ms("2026-11-02T07:00:00"), 0)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("daily", "is no schedule"),
        ("at(tomorrow)", "names no time"),
        ("rate(0 minutes)", "names no period"),
        ("rate(5 seconds)", "names no period"),
        ("cron(* * * * *)", "has 5 fields"),
        ("cron(0 8 * * * *)", "needs a ?"),
        ("cron(0 8 ? * ? *)", "needs a ?"),
        ("cron(60 8 * * ? *)", "'60' is not between 0 and 59"),
        ("cron(0 8 L * ? *)", "'L' is not between 1 and 31"),
        ("cron(0 8 ? * 2#1 *)", "L, W and # are not understood"),
        ("cron(0 9-8 * * ? *)", "runs backwards"),
        ("cron(0 8 * FEB-FOO ? *)", "'FOO' is not between 1 and 12"),
    ],
)
def test_what_is_none(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match="schedule|time|period|fields|cron") as caught:
        parse(text)
    assert fault in str(caught.value)
