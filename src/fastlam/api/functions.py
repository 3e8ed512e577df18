"""The function operations over HTTP."""

from __future__ import annotations

from fastlam.api.code import CodeLinks
from fastlam.api.rendering import function_code, function_configuration
from fastlam.api.support import Call, Entries, Reply, Supported
from fastlam.arn import LATEST
from fastlam.control.functions import Functions
from fastlam.control.steps import Steps


def entries(functions: Functions, links: CodeLinks) -> Entries:
    def create(call: Call) -> Steps[Reply]:
        record = yield from functions.create_steps(call.caller, call.parameters)
        return Reply(function_configuration(record, functions.variables))

    def get(call: Call) -> Reply:
        record, qualifier, reserved = functions.get(call.caller, call.parameters)
        location = links.location(call.request, record.artifact) if record.artifact else None
        body: dict[str, object] = {
            "Configuration": function_configuration(record, functions.variables, qualifier),
            "Code": function_code(record, location),
        }
        if qualifier is None:  # these belong to the function, not to what a qualifier points at
            body["Tags"] = record.tags or None
            body["Concurrency"] = None if reserved is None else {"ReservedConcurrentExecutions": reserved}
        return Reply(body)

    def get_configuration(call: Call) -> Reply:
        view = functions.get(call.caller, call.parameters, call.operation.name)
        return Reply(function_configuration(view.record, functions.variables, view.qualifier))

    def list_functions(call: Call) -> Reply:
        page = functions.list(call.caller, call.parameters)
        all_versions = call.parameters.get("FunctionVersion") == "ALL"
        items = [
            function_configuration(record, functions.variables, record.version if all_versions else None, listed=True)
            for record in page.items
        ]
        return Reply({"Functions": items, "NextMarker": page.next_marker})

    def update_code(call: Call) -> Steps[Reply]:
        record = yield from functions.update_code_steps(call.caller, call.parameters)
        return Reply(function_configuration(record, functions.variables, _published(record.version)))

    def update_configuration(call: Call) -> Reply:
        record = functions.update_configuration(call.caller, call.parameters)
        return Reply(function_configuration(record, functions.variables))

    def delete(call: Call) -> Reply:
        functions.delete(call.caller, call.parameters)
        return Reply(None, 204)  # the model says 200, the service answers 204

    return {
        "CreateFunction": Supported(create),
        "GetFunction": Supported(get),
        "GetFunctionConfiguration": Supported(get_configuration),
        "ListFunctions": Supported(list_functions),
        "UpdateFunctionCode": Supported(update_code),
        "UpdateFunctionConfiguration": Supported(update_configuration),
        "DeleteFunction": Supported(delete),
    }


def _published(version: str) -> str | None:
    return None if version == LATEST else version
