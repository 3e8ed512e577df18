"""Invoke over HTTP. The one file of the API that is on the hot path, with `repeated`, which takes the requests of those
who send one head over and over: it resolves an address once and then only looks it up.

The order of checks is the service's: input, address, permission, size, JSON; then the dispatcher admits or throttles.
"""

from __future__ import annotations

import base64
import binascii
import logging
from typing import Final

import msgspec

from fastlam import limits
from fastlam.api.addresses import Addresses
from fastlam.api.cors import BROWSER_MARKS
from fastlam.api.errors import respond_error, respond_fault
from fastlam.api.repeated import RepeatedInvoke, trace_begun
from fastlam.core.dispatcher import (
    OUTCOME_CANCELLED,
    OUTCOME_REJECTED,
    OUTCOME_THROTTLED,
    Dispatcher,
    Invocation,
    request_id,
)
from fastlam.core.scan import scan_json
from fastlam.dispatch.lineage import Step
from fastlam.dispatch.lineage import step as lineage_step
from fastlam.dispatch.targets import Resolved
from fastlam.errors import ApiError, service_fault, throttled, too_large
from fastlam.http.server import Request
from fastlam.invoke.event import Events
from fastlam.telemetry.logs import RESTORE_TIMEOUT

log = logging.getLogger(__name__)

_PREFIX: Final = b"/2015-03-31/functions/"
_SUFFIX: Final = b"/invocations"
_UUID_CHARACTERS: Final = frozenset(b"0123456789abcdefABCDEF-")

# Header names, lower-case as the HTTP server gives them.
_AUTHORIZATION: Final = b"authorization"
_TYPE: Final = b"x-amz-invocation-type"
_LOG_TYPE: Final = b"x-amz-log-type"
_CLIENT_CONTEXT: Final = b"x-amz-client-context"
_TRACE: Final = b"x-amzn-trace-id"
_REQUEST_ID: Final = b"x-amzn-requestid"
_TENANT: Final = b"x-amz-tenant-id"
_DURABLE: Final = b"x-amz-durable-execution-name"
# Headers that have a say in what an invocation is, or in who hears of it.
_HEADERS: Final = BROWSER_MARKS | {
    *(_AUTHORIZATION, _TYPE, _LOG_TYPE, _CLIENT_CONTEXT, _TRACE, _REQUEST_ID, _TENANT, _DURABLE),
}
_KNOWN_TYPES: Final = frozenset({b"RequestResponse", b"Event", b"DryRun"})
KNOWN_LOG_TYPES: Final = frozenset({b"None", b"Tail"})


class InvokeRoute:
    """Takes `POST /2015-03-31/functions/{FunctionName}/invocations`."""

    def __init__(self, dispatcher: Dispatcher, addresses: Addresses, events: Events) -> None:
        self._dispatcher = dispatcher
        self._addresses = addresses
        self._events = events
        self._known = addresses.known

    def __call__(self, request: Request) -> None:
        try:
            self._invoke(request)
        except ApiError as error:
            respond_error(request, error)
        except Exception as error:  # noqa: BLE001 - logged and answered
            respond_fault(request, error)

    def _invoke(self, request: Request) -> None:
        scope = kind = b""
        log_type = context = trace = given_id = tenant = durable = None
        plain = True
        for name, value in request.headers:
            if name not in _HEADERS:
                continue
            if name == _AUTHORIZATION:
                start = value.find(b"Credential=")  # as addresses.scope_of does
                scope = value[start : value.find(b",", start)] if start >= 0 else b""
                continue
            if name == _TYPE:
                kind = value
                continue
            plain = False
            if name == _LOG_TYPE:
                log_type = value
            elif name == _CLIENT_CONTEXT:
                context = value
            elif name == _TRACE:
                trace = value
            elif name == _REQUEST_ID:
                given_id = value
            elif name == _TENANT and tenant is None:  # the first, as everywhere else
                tenant = value
            elif name == _DURABLE:
                durable = value
        if kind == b"DryRun":
            self._dry_run(request, given_id, context)
            return
        key: tuple[bytes, ...] = (request.path, request.query, scope)
        if tenant is not None:
            key = (*key, tenant)
        resolved = self._known.get(key)
        if (
            resolved is None
            or (kind and kind not in _KNOWN_TYPES)
            or (log_type is not None and log_type not in KNOWN_LOG_TYPES)
            or durable is not None
        ):
            name = request.path[len(_PREFIX) : -len(_SUFFIX)]
            resolved = self._addresses.resolve(request, key, "Invoke", name)
        if resolved.weighted:
            resolved = resolved.pick()
        elif plain and request.repeated:
            if not kind:
                request.remember(RepeatedInvoke(self, self._addresses, self._dispatcher, resolved))
            elif kind == b"Event":
                request.remember(_RepeatedEvent(self, self._addresses, resolved))
        if kind == b"Event":
            body = event_of(request.body, "Event", limits.ASYNC_PAYLOAD_BYTES_MAX)
        else:
            body = event_of(request.body, "RequestResponse", limits.SYNC_PAYLOAD_BYTES_MAX)
        if given_id is not None:
            check_request_id(given_id)
        client_context = client_context_of(context) if context is not None else None
        if kind == b"Event":
            self.accept(request, resolved, body, tenant, trace)
            return
        invocation = Invocation(resolved.target, body)
        invocation.invoked_function_arn = resolved.invoked_arn
        invocation.client_context = client_context
        step = step_of(invocation.request_id, trace, resolved.mark)
        self._addresses.check_loop(resolved, step)
        invocation.trace_id = step.trace
        if tenant is not None:
            invocation.tenant_id = tenant.decode()
        invocation.tag = (request, resolved, log_type == b"Tail")
        invocation.on_done = self.done
        self._dispatcher.submit(invocation)

    def _dry_run(self, request: Request, given_id: bytes | None, context: bytes | None) -> None:
        """Name, permission and syntax, and nothing runs."""
        self._addresses.check(request, "Invoke", request.path[len(_PREFIX) : -len(_SUFFIX)])
        event_of(request.body, "RequestResponse", limits.SYNC_PAYLOAD_BYTES_MAX)
        if given_id is not None:
            check_request_id(given_id)
        if context is not None:
            client_context_of(context)
        request.respond(204, b"x-amzn-RequestId: %s\r\n" % request_id().encode(), b"")

    def accept(
        self, request: Request, resolved: Resolved, body: bytes, tenant: bytes | None, trace: bytes | None
    ) -> None:
        """Event: answered before it runs, and after it is safe."""
        identifier = request_id()
        step = step_of(identifier, trace, resolved.mark)

        def answer(error: ApiError | None) -> None:
            if request.closed:
                return
            if error is not None:
                respond_error(request, error)
                return
            request.respond(
                202,
                b"x-amzn-RequestId: %s\r\nx-amzn-Remapped-Content-Length: 0\r\nX-Amzn-Trace-Id: %s\r\n"
                % (identifier.encode(), step.trace.encode().lower()),
                b"",
            )

        tenant_id = None if tenant is None else tenant.decode()
        self._events.accept(resolved, body, identifier, step, tenant_id, answer)

    def failed(self, request: Request, failure: Exception) -> None:
        """A fault of ours, before or while the answer was given."""
        if not request.answered:
            respond_fault(request, failure)
        else:
            log.error("an answer could not be sent", exc_info=failure)

    def done(self, invocation: Invocation) -> None:
        """The dispatcher's call when the invocation is over, in the loop's thread."""
        request, resolved, tail = invocation.tag
        if request.closed:
            return
        try:
            outcome = invocation.outcome
            if outcome > 1:
                respond_error(request, refusal(invocation))
                return
            error = b"X-Amz-Function-Error: Unhandled\r\n" if outcome else b""
            if tail:
                text = invocation.target.log.tail(invocation)
                error += b"X-Amz-Log-Result: %s\r\n" % base64.b64encode(text)
            request.respond(
                200,
                b"Content-Type: %s\r\nx-amzn-RequestId: %s\r\nX-Amz-Executed-Version: %s\r\n%s"
                b"x-amzn-Remapped-Content-Length: 0\r\nX-Amzn-Trace-Id: %s\r\n"
                % (
                    content_type_of(invocation.content_type) if invocation.content_type else b"application/json",
                    invocation.request_id.encode(),
                    resolved.executed_version.encode(),
                    error,
                    (invocation.trace_id or "").encode(),
                ),
                invocation.result,
            )
        except Exception as failure:  # noqa: BLE001 - a completion callback must not raise
            self.failed(request, failure)


class _RepeatedEvent:
    """As RepeatedInvoke, for events."""

    __slots__ = ("_addresses", "_epoch", "_resolved", "_route")

    def __init__(self, route: InvokeRoute, addresses: Addresses, resolved: Resolved) -> None:
        self._route = route
        self._addresses = addresses
        self._epoch = addresses.epoch
        self._resolved = resolved

    def __call__(self, request: Request) -> None:
        if self._addresses.epoch is not self._epoch:
            request.reconsider()
            return
        body = request.body
        if not body or len(body) > limits.ASYNC_PAYLOAD_BYTES_MAX or scan_json(body) is not None:
            self._route(request)
            return
        try:
            self._route.accept(request, self._resolved, body, None, None)
        except ApiError as error:
            respond_error(request, error)
        except Exception as error:  # noqa: BLE001 - logged and answered
            respond_fault(request, error)


def refusal(invocation: Invocation) -> ApiError:
    """The error of a call that never ran."""
    if invocation.outcome == OUTCOME_THROTTLED:
        return throttled(invocation.throttle_reason)
    if invocation.outcome == OUTCOME_REJECTED:
        return service_fault(
            f"Too many invocations wait for an execution environment on this machine"
            f" (limit {limits.PENDING_INVOCATIONS_MAX}): raise --environments-max or lower the load."
        )
    if invocation.outcome == OUTCOME_CANCELLED:
        return service_fault("The daemon is stopping.")
    if invocation.error_type == RESTORE_TIMEOUT:
        return ApiError("SnapStartTimeoutException", "Lambda couldn't restore the snapshot within the timeout limit.")
    if invocation.error_type and invocation.target.restores and invocation.error_type != "Sandbox.Unavailable":
        return ApiError(
            "SnapStartException",
            "The afterRestore() runtime hook encountered an error. For more information, check the Amazon CloudWatch"
            " logs.",
        )
    return service_fault(invocation.error or "The execution environment could not be started.")


def event_of(body: bytes, kind: str, bytes_max: int) -> bytes:
    """The event, for a body that may be one; raises ApiError."""
    if len(body) > bytes_max:
        raise too_large(
            f"{len(body)} byte payload is too large for the {kind} invocation type (limit {bytes_max} bytes)"
        )
    if not body:
        return b"{}"
    fault = scan_json(body)
    if fault is not None:
        raise ApiError("InvalidRequestContentException", fault)
    return body


def check_request_id(value: bytes) -> None:
    if len(value) != 36 or not _UUID_CHARACTERS.issuperset(value):
        raise ApiError("InvalidRequestContentException", "x-amzn-RequestId must be a UUID")


def content_type_of(value: str) -> bytes:
    """What the function's runtime said, kept to what a header may hold."""
    return bytes(byte for byte in value.encode("latin-1", "replace")[:256] if 0x20 <= byte < 0x7F)


def client_context_of(value: bytes) -> str:
    """The header's JSON text; the service refuses what is too long, no base64 or no JSON."""
    if len(value) > limits.CLIENT_CONTEXT_BYTES_MAX:
        raise ApiError(
            "InvalidRequestContentException",
            f"Client context must be less than {limits.CLIENT_CONTEXT_BYTES_MAX} bytes.",
        )
    try:
        text = base64.b64decode(value, validate=True).decode()
        msgspec.json.decode(text)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        message = "Client context must be a valid Base64-encoded JSON object."
        raise ApiError("InvalidRequestContentException", message) from None
    return text


def step_of(identifier: str, given: bytes | None, mark: str) -> Step:
    """The X-Ray header of an invocation, and its place in a chain of them: the caller's trace is joined, or a new one
    is begun (not sampled).
    """
    if given is not None and given.startswith(b"Root=") and len(given) <= 512 and given.isascii():
        text = given.decode("ascii")
        if text.isprintable():
            return lineage_step(text, mark)
    return Step(trace_begun(identifier, mark))
