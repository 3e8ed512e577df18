"""What the service was seen to answer about function URLs, code signing, recursion, runtime management and scaling."""

from __future__ import annotations

import re
from typing import Final

import pytest

from daemon_running import RunningDaemon
from recorded_answers import (
    ANY,
    FUNCTION,
    FUNCTIONS,
    LAMBDA,
    NANOSECONDS,
    ZULU,
    Error,
    Has,
    Keep,
    Row,
    Script,
    ask,
    conflict,
    constraint,
    locator,
    missing,
    ok,
    refusal,
    set_up,
    staged,
    unchanging,
)

URLS: Final = "/2021-10-31/functions"
SIGNING: Final = "/2020-04-22/code-signing-configs"
SIGNED: Final = "/2020-06-30/functions"
NO_RESOURCE: Final = missing("The resource you requested does not exist.")
NO_FUNCTION: Final = missing("Function does not exist")
NO_CONFIG: Final = f"{LAMBDA}:code-signing-config:csc-0123456789abcdef0"
PUBLISHERS: Final = {
    "SigningProfileVersionArns": ["arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/0123456789"]
}
PUBLIC: Final = {"AuthType": "NONE"}


def _lost(fact: str, method: str, target: str, error: Error) -> Row:
    return refusal(fact, f"{method} {URLS}/{target}", error, PUBLIC if method in ("POST", "PUT") else None)


RECURSION: Final = "/2024-08-31/functions"
MANAGEMENT: Final = "/2021-07-20/functions"

# `staged` has a URL, and no other setting.
REFUSED: Final[list[Row]] = [
    refusal(
        "a second URL",
        f"POST {URLS}/staged/url",
        conflict(
            f"Failed to create function url config for [functionArn = {FUNCTION}:staged]. Error message: "
            " FunctionUrlConfig exists for this Lambda function"
        ),
        PUBLIC,
    ),
    _lost("a URL of no function", "POST", "nowhere/url", NO_FUNCTION),
    _lost("a URL of no alias", "POST", "staged/url?Qualifier=gone", NO_FUNCTION),
    _lost("an update of no function", "PUT", "nowhere/url", NO_FUNCTION),
    _lost("an update of no alias", "PUT", "staged/url?Qualifier=gone", NO_FUNCTION),
    _lost("an update without a URL", "PUT", "plain/url", NO_RESOURCE),
    _lost("the URL of no function", "GET", "nowhere/url", NO_RESOURCE),
    _lost("the URL of no alias", "GET", "staged/url?Qualifier=gone", NO_RESOURCE),
    _lost("no URL", "GET", "plain/url", NO_RESOURCE),
    _lost("no URL of an alias", "GET", "staged/url?Qualifier=live", NO_RESOURCE),
    _lost("deletion of no URL", "DELETE", "plain/url", NO_RESOURCE),
    _lost("deletion at no function", "DELETE", "nowhere/url", NO_RESOURCE),
    _lost("URLs of no function", "GET", "nowhere/urls", NO_FUNCTION),
    *(
        _lost(
            f"a URL of {qualifier}",
            "POST",
            f"staged/url?Qualifier={qualifier}",
            Error(
                "Validation",
                re.compile(
                    rf"1 validation error detected: Value '{re.escape(qualifier)}' at 'qualifier' failed to satisfy"
                    r" constraint: Member must satisfy regular expression pattern: .*\(\?!\^\\d\+\$\).*"
                ),
            ),
        )
        for qualifier in ("1", "$LATEST")
    ),
    refusal(
        "an authorization that is none",
        f"POST {URLS}/plain/url",
        Error(
            "Validation",
            re.compile(r".*'authType' failed to satisfy constraint: Member must satisfy enum value set: .*"),
        ),
        {"AuthType": "BASIC"},
    ),
    refusal(
        "an invoke mode that is none",
        f"POST {URLS}/plain/url",
        constraint("'FAST' at 'invokeMode': Member must satisfy enum value set: [RESPONSE_STREAM, BUFFERED]"),
        PUBLIC | {"InvokeMode": "FAST"},
    ),
    refusal(
        "an authorization must be given",
        f"POST {URLS}/plain/url",
        constraint("null at 'authType': Member must not be null"),
        {},
    ),
    *(
        refusal(
            f"{what} of no code signing configuration",
            request,
            missing(f"The Lambda code signing configuration {NO_CONFIG} can not be found.", typed=False),
            body,
        )
        for what, request, body in (
            ("GetCodeSigningConfig", f"GET {SIGNING}/{locator(NO_CONFIG)}", None),
            ("UpdateCodeSigningConfig", f"PUT {SIGNING}/{locator(NO_CONFIG)}", {"Description": "d"}),
            ("ListFunctionsByCodeSigningConfig", f"GET {SIGNING}/{locator(NO_CONFIG)}/functions", None),
        )
    ),
    refusal(
        "DeleteCodeSigningConfig of none",
        f"DELETE {SIGNING}/{locator(NO_CONFIG)}",
        missing(f"The Lambda code signing configuration {NO_CONFIG} cannot be found."),
    ),
    *(
        refusal(
            f"PutFunctionCodeSigningConfig of none at {name}",
            f"PUT {SIGNED}/{name}/code-signing-config",
            Error(
                "CodeSigningConfigNotFound",
                "The code signing configuration cannot be found. Check that the provided configuration is not deleted:"
                f" {NO_CONFIG}.",
            ),
            {"CodeSigningConfigArn": NO_CONFIG},
        )
        for name in ("plain", "nowhere")
    ),
    refusal(
        "the signing of no function",
        f"GET {SIGNED}/nowhere/code-signing-config",
        missing(f"Function not found: {FUNCTION}:nowhere"),
    ),
    refusal(
        "no publishers",
        f"POST {SIGNING}",
        constraint("null at 'allowedPublishers': Member must not be null"),
        {},
    ),
    refusal(
        "a loop that is none",
        f"PUT {RECURSION}/plain/recursion-config",
        constraint("'Perhaps' at 'recursiveLoop': Member must satisfy enum value set: [Terminate, Allow]"),
        {"RecursiveLoop": "Perhaps"},
    ),
    refusal(
        "recursion of no function",
        f"GET {RECURSION}/nowhere/recursion-config",
        missing(f"Function not found: {FUNCTION}:nowhere"),
    ),
    refusal(
        "recursion of an alias",
        f"GET {RECURSION}/staged:live/recursion-config",
        Error(
            "Validation", re.compile(r"1 validation error detected: Value 'staged:live' at 'functionName' failed .*")
        ),
    ),
    refusal(
        "a mode that is none",
        f"PUT {MANAGEMENT}/plain/runtime-management-config",
        Error(
            "Validation",
            re.compile(r".*'Now' at 'updateRuntimeOn' failed to satisfy constraint: Member must satisfy enum.*"),
        ),
        {"UpdateRuntimeOn": "Now"},
    ),
    refusal(
        "Manual needs a version",
        f"PUT {MANAGEMENT}/plain/runtime-management-config",
        Error("InvalidParameterValue", re.compile(".*RuntimeVersionArn.*")),
        {"UpdateRuntimeOn": "Manual"},
    ),
    refusal(
        "runtime management of no function",
        f"GET {MANAGEMENT}/nowhere/runtime-management-config",
        missing(f"Function not found: {FUNCTION}:nowhere"),
    ),
    refusal(
        "scaling of a plain function",
        "PUT /2025-11-30/functions/staged/function-scaling-config?Qualifier=1",
        Error("InvalidParameterValue", re.compile(".+")),
        {"FunctionScalingConfig": {"MinExecutionEnvironments": 3, "MaxExecutionEnvironments": 4}},
    ),
    refusal(
        "scaling of $LATEST",
        "GET /2025-11-30/functions/staged/function-scaling-config?Qualifier=$LATEST",
        constraint(
            r"'$LATEST' at 'qualifier': Member must satisfy regular expression pattern: (\$LATEST\.PUBLISHED|[0-9]+)"
        ),
    ),
]

HARMLESS: Final[list[Row]] = [
    ok("no code signing", f"GET {SIGNED}/plain/code-signing-config", 200, {}),
    ok("none to delete", f"DELETE {SIGNED}/plain/code-signing-config", 204),
    ok("no URLs", f"GET {URLS}/plain/urls", 200, {"FunctionUrlConfigs": []}),
    ok("loops end", f"GET {RECURSION}/plain/recursion-config", 200, {"RecursiveLoop": "Terminate"}),
    ok(
        "runtimes are looked after",
        f"GET {MANAGEMENT}/plain/runtime-management-config",
        200,
        {"UpdateRuntimeOn": "Auto", "RuntimeVersionArn": None, "FunctionArn": f"{FUNCTION}:plain:$LATEST"},
    ),
]

SHOWN: Final = {
    "FunctionUrl": Keep("url"),
    "FunctionArn": f"{FUNCTION}:plain",
    "AuthType": "NONE",
    "CreationTime": NANOSECONDS,
}
CONFIG: Final = {
    "CodeSigningConfigId": re.compile("csc-[a-z0-9]{17}"),
    "CodeSigningConfigArn": re.compile(rf"{LAMBDA}:code-signing-config:csc-[a-z0-9]{{17}}"),
    "Description": "",
    "AllowedPublishers": PUBLISHERS,
    "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Warn"},
    "LastModified": ZULU,
}
CORS: Final = {"AllowOrigins": ["*"], "AllowMethods": ["GET"], "MaxAge": 5}

LIFE: Final[list[Row]] = [
    ok("a URL", f"POST {URLS}/plain/url", 201, SHOWN, PUBLIC),
    ok(
        "shows its mode afterwards",
        f"GET {URLS}/plain/url",
        200,
        SHOWN | {"FunctionUrl": "<<url>>", "LastModifiedTime": NANOSECONDS, "InvokeMode": "BUFFERED"},
    ),
    ok(
        "an update shows only the mode it sets",
        f"PUT {URLS}/plain/url",
        200,
        SHOWN | {"FunctionUrl": "<<url>>", "LastModifiedTime": NANOSECONDS, "Cors": CORS},
        {"Cors": CORS},
    ),
    ok(
        "the mode it sets",
        f"PUT {URLS}/plain/url",
        200,
        SHOWN | {"LastModifiedTime": NANOSECONDS, "Cors": CORS, "InvokeMode": "RESPONSE_STREAM"},
        {"InvokeMode": "RESPONSE_STREAM"},
    ),
    ok(
        "a list shows it",
        f"GET {URLS}/plain/urls",
        200,
        {
            "FunctionUrlConfigs": [
                SHOWN | {"LastModifiedTime": NANOSECONDS, "Cors": CORS, "InvokeMode": "RESPONSE_STREAM"}
            ]
        },
    ),
    ok(
        "an alias has its own",
        f"POST {URLS}/staged/url?Qualifier=live",
        201,
        SHOWN | {"FunctionArn": f"{FUNCTION}:staged:live", "AuthType": "AWS_IAM", "InvokeMode": "BUFFERED"},
        {"AuthType": "AWS_IAM", "InvokeMode": "BUFFERED"},
    ),
    ok("deletion", f"DELETE {URLS}/plain/url", 204),
    refusal("and gone", f"GET {URLS}/plain/url", NO_RESOURCE),
    ok(
        "code signing warns",
        f"POST {SIGNING}",
        201,
        {"CodeSigningConfig": CONFIG | {"CodeSigningConfigArn": Keep("csc", CONFIG["CodeSigningConfigArn"])}},
        {"AllowedPublishers": PUBLISHERS},
    ),
    ok("is read", f"GET {SIGNING}/<<csc>>", 200, {"CodeSigningConfig": CONFIG | {"CodeSigningConfigArn": "<<csc>>"}}),
    ok(
        "is changed",
        f"PUT {SIGNING}/<<csc>>",
        200,
        {"CodeSigningConfig": CONFIG | {"Description": "größe ✓"}},
        {"Description": "größe ✓"},
    ),
    ok(
        "is given to a function",
        f"PUT {SIGNED}/plain/code-signing-config",
        200,
        {"CodeSigningConfigArn": "<<csc>>", "FunctionName": "plain"},
        {"CodeSigningConfigArn": "<<csc>>"},
    ),
    ok(
        "which has it",
        f"GET {SIGNED}/plain/code-signing-config",
        200,
        {"CodeSigningConfigArn": "<<csc>>", "FunctionName": "plain"},
    ),
    ok("and it the function", f"GET {SIGNING}/<<csc>>/functions", 200, {"FunctionArns": [f"{FUNCTION}:plain"]}),
    refusal("in use", f"DELETE {SIGNING}/<<csc>>", conflict(re.compile(".+"))),
    ok("is taken away", f"DELETE {SIGNED}/plain/code-signing-config", 204),
    ok("and deleted", f"DELETE {SIGNING}/<<csc>>", 204),
    ok(
        "loops go on",
        f"PUT {RECURSION}/plain/recursion-config",
        200,
        {"RecursiveLoop": "Allow"},
        {"RecursiveLoop": "Allow"},
    ),
    ok("which is kept", f"GET {RECURSION}/plain/recursion-config", 200, {"RecursiveLoop": "Allow"}),
    ok(
        "runtimes of a function",
        f"PUT {MANAGEMENT}/plain/runtime-management-config",
        200,
        Has({"UpdateRuntimeOn": "FunctionUpdate", "FunctionArn": f"{FUNCTION}:plain:$LATEST"}),
        {"UpdateRuntimeOn": "FunctionUpdate"},
    ),
    ok("a policy for the URL", f"POST {FUNCTIONS}/staged/aliases", 201, ANY, {"Name": "brief", "FunctionVersion": "1"}),
    ok("a URL of an alias", f"POST {URLS}/staged/url?Qualifier=brief", 201, ANY, PUBLIC),
    ok("the alias goes", f"DELETE {FUNCTIONS}/staged/aliases/brief", 204),
    ok(
        "its URL stays listed",
        f"GET {URLS}/staged/urls",
        200,
        Has(
            {
                "FunctionUrlConfigs": [
                    Has({"FunctionArn": f"{FUNCTION}:staged"}),
                    Has({"FunctionArn": f"{FUNCTION}:staged:brief"}),
                    Has({"FunctionArn": f"{FUNCTION}:staged:live"}),
                ]
            }
        ),
    ),
]


@staged
def before(daemon: RunningDaemon) -> None:
    set_up(daemon)
    ask(daemon, f"POST {URLS}/staged/url", PUBLIC)


test_refused = unchanging(REFUSED)
test_harmless = unchanging(HARMLESS)


@pytest.mark.usefixtures("before")
def test_life(daemon: RunningDaemon) -> None:
    Script(daemon).run(LIFE)
