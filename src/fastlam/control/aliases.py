"""Aliases: names for published versions, with a second version for a part of the invocations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from msgspec.structs import replace

from fastlam.arn import LATEST, FunctionAddress, function_arn
from fastlam.control.authorize import Caller
from fastlam.control.lookup import address_of, check_revision, function_of, key_of
from fastlam.control.pages import Page, page
from fastlam.control.settings import Request
from fastlam.errors import conflict, function_not_found, invalid_parameter, not_found
from fastlam.model.alias import AliasRecord
from fastlam.model.key import RecordKey
from fastlam.store.records import ALIAS, FUNCTION, KINDS, VERSION, RecordStore, Write

_ALIASES_PER_PAGE_MAX = 10_000


class Aliases:
    """Owner of the alias records."""

    def __init__(self, store: RecordStore, check_move: Callable[[AliasRecord], object] = lambda alias: None) -> None:
        """`check_move` raises where an alias, as it is to become, may not lead."""
        self._store = store
        self._check_move = check_move

    def create(self, caller: Caller, request: Request) -> AliasRecord:
        address = address_of(caller, request, "CreateAlias")
        version = request["FunctionVersion"]
        function_of(self._store, address, function_arn(address.region, address.account, address.name, version))
        key = key_of(address)._replace(part=request["Name"])
        self._check_version(key, version)
        alias = AliasRecord(
            account=address.account,
            region=address.region,
            function=address.name,
            name=request["Name"],
            function_version=version,
            additional_weights=self._weights(request, key, version, {}),
            description=request.get("Description") or "",
            revision_id=str(uuid4()),
        )
        if self._store.get(ALIAS, key) is not None:
            raise conflict(f"Alias already exists: {alias.arn}")
        self._store.put(ALIAS, alias)
        return alias

    def get(self, caller: Caller, request: Request) -> AliasRecord:
        address = address_of(caller, request, "GetAlias")
        alias = self._store.get(ALIAS, key_of(address)._replace(part=request["Name"]))
        if alias is None:
            raise not_found(f"Cannot find alias arn: {_alias_arn(address, request)}")
        return alias

    def update(self, caller: Caller, request: Request) -> AliasRecord:
        address = address_of(caller, request, "UpdateAlias")
        key = key_of(address)._replace(part=request["Name"])
        alias = self._store.get(ALIAS, key)
        if alias is None:
            raise not_found(f"Alias not found: {_alias_arn(address, request)}")
        check_revision(request, alias.revision_id)
        version = request.get("FunctionVersion") or alias.function_version
        self._check_version(key, version)
        fields: dict[str, Any] = {
            "function_version": version,
            "additional_weights": self._weights(request, key, version, alias.additional_weights),
            "revision_id": str(uuid4()),
        }
        if request.get("Description") is not None:
            fields["description"] = request["Description"]
        updated = replace(alias, **fields)
        if updated.versions != alias.versions:
            self._check_move(updated)
        self._store.put(ALIAS, updated)
        return updated

    def delete(self, caller: Caller, request: Request) -> None:
        """Of an alias that is not there, too. What was set for the alias goes with it."""
        key = key_of(address_of(caller, request, "DeleteAlias"))._replace(part=request["Name"])
        if self._store.get(ALIAS, key) is not None:
            self._store.apply(Write(kind, key, None) for kind in KINDS if kind.of_qualifier)

    def list(self, caller: Caller, request: Request) -> Page[AliasRecord]:
        function = function_of(self._store, address_of(caller, request, "ListAliases"))
        aliases = self._store.parts(ALIAS, function.key)
        version = request.get("FunctionVersion")
        if version is not None:
            aliases = [alias for alias in aliases if version in alias.versions]
        return page(request, aliases, lambda alias: alias.name, items_max=_ALIASES_PER_PAGE_MAX)

    # Inside ----------------------------------------------------------------------------------------

    def _check_version(self, key: RecordKey, version: str) -> None:
        exists = (
            self._store.get(FUNCTION, key.owner) is not None
            if version == LATEST
            else self._store.get(VERSION, key._replace(part=version)) is not None
        )
        if not exists:
            raise function_not_found(function_arn(key.region, key.account, key.name, version))

    def _weights(self, request: Request, key: RecordKey, version: str, current: dict[str, float]) -> dict[str, float]:
        """The routing that the request asks for; `current` stays when it says nothing, {} clears."""
        routing = request.get("RoutingConfig")
        weights = current if routing is None else dict(routing.get("AdditionalVersionWeights") or {})
        if not weights:
            return {}
        if len(weights) > 1:
            raise invalid_parameter("Number of items in AdditionalVersionWeights cannot be greater than 1")
        if version == LATEST:
            raise invalid_parameter(
                "$LATEST is not supported for an alias pointing to more than 1 version", typed=False
            )
        (other,) = weights
        if other == version:
            raise invalid_parameter(
                f"Invalid function version {version}. Function version {version} is already included in routing"
                " configuration."
            )
        self._check_version(key, other)
        self._check_alike(key, version, other)
        return weights

    def _check_alike(self, key: RecordKey, version: str, other: str) -> None:
        """Two versions behind one alias have one role and one dead-letter queue."""
        first = self._store.get(VERSION, key._replace(part=version))
        second = self._store.get(VERSION, key._replace(part=other))
        if first is None or second is None:
            return
        if first.role != second.role:
            raise invalid_parameter(
                f"Function versions {version} and {other} must have the same execution role to share an alias."
            )
        if first.dead_letter_target_arn != second.dead_letter_target_arn:
            raise invalid_parameter(
                f"Function versions {version} and {other} must have the same dead-letter queue to share an alias."
            )


def _alias_arn(address: FunctionAddress, request: Request) -> str:
    return function_arn(address.region, address.account, address.name, request["Name"])
