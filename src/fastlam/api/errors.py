"""How answers leave: status, headers, JSON body; errors with the service's header and spelling."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

import msgspec

from fastlam.errors import ApiError, service_fault
from fastlam.http.server import Request

log = logging.getLogger(__name__)

_encode: Final = msgspec.json.Encoder().encode


def request_id() -> str:
    return str(uuid4())


def respond(
    request: Request, status: int, body: Mapping[str, Any] | None, headers: tuple[tuple[str, str], ...] = ()
) -> None:
    """Answer with a JSON object, or with nothing at all when `body` is None."""
    lines = [f"x-amzn-RequestId: {request_id()}\r\n"]
    if body is not None:
        lines.append("Content-Type: application/json\r\n")
    lines.extend(f"{name}: {_header_value(value)}\r\n" for name, value in headers)
    request.respond(status, "".join(lines).encode("ascii"), _encode(body) if body is not None else b"")


def respond_error(request: Request, error: ApiError) -> None:
    respond(request, error.status, error.body(), (("x-amzn-ErrorType", error.code), *error.headers))


def respond_fault(request: Request, error: BaseException) -> None:
    """Our own failure: the log hears what it was, the client that it was not its fault."""
    log.error("%s %s failed", request.method.decode("latin-1"), request.path[:200], exc_info=error)
    respond_error(request, service_fault("An error occurred and the request cannot be processed."))


def _header_value(value: str) -> str:
    return "".join(character if " " <= character <= "~" else "?" for character in value)
