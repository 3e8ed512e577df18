"""Auto scaling of provisioned concurrency over a virtual clock: when it acts, how much it asks for, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastlam.control.autoscaling import AutoScaling
from fastlam.dispatch.autoscaling import AutoScaler
from fastlam.errors import invalid_parameter
from fastlam.model.key import RecordKey
from fastlam.store.records import AUTO_SCALING, PROVISIONED_CONCURRENCY
from memory_plane import CALLER, MemoryPlane, refused

KEY = RecordKey(CALLER.account, CALLER.region, "hello", "live")


class Scaled:
    """A plane with hello:live, and a scaler that sees the utilization that the test says."""

    def __init__(self, directory: Path) -> None:
        self.plane = MemoryPlane(directory)
        self.plane.create()
        self.plane.publish()
        self.plane.alias("live", "1")
        self.utilization: float | None = None
        self.settings = AutoScaling(self.plane.store, self.plane.clock)
        self.scaler = AutoScaler(self.plane.store, self.plane.clock, lambda key: self.utilization, self.put)
        self.asked: list[int] = []

    def put(self, key: RecordKey, wanted: int) -> None:
        asked = {"FunctionName": key.name, "Qualifier": key.part, "ProvisionedConcurrentExecutions": wanted}
        self.asked.append(wanted)
        if wanted > 500:
            raise invalid_parameter("too many")
        self.plane.provisioned_concurrency.put(CALLER, asked)

    def set(self, **setting: Any) -> None:
        self.settings.put(KEY, setting)
        self.scaler.tick()
        self.plane.clock.advance(0.5)

    def pass_time(self, periods: int, utilization: float | None = None, seconds: float = 60.0) -> list[int]:
        """What was asked for meanwhile."""
        self.utilization = utilization
        before = len(self.asked)
        for _ in range(periods):
            self.plane.clock.advance(seconds)
            self.scaler.tick()
        return self.asked[before:]

    @property
    def requested(self) -> int:
        config = self.plane.store.get(PROVISIONED_CONCURRENCY, KEY)
        return 0 if config is None else config.requested


@pytest.fixture
def scaled(tmp_path: Path) -> Scaled:
    return Scaled(tmp_path)


def test_the_bounds_hold_at_once(scaled: Scaled) -> None:
    scaled.set(minimum=2, maximum=10)
    assert scaled.requested == 2
    scaled.set(minimum=5, maximum=10)
    assert scaled.requested == 5
    scaled.set(minimum=1, maximum=3)
    assert scaled.requested == 3
    assert scaled.asked == [2, 5, 3]


def test_use_makes_more(scaled: Scaled) -> None:
    scaled.set(minimum=10, maximum=40, target_utilization=0.7)
    assert scaled.pass_time(2, 1.0) == [], "three periods are needed"
    assert scaled.pass_time(1, 1.0) == [15]
    assert scaled.pass_time(3, 0.8) == [18]
    assert scaled.pass_time(2, 0.9) + scaled.pass_time(1, 0.7) + scaled.pass_time(2, 0.9) == [], "in a row"
    assert scaled.pass_time(9, 1.0) == [26, 38, 40], "and no more than the bound"
    assert scaled.pass_time(9, 1.0) == []


def test_little_use_makes_less(scaled: Scaled) -> None:
    scaled.set(minimum=20, maximum=20)
    scaled.set(minimum=4, maximum=20, target_utilization=0.5)
    assert scaled.pass_time(30, 0.46) == [], "near enough"
    assert scaled.pass_time(14, 0.2) == [], "fifteen periods are needed"
    assert scaled.pass_time(1, 0.2) == [8]
    assert scaled.pass_time(15, 0.0) == [4]
    assert scaled.pass_time(15, 0.0) == []


def test_what_is_not_known_changes_nothing(scaled: Scaled) -> None:
    scaled.set(minimum=2, maximum=10, target_utilization=0.5)
    assert scaled.pass_time(20, None) == []
    scaled.set(minimum=2, maximum=10)
    assert scaled.pass_time(20, 1.0) == [], "there is no target"


def test_other_periods(scaled: Scaled) -> None:
    scaled.set(minimum=2, maximum=10, target_utilization=0.5, period_seconds=10)
    assert scaled.pass_time(3, 1.0, seconds=10) == [4]
    assert scaled.pass_time(29, 1.0, seconds=1) == []
    assert scaled.pass_time(1, 1.0, seconds=1) == [8]


def test_the_calendar_changes_the_bounds(scaled: Scaled) -> None:
    """The clock begins at 2026-01-01T00:00."""
    scaled.set(
        minimum=1,
        maximum=10,
        scheduled=[
            {"name": "morning", "schedule": "cron(0 8 * * ? *)", "minimum": 6},
            {"name": "night", "schedule": "cron(0 20 * * ? *)", "minimum": 1, "maximum": 2},
            {"name": "once", "schedule": "at(2026-01-02T12:00:00)", "minimum": 50},
        ],
    )
    hours = {hour: scaled.pass_time(60) for hour in range(1, 41)}
    assert {hour: asked for hour, asked in hours.items() if asked} == {8: [6], 20: [2], 32: [6], 36: [50]}
    found = scaled.plane.store.get(AUTO_SCALING, KEY)
    assert found is not None
    assert (found.minimum, found.maximum) == (50, 50)


def test_what_cannot_be_had_is_asked_for_again_later(scaled: Scaled, caplog: pytest.LogCaptureFixture) -> None:
    scaled.set(minimum=400, maximum=600, target_utilization=0.5)
    assert scaled.pass_time(6, 1.0) == [600, 600]
    assert scaled.requested == 400
    assert caplog.messages == ["hello:live cannot be scaled to 600: too many"] * 2


def test_after_it_is_taken_away(scaled: Scaled) -> None:
    scaled.set(minimum=4, maximum=10, target_utilization=0.5)
    scaled.settings.delete(KEY)
    assert scaled.pass_time(30, 1.0) == []
    assert (scaled.requested, scaled.settings.list()) == (4, [])
    assert refused("ResourceNotFoundException", scaled.settings.delete, KEY)


def test_it_goes_with_its_alias(scaled: Scaled) -> None:
    scaled.set(minimum=4, maximum=10)
    scaled.plane.aliases.delete(CALLER, {"FunctionName": "hello", "Name": "live"})
    assert scaled.settings.list() == []
    assert scaled.pass_time(3) == []


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ({}, "missing required field `minimum`"),
        ({"minimum": 0, "maximum": 1}, "`minimum` is at least 1"),
        ({"minimum": 2, "maximum": 1}, "`maximum` no less than that"),
        ({"minimum": 1, "maximum": "9"}, "Expected `int`"),
        ({"minimum": 1, "maximum": 9, "target_utilization": 0.95}, "between 0.1 and 0.9"),
        ({"minimum": 1, "maximum": 9, "target_utilization": float("nan")}, "between 0.1 and 0.9"),
        ({"minimum": 1, "maximum": 9, "period_seconds": 0}, "`period_seconds` is at least"),
        ({"minimum": 1, "maximum": 9, "scheduled": [{"name": "a", "schedule": "daily"}]}, "is no schedule"),
        (
            {"minimum": 1, "maximum": 9, "scheduled": [{"name": "a", "schedule": "rate(1 day)", "minimum": 0}]},
            "a: `minimum` is at least 1",
        ),
    ],
)
def test_what_is_no_setting(scaled: Scaled, setting: dict[str, Any], fault: str) -> None:
    assert fault in refused("InvalidParameterValueException", scaled.settings.put, KEY, setting)
    assert scaled.settings.list() == []


def test_of_nothing(scaled: Scaled) -> None:
    nowhere = KEY._replace(part="nope")
    setting = {"minimum": 1, "maximum": 2}
    message = refused("ResourceNotFoundException", scaled.settings.put, nowhere, setting)
    assert message == "There is no version or alias hello:nope."
