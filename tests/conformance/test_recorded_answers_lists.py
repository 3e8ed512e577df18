"""Lists by pages while items come and go, markers and page sizes, and requests that go to no or to another operation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from daemon_running import RunningDaemon, running_daemon
from recorded_answers import (
    ANY,
    FUNCTIONS,
    OTHER_ZIP,
    ROLE,
    ZIP,
    Error,
    Has,
    Row,
    Script,
    ask,
    changes_nothing,
    constraint,
    creation,
    everything,
    invalid,
    locator,
    names,
    ok,
    publish,
    refusal,
    set_up,
)
from waiting import await_that

LAYERS: Final = "/2018-10-31/layers"
SIGNING: Final = "/2020-04-22/code-signing-configs"
PROVIDERS: Final = "/2025-11-30/capacity-providers"
MAPPINGS: Final = "/2015-03-31/event-source-mappings"
PUBLISHERS: Final = {
    "SigningProfileVersionArns": ["arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/0123456789"]
}

# name of the list -> target, member with the items, most items that may be asked for, parameters beside
LISTS: Final[dict[str, tuple[str, str, int]]] = {
    "ListFunctions": (FUNCTIONS, "Functions", 10_000),
    "ListVersionsByFunction": (f"{FUNCTIONS}/staged/versions", "Versions", 10_000),
    "ListAliases": (f"{FUNCTIONS}/staged/aliases", "Aliases", 10_000),
    "ListFunctionUrlConfigs": ("/2021-10-31/functions/staged/urls", "FunctionUrlConfigs", 50),
    "ListFunctionEventInvokeConfigs": (
        "/2019-09-25/functions/staged/event-invoke-config/list",
        "FunctionEventInvokeConfigs",
        50,
    ),
    "ListProvisionedConcurrencyConfigs": (
        "/2019-09-30/functions/staged/provisioned-concurrency?List=ALL",
        "ProvisionedConcurrencyConfigs",
        50,
    ),
    "ListLayers": (LAYERS, "Layers", 50),
    "ListLayerVersions": (f"{LAYERS}/held/versions", "LayerVersions", 50),
    "ListEventSourceMappings": (MAPPINGS, "EventSourceMappings", 10_000),
    "ListCodeSigningConfigs": (SIGNING, "CodeSigningConfigs", 10_000),
    "ListFunctionsByCodeSigningConfig": (f"{SIGNING}/<<csc>>/functions", "FunctionArns", 10_000),
    "ListCapacityProviders": (PROVIDERS, "CapacityProviders", 50),
    "ListFunctionVersionsByCapacityProvider": (f"{PROVIDERS}/held/function-versions", "FunctionVersions", 50),
    "ListDurableExecutionsByFunction": (
        "/2025-12-01/functions/staged/durable-executions",
        "DurableExecutions",
        1000,
    ),
}


def _asked(target: str, query: str) -> str:
    return f"GET {target}{'&' if '?' in target else '?'}{query}"


def _bounds(name: str) -> Iterator[Row]:
    target, member, most = LISTS[name]
    least = "0' at 'maxItems': Member must have value greater than or equal to 1"
    if name != "ListDurableExecutionsByFunction":
        yield refusal(f"{name}, none", _asked(target, "MaxItems=0"), constraint(f"'{least}"))
    yield refusal(
        f"{name}, too many",
        _asked(target, f"MaxItems={most + 1}"),
        constraint(f"'{most + 1}' at 'maxItems': Member must have value less than or equal to {most}"),
    )
    yield ok(f"{name}, many", _asked(target, f"MaxItems={most}"), 200, Has({member: ANY}, without=("NextMarker",)))
    for garbage in ("x", "YWZ0ZXI6", "%00", "\N{SNOWMAN}", "A" * 5000):
        if garbage != "YWZ0ZXI6":
            yield refusal(
                f"{name}, marker {garbage[:5]}", _asked(target, f"Marker={locator(garbage)}"), invalid("Invalid marker")
            )
    yield ok(f"{name}, no marker", _asked(target, "Marker="), 200, Has({member: ANY}))


BOUNDS: Final[list[Row]] = [row for name in LISTS for row in _bounds(name)]

ROUTES: Final[list[Row]] = [
    *(
        refusal(
            f"{method} {target}",
            f"{method} {target}",
            Error("UnknownOperation", f"The Lambda API has no operation at {method} {target}"),
        )
        for method, target in (
            ("PATCH", f"{FUNCTIONS}/staged"),
            ("POST", f"{FUNCTIONS}/staged"),
            ("DELETE", FUNCTIONS),
            ("PUT", f"{FUNCTIONS}/staged/versions"),
            ("GET", "/2015-03-31/function"),
            ("GET", "/2016-08-19/functions"),
            ("GET", f"{FUNCTIONS}/staged/aliases/live/more"),
        )
    ),
    ok("a slash at the end", f"GET {FUNCTIONS}/", 200, Has({"Functions": ANY})),
    ok("a slash after a name", f"GET {FUNCTIONS}/staged/", 200, Has({"Configuration": ANY})),
    ok(
        "parameters that nobody knows",
        f"GET {FUNCTIONS}/staged?Unknown=1&Qualifier=1",
        200,
        Has({"Configuration": Has({"Version": "1"})}),
    ),
    refusal(
        "versions of functions that are none",
        f"GET {FUNCTIONS}?FunctionVersion=x",
        constraint("'x' at 'functionVersion': Member must satisfy enum value set: [ALL]"),
    ),
    refusal("a size that is no number", f"GET {FUNCTIONS}?MaxItems=x", Error("Serialization", re.compile(".+"))),
    ok("layers, whatever is to be found", f"GET {LAYERS}?find=Other", 200, {"Layers": ANY}),
    refusal(
        "a layer version to be found, but which?",
        f"GET {LAYERS}?find=LayerVersion",
        constraint("null at 'arn': Member must not be null"),
    ),
    refusal(
        "not all configurations, but which?",
        "GET /2019-09-30/functions/staged/provisioned-concurrency?List=SOME",
        constraint("null at 'qualifier': Member must not be null"),
    ),
    refusal(
        "a body that is no JSON",
        f"PUT {FUNCTIONS}/staged/configuration",
        Error("Serialization", re.compile(".+")),
        b"{",
    ),
    refusal(
        "a body that is no structure",
        f"PUT {FUNCTIONS}/staged/configuration",
        Error("Serialization", re.compile(".+")),
        b"[]",
    ),
    refusal(
        "a member of another type",
        f"PUT {FUNCTIONS}/staged/configuration",
        Error("Serialization", re.compile(".+")),
        {"Timeout": "5"},
    ),
]


# ---- items that come and go -----------------------------------------------------------------------


@dataclass
class Series:
    """How items of a list are made and taken away, and what tells them apart."""

    target: str
    member: str
    key: str
    make: Callable[[RunningDaemon, int], Any]
    remove: Callable[[str], str]  # the request, from the key
    setup: Callable[[RunningDaemon], Any] = lambda daemon: None


def _aliased(daemon: RunningDaemon) -> None:
    _unaliased(daemon)
    for number in range(7):
        ask(daemon, f"POST {FUNCTIONS}/series/aliases", {"Name": f"s{number}", "FunctionVersion": "1"})


def _unaliased(daemon: RunningDaemon) -> None:
    for alias in ask(daemon, f"GET {FUNCTIONS}/series/aliases")["Aliases"]:
        ask(daemon, f"DELETE {FUNCTIONS}/series/aliases/{alias['Name']}")


def _version(daemon: RunningDaemon, number: int) -> str:
    ask(daemon, f"PUT {FUNCTIONS}/series/code", {"ZipFile": OTHER_ZIP if number % 2 else ZIP})
    daemon.settle("series")
    return publish(daemon, "series")


def _last(arn: str) -> str:
    return arn.rpartition(":")[2]


PROVIDER: Final = {
    "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
    "PermissionsConfig": {"CapacityProviderOperatorRoleArn": ROLE},
}

SERIES: Final[dict[str, Series]] = {
    "functions": Series(
        FUNCTIONS,
        "Functions",
        "FunctionName",
        lambda daemon, number: ask(daemon, f"POST {FUNCTIONS}", creation(f"s{number}")),
        lambda name: f"DELETE {FUNCTIONS}/{name}",
    ),
    "aliases": Series(
        f"{FUNCTIONS}/series/aliases",
        "Aliases",
        "Name",
        lambda daemon, number: ask(
            daemon, f"POST {FUNCTIONS}/series/aliases", {"Name": f"s{number}", "FunctionVersion": "1"}
        ),
        lambda name: f"DELETE {FUNCTIONS}/series/aliases/{name}",
        _unaliased,
    ),
    "versions": Series(
        f"{FUNCTIONS}/series/versions",
        "Versions",
        "Version",
        _version,
        lambda version: f"DELETE {FUNCTIONS}/series?Qualifier={version}",
        _unaliased,
    ),
    "urls": Series(
        "/2021-10-31/functions/series/urls",
        "FunctionUrlConfigs",
        "FunctionArn",
        lambda daemon, number: ask(
            daemon, f"POST /2021-10-31/functions/series/url?Qualifier=s{number}", {"AuthType": "NONE"}
        ),
        lambda arn: f"DELETE /2021-10-31/functions/series/url?Qualifier={_last(arn)}",
        _aliased,
    ),
    "event invoke configurations": Series(
        "/2019-09-25/functions/series/event-invoke-config/list",
        "FunctionEventInvokeConfigs",
        "FunctionArn",
        lambda daemon, number: ask(
            daemon,
            f"PUT /2019-09-25/functions/series/event-invoke-config?Qualifier=s{number}",
            {"MaximumRetryAttempts": 1},
        ),
        lambda arn: f"DELETE /2019-09-25/functions/series/event-invoke-config?Qualifier={_last(arn)}",
        _aliased,
    ),
    "provisioned concurrency": Series(
        "/2019-09-30/functions/series/provisioned-concurrency?List=ALL",
        "ProvisionedConcurrencyConfigs",
        "FunctionArn",
        lambda daemon, number: ask(
            daemon,
            f"PUT /2019-09-30/functions/series/provisioned-concurrency?Qualifier={_version(daemon, number)}",
            {"ProvisionedConcurrentExecutions": 1},
        ),
        lambda arn: f"DELETE /2019-09-30/functions/series/provisioned-concurrency?Qualifier={_last(arn)}",
    ),
    "layers": Series(
        LAYERS,
        "Layers",
        "LayerName",
        lambda daemon, number: ask(daemon, f"POST {LAYERS}/s{number}/versions", {"Content": {"ZipFile": ZIP}}),
        lambda name: f"DELETE {LAYERS}/{name}/versions/1",
    ),
    "layer versions": Series(
        f"{LAYERS}/series/versions",
        "LayerVersions",
        "Version",
        lambda daemon, number: ask(daemon, f"POST {LAYERS}/series/versions", {"Content": {"ZipFile": ZIP}}),
        lambda version: f"DELETE {LAYERS}/series/versions/{version}",
    ),
    "code signing configurations": Series(
        SIGNING,
        "CodeSigningConfigs",
        "CodeSigningConfigArn",
        lambda daemon, number: ask(daemon, f"POST {SIGNING}", {"AllowedPublishers": PUBLISHERS}),
        lambda arn: f"DELETE {SIGNING}/{locator(arn)}",
    ),
    "capacity providers": Series(
        PROVIDERS,
        "CapacityProviders",
        "CapacityProviderArn",
        lambda daemon, number: ask(daemon, f"POST {PROVIDERS}", {"CapacityProviderName": f"s{number}", **PROVIDER}),
        lambda arn: f"DELETE {PROVIDERS}/{_last(arn)}",
    ),
    "event source mappings": Series(
        MAPPINGS,
        "EventSourceMappings",
        "UUID",
        lambda daemon, number: ask(
            daemon,
            f"POST {MAPPINGS}",
            {
                "FunctionName": "series",
                "EventSourceArn": f"arn:aws:sqs:us-east-1:000000000000:q{number}",
                "Enabled": False,
            },
        ),
        lambda uuid: f"DELETE {MAPPINGS}/{uuid}",
    ),
}


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """It warns of mappings that are not read from yet."""
    with running_daemon(complains=True) as running:
        yield running


@pytest.fixture(scope="module")
def script(daemon: RunningDaemon) -> Script:
    set_up(daemon)
    ask(daemon, f"POST {LAYERS}/held/versions", {"Content": {"ZipFile": ZIP}})
    ask(daemon, f"POST {PROVIDERS}", {"CapacityProviderName": "held", **PROVIDER})
    script = Script(daemon)
    config = ask(daemon, f"POST {SIGNING}", {"AllowedPublishers": PUBLISHERS})
    script.kept["csc"] = config["CodeSigningConfig"]["CodeSigningConfigArn"]
    daemon.deploy("series", "def handler(event, context):\n    return event\n")
    publish(daemon, "series")
    return script


@pytest.mark.parametrize("row", BOUNDS, ids=names(BOUNDS))
def test_bounds(script: Script, row: Row) -> None:
    script.run([row])


@pytest.mark.parametrize("row", ROUTES, ids=names(ROUTES))
def test_routes(daemon: RunningDaemon, script: Script, row: Row) -> None:
    changes_nothing(daemon, everything(daemon), row)


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize("name", SERIES)
def test_items_come_and_go(daemon: RunningDaemon, name: str) -> None:
    """What is there all the while is listed once, in order, whatever happens between two pages."""
    series = SERIES[name]
    series.setup(daemon)

    def page(query: str) -> tuple[list[str], str | None]:
        answer = ask(daemon, _asked(series.target, query))
        return [str(item[series.key]) for item in answer[series.member]], answer.get("NextMarker")

    for number in range(5):
        series.make(daemon, number)
    before, end = page("")
    assert len(before) >= 5
    assert end is None
    first, marker = page("MaxItems=1")
    assert first == before[:1]
    walked = list(first)
    while len(walked) < len(before) - 3:
        items, marker = page(f"MaxItems=1&Marker={marker}")
        walked += items
    assert walked == before[:-3]
    gone = {walked[-1], before[-3]}  # after which the next page begins, and what would be on it
    for item in gone:
        ask(daemon, series.remove(item))
    await_that(lambda: gone.isdisjoint(page("")[0]))  # some deletions take a moment
    series.make(daemon, 5)
    rest: list[str] = []
    while marker is not None:
        items, marker = page(f"MaxItems=1&Marker={marker}")
        assert len(items) <= 1
        rest += items
    assert [item for item in rest if item in before] == before[-2:]
    assert len(set(rest)) == len(rest)
    after, _ = page("")
    for item in after:
        if item not in ("$LATEST", "staged", "plain", "series", "held", "1"):
            method, _, target = series.remove(item).partition(" ")
            daemon.send(method, target)
