"""The function scaling operations over HTTP."""

from __future__ import annotations

from typing import Any, Final

from fastlam.api.support import Call, Entries, Reply, Stored
from fastlam.control.scaling import FunctionScaling
from fastlam.model.scaling import Scale

_MISSING: Final = "environments come and go with the invocations, whatever the bounds"


def entries(scaling: FunctionScaling) -> Entries:
    def put(call: Call) -> Reply:
        return Reply({"FunctionState": scaling.put(call.caller, call.parameters)})

    def get(call: Call) -> Reply:
        version, record = scaling.get(call.caller, call.parameters)
        return Reply(
            {
                "FunctionArn": version.qualified_arn,
                "AppliedFunctionScalingConfig": _scale(record.applied),
                "RequestedFunctionScalingConfig": _scale(record.requested),
            }
        )

    return {"PutFunctionScalingConfig": Stored(put, _MISSING), "GetFunctionScalingConfig": Stored(get, _MISSING)}


def _scale(scale: Scale) -> dict[str, Any]:
    return {
        "MinExecutionEnvironments": scale.min_environments,
        "MaxExecutionEnvironments": scale.max_environments,
    }
