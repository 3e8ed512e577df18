"""What the service was seen to answer about layers and their policies."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any, Final

from daemon_running import RunningDaemon
from recorded_answers import (
    ANY,
    FUNCTIONS,
    LAMBDA,
    MILLISECONDS,
    OTHER_ZIP,
    UUID,
    ZIP,
    ZIP_BYTES,
    Differs,
    Error,
    Has,
    Json,
    Keep,
    Row,
    Script,
    ask,
    conflict,
    constraint,
    creation,
    invalid,
    locator,
    missing,
    ok,
    refusal,
    staged,
    unchanging,
)

LAYERS: Final = "/2018-10-31/layers"
VERSIONS: Final = f"{LAYERS}/held/versions"
ARN: Final = f"{LAMBDA}:layer:held"
NO_RESOURCE: Final = missing("The resource you requested does not exist.")
NO_POLICY: Final = missing("No policy is associated with the given resource.")
CONTENT: Final = {"ZipFile": ZIP}
SHOWN: Final = {
    "Location": ANY,
    "CodeSha256": base64.b64encode(hashlib.sha256(ZIP_BYTES).digest()).decode(),
    "CodeSize": len(ZIP_BYTES),
}
STATEMENT: Final = {"StatementId": "new", "Action": "lambda:GetLayerVersion", "Principal": "*"}


def _version(number: int, name: str = "held", **more: Any) -> dict[str, Any]:
    return {
        "LayerVersionArn": f"{LAMBDA}:layer:{name}:{number}",
        "Description": "",
        "CreatedDate": MILLISECONDS,
        "Version": number,
        **more,
    }


def _statement(sid: str, principal: Any, arn: str, condition: Any = None) -> dict[str, Any]:
    statement = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": principal,
        "Action": "lambda:GetLayerVersion",
        "Resource": arn,
    }
    return statement if condition is None else statement | {"Condition": condition}


TWO_OF_ONE: Final = (
    "Two different versions of the same layer are not allowed to be referenced in the same function. {} and {} are versions"
    " of the same layer."
)
STALE: Final = Error(
    "PreconditionFailed",
    "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to retrieve the latest"
    " Revision Id",
)

REFUSED: Final[list[Row]] = [
    refusal("a version below 1", f"GET {VERSIONS}/0", invalid("Layer Version Cannot be less than 1")),
    refusal("a version below 0", f"GET {VERSIONS}/-1", invalid("Layer Version Cannot be less than 1")),
    refusal("no version 0 is deleted", f"DELETE {VERSIONS}/0", invalid("Layer Version Cannot be less than 1")),
    refusal("a version that is not there", f"GET {VERSIONS}/77", NO_RESOURCE),
    refusal("a layer that is not there", f"GET {LAYERS}/nothing/versions/1", NO_RESOURCE),
    refusal("an ARN that is not there", f"GET {LAYERS}?find=LayerVersion&Arn={locator(ARN)}:77", NO_RESOURCE),
    refusal(
        "what is for no runtime and no architecture",
        f"POST {VERSIONS}",
        Error(
            "Validation",
            re.compile(
                r"2 validation errors detected: Value '\[m68k\]' at 'compatibleArchitectures' failed to satisfy constraint:"
                r" Member must satisfy constraint: \[Member must satisfy enum value set: \[x86_64, arm64\], Member must not be"
                r" null\]; Value '\[cobol85\]' at 'compatibleRuntimes' failed to satisfy constraint: Member must satisfy"
                r" constraint: \[Member must satisfy enum value set: \[.*\], Member must not be null\]"
            ),
        ),
        {"Content": CONTENT, "CompatibleRuntimes": ["cobol85"], "CompatibleArchitectures": ["m68k"]},
    ),
    refusal(
        "16 runtimes",
        f"POST {VERSIONS}",
        constraint(
            f"'[{', '.join(['python3.11'] * 16)}]' at 'compatibleRuntimes': Member must have length less than or equal to"
            " 15"
        ),
        {"Content": CONTENT, "CompatibleRuntimes": ["python3.11"] * 16},
    ),
    refusal(
        "three architectures",
        f"POST {VERSIONS}",
        constraint(
            "'[arm64, arm64, x86_64]' at 'compatibleArchitectures': Member must have length less than or equal to 2"
        ),
        {"Content": CONTENT, "CompatibleArchitectures": ["arm64", "arm64", "x86_64"]},
    ),
    refusal(
        "what is no zip",
        f"POST {VERSIONS}",
        invalid("Could not unzip uploaded file. Please check your file, then try to upload again."),
        {"Content": {"ZipFile": "AAAA"}},
    ),
    refusal("no content", f"POST {VERSIONS}", constraint("null at 'content': Member must not be null"), {}),
    refusal(
        "layers for no runtime",
        f"GET {LAYERS}?CompatibleRuntime=cobol85",
        Error(
            "Validation",
            re.compile(
                r"1 validation error detected: Value 'cobol85' at 'compatibleRuntime' failed to satisfy constraint: Member"
                r" must satisfy enum value set: \[.*\]"
            ),
        ),
    ),
    refusal(
        "more than 50 layers at once",
        f"GET {LAYERS}?MaxItems=51",
        constraint("'51' at 'maxItems': Member must have value less than or equal to 50"),
    ),
    refusal(
        "a permission twice",
        f"POST {VERSIONS}/1/policy",
        conflict(
            "The statement id (there) provided already exists. Please provide a new statement id, or remove the existing"
            " statement."
        ),
        STATEMENT | {"StatementId": "there"},
    ),
    refusal(
        "a permission for anything else",
        f"POST {VERSIONS}/1/policy",
        constraint("'lambda:*' at 'action': Member must satisfy regular expression pattern: lambda:GetLayerVersion"),
        STATEMENT | {"Action": "lambda:*"},
    ),
    refusal("a stale revision", f"POST {VERSIONS}/1/policy?RevisionId=0", STALE, STATEMENT),
    refusal("a stale revision at removal", f"DELETE {VERSIONS}/1/policy/there?RevisionId=0", STALE),
    refusal(
        "a permission for what is not there",
        f"POST {VERSIONS}/77/policy",
        missing(f"Layer version {ARN}:77 does not exist."),
        STATEMENT,
    ),
    refusal(
        "the policy of what is not there",
        f"GET {VERSIONS}/77/policy",
        missing(f"Layer version {ARN}:77 does not exist."),
    ),
    refusal(
        "removal from what is not there",
        f"DELETE {VERSIONS}/77/policy/there",
        missing(f"Layer version {ARN}:77 does not exist."),
    ),
    refusal("no policy", f"GET {VERSIONS}/2/policy", NO_POLICY),
    refusal("removal without a policy", f"DELETE {VERSIONS}/2/policy/there", NO_POLICY),
    refusal(
        "removal of no statement",
        f"DELETE {VERSIONS}/1/policy/gone",
        missing("Statement gone is not found in resource policy."),
    ),
    refusal(
        "two versions of one layer",
        f"POST {FUNCTIONS}",
        invalid(TWO_OF_ONE.format(f"{ARN}:1", f"{ARN}:2")),
        creation("new", Layers=[f"{ARN}:1", f"{ARN}:2"]),
    ),
    refusal(
        "one version of one layer twice",
        f"POST {FUNCTIONS}",
        invalid(TWO_OF_ONE.format(f"{ARN}:1", f"{ARN}:1")),
        creation("new", Layers=[f"{ARN}:1", f"{ARN}:1"]),
    ),
]

FIRST: Final = _version(
    1, CompatibleRuntimes=["python3.11"], CompatibleArchitectures=["x86_64"], LicenseInfo="MIT", Description="größe ✓"
)

HARMLESS: Final[list[Row]] = [
    ok("a version", f"GET {VERSIONS}/1", 200, {"Content": SHOWN, "LayerArn": ARN, **FIRST}),
    ok(
        "absent lists are absent, empty ones are empty",
        f"GET {VERSIONS}/2",
        200,
        {"Content": SHOWN, "LayerArn": ARN, **_version(2, CompatibleRuntimes=[], CompatibleArchitectures=[])},
    ),
    ok(
        "by its layer's ARN",
        f"GET {LAYERS}/{locator(ARN)}/versions/1",
        200,
        {"Content": SHOWN, "LayerArn": ARN, **FIRST},
    ),
    ok(
        "by its own ARN",
        f"GET {LAYERS}?find=LayerVersion&Arn={locator(ARN)}:1",
        200,
        {"Content": SHOWN, "LayerArn": ARN, **FIRST},
    ),
    ok(
        "newest first",
        f"GET {VERSIONS}",
        200,
        {"LayerVersions": [_version(2, CompatibleRuntimes=[], CompatibleArchitectures=[]), FIRST]},
    ),
    ok("of no layer", f"GET {LAYERS}/nothing/versions", 200, {"LayerVersions": []}),
    ok(
        "the newest of each",
        f"GET {LAYERS}",
        200,
        {"Layers": [{"LayerName": "held", "LayerArn": ARN, "LatestMatchingVersion": Has({"Version": 2})}]},
    ),
    ok(
        "the newest that fits",
        f"GET {LAYERS}?CompatibleRuntime=python3.11&CompatibleArchitecture=x86_64",
        200,
        {"Layers": [{"LayerName": "held", "LayerArn": ARN, "LatestMatchingVersion": FIRST}]},
    ),
    ok("versions that fit", f"GET {VERSIONS}?CompatibleRuntime=python3.11", 200, {"LayerVersions": [FIRST]}),
    ok("none that fits", f"GET {LAYERS}?CompatibleArchitecture=arm64", 200, {"Layers": []}),
    ok("deletion of what is not there", f"DELETE {VERSIONS}/77", 204),
    ok("deletion of no layer", f"DELETE {LAYERS}/nothing/versions/1", 204),
    ok(
        "a policy",
        f"GET {VERSIONS}/1/policy",
        200,
        {
            "Policy": Json(
                {"Version": "2012-10-17", "Id": "default", "Statement": [_statement("there", "*", f"{ARN}:1")]}
            ),
            "RevisionId": UUID,
        },
    ),
]

OWN: Final = f"{LAYERS}/fresh/versions"
OWN_ARN: Final = f"{LAMBDA}:layer:fresh"

LIFE: Final[list[Row]] = [
    ok(
        "a new layer",
        f"POST {OWN}",
        201,
        {"Content": SHOWN, "LayerArn": OWN_ARN, **_version(1, "fresh")},
        {"Content": CONTENT},
    ),
    ok(
        "the next version",
        f"POST {OWN}",
        201,
        {
            "Content": ANY,
            "LayerArn": OWN_ARN,
            **_version(2, "fresh", CompatibleRuntimes=[], CompatibleArchitectures=[], LicenseInfo=""),
        },
        {"Content": {"ZipFile": OTHER_ZIP}, "CompatibleRuntimes": [], "CompatibleArchitectures": [], "LicenseInfo": ""},
    ),
    ok(
        "everybody",
        f"POST {OWN}/1/policy",
        201,
        {"Statement": Json(_statement("all", "*", f"{OWN_ARN}:1")), "RevisionId": Keep("policy", UUID)},
        STATEMENT | {"StatementId": "all"},
    ),
    ok(
        "an account",
        f"POST {OWN}/1/policy?RevisionId=<<policy>>",
        201,
        {
            "Statement": Json(_statement("one", {"AWS": "arn:aws:iam::111122223333:root"}, f"{OWN_ARN}:1")),
            "RevisionId": Keep("policy", Differs("policy")),
        },
        STATEMENT | {"StatementId": "one", "Principal": "111122223333"},
    ),
    ok(
        "an account's root",
        f"POST {OWN}/1/policy",
        201,
        {
            "Statement": Json(_statement("root", {"AWS": "arn:aws:iam::111122223333:root"}, f"{OWN_ARN}:1")),
            "RevisionId": Keep("policy", Differs("policy")),
        },
        STATEMENT | {"StatementId": "root", "Principal": "arn:aws:iam::111122223333:root"},
    ),
    ok(
        "an organization",
        f"POST {OWN}/1/policy",
        201,
        {
            "Statement": Json(
                _statement("org", "*", f"{OWN_ARN}:1", {"StringEquals": {"aws:PrincipalOrgID": "o-1234567890"}})
            ),
            "RevisionId": Keep("policy", Differs("policy")),
        },
        STATEMENT | {"StatementId": "org", "OrganizationId": "o-1234567890"},
    ),
    ok("removal", f"DELETE {OWN}/1/policy/org?RevisionId=<<policy>>", 204),
    *(ok(f"removal of {sid}", f"DELETE {OWN}/1/policy/{sid}", 204) for sid in ("all", "one", "root")),
    refusal("then there is none", f"GET {OWN}/1/policy", NO_POLICY),
    ok("deletion", f"DELETE {OWN}/2", 204),
    ok(
        "its number never comes again",
        f"POST {OWN}",
        201,
        Has({"Version": 3}),
        {"Content": CONTENT},
    ),
    ok(
        "a function shows the layer's size",
        f"POST {FUNCTIONS}",
        201,
        Has({"Layers": [{"Arn": f"{OWN_ARN}:1", "CodeSize": len(ZIP_BYTES)}]}),
        creation("layered", Layers=[f"{OWN_ARN}:1"]),
    ),
    ok("a layer in use can be deleted", f"DELETE {OWN}/1", 204),
    ok("and the last version", f"DELETE {OWN}/3", 204),
    ok("no versions are left", f"GET {OWN}", 200, {"LayerVersions": []}),
    ok(
        "the function goes on",
        f"GET {FUNCTIONS}/layered/configuration",
        200,
        Has({"Layers": [{"Arn": f"{OWN_ARN}:1", "CodeSize": len(ZIP_BYTES)}]}),
    ),
    ok("nor does the number of the last", f"POST {OWN}", 201, Has({"Version": 4}), {"Content": CONTENT}),
]


@staged
def before(daemon: RunningDaemon) -> None:
    first = {"CompatibleRuntimes": ["python3.11"], "CompatibleArchitectures": ["x86_64"]}
    ask(daemon, f"POST {VERSIONS}", {"Content": CONTENT, "LicenseInfo": "MIT", "Description": "größe ✓", **first})
    ask(daemon, f"POST {VERSIONS}", {"Content": CONTENT, "CompatibleRuntimes": [], "CompatibleArchitectures": []})
    ask(daemon, f"POST {VERSIONS}/1/policy", STATEMENT | {"StatementId": "there"})


test_refused = unchanging(REFUSED)
test_harmless = unchanging(HARMLESS)


def test_life(daemon: RunningDaemon) -> None:
    Script(daemon).run(LIFE)
