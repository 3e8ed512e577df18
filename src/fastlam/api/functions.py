"""The function operations over HTTP."""

from __future__ import annotations

from fastlam.api.code import CodeLinks
from fastlam.api.rendering import function_configuration, function_with_code, listed_function
from fastlam.api.router import Call, Handler, Reply
from fastlam.control.functions import Functions
from fastlam.control.steps import Steps


def handlers(functions: Functions, links: CodeLinks) -> dict[str, Handler]:
    def create(call: Call) -> Steps[Reply]:
        record = yield from functions.create_steps(call.caller, call.parameters)
        return Reply(function_configuration(record))

    def get(call: Call) -> Reply:
        view = functions.get(call.caller, call.parameters)
        return Reply(function_with_code(view, links.location(call.request, view.record.artifact)))

    def get_configuration(call: Call) -> Reply:
        view = functions.get(call.caller, call.parameters, call.operation.name)
        return Reply(function_configuration(view.record, view.qualifier))

    def list_functions(call: Call) -> Reply:
        page = functions.list(call.caller, call.parameters)
        all_versions = call.parameters.get("FunctionVersion") == "ALL"
        body: dict[str, object] = {
            "Functions": [listed_function(record, all_versions=all_versions) for record in page.records]
        }
        if page.next_marker is not None:
            body["NextMarker"] = page.next_marker
        return Reply(body)

    def update_code(call: Call) -> Steps[Reply]:
        record = yield from functions.update_code_steps(call.caller, call.parameters)
        return Reply(function_configuration(record))

    def update_configuration(call: Call) -> Reply:
        return Reply(function_configuration(functions.update_configuration(call.caller, call.parameters)))

    def delete(call: Call) -> Reply:
        functions.delete(call.caller, call.parameters)
        return Reply(None, 204)  # the model says 200, the service answers 204

    return {
        "CreateFunction": create,
        "GetFunction": get,
        "GetFunctionConfiguration": get_configuration,
        "ListFunctions": list_functions,
        "UpdateFunctionCode": update_code,
        "UpdateFunctionConfiguration": update_configuration,
        "DeleteFunction": delete,
    }
