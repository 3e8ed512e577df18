"""Fixtures of the unit tests: a dispatcher whose workers the test plays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from played_environments import Stage, staged


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as own:
        yield own
