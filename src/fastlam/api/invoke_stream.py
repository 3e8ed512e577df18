"""InvokeWithResponseStream over HTTP: pieces of the response as they come, as messages of an event stream.

What is wrong before the function runs is an ordinary error. Once the answer has begun it is 200 and stays so: a
function that fails, exceeds its time or dies ends the stream early, and nothing in it says why; the function's log and
its counts do. What the runtime itself has to say of a function that does not stream, an error document too, is a piece
of the answer like any other.
"""

from __future__ import annotations

import base64
import logging
from typing import Final

from fastlam import limits
from fastlam.api.addresses import Addresses, key_of
from fastlam.api.errors import respond_error, respond_fault
from fastlam.api.invoke import (
    KNOWN_LOG_TYPES,
    check_request_id,
    client_context_of,
    content_type_of,
    event_of,
    refusal,
    step_of,
)
from fastlam.core.dispatcher import OUTCOME_FUNCTION_ERROR, PLATFORM_ERRORS, Dispatcher, Invocation
from fastlam.dispatch.targets import Resolved
from fastlam.errors import ApiError
from fastlam.http.server import Request
from fastlam.http.streaming import ResponseBody
from fastlam.wire import eventstream

log = logging.getLogger(__name__)

_PREFIX: Final = b"/2021-11-15/functions/"
_SUFFIX: Final = b"/response-streaming-invocations"


class InvokeStreamRoute:
    """Takes `POST /2021-11-15/functions/{FunctionName}/response-streaming-invocations`."""

    def __init__(self, dispatcher: Dispatcher, addresses: Addresses) -> None:
        self._dispatcher = dispatcher
        self._addresses = addresses

    def __call__(self, request: Request) -> None:
        try:
            self._invoke(request)
        except ApiError as error:
            respond_error(request, error)
        except Exception as error:  # noqa: BLE001 - logged and answered
            respond_fault(request, error)

    def _invoke(self, request: Request) -> None:
        key = key_of(request)
        log_type = request.header(b"x-amz-log-type")
        resolved = self._addresses.known.get(key)
        if resolved is None or (log_type is not None and log_type not in KNOWN_LOG_TYPES):
            name = request.path[len(_PREFIX) :].rstrip(b"/").removesuffix(_SUFFIX)
            # Whatever the invocation type says, the service runs the function and streams.
            resolved = self._addresses.resolve(
                request, key, "InvokeWithResponseStream", name, ignored=("InvocationType",)
            )
        resolved = resolved.pick()
        body = event_of(request.body, "RequestResponse", limits.SYNC_PAYLOAD_BYTES_MAX)
        given_id = request.header(b"x-amzn-requestid")
        if given_id is not None:
            check_request_id(given_id)
        context, tenant = request.header(b"x-amz-client-context"), request.header(b"x-amz-tenant-id")
        invocation = Invocation(resolved.target, body)
        invocation.invoked_function_arn = resolved.invoked_arn
        invocation.client_context = None if context is None else client_context_of(context)
        invocation.tenant_id = None if tenant is None else tenant.decode()
        step = step_of(invocation.request_id, request.header(b"x-amzn-trace-id"), resolved.mark)
        self._addresses.check_loop(resolved, step)
        invocation.trace_id = step.trace
        answer = _Answer(self._dispatcher, request, resolved, log_type == b"Tail")
        invocation.streams = True
        invocation.on_chunk = answer.on_chunk
        invocation.on_done = answer.on_done
        self._dispatcher.submit(invocation)


class _Answer:
    """The answer to one invocation. The dispatcher calls in the loop's thread, as the connection does."""

    def __init__(self, dispatcher: Dispatcher, request: Request, resolved: Resolved, tail: bool) -> None:
        self._dispatcher = dispatcher
        self._request = request
        self._resolved = resolved
        self._tail = tail
        self._body: ResponseBody | None = None
        self._failed = False  # by a fault of ours

    def on_chunk(self, invocation: Invocation) -> None:
        """Pieces have come. They stay where they are as long as the client does not read: the function then waits.

        For a client that has gone they are taken and thrown away, and the function runs to its end.
        """
        if self._failed:
            self._dispatcher.take_pieces(invocation)
            return
        try:
            body = self._begun(invocation)
            if body.writable:
                self._pass_on(invocation, body)
        except Exception as failure:  # noqa: BLE001 - a callback of the dispatcher must not raise
            self._fail(failure)

    def on_done(self, invocation: Invocation) -> None:
        if self._failed or (self._body is None and self._request.closed):
            return
        try:
            self._complete(invocation)
        except Exception as failure:  # noqa: BLE001 - a callback of the dispatcher must not raise
            self._fail(failure)

    def _complete(self, invocation: Invocation) -> None:
        if invocation.outcome > OUTCOME_FUNCTION_ERROR and self._body is None:
            respond_error(self._request, refusal(invocation))
            return
        body = self._begun(invocation)
        body.on_writable = None
        self._pass_on(invocation, body)
        if not invocation.streamed and invocation.result and invocation.error_type not in PLATFORM_ERRORS:
            body.write(eventstream.payload_chunk(invocation.result))
        document = b"{}"
        if self._tail:
            text = invocation.target.log.tail(invocation)
            document = b'{"LogResult":"%b"}' % base64.b64encode(text)
        body.write(eventstream.invoke_complete(document))
        body.end()

    def _begun(self, invocation: Invocation) -> ResponseBody:
        """The body of the answer; its head is sent when it is first asked for."""
        body = self._body
        if body is None:
            content_type = content_type_of(invocation.content_type or "") or b"application/json"
            body = self._body = self._request.begin(
                200,
                b"Content-Type: %b\r\nx-amzn-RequestId: %b\r\nX-Amz-Executed-Version: %b\r\n"
                b"x-amzn-remapped-content-type: %b\r\nX-Amzn-Trace-Id: %b\r\n"
                % (
                    eventstream.CONTENT_TYPE,
                    invocation.request_id.encode(),
                    self._resolved.executed_version.encode(),
                    content_type,
                    (invocation.trace_id or "").encode(),
                ),
            )
            body.on_writable = lambda: self.on_chunk(invocation)
        return body

    def _pass_on(self, invocation: Invocation, body: ResponseBody) -> None:
        pieces = self._dispatcher.take_pieces(invocation)
        if pieces:
            body.write(b"".join([eventstream.payload_chunk(piece) for piece in pieces]))

    def _fail(self, failure: Exception) -> None:
        self._failed = True
        if not self._request.answered:
            respond_fault(self._request, failure)
            return
        log.error("a streamed answer could not be sent", exc_info=failure)
        if self._body is not None and not self._body.ended:
            self._body.abort()
