"""The virtual clock: what is due runs in order, and time waits for what that has started."""

from __future__ import annotations

import pytest

from fastlam.clock import SystemClock, VirtualClock, seconds_of


def test_what_is_due_runs_in_order_at_its_time() -> None:
    clock = VirtualClock(wall_ms=1000)
    ran: list[tuple[str, int]] = []
    clock.schedule(2, lambda: ran.append(("two", clock.elapsed_ms())))
    clock.schedule(1, lambda: ran.append(("one", clock.elapsed_ms())))
    clock.schedule(1, lambda: clock.schedule(0.5, lambda: ran.append(("inner", clock.elapsed_ms()))))
    clock.advance("1500ms")
    assert ran == [("one", 1000), ("inner", 1500)]
    assert (clock.wall_ms(), clock.pending, clock.next_due_seconds) == (2500, 1, 0.5)
    clock.advance(0.5)
    assert ran[2:] == [("two", 2000)]
    assert clock.next_due_seconds is None


def test_time_stands_still_for_what_is_under_way() -> None:
    clock = VirtualClock()
    ran: list[object] = []
    clock.schedule(1, clock.begin_work)
    clock.schedule(2, lambda: ran.append("later"))
    clock.advance_then("3s", lambda: ran.append(clock.elapsed_ms()))
    assert (ran, clock.elapsed_ms(), clock.works) == ([], 1000, 1)
    clock.begin_work()
    clock.end_work()
    assert ran == []
    clock.end_work()
    assert ran == ["later", 3000]


def test_who_cannot_wait_is_told() -> None:
    clock = VirtualClock()
    clock.begin_work()
    with pytest.raises(RuntimeError, match="advance_then"):
        clock.advance(1)


def test_one_advance_after_another() -> None:
    clock = VirtualClock()
    clock.begin_work()
    ended: list[int] = []
    clock.advance_then(1, lambda: ended.append(clock.elapsed_ms()))
    clock.advance_then(2, lambda: ended.append(clock.elapsed_ms()))
    clock.end_work()
    assert ended == [1000, 3000]


def test_an_error_ends_the_advance() -> None:
    clock = VirtualClock()

    def fail() -> None:
        raise ValueError("no")

    clock.schedule(1, fail)
    with pytest.raises(ValueError, match="no"):
        clock.advance(5)
    assert clock.elapsed_ms() == 1000
    clock.advance(1)
    assert clock.elapsed_ms() == 2000


def test_what_is_cancelled_does_not_run() -> None:
    clock = VirtualClock()
    ran: list[int] = []
    scheduled = clock.schedule(1, lambda: ran.append(1))
    scheduled.cancel()
    assert clock.pending == 0
    clock.advance(2)
    assert ran == []


def test_the_system_clock_waits_for_nobody() -> None:
    clock = SystemClock()
    before = clock.elapsed_ms()
    clock.begin_work()
    clock.end_work()
    assert clock.elapsed_ms() >= before
    assert clock.wall_ms() > 1_700_000_000_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90s", 90), ("2m", 120), ("1h30m", 5400), ("1h 30m 5s", 5405), ("250ms", 0.25), ("1.5h", 5400)),
        *(("7", 7), (3, 3), (0, 0), ("1d", 86400), (".5s", 0.5)),
    ],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "2 m x", "-1", "-1s", "1y", -1, float("nan"), float("inf"), "nan"])
def test_what_is_no_duration(text: str | float) -> None:
    with pytest.raises(ValueError, match="duration|time"):
        seconds_of(text)
