"""Tenants of a function: each has environments of its own, and the handler sees whose call it is, on every way in."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError

from daemon_running import Answer, RunningDaemon, running_daemon

pytestmark = pytest.mark.lanes

CODE = """
import json, os

def answer(event, context):
    print("tenant", context.tenant_id, "of", context.aws_request_id)
    return {"tenant": context.tenant_id, "pid": os.getpid()}

def pieces(event, context):
    yield json.dumps(answer(event, context))
"""


@pytest.fixture(scope="module")
def daemon(lane_in_use: str) -> Iterator[RunningDaemon]:
    with running_daemon() as running:
        tenancy = {"TenantIsolationMode": "PER_TENANT"}
        running.deploy("apart", CODE, handler="app.answer", TenancyConfig=tenancy)
        running.deploy("apart-pieces", CODE, handler="app.pieces", TenancyConfig=tenancy)
        running.deploy("shared", CODE, handler="app.answer")
        yield running


def streamed(daemon: RunningDaemon, name: str, **more: Any) -> Any:
    answer = daemon.lambda_.invoke_with_response_stream(FunctionName=name, **more)
    return json.loads(
        b"".join(each["PayloadChunk"]["Payload"] for each in answer["EventStream"] if "PayloadChunk" in each)
    )


def test_each_tenant_has_environments_of_its_own(daemon: RunningDaemon) -> None:
    tenants = ["a", "b", "user:1@example.com/x=y", "with space", "a"]
    found = [daemon.invoke("apart", TenantId=tenant).result for tenant in tenants]
    assert [one["tenant"] for one in found] == tenants
    pids = [one["pid"] for one in found]
    assert pids[0] == pids[-1] and len(set(pids)) == 4


def test_a_stream_belongs_to_a_tenant(daemon: RunningDaemon) -> None:
    first, other, again = (streamed(daemon, "apart-pieces", TenantId=tenant) for tenant in "aba")
    assert (first["tenant"], other["tenant"]) == ("a", "b")
    assert first == again and first["pid"] != other["pid"]
    assert daemon.invoke("apart-pieces", TenantId="a").json == first


def test_an_event_belongs_to_a_tenant(daemon: RunningDaemon) -> None:
    daemon.lambda_.invoke(FunctionName="apart", InvocationType="Event", TenantId="later")
    daemon.logs("apart", until=lambda log: any(line.startswith("tenant later of ") for line in log))


def test_other_functions_know_no_tenants(daemon: RunningDaemon) -> None:
    assert daemon.invoke("shared").result["tenant"] is None
    assert streamed(daemon, "shared")["tenant"] is None


def send(daemon: RunningDaemon, name: str, tenant: str | None, kind: str) -> Answer:
    path = {
        "stream": f"/2021-11-15/functions/{quote(name)}/response-streaming-invocations",
        "async": f"/2014-11-13/functions/{quote(name)}/invoke-async",
    }.get(kind, f"/2015-03-31/functions/{quote(name)}/invocations")
    headers = {} if tenant is None else {"X-Amz-Tenant-Id": tenant}
    return daemon.send("POST", path, b"{}", headers | {"X-Amz-Invocation-Type": kind} if kind == "Event" else headers)


@pytest.mark.parametrize("kind", ["RequestResponse", "Event", "stream", "async"])
def test_a_call_without_a_tenant(daemon: RunningDaemon, kind: str) -> None:
    for _ in range(2):  # what is refused is not remembered as something else
        answer = send(daemon, "apart", None, kind)
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "InvalidParameterValueException")
        assert "Add a valid tenant ID" in answer.json["message"]


@pytest.mark.parametrize("kind", ["RequestResponse", "Event", "stream"])
def test_a_tenant_where_there_are_none(daemon: RunningDaemon, kind: str) -> None:
    assert send(daemon, "shared", None, kind).status in (200, 202)
    answer = send(daemon, "shared", "a", kind)
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "InvalidParameterValueException")
    assert "Remove the tenant ID" in answer.json["message"]
    assert send(daemon, "shared", None, kind).status in (200, 202)


@pytest.mark.parametrize("kind", ["RequestResponse", "stream"])
@pytest.mark.parametrize("tenant", ["", "x" * 257, "a#b", "\xe9", "a\tb"])
def test_what_is_no_tenant(daemon: RunningDaemon, tenant: str, kind: str) -> None:
    answer = send(daemon, "apart", tenant, kind)
    assert answer.status == 400
    assert answer.headers["x-amzn-errortype"] in ("ValidationException", "InvalidParameterValueException")


def test_the_first_of_two_names_counts(daemon: RunningDaemon) -> None:
    path = "/2015-03-31/functions/apart/invocations"
    for names in (("first", "second"), ("first", "n#ne"), ("second", "first")):
        body = raw(daemon, path, [("X-Amz-Tenant-Id", name) for name in names])
        assert json.loads(body)["tenant"] == names[0]


def raw(daemon: RunningDaemon, path: str, headers: list[tuple[str, str]]) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
    try:
        connection.putrequest("POST", path)
        for name, value in (*headers, ("Content-Length", "0")):
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().read()
    finally:
        connection.close()


# --- who may invoke -----------------------------------------------------------------------------------


def test_a_stream_asks_the_policy_of_the_function(daemon: RunningDaemon) -> None:
    stranger = daemon.client(account="999999999999")
    arn = daemon.lambda_.get_function_configuration(FunctionName="shared")["FunctionArn"]

    def attempt(invoke: Any) -> str | None:
        try:
            answer = invoke(FunctionName=arn)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        list(answer["EventStream"] if "EventStream" in answer else answer["Payload"])
        return None

    calls = (stranger.invoke, stranger.invoke_with_response_stream)
    assert [attempt(call) for call in calls] == ["AccessDeniedException"] * 2
    daemon.lambda_.add_permission(
        FunctionName="shared", StatementId="stranger", Action="lambda:InvokeFunction", Principal="999999999999"
    )
    assert [attempt(call) for call in calls] == [None, None]
    daemon.lambda_.remove_permission(FunctionName="shared", StatementId="stranger")
    assert [attempt(call) for call in calls] == ["AccessDeniedException"] * 2


def test_a_stream_of_a_weighted_alias(daemon: RunningDaemon) -> None:
    versions = [daemon.lambda_.publish_version(FunctionName="shared")["Version"]]
    daemon.update("shared", CODE + "\n# another\n")
    versions.append(daemon.lambda_.publish_version(FunctionName="shared")["Version"])
    daemon.lambda_.create_alias(
        FunctionName="shared",
        Name=f"both-{versions[0]}",
        FunctionVersion=versions[0],
        RoutingConfig={"AdditionalVersionWeights": {versions[1]: 0.5}},
    )
    found = set()
    for _ in range(60):  # one of the two alone: once in 10^17 runs
        answer = daemon.lambda_.invoke_with_response_stream(FunctionName=f"shared:both-{versions[0]}")
        found.add(answer["ExecutedVersion"])
        list(answer["EventStream"])
    assert found == set(versions)
