"""Resource policies as boto3 sees them: the operations on them, and what they let other accounts do."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from api_server import ARN, ApiServer, create, error_of, refused, wait
from daemon_running import ACCOUNT, RunningDaemon

OTHER = "111122223333"
INVOKE = "lambda:InvokeFunction"
FUNCTION = f"{ARN}:hello"


@pytest.fixture
def hello(client: Any) -> Any:
    """The client, with an active function `hello`, its version 1 and the alias `live`."""
    create(client)
    wait(client)
    client.publish_version(FunctionName="hello")
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    return client


def permit(client: Any, sid: str = "s", name: str = "hello", **more: Any) -> dict[str, Any]:
    added = client.add_permission(
        **{"FunctionName": name, "StatementId": sid, "Action": INVOKE, "Principal": OTHER} | more
    )
    assert added["ResponseMetadata"]["HTTPStatusCode"] == 201
    statement: dict[str, Any] = json.loads(added["Statement"])
    return statement


def revision(client: Any, qualifier: str | None = None) -> str:
    more = {} if qualifier is None else {"Qualifier": qualifier}
    found: str = client.get_function_configuration(FunctionName="hello", **more)["RevisionId"]
    return found


def put(client: Any, statements: Any, arn: str = FUNCTION, **more: Any) -> Any:
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    return client.put_resource_policy(ResourceArn=arn, Policy=document, **more)


# ---- statements --------------------------------------------------------------------------------------


def test_life_of_a_permission(hello: Any) -> None:
    before = revision(hello)
    assert permit(hello, Principal="s3.amazonaws.com", SourceArn="arn:aws:s3:::b", SourceAccount=OTHER) == {
        "Sid": "s",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": INVOKE,
        "Resource": FUNCTION,
        "Condition": {"StringEquals": {"AWS:SourceAccount": OTHER}, "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::b"}},
    }
    found = hello.get_policy(FunctionName="hello")
    assert list(json.loads(found["Policy"])) == ["Version", "Id", "Statement"]
    assert found["RevisionId"] == revision(hello) != before
    hello.remove_permission(FunctionName="hello", StatementId="s", RevisionId=found["RevisionId"])
    assert revision(hello) != found["RevisionId"]
    error = refused(
        hello.get_policy,
        "ResourceNotFoundException",
        404,
        "The resource you requested does not exist.",
        FunctionName="hello",
    )
    assert error.response["Type"] == "User"


def test_bodies(server: ApiServer, hello: Any) -> None:
    """Without boto3: a statement is text inside JSON, keys in the service's order."""
    path = "/2015-03-31/functions/hello/policy"
    added = server.send("POST", path, {"StatementId": "s", "Action": "lambda:InvokeFunctionUrl", "Principal": "*",
                                       "FunctionUrlAuthType": "NONE"})  # fmt: skip
    statement = (
        '{"Sid":"s","Effect":"Allow","Principal":"*","Action":"lambda:InvokeFunctionUrl","Resource":"' + FUNCTION + '",'
        '"Condition":{"StringEquals":{"lambda:FunctionUrlAuthType":"NONE"}}}'
    )
    assert (added.status, added.json) == (201, {"Statement": statement})
    found = server.send("GET", path)
    assert found.json == {
        "Policy": '{"Version":"2012-10-17","Id":"default","Statement":[' + statement + "]}",
        "RevisionId": revision(hello),
    }
    removed = server.send("DELETE", f"{path}/s")
    assert (removed.status, removed.body) == (204, b"")
    assert server.send("GET", path).json == {"Type": "User", "Message": "The resource you requested does not exist."}


def test_each_qualifier_has_its_own(hello: Any) -> None:
    assert permit(hello, name="hello:1")["Resource"] == f"{FUNCTION}:1"
    assert permit(hello, Qualifier="live")["Resource"] == f"{FUNCTION}:live"
    alias = hello.get_alias(FunctionName="hello", Name="live")["RevisionId"]
    assert hello.get_policy(FunctionName="hello", Qualifier="live")["RevisionId"] == alias
    assert hello.get_policy(FunctionName="hello:1")["RevisionId"] == revision(hello, "1")
    error_of(hello.get_policy, FunctionName="hello")
    hello.delete_alias(FunctionName="hello", Name="live")
    hello.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    error_of(hello.get_policy, FunctionName="hello", Qualifier="live")


def test_refusals(hello: Any) -> None:
    add = {"FunctionName": "hello", "StatementId": "s", "Action": INVOKE, "Principal": "*"}
    missing, invalid = "ResourceNotFoundException", "InvalidParameterValueException"
    call = hello.add_permission
    refused(call, missing, 404, f"Function not found: {ARN}:nobody", **add | {"FunctionName": "nobody"})
    refused(call, missing, 404, f"Function not found: {FUNCTION}:9", **add, Qualifier="9")
    refused(call, missing, 404, f"Cannot find alias arn: {FUNCTION}:gone", **add, Qualifier="gone")
    refused(call, missing, 404, f"Function not found: {FUNCTION}:with-$-in", **add, Qualifier="with-$-in")
    refused(call, invalid, 400, "We currently do not support adding policies for $LATEST.", **add, Qualifier="$LATEST")
    refused(call, invalid, 400, "The provided principal was invalid. Please check the principal and try again.",
            **add | {"Principal": "invalid.nonaws.com"})  # fmt: skip
    refused(call, "ValidationException", 400,
            "1 validation error detected: Value 's.s' at 'statementId' failed to satisfy constraint: Member must satisfy"
            " regular expression pattern: ([a-zA-Z0-9-_]+)", **add | {"StatementId": "s.s"})  # fmt: skip
    error = error_of(call, **add | {"Action": "s3:GetObject", "SourceAccount": "1", "PrincipalOrgID": "org"})
    assert error.response["Error"]["Message"].startswith("4 validation errors detected: ")
    refused(hello.remove_permission, missing, 404, f"No policy found for: {ARN}:nobody",
            FunctionName="nobody", StatementId="s")  # fmt: skip
    refused(hello.remove_permission, missing, 404, "No policy is associated with the given resource.",
            FunctionName="hello", StatementId="s")  # fmt: skip
    for name in ("nobody", "hello", "hello:9", "hello:live"):
        refused(hello.get_policy, missing, 404, "The resource you requested does not exist.", FunctionName=name)
    permit(hello)
    before = hello.get_policy(FunctionName="hello")
    refused(call, "ResourceConflictException", 409,
            "The statement id (s) provided already exists. Please provide a new statement id, or remove the existing"
            " statement.", **add, RevisionId="stale")  # fmt: skip
    refused(call, "PreconditionFailedException", 412,
            "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to retrieve the latest"
            " Revision Id", **add | {"StatementId": "t"}, RevisionId="stale")  # fmt: skip
    refused(hello.remove_permission, missing, 404, "Statement t is not found in resource policy.",
            FunctionName="hello", StatementId="t", RevisionId="stale")  # fmt: skip
    refused(hello.remove_permission, "PreconditionFailedException", 412,
            "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve"
            " the latest Revision Id", FunctionName="hello", StatementId="s", RevisionId="stale")  # fmt: skip
    after = hello.get_policy(FunctionName="hello")
    assert (after["Policy"], after["RevisionId"]) == (before["Policy"], before["RevisionId"])


def test_twenty_kilobytes(hello: Any) -> None:
    permit(hello, SourceArn="arn:aws:s3:::" + "b" * 9_900)
    permit(hello, "t", SourceArn="arn:aws:s3:::" + "b" * 9_900)
    error = error_of(permit, hello, "u", SourceArn="arn:aws:s3:::" + "b" * 9_900)
    assert error.response["Error"]["Code"] == "PolicyLengthExceededException"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    document = hello.get_policy(FunctionName="hello")["Policy"]
    assert [statement["Sid"] for statement in json.loads(document)["Statement"]] == ["s", "t"]


# ---- whole documents ---------------------------------------------------------------------------------


def test_life_of_a_document(hello: Any) -> None:
    statement = {
        "Sid": "x",
        "Effect": "Deny",
        "Principal": {"AWS": [OTHER]},
        "Action": "lambda:*",
        "Resource": FUNCTION,
    }
    permit(hello)
    first = put(hello, statement)
    assert json.loads(first["Policy"]) == {"Version": "2012-10-17", "Statement": [statement]}
    found = hello.get_resource_policy(ResourceArn=FUNCTION)
    assert (found["Policy"], found["RevisionId"]) == (first["Policy"], first["RevisionId"])
    assert first["RevisionId"] == revision(hello)
    assert hello.get_policy(FunctionName="hello")["Policy"] == first["Policy"]
    stale = "00000000-0000-0000-0000-000000000000"
    for call, more in ((put, {"statements": []}), (put, {"statements": [statement]})):
        error = error_of(call, hello, **more, RevisionId=stale)
        assert error.response["Error"]["Code"] in ("InvalidParameterValueException", "PreconditionFailedException")
    error = error_of(hello.delete_resource_policy, ResourceArn=FUNCTION, RevisionId=stale)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    put(hello, [statement | {"Sid": "y"}], RevisionId=first["RevisionId"])
    for _ in range(2):
        deleted = hello.delete_resource_policy(ResourceArn=FUNCTION)
        assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    refused(hello.get_resource_policy, "ResourceNotFoundException", 404, "The resource you requested does not exist.",
            ResourceArn=FUNCTION)  # fmt: skip


def test_documents_of_latest_and_of_what_is_not_there(server: ApiServer, hello: Any) -> None:
    statement = {"Effect": "Allow", "Principal": "*", "Action": INVOKE, "Resource": "*"}
    put(hello, [statement], f"{FUNCTION}:$LATEST")
    assert json.loads(hello.get_policy(FunctionName="hello", Qualifier="$LATEST")["Policy"])["Statement"] == [statement]
    for arn, message in (
        (f"{ARN}:nobody", f"Function not found: {ARN}:nobody"),
        (f"{FUNCTION}:9", f"Function not found: {FUNCTION}:9"),
        (f"{FUNCTION}:gone", f"Cannot find alias arn: {FUNCTION}:gone"),
    ):
        assert error_of(put, hello, [statement], arn).response["Error"]["Message"] == message
    for arn in ("hello", f"{ARN}:hel*", f"{ARN.replace('lambda', 's3')}:hello"):
        answer = server.send("GET", f"/2026-07-09/resource-policy/{quote(arn, safe='')}")
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")
    answer = server.send("PUT", f"/2026-07-09/resource-policy/{quote(FUNCTION, safe='')}", {"Policy": "p" * 20_481})
    assert "Member must have length less than or equal to 20480" in answer.json["message"]
    answer = server.send("PUT", f"/2026-07-09/resource-policy/{quote(FUNCTION, safe='')}", {"Policy": "{}"})
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "InvalidParameterValueException")


# ---- what they are for -------------------------------------------------------------------------------


def denied(call: Any, action: str, resource: str = FUNCTION, **parameters: Any) -> None:
    refused(
        call,
        "AccessDeniedException",
        403,
        f"User: arn:aws:iam::{OTHER}:root is not authorized to perform: {action} on resource: {resource} because no"
        f" resource-based policy allows the {action} action",
        **parameters,
    )


def test_another_account_may_what_it_is_allowed(server: ApiServer, hello: Any) -> None:
    other = server.client(account=OTHER)
    denied(other.get_function, "lambda:GetFunction", FunctionName=FUNCTION)
    permit(hello, Action="lambda:GetFunction")
    permit(hello, "u", Action="lambda:UpdateFunctionConfiguration")
    permit(hello, "t", Action="lambda:TagResource")
    assert other.get_function(FunctionName=FUNCTION)["Configuration"]["FunctionArn"] == FUNCTION
    assert other.get_function(FunctionName=f"{ACCOUNT}:function:hello")["Configuration"]["FunctionArn"] == FUNCTION
    other.update_function_configuration(FunctionName=FUNCTION, Timeout=77)
    assert hello.get_function_configuration(FunctionName="hello")["Timeout"] == 77
    denied(other.get_function_configuration, "lambda:GetFunctionConfiguration", FunctionName=FUNCTION)
    denied(other.get_function, "lambda:GetFunction", f"{FUNCTION}:live", FunctionName=f"{FUNCTION}:live")
    denied(other.get_function, "lambda:GetFunction", f"{FUNCTION}:$LATEST", FunctionName=FUNCTION, Qualifier="$LATEST")
    denied(other.get_policy, "lambda:GetPolicy", FunctionName=FUNCTION)
    denied(other.list_tags, "lambda:ListTags", Resource=FUNCTION)
    denied(other.delete_resource_policy, "lambda:DeleteResourcePolicy", ResourceArn=FUNCTION)
    assert other.list_functions()["Functions"] == []  # there is nothing of its own
    hello.remove_permission(FunctionName="hello", StatementId="s")
    denied(other.get_function, "lambda:GetFunction", FunctionName=FUNCTION)


def test_an_alias_may_be_shared(server: ApiServer, hello: Any) -> None:
    other = server.client(account=OTHER)
    permit(hello, name="hello:live", Action="*", Principal="*")
    assert other.get_function(FunctionName=f"{FUNCTION}:live")["Configuration"]["Version"] == "1"
    denied(other.get_function, "lambda:GetFunction", FunctionName=FUNCTION)
    denied(other.get_function, "lambda:GetFunction", f"{FUNCTION}:1", FunctionName=f"{FUNCTION}:1")


def test_tags_and_policies_of_another_account(server: ApiServer, hello: Any) -> None:
    other = server.client(account=OTHER)
    allow = {"Effect": "Allow", "Principal": {"AWS": OTHER}, "Resource": FUNCTION}
    put(hello, [allow | {"Action": ["lambda:TagResource", "lambda:ListTags", "lambda:DeleteResourcePolicy"]}])
    other.tag_resource(Resource=FUNCTION, Tags={"a": "1"})
    assert other.list_tags(Resource=FUNCTION)["Tags"] == hello.list_tags(Resource=FUNCTION)["Tags"] == {"a": "1"}
    denied(other.untag_resource, "lambda:UntagResource", Resource=FUNCTION, TagKeys=["a"])
    other.delete_resource_policy(ResourceArn=FUNCTION)
    denied(other.list_tags, "lambda:ListTags", Resource=FUNCTION)


def test_a_denial(server: ApiServer, hello: Any) -> None:
    deny = {"Effect": "Deny", "Principal": "*", "Action": "lambda:*", "Resource": "*"}
    put(hello, [deny, deny | {"Effect": "Allow"}])
    for client, account in ((hello, ACCOUNT), (server.client(account=OTHER), OTHER)):
        refused(client.get_function, "AccessDeniedException", 403,
                f"User: arn:aws:iam::{account}:root is not authorized to perform: lambda:GetFunction on resource: {FUNCTION}"
                " with an explicit deny in a resource-based policy", FunctionName=FUNCTION)  # fmt: skip
    assert hello.get_function(FunctionName="hello:live")["Configuration"]["Version"] == "1"
    hello.delete_resource_policy(ResourceArn=FUNCTION)
    hello.get_function(FunctionName="hello")


def test_nobody_creates_functions_elsewhere(server: ApiServer, hello: Any) -> None:
    permit(hello, Action="*", Principal="*")
    other = server.client(account=OTHER)
    for name in (FUNCTION, f"{ARN}:new"):
        error = error_of(create, other, name)
        assert (error.response["Error"]["Code"], error.response["Error"]["Message"]) == ("AccessDeniedException", None)


def test_another_account_invokes(daemon: RunningDaemon) -> None:
    daemon.deploy("shared", "def handler(event, context):\n    return context.invoked_function_arn\n")
    arn = f"{ARN}:shared"
    other = daemon.client(account=OTHER)
    error = error_of(other.invoke, FunctionName=arn)
    assert error.response["Error"]["Message"].endswith(f"because no resource-based policy allows the {INVOKE} action")
    permit(daemon.lambda_, name="shared")
    assert daemon.invoke(arn, client=other).result == arn
    assert (
        error_of(other.invoke, FunctionName=arn, Qualifier="$LATEST").response["Error"]["Code"]
        == "AccessDeniedException"
    )
    assert other.invoke(FunctionName=arn, InvocationType="Event")["StatusCode"] == 202
    deny = {"Effect": "Deny", "Principal": "*", "Action": INVOKE, "Resource": "*"}
    put(daemon.lambda_, [deny], arn)
    for client in (other, daemon.lambda_):
        error = error_of(client.invoke, FunctionName=arn)
        assert error.response["Error"]["Message"].endswith("with an explicit deny in a resource-based policy")
    daemon.lambda_.delete_resource_policy(ResourceArn=arn)
    assert daemon.invoke("shared").result == arn
    assert error_of(other.invoke, FunctionName=arn).response["Error"]["Code"] == "AccessDeniedException"
