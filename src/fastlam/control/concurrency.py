"""Reserved concurrency: the part of the account's concurrency that is set aside for one function, and bounds it."""

from __future__ import annotations

from uuid import uuid4

from msgspec.structs import replace

from fastlam import limits
from fastlam.arn import FunctionAddress
from fastlam.control.authorize import Caller
from fastlam.control.functions import address_of
from fastlam.control.settings import Request
from fastlam.errors import function_not_found, invalid_parameter
from fastlam.model.function import FunctionKey, FunctionRecord, ReservedConcurrencyRecord
from fastlam.store.records import FUNCTION, RESERVED_CONCURRENCY, RecordStore, Write


class ReservedConcurrency:
    """Owner of the reservations. A change gives the function a new RevisionId and touches nothing else of it."""

    def __init__(self, store: RecordStore, *, account_concurrency: int = limits.ACCOUNT_CONCURRENCY) -> None:
        self._store = store
        self._account_concurrency = account_concurrency

    def put(self, caller: Caller, request: Request) -> int:
        address = self._address(caller, request, "PutFunctionConcurrency")
        function = self._function(address, address.arn_with_version)
        wanted: int = request["ReservedConcurrentExecutions"]
        reservations = self._store.list(RESERVED_CONCURRENCY, address.account, address.region)
        others = sum(reservation.concurrency for reservation in reservations if reservation.name != address.name)
        if wanted > self._account_concurrency - others - limits.UNRESERVED_CONCURRENCY_MIN:
            raise invalid_parameter(
                "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution"
                " below"
                f" its minimum value of [{limits.UNRESERVED_CONCURRENCY_MIN}].",
                typed=False,
            )
        current = self._store.get(RESERVED_CONCURRENCY, function.key)
        if current is None or current.concurrency != wanted:
            record = ReservedConcurrencyRecord(
                account=address.account, region=address.region, name=address.name, concurrency=wanted
            )
            self._change(function, record)
        return wanted

    def get(self, caller: Caller, request: Request) -> int | None:
        address = self._address(caller, request, "GetFunctionConcurrency")
        function = self._function(address, address.unqualified_arn)
        reservation = self._store.get(RESERVED_CONCURRENCY, function.key)
        return reservation.concurrency if reservation else None

    def delete(self, caller: Caller, request: Request) -> None:
        address = self._address(caller, request, "DeleteFunctionConcurrency")
        function = self._function(address, address.unqualified_arn)
        if self._store.get(RESERVED_CONCURRENCY, function.key) is not None:
            self._change(function, None)

    def _address(self, caller: Caller, request: Request, operation: str) -> FunctionAddress:
        address = address_of(caller, request, operation)
        if address.qualifier is not None:
            raise invalid_parameter(
                "This operation is permitted on Lambda functions only. Aliases and versions do not support this"
                " operation."
                " Please specify either a function name or an unqualified function ARN."
            )
        return address

    def _function(self, address: FunctionAddress, arn: str) -> FunctionRecord:
        function = self._store.get(FUNCTION, FunctionKey(address.account, address.region, address.name))
        if function is None:
            raise function_not_found(arn)
        return function

    def _change(self, function: FunctionRecord, record: ReservedConcurrencyRecord | None) -> None:
        rotated = replace(function, revision_id=str(uuid4()))
        self._store.apply([Write(RESERVED_CONCURRENCY, function.key, record), Write(FUNCTION, function.key, rotated)])
