"""Operations of the Lambda API by their names, over whatever carries requests: paths and places come from the model."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from fastlam.api import service_model
from fastlam.api.service_model import Operation
from fastlam.errors import FastlamError


class Refused(FastlamError):
    """An error answer. `str` is `Code: message`."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code


class Transport(NamedTuple):
    """How requests travel."""

    send: Callable[[str, str, bytes | None], bytes]
    """`send(method, target, body)`: the body of a success; raises Refused."""
    fetch: Callable[[str], bytes]
    """What is behind a link that the API gave out."""
    account: str
    region: str


class Service:
    """The Lambda API of one account and region."""

    def __init__(self, transport: Transport) -> None:
        self.account = transport.account
        self.region = transport.region
        self.fetch = transport.fetch
        self._send = transport.send
        self._model = service_model.load()
        self._operations = {operation.name: operation for operation in self._model.operations}

    def call(self, name: str, **parameters: Any) -> dict[str, Any]:
        """One operation; parameters that are None are left out. {} where the answer has no body."""
        operation = self._operations[name]
        target, body = self._request(operation, self.coerced(name, parameters))
        answer = self._send(operation.method, target, body)
        found = json.loads(answer) if answer else {}
        return found if isinstance(found, dict) else {}

    def find(self, name: str, **parameters: Any) -> dict[str, Any] | None:
        """As `call`; None where there is no such resource."""
        try:
            return self.call(name, **parameters)
        except Refused as refusal:
            if refusal.status == 404 and refusal.code != "UnknownOperationException":
                return None
            raise

    def all(self, name: str, member: str, **parameters: Any) -> list[dict[str, Any]]:
        """The items of every page."""
        found: list[dict[str, Any]] = []
        marker = None
        while True:
            page = self.call(name, Marker=marker, **parameters)
            found += page.get(member) or []
            marker = page.get("NextMarker")
            if not marker:
                return found

    def coerced(self, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters as the model types them: templates have text where numbers are meant, and the other way round."""
        shape = self._operations[name].input
        given = {key: value for key, value in parameters.items() if value is not None}
        found = self._coerced(shape, given) if shape else given
        return dict(found)

    def _coerced(self, shape_name: str, value: Any) -> Any:
        shape = self._model.shapes[shape_name]
        if shape.type == "structure" and isinstance(value, Mapping):
            shapes = {member.name: member.shape for member in shape.members}
            return {key: self._coerced(shapes[key], item) if key in shapes else item for key, item in value.items()}
        if shape.type == "map" and isinstance(value, Mapping):
            return {str(key): self._coerced(shape.element, item) for key, item in value.items()}
        if shape.type == "list" and isinstance(value, (list, tuple)):
            return [self._coerced(shape.element, item) for item in value]
        if shape.type == "string" and isinstance(value, (bool, int, float)):
            return _text(value) if isinstance(value, bool) else str(value)
        if shape.type in ("integer", "long", "double") and isinstance(value, str):
            try:
                return float(value) if shape.type == "double" else int(value)
            except ValueError:
                return value  # the service says what is wrong with it
        if shape.type == "boolean" and value in ("true", "false"):
            return value == "true"
        return value

    def _request(self, operation: Operation, parameters: Mapping[str, Any]) -> tuple[str, bytes | None]:
        path = operation.path
        query: list[tuple[str, Any]] = list(operation.query)
        body: dict[str, Any] = {}
        has_body = False
        members = self._model.shapes[operation.input].members if operation.input else ()
        unknown = parameters.keys() - {member.name for member in members}
        if unknown:
            raise ValueError(f"{operation.name} has no {', '.join(sorted(unknown))}")
        for member in members:
            has_body = has_body or not member.location
            value = parameters.get(member.name)
            if member.location == "uri":
                path = path.replace("{" + member.wire_name + "}", quote(str(value), safe=""))
            elif value is not None and member.location == "querystring":
                query.append((member.wire_name, _text(value)))
            elif value is not None and not member.location:
                body[member.wire_name] = _plain(value)
        target = path + (f"?{urlencode(query, doseq=True)}" if query else "")
        return target, json.dumps(body).encode() if has_body else None


def _plain(value: Any) -> Any:
    """A value as JSON: bytes as base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value
