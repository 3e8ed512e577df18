"""What the API does with each operation: docs/compatibility.md is written from these declarations.

An operation is *supported* when what it sets has its effect (a test sees it outside the API that set it), *stored* when
it is checked, kept and given back while the effect is still missing, and *refused* when it is answered with an error
that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fastlam.api.service_model import Operation
from fastlam.control.authorize import Caller
from fastlam.control.steps import Steps
from fastlam.http.server import Request


class Call(NamedTuple):
    """One request to an operation, decoded, valid and authorised."""

    request: Request
    caller: Caller
    operation: Operation
    parameters: Mapping[str, Any]


class Reply(NamedTuple):
    """A success: members of the output by their names in the model, None for those that are absent.

    `status` defaults to the operation's own; without a body nothing but headers is sent.
    """

    body: Mapping[str, Any] | None
    status: int | None = None


Handler = Callable[[Call], Reply | Steps[Reply]]


class Supported(NamedTuple):
    handler: Handler
    note: str = ""  # what a reader should know, "" mostly


class Stored(NamedTuple):
    handler: Handler
    missing: str  # for the effect, as a sentence without its full stop


class Refused(NamedTuple):
    handler: Handler
    why: str


Entry = Supported | Stored | Refused
Entries = dict[str, Entry]
