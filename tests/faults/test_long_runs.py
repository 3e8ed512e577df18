"""What `make bench` does for hours, in short: workers killed at random under load, and one invocation after the other."""

from __future__ import annotations

import pytest
from bench.catalogue import TOPICS
from bench.measure import Topic

pytestmark = pytest.mark.lanes


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "count"), [("kills", 50), ("soak", 40_000), ("soak_embedded", 50_000)])
def test_in_short(name: str, count: int) -> None:
    topic = Topic(name, TOPICS[name].title, 1, True, count)
    TOPICS[name].load()(topic)
    missed = [check for check in topic.result.checks if not check.target.met_by(check.value)]
    assert topic.result.checks
    assert missed == [], topic.result.notes
