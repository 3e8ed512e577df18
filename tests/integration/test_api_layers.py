"""The layer operations as boto3 and bare HTTP see them: shapes, statuses, links, refusals."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from api_server import ApiServer, create, error_of, make_zip, refused, wait
from daemon_running import ACCOUNT, REGION

LAYER = f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:common"
LAYERS = "/2018-10-31/layers"
OTHER = "111111111111"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000")
RULE = "failed to satisfy constraint: Member must"


def package(text: str = "1") -> bytes:
    return make_zip({"python/common.py": f"VALUE = {text}\n"})


def publish(client: Any, name: str = "common", content: bytes | None = None, **more: Any) -> Any:
    return client.publish_layer_version(LayerName=name, Content={"ZipFile": content or package()}, **more)


def body_of(answer: Any) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def status(answer: Any) -> int:
    code: int = answer["ResponseMetadata"]["HTTPStatusCode"]
    return code


def permit(client: Any, sid: str = "s1", principal: str = "*", **more: Any) -> Any:
    return client.add_layer_version_permission(
        **{
            "LayerName": "common",
            "VersionNumber": 1,
            "StatementId": sid,
            "Action": "lambda:GetLayerVersion",
            "Principal": principal,
            **more,
        }
    )


# ---- versions ----------------------------------------------------------------------------------------


def test_a_version_as_it_is_published_and_read(client: Any) -> None:
    content = package()
    published = publish(
        client,
        content=content,
        Description="for everything",
        CompatibleRuntimes=["python3.12", "python3.13"],
        CompatibleArchitectures=["x86_64", "arm64"],
        LicenseInfo="MIT",
    )
    assert status(published) == 201
    body = body_of(published)
    location = body["Content"].pop("Location")
    assert TIME.fullmatch(body["CreatedDate"])
    assert body == {
        "Content": {
            "CodeSha256": base64.b64encode(hashlib.sha256(content).digest()).decode(),
            "CodeSize": len(content),
        },
        "LayerArn": LAYER,
        "LayerVersionArn": f"{LAYER}:1",
        "Description": "for everything",
        "CreatedDate": body["CreatedDate"],
        "Version": 1,
        "CompatibleRuntimes": ["python3.12", "python3.13"],
        "CompatibleArchitectures": ["x86_64", "arm64"],
        "LicenseInfo": "MIT",
    }
    for answer in (
        client.get_layer_version(LayerName="common", VersionNumber=1),
        client.get_layer_version(LayerName=LAYER, VersionNumber=1),
        client.get_layer_version_by_arn(Arn=f"{LAYER}:1"),
    ):
        assert status(answer) == 200
        read = body_of(answer)
        location = read["Content"].pop("Location")
        assert read == body
        with urllib.request.urlopen(location) as download:
            assert download.headers["Content-Type"] == "application/zip"
            assert download.read() == content


def test_what_was_not_given_is_not_shown(server: ApiServer, client: Any) -> None:
    body = body_of(publish(client))
    assert body.keys() == {"Content", "LayerArn", "LayerVersionArn", "Description", "CreatedDate", "Version"}
    assert body["Description"] == ""
    empty = body_of(publish(client, "empty", CompatibleRuntimes=[], CompatibleArchitectures=[]))
    assert (empty["CompatibleRuntimes"], empty["CompatibleArchitectures"]) == ([], [])
    raw = server.send("GET", f"{LAYERS}/empty/versions/1")
    assert raw.json["CompatibleRuntimes"] == []
    assert isinstance(raw.json["Version"], int)


def test_versions_count_up_and_are_deleted(client: Any) -> None:
    assert [publish(client)["Version"] for _ in range(3)] == [1, 2, 3]
    deleted = client.delete_layer_version(LayerName="common", VersionNumber=3)
    assert status(deleted) == 204
    assert status(client.delete_layer_version(LayerName="common", VersionNumber=3)) == 204
    assert status(client.delete_layer_version(LayerName="unknown", VersionNumber=1)) == 204
    assert publish(client)["Version"] == 4
    nothing = "The resource you requested does not exist."
    for call, parameters in (
        (client.get_layer_version, {"LayerName": "common", "VersionNumber": 3}),
        (client.get_layer_version, {"LayerName": "unknown", "VersionNumber": 1}),
        (client.get_layer_version_by_arn, {"Arn": f"{LAYER}:9"}),
        (client.get_layer_version_by_arn, {"Arn": "arn:aws:lambda:::awslayer:AmazonLinux1803"}),
    ):
        refused(call, "ResourceNotFoundException", 404, nothing, **parameters)


def test_lists(client: Any) -> None:
    publish(client, "b", CompatibleRuntimes=["python3.12"], CompatibleArchitectures=["arm64"], Description="one")
    publish(client, "b")
    publish(client, "a", LicenseInfo="MIT")
    answer = client.list_layers()
    assert status(answer) == 200
    assert "NextMarker" not in answer
    assert [(each["LayerName"], each["LatestMatchingVersion"]["Version"]) for each in answer["Layers"]] == [
        ("a", 1),
        ("b", 2),
    ]
    first = answer["Layers"][0]
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:a"
    assert first == {
        "LayerName": "a",
        "LayerArn": arn,
        "LatestMatchingVersion": {
            "LayerVersionArn": f"{arn}:1",
            "Version": 1,
            "Description": "",
            "CreatedDate": first["LatestMatchingVersion"]["CreatedDate"],
            "LicenseInfo": "MIT",
        },
    }
    (matching,) = client.list_layers(CompatibleRuntime="python3.12", CompatibleArchitecture="arm64")["Layers"]
    assert matching["LatestMatchingVersion"]["Version"] == 1
    assert matching["LatestMatchingVersion"]["CompatibleRuntimes"] == ["python3.12"]
    versions = client.list_layer_versions(LayerName="b")
    assert [each["Version"] for each in versions["LayerVersions"]] == [2, 1]
    assert versions["LayerVersions"][1]["Description"] == "one"
    assert [
        each["Version"]
        for each in client.list_layer_versions(LayerName="b", CompatibleArchitecture="arm64")["LayerVersions"]
    ] == [1]
    unknown = client.list_layer_versions(LayerName="unknown")
    assert (status(unknown), unknown["LayerVersions"]) == (200, [])


def test_pages(client: Any) -> None:
    for number in range(3):
        publish(client)
        publish(client, f"layer-{number}")

    def pages(operation: str, result: str, **more: Any) -> list[list[Any]]:
        paginator = client.get_paginator(operation)
        return [page[result] for page in paginator.paginate(PaginationConfig={"PageSize": 1}, **more)]

    assert [
        [each["Version"] for each in page] for page in pages("list_layer_versions", "LayerVersions", LayerName="common")
    ] == [
        [3],
        [2],
        [1],
    ]
    assert [[each["LayerName"] for each in page] for page in pages("list_layers", "Layers")] == [
        ["common"],
        ["layer-0"],
        ["layer-1"],
        ["layer-2"],
    ]


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("", "ValidationException", "Value '' at 'layerName'"),
        ("a b", "ValidationException", "Member must satisfy regular expression pattern"),
        ("a" * 141, "ValidationException", "Member must satisfy regular expression pattern"),
        (f"{LAYER}:1", "ValidationException", "Member must satisfy regular expression pattern"),
        (
            f"arn:aws:lambda:{REGION}:{OTHER}:layer:common",
            "AccessDeniedException",
            f"is not authorized to perform: lambda:ListLayerVersions on resource: arn:aws:lambda:{REGION}:{OTHER}:layer",
        ),
        (
            f"arn:aws:lambda:eu-west-1:{ACCOUNT}:layer:common",
            "ResourceNotFoundException",
            f"Layers from 'eu-west-1' are not reachable in this region ('{REGION}')",
        ),
    ],
)
def test_names(server: ApiServer, name: str, code: str, text: str) -> None:
    answer = server.send("GET", f"{LAYERS}/{quote(name, safe='')}/versions")
    assert answer.headers["x-amzn-errortype"] == code
    assert text in (answer.json.get("message") or answer.json["Message"])


def test_input_that_breaks_its_constraints(client: Any) -> None:
    error = error_of(publish, client, CompatibleRuntimes=["python9"], CompatibleArchitectures=["x86"])
    text = error.response["Error"]["Message"]
    assert text.startswith("2 validation errors detected: ")
    for value, member in (("[python9]", "compatibleRuntimes"), ("[x86]", "compatibleArchitectures")):
        assert f"Value '{value}' at '{member}' {RULE} satisfy constraint: [Member must satisfy enum value set" in text
    many = error_of(publish, client, CompatibleRuntimes=["python3.12"] * 16)
    assert f"'compatibleRuntimes' {RULE} have length less than or equal to 15" in str(many)
    assert "'content' failed" in str(error_of(client.publish_layer_version, LayerName="common", Content=None))
    assert f"{RULE} have length less than or equal to 512" in str(error_of(publish, client, LicenseInfo="x" * 513))
    for size in (0, 51):
        assert "at 'maxItems'" in str(error_of(client.list_layers, MaxItems=size))
    assert "nodejs26.x" in str(error_of(client.list_layers, CompatibleRuntime="python9"))
    assert "at 'arn'" in str(error_of(client.get_layer_version_by_arn, Arn=LAYER))
    assert "at 'action'" in str(error_of(permit, client, Action="lambda:*"))
    assert "at 'principal'" in str(error_of(permit, client, principal="s3.amazonaws.com"))
    assert "at 'organizationId'" in str(error_of(permit, client, OrganizationId="o-1"))
    assert client.list_layers()["Layers"] == []


def test_refused_content(client: Any) -> None:
    unzip = "Could not unzip uploaded file. Please check your file, then try to upload again."
    invalid = "InvalidParameterValueException"

    def check(code: str, number: int, message: str, **content: Any) -> None:
        refused(client.publish_layer_version, code, number, message, LayerName="common", Content=content)

    check(invalid, 400, unzip, ZipFile=b"no zip")
    check(
        "RequestEntityTooLargeException",
        413,
        "Zipped size must be smaller than 52428800 bytes",
        ZipFile=b"x" * 52_428_801,
    )
    check(invalid, 400, "Please provide a source for layer content.")
    check(invalid, 400, "Please provide both S3Bucket and S3Key, which together name the code in S3.", S3Bucket="code")
    below_one = "Layer Version Cannot be less than 1"
    for call in (client.get_layer_version, client.delete_layer_version, client.get_layer_version_policy):
        refused(call, invalid, 400, below_one, LayerName="common", VersionNumber=0)
    assert client.list_layers()["Layers"] == []
    assert publish(client)["Version"] == 1


# ---- policies ----------------------------------------------------------------------------------------


def test_a_policy(server: ApiServer, client: Any) -> None:
    publish(client)
    added = permit(client, "all")
    assert status(added) == 201
    statement = {
        "Sid": "all",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "lambda:GetLayerVersion",
        "Resource": f"{LAYER}:1",
    }
    assert json.loads(added["Statement"]) == statement
    one = permit(client, "one", OTHER, RevisionId=added["RevisionId"])
    policy = client.get_layer_version_policy(LayerName="common", VersionNumber=1)
    assert status(policy) == 200
    assert policy["RevisionId"] == one["RevisionId"] != added["RevisionId"]
    assert json.loads(policy["Policy"]) == {
        "Version": "2012-10-17",
        "Id": "default",
        "Statement": [statement, statement | {"Sid": "one", "Principal": {"AWS": f"arn:aws:iam::{OTHER}:root"}}],
    }
    stale = server.send("DELETE", f"{LAYERS}/common/versions/1/policy/one?RevisionId={added['RevisionId']}")
    assert (stale.status, stale.json) == (
        412,
        {
            "Type": "User",
            "message": "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to"
            " retrieve the latest Revision Id",
        },
    )
    removed = server.send("DELETE", f"{LAYERS}/common/versions/1/policy/one?RevisionId={one['RevisionId']}")
    assert (removed.status, removed.body) == (204, b"")
    refused(
        lambda: permit(client, "all"),
        "ResourceConflictException",
        409,
        "The statement id (all) provided already exists. Please provide a new statement id, or remove the existing"
        " statement.",
    )
    missing = server.send("DELETE", f"{LAYERS}/common/versions/1/policy/one")
    assert (missing.status, missing.json) == (
        404,
        {"Type": "User", "Message": "Statement one is not found in resource policy."},
    )
    client.remove_layer_version_permission(LayerName="common", VersionNumber=1, StatementId="all")
    refused(
        client.get_layer_version_policy,
        "ResourceNotFoundException",
        404,
        "No policy is associated with the given resource.",
        LayerName="common",
        VersionNumber=1,
    )
    refused(
        client.get_layer_version_policy,
        "ResourceNotFoundException",
        404,
        f"Layer version {LAYER}:2 does not exist.",
        LayerName="common",
        VersionNumber=2,
    )


def test_another_account(server: ApiServer, client: Any) -> None:
    publish(client)
    other = server.client(account=OTHER)
    reads: tuple[Callable[[], Any], ...] = (
        lambda: other.get_layer_version(LayerName=LAYER, VersionNumber=1),
        lambda: other.get_layer_version_by_arn(Arn=f"{LAYER}:1"),
        lambda: create(other, "borrowing", Layers=[f"{LAYER}:1"]),
    )
    denial = (
        f"User: arn:aws:iam::{OTHER}:root is not authorized to perform: lambda:GetLayerVersion on resource: {LAYER}:1"
        " because no resource-based policy allows the lambda:GetLayerVersion action"
    )
    for read in reads:
        refused(read, "AccessDeniedException", 403, denial)
    permit(client, "other", OTHER)
    for read in reads:
        read()
    assert other.list_layers()["Layers"] == []


# ---- functions with layers ---------------------------------------------------------------------------


def test_functions_show_their_layers(client: Any) -> None:
    layers = [publish(client, name) for name in ("one", "two")]
    arns = [layer["LayerVersionArn"] for layer in layers]
    shown = [{"Arn": layer["LayerVersionArn"], "CodeSize": layer["Content"]["CodeSize"]} for layer in layers]
    created = create(client, Layers=arns)
    assert created["Layers"] == shown
    wait(client)
    assert client.get_function(FunctionName="hello")["Configuration"]["Layers"] == shown
    assert client.list_functions()["Functions"][0]["Layers"] == shown
    updated = client.update_function_configuration(FunctionName="hello", Layers=arns[1:])
    assert updated["Layers"] == shown[1:]
    wait(client, "function_updated_v2")
    assert client.update_function_configuration(FunctionName="hello", Timeout=5)["Layers"] == shown[1:]
    wait(client, "function_updated_v2")
    client.delete_layer_version(LayerName="two", VersionNumber=1)
    assert client.get_function_configuration(FunctionName="hello")["Layers"] == shown[1:]
    assert "Layers" not in client.update_function_configuration(FunctionName="hello", Layers=[])
    wait(client, "function_updated_v2")
    refused(
        client.update_function_configuration,
        "InvalidParameterValueException",
        400,
        f"Layer version {arns[1]} does not exist.",
        FunctionName="hello",
        Layers=arns[1:],
    )
    refused(
        client.update_function_configuration,
        "InvalidParameterValueException",
        400,
        "Cannot reference more than 5 layers.",
        FunctionName="hello",
        Layers=arns * 3,
    )
    bad = error_of(client.update_function_configuration, FunctionName="hello", Layers=["common:1"])
    assert "Value '[common:1]' at 'layers' failed to satisfy constraint: Member must satisfy constraint: [" in str(bad)
