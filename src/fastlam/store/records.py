"""What a record store is: kinds of records, atomic changes, and watchers that hear of each committed change."""

from __future__ import annotations

import builtins
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from fastlam.model.alias import AliasRecord
from fastlam.model.autoscaling import AutoScalingRecord
from fastlam.model.capacity_provider import CapacityProviderRecord
from fastlam.model.code_signing import CodeSigningConfigRecord, FunctionCodeSigningRecord
from fastlam.model.concurrency import ReservedConcurrencyRecord
from fastlam.model.counter import CounterRecord
from fastlam.model.event_invoke import EventInvokeRecord
from fastlam.model.event_source_mapping import EventSourceMappingRecord
from fastlam.model.function import FunctionRecord
from fastlam.model.function_url import FunctionUrlRecord
from fastlam.model.key import RecordKey
from fastlam.model.layer import LayerVersionRecord
from fastlam.model.policy import PolicyRecord
from fastlam.model.provisioned_concurrency import ProvisionedConcurrencyRecord
from fastlam.model.recursion import RecursionRecord
from fastlam.model.runtime_management import RuntimeManagementRecord
from fastlam.model.scaling import FunctionScalingRecord
from fastlam.model.source_position import SourcePositionRecord
from fastlam.model.tags import TagsRecord

log = logging.getLogger(__name__)


class Record(Protocol):
    @property
    def key(self) -> RecordKey: ...


R = TypeVar("R", bound=Record)


class Kind(Generic[R]):
    """One kind of record: its name in the database, its type, and with what it goes.

    `of_function`: its keys carry the name of a function, and it is deleted with that function. `of_qualifier`: its part
    is a version or an alias, with which it is deleted.
    """

    __slots__ = ("decode", "name", "of_function", "of_qualifier", "type")

    def __init__(self, name: str, type: type[R], *, of_function: bool = False, of_qualifier: bool = False) -> None:
        self.name = name
        self.type = type
        self.of_function = of_function or of_qualifier
        self.of_qualifier = of_qualifier
        self.decode: Callable[[bytes], R] = msgspec.json.Decoder(type).decode

    def __repr__(self) -> str:
        return f"Kind({self.name!r})"


FUNCTION: Final = Kind("function", FunctionRecord, of_function=True)  # $LATEST of each
VERSION: Final = Kind("version", FunctionRecord, of_qualifier=True)
ALIAS: Final = Kind("alias", AliasRecord, of_qualifier=True)
RESERVED_CONCURRENCY: Final = Kind("reserved_concurrency", ReservedConcurrencyRecord, of_function=True)
COUNTER: Final = Kind("counter", CounterRecord)
LAYER_VERSION: Final = Kind("layer_version", LayerVersionRecord)
PROVISIONED_CONCURRENCY: Final = Kind("provisioned_concurrency", ProvisionedConcurrencyRecord, of_qualifier=True)
AUTO_SCALING: Final = Kind("auto_scaling", AutoScalingRecord, of_qualifier=True)
CODE_SIGNING_CONFIG: Final = Kind("code_signing_config", CodeSigningConfigRecord)
FUNCTION_CODE_SIGNING: Final = Kind("function_code_signing", FunctionCodeSigningRecord, of_function=True)
RUNTIME_MANAGEMENT: Final = Kind("runtime_management", RuntimeManagementRecord, of_qualifier=True)
RECURSION: Final = Kind("recursion", RecursionRecord, of_function=True)
FUNCTION_SCALING: Final = Kind("function_scaling", FunctionScalingRecord, of_qualifier=True)
CAPACITY_PROVIDER: Final = Kind("capacity_provider", CapacityProviderRecord)
POLICY: Final = Kind("policy", PolicyRecord, of_qualifier=True)
FUNCTION_URL: Final = Kind("function_url", FunctionUrlRecord, of_function=True)  # outlives the alias it is for
EVENT_INVOKE: Final = Kind("event_invoke", EventInvokeRecord, of_qualifier=True)
EVENT_SOURCE_MAPPING: Final = Kind("event_source_mapping", EventSourceMappingRecord)  # outlives its function
SOURCE_POSITION: Final = Kind("source_position", SourcePositionRecord)  # goes with its mapping
TAGS: Final = Kind("tags", TagsRecord)  # of all that is no function

KINDS: Final[tuple[Kind[Any], ...]] = (
    FUNCTION,
    VERSION,
    ALIAS,
    RESERVED_CONCURRENCY,
    COUNTER,
    LAYER_VERSION,
    PROVISIONED_CONCURRENCY,
    AUTO_SCALING,
    CODE_SIGNING_CONFIG,
    FUNCTION_CODE_SIGNING,
    RUNTIME_MANAGEMENT,
    RECURSION,
    FUNCTION_SCALING,
    CAPACITY_PROVIDER,
    POLICY,
    FUNCTION_URL,
    EVENT_INVOKE,
    EVENT_SOURCE_MAPPING,
    SOURCE_POSITION,
    TAGS,
)


class Change(NamedTuple):
    """One committed change. `record` is None after a deletion; `previous` is None after a creation."""

    kind: Kind[Any]
    key: RecordKey
    record: Any
    previous: Any


class Write(NamedTuple):
    """One part of an atomic change: the record to put, or None to delete what is at the key."""

    kind: Kind[Any]
    key: RecordKey
    record: Any


Watcher = Callable[[Change], None]


class RecordStore(Protocol):
    """Records by kind and key. Used from one thread; every call answers from memory, only changes touch the disk."""

    def get(self, kind: Kind[R], key: RecordKey) -> R | None: ...

    def list(self, kind: Kind[R], account: str, region: str) -> builtins.list[R]:
        """The records of one account and region, sorted by name and part."""

    def parts(self, kind: Kind[R], owner: RecordKey) -> builtins.list[R]:
        """The records that share the owner's account, region and name (with its own, if it is of that kind), sorted by
        part.
        """

    def all(self, kind: Kind[R]) -> builtins.list[R]:
        """Every record of the kind, whoever owns it."""

    def put(self, kind: Kind[R], record: R) -> None: ...

    def delete(self, kind: Kind[R], key: RecordKey) -> bool:
        """False when there was nothing."""

    def apply(self, writes: Iterable[Write]) -> None:
        """All of the writes or, when it raises, none; watchers hear of them in this order."""

    def clear(self) -> None:
        """Delete everything, and tell the watchers."""

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have the watcher called after each committed change, in the thread that made it; returns how to stop that."""

    def scrub(self) -> None:
        """Have nothing on the disk any longer of what was replaced or deleted."""

    def close(self) -> None: ...


class Watchers:
    """Delivers changes in the order of their commits, also when a watcher itself changes records."""

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []
        self._queue: deque[Change] = deque()
        self._delivering = False

    def add(self, watcher: Watcher) -> Callable[[], None]:
        self._watchers.append(watcher)

        def stop() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

        return stop

    def deliver(self, changes: Iterable[Change]) -> None:
        self._queue.extend(changes)
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._queue:
                change = self._queue.popleft()
                for watcher in tuple(self._watchers):
                    try:
                        watcher(change)
                    except Exception:
                        # The change is committed: the caller must not be told that it failed.
                        log.exception("a watcher failed on %s %s", change.kind.name, change.key)
        finally:
            self._delivering = False
