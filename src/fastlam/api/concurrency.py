"""The reserved concurrency operations over HTTP."""

from __future__ import annotations

from fastlam.api.support import Call, Entries, Reply, Supported
from fastlam.control.concurrency import ReservedConcurrency


def entries(concurrency: ReservedConcurrency) -> Entries:
    def put(call: Call) -> Reply:
        return Reply({"ReservedConcurrentExecutions": concurrency.put(call.caller, call.parameters)})

    def get(call: Call) -> Reply:
        return Reply({"ReservedConcurrentExecutions": concurrency.get(call.caller, call.parameters)})

    def delete(call: Call) -> Reply:
        concurrency.delete(call.caller, call.parameters)
        return Reply(None)

    return {
        "PutFunctionConcurrency": Supported(put),
        "GetFunctionConcurrency": Supported(get),
        "DeleteFunctionConcurrency": Supported(delete),
    }
