"""The same templates to SAM's own transform and to ours: the Lambda resources that come out are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastlam.deploy.documents import read_document
from fastlam.deploy.expansion import DEPLOYED, expand
from fastlam.deploy.template import Place, Reference, Template
from sam_tools import sam_transform

FUNCTION = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Hello:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: s3://bucket/key
      Handler: app.handler
      Runtime: python3.11
      Role: arn:aws:iam::111122223333:role/r
"""
TEMPLATES = {
    "plain": FUNCTION,
    "settings": FUNCTION
    + """
      FunctionName: hello
      Description: greets
      MemorySize: 256
      Timeout: 9
      Environment: {Variables: {STAGE: dev}}
      Architectures: [arm64]
      EphemeralStorage: {Size: 1024}
      Tracing: Active
      VpcConfig: {SubnetIds: [subnet-12345678], SecurityGroupIds: [sg-12345678]}
      DeadLetterQueue: {Type: SQS, TargetArn: 'arn:aws:sqs:us-east-1:111122223333:q'}
      KmsKeyArn: arn:aws:kms:us-east-1:111122223333:key/1
      LoggingConfig: {LogFormat: JSON}
      ReservedConcurrentExecutions: 5
      RecursiveLoop: Allow
      RuntimeManagementConfig: {UpdateRuntimeOn: FunctionUpdate}
      CodeSigningConfigArn: arn:aws:lambda:us-east-1:111122223333:code-signing-config:csc-0123456789abcdef0
      FileSystemConfigs: [{Arn: 'arn:aws:elasticfilesystem:us-east-1:111122223333:access-point/fsap-0', LocalMountPath: /mnt/x}]
      SourceKMSKeyArn: arn:aws:kms:us-east-1:111122223333:key/2
      DurableConfig: {ExecutionTimeout: 5, RetentionPeriodInDays: 3}
""",
    "snap start": FUNCTION + "      SnapStart: {ApplyOn: PublishedVersions}\n",
    "tenants": FUNCTION + "      TenancyConfig: {TenantIsolationMode: PER_TENANT}\n",
    "managed instances": FUNCTION
    + """
      CapacityProviderConfig:
        Arn: arn:aws:lambda:us-east-1:111122223333:capacity-provider:p
        PerExecutionEnvironmentMaxConcurrency: 4
""",
    "globals": FUNCTION
    + """
      Timeout: 9
      Environment: {Variables: {A: own}}
      Layers: [second]
      Tags: {b: own}
Globals:
  Function:
    Timeout: 3
    MemorySize: 512
    Environment: {Variables: {A: common, B: common}}
    Layers: [first]
    Tags: {a: common, b: common}
""",
    "alias, url and events": FUNCTION
    + """
      AutoPublishAlias: live
      VersionDescription: published
      ProvisionedConcurrencyConfig: {ProvisionedConcurrentExecutions: 2}
      FunctionUrlConfig:
        AuthType: NONE
        InvokeMode: RESPONSE_STREAM
        Cors: {AllowOrigins: ['*']}
      EventInvokeConfig:
        MaximumRetryAttempts: 1
        DestinationConfig:
          OnFailure: {Type: SQS, Destination: 'arn:aws:sqs:us-east-1:111122223333:failed'}
      Events:
        Queue: {Type: SQS, Properties: {Queue: 'arn:aws:sqs:us-east-1:111122223333:q', BatchSize: 5, Enabled: false}}
        Records: {Type: Kinesis, Properties: {Stream: 'arn:aws:kinesis:us-east-1:111122223333:stream/s', StartingPosition: LATEST}}
        Changes: {Type: DynamoDB, Properties: {Stream: 'arn:aws:dynamodb:us-east-1:111122223333:table/t/stream/s', StartingPosition: TRIM_HORIZON, FilterCriteria: {Filters: [{Pattern: '{}'}]}}}
""",
    "url without an alias": FUNCTION
    + """
      FunctionUrlConfig: {AuthType: AWS_IAM}
      EventInvokeConfig: {MaximumEventAgeInSeconds: 60}
""",
    "public url": FUNCTION + "      FunctionUrlConfig: {AuthType: NONE}\n",
    "image": """
Transform: AWS::Serverless-2016-10-31
Resources:
  Hello:
    Type: AWS::Serverless::Function
    Properties:
      PackageType: Image
      ImageUri: 111122223333.dkr.ecr.us-east-1.amazonaws.com/a:1
      ImageConfig: {Command: [app.handler]}
      Role: arn:aws:iam::111122223333:role/r
""",
    "layer": """
Transform: AWS::Serverless-2016-10-31
Resources:
  Common:
    Type: AWS::Serverless::LayerVersion
    Properties:
      LayerName: common
      Description: shared
      ContentUri: {Bucket: bucket, Key: key, Version: v}
      CompatibleRuntimes: [python3.11]
      LicenseInfo: MIT
      RetentionPolicy: Delete
""",
    "kafka": FUNCTION
    + """
      Events:
        Managed: {Type: MSK, Properties: {Stream: 'arn:aws:kafka:us-east-1:111122223333:cluster/c/1', StartingPosition: LATEST, Topics: [t], ConsumerGroupId: g}}
        Own: {Type: SelfManagedKafka, Properties: {KafkaBootstrapServers: ['a:9092'], Topics: [t], ConsumerGroupId: g, SourceAccessConfigurations: [{Type: BASIC_AUTH, URI: 'arn:aws:secretsmanager:us-east-1:111122223333:secret:s'}]}}
""",
}  # fmt: skip


def normal(value: Any) -> Any:
    """Without what SAM adds for its own book-keeping; references to what it names with a hash as what that is."""
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items()}
    if isinstance(value, list):
        items = [normal(item) for item in value]
        return [item for item in items if item != {"Key": "lambda:createdBy", "Value": "SAM"}]
    return value


def theirs(resources: dict[str, Any]) -> dict[str, Any]:
    # SAM names versions and layers after their content.
    names = {name: name for name in resources}
    for name, resource in resources.items():
        if resource["Type"] == "AWS::Lambda::Version":
            names[name] = "HelloVersion"
        elif resource["Type"] == "AWS::Lambda::LayerVersion":
            names[name] = "Common"
    found = {}
    for name, resource in resources.items():
        if resource["Type"] in DEPLOYED:
            properties = normal(renamed(resource["Properties"], names))
            if not properties.get("Tags", True):
                del properties["Tags"]
            if isinstance(properties.get("Tags"), list):
                properties["Tags"] = {tag["Key"]: tag["Value"] for tag in properties["Tags"]}
            found[names[name]] = (resource["Type"], properties)
    return found


def renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get("Ref"), str):
            return {"Ref": names.get(value["Ref"], value["Ref"])}
        if isinstance(value.get("Fn::GetAtt"), list):
            name, attribute = value["Fn::GetAtt"]
            return {"Fn::GetAtt": [names.get(name, name), attribute]}
        return {key: renamed(item, names) for key, item in value.items()}
    return [renamed(item, names) for item in value] if isinstance(value, list) else value


def ours(path: Path) -> dict[str, Any]:
    template = Template(read_document(path), Place("111122223333", "us-east-1", "stack"), {})

    def keep(reference: Reference) -> Any:
        if reference.attribute is None:
            return {"Ref": reference.name}
        return {"Fn::GetAtt": list(reference)}

    found = {}
    expansion = expand(template)
    assert expansion.unsupported == {}
    for resource in expansion.resources.values():
        properties = template.resolve(resource.properties, keep, resource.name)
        code = properties.get("Code")
        key = code.get("SourceKMSKeyArn") if isinstance(code, dict) else None
        place = code.get("CodeUri") if key is not None else code
        if isinstance(place, str):  # SAM splits the address, we when it is used
            bucket, object_key = place.removeprefix("s3://").split("/")
            properties["Code"] = {"S3Bucket": bucket, "S3Key": object_key}
            if key is not None:
                properties["Code"]["SourceKMSKeyArn"] = key
        content = properties.get("Content")
        if content is not None:
            names = {"Bucket": "S3Bucket", "Key": "S3Key", "Version": "S3ObjectVersion"}
            properties["Content"] = {names[name]: value for name, value in content.items()}
        found[resource.name] = (resource.type, properties)
    return found


@pytest.fixture(scope="module")
def transformed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What SAM makes of each template; its transform takes seconds to load."""
    folder = tmp_path_factory.mktemp("templates")
    paths = {name: folder / f"{number}.yaml" for number, name in enumerate(TEMPLATES)}
    for name, path in paths.items():
        path.write_text(TEMPLATES[name])
    return dict(zip(paths, sam_transform(*paths.values()), strict=True))


@pytest.mark.parametrize("name", TEMPLATES)
def test_both_give_the_same_resources(name: str, transformed: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(TEMPLATES[name])
    assert ours(path) == theirs(transformed[name]["Resources"])
