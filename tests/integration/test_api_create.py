"""CreateFunction as boto3 sees it: what it answers and stores, and when the function is Active."""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from typing import Any

import pytest

from api_server import ARN, ROLE, create, make_zip, refused, wait
from daemon_running import ACCOUNT, REGION

QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:dead-letters"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
FILES = {
    "Arn": f"arn:aws:elasticfilesystem:{REGION}:{ACCOUNT}:access-point/fsap-0123456789abcdef0",
    "LocalMountPath": "/mnt/files",
}


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
    given: dict[str, Any] = {
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


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"Runtime": "nodejs22.x"}, {"Runtime": "nodejs22.x"}),
        ({"DeadLetterConfig": {"TargetArn": QUEUE}}, {"DeadLetterConfig": {"TargetArn": QUEUE}}),
        ({"KMSKeyArn": KEY}, {"KMSKeyArn": KEY}),
        (
            {"SnapStart": {"ApplyOn": "PublishedVersions"}, "Runtime": "python3.12"},
            {"SnapStart": {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}},
        ),
        ({"FileSystemConfigs": [FILES]}, {"FileSystemConfigs": [FILES]}),
        (
            {"TenancyConfig": {"TenantIsolationMode": "PER_TENANT"}},
            {"TenancyConfig": {"TenantIsolationMode": "PER_TENANT"}},
        ),
    ],
)
def test_settings_that_are_given_back(client: Any, given: dict[str, Any], shown: dict[str, Any]) -> None:
    created = create(client, **given)
    wait(client)
    got = client.get_function_configuration(FunctionName="hello")
    for member, value in shown.items():
        assert (created[member], got[member]) == (value, value)


def test_a_vpc_is_shown_once_it_was_set(client: Any) -> None:
    given = {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1", "sg-2"]}
    created = create(client, VpcConfig=given)
    vpc = created["VpcConfig"]
    assert vpc.pop("VpcId").startswith("vpc-")
    assert vpc == {**given, "Ipv6AllowedForDualStack": False}
    wait(client)
    cleared = client.update_function_configuration(
        FunctionName="hello", VpcConfig={"SubnetIds": [], "SecurityGroupIds": []}
    )
    nothing = {"SubnetIds": [], "SecurityGroupIds": [], "VpcId": "", "Ipv6AllowedForDualStack": False}
    assert cleared["VpcConfig"] == nothing
    wait(client, "function_updated_v2")
    assert client.get_function_configuration(FunctionName="hello")["VpcConfig"] == nothing


def test_an_image(client: Any) -> None:
    """It is kept and shown as the service shows it; no member of a deployment package stays."""
    uri = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/app"
    digest = "ab" * 32
    config = {"Command": ["app.handler"], "EntryPoint": ["/entry"], "WorkingDirectory": "/srv"}
    created = create(
        client,
        PackageType="Image",
        Runtime=None,
        Handler=None,
        Code={"ImageUri": f"{uri}@sha256:{digest}"},
        ImageConfig=config,
    )
    assert not {"Runtime", "Handler", "RuntimeVersionConfig"} & created.keys()
    assert (created["PackageType"], created["CodeSize"], created["CodeSha256"]) == ("Image", 0, digest)
    assert created["ImageConfigResponse"] == {"ImageConfig": config}
    wait(client)
    assert client.get_function(FunctionName="hello")["Code"] == {
        "RepositoryType": "ECR",
        "ImageUri": f"{uri}@sha256:{digest}",
        "ResolvedImageUri": f"{uri}@sha256:{digest}",
    }
    refused(
        client.update_function_code,
        "InvalidParameterValueException",
        400,
        "Please provide ImageUri when updating a function with packageType Image.",
        FunctionName="hello",
        ZipFile=make_zip(),
    )
    client.update_function_code(FunctionName="hello", ImageUri=f"{uri}:tag")
    wait(client, "function_updated_v2")
    code = client.get_function(FunctionName="hello")["Code"]
    assert code["ImageUri"] == f"{uri}:tag"
    assert code["ResolvedImageUri"].startswith(f"{uri}@sha256:")


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
