"""The API below boto3: validation, bodies that do not parse, and paths that lead nowhere or elsewhere."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from api_server import ARN, ROLE, ApiServer, create, error_of, make_zip


def test_validation_over_the_wire(client: Any) -> None:
    error = error_of(create, client, Timeout=0, MemorySize=64, Role="x", TracingConfig={"Mode": "on"})
    assert error.response["Error"]["Code"] == "ValidationException"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert "Type" not in error.response
    message = error.response["Error"]["Message"]
    assert message.startswith("4 validation errors detected: Value 'x' at 'role' failed to satisfy constraint:")
    assert (
        "; Value '0' at 'timeout' failed to satisfy constraint: Member must have value greater than or equal to 1;"
        in message
    )
    assert message.endswith(
        "Value 'on' at 'tracingConfig.mode' failed to satisfy constraint: Member must satisfy enum value set: [Active,"
        " PassThrough]"
    )


@pytest.mark.parametrize("body", [b"{", b"nope", b"[1]", b'"x"', b"\xff\xfe", b'{"a":' * 100_000, b'{"Timeout":"3"}',
                                  b'{"Code":[]}', b'{"Code":{"ZipFile":"?"}}', b'{"Publish":"yes"}', b'{"Tags":{"a":1}}',
                                  b'{"Layers":"x"}', b'{"FunctionName":7}'])  # fmt: skip
def test_bodies_that_do_not_parse(server: ApiServer, body: bytes) -> None:
    answer = server.send("POST", "/2015-03-31/functions", body)
    assert answer.status == 400
    assert answer.headers["x-amzn-errortype"] == "SerializationException"
    assert list(answer.json) == ["message"]


def test_unknown_members_are_ignored(server: ApiServer) -> None:
    body = {
        "FunctionName": "hello",
        "Runtime": "python3.11",
        "Role": ROLE,
        "Handler": "app.handler",
        "Code": {"ZipFile": base64.b64encode(make_zip()).decode(), "New": 1},
        "NotThere": {"x": [1]},
        "Description": None,
    }
    assert server.send("POST", "/2015-03-31/functions/", body).status == 201  # old SDKs send the slash


def test_unknown_paths_and_operations(server: ApiServer) -> None:
    for method, path in (
        ("GET", "/"),
        ("GET", "/nope"),
        ("PATCH", "/2015-03-31/functions/hello"),
        ("GET", "/2015-03-31/functions/hello/invocations"),
        ("POST", "/2015-03-31/functions/a/b/invocations"),
        ("POST", "/2015-03-31/functions/" + "x/" * 5000),
    ):
        answer = server.send(method, path)
        assert answer.status == 404
        assert answer.headers["x-amzn-errortype"] == "UnknownOperationException"
        assert answer.json["message"].startswith(f"The Lambda API has no operation at {method} /")


def test_invoke_goes_its_own_way(server: ApiServer, client: Any) -> None:
    client.invoke(FunctionName=f"{ARN}:hello", Qualifier="$LATEST", Payload=b"{}")
    (target,) = server.invocations
    assert target == b"/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Ahello/invocations?Qualifier=%24LATEST"  # fmt: skip
