"""`fastlam deploy` of templates that people write: what is made, what changes, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_running import ACCOUNT, RunningDaemon, running_daemon
from fastlam.runtimes.python import INTERPRETER
from template_shell import Shell, assert_unchanged

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
def daemon() -> Iterator[RunningDaemon]:
    with running_daemon(complains=True) as running:  # event source mappings say that nothing is polled
        yield running


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


def test_an_application(daemon: RunningDaemon, shell: Shell) -> None:
    path = write_app(shell)
    said = json.loads(shell.run(daemon, "deploy", str(path), "--stack-name", "app", "--json").stdout)
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
    assert daemon.invoke("Orders:live").result == ["one", "layered", "dev", "1"]
    assert daemon.invoke("inline-dev").result == "topic-dev"
    configuration = daemon.lambda_.get_function_configuration(FunctionName="Orders")
    assert configuration["Role"] == f"arn:aws:iam::{ACCOUNT}:role/orders-role"
    assert configuration["Environment"]["Variables"]["OTHER"].endswith(":function:inline-dev")
    assert_unchanged(shell.deploy(daemon, path, "--stack-name", "app"))

    # What changes is said, and moves the alias.
    write_app(shell, "two")
    said = shell.deploy(daemon, path, "--stack-name", "app", Stage="prod", Memory="256")
    assert "Orders: updated the code of Orders; updated Orders: environment variables are now" in said
    assert "updated Orders: MemorySize 128 -> 256; updated Orders: Timeout 3 -> 30" in said
    assert "OrdersVersion: published Orders:2" in said
    assert "OrdersAliaslive: updated alias live: version 1 -> version 2" in said
    assert "OnlyProd: allowed events.amazonaws.com to lambda:InvokeFunction" in said
    assert "Inline: created inline-prod" in said and "  Prod = yes" in said
    assert daemon.invoke("Orders:live").result == ["two", "layered", "prod", "2"]

    # What the template no longer says is as if it had never been said.
    said = shell.deploy(daemon, path, "--stack-name", "app")
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


def test_what_sam_has_built_is_taken_as_it_is(daemon: RunningDaemon, shell: Shell) -> None:
    """Its requirements lie beside the code already; here they could not be installed."""
    shell.write(".aws-sam/build/Built/app.py", "def handler(event, context): return 'built'\n")
    shell.write(".aws-sam/build/Built/requirements.txt", "./nowhere\n")
    template = f"""
Resources:
  Built:
    Type: AWS::Serverless::Function
    Metadata: {{SamResourceId: Built}}
    Properties: {{CodeUri: Built, Handler: app.handler, Runtime: {INTERPRETER}}}
"""
    path = shell.write(".aws-sam/build/template.yaml", template)
    shell.deploy(daemon, path)
    assert daemon.invoke("Built").result == "built"


def test_settings_come_and_go(daemon: RunningDaemon, shell: Shell) -> None:
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
      Architectures: [arm64]
"""
    assert "created plain-one" in shell.deploy(daemon, PLAIN)
    before = daemon.lambda_.get_function(FunctionName="plain-one")
    said = shell.deploy(daemon, PLAIN + settings)
    assert "hunter2" not in said and "environment variables are now SECRET" in said
    assert_unchanged(shell.deploy(daemon, PLAIN + settings))
    full = daemon.lambda_.get_function(FunctionName="plain-one")
    assert full["Tags"] == {"team": "blue", "cost": "7"}
    assert full["Concurrency"] == {"ReservedConcurrentExecutions": 3}
    assert full["Configuration"]["EphemeralStorage"] == {"Size": 1024}
    assert full["Configuration"]["Architectures"] == ["arm64"]
    assert daemon.lambda_.get_function_recursion_config(FunctionName="plain-one")["RecursiveLoop"] == "Allow"
    said = shell.deploy(daemon, PLAIN)
    assert "no reserved concurrency any more" in said and "updated the tags" in said
    after = daemon.lambda_.get_function(FunctionName="plain-one")
    empty = {"Environment": {"Variables": {}}, "VpcConfig": after["Configuration"].get("VpcConfig")}
    for one in (before, after):
        for volatile in ("LastModified", "RevisionId", "DeadLetterConfig", *empty):
            one["Configuration"].pop(volatile, None)
    assert after["Configuration"] == before["Configuration"]
    assert "Tags" not in after and "Concurrency" not in after
    assert_unchanged(shell.deploy(daemon, PLAIN))


def test_a_permission_that_changes_is_replaced(daemon: RunningDaemon, shell: Shell) -> None:
    permission = """
  Allowed:
    Type: AWS::Lambda::Permission
    Properties: {FunctionName: !GetAtt Plain.Arn, Action: "lambda:InvokeFunction", Principal: PRINCIPAL}
"""
    template = PLAIN.replace("plain-one", "permitted") + permission
    allowed = [
        "allowed" in shell.deploy(daemon, template.replace("PRINCIPAL", principal))
        for principal in ("s3.amazonaws.com", "111122223333", "111122223333", "arn:aws:iam::111122223333:root")
    ]
    assert allowed == [True, True, False, False]  # the last two are the same account
    policy = json.loads(daemon.lambda_.get_policy(FunctionName="permitted")["Policy"])
    (statement,) = policy["Statement"]
    assert (statement["Sid"], statement["Principal"]) == ("Allowed", {"AWS": "arn:aws:iam::111122223333:root"})


def test_urls_and_mappings_change(daemon: RunningDaemon, shell: Shell) -> None:
    template = (
        PLAIN.replace("plain-one", "changing")
        + f"""
  Url: {{Type: AWS::Lambda::Url, Properties: {{TargetFunctionArn: !Ref Plain, AuthType: AUTH}}}}
  Mapping:
    Type: AWS::Lambda::EventSourceMapping
    Properties: {{FunctionName: !Ref Plain, EventSourceArn: "arn:aws:sqs:us-east-1:{ACCOUNT}:q", BatchSize: SIZE}}
"""
    )
    client = daemon.lambda_
    for auth_type, size in (("NONE", "5"), ("AWS_IAM", "6")):
        said = shell.deploy(daemon, template.replace("AUTH", auth_type).replace("SIZE", size))
        assert client.get_function_url_config(FunctionName="changing")["AuthType"] == auth_type
        (mapping,) = client.list_event_source_mappings(FunctionName="changing")["EventSourceMappings"]
        assert mapping["BatchSize"] == int(size)
    assert "Url: updated http://" in said and "Mapping: updated the event source mapping" in said


def test_a_layer_that_changes_is_published_again(daemon: RunningDaemon, shell: Shell) -> None:
    template = """
Resources:
  Shared:
    Type: AWS::Lambda::LayerVersion
    Properties: {LayerName: shared, Content: layer, Description: DESCRIPTION}
"""
    said = []
    for content, description in (("1", "a"), ("1", "a"), ("2", "a"), ("2", "b"), ("2", "b")):
        shell.write("layer/python/common.py", content)
        said.append(shell.deploy(daemon, template.replace("DESCRIPTION", description)).splitlines()[0])
    assert said == [
        "Shared: published layer shared:1",
        "Shared: unchanged",
        "Shared: published layer shared:2",
        "Shared: published layer shared:3",
        "Shared: unchanged",
    ]


def test_what_is_not_supported_is_named(daemon: RunningDaemon, shell: Shell) -> None:
    template = (
        PLAIN.replace("plain-one", "partly")
        + """      Environment: {Variables: {TABLE: !Ref Table, QUEUE: !GetAtt Queue.Arn}}
  Table: {Type: AWS::DynamoDB::Table}
  Queue: {Type: AWS::SQS::Queue}
  Api: {Type: AWS::Serverless::Api, Properties: {StageName: x}}
"""
    )
    said = shell.deploy(daemon, template, status=1)
    assert said == (
        "fastlam has nothing for Table (AWS::DynamoDB::Table), Queue (AWS::SQS::Queue), Api (AWS::Serverless::Api):"
        " --skip-unsupported deploys the rest.\n"
    )
    said = shell.deploy(daemon, template, "--skip-unsupported", status=1)
    assert said.endswith(
        "The template refers to Table, and Table (AWS::DynamoDB::Table) is not made here: say what it stands for with"
        " --parameter-overrides Table=VALUE.\n"
    )
    values = {"Table": "orders", "Queue.Arn": "arn:q"}
    said = shell.deploy(daemon, template, "--skip-unsupported", **values)
    assert "left out: Table (AWS::DynamoDB::Table)" in said
    variables = daemon.lambda_.get_function_configuration(FunctionName="partly")["Environment"]["Variables"]
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
def test_templates_that_are_wrong(
    template: str, status: int, message: str, daemon: RunningDaemon, shell: Shell
) -> None:
    before = daemon.lambda_.list_functions()["Functions"]
    said = shell.deploy(daemon, template, status=status)
    assert said.startswith(message) and said.count("\n") == 1
    assert daemon.lambda_.list_functions()["Functions"] == before


def test_what_was_made_before_a_failure_stays_and_is_taken_up_again(daemon: RunningDaemon, shell: Shell) -> None:
    broken = PLAIN.replace("plain-one", "kept") + (
        "  Alias: {Type: AWS::Lambda::Alias, Properties: {FunctionName: !Ref Plain, Name: live, FunctionVersion: VERSION}}\n"
    )
    said = shell.deploy(daemon, broken.replace("VERSION", "7"), status=2)
    assert "Plain: created kept\n" in said and "(Alias)\n" in said
    said = shell.deploy(daemon, broken.replace("VERSION", "$LATEST"))
    assert "Plain: unchanged\nAlias: created alias live" in said


def test_options_belong_to_their_kind_of_path(daemon: RunningDaemon, shell: Shell) -> None:
    path = shell.write("t.yaml", PLAIN)
    said = shell.deploy(daemon, path, "--memory", "256", status=2)
    assert said.endswith("--memory is not for t.yaml, which is a template.\n")
    shell.write("app/app.py", "")
    said = shell.deploy(daemon, shell.folder / "app", "--skip-unsupported", status=2)
    assert said.endswith("--skip-unsupported is not for app, which is no template.\n")
    said = shell.run(daemon, "deploy", str(path), "--parameter-overrides", "x", status=2).stderr
    assert "'x' is not KEY=VALUE" in said


def test_a_function_cannot_change_its_package_type(daemon: RunningDaemon, shell: Shell) -> None:
    shell.deploy(daemon, PLAIN.replace("plain-one", "zipped"))
    image = f"Code: {{ImageUri: '{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/a:1'}} #"
    template = PLAIN.replace("plain-one", "zipped").replace("Code:", image)
    assert "cannot become Image: delete it first (fastlam rm zipped)" in shell.deploy(daemon, template, status=1)
