"""What the service was seen to answer about reserved and provisioned concurrency, and the account's settings."""

from __future__ import annotations

import itertools
import time
from typing import Any, Final

from daemon_running import RunningDaemon
from recorded_answers import (
    ANY,
    FUNCTION,
    FUNCTIONS,
    OTHER_ZIP,
    SECONDS,
    Differs,
    Error,
    Has,
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
    set_up,
    staged,
    unchanging,
)
from waiting import WAIT_SECONDS, await_that

RESERVED: Final = "/2017-10-31/functions"
READ: Final = "/2019-09-30/functions"
STAGED: Final = f"{READ}/staged/provisioned-concurrency"
ONLY_FUNCTIONS: Final = invalid(
    "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please"
    " specify either a function name or an unqualified function ARN."
)
NOTHING: Final = Error(
    "ProvisionedConcurrencyConfigNotFound", "No Provisioned Concurrency Config found for this function"
)
UNPUBLISHED: Final = invalid("The function resource provided must be an alias or a published version.")
BELOW_MINIMUM: Final = (
    "Specified {} for function decreases account's UnreservedConcurrentExecution below its minimum value of [100]."
)
ONE: Final = {"ProvisionedConcurrentExecutions": 1}


def _reserve(fact: str, error: Error, wanted: Any, name: str = "plain") -> Row:
    return refusal(fact, f"PUT {RESERVED}/{name}/concurrency", error, {"ReservedConcurrentExecutions": wanted})


def _provision(fact: str, error: Error, qualifier: str, wanted: Any = 1, name: str = "staged") -> Row:
    request = f"PUT {READ}/{name}/provisioned-concurrency?Qualifier={qualifier}"
    return refusal(fact, request, error, {"ProvisionedConcurrentExecutions": wanted})


# `held` has 5 reserved, of which its version 1 has 2 provisioned; `pointed` has an alias with 1 provisioned.
REFUSED: Final[list[Row]] = [
    _reserve("an alias has no reservation", ONLY_FUNCTIONS, 1, "staged:live"),
    _reserve("a version has no reservation", ONLY_FUNCTIONS, 1, locator(f"{FUNCTION}:staged:1")),
    refusal("none is read of an alias", f"GET {READ}/staged:live/concurrency", ONLY_FUNCTIONS),
    refusal("none is deleted of an alias", f"DELETE {RESERVED}/staged:live/concurrency", ONLY_FUNCTIONS),
    _reserve(
        "less than the account must keep",
        invalid(BELOW_MINIMUM.format("ReservedConcurrentExecutions"), typed=False),
        895,
    ),
    _reserve(
        "a number beyond 32 bits is a large one",
        invalid(BELOW_MINIMUM.format("ReservedConcurrentExecutions"), typed=False),
        1e300,
    ),
    _reserve(
        "less than what is provisioned",
        invalid(
            " ReservedConcurrentExecutions  1 should not be lower than function's total provisioned concurrency [2].",
            typed=False,
        ),
        1,
        "held",
    ),
    _reserve(
        "a negative number",
        constraint("'-1' at 'reservedConcurrentExecutions': Member must have value greater than or equal to 0"),
        -1,
    ),
    _reserve(
        "a negative fraction is cut first",
        constraint("'-1' at 'reservedConcurrentExecutions': Member must have value greater than or equal to 0"),
        -1.9,
    ),
    refusal(
        "no number",
        f"PUT {RESERVED}/plain/concurrency",
        constraint("null at 'reservedConcurrentExecutions': Member must not be null"),
        {},
    ),
    refusal(
        "GetFunctionConcurrency of no function",
        f"GET {READ}/nowhere/concurrency",
        missing(f"Function not found: {FUNCTION}:nowhere"),
    ),
    _provision(
        "$LATEST cannot have any",
        invalid("Provisioned Concurrency Configs cannot be applied to unpublished function versions."),
        "$LATEST",
    ),
    refusal("$LATEST has none to read", f"GET {STAGED}?Qualifier=$LATEST", UNPUBLISHED),
    refusal("$LATEST has none to delete", f"DELETE {STAGED}?Qualifier=$LATEST", UNPUBLISHED),
    _provision(
        "none at all",
        constraint("'0' at 'provisionedConcurrentExecutions': Member must have value greater than or equal to 1"),
        "1",
        0,
    ),
    refusal(
        "a qualifier must be given", f"PUT {STAGED}", constraint("null at 'qualifier': Member must not be null"), ONE
    ),
    refusal("a version without", f"GET {STAGED}?Qualifier=1", NOTHING),
    refusal("an alias without", f"GET {STAGED}?Qualifier=live", NOTHING),
    _provision("an alias that is not there", missing(f"Cannot find alias arn: {FUNCTION}:staged:gone"), "gone"),
    refusal(
        "an alias that is not there, read",
        f"GET {STAGED}?Qualifier=gone",
        missing(f"Cannot find alias arn: {FUNCTION}:staged:gone"),
    ),
    _provision("a version that is not there", missing(f"Function not found: {FUNCTION}:staged:77"), "77"),
    _provision(
        "more than is reserved",
        invalid(
            "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
        ),
        "1",
        6,
        "held",
    ),
    _provision(
        "more than there is",
        invalid(
            "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [994].",
            typed=False,
        ),
        "1",
        995,
    ),
    _provision("more than the account can spare", invalid(BELOW_MINIMUM.format("ConcurrentExecutions")), "1", 895),
    _provision(
        "an alias of a version that has its own",
        conflict("Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"),
        "live",
        name="held",
    ),
    _provision(
        "a version behind an alias that has its own",
        conflict("Version is pointed by a Provisioned Concurrency alias"),
        "1",
        name="pointed",
    ),
]


def _config(wanted: int, there: int, status: str) -> dict[str, Any]:
    return {
        "RequestedProvisionedConcurrentExecutions": wanted,
        "AvailableProvisionedConcurrentExecutions": there,
        "AllocatedProvisionedConcurrentExecutions": there,
        "Status": status,
        "LastModified": SECONDS,
    }


HARMLESS: Final[list[Row]] = [
    ok("no reservation", f"GET {READ}/plain/concurrency", 200, {}),
    ok("a reservation", f"GET {READ}/held/concurrency", 200, {"ReservedConcurrentExecutions": 5}),
    ok("no reservation to delete", f"DELETE {RESERVED}/plain/concurrency", 204),
    ok("at the plain name", f"GET {FUNCTIONS}/held", 200, Has({"Concurrency": {"ReservedConcurrentExecutions": 5}})),
    *(
        ok(f"not at {qualifier}", f"GET {FUNCTIONS}/held?Qualifier={qualifier}", 200, Has({}, without=("Concurrency",)))
        for qualifier in ("$LATEST", "1", "live")
    ),
    ok(
        "the same again",
        f"PUT {RESERVED}/held/concurrency",
        200,
        {"ReservedConcurrentExecutions": 5},
        {"ReservedConcurrentExecutions": 5},
    ),
    ok(
        "a fraction is cut",
        f"PUT {RESERVED}/held/concurrency",
        200,
        {"ReservedConcurrentExecutions": 5},
        {"ReservedConcurrentExecutions": 5.99},
    ),
    ok("allocated", f"GET {READ}/held/provisioned-concurrency?Qualifier=1", 200, _config(2, 2, "READY")),
    ok("nothing to delete", f"DELETE {STAGED}?Qualifier=1", 204),
    ok(
        "listed by qualified ARN",
        f"GET {READ}/held/provisioned-concurrency?List=ALL",
        200,
        {"ProvisionedConcurrencyConfigs": [{"FunctionArn": f"{FUNCTION}:held:1", **_config(2, 2, "READY")}]},
    ),
    ok("none to list", f"GET {STAGED}?List=ALL", 200, {"ProvisionedConcurrencyConfigs": []}),
    ok(
        "the account",
        "GET /2016-08-19/account-settings",
        200,
        {
            "AccountLimit": {
                "TotalCodeSize": 322122547200,
                "CodeSizeUnzipped": 262144000,
                "CodeSizeZipped": 52428800,
                "ConcurrentExecutions": 1000,
                "UnreservedConcurrentExecutions": 994,
                "UnreservedConcurrentExecutionsMinimum": None,
            },
            "AccountUsage": {"TotalCodeSize": Keep("bytes"), "FunctionCount": 4},
            "AccountRuntimeConfig": None,
            "BlacklistedFeatures": None,
            "DeprecatedFeaturesAccess": None,
            "HasFunctionWithDeprecatedRuntime": False,
            "PreviewFeatures": None,
        },
    ),
]

OWN: Final = f"{READ}/fresh/provisioned-concurrency"
LIFE: Final[list[Row]] = [
    ok(
        "a revision",
        f"GET {FUNCTIONS}/fresh/configuration",
        200,
        Has({"RevisionId": Keep("latest"), "LastModified": Keep("time")}),
    ),
    ok(
        "off",
        f"PUT {RESERVED}/fresh/concurrency",
        200,
        {"ReservedConcurrentExecutions": 0},
        {"ReservedConcurrentExecutions": 0},
    ),
    ok(
        "another revision, no other time",
        f"GET {FUNCTIONS}/fresh/configuration",
        200,
        Has({"RevisionId": Keep("latest", Differs("latest")), "LastModified": "<<time>>"}),
    ),
    refusal(
        "every invocation is throttled",
        f"POST {FUNCTIONS}/fresh/invocations",
        Error(
            "TooManyRequests",
            "Rate Exceeded.",
            fields={"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"},
        ),
        {},
    ),
    ok("deletion", f"DELETE {RESERVED}/fresh/concurrency", 204),
    ok(
        "gives another",
        f"GET {FUNCTIONS}/fresh/configuration",
        200,
        Has({"RevisionId": Keep("latest", Differs("latest"))}),
    ),
    ok("a second one", f"DELETE {RESERVED}/fresh/concurrency", 204),
    ok("does not", f"GET {FUNCTIONS}/fresh/configuration", 200, Has({"RevisionId": "<<latest>>"})),
    ok("is unset", f"GET {READ}/fresh/concurrency", 200, {}),
    ok("a version", f"POST {FUNCTIONS}/fresh/versions", 201, Has({"Version": "1"}), {}),
    ok("an alias", f"POST {FUNCTIONS}/fresh/aliases", 201, Has({}), {"Name": "live", "FunctionVersion": "1"}),
    ok(
        "allocation begins",
        f"PUT {OWN}?Qualifier=live",
        202,
        _config(2, 0, "IN_PROGRESS"),
        {"ProvisionedConcurrentExecutions": 2},
    ),
    ok(
        "it is listed by the alias",
        f"GET {OWN}?List=ALL",
        200,
        {"ProvisionedConcurrencyConfigs": [Has({"FunctionArn": f"{FUNCTION}:fresh:live"})]},
    ),
    ok("another code", f"PUT {FUNCTIONS}/fresh/code", 200, ANY, {"ZipFile": OTHER_ZIP}),
]

KEPT: Final = ok("allocated anew, the old kept", f"GET {OWN}?Qualifier=live", 200, _config(2, 2, "IN_PROGRESS"))
MOVED: Final[list[Row]] = [
    ok("another version", f"POST {FUNCTIONS}/fresh/versions", 201, Has({"Version": "2"}), {}),
    ok("deletion of the alias", f"DELETE {FUNCTIONS}/fresh/aliases/live", 204),
    ok("deletes it", f"GET {OWN}?List=ALL", 200, {"ProvisionedConcurrencyConfigs": []}),
    ok("for a version", f"PUT {OWN}?Qualifier=1", 202, ANY, ONE),
    ok("is deleted", f"DELETE {OWN}?Qualifier=1", 204),
    refusal("and gone", f"GET {OWN}?Qualifier=1", NOTHING),
]


@staged
def before(daemon: RunningDaemon) -> None:
    set_up(daemon)
    for name in ("held", "pointed"):
        ask(daemon, f"POST {FUNCTIONS}", creation(name))
        daemon.settle(name)
        ask(daemon, f"POST {FUNCTIONS}/{name}/versions", {})
        ask(daemon, f"POST {FUNCTIONS}/{name}/aliases", {"Name": "live", "FunctionVersion": "1"})
    ask(daemon, f"PUT {RESERVED}/held/concurrency", {"ReservedConcurrentExecutions": 5})
    for target, wanted in (
        ("held/provisioned-concurrency?Qualifier=1", 2),
        ("pointed/provisioned-concurrency?Qualifier=live", 1),
    ):
        ask(daemon, f"PUT {READ}/{target}", {"ProvisionedConcurrentExecutions": wanted})
        deadline = time.monotonic() + WAIT_SECONDS
        while ask(daemon, f"GET {READ}/{target}")["Status"] != "READY":
            assert time.monotonic() < deadline


test_refused = unchanging(REFUSED)
test_harmless = unchanging(HARMLESS)


def test_life(daemon: RunningDaemon) -> None:
    ask(daemon, f"POST {FUNCTIONS}", creation("fresh"))
    daemon.settle("fresh")
    script = Script(daemon)
    script.run(LIFE)
    daemon.settle("fresh")
    script.run(MOVED[:1])
    versions = itertools.cycle("21")

    def move() -> None:
        await_that(lambda: ask(daemon, f"GET {OWN}?Qualifier=live")["Status"] == "READY")
        ask(daemon, f"PUT {FUNCTIONS}/fresh/aliases/live", {"FunctionVersion": next(versions)})

    script.run_at_once(move, KEPT)
    script.run(MOVED[1:])
