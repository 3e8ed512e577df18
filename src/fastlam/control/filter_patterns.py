"""Filter patterns of event source mappings: checked, and parsed into a tree that a matcher can walk.

    {"body": {"state": ["new", {"prefix": "re"}]}, "$or": [{"a": [1]}, {"b": [null]}]}

    Pattern                             all of its fields, and one branch of each of its choices
      fields   "body": Pattern
                 fields   "state": (Equals("new"), Prefix("re"))         one of the conditions
      choices  (Pattern(a), Pattern(b))

The rules are EventBridge's for event patterns. Mappings have them without the operators that the documentation
withholds: `wildcard`, `cidr`, and `anything-but` with an operator inside (`operators=EVERY` takes these, too).
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

from fastlam import limits


class InvalidPattern(ValueError):
    """The text is no filter pattern; says what is wrong with it."""


class Number(NamedTuple):
    """A number as the pattern writes it: patterns that ask for equality compare the text, 300 is not 3.0e2."""

    text: str

    @property
    def value(self) -> float:
        return float(self.text)


Scalar: TypeAlias = "str | bool | Number | None"


class Equals(NamedTuple):
    value: Scalar


class EqualsIgnoreCase(NamedTuple):
    text: str


class Prefix(NamedTuple):
    text: str
    ignore_case: bool = False


class Suffix(NamedTuple):
    text: str
    ignore_case: bool = False


class Wildcard(NamedTuple):
    """A string that consists of these pieces, with anything between each and the next."""

    pieces: tuple[str, ...]


class Cidr(NamedTuple):
    """An address within the network."""

    network: IPv4Network | IPv6Network


class AnythingBut(NamedTuple):
    """The field is there and is none of these: all strings, all numbers, or all of one operator."""

    values: tuple[str | Number | EqualsIgnoreCase | Prefix | Suffix | Wildcard, ...]


class Numeric(NamedTuple):
    """A number within each of the bounds: one, or a lower and then an upper one."""

    bounds: tuple[tuple[str, Number], ...]  # (operator, bound)


class Exists(NamedTuple):
    """Whether the field is there, which must be a leaf."""

    exists: bool


Condition: TypeAlias = "Equals | EqualsIgnoreCase | Prefix | Suffix | Wildcard | Cidr | AnythingBut | Numeric | Exists"


class Pattern(NamedTuple):
    """One object of the pattern."""

    fields: dict[str, Pattern | tuple[Condition, ...]]
    choices: tuple[tuple[Pattern, ...], ...] = ()  # each `$or`


MAPPINGS: Final = frozenset({"prefix", "suffix", "equals-ignore-case", "anything-but", "numeric", "exists"})
EVERY: Final = MAPPINGS | {"wildcard", "cidr", "anything-but operator"}

_OR: Final = "$or"
_NEGATED: Final = ("prefix", "suffix", "equals-ignore-case", "wildcard")
_LOWER: Final = (">", ">=")
_UPPER: Final = ("<", "<=")
# A branch of `$or` with a field of such a name is taken for a misplaced operator.
_RESERVED: Final = frozenset(
    {"exactly", "prefix", "suffix", "equals-ignore-case", "anything-but", "numeric", "exists", "cidr", "wildcard"}
    | {"regex", "=", *_LOWER, *_UPPER}
)


class _Members(list[tuple[str, Any]]):
    """A JSON object as it was written: patterns may repeat a key."""


def parse(text: str, operators: frozenset[str] = MAPPINGS) -> Pattern:
    """Raises InvalidPattern."""
    try:
        value = json.loads(
            text, object_pairs_hook=_Members, parse_int=Number, parse_float=Number, parse_constant=_no_constant
        )
        pattern = _pattern(value, "the pattern", operators)
        if _alternatives(pattern) > limits.FILTER_ALTERNATIVES_MAX:
            raise InvalidPattern(f"$or makes more than {limits.FILTER_ALTERNATIVES_MAX} combinations")
    except json.JSONDecodeError as error:
        raise InvalidPattern(f"not JSON: {error}") from None
    except RecursionError:
        raise InvalidPattern("nested too deeply") from None
    return pattern


def _no_constant(name: str) -> NoReturn:
    raise InvalidPattern(f"{name} is not JSON")


def _pattern(value: Any, where: str, operators: frozenset[str]) -> Pattern:
    if not isinstance(value, _Members):
        raise InvalidPattern(f"{where} must be an object")
    if not value:
        raise InvalidPattern(f"{where} must not be empty")
    fields: dict[str, Pattern | tuple[Condition, ...]] = {}
    choices: list[tuple[Pattern, ...]] = []
    for name, item in value:
        if name == _OR:
            choices.append(_choice(item, operators))
        elif isinstance(item, _Members):
            fields[name] = _merged(fields.get(name), _pattern(item, repr(name), operators))
        elif isinstance(item, list):
            if not item:
                raise InvalidPattern(f"{name!r} must not be an empty array")
            fields[name] = tuple(_condition(each, name, operators) for each in item)
        else:
            raise InvalidPattern(f"{name!r} must be an object or an array")
    return Pattern(fields, tuple(choices))


def _merged(first: Pattern | tuple[Condition, ...] | None, second: Pattern) -> Pattern:
    """A key that is there twice: what the second says of a leaf replaces what the first said."""
    if not isinstance(first, Pattern):
        return second
    fields = dict(first.fields)
    for name, item in second.fields.items():
        fields[name] = _merged(fields.get(name), item) if isinstance(item, Pattern) else item
    return Pattern(fields, first.choices + second.choices)


def _choice(value: Any, operators: frozenset[str]) -> tuple[Pattern, ...]:
    if isinstance(value, _Members) or not isinstance(value, list) or len(value) < 2:
        raise InvalidPattern("$or must be an array of two or more objects")
    branches = tuple(_pattern(branch, "a branch of $or", operators) for branch in value)
    for branch in branches:
        _refuse_operators(branch)
    return branches


def _refuse_operators(pattern: Pattern) -> None:
    for name, item in pattern.fields.items():
        if name in _RESERVED:
            raise InvalidPattern(f"{name!r} cannot be a field inside $or")
        if isinstance(item, Pattern):
            _refuse_operators(item)


def _condition(value: Any, field: str, operators: frozenset[str]) -> Condition:
    if not isinstance(value, list):
        return Equals(value)
    if not isinstance(value, _Members) or len(value) != 1:
        raise InvalidPattern(f"{field!r}: a condition is a string, a number, true, false, null or one operator")
    operator, operand = value[0]
    if operator not in operators:
        raise InvalidPattern(f"{field!r}: there is no operator {operator!r}")
    match operator:
        case "prefix":
            return Prefix(*_affix(operator, operand))
        case "suffix":
            return Suffix(*_affix(operator, operand))
        case "equals-ignore-case":
            return EqualsIgnoreCase(_string(operator, operand))
        case "anything-but":
            return _anything_but(operand, operators)
        case "wildcard":
            return _wildcard(operand)
        case "cidr":
            return _cidr(operand)
        case "numeric":
            return _numeric(operand)
        case "exists":
            if not isinstance(operand, bool):
                raise InvalidPattern("exists takes true or false")
            return Exists(operand)
    raise InvalidPattern(f"{field!r}: there is no operator {operator!r}")


def _string(operator: str, operand: Any) -> str:
    if not isinstance(operand, str):
        raise InvalidPattern(f"{operator} takes a string")
    return operand


def _affix(operator: str, operand: Any) -> tuple[str, bool]:
    if not isinstance(operand, _Members):
        return _string(operator, operand), False
    if [name for name, _ in operand] != ["equals-ignore-case"]:
        raise InvalidPattern(f"{operator} takes a string or equals-ignore-case")
    return _string(operator, operand[0][1]), True


def _anything_but(operand: Any, operators: frozenset[str]) -> AnythingBut:
    if isinstance(operand, _Members) and "anything-but operator" in operators:
        return _anything_but_operator(operand)
    values = operand if isinstance(operand, list) else [operand]
    if not values or not any(all(isinstance(value, kind) for value in values) for kind in (str, Number)):
        raise InvalidPattern("anything-but takes a string, a number, or an array of either")
    return AnythingBut(tuple(values))


def _anything_but_operator(members: _Members) -> AnythingBut:
    if len(members) != 1 or members[0][0] not in _NEGATED:
        raise InvalidPattern(f"anything-but takes one of the operators {', '.join(_NEGATED)}")
    operator, operand = members[0]
    operands = operand if isinstance(operand, list) and not isinstance(operand, _Members) else [operand]
    if not operands:
        raise InvalidPattern(f"{operator} must not be an empty array")
    found: list[EqualsIgnoreCase | Prefix | Suffix | Wildcard] = []
    for each in operands:
        if operator == "wildcard":
            found.append(_wildcard(each))
        elif operator == "equals-ignore-case":
            found.append(EqualsIgnoreCase(_string(operator, each)))
        else:
            text = _string(operator, each)
            found.append(Prefix(text) if operator == "prefix" else Suffix(text))
    return AnythingBut(tuple(found))


def _wildcard(operand: Any) -> Wildcard:
    """`*` stands for anything; a backslash before it, or before another backslash, takes that meaning away."""
    text = _string("wildcard", operand)
    pieces = [""]
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
            if text[position : position + 1] not in ("*", "\\"):
                raise InvalidPattern("a backslash in a wildcard stands before * or another backslash")
            pieces[-1] += text[position]
        elif character == "*":
            if position and pieces[-1] == "" and len(pieces) > 1:
                raise InvalidPattern("a wildcard has no two * in a row")
            pieces.append("")
        else:
            pieces[-1] += character
        position += 1
    return Wildcard(tuple(pieces))


def _cidr(operand: Any) -> Cidr:
    text = _string("cidr", operand)
    address, slash, bits = text.partition("/")
    if not slash or not bits.isdecimal():
        raise InvalidPattern("cidr takes an address, a slash and a number of bits")
    try:
        return Cidr(ip_network(f"{address}/{bits}", strict=False))
    except ValueError as error:
        raise InvalidPattern(f"cidr: {error}") from None


def _numeric(operand: Any) -> Numeric:
    if not isinstance(operand, list) or isinstance(operand, _Members) or len(operand) not in (2, 4):
        raise InvalidPattern("numeric takes one comparison or a range")
    bounds: list[tuple[str, Number]] = []
    for operator, bound in zip(operand[::2], operand[1::2], strict=True):
        if operator not in ("=", *_LOWER, *_UPPER) or not isinstance(bound, Number):
            raise InvalidPattern("numeric compares by =, <, <=, > or >= with a number")
        bounds.append((operator, bound))
    if len(bounds) == 2:
        (first, bottom), (second, top) = bounds
        if first not in _LOWER or second not in _UPPER or bottom.value >= top.value:
            raise InvalidPattern("a range goes from a lower to an upper bound")
    return Numeric(tuple(bounds))


def _alternatives(pattern: Pattern) -> int:
    """How many patterns without `$or` this one stands for."""
    count = 1
    for item in pattern.fields.values():
        if isinstance(item, Pattern):
            count *= _alternatives(item)
    for branches in pattern.choices:
        count *= sum(map(_alternatives, branches))
    return count
