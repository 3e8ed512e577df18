"""Durable executions: every request about one is read and checked, and answered with the truth, that there is none.

Executing durable functions comes later. Until then no execution can exist, no token or callback of one is good, and
each refusal says why. What a request itself has wrong is found first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

import msgspec

from fastlam import limits
from fastlam.arn import denied_by_resource_policy
from fastlam.control.authorize import Caller, action_of
from fastlam.control.lookup import address_of, found
from fastlam.control.pages import Page, page
from fastlam.control.settings import Request
from fastlam.errors import invalid_parameter, not_found, serialization, validation
from fastlam.store.records import RecordStore

Update = Mapping[str, Any]

_WHY: Final = "fastlam does not execute durable functions yet."
_ACTIONS: Final[Mapping[str, frozenset[str]]] = {
    "EXECUTION": frozenset({"SUCCEED", "FAIL"}),
    "CONTEXT": frozenset({"START", "SUCCEED", "FAIL"}),
    "STEP": frozenset({"START", "SUCCEED", "FAIL", "RETRY"}),
    "WAIT": frozenset({"START", "CANCEL"}),
    "CALLBACK": frozenset({"START"}),
    "CHAINED_INVOKE": frozenset({"START", "CANCEL"}),
}
# What may be started and ended by one checkpoint.
_SHORT: Final = frozenset({"STEP", "CONTEXT"})


class DurableExecutions:
    """Owns nothing yet."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store

    def list(self, caller: Caller, request: Request) -> Page[Any]:
        """Of a function, or of one qualifier of it, that exists."""
        found(self._store, address_of(caller, request, "ListDurableExecutionsByFunction"))
        after, before = (_moment(request.get(member), member) for member in ("StartedAfter", "StartedBefore"))
        if after is not None and before is not None and after > before:
            raise invalid_parameter("StartedAfter must not be later than StartedBefore.")
        return page(request, [], str, items_max=limits.DURABLE_PAGE_ITEMS_MAX)

    def refuse_execution(self, caller: Caller, request: Request, operation: str) -> NoReturn:
        """For an execution's ARN."""
        arn = _own(caller, request, operation)
        page(request, [], str)  # which looks at the marker
        _check_error(request.get("Error"))
        raise not_found(f"Durable execution not found: {arn}. {_WHY}")

    def refuse_token(self, caller: Caller, request: Request, operation: str) -> NoReturn:
        """For an execution's ARN with a checkpoint token."""
        _own(caller, request, operation)
        page(request, [], str)
        check_updates(request.get("Updates") or [])
        raise invalid_parameter(f"Invalid checkpoint token. {_WHY}")

    def refuse_callback(self, caller: Caller, request: Request, operation: str) -> NoReturn:
        """For the id of a callback."""
        _check_error(request.get("Error"))
        result = request.get("Result")
        if result is not None and len(result) > limits.DURABLE_RESULT_BYTES_MAX:
            raise validation(
                [
                    "Value at 'result' failed to satisfy constraint: Member must have length less than or equal to"
                    f" {limits.DURABLE_RESULT_BYTES_MAX}"
                ]
            )
        raise invalid_parameter(f"Invalid callback id. {_WHY}")


def _own(caller: Caller, request: Request, operation: str) -> str:
    """The execution's ARN, which must be of the caller's account and region."""
    arn: str = request["DurableExecutionArn"]
    region, account = arn.split(":")[3:5]
    if region != caller.region:
        raise not_found(f"Functions from '{region}' are not reachable in this region ('{caller.region}')")
    if account != caller.account:
        raise denied_by_resource_policy(caller.principal, action_of(operation), arn)
    return arn


def _moment(text: str | None, member: str) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise serialization(f"{member}: STRING_VALUE can not be converted to a Timestamp") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# Checkpoints -----------------------------------------------------------------------------------------


def check_updates(updates: Sequence[Update]) -> None:
    """Refuse what no state of an execution could make right."""
    executions = [number for number, update in enumerate(updates) if update["Type"] == "EXECUTION"]
    if len(executions) > 1:
        raise invalid_parameter("Cannot checkpoint multiple EXECUTION updates.")
    if executions and executions[0] != len(updates) - 1:
        raise invalid_parameter("EXECUTION checkpoint must be the last update.")
    earlier: dict[str, list[Update]] = {}
    for update in updates:
        _check_update(update)
        _check_parent(update, earlier)
        _check_repeated(update, earlier.setdefault(update["Id"], []))
        earlier[update["Id"]].append(update)


def _check_update(update: Update) -> None:
    kind, action = update["Type"], update["Action"]
    payload, error = update.get("Payload"), update.get("Error")
    if action not in _ACTIONS[kind]:
        raise invalid_parameter(f"Invalid {kind} action.")
    _check_error(error)
    if action == "FAIL" and payload is not None:
        raise invalid_parameter("Cannot provide a Payload for FAIL action.")
    if action == "SUCCEED" and error is not None:
        raise invalid_parameter("Cannot provide an Error for SUCCEED action.")
    if action == "RETRY" and payload is not None and error is not None:
        raise invalid_parameter("Cannot provide both error and payload to RETRY a STEP.")
    if kind == "STEP" and (update.get("StepOptions") is not None) != (action == "RETRY"):
        raise invalid_parameter("Invalid StepOptions for the given action.")
    for started, options in (("WAIT", "WaitOptions"), ("CHAINED_INVOKE", "ChainedInvokeOptions")):
        if kind == started and action == "START" and not update.get(options):
            raise invalid_parameter(f"{options} must be provided to START a {kind}.")


def _check_parent(update: Update, earlier: Mapping[str, Sequence[Update]]) -> None:
    """A parent may stand in an earlier checkpoint; one that stands in this one must be a context."""
    parent = update.get("ParentId")
    if parent is not None and (
        parent == update["Id"] or any(each["Type"] != "CONTEXT" for each in earlier.get(parent, ()))
    ):
        raise invalid_parameter("Invalid parent operation id.")


def _check_repeated(update: Update, same: Sequence[Update]) -> None:
    """One operation may come twice: a step or context that is started and ended at once."""
    if not same:
        return
    first = same[0]
    for member, subject in (("Type", "operation type"), ("SubType", "operation subtype"), ("Name", "operation name")):
        if update.get(member) != first.get(member):
            raise invalid_parameter(f"Inconsistent {subject}.")
    if update.get("ParentId") != first.get("ParentId"):
        raise invalid_parameter("Inconsistent parent operation id.")
    if len(same) > 1 or update["Type"] not in _SHORT or first["Action"] != "START" or update["Action"] == "START":
        raise invalid_parameter("Cannot checkpoint multiple operations with the same ID.")


def _check_error(error: Mapping[str, Any] | None) -> None:
    if error is not None and len(msgspec.json.encode(error)) >= limits.DURABLE_ERROR_BYTES_MAX:
        raise invalid_parameter(f"Error object size must be less than {limits.DURABLE_ERROR_BYTES_MAX} bytes.")
