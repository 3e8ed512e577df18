"""Scaling of function versions on capacity providers: how many environments each has at least and at most.

    Put… with maximum 0 ── Deactivating ──(a moment)──► Deactivated
    Put… with more      ── Pending ──(a moment)──► Active

The moment is scheduled; what a stopped process left in between is settled when its successor starts.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from msgspec.structs import replace

from fastlam import limits
from fastlam.clock import Schedule
from fastlam.control.authorize import Caller
from fastlam.control.lookup import address_of, key_of
from fastlam.control.settings import Request
from fastlam.control.versions import busy
from fastlam.errors import function_not_found, invalid_parameter
from fastlam.model.capacity_provider import DEACTIVATED, DEACTIVATING
from fastlam.model.function import ACTIVE, PENDING, FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.model.scaling import FunctionScalingRecord, Scale
from fastlam.store.records import FUNCTION_SCALING, VERSION, Change, RecordStore, Write


class FunctionScaling:
    """Owner of the settings. `$LATEST.PUBLISHED` keeps its own from one publication to the next."""

    def __init__(self, store: RecordStore, schedule: Schedule) -> None:
        self._store = store
        self._schedule = schedule
        for record in store.all(FUNCTION_SCALING):
            self._settle(record.key)
        store.watch(self._published_again)

    def put(self, caller: Caller, request: Request) -> str:
        """The state that the version has now."""
        version = self._version(caller, request, "PutFunctionScalingConfig")
        wanted = _scale(request.get("FunctionScalingConfig") or {})
        if not version.settled or version.state == DEACTIVATING:
            raise busy(version)
        before = self.scale_of(version)
        record = FunctionScalingRecord(
            account=version.account,
            region=version.region,
            function=version.name,
            qualifier=version.version,
            requested=wanted,
            applied=before.applied,
        )
        state = version.state
        writes = [Write(FUNCTION_SCALING, record.key, record)]
        if wanted.off and state != DEACTIVATED:
            state = DEACTIVATING
        elif not wanted.off and state == DEACTIVATED:
            state = PENDING
        if state != version.state:
            writes.append(Write(VERSION, version.key, _in_state(version, state)))
        self._store.apply(writes)
        self._schedule(limits.STATE_CHANGE_SECONDS, lambda: self._settle(record.key))
        return state

    def get(self, caller: Caller, request: Request) -> tuple[FunctionRecord, FunctionScalingRecord]:
        version = self._version(caller, request, "GetFunctionScalingConfig")
        return version, self.scale_of(version)

    def scale_of(self, version: FunctionRecord) -> FunctionScalingRecord:
        found = self._store.get(FUNCTION_SCALING, version.key)
        return found or FunctionScalingRecord(
            account=version.account,
            region=version.region,
            function=version.name,
            qualifier=version.version,
            requested=Scale(),
            applied=Scale(),
        )

    # Inside ----------------------------------------------------------------------------------------

    def _version(self, caller: Caller, request: Request, operation: str) -> FunctionRecord:
        address = address_of(caller, request, operation)
        version = self._store.get(VERSION, key_of(address)._replace(part=request["Qualifier"]))
        if version is None:
            raise function_not_found(address.arn)
        if version.capacity_provider_config is None:
            raise invalid_parameter("FunctionScalingConfig isn't supported for Lambda Default functions.")
        return version

    def _settle(self, key: RecordKey) -> None:
        record = self._store.get(FUNCTION_SCALING, key)
        version = self._store.get(VERSION, key)
        if record is None or version is None:
            return  # deleted meanwhile
        writes = []
        if record.applied != record.requested:
            writes.append(Write(FUNCTION_SCALING, key, replace(record, applied=record.requested)))
        if version.state == DEACTIVATING:
            writes.append(Write(VERSION, key, _in_state(version, DEACTIVATED)))
        elif version.state == PENDING:
            writes.append(Write(VERSION, key, _in_state(version, ACTIVE)))
        self._store.apply(writes)

    def _published_again(self, change: Change) -> None:
        """A version that is switched off stays so when `$LATEST.PUBLISHED` is replaced."""
        if change.kind is VERSION and change.record is not None and change.record.state == ACTIVE:
            record = self._store.get(FUNCTION_SCALING, change.key)
            if record is not None and record.applied.off and record.requested.off:
                self._store.put(VERSION, _in_state(change.record, DEACTIVATED))


def _scale(given: Request) -> Scale:
    """Always given as a pair: what is missing falls back to its default."""
    fields: dict[str, Any] = {}
    if given.get("MinExecutionEnvironments") is not None:
        fields["min_environments"] = given["MinExecutionEnvironments"]
    if given.get("MaxExecutionEnvironments") is not None:
        fields["max_environments"] = given["MaxExecutionEnvironments"]
    scale = Scale(**fields)
    if scale.max_environments is not None and scale.min_environments > scale.max_environments:
        raise invalid_parameter("MinExecutionEnvironments must be less than or equal to MaxExecutionEnvironments.")
    if scale.min_environments == 0 and scale.max_environments != 0:
        raise invalid_parameter(
            "MinExecutionEnvironments can be 0 only when MaxExecutionEnvironments is 0, which deactivates the function"
            " version."
        )
    return scale


def _in_state(version: FunctionRecord, state: str) -> FunctionRecord:
    return replace(version, state=state, revision_id=str(uuid4()))
