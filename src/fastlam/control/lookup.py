"""From what a request says to the records it means."""

from __future__ import annotations

from typing import Final

from fastlam.arn import FunctionAddress, resolve
from fastlam.control.authorize import Caller, action_of
from fastlam.control.settings import Request
from fastlam.errors import function_not_found, invalid_parameter, stale_revision
from fastlam.model.function import FunctionRecord
from fastlam.store.finding import Found, find, key_of
from fastlam.store.records import FUNCTION, RecordStore

__all__ = ["Found", "address_of", "check_revision", "find", "found", "function_of", "key_of"]

_NAME_LENGTH_MAX: Final = 64


def address_of(caller: Caller, request: Request, operation: str, *, creating: bool = False) -> FunctionAddress:
    """The function a request is about, as its caller means it."""
    name: str = request["FunctionName"]
    address = resolve(
        name,
        request.get("Qualifier"),
        account=caller.account,
        region=caller.region,
        principal=caller.principal,
        action=action_of(operation),
        creating=creating,
    )
    if creating and len(address.name) > _NAME_LENGTH_MAX:
        raise invalid_parameter(
            f"1 validation error detected: Value '{address.name}' at 'functionName' failed to satisfy constraint:"
            f" Member must have length less than or equal to {_NAME_LENGTH_MAX}"
        )
    return address


def function_of(store: RecordStore, address: FunctionAddress, arn: str | None = None) -> FunctionRecord:
    """`$LATEST` of the function, whatever the qualifier; the refusal names `arn`, by default the unqualified one."""
    record = store.get(FUNCTION, key_of(address))
    if record is None:
        raise function_not_found(arn or address.unqualified_arn)
    return record


def found(store: RecordStore, address: FunctionAddress) -> Found:
    """What the address leads to; raises the service's refusal."""
    result = find(store, address)
    if result is None:
        raise function_not_found(address.arn)
    return result


def check_revision(request: Request, revision_id: str) -> None:
    if request.get("RevisionId") is not None and request["RevisionId"] != revision_id:
        raise stale_revision()
