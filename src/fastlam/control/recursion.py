"""Recursion: whether a function that keeps invoking itself is stopped."""

from __future__ import annotations

from fastlam.control.authorize import Caller
from fastlam.control.lookup import address_of, function_of
from fastlam.control.settings import Request
from fastlam.model.recursion import TERMINATE, RecursionRecord
from fastlam.store.records import RECURSION, RecordStore


class Recursion:
    """Owner of the settings."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store

    def put(self, caller: Caller, request: Request) -> str:
        function = function_of(self._store, address_of(caller, request, "PutFunctionRecursionConfig"))
        record = RecursionRecord(
            account=function.account,
            region=function.region,
            function=function.name,
            recursive_loop=request["RecursiveLoop"],
        )
        self._store.put(RECURSION, record)
        return record.recursive_loop

    def get(self, caller: Caller, request: Request) -> str:
        function = function_of(self._store, address_of(caller, request, "GetFunctionRecursionConfig"))
        record = self._store.get(RECURSION, function.key)
        return record.recursive_loop if record else TERMINATE
