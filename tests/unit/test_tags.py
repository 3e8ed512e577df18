"""Tags without HTTP: of functions, which carry them, and of everything else, whose owners plug in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlam import limits
from fastlam.clock import VirtualClock
from fastlam.control.authorize import Caller
from fastlam.control.tags import Tags
from fastlam.model.function import FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.store.memory import MemoryStore
from fastlam.store.records import TAGS, VERSION
from memory_plane import CALLER, MemoryPlane, refused

ACCOUNT, OTHER = "000000000000", "111122223333"
PREFIX = f"arn:aws:lambda:us-east-1:{ACCOUNT}"
ARN = f"{PREFIX}:function:hello"
UUID = "6d9bce8e-836b-442c-8070-74e77903c815"
MAPPING = f"{PREFIX}:event-source-mapping:{UUID}"
MAPPING_KEY = RecordKey(ACCOUNT, "us-east-1", UUID)
MANY = {f"key{number}": "v" for number in range(limits.TAGS_MAX)}


class Plane(MemoryPlane):
    """A control plane in memory with an active function `hello`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.create()

    @property
    def function(self) -> FunctionRecord:
        return self.record()


@pytest.fixture
def plane(tmp_path: Path) -> Plane:
    return Plane(tmp_path)


def add(tags: Tags, arn: str, wanted: dict[str, str]) -> None:
    tags.add(CALLER, {"Resource": arn, "Tags": wanted})


def remove(tags: Tags, arn: str, *keys: str) -> None:
    tags.remove(CALLER, {"Resource": arn, "TagKeys": list(keys)})


def listed(tags: Tags, arn: str) -> dict[str, str]:
    return tags.list(CALLER, {"Resource": arn})


# ---- functions ---------------------------------------------------------------------------------------


def test_a_functions_tags(plane: Plane) -> None:
    assert listed(plane.tags, ARN) == {}
    add(plane.tags, ARN, {"a": "1", "b": "2"})
    add(plane.tags, ARN, {"b": "3", "c": ""})
    assert listed(plane.tags, ARN) == plane.function.tags == {"a": "1", "b": "3", "c": ""}
    remove(plane.tags, ARN, "a", "unknown")
    assert plane.function.tags == {"b": "3", "c": ""}
    assert plane.store.all(TAGS) == []


def test_every_change_shows(plane: Plane) -> None:
    """Also one that changes nothing."""
    add(plane.tags, ARN, {"a": "1"})
    for call in (lambda: add(plane.tags, ARN, {"a": "1"}), lambda: remove(plane.tags, ARN, "unknown")):
        before = plane.function
        plane.clock.advance(1)
        call()
        after = plane.function
        assert after.revision_id != before.revision_id
        assert after.last_modified > before.last_modified
        assert after.tags == {"a": "1"}


def test_tags_are_no_reason_for_a_version(plane: Plane) -> None:
    add(plane.tags, ARN, {"a": "1"})
    assert plane.versions.publish(CALLER, {"FunctionName": "hello"}).version == "1"
    add(plane.tags, ARN, {"a": "2"})
    assert plane.versions.publish(CALLER, {"FunctionName": "hello"}).version == "1"
    assert [version.tags for version in plane.store.all(VERSION)] == [{}]


def test_tags_and_updates_under_way(plane: Plane) -> None:
    plane.create("second")
    add(plane.tags, f"{PREFIX}:function:second", {"a": "1"})  # while it is being created
    plane.functions.update_configuration(CALLER, {"FunctionName": "hello", "Timeout": 9})
    before = plane.function
    message = refused("ResourceConflictException", add, plane.tags, ARN, {"a": "1"})
    assert message == f"The operation cannot be performed at this time. An update is in progress for resource: {ARN}"
    assert plane.function == before
    plane.clock.advance(1)
    add(plane.tags, ARN, {"a": "1"})
    assert plane.function.tags == listed(plane.tags, f"{PREFIX}:function:second") == {"a": "1"}


def test_no_more_than_fifty(plane: Plane) -> None:
    add(plane.tags, ARN, MANY)
    before = plane.function
    for wanted in ({"more": "v"}, MANY | {"more": "v"}):
        message = refused("InvalidParameterValueException", add, plane.tags, ARN, wanted)
        assert message == "Number of tags exceeds resource tag limit."
    assert plane.function == before
    add(plane.tags, ARN, {"key0": "other"})
    assert len(plane.function.tags) == limits.TAGS_MAX


@pytest.mark.parametrize("key", ["aws:x", "AWS:x", "Aws:"])
def test_reserved_keys(plane: Plane, key: str) -> None:
    refused("InvalidParameterValueException", add, plane.tags, ARN, {"good": "1", key: "1"})
    assert plane.function.tags == {}


def test_what_a_request_says_is_looked_at_first(plane: Plane) -> None:
    nobody = f"{PREFIX}:function:nobody"
    nothing = "An error occurred and the request cannot be processed."
    assert refused("InvalidParameterValueException", add, plane.tags, nobody, {}) == nothing
    assert refused("InvalidParameterValueException", add, plane.tags, MAPPING, {}) == nothing
    refused("InvalidParameterValueException", add, plane.tags, nobody, MANY | {"more": "v"})
    for qualifier in ("$LATEST", "1", "live"):
        for call in ((add, {"a": "1"}), (add, {}), (remove, "a"), (listed,)):
            message = refused("InvalidParameterValueException", call[0], plane.tags, f"{nobody}:{qualifier}", *call[1:])
            assert message == "Tags on function aliases and versions are not supported. Please specify a function ARN."
    for call in ((add, {"a": "1"}), (remove, "a"), (listed,)):
        assert (
            refused("ResourceNotFoundException", call[0], plane.tags, nobody, *call[1:])
            == f"Function not found: {nobody}"
        )


# ---- everything else ---------------------------------------------------------------------------------


def test_what_nobody_registered_does_not_exist(plane: Plane) -> None:
    for name, title in (
        (f"event-source-mapping:{UUID}", "Event source mapping"),
        ("code-signing-config:csc-0123456789abcdef0", "Code signing config"),
        ("capacity-provider:mine", "Capacity provider"),
        ("network-connector:mine", "Network connector"),
        ("layer:mine", "Layer"),
    ):
        arn = f"{PREFIX}:{name}"
        for call in ((add, {"a": "1"}), (remove, "a"), (listed,)):
            assert (
                refused("ResourceNotFoundException", call[0], plane.tags, arn, *call[1:]) == f"{title} not found: {arn}"
            )
    assert plane.store.all(TAGS) == []


def test_a_resource_of_another_owner(plane: Plane) -> None:
    there = {MAPPING_KEY}
    plane.tags.register("event-source-mapping", there.__contains__)
    assert plane.tags.new("event-source-mapping", MAPPING_KEY, None) == []
    assert plane.tags.new("event-source-mapping", MAPPING_KEY, {}) == []
    refused("InvalidParameterValueException", plane.tags.new, "event-source-mapping", MAPPING_KEY, {"aws:x": "1"})
    plane.store.apply(plane.tags.new("event-source-mapping", MAPPING_KEY, {"a": "1"}))
    assert listed(plane.tags, MAPPING) == plane.tags.of("event-source-mapping", MAPPING_KEY) == {"a": "1"}
    add(plane.tags, MAPPING, {"b": "2"})
    assert listed(plane.tags, MAPPING) == {"a": "1", "b": "2"}
    refused("InvalidParameterValueException", add, plane.tags, MAPPING, MANY)
    remove(plane.tags, MAPPING, "a")
    assert [(record.resource, record.tags) for record in plane.store.all(TAGS)] == [
        (f"event-source-mapping:{UUID}", {"b": "2"})
    ]
    other = Caller(OTHER, f"arn:aws:iam::{OTHER}:root", "us-east-1")
    assert "no resource-based policy allows the lambda:ListTags action" in refused(
        "AccessDeniedException", plane.tags.list, other, {"Resource": MAPPING}
    )
    far = CALLER._replace(region="eu-west-1")
    assert refused("ResourceNotFoundException", plane.tags.list, far, {"Resource": MAPPING}).endswith(MAPPING)
    plane.store.apply([plane.tags.gone("event-source-mapping", MAPPING_KEY)])
    assert listed(plane.tags, MAPPING) == {}
    there.clear()
    refused("ResourceNotFoundException", listed, plane.tags, MAPPING)


def test_types_are_kept_apart(plane: Plane) -> None:
    key = RecordKey(ACCOUNT, "us-east-1", "mine")
    for resource_type in ("layer", "capacity-provider"):
        plane.tags.register(resource_type, lambda wanted: wanted == key)
        add(plane.tags, f"{PREFIX}:{resource_type}:mine", {"type": resource_type})
    assert plane.tags.of("layer", key) == {"type": "layer"}
    assert plane.tags.of("capacity-provider", key) == {"type": "capacity-provider"}


keys = st.sampled_from("abcdef")
changes = st.lists(
    st.one_of(st.dictionaries(keys, st.text(max_size=2), min_size=1), st.lists(keys, min_size=1)), max_size=12
)


@given(changes)
def test_tags_are_a_dictionary(changes: list[dict[str, str] | list[str]]) -> None:
    """Whatever is done to them, they are what a dictionary would be; nothing is kept for what has none."""
    store = MemoryStore()
    tags = Tags(store, VirtualClock())
    tags.register("event-source-mapping", lambda key: True)
    model: dict[str, str] = {}
    for change in changes:
        if isinstance(change, dict):
            add(tags, MAPPING, change)
            model |= change
        else:
            remove(tags, MAPPING, *change)
            model = {key: value for key, value in model.items() if key not in change}
        assert listed(tags, MAPPING) == model
        assert len(store.all(TAGS)) == bool(model)
