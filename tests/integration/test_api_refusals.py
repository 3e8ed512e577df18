"""What CreateFunction refuses, with which error and which message; and requests over their size."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api_server import ARN, ApiServer, create, error_of, make_zip
from daemon_running import ACCOUNT, REGION

IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/app:latest"


def test_duplicate(client: Any) -> None:
    create(client)
    error = error_of(create, client, name=f"{ARN}:hello")
    assert isinstance(error, client.exceptions.ResourceConflictException)
    assert error.response["Error"]["Message"] == "Function already exist: hello"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 409


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Runtime": None}, "Runtime and Handler are mandatory parameters for functions created with deployment packages."),
        ({"Handler": None}, "Runtime and Handler are mandatory parameters for functions created with deployment packages."),
        ({"Code": {}}, "Please provide a source for function code."),
        ({"Code": {"ZipFile": b""}}, "Uploaded file must be a non-empty zip"),
        (
            {"Code": {"ZipFile": b"no zip"}},
            "Could not unzip uploaded file. Please check your file, then try to upload again.",
        ),
        (
            {"Code": {"ZipFile": make_zip({"../x": "y"})}},
            "Could not unzip uploaded file. Please check your file, then try to upload again.",
        ),
        (
            {"Runtime": "python3.7"},
            ("The runtime parameter of python3.7 is no longer supported for creating or updating AWS Lambda functions. We"
            " recommend you use a supported runtime while creating or updating functions."),
        ),
        (
            {"Runtime": "PYTHON3.9"},
            ("Value PYTHON3.9 at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [nodejs20.x,"
            " python3.14, provided.al2023, python3.12, python3.13, nodejs24.x, nodejs22.x, java25, python3.10, python3.11,"
            " java21, ruby3.3, ruby3.4, ruby3.2, python3.8, python3.9, java17, nodejs16.x, dotnet10, dotnet8, java11,"
            " dotnet6, nodejs18.x, provided.al2, java8.al2] or be a valid ARN"),
        ),
        (
            {"FunctionName": "x" * 65},
            (f"1 validation error detected: Value '{'x' * 65}' at 'functionName' failed to satisfy constraint: Member must"
            " have length less than or equal to 64"),
        ),
        ({"FunctionName": "x:1"}, "A function is created without a qualifier: x:1"),
        (
            {"Environment": {"Variables": {"OK": "1", "AWS_REGION": "x", "_HANDLER": "y"}}},
            None,  # the pattern of keys refuses _HANDLER first
        ),
        (
            {"Environment": {"Variables": {"OK": "1", "AWS_REGION": "x", "AWS_SESSION_TOKEN": "y"}}},
            ("Lambda was unable to configure your environment variables because the environment variables you have provided"
            " contains reserved keys that are currently not supported for modification. Reserved keys used in this request:"
            " AWS_REGION, AWS_SESSION_TOKEN"),
        ),
        ({"Tags": {f"key{number}": "" for number in range(51)}}, "Number of tags exceeds resource tag limit."),
        (
            {"PackageType": "Image", "Code": {"ImageUri": IMAGE}},
            "Please don't provide Runtime when the intended function PackageType is Image.",
        ),
        (
            {"PackageType": "Image", "Code": {"ImageUri": IMAGE}, "Runtime": None},
            "Please don't provide Handler when the intended function PackageType is Image.",
        ),
        (
            {"PackageType": "Image", "Runtime": None, "Handler": None},
            "Please provide ImageUri when the intended function PackageType is Image.",
        ),
        (
            {"Code": {"ImageUri": IMAGE}},
            "Please don't provide ImageUri when the intended function PackageType is Zip.",
        ),
        (
            {"ImageConfig": {"Command": ["x"]}},
            "Please don't provide ImageConfig when the intended function PackageType is Zip.",
        ),
        (
            {"Code": {"ZipFile": make_zip(), "S3Bucket": "bucket", "S3Key": "key"}},
            "Please do not provide other FunctionCode parameters when providing a ZipFile.",
        ),
        (
            {"VpcConfig": {"SubnetIds": ["subnet-1"]}},
            "SubnetIds and SecurityGroupIds must coexist or be both empty list.",
        ),
        (
            {"VpcConfig": {"SecurityGroupIds": ["sg-1"]}},
            "SubnetIds and SecurityGroupIds must coexist or be both empty list.",
        ),
        (
            {"DeadLetterConfig": {"TargetArn": f"arn:aws:s3:{REGION}:{ACCOUNT}:bucket"}},
            "Invalid dead letter queue ARN: Only Amazon SQS queues and Amazon SNS topics are supported.",
        ),
        (
            {"DeadLetterConfig": {"TargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue.fifo"}},
            "Invalid dead letter queue ARN: FIFO SQS queue is not supported for dead letter configuration",
        ),
        (
            {"DeadLetterConfig": {"TargetArn": f"arn:aws:sqs:eu-west-1:{ACCOUNT}:queue"}},
            (
                "Invalid dead letter queue ARN: The resource specified by the TargetArn must be in the same region as"
                " the Lambda function it's associated with."
            ),
        ),
        (
            {"SnapStart": {"ApplyOn": "PublishedVersions"}},
            "python3.11 is not supported for SnapStart enabled functions.",
        ),
        (
            {"Layers": [f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:x:1"]},
            f"Layer version arn:aws:lambda:{REGION}:{ACCOUNT}:layer:x:1 does not exist.",
        ),
        (
            {"LoggingConfig": {"ApplicationLogLevel": "DEBUG"}},
            ('LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change the'
            ' LogFormat to "JSON" and try again.'),
        ),
    ],
)  # fmt: skip
def test_invalid_parameters(client: Any, given: dict[str, Any], message: str | None) -> None:
    error = error_of(create, client, **{"name": given.get("FunctionName", "hello")} | given)
    if message is None:
        assert error.response["Error"]["Code"] == "ValidationException"
    else:
        assert isinstance(error, client.exceptions.InvalidParameterValueException)
        assert error.response["Error"]["Message"] == message
    assert client.list_functions()["Functions"] == []


def test_why_a_zip_was_refused(client: Any) -> None:
    error = error_of(create, client, Code={"ZipFile": make_zip({"../x": "y"})})
    assert error.response["ResponseMetadata"]["HTTPHeaders"]["x-fastlam-reason"] == "a name points out of the archive"


def test_environment_of_four_kilobytes(client: Any) -> None:
    fits = {"KEY": "v" * (4096 - len('{"KEY":""}'))}
    assert create(client, Environment={"Variables": fits})["Environment"] == {"Variables": fits}
    over = {"KEY": fits["KEY"] + "v"}
    error = error_of(create, client, name="over", Environment={"Variables": over})
    assert error.response["Error"]["Message"] == (
        "Lambda was unable to configure your environment variables because the environment variables you have provided"
        f" exceeded the 4KB limit. String measured: {json.dumps(over, separators=(',', ':'))}"
    )


def test_sizes(server: ApiServer, client: Any) -> None:
    error = error_of(create, client, Code={"ZipFile": bytes(52_428_801)})
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert error.response["Error"] == {
        "Code": "RequestEntityTooLargeException",
        "Message": "Zipped size must be smaller than 52428800 bytes",
    }
    answer = server.send("POST", "/2015-03-31/functions", b"{" + b" " * 70_167_211)
    assert answer.status == 413
    assert answer.json == {"message": "Request must be smaller than 70167211 bytes for the CreateFunction operation"}
    assert answer.headers["x-amzn-errortype"] == "RequestEntityTooLargeException"
    answer = server.send("PUT", "/2015-03-31/functions/x/configuration", b"{" + b" " * 5120)
    assert answer.json == {
        "message": "Request must be smaller than 5120 bytes for the UpdateFunctionConfiguration operation"
    }
    assert client.list_functions()["Functions"] == []
