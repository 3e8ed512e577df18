"""Versions as boto3 sees them: what is answered and listed, whose RevisionId changes when, under which names they go."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from api_server import ARN, ApiServer, api_server, create, error_of, make_zip, refused, wait
from daemon_running import ACCOUNT, REGION

LOCATORS = [
    "hello",
    "function:hello",
    f"{ACCOUNT}:function:hello",
    f"{REGION}:{ACCOUNT}:function:hello",
    f"{ARN}:hello",
]
MISSING = "ResourceNotFoundException", 404
INVALID = "InvalidParameterValueException", 400


def configuration(client: Any, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.get_function_configuration(**{"FunctionName": "hello", **more})
    del found["ResponseMetadata"]
    return found


def revision(client: Any, **more: Any) -> str:
    text: str = configuration(client, **more)["RevisionId"]
    return text


def update(client: Any, **more: Any) -> None:
    """Changes the configuration and waits until that is done."""
    client.update_function_configuration(FunctionName="hello", **more)
    wait(client, "function_updated_v2")


@pytest.fixture
def published(client: Any) -> Any:
    """The client; there is a function with versions 1 and 2, and an alias on each."""
    create(client, Description="latest", Tags={"a": "b"}, Environment={"Variables": {"STAGE": "one"}})
    wait(client)
    client.publish_version(FunctionName="hello")
    update(client, Timeout=9, Environment={"Variables": {"STAGE": "two"}})
    client.publish_version(FunctionName="hello", Description="second")
    for name, version in (("live", "1"), ("next", "2")):
        client.create_alias(FunctionName="hello", Name=name, FunctionVersion=version)
    return client


def test_publish(client: Any) -> None:
    create(client, Description="latest", Tags={"a": "b"})
    wait(client)
    latest = configuration(client)
    answer = client.publish_version(FunctionName="hello", Description="of the version")
    metadata = answer.pop("ResponseMetadata")
    assert metadata["HTTPStatusCode"] == 201
    differs = {
        "FunctionArn": f"{ARN}:hello:1",
        "Version": "1",
        "Description": "of the version",
        "RevisionId": answer["RevisionId"],
        "LastModified": answer["LastModified"],
    }
    assert answer == latest | differs
    assert answer["RevisionId"] != latest["RevisionId"]
    assert (answer["State"], answer["LastUpdateStatus"]) == ("Active", "Successful")
    assert configuration(client, Qualifier="1") == answer
    client.get_waiter("published_version_active").wait(
        FunctionName="hello", Qualifier="1", WaiterConfig={"Delay": 0.02, "MaxAttempts": 300}
    )
    again = client.publish_version(FunctionName="hello", Description="something else")
    assert again.pop("ResponseMetadata")["HTTPStatusCode"] == 201
    assert again == answer


def test_refused_publications(published: Any) -> None:
    publish = published.publish_version
    refused(publish, *MISSING, f"Function not found: {ARN}:nope", FunctionName="nope")
    actual = configuration(published)["CodeSha256"]
    refused(
        publish,
        *INVALID,
        f"CodeSHA256 (x) is different from current CodeSHA256 in $LATEST ({actual}). Please try again with the CodeSHA256"
        " in $LATEST.",
        FunctionName="hello",
        CodeSha256="x",
    )
    refused(
        publish,
        "PreconditionFailedException",
        412,
        "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the"
        " latest Revision Id",
        FunctionName="hello",
        RevisionId="stale",
    )
    error = error_of(publish, FunctionName="hello", Description="x" * 257)
    assert error.response["Error"]["Code"] == "ValidationException"
    assert len(published.list_versions_by_function(FunctionName="hello")["Versions"]) == 3


def test_listed(published: Any) -> None:
    versions = published.list_versions_by_function(FunctionName="hello")["Versions"]
    assert [(item["Version"], item["FunctionArn"]) for item in versions] == [
        (version, f"{ARN}:hello:{version}") for version in ("$LATEST", "1", "2")
    ]
    assert [item["Description"] for item in versions] == ["latest", "latest", "second"]
    assert [item["Timeout"] for item in versions] == [9, 3, 9]
    assert [item["Environment"]["Variables"]["STAGE"] for item in versions] == ["two", "one", "two"]
    for item in versions:
        assert not {name for name in item if name.startswith(("State", "LastUpdate", "RuntimeVersion"))}
    pages = list(
        published.get_paginator("list_versions_by_function").paginate(
            FunctionName="hello", PaginationConfig={"PageSize": 1}
        )
    )
    assert [[item["Version"] for item in page["Versions"]] for page in pages] == [["$LATEST"], ["1"], ["2"]]
    assert "NextMarker" not in pages[-1]
    create(published, name="hello2")
    wait(published, name="hello2")  # what two lists show must not change between them
    every = published.list_functions(FunctionVersion="ALL")["Functions"]
    assert [item["FunctionArn"].removeprefix(f"{ARN}:") for item in every] == [
        "hello:$LATEST",
        "hello:1",
        "hello:2",
        "hello2:$LATEST",
    ]
    pages = list(published.get_paginator("list_functions").paginate(FunctionVersion="ALL", MaxItems=1))
    assert [page["Functions"] for page in pages] == [[item] for item in every]
    refused(published.list_versions_by_function, *MISSING, f"Function not found: {ARN}:nope", FunctionName="nope")
    refused(published.list_versions_by_function, *INVALID, "Invalid marker", FunctionName="hello", Marker="x")


@pytest.mark.parametrize("locator", LOCATORS)
def test_every_locator(published: Any, locator: str) -> None:
    for qualifier, version in (("1", "1"), ("2", "2"), ("live", "1"), ("next", "2"), ("$LATEST", "$LATEST")):
        for asked in (
            {"FunctionName": f"{locator}:{qualifier}"},
            {"FunctionName": locator, "Qualifier": qualifier},
            {"FunctionName": f"{locator}:{qualifier}", "Qualifier": qualifier},
        ):
            got = published.get_function_configuration(**asked)
            # The ARN is that of what was asked for, everything else that of the version behind it.
            assert got["FunctionArn"] == f"{ARN}:hello:{qualifier}"
            assert got["Version"] == version
            assert got["RevisionId"] == revision(published, Qualifier=version)
            assert published.get_function(**asked)["Configuration"]["FunctionArn"] == f"{ARN}:hello:{qualifier}"
    got = published.get_function_configuration(FunctionName=locator)
    assert (got["FunctionArn"], got["Version"]) == (f"{ARN}:hello", "$LATEST")
    assert len(published.list_versions_by_function(FunctionName=locator)["Versions"]) == 3
    assert len(published.list_aliases(FunctionName=locator)["Aliases"]) == 2
    assert published.publish_version(FunctionName=locator)["Version"] == "2"
    assert published.get_alias(FunctionName=locator, Name="live")["FunctionVersion"] == "1"
    published.update_alias(FunctionName=locator, Name="live", FunctionVersion="2")
    created = published.create_alias(FunctionName=locator, Name="third", FunctionVersion="1")
    assert created["AliasArn"] == f"{ARN}:hello:third"
    published.delete_alias(FunctionName=locator, Name="third")
    published.delete_function(FunctionName=f"{locator}:1")
    refused(published.get_function, *MISSING, f"Function not found: {ARN}:hello:1", FunctionName=locator, Qualifier="1")


def test_qualifiers_that_lead_nowhere(published: Any) -> None:
    get = published.get_function
    for qualifier in ("3", "01", "0", "gone", "LIVE", "$LATEST.PUBLISHED"):
        refused(
            get, *MISSING, f"Function not found: {ARN}:hello:{qualifier}", FunctionName="hello", Qualifier=qualifier
        )
    different = "The derived qualifier from the function name does not match the specified qualifier."
    for name, qualifier in (("hello:1", "2"), ("hello:live", "1"), (f"{ARN}:hello:$LATEST", "1")):
        refused(get, *INVALID, different, FunctionName=name, Qualifier=qualifier)
    for name in ("hello:1:2", f"{ARN}:hello:$LATEST:1", "hello:", "hello:a b", "hello:ä", "hello/1", ""):
        error = error_of(published.get_function_configuration, FunctionName=name or " ")
        assert error.response["Error"]["Code"] == "ValidationException", name
    error = error_of(get, FunctionName="hello", Qualifier="x" * 129)
    assert "Member must have length less than or equal to 128" in error.response["Error"]["Message"]
    elsewhere = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:hello"
    message = f"Functions from 'eu-west-1' are not reachable in this region ('{REGION}')"
    for call in (get, published.list_versions_by_function, published.publish_version, published.list_aliases):
        refused(call, *MISSING, message, FunctionName=elsewhere)
    refused(get, *MISSING, message, FunctionName=f"{elsewhere}:live")
    foreign = f"arn:aws:lambda:{REGION}:111122223333:function:hello"
    for call, action in ((get, "GetFunction"), (published.publish_version, "PublishVersion")):
        refused(
            call,
            "AccessDeniedException",
            403,
            f"User: arn:aws:iam::{ACCOUNT}:root is not authorized to perform: lambda:{action} on resource: {foreign}"
            f" because no resource-based policy allows the lambda:{action} action",
            FunctionName=foreign,
        )
    for partition in ("aws-cn", "aws-us-gov"):  # of the same account and region it is the same function
        assert get(FunctionName=f"arn:{partition}:lambda:{REGION}:{ACCOUNT}:function:hello")


def test_code_of_a_version(published: Any) -> None:
    code = make_zip({"app.py": "new"})
    published.update_function_code(FunctionName="hello", ZipFile=code)
    wait(published, "function_updated_v2")
    for qualifier, expected in (({}, code), ({"Qualifier": "1"}, make_zip()), ({"Qualifier": "live"}, make_zip())):
        got = published.get_function(FunctionName="hello", **qualifier)
        with urlopen(got["Code"]["Location"]) as response:
            assert len(response.read()) == len(expected) == got["Configuration"]["CodeSize"]


def test_what_belongs_to_the_function_alone(published: Any) -> None:
    published.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=3)
    got = published.get_function(FunctionName="hello")
    assert (got["Tags"], got["Concurrency"]) == ({"a": "b"}, {"ReservedConcurrentExecutions": 3})
    for qualifier in ("$LATEST", "1", "live"):
        got = published.get_function(FunctionName="hello", Qualifier=qualifier)
        assert not {"Tags", "Concurrency"} & got.keys()


def test_publish_on_create(client: Any) -> None:
    created = create(client, Publish=True)
    assert (created["Version"], created["FunctionArn"]) == ("1", f"{ARN}:hello")
    assert (created["State"], created["StateReasonCode"]) == ("Pending", "Creating")
    client.get_waiter("published_version_active").wait(
        FunctionName="hello", Qualifier="1", WaiterConfig={"Delay": 0.02, "MaxAttempts": 300}
    )
    wait(client)
    assert configuration(client)["Version"] == "$LATEST"
    version = configuration(client, Qualifier="1")
    assert (version["Version"], version["FunctionArn"]) == ("1", f"{ARN}:hello:1")
    assert version["State"] == "Active"
    assert client.publish_version(FunctionName="hello")["Version"] == "1"


def test_publish_on_update(published: Any) -> None:
    update_code: Callable[..., Any] = published.update_function_code
    answer = update_code(FunctionName="hello", ZipFile=make_zip({"app.py": "3"}), Publish=True)
    assert (answer["Version"], answer["State"]) == ("3", "Pending")
    assert answer["CodeSha256"] != configuration(published, Qualifier="2")["CodeSha256"]
    wait(published, "function_updated_v2")
    assert configuration(published, Qualifier="3")["State"] == "Active"
    dry = update_code(FunctionName="hello", ZipFile=make_zip({"app.py": "4"}), Publish=True, DryRun=True)
    assert dry["CodeSha256"] not in (answer["CodeSha256"], configuration(published)["CodeSha256"])
    assert len(published.list_versions_by_function(FunctionName="hello")["Versions"]) == 4


def test_delete(published: Any) -> None:
    for qualifier, alias in (("1", "live"), ("2", "next")):
        refused(
            published.delete_function,
            "ResourceConflictException",
            409,
            f"Unable to delete version because the following aliases reference it: [{alias}]",
            FunctionName="hello",
            Qualifier=qualifier,
        )
    published.delete_alias(FunctionName="hello", Name="live")
    assert published.delete_function(FunctionName="hello:1")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert published.delete_function(FunctionName="hello:1")["ResponseMetadata"]["HTTPStatusCode"] == 204
    refused(published.delete_function, *MISSING, f"Function not found: {ARN}:nope", FunctionName="nope:1")
    versions = published.list_versions_by_function(FunctionName="hello")["Versions"]
    assert [item["Version"] for item in versions] == ["$LATEST", "2"]
    published.delete_function(FunctionName="hello")
    for qualifier in ("2", "next"):
        refused(
            published.get_function,
            *MISSING,
            f"Function not found: {ARN}:hello:{qualifier}",
            FunctionName=f"hello:{qualifier}",
        )
    create(published)
    wait(published)
    assert published.publish_version(FunctionName="hello")["Version"] == "3"


def test_versions_cannot_be_changed(published: Any) -> None:
    before = configuration(published, Qualifier="1")
    for name in ("hello:1", "hello:live"):
        for call, more in (
            (published.update_function_configuration, {"Timeout": 5}),
            (published.update_function_code, {"ZipFile": make_zip()}),
        ):
            refused(call, *MISSING, f"Function not found: {ARN}:{name}", FunctionName=name, **more)
    update(published, Timeout=77, Description="other", Environment={"Variables": {}})
    published.update_function_code(FunctionName="hello:$LATEST", ZipFile=make_zip({"app.py": "x"}))
    wait(published, "function_updated_v2")
    assert configuration(published, Qualifier="1") == before


def test_which_revisions_change(client: Any) -> None:
    """Each step changes those of the qualifiers that it names, and no other."""
    created = create(client)["RevisionId"]
    wait(client)
    known = {"$LATEST": created}

    def step(*changed: str) -> None:
        current = {
            item["Version"]: item["RevisionId"]
            for item in client.list_versions_by_function(FunctionName="hello")["Versions"]
        }
        aliases = client.list_aliases(FunctionName="hello")["Aliases"]
        current |= {item["Name"]: item["RevisionId"] for item in aliases}
        assert {name for name in current if known.get(name) != current[name]} == set(changed)
        known.clear()
        known.update(current)

    step("$LATEST")  # Pending to Active
    update(client, Timeout=4)
    step("$LATEST")
    client.publish_version(FunctionName="hello")
    step("$LATEST", "1")
    client.publish_version(FunctionName="hello")
    client.get_function(FunctionName="hello")
    step()
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    step("live")
    client.update_alias(FunctionName="hello", Name="live")
    step("live")
    client.get_alias(FunctionName="hello", Name="live")
    step()
    client.update_function_code(FunctionName="hello", ZipFile=make_zip(), DryRun=True)
    step()
    answer = client.update_function_code(FunctionName="hello", ZipFile=make_zip({"app.py": "x"}))
    assert answer["RevisionId"] != known["$LATEST"]
    wait(client, "function_updated_v2")
    assert revision(client) != answer["RevisionId"]
    step("$LATEST")
    client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=1)
    step("$LATEST")
    client.publish_version(FunctionName="hello")
    step("$LATEST", "2")
    client.delete_function(FunctionName="hello:2")
    client.delete_alias(FunctionName="hello", Name="live")
    step()


def test_what_a_reader_sees_of_updates(server: ApiServer, client: Any) -> None:
    """InProgress, then Successful, each with a RevisionId of its own, and never the other way round."""

    def seen_in(got: dict[str, Any]) -> tuple[str, str, str | None]:
        return got["RevisionId"], got["State"], got.get("LastUpdateStatus")

    happened = [seen_in(create(client))]
    seen: list[tuple[str, str, str | None]] = []
    done = threading.Event()

    def read() -> None:
        reader = server.client()
        while not done.is_set():
            state = seen_in(reader.get_function_configuration(FunctionName="hello"))
            if not seen or seen[-1] != state:
                seen.append(state)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        wait(client)
        happened.append(seen_in(configuration(client)))
        for number in range(10):
            if number % 2:
                answer = client.update_function_configuration(FunctionName="hello", Timeout=number)
            else:
                answer = client.update_function_code(FunctionName="hello", ZipFile=make_zip({"app.py": str(number)}))
            happened.append(seen_in(answer))
            wait(client, "function_updated_v2" if number % 3 else "function_updated")
            happened.append(seen_in(configuration(client)))
    finally:
        done.set()
        thread.join()
    assert [state for _, *state in happened] == [
        ["Pending", None],
        ["Active", "Successful"],
        *[["Active", "InProgress"], ["Active", "Successful"]] * 10,
    ]
    assert len({revision for revision, _, _ in happened}) == len(happened)
    # The reader may have missed some of what happened between two looks; it saw nothing else, in no other order.
    ahead = iter(happened)
    assert all(state in ahead for state in seen), (seen, happened)


def test_versions_survive_a_restart(tmp_path: Path) -> None:
    with api_server(tmp_path) as server:
        client = server.client()
        create(client, Environment={"Variables": {"K1": "v"}})
        wait(client)
        client.publish_version(FunctionName="hello")
        client.create_alias(
            FunctionName="hello", Name="live", FunctionVersion="1", RoutingConfig={"AdditionalVersionWeights": {}}
        )
        before = configuration(client, Qualifier="live"), client.list_aliases(FunctionName="hello")["Aliases"]
        client.update_function_code(FunctionName="hello", ZipFile=make_zip({"app.py": "2"}), Publish=True)
        create(client, name="deleted", Publish=True)
        client.delete_function(FunctionName="deleted")
    with api_server(tmp_path) as server:
        client = server.client()
        assert (configuration(client, Qualifier="live"), client.list_aliases(FunctionName="hello")["Aliases"]) == before
        with urlopen(client.get_function(FunctionName="hello:1")["Code"]["Location"]) as response:
            assert len(response.read()) == len(make_zip())
        assert configuration(client, Qualifier="2")["State"] == "Active"  # whose making the end had interrupted
        create(client, name="deleted", Publish=True)
        wait(client, name="deleted")
        assert client.get_function_configuration(FunctionName="deleted:2")["Version"] == "2"


def test_raw_answers(server: ApiServer, client: Any) -> None:
    create(client)
    wait(client)
    answer = server.send("POST", "/2015-03-31/functions/hello/versions", {})
    assert answer.status == 201
    assert answer.json["Version"] == "1"
    answer = server.send("POST", "/2015-03-31/functions/hello/versions")  # no body at all
    assert (answer.status, answer.json["Version"]) == (201, "1")
    answer = server.send("GET", "/2015-03-31/functions/hello/versions")
    assert list(answer.json) == ["Versions"]
    answer = server.send("DELETE", "/2015-03-31/functions/hello?Qualifier=1")
    assert (answer.status, answer.body) == (204, b"")
    assert "content-type" not in answer.headers
    answer = server.send("GET", "/2015-03-31/functions/hello/versions?Marker=" + base64.b64encode(b"x").decode())
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "InvalidParameterValueException")
    assert answer.json == {"Type": "User", "message": "Invalid marker"}
