"""Versions without HTTP: what they keep, when there is a new one, what numbers they have, what goes with them."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fastlam import limits
from fastlam.model.function import FunctionRecord
from fastlam.store.records import ALIAS, FUNCTION, RESERVED_CONCURRENCY, VERSION, Change, Kind
from memory_plane import ARN, CALLER, KEY, MemoryPlane, package, refused, request


@pytest.fixture
def plane(tmp_path: Path) -> MemoryPlane:
    own = MemoryPlane(tmp_path)
    own.create(Description="first", Environment={"Variables": {"STAGE": "one"}}, Tags={"team": "blue"})
    return own


def listed(plane: MemoryPlane, **more: Any) -> list[str]:
    page = plane.versions.list(CALLER, {"FunctionName": "hello", **more})
    return [record.version for record in page.items]


def delete(plane: MemoryPlane, qualifier: str | None = None) -> None:
    more = {} if qualifier is None else {"Qualifier": qualifier}
    plane.functions.delete(CALLER, {"FunctionName": "hello", **more})


def without_what_differs(record: FunctionRecord) -> FunctionRecord:
    return replace(record, version="", revision_id="", last_modified="", description="", tags={})


def test_a_version_is_latest_as_it_was(plane: MemoryPlane) -> None:
    latest = plane.record()
    plane.clock.advance(60)
    version = plane.publish()
    assert version.version == "1"
    assert without_what_differs(version) == without_what_differs(latest)
    assert version.description == latest.description == "first"
    assert version.last_modified > latest.last_modified
    assert version.revision_id not in (latest.revision_id, plane.record().revision_id)
    assert version.qualified_arn == f"{ARN}:hello:1"
    assert version.tags == {}  # they are the function's
    assert (version.state, version.last_update_status) == ("Active", "Successful")
    assert listed(plane) == ["$LATEST", "1"]


def test_nothing_changes_a_version(plane: MemoryPlane) -> None:
    version = plane.publish()
    plane.recode("new")
    plane.configure(
        Timeout=9,
        MemorySize=512,
        Description="second",
        Environment={"Variables": {"STAGE": "two"}},
        Handler="other.handler",
        Role="arn:aws:iam::000000000000:role/other",
        LoggingConfig={"LogFormat": "JSON"},
    )
    plane.publish(Description="2")
    delete(plane, "2")
    plane.reserved_concurrency.put(CALLER, {"FunctionName": "hello", "ReservedConcurrentExecutions": 3})
    assert plane.record(version="1") == version
    assert plane.functions.variables(version) == {"STAGE": "one"}
    assert plane.functions.variables(plane.record()) == {"STAGE": "two"}
    code = plane.artifacts.open(version.artifact)
    assert code is not None
    assert (code.directory / "app.py").read_text() == "pass"


CHANGES: list[dict[str, Any]] = [
    {"Timeout": 9},
    {"MemorySize": 256},
    {"Handler": "app.other"},
    {"Runtime": "python3.12"},
    {"Role": "arn:aws:iam::000000000000:role/other"},
    {"Environment": {"Variables": {"STAGE": "two"}}},
    {"Environment": {"Variables": {}}},
    {"TracingConfig": {"Mode": "Active"}},
    {"EphemeralStorage": {"Size": 1024}},
    {"LoggingConfig": {"LogFormat": "JSON"}},
    {"LoggingConfig": {"LogGroup": "/other"}},
    {"KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1"},
    {"DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:q"}},
    {"VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}},
    {
        "FileSystemConfigs": [
            {
                "Arn": "arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/fsap-0123456789abcdef0",
                "LocalMountPath": "/mnt/x",
            }
        ]
    },
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: "-".join(change))
def test_a_change_makes_the_next_version_another_one(plane: MemoryPlane, change: dict[str, Any]) -> None:
    first = plane.publish()
    plane.configure(**change)
    second = plane.publish()
    assert (first.version, second.version) == ("1", "2")
    assert without_what_differs(first) != without_what_differs(second)


def test_code_makes_the_next_version_another_one(plane: MemoryPlane) -> None:
    plane.publish()
    plane.recode("new")
    second = plane.publish()
    assert second.version == "2"
    assert second.code_sha256 == base64.b64encode(hashlib.sha256(package("new")).digest()).decode()


def test_without_a_change_it_is_the_newest_once_more(plane: MemoryPlane) -> None:
    first = plane.publish()
    latest = plane.record()
    assert plane.publish() == first
    assert plane.publish(Description="only the description differs") == first
    assert plane.record() == latest  # and keeps its RevisionId
    plane.configure(Description="that of $LATEST, too")
    plane.configure(Timeout=first.timeout_seconds, MemorySize=first.memory_mb)
    plane.recode("pass")
    plane.reserved_concurrency.put(CALLER, {"FunctionName": "hello", "ReservedConcurrentExecutions": 3})
    assert plane.publish() == first
    assert listed(plane) == ["$LATEST", "1"]


def test_back_to_what_the_newest_version_has(plane: MemoryPlane) -> None:
    """The same settings are no new version, even if they were others in between."""
    first = plane.publish()
    plane.configure(Timeout=9, Environment={"Variables": {"STAGE": "two"}})
    plane.recode("other")
    plane.configure(Timeout=3, Environment={"Variables": {"STAGE": "one"}})
    plane.recode("pass")
    assert plane.publish() == first


def test_only_the_newest_version_is_compared(plane: MemoryPlane) -> None:
    plane.publish()
    plane.configure(Timeout=9)
    plane.publish()
    plane.configure(Timeout=3)
    assert plane.publish().version == "3"
    delete(plane, "3")
    assert plane.publish().version == "4"  # the newest that is there has another timeout
    delete(plane, "4")
    delete(plane, "2")
    assert plane.publish().version == "1"


def test_descriptions(plane: MemoryPlane) -> None:
    assert plane.publish().description == "first"
    plane.configure(Timeout=9)
    assert plane.publish(Description="of the version").description == "of the version"
    plane.configure(Timeout=10)
    assert plane.publish(Description="").description == ""
    assert plane.record().description == "first"


def test_the_code_that_is_expected(plane: MemoryPlane) -> None:
    actual = plane.record().code_sha256
    wrong = base64.b64encode(bytes(32)).decode()
    message = refused(
        "InvalidParameterValueException",
        plane.versions.publish,
        CALLER,
        {"FunctionName": "hello", "CodeSha256": wrong},
    )
    assert message == (
        f"CodeSHA256 ({wrong}) is different from current CodeSHA256 in $LATEST ({actual})."
        " Please try again with the CodeSHA256 in $LATEST."
    )
    assert listed(plane) == ["$LATEST"]
    assert plane.publish(CodeSha256=actual).version == "1"
    assert plane.publish(CodeSha256="").version == "1"


def test_revisions(plane: MemoryPlane) -> None:
    """Publishing changes that of $LATEST once; giving an existing version changes nothing."""
    before = plane.record().revision_id
    stale = {"FunctionName": "hello", "RevisionId": "00000000-0000-4000-8000-000000000000"}
    heard: list[Change] = []
    stop = plane.store.watch(heard.append)
    refused("PreconditionFailedException", plane.versions.publish, CALLER, stale)
    assert heard == []
    version = plane.publish(RevisionId=before)
    assert [change.kind.name for change in heard] == ["counter", "version", "function"]
    stop()
    after = plane.record().revision_id
    assert len({before, after, version.revision_id}) == 3
    assert plane.record().last_modified == heard[2].previous.last_modified
    refused("PreconditionFailedException", plane.versions.publish, CALLER, stale | {"RevisionId": before})
    assert plane.publish(RevisionId=after) == version
    assert plane.record().revision_id == after


def test_while_the_function_is_changing(plane: MemoryPlane) -> None:
    busy = "The operation cannot be performed at this time. An update is in progress for resource: "
    plane.functions.update_configuration(CALLER, {"FunctionName": "hello", "Timeout": 9})
    call = CALLER, {"FunctionName": "hello"}
    assert refused("ResourceConflictException", plane.versions.publish, *call) == busy + f"{ARN}:hello"
    plane.settle()
    plane.functions.create(CALLER, request("second"))
    call = CALLER, {"FunctionName": "second"}
    assert refused("ResourceConflictException", plane.versions.publish, *call) == busy + f"{ARN}:second"
    plane.settle()
    assert plane.versions.publish(*call).version == "1"


def test_numbers_are_never_given_twice(plane: MemoryPlane) -> None:
    for timeout in (4, 5):
        plane.publish()
        plane.configure(Timeout=timeout)
    delete(plane, "2")
    assert plane.publish().version == "3"
    delete(plane)
    plane.create()
    assert listed(plane) == ["$LATEST"]
    assert plane.publish().version == "4"
    plane.create("other")
    assert plane.publish("other").version == "1"


def test_publish_on_create(plane: MemoryPlane) -> None:
    answer = plane.functions.create(CALLER, request("second", Publish=True, Tags={"a": "b"}))
    assert (answer.version, answer.state, answer.state_reason_code) == ("1", "Pending", "Creating")
    assert plane.record("second").state == "Pending"
    plane.settle()
    version = plane.record("second", "1")
    assert (version.state, version.last_update_status, version.tags) == ("Active", "Successful", {})
    assert version.revision_id != answer.revision_id
    assert plane.record("second").settled
    assert plane.publish("second") == version


def test_publish_on_update(plane: MemoryPlane) -> None:
    update = {"FunctionName": "hello", "ZipFile": package("new"), "Publish": True}
    answer = plane.functions.update_code(CALLER, update)
    assert (answer.version, answer.state) == ("1", "Pending")
    assert plane.record().last_update_status == "InProgress"
    plane.settle()
    version = plane.record(version="1")
    assert (version.state, version.last_update_status) == ("Active", "Successful")
    again = plane.functions.update_code(CALLER, update)
    assert again == version  # the same code is no new version
    plane.settle()
    assert listed(plane) == ["$LATEST", "1"]
    assert plane.functions.update_code(CALLER, update | {"DryRun": True}).version == "$LATEST"
    plane.functions.update_code(CALLER, update | {"DryRun": True, "ZipFile": package("third")})
    assert listed(plane) == ["$LATEST", "1"]


def test_deleting_versions(plane: MemoryPlane) -> None:
    plane.publish()
    plane.configure(Timeout=9)
    plane.publish()
    message = refused("InvalidParameterValueException", delete, plane, "$LATEST")
    assert message == "$LATEST version cannot be deleted without deleting the function."
    message = refused("InvalidParameterValueException", delete, plane, "live")
    assert message == "Deletion of aliases is not currently supported."
    latest = plane.record()
    delete(plane, "1")
    delete(plane, "1")
    delete(plane, "77")
    assert listed(plane) == ["$LATEST", "2"]
    assert plane.record() == latest
    missing = CALLER, {"FunctionName": "nope", "Qualifier": "1"}
    message = refused("ResourceNotFoundException", plane.functions.delete, *missing)
    assert message == f"Function not found: {ARN}:nope"


def test_versions_behind_aliases_stay(plane: MemoryPlane) -> None:
    plane.publish()
    plane.configure(Timeout=9)
    plane.publish()
    plane.configure(Timeout=10)
    plane.publish()
    for name, version, weights in (("live", "1", {"2": 0.1}), ("also", "1", {}), ("latest", "$LATEST", {})):
        routing = {"RoutingConfig": {"AdditionalVersionWeights": weights}}
        plane.aliases.create(CALLER, {"FunctionName": "hello", "Name": name, "FunctionVersion": version, **routing})
    unable = "Unable to delete version because the following aliases reference it: "
    assert refused("ResourceConflictException", delete, plane, "1") == unable + "[also, live]"
    assert refused("ResourceConflictException", delete, plane, "2") == unable + "[live]"
    assert listed(plane) == ["$LATEST", "1", "2", "3"]
    delete(plane, "3")
    plane.aliases.delete(CALLER, {"FunctionName": "hello", "Name": "live"})
    delete(plane, "2")
    assert listed(plane) == ["$LATEST", "1"]


def test_everything_goes_with_the_function(plane: MemoryPlane) -> None:
    plane.publish()
    plane.aliases.create(CALLER, {"FunctionName": "hello", "Name": "live", "FunctionVersion": "1"})
    plane.reserved_concurrency.put(CALLER, {"FunctionName": "hello", "ReservedConcurrentExecutions": 3})
    plane.create("hello2")
    plane.publish("hello2")
    delete(plane)
    kinds: list[Kind[Any]] = [FUNCTION, VERSION, ALIAS, RESERVED_CONCURRENCY]
    assert [plane.store.parts(kind, KEY) for kind in kinds] == [[]] * 4
    assert plane.record("hello2", "1").version == "1"


def test_lists_by_pages(plane: MemoryPlane) -> None:
    for timeout in range(10, 22):
        plane.configure(Timeout=timeout)
        plane.publish()
    every = ["$LATEST", *map(str, range(1, 13))]
    assert listed(plane) == every
    seen: list[str] = []
    marker: dict[str, str] = {}
    while True:
        page = plane.versions.list(CALLER, {"FunctionName": "hello", "MaxItems": 1, **marker})
        assert len(page.items) == 1
        seen.append(page.items[0].version)
        if page.next_marker is None:
            break
        marker = {"Marker": page.next_marker}
        if seen[-1] == "5":
            delete(plane, "5")  # a marker outlives what it was made from
    assert seen == every
    for wrong in ("x", "YWZ0ZXI6eA=="):
        call = CALLER, {"FunctionName": "hello", "Marker": wrong}
        assert refused("InvalidParameterValueException", plane.versions.list, *call) == "Invalid marker"


def test_code_of_versions_is_kept_and_collected(plane: MemoryPlane) -> None:
    """Once for all that share it, for as long as one of them does, and a while longer."""
    first = plane.publish().artifact
    plane.create("sharing")
    second = plane.recode("second").artifact
    plane.publish()
    plane.recode("third")

    def present(artifact: str) -> bool:
        return plane.artifacts.open(artifact) is not None

    plane.clock.advance(3 * limits.CODE_GRACE_SECONDS)
    assert present(first) and present(second)
    delete(plane, "2")
    assert present(second)
    plane.clock.advance(limits.CODE_GRACE_SECONDS)
    assert not present(second)
    delete(plane)
    plane.clock.advance(limits.CODE_GRACE_SECONDS)
    assert present(first)
    plane.functions.delete(CALLER, {"FunctionName": "sharing"})
    assert present(first)
    plane.clock.advance(limits.CODE_GRACE_SECONDS)
    assert not present(first)
