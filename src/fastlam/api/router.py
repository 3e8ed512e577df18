"""Every request to the daemon comes in here: Invoke first, then ours, then the operations of the service model.

    POST /2015-03-31/functions/<name>/invocations        invoke_route
    /_fastlam/code/<token>                               the code behind GetFunction's Code.Location
    /_fastlam/...                                        admin_route
    an operation that reads its requests itself          its route among operation_routes
    an operation that has a handler                      decode, validate, authorise, handle, answer
    an operation that has none                           501 NotImplementedException
    anything else                                        404 UnknownOperationException

Runs in the loop thread. What may take long (large bodies, the slow pieces of a handler) goes through `run_blocking`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any, Final

from fastlam import limits
from fastlam.api import decoding, encoding, service_model, validation
from fastlam.api.blocking import RunBlocking
from fastlam.api.caller import Defaults, caller_of
from fastlam.api.code import PATH as CODE_PATH
from fastlam.api.errors import respond, respond_error, respond_fault
from fastlam.api.forward import foreign_service
from fastlam.api.rates import RequestRates
from fastlam.api.resources import resource_of
from fastlam.api.service_model import Operation
from fastlam.api.support import Call, Entry, Handler, Reply
from fastlam.control.authorize import Authorize, action_of, authorize
from fastlam.control.steps import Steps
from fastlam.errors import ApiError, too_large
from fastlam.http.server import Request

Route = Callable[[Request], None]

_FUNCTIONS: Final = b"/2015-03-31/functions/"
_INVOCATIONS: Final = b"/invocations"
_ADMIN: Final = b"/_fastlam/"

_REQUEST_BYTES_MAX: Final = {"UpdateFunctionConfiguration": limits.CONFIGURATION_REQUEST_BYTES_MAX}


class Api:
    """The handler of the HTTP server."""

    def __init__(
        self,
        entries: Mapping[str, Entry],
        *,
        defaults: Defaults,
        run_blocking: RunBlocking,
        invoke_route: Route,
        admin_route: Route,
        code_route: Route,
        forward: Callable[[Request, str], None] | None = None,
        authorize: Authorize = authorize,
        operation_routes: Mapping[str, Route] | None = None,
        rates: RequestRates | None = None,
    ) -> None:
        self._model = service_model.load()
        self._handlers = {name: entry.handler for name, entry in entries.items()}
        self._defaults = defaults
        self._run_blocking = run_blocking
        self._invoke_route = invoke_route
        self._admin_route = admin_route
        self._code_route = code_route
        self._forward = forward
        self._authorize = authorize
        self._rates = rates
        # Operations that read their requests themselves; Invoke is here for paths that name no function.
        self._operation_routes = {"Invoke": invoke_route, **(operation_routes or {})}
        unknown = self._handlers.keys() - {operation.name for operation in self._model.operations}
        if unknown:
            raise ValueError(f"handlers for operations that are not in the service model: {sorted(unknown)}")
        # (method, number of segments) -> routes; those that ask something of the query string first
        self._routes: dict[tuple[bytes, int], list[tuple[tuple[bytes, ...], Operation]]] = {}
        for operation in sorted(self._model.operations, key=lambda operation: -len(operation.query)):
            template = tuple(operation.path.encode().strip(b"/").split(b"/"))
            self._routes.setdefault((operation.method.encode(), len(template)), []).append((template, operation))

    def __call__(self, request: Request) -> None:
        path = request.path
        if (
            path.endswith(_INVOCATIONS)
            and path.startswith(_FUNCTIONS)
            and request.method == b"POST"
            and b"/" not in path[len(_FUNCTIONS) : -len(_INVOCATIONS)]
            and len(path) > len(_FUNCTIONS) + len(_INVOCATIONS)
        ):
            self._invoke_route(request)
            return
        if path.startswith(_ADMIN):
            (self._code_route if path.startswith(CODE_PATH) else self._admin_route)(request)
            return
        if self._forward is not None:
            service = foreign_service(request)
            if service is not None:
                self._forward(request, service)
                return
        try:
            self._route(request)
        except ApiError as error:
            respond_error(request, error)
        except Exception as error:  # noqa: BLE001 - logged and answered
            respond_fault(request, error)

    def _route(self, request: Request) -> None:
        query = decoding.query_of(request.query)
        found = self._match(request, query)
        if found is None:
            method, path = request.method[:32].decode("latin-1"), request.path[:200].decode("latin-1")
            raise ApiError("UnknownOperationException", f"The Lambda API has no operation at {method} {path}")
        operation, labels = found
        route = self._operation_routes.get(operation.name)
        if route is not None:
            route(request)
            return
        handler = self._handlers.get(operation.name)
        if handler is None:
            raise ApiError("NotImplementedException", f"fastlam does not implement {operation.name} yet.")
        if self._rates is not None:
            self._rates.take(caller_of(request, self._defaults), operation.name)
        bytes_max = _REQUEST_BYTES_MAX.get(operation.name, limits.CONTROL_REQUEST_BYTES_MAX)
        if len(request.body) > bytes_max:
            raise too_large(f"Request must be smaller than {bytes_max} bytes for the {operation.name} operation")
        work = partial(self._decode, operation, request, labels, query)
        if len(request.body) <= limits.BLOCKING_BODY_BYTES:
            self._handle(request, operation, handler, work())
        else:
            self._run_blocking(
                work, partial(self._continue, request, partial(self._handle, request, operation, handler))
            )

    def _match(self, request: Request, query: Mapping[str, list[str]]) -> tuple[Operation, dict[str, str]] | None:
        segments = request.path.strip(b"/").split(b"/")
        for template, operation in self._routes.get((request.method, len(segments)), ()):
            labels: dict[str, str] = {}
            for expected, segment in zip(template, segments, strict=True):
                if expected[:1] == b"{":
                    labels[expected[1:-1].decode()] = decoding.unquote(segment)
                elif expected != segment:
                    break
            else:
                if all(query.get(name, [""])[0] == value for name, value in operation.query):
                    return operation, labels
        return None

    def _decode(
        self,
        operation: Operation,
        request: Request,
        labels: Mapping[str, str],
        query: Mapping[str, list[str]],
    ) -> dict[str, Any]:
        """May run on a worker thread."""
        parameters = decoding.decode(self._model, operation, request, labels, query)
        validation.check(self._model, operation, parameters)
        return parameters

    def _handle(self, request: Request, operation: Operation, handler: Handler, parameters: dict[str, Any]) -> None:
        caller = caller_of(request, self._defaults)
        self._authorize(caller, action_of(operation.name), resource_of(caller, operation.name, parameters))
        outcome = handler(Call(request, caller, operation, parameters))
        if isinstance(outcome, Generator):
            self._step(request, operation, outcome, None, None)
        else:
            _reply(request, operation, outcome)

    def _step(
        self, request: Request, operation: Operation, steps: Steps[Reply], result: Any, error: BaseException | None
    ) -> None:
        """Run a handler on to its next slow piece, or to its end."""
        try:
            work = steps.send(result) if error is None else steps.throw(error)
        except StopIteration as stop:
            _reply(request, operation, stop.value)
        else:
            self._run_blocking(work, partial(self._guarded_step, request, operation, steps))

    def _guarded_step(
        self, request: Request, operation: Operation, steps: Steps[Reply], result: Any, error: BaseException | None
    ) -> None:
        self._guard(request, partial(self._step, request, operation, steps, result, error))

    def _continue(
        self, request: Request, then: Callable[[Any], None], result: Any, error: BaseException | None
    ) -> None:
        def go_on() -> None:
            if error is not None:
                raise error
            then(result)

        self._guard(request, go_on)

    @staticmethod
    def _guard(request: Request, work: Callable[[], None]) -> None:
        """Whatever comes of work that began on another thread, the request is answered."""
        try:
            work()
        except ApiError as error:
            respond_error(request, error)
        except Exception as error:  # noqa: BLE001 - logged and answered
            respond_fault(request, error)


def _reply(request: Request, operation: Operation, reply: Reply) -> None:
    answer = encoding.encode(operation, reply.body)
    respond(request, reply.status or operation.status, answer.body, answer.headers)
