"""The recursion operations over HTTP."""

from __future__ import annotations

from typing import Final

from fastlam.api.support import Call, Entries, Reply, Stored
from fastlam.control.recursion import Recursion

_MISSING: Final = "a function that invokes itself over and over is not noticed, and goes on with either setting"


def entries(recursion: Recursion) -> Entries:
    def put(call: Call) -> Reply:
        return Reply({"RecursiveLoop": recursion.put(call.caller, call.parameters)})

    def get(call: Call) -> Reply:
        return Reply({"RecursiveLoop": recursion.get(call.caller, call.parameters)})

    return {
        "PutFunctionRecursionConfig": Stored(put, _MISSING),
        "GetFunctionRecursionConfig": Stored(get, _MISSING),
    }
