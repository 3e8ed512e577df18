"""The tag operations as boto3 sees them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from api_server import ARN, ApiServer, create, error_of, refused, wait
from daemon_running import ACCOUNT, REGION

FUNCTION = f"{ARN}:hello"


def test_life_of_tags(client: Any) -> None:
    create(client, Tags={"a": "1"})
    wait(client)
    before = client.get_function_configuration(FunctionName="hello")
    assert (
        client.tag_resource(Resource=FUNCTION, Tags={"b": "2", "ü /=+-@": ""})["ResponseMetadata"]["HTTPStatusCode"]
        == 204
    )
    after = client.get_function_configuration(FunctionName="hello")
    assert after["RevisionId"] != before["RevisionId"]
    assert after["LastModified"] > before["LastModified"]
    expected = {"a": "1", "b": "2", "ü /=+-@": ""}
    assert client.list_tags(Resource=FUNCTION)["Tags"] == client.get_function(FunctionName="hello")["Tags"] == expected
    untagged = client.untag_resource(Resource=FUNCTION, TagKeys=["a", "ü /=+-@", "unknown"])
    assert untagged["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert client.list_tags(Resource=FUNCTION)["Tags"] == {"b": "2"}
    client.untag_resource(Resource=FUNCTION, TagKeys=["b"])
    assert "Tags" not in client.get_function(FunctionName="hello")


def test_bodies(server: ApiServer, client: Any) -> None:
    create(client)
    path = f"/2017-03-31/tags/{quote(FUNCTION, safe='')}"
    assert server.send("GET", path).body == b'{"Tags":{}}'
    answer = server.send("POST", path, {"Tags": {"a": "1"}})
    assert (answer.status, answer.body) == (204, b"")
    assert server.send("GET", path).json == {"Tags": {"a": "1"}}
    answer = server.send("DELETE", path)
    assert (answer.status, answer.json) == (
        400,
        {"message": "1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: Member must not be null"},
    )  # fmt: skip
    answer = server.send("DELETE", f"{path}?tagKeys=a&tagKeys=b")
    assert (answer.status, answer.body) == (204, b"")
    assert server.send("GET", path).json == {"Tags": {}}


def test_refusals(client: Any) -> None:
    create(client, Tags={f"key{number}": "v" for number in range(49)})
    wait(client)
    before = client.get_function_configuration(FunctionName="hello")["RevisionId"]
    invalid, tag = "InvalidParameterValueException", client.tag_resource
    nothing, many = (
        "An error occurred and the request cannot be processed.",
        "Number of tags exceeds resource tag limit.",
    )
    refused(tag, invalid, 400, nothing, Resource=FUNCTION, Tags={})
    refused(tag, invalid, 400, many, Resource=FUNCTION, Tags={"x": "1", "y": "1"})
    error_of(tag, Resource=FUNCTION, Tags={"aws:x": "1"})
    qualified = "Tags on function aliases and versions are not supported. Please specify a function ARN."
    for qualifier in ("$LATEST", "1", "live"):
        refused(tag, invalid, 400, qualified, Resource=f"{FUNCTION}:{qualifier}", Tags={"a": "1"})
        refused(client.list_tags, invalid, 400, qualified, Resource=f"{FUNCTION}:{qualifier}")
        refused(client.untag_resource, invalid, 400, qualified, Resource=f"{FUNCTION}:{qualifier}", TagKeys=["a"])
    refused(tag, "ValidationException", 400,
            "1 validation error detected: Value null at 'tags' failed to satisfy constraint: Member must not be null",
            Resource=FUNCTION)  # fmt: skip
    for wanted in ({"k" * 129: "v"}, {"k": "v" * 257}, {"k!": "v"}, {"": "v"}):
        assert error_of(tag, Resource=FUNCTION, Tags=wanted).response["Error"]["Code"] == "ValidationException"
    assert client.get_function_configuration(FunctionName="hello")["RevisionId"] == before
    refused(create, invalid, 400, many, client=client, name="other", Tags={f"k{number}": "v" for number in range(51)})


@pytest.mark.parametrize(
    ("arn", "message"),
    [
        (f"{ARN}:nobody", f"Function not found: {ARN}:nobody"),
        (f"arn:aws:lambda:{REGION}:{ACCOUNT}:event-source-mapping:6d9bce8e-836b-442c-8070-74e77903c815", "Event source mapping not found: "),
        (f"arn:aws:lambda:{REGION}:{ACCOUNT}:code-signing-config:csc-0123456789abcdef0", "Code signing config not found: "),
        (f"arn:aws:lambda:{REGION}:{ACCOUNT}:capacity-provider:mine", "Capacity provider not found: "),
        (f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:mine", "Layer not found: "),
        (f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:hello", f"Functions from 'eu-west-1' are not reachable in this region ('{REGION}')"),
    ],
)  # fmt: skip
def test_what_is_not_there(client: Any, arn: str, message: str) -> None:
    if message.endswith(" "):
        message += arn
    missing = "ResourceNotFoundException"
    refused(client.list_tags, missing, 404, message, Resource=arn)
    refused(client.tag_resource, missing, 404, message, Resource=arn, Tags={"a": "1"})
    refused(client.untag_resource, missing, 404, message, Resource=arn, TagKeys=["a"])


@pytest.mark.parametrize("arn", ["hello", "arn:aws:s3:::bucket", f"{ARN}:hello:a:b", f"{ARN}:hel.lo", "arn:aws:lambda"])
def test_what_is_no_resource(client: Any, arn: str) -> None:
    message = error_of(client.list_tags, Resource=arn).response["Error"]["Message"]
    assert message.startswith(
        f"1 validation error detected: Value '{arn}' at 'resource' failed to satisfy constraint: "
    )
    assert "|layer:([a-zA-Z0-9-_]+)|" in message
