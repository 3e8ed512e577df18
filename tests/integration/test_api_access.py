"""Whose functions a caller of the API sees, and who is asked whether it may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api_server import ARN, ApiServer, api_server, create, error_of, refused
from daemon_running import ACCOUNT, REGION
from fastlam.control.authorize import Caller
from fastlam.errors import access_denied


def test_accounts_and_regions_do_not_see_each_other(server: ApiServer) -> None:
    here, there, other = server.client(), server.client(region="eu-west-1"), server.client(account="111122223333")
    create(here)
    assert create(there)["FunctionArn"] == f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:hello"
    assert create(other)["FunctionArn"] == f"arn:aws:lambda:{REGION}:111122223333:function:hello"
    create(other, name="second")
    assert [len(client.list_functions()["Functions"]) for client in (here, there, other)] == [1, 1, 2]
    error = error_of(other.get_function, FunctionName=f"{ARN}:hello")
    assert error.response["Error"] == {
        "Code": "AccessDeniedException",
        "Message": "User: arn:aws:iam::111122223333:root is not authorized to perform: lambda:GetFunction on resource:"
        f" {ARN}:hello because no resource-based policy allows the lambda:GetFunction action",
    }
    error = error_of(create, other, name=f"{ARN}:new")
    assert (error.response["Error"]["Code"], error.response["Error"]["Message"]) == ("AccessDeniedException", None)


def test_unsigned_requests_use_the_defaults(server: ApiServer, client: Any) -> None:
    create(client)
    answer = server.send("GET", "/2015-03-31/functions/hello/configuration")
    assert answer.status == 200
    assert answer.json["FunctionArn"] == f"{ARN}:hello"
    for junk in (
        "AWS4-HMAC-SHA256 Credential=",
        "Bearer x",
        "AWS4-HMAC-SHA256 Credential=a/b/../../c/d/e, Signature=1",
    ):
        assert server.send("GET", "/2015-03-31/functions/hello", headers={"Authorization": junk}).status == 200


def test_authorize_is_asked_for_every_operation(tmp_path: Path) -> None:
    asked = []

    def ask(caller: Caller, action: str, resource: str) -> None:
        asked.append((action, resource))
        if action == "lambda:DeleteFunction":
            raise access_denied("no")

    with api_server(tmp_path, authorize=ask) as server:
        client = server.client()
        create(client)
        client.list_functions()
        client.get_function(FunctionName="hello", Qualifier="$LATEST")
        refused(client.delete_function, "AccessDeniedException", 403, "no", FunctionName="unknown")
        client.get_function(FunctionName="hello")
    assert asked == [
        ("lambda:CreateFunction", f"{ARN}:hello"),
        ("lambda:ListFunctions", "*"),
        ("lambda:GetFunction", f"{ARN}:hello:$LATEST"),
        ("lambda:DeleteFunction", f"{ARN}:unknown"),
        ("lambda:GetFunction", f"{ARN}:hello"),
    ]


def test_a_fault_of_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(caller: Caller, action: str, resource: str) -> None:
        raise RuntimeError("the secret of the house")

    with api_server(tmp_path, authorize=fail) as server:
        error = error_of(server.client().get_function, FunctionName="hello")
        assert isinstance(error, server.client().exceptions.ServiceException)
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 500
        assert error.response["Type"] == "Service"
        assert error.response["Error"]["Message"] == "An error occurred and the request cannot be processed."
    assert "the secret of the house" in caplog.text
