"""What the service was seen to answer about versions, aliases, and the revisions of both."""

from __future__ import annotations

import re
from typing import Any, Final

from daemon_running import RunningDaemon
from recorded_answers import (
    ANY,
    FUNCTION,
    FUNCTIONS,
    OTHER_ZIP,
    UUID,
    ZIP,
    Differs,
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

ALIASES: Final = f"{FUNCTIONS}/staged/aliases"
STALE: Final = Error(
    "PreconditionFailed",
    "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the"
    " latest Revision Id",
)
NO_STATES: Final = (
    "State",
    "StateReason",
    "StateReasonCode",
    "LastUpdateStatus",
    "LastUpdateStatusReason",
    "LastUpdateStatusReasonCode",
    "RuntimeVersionConfig",
)
ALIAS_PATTERN: Final = "Member must satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)"


def _alias(fact: str, error: Error, name: str = "new", version: str = "1", weights: Any = None, **more: Any) -> Row:
    body = {"Name": name, "FunctionVersion": version, **more}
    if weights is not None:
        body["RoutingConfig"] = {"AdditionalVersionWeights": weights}
    return refusal(fact, f"POST {ALIASES}", error, body)


REFUSED: Final[list[Row]] = [
    refusal(
        "another sum of the code",
        f"POST {FUNCTIONS}/plain/versions",
        Error(
            "InvalidParameterValue",
            re.compile(
                r"CodeSHA256 \(abc\) is different from current CodeSHA256 in \$LATEST \([A-Za-z0-9+/]{43}=\)\. Please try"
                r" again with the CodeSHA256 in \$LATEST\."
            ),
        ),
        {"CodeSha256": "abc"},
    ),
    refusal("a stale revision of what is published", f"POST {FUNCTIONS}/plain/versions", STALE, {"RevisionId": "0"}),
    refusal("a stale revision of an alias", f"PUT {ALIASES}/live", STALE, {"RevisionId": "0", "Description": "d"}),
    _alias(
        "two weights",
        invalid("Number of items in AdditionalVersionWeights cannot be greater than 1"),
        weights={"1": 0.1, "2": 0.2},
    ),
    _alias(
        "a weight for the same version",
        invalid("Invalid function version 1. Function version 1 is already included in routing configuration."),
        weights={"1": 0.1},
    ),
    _alias(
        "weights beside $LATEST",
        invalid("$LATEST is not supported for an alias pointing to more than 1 version", typed=False),
        version="$LATEST",
        weights={"1": 0.1},
    ),
    _alias(
        "a weight for $LATEST",
        constraint(
            "'{$LATEST=0.5}' at 'routingConfig.additionalVersionWeights': Map keys must satisfy constraint: [Member must"
            " have length less than or equal to 1024, Member must have length greater than or equal to 1, Member must"
            " satisfy regular expression pattern: [0-9]+]"
        ),
        weights={"$LATEST": 0.5},
    ),
    _alias(
        "a weight beyond 1",
        constraint(
            "'{2=2.0}' at 'routingConfig.additionalVersionWeights': Map value must satisfy constraint: [Member must have"
            " value less than or equal to 1.0, Member must have value greater than or equal to 0.0, Member must not be"
            " null]"
        ),
        weights={"2": 2},
    ),
    _alias("a version that is not there", missing(f"Function not found: {FUNCTION}:staged:77"), version="77"),
    _alias("a weight for what is not there", missing(f"Function not found: {FUNCTION}:staged:77"), weights={"77": 0.1}),
    _alias("a second alias of one name", conflict(f"Alias already exists: {FUNCTION}:staged:live"), name="live"),
    _alias("a name of digits alone", constraint(f"'123' at 'name': {ALIAS_PATTERN}"), name="123"),
    _alias("a name that is none", constraint(f"'a.b' at 'name': {ALIAS_PATTERN}"), name="a.b"),
    _alias(
        "a name of 129 characters",
        constraint(f"'{'n' * 129}' at 'name': Member must have length less than or equal to 128"),
        name="n" * 129,
    ),
    refusal(
        "an alias of no function",
        f"POST {FUNCTIONS}/nowhere/aliases",
        missing(f"Function not found: {FUNCTION}:nowhere:1"),
        {"Name": "new", "FunctionVersion": "1"},
    ),
    refusal(
        "moved to a version that is not there",
        f"PUT {ALIASES}/live",
        missing(f"Function not found: {FUNCTION}:staged:77"),
        {"FunctionVersion": "77"},
    ),
    refusal(
        "moved to $LATEST with routing",
        f"PUT {ALIASES}/split",
        invalid("$LATEST is not supported for an alias pointing to more than 1 version", typed=False),
        {"FunctionVersion": "$LATEST"},
    ),
    refusal(
        "ListAliases of a version that is none",
        f"GET {ALIASES}?FunctionVersion=x",
        constraint(
            r"'x' at 'functionVersion': Member must satisfy regular expression pattern: (\$LATEST(\.PUBLISHED)?|[0-9]+)"
        ),
    ),
    refusal(
        "GetAlias of no function",
        f"GET {FUNCTIONS}/nowhere/aliases/live",
        missing(f"Cannot find alias arn: {FUNCTION}:nowhere:live"),
    ),
]

LIVE: Final = {
    "AliasArn": f"{FUNCTION}:staged:live",
    "Name": "live",
    "FunctionVersion": "1",
    "Description": "",
    "RevisionId": UUID,
}
SPLIT: Final = {
    "AliasArn": f"{FUNCTION}:staged:split",
    "Name": "split",
    "FunctionVersion": "1",
    "Description": "",
    "RevisionId": UUID,
    "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.25}},
}

HARMLESS: Final[list[Row]] = [
    ok("an alias without routing", f"GET {ALIASES}/live", 200, LIVE),
    ok("an alias with routing", f"GET {ALIASES}/split", 200, SPLIT),
    ok("by an ARN", f"GET {FUNCTIONS}/{locator(f'{FUNCTION}:staged')}/aliases/live", 200, LIVE),
    ok("aliases by name", f"GET {ALIASES}", 200, {"Aliases": [LIVE, SPLIT]}),
    ok("aliases of a version", f"GET {ALIASES}?FunctionVersion=1", 200, {"Aliases": [LIVE, SPLIT]}),
    ok("aliases of $LATEST", f"GET {ALIASES}?FunctionVersion=$LATEST", 200, {"Aliases": []}),
    ok("a function without aliases", f"GET {FUNCTIONS}/plain/aliases", 200, {"Aliases": []}),
    ok("an alias that never was is deleted", f"DELETE {ALIASES}/gone", 204),
    ok(
        "versions: $LATEST, then ascending, without states",
        f"GET {FUNCTIONS}/staged/versions",
        200,
        {
            "Versions": [
                Has({"FunctionArn": f"{FUNCTION}:staged:{version}", "Version": version}, without=NO_STATES)
                for version in ("$LATEST", "1", "2")
            ]
        },
    ),
    ok(
        "a function that was never published has one version",
        f"GET {FUNCTIONS}/plain/versions",
        200,
        {"Versions": [Has({"FunctionArn": f"{FUNCTION}:plain:$LATEST"})]},
    ),
]

LIFE: Final[list[list[Row]]] = [
    [
        ok(
            "an empty list of architectures is the default one",
            f"POST {FUNCTIONS}",
            201,
            Has({"Architectures": ["x86_64"], "Description": "mine"}),
            creation("fresh", Architectures=[], Description="mine"),
        )
    ],
    [
        ok("a revision", f"GET {FUNCTIONS}/fresh/configuration", 200, Has({"RevisionId": Keep("latest")})),
        ok(
            "a version is Active at once and copies the description",
            f"POST {FUNCTIONS}/fresh/versions",
            201,
            Has(
                {
                    "Version": "1",
                    "FunctionArn": f"{FUNCTION}:fresh:1",
                    "State": "Active",
                    "Description": "mine",
                    "RevisionId": Keep("one", Differs("latest")),
                },
                without=("StateReason", "StateReasonCode"),
            ),
            {},
        ),
        ok(
            "publishing changes the revision of $LATEST once",
            f"GET {FUNCTIONS}/fresh/configuration",
            200,
            Has({"RevisionId": Keep("latest", Differs("latest"))}),
        ),
        ok(
            "the same again is the same version",
            f"POST {FUNCTIONS}/fresh/versions",
            201,
            Has({"Version": "1", "RevisionId": "<<one>>", "Description": "mine"}),
            {"Description": "another"},
        ),
        ok(
            "the same version again changes no revision",
            f"GET {FUNCTIONS}/fresh/configuration",
            200,
            Has({"RevisionId": "<<latest>>"}),
        ),
        ok(
            "an alias, with digits in front",
            f"POST {FUNCTIONS}/fresh/aliases",
            201,
            {
                "AliasArn": f"{FUNCTION}:fresh:2024-01-02",
                "Name": "2024-01-02",
                "FunctionVersion": "$LATEST",
                "Description": "",
                "RevisionId": Keep("alias", UUID),
            },
            {"Name": "2024-01-02", "FunctionVersion": "$LATEST"},
        ),
        ok(
            "a new alias changes no revision of $LATEST",
            f"GET {FUNCTIONS}/fresh/configuration",
            200,
            Has({"RevisionId": "<<latest>>"}),
        ),
        ok(
            "an update without change gives an alias another revision",
            f"PUT {FUNCTIONS}/fresh/aliases/2024-01-02",
            200,
            Has({"RevisionId": Keep("alias", Differs("alias")), "FunctionVersion": "$LATEST"}),
            {},
        ),
        ok(
            "with the right revision it goes",
            f"PUT {FUNCTIONS}/fresh/aliases/2024-01-02",
            200,
            Has({"RevisionId": Keep("alias", Differs("alias")), "FunctionVersion": "1", "Description": "é ✓"}),
            {"RevisionId": "<<alias>>", "FunctionVersion": "1", "Description": "é ✓"},
        ),
        ok(
            "reading changes no revision of an alias",
            f"GET {FUNCTIONS}/fresh/aliases/2024-01-02",
            200,
            Has({"RevisionId": "<<alias>>", "Description": "é ✓"}),
        ),
        ok(
            "a description alone is an update",
            f"PUT {FUNCTIONS}/fresh/configuration",
            200,
            Has({"Description": "other", "RevisionId": Keep("latest", Differs("latest"))}),
            {"Description": "other"},
        ),
    ],
    [
        ok("but no reason for a version", f"POST {FUNCTIONS}/fresh/versions", 201, Has({"Version": "1"}), {}),
        ok(
            "other code is",
            f"PUT {FUNCTIONS}/fresh/code",
            200,
            Has({"Version": "$LATEST", "FunctionArn": f"{FUNCTION}:fresh"}),
            {"ZipFile": OTHER_ZIP},
        ),
    ],
    [
        ok("a revision of $LATEST", f"GET {FUNCTIONS}/fresh/configuration", 200, Has({"RevisionId": Keep("latest")})),
        ok(
            "the description is that of the request",
            f"POST {FUNCTIONS}/fresh/versions",
            201,
            Has({"Version": "2", "Description": "second"}),
            {"Description": "second", "RevisionId": "<<latest>>"},
        ),
        ok(
            "the description of $LATEST stays",
            f"GET {FUNCTIONS}/fresh/configuration",
            200,
            Has({"Description": "other", "RevisionId": Keep("latest", Differs("latest"))}),
        ),
        ok(
            "routing",
            f"PUT {FUNCTIONS}/fresh/aliases/2024-01-02",
            200,
            Has({"RoutingConfig": {"AdditionalVersionWeights": {"2": 1.0}}}),
            {"RoutingConfig": {"AdditionalVersionWeights": {"2": 1}}},
        ),
        ok(
            "all go to the additional version, which the answer names by number",
            f"POST {FUNCTIONS}/fresh/invocations?Qualifier=2024-01-02",
            200,
            2,
            {},
        ),
        ok(
            "an empty routing clears it",
            f"PUT {FUNCTIONS}/fresh/aliases/2024-01-02",
            200,
            Has({"FunctionVersion": "1"}, without=("RoutingConfig",)),
            {"RoutingConfig": {}},
        ),
        ok("then the version can be deleted", f"DELETE {FUNCTIONS}/fresh?Qualifier=2", 204),
        ok("and once more", f"DELETE {FUNCTIONS}/fresh?Qualifier=2", 204),
        ok(
            "nothing of $LATEST changes with it",
            f"GET {FUNCTIONS}/fresh",
            200,
            {"Configuration": Has({"RevisionId": "<<latest>>"}), "Code": ANY},
        ),
    ],
    [
        ok("its number never comes again", f"POST {FUNCTIONS}/fresh/versions", 201, Has({"Version": "3"}), {}),
        ok("an alias goes", f"DELETE {FUNCTIONS}/fresh/aliases/2024-01-02", 204),
        ok("other code", f"PUT {FUNCTIONS}/fresh/code", 200, Has({"Version": "$LATEST"}), {"ZipFile": ZIP}),
    ],
]


@staged
def before(daemon: RunningDaemon) -> None:
    set_up(daemon)


test_refused = unchanging(REFUSED)
test_harmless = unchanging(HARMLESS)


def test_life(daemon: RunningDaemon) -> None:
    """Publications and aliases of one function; between the parts it comes to rest."""
    script = Script(daemon)
    for rows in LIFE:
        script.run(rows)
        daemon.settle("fresh")
