"""The operations on function URLs as boto3 sees them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from api_server import ARN, ApiServer, create, error_of, refused
from daemon_running import REGION

FUNCTION = f"{ARN}:hello"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


@pytest.fixture
def hello(client: Any) -> Any:
    """The client, with a function `hello` and the alias `live`."""
    create(client)
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="$LATEST")
    return client


def members(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def test_life_of_a_url(server: ApiServer, hello: Any) -> None:
    created = hello.create_function_url_config(FunctionName="hello", AuthType="NONE")
    assert created["ResponseMetadata"]["HTTPStatusCode"] == 201
    url = re.fullmatch(
        rf"http://([a-z0-9]{{32}})\.lambda-url\.{REGION}\.localhost:{server.port}/", created["FunctionUrl"]
    )
    assert url
    assert 40 <= len(created["FunctionUrl"]) <= 100
    assert MOMENT.fullmatch(created["CreationTime"])
    same = {"FunctionUrl": created["FunctionUrl"], "FunctionArn": FUNCTION, "CreationTime": created["CreationTime"]}
    assert members(created) == {**same, "AuthType": "NONE"}
    found = hello.get_function_url_config(FunctionName="hello")
    assert members(found) == {
        **same, "AuthType": "NONE", "InvokeMode": "BUFFERED", "LastModifiedTime": created["CreationTime"],
    }  # fmt: skip
    cors = {"AllowOrigins": ["https://example.com"], "AllowMethods": ["GET", "*"], "AllowHeaders": ["X-A"], "MaxAge": 86400,
            "ExposeHeaders": ["Date"], "AllowCredentials": True}  # fmt: skip
    changed = hello.update_function_url_config(FunctionName="hello", Cors=cors)
    assert members(changed) == {
        **same,
        "AuthType": "NONE",
        "Cors": cors,
        "LastModifiedTime": changed["LastModifiedTime"],
    }
    assert changed["LastModifiedTime"] >= created["CreationTime"]
    changed = hello.update_function_url_config(FunctionName="hello", AuthType="AWS_IAM", InvokeMode="RESPONSE_STREAM")
    assert (changed["AuthType"], changed["Cors"], changed["InvokeMode"]) == ("AWS_IAM", cors, "RESPONSE_STREAM")
    listed = hello.list_function_url_configs(FunctionName="hello")
    assert listed["FunctionUrlConfigs"] == [members(changed)]
    assert "NextMarker" not in listed
    assert "Cors" not in hello.update_function_url_config(FunctionName="hello", Cors={})
    deleted = hello.delete_function_url_config(FunctionName="hello")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert hello.list_function_url_configs(FunctionName="hello")["FunctionUrlConfigs"] == []


def test_bodies(server: ApiServer, hello: Any) -> None:
    """Without boto3, which leaves out what its model does not have."""
    path = "/2021-10-31/functions/hello/url"
    created = server.send("POST", path, {"AuthType": "NONE", "InvokeMode": "BUFFERED"})
    assert created.status == 201
    assert list(created.json) == ["FunctionUrl", "FunctionArn", "AuthType", "CreationTime", "InvokeMode"]
    assert "InvokeMode" not in server.send("PUT", path, {"AuthType": "AWS_IAM"}).json
    found = server.send("GET", path).json
    assert sorted(found) == sorted([*created.json, "LastModifiedTime"])
    assert server.send("GET", f"{path}s").json == {"FunctionUrlConfigs": [found]}
    deleted = server.send("DELETE", path)
    assert (deleted.status, deleted.body) == (204, b"")


def test_the_port_is_the_one_the_client_used(server: ApiServer, hello: Any) -> None:
    hello.create_function_url_config(FunctionName="hello", AuthType="NONE", InvokeMode="BUFFERED")
    path = "/2021-10-31/functions/hello/url"
    for host, expected in (
        ("localhost:8080", ":8080"),
        ("lambda.example:4566", ":4566"),
        ("[::1]:4566", ":4566"),
        ("lambda.example", ""),
        ("[::1]", ""),
    ):
        answer = server.send("GET", path, headers={"Host": host})
        assert answer.json["FunctionUrl"].endswith(f".lambda-url.{REGION}.localhost{expected}/")


def test_pages_and_aliases(hello: Any) -> None:
    hello.create_function_url_config(FunctionName="hello", Qualifier="live", AuthType="AWS_IAM")
    hello.create_function_url_config(FunctionName=FUNCTION, AuthType="NONE")
    pages = hello.get_paginator("list_function_url_configs").paginate(
        FunctionName="hello", PaginationConfig={"PageSize": 1}
    )
    found = [page["FunctionUrlConfigs"] for page in pages]
    assert [[item["FunctionArn"] for item in items] for items in found] == [[FUNCTION], [f"{FUNCTION}:live"]]
    assert hello.get_function_url_config(FunctionName="hello:live")["FunctionArn"] == f"{FUNCTION}:live"
    hello.delete_alias(FunctionName="hello", Name="live")
    assert len(hello.list_function_url_configs(FunctionName="hello")["FunctionUrlConfigs"]) == 2


def test_refusals(hello: Any) -> None:
    create_url, missing = hello.create_function_url_config, "ResourceNotFoundException"
    nothing = "The resource you requested does not exist."
    for name in ("nobody", "hello:gone"):
        refused(create_url, missing, 404, "Function does not exist", FunctionName=name, AuthType="NONE")
        refused(hello.update_function_url_config, missing, 404, "Function does not exist", FunctionName=name)
        refused(hello.get_function_url_config, missing, 404, nothing, FunctionName=name)
        refused(hello.delete_function_url_config, missing, 404, nothing, FunctionName=name)
    refused(hello.list_function_url_configs, missing, 404, "Function does not exist", FunctionName="nobody")
    refused(hello.update_function_url_config, missing, 404, nothing, FunctionName="hello", AuthType="NONE")
    create_url(FunctionName="hello:live", AuthType="NONE")
    refused(create_url, "ResourceConflictException", 409,
            f"Failed to create function url config for [functionArn = {FUNCTION}:live]. Error message:  FunctionUrlConfig"
            " exists for this Lambda function", FunctionName="hello", Qualifier="live", AuthType="AWS_IAM")  # fmt: skip
    assert hello.get_function_url_config(FunctionName="hello:live")["AuthType"] == "NONE"


def test_validation(hello: Any) -> None:
    def message(**parameters: Any) -> str:
        error = error_of(hello.create_function_url_config, **{"FunctionName": "hello", "AuthType": "NONE"} | parameters)
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        text: str = error.response["Error"]["Message"]
        return text

    pattern = "failed to satisfy constraint: Member must satisfy regular expression pattern: "
    for qualifier in ("1", "$LATEST"):
        assert message(Qualifier=qualifier) == (
            f"1 validation error detected: Value '{qualifier}' at 'qualifier' {pattern}((?!^\\d+$)^[0-9a-zA-Z-_]+$)"
        )
        assert f"Value 'hello:{qualifier}' at 'functionName' {pattern}" in message(FunctionName=f"hello:{qualifier}")
    assert "at 'authType' failed to satisfy constraint: Member must satisfy enum value set" in message(AuthType="OPEN")
    assert message(AuthType=None).endswith(
        "Value null at 'authType' failed to satisfy constraint: Member must not be null"
    )
    assert message(InvokeMode="x").endswith("Member must satisfy enum value set: [RESPONSE_STREAM, BUFFERED]")
    assert "cors.maxAge" in message(Cors={"MaxAge": 86_401})
    assert "cors.allowMethods" in message(Cors={"AllowMethods": ["OPTIONS"]})
    assert "cors.allowMethods" in message(Cors={"AllowMethods": ["FOO"]})
    assert "cors.allowOrigins" in message(Cors={"AllowOrigins": ["o" * 254]})
    assert "cors.exposeHeaders" in message(Cors={"ExposeHeaders": ["h"] * 101})
    assert "not match the specified qualifier" in message(FunctionName="hello:live", Qualifier="other")
    assert hello.list_function_url_configs(FunctionName="hello")["FunctionUrlConfigs"] == []
