"""The reserved concurrency operations over HTTP."""

from __future__ import annotations

from fastlam.api.router import Call, Handler, Reply
from fastlam.control.concurrency import ReservedConcurrency


def handlers(concurrency: ReservedConcurrency) -> dict[str, Handler]:
    def put(call: Call) -> Reply:
        return Reply({"ReservedConcurrentExecutions": concurrency.put(call.caller, call.parameters)})

    def get(call: Call) -> Reply:
        reserved = concurrency.get(call.caller, call.parameters)
        return Reply({} if reserved is None else {"ReservedConcurrentExecutions": reserved})

    def delete(call: Call) -> Reply:
        concurrency.delete(call.caller, call.parameters)
        return Reply(None)

    return {
        "PutFunctionConcurrency": put,
        "GetFunctionConcurrency": get,
        "DeleteFunctionConcurrency": delete,
    }
