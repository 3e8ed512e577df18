"""Fixtures of the unit tests: a dispatcher whose workers the test plays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from played_environments import Stage, staged


@pytest.fixture
def ring_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what only environments with rings do."""
    monkeypatch.setenv("FASTLAM_LANE", "ring")


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as own:
        yield own
