"""Layers without HTTP: versions, whose they are, and the policies that lend them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fastlam import limits
from fastlam.control.code import S3Object
from fastlam.errors import ApiError
from fastlam.model.layer import LayerVersionRecord
from fastlam.store.records import LAYER_VERSION, TAGS
from fastlam.store.sqlite import FILE_NAME, SqliteStore
from layer_plane import ELSEWHERE, OTHER, STRANGER, LayerPlane, arn, package, permission, version_request
from memory_plane import ACCOUNT, CALLER, REGION, refused


@pytest.fixture
def plane(tmp_path: Path) -> LayerPlane:
    return LayerPlane(tmp_path)


# Versions ----------------------------------------------------------------------------------------


def test_versions_are_never_used_again(plane: LayerPlane) -> None:
    assert [plane.publish_layer().version, plane.publish_layer().version, plane.publish_layer("other").version] == [
        1,
        2,
        1,
    ]
    plane.layers.delete(CALLER, version_request(version=2))
    assert plane.publish_layer().version == 3
    for version in (1, 3):
        plane.layers.delete(CALLER, version_request(version=version))
    assert [record.name for record in plane.layers.list(CALLER, {}).items] == ["other"]
    assert plane.publish_layer().version == 4
    assert plane.publish_layer(caller=STRANGER).version == 1, "numbers belong to one account"
    assert plane.publish_layer(caller=ELSEWHERE).version == 1, "and to one region"


def test_numbers_outlive_the_process(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    store = SqliteStore(data / FILE_NAME)
    plane = LayerPlane(data, store)
    kept = plane.publish_layer(
        Description="first", CompatibleRuntimes=["python3.12"], CompatibleArchitectures=[], LicenseInfo="MIT"
    )
    plane.publish_layer()
    plane.layers.delete(CALLER, version_request(version=2))
    store.close()
    store = SqliteStore(data / FILE_NAME)
    again = LayerPlane(data, store)
    assert again.layers.get(CALLER, version_request()) == kept
    assert again.publish_layer().version == 3
    store.close()


def test_what_a_refused_publication_leaves(plane: LayerPlane) -> None:
    refused("InvalidParameterValueException", plane.publish_layer, "common", b"no zip")
    content: Mapping[str, Any] = {}
    assert "source" in refused(
        "InvalidParameterValueException", plane.layers.publish, CALLER, {"LayerName": "common", "Content": content}
    )
    content = {"ZipFile": package(), "S3Bucket": "code"}
    assert "ZipFile" in refused(
        "InvalidParameterValueException", plane.layers.publish, CALLER, {"LayerName": "common", "Content": content}
    )
    assert plane.artifacts_kept() == set()
    assert plane.publish_layer().version == 1, "no number is spent on what was refused"


def test_content_from_s3(plane: LayerPlane) -> None:
    plane.objects[REGION, "code", "layer.zip"] = S3Object(package(), "v7")
    where = {"S3Bucket": "code", "S3Key": "layer.zip"}
    copied = plane.layers.publish(CALLER, {"LayerName": "common", "Content": where})
    assert copied.s3_object is None
    assert copied.code_sha256 == plane.publish_layer(content=package()).code_sha256
    assert len(plane.artifacts_kept()) == 1
    referred = plane.layers.publish(
        CALLER, {"LayerName": "common", "Content": where | {"S3ObjectStorageMode": "REFERENCE"}}
    )
    assert referred.s3_object == where | {"S3ObjectVersion": "v7"}


def test_storage_is_counted_and_bounded(plane: LayerPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    size = plane.publish_layer().code_bytes
    plane.publish_layer()
    assert plane.functions.stored_bytes(ACCOUNT, REGION) == 2 * size, "for each version, though it is stored once"
    assert plane.functions.stored_bytes(OTHER, REGION) == 0
    monkeypatch.setattr(limits, "CODE_STORAGE_BYTES_MAX", 3 * size)
    plane.publish_layer()
    assert refused("CodeStorageExceededException", plane.publish_layer) == "Code storage limit exceeded."
    refused("CodeStorageExceededException", plane.create_with)
    assert len(plane.layers.list_versions(CALLER, {"LayerName": "common"}).items) == 3


def test_lists(plane: LayerPlane) -> None:
    for _ in range(11):
        plane.publish_layer("b", CompatibleRuntimes=["python3.12"], CompatibleArchitectures=["x86_64"])
    plane.publish_layer("b", CompatibleRuntimes=["python3.13"])
    plane.publish_layer("a")
    plane.publish_layer("c", CompatibleRuntimes=["python3.12", "python3.13"], CompatibleArchitectures=["arm64"])

    def names(**request: Any) -> list[tuple[str, int]]:
        return [(record.name, record.version) for record in plane.layers.list(CALLER, request).items]

    assert names() == [("a", 1), ("b", 12), ("c", 1)]
    assert names(CompatibleRuntime="python3.12") == [("b", 11), ("c", 1)]
    assert names(CompatibleArchitecture="arm64") == [("c", 1)]
    assert names(CompatibleRuntime="python3.13", CompatibleArchitecture="x86_64") == []

    def numbers(**request: Any) -> list[int]:
        return [record.version for record in plane.layers.list_versions(CALLER, {"LayerName": "b", **request}).items]

    assert numbers() == list(range(12, 0, -1))
    assert numbers(CompatibleRuntime="python3.13") == [12]
    assert numbers(LayerName="unknown") == []


def test_pages(plane: LayerPlane) -> None:
    for number in range(5):
        plane.publish_layer("common")
        plane.publish_layer(f"layer-{number}")

    def walk(call: Callable[..., Any], **request: Any) -> list[LayerVersionRecord]:
        found: list[LayerVersionRecord] = []
        marker = None
        while True:
            page = call(CALLER, {"MaxItems": 2, "Marker": marker, **request})
            assert 1 <= len(page.items) <= 2
            found += page.items
            marker = page.next_marker
            if marker is None:
                return found
            if request:
                plane.publish_layer("common")  # what is newer does not shift the pages

    assert [each.name for each in walk(plane.layers.list)] == ["common", *(f"layer-{number}" for number in range(5))]
    assert [each.version for each in walk(plane.layers.list_versions, LayerName="common")] == [5, 4, 3, 2, 1]
    for call in (plane.layers.list, plane.layers.list_versions):
        refused("InvalidParameterValueException", call, CALLER, {"LayerName": "common", "Marker": "nonsense"})


def test_tags_go_with_the_last_version(plane: LayerPlane) -> None:
    resource = {"Resource": plane.publish_layer().layer_arn}
    plane.publish_layer()
    plane.tags.add(CALLER, resource | {"Tags": {"team": "a"}})
    plane.layers.delete(CALLER, version_request(version=1))
    assert plane.tags.list(CALLER, resource) == {"team": "a"}
    plane.layers.delete(CALLER, version_request(version=2))
    assert plane.store.all(TAGS) == []
    plane.publish_layer()
    assert plane.tags.list(CALLER, resource) == {}


# Whose they are ----------------------------------------------------------------------------------


def test_names_may_be_arns(plane: LayerPlane) -> None:
    own = plane.publish_layer(arn("common").rpartition(":")[0])
    assert own.name == "common"
    assert plane.layers.get(CALLER, version_request(own.layer_arn)) == own
    assert plane.layers.get_by_arn(CALLER, {"Arn": own.arn}) == own
    assert plane.layers.list_versions(CALLER, {"LayerName": own.layer_arn}).items == [own]
    plane.layers.delete(CALLER, version_request(own.layer_arn))
    assert plane.store.all(LAYER_VERSION) == []


def test_layers_of_another_region(plane: LayerPlane) -> None:
    far = plane.publish_layer(caller=ELSEWHERE)
    text = "Layers from 'eu-west-1' are not reachable in this region ('us-east-1')"
    for call, request in (
        (plane.layers.publish, {"LayerName": far.layer_arn, "Content": {"ZipFile": package()}}),
        (plane.layers.get, version_request(far.layer_arn)),
        (plane.layers.get_by_arn, {"Arn": far.arn}),
        (plane.layers.delete, version_request(far.layer_arn)),
        (plane.layers.list_versions, {"LayerName": far.layer_arn}),
        (plane.layers.add_permission, permission(LayerName=far.layer_arn)),
        (plane.layers.policy, version_request(far.layer_arn)),
    ):
        assert refused("ResourceNotFoundException", call, CALLER, request) == text
    assert plane.store.all(LAYER_VERSION) == [far]


def test_layers_of_another_account(plane: LayerPlane) -> None:
    own = plane.publish_layer()

    def denied(call: Callable[..., Any], operation: str, resource: str, **request: Any) -> None:
        text = refused("AccessDeniedException", call, STRANGER, request)
        assert text == (
            f"User: {STRANGER.principal} is not authorized to perform: lambda:{operation} on resource: {resource}"
            f" because no resource-based policy allows the lambda:{operation} action"
        )

    version = version_request(own.layer_arn)
    for public in (False, True):
        if public:
            plane.layers.add_permission(CALLER, permission())
            assert plane.layers.get(STRANGER, version).arn == own.arn
            assert plane.layers.get_by_arn(STRANGER, {"Arn": own.arn}).arn == own.arn
            far = STRANGER._replace(region="eu-west-1")
            refused("AccessDeniedException", plane.layers.get, far, version)
        else:
            denied(plane.layers.get, "GetLayerVersion", own.arn, **version)
            denied(plane.layers.get_by_arn, "GetLayerVersion", own.arn, Arn=own.arn)
        denied(plane.layers.get, "GetLayerVersion", arn("common", 2), **version_request(own.layer_arn, 2))
        denied(plane.layers.list_versions, "ListLayerVersions", own.layer_arn, LayerName=own.layer_arn)
        denied(
            plane.layers.publish,
            "PublishLayerVersion",
            own.layer_arn,
            LayerName=own.layer_arn,
            Content={"ZipFile": b""},
        )
        denied(plane.layers.delete, "DeleteLayerVersion", own.arn, **version)
        denied(plane.layers.policy, "GetLayerVersionPolicy", own.arn, **version)
        denied(plane.layers.add_permission, "AddLayerVersionPermission", own.arn, **permission(LayerName=own.layer_arn))
        denied(
            plane.layers.remove_permission,
            "RemoveLayerVersionPermission",
            own.arn,
            **version_request(own.layer_arn, StatementId="everybody"),
        )
    assert len(plane.store.all(LAYER_VERSION)) == 1


def test_numbers_below_one(plane: LayerPlane) -> None:
    plane.publish_layer()
    for call, request in (
        (plane.layers.get, version_request(version=0)),
        (plane.layers.get_by_arn, {"Arn": arn("common", 0)}),
        (plane.layers.delete, version_request(version=-1)),
        (plane.layers.policy, version_request(version=0)),
        (plane.layers.add_permission, permission(VersionNumber=0)),
        (plane.layers.remove_permission, version_request(version=0, StatementId="s")),
    ):
        text = refused("InvalidParameterValueException", call, CALLER, request)
        assert text == "Layer Version Cannot be less than 1"


# Policies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("principal", "kept", "admitted"),
    [
        ("*", "*", True),
        (OTHER, {"AWS": f"arn:aws:iam::{OTHER}:root"}, True),
        (f"arn:aws:iam::{OTHER}:root", {"AWS": f"arn:aws:iam::{OTHER}:root"}, True),
        ("222222222222", {"AWS": "arn:aws:iam::222222222222:root"}, False),
    ],
)
def test_principals(plane: LayerPlane, principal: str, kept: Any, admitted: bool) -> None:
    own = plane.publish_layer()
    added = plane.layers.add_permission(CALLER, permission("s1", principal))
    statement = {
        "Sid": "s1",
        "Effect": "Allow",
        "Principal": kept,
        "Action": "lambda:GetLayerVersion",
        "Resource": own.arn,
    }
    assert added.statement == json.dumps(statement, separators=(",", ":"))
    policy = plane.layers.policy(CALLER, version_request())
    assert json.loads(policy.document) == {"Version": "2012-10-17", "Id": "default", "Statement": [statement]}
    assert policy.revision_id == added.revision_id
    if admitted:
        assert plane.layers.get(STRANGER, version_request(own.layer_arn)).arn == own.arn
        assert plane.layers.find(STRANGER, [own.arn]) == (own.reference,)
    else:
        refused("AccessDeniedException", plane.layers.get, STRANGER, version_request(own.layer_arn))
        refused("AccessDeniedException", plane.layers.find, STRANGER, [own.arn])


def test_no_account_is_in_an_organization(plane: LayerPlane) -> None:
    own = plane.publish_layer()
    added = plane.layers.add_permission(CALLER, permission(OrganizationId="o-abcdefghij"))
    assert json.loads(added.statement)["Condition"] == {"StringEquals": {"aws:PrincipalOrgID": "o-abcdefghij"}}
    refused("AccessDeniedException", plane.layers.find, STRANGER, [own.arn])


def test_a_policy_is_of_one_version(plane: LayerPlane) -> None:
    plane.publish_layer()
    plane.layers.add_permission(CALLER, permission())
    newer = plane.publish_layer()
    refused("ResourceNotFoundException", plane.layers.policy, CALLER, version_request(version=2))
    refused("AccessDeniedException", plane.layers.get, STRANGER, version_request(newer.layer_arn, 2))


def test_refused_changes_of_a_policy(plane: LayerPlane) -> None:
    missing = f"Layer version {arn('common')} does not exist."
    none = "No policy is associated with the given resource."
    stale = (
        "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to retrieve the"
        " latest Revision Id"
    )
    layers = plane.layers
    assert refused("ResourceNotFoundException", layers.add_permission, CALLER, permission()) == missing
    assert refused("ResourceNotFoundException", layers.policy, CALLER, version_request()) == missing
    removal = version_request(StatementId="s1")
    assert refused("ResourceNotFoundException", layers.remove_permission, CALLER, removal) == missing
    plane.publish_layer()
    assert refused("ResourceNotFoundException", layers.policy, CALLER, version_request()) == none
    assert refused("ResourceNotFoundException", layers.remove_permission, CALLER, removal) == none
    assert refused("PreconditionFailedException", layers.add_permission, CALLER, permission(RevisionId="x")) == stale

    first = layers.add_permission(CALLER, permission("s1"))
    second = layers.add_permission(CALLER, permission("s2", RevisionId=first.revision_id))
    assert first.revision_id != second.revision_id
    policy = layers.policy(CALLER, version_request())
    assert refused("ResourceConflictException", layers.add_permission, CALLER, permission("s2")) == (
        "The statement id (s2) provided already exists. Please provide a new statement id, or remove the existing"
        " statement."
    )
    for call, request in ((layers.add_permission, permission("s3")), (layers.remove_permission, removal)):
        text = refused("PreconditionFailedException", call, CALLER, request | {"RevisionId": first.revision_id})
        assert text == stale
    assert (
        refused("ResourceNotFoundException", layers.remove_permission, CALLER, version_request(StatementId="s9"))
        == "Statement s9 is not found in resource policy."
    )
    assert layers.policy(CALLER, version_request()) == policy

    layers.remove_permission(CALLER, removal | {"RevisionId": second.revision_id})
    left = layers.policy(CALLER, version_request())
    assert [each["Sid"] for each in json.loads(left.document)["Statement"]] == ["s2"]
    assert left.revision_id != second.revision_id
    layers.remove_permission(CALLER, version_request(StatementId="s2"))
    assert refused("ResourceNotFoundException", layers.policy, CALLER, version_request()) == none


def test_a_policy_has_a_bound(plane: LayerPlane) -> None:
    plane.publish_layer()
    with pytest.raises(ApiError) as caught:
        for count in range(200):
            plane.layers.add_permission(CALLER, permission(f"statement-{count:090d}"))
    assert caught.value.code == "PolicyLengthExceededException"
    policy = plane.layers.policy(CALLER, version_request())
    assert len(json.loads(policy.document)["Statement"]) == count
    assert 20_000 < len(policy.document) <= 20_480
