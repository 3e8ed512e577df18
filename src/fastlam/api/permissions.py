"""The operations on resource policies over HTTP, and what these policies say to every other operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastlam.api.support import Call, Entries, Entry, Handler, Reply, Supported
from fastlam.arn import FunctionAddress, resolve
from fastlam.control.authorize import Caller, action_of
from fastlam.control.permissions import Permissions, PolicyView, is_function_arn
from fastlam.control.policy_document import text_of
from fastlam.control.steps import Steps


def entries(permissions: Permissions) -> Entries:
    def add(call: Call) -> Reply:
        return Reply({"Statement": text_of(permissions.add(call.caller, call.parameters))})

    def remove(call: Call) -> Reply:
        permissions.remove(call.caller, call.parameters)
        return Reply(None)

    def get(call: Call) -> Reply:
        return _policy(permissions.get(call.caller, call.parameters))

    def get_document(call: Call) -> Reply:
        return _policy(permissions.get_document(call.caller, call.parameters))

    def put_document(call: Call) -> Reply:
        return _policy(permissions.put_document(call.caller, call.parameters))

    def delete_document(call: Call) -> Reply:
        permissions.delete_document(call.caller, call.parameters)
        return Reply(None)

    return {
        "AddPermission": Supported(add),
        "RemovePermission": Supported(remove),
        "GetPolicy": Supported(get),
        "GetResourcePolicy": Supported(get_document),
        "PutResourcePolicy": Supported(put_document),
        "DeleteResourcePolicy": Supported(delete_document),
    }


def _policy(view: PolicyView) -> Reply:
    return Reply({"Policy": text_of(view.document), "RevisionId": view.revision_id})


# ---- every operation -------------------------------------------------------------------------------


def guarded(permissions: Permissions, entries: Entries) -> Entries:
    """The same operations, each of which first asks the resource policy of the function that it is about.

    Whom the policy of another account's function lets in acts there like somebody of that account.
    """
    return {name: _guarded(permissions, entry) for name, entry in entries.items()}


def _guarded(permissions: Permissions, entry: Entry) -> Entry:
    handler: Handler = entry.handler

    def guard(call: Call) -> Reply | Steps[Reply]:
        address = addressed(call.caller, call.operation.name, call.parameters)
        if address is not None:
            permissions.check(call.caller, action_of(call.operation.name), address)
            if address.account != call.caller.account:
                call = call._replace(caller=call.caller._replace(account=address.account))
        return handler(call)

    return entry._replace(handler=guard)


def addressed(caller: Caller, operation: str, parameters: Mapping[str, Any]) -> FunctionAddress | None:
    """The function, of whatever account, that an operation is about; None where it is about none."""
    text = parameters.get("FunctionName")
    if text is None:
        text = parameters.get("ResourceArn") or parameters.get("Resource")
        if not isinstance(text, str) or not is_function_arn(text):
            return None
    return resolve(
        text,
        parameters.get("Qualifier"),
        account=caller.account,
        region=caller.region,
        principal=caller.principal,
        action=action_of(operation),
        creating=operation == "CreateFunction",
        any_account=True,
    )
