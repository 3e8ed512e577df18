"""Templates with something wrong anywhere in them: one sentence, never a traceback, and nothing half read."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon_running import ACCOUNT, RunningDaemon, running_daemon
from fastlam.cli import cli
from fastlam.deploy.documents import read_document, write_document

TEMPLATE = f"""
Transform: AWS::Serverless-2016-10-31
Parameters:
  Stage: {{Type: String, Default: dev, AllowedValues: [dev, prod]}}
Conditions:
  IsDev: !Equals [!Ref Stage, dev]
Mappings: {{Sizes: {{dev: {{Memory: 128}}}}}}
Globals:
  Function: {{Runtime: python3.11, Environment: {{Variables: {{STAGE: !Ref Stage}}}}, Layers: [!Ref Common]}}
Resources:
  Sam:
    Type: AWS::Serverless::Function
    Condition: IsDev
    Properties:
      InlineCode: "def handler(event, context): return event"
      Handler: index.handler
      MemorySize: !FindInMap [Sizes, !Ref Stage, Memory]
      AutoPublishAlias: live
      ProvisionedConcurrencyConfig: {{ProvisionedConcurrentExecutions: 1}}
      FunctionUrlConfig: {{AuthType: NONE, Cors: {{AllowOrigins: ['*']}}}}
      EventInvokeConfig: {{MaximumRetryAttempts: 1, DestinationConfig: {{OnFailure: {{Destination: "arn:aws:sqs:us-east-1:{ACCOUNT}:q"}}}}}}
      DeadLetterQueue: {{Type: SQS, TargetArn: "arn:aws:sqs:us-east-1:{ACCOUNT}:q"}}
      Tags: {{team: blue}}
      Events:
        Queue: {{Type: SQS, Properties: {{Queue: "arn:aws:sqs:us-east-1:{ACCOUNT}:q", BatchSize: 5}}}}
  Plain:
    Type: AWS::Lambda::Function
    DependsOn: [Sam]
    Properties:
      FunctionName: !Sub "${{AWS::StackName}}-plain"
      Runtime: python3.11
      Handler: index.handler
      Code: {{ZipFile: "def handler(event, context): return event"}}
      Role: !GetAtt Role.Arn
      Tags: [{{Key: a, Value: b}}]
      VpcConfig: {{SubnetIds: [subnet-1], SecurityGroupIds: [sg-1]}}
  Version: {{Type: AWS::Lambda::Version, Properties: {{FunctionName: !Ref Plain}}}}
  Alias:
    Type: AWS::Lambda::Alias
    Properties:
      FunctionName: !Ref Plain
      FunctionVersion: !GetAtt Version.Version
      Name: live
      RoutingConfig: {{AdditionalVersionWeights: []}}
  Permission:
    Type: AWS::Lambda::Permission
    Properties: {{FunctionName: !Ref Alias, Action: "lambda:InvokeFunction", Principal: s3.amazonaws.com}}
  Common: {{Type: AWS::Serverless::LayerVersion, Properties: {{ContentUri: layer.zip, LayerName: common}}}}
  Shared:
    Type: AWS::Lambda::LayerVersionPermission
    Properties: {{LayerVersionArn: !Ref Common, Action: "lambda:GetLayerVersion", Principal: "*"}}
  Role: {{Type: AWS::IAM::Role, Properties: {{Path: /team/}}}}
Outputs:
  Arn: {{Value: !GetAtt Plain.Arn}}
"""

SCALARS: list[Any] = [None, 0, -1, True, "", "x", "$LATEST"]
SHAPES: list[Any] = [[], [None], ["x"], [["x"]], {}, {"x": "y"}]
FUNCTIONS: list[Any] = [
    {"Ref": "Plain"},
    {"Ref": "Nothing"},
    {"Ref": "AWS::NoValue"},
    {"Fn::GetAtt": ["Plain", "Arn"]},
    {"Fn::GetAtt": "x"},
    {"Fn::Sub": "${Sam.Arn}"},
    {"Fn::If": ["IsDev", 1]},
    {"Fn::If": [["x"], 1, 2]},
    {"Fn::Select": ["x", []]},
    {"Fn::Join": ["", {"Ref": "AWS::NotificationARNs"}]},
    {"Fn::Not": []},
]
JUNK = st.sampled_from([*SCALARS, *SHAPES, *FUNCTIONS])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    with running_daemon(complains=True) as running:  # that nothing is polled
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from daemon_running import zipped

    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "layer.zip").write_bytes(zipped({"python/common.py": ""}))
    (folder / "good.yaml").write_text(TEMPLATE)
    return folder


def deploy(daemon: RunningDaemon, path: Path) -> Any:
    return CliRunner().invoke(
        cli, ["--endpoint-url", daemon.url, "deploy", str(path), "--skip-unsupported", "--stack-name", "fuzz"]
    )


def test_the_template_is_good(daemon: RunningDaemon, folder: Path) -> None:
    result = deploy(daemon, folder / "good.yaml")
    assert result.exit_code == 0, result.stderr


@settings(max_examples=150)
@given(data=st.data())
def test_one_thing_is_wrong(daemon: RunningDaemon, folder: Path, data: st.DataObject) -> None:
    document = copy.deepcopy(read_document(folder / "good.yaml"))
    path = data.draw(st.sampled_from(list(places(document))))
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = data.draw(JUNK)
    (folder / "bad.yaml").write_text(write_document(document))
    result = deploy(daemon, folder / "bad.yaml")
    assert result.exit_code in (0, 1, 2), (result.exit_code, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), (path, result.exception)
    if result.exit_code:
        said = [line for line in result.stderr.splitlines() if not line.startswith("left out: ")]
        assert len(said) == 1 and said[0], result.stderr
