"""A page calls the daemon: what a browser would send, answered by a daemon as it runs."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator

import pytest

from daemon_running import Answer, RunningDaemon, running_daemon, zipped
from fastlam.runtimes.python import INTERPRETER
from moto_running import running_aws

PAGE = "http://localhost:3000"
STRANGER = "https://stranger.example"
FUNCTIONS = "/2015-03-31/functions"
CODE = """
import os

def handler(event, context):
    if "fail" in event:
        raise ValueError("as asked")
    if "file" in event:
        open(event["file"], "w").close()
    return event
"""


def create_body(name: str) -> bytes:
    return json.dumps(
        {
            "FunctionName": name,
            "Runtime": INTERPRETER,
            "Role": "arn:aws:iam::000000000000:role/r",
            "Handler": "app.handler",
            "Code": {"ZipFile": base64.b64encode(zipped(CODE)).decode()},
        }
    ).encode()


def readable(answer: Answer, origin: str = PAGE) -> Answer:
    """What a browser would let the page read."""
    assert answer.headers["access-control-allow-origin"] == origin, answer
    assert answer.headers["vary"] == "Origin"
    return answer


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    with running_daemon("--cors-origin", "https://app.example", "--cors-origin", "null") as running:
        running.deploy("page", CODE)
        yield running


def test_a_page_creates_invokes_and_deletes(daemon: RunningDaemon) -> None:
    own = {"Origin": PAGE, "Content-Type": "application/json"}
    created = readable(daemon.send("POST", FUNCTIONS, create_body("of-a-page"), own))
    assert created.status == 201
    invoked = readable(daemon.send("POST", f"{FUNCTIONS}/page/invocations", b'{"a": 1}', own))
    assert (invoked.status, invoked.body) == (200, b'{"a": 1}')
    exposed = {name.strip().lower() for name in invoked.headers["access-control-expose-headers"].split(",")}
    assert {name for name in invoked.headers if name.startswith("x-amz")} <= exposed
    failed = readable(daemon.send("POST", f"{FUNCTIONS}/page/invocations", b'{"fail":1}', own))
    assert failed.headers["x-amz-function-error"] == "Unhandled"
    assert readable(daemon.send("DELETE", f"{FUNCTIONS}/of-a-page", None, own)).status == 204


def test_a_page_reads_errors(daemon: RunningDaemon) -> None:
    """Those of operations, of Invoke, of addresses that do not exist, and of what is too large."""
    own = {"Origin": PAGE}
    for method, path, body, status in (
        ("GET", f"{FUNCTIONS}/missing", None, 404),
        ("POST", f"{FUNCTIONS}/missing/invocations", b"{}", 404),
        ("POST", f"{FUNCTIONS}/page/invocations", b"{", 400),
        ("POST", f"{FUNCTIONS}/page/invocations", b'"%b"' % (b"a" * 6_300_000), 413),
        ("GET", "/nowhere", None, 404),
        ("POST", "/_fastlam/nowhere", b"", 404),
    ):
        assert readable(daemon.send(method, path, body, own)).status == status, (method, path)


def test_long_and_event_answers(daemon: RunningDaemon) -> None:
    body = json.dumps("a" * 200_000).encode()
    answer = readable(daemon.send("POST", f"{FUNCTIONS}/page/invocations", body, {"Origin": PAGE}))
    assert answer.body == body
    event = {"Origin": PAGE, "X-Amz-Invocation-Type": "Event"}
    assert readable(daemon.send("POST", f"{FUNCTIONS}/page/invocations", b"{}", event)).status == 202


def test_preflight(daemon: RunningDaemon) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "amz-sdk-request,authorization,x-amz-content-sha256,x-amz-date",
    }
    answer = readable(daemon.send("OPTIONS", f"{FUNCTIONS}/page/invocations", None, asked))
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-headers"] == asked["Access-Control-Request-Headers"]
    assert "content-length" not in answer.headers
    assert daemon.send("OPTIONS", f"{FUNCTIONS}/page/invocations", None, asked | {"Origin": STRANGER}).status == 403


def test_a_strange_page_does_nothing(daemon: RunningDaemon, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Simple requests, as a form of any page in the world makes them."""
    trace = tmp_path_factory.mktemp("stranger") / "was-here"
    form = {"Origin": STRANGER, "Content-Type": "text/plain", "Sec-Fetch-Site": "cross-site"}
    event = json.dumps({"file": str(trace)}).encode()
    before = [one["FunctionName"] for one in daemon.client().list_functions()["Functions"]]
    for path, body in (
        (FUNCTIONS, create_body("of-a-stranger")),
        (f"{FUNCTIONS}/page/invocations", event),
        (f"{FUNCTIONS}/page/invoke-async/", event),
        ("/_fastlam/reset", b""),
    ):
        answer = daemon.send("POST", path, body, form)
        assert answer.status == 403, path
        assert STRANGER in answer.json["message"]
        assert "access-control-allow-origin" not in answer.headers
    assert daemon.send("GET", FUNCTIONS, None, {"Origin": STRANGER}).status == 403
    assert [one["FunctionName"] for one in daemon.client().list_functions()["Functions"]] == before
    daemon.send_invoke("page", event)
    assert trace.exists(), "the same event leaves its trace when a program sends it"


def test_a_name_turned_to_this_machine(daemon: RunningDaemon) -> None:
    """DNS rebinding: the page's own origin is the daemon's, so only the name tells."""
    name = f"stranger.example:{daemon.port}"
    answer = daemon.send("GET", FUNCTIONS, None, {"Host": name, "Accept-Language": "en"})
    assert answer.status == 403 and "stranger.example" in answer.json["message"]
    assert daemon.send("GET", FUNCTIONS, None, {"Host": name}).status == 200, "no browser asks"


def test_origins_that_were_given(daemon: RunningDaemon) -> None:
    for origin in ("https://app.example", "null"):
        readable(daemon.send("GET", FUNCTIONS, None, {"Origin": origin}), origin)
    assert daemon.send("GET", FUNCTIONS, None, {"Origin": "http://app.example"}).status == 403


def test_programs_see_no_difference(daemon: RunningDaemon) -> None:
    answer = daemon.send_invoke("page")
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith(("access-control", "vary"))]


def test_one_answer_about_origins_of_what_another_service_says() -> None:
    """That service lets every page read its answers; which ones may is said once, by the daemon."""
    scope = "Credential=000000000000/20260101/us-east-1/s3/aws4_request"
    headers = {"Origin": PAGE, "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"}
    with running_aws() as aws, running_daemon("--aws-endpoint", aws.url) as daemon:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
        try:
            connection.request("GET", "/", headers=headers)
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
    assert answer.headers.get_all("access-control-allow-origin") == [PAGE]
