"""Filter patterns of event source mappings: what is one, what is none, and the tree they become."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.events.exceptions import InvalidEventPatternException
from moto.events.models import EventPatternParser

from fastlam import limits
from fastlam.control.filter_patterns import (
    AnythingBut,
    Condition,
    Equals,
    EqualsIgnoreCase,
    Exists,
    InvalidPattern,
    Number,
    Numeric,
    Pattern,
    Prefix,
    Suffix,
    parse,
)


def test_every_condition() -> None:
    pattern = parse(
        """{"k": ["a", "", 1, 1.0, true, null, {"prefix": "p"}, {"prefix": {"equals-ignore-case": "P"}}, {"suffix": "s"},
            {"suffix": {"equals-ignore-case": "S"}}, {"equals-ignore-case": "I"}, {"anything-but": "x"},
            {"anything-but": [1, 2e0]}, {"numeric": ["=", 5]}, {"numeric": [">", 0, "<=", 10.5]}, {"exists": false}]}"""
    )
    assert pattern == Pattern(
        {
            "k": (
                Equals("a"),
                Equals(""),
                Equals(Number("1")),
                Equals(Number("1.0")),
                Equals(True),
                Equals(None),
                Prefix("p"),
                Prefix("P", ignore_case=True),
                Suffix("s"),
                Suffix("S", ignore_case=True),
                EqualsIgnoreCase("I"),
                AnythingBut(("x",)),
                AnythingBut((Number("1"), Number("2e0"))),
                Numeric((("=", Number("5")),)),
                Numeric(((">", Number("0")), ("<=", Number("10.5")))),
                Exists(False),
            )
        }
    )


def test_numbers_keep_their_text() -> None:
    numbers = parse('{"k": [300, 300.0, 3.0e2]}').fields["k"]
    assert numbers == (Equals(Number("300")), Equals(Number("300.0")), Equals(Number("3.0e2")))
    assert {condition.value.value for condition in numbers} == {300.0}  # type: ignore[union-attr]


def test_objects_and_choices() -> None:
    pattern = parse('{"a": {"b": ["x"], "$or": [{"c": [1]}, {"d": ["y"], "e": {"f": [null]}}]}, "prefix": ["a field"]}')
    assert pattern == Pattern(
        {
            "a": Pattern(
                {"b": (Equals("x"),)},
                (
                    (
                        Pattern({"c": (Equals(Number("1")),)}),
                        Pattern({"d": (Equals("y"),), "e": Pattern({"f": (Equals(None),)})}),
                    ),
                ),
            ),
            "prefix": (Equals("a field"),),
        }
    )


def test_keys_that_come_twice() -> None:
    """The later says what holds of a leaf; objects are joined, and every `$or` has to be met."""
    assert parse('{"a": [1], "a": [2]}') == parse('{"a": [2]}')
    assert parse('{"a": {"b": [1], "c": [2]}, "a": {"c": [3], "d": [4]}}') == parse(
        '{"a": {"b": [1], "c": [3], "d": [4]}}'
    )
    deep = parse('{"a": {"b": {"c": [1]}}, "a": {"b": {"d": [2]}}}')
    assert deep == parse('{"a": {"b": {"c": [1], "d": [2]}}}')
    twice = parse('{"$or": [{"a": [1]}, {"b": [1]}], "$or": [{"c": [1]}, {"d": [1]}]}')
    assert [len(branches) for branches in twice.choices] == [2, 2]
    inside = parse('{"a": {"$or": [{"x": [1]}, {"y": [1]}]}, "a": {"$or": [{"x": [2]}, {"y": [2]}]}}').fields["a"]
    assert isinstance(inside, Pattern)
    assert len(inside.choices) == 2


REFUSED = [
    # no JSON, or no object
    "",
    " ",
    "simple string",
    '"string"',
    "null",
    "1",
    "[]",
    '[{"a": [1]}]',
    "{",
    '{"a": [1]} {}',
    '{"a": [NaN]}',
    '{"a": [-Infinity]}',
    '{"a": [01]}',
    "{'a': [1]}",
    '{"a": [1],}',
    # leaves that are no arrays, and nothing at all
    "{}",
    '{"a": {}}',
    '{"a": []}',
    '{"a": {"b": []}}',
    '{"eventSource": "aws:sqs"}',
    '{"a": 1}',
    '{"a": null}',
    '{"a": true}',
    # conditions
    '{"a": [[]]}',
    '{"a": [["x"]]}',
    '{"a": [{}]}',
    '{"a": [{"prefix": "x", "suffix": "y"}]}',
    '{"a": [{"unknown": "x"}]}',
    '{"a": [{"prefix": 1}]}',
    '{"a": [{"prefix": null}]}',
    '{"a": [{"prefix": ["x"]}]}',
    '{"a": [{"prefix": {"suffix": "x"}}]}',
    '{"a": [{"prefix": {"equals-ignore-case": 1}}]}',
    '{"a": [{"prefix": {"equals-ignore-case": "x", "prefix": "y"}}]}',
    '{"a": [{"suffix": true}]}',
    '{"a": [{"equals-ignore-case": ["x"]}]}',
    '{"a": [{"exists": "true"}]}',
    '{"a": [{"exists": 1}]}',
    '{"a": [{"exists": null}]}',
    '{"a": [{"anything-but": null}]}',
    '{"a": [{"anything-but": true}]}',
    '{"a": [{"anything-but": []}]}',
    '{"a": [{"anything-but": ["x", 1]}]}',
    '{"a": [{"anything-but": [null]}]}',
    '{"a": [{"anything-but": [["x"]]}]}',
    '{"a": [{"numeric": 1}]}',
    '{"a": [{"numeric": []}]}',
    '{"a": [{"numeric": ["="]}]}',
    '{"a": [{"numeric": ["=", "1"]}]}',
    '{"a": [{"numeric": [">", 1, "<"]}]}',
    '{"a": [{"numeric": ["==", 1]}]}',
    '{"a": [{"numeric": ["<", 1, ">", 5]}]}',
    '{"a": [{"numeric": [">", 5, "<", 5]}]}',
    '{"a": [{"numeric": [">", 1, "=", 5]}]}',
    '{"a": [{"numeric": ["=", 1, "<", 5]}]}',
    '{"a": [{"numeric": [">", 1, "<", 5, "<", 6]}]}',
    # operators of event buses that mappings do not have
    '{"a": [{"wildcard": "x*"}]}',
    '{"a": [{"cidr": "10.0.0.0/24"}]}',
    '{"a": [{"anything-but": {"prefix": "x"}}]}',
    '{"a": [{"anything-but": {"suffix": "x"}}]}',
    '{"a": [{"anything-but": {"wildcard": "x"}}]}',
    # $or
    '{"$or": []}',
    '{"$or": [{"a": [1]}]}',
    '{"$or": {"a": [1]}}',
    '{"$or": "x"}',
    '{"$or": ["x", "y"]}',
    '{"$or": [{"a": [1]}, {}]}',
    '{"$or": [{"a": [1]}, {"b": 1}]}',
    '{"$or": [{"a": [1]}, {"prefix": ["x"]}]}',
    '{"$or": [{"a": [1]}, {"b": {"numeric": ["x"]}}]}',
]


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidPattern):
        parse(text)


def test_many_combinations() -> None:
    """Each `$or` multiplies: ten with two branches are 1024 patterns."""
    nine: Any = {"z": [1]}
    for number in range(9):
        nine = {f"k{number}": nine, "$or": [{"a": [number]}, {"b": [number]}]}
    parse(json.dumps(nine))
    ten = {"k": nine, "$or": [{"a": [1]}, {"b": [1]}]}
    assert 2**9 <= limits.FILTER_ALTERNATIVES_MAX < 2**10
    with pytest.raises(InvalidPattern, match="combinations"):
        parse(json.dumps(ten))


@pytest.mark.parametrize("text", ['{"a":' * 100_000, '{"a":' * 100_000 + "[1]" + "}" * 100_000, "[" * 100_000])
def test_depth(text: str) -> None:
    with pytest.raises(InvalidPattern):
        parse(text)


def test_the_deepest_that_the_api_takes() -> None:
    depth = 4096 // 6 - 1
    text = '{"a":' * depth + "[1]" + "}" * depth
    assert len(text) <= 4096
    node: Any = parse(text)
    for _ in range(depth):
        node = node.fields["a"]
    assert node == (Equals(Number("1")),)


# Properties ----------------------------------------------------------------------------------------

TEXTS = st.text(max_size=8)
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
NAMES = TEXTS.filter(lambda name: name != "$or")
PLAIN_NAMES = st.sampled_from(["a", "b", "body", "data", ""])


def _increasing(bounds: tuple[float, float, str, str]) -> list[Any] | None:
    first, second, lower, upper = bounds
    low, high = sorted((first, second))
    return [lower, low, upper, high] if float(low) < float(high) else None


CONDITIONS = st.one_of(
    TEXTS,
    NUMBERS,
    st.booleans(),
    st.none(),
    st.fixed_dictionaries({"prefix": TEXTS | st.fixed_dictionaries({"equals-ignore-case": TEXTS})}),
    st.fixed_dictionaries({"suffix": TEXTS | st.fixed_dictionaries({"equals-ignore-case": TEXTS})}),
    st.fixed_dictionaries({"equals-ignore-case": TEXTS}),
    st.fixed_dictionaries({"exists": st.booleans()}),
    st.fixed_dictionaries(
        {"anything-but": TEXTS | NUMBERS | st.lists(TEXTS, min_size=1) | st.lists(NUMBERS, min_size=1)}
    ),
    st.fixed_dictionaries(
        {
            "numeric": st.tuples(st.sampled_from(["=", "<", "<=", ">", ">="]), NUMBERS).map(list)
            | st.tuples(NUMBERS, NUMBERS, st.sampled_from([">", ">="]), st.sampled_from(["<", "<="]))
            .map(_increasing)
            .filter(bool)
        }
    ),
)
LEAVES = st.lists(CONDITIONS, min_size=1, max_size=4)


def _objects(names: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.recursive(
        st.dictionaries(names, LEAVES, min_size=1, max_size=3),
        lambda inner: st.dictionaries(names, LEAVES | inner, min_size=1, max_size=3),
        max_leaves=8,
    )


@st.composite
def patterns(draw: st.DrawFn) -> dict[str, Any]:
    pattern = draw(_objects(NAMES))
    if draw(st.booleans()):
        pattern = {**pattern, "$or": draw(st.lists(_objects(PLAIN_NAMES), min_size=2, max_size=3))}
    return pattern


def written(pattern: Pattern) -> dict[str, Any]:
    """The pattern as the value that it was written as."""
    value: dict[str, Any] = {}
    for name, item in pattern.fields.items():
        value[name] = written(item) if isinstance(item, Pattern) else [_written(condition) for condition in item]
    assert len(pattern.choices) <= 1
    for branches in pattern.choices:
        value["$or"] = [written(branch) for branch in branches]
    return value


def _written(condition: Condition) -> Any:
    match condition:
        case Equals(value):
            return _scalar(value)
        case Prefix(text, ignore_case):
            return {"prefix": {"equals-ignore-case": text} if ignore_case else text}
        case Suffix(text, ignore_case):
            return {"suffix": {"equals-ignore-case": text} if ignore_case else text}
        case EqualsIgnoreCase(text):
            return {"equals-ignore-case": text}
        case AnythingBut(values):
            return {"anything-but": [_scalar(value) for value in values]}
        case Numeric(bounds):
            return {"numeric": [each for operator, bound in bounds for each in (operator, _scalar(bound))]}
        case Exists(exists):
            return {"exists": exists}


def _scalar(value: Any) -> Any:
    return json.loads(value.text) if isinstance(value, Number) else value


def _with_lists(value: Any) -> Any:
    """anything-but takes one value and an array of it alike."""
    if isinstance(value, dict):
        return {
            name: [item] if name == "anything-but" and not isinstance(item, list) else _with_lists(item)
            for name, item in value.items()
        }
    return [_with_lists(item) for item in value] if isinstance(value, list) else value


@given(patterns())
@settings(deadline=None)
def test_what_follows_the_rules_is_a_pattern(value: dict[str, Any]) -> None:
    """And nothing of it is lost."""
    pattern = parse(json.dumps(value))
    again = written(pattern)
    assert json.dumps(_with_lists(again), sort_keys=True) == json.dumps(_with_lists(value), sort_keys=True)
    assert parse(json.dumps(value, ensure_ascii=False, indent=2)) == pattern


@given(patterns(), st.data())
@settings(deadline=None)
def test_one_wrong_place_makes_it_none(value: dict[str, Any], data: st.DataObject) -> None:
    """A value of the wrong kind anywhere: in a leaf, or in the place of one."""
    node: Any = value
    while True:
        key = data.draw(
            st.sampled_from(sorted(key for key in node if key != "$or")) if set(node) - {"$or"} else st.just(None)
        )
        if key is None:
            node["$or"] = data.draw(st.sampled_from([[], {}, None, "x", [{"a": [1]}]]))
            break
        if isinstance(node[key], dict) and data.draw(st.booleans()):
            node = node[key]
            continue
        if isinstance(node[key], list) and data.draw(st.booleans()):
            node[key].append(
                data.draw(st.sampled_from([[], [1], {}, {"cidr": "10.0.0.0/8"}, {"prefix": 1}, {"numeric": []}]))
            )
        else:
            node[key] = data.draw(st.sampled_from([[], {}, None, "x", 1, False]))
        break
    with pytest.raises(InvalidPattern):
        parse(json.dumps(value))


JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "$or", "prefix", "numeric", "exists", "anything-but"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(JSON | patterns())
@settings(deadline=None, max_examples=200)
def test_what_another_reader_of_patterns_refuses(value: Any) -> None:
    """moto reads event patterns with fewer rules than these: what it refuses is none here either."""
    text = json.dumps(value)
    try:
        parse(text)
    except InvalidPattern:
        return
    if "$or" not in text:  # which moto takes for a field like any other
        try:
            EventPatternParser(text).parse()
        except InvalidEventPatternException as error:
            raise AssertionError(f"moto refuses {text}") from error


@given(st.text())
def test_any_text_is_a_pattern_or_is_none(text: str) -> None:
    with contextlib.suppress(InvalidPattern):
        assert parse(text).fields or parse(text).choices
