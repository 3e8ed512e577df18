"""The recursion operations over HTTP."""

from __future__ import annotations

from typing import Final

from fastlam.api.support import Call, Entries, Reply, Supported
from fastlam.control.recursion import Recursion

_NOTE: Final = (
    "a loop is noticed where what calls passes on the trace header (AWS's SDKs do) or the loop goes through a"
    " destination function"
)


def entries(recursion: Recursion) -> Entries:
    def put(call: Call) -> Reply:
        return Reply({"RecursiveLoop": recursion.put(call.caller, call.parameters)})

    def get(call: Call) -> Reply:
        return Reply({"RecursiveLoop": recursion.get(call.caller, call.parameters)})

    return {
        "PutFunctionRecursionConfig": Supported(put, _NOTE),
        "GetFunctionRecursionConfig": Supported(get, _NOTE),
    }
