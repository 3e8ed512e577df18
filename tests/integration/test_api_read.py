"""GetFunction, GetFunctionConfiguration and ListFunctions as boto3 sees them: addresses, code to download, pages."""

from __future__ import annotations

import base64
from typing import Any
from urllib.request import urlopen

import pytest

from api_server import ARN, ApiServer, create, error_of, make_zip, refused
from daemon_running import ACCOUNT, REGION


@pytest.mark.parametrize(
    "locator",
    [
        "hello",
        "function:hello",
        f"{ACCOUNT}:function:hello",
        f"{REGION}:{ACCOUNT}:function:hello",
        f"{ARN}:hello",
    ],
)
def test_every_locator_form(client: Any, locator: str) -> None:
    create(client, name=locator)
    got = client.get_function(FunctionName=locator)
    assert got["Configuration"]["FunctionArn"] == f"{ARN}:hello"
    got = client.get_function(FunctionName=f"{locator}:$LATEST")
    assert got["Configuration"]["FunctionArn"] == f"{ARN}:hello:$LATEST"
    got = client.get_function_configuration(FunctionName=f"{locator}:$LATEST", Qualifier="$LATEST")
    assert got["FunctionArn"] == f"{ARN}:hello:$LATEST"
    client.delete_function(FunctionName=locator)


def test_not_found(client: Any) -> None:
    create(client)
    missing = "ResourceNotFoundException", 404
    refused(client.get_function, *missing, f"Function not found: {ARN}:nope", FunctionName="nope")
    refused(client.get_function, *missing, f"Function not found: {ARN}:nope:1", FunctionName="nope:1")
    for qualifier in ("1", "live", "$latest"):
        refused(
            client.get_function,
            *missing,
            f"Function not found: {ARN}:hello:{qualifier}",
            FunctionName="hello",
            Qualifier=qualifier,
        )
    refused(
        client.get_function,
        *missing,
        f"Functions from 'eu-west-1' are not reachable in this region ('{REGION}')",
        FunctionName=f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:hello",
    )
    refused(client.put_function_concurrency, *missing, f"Function not found: {ARN}:nope:$LATEST", FunctionName="nope",
            ReservedConcurrentExecutions=1)  # fmt: skip
    refused(client.delete_function, *missing, f"Function not found: {ARN}:nope", FunctionName="nope", Qualifier="7")
    error = error_of(client.get_function, FunctionName="nope")
    assert isinstance(error, client.exceptions.ResourceNotFoundException)
    assert error.response["Type"] == "User"
    refused(
        client.get_function,
        "InvalidParameterValueException",
        400,
        "The derived qualifier from the function name does not match the specified qualifier.",
        FunctionName="hello:$LATEST",
        Qualifier="1",
    )


def test_code_location(client: Any, server: ApiServer) -> None:
    code = make_zip()
    create(client, Code={"ZipFile": code})
    location = client.get_function(FunctionName="hello")["Code"]["Location"]
    assert location.startswith(f"{server.url}/_fastlam/code/")
    client.delete_function(FunctionName="hello")
    with urlopen(location) as response:
        assert response.read() == code
    path = location.removeprefix(server.url)
    assert server.send("HEAD", path).status == 200
    for method, wrong in (("POST", path), ("GET", path[:-4] + "AAAA"), ("GET", "/_fastlam/code/"), ("GET", path + "!")):
        answer = server.send(method, wrong)
        assert answer.status == 403
        assert b"<Code>AccessDenied</Code>" in answer.body


def test_list_pages(client: Any) -> None:
    names = [f"f{number:03d}" for number in range(120)]
    for name in names:
        create(client, name=name)
    pages = [page["Functions"] for page in client.get_paginator("list_functions").paginate()]
    assert [len(page) for page in pages] == [50, 50, 20]
    assert sorted(item["FunctionName"] for page in pages for item in page) == names
    assert client.list_functions(MaxItems=10000)["NextMarker"]
    pages = [page["Functions"] for page in client.get_paginator("list_functions").paginate(MaxItems=40)]
    assert [len(page) for page in pages] == [40, 40, 40]
    marker = client.list_functions(MaxItems=1)["NextMarker"]
    client.delete_function(FunctionName="f000")  # a marker outlives what it was made from
    assert client.list_functions(Marker=marker, MaxItems=1)["Functions"][0]["FunctionName"] == "f001"
    for marker in ("x", "====", "ä", base64.b64encode(b"other").decode()):
        error = error_of(client.list_functions, Marker=marker)
        assert error.response["Error"]["Code"] == "InvalidParameterValueException"


def test_listed_members(client: Any) -> None:
    create(client)
    (item,) = client.list_functions()["Functions"]
    assert not {"State", "StateReason", "LastUpdateStatus", "RuntimeVersionConfig"} & item.keys()
    assert item["FunctionArn"] == f"{ARN}:hello"
    (item,) = client.list_functions(FunctionVersion="ALL")["Functions"]
    assert item["FunctionArn"] == f"{ARN}:hello:$LATEST"
    assert client.list_functions(FunctionVersion="ALL", MasterRegion="us-east-1")["Functions"] == []
