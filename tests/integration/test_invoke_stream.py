"""InvokeWithResponseStream through boto3 and over bare sockets, and the same functions invoked without a stream."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError

from daemon_running import ACCOUNT, GATE_CODE, REGION, Answer, Gate, RunningDaemon, running_daemon
from fastlam import limits
from waiting import await_that

pytestmark = pytest.mark.lanes

CODE = (
    GATE_CODE
    + r'''
import json, logging, os, sys, threading, time

def pieces(event, context):
    yield from event["pieces"]

async def asynchronous(event, context):
    for piece in event["pieces"]:
        yield piece

def gated(event, context):
    for number in range(event["count"]):
        yield f"piece {number}"
        wait_at(event["gate"])

def written(event, context):
    stream = context.response_stream
    if "type" in event:
        stream.set_content_type(event["type"])
    if "http" in event:
        stream.set_http_metadata(event["http"])
    for piece in event["pieces"]:
        stream.write(piece)
    return {"nobody": object()}

def half(event, context):
    print("printed")
    yield "half"
    deed = event["deed"]
    if deed == "raise":
        raise ValueError("in the middle")
    if deed == "exit":
        sys.exit(3)
    if deed == "sleep":
        time.sleep(60)
    if deed == "wrong":
        yield 5

def early(event, context):
    raise ValueError("before the first piece")
    yield

def looked(event, context):
    """Asks whether it could stream, and does not."""
    return hasattr(context, "response_stream")

def plain(event, context):
    if event == "raise":
        raise ValueError("plain")
    if event == "exit":
        os._exit(3)
    if event == "bytes":
        return b"\0\1"
    if event == "much":
        return "x" * 7_000_000
    return {"event": event}

def looks_on(event, context):
    """A thread asks for the stream again and again, and does not use it."""
    def look():
        while True:
            try:
                context.response_stream
            except ValueError as error:
                with open(event, "w") as file:
                    file.write(str(error))
                return
    threading.Thread(target=look).start()
    return event

def much(event, context):
    piece = b"x" * 65536
    for _ in range(event["mib"] * 16):
        yield piece

def seen(event, context):
    client = context.client_context
    yield json.dumps({
        "arn": context.invoked_function_arn,
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
        "custom": client and client.custom,
        "id": context.aws_request_id,
        "left": context.get_remaining_time_in_millis(),
    })

def late(event, context):
    """A thread goes on writing when the handler is done."""
    stream = context.response_stream
    def write():
        while True:
            try:
                stream.write("x")
            except ValueError as error:
                print("refused:", error)
                return
    threading.Thread(target=write).start()
    while not stream.used:
        time.sleep(0.001)
'''
)
HANDLERS = [
    "pieces",
    "asynchronous",
    "gated",
    "written",
    "half",
    "early",
    "looked",
    "looks_on",
    "plain",
    "much",
    "seen",
    "late",
]


@pytest.fixture(scope="module")
def daemon(lane_in_use: str) -> Iterator[RunningDaemon]:
    with running_daemon() as running:
        for name in HANDLERS:
            running.deploy(name, CODE, handler=f"app.{name}", Timeout=30)
        running.deploy("hasty", CODE, handler="app.half", Timeout=2)
        yield running


class Stream:
    """One answer, as boto3 shows it."""

    def __init__(self, daemon: RunningDaemon, name: str, event: Any = None, **more: Any) -> None:
        payload = event if isinstance(event, bytes) else json.dumps(event).encode()
        answer = daemon.lambda_.invoke_with_response_stream(FunctionName=name, Payload=payload, **more)
        self.headers: dict[str, str] = answer["ResponseMetadata"]["HTTPHeaders"]
        self.status = answer["StatusCode"]
        self.request_id: str = answer["ResponseMetadata"]["RequestId"]
        self.version = answer.get("ExecutedVersion")
        self.type = self.headers.get("x-amzn-remapped-content-type")
        self._events = iter(answer["EventStream"])
        self.complete: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[bytes]:
        """The pieces; when they are over, `complete` is the last message."""
        for event in self._events:
            assert self.complete is None, "something comes after the last message"
            if "InvokeComplete" in event:
                self.complete = event["InvokeComplete"]
            else:
                assert list(event) == ["PayloadChunk"]
                yield event["PayloadChunk"]["Payload"]

    def read(self) -> list[bytes]:
        found = list(self)
        assert self.complete is not None, "it has no end"
        return found


def reports(daemon: RunningDaemon, name: str, request_id: str) -> str:
    """The REPORT line of that invocation."""
    lines = daemon.logs(name, until=lambda log: any(line.startswith(f"REPORT RequestId: {request_id}") for line in log))
    return next(line for line in lines if line.startswith(f"REPORT RequestId: {request_id}"))


def settled(daemon: RunningDaemon, name: str) -> None:
    """Nothing of the function runs, and its environment answers."""
    assert daemon.invoke(name, {"pieces": ["again"], "deed": ""}).error is None
    assert [row["state"] for row in daemon.environments(name)] == ["idle"]


# --- what a stream is ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pieces", "asynchronous", "written"])
def test_pieces_of_a_handler(daemon: RunningDaemon, name: str) -> None:
    event = {"pieces": ["one", "zwö", "", "x" * 100_000]}
    answer = Stream(daemon, name, event)
    assert (answer.status, answer.version, answer.type) == (200, "$LATEST", "application/octet-stream")
    assert answer.headers["content-type"] == "application/vnd.amazon.eventstream"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert re.match(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", answer.headers["x-amzn-trace-id"])
    pieces = answer.read()
    assert pieces[:2] == [b"one", "zwö".encode()]
    assert b"".join(pieces) == "".join(event["pieces"]).encode()
    assert answer.complete == {}
    whole = daemon.invoke(name, event)
    assert (whole.raw, whole.error) == (b"".join(pieces), None)
    assert whole.headers["content-type"] == "application/octet-stream"


def test_a_piece_arrives_while_the_handler_runs(daemon: RunningDaemon, gate: Gate) -> None:
    answer = iter(Stream(daemon, "gated", {"gate": gate.port, "count": 3}))
    for number in range(3):
        gate.arrive()
        assert next(answer) == b"piece %d" % number
        gate.open()
    assert list(answer) == []


def test_no_pieces(daemon: RunningDaemon) -> None:
    assert Stream(daemon, "pieces", {"pieces": []}).read() == []
    assert daemon.invoke("pieces", {"pieces": []}).raw == b""


def test_the_type_of_a_response(daemon: RunningDaemon) -> None:
    event = {"type": "text/html; charset=utf-8", "pieces": ["<p>"]}
    answer = Stream(daemon, "written", event)
    assert (answer.type, answer.read()) == ("text/html; charset=utf-8", [b"<p>"])
    assert daemon.invoke("written", event).headers["content-type"] == "text/html; charset=utf-8"


def test_http_metadata(daemon: RunningDaemon) -> None:
    answer = Stream(daemon, "written", {"http": {"statusCode": 201, "cookies": ["a=b"]}, "pieces": ["body"]})
    assert answer.type == "application/vnd.awslambda.http-integration-response"
    prelude, _, body = b"".join(answer.read()).partition(bytes(8))
    assert (json.loads(prelude), body) == ({"statusCode": 201, "cookies": ["a=b"]}, b"body")


@pytest.mark.parametrize(
    ("event", "payload", "content_type"),
    [(1, b'{"event": 1}', "application/json"), ("bytes", b"\0\1", "application/unknown")],
)
def test_a_plain_handler_gives_one_piece(daemon: RunningDaemon, event: Any, payload: bytes, content_type: str) -> None:
    answer = Stream(daemon, "plain", event)
    assert (answer.type, answer.read(), answer.complete) == (content_type, [payload], {})


def test_a_handler_that_only_looks_does_not_stream(daemon: RunningDaemon) -> None:
    assert Stream(daemon, "looked").read() == [b"true"]
    assert daemon.invoke("looked").result is True


def test_the_end_of_the_log(daemon: RunningDaemon) -> None:
    answer = Stream(daemon, "half", {"deed": "raise"}, LogType="Tail")
    assert answer.read() == [b"half"]
    assert answer.complete is not None and answer.complete.keys() == {"LogResult"}
    lines = base64.b64decode(answer.complete["LogResult"]).decode().splitlines()
    assert f"START RequestId: {answer.request_id} Version: $LATEST" in lines
    assert "printed" in lines and "[ERROR] ValueError: in the middle" in lines
    assert lines[-1].startswith(f"REPORT RequestId: {answer.request_id}")
    without = Stream(daemon, "half", {"deed": ""}, LogType="None")
    without.read()
    assert without.complete == {}


def test_what_the_handler_sees_of_its_call(daemon: RunningDaemon) -> None:
    context = base64.b64encode(b'{"custom": {"k": "v"}}').decode()
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    answer = daemon.send(
        "POST",
        "/2021-11-15/functions/seen:$LATEST/response-streaming-invocations",
        b"",
        {"X-Amz-Client-Context": context, "X-Amzn-Trace-Id": trace},
    )
    seen = json.loads(messages(answer.body)[0][1])
    assert seen["arn"] == f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:seen:$LATEST"
    assert seen["trace"].startswith(f"{trace};Lineage=1:")
    assert (seen["custom"], seen["id"]) == ({"k": "v"}, answer.headers["x-amzn-requestid"])
    assert 0 < seen["left"] <= 30_000
    by_query = Stream(daemon, "seen", Qualifier="$LATEST")
    assert json.loads(by_query.read()[0])["arn"] == seen["arn"]


@pytest.mark.parametrize("kind", ["RequestResponse", "DryRun", "Event", "Nonsense"])
def test_the_invocation_type_does_not_matter(daemon: RunningDaemon, kind: str) -> None:
    answer = send(daemon, "plain", b"5", Invocation_Type=kind)
    assert (answer.status, messages(answer.body)) == (
        200,
        [("PayloadChunk", b'{"event": 5}'), ("InvokeComplete", b"{}")],
    )


def send(daemon: RunningDaemon, name: str, body: bytes = b"{}", **headers: str) -> Answer:
    fields = {f"X-Amz-{key.replace('_', '-')}": value for key, value in headers.items()}
    return daemon.send("POST", f"/2021-11-15/functions/{name}/response-streaming-invocations", body, fields)


def messages(body: bytes) -> list[tuple[str, bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [(message.headers[":event-type"], message.payload) for message in buffer]


def test_a_client_of_http_1_0(daemon: RunningDaemon) -> None:
    with socket.create_connection(("127.0.0.1", daemon.port)) as client, client.makefile("rb") as stream:
        path = b"/2021-11-15/functions/pieces/response-streaming-invocations"
        body = b'{"pieces": ["one", "two"]}'
        client.sendall(b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body))
        head, _, rest = stream.read().partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert messages(rest) == [("PayloadChunk", b"one"), ("PayloadChunk", b"two"), ("InvokeComplete", b"{}")]


# --- failures -----------------------------------------------------------------------------------------


def refused(daemon: RunningDaemon, name: str, payload: bytes = b"{}", **more: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        daemon.lambda_.invoke_with_response_stream(FunctionName=name, Payload=payload, **more)
    answer: Any = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def test_refusals_are_no_streams(daemon: RunningDaemon) -> None:
    assert refused(daemon, "nobody") == (404, "ResourceNotFoundException")
    assert refused(daemon, "plain", Qualifier="7") == (404, "ResourceNotFoundException")
    assert refused(daemon, "plain", b"{") == (400, "InvalidRequestContentException")
    assert refused(daemon, "plain", TenantId="t") == (400, "InvalidParameterValueException")
    assert send(daemon, "plain", b" " * (limits.SYNC_PAYLOAD_BYTES_MAX + 1)).status == 413
    assert send(daemon, "plain", Log_Type="All").status == 400
    assert send(daemon, "plain", Client_Context="{").status == 400
    daemon.lambda_.put_function_concurrency(FunctionName="plain", ReservedConcurrentExecutions=0)
    answer = send(daemon, "plain")
    daemon.lambda_.delete_function_concurrency(FunctionName="plain")
    assert (answer.status, answer.json["Reason"]) == (429, "ReservedFunctionConcurrentInvocationLimitExceeded")
    assert answer.headers["content-type"] == "application/json"


def test_a_plain_handlers_error_is_its_payload(daemon: RunningDaemon) -> None:
    answer = Stream(daemon, "plain", "raise")
    (document,) = answer.read()
    assert json.loads(document)["errorType"] == "ValueError"
    assert (answer.status, answer.type, answer.complete) == (200, "application/json", {})
    assert "x-amz-function-error" not in answer.headers


def test_a_plain_handlers_result_may_not_be_larger_than_elsewhere(daemon: RunningDaemon) -> None:
    (document,) = Stream(daemon, "plain", "much").read()
    assert json.loads(document)["errorType"] == "Function.ResponseSizeTooLarge"


def test_an_error_before_the_first_piece_leaves_nothing(daemon: RunningDaemon) -> None:
    answer = Stream(daemon, "early")
    assert (answer.read(), answer.complete, answer.type) == ([], {}, "application/octet-stream")
    whole = daemon.invoke("early")
    assert (whole.error, whole.json["errorMessage"]) == ("Unhandled", "before the first piece")


@pytest.mark.parametrize(
    ("name", "deed", "error_type"),
    [
        ("half", "raise", ""),
        ("half", "wrong", ""),
        ("half", "exit", "\tStatus: error\tError Type: Runtime.ExitError"),
        ("hasty", "sleep", "\tStatus: timeout"),
    ],
)
def test_a_failure_in_the_middle(daemon: RunningDaemon, name: str, deed: str, error_type: str) -> None:
    answer = Stream(daemon, name, {"deed": deed})
    assert (answer.read(), answer.complete) == ([b"half"], {})
    assert error_type in reports(daemon, name, answer.request_id)
    settled(daemon, name)


def test_the_same_failures_without_a_stream(daemon: RunningDaemon) -> None:
    errors = {}
    for name, deed in (("half", "raise"), ("half", "wrong"), ("half", "exit"), ("hasty", "sleep")):
        invoked = daemon.invoke(name, {"deed": deed})
        assert invoked.error == "Unhandled"
        errors[deed] = invoked.json["errorType"]
    assert errors == {
        "raise": "ValueError",
        "wrong": "Runtime.MarshalError",
        "exit": "Runtime.ExitError",
        "sleep": "Sandbox.Timedout",
    }


def test_a_thread_that_writes_too_late_hears_so(daemon: RunningDaemon) -> None:
    for _ in range(20):
        assert set(b"".join(Stream(daemon, "late").read())) == set(b"x")
    frames = daemon.health()["statistics"]["dispatcher"]["bad_frames"]
    assert (frames, len(daemon.environments("late"))) == (0, 1)
    daemon.logs("late", until=lambda log: any("refused: the invocation is over" in line for line in log))


def test_a_thread_that_asks_too_late_hears_so(daemon: RunningDaemon, tmp_path: Path) -> None:
    for number in range(20):
        said = tmp_path / str(number)
        said.touch()
        assert Stream(daemon, "looks_on", str(said)).read() == [json.dumps(str(said)).encode()]
        await_that(lambda said=said: said.read_text().startswith("the invocation is over"))
    assert len(daemon.environments("looks_on")) == 1


def test_a_plain_handler_that_dies_leaves_nothing(daemon: RunningDaemon) -> None:
    """What the platform would say in its place is no word of the runtime's."""
    answer = Stream(daemon, "plain", "exit")
    assert (answer.read(), answer.complete, answer.status) == ([], {}, 200)
    assert "Error Type: Runtime.ExitError" in reports(daemon, "plain", answer.request_id)


# --- sizes --------------------------------------------------------------------------------------------


def test_a_large_stream(daemon: RunningDaemon) -> None:
    assert sum(map(len, Stream(daemon, "much", {"mib": 30}))) == 30 * 1024 * 1024


def test_a_stream_over_the_limit_is_cut_without_an_error(daemon: RunningDaemon) -> None:
    answer = Stream(daemon, "much", {"mib": 201})
    assert sum(map(len, answer)) == limits.STREAM_BYTES_MAX
    assert answer.complete == {}


def test_a_stream_that_is_not_taken_as_one_has_the_limit_of_all_responses(daemon: RunningDaemon) -> None:
    invoked = daemon.invoke("much", {"mib": 7})
    assert invoked.json == {
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        "errorType": "Function.ResponseSizeTooLarge",
    }
    assert len(daemon.invoke("much", {"mib": 6}).raw) == 6 * 1024 * 1024


# --- the legacy InvokeAsync ---------------------------------------------------------------------------


def send_async(daemon: RunningDaemon, name: str, body: bytes, end: str = "") -> Answer:
    return daemon.send("POST", f"/2014-11-13/functions/{name}/invoke-async{end}", body)


@pytest.mark.parametrize("end", ["", "/"])
def test_invoke_async_is_an_event(daemon: RunningDaemon, end: str) -> None:
    before = daemon.health()["statistics"]["events"]["accepted"]
    answer = send_async(daemon, "plain", b'"later"', end)
    assert (answer.status, answer.body) == (202, b"")
    assert daemon.health()["statistics"]["events"]["accepted"] == before + 1
    reports(daemon, "plain", answer.headers["x-amzn-requestid"])


def test_invoke_async_through_boto3(daemon: RunningDaemon) -> None:
    assert daemon.lambda_.invoke_async(FunctionName="plain", InvokeArgs=b"{}")["Status"] == 202


def test_invoke_async_has_its_own_limit(daemon: RunningDaemon) -> None:
    assert send_async(daemon, "plain", b"1".ljust(262_144)).status == 202
    refusal = send_async(daemon, "plain", b"1".ljust(262_145))
    assert refusal.status == 413
    assert refusal.json["message"] == (
        "262145 byte payload is too large for the Event invocation type (limit 262144 bytes)"
    )
    assert send_async(daemon, "plain", b"{").status == 400
    assert send_async(daemon, "nobody", b"{}").status == 404
