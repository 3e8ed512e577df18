"""Input held against the constraints of the service model, with the findings in the service's own words.

All findings of a request are reported in one error: first of what the query string carries, then of the path, then of
the body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from msgspec.structs import replace

from fastlam import limits
from fastlam.api.service_model import Member, Operation, ServiceModel, Shape
from fastlam.errors import validation

# Where the live service is narrower or wider than its model: shape -> (minimum, maximum); None leaves the model's.
_BOUNDS: Final[Mapping[str, tuple[int | None, int | None]]] = {
    "ArchitecturesList": (0, None),
}

# What the model allows to functions on capacity providers only: shape -> maximum of all others. An update does not say
# which it is for; there the control of functions looks.
_MANAGED: Final[Mapping[str, int]] = {
    "Timeout": limits.TIMEOUT_SECONDS_MAX,
    "MemorySize": limits.MEMORY_MB_MAX,
    "EphemeralStorageSize": limits.EPHEMERAL_STORAGE_MB_MAX,
}

# Sets that the service prints in an order of its own.
_ENUM_ORDER: Final[Mapping[frozenset[str], str]] = {
    frozenset(order.split(", ")): order
    for order in (
        "LATEST, AT_TIMESTAMP, TRIM_HORIZON",
        "Terminate, Allow",
        "RESPONSE_STREAM, BUFFERED",
        "PublishedVersions, None",
    )
}

# Where the live service's pattern admits more than its model's: shape -> (in the model, in the service).
_PATTERN_MORE: Final[Mapping[str, tuple[str, str]]] = {
    "TaggableResource": ("|code-signing-config:", "|layer:([a-zA-Z0-9-_]+)|code-signing-config:"),
}

# Checked by the operation itself, which answers with another code.
_UNCHECKED: Final = frozenset({("CreateFunction", "Runtime"), ("UpdateFunctionConfiguration", "Runtime")})

_PATTERN_CHARACTERS_MAX: Final = 1_000_000  # longer strings break their length bound and are not matched besides

_PLACES: Final = ("querystring", "uri", "header", "")


def check(model: ServiceModel, operation: Operation, parameters: Mapping[str, Any]) -> None:
    """Raise the ValidationException that lists every finding, if there is one."""
    items = list(findings(model, operation, parameters))
    if items:
        raise validation(items)


def findings(model: ServiceModel, operation: Operation, parameters: Mapping[str, Any]) -> Iterator[str]:
    if not operation.input:
        return
    if operation.name == "CreateFunction" and parameters.get("CapacityProviderConfig") is None:
        model = _unmanaged(model)
    members = model.shapes[operation.input].members
    for place in _PLACES:
        for member in members:
            if member.location != place or (operation.name, member.name) in _UNCHECKED:
                continue
            if member.name == operation.payload and model.shapes[member.shape].type == "blob":
                continue
            yield from _check_member(model, member, parameters.get(member.name), member_path("", member.name))


def member_path(prefix: str, name: str) -> str:
    """The path of a member as messages show it: lower camel case, dots between."""
    name = name[:1].lower() + name[1:]
    return f"{prefix}.{name}" if prefix else name


_unmanaged_of: list[tuple[ServiceModel, ServiceModel]] = []


def _unmanaged(model: ServiceModel) -> ServiceModel:
    """The model with the narrower bounds; made once, as there is one model."""
    for known, narrowed in _unmanaged_of:
        if known is model:
            return narrowed
    shapes = {name: replace(model.shapes[name], maximum=maximum) for name, maximum in _MANAGED.items()}
    narrowed = replace(model, shapes=model.shapes | shapes)
    _unmanaged_of[:] = [(model, narrowed)]
    return narrowed


def _check_member(model: ServiceModel, member: Member, value: Any, path: str) -> Iterator[str]:
    if value is None:
        if member.required:
            yield f"Value null at '{path}' failed to satisfy constraint: Member must not be null"
        return
    found = list(_check(model, member.shape, value, path))
    if member.shape == "NamespacedFunctionName" and len(found) > 1:
        found = found[-1:]  # of a length and a pattern, only the pattern is reported here
    yield from found


def _check(model: ServiceModel, shape_name: str, value: Any, path: str) -> Iterator[str]:
    shape = model.shapes[shape_name]
    if shape_name in _PATTERN_MORE:
        shape = replace(shape, pattern=shape.pattern.replace(*_PATTERN_MORE[shape_name]))
    for constraint in broken(shape_name, shape, value):
        yield f"{_subject(shape, value, path)} failed to satisfy constraint: {constraint}"
    if shape.type == "structure":
        for member in shape.members:
            yield from _check_member(model, member, value.get(member.name), member_path(path, member.name))
    elif shape.type == "list":
        element = model.shapes[shape.element]
        if element.type == "structure":
            for number, item in enumerate(value, 1):
                if item is not None:
                    yield from _check(model, shape.element, item, f"{path}.{number}.member")
        elif any(item is None or any(broken(shape.element, element, item)) for item in value):
            yield (
                f"{_subject(shape, value, path)} failed to satisfy constraint: Member must satisfy constraint:"
                f" [{', '.join((*constraints(shape.element, element), 'Member must not be null'))}]"
            )
    elif shape.type == "map":
        yield from _check_map(model, shape, value, path)


def _check_map(model: ServiceModel, shape: Shape, value: Mapping[str, Any], path: str) -> Iterator[str]:
    key, element = model.shapes[shape.key], model.shapes[shape.element]
    if any(any(broken(shape.key, key, name)) for name in value):
        yield (
            f"{_subject(shape, value, path)} failed to satisfy constraint: Map keys must satisfy constraint:"
            f" [{', '.join(constraints(shape.key, key))}]"
        )
    if element.type in ("structure", "list", "map"):
        for name, item in value.items():
            if item is not None:
                yield from _check(model, shape.element, item, f"{path}.{name}.member")
    elif any(item is None or any(broken(shape.element, element, item)) for item in value.values()):
        yield (
            f"{_subject(shape, value, path)} failed to satisfy constraint: Map value must satisfy constraint:"
            f" [{', '.join((*constraints(shape.element, element), 'Member must not be null'))}]"
        )


def _subject(shape: Shape, value: Any, path: str) -> str:
    return f"Value at '{path}'" if shape.sensitive else f"Value '{show(value)}' at '{path}'"


def broken(shape_name: str, shape: Shape, value: Any) -> Iterator[str]:
    """The constraints of the shape itself that a (non-null) value does not satisfy."""
    minimum, maximum = _bounds(shape_name, shape)
    size = value if shape.type in ("integer", "long", "double") else None
    if shape.type in ("string", "list", "map", "blob"):
        size = len(value)
    if size is not None:
        if maximum is not None and size > maximum:
            yield _maximum_text(shape, maximum)
        if minimum is not None and size < minimum:
            yield _minimum_text(shape, minimum)
    if shape.type == "string":
        if shape.enum and value not in shape.enum:
            yield _enum_text(shape)
        if shape.pattern and (len(value) > _PATTERN_CHARACTERS_MAX or not _matcher(shape).fullmatch(value)):
            yield _pattern_text(shape)


def constraints(shape_name: str, shape: Shape) -> Iterator[str]:
    """Every constraint of the shape itself, in words."""
    minimum, maximum = _bounds(shape_name, shape)
    if maximum is not None:
        yield _maximum_text(shape, maximum)
    if minimum is not None:
        yield _minimum_text(shape, minimum)
    if shape.enum:
        yield _enum_text(shape)
    if shape.pattern:
        yield _pattern_text(shape)


def _bounds(shape_name: str, shape: Shape) -> tuple[float | None, float | None]:
    minimum, maximum = _BOUNDS.get(shape_name, (None, None))
    return (
        minimum if minimum is not None else shape.minimum,
        maximum if maximum is not None else shape.maximum,
    )


def _maximum_text(shape: Shape, maximum: float) -> str:
    return f"Member must have {_dimension(shape)} less than or equal to {_bound(shape, maximum)}"


def _minimum_text(shape: Shape, minimum: float) -> str:
    return f"Member must have {_dimension(shape)} greater than or equal to {_bound(shape, minimum)}"


def _dimension(shape: Shape) -> str:
    return "value" if shape.type in ("integer", "long", "double") else "length"


def _bound(shape: Shape, bound: float) -> str:
    return str(float(bound)) if shape.type == "double" else str(int(bound))


def _enum_text(shape: Shape) -> str:
    order = _ENUM_ORDER.get(frozenset(shape.enum), ", ".join(shape.enum))
    return f"Member must satisfy enum value set: [{order}]"


def _pattern_text(shape: Shape) -> str:
    return f"Member must satisfy regular expression pattern: {shape.pattern}"


@cache
def _compiled(pattern: str, flags: int) -> re.Pattern[str]:
    return re.compile(pattern, flags)


def _matcher(shape: Shape) -> re.Pattern[str]:
    if shape.python_pattern:
        return _compiled(shape.python_pattern, 0)
    return _compiled(shape.pattern, re.ASCII)


def show(value: Any) -> str:
    """A value as the service prints it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return f"java.nio.HeapByteBuffer[pos=0 lim={len(value)} cap={len(value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}={show(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(show, value)) + "]"
    return str(value)
