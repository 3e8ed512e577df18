"""One head over and over on one connection, as load generators send it: what was understood of it once must not outlive its truth."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from daemon_running import REGION, RunningDaemon

TIMES = 4  # the first is looked at, the second noticed as the same, the others known
CODE = """
import os

def handler(event, context):
    if event == 1:
        raise ValueError("as asked")
    return [event, os.environ.get("_X_AMZN_TRACE_ID"), context.aws_request_id]
"""
ID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"

Said = tuple[int, dict[str, str], bytes]


class Caller:
    """One connection, and one head: the bodies that it is given have the same length."""

    def __init__(self, daemon: RunningDaemon, name: str, headers: dict[str, str]) -> None:
        self.connection = http.client.HTTPConnection(str(urlsplit(daemon.url).netloc), timeout=30)
        self.path = f"/2015-03-31/functions/{name}/invocations"
        self.headers = headers

    def call(self, body: bytes = b"0") -> Said:
        self.connection.request("POST", self.path, body, self.headers)
        answer = self.connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def warm(self) -> None:
        for _ in range(TIMES):
            assert self.call()[0] == 200


@pytest.fixture(scope="module")
def name(daemon: RunningDaemon) -> str:
    return daemon.deploy("repeated", CODE)


@pytest.fixture
def caller(daemon: RunningDaemon, name: str) -> Iterator[Caller]:
    caller = Caller(daemon, name, {})
    with closing(caller.connection):
        yield caller


def shape(said: Said) -> list[str]:
    return [f"{key}: {re.sub('[0-9a-f]', 'x', value)}" for key, value in said[1].items() if key != "date"]


def test_all_answers_are_alike(caller: Caller) -> None:
    answers = [caller.call() for _ in range(TIMES)]
    ids = []
    for said in answers:
        status, headers, body = said
        event, trace, identifier = json.loads(body)
        assert (status, event) == (200, 0)
        assert re.fullmatch(ID, identifier) and headers["x-amzn-requestid"] == identifier
        assert headers["x-amzn-trace-id"] == trace
        digits = identifier.replace("-", "")
        begun, lineage = trace.split(";Lineage=")
        assert begun == f"Root=1-{digits[:8]}-{digits[8:]};Parent={digits[-12:]}{digits[:4]};Sampled=0"
        assert re.fullmatch(r"1:[0-9a-f]{8}:0", lineage)
        assert re.sub(r"\d", "9", "\n".join(shape(said))) == re.sub(r"\d", "9", "\n".join(shape(answers[0])))
        ids.append(identifier)
    assert len(set(ids)) == TIMES


def test_each_body_is_judged_by_itself(caller: Caller) -> None:
    first_bad = caller.call(b"x")
    caller.warm()
    failed = caller.call(b"1")
    assert failed[0] == 200 and failed[1]["x-amz-function-error"] == "Unhandled"
    bad = caller.call(b"x")
    assert (bad[0], bad[1]["x-amzn-errortype"], bad[2]) == (400, "InvalidRequestContentException", first_bad[2])
    assert shape(bad) == shape(first_bad)
    assert caller.call()[0] == 200


def test_no_body_is_an_empty_object(caller: Caller) -> None:
    for _ in range(TIMES):
        assert json.loads(caller.call(b"")[2])[0] == {}


def test_changes_are_seen_at_once(daemon: RunningDaemon, caller: Caller, name: str) -> None:
    caller.warm()
    daemon.lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    for _ in range(TIMES):
        status, headers, _ = caller.call()
        assert (status, headers["x-amzn-errortype"]) == (429, "TooManyRequestsException")
    daemon.lambda_.delete_function_concurrency(FunctionName=name)
    caller.warm()
    daemon.update(name, "def handler(event, context):\n    return 'new'\n")
    daemon.settle(name)
    for _ in range(TIMES):
        assert caller.call()[2] == b'"new"'
    daemon.update(name, CODE)
    daemon.settle(name)


def test_a_function_that_is_gone_is_not_found(daemon: RunningDaemon) -> None:
    caller = Caller(daemon, daemon.deploy("going", CODE), {})
    with closing(caller.connection):
        caller.warm()
        daemon.lambda_.delete_function(FunctionName="going")
        for _ in range(TIMES):
            assert caller.call()[0] == 404
        daemon.deploy("going", CODE)
        caller.warm()


def test_weights_are_thrown_for_each_call(daemon: RunningDaemon, name: str) -> None:
    versions = []
    for memory in (256, 512):
        daemon.lambda_.update_function_configuration(FunctionName=name, MemorySize=memory)
        daemon.settle(name)
        versions.append(daemon.lambda_.publish_version(FunctionName=name)["Version"])
    first, second = versions
    daemon.lambda_.create_alias(
        FunctionName=name,
        Name="both",
        FunctionVersion=first,
        RoutingConfig={"AdditionalVersionWeights": {second: 0.5}},
    )
    caller = Caller(daemon, f"{name}:both", {})
    with closing(caller.connection):
        met = {caller.call()[1]["x-amz-executed-version"] for _ in range(64)}  # all alike once in 2 ** 63
    assert met == {first, second}


@pytest.mark.parametrize("origin", ["https://stranger.example", "http://localhost:1"])
def test_pages_are_judged_each_time(daemon: RunningDaemon, name: str, origin: str) -> None:
    caller = Caller(daemon, name, {"Origin": origin})
    with closing(caller.connection):
        said = [caller.call() for _ in range(TIMES)]
    if "stranger" in origin:
        assert {(status, headers["x-amzn-errortype"]) for status, headers, _ in said} == {(403, "AccessDeniedException")}
    else:
        assert {(status, headers["access-control-allow-origin"]) for status, headers, _ in said} == {(200, origin)}


def test_a_page_under_another_name_is_refused_each_time(daemon: RunningDaemon, name: str) -> None:
    caller = Caller(daemon, name, {"Host": "stranger.example", "Accept-Language": "en"})
    with closing(caller.connection):
        assert [caller.call()[0] for _ in range(TIMES)] == [403] * TIMES


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"X-Amz-Invocation-Type": "DryRun"}, 204), ({"X-Amz-Invocation-Type": "Event"}, 202), ({"X-Amz-Log-Type": "Tail"}, 200)],
)
def test_other_ways_to_invoke_stay_what_they_are(
    daemon: RunningDaemon, name: str, headers: dict[str, str], status: int
) -> None:
    caller = Caller(daemon, name, headers)
    with closing(caller.connection):
        said = [caller.call() for _ in range(TIMES)]
    assert [one[0] for one in said] == [status] * TIMES
    assert all(("x-amz-log-result" in one[1]) == ("X-Amz-Log-Type" in headers) for one in said)


def test_who_signs_for_another_region_finds_nothing(daemon: RunningDaemon, name: str) -> None:
    for region, status in ((REGION, 200), ("eu-west-1", 404)):
        scope = f"AWS4-HMAC-SHA256 Credential=000000000000/20260101/{region}/lambda/aws4_request, SignedHeaders=a, Signature=b"
        caller = Caller(daemon, name, {"Authorization": scope})
        with closing(caller.connection):
            assert [caller.call()[0] for _ in range(TIMES)] == [status] * TIMES


def test_the_daemon_counts_them(daemon: RunningDaemon, caller: Caller) -> None:
    def counts() -> Any:
        statistics = daemon.health()["statistics"]
        return statistics["dispatcher"]["submitted"], statistics["http"]["requests_total"]

    before = counts()
    caller.warm()
    after = counts()
    assert (after[0] - before[0], after[1] - before[1]) == (TIMES, TIMES + 1)  # and one for the second counts


def test_sdk_clients_still_hear_their_errors(daemon: RunningDaemon, name: str) -> None:
    for _ in range(TIMES):
        with pytest.raises(ClientError, match="NoSuch|not found"):
            daemon.lambda_.invoke(FunctionName="no-such-function")
