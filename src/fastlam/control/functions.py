"""Functions: create, read, list, update, delete.

    CreateFunction ── Pending ──(a moment)──► Active, Successful
    Update…        ── Active, InProgress ──(a moment)──► Active, Successful

Both moments are scheduled; a record that a stopped process left in between is settled when its successor starts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

from msgspec.structs import replace

from fastlam import limits
from fastlam.arn import LATEST, FunctionAddress
from fastlam.clock import Clock, Schedule, SystemClock
from fastlam.control import settings
from fastlam.control.authorize import Caller
from fastlam.control.code import Code, ReadObject, check_storage, code_steps, no_objects
from fastlam.control.collector import CodeCollector
from fastlam.control.lookup import Found, address_of, check_revision, found, function_of, key_of
from fastlam.control.pages import Page, page
from fastlam.control.rules import FunctionRules
from fastlam.control.settings import Request
from fastlam.control.steps import Steps, complete
from fastlam.control.storage import stored_bytes
from fastlam.control.times import timestamp, today
from fastlam.control.versions import Versions, busy, pending, same, version_number
from fastlam.errors import FastlamError, conflict, function_not_found, invalid_parameter, service_fault
from fastlam.model.capacity_provider import ACTIVE_NON_INVOCABLE, LATEST_PUBLISHED
from fastlam.model.function import (
    ACTIVE,
    IMAGE,
    IN_PROGRESS,
    PENDING,
    SUCCESSFUL,
    ZIP,
    FunctionRecord,
    LayerReference,
    applies_snap_start,
)
from fastlam.model.key import RecordKey
from fastlam.model.sealed import Sealed
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.records import ALIAS, FUNCTION, KINDS, RESERVED_CONCURRENCY, VERSION, RecordStore, Write
from fastlam.store.vault import CannotOpen, Vault


class FunctionView(NamedTuple):
    """A function as one request addressed it."""

    record: FunctionRecord
    qualifier: str | None  # as the client gave it
    reserved_concurrency: int | None


class Functions:
    """Owner of the function records. Lives in the thread of the store."""

    def __init__(
        self,
        store: RecordStore,
        artifacts: ArtifactStore,
        schedule: Schedule,
        *,
        clock: Clock | None = None,
        vault: Vault | None = None,
        versions: Versions | None = None,
        collector: CodeCollector | None = None,
        find_layers: Callable[[Caller, list[str]], tuple[LayerReference, ...]] | None = None,
        rules: FunctionRules | None = None,
        read_object: ReadObject = no_objects,
        in_background: Callable[[Callable[[], None]], object] | None = None,
        makes_snapshot: Callable[[FunctionRecord], bool] | None = None,
    ) -> None:
        """`makes_snapshot` tells whether somebody else makes a Pending version Active, once it has its snapshot;
        without it, versions are as if they had one.
        """
        self._store = store
        self._artifacts = artifacts
        self._schedule = schedule
        self._clock = clock or SystemClock()
        self._vault = vault or Vault()
        self._versions = versions or Versions(store, self._clock)
        self._collector = collector or CodeCollector(store, artifacts, schedule, self._clock, in_background)
        self._find_layers = find_layers or _no_layers
        self._read_object = read_object
        self._rules = rules or FunctionRules()
        self._makes_snapshot = makes_snapshot
        self._versions.attach(settle_later=self._settle_later, retire=self._collector.retire)
        self._mend()
        self._collector.collect()  # what a stopped process had no time to

    # Reading ---------------------------------------------------------------------------------------

    def get(self, caller: Caller, request: Request, operation: str = "GetFunction") -> FunctionView:
        address = address_of(caller, request, operation)
        record = self.find(address).record
        reserved = self._store.get(RESERVED_CONCURRENCY, key_of(address))
        return FunctionView(record, address.qualifier, reserved.concurrency if reserved else None)

    def find(self, address: FunctionAddress) -> Found:
        return found(self._store, address)

    def variables(self, record: FunctionRecord) -> dict[str, str]:
        """The environment variables in the clear. Raises CannotOpen when their key is gone."""
        return self._vault.open(record.environment, record.arn)

    def list(self, caller: Caller, request: Request) -> Page[FunctionRecord]:
        if request.get("MasterRegion") is not None:
            return Page([], None)  # asks for replicas of Lambda@Edge only
        records = self._store.list(FUNCTION, caller.account, caller.region)
        if request.get("FunctionVersion") == "ALL":
            records = [each for record in records for each in (record, *self._versions.of(record))]
        return page(request, records, _list_key)

    # Changing --------------------------------------------------------------------------------------

    def create(self, caller: Caller, request: Request) -> FunctionRecord:
        return complete(self.create_steps(caller, request))

    def create_steps(self, caller: Caller, request: Request) -> Steps[FunctionRecord]:
        """The new `$LATEST`, or with Publish its version 1."""
        address = address_of(caller, request, "CreateFunction", creating=True)
        if address.qualifier is not None:
            raise invalid_parameter(f"A function is created without a qualifier: {request['FunctionName']}")
        request = self._rules.with_defaults(request)
        package_type = request.get("PackageType") or ZIP
        _check_package(request, package_type)
        fields = self._fields(caller, request, None, address.unqualified_arn)
        if request.get("Architectures"):
            fields["architectures"] = tuple(request["Architectures"])
        fields["tags"] = settings.check_tags(request.get("Tags") or {})
        fields["package_type"] = package_type
        further, beside = self._rules.creation(caller, request, address, package_type, fields)
        fields |= further
        self._refuse_existing(address)
        code: Code = yield from self._code(request["Code"], address, package_type, fields.get("layers", ()))
        try:
            self._refuse_existing(address)
            record = FunctionRecord(
                account=address.account,
                region=address.region,
                name=address.name,
                revision_id=str(uuid4()),
                last_modified=timestamp(self._clock),
                state=PENDING,
                state_reason="The function is being created.",
                state_reason_code="Creating",
                **{"runtime": "", "handler": ""} | fields | code.fields,
            )
            writes = [Write(FUNCTION, record.key, record), *beside]
            answer = record
            if request.get("Publish") or request.get("PublishTo"):
                answer, publication = self._versions.publication(record, publish_to=request.get("PublishTo"))
                writes += publication
            self._store.apply(writes)
        finally:
            self._release(code)
        self._settle_later(record.key)
        return answer

    def update_code(self, caller: Caller, request: Request) -> FunctionRecord:
        return complete(self.update_code_steps(caller, request))

    def update_code_steps(self, caller: Caller, request: Request) -> Steps[FunctionRecord]:
        address = address_of(caller, request, "UpdateFunctionCode")
        before = self._changeable(address, request)
        self._rules.check_deployment(before)
        code: Code = yield from self._code(request, address, before.package_type, before.layers)
        try:
            record = self._changeable(address, request)
            if code.artifact is not None and record.layers != before.layers:
                self._check_unzipped(code.artifact.sha256, record.layers)
            fields = dict(code.fields)
            if request.get("Architectures"):
                fields["architectures"] = tuple(request["Architectures"])
            if request.get("DryRun"):
                return replace(record, **fields)
            updated = self._update(
                record, fields, publish=bool(request.get("Publish")), publish_to=request.get("PublishTo")
            )
        finally:
            self._release(code)
        self._collector.retire(record)
        return updated

    def update_configuration(self, caller: Caller, request: Request) -> FunctionRecord:
        address = address_of(caller, request, "UpdateFunctionConfiguration")
        present = self._store.get(FUNCTION, key_of(address))
        if present is not None:
            self._rules.check_input(request, present)
        record = self._changeable(address, request)
        fields = self._fields(caller, request, record, record.arn)
        fields |= self._rules.update(caller, request, record, fields)
        self._check_unzipped(record.artifact, fields.get("layers", ()))
        self._collector.retire(record)
        return self._update(record, fields)

    def delete(self, caller: Caller, request: Request) -> None:
        address = address_of(caller, request, "DeleteFunction")
        function = function_of(self._store, address)
        if address.qualifier is None:
            gone = [function, *self._versions.of(function)]
            self._store.apply(
                Write(kind, record.key, None)
                for kind in KINDS
                if kind.of_function
                for record in self._store.parts(kind, function.key)
            )
            self._collector.retire(*gone)
        elif address.qualifier == LATEST:
            raise invalid_parameter("$LATEST version cannot be deleted without deleting the function.")
        elif not address.qualifier.isdecimal() and address.qualifier != LATEST_PUBLISHED:
            raise invalid_parameter("Deletion of aliases is not currently supported.")
        else:
            self._delete_version(function.key._replace(part=address.qualifier))

    def _delete_version(self, key: RecordKey) -> None:
        version = self._store.get(VERSION, key)
        if version is None:
            return  # as good as deleted
        aliases = [alias.name for alias in self._store.parts(ALIAS, key) if key.part in alias.versions]
        if aliases:
            raise conflict(
                "Unable to delete version because the following aliases reference it: [" + ", ".join(aliases) + "]"
            )
        self._store.apply(Write(kind, key, None) for kind in KINDS if kind.of_qualifier)
        self._collector.retire(version)

    def collect(self) -> None:
        """Delete the code that no record refers to, and that no invocation or link can still be using."""
        self._collector.collect()

    # Inside ----------------------------------------------------------------------------------------

    def _fields(self, caller: Caller, request: Request, current: FunctionRecord | None, arn: str) -> settings.Fields:
        def find_layers(arns: list[str]) -> tuple[LayerReference, ...]:
            return self._find_layers(caller, arns)

        fields = settings.fields(
            request, current, region=caller.region, today=today(self._clock), find_layers=find_layers
        )
        if request.get("Environment") is not None:
            variables = settings.check_environment(request["Environment"].get("Variables") or {})
            fields["environment"] = self._sealed_before(variables, current) or self._seal(variables, arn)
        return fields

    def _sealed_before(self, variables: Mapping[str, str], current: FunctionRecord | None) -> Sealed | None:
        """The same variables as they were sealed once: sealed anew, they would make an equal function another one."""
        newest = None if current is None else self._versions.newest(current)
        for record in (current, newest):
            if record is not None and isinstance(record.environment, Sealed):
                with contextlib.suppress(CannotOpen):
                    if self.variables(record) == variables:
                        return record.environment
        return None

    def _mend(self) -> None:
        """Settle what a stopped process left under way; seal variables that older versions kept in the clear."""
        writes = []
        in_the_clear = False
        for kind in (FUNCTION, VERSION):
            for record in self._store.all(kind):
                mended = record if self._waits(record) else self._settled(record)
                if isinstance(record.environment, dict) and record.environment:
                    mended = replace(mended, environment=self._seal(record.environment, record.arn))
                    in_the_clear = True
                if mended is not record:
                    writes.append(Write(kind, record.key, mended))
        self._store.apply(writes)
        if in_the_clear:
            self._store.scrub()

    def _seal(self, variables: Mapping[str, str], arn: str) -> Sealed | dict[str, str]:
        try:
            return self._vault.seal(variables, arn) if variables else {}
        except FastlamError as error:  # no key could be made
            raise service_fault(str(error)) from None

    def _code(
        self, code: Request, address: FunctionAddress, package_type: str, layers: tuple[LayerReference, ...]
    ) -> Steps[Code]:
        stored: Code = yield from code_steps(
            code, self._artifacts, self._read_object, region=address.region, package_type=package_type
        )
        try:
            check_storage(self.stored_bytes(address.account, address.region), stored.fields["code_bytes"])
            if stored.artifact is not None and layers:
                yield partial(self._check_unzipped, stored.artifact.sha256, layers)
        except BaseException:
            self._release(stored)
            raise
        return stored

    def stored_bytes(self, account: str, region: str) -> int:
        return stored_bytes(self._store, account, region)

    def _check_unzipped(self, artifact: str, layers: tuple[LayerReference, ...]) -> None:
        if layers:
            self._artifacts.check_unzipped([artifact, *(layer.artifact for layer in layers)])

    def _release(self, code: Code) -> None:
        if code.artifact is not None:
            self._artifacts.release(code.artifact.sha256)

    def _refuse_existing(self, address: FunctionAddress) -> None:
        if self._store.get(FUNCTION, key_of(address)) is not None:
            raise conflict(f"Function already exist: {address.name}")

    def _changeable(self, address: FunctionAddress, request: Request) -> FunctionRecord:
        if address.qualifier not in (None, LATEST):
            raise function_not_found(address.arn)
        record = function_of(self._store, address, address.arn)
        check_revision(request, record.revision_id)
        if not record.settled:
            raise busy(record)
        return record

    def _update(
        self, record: FunctionRecord, fields: dict[str, Any], *, publish: bool = False, publish_to: str | None = None
    ) -> FunctionRecord:
        updated = replace(
            record,
            **fields,
            revision_id=str(uuid4()),
            last_modified=timestamp(self._clock),
            last_update_status=IN_PROGRESS,
            last_update_status_reason="The function is being created.",
            last_update_status_reason_code="Creating",
        )
        writes = [Write(FUNCTION, updated.key, updated)]
        answer = updated
        if publish or publish_to is not None:
            published = self._versions.published(updated, publish_to)
            if published is not None and same(published, updated):
                answer = published
            else:
                answer, publication = self._versions.publication(pending(updated), publish_to=publish_to)
                writes += publication
        self._store.apply(writes)
        self._settle_later(updated.key)
        return answer

    def _settle_later(self, key: RecordKey) -> None:
        """The function, and the version that was published with the change."""

        def settle() -> None:
            self._store.apply(
                Write(kind, record.key, self._settled(record))
                for kind in (FUNCTION, VERSION)
                for record in self._store.parts(kind, key)
                if not record.settled and not self._waits(record)
            )

        self._schedule(limits.STATE_CHANGE_SECONDS, settle)

    def _waits(self, record: FunctionRecord) -> bool:
        """For its snapshot."""
        return applies_snap_start(record) and self._makes_snapshot is not None and self._makes_snapshot(record)

    def _settled(self, record: FunctionRecord) -> FunctionRecord:
        settled = _settled(record)
        if settled is not record and applies_snap_start(record) and self._makes_snapshot is not None:
            reason = f"No snapshot is made of {record.runtime} functions: fastlam runs those of Python only so far."
            return replace(settled, state_reason=reason)
        return settled


def _settled(record: FunctionRecord) -> FunctionRecord:
    if record.settled:
        return record
    managed_latest = record.capacity_provider_config is not None and record.version == LATEST
    return replace(
        record,
        revision_id=str(uuid4()),
        state=ACTIVE_NON_INVOCABLE if managed_latest else ACTIVE,
        state_reason=None,
        state_reason_code=None,
        last_update_status=SUCCESSFUL,
        last_update_status_reason=None,
        last_update_status_reason_code=None,
    )


def _check_package(request: Request, package_type: str) -> None:
    if package_type == IMAGE:
        for member in ("Runtime", "Handler", "Layers"):
            if request.get(member):
                raise invalid_parameter(
                    f"Please don't provide {member} when the intended function PackageType is Image."
                )
        if not request["Code"].get("ImageUri"):
            raise invalid_parameter("Please provide ImageUri when the intended function PackageType is Image.")
    else:
        if request["Code"].get("ImageUri"):
            raise invalid_parameter("Please don't provide ImageUri when the intended function PackageType is Zip.")
        if request.get("ImageConfig"):
            raise invalid_parameter("Please don't provide ImageConfig when the intended function PackageType is Zip.")
        if not request.get("Runtime") or not request.get("Handler"):
            raise invalid_parameter(
                "Runtime and Handler are mandatory parameters for functions created with deployment packages."
            )


def _no_layers(caller: Caller, arns: list[str]) -> tuple[LayerReference, ...]:
    if arns:
        raise invalid_parameter(f"Layer version {arns[0]} does not exist.")
    return ()


def _list_key(record: FunctionRecord) -> str:
    """Sorts by name, then `$LATEST`, then versions by number."""
    return f"{record.name} {version_number(record.version):020d}"
