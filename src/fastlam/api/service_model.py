"""The Lambda service model as the daemon uses it: operations, their shapes and error shapes, read from the compiled
file.

The file is made at build time from botocore's model (tools/compile_service_model.py); botocore is not needed to run.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from fastlam.errors import FastlamError

FORMAT = 2
_FILE = "service_model.msgpack"


class Member(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One member of a structure: its shape, and where a request or an answer carries it."""

    name: str
    shape: str
    location: str  # "uri", "querystring", "header", "statusCode", or "" for the body
    wire_name: str
    required: bool


class Shape(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One type with its constraints. `minimum` and `maximum` bound a length for strings, lists, maps and blobs."""

    type: str  # string, integer, long, double, boolean, blob, timestamp, list, map, structure
    members: tuple[Member, ...]
    element: str  # the shape of a list's members or a map's values
    key: str  # the shape of a map's keys
    minimum: float | int | None
    maximum: float | int | None
    pattern: str  # as the service shows it
    python_pattern: str  # for matching, where Python cannot read the service's own; "" when it can
    enum: tuple[str, ...]
    sensitive: bool  # its values are not repeated in error messages


class Operation(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One operation and its route."""

    name: str
    method: str
    path: str
    query: tuple[tuple[str, str], ...]  # what the query string must say, where two operations share a path
    status: int  # of a success
    input: str  # shape, "" for none
    payload: str  # the member that is the whole body, "" for JSON members
    output: str  # shape, "" for none
    output_payload: str  # as `payload`, of an answer


class ErrorShape(msgspec.Struct, array_like=True, frozen=True, gc=False):
    name: str
    status: int
    message_key: str


class ServiceModel(msgspec.Struct, array_like=True, frozen=True):
    format: int
    api_version: str
    operations: tuple[Operation, ...]
    shapes: dict[str, Shape]
    errors: tuple[ErrorShape, ...]


@cache
def load() -> ServiceModel:
    file = Path(__file__).with_name(_FILE)
    try:
        model = msgspec.msgpack.decode(file.read_bytes(), type=ServiceModel)
    except FileNotFoundError:
        raise FastlamError(
            "This copy of fastlam was not built: its compiled Lambda service model is missing."
            " Run `make build` in a clone, or install the package with `pip install .`."
        ) from None
    except msgspec.DecodeError as error:
        raise FastlamError(
            f"The compiled Lambda service model does not fit this version of fastlam ({error}): run `make build` again."
        ) from None
    if model.format != FORMAT:
        raise FastlamError(
            "The compiled Lambda service model is of another version of fastlam: run `make build` again."
        )
    return model
