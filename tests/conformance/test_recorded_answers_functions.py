"""What the service was seen to answer about functions: creation, settings, code, deletion, lists."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Final

from daemon_running import RunningDaemon
from recorded_answers import (
    FUNCTIONS,
    LAMBDA,
    OTHER_ZIP,
    ZIP,
    Error,
    Has,
    Row,
    ask,
    conflict,
    constraint,
    creation,
    invalid,
    ok,
    refusal,
    set_up,
    staged,
    unchanging,
)

RUNTIMES_PRINTED: Final = (
    "nodejs20.x, python3.14, provided.al2023, python3.12, python3.13, nodejs24.x, nodejs22.x, java25, python3.10,"
    " python3.11, java21, ruby3.3, ruby3.4, ruby3.2, python3.8, python3.9, java17, nodejs16.x, dotnet10, dotnet8, java11,"
    " dotnet6, nodejs18.x, provided.al2, java8.al2"
)
LAYER_ARN: Final = re.compile(
    r".*Member must have length less than or equal to 2048, Member must have length greater than or equal to 1, Member"
    r" must satisfy regular expression pattern: .*awslayer.*, Member must not be null\]"
)


def _create(fact: str, error: Error, **more: Any) -> Row:
    return refusal(fact, f"POST {FUNCTIONS}", error, creation("new", **more))


def _configure(fact: str, error: Error, name: str = "plain", **more: Any) -> Row:
    return refusal(fact, f"PUT {FUNCTIONS}/{name}/configuration", error, more)


def _code(fact: str, error: Error, name: str = "plain", **more: Any) -> Row:
    return refusal(fact, f"PUT {FUNCTIONS}/{name}/code", error, more)


def _no_longer(runtime: str) -> Error:
    return invalid(
        f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. We"
        " recommend you use a supported runtime while creating or updating functions."
    )


def _unknown_runtime(runtime: str) -> Error:
    return invalid(
        f"Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set:"
        f" [{RUNTIMES_PRINTED}] or be a valid ARN"
    )


_FIVE_KB: Final = {"KEY": "v" * 4090}
_LEVELS: Final = invalid(
    'LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change the LogFormat'
    ' to "JSON" and try again.'
)
_RESERVED: Final = (
    "Lambda was unable to configure your environment variables because the environment variables you have provided"
    " contains reserved keys that are currently not supported for modification. Reserved keys used in this request: "
)
_NO_ZIP: Final = invalid("Could not unzip uploaded file. Please check your file, then try to upload again.")
_LAYER: Final = f"{LAMBDA}:layer"

REFUSED: Final[list[Row]] = [
    _create("a runtime in capitals", _unknown_runtime("PYTHON3.11"), Runtime="PYTHON3.11"),
    _create("a runtime that does not exist", _unknown_runtime("cobol85"), Runtime="cobol85"),
    _configure("a runtime that does not exist, later", _unknown_runtime("cobol85"), Runtime="cobol85"),
    *(
        _create(f"{old} is taken no longer", _no_longer(old), Runtime=old)
        for old in ("java8", "go1.x", "provided", "ruby2.7", "nodejs12.x", "nodejs14.x", "python3.7", "dotnetcore3.1")
    ),
    *(
        _configure(f"{old} is taken no longer, later", _no_longer(old), Runtime=old)
        for old in ("java8", "nodejs14.x", "python3.7", "python3.8", "nodejs20.x")
    ),
    _create("what is no zip", _NO_ZIP, Code={"ZipFile": "AAAA"}),
    _code("new code that is no zip", _NO_ZIP, ZipFile="AAAA"),
    _create(
        "a role that is none",
        constraint(
            "'arn:nothing' at 'role': Member must satisfy regular expression pattern:"
            r" arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"
        ),
        Role="arn:nothing",
    ),
    _create("what must be given", constraint("null at 'role': Member must not be null"), Role=None),
    _create("code must be given", constraint("null at 'code': Member must not be null"), Code=None),
    _create(
        "more than one architecture",
        constraint("'[x86_64, arm64]' at 'architectures': Member must have length less than or equal to 1"),
        Architectures=["x86_64", "arm64"],
    ),
    _create(
        "an architecture in capitals",
        constraint(
            "'[X86_64]' at 'architectures': Member must satisfy constraint: [Member must satisfy enum value set: [x86_64,"
            " arm64], Member must not be null]"
        ),
        Architectures=["X86_64"],
    ),
    _create(
        "snapStart.applyOn",
        constraint("'Maybe' at 'snapStart.applyOn': Member must satisfy enum value set: [PublishedVersions, None]"),
        SnapStart={"ApplyOn": "Maybe"},
    ),
    _create(
        "SnapStart of a runtime that has none",
        invalid("python3.11 is not supported for SnapStart enabled functions."),
        Runtime="python3.11",
        SnapStart={"ApplyOn": "PublishedVersions"},
    ),
    _create(
        "a timeout beyond 900 s",
        constraint("'901' at 'timeout': Member must have value less than or equal to 900"),
        Timeout=901,
    ),
    _create(
        "no timeout at all",
        constraint("'0' at 'timeout': Member must have value greater than or equal to 1"),
        Timeout=0,
    ),
    _create(
        "too little memory",
        constraint("'127' at 'memorySize': Member must have value greater than or equal to 128"),
        MemorySize=127,
    ),
    _create(
        "too much memory",
        constraint("'10241' at 'memorySize': Member must have value less than or equal to 10240"),
        MemorySize=10241,
    ),
    _create(
        "too little /tmp",
        constraint("'511' at 'ephemeralStorage.size': Member must have value greater than or equal to 512"),
        EphemeralStorage={"Size": 511},
    ),
    _create(
        "a description beyond 256 characters",
        constraint(f"'{'d' * 257}' at 'description': Member must have length less than or equal to 256"),
        Description="d" * 257,
    ),
    _create("51 tags", invalid("Number of tags exceeds resource tag limit."), Tags={f"k{n}": "v" for n in range(51)}),
    _create(
        "AWS_REGION cannot be set", invalid(_RESERVED + "AWS_REGION"), Environment={"Variables": {"AWS_REGION": "x"}}
    ),
    _create(
        "all reserved keys are told",
        invalid(_RESERVED + "AWS_REGION, LAMBDA_TASK_ROOT"),
        Environment={"Variables": {"AWS_REGION": "x", "LAMBDA_TASK_ROOT": "y"}},
    ),
    _create(
        "variables beyond 4 KB",
        invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have"
            " provided exceeded the 4KB limit. String measured: " + json.dumps(_FIVE_KB, separators=(",", ":"))
        ),
        Environment={"Variables": _FIVE_KB},
    ),
    _create("levels for plain text", _LEVELS, LoggingConfig={"LogFormat": "Text", "ApplicationLogLevel": "INFO"}),
    _configure("levels for plain text, later", _LEVELS, LoggingConfig={"SystemLogLevel": "WARN"}),
    _create(
        "six layers",
        invalid("Cannot reference more than 5 layers."),
        Layers=[f"{_LAYER}:l{n}:1" for n in range(6)],
    ),
    _create(
        "a layer that is not there",
        invalid(f"Layer version {_LAYER}:nothing:1 does not exist."),
        Layers=[f"{_LAYER}:nothing:1"],
    ),
    _create(
        "a layer of another region",
        invalid("Layers are not in the same region as the function. Layers are expected to be in region us-east-1."),
        Layers=["arn:aws:lambda:eu-west-1:000000000000:layer:far:1"],
    ),
    _create("a layer's ARN that is none", Error("Validation", LAYER_ARN), Layers=["layer"]),
    _create(
        "a layer of somebody else",
        Error(
            "AccessDenied",
            "User: arn:aws:iam::000000000000:root is not authorized to perform: lambda:GetLayerVersion on resource:"
            " arn:aws:lambda:us-east-1:111122223333:layer:theirs:1 because no resource-based policy allows the"
            " lambda:GetLayerVersion action",
        ),
        Layers=["arn:aws:lambda:us-east-1:111122223333:layer:theirs:1"],
    ),
    _code(
        "an image for a zip",
        invalid("Please don't provide ImageUri when updating a function with packageType Zip."),
        ImageUri="000000000000.dkr.ecr.us-east-1.amazonaws.com/app:1",
    ),
    _code(
        "a zip for an image",
        invalid("Please provide ImageUri when updating a function with packageType Image."),
        "pictured",
        ZipFile=ZIP,
    ),
    _configure(
        "a provider for a plain function",
        invalid("CapacityProviderConfig isn't supported for Lambda Default functions."),
        CapacityProviderConfig={
            "LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": f"{LAMBDA}:capacity-provider:p"}
        },
    ),
    _configure(
        "a request beyond 5120 bytes",
        Error(
            "RequestEntityTooLarge",
            "Request must be smaller than 5120 bytes for the UpdateFunctionConfiguration operation",
        ),
        Description="d" * 5200,
    ),
    _configure(
        "a revision that is gone",
        Error(
            "PreconditionFailed",
            "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to"
            " retrieve the latest Revision Id",
        ),
        RevisionId="0",
        Timeout=9,
    ),
    _code(
        "a revision that is gone, with code",
        Error(
            "PreconditionFailed",
            "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to"
            " retrieve the latest Revision Id",
        ),
        RevisionId="0",
        ZipFile=OTHER_ZIP,
    ),
    refusal(
        "$LATEST is not deleted alone",
        f"DELETE {FUNCTIONS}/staged?Qualifier=$LATEST",
        invalid("$LATEST version cannot be deleted without deleting the function."),
    ),
    refusal(
        "an alias is not deleted so",
        f"DELETE {FUNCTIONS}/staged?Qualifier=live",
        invalid("Deletion of aliases is not currently supported."),
    ),
    refusal(
        "a version behind aliases",
        f"DELETE {FUNCTIONS}/staged?Qualifier=1",
        conflict("Unable to delete version because the following aliases reference it: [live, split]"),
    ),
    refusal(
        "a version with a weight",
        f"DELETE {FUNCTIONS}/staged?Qualifier=2",
        conflict("Unable to delete version because the following aliases reference it: [split]"),
    ),
]

# Requests that are answered and yet change nothing.
HARMLESS: Final[list[Row]] = [
    ok("deleting a version that never was", f"DELETE {FUNCTIONS}/staged?Qualifier=77", 204),
    ok(
        "a dry run shows what would be",
        f"PUT {FUNCTIONS}/plain/code",
        200,
        Has({"CodeSize": len(base64.b64decode(OTHER_ZIP)), "State": "Active"}),
        {"ZipFile": OTHER_ZIP, "DryRun": True},
    ),
    ok("replicas at the edge", f"GET {FUNCTIONS}?MasterRegion=ALL&FunctionVersion=ALL", 200, {"Functions": []}),
    ok(
        "an image shows as one",
        f"GET {FUNCTIONS}/pictured",
        200,
        {
            "Configuration": Has(
                {
                    "PackageType": "Image",
                    "CodeSize": 0,
                    "CodeSha256": "ab" * 32,
                    "ImageConfigResponse": {"ImageConfig": {"Command": ["app.handler"]}},
                },
                without=("Runtime", "Handler", "RuntimeVersionConfig"),
            ),
            "Code": {
                "RepositoryType": "ECR",
                "ImageUri": "000000000000.dkr.ecr.us-east-1.amazonaws.com/app@sha256:" + "ab" * 32,
                "ResolvedImageUri": "000000000000.dkr.ecr.us-east-1.amazonaws.com/app@sha256:" + "ab" * 32,
            },
        },
    ),
]


@staged
def before(daemon: RunningDaemon) -> None:
    set_up(daemon)
    image = "000000000000.dkr.ecr.us-east-1.amazonaws.com/app@sha256:" + "ab" * 32
    pictured = creation("pictured", Runtime=None, Handler=None, PackageType="Image", Code={"ImageUri": image})
    ask(daemon, f"POST {FUNCTIONS}", pictured | {"ImageConfig": {"Command": ["app.handler"]}})
    daemon.settle("pictured")


test_refused = unchanging(REFUSED)
test_harmless = unchanging(HARMLESS)
