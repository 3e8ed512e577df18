"""What is asked of the daemon itself: /_fastlam/health, environments, sources, logs, queue, clock, reset, autoscaling.
The command line and the tests use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from fastlam.api.caller import Defaults, caller_of
from fastlam.api.decoding import query_of
from fastlam.api.errors import respond_error, respond_fault
from fastlam.clock import seconds_of
from fastlam.control.autoscaling import AutoScaling
from fastlam.errors import ApiError
from fastlam.http.server import Request
from fastlam.model.key import RecordKey

if TYPE_CHECKING:
    from fastlam.telemetry.logs import LogGroup

PREFIX: Final = b"/_fastlam/"
WAIT_SECONDS_MAX: Final = 60.0
_encode: Final = msgspec.json.Encoder().encode


class House(Protocol):
    """What the daemon lets be seen and done here; `app` provides it."""

    def health(self) -> dict[str, Any]: ...

    def environments(self) -> list[dict[str, Any]]: ...

    def queue(self) -> dict[str, Any]: ...

    def clock_state(self) -> dict[str, Any]: ...

    def advance(self, seconds: float, done: Callable[[], None]) -> str | None:
        """Lets time pass, and calls back when what was due is over; or the reason when it will not."""

    def event_sources(self) -> list[dict[str, Any]]: ...

    def log_of(self, key: RecordKey) -> LogGroup | None: ...

    def reset(self) -> str | None:
        """Empties an ephemeral daemon; the reason when it will not."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Runs the callback later; returns how to cancel that."""


class AdminRoute:
    """Answers everything under /_fastlam/ but code downloads."""

    def __init__(self, house: House, defaults: Defaults, auto_scaling: AutoScaling) -> None:
        self._house = house
        self._auto_scaling = auto_scaling
        self._defaults = defaults
        self._waiting: set[Callable[[], None]] = set()  # log readers that wait for something to happen
        self._routes: dict[tuple[bytes, bytes], Callable[[Request], None]] = {
            (b"GET", b"health"): self._health,
            (b"HEAD", b"health"): self._health,
            (b"GET", b"environments"): self._environments,
            (b"GET", b"sources"): self._sources,
            (b"GET", b"logs"): self._logs,
            (b"GET", b"queue"): self._queue,
            (b"GET", b"clock"): self._clock,
            (b"POST", b"clock"): self._advance,
            (b"POST", b"reset"): self._reset,
            (b"GET", b"autoscaling"): self._list_scaled,
            (b"PUT", b"autoscaling"): self._scale,
            (b"DELETE", b"autoscaling"): self._stop_scaling,
        }

    def __call__(self, request: Request) -> None:
        route = self._routes.get((request.method, request.path[len(PREFIX) :].rstrip(b"/")))
        try:
            if route is None:
                _respond(request, 404, {"message": "There is nothing at this address."})
            else:
                route(request)
        except ApiError as error:
            respond_error(request, error)
        except Exception as error:  # noqa: BLE001 - logged and answered
            respond_fault(request, error)

    def _health(self, request: Request) -> None:
        _respond(request, 200, self._house.health())

    def _environments(self, request: Request) -> None:
        _respond(request, 200, {"environments": self._house.environments()})

    def _queue(self, request: Request) -> None:
        _respond(request, 200, self._house.queue())

    def _clock(self, request: Request) -> None:
        _respond(request, 200, self._house.clock_state())

    def _advance(self, request: Request) -> None:
        setting = _object(request)
        try:
            seconds = seconds_of(setting["advance"]) if setting is not None else 0.0
        except (KeyError, TypeError, ValueError) as error:
            setting, reason = None, str(error) if isinstance(error, ValueError) else ""
        else:
            reason = ""
        if setting is None:
            _respond(request, 400, {"message": reason or 'The body must be a JSON object such as {"advance": "2m"}.'})
            return

        def passed() -> None:
            if not request.closed:
                _respond(request, 200, self._house.clock_state())

        refusal = self._house.advance(seconds, passed)
        if refusal is not None:
            _respond(request, 409, {"message": refusal})

    def _sources(self, request: Request) -> None:
        _respond(request, 200, {"sources": self._house.event_sources()})

    def _reset(self, request: Request) -> None:
        refusal = self._house.reset()
        if refusal is None:
            _respond(request, 200, {})
        else:
            _respond(request, 409, {"message": refusal})

    def _list_scaled(self, request: Request) -> None:
        _respond(request, 200, {"settings": [msgspec.structs.asdict(record) for record in self._auto_scaling.list()]})

    def _scale(self, request: Request) -> None:
        setting = _object(request)
        if setting is None:
            _respond(request, 400, {"message": "The body must be a JSON object."})
            return
        record = self._auto_scaling.put(self._qualified(request), setting)
        _respond(request, 200, msgspec.structs.asdict(record))

    def _stop_scaling(self, request: Request) -> None:
        self._auto_scaling.delete(self._qualified(request))
        _respond(request, 200, {})

    def _qualified(self, request: Request) -> RecordKey:
        """The version or alias that `function` and `qualifier` name."""
        query, caller = query_of(request.query), caller_of(request, self._defaults)
        name, qualifier = query.get("function", [""])[0], query.get("qualifier", [""])[0]
        return RecordKey(caller.account, caller.region, name, qualifier)

    def _logs(self, request: Request) -> None:
        query = query_of(request.query)
        caller = caller_of(request, self._defaults)
        name = query.get("function", [""])[0]
        try:
            after = int(query.get("after", ["0"])[0])
            wait_seconds = min(WAIT_SECONDS_MAX, float(query.get("wait", ["0"])[0]))
        except ValueError:
            _respond(request, 400, {"message": "`after` and `wait` must be numbers."})
            return
        function_log = self._house.log_of(RecordKey(caller.account, caller.region, name))
        if function_log is None:
            _respond(request, 404, {"message": f"There is no function {name!r} in {caller.account} {caller.region}."})
            return
        if function_log.appended > after or wait_seconds <= 0:
            _answer_logs(request, function_log, after)
        else:
            self._wait_for_logs(request, function_log, after, wait_seconds)

    def _wait_for_logs(self, request: Request, function_log: LogGroup, after: int, wait_seconds: float) -> None:
        cancel: list[Callable[[], None]] = []

        def answer() -> None:
            function_log.watchers.discard(answer)
            self._waiting.discard(answer)
            cancel[0]()
            if not request.closed:
                _answer_logs(request, function_log, after)

        cancel.append(self._house.call_later(wait_seconds, answer))
        function_log.watchers.add(answer)
        self._waiting.add(answer)

    def answer_waiting(self) -> None:
        """The daemon is about to stop: nobody waits any longer."""
        for answer in tuple(self._waiting):
            answer()


def _object(request: Request) -> dict[str, Any] | None:
    """The JSON object in the body, if it is one."""
    try:
        found = msgspec.json.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if isinstance(found, dict) else None


def _answer_logs(request: Request, function_log: LogGroup, after: int) -> None:
    events, following = function_log.events(after)
    _respond(
        request,
        200,
        {"events": [event._asdict() for event in events], "next": following, "dropped": function_log.dropped},
    )


def _respond(request: Request, status: int, body: dict[str, Any]) -> None:
    request.respond(status, b"Content-Type: application/json\r\n", _encode(body))
