"""`fastlam export` and `fastlam deploy` of templates, between real daemons: what comes out goes in again, and works."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result

from daemon_running import ACCOUNT, RunningDaemon, running_daemon, zipped
from fastlam.cli import cli
from fastlam.deploy.documents import read_document, write_document
from fastlam.runtimes.python import INTERPRETER
from sam_tools import cfn_lint, sam_transform

QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:failed"
HANDLER = """
import os
import common

def handler(event, context):
    return [WORD, common.WORD, os.environ["STAGE"], context.function_version]
"""


class Shell(NamedTuple):
    """The fastlam command in a folder, against a daemon."""

    folder: Path

    def run(self, daemon: RunningDaemon, *arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["--endpoint-url", daemon.url, *arguments])
        assert result.exit_code == status, (result.exit_code, result.output, result.stderr, result.exception)
        return result

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def deploy(self, daemon: RunningDaemon, template: str | Path, *options: str, status: int = 0, **values: str) -> str:
        """What was said: all of it."""
        path = template if isinstance(template, Path) else self.write("template.yaml", template)
        overrides = [word for key, value in values.items() for word in ("--parameter-overrides", f"{key}={value}")]
        result = self.run(daemon, "deploy", str(path), *overrides, *options, status=status)
        return result.stdout + result.stderr


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


def assert_unchanged(said: str) -> None:
    lines = [line for line in said.splitlines() if ": " in line and not line.startswith((" ", "next: "))]
    assert lines and all(line.endswith(": unchanged") for line in lines), said


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


# ---- templates of others -----------------------------------------------------------------------------

APP = f"""
Transform: AWS::Serverless-2016-10-31
Parameters:
  Stage: {{Type: String, Default: dev}}
  Memory: {{Type: Number, Default: 128}}
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
Globals:
  Function:
    Runtime: {INTERPRETER}
    Handler: app.handler
    Environment: {{Variables: {{STAGE: !Ref Stage, TOPIC: !Sub "topic-${{Stage}}"}}}}
Resources:
  Orders:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: src/
      MemorySize: !Ref Memory
      Timeout: !If [IsProd, 30, !Ref AWS::NoValue]
      Role: !GetAtt Role.Arn
      Layers: [!Ref Common]
      AutoPublishAlias: live
      FunctionUrlConfig: {{AuthType: NONE}}
      Environment: {{Variables: {{OTHER: !GetAtt Inline.Arn}}}}
  Common:
    Type: AWS::Serverless::LayerVersion
    Properties: {{ContentUri: layer, LayerName: !Sub "${{AWS::StackName}}-common"}}
  Inline:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: !Sub "inline-${{Stage}}"
      Handler: index.handler
      InlineCode: |
        import os
        def handler(event, context):
            return os.environ["TOPIC"]
  Role:
    Type: AWS::IAM::Role
    Properties: {{RoleName: orders-role, AssumeRolePolicyDocument: {{}}}}
  OnlyProd:
    Type: AWS::Lambda::Permission
    Condition: IsProd
    Properties: {{FunctionName: !Ref Orders.Alias, Action: "lambda:InvokeFunction", Principal: events.amazonaws.com}}
Outputs:
  Url: {{Value: !GetAtt OrdersUrl.FunctionUrl}}
  Alias: {{Value: !Ref Orders.Alias}}
  Prod: {{Condition: IsProd, Value: "yes"}}
"""


def write_app(shell: Shell, word: str = "one") -> Path:
    shell.write("src/app.py", HANDLER.replace("WORD,", f"'{word}',", 1))
    shell.write("layer/python/common.py", "WORD = 'layered'\n")
    return shell.write("template.yaml", APP)


def test_an_application(other: RunningDaemon, shell: Shell) -> None:
    path = write_app(shell)
    said = json.loads(shell.run(other, "deploy", str(path), "--stack-name", "app", "--json").stdout)
    assert [one["LogicalId"] for one in said["Resources"]] == [
        "Common",
        "Inline",
        "Orders",
        "OrdersVersion",
        "OrdersAliaslive",
        "OrdersUrlPublicPermissions",
        "OrdersURLInvokeAllowPublicAccess",
        "OrdersUrl",
    ]
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:Orders:live"
    assert said["Outputs"]["Alias"] == arn and set(said["Outputs"]) == {"Url", "Alias"}
    assert said["Outputs"]["Url"].startswith("http://")
    assert other.invoke("Orders:live").result == ["one", "layered", "dev", "1"]
    assert other.invoke("inline-dev").result == "topic-dev"
    configuration = other.lambda_.get_function_configuration(FunctionName="Orders")
    assert configuration["Role"] == f"arn:aws:iam::{ACCOUNT}:role/orders-role"
    assert configuration["Environment"]["Variables"]["OTHER"].endswith(":function:inline-dev")
    assert_unchanged(shell.deploy(other, path, "--stack-name", "app"))

    # What changes is said, and moves the alias.
    write_app(shell, "two")
    said = shell.deploy(other, path, "--stack-name", "app", Stage="prod", Memory="256")
    assert "Orders: updated the code of Orders; updated Orders: environment variables are now" in said
    assert "updated Orders: MemorySize 128 -> 256; updated Orders: Timeout 3 -> 30" in said
    assert "OrdersVersion: published Orders:2" in said
    assert "OrdersAliaslive: updated alias live: version 1 -> version 2" in said
    assert "OnlyProd: allowed events.amazonaws.com to lambda:InvokeFunction" in said
    assert "Inline: created inline-prod" in said and "  Prod = yes" in said
    assert other.invoke("Orders:live").result == ["two", "layered", "prod", "2"]

    # What the template no longer says is as if it had never been said.
    said = shell.deploy(other, path, "--stack-name", "app")
    assert "Timeout 30 -> 3" in said and "MemorySize 256 -> 128" in said


PLAIN = f"""
Resources:
  Plain:
    Type: AWS::Lambda::Function
    Properties:
      FunctionName: plain-one
      Runtime: {INTERPRETER}
      Handler: index.handler
      Role: arn:aws:iam::111122223333:role/r
      Code: {{ZipFile: "def handler(event, context): return 1\\n"}}
"""


def test_settings_come_and_go(other: RunningDaemon, shell: Shell) -> None:
    settings = """      Description: described
      Environment: {Variables: {SECRET: hunter2}}
      DeadLetterConfig: {TargetArn: 'arn:aws:sqs:us-east-1:111122223333:q'}
      TracingConfig: {Mode: Active}
      EphemeralStorage: {Size: "1024"}
      LoggingConfig: {LogFormat: JSON}
      VpcConfig: {SubnetIds: [subnet-12345678], SecurityGroupIds: [sg-12345678]}
      ReservedConcurrentExecutions: "3"
      Tags: [{Key: team, Value: blue}, {Key: cost, Value: 7}]
      RecursiveLoop: Allow
"""
    assert "created plain-one" in shell.deploy(other, PLAIN)
    before = other.lambda_.get_function(FunctionName="plain-one")
    said = shell.deploy(other, PLAIN + settings)
    assert "hunter2" not in said and "environment variables are now SECRET" in said
    assert_unchanged(shell.deploy(other, PLAIN + settings))
    full = other.lambda_.get_function(FunctionName="plain-one")
    assert full["Tags"] == {"team": "blue", "cost": "7"}
    assert full["Concurrency"] == {"ReservedConcurrentExecutions": 3}
    assert full["Configuration"]["EphemeralStorage"] == {"Size": 1024}
    assert other.lambda_.get_function_recursion_config(FunctionName="plain-one")["RecursiveLoop"] == "Allow"
    said = shell.deploy(other, PLAIN)
    assert "no reserved concurrency any more" in said and "updated the tags" in said
    after = other.lambda_.get_function(FunctionName="plain-one")
    empty = {"Environment": {"Variables": {}}, "VpcConfig": after["Configuration"].get("VpcConfig")}
    for one in (before, after):
        for volatile in ("LastModified", "RevisionId", "DeadLetterConfig", *empty):
            one["Configuration"].pop(volatile, None)
    assert after["Configuration"] == before["Configuration"]
    assert "Tags" not in after and "Concurrency" not in after
    assert_unchanged(shell.deploy(other, PLAIN))


def test_a_permission_that_changes_is_replaced(other: RunningDaemon, shell: Shell) -> None:
    permission = """
  Allowed:
    Type: AWS::Lambda::Permission
    Properties: {FunctionName: !GetAtt Plain.Arn, Action: "lambda:InvokeFunction", Principal: PRINCIPAL}
"""
    template = PLAIN.replace("plain-one", "permitted") + permission
    for principal in ("s3.amazonaws.com", "111122223333", "111122223333", "arn:aws:iam::111122223333:root"):
        shell.deploy(other, template.replace("PRINCIPAL", principal))
    policy = json.loads(other.lambda_.get_policy(FunctionName="permitted")["Policy"])
    (statement,) = policy["Statement"]
    assert (statement["Sid"], statement["Principal"]) == ("Allowed", {"AWS": "arn:aws:iam::111122223333:root"})


def test_what_is_not_supported_is_named(other: RunningDaemon, shell: Shell) -> None:
    template = (
        PLAIN.replace("plain-one", "partly")
        + """      Environment: {Variables: {TABLE: !Ref Table, QUEUE: !GetAtt Queue.Arn}}
  Table: {Type: AWS::DynamoDB::Table}
  Queue: {Type: AWS::SQS::Queue}
  Api: {Type: AWS::Serverless::Api, Properties: {StageName: x}}
"""
    )
    said = shell.deploy(other, template, status=1)
    assert said == (
        "fastlam has nothing for Table (AWS::DynamoDB::Table), Queue (AWS::SQS::Queue), Api (AWS::Serverless::Api):"
        " --skip-unsupported deploys the rest.\n"
    )
    said = shell.deploy(other, template, "--skip-unsupported", status=1)
    assert said.endswith(
        "The template refers to Table, and Table (AWS::DynamoDB::Table) is not made here: say what it stands for with"
        " --parameter-overrides Table=VALUE.\n"
    )
    values = {"Table": "orders", "Queue.Arn": "arn:q"}
    said = shell.deploy(other, template, "--skip-unsupported", **values)
    assert "left out: Table (AWS::DynamoDB::Table)" in said
    variables = other.lambda_.get_function_configuration(FunctionName="partly")["Environment"]["Variables"]
    assert variables == {"TABLE": "orders", "QUEUE": "arn:q"}


@pytest.mark.parametrize(
    ("template", "status", "message"),
    [
        (PLAIN.replace("Handler: index.handler", "Handlr: x"), 1, "Plain has a property that is not known: Handlr."),
        (PLAIN.replace("{ZipFile", "{Zip"), 1, "Plain has no code: Zip is none."),
        (PLAIN.replace("Code: {ZipFile", "Code: nowhere #"), 1, "Plain: there is nothing at "),
        (PLAIN.replace("Role: arn:aws", "Role: no:aws"), 2, "ValidationException: 1 validation error detected: "),
        (PLAIN.replace("plain-one", "!Ref Nothing"), 1, "The template has no resource Nothing, which it refers to."),
        (PLAIN.replace("plain-one", "!GetAtt R.Name") + "  R: {Type: AWS::IAM::Role}\n", 1, "R has no attribute Name."),
        (PLAIN.replace("plain-one", "!Ref Plain"), 1, "These resources need one another in a circle: Plain, Plain."),
        (PLAIN.replace("plain-one", "!ImportValue x"), 1, "Plain: Fn::ImportValue is not supported."),
        (
            PLAIN.replace("plain-one", "tagged") + "      Tags: [x]\n",
            1,
            "Plain: Tags are a mapping, or a list of Key and Value.",
        ),
        (
            "Resources: {V: {Type: AWS::Lambda::Version, Properties: {FunctionName: nobody}}}",
            2,
            "ResourceNotFoundException: Function not found: "
            f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:nobody (V)",
        ),
        ("Resources: {V: {Type: AWS::Lambda::Version}}", 1, "V has no FunctionName."),
    ],
    ids=["property", "code", "path", "role", "ref", "attribute", "circle", "import", "tags", "refused", "required"],
)  # fmt: skip
def test_templates_that_are_wrong(template: str, status: int, message: str, other: RunningDaemon, shell: Shell) -> None:
    before = other.lambda_.list_functions()["Functions"]
    said = shell.deploy(other, template, status=status)
    assert said.startswith(message) and said.count("\n") == 1
    assert other.lambda_.list_functions()["Functions"] == before


def test_what_was_made_before_a_failure_stays_and_is_taken_up_again(other: RunningDaemon, shell: Shell) -> None:
    broken = PLAIN.replace("plain-one", "kept") + (
        "  Alias: {Type: AWS::Lambda::Alias, Properties: {FunctionName: !Ref Plain, Name: live, FunctionVersion: VERSION}}\n"
    )
    said = shell.deploy(other, broken.replace("VERSION", "7"), status=2)
    assert "Plain: created kept\n" in said and "(Alias)\n" in said
    said = shell.deploy(other, broken.replace("VERSION", "$LATEST"))
    assert "Plain: unchanged\nAlias: created alias live" in said


def test_options_belong_to_their_kind_of_path(other: RunningDaemon, shell: Shell) -> None:
    path = shell.write("t.yaml", PLAIN)
    said = shell.deploy(other, path, "--memory", "256", status=2)
    assert said.endswith("--memory is not for t.yaml, which is a template.\n")
    shell.write("app/app.py", "")
    said = shell.deploy(other, shell.folder / "app", "--skip-unsupported", status=2)
    assert said.endswith("--skip-unsupported is not for app, which is no template.\n")
    said = shell.run(other, "deploy", str(path), "--parameter-overrides", "x", status=2).stderr
    assert "'x' is not KEY=VALUE" in said


def test_a_function_cannot_change_its_package_type(other: RunningDaemon, shell: Shell) -> None:
    shell.deploy(other, PLAIN.replace("plain-one", "zipped"))
    image = f"Code: {{ImageUri: '{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/a:1'}} #"
    template = PLAIN.replace("plain-one", "zipped").replace("Code:", image)
    assert "cannot become Image: delete it first (fastlam rm zipped)" in shell.deploy(other, template, status=1)
