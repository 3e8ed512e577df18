"""Aliases without HTTP: what they point at, what two versions behind one may be, whose RevisionId says what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastlam.model.alias import AliasRecord
from fastlam.store.records import ALIAS, Change
from memory_plane import ARN, CALLER, KEY, MemoryPlane, refused

ROLE = "arn:aws:iam::000000000000:role/other"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:q"


@pytest.fixture
def plane(tmp_path: Path) -> MemoryPlane:
    """A function with three versions; the third has another role."""
    own = MemoryPlane(tmp_path)
    own.create()
    own.publish()
    own.configure(Timeout=9)
    own.publish()
    own.configure(Role=ROLE)
    own.publish()
    return own


def named(name: str = "live", **more: Any) -> dict[str, Any]:
    return {"FunctionName": "hello", "Name": name, **more}


def routing(**weights: float) -> dict[str, Any]:
    """`routing(v2=0.1)` sends a tenth to version 2."""
    return {"RoutingConfig": {"AdditionalVersionWeights": {name[1:]: weight for name, weight in weights.items()}}}


def create(plane: MemoryPlane, name: str = "live", version: str = "1", **more: Any) -> AliasRecord:
    return plane.aliases.create(CALLER, named(name, FunctionVersion=version, **more))


def update(plane: MemoryPlane, **more: Any) -> AliasRecord:
    return plane.aliases.update(CALLER, named(**more))


def get(plane: MemoryPlane, name: str = "live") -> AliasRecord:
    return plane.aliases.get(CALLER, named(name))


def test_create_and_get(plane: MemoryPlane) -> None:
    latest = plane.record()
    created = create(plane, Description="what is live", **routing(v2=0.25))
    assert created == get(plane) == plane.store.get(ALIAS, KEY._replace(part="live"))
    assert created.arn == f"{ARN}:hello:live"
    assert (created.function_version, created.additional_weights) == ("1", {"2": 0.25})
    assert created.description == "what is live"
    assert plane.record() == latest  # whose RevisionId stays
    plain = create(plane, "2024-01-02")
    assert (plain.description, plain.additional_weights) == ("", {})
    assert create(plane, "newest", "$LATEST").function_version == "$LATEST"


def test_what_an_alias_may_not_be(plane: MemoryPlane) -> None:
    create(plane)
    heard: list[Change] = []
    plane.store.watch(heard.append)
    invalid, missing = "InvalidParameterValueException", "ResourceNotFoundException"
    for code, message, request in (
        ("ResourceConflictException", f"Alias already exists: {ARN}:hello:live", {}),
        (missing, f"Function not found: {ARN}:hello:7", {"FunctionVersion": "7"}),
        (missing, f"Function not found: {ARN}:nope:1", {"FunctionName": "nope"}),
        (missing, f"Function not found: {ARN}:nope:$LATEST", {"FunctionName": "nope", "FunctionVersion": "$LATEST"}),
        (
            invalid,
            "Number of items in AdditionalVersionWeights cannot be greater than 1",
            routing(v2=0.1, v3=0.1),
        ),
        (
            invalid,
            "Invalid function version 1. Function version 1 is already included in routing configuration.",
            routing(v1=0.1),
        ),
        (
            invalid,
            "$LATEST is not supported for an alias pointing to more than 1 version",
            {"FunctionVersion": "$LATEST", **routing(v1=0.5)},
        ),
        (missing, f"Function not found: {ARN}:hello:9", routing(v9=0.1)),
    ):
        call = CALLER, named(FunctionVersion="1") | request
        assert refused(code, plane.aliases.create, *call) == message
        if "already exists" not in message and "FunctionName" not in request:
            assert refused(code, plane.aliases.update, *call) == message
    assert heard == []


def test_two_versions_have_one_role_and_one_queue(plane: MemoryPlane) -> None:
    invalid = "InvalidParameterValueException"
    message = refused(invalid, plane.aliases.create, CALLER, named(FunctionVersion="1", **routing(v3=0.5)))
    assert "same execution role" in message
    plane.configure(DeadLetterConfig={"TargetArn": QUEUE})
    plane.publish()
    message = refused(invalid, plane.aliases.create, CALLER, named(FunctionVersion="3", **routing(v4=0.5)))
    assert "same dead-letter queue" in message
    plane.configure(Timeout=10)
    plane.publish()
    create(plane, version="4", **routing(v5=0.5))
    assert "same execution role" in refused(invalid, plane.aliases.update, CALLER, named(FunctionVersion="1"))


def test_update_changes_what_it_is_given(plane: MemoryPlane) -> None:
    first = create(plane, Description="one", **routing(v2=0.1))
    second = update(plane, Description="two")
    assert (second.function_version, second.additional_weights, second.description) == ("1", {"2": 0.1}, "two")
    third = update(plane, **routing(v2=0.5))
    assert (third.additional_weights, third.description) == ({"2": 0.5}, "two")
    fourth = update(plane, RoutingConfig={})
    assert (fourth.function_version, fourth.additional_weights) == ("1", {})
    update(plane, **routing(v2=0.0))
    assert get(plane).additional_weights == {"2": 0.0}
    fifth = update(plane, FunctionVersion="2", **routing())
    assert (fifth.function_version, fifth.additional_weights) == ("2", {})
    assert update(plane, FunctionVersion="$LATEST", Description="").description == ""
    unchanged = update(plane)
    assert len({each.revision_id for each in (first, second, third, fourth, fifth, unchanged, get(plane))}) == 6


def test_moving_onto_its_own_second_version(plane: MemoryPlane) -> None:
    """Shifting all of the traffic has to clear the weights, too."""
    create(plane, **routing(v2=0.1))
    message = refused("InvalidParameterValueException", plane.aliases.update, CALLER, named(FunctionVersion="2"))
    assert message == "Invalid function version 2. Function version 2 is already included in routing configuration."
    message = refused("InvalidParameterValueException", plane.aliases.update, CALLER, named(FunctionVersion="$LATEST"))
    assert message == "$LATEST is not supported for an alias pointing to more than 1 version"
    assert get(plane).function_version == "1"


def test_whose_revision_says_what(plane: MemoryPlane) -> None:
    alias = create(plane)
    stale = "00000000-0000-4000-8000-000000000000"
    for wrong in (stale, plane.record().revision_id, plane.record(version="1").revision_id):
        call = CALLER, named(FunctionVersion="2", RevisionId=wrong)
        message = refused("PreconditionFailedException", plane.aliases.update, *call)
        assert message == (
            "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve"
            " the latest Revision Id"
        )
    assert get(plane) == alias
    moved = update(plane, FunctionVersion="2", RevisionId=alias.revision_id)
    assert refused("PreconditionFailedException", plane.aliases.update, CALLER, named(RevisionId=alias.revision_id))
    assert update(plane, RevisionId=moved.revision_id).function_version == "2"
    # What becomes of the function is another matter.
    before = get(plane)
    plane.configure(Timeout=77)
    plane.publish()
    assert get(plane) == before


def test_what_is_not_there(plane: MemoryPlane) -> None:
    missing = "ResourceNotFoundException"
    assert refused(missing, plane.aliases.get, CALLER, named()) == f"Cannot find alias arn: {ARN}:hello:live"
    assert refused(missing, plane.aliases.update, CALLER, named()) == f"Alias not found: {ARN}:hello:live"
    plane.aliases.delete(CALLER, named())  # as good as deleted
    plane.aliases.delete(CALLER, named() | {"FunctionName": "nope"})
    message = refused(missing, plane.aliases.list, CALLER, {"FunctionName": "nope"})
    assert message == f"Function not found: {ARN}:nope"
    created = create(plane)
    plane.aliases.delete(CALLER, named())
    assert refused(missing, plane.aliases.get, CALLER, named())
    assert create(plane).revision_id != created.revision_id


def test_lists(plane: MemoryPlane) -> None:
    create(plane, "b", "1", **routing(v2=0.5))
    create(plane, "a", "2")
    create(plane, "C", "3")
    create(plane, "d", "$LATEST")

    def names(**more: Any) -> list[str]:
        return [alias.name for alias in plane.aliases.list(CALLER, {"FunctionName": "hello", **more}).items]

    assert names() == ["C", "a", "b", "d"]
    assert names(FunctionVersion="2") == ["a", "b"]
    assert names(FunctionVersion="$LATEST") == ["d"]
    assert names(FunctionVersion="7") == []
    page = plane.aliases.list(CALLER, {"FunctionName": "hello", "MaxItems": 2})
    assert [alias.name for alias in page.items] == ["C", "a"]
    plane.aliases.delete(CALLER, named("a"))
    assert names(Marker=page.next_marker) == ["b", "d"]
    for number in range(60):  # not capped at 50
        create(plane, f"x{number:02}")
    assert len(names()) == 63


def test_reading_through_an_alias(plane: MemoryPlane) -> None:
    create(plane, **routing(v2=0.9))

    def got(name: str, qualifier: str | None = None) -> tuple[str, int, str | None]:
        request = {"FunctionName": name} | ({} if qualifier is None else {"Qualifier": qualifier})
        view = plane.functions.get(CALLER, request)
        return view.record.version, view.record.timeout_seconds, view.qualifier

    assert got("hello", "live") == got("hello:live") == ("1", 3, "live")
    assert got(f"{ARN}:hello:live") == ("1", 3, "live")
    assert got("hello", "2") == ("2", 9, "2")
    update(plane, FunctionVersion="2", RoutingConfig={})
    assert got("hello:live") == ("2", 9, "live")
    update(plane, FunctionVersion="$LATEST")
    assert got("hello:live") == ("$LATEST", 9, "live")
    message = refused("ResourceNotFoundException", plane.functions.get, CALLER, {"FunctionName": "hello:gone"})
    assert message == f"Function not found: {ARN}:hello:gone"
