"""What becomes of a function as boto3 sees it: its updates, its deletion, and a restart of the daemon."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from api_server import api_server, create, error_of, make_zip, refused, wait


def test_update_configuration(client: Any) -> None:
    create(client, Environment={"Variables": {"A1": "1"}}, Description="before")
    wait(client)
    before = client.get_function_configuration(FunctionName="hello")
    updated = client.update_function_configuration(
        FunctionName="hello", Timeout=30, MemorySize=512, Environment={"Variables": {"B2": "2"}}, Runtime="python3.12"
    )
    assert updated["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert (updated["State"], updated["LastUpdateStatus"]) == ("Active", "InProgress")
    assert updated["LastUpdateStatusReason"] == "The function is being created."
    assert updated["LastUpdateStatusReasonCode"] == "Creating"
    assert updated["RevisionId"] != before["RevisionId"]
    wait(client, "function_updated_v2")
    after = client.get_function_configuration(FunctionName="hello")
    assert after["LastUpdateStatus"] == "Successful"
    assert len({before["RevisionId"], updated["RevisionId"], after["RevisionId"]}) == 3
    assert (after["Timeout"], after["MemorySize"], after["Description"]) == (30, 512, "before")
    assert (after["Environment"], after["Runtime"]) == ({"Variables": {"B2": "2"}}, "python3.12")
    client.update_function_configuration(FunctionName="hello")  # a change of nothing is a change
    wait(client, "function_updated_v2")
    assert client.get_function_configuration(FunctionName="hello")["RevisionId"] != after["RevisionId"]


def test_update_logging(client: Any) -> None:
    create(client)
    wait(client)

    def update(**logging: str) -> dict[str, str]:
        updated = client.update_function_configuration(FunctionName="hello", LoggingConfig=logging)
        wait(client, "function_updated_v2")
        stored: dict[str, str] = updated["LoggingConfig"]
        return stored

    group = {"LogGroup": "/aws/lambda/hello"}
    levels = {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"}
    assert update(LogFormat="JSON") == {"LogFormat": "JSON", **levels, **group}
    assert update(ApplicationLogLevel="DEBUG") == {
        "LogFormat": "JSON",
        **levels,
        "ApplicationLogLevel": "DEBUG",
        **group,
    }
    assert update(LogGroup="/mine")["ApplicationLogLevel"] == "DEBUG"
    assert update(LogFormat="Text") == {"LogFormat": "Text", "LogGroup": "/mine"}


def test_update_code(client: Any) -> None:
    create(client)
    wait(client)
    before = client.get_function_configuration(FunctionName="hello")
    code = make_zip({"app.py": "changed"})
    dry = client.update_function_code(FunctionName="hello", ZipFile=code, DryRun=True)
    assert dry["CodeSha256"] == base64.b64encode(hashlib.sha256(code).digest()).decode()
    assert client.get_function_configuration(FunctionName="hello")["CodeSha256"] == before["CodeSha256"]
    updated = client.update_function_code(FunctionName="hello", ZipFile=code, Architectures=["arm64"])
    assert updated["LastUpdateStatus"] == "InProgress"
    assert (updated["CodeSha256"], updated["CodeSize"]) == (dry["CodeSha256"], len(code))
    assert updated["Architectures"] == ["arm64"]
    wait(client, "function_updated_v2")
    with urlopen(client.get_function(FunctionName="hello")["Code"]["Location"]) as response:
        assert response.read() == code
    error = error_of(client.update_function_code, FunctionName="hello", ZipFile=b"junk", DryRun=True)
    assert error.response["Error"]["Message"].startswith("Could not unzip")
    error = error_of(client.update_function_code, FunctionName="hello")
    assert error.response["Error"]["Message"] == "Please provide a source for function code."


def test_revisions(client: Any) -> None:
    created = create(client)
    wait(client)
    stale = created["RevisionId"]
    for call, more in (
        (client.update_function_configuration, {}),
        (client.update_function_code, {"ZipFile": make_zip()}),
    ):
        error = error_of(call, FunctionName="hello", RevisionId=stale, **more)
        assert isinstance(error, client.exceptions.PreconditionFailedException)
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412
        assert error.response["Error"]["Message"] == (
            "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve"
            " the latest Revision Id"
        )
    current = client.get_function_configuration(FunctionName="hello")["RevisionId"]
    client.update_function_configuration(FunctionName="hello", RevisionId=current)


def test_delete(client: Any) -> None:
    create(client)
    refused(
        client.delete_function,
        "InvalidParameterValueException",
        400,
        "$LATEST version cannot be deleted without deleting the function.",
        FunctionName="hello",
        Qualifier="$LATEST",
    )
    refused(
        client.delete_function,
        "InvalidParameterValueException",
        400,
        "Deletion of aliases is not currently supported.",
        FunctionName="hello:live",
    )
    assert client.delete_function(FunctionName="hello", Qualifier="5")["ResponseMetadata"]["HTTPStatusCode"] == 204
    deleted = client.delete_function(FunctionName="hello")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert error_of(client.get_function, FunctionName="hello").response["Error"]["Code"] == "ResourceNotFoundException"
    create(client)


def test_functions_survive_a_restart(tmp_path: Path) -> None:
    code = make_zip()
    with api_server(tmp_path) as server:
        client = server.client()
        create(client, Code={"ZipFile": code}, Tags={"a": "b"}, Environment={"Variables": {"K1": "v"}})
        wait(client)
        client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=7)
        before = client.get_function(FunctionName="hello")
        create(client, name="pending")
    with api_server(tmp_path) as server:
        client = server.client()
        after = client.get_function(FunctionName="hello")
        for ignored in ("ResponseMetadata", "Code"):
            before.pop(ignored)
        location = after.pop("Code")["Location"]
        after.pop("ResponseMetadata")
        assert after == before
        with urlopen(location) as response:
            assert response.read() == code
        settled = client.get_function_configuration(FunctionName="pending")
        assert (settled["State"], settled["LastUpdateStatus"]) == ("Active", "Successful")
