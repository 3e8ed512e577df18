"""The operations on durable executions over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn

from fastlam.api.support import Call, Entries, Handler, Refused, Reply, Stored
from fastlam.control.authorize import Caller
from fastlam.control.durable import DurableExecutions
from fastlam.control.settings import Request

_WHY: Final = "durable functions are not executed yet"

Refuse = Callable[[Caller, Request, str], NoReturn]


def entries(executions: DurableExecutions) -> Entries:
    def list_executions(call: Call) -> Reply:
        found = executions.list(call.caller, call.parameters)
        return Reply({"DurableExecutions": found.items, "NextMarker": found.next_marker})

    refused: dict[str, Refuse] = {
        "GetDurableExecution": executions.refuse_execution,
        "GetDurableExecutionHistory": executions.refuse_execution,
        "StopDurableExecution": executions.refuse_execution,
        "PauseDurableExecution": executions.refuse_execution,
        "ResumeDurableExecution": executions.refuse_execution,
        "DeleteDurableExecution": executions.refuse_execution,
        "GetDurableExecutionState": executions.refuse_token,
        "CheckpointDurableExecution": executions.refuse_token,
        "SendDurableExecutionCallbackSuccess": executions.refuse_callback,
        "SendDurableExecutionCallbackFailure": executions.refuse_callback,
        "SendDurableExecutionCallbackHeartbeat": executions.refuse_callback,
    }
    return {
        "ListDurableExecutionsByFunction": Stored(list_executions, f"{_WHY}, and no function has an execution"),
        **{name: Refused(_handler(refuse), _WHY) for name, refuse in refused.items()},
    }


def _handler(refuse: Refuse) -> Handler:
    def handle(call: Call) -> Reply:
        refuse(call.caller, call.parameters, call.operation.name)

    return handle
