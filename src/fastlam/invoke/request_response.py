"""Invocations whose end somebody of this process waits for: what pollers and schedules call, as `abc.Invoker`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from fastlam.abc import Invoked, Outcome
from fastlam.arn import FunctionAddress
from fastlam.clock import Clock, end_work_in_turns
from fastlam.core.dispatcher import (
    OUTCOME_FUNCTION_ERROR,
    OUTCOME_OK,
    OUTCOME_REJECTED,
    OUTCOME_THROTTLED,
    Dispatcher,
    DispatcherClosed,
    Invocation,
)
from fastlam.core.dispatcher import request_id as new_request_id
from fastlam.dispatch.targets import Targets
from fastlam.errors import ApiError

_OUTCOMES: Final = {
    OUTCOME_OK: Outcome.OK,
    OUTCOME_FUNCTION_ERROR: Outcome.FUNCTION_ERROR,
    OUTCOME_THROTTLED: Outcome.THROTTLED,
    OUTCOME_REJECTED: Outcome.THROTTLED,
}

MayInvoke = Callable[[FunctionAddress, str], None]
"""`may_invoke(address, source_arn)` raises ApiError when the source may not have the function invoked."""


class Invocations:
    """The invoker of one daemon, in the driver's thread. A virtual clock stands still while an invocation runs."""

    def __init__(self, dispatcher: Dispatcher, targets: Targets, may_invoke: MayInvoke, clock: Clock) -> None:
        self._clock = clock
        self._dispatcher = dispatcher
        self._targets = targets
        self._may_invoke = may_invoke

    async def invoke(
        self, address: FunctionAddress, payload: bytes, *, source_arn: str, request_id: str | None = None
    ) -> Invoked:
        identifier = request_id or new_request_id()
        try:
            self._may_invoke(address, source_arn)
            resolved = self._targets.resolve(address).pick()
        except ApiError as error:
            return Invoked(Outcome.UNAVAILABLE, b"", identifier, "", str(error))
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Invocation] = loop.create_future()

        def done(invocation: Invocation) -> None:
            if not ended.done():
                ended.set_result(invocation)

        invocation = Invocation(resolved.target, payload, identifier)
        invocation.invoked_function_arn = resolved.invoked_arn
        invocation.trace_id = _trace_of(identifier)
        invocation.on_done = done
        try:
            self._dispatcher.submit(invocation)
        except DispatcherClosed:
            return Invoked(Outcome.UNAVAILABLE, b"", identifier, "", "The daemon is stopping.")
        self._clock.begin_work()
        try:
            await ended
        finally:
            end_work_in_turns(self._clock, loop.call_soon)
        outcome = _OUTCOMES.get(invocation.outcome, Outcome.UNAVAILABLE)
        ran = outcome in (Outcome.OK, Outcome.FUNCTION_ERROR)
        reason = (
            "" if ran else invocation.error or invocation.throttle_reason or "The environment could not be started."
        )
        return Invoked(outcome, invocation.result if ran else b"", identifier, resolved.executed_version, reason)


def _trace_of(identifier: str) -> str:
    """The X-Ray header of an invocation that begins its own trace, not sampled; made of the request id's digits."""
    digits = identifier.replace("-", "")
    return f"Root=1-{digits[:8]}-{digits[8:]};Parent={digits[20:]}{digits[8:12]};Sampled=0"
