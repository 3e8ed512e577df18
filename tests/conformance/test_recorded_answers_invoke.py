"""What the service was seen to answer to invocations: statuses, headers, and refusals before the function runs."""

from __future__ import annotations

import re
from typing import Any, Final

from daemon_running import RunningDaemon
from recorded_answers import (
    FUNCTION,
    FUNCTIONS,
    UUID,
    Error,
    Row,
    ask,
    constraint,
    creation,
    invalid,
    missing,
    set_up,
    staged,
    unchanging,
)

PLAIN: Final = f"POST {FUNCTIONS}/plain/invocations"
NOT_JSON: Final = "Could not parse request body into json: Could not parse payload into json: "
SOURCE: Final = "\n at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: 1, column: "
EXPECTED: Final = "expected a valid value (JSON String, Number, Array, Object or token 'null', 'true' or 'false')"
TRACE: Final = re.compile(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0(;Lineage=.*)?")


def _as(kind: str) -> dict[str, str]:
    return {"X-Amz-Invocation-Type": kind}


def _refused(
    fact: str, error: Error, body: Any = b"{}", sent: dict[str, str] | None = None, request: str = PLAIN
) -> Row:
    headers = {"x-amz-executed-version": None, "x-amz-function-error": None}
    return Row(fact, request, body, error.status, error, sent or {}, headers)


ROWS: Final[list[Row]] = [
    Row(
        "an invocation",
        PLAIN,
        {"a": 1},
        200,
        {"a": 1},
        {},
        {
            "x-amz-executed-version": "$LATEST",
            "x-amzn-requestid": UUID,
            "x-amzn-trace-id": TRACE,
            "x-amzn-remapped-content-length": "0",
            "x-amz-function-error": None,
            "x-amz-log-result": None,
        },
    ),
    Row("no event is an empty one", PLAIN, None, 200, {}, _as("RequestResponse")),
    Row(
        "a version", f"{PLAIN.replace('plain', 'staged')}?Qualifier=1", {}, 200, {}, {}, {"x-amz-executed-version": "1"}
    ),
    Row(
        "an alias shows the version",
        f"{PLAIN.replace('plain', 'staged')}?Qualifier=live",
        {},
        200,
        {},
        {},
        {"x-amz-executed-version": "1"},
    ),
    Row("the log", PLAIN, {}, 200, {}, {"X-Amz-Log-Type": "Tail"}, {"x-amz-log-result": re.compile("[A-Za-z0-9+/=]+")}),
    Row(
        "an event for later",
        PLAIN,
        {},
        202,
        None,
        {**_as("Event"), "X-Amz-Log-Type": "Tail"},
        {"x-amz-executed-version": None, "x-amz-log-result": None},
    ),
    Row("a dry run", PLAIN, {}, 204, None, _as("DryRun"), {"x-amz-executed-version": None}),
    Row("the old way", "POST /2014-11-13/functions/plain/invoke-async", {}, 202, None),
    _refused(
        "an invocation type that is none",
        constraint("'Later' at 'invocationType': Member must satisfy enum value set: [Event, RequestResponse, DryRun]"),
        sent=_as("Later"),
    ),
    _refused(
        "a log type that is none",
        constraint("'All' at 'logType': Member must satisfy enum value set: [None, Tail]"),
        sent={"X-Amz-Log-Type": "All"},
    ),
    _refused(
        "no JSON",
        Error(
            "InvalidRequestContent",
            f"{NOT_JSON}Unexpected character ((CTRL-CHAR, code 153)): {EXPECTED}{SOURCE}3]",
        ),
        b"  \x99",
    ),
    _refused(
        "a dry run of no JSON",
        Error("InvalidRequestContent", re.compile(f"(?s){re.escape(NOT_JSON)}.+")),
        b"{",
        _as("DryRun"),
    ),
    _refused(
        "no JSON for later",
        Error("InvalidRequestContent", re.compile(f"(?s){re.escape(NOT_JSON)}.+")),
        b"{",
        _as("Event"),
    ),
    _refused(
        "a dry run of no function",
        missing(f"Function not found: {FUNCTION}:nowhere:$LATEST"),
        sent=_as("DryRun"),
        request=f"POST {FUNCTIONS}/nowhere/invocations",
    ),
    _refused(
        "no function for later",
        missing(f"Function not found: {FUNCTION}:nowhere:$LATEST"),
        sent=_as("Event"),
        request=f"POST {FUNCTIONS}/nowhere/invocations",
    ),
    _refused(
        "too large",
        Error(
            "RequestEntityTooLarge",
            "6291457 byte payload is too large for the RequestResponse invocation type (limit 6291456 bytes)",
        ),
        b'"' + b"x" * 6_291_455 + b'"',
    ),
    _refused(
        "too large for later",
        Error(
            "RequestEntityTooLarge",
            "1048577 byte payload is too large for the Event invocation type (limit 1048576 bytes)",
        ),
        b'"' + b"x" * 1_048_575 + b'"',
        _as("Event"),
    ),
    _refused(
        "a request id that is none", Error("InvalidRequestContent", re.compile(".+")), sent={"x-amzn-RequestId": "me"}
    ),
    _refused("a tenant of a function without", invalid(re.compile(".+")), sent={"X-Amz-Tenant-Id": "t"}),
    _refused("no tenant of a function with", invalid(re.compile(".+")), request=f"POST {FUNCTIONS}/shared/invocations"),
]


@staged
def before(daemon: RunningDaemon) -> None:
    set_up(daemon)
    ask(daemon, f"POST {FUNCTIONS}", creation("shared", TenancyConfig={"TenantIsolationMode": "PER_TENANT"}))
    daemon.settle("shared")


test_invocations = unchanging(ROWS)
