"""CreateFunction as boto3 sees it: what it answers and stores, and when the function is Active."""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from typing import Any

from api_server import ARN, ROLE, create, make_zip, wait
from daemon_running import REGION


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
