"""Aliases as boto3 sees them: shapes and refusals, blue/green, and two writers of which one wins."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from api_server import ARN, ApiServer, create, error_of, refused, wait

MISSING = "ResourceNotFoundException", 404
INVALID = "InvalidParameterValueException", 400
STALE = (
    "PreconditionFailedException",
    412,
    "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the"
    " latest Revision Id",
)


@pytest.fixture
def published(client: Any) -> Any:
    """The client; there is a function with versions 1 and 2."""
    create(client)
    wait(client)
    client.publish_version(FunctionName="hello")
    client.update_function_configuration(FunctionName="hello", Timeout=9)
    wait(client, "function_updated_v2")
    client.publish_version(FunctionName="hello")
    return client


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    answer.pop("ResponseMetadata")
    return answer


def weights(**given: float) -> dict[str, Any]:
    return {"AdditionalVersionWeights": {name[1:]: weight for name, weight in given.items()}}


def aliases(client: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.list_aliases(FunctionName="hello")["Aliases"]
    return found


def test_shapes(published: Any) -> None:
    answer = published.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 201
    created = plain(answer)
    assert created == {
        "AliasArn": f"{ARN}:hello:live",
        "Name": "live",
        "FunctionVersion": "1",
        "Description": "",
        "RevisionId": created["RevisionId"],
    }
    assert plain(published.get_alias(FunctionName="hello", Name="live")) == created
    assert aliases(published) == [created]
    answer = published.update_alias(
        FunctionName="hello",
        Name="live",
        Description="d",
        RoutingConfig=weights(v2=0.1),
        RevisionId=created["RevisionId"],
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    updated = plain(answer)
    assert updated == {
        **created,
        "Description": "d",
        "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.1}},
        "RevisionId": updated["RevisionId"],
    }
    assert updated["RevisionId"] != created["RevisionId"]
    assert plain(published.get_alias(FunctionName="hello", Name="live")) == updated
    for empty in ({}, weights()):
        published.update_alias(FunctionName="hello", Name="live", RoutingConfig=weights(v2=0.1))
        assert "RoutingConfig" not in published.update_alias(FunctionName="hello", Name="live", RoutingConfig=empty)
    answer = published.delete_alias(FunctionName="hello", Name="live")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert aliases(published) == []


def test_names(published: Any) -> None:
    for name in ("2024-01-02", "A_b-9", "x" * 128):
        assert published.create_alias(FunctionName="hello", Name=name, FunctionVersion="1")["Name"] == name
    for name in ("1", "0123", "a b", "a:b", "ä", "x" * 129, "$LATEST", "a.b"):
        error = error_of(published.create_alias, FunctionName="hello", Name=name, FunctionVersion="1")
        assert error.response["Error"]["Code"] == "ValidationException", name
    refused(
        published.create_alias,
        "ValidationException",
        400,
        "1 validation error detected: Value '1' at 'name' failed to satisfy constraint: Member must satisfy regular"
        " expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)",
        FunctionName="hello",
        Name="1",
        FunctionVersion="1",
    )
    assert len(aliases(published)) == 3


def test_refusals(published: Any) -> None:
    create_alias = published.create_alias
    create_alias(FunctionName="hello", Name="there", FunctionVersion="1")
    before = aliases(published)
    given: dict[str, Any] = {"FunctionName": "hello", "Name": "live", "FunctionVersion": "1"}
    cases: list[tuple[str, int, str, dict[str, Any]]] = [
        ("ResourceConflictException", 409, f"Alias already exists: {ARN}:hello:there", {"Name": "there"}),
        (*MISSING, f"Function not found: {ARN}:nope:1", {"FunctionName": "nope"}),
        (*MISSING, f"Function not found: {ARN}:hello:3", {"FunctionVersion": "3"}),
        (
            *INVALID,
            "Number of items in AdditionalVersionWeights cannot be greater than 1",
            {"RoutingConfig": weights(v1=0.1, v2=0.1)},
        ),
        (
            *INVALID,
            "Invalid function version 1. Function version 1 is already included in routing configuration.",
            {"RoutingConfig": weights(v1=0.1)},
        ),
        (*MISSING, f"Function not found: {ARN}:hello:3", {"RoutingConfig": weights(v3=0.1)}),
        (
            "ValidationException",
            400,
            "1 validation error detected: Value '{2=2.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy"
            " constraint: Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must"
            " have value greater than or equal to 0.0, Member must not be null]",
            {"RoutingConfig": weights(v2=2.0)},
        ),
        (
            "ValidationException",
            400,
            "1 validation error detected: Value '{$LATEST=0.5}' at 'routingConfig.additionalVersionWeights' failed to"
            " satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 1024,"
            " Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+]",
            {"RoutingConfig": {"AdditionalVersionWeights": {"$LATEST": 0.5}}},
        ),
    ]
    for code, status, message, more in cases:
        refused(create_alias, code, status, message, **given | more)
    error = refused(
        create_alias,
        *INVALID,
        "$LATEST is not supported for an alias pointing to more than 1 version",
        **given | {"FunctionVersion": "$LATEST", "RoutingConfig": weights(v1=0.5)},
    )
    assert "Type" not in error.response
    for version in ("live", "-1", None):
        error = error_of(create_alias, **given | {"FunctionVersion": version})
        assert error.response["Error"]["Code"] == "ValidationException"
    refused(
        published.get_alias, *MISSING, f"Cannot find alias arn: {ARN}:hello:live", FunctionName="hello", Name="live"
    )
    refused(published.get_alias, *MISSING, f"Cannot find alias arn: {ARN}:nope:live", FunctionName="nope", Name="live")
    refused(published.update_alias, *MISSING, f"Alias not found: {ARN}:hello:live", FunctionName="hello", Name="live")
    refused(published.list_aliases, *MISSING, f"Function not found: {ARN}:nope", FunctionName="nope")
    refused(published.update_alias, *STALE, FunctionName="hello", Name="there", Description="x", RevisionId="stale")
    assert aliases(published) == before
    assert published.delete_alias(FunctionName="hello", Name="live")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert published.delete_alias(FunctionName="nope", Name="live")["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_lists(published: Any) -> None:
    for name, version in (("b", "1"), ("a", "2"), ("c", "$LATEST")):
        published.create_alias(FunctionName="hello", Name=name, FunctionVersion=version)
    published.update_alias(FunctionName="hello", Name="b", RoutingConfig=weights(v2=0.5))

    def names(**more: Any) -> list[str]:
        return [alias["Name"] for alias in published.list_aliases(FunctionName="hello", **more)["Aliases"]]

    assert names() == ["a", "b", "c"]
    assert names(FunctionVersion="2") == ["a", "b"]
    assert names(FunctionVersion="1") == ["b"]
    assert names(FunctionVersion="$LATEST") == ["c"]
    pages = published.get_paginator("list_aliases").paginate(FunctionName="hello", PaginationConfig={"PageSize": 1})
    assert [[alias["Name"] for alias in page["Aliases"]] for page in pages] == [["a"], ["b"], ["c"]]


def test_blue_green_and_back(published: Any) -> None:
    """The way of deployment tools: a weight on the new version, all of it, and back again with one call."""

    def shown() -> tuple[str, dict[str, float]]:
        alias = published.get_alias(FunctionName="hello", Name="live")
        return alias["FunctionVersion"], alias.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})

    published.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    published.update_alias(FunctionName="hello", Name="live", RoutingConfig=weights(v2=0.1))
    assert shown() == ("1", {"2": 0.1})
    assert published.get_function(FunctionName="hello:live")["Configuration"]["Version"] == "1"
    published.update_alias(FunctionName="hello", Name="live", FunctionVersion="2", RoutingConfig={})
    assert shown() == ("2", {})
    published.update_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    assert shown() == ("1", {})
    assert published.get_function(FunctionName="hello:live")["Configuration"]["Version"] == "1"
    published.delete_function(FunctionName="hello:2")


def test_of_two_writers_one_wins(server: ApiServer, published: Any, rng: random.Random) -> None:
    """Both have read the same RevisionId; who comes second is told so and has changed nothing."""
    published.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    clients = [server.client() for _ in range(4)]
    start = threading.Barrier(len(clients))

    def write(number: int, revision: str) -> dict[str, Any] | None:
        given = {"Description": f"by {number}", "RoutingConfig": weights(v2=number / 10) if number else {}}
        start.wait()
        try:
            return plain(clients[number].update_alias(FunctionName="hello", Name="live", RevisionId=revision, **given))
        except ClientError as error:
            assert error.response["Error"]["Code"] == "PreconditionFailedException"
            return None

    with ThreadPoolExecutor(len(clients)) as pool:
        for _ in range(25):
            revision = published.get_alias(FunctionName="hello", Name="live")["RevisionId"]
            order = rng.sample(range(len(clients)), len(clients))
            answers = list(pool.map(write, order, [revision] * len(clients)))
            (winner,) = [answer for answer in answers if answer is not None]
            assert plain(published.get_alias(FunctionName="hello", Name="live")) == winner


def test_writers_without_a_revision(server: ApiServer, published: Any) -> None:
    """Each is answered what it wrote; the last one stays, whole."""
    published.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    written = [{"FunctionVersion": "1", "Description": "one"}, {"FunctionVersion": "2", "Description": "two"}]

    def write(given: dict[str, Any]) -> list[dict[str, Any]]:
        client = server.client()
        return [plain(client.update_alias(FunctionName="hello", Name="live", **given)) for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(write, written))
    for given, own in zip(written, answers, strict=True):
        assert all(given.items() <= answer.items() for answer in own)
    assert len({answer["RevisionId"] for own in answers for answer in own}) == 40
    assert plain(published.get_alias(FunctionName="hello", Name="live")) in (answers[0][-1], answers[1][-1])


def test_one_alias_made_by_many(server: ApiServer, published: Any) -> None:
    def make(_: int) -> str:
        try:
            server.client().create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "made"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(make, range(8))) == ["ResourceConflictException"] * 7 + ["made"]


def test_one_version_published_by_many(server: ApiServer, client: Any) -> None:
    """However many ask at once, the same state is one version."""
    create(client)
    wait(client)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: plain(server.client().publish_version(FunctionName="hello")), range(12)))
    assert all(answer == answers[0] for answer in answers)
    assert [item["Version"] for item in client.list_versions_by_function(FunctionName="hello")["Versions"]] == [
        "$LATEST",
        "1",
    ]
