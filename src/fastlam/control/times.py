"""Moments as the API writes them."""

from __future__ import annotations

from datetime import UTC, date, datetime

from fastlam.clock import Clock


def timestamp(clock: Clock) -> str:
    """2025-11-25T02:26:54.123+0000"""
    wall_ms = clock.wall_ms()
    return f"{_moment(wall_ms):%Y-%m-%dT%H:%M:%S}.{wall_ms % 1000:03d}+0000"


def timestamp_seconds(clock: Clock) -> str:
    """2026-09-28T09:33:40+0000"""
    return f"{_moment(clock.wall_ms()):%Y-%m-%dT%H:%M:%S}+0000"


def timestamp_nanoseconds(clock: Clock) -> str:
    """2026-09-15T11:59:39.307000000Z"""
    wall_ms = clock.wall_ms()
    return f"{_moment(wall_ms):%Y-%m-%dT%H:%M:%S}.{wall_ms % 1000:03d}000000Z"


def epoch_seconds(clock: Clock) -> float:
    """1764037614.123"""
    return clock.wall_ms() / 1000


def today(clock: Clock) -> date:
    return _moment(clock.wall_ms()).date()


def _moment(wall_ms: int) -> datetime:
    return datetime.fromtimestamp(wall_ms // 1000, UTC)
