"""Account settings: the limits of an account in one region, and what it uses of them."""

from __future__ import annotations

from typing import NamedTuple

from fastlam.clock import Clock, SystemClock
from fastlam.control.authorize import Caller
from fastlam.control.concurrency import AccountConcurrency
from fastlam.control.runtimes import is_deprecated
from fastlam.control.storage import stored_bytes
from fastlam.control.times import today
from fastlam.store.records import FUNCTION, RecordStore


class AccountUsage(NamedTuple):
    """What an account has and uses."""

    concurrency: int
    unreserved_concurrency: int
    code_bytes: int  # of functions, versions and layer versions
    functions: int
    has_deprecated_runtime: bool = False  # one of the functions


class AccountSettings:
    """Counts what is there; keeps nothing."""

    def __init__(self, store: RecordStore, concurrency: AccountConcurrency, clock: Clock | None = None) -> None:
        self._store = store
        self._concurrency = concurrency
        self._clock = clock or SystemClock()

    def get(self, caller: Caller) -> AccountUsage:
        functions = self._store.list(FUNCTION, caller.account, caller.region)
        day = today(self._clock)
        return AccountUsage(
            concurrency=self._concurrency.limit,
            # negative after a start with a lower limit than the one that reservations were made under
            unreserved_concurrency=max(0, self._concurrency.unreserved(caller.account, caller.region)),
            code_bytes=stored_bytes(self._store, caller.account, caller.region),
            functions=len(functions),
            has_deprecated_runtime=any(is_deprecated(function.runtime, day) for function in functions),
        )
