"""Tags of functions, event source mappings, code signing configurations, capacity providers and layers.

A function's tags are in its record, and a change of them changes its RevisionId. All the others are records of one
kind, `TAGS`, by the type and id in the resource's ARN (`event-source-mapping:<uuid>`). Whoever owns such a resource

    registers once    tags.register("event-source-mapping", lambda key: store.get(MAPPING, key) is not None)
    creates           store.apply([Write(MAPPING, key, record), *tags.new("event-source-mapping", key, given)])
    deletes           store.apply([Write(MAPPING, key, None), tags.gone("event-source-mapping", key)])

where `key` is RecordKey(account, region, id), `given` the Tags of the request or None, and `new` raises the refusal of
tags that may not be. `tags.of` reads them. What nobody has registered does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from uuid import uuid4

from msgspec.structs import replace

from fastlam.arn import denied_by_resource_policy, resolve
from fastlam.clock import Clock
from fastlam.control.authorize import Caller, action_of
from fastlam.control.lookup import function_of
from fastlam.control.settings import Request, check_tags
from fastlam.control.times import timestamp
from fastlam.control.versions import busy
from fastlam.errors import ApiError, invalid_parameter, not_found
from fastlam.model.function import IN_PROGRESS, FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.model.tags import TagsRecord
from fastlam.store.records import FUNCTION, TAGS, RecordStore, Write

Exists = Callable[[RecordKey], bool]

_FUNCTION: Final = "function"
# Resource type -> what the service calls it in a refusal.
_TITLES: Final = {
    "event-source-mapping": "Event source mapping",
    "code-signing-config": "Code signing config",
    "capacity-provider": "Capacity provider",
    "network-connector": "Network connector",
    "layer": "Layer",
}


class _Resource(NamedTuple):
    """What is no function, as its ARN says."""

    type: str
    key: RecordKey


class Tags:
    """Owner of the tags of everything but functions, and the one way to change a function's."""

    def __init__(self, store: RecordStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._exists: dict[str, Exists] = {}

    # For the owners of resources -------------------------------------------------------------------

    def register(self, resource_type: str, exists: Exists) -> None:
        """`exists` says whether there is a resource of this type at a key."""
        self._exists[resource_type] = exists

    def new(self, resource_type: str, key: RecordKey, tags: Mapping[str, str] | None) -> list[Write]:
        """What to write beside a resource that is created."""
        return [self._write(_Resource(resource_type, key), check_tags(tags))] if tags else []

    def gone(self, resource_type: str, key: RecordKey) -> Write:
        """What to write beside the deletion of a resource."""
        return Write(TAGS, _tags_key(_Resource(resource_type, key)), None)

    def of(self, resource_type: str, key: RecordKey) -> dict[str, str]:
        record = self._store.get(TAGS, _tags_key(_Resource(resource_type, key)))
        return {} if record is None else record.tags

    # The operations --------------------------------------------------------------------------------

    def list(self, caller: Caller, request: Request) -> dict[str, str]:
        found = self._find(caller, request, "ListTags")
        return found.tags if isinstance(found, FunctionRecord) else self.of(found.type, found.key)

    def add(self, caller: Caller, request: Request) -> None:
        wanted = request["Tags"]
        found = self._find(caller, request, "TagResource", wanted)
        if isinstance(found, FunctionRecord):
            if found.last_update_status == IN_PROGRESS:
                raise busy(found)
            self._change(found, check_tags(found.tags | wanted))
        else:
            self._put(found, check_tags(self.of(found.type, found.key) | wanted))

    def remove(self, caller: Caller, request: Request) -> None:
        """Of tags that are not there, too."""
        unwanted = frozenset(request["TagKeys"])
        found = self._find(caller, request, "UntagResource")
        if isinstance(found, FunctionRecord):
            self._change(found, _without(found.tags, unwanted))
        else:
            self._put(found, _without(self.of(found.type, found.key), unwanted))

    # Inside ----------------------------------------------------------------------------------------

    def _find(
        self, caller: Caller, request: Request, operation: str, wanted: Mapping[str, str] | None = None
    ) -> FunctionRecord | _Resource:
        """What the request is about. The tags it brings are looked at before it is asked whether that exists."""
        arn: str = request["Resource"]
        parts = arn.split(":", 6)
        if parts[5] == _FUNCTION:
            address = resolve(
                arn,
                None,
                account=caller.account,
                region=caller.region,
                principal=caller.principal,
                action=action_of(operation),
            )
            if address.qualifier is not None:
                raise invalid_parameter(
                    "Tags on function aliases and versions are not supported. Please specify a function ARN."
                )
            _check_wanted(wanted)
            return function_of(self._store, address)
        _check_wanted(wanted)
        region, account, resource_type, name = parts[3:7]
        if account != caller.account:
            raise denied_by_resource_policy(caller.principal, action_of(operation), arn)
        resource = _Resource(resource_type, RecordKey(account, region, name))
        exists = self._exists.get(resource_type)
        if region != caller.region or exists is None or not exists(resource.key):
            raise _not_there(resource_type, arn)
        return resource

    def _change(self, function: FunctionRecord, tags: dict[str, str]) -> None:
        """Also when the tags stay as they are."""
        changed = replace(function, tags=tags, revision_id=str(uuid4()), last_modified=timestamp(self._clock))
        self._store.put(FUNCTION, changed)

    def _put(self, resource: _Resource, tags: dict[str, str]) -> None:
        self._store.apply([self._write(resource, tags)])

    @staticmethod
    def _write(resource: _Resource, tags: dict[str, str]) -> Write:
        key = _tags_key(resource)
        record = TagsRecord(account=key.account, region=key.region, resource=key.name, tags=tags)
        return Write(TAGS, key, record if tags else None)


def _check_wanted(wanted: Mapping[str, str] | None) -> None:
    if wanted is None:
        return
    if not wanted:
        raise invalid_parameter("An error occurred and the request cannot be processed.")
    check_tags(wanted)


def _without(tags: Mapping[str, str], unwanted: frozenset[str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key not in unwanted}


def _tags_key(resource: _Resource) -> RecordKey:
    return resource.key._replace(name=f"{resource.type}:{resource.key.name}")


def _not_there(resource_type: str, arn: str) -> ApiError:
    return not_found(f"{_TITLES.get(resource_type, 'Resource')} not found: {arn}")
