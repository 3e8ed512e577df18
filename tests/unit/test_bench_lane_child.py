"""Sides of the benchmarks that are measured in a process of their own, on another lane."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.lane_child import in_child
from bench.measure import Metrics, Side, Topic

from fastlam.config import lane_kind

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).stem


@contextlib.contextmanager
def telling_side(topic: Topic) -> Iterator[Side]:
    measured = 0

    def measure() -> Metrics:
        nonlocal measured
        measured += 1
        return {
            "pid": os.getpid(),
            "measured": measured,
            "on zmq": float(lane_kind() == "zmq"),
            "rounds": topic.rounds,
            "quick": float(topic.quick),
        }

    yield measure


@contextlib.contextmanager
def ending_side(topic: Topic) -> Iterator[Side]:
    yield lambda: os._exit(3)


@contextlib.contextmanager
def side_that_does_not_end_well(topic: Topic) -> Iterator[Side]:
    yield dict
    sys.exit(4)


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT), str(Path(__file__).parent)]))
    return Topic("t", "Title", rounds=7, quick=True)


def alive(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()


def test_it_measures_in_one_other_process_on_that_lane(topic: Topic) -> None:
    with in_child(topic, "zmq", f"{HERE}:telling_side") as measure:
        found = [measure() for _ in range(3)]
    pids = {int(one["pid"]) for one in found}
    assert len(pids) == 1
    assert pids != {os.getpid()}
    assert [one["measured"] for one in found] == [1, 2, 3]
    assert [(one["on zmq"], one["rounds"], one["quick"]) for one in found] == [(1.0, 7, 1.0)] * 3
    assert not alive(pids.pop())


def test_it_ends_with_a_topic_that_fails(topic: Topic) -> None:
    with pytest.raises(ZeroDivisionError), in_child(topic, "ring", f"{HERE}:telling_side") as measure:
        pid = int(measure()["pid"])
        raise ZeroDivisionError
    assert not alive(pid)


def test_a_process_that_ends_early_is_an_error(topic: Topic) -> None:
    with (
        pytest.raises(RuntimeError, match="has ended"),
        in_child(topic, "ring", f"{HERE}:ending_side") as measure,
    ):
        measure()


def test_a_process_that_does_not_end_well_is_an_error(topic: Topic) -> None:
    with (
        pytest.raises(RuntimeError, match="ended with status 4"),
        in_child(topic, "ring", f"{HERE}:side_that_does_not_end_well") as measure,
    ):
        assert measure() == {}
