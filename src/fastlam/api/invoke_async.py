"""The legacy InvokeAsync over HTTP: an Event with an address of its own, older limits and an emptier answer."""

from __future__ import annotations

from typing import Final

from fastlam import limits
from fastlam.api.addresses import Addresses, key_of
from fastlam.api.errors import respond_error, respond_fault
from fastlam.api.invoke import event_of, step_of
from fastlam.core.dispatcher import request_id
from fastlam.errors import ApiError
from fastlam.http.server import Request
from fastlam.invoke.event import Events

_PREFIX: Final = b"/2014-11-13/functions/"
_SUFFIX: Final = b"/invoke-async"


class InvokeAsyncRoute:
    """Takes `POST /2014-11-13/functions/{FunctionName}/invoke-async`, with or without a slash at the end."""

    def __init__(self, addresses: Addresses, events: Events) -> None:
        self._addresses = addresses
        self._events = events

    def __call__(self, request: Request) -> None:
        try:
            self._invoke(request)
        except ApiError as error:
            respond_error(request, error)
        except Exception as error:  # noqa: BLE001 - logged and answered
            respond_fault(request, error)

    def _invoke(self, request: Request) -> None:
        key = key_of(request)[:3]  # it knows no tenants
        resolved = self._addresses.known.get(key)
        if resolved is None:
            name = request.path[len(_PREFIX) :].rstrip(b"/").removesuffix(_SUFFIX)
            resolved = self._addresses.resolve(request, key, "InvokeAsync", name)
        body = event_of(request.body, "Event", limits.LEGACY_ASYNC_PAYLOAD_BYTES_MAX)
        identifier = request_id()

        def answer(error: ApiError | None) -> None:
            if request.closed:
                return
            if error is not None:
                respond_error(request, error)
            else:
                request.respond(202, b"x-amzn-RequestId: %s\r\n" % identifier.encode(), b"")

        # The caller's trace is not joined here, other than by an Event.
        resolved = resolved.pick()
        self._events.accept(resolved, body, identifier, step_of(identifier, None, resolved.mark), None, answer)
