"""Function URLs: the configuration of an HTTP address of a function, or of one of its aliases.

The two are independent, and the URL of an alias that is deleted stays configured.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from fastlam.arn import FunctionAddress
from fastlam.clock import Clock
from fastlam.control.authorize import Caller
from fastlam.control.lookup import address_of, find, found, key_of
from fastlam.control.pages import Page, page
from fastlam.control.settings import Request
from fastlam.control.tenancy import refuse_tenancy
from fastlam.control.times import timestamp_nanoseconds
from fastlam.errors import ApiError, conflict, invalid_parameter, not_found
from fastlam.model.function_url import BUFFERED, FunctionUrlRecord
from fastlam.model.key import RecordKey
from fastlam.store.records import FUNCTION, FUNCTION_URL, RecordStore

_ID_CHARACTERS: Final = string.ascii_lowercase + string.digits
_ID_LENGTH: Final = 32
_METHODS: Final = ("GET", "PUT", "HEAD", "POST", "PATCH", "DELETE", "*")


class FunctionUrls:
    """Owner of the URL configurations."""

    def __init__(self, store: RecordStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def create(self, caller: Caller, request: Request) -> FunctionUrlRecord:
        address = self._existing(caller, request, "CreateFunctionUrlConfig")
        refuse_tenancy(found(self._store, address).record, "A function URL")
        if self._store.get(FUNCTION_URL, _url_key(address)) is not None:
            raise conflict(
                f"Failed to create function url config for [functionArn = {address.arn}]. Error message: "
                " FunctionUrlConfig exists for this Lambda function"
            )
        now = timestamp_nanoseconds(self._clock)
        record = FunctionUrlRecord(
            account=address.account,
            region=address.region,
            function=address.name,
            qualifier=address.qualifier or "",
            url_id="".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH)),
            auth_type=request["AuthType"],
            cors=_cors(request.get("Cors")),
            invoke_mode=request.get("InvokeMode") or BUFFERED,
            created=now,
            last_modified=now,
        )
        self._store.put(FUNCTION_URL, record)
        return record

    def get(self, caller: Caller, request: Request) -> FunctionUrlRecord:
        return self._found(address_of(caller, request, "GetFunctionUrlConfig"))

    def update(self, caller: Caller, request: Request) -> FunctionUrlRecord:
        record = self._found(self._existing(caller, request, "UpdateFunctionUrlConfig"))
        fields: dict[str, Any] = {}
        if request.get("AuthType") is not None:
            fields["auth_type"] = request["AuthType"]
        if request.get("Cors") is not None:
            fields["cors"] = _cors(request["Cors"])
        if request.get("InvokeMode") is not None:
            fields["invoke_mode"] = request["InvokeMode"]
        updated = replace(record, **fields, last_modified=timestamp_nanoseconds(self._clock))
        self._store.put(FUNCTION_URL, updated)
        return updated

    def delete(self, caller: Caller, request: Request) -> None:
        record = self._found(address_of(caller, request, "DeleteFunctionUrlConfig"))
        self._store.delete(FUNCTION_URL, record.key)

    def list(self, caller: Caller, request: Request) -> Page[FunctionUrlRecord]:
        """The function's own first, then those of its aliases by name."""
        key = key_of(address_of(caller, request, "ListFunctionUrlConfigs"))
        if self._store.get(FUNCTION, key) is None:
            raise _no_function()
        return page(request, self._store.parts(FUNCTION_URL, key), lambda record: record.qualifier)

    def _existing(self, caller: Caller, request: Request, operation: str) -> FunctionAddress:
        """The address of a function, or of an alias, that exists."""
        address = address_of(caller, request, operation)
        if find(self._store, address) is None:
            raise _no_function()
        return address

    def _found(self, address: FunctionAddress) -> FunctionUrlRecord:
        record = self._store.get(FUNCTION_URL, _url_key(address))
        if record is None:
            raise not_found("The resource you requested does not exist.")
        return record


def _url_key(address: FunctionAddress) -> RecordKey:
    return key_of(address)._replace(part=address.qualifier or "")


def _no_function() -> ApiError:
    return not_found("Function does not exist")


def _cors(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """{} clears."""
    if not given:
        return None
    unknown = [method for method in given.get("AllowMethods", ()) if method not in _METHODS]
    if unknown:
        raise invalid_parameter(
            f"Value '{unknown[0]}' at 'cors.allowMethods' failed to satisfy constraint: Member must satisfy enum value"
            f" set: [{', '.join(_METHODS)}]"
        )
    return dict(given)
