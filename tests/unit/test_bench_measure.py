"""What the benchmarks make of their values: ratios by rounds, intervals, verdicts, wrk's output, the report."""

from __future__ import annotations

import random
import statistics
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import report
from bench.catalogue import TOPICS
from bench.client import parse
from bench.http_load import parse_wrk
from bench.measure import HOLDS, MISSED, NARROWLY, Result, Target, Topic, median_interval, number, percentile, verdict

WRK = """Running 1s test @ http://127.0.0.1:1/
  Latency Distribution
     50%  211.00us
     75%    1.00ms
     90%    2.00ms
     99%    1.05s
  100 requests in 1.00s, 29.45KB read
Requests/sec:  12345.67
Transfer/sec:      9.74KB
"""


def topic_of(ours: list[float], theirs: list[float]) -> Topic:
    topic = Topic("t", "Title", rounds=len(ours), quick=False)
    left, right = iter(ours), iter(theirs)
    topic.in_turns({"ours": lambda: {"m": next(left)}, "peer": lambda: {"m": next(right)}}, {"m": "µs"})
    return topic


def test_sides_take_turns_and_each_begins_a_round() -> None:
    order: list[str] = []
    topic = Topic("t", "Title", rounds=3, quick=False)
    sides = {name: lambda name=name: (order.append(name), {"m": 1.0})[1] for name in "abc"}
    topic.in_turns(sides, {"m": "µs"})
    assert order == [*"abc", *"bca", *"cab"]


def test_a_ratio_is_taken_round_by_round() -> None:
    # The machine became ten times slower in the second round, for both.
    topic = topic_of([1.0, 10.0, 1.2], [2.0, 20.0, 2.0])
    topic.ratio("ours / peer", ("ours", "m"), ("peer", "m"), at_most=0.55)
    ratio = topic.result.ratios[0]
    assert ratio.rounds == [0.5, 0.5, 0.6]
    assert (ratio.median, ratio.low, ratio.high) == (0.5, 0.5, 0.6)
    assert ratio.verdict == NARROWLY


@pytest.mark.parametrize(
    ("target", "median", "low", "high", "expected"),
    [
        (Target(at_most=1.6), 1.5, 1.4, 1.6, HOLDS),
        (Target(at_most=1.6), 1.5, 1.4, 1.61, NARROWLY),
        (Target(at_most=1.6), 1.61, 1.4, 1.7, MISSED),
        (Target(at_least=12), 13, 12, 14, HOLDS),
        (Target(at_least=12), 13, 11, 14, NARROWLY),
        (Target(at_least=12), 11, 9, 14, MISSED),
        (Target(exactly=150), 150, 150, 150, HOLDS),
        (Target(exactly=150), 149, 149, 149, MISSED),
        (Target(exactly=0), 1, 1, 1, MISSED),
        (Target(), 1, 1, 1, ""),
    ],
)
def test_verdicts(target: Target, median: float, low: float, high: float, expected: str) -> None:
    assert verdict(target, median, low, high) == expected


def test_interval_of_the_median_covers_it_as_often_as_it_says() -> None:
    source = random.Random(1)
    covered = 0
    for _ in range(200):
        low, high = median_interval([source.lognormvariate(0, 0.5) for _ in range(15)])
        covered += low <= 1.0 <= high
    assert 180 <= covered <= 200
    values = [source.random() for _ in range(9)]
    assert median_interval(values) == median_interval(values)
    assert median_interval(values)[0] < statistics.median(values) < median_interval(values)[1]


def test_percentile() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0, 1, 50, 99, 100)] == [1, 1, 50, 99, 100]
    assert percentile([7.0], 99) == 7.0


def test_wrk_output() -> None:
    assert parse_wrk(WRK) == {"requests/s": 12345.67, "p50": 0.211, "p99": 1050.0}


@pytest.mark.parametrize(
    "said",
    [
        WRK + "  Non-2xx or 3xx responses: 3\n",
        WRK + "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
        WRK.replace("12345.67", "0.00"),
    ],
)
def test_wrk_runs_that_do_not_count(said: str) -> None:
    with pytest.raises(RuntimeError, match="wrk"):
        parse_wrk(said)


def test_answers_are_parsed_when_they_are_whole() -> None:
    data = b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"ok"'
    assert [parse(1, data[:end]) for end in (10, len(data) - 5, len(data) - 1)] == [None] * 3
    answer = parse(1, data)
    assert answer is not None and answer.ok and answer.body == b'"ok"'
    failed = parse(1, data.replace(b"OK\r\n", b"OK\r\nX-Amz-Function-Error: Unhandled\r\n"))
    assert failed is not None and not failed.ok
    with pytest.raises(RuntimeError, match="more came"):
        parse(1, data + b"H")


def test_numbers_are_short() -> None:
    assert [number(value) for value in (0, 0.0543, 1.5, 38.42, 123.4, 112668.0)] == [
        "0", "0.0543", "1.5", "38.4", "123", "112,668",
    ]  # fmt: skip


def test_report_says_what_was_missed_and_what_was_not_there() -> None:
    topic = topic_of([3.0, 3.0], [1.0, 1.0])
    topic.ratio("ours | theirs", ("ours", "m"), ("peer", "m"), at_most=2)
    topic.check("throttles", 150, "", exactly=150, detail="50 ran")
    topic.missing("loky", 'pip install "fastlam[bench]"')
    # As it comes back from the topic's process.
    result = msgspec.json.decode(msgspec.json.encode(topic.result), type=Result)
    text = report.markdown([result, Result("late", "Late", failed="not over")], {"CPU": "any"}, {"rounds": 2})
    assert "| ours \\| theirs | 3 × | 3 to 3 | ≤ 2 × | MISSED |" in text
    assert "| throttles | 150 | 50 ran | = 150 | holds |" in text
    assert '- loky is not here and was left out: pip install "fastlam[bench]"' in text
    assert "Ended early: not over" in text
    assert report.missed([result, Result("late", "Late", failed="not over")]) == [
        "t: ours | theirs",
        "late: ended early (not over)",
    ]


@pytest.mark.parametrize("name", TOPICS)
def test_every_topic_can_be_loaded(name: str) -> None:
    assert callable(TOPICS[name].load())
