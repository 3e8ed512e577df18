"""From an operation's output to an HTTP answer, as the service model says: headers, JSON body, base64 of blobs."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from fastlam.api.service_model import Operation, ServiceModel, load

NULL: Final = object()
"""In the place of a member that is to be written, as null."""


class Answer(NamedTuple):
    headers: tuple[tuple[str, str], ...]
    body: Mapping[str, Any] | None


class _Plan(NamedTuple):
    """What the output of one operation needs beside its JSON."""

    headers: tuple[tuple[str, str], ...]  # member, header
    absent: frozenset[str]  # members that are not in the body
    payload: str  # the member that is the whole body


def encode(operation: Operation, values: Mapping[str, Any] | None) -> Answer:
    """`values` by member name; None members are left out, at any depth, and NULL ones null."""
    if values is None:
        return Answer((), None)
    plan = _plan(operation.name)
    headers = tuple((header, str(values[name])) for name, header in plan.headers if values.get(name) is not None)
    if plan.payload:
        values = values.get(plan.payload) or {}
    absent = plan.absent
    body = {name: _plain(value) for name, value in values.items() if value is not None and name not in absent}
    return Answer(headers, body)


def _plain(value: Any) -> Any:
    """A value as JSON has it. Timestamps come as what is to be written: numbers, or text."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is NULL:
        return None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


@cache
def _plan(name: str) -> _Plan:
    model: ServiceModel = load()
    operation = next(operation for operation in model.operations if operation.name == name)
    members = model.shapes[operation.output].members if operation.output else ()
    placed = {member.name: member for member in members if member.location}
    headers = tuple((each.name, each.wire_name) for each in placed.values() if each.location == "header")
    return _Plan(headers, frozenset(placed), operation.output_payload)
