"""Code in S3: functions made from objects of an S3-compatible server, and every way in which an object is not there."""

from __future__ import annotations

import random
import socket
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from api_server import error_of, refused
from daemon_running import RunningDaemon, running_daemon, zipped
from fastlam import limits
from fastlam.cli import cli
from fastlam.runtimes.python import INTERPRETER
from moto_running import AwsServer
from scripted_server import answer, s3_error, serving
from waiting import await_that

ROLE = "arn:aws:iam::000000000000:role/lambda-role"


@cache  # a zip holds the time at which it was made
def returning(word: str) -> bytes:
    return zipped(f"def handler(event, context): return {word!r}\n")


@pytest.fixture(scope="module")
def daemon(aws: AwsServer) -> Iterator[RunningDaemon]:
    with running_daemon("--aws-endpoint", aws.url) as running:
        yield running


@pytest.fixture
def bucket(aws: AwsServer, request: pytest.FixtureRequest) -> Any:
    """A bucket with versions, of this test alone."""
    name = request.node.name.replace("_", "-").lower()[:60].rstrip("-")
    aws.client("s3").create_bucket(Bucket=name)
    aws.client("s3").put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def put(aws: AwsServer, bucket: str, key: str, word: str) -> str:
    """The version of the new object."""
    version: str = aws.client("s3").put_object(Bucket=bucket, Key=key, Body=returning(word))["VersionId"]
    return version


def create(daemon: RunningDaemon, name: str, **code: Any) -> Any:
    created = daemon.lambda_.create_function(
        FunctionName=name, Runtime=INTERPRETER, Role=ROLE, Handler="app.handler", Code=code
    )
    daemon.settle(name)
    return created


def update(daemon: RunningDaemon, name: str, **code: Any) -> None:
    daemon.lambda_.update_function_code(FunctionName=name, **code)
    daemon.settle(name)


def test_create_and_update(daemon: RunningDaemon, aws: AwsServer, bucket: str) -> None:
    first = put(aws, bucket, "code/ä b.zip", "first")
    put(aws, bucket, "code/ä b.zip", "second")
    created = create(daemon, "from-s3", S3Bucket=bucket, S3Key="code/ä b.zip")
    assert created["CodeSize"] == len(returning("second"))
    assert daemon.invoke("from-s3").result == "second"
    update(daemon, "from-s3", S3Bucket=bucket, S3Key="code/ä b.zip", S3ObjectVersion=first)
    assert daemon.invoke("from-s3").result == "first"
    code = daemon.lambda_.get_function(FunctionName="from-s3")["Code"]
    with urllib.request.urlopen(code["Location"]) as download:
        assert download.read() == returning("first")
    assert "ResolvedS3Object" not in code


def test_copies_live_without_their_bucket(daemon: RunningDaemon, aws: AwsServer, bucket: str) -> None:
    version = put(aws, bucket, "a.zip", "kept")
    create(daemon, "kept", S3Bucket=bucket, S3Key="a.zip")
    aws.client("s3").delete_object(Bucket=bucket, Key="a.zip", VersionId=version)
    aws.client("s3").delete_bucket(Bucket=bucket)
    before = daemon.lambda_.get_function(FunctionName="kept")["Configuration"]
    refused(
        daemon.lambda_.update_function_code,
        "InvalidParameterValueException",
        400,
        "Error occurred while GetObject. S3 Error Code: NoSuchBucket. S3 Error Message: The specified bucket does not"
        " exist",
        FunctionName="kept",
        S3Bucket=bucket,
        S3Key="a.zip",
    )
    assert daemon.lambda_.get_function(FunctionName="kept")["Configuration"] == before
    assert daemon.invoke("kept").result == "kept"


def test_references(daemon: RunningDaemon, aws: AwsServer, bucket: str) -> None:
    version = put(aws, bucket, "a.zip", "one")
    source = {"S3Bucket": bucket, "S3Key": "a.zip", "S3ObjectStorageMode": "REFERENCE"}
    create(daemon, "referring", **source)
    resolved = {"S3Bucket": bucket, "S3Key": "a.zip", "S3ObjectVersion": version}
    code = daemon.lambda_.get_function(FunctionName="referring")["Code"]
    assert code == {"RepositoryType": "S3", "ResolvedS3Object": resolved}
    put(aws, bucket, "a.zip", "two")  # a reference is to one version
    assert daemon.invoke("referring").result == "one"
    update(daemon, "referring", **source, S3ObjectVersion=version)
    assert daemon.lambda_.get_function(FunctionName="referring")["Code"]["ResolvedS3Object"] == resolved
    update(daemon, "referring", S3Bucket=bucket, S3Key="a.zip", S3ObjectStorageMode="COPY")
    assert daemon.invoke("referring").result == "two"
    code = daemon.lambda_.get_function(FunctionName="referring")["Code"]
    assert "ResolvedS3Object" not in code and "Location" in code


def test_a_package_may_be_larger_than_an_upload(
    daemon: RunningDaemon, aws: AwsServer, bucket: str, rng: random.Random
) -> None:
    code = "import os\ndef handler(event, context): return os.path.getsize('data')\n"
    package = zipped({"app.py": code, "data": rng.randbytes(limits.ZIP_BYTES_MAX)})
    assert len(package) > limits.ZIP_BYTES_MAX
    aws.client("s3").put_object(Bucket=bucket, Key="large.zip", Body=package)
    created = create(daemon, "large", S3Bucket=bucket, S3Key="large.zip")
    assert created["CodeSize"] == len(package)
    assert daemon.invoke("large").result == limits.ZIP_BYTES_MAX
    error = error_of(daemon.lambda_.update_function_code, FunctionName="large", ZipFile=package)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_templates_name_objects(daemon: RunningDaemon, aws: AwsServer, bucket: str, tmp_path: Path) -> None:
    def deploy() -> str:
        done = CliRunner().invoke(cli, ["--endpoint-url", daemon.url, "deploy", str(template)])
        assert done.exit_code == 0, done.stderr
        return done.stdout.splitlines()[0]

    put(aws, bucket, "a.zip", "first")
    template = tmp_path / "template.yaml"
    template.write_text(f"""
Resources:
  Templated:
    Type: AWS::Serverless::Function
    Properties: {{CodeUri: "s3://{bucket}/a.zip", Handler: app.handler, Runtime: {INTERPRETER}}}
""")
    assert deploy() == "Templated: created Templated"
    assert deploy() == "Templated: unchanged"
    put(aws, bucket, "a.zip", "second")
    assert deploy() == "Templated: updated the code of Templated"
    assert daemon.invoke("Templated").result == "second"


def test_what_is_not_there(daemon: RunningDaemon, aws: AwsServer, bucket: str) -> None:
    put(aws, bucket, "a.zip", "x")
    aws.client("s3").put_object(Bucket=bucket, Key="text", Body=b"no zip")
    aws.client("s3").put_object(Bucket=bucket, Key="empty", Body=b"")
    missing = "Error occurred while GetObject. S3 Error Code: {}. S3 Error Message: {}"
    for code, text in (
        ({"S3Bucket": "nowhere-at-all"}, missing.format("NoSuchBucket", "The specified bucket does not exist")),
        ({"S3Key": "b.zip"}, missing.format("NoSuchKey", "The specified key does not exist.")),
        (
            {"S3ObjectVersion": "a1b2c3"},
            missing.format("NoSuchVersion", "The specified version does not exist."),
        ),
        ({"S3Key": "text"}, "Could not unzip uploaded file. Please check your file, then try to upload again."),
        ({"S3Key": "empty"}, "Uploaded file must be a non-empty zip"),
        (
            {"ZipFile": returning("y")},
            "Please do not provide other FunctionCode parameters when providing a ZipFile.",
        ),
    ):
        given = {"S3Bucket": bucket, "S3Key": "a.zip", **code}
        error = error_of(create, daemon, "never", **given)
        assert error.response["Error"] == {"Code": "InvalidParameterValueException", "Message": text}
    assert error_of(daemon.lambda_.get_function, FunctionName="never").response["Error"]["Code"] == (
        "ResourceNotFoundException"
    )


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ({}, "Please provide a source for function code."),
        ({"S3ObjectVersion": "1"}, "Please provide a source for function code."),
        ({"S3Bucket": "bucket"}, "Please provide both S3Bucket and S3Key, which together name the code in S3."),
        ({"S3Key": "key"}, "Please provide both S3Bucket and S3Key, which together name the code in S3."),
        (
            {"ZipFile": returning("x"), "S3ObjectStorageMode": "COPY"},
            "Please do not provide other FunctionCode parameters when providing a ZipFile.",
        ),
    ],
    ids=["nothing", "version", "bucket", "key", "both"],
)
def test_sources_that_are_none(daemon: RunningDaemon, code: dict[str, Any], text: str) -> None:
    client = daemon.client(parameter_validation=False)
    error = error_of(
        client.create_function, FunctionName="never", Runtime=INTERPRETER, Role=ROLE, Handler="a.b", Code=code
    )
    assert error.response["Error"] == {"Code": "InvalidParameterValueException", "Message": text}


def test_images(daemon: RunningDaemon) -> None:
    digest = "0123456789abcdef" * 4
    registry = "000000000000.dkr.ecr.us-east-1.amazonaws.com/team/app"

    def create_image(code: dict[str, Any]) -> Any:
        return daemon.lambda_.create_function(FunctionName="image", PackageType="Image", Role=ROLE, Code=code)

    for uri in (
        registry,
        "app:latest",
        "team/app:latest",
        f"{registry}@sha256:123",
        f"{registry}:la test",
        "http://x/y:z",
    ):
        error = error_of(create_image, {"ImageUri": uri})
        assert error.response["Error"]["Message"] == f"Source image {uri} is not valid. Provide a valid source image."
    error = error_of(create_image, {"ImageUri": f"{registry}:1", "S3Bucket": "bucket", "S3Key": "key"})
    assert "when providing an ImageUri" in error.response["Error"]["Message"]
    assert create_image({"ImageUri": f"{registry}:1@sha256:{digest}"})["CodeSha256"] == digest
    daemon.settle("image")
    for uri in (f"{registry}:v1.2_3-4", "localhost:5000/app:1", f"registry:5000/a/b@sha256:{digest}"):
        daemon.lambda_.update_function_code(FunctionName="image", ImageUri=uri)
        daemon.settle("image")
        assert daemon.lambda_.get_function(FunctionName="image")["Code"]["ImageUri"] == uri
    error = error_of(daemon.lambda_.update_function_code, FunctionName="image", ZipFile=returning("x"))
    assert error.response["Error"]["Message"] == (
        "Please provide ImageUri when updating a function with packageType Image."
    )


def test_an_endpoint_that_answers_otherwise() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    denied = s3_error("403 Forbidden", "AccessDenied", "Access Denied")
    huge = answer("200 OK", b"", size=300 * 1024 * 1024)
    cases = (
        (huge, "InvalidParameterValueException", "Unzipped size must be smaller than 262144000 bytes"),
        (denied, "AccessDeniedException", "Your access has been denied by S3, please make sure your request"),
        (b"", "InvalidParameterValueException", "Error occurred while GetObject. The S3 endpoint http://127.0.0.1:"),
    )
    for given, code, text in cases:
        with serving(given) as server, running_daemon("--aws-endpoint", server.url) as daemon:
            error = error_of(create, daemon, "never", S3Bucket="bucket", S3Key="key")
            assert error.response["Error"]["Code"] == code
            assert error.response["Error"]["Message"].startswith(text)
    with running_daemon("--aws-endpoint", nobody) as daemon:
        error = error_of(create, daemon, "never", S3Bucket="bucket", S3Key="key")
        assert f"The S3 endpoint {nobody} did not answer" in error.response["Error"]["Message"]


def test_nobody_waits_for_another_ones_object() -> None:
    with serving(answer("200 OK", returning("late"))) as server:
        server.open.clear()
        with running_daemon(environment={"AWS_ENDPOINT_URL_S3": server.url}) as daemon, ThreadPoolExecutor() as pool:
            created = pool.submit(create, daemon, "late", S3Bucket="bucket", S3Key="key")
            try:
                await_that(lambda: len(server.asked) == 1)
                daemon.deploy("quick", "def handler(event, context): return 'quick'\n")
                assert daemon.invoke("quick").result == "quick"
                assert not created.done()
            finally:
                server.open.set()
            created.result()
            assert daemon.invoke("late").result == "late"
