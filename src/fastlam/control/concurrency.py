"""Concurrency of an account and region: how it is divided, and the part of it that is reserved for one function."""

from __future__ import annotations

from uuid import uuid4

from msgspec.structs import replace

from fastlam import limits
from fastlam.arn import FunctionAddress
from fastlam.control.authorize import Caller
from fastlam.control.lookup import address_of, function_of
from fastlam.control.settings import Request
from fastlam.errors import invalid_parameter
from fastlam.model.concurrency import ReservedConcurrencyRecord
from fastlam.model.function import FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.store.records import FUNCTION, PROVISIONED_CONCURRENCY, RESERVED_CONCURRENCY, RecordStore, Write


class AccountConcurrency:
    """Reads off the records what is set aside for whom.

        account limit = reserved (function by function) + provisioned (of functions without a reservation) + unreserved

    Provisioned concurrency of a function with a reservation is a part of that reservation.
    """

    def __init__(self, store: RecordStore, limit: int = limits.ACCOUNT_CONCURRENCY) -> None:
        self._store = store
        self.limit = limit

    def unreserved(self, account: str, region: str, *, besides: RecordKey | None = None) -> int:
        """What is left for the functions without a reservation. The record that has the key `besides`, a reservation
        (a function's key) or a provisioned configuration (a qualifier's), is taken as if it were not there.
        """
        reservations = self._store.list(RESERVED_CONCURRENCY, account, region)
        owners = {reservation.name for reservation in reservations}
        reserved = sum(reservation.concurrency for reservation in reservations if reservation.key != besides)
        provisioned = sum(
            config.requested
            for config in self._store.list(PROVISIONED_CONCURRENCY, account, region)
            if config.function not in owners and config.key != besides
        )
        return self.limit - reserved - provisioned

    def provisioned(self, function: RecordKey, *, besides: RecordKey | None = None) -> int:
        """Of all versions and aliases of one function together."""
        return sum(
            config.requested for config in self._store.parts(PROVISIONED_CONCURRENCY, function) if config.key != besides
        )


class ReservedConcurrency:
    """Owner of the reservations. A change gives the function a new RevisionId and touches nothing else of it."""

    def __init__(
        self,
        store: RecordStore,
        *,
        account_concurrency: int = limits.ACCOUNT_CONCURRENCY,
        account: AccountConcurrency | None = None,
    ) -> None:
        self._store = store
        self._account = account or AccountConcurrency(store, account_concurrency)

    def put(self, caller: Caller, request: Request) -> int:
        address = self._address(caller, request, "PutFunctionConcurrency")
        function = function_of(self._store, address, address.arn_with_version)
        wanted: int = request["ReservedConcurrentExecutions"]
        if function.capacity_provider_config is not None:
            raise invalid_parameter("Reserved concurrency isn't supported for Lambda Managed Instances functions.")
        provisioned = self._account.provisioned(function.key)
        if wanted < provisioned:
            raise invalid_parameter(  # the spaces are the service's
                f" ReservedConcurrentExecutions  {wanted} should not be lower than function's total provisioned"
                f" concurrency [{provisioned}].",
                typed=False,
            )
        left = self._account.unreserved(address.account, address.region, besides=function.key)
        current = self._store.get(RESERVED_CONCURRENCY, function.key)
        if current is None:
            left += provisioned  # which becomes a part of the reservation
        if left - wanted < limits.UNRESERVED_CONCURRENCY_MIN:
            raise invalid_parameter(
                "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution"
                f" below its minimum value of [{limits.UNRESERVED_CONCURRENCY_MIN}].",
                typed=False,
            )
        if current is None or current.concurrency != wanted:
            record = ReservedConcurrencyRecord(
                account=address.account, region=address.region, name=address.name, concurrency=wanted
            )
            self._change(function, record)
        return wanted

    def get(self, caller: Caller, request: Request) -> int | None:
        address = self._address(caller, request, "GetFunctionConcurrency")
        function = function_of(self._store, address)
        reservation = self._store.get(RESERVED_CONCURRENCY, function.key)
        return reservation.concurrency if reservation else None

    def delete(self, caller: Caller, request: Request) -> None:
        address = self._address(caller, request, "DeleteFunctionConcurrency")
        function = function_of(self._store, address)
        if self._store.get(RESERVED_CONCURRENCY, function.key) is not None:
            self._change(function, None)

    def _address(self, caller: Caller, request: Request, operation: str) -> FunctionAddress:
        address = address_of(caller, request, operation)
        if address.qualifier is not None:
            raise of_functions_only()
        return address

    def _change(self, function: FunctionRecord, record: ReservedConcurrencyRecord | None) -> None:
        rotated = replace(function, revision_id=str(uuid4()))
        self._store.apply([Write(RESERVED_CONCURRENCY, function.key, record), Write(FUNCTION, function.key, rotated)])


def of_functions_only() -> Exception:
    """For a version or alias where only a function can be meant."""
    return invalid_parameter(
        "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation."
        " Please specify either a function name or an unqualified function ARN."
    )
