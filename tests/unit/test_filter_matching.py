"""Filter patterns at work: each operator by hand, and all of them against another implementation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from moto.events.models import EventPattern

from fastlam.control.filter_matching import Payload, compile_pattern
from fastlam.control.filter_patterns import EVERY, InvalidPattern, Number, parse
from fastlam.sources.filters import Filters


def read(event: Any) -> Any:
    """An event as JSON gives it to filters."""
    return json.loads(json.dumps(event), parse_int=Number, parse_float=Number)


def matches(pattern: Any, event: Any) -> bool:
    return compile_pattern(parse(json.dumps(pattern), EVERY))(read(event))


CASES: list[tuple[Any, Any, Any]] = [
    # pattern, an event that matches, one that does not
    ({"a": ["x", 1, True]}, {"a": True}, {"a": "1"}),
    ({"a": [None]}, {"a": None}, {"b": None}),
    ({"a": [""]}, {"a": ""}, {"a": " "}),
    ({"a": {"b": ["x"]}}, {"a": {"b": "x"}}, {"a": "x"}),
    ({"a": ["x"]}, {"a": ["y", "x"]}, {"a": ["y"]}),
    ({"a": {"b": ["x"], "c": ["y"]}}, {"a": [{"b": "x", "c": "y"}]}, {"a": [{"b": "x"}, {"c": "y"}]}),
    ({"a": [{"prefix": "us-"}]}, {"a": "us-east"}, {"a": "eu"}),
    ({"a": [{"prefix": {"equals-ignore-case": "US-"}}]}, {"a": "us-east"}, {"a": "eu"}),
    ({"a": [{"suffix": ".png"}]}, {"a": "x.png"}, {"a": "x.PNG"}),
    ({"a": [{"suffix": {"equals-ignore-case": ".PNG"}}]}, {"a": "x.png"}, {"a": "png"}),
    ({"a": [{"equals-ignore-case": "AbC"}]}, {"a": "aBc"}, {"a": "abcd"}),
    ({"a": [{"anything-but": "x"}]}, {"a": "y"}, {"a": "x"}),
    ({"a": [{"anything-but": ["x", "y"]}]}, {"a": "z"}, {}),
    ({"a": [{"anything-but": [1, 2]}]}, {"a": 3}, {"a": 2}),
    ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "yx"}, {"a": "xy"}),
    ({"a": [{"anything-but": {"suffix": ["x", "y"]}}]}, {"a": "xz"}, {"a": "zy"}),
    ({"a": [{"anything-but": {"equals-ignore-case": "X"}}]}, {"a": "y"}, {"a": "x"}),
    ({"a": [{"anything-but": {"wildcard": "x*z"}}]}, {"a": "xy"}, {"a": "xyz"}),
    ({"a": [{"wildcard": "*.example.*"}]}, {"a": "www.example.com"}, {"a": "www.example"}),
    ({"a": [{"wildcard": "a*b*c"}]}, {"a": "abcbc"}, {"a": "acb"}),
    ({"a": [{"wildcard": "ab*ba"}]}, {"a": "abba"}, {"a": "aba"}),
    ({"a": [{"wildcard": "a\\*b"}]}, {"a": "a*b"}, {"a": "axb"}),
    ({"a": [{"wildcard": "exact"}]}, {"a": "exact"}, {"a": "exactly"}),
    ({"a": [{"numeric": [">", 10, "<=", 20]}]}, {"a": 20}, {"a": 10}),
    ({"a": [{"numeric": ["=", 300]}]}, {"a": 3e2}, {"a": "300"}),
    ({"a": [{"numeric": ["<", 5]}]}, {"a": [9, 4]}, {"a": True}),
    ({"a": [{"cidr": "10.0.0.0/24"}]}, {"a": "10.0.0.7"}, {"a": "10.0.1.7"}),
    ({"a": [{"cidr": "2001:db8::/32"}]}, {"a": "2001:db8::1"}, {"a": "10.0.0.1"}),
    ({"a": [{"exists": True}]}, {"a": None}, {"a": {"b": 1}}),
    ({"a": [{"exists": False}]}, {"a": {"b": 1}}, {"a": 1}),
    ({"a": {"b": [{"exists": False}]}}, {"c": 1}, {"a": {"b": 1}}),
    ({"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"b": "y"}, {"a": "y", "b": "x"}),
    ({"c": ["z"], "$or": [{"a": ["x"]}, {"b": {"d": [1]}}]}, {"c": "z", "b": {"d": 1}}, {"c": "y", "a": "x"}),
    # Numbers are compared as they are written.
    ({"a": [300]}, {"a": 300}, {"a": 300.0}),
]


@pytest.mark.parametrize(("pattern", "event", "other"), CASES, ids=[json.dumps(case[0]) for case in CASES])
def test_operators(pattern: Any, event: Any, other: Any) -> None:
    assert matches(pattern, event)
    assert not matches(pattern, other)


@pytest.mark.parametrize(
    "pattern",
    [
        '{"a": [{"wildcard": "a**b"}]}',
        '{"a": [{"wildcard": "a\\\\b"}]}',
        '{"a": [{"wildcard": 1}]}',
        '{"a": [{"cidr": "10.0.0.0"}]}',
        '{"a": [{"cidr": "10.0.0.0/33"}]}',
        '{"a": [{"anything-but": {"numeric": ["=", 1]}}]}',
        '{"a": [{"anything-but": {"prefix": []}}]}',
        '{"a": [{"anything-but": {"prefix": "a", "suffix": "b"}}]}',
    ],
)
def test_refused(pattern: str) -> None:
    with pytest.raises(InvalidPattern):
        parse(pattern, EVERY)


@pytest.mark.parametrize(
    "operator", ['{"wildcard": "a*"}', '{"cidr": "10.0.0.0/8"}', '{"anything-but": {"prefix": "a"}}']
)
def test_withheld_from_mappings(operator: str) -> None:
    text = f'{{"a": [{operator}]}}'
    parse(text, EVERY)
    with pytest.raises(InvalidPattern):
        parse(text)


def test_payloads() -> None:
    """Data is an object for patterns with fields, a text for the others, never both."""
    fields = Filters({"FilterCriteria": {"Filters": [{"Pattern": '{"body": {"n": [1]}}'}]}})
    text = Filters({"FilterCriteria": {"Filters": [{"Pattern": '{"body": ["plain", "{\\"n\\": 1}"]}'}]}})
    metadata = Filters({"FilterCriteria": {"Filters": [{"Pattern": '{"messageId": ["1"]}'}]}})

    def passing(body: bytes | str) -> list[bool]:
        view = {"body": Payload(body), "messageId": "1"}
        return [filters.passes(view) for filters in (fields, text, metadata)]

    assert passing('{"n": 1}') == [True, False, True]
    assert passing(b'{"n": 1}') == [True, False, True]
    assert passing("plain") == [False, True, True]
    assert passing('[{"n": 1}]') == [True, False, True]
    assert passing('{"n": 1') == [False, False, True]
    assert passing(b"\xff") == [False, False, True]
    assert not Filters({})


TEXTS = st.sampled_from(["a", "A", "ab", "ba", "aB", "b", "", "abba", "a*b", "10.0.0.1"])
NUMBERS = st.integers(2, 5)  # Python takes 1 and 0 for true and false
SCALARS = TEXTS | NUMBERS | st.booleans() | st.none()
NAMES = st.sampled_from(["a", "b", "c"])
EVENTS = st.recursive(
    st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, min_size=1, max_size=3), min_size=1, max_size=3),
    lambda inner: st.dictionaries(NAMES, inner | SCALARS, min_size=1, max_size=3),
    max_leaves=4,
)
ONE_OR_MORE = TEXTS | st.lists(TEXTS, min_size=1, max_size=2)
OPERATORS = st.one_of(
    st.builds(lambda text: {"prefix": text}, TEXTS),
    st.builds(lambda text: {"suffix": text}, TEXTS),
    st.builds(lambda text: {"prefix": {"equals-ignore-case": text}}, TEXTS),
    st.builds(lambda text: {"suffix": {"equals-ignore-case": text}}, TEXTS),
    st.builds(lambda text: {"equals-ignore-case": text}, TEXTS),
    st.builds(lambda text: {"wildcard": text}, st.sampled_from(["a*", "*a", "*b*", "a*a", "*"])),
    st.builds(
        lambda values: {"anything-but": values}, ONE_OR_MORE | NUMBERS | st.lists(NUMBERS, min_size=1, max_size=2)
    ),
    st.builds(
        lambda name, text: {"anything-but": {name: text}},
        st.sampled_from(["prefix", "suffix", "equals-ignore-case"]),
        ONE_OR_MORE,
    ),
    st.builds(
        lambda operator, bound: {"numeric": [operator, bound]}, st.sampled_from(["=", "<", "<=", ">", ">="]), NUMBERS
    ),
    st.builds(lambda low, width: {"numeric": [">=", low, "<", low + width]}, NUMBERS, st.integers(1, 3)),
    st.builds(lambda bits: {"cidr": f"10.0.0.0/{bits}"}, st.sampled_from([8, 24, 32])),
    st.builds(lambda exists: {"exists": exists}, st.booleans()),
)
LEAVES = st.lists(SCALARS | OPERATORS, min_size=1, max_size=3)
PATTERNS = st.recursive(
    st.dictionaries(NAMES, LEAVES, min_size=1, max_size=2),
    lambda inner: st.one_of(
        st.dictionaries(NAMES, inner | LEAVES, min_size=1, max_size=3),
        st.builds(lambda branches: {"$or": branches}, st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=5,
)


@given(PATTERNS, EVENTS)
@settings(
    max_examples=400,
    deadline=None,
    derandomize=False,
    print_blob=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
def test_as_another_implementation(pattern: Any, event: Any) -> None:
    texts = json.dumps(pattern), json.dumps(event)
    # To the other one true and false are numbers.
    assume("numeric" not in texts[0] or not ("true" in texts[1] or "false" in texts[1]))
    theirs = EventPattern(json.dumps(pattern), pattern).matches_event(event)
    assert matches(pattern, event) == theirs
