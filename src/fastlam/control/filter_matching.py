"""Filter patterns made into functions: compiled once, asked for each event.

    matcher = compile_pattern(parse('{"body": {"state": ["new"]}}'))
    matcher({"body": Payload(b'{"state": "new"}')})        True

An event is what JSON gives. A value may also be a `Payload`: text that a pattern may look into, or compare as it is.
Values of arrays match one by one; of an array of objects, one of them must match the whole of what is asked of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Final, TypeAlias

from fastlam.control.filter_patterns import (
    AnythingBut,
    Cidr,
    Condition,
    Equals,
    EqualsIgnoreCase,
    Exists,
    Number,
    Numeric,
    Pattern,
    Prefix,
    Suffix,
    Wildcard,
)

Matcher: TypeAlias = Callable[[Mapping[str, Any]], bool]
_Test: TypeAlias = Callable[[Any], bool]

_ABSENT: Final = object()
_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "=": lambda value, bound: value == bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
}


class Payload:
    """The data of a record: an object (or an array) as patterns see it when it is the JSON of one, else a text."""

    __slots__ = ("_structure", "_text")

    def __init__(self, data: bytes | str) -> None:
        self._text: Any = data
        self._structure: Any = None

    def _read(self) -> None:
        if self._structure is not None:
            return
        try:
            text = self._text if isinstance(self._text, str) else self._text.decode()
        except UnicodeDecodeError:
            self._text = self._structure = _ABSENT
            return
        self._text, self._structure = text, _ABSENT
        if text.lstrip()[:1] in ("{", "["):
            try:
                self._structure = json.loads(text, parse_int=Number, parse_float=Number)
                self._text = _ABSENT
            except (ValueError, RecursionError):
                pass

    @property
    def structure(self) -> Any:
        self._read()
        return self._structure

    @property
    def text(self) -> Any:
        self._read()
        return self._text


def compile_pattern(pattern: Pattern) -> Matcher:
    """The function that says whether an event matches."""
    fields = [(name, _field(item)) for name, item in pattern.fields.items()]
    choices = [[compile_pattern(branch) for branch in branches] for branches in pattern.choices]

    def matches(event: Mapping[str, Any]) -> bool:
        for name, test in fields:
            if not test(event.get(name, _ABSENT)):
                return False
        return all(any(branch(event) for branch in branches) for branches in choices)

    return matches


def _field(item: Pattern | tuple[Condition, ...]) -> _Test:
    return _object(item) if isinstance(item, Pattern) else _leaf(item)


def _object(pattern: Pattern) -> _Test:
    inner = compile_pattern(pattern)
    without = not pattern.fields or any(_may_be_absent(item) for item in pattern.fields.values())

    def test(value: Any) -> bool:
        if type(value) is Payload:
            value = value.structure
        if isinstance(value, Mapping):
            return inner(value)
        if type(value) is list:
            return any(test(each) for each in value if isinstance(each, Mapping | list)) or (without and inner({}))
        # What is not there has no fields, which is what `exists: false` asks for.
        return without and inner({})

    return test


def _may_be_absent(item: Pattern | tuple[Condition, ...]) -> bool:
    if isinstance(item, Pattern):
        return any(_may_be_absent(each) for each in item.fields.values()) or bool(item.choices)
    return any(isinstance(each, Exists) and not each.exists for each in item)


def _leaf(conditions: tuple[Condition, ...]) -> _Test:
    exact = frozenset(each.value for each in conditions if isinstance(each, Equals))
    tests = [_test(each) for each in conditions if not isinstance(each, Equals | Exists)]
    present = any(isinstance(each, Exists) and each.exists for each in conditions)
    absent = any(isinstance(each, Exists) and not each.exists for each in conditions)

    def test(value: Any) -> bool:
        if type(value) is Payload:
            value = value.text
        if type(value) is str:
            return present or value in exact or any(each(value) for each in tests)
        found = False
        for leaf in _leaves(value):
            found = True
            if present or leaf in exact or any(each(leaf) for each in tests):
                return True
        return absent and not found

    return test


def _leaves(value: Any) -> Iterator[Any]:
    """The scalars of a value: its own, or those of an array. An object has none."""
    if value is _ABSENT or isinstance(value, Mapping):
        return
    if type(value) is list:
        for each in value:
            yield from _leaves(each)
    elif type(value) in (int, float):
        yield Number(json.dumps(value))
    else:
        yield value


def _test(condition: Condition) -> _Test:
    match condition:
        case EqualsIgnoreCase(text):
            folded = text.casefold()
            return lambda value: type(value) is str and value.casefold() == folded
        case Prefix(text, ignore_case):
            if ignore_case:
                folded = text.casefold()
                return lambda value: type(value) is str and value.casefold().startswith(folded)
            return lambda value: type(value) is str and value.startswith(text)
        case Suffix(text, ignore_case):
            if ignore_case:
                folded = text.casefold()
                return lambda value: type(value) is str and value.casefold().endswith(folded)
            return lambda value: type(value) is str and value.endswith(text)
        case Wildcard(pieces):
            return _wildcard(pieces)
        case Cidr(network):
            return lambda value: _within(value, network)
        case AnythingBut(values):
            return _anything_but(values)
        case Numeric(bounds):
            return _numeric(bounds)
    raise AssertionError(condition)  # the others are no tests of a value


def _wildcard(pieces: tuple[str, ...]) -> _Test:
    """Linear: each piece is taken where it comes first."""
    first, *middle, last = pieces if len(pieces) > 1 else (pieces[0], pieces[0])
    alone = len(pieces) == 1

    def test(value: Any) -> bool:
        if type(value) is not str:
            return False
        if alone:
            return value == first
        if not value.startswith(first) or not value.endswith(last) or len(value) < len(first) + len(last):
            return False
        position, end = len(first), len(value) - len(last)
        for piece in middle:
            found = value.find(piece, position, end)
            if found < 0:
                return False
            position = found + len(piece)
        return True

    return test


def _within(value: Any, network: Any) -> bool:
    if type(value) is not str:
        return False
    try:
        address = ip_address(value)
    except ValueError:
        return False
    return address.version == network.version and address in network


def _anything_but(values: tuple[Any, ...]) -> _Test:
    exact = frozenset(each for each in values if isinstance(each, str | Number))
    tests = [_test(each) for each in values if not isinstance(each, str | Number)]

    def test(value: Any) -> bool:
        return value not in exact and not any(each(value) for each in tests)

    return test


def _numeric(bounds: tuple[tuple[str, Number], ...]) -> _Test:
    comparisons = [(_COMPARISONS[operator], bound.value) for operator, bound in bounds]

    def test(value: Any) -> bool:
        if type(value) is not Number:
            return False
        number = value.value
        return all(compare(number, bound) for compare, bound in comparisons)

    return test
