"""From an address to the records that it leads to: the one place where versions and aliases are followed."""

from __future__ import annotations

from typing import NamedTuple

from fastlam.arn import LATEST, FunctionAddress
from fastlam.model.alias import AliasRecord
from fastlam.model.capacity_provider import LATEST_PUBLISHED
from fastlam.model.function import FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.store.records import ALIAS, FUNCTION, VERSION, RecordStore


class Found(NamedTuple):
    """What an address leads to."""

    record: FunctionRecord  # $LATEST, or the version (that the alias points at)
    alias: AliasRecord | None


def key_of(address: FunctionAddress) -> RecordKey:
    """Of the function, whatever the qualifier."""
    return RecordKey(address.account, address.region, address.name)


def find(store: RecordStore, address: FunctionAddress) -> Found | None:
    """`$LATEST` without a qualifier, a version by its number, else what an alias points at."""
    key = key_of(address)
    if address.qualifier is None or address.qualifier == LATEST:
        record = store.get(FUNCTION, key)
        return None if record is None else Found(record, None)
    version, alias = address.qualifier, None
    if not version.isdecimal() and version != LATEST_PUBLISHED:
        alias = store.get(ALIAS, key._replace(part=version))
        if alias is None:
            return None
        version = alias.function_version
    record = find_version(store, key, version)
    return None if record is None else Found(record, alias)


def find_version(store: RecordStore, key: RecordKey, version: str) -> FunctionRecord | None:
    """One version of the function at `key`; `$LATEST` is one too."""
    if version == LATEST:
        return store.get(FUNCTION, key.owner)
    return store.get(VERSION, key._replace(part=version))
