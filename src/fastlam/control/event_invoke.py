"""Event invoke configurations: retries, age and destinations of asynchronous events, by qualifier."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from fastlam.arn import LATEST, FunctionAddress, parse_locator
from fastlam.clock import Clock, SystemClock
from fastlam.control.authorize import Caller
from fastlam.control.lookup import address_of, find, key_of
from fastlam.control.pages import Page, page
from fastlam.control.settings import Request
from fastlam.control.times import epoch_seconds
from fastlam.errors import ApiError, invalid_parameter, not_found
from fastlam.model.event_invoke import EventInvokeRecord
from fastlam.model.key import RecordKey
from fastlam.store.records import EVENT_INVOKE, RecordStore

_DESTINATIONS = ("lambda", "sqs", "sns", "events", "s3")


class EventInvokeConfigs:
    """Owner of the event invoke records."""

    def __init__(self, store: RecordStore, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()

    def put(self, caller: Caller, request: Request) -> EventInvokeRecord:
        """Replaces all there was."""
        _refuse_nothing(request)
        address = address_of(caller, request, "PutFunctionEventInvokeConfig")
        self._check_target(address)
        key = _key(address)
        record = EventInvokeRecord(
            account=key.account,
            region=key.region,
            function=key.name,
            qualifier=key.part,
            last_modified=epoch_seconds(self._clock),
            **self._fields(request, address),
        )
        self._store.put(EVENT_INVOKE, record)
        return record

    def update(self, caller: Caller, request: Request) -> EventInvokeRecord:
        """What the request does not say stays."""
        _refuse_nothing(request)
        address = address_of(caller, request, "UpdateFunctionEventInvokeConfig")
        current = self._existing(address)
        updated = replace(current, **self._fields(request, address), last_modified=epoch_seconds(self._clock))
        self._store.put(EVENT_INVOKE, updated)
        return updated

    def get(self, caller: Caller, request: Request) -> EventInvokeRecord:
        return self._existing(address_of(caller, request, "GetFunctionEventInvokeConfig"))

    def delete(self, caller: Caller, request: Request) -> None:
        record = self._existing(address_of(caller, request, "DeleteFunctionEventInvokeConfig"))
        self._store.delete(EVENT_INVOKE, record.key)

    def list(self, caller: Caller, request: Request) -> Page[EventInvokeRecord]:
        """`$LATEST`, the versions by number, the aliases by name."""
        address = address_of(caller, request, "ListFunctionEventInvokeConfigs")
        self._check_target(address)
        records = self._store.parts(EVENT_INVOKE, key_of(address))
        return page(request, sorted(records, key=_list_key), _list_key)

    # Inside ----------------------------------------------------------------------------------------

    def _check_target(self, address: FunctionAddress) -> None:
        if find(self._store, address) is None:
            raise not_found("The function doesn't exist.")

    def _existing(self, address: FunctionAddress) -> EventInvokeRecord:
        record = self._store.get(EVENT_INVOKE, _key(address))
        if record is None:
            raise not_found(f"The function {address.arn_with_version} doesn't have an EventInvokeConfig")
        return record

    def _fields(self, request: Request, address: FunctionAddress) -> dict[str, Any]:
        """The record's fields that the request sets; an empty destination clears."""
        fields: dict[str, Any] = {}
        if request.get("MaximumRetryAttempts") is not None:
            fields["maximum_retry_attempts"] = request["MaximumRetryAttempts"]
        if request.get("MaximumEventAgeInSeconds") is not None:
            fields["maximum_event_age_seconds"] = request["MaximumEventAgeInSeconds"]
        destinations = request.get("DestinationConfig") or {}
        given = {
            side: destination
            for side in ("OnSuccess", "OnFailure")
            if (destination := (destinations.get(side) or {}).get("Destination")) is not None
        }
        for side, destination in given.items():
            if destination:
                self._check_destination(destination, side, given, address)
        for side, field in (("OnSuccess", "on_success_arn"), ("OnFailure", "on_failure_arn")):
            if side in given:
                fields[field] = given[side]
        return fields

    def _check_destination(self, arn: str, side: str, given: dict[str, str], address: FunctionAddress) -> None:
        parts = arn.split(":", 5)
        service = parts[2] if len(parts) == 6 else ""
        if service not in _DESTINATIONS:
            raise invalid_parameter(f"The provided destination config {_shown(given)} is invalid.")
        resource = parts[5]
        if service == "sns" and resource.endswith(".fifo"):
            raise invalid_parameter("FIFO-type Amazon SNS topics aren't supported as a destination.")
        if (
            not resource
            or (service == "sqs" and resource.endswith(".fifo"))
            or (service == "s3" and side == "OnSuccess")
            or (service == "events" and not resource.startswith("event-bus/"))
        ):
            raise _invalid(arn)
        if service == "lambda":
            self._check_function(arn, address)

    def _check_function(self, arn: str, address: FunctionAddress) -> None:
        locator = parse_locator(arn)
        if locator is None or not arn.split(":", 5)[5].startswith("function:"):
            raise _invalid(arn)
        target = FunctionAddress(
            locator.account or address.account, locator.region or address.region, locator.name, locator.qualifier
        )
        if find(self._store, target) is None:
            raise _invalid(arn)
        if key_of(target) == key_of(address):
            raise invalid_parameter("You can't specify the function as a destination for itself.")


def _refuse_nothing(request: Request) -> None:
    destinations = request.get("DestinationConfig") or {}
    said = (
        request.get("MaximumRetryAttempts"),
        request.get("MaximumEventAgeInSeconds"),
        destinations.get("OnSuccess"),
        destinations.get("OnFailure"),
    )
    if all(each is None for each in said):
        raise invalid_parameter("You must specify at least one of error handling or destination setting.")


def _key(address: FunctionAddress) -> RecordKey:
    """No qualifier and `$LATEST` are the same here."""
    return key_of(address)._replace(part=address.qualifier or LATEST)


def _invalid(arn: str) -> ApiError:
    return invalid_parameter(f"The destination ARN {arn} is invalid.")


def _shown(given: dict[str, str]) -> str:
    """The destinations of a request as the service prints them."""
    success, failure = (
        f"{side}(destination={given[side]})" if side in given else "null" for side in ("OnSuccess", "OnFailure")
    )
    return f"DestinationConfig(onSuccess={success}, onFailure={failure})"


def _list_key(record: EventInvokeRecord) -> str:
    qualifier = record.qualifier
    if qualifier.startswith(LATEST):  # and what a managed function has published as its latest
        return f"0 {qualifier}"
    return f"1 {int(qualifier):020d}" if qualifier.isdecimal() else f"2 {qualifier}"
