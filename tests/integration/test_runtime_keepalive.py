"""How long the environments of an embedded runtime live."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest

from fastlam import Runtime
from fastlam.embed import engine
from waiting import await_that

pytestmark = pytest.mark.lanes


def pid(event: Any, context: Any) -> int:
    return os.getpid()


def live() -> int:
    count: int = engine._current[False].dispatcher.statistics()["environments_live"]
    return count


def test_without_keep_alive_every_call_is_a_cold_start() -> None:
    with Runtime(keepalive=0) as runtime:
        function = runtime.function("cold", pid)
        results = [function.invoke(None) for _ in range(4)]
        assert len({result.payload for result in results}) == 4
        assert all(result.init_duration_ms is not None for result in results)
        assert live() == 0


def test_what_idles_is_stopped_while_the_program_does_something_else() -> None:
    """Nobody waits for a call: the background thread looks after it."""
    with Runtime(keepalive=0.01) as runtime, Runtime(keepalive=math.inf) as other:
        function, kept = runtime.function("idle", pid), other.function("kept", pid)
        first, stays = function.invoke(None).payload, kept.invoke(None).payload
        await_that(lambda: live() == 1)
        assert kept.invoke(None).payload == stays
        assert function.invoke(None).payload != first


@pytest.mark.parametrize("seconds", [-1, math.nan])
def test_a_time_that_is_none(seconds: float) -> None:
    with pytest.raises(ValueError, match="keepalive is"):
        Runtime(keepalive=seconds)
