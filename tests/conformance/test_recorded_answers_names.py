"""What the service was seen to answer about names of functions, ARNs and qualifiers, and how it shapes its errors."""

from __future__ import annotations

from typing import Final

import pytest

from daemon_running import RunningDaemon
from recorded_answers import (
    ANY,
    FUNCTION,
    FUNCTIONS,
    LAMBDA,
    UUID,
    Error,
    Has,
    Keep,
    Row,
    Script,
    conflict,
    constraint,
    creation,
    invalid,
    locator,
    missing,
    ok,
    refusal,
    set_up,
    staged,
    unchanging,
)

FUNCTION_NAME_PATTERN: Final = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?"
    r"([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
)
NAMESPACED_PATTERN: Final = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?"
    r"([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
)
QUALIFIER_PATTERN: Final = r"\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+"
MUST_MATCH: Final = "Member must satisfy regular expression pattern: "
AT_MOST: Final = "Member must have length less than or equal to "
BAD: Final = "a b!"
LONG: Final = "x" * 65
TOO_LONG: Final = "x" * 141
STRANGER: Final = f"User: arn:aws:iam::{LAMBDA.split(':')[4]}:root is not authorized to perform: "

FOUND: Final[list[Row]] = [
    ok(
        f"a function is found as {form}",
        f"GET {FUNCTIONS}/{locator(form)}/configuration",
        200,
        Has({"FunctionArn": arn}),
    )
    for form, arn in (
        ("staged", f"{FUNCTION}:staged"),
        ("function:staged", f"{FUNCTION}:staged"),
        ("000000000000:function:staged", f"{FUNCTION}:staged"),
        ("us-east-1:000000000000:function:staged", f"{FUNCTION}:staged"),
        (f"{FUNCTION}:staged", f"{FUNCTION}:staged"),
        ("staged:1", f"{FUNCTION}:staged:1"),
        ("function:staged:1", f"{FUNCTION}:staged:1"),
        ("000000000000:function:staged:live", f"{FUNCTION}:staged:live"),
        (f"{FUNCTION}:staged:2", f"{FUNCTION}:staged:2"),
        (f"{FUNCTION}:staged:$LATEST", f"{FUNCTION}:staged:$LATEST"),
    )
] + [
    ok(
        "a qualifier may be said twice",
        f"GET {FUNCTIONS}/staged:1/configuration?Qualifier=1",
        200,
        Has({"FunctionArn": f"{FUNCTION}:staged:1", "Version": "1"}),
    ),
    ok(
        "$LATEST as a qualifier shows in the ARN",
        f"GET {FUNCTIONS}/staged/configuration?Qualifier=$LATEST",
        200,
        Has({"FunctionArn": f"{FUNCTION}:staged:$LATEST", "Version": "$LATEST"}),
    ),
    ok(
        "an ARN in a path may come without percent signs",
        f"GET {FUNCTIONS}/{FUNCTION}:staged",
        200,
        Has({"Configuration": Has({"FunctionArn": f"{FUNCTION}:staged"})}),
    ),
]

REFUSED: Final[list[Row]] = [
    refusal(
        "two qualifiers that differ",
        f"GET {FUNCTIONS}/staged:1?Qualifier=2",
        invalid("The derived qualifier from the function name does not match the specified qualifier."),
    ),
    refusal(
        "a function of another region",
        f"GET {FUNCTIONS}/{locator('arn:aws:lambda:eu-west-1:000000000000:function:staged')}",
        missing("Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"),
    ),
    refusal(
        "a function of another account",
        f"GET {FUNCTIONS}/{locator('arn:aws:lambda:us-east-1:111122223333:function:staged')}",
        Error(
            "AccessDenied",
            f"{STRANGER}lambda:GetFunction on resource: arn:aws:lambda:us-east-1:111122223333:function:staged because no"
            " resource-based policy allows the lambda:GetFunction action",
        ),
    ),
    refusal(
        "a function for another account",
        f"POST {FUNCTIONS}",
        Error("AccessDenied", None),
        creation("arn:aws:lambda:us-east-1:111122223333:function:new"),
    ),
    *(
        refusal(f"{what} of no function", f"{request}", missing(f"Function not found: {FUNCTION}:{name}"), body)
        for what, request, name, body in (
            ("GetFunction", f"GET {FUNCTIONS}/nowhere", "nowhere", None),
            ("GetFunction with a version", f"GET {FUNCTIONS}/nowhere?Qualifier=1", "nowhere:1", None),
            ("GetFunctionConfiguration", f"GET {FUNCTIONS}/nowhere/configuration", "nowhere", None),
            ("GetFunction, 65 characters,", f"GET {FUNCTIONS}/{LONG}", LONG, None),
            ("GetFunction by a cut ARN", f"GET {FUNCTIONS}/{locator(FUNCTION)}", "function", None),
            ("DeleteFunction", f"DELETE {FUNCTIONS}/nowhere", "nowhere", None),
            ("DeleteFunction with a version", f"DELETE {FUNCTIONS}/nowhere?Qualifier=1", "nowhere", None),
            ("UpdateFunctionCode", f"PUT {FUNCTIONS}/nowhere/code", "nowhere", {"ZipFile": "AAAA"}),
            ("UpdateFunctionConfiguration", f"PUT {FUNCTIONS}/nowhere/configuration", "nowhere", {"Timeout": 5}),
            ("PublishVersion", f"POST {FUNCTIONS}/nowhere/versions", "nowhere", {}),
            ("ListVersionsByFunction", f"GET {FUNCTIONS}/nowhere/versions", "nowhere", None),
            ("ListAliases", f"GET {FUNCTIONS}/nowhere/aliases", "nowhere", None),
            ("Invoke", f"POST {FUNCTIONS}/nowhere/invocations", "nowhere:$LATEST", {}),
            ("Invoke with a version", f"POST {FUNCTIONS}/nowhere/invocations?Qualifier=1", "nowhere:1", {}),
            (
                "PutFunctionConcurrency",
                "PUT /2017-10-31/functions/nowhere/concurrency",
                "nowhere:$LATEST",
                {"ReservedConcurrentExecutions": 1},
            ),
        )
    ),
    refusal(
        "GetFunction of no alias",
        f"GET {FUNCTIONS}/staged?Qualifier=gone",
        missing(f"Function not found: {FUNCTION}:staged:gone"),
    ),
    refusal(
        "$LATEST is written in capitals",
        f"GET {FUNCTIONS}/staged?Qualifier=$latest",
        missing(f"Function not found: {FUNCTION}:staged:$latest"),
    ),
    refusal(
        "Invoke of no version",
        f"POST {FUNCTIONS}/staged/invocations?Qualifier=77",
        missing(f"Function not found: {FUNCTION}:staged:77"),
        {},
    ),
    refusal(
        "GetAlias of no alias",
        f"GET {FUNCTIONS}/staged/aliases/gone",
        missing(f"Cannot find alias arn: {FUNCTION}:staged:gone"),
    ),
    refusal(
        "UpdateAlias of no alias",
        f"PUT {FUNCTIONS}/staged/aliases/gone",
        missing(f"Alias not found: {FUNCTION}:staged:gone"),
        {"Description": "new"},
    ),
    refusal(
        "a new function with a name of 65 characters",
        f"POST {FUNCTIONS}",
        invalid(
            f"1 validation error detected: Value '{LONG}' at 'functionName' failed to satisfy constraint: {AT_MOST}64"
        ),
        creation(LONG),
    ),
    refusal(
        "a new function with a locator of 141 characters",
        f"POST {FUNCTIONS}",
        constraint(f"'{TOO_LONG}' at 'functionName': {AT_MOST}140"),
        creation(TOO_LONG),
    ),
    refusal(
        "a new function finds length and pattern at once",
        f"POST {FUNCTIONS}",
        constraint(
            f"'{'!' * 141}' at 'functionName': {AT_MOST}140",
            f"'{'!' * 141}' at 'functionName': {MUST_MATCH}{FUNCTION_NAME_PATTERN}",
        ),
        creation("!" * 141),
    ),
    refusal(
        "a new function with two qualifiers",
        f"POST {FUNCTIONS}",
        constraint(f"'{FUNCTION}:new:$LATEST:1' at 'functionName': {MUST_MATCH}{FUNCTION_NAME_PATTERN}"),
        creation(f"{FUNCTION}:new:$LATEST:1"),
    ),
    refusal(
        "a second function of one name",
        f"POST {FUNCTIONS}",
        conflict("Function already exist: staged"),
        creation("staged"),
    ),
    *(
        refusal(
            f"{what} with a name that is none",
            request,
            constraint(f"'{BAD}' at 'functionName': {MUST_MATCH}{NAMESPACED_PATTERN}"),
            body,
        )
        for what, request, body in (
            ("GetFunction", f"GET {FUNCTIONS}/{locator(BAD)}", None),
            ("DeleteFunction", f"DELETE {FUNCTIONS}/{locator(BAD)}", None),
            ("Invoke", f"POST {FUNCTIONS}/{locator(BAD)}/invocations", {}),
        )
    ),
    refusal(
        "of a locator that is too long and none, the pattern is told",
        f"GET {FUNCTIONS}/{'!' * 257}",
        constraint(f"'{'!' * 257}' at 'functionName': {MUST_MATCH}{NAMESPACED_PATTERN}"),
    ),
    refusal(
        "the qualifier's length is told before the name",
        f"GET {FUNCTIONS}/{locator(BAD)}?Qualifier={'q' * 129}",
        constraint(
            f"'{'q' * 129}' at 'qualifier': {AT_MOST}128",
            f"'{BAD}' at 'functionName': {MUST_MATCH}{NAMESPACED_PATTERN}",
        ),
    ),
    refusal(
        "a qualifier that is none",
        f"GET {FUNCTIONS}/staged?Qualifier=a.b",
        constraint(f"'a.b' at 'qualifier': {MUST_MATCH}{QUALIFIER_PATTERN}"),
    ),
]

# A version takes the qualifier's place in the ARN; an alias shows itself and what is behind it.
THROUGH_ALIAS: Final[list[Row]] = [
    ok(
        "a version has a revision of its own",
        f"GET {FUNCTIONS}/staged/configuration?Qualifier=1",
        200,
        Has({"RevisionId": Keep("version", UUID), "FunctionArn": f"{FUNCTION}:staged:1"}),
    ),
    ok(
        "an alias shows the version and revision behind it",
        f"GET {FUNCTIONS}/staged/configuration?Qualifier=live",
        200,
        Has({"RevisionId": "<<version>>", "FunctionArn": f"{FUNCTION}:staged:live", "Version": "1", "Timeout": 3}),
    ),
    ok(
        "GetFunction through an alias as well",
        f"GET {FUNCTIONS}/staged?Qualifier=live",
        200,
        {
            "Configuration": Has({"RevisionId": "<<version>>", "FunctionArn": f"{FUNCTION}:staged:live"}),
            "Code": {"RepositoryType": "S3", "Location": ANY},
        },
    ),
]


@staged
def before(daemon: RunningDaemon) -> None:
    set_up(daemon)


test_found = unchanging(FOUND)
test_refused = unchanging(REFUSED)


@pytest.mark.usefixtures("before")
def test_through_an_alias(daemon: RunningDaemon) -> None:
    Script(daemon).run(THROUGH_ALIAS)
