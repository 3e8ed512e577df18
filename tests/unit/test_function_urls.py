"""Function URLs without HTTP: one for the function, one for each alias, and how long they last."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fastlam.model.function_url import FunctionUrlRecord
from fastlam.store.records import FUNCTION, FUNCTION_URL
from memory_plane import CALLER, MemoryPlane, refused

ACCOUNT = "000000000000"
ARN = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:hello"
NOTHING = "The resource you requested does not exist."


class Plane(MemoryPlane):
    """A control plane in memory with an active function `hello` and the aliases `live` and `next`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.create()
        for name in ("live", "next"):
            self.alias(name, "$LATEST")

    def url(self, name: str = "hello", **more: Any) -> FunctionUrlRecord:
        return self.urls.create(CALLER, {"FunctionName": name, "AuthType": "NONE"} | more)

    def listed(self, **more: Any) -> list[str]:
        return [record.qualifier for record in self.urls.list(CALLER, {"FunctionName": "hello", **more}).items]


@pytest.fixture
def plane(tmp_path: Path) -> Plane:
    return Plane(tmp_path)


def test_life_of_a_url(plane: Plane) -> None:
    created = plane.url()
    assert re.fullmatch("[a-z0-9]{32}", created.url_id)
    assert (created.arn, created.auth_type, created.invoke_mode, created.cors) == (ARN, "NONE", "BUFFERED", None)
    assert created.created == created.last_modified == "2026-01-01T00:00:01.000000000Z"
    plane.clock.advance(1)
    changed = plane.urls.update(
        CALLER,
        {
            "FunctionName": "hello",
            "AuthType": "AWS_IAM",
            "InvokeMode": "RESPONSE_STREAM",
            "Cors": {"AllowOrigins": ["*"]},
        },
    )
    assert (changed.auth_type, changed.invoke_mode, changed.cors) == (
        "AWS_IAM",
        "RESPONSE_STREAM",
        {"AllowOrigins": ["*"]},
    )
    assert (changed.created, changed.last_modified) == (created.created, "2026-01-01T00:00:02.000000000Z")
    assert plane.urls.get(CALLER, {"FunctionName": "hello"}) == changed
    kept = plane.urls.update(CALLER, {"FunctionName": "hello"})
    assert kept == changed
    assert plane.urls.update(CALLER, {"FunctionName": "hello", "Cors": {}}).cors is None
    plane.urls.delete(CALLER, {"FunctionName": "hello"})
    assert plane.listed() == []
    assert plane.url().url_id != created.url_id


def test_the_function_and_its_aliases_are_independent(plane: Plane) -> None:
    live, own, following = plane.url("hello:live"), plane.url(), plane.url(Qualifier="next")
    assert (live.arn, own.arn, following.arn) == (f"{ARN}:live", ARN, f"{ARN}:next")
    assert len({live.url_id, own.url_id, following.url_id}) == 3
    assert plane.listed() == ["", "live", "next"]
    for name, arn in (("hello", ARN), ("hello:live", f"{ARN}:live")):
        message = refused("ResourceConflictException", plane.url, name)
        assert message == (
            f"Failed to create function url config for [functionArn = {arn}]. Error message:  FunctionUrlConfig exists for"
            " this Lambda function"
        )
    plane.urls.delete(CALLER, {"FunctionName": "hello"})
    assert plane.listed() == ["live", "next"]


def test_pages(plane: Plane) -> None:
    for name in ("hello", "hello:live", "hello:next"):
        plane.url(name)
    found, marker = [], None
    while True:
        page = plane.urls.list(CALLER, {"FunctionName": "hello", "MaxItems": 1, "Marker": marker})
        found += [record.qualifier for record in page.items]
        marker = page.next_marker
        if marker is None:
            break
    assert found == ["", "live", "next"]


def test_the_url_of_a_deleted_alias_stays_listed(plane: Plane) -> None:
    plane.url("hello:live")
    plane.aliases.delete(CALLER, {"FunctionName": "hello", "Name": "live"})
    assert plane.listed() == ["live"]
    assert plane.urls.get(CALLER, {"FunctionName": "hello:live"}).arn == f"{ARN}:live"
    assert refused("ResourceNotFoundException", plane.url, "hello:live") == "Function does not exist"
    plane.urls.delete(CALLER, {"FunctionName": "hello", "Qualifier": "live"})
    assert plane.listed() == []


def test_urls_go_with_the_function(plane: Plane) -> None:
    plane.url()
    plane.url("hello:live")
    plane.functions.delete(CALLER, {"FunctionName": "hello"})
    assert plane.store.all(FUNCTION_URL) == []


@pytest.mark.parametrize("name", ["nobody", "hello:gone", "nobody:live"])
def test_what_is_not_there(plane: Plane, name: str) -> None:
    plane.url()
    request = {"FunctionName": name, "AuthType": "NONE"}
    for call in (plane.urls.create, plane.urls.update):
        assert refused("ResourceNotFoundException", call, CALLER, request) == "Function does not exist"
    for call in (plane.urls.get, plane.urls.delete):
        assert refused("ResourceNotFoundException", call, CALLER, request) == NOTHING
    if name.startswith("nobody"):
        assert refused("ResourceNotFoundException", plane.urls.list, CALLER, request) == "Function does not exist"
    assert plane.listed() == [""]


def test_updating_what_has_no_url(plane: Plane) -> None:
    plane.url()
    for name in ("hello:live", "hello:next"):
        message = refused(
            "ResourceNotFoundException", plane.urls.update, CALLER, {"FunctionName": name, "AuthType": "NONE"}
        )
        assert message == NOTHING


def test_methods_of_cors(plane: Plane) -> None:
    for method in ("get", "TRACE", "", "GET "):
        refused("InvalidParameterValueException", plane.url, Cors={"AllowMethods": ["GET", method]})
    assert plane.listed() == []
    cors = {
        "AllowMethods": ["GET", "PUT", "HEAD", "POST", "PATCH", "DELETE", "*"],
        "MaxAge": 0,
        "AllowCredentials": False,
    }
    assert plane.url(Cors=cors).cors == cors
    before = plane.store.all(FUNCTION_URL)
    request = {"FunctionName": "hello", "AuthType": "AWS_IAM", "Cors": {"AllowMethods": ["TRACE"]}}
    refused("InvalidParameterValueException", plane.urls.update, CALLER, request)
    assert plane.store.all(FUNCTION_URL) == before


def test_a_url_changes_nothing_of_the_function(plane: Plane) -> None:
    before = plane.store.all(FUNCTION)
    plane.url()
    plane.urls.delete(CALLER, {"FunctionName": "hello"})
    assert plane.store.all(FUNCTION) == before
