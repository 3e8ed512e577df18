"""Functions: create, read, list, update, delete.

    CreateFunction ── Pending ──(a moment)──► Active, Successful
    Update…        ── Active, InProgress ──(a moment)──► Active, Successful

Both moments are scheduled; a record that a stopped process left in between is settled when its successor starts.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import uuid4

from msgspec.structs import replace

from fastlam import limits
from fastlam.arn import LATEST, FunctionAddress, resolve
from fastlam.clock import Clock, Schedule, SystemClock
from fastlam.control import settings
from fastlam.control.authorize import Caller, action_of
from fastlam.control.settings import Request
from fastlam.control.steps import Steps, complete
from fastlam.errors import conflict, function_not_found, invalid_parameter, stale_revision
from fastlam.model.function import ACTIVE, IN_PROGRESS, PENDING, SUCCESSFUL, FunctionKey, FunctionRecord
from fastlam.store.artifacts import Artifact, ArtifactStore
from fastlam.store.records import FUNCTION, RESERVED_CONCURRENCY, RecordStore, Write

_NAME_LENGTH_MAX: Final = 64


class FunctionView(NamedTuple):
    """A function as one request addressed it."""

    record: FunctionRecord
    qualifier: str | None  # as the client gave it
    reserved_concurrency: int | None


class FunctionPage(NamedTuple):
    records: list[FunctionRecord]
    next_marker: str | None


class Functions:
    """Owner of the function records. Lives in the thread of the store."""

    def __init__(
        self,
        store: RecordStore,
        artifacts: ArtifactStore,
        schedule: Schedule,
        *,
        clock: Clock | None = None,
        in_background: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """`in_background` runs what may take long and that nobody waits for (deleting old code); default: at once."""
        self._store = store
        self._artifacts = artifacts
        self._schedule = schedule
        self._clock = clock or SystemClock()
        self._in_background = in_background or (lambda work: work())
        self._retired: dict[str, int] = {}  # replaced code, and when (elapsed ms) it may be deleted
        self._collection_due = False
        for record in store.all(FUNCTION):
            if not record.settled:
                store.put(FUNCTION, self._settled(record))
        self.collect()  # what a stopped process had no time to

    # Reading ---------------------------------------------------------------------------------------

    def get(self, caller: Caller, request: Request, operation: str = "GetFunction") -> FunctionView:
        address = address_of(caller, request, operation)
        record = self.find(address)
        reserved = self._store.get(RESERVED_CONCURRENCY, record.key)
        return FunctionView(record, address.qualifier, reserved.concurrency if reserved else None)

    def find(self, address: FunctionAddress) -> FunctionRecord:
        """Until versions and aliases exist, `$LATEST` is all there is."""
        record = self._store.get(FUNCTION, FunctionKey(address.account, address.region, address.name))
        if record is None or address.qualifier not in (None, LATEST):
            raise function_not_found(address.arn)
        return record

    def list(self, caller: Caller, request: Request) -> FunctionPage:
        after = _read_marker(request.get("Marker"))
        if request.get("MasterRegion") is not None:
            return FunctionPage([], None)  # asks for replicas of Lambda@Edge only
        size = min(request.get("MaxItems") or limits.LIST_PAGE_ITEMS_MAX, limits.LIST_PAGE_ITEMS_MAX)
        records = [r for r in self._store.list(FUNCTION, caller.account, caller.region) if r.name > after]
        more = len(records) > size
        return FunctionPage(records[:size], _marker(records[size - 1].name) if more else None)

    # Changing --------------------------------------------------------------------------------------

    def create(self, caller: Caller, request: Request) -> FunctionRecord:
        return complete(self.create_steps(caller, request))

    def create_steps(self, caller: Caller, request: Request) -> Steps[FunctionRecord]:
        address = address_of(caller, request, "CreateFunction", creating=True)
        if address.qualifier is not None:
            raise invalid_parameter(f"A function is created without a qualifier: {request['FunctionName']}")
        defaults = {"log_format": "Text", "log_group": "", "application_log_level": None, "system_log_level": None}
        fields = settings.fields(request, defaults)
        if "runtime" not in fields or "handler" not in fields:
            raise invalid_parameter(
                "Runtime and Handler are mandatory parameters for functions created with deployment packages."
            )
        if request.get("Architectures"):
            fields["architectures"] = tuple(request["Architectures"])
        fields["tags"] = settings.check_tags(request.get("Tags") or {})
        data = settings.zip_bytes(request["Code"])
        self._refuse_existing(address)
        artifact: Artifact = yield partial(self._artifacts.put_zip, data)
        try:
            self._refuse_existing(address)
            record = FunctionRecord(
                account=address.account,
                region=address.region,
                name=address.name,
                code_sha256=artifact.code_sha256,
                code_bytes=artifact.zip_bytes,
                revision_id=str(uuid4()),
                last_modified=self._now(),
                state=PENDING,
                state_reason="The function is being created.",
                state_reason_code="Creating",
                **fields,
            )
            self._store.put(FUNCTION, record)
        finally:
            self._artifacts.release(artifact.sha256)
        self._settle_later(record.key)
        return record

    def update_code(self, caller: Caller, request: Request) -> FunctionRecord:
        return complete(self.update_code_steps(caller, request))

    def update_code_steps(self, caller: Caller, request: Request) -> Steps[FunctionRecord]:
        address = address_of(caller, request, "UpdateFunctionCode")
        self._changeable(address, request)
        data = settings.zip_bytes(request)
        artifact: Artifact = yield partial(self._artifacts.put_zip, data)
        try:
            record = self._changeable(address, request)
            fields: dict[str, Any] = {"code_sha256": artifact.code_sha256, "code_bytes": artifact.zip_bytes}
            if request.get("Architectures"):
                fields["architectures"] = tuple(request["Architectures"])
            if request.get("DryRun"):
                return replace(record, **fields)
            updated = self._update(record, fields)
        finally:
            self._artifacts.release(artifact.sha256)
        self._retire(record)
        return updated

    def update_configuration(self, caller: Caller, request: Request) -> FunctionRecord:
        record = self._changeable(address_of(caller, request, "UpdateFunctionConfiguration"), request)
        current = {
            "log_format": record.log_format,
            "log_group": record.log_group,
            "application_log_level": record.application_log_level,
            "system_log_level": record.system_log_level,
        }
        return self._update(record, settings.fields(request, current))

    def delete(self, caller: Caller, request: Request) -> None:
        address = address_of(caller, request, "DeleteFunction")
        key = FunctionKey(address.account, address.region, address.name)
        record = self._store.get(FUNCTION, key)
        if record is None:
            raise function_not_found(address.unqualified_arn)
        if address.qualifier is None:
            self._store.apply([Write(FUNCTION, key, None), Write(RESERVED_CONCURRENCY, key, None)])
            self._retire(record)
        elif address.qualifier == LATEST:
            raise invalid_parameter("$LATEST version cannot be deleted without deleting the function.")
        elif not address.qualifier.isdecimal():
            raise invalid_parameter("Deletion of aliases is not currently supported.")
        # A version that does not exist is as good as deleted.

    def collect(self) -> None:
        """Delete the code that no record refers to, and that no invocation or link can still be using."""
        now = self._clock.elapsed_ms()
        self._retired = {artifact: due for artifact, due in self._retired.items() if due > now}
        keep = {record.artifact for record in self._store.all(FUNCTION)} | self._retired.keys()
        self._artifacts.collect(keep, self._in_background)

    # Inside ----------------------------------------------------------------------------------------

    def _refuse_existing(self, address: FunctionAddress) -> None:
        if self._store.get(FUNCTION, FunctionKey(address.account, address.region, address.name)) is not None:
            raise conflict(f"Function already exist: {address.name}")

    def _changeable(self, address: FunctionAddress, request: Request) -> FunctionRecord:
        record = self.find(address)
        if request.get("RevisionId") is not None and request["RevisionId"] != record.revision_id:
            raise stale_revision()
        if not record.settled:
            raise conflict(
                "The operation cannot be performed at this time. An update is in progress for resource: " + record.arn
            )
        return record

    def _update(self, record: FunctionRecord, fields: dict[str, Any]) -> FunctionRecord:
        updated = replace(
            record,
            **fields,
            revision_id=str(uuid4()),
            last_modified=self._now(),
            last_update_status=IN_PROGRESS,
            last_update_status_reason="The function is being created.",
            last_update_status_reason_code="Creating",
        )
        self._store.put(FUNCTION, updated)
        self._settle_later(updated.key)
        return updated

    def _settle_later(self, key: FunctionKey) -> None:
        def settle() -> None:
            record = self._store.get(FUNCTION, key)
            if record is not None and not record.settled:
                self._store.put(FUNCTION, self._settled(record))

        self._schedule(limits.STATE_CHANGE_SECONDS, settle)

    @staticmethod
    def _settled(record: FunctionRecord) -> FunctionRecord:
        return replace(
            record,
            revision_id=str(uuid4()),
            state=ACTIVE,
            state_reason=None,
            state_reason_code=None,
            last_update_status=SUCCESSFUL,
            last_update_status_reason=None,
            last_update_status_reason_code=None,
        )

    def _retire(self, record: FunctionRecord) -> None:
        """Code stays for as long as an invocation that began on it, or a link to it, may last."""
        self._retired[record.artifact] = self._clock.elapsed_ms() + limits.CODE_GRACE_SECONDS * 1000
        self._collect_later()

    def _collect_later(self) -> None:
        if self._collection_due or not self._retired:
            return
        self._collection_due = True

        def collect() -> None:
            self._collection_due = False
            self.collect()
            self._collect_later()

        wait_ms = max(0, min(self._retired.values()) - self._clock.elapsed_ms())
        self._schedule(wait_ms / 1000, collect)

    def _now(self) -> str:
        wall_ms = self._clock.wall_ms()
        moment = datetime.fromtimestamp(wall_ms // 1000, UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{wall_ms % 1000:03d}+0000"


def address_of(caller: Caller, request: Request, operation: str, *, creating: bool = False) -> FunctionAddress:
    """The function a request is about, as its caller means it."""
    name: str = request["FunctionName"]
    address = resolve(
        name,
        request.get("Qualifier"),
        account=caller.account,
        region=caller.region,
        principal=caller.principal,
        action=action_of(operation),
        creating=creating,
    )
    if creating and len(address.name) > _NAME_LENGTH_MAX:
        raise invalid_parameter(
            f"1 validation error detected: Value '{address.name}' at 'functionName' failed to satisfy constraint:"
            f" Member must have length less than or equal to {_NAME_LENGTH_MAX}"
        )
    return address


def _marker(name: str) -> str:
    return base64.urlsafe_b64encode(b"after:" + name.encode()).decode()


def _read_marker(marker: str | None) -> str:
    """The name after which the page starts; "" starts at the first."""
    if not marker:
        return ""
    try:
        decoded = base64.b64decode(marker.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        decoded = ""
    if not decoded.startswith("after:"):
        raise invalid_parameter("Invalid marker")
    return decoded.removeprefix("after:")
