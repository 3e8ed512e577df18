"""Code signing as boto3 sees it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from api_server import ARN, ApiServer, create, error_of, make_zip, refused, wait

PROFILE = "arn:aws:signer:us-east-1:000000000000:/signing-profiles/Trusted/abcdefghij"
PATH = "/2020-04-22/code-signing-configs"
MISSING = "arn:aws:lambda:us-east-1:000000000000:code-signing-config:csc-00000000000000000"
NOT_THERE = (
    f"The code signing configuration cannot be found. Check that the provided configuration is not deleted: {MISSING}."
)


def configure(client: Any, policy: str | None = None, **more: Any) -> dict[str, Any]:
    if policy is not None:
        more["CodeSigningPolicies"] = {"UntrustedArtifactOnDeployment": policy}
    answer = client.create_code_signing_config(AllowedPublishers={"SigningProfileVersionArns": [PROFILE]}, **more)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 201
    config: dict[str, Any] = answer["CodeSigningConfig"]
    return config


def test_configurations(client: Any) -> None:
    config = configure(client, Description="mine", Tags={"team": "a"})
    arn = config["CodeSigningConfigArn"]
    assert arn == f"arn:aws:lambda:us-east-1:000000000000:code-signing-config:{config['CodeSigningConfigId']}"
    assert config["CodeSigningConfigId"][:4] == "csc-"
    assert len(config["CodeSigningConfigId"]) == 21
    assert config["AllowedPublishers"] == {"SigningProfileVersionArns": [PROFILE]}
    assert config["CodeSigningPolicies"] == {"UntrustedArtifactOnDeployment": "Warn"}
    assert config["LastModified"].endswith("Z")
    assert client.get_code_signing_config(CodeSigningConfigArn=arn)["CodeSigningConfig"] == config
    assert client.list_tags(Resource=arn)["Tags"] == {"team": "a"}
    updated = client.update_code_signing_config(
        CodeSigningConfigArn=arn, CodeSigningPolicies={"UntrustedArtifactOnDeployment": "Enforce"}
    )["CodeSigningConfig"]
    assert updated["CodeSigningPolicies"] == {"UntrustedArtifactOnDeployment": "Enforce"}
    assert updated["Description"] == "mine"
    answer = client.delete_code_signing_config(CodeSigningConfigArn=arn)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    refused(
        client.delete_code_signing_config, "ResourceNotFoundException", 404,
        f"The Lambda code signing configuration {arn} cannot be found.", CodeSigningConfigArn=arn,
    )  # fmt: skip
    assert error_of(client.list_tags, Resource=arn).response["Error"]["Code"] == "ResourceNotFoundException"


def test_configurations_that_are_not_there(client: Any, server: ApiServer) -> None:
    """Such an answer has no Type."""
    expected = {"Message": f"The Lambda code signing configuration {MISSING} can not be found."}
    path = f"{PATH}/{quote(MISSING, safe='')}"
    for method, place, body in (("GET", path, None), ("GET", f"{path}/functions", None), ("PUT", path, {})):
        answer = server.send(method, place, body)
        assert (answer.status, answer.json) == (404, expected)
    code = "CodeSigningConfigNotFoundException"
    refused(
        client.put_function_code_signing_config, code, 404, NOT_THERE,
        FunctionName="neither", CodeSigningConfigArn=MISSING,
    )  # fmt: skip
    error = error_of(create, client, CodeSigningConfigArn=MISSING)
    assert (error.response["Error"]["Code"], error.response["Error"]["Message"]) == (code, NOT_THERE)
    assert client.list_functions()["Functions"] == []


def test_functions_with_a_configuration(client: Any) -> None:
    arn = configure(client)["CodeSigningConfigArn"]
    other = configure(client)["CodeSigningConfigArn"]
    create(client, CodeSigningConfigArn=arn)
    for name in ("b", "a"):
        create(client, name=name)
        answer = client.put_function_code_signing_config(FunctionName=f"{ARN}:{name}", CodeSigningConfigArn=arn)
        assert (answer["CodeSigningConfigArn"], answer["FunctionName"]) == (arn, name)
    answer = client.get_function_code_signing_config(FunctionName="hello")
    assert (answer["CodeSigningConfigArn"], answer["FunctionName"]) == (arn, "hello")
    first = client.list_functions_by_code_signing_config(CodeSigningConfigArn=arn, MaxItems=2)
    rest = client.list_functions_by_code_signing_config(CodeSigningConfigArn=arn, Marker=first["NextMarker"])
    assert first["FunctionArns"] + rest["FunctionArns"] == [f"{ARN}:{name}" for name in ("a", "b", "hello")]
    error = error_of(client.delete_code_signing_config, CodeSigningConfigArn=arn)
    assert error.response["Error"]["Code"] == "ResourceConflictException"
    client.put_function_code_signing_config(FunctionName="a", CodeSigningConfigArn=other)
    for name in ("b", "b", "hello"):
        answer = client.delete_function_code_signing_config(FunctionName=name)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert "CodeSigningConfigArn" not in client.get_function_code_signing_config(FunctionName="b")
    client.delete_code_signing_config(CodeSigningConfigArn=arn)
    assert client.list_functions_by_code_signing_config(CodeSigningConfigArn=other)["FunctionArns"] == [f"{ARN}:a"]


def test_functions_that_are_not_there(client: Any) -> None:
    arn = configure(client)["CodeSigningConfigArn"]
    message = f"Function not found: {ARN}:none"
    code = "ResourceNotFoundException"
    refused(client.put_function_code_signing_config, code, 404, message, FunctionName="none", CodeSigningConfigArn=arn)
    refused(client.get_function_code_signing_config, code, 404, message, FunctionName="none")
    refused(client.delete_function_code_signing_config, code, 404, message, FunctionName="none")


def test_what_enforce_blocks(client: Any) -> None:
    config = configure(client, "Enforce")["CodeSigningConfigArn"]
    blocked = (
        "Lambda cannot deploy the function. The function or layer might be signed using a signature that the client is"
        " not configured to accept. Check the provided signature for hello."
    )
    error = error_of(create, client, CodeSigningConfigArn=config)
    assert error.response["Error"] == {"Code": "CodeVerificationFailedException", "Message": blocked}
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    create(client)
    wait(client)
    client.put_function_code_signing_config(FunctionName="hello", CodeSigningConfigArn=config)
    before = client.get_function_configuration(FunctionName="hello")
    refused(
        client.update_function_code, "CodeVerificationFailedException", 400, blocked,
        FunctionName="hello", ZipFile=make_zip({"app.py": "2"}),
    )  # fmt: skip
    after = client.get_function_configuration(FunctionName="hello")
    assert (after["CodeSha256"], after["RevisionId"]) == (before["CodeSha256"], before["RevisionId"])
    client.update_code_signing_config(
        CodeSigningConfigArn=config, CodeSigningPolicies={"UntrustedArtifactOnDeployment": "Warn"}
    )
    client.update_function_code(FunctionName="hello", ZipFile=make_zip({"app.py": "2"}))


def test_pages_of_configurations(client: Any, server: ApiServer) -> None:
    arns = {configure(client)["CodeSigningConfigArn"] for _ in range(3)}
    found: list[str] = []
    for page in client.get_paginator("list_code_signing_configs").paginate(PaginationConfig={"PageSize": 1}):
        found += [config["CodeSigningConfigArn"] for config in page["CodeSigningConfigs"]]
    assert found == sorted(arns)
    assert server.client(account="111111111111").list_code_signing_configs()["CodeSigningConfigs"] == []


def test_input_that_breaks_its_constraints(client: Any) -> None:
    for arns in ([], [PROFILE] * 21):
        error = error_of(client.create_code_signing_config, AllowedPublishers={"SigningProfileVersionArns": arns})
        assert error.response["Error"]["Code"] == "ValidationException"
    error = error_of(client.get_code_signing_config, CodeSigningConfigArn="csc-1")
    assert "Member must satisfy regular expression pattern" in error.response["Error"]["Message"]
    assert client.list_code_signing_configs()["CodeSigningConfigs"] == []
