"""`fastlam export` and `fastlam deploy` of templates, between real daemons: what comes out goes in again, and works."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon_running import ACCOUNT, RunningDaemon, running_daemon, zipped
from fastlam.deploy.documents import read_document, write_document
from fastlam.runtimes.python import INTERPRETER
from sam_tools import cfn_lint, sam_transform
from template_shell import Shell, assert_unchanged

QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:failed"
HANDLER = """
import os
import common

def handler(event, context):
    return [WORD, common.WORD, os.environ["STAGE"], context.function_version]
"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("FASTLAM_ACCOUNT", "FASTLAM_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def other() -> Iterator[RunningDaemon]:
    """A second daemon, where nothing is before the tests put it there."""
    with running_daemon(complains=True) as running:
        yield running


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    with running_daemon(complains=True) as running:  # event source mappings say that nothing is polled
        yield running


def make(daemon: RunningDaemon, name: str) -> None:
    """A function with everything that a template can say about one."""
    client = daemon.lambda_
    layer = client.publish_layer_version(
        LayerName=f"{name}-common",
        Description="shared",
        Content={"ZipFile": zipped({"python/common.py": "WORD = 'layered'\n"})},
        CompatibleRuntimes=[INTERPRETER],
        LicenseInfo="MIT",
    )
    client.add_layer_version_permission(
        LayerName=f"{name}-common",
        VersionNumber=layer["Version"],
        StatementId="all",
        Action="lambda:GetLayerVersion",
        Principal="*",
    )
    daemon.deploy(
        name,
        HANDLER.replace("WORD,", "'first',", 1),
        environment={"STAGE": "dev", "DB_PASSWORD": "hunter2"},
        Layers=[layer["LayerVersionArn"]],
        Description="describes",
        Timeout=7,
        MemorySize=256,
        Tags={"team": "blue"},
        EphemeralStorage={"Size": 1024},
        TracingConfig={"Mode": "Active"},
        LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": "WARN"},
        DeadLetterConfig={"TargetArn": QUEUE},
        VpcConfig={"SubnetIds": ["subnet-12345678"], "SecurityGroupIds": ["sg-12345678"]},
        KMSKeyArn=f"arn:aws:kms:us-east-1:{ACCOUNT}:key/12345678-1234-1234-1234-123456789012",
        FileSystemConfigs=[
            {
                "Arn": f"arn:aws:elasticfilesystem:us-east-1:{ACCOUNT}:access-point/fsap-0123456789abcdef0",
                "LocalMountPath": "/mnt/x",
            }
        ],
    )
    client.publish_version(FunctionName=name, Description="one")
    daemon.update(name, HANDLER.replace("WORD,", "'second',", 1))
    client.publish_version(FunctionName=name, Description="two")
    weights = {"AdditionalVersionWeights": {"1": 0.25}}
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="2", Description="l", RoutingConfig=weights)
    client.create_alias(FunctionName=name, Name="old", FunctionVersion="1")
    client.create_alias(FunctionName=name, Name="dev", FunctionVersion="$LATEST")
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=20)
    client.put_provisioned_concurrency_config(FunctionName=name, Qualifier="old", ProvisionedConcurrentExecutions=1)
    client.put_function_recursion_config(FunctionName=name, RecursiveLoop="Allow")
    client.put_runtime_management_config(FunctionName=name, UpdateRuntimeOn="FunctionUpdate")
    client.add_permission(
        FunctionName=name,
        StatementId="from-s3",
        Action="lambda:InvokeFunction",
        Principal="s3.amazonaws.com",
        SourceArn="arn:aws:s3:::bucket",
        SourceAccount=ACCOUNT,
    )
    client.add_permission(
        FunctionName=name, Qualifier="live", StatementId="x", Action="lambda:InvokeFunction", Principal="111122223333"
    )
    client.create_function_url_config(FunctionName=name, AuthType="AWS_IAM", Cors={"AllowOrigins": ["*"], "MaxAge": 5})
    client.create_function_url_config(
        FunctionName=name, Qualifier="live", AuthType="NONE", InvokeMode="RESPONSE_STREAM"
    )
    client.put_function_event_invoke_config(
        FunctionName=name, MaximumRetryAttempts=0, DestinationConfig={"OnFailure": {"Destination": QUEUE}}
    )
    client.put_function_event_invoke_config(FunctionName=name, Qualifier="live", MaximumEventAgeInSeconds=60)
    client.create_event_source_mapping(
        FunctionName=name,
        EventSourceArn=f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}",
        BatchSize=5,
        Enabled=False,
        ScalingConfig={"MaximumConcurrency": 2},
    )


def view(daemon: RunningDaemon, name: str) -> dict[str, Any]:
    """All that the API says of a function, without what only one daemon can say."""
    client = daemon.lambda_
    function = client.get_function(FunctionName=name)
    configuration = function["Configuration"]
    for volatile in ("LastModified", "RevisionId"):
        del configuration[volatile]
    found: dict[str, Any] = {"Configuration": configuration, "Tags": function["Tags"]}
    found["Concurrency"] = function["Concurrency"]
    found["Recursion"] = client.get_function_recursion_config(FunctionName=name)["RecursiveLoop"]
    found["Management"] = client.get_runtime_management_config(FunctionName=name)["UpdateRuntimeOn"]
    found["Url"] = {
        key: value
        for key, value in client.get_function_url_config(FunctionName=name).items()
        if key in ("AuthType", "Cors", "InvokeMode")
    }
    found["AliasUrl"] = client.get_function_url_config(FunctionName=name, Qualifier="live")["InvokeMode"]
    for qualifier in ("$LATEST", "live"):
        found[f"Events {qualifier}"] = {
            key: value
            for key, value in client.get_function_event_invoke_config(FunctionName=name, Qualifier=qualifier).items()
            if key.startswith("Maximum") or key == "DestinationConfig"
        }
    for qualifier in (None, "live"):
        more = {} if qualifier is None else {"Qualifier": qualifier}
        statements = json.loads(client.get_policy(FunctionName=name, **more)["Policy"])["Statement"]
        found[f"Policy {qualifier}"] = [{**statement, "Sid": ""} for statement in statements]
    (mapping,) = client.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
    found["Mapping"] = {
        key: value for key, value in mapping.items() if key not in ("UUID", "LastModified", "EventSourceMappingArn")
    }
    return found


PARAMETERS = {"EnvStage": "dev", "EnvDbPassword": "hunter2"}


def test_there_and_back_again(daemon: RunningDaemon, other: RunningDaemon, shell: Shell) -> None:
    make(daemon, "shop-orders")
    said = shell.run(daemon, "export", "shop-orders")
    assert said.stdout.splitlines()[0].startswith("wrote shop-orders-export/template.yaml (")
    assert [line for line in said.stderr.splitlines() if line.startswith("not in")] == [
        "not in the template: version 1: the code or the configuration is another one",
        "not in the template: version 1, with the weight 0.25 behind the alias live"
        " (parameter ShopOrdersAliasLiveOtherVersion)",
        "not in the template: the alias old, which leads to version 1 (--qualifier old exports that)",
    ]
    path = shell.folder / "shop-orders-export/template.yaml"
    assert "hunter2" not in path.read_text()
    assert cfn_lint(path) == ""

    # Elsewhere, where there was nothing.
    shell.deploy(other, path, **PARAMETERS)
    expected = ["second", "layered", "dev"]
    assert daemon.invoke("shop-orders").result == [*expected, "$LATEST"]
    assert other.invoke("shop-orders").result == [*expected, "$LATEST"]
    assert other.invoke("shop-orders", Qualifier="live").result == [*expected, "1"]
    assert other.invoke("shop-orders:dev").result == [*expected, "$LATEST"]
    assert view(other, "shop-orders") == view(daemon, "shop-orders")
    aliases = other.lambda_.list_aliases(FunctionName="shop-orders")["Aliases"]
    assert [(one["Name"], one["FunctionVersion"], one["Description"]) for one in aliases] == [
        ("dev", "$LATEST", ""),
        ("live", "1", "l"),
    ]
    layer = other.lambda_.get_layer_version(LayerName="shop-orders-common", VersionNumber=1)
    assert (layer["Description"], layer["LicenseInfo"]) == ("shared", "MIT")

    # Once more, there and where it came from: nothing is left to do but the weight of a version.
    assert_unchanged(shell.deploy(other, path, **PARAMETERS))
    assert_unchanged(shell.deploy(daemon, path, **PARAMETERS, ShopOrdersAliasLiveOtherVersion="1"))
    said = shell.deploy(daemon, path, **PARAMETERS)
    assert "ShopOrdersAliasLive: updated alias live: version 2, 1 with 0.25 -> version 2\n" in said

    # And what it is there is exported as the same.
    shell.run(other, "export", "shop-orders", "--output", "again")
    first, again = read_document(path), read_document(shell.folder / "again/template.yaml")
    for document in (first, again):
        for section in ("Parameters", "Conditions"):
            document[section] = {key: value for key, value in document[section].items() if "OtherVersion" not in key}
        document["Resources"]["ShopOrdersAliasLive"]["Properties"].pop("RoutingConfig", None)
    assert again == first
    for file in ("shop-orders.zip", "layers/shop-orders-common-1.zip"):
        assert (shell.folder / "again" / file).read_bytes() == (path.parent / file).read_bytes()


def test_sam_takes_what_is_exported(daemon: RunningDaemon, shell: Shell) -> None:
    """Its transform wants code in S3, where `sam deploy` has put it by then."""
    make(daemon, "taken")
    shell.run(daemon, "export", "taken", "-o", "out")
    document = read_document(shell.folder / "out/template.yaml")
    for resource in document["Resources"].values():
        for member in ("CodeUri", "ContentUri"):
            if member in resource["Properties"]:
                resource["Properties"][member] = f"s3://bucket/{resource['Properties'][member]}"
    path = shell.write("packaged.yaml", write_document(document))
    (own_role,) = sam_transform(path, ExecutionRole="arn:aws:iam::111122223333:role/r", **PARAMETERS)
    kinds = [resource["Type"] for resource in own_role["Resources"].values()]
    assert Counter(kinds) == {
        "AWS::IAM::Role": 1,  # which its condition leaves out
        "AWS::Lambda::Alias": 2,
        "AWS::Lambda::EventInvokeConfig": 2,
        "AWS::Lambda::EventSourceMapping": 1,
        "AWS::Lambda::Function": 1,
        "AWS::Lambda::LayerVersion": 1,
        "AWS::Lambda::LayerVersionPermission": 1,
        "AWS::Lambda::Permission": 2,
        "AWS::Lambda::Url": 2,
        "AWS::Lambda::Version": 1,
    }
    function = own_role["Resources"]["Taken"]["Properties"]
    assert function["Role"]["Fn::If"][0] == "HasExecutionRole"
    assert function["Environment"]["Variables"] == {
        "DB_PASSWORD": {"Ref": "EnvDbPassword"},
        "STAGE": {"Ref": "EnvStage"},
    }


def test_versions_and_aliases_are_exported_one_at_a_time(
    daemon: RunningDaemon, other: RunningDaemon, shell: Shell
) -> None:
    make(daemon, "dated")
    said = shell.run(daemon, "export", "dated", "--qualifier", "old", "--with-environment", "-o", "old").stderr
    assert "not in the template: the alias live, which leads to version 2" in said
    path = shell.folder / "old/template.yaml"
    assert path.stat().st_mode & 0o777 == 0o600
    document = read_document(path)
    assert document["Resources"]["Dated"]["Properties"]["Environment"]["Variables"]["DB_PASSWORD"] == "hunter2"
    assert cfn_lint(path) == ""
    shell.deploy(other, path)
    assert other.invoke("dated:old").result == ["first", "layered", "dev", "1"]
    config = other.lambda_.get_provisioned_concurrency_config(FunctionName="dated", Qualifier="old")
    assert config["RequestedProvisionedConcurrentExecutions"] == 1
    assert_unchanged(shell.deploy(other, path))


def test_export_refuses(daemon: RunningDaemon, shell: Shell) -> None:
    said = shell.run(daemon, "export", "nobody", status=2).stderr
    assert said == (
        f"ResourceNotFoundException: Function not found: arn:aws:lambda:us-east-1:{ACCOUNT}:function:nobody\n"
    )
    daemon.deploy("plain", "def handler(event, context): return 'plain'\n")
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:plain:$LATEST"
    assert "wrote plain-export/plain.zip" in shell.run(daemon, "export", arn).stdout
    said = shell.run(daemon, "export", "plain", status=1).stderr
    assert said == "plain-export already has template.yaml, plain.zip: give another --output, or --force.\n"
    shell.run(daemon, "export", "plain", "--force")
    shell.write("file", "")
    assert "cannot be written" in shell.run(daemon, "export", "plain", "-o", "file/x", status=1).stderr
    assert shell.run(daemon, "deploy", "plain-export", status=2).stderr.endswith(
        "plain-export holds a template: fastlam deploy " + str(shell.folder / "plain-export/template.yaml") + "\n"
    )


def test_names_that_become_one_are_told_apart(daemon: RunningDaemon, other: RunningDaemon, shell: Shell) -> None:
    code = "import os\ndef handler(event, context): return [os.environ[name] for name in ('DB_HOST', 'DbHost', 'DB')]\n"
    daemon.deploy("env-db", code, environment={"DB_HOST": "1", "DbHost": "2", "DB": "3"})
    shell.run(daemon, "export", "env-db")
    path = shell.folder / "env-db-export/template.yaml"
    document = read_document(path)
    assert list(document["Resources"]) == ["EnvDb"]
    described = {name: parameter["Description"] for name, parameter in document["Parameters"].items()}
    assert described == {
        "ExecutionRole": "ARN of the execution role; empty for a new one",
        "EnvDb2": "The environment variable DB",
        "EnvDbHost": "The environment variable DB_HOST",
        "EnvDbHost2": "The environment variable DbHost",
    }
    shell.deploy(other, path, EnvDbHost="1", EnvDbHost2="2", EnvDb2="3")
    assert other.invoke("env-db").result == ["1", "2", "3"]


def test_images_are_exported_by_their_address(daemon: RunningDaemon, other: RunningDaemon, shell: Shell) -> None:
    uri = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/app:1"
    daemon.lambda_.create_function(
        FunctionName="image",
        PackageType="Image",
        Role=f"arn:aws:iam::{ACCOUNT}:role/r",
        Code={"ImageUri": uri},
        ImageConfig={"Command": ["app.handler"]},
    )
    daemon.settle("image")
    shell.run(daemon, "export", "image")
    path = shell.folder / "image-export/template.yaml"
    assert cfn_lint(path) == ""
    shell.deploy(other, path)
    assert other.lambda_.get_function(FunctionName="image")["Code"]["ImageUri"] == uri
    assert_unchanged(shell.deploy(other, path))
