"""Versions: what `$LATEST` was when it was published, never changed again.

A managed function may have one more, `$LATEST.PUBLISHED`, which each publication to it replaces. Its versions are
Pending for a moment, as they would be until instances are there; so are those that have a snapshot or a VPC.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import uuid4

import msgspec
from msgspec.structs import replace

from fastlam import limits
from fastlam.arn import LATEST
from fastlam.clock import Clock
from fastlam.control.authorize import Caller
from fastlam.control.lookup import address_of, check_revision, function_of
from fastlam.control.pages import Page, page
from fastlam.control.settings import Request
from fastlam.control.times import timestamp
from fastlam.errors import ApiError, conflict, invalid_parameter
from fastlam.model.capacity_provider import LATEST_PUBLISHED, provider_arn_of
from fastlam.model.counter import CounterRecord
from fastlam.model.function import IN_PROGRESS, PENDING, SNAP_START_VERSIONS, FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.store.records import COUNTER, FUNCTION, VERSION, RecordStore, Write

# What a version may differ in from `$LATEST` without being another one.
_NOT_COMPARED: Final = (
    "version",
    "description",
    "tags",
    "revision_id",
    "last_modified",
    "state",
    "state_reason",
    "state_reason_code",
    "last_update_status",
    "last_update_status_reason",
    "last_update_status_reason_code",
)
_COMPARED: Final = tuple(
    field.name for field in msgspec.structs.fields(FunctionRecord) if field.name not in _NOT_COMPARED
)


class Versions:
    """Publishes and lists."""

    def __init__(self, store: RecordStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._settle_later: Callable[[RecordKey], object] = lambda key: None
        self._retire: Callable[[FunctionRecord], object] = lambda record: None

    def attach(
        self, *, settle_later: Callable[[RecordKey], object], retire: Callable[[FunctionRecord], object]
    ) -> None:
        """By who changes states: `settle_later` ends, in a moment, what a function's versions are in the middle of;
        `retire` lets go of the code of a version that is replaced.
        """
        self._settle_later = settle_later
        self._retire = retire

    def publish(self, caller: Caller, request: Request) -> FunctionRecord:
        address = address_of(caller, request, "PublishVersion")
        function = function_of(self._store, address)
        check_revision(request, function.revision_id)
        if not function.settled:
            raise busy(function)
        given = request.get("CodeSha256")
        if given and given != function.code_sha256:
            raise invalid_parameter(
                f"CodeSHA256 ({given}) is different from current CodeSHA256 in $LATEST ({function.code_sha256})."
                " Please try again with the CodeSHA256 in $LATEST."
            )
        publish_to = request.get("PublishTo")
        published = self.published(function, publish_to)
        if published is not None and same(published, function):
            return published
        description = request.get("Description")
        subject = pending(function) if _takes_time(function) else function
        version, writes = self.publication(subject, description, publish_to)
        writes.append(Write(FUNCTION, function.key, replace(function, revision_id=str(uuid4()))))
        self._store.apply(writes)
        if not version.settled:
            self._settle_later(function.key)
        return version

    def published(self, function: FunctionRecord, publish_to: str | None = None) -> FunctionRecord | None:
        """What a publication would follow or replace."""
        if publish_to is None:
            return self.newest(function)
        return self._store.get(VERSION, function.key._replace(part=LATEST_PUBLISHED))

    def publication(
        self, function: FunctionRecord, description: str | None = None, publish_to: str | None = None
    ) -> tuple[FunctionRecord, list[Write]]:
        """The next version of the function as it is, and what must be written to make it exist; with `publish_to` its
        `$LATEST.PUBLISHED`.
        """
        if publish_to is not None and function.capacity_provider_config is None:
            raise invalid_parameter("PublishTo isn't supported for Lambda Default functions.")
        self._check_attachable(function, publish_to)
        if publish_to is not None:
            version = self._snapshot(function, LATEST_PUBLISHED, description)
            replaced = self.published(function, publish_to)
            if replaced is not None:  # which goes on being invoked until this one is ready
                version = replace(
                    version,
                    state=replaced.state,
                    state_reason=replaced.state_reason,
                    state_reason_code=replaced.state_reason_code,
                    last_update_status=IN_PROGRESS,
                    last_update_status_reason="The function is being created.",
                    last_update_status_reason_code="Creating",
                )
                self._retire(replaced)
            return version, [Write(VERSION, version.key, version)]
        series = RecordKey(function.account, function.region, f"function:{function.name}")
        counter = self._store.get(COUNTER, series)
        number = 1 + (counter.last if counter else 0)
        version = self._snapshot(function, str(number), description)
        last = CounterRecord(account=function.account, region=function.region, series=series.name, last=number)
        return version, [Write(COUNTER, series, last), Write(VERSION, version.key, version)]

    def _snapshot(self, function: FunctionRecord, version: str, description: str | None) -> FunctionRecord:
        return replace(
            function,
            version=version,
            description=function.description if description is None else description,
            tags={},
            revision_id=str(uuid4()),
            last_modified=timestamp(self._clock),
        )

    def _check_attachable(self, function: FunctionRecord, publish_to: str | None) -> None:
        """A capacity provider takes a bounded number of published versions."""
        arn = provider_arn_of(function)
        if arn is None or (publish_to is not None and self.published(function, publish_to) is not None):
            return
        versions = self._store.list(VERSION, function.account, function.region)
        if sum(provider_arn_of(version) == arn for version in versions) >= limits.VERSIONS_PER_CAPACITY_PROVIDER_MAX:
            raise ApiError(
                "FunctionVersionsPerCapacityProviderLimitExceededException",
                f"The limit of {limits.VERSIONS_PER_CAPACITY_PROVIDER_MAX} function versions of the capacity provider"
                f" {arn} is reached.",
            )

    def of(self, function: FunctionRecord) -> list[FunctionRecord]:
        """The published versions: `$LATEST.PUBLISHED`, then ascending."""
        return sorted(self._store.parts(VERSION, function.key), key=lambda record: version_number(record.version))

    def newest(self, function: FunctionRecord) -> FunctionRecord | None:
        """Of the numbered ones."""
        numbered = [record for record in self._store.parts(VERSION, function.key) if record.version.isdecimal()]
        return max(numbered, key=lambda record: int(record.version), default=None)

    def list(self, caller: Caller, request: Request) -> Page[FunctionRecord]:
        """`$LATEST` first, then ascending."""
        function = function_of(self._store, address_of(caller, request, "ListVersionsByFunction"))
        return page(request, [function, *self.of(function)], lambda record: version_number(record.version))


def version_number(version: str) -> int:
    """Sorts versions: `$LATEST`, `$LATEST.PUBLISHED`, then by number."""
    if version == LATEST:
        return 0
    return 1 if version == LATEST_PUBLISHED else 1 + int(version)


def _takes_time(function: FunctionRecord) -> bool:
    """Whether a version would have to wait: for instances, for its snapshot, for its network interfaces."""
    return (
        function.capacity_provider_config is not None
        or function.snap_start == SNAP_START_VERSIONS
        or bool((function.vpc_config or {}).get("SubnetIds"))
    )


def pending(function: FunctionRecord) -> FunctionRecord:
    """The function in the state of what is still being made."""
    return replace(function, state=PENDING, state_reason="The function is being created.", state_reason_code="Creating")


def same(version: FunctionRecord, function: FunctionRecord) -> bool:
    """Whether publishing the function would give this version once more."""
    return all(getattr(version, name) == getattr(function, name) for name in _COMPARED)


def busy(function: FunctionRecord) -> Exception:
    return conflict(
        f"The operation cannot be performed at this time. An update is in progress for resource: {function.arn}"
    )
