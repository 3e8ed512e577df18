"""The function and concurrency operations as boto3 sees them, over a real HTTP server."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from botocore.exceptions import ClientError

from api_server import ACCOUNT, REGION, ROLE, ApiServer, api_server, make_zip
from fastlam.control.authorize import Caller
from fastlam.errors import access_denied

ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path / "data") as running:
        yield running


@pytest.fixture
def client(server: ApiServer) -> Any:
    return server.client()


def create(client: Any, name: str = "hello", **more: Any) -> dict[str, Any]:
    parameters = {
        "FunctionName": name,
        "Runtime": "python3.11",
        "Role": ROLE,
        "Handler": "app.handler",
        "Code": {"ZipFile": make_zip()},
    } | more
    return client.create_function(**{key: value for key, value in parameters.items() if value is not None})


def wait(client: Any, waiter: str = "function_active_v2", name: str = "hello") -> None:
    client.get_waiter(waiter).wait(FunctionName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 300})


def error_of(call: Any, *arguments: Any, **parameters: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        call(*arguments, **parameters)
    return caught.value


def refused(call: Any, code: str, status: int, message: str, **parameters: Any) -> ClientError:
    error = error_of(call, **parameters)
    assert error.response["Error"]["Code"] == code
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert error.response["Error"]["Message"] == message
    return error


# Create and read ---------------------------------------------------------------------------------


def test_create_with_defaults(client: Any) -> None:
    code = make_zip()
    created = create(client, Code={"ZipFile": code})
    metadata = created.pop("ResponseMetadata")
    assert metadata["HTTPStatusCode"] == 201
    assert uuid.UUID(metadata["RequestId"]).version == 4
    assert metadata["HTTPHeaders"]["content-type"] == "application/json"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000", created.pop("LastModified"))
    assert uuid.UUID(created.pop("RevisionId")).version == 4
    runtime = created.pop("RuntimeVersionConfig")["RuntimeVersionArn"]
    assert re.fullmatch(rf"arn:aws:lambda:{REGION}::runtime:[0-9a-f]{{64}}", runtime)
    assert created == {
        "FunctionName": "hello",
        "FunctionArn": f"{ARN}:hello",
        "Runtime": "python3.11",
        "Role": ROLE,
        "Handler": "app.handler",
        "CodeSize": len(code),
        "CodeSha256": base64.b64encode(hashlib.sha256(code).digest()).decode(),
        "Description": "",
        "Timeout": 3,
        "MemorySize": 128,
        "Version": "$LATEST",
        "TracingConfig": {"Mode": "PassThrough"},
        "State": "Pending",
        "StateReason": "The function is being created.",
        "StateReasonCode": "Creating",
        "PackageType": "Zip",
        "Architectures": ["x86_64"],
        "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/hello"},
    }


def test_create_with_everything_that_is_stored(client: Any) -> None:
    given = {
        "Description": "greets — ünïcode",
        "Timeout": 900,
        "MemorySize": 10240,
        "Environment": {"Variables": {"NAME": "välue", "EMPTY": ""}},
        "TracingConfig": {"Mode": "Active"},
        "Architectures": ["arm64"],
        "EphemeralStorage": {"Size": 10240},
    }
    create(
        client,
        **given,
        PackageType="Zip",
        Publish=False,
        Layers=[],
        VpcConfig={"SubnetIds": [], "SecurityGroupIds": []},
        DeadLetterConfig={"TargetArn": ""},
        KMSKeyArn="",
        FileSystemConfigs=[],
        SnapStart={"ApplyOn": "None"},
        LoggingConfig={"LogFormat": "JSON", "LogGroup": "/my/group", "SystemLogLevel": "WARN"},
        Tags={"team": "blue", "stage": "ünit"},
    )
    wait(client)
    got = client.get_function(FunctionName="hello")
    configuration = got["Configuration"]
    for key, value in given.items():
        assert configuration[key] == value
    assert configuration["LoggingConfig"] == {
        "LogFormat": "JSON",
        "LogGroup": "/my/group",
        "ApplicationLogLevel": "INFO",
        "SystemLogLevel": "WARN",
    }
    assert got["Tags"] == {"team": "blue", "stage": "ünit"}
    assert "VpcConfig" not in configuration
    assert "DeadLetterConfig" not in configuration


def test_becomes_active(client: Any) -> None:
    created = create(client)
    wait(client)
    active = client.get_function_configuration(FunctionName="hello")
    assert (active["State"], active["LastUpdateStatus"]) == ("Active", "Successful")
    assert "StateReason" not in active
    assert active["RevisionId"] != created["RevisionId"]
    assert active["LastModified"] == created["LastModified"]
    client.get_waiter("function_exists").wait(FunctionName="hello", WaiterConfig={"Delay": 0.02})
    client.get_waiter("function_active").wait(FunctionName="hello", WaiterConfig={"Delay": 0.02})


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


def test_accounts_and_regions_do_not_see_each_other(server: ApiServer) -> None:
    here, there, other = server.client(), server.client(region="eu-west-1"), server.client(account="111122223333")
    create(here)
    assert create(there)["FunctionArn"] == f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:hello"
    assert create(other)["FunctionArn"] == f"arn:aws:lambda:{REGION}:111122223333:function:hello"
    create(other, name="second")
    assert [len(client.list_functions()["Functions"]) for client in (here, there, other)] == [1, 1, 2]
    error = error_of(other.get_function, FunctionName=f"{ARN}:hello")
    assert error.response["Error"] == {
        "Code": "AccessDeniedException",
        "Message": "User: arn:aws:iam::111122223333:root is not authorized to perform: lambda:GetFunction on resource:"
        f" {ARN}:hello because no resource-based policy allows the lambda:GetFunction action",
    }
    error = error_of(create, other, name=f"{ARN}:new")
    assert (error.response["Error"]["Code"], error.response["Error"]["Message"]) == ("AccessDeniedException", None)


def test_unsigned_requests_use_the_defaults(server: ApiServer, client: Any) -> None:
    create(client)
    answer = server.send("GET", "/2015-03-31/functions/hello/configuration")
    assert answer.status == 200
    assert answer.json["FunctionArn"] == f"{ARN}:hello"
    for junk in (
        "AWS4-HMAC-SHA256 Credential=",
        "Bearer x",
        "AWS4-HMAC-SHA256 Credential=a/b/../../c/d/e, Signature=1",
    ):
        assert server.send("GET", "/2015-03-31/functions/hello", headers={"Authorization": junk}).status == 200


def test_authorize_is_asked_for_every_operation(tmp_path: Path) -> None:
    asked = []

    def ask(caller: Caller, action: str, resource: str) -> None:
        asked.append((action, resource))
        if action == "lambda:DeleteFunction":
            raise access_denied("no")

    with api_server(tmp_path, authorize=ask) as server:
        client = server.client()
        create(client)
        client.list_functions()
        client.get_function(FunctionName="hello", Qualifier="$LATEST")
        refused(client.delete_function, "AccessDeniedException", 403, "no", FunctionName="unknown")
        client.get_function(FunctionName="hello")
    assert asked == [
        ("lambda:CreateFunction", f"{ARN}:hello"),
        ("lambda:ListFunctions", "*"),
        ("lambda:GetFunction", f"{ARN}:hello:$LATEST"),
        ("lambda:DeleteFunction", f"{ARN}:unknown"),
        ("lambda:GetFunction", f"{ARN}:hello"),
    ]


def test_a_fault_of_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(caller: Caller, action: str, resource: str) -> None:
        raise RuntimeError("the secret of the house")

    with api_server(tmp_path, authorize=fail) as server:
        error = error_of(server.client().get_function, FunctionName="hello")
        assert isinstance(error, server.client().exceptions.ServiceException)
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 500
        assert error.response["Type"] == "Service"
        assert error.response["Error"]["Message"] == "An error occurred and the request cannot be processed."
    assert "the secret of the house" in caplog.text


# Refusals of create ------------------------------------------------------------------------------


def test_duplicate(client: Any) -> None:
    create(client)
    error = error_of(create, client, name=f"{ARN}:hello")
    assert isinstance(error, client.exceptions.ResourceConflictException)
    assert error.response["Error"]["Message"] == "Function already exist: hello"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 409


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"PackageType": "Image", "Code": {"ImageUri": "x"}}, "container images (PackageType Image)"),
        ({"Code": {"ImageUri": "x"}}, "container images (ImageUri)"),
        ({"ImageConfig": {"Command": ["x"]}}, "container images (ImageConfig)"),
        (
            {"Code": {"S3Bucket": "bucket", "S3Key": "key"}},
            "code from S3 (S3Bucket); send the deployment package itself (ZipFile)",
        ),
        ({"Publish": True}, "function versions (Publish)"),
        ({"Layers": [f"arn:aws:lambda:us-east-1:{ACCOUNT}:layer:x:1"]}, "layers (Layers)"),
        ({"VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}}, "VPCs (VpcConfig)"),
        ({"DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:q"}}, "dead-letter queues (DeadLetterConfig)"),
        ({"KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1"}, "customer-managed keys (KMSKeyArn)"),
        ({"SnapStart": {"ApplyOn": "PublishedVersions"}}, "SnapStart (SnapStart)"),
        (
            {
                "FileSystemConfigs": [
                    {
                        "Arn": "arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/fsap-0123456789abcdef0",
                        "LocalMountPath": "/mnt/x",
                    }
                ]
            },
            "file systems (FileSystemConfigs)",
        ),
        ({"DurableConfig": {"ExecutionTimeout": 5}}, "durable functions (DurableConfig)"),
        ({"TenancyConfig": {"TenantIsolationMode": "PER_TENANT"}}, "tenant isolation (TenancyConfig)"),
    ],
)  # fmt: skip
def test_what_is_not_there_yet_is_refused(client: Any, given: dict[str, Any], message: str) -> None:
    error = error_of(create, client, **given)
    assert isinstance(error, client.exceptions.InvalidParameterValueException)
    assert error.response["Error"]["Message"] == f"fastlam does not support {message} yet."
    assert client.list_functions()["Functions"] == []


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
        ({"Runtime": "nodejs22.x"}, "The runtime nodejs22.x is not supported yet: fastlam runs python runtimes so far."),
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


# Update and delete -------------------------------------------------------------------------------


def test_update_configuration(client: Any) -> None:
    create(client, Environment={"Variables": {"A1": "1"}}, Description="before")
    wait(client)
    before = client.get_function_configuration(FunctionName="hello")
    updated = client.update_function_configuration(
        FunctionName="hello", Timeout=30, MemorySize=512, Environment={"Variables": {"B2": "2"}}, Runtime="python3.12"
    )
    assert updated["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert (updated["State"], updated["LastUpdateStatus"]) == ("Active", "InProgress")
    assert updated["LastUpdateStatusReason"] == "The function is being created."
    assert updated["LastUpdateStatusReasonCode"] == "Creating"
    assert updated["RevisionId"] != before["RevisionId"]
    wait(client, "function_updated_v2")
    after = client.get_function_configuration(FunctionName="hello")
    assert after["LastUpdateStatus"] == "Successful"
    assert len({before["RevisionId"], updated["RevisionId"], after["RevisionId"]}) == 3
    assert (after["Timeout"], after["MemorySize"], after["Description"]) == (30, 512, "before")
    assert (after["Environment"], after["Runtime"]) == ({"Variables": {"B2": "2"}}, "python3.12")
    client.update_function_configuration(FunctionName="hello")  # a change of nothing is a change
    wait(client, "function_updated_v2")
    assert client.get_function_configuration(FunctionName="hello")["RevisionId"] != after["RevisionId"]


def test_update_logging(client: Any) -> None:
    create(client)
    wait(client)

    def update(**logging: str) -> dict[str, str]:
        updated = client.update_function_configuration(FunctionName="hello", LoggingConfig=logging)["LoggingConfig"]
        wait(client, "function_updated_v2")
        return updated

    group = {"LogGroup": "/aws/lambda/hello"}
    levels = {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"}
    assert update(LogFormat="JSON") == {"LogFormat": "JSON", **levels, **group}
    assert update(ApplicationLogLevel="DEBUG") == {
        "LogFormat": "JSON",
        **levels,
        "ApplicationLogLevel": "DEBUG",
        **group,
    }
    assert update(LogGroup="/mine")["ApplicationLogLevel"] == "DEBUG"
    assert update(LogFormat="Text") == {"LogFormat": "Text", "LogGroup": "/mine"}


def test_update_code(client: Any) -> None:
    create(client)
    wait(client)
    before = client.get_function_configuration(FunctionName="hello")
    code = make_zip({"app.py": "changed"})
    dry = client.update_function_code(FunctionName="hello", ZipFile=code, DryRun=True)
    assert dry["CodeSha256"] == base64.b64encode(hashlib.sha256(code).digest()).decode()
    assert client.get_function_configuration(FunctionName="hello")["CodeSha256"] == before["CodeSha256"]
    updated = client.update_function_code(FunctionName="hello", ZipFile=code, Architectures=["arm64"])
    assert updated["LastUpdateStatus"] == "InProgress"
    assert (updated["CodeSha256"], updated["CodeSize"]) == (dry["CodeSha256"], len(code))
    assert updated["Architectures"] == ["arm64"]
    wait(client, "function_updated_v2")
    with urlopen(client.get_function(FunctionName="hello")["Code"]["Location"]) as response:
        assert response.read() == code
    error = error_of(client.update_function_code, FunctionName="hello", ZipFile=b"junk", DryRun=True)
    assert error.response["Error"]["Message"].startswith("Could not unzip")
    error = error_of(client.update_function_code, FunctionName="hello", ZipFile=code, Publish=True)
    assert error.response["Error"]["Message"] == "fastlam does not support function versions (Publish) yet."
    error = error_of(client.update_function_code, FunctionName="hello")
    assert error.response["Error"]["Message"] == "Please provide a source for function code."


def test_revisions(client: Any) -> None:
    created = create(client)
    wait(client)
    stale = created["RevisionId"]
    for call, more in (
        (client.update_function_configuration, {}),
        (client.update_function_code, {"ZipFile": make_zip()}),
    ):
        error = error_of(call, FunctionName="hello", RevisionId=stale, **more)
        assert isinstance(error, client.exceptions.PreconditionFailedException)
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412
        assert error.response["Error"]["Message"] == (
            "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve"
            " the latest Revision Id"
        )
    current = client.get_function_configuration(FunctionName="hello")["RevisionId"]
    client.update_function_configuration(FunctionName="hello", RevisionId=current)


def test_delete(client: Any) -> None:
    create(client)
    refused(
        client.delete_function,
        "InvalidParameterValueException",
        400,
        "$LATEST version cannot be deleted without deleting the function.",
        FunctionName="hello",
        Qualifier="$LATEST",
    )
    refused(
        client.delete_function,
        "InvalidParameterValueException",
        400,
        "Deletion of aliases is not currently supported.",
        FunctionName="hello:live",
    )
    assert client.delete_function(FunctionName="hello", Qualifier="5")["ResponseMetadata"]["HTTPStatusCode"] == 204
    deleted = client.delete_function(FunctionName="hello")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert error_of(client.get_function, FunctionName="hello").response["Error"]["Code"] == "ResourceNotFoundException"
    create(client)


# Lists -------------------------------------------------------------------------------------------


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


# Concurrency -------------------------------------------------------------------------------------


def test_reserved_concurrency(client: Any) -> None:
    create(client)
    create(client, name="other")
    wait(client)
    wait(client, name="other")
    assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(FunctionName="hello")
    before = client.get_function_configuration(FunctionName="hello")
    assert client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=900)[
        "ReservedConcurrentExecutions"
    ] == 900  # fmt: skip
    after = client.get_function_configuration(FunctionName="hello")
    assert after["RevisionId"] != before["RevisionId"]
    assert after["LastModified"] == before["LastModified"]
    client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=900)
    assert client.get_function_configuration(FunctionName="hello")["RevisionId"] == after["RevisionId"]
    assert client.get_function_concurrency(FunctionName="hello")["ReservedConcurrentExecutions"] == 900
    assert client.get_function(FunctionName="hello")["Concurrency"] == {"ReservedConcurrentExecutions": 900}
    assert "Concurrency" not in client.get_function(FunctionName="hello", Qualifier="$LATEST")
    error = error_of(client.put_function_concurrency, FunctionName="other", ReservedConcurrentExecutions=1)
    assert "Type" not in error.response
    assert error.response["Error"]["Message"] == (
        "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its"
        " minimum value of [100]."
    )
    assert client.put_function_concurrency(FunctionName="other", ReservedConcurrentExecutions=0)[
        "ReservedConcurrentExecutions"
    ] == 0  # fmt: skip
    assert client.delete_function_concurrency(FunctionName="hello")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert client.delete_function_concurrency(FunctionName="hello")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert "Concurrency" not in client.get_function(FunctionName="hello")


def test_reserved_concurrency_goes_with_the_function(client: Any) -> None:
    create(client)
    client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=5)
    client.delete_function(FunctionName="hello")
    create(client)
    assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(FunctionName="hello")


def test_reserved_concurrency_is_of_functions_only(client: Any) -> None:
    create(client)
    error = error_of(client.put_function_concurrency, FunctionName="hello:$LATEST", ReservedConcurrentExecutions=5)
    assert error.response["Error"]["Message"] == (
        "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please"
        " specify either a function name or an unqualified function ARN."
    )


def test_fractions_of_concurrency(server: ApiServer, client: Any) -> None:
    create(client)
    path = "/2017-10-31/functions/hello/concurrency"
    assert server.send("PUT", path, {"ReservedConcurrentExecutions": 3.9}).json == {"ReservedConcurrentExecutions": 3}
    answer = server.send("PUT", path, {"ReservedConcurrentExecutions": -1})
    assert answer.json == {
        "message": "1 validation error detected: Value '-1' at 'reservedConcurrentExecutions' failed to satisfy constraint:"
        " Member must have value greater than or equal to 0"
    }
    answer = server.send("PUT", path, {"ReservedConcurrentExecutions": 1e300})
    assert answer.json["message"].startswith("Specified ReservedConcurrentExecutions")


# Protocol ----------------------------------------------------------------------------------------


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
    client = server.client()
    error = error_of(client.publish_version, FunctionName="hello")
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert error.response["Error"] == {
        "Code": "NotImplementedException",
        "Message": "fastlam does not implement PublishVersion yet.",
    }


def test_invoke_goes_its_own_way(server: ApiServer, client: Any) -> None:
    client.invoke(FunctionName=f"{ARN}:hello", Qualifier="$LATEST", Payload=b"{}")
    (target,) = server.invocations
    assert target == b"/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Ahello/invocations?Qualifier=%24LATEST"  # fmt: skip


# Restart -----------------------------------------------------------------------------------------


def test_functions_survive_a_restart(tmp_path: Path) -> None:
    code = make_zip()
    with api_server(tmp_path) as server:
        client = server.client()
        create(client, Code={"ZipFile": code}, Tags={"a": "b"}, Environment={"Variables": {"K1": "v"}})
        wait(client)
        client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=7)
        before = client.get_function(FunctionName="hello")
        create(client, name="pending")
    with api_server(tmp_path) as server:
        client = server.client()
        after = client.get_function(FunctionName="hello")
        for ignored in ("ResponseMetadata", "Code"):
            before.pop(ignored)
        location = after.pop("Code")["Location"]
        after.pop("ResponseMetadata")
        assert after == before
        with urlopen(location) as response:
            assert response.read() == code
        settled = client.get_function_configuration(FunctionName="pending")
        assert (settled["State"], settled["LastUpdateStatus"]) == ("Active", "Successful")
