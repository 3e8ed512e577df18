"""What holds for the events of one qualifier: retries, age, and where they go afterwards."""

from __future__ import annotations

from typing import Protocol

import msgspec

from fastlam import limits
from fastlam.arn import LATEST, FunctionAddress
from fastlam.model.event_invoke import EventInvokeRecord
from fastlam.model.recursion import ALLOW
from fastlam.store.finding import find_version, key_of
from fastlam.store.records import EVENT_INVOKE, RECURSION, RecordStore


class EventSettings(msgspec.Struct, frozen=True, array_like=True):
    """As they are when they are asked for. A copy travels with each event, for the time after its function is gone."""

    retries: int = limits.EVENT_RETRIES_MAX
    age_seconds: int = limits.EVENT_AGE_SECONDS_MAX
    on_success_arn: str = ""
    on_failure_arn: str = ""
    dead_letter_arn: str = ""  # of the version that is executed
    role_arn: str = ""
    traced: bool = False
    loops_allowed: bool = False


DEFAULT = EventSettings()


class SettingsSource(Protocol):
    def of(self, address: FunctionAddress, version: str) -> EventSettings | None:
        """For events that come by this address and run that version; None when the version is gone."""


class StoredSettings:
    """From the records of the control plane."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store

    def of(self, address: FunctionAddress, version: str) -> EventSettings | None:
        key = key_of(address)
        function = find_version(self._store, key, version)
        if function is None:
            return None
        config: EventInvokeRecord | None = self._store.get(EVENT_INVOKE, key._replace(part=address.qualifier or LATEST))
        recursion = self._store.get(RECURSION, key)
        retries = age_seconds = None
        if config is not None:
            retries, age_seconds = config.maximum_retry_attempts, config.maximum_event_age_seconds
        return EventSettings(
            retries=DEFAULT.retries if retries is None else retries,
            age_seconds=DEFAULT.age_seconds if age_seconds is None else age_seconds,
            on_success_arn="" if config is None else config.on_success_arn,
            on_failure_arn="" if config is None else config.on_failure_arn,
            dead_letter_arn=function.dead_letter_target_arn,
            role_arn=function.role,
            traced=function.tracing_mode == "Active",
            loops_allowed=recursion is not None and recursion.recursive_loop == ALLOW,
        )
