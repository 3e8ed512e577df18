"""What the service was seen to answer in the life of functions: from creation through updates to deletion."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from daemon_running import RunningDaemon, running_daemon
from fastlam.runtimes.python import INTERPRETER
from recorded_answers import (
    ANY,
    FUNCTION,
    FUNCTIONS,
    MILLISECONDS,
    OTHER_ZIP,
    ROLE,
    RUNTIME_VERSION,
    UUID,
    ZIP_BYTES,
    Differs,
    Has,
    Keep,
    Row,
    Script,
    ask,
    conflict,
    creation,
    locator,
    missing,
    names,
    ok,
    refusal,
)

SHA256: Final = base64.b64encode(hashlib.sha256(ZIP_BYTES).digest()).decode()
SETTINGS: Final = {
    "FunctionName": "fresh",
    "FunctionArn": f"{FUNCTION}:fresh",
    "Runtime": INTERPRETER,
    "Role": ROLE,
    "Handler": "app.handler",
    "CodeSize": len(ZIP_BYTES),
    "CodeSha256": SHA256,
    "Description": "",
    "Timeout": 3,
    "MemorySize": 128,
    "LastModified": MILLISECONDS,
    "Version": "$LATEST",
    "RevisionId": UUID,
    "PackageType": "Zip",
    "Architectures": ["x86_64"],
    "EphemeralStorage": {"Size": 512},
    "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
    "TracingConfig": {"Mode": "PassThrough"},
    "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/fresh"},
}
RUNTIME: Final = {"RuntimeVersionConfig": {"RuntimeVersionArn": RUNTIME_VERSION}}
CREATING: Final = {
    "State": "Pending",
    "StateReason": "The function is being created.",
    "StateReasonCode": "Creating",
}
SETTLED: Final = {"State": "Active", "LastUpdateStatus": "Successful"}
UPDATING: Final = {
    "State": "Active",
    "LastUpdateStatus": "InProgress",
    "LastUpdateStatusReason": "The function is being created.",
    "LastUpdateStatusReasonCode": "Creating",
}
REASONS: Final = ("StateReason", "StateReasonCode", "LastUpdateStatusReason", "LastUpdateStatusReasonCode")

BUSY: Final = conflict(
    f"The operation cannot be performed at this time. An update is in progress for resource: {FUNCTION}:brief"
)

WHILE_PENDING: Final[list[Row]] = [
    refusal(
        "invoked while Pending",
        f"POST {FUNCTIONS}/brief/invocations",
        conflict(
            "The operation cannot be performed at this time. The function is currently in the following state: Pending"
        ),
        {},
    ),
    refusal("configured while Pending", f"PUT {FUNCTIONS}/brief/configuration", BUSY, {"Timeout": 5}),
    refusal("given code while Pending", f"PUT {FUNCTIONS}/brief/code", BUSY, {"ZipFile": OTHER_ZIP}),
    refusal("published while Pending", f"POST {FUNCTIONS}/brief/versions", BUSY, {}),
]
WHILE_UPDATED: Final[list[Row]] = [
    refusal("a second update at once", f"PUT {FUNCTIONS}/brief/configuration", BUSY, {"Timeout": 5}),
    refusal("new code at once", f"PUT {FUNCTIONS}/brief/code", BUSY, {"ZipFile": OTHER_ZIP}),
    refusal("a version at once", f"POST {FUNCTIONS}/brief/versions", BUSY, {}),
    refusal("tags at once", f"POST /2017-03-31/tags/{locator(f'{FUNCTION}:brief')}", BUSY, {"Tags": {"a": "b"}}),
    refusal(
        "a runtime's management at once",
        "PUT /2021-07-20/functions/brief/runtime-management-config",
        BUSY,
        {"UpdateRuntimeOn": "FunctionUpdate"},
    ),
]

LIFE: Final[list[list[Row]]] = [
    [
        ok(
            "a new function is Pending",
            f"POST {FUNCTIONS}",
            201,
            SETTINGS | RUNTIME | CREATING | {"RevisionId": Keep("created", UUID)},
            creation("fresh", Unknown="ignored", Architectures=[]),
        ),
    ],
    [
        ok(
            "it is Active with another revision",
            f"GET {FUNCTIONS}/fresh/configuration",
            200,
            SETTINGS | RUNTIME | SETTLED | {"RevisionId": Differs("created"), "LastModified": Keep("modified")},
        ),
        ok(
            "reading changes no revision",
            f"GET {FUNCTIONS}/fresh/configuration",
            200,
            Has({"RevisionId": Keep("active")}),
        ),
        ok(
            "GetFunction adds the code, and no tags where there are none",
            f"GET {FUNCTIONS}/fresh",
            200,
            {
                "Configuration": SETTINGS | RUNTIME | SETTLED | {"RevisionId": "<<active>>"},
                "Code": {"RepositoryType": "S3", "Location": ANY},
            },
        ),
        ok(
            "an update without a change is one all the same",
            f"PUT {FUNCTIONS}/fresh/configuration",
            200,
            SETTINGS | RUNTIME | UPDATING | {"RevisionId": Keep("begun", Differs("active"))},
            {},
        ),
    ],
    [
        ok(
            "the end of an update gives another revision",
            f"GET {FUNCTIONS}/fresh/configuration",
            200,
            SETTINGS | RUNTIME | SETTLED | {"RevisionId": Differs("begun")},
        ),
        ok(
            "JSON logs have levels",
            f"PUT {FUNCTIONS}/fresh/configuration",
            200,
            Has(
                {
                    "LoggingConfig": {
                        "LogFormat": "JSON",
                        "ApplicationLogLevel": "INFO",
                        "SystemLogLevel": "INFO",
                        "LogGroup": "/aws/lambda/fresh",
                    }
                }
            ),
            {"LoggingConfig": {"LogFormat": "JSON"}},
        ),
    ],
    [
        ok(
            "another log group keeps the format",
            f"PUT {FUNCTIONS}/fresh/configuration",
            200,
            Has(
                {
                    "LoggingConfig": {
                        "LogFormat": "JSON",
                        "ApplicationLogLevel": "INFO",
                        "SystemLogLevel": "INFO",
                        "LogGroup": "mine",
                    }
                }
            ),
            {"LoggingConfig": {"LogGroup": "mine"}},
        ),
    ],
    [
        ok(
            "text takes the levels away",
            f"PUT {FUNCTIONS}/fresh/configuration",
            200,
            Has({"LoggingConfig": {"LogFormat": "Text", "LogGroup": "mine"}}),
            {"LoggingConfig": {"LogFormat": "Text"}},
        ),
    ],
    [
        ok(
            "no variables are shown as none",
            f"PUT {FUNCTIONS}/fresh/configuration",
            200,
            Has(
                {
                    "Environment": {"Variables": {}},
                    "DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:dead"},
                    "VpcConfig": {
                        "SubnetIds": ["subnet-1"],
                        "SecurityGroupIds": ["sg-1"],
                        "VpcId": re.compile("vpc-[0-9a-f]+"),
                        "Ipv6AllowedForDualStack": False,
                    },
                    "KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/k",
                }
            ),
            {
                "Environment": {"Variables": {}},
                "DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:dead"},
                "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
                "KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/k",
            },
        ),
    ],
    [
        ok(
            "a cleared VPC leaves a husk, a cleared queue or key nothing",
            f"PUT {FUNCTIONS}/fresh/configuration",
            200,
            Has(
                {
                    "VpcConfig": {
                        "SubnetIds": [],
                        "SecurityGroupIds": [],
                        "VpcId": "",
                        "Ipv6AllowedForDualStack": False,
                    },
                    "Environment": {"Variables": {}},
                },
                without=("DeadLetterConfig", "KMSKeyArn"),
            ),
            {
                "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []},
                "DeadLetterConfig": {"TargetArn": ""},
                "KMSKeyArn": "",
            },
        ),
    ],
    [
        ok(
            "new code with Publish answers with the version",
            f"PUT {FUNCTIONS}/fresh/code",
            200,
            Has({"Version": "1", "FunctionArn": f"{FUNCTION}:fresh:1", "State": "Pending"}),
            {"ZipFile": OTHER_ZIP, "Publish": True},
        ),
    ],
    [
        ok(
            "items of a list show no states",
            f"GET {FUNCTIONS}?FunctionVersion=ALL&MaxItems=2",
            200,
            Has(
                {
                    "Functions": [
                        Has(
                            {"FunctionArn": f"{FUNCTION}:fresh:$LATEST"},
                            without=("State", "LastUpdateStatus", *REASONS, *RUNTIME),
                        ),
                        Has(
                            {"FunctionArn": f"{FUNCTION}:fresh:1"},
                            without=("State", "LastUpdateStatus", *REASONS, *RUNTIME),
                        ),
                    ]
                }
            ),
        ),
        ok("deletion", f"DELETE {FUNCTIONS}/fresh", 204),
        refusal("it is gone", f"GET {FUNCTIONS}/fresh", missing(f"Function not found: {FUNCTION}:fresh")),
        refusal(
            "its version is gone",
            f"GET {FUNCTIONS}/fresh?Qualifier=1",
            missing(f"Function not found: {FUNCTION}:fresh:1"),
        ),
    ],
    [
        ok(
            "Publish at creation: version 1 never comes again",
            f"POST {FUNCTIONS}",
            201,
            Has({"Version": "2", "FunctionArn": f"{FUNCTION}:fresh", "State": "Pending"}),
            creation("fresh", Publish=True),
        ),
    ],
    [
        ok(
            "the version has an ARN and a revision",
            f"GET {FUNCTIONS}/fresh/configuration?Qualifier=2",
            200,
            Has({"FunctionArn": f"{FUNCTION}:fresh:2", "RevisionId": UUID, "State": "Active"}, without=REASONS),
        ),
        ok("tags at a name", f"GET {FUNCTIONS}/fresh", 200, Has({}, without=("Tags", "Concurrency", "TagsError"))),
    ],
]

# What a version has to wait for, and what it shows in the end.
WAITING: Final[dict[str, dict[str, Any]]] = {
    "snapped": {"Runtime": "python3.13", "SnapStart": {"ApplyOn": "PublishedVersions"}},
    "inside": {"VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}},
}


def _waiting(name: str) -> list[list[Row]]:
    snapped = {"ApplyOn": "PublishedVersions" if name == "snapped" else "None"}
    end = "On" if name == "snapped" else "Off"
    own = f"{FUNCTIONS}/{name}"
    return [
        [
            ok(
                "$LATEST has no snapshot",
                f"GET {own}/configuration",
                200,
                Has({"SnapStart": snapped | {"OptimizationStatus": "Off"}}),
            ),
            ok(
                "a version is Pending",
                f"POST {own}/versions",
                201,
                Has(CREATING | {"Version": "1", "SnapStart": snapped | {"OptimizationStatus": "Off"}}),
                {},
            ),
        ],
        [
            ok(
                "until it is ready",
                f"GET {own}/configuration?Qualifier=1",
                200,
                Has({"State": "Active", "SnapStart": snapped | {"OptimizationStatus": end}}, without=REASONS),
            ),
            ok(
                "which $LATEST never is",
                f"GET {own}/configuration",
                200,
                Has({"State": "Active", "SnapStart": snapped | {"OptimizationStatus": "Off"}}),
            ),
            ok("the same again is the same version", f"POST {own}/versions", 201, Has({"Version": "1"}), {}),
        ],
    ]


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """It says whose runtime it runs on an interpreter of its own: that of the version with a snapshot."""
    with running_daemon(complains=True) as running:
        yield running


def test_life(daemon: RunningDaemon) -> None:
    """A function from its creation to its second one; between the parts it comes to rest."""
    script = Script(daemon)
    for rows in LIFE:
        script.run(rows)
        if script.exists("fresh"):
            daemon.settle("fresh")


@pytest.mark.parametrize("name", WAITING)
def test_versions_that_wait(daemon: RunningDaemon, name: str) -> None:
    ask(daemon, f"POST {FUNCTIONS}", creation(name, **WAITING[name]))
    daemon.settle(name)
    for rows in _waiting(name):
        Script(daemon).run(rows)
        daemon.settle(f"{name}:1")


@pytest.mark.parametrize("row", WHILE_PENDING, ids=names(WHILE_PENDING))
def test_while_pending(daemon: RunningDaemon, row: Row) -> None:
    script = Script(daemon)

    def begin() -> None:
        if script.exists("brief"):
            ask(daemon, f"DELETE {FUNCTIONS}/brief")
        ask(daemon, f"POST {FUNCTIONS}", creation("brief"))

    script.run_at_once(begin, row)


@pytest.mark.parametrize("row", WHILE_UPDATED, ids=names(WHILE_UPDATED))
def test_while_updated(daemon: RunningDaemon, row: Row) -> None:
    script = Script(daemon)
    if not script.exists("brief"):
        ask(daemon, f"POST {FUNCTIONS}", creation("brief"))

    def begin() -> None:
        daemon.settle("brief")
        ask(daemon, f"PUT {FUNCTIONS}/brief/configuration", {})

    script.run_at_once(begin, row)
