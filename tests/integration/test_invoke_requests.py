"""What a caller may ask of Invoke, how it is answered, what is refused before the function runs, and what the function
sees of it.
"""

from __future__ import annotations

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from daemon_running import ACCOUNT, REGION, RunningDaemon
from fastlam.runtimes.python import INTERPRETER

pytestmark = pytest.mark.lanes

ECHO = "def handler(event, context):\n    return event\n"
SYNC_BYTES_MAX = 6_291_456
EVENT_BYTES_MAX = 1_048_576
# Lambda's runtimes before python3.12 write what is not ASCII as escapes.
ASCII_ONLY = int(INTERPRETER.removeprefix("python3.")) < 12
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


@pytest.fixture(scope="module")
def echo(daemon: RunningDaemon) -> str:
    return daemon.deploy("echo", ECHO, Timeout=30)


@pytest.fixture(scope="module")
def counted(daemon: RunningDaemon) -> str:
    """A function that must not have run when its tests are over: nothing of what they send is a call."""
    return daemon.deploy("counted", ECHO)


def arn(name: str, qualifier: str | None = None, account: str = ACCOUNT, region: str = REGION) -> str:
    return f"arn:aws:lambda:{region}:{account}:function:{name}" + (f":{qualifier}" if qualifier else "")


# ---- answers -----------------------------------------------------------------------------------------


def test_the_answer_to_a_call(daemon: RunningDaemon, echo: str) -> None:
    answer = daemon.send_invoke(echo, b'{"a": [1, 2.50, "\xc3\xa9", null]}')
    letter = b"\\u00e9" if ASCII_ONLY else b"\xc3\xa9"
    assert (answer.status, answer.body) == (200, b'{"a": [1, 2.5, "%b", null]}' % letter)
    headers = answer.headers
    assert re.fullmatch(UUID, headers["x-amzn-requestid"])
    assert headers["x-amz-executed-version"] == "$LATEST"
    assert headers["content-type"] == "application/json"
    assert headers["x-amzn-remapped-content-length"] == "0"
    assert re.match(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", headers["x-amzn-trace-id"])
    assert not {"x-amz-function-error", "x-amz-log-result"} & headers.keys()


def test_nothing_returned_is_null(daemon: RunningDaemon) -> None:
    daemon.deploy("nothing", "def handler(event, context):\n    pass\n")
    assert daemon.invoke("nothing").raw == b"null"


@pytest.mark.parametrize("body", [b"null", b"0", b'""', b"[]", b" {}\n", b"true", b'"\xf0\x9f\x90\x8d"', b"1e400"])
def test_an_event_is_any_json(daemon: RunningDaemon, echo: str, body: bytes) -> None:
    assert daemon.invoke(echo, body).result == json.loads(body)


def test_no_body_is_an_empty_object(daemon: RunningDaemon, echo: str) -> None:
    assert daemon.send_invoke(echo, b"").body == b"{}"
    assert daemon.lambda_.invoke(FunctionName=echo)["Payload"].read() == b"{}"


def test_an_event_and_its_answer_may_have_the_full_size(daemon: RunningDaemon, echo: str) -> None:
    event = json.dumps("x" * (SYNC_BYTES_MAX - 2)).encode()
    assert len(event) == SYNC_BYTES_MAX
    assert daemon.invoke(echo, event).raw == event


def test_log_type_tail_is_asked_for(daemon: RunningDaemon, echo: str) -> None:
    assert not daemon.invoke(echo, LogType="None").has_log
    invoked = daemon.invoke(echo, LogType="Tail")
    lines = invoked.log.splitlines(keepends=True)
    assert lines[-3:-1] == [
        f"START RequestId: {invoked.request_id} Version: $LATEST\n",
        f"END RequestId: {invoked.request_id}\n",
    ]
    assert re.fullmatch(
        rf"REPORT RequestId: {invoked.request_id}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\t"
        r"Memory Size: 128 MB\tMax Memory Used: \d+ MB\t(Init Duration: \d+\.\d\d ms\t)?\n",
        lines[-1],
    )


def test_only_the_first_call_of_an_environment_has_an_init_duration(daemon: RunningDaemon) -> None:
    daemon.deploy("cold", "print('loading')\n" + ECHO, MemorySize=512)
    cold, warm = daemon.invoke("cold"), daemon.invoke("cold")
    assert "Memory Size: 512 MB\t" in cold.report
    assert re.search(r"\tInit Duration: \d+\.\d\d ms\t$", cold.report)
    assert "Init Duration" not in warm.report
    assert cold.log.startswith("loading\nSTART RequestId: ")
    assert warm.log.startswith("START RequestId: ")
    billed = int(re.findall(r"Billed Duration: (\d+) ms", cold.report)[0])
    duration, init = (
        float(re.findall(rf"\t{name}: ([\d.]+) ms", cold.report)[0]) for name in ("Duration", "Init Duration")
    )
    assert duration + init <= billed + 0.01
    assert billed < duration + init + 1.02


def test_event_is_accepted_and_runs_once(daemon: RunningDaemon) -> None:
    daemon.deploy("later", "def handler(event, context):\n    print('ran with', event, context.aws_request_id)\n")
    answer = daemon.send_invoke("later", b'{"n": 1}', Invocation_Type="Event", Log_Type="Tail")
    assert (answer.status, answer.body) == (202, b"")
    assert not {"x-amz-executed-version", "x-amz-log-result", "x-amz-function-error"} & answer.headers.keys()
    assert answer.headers["x-amzn-trace-id"].startswith("root=1-")
    daemon.logs("later", until=lambda lines: any(line.startswith("REPORT") for line in lines))
    second = daemon.lambda_.invoke(FunctionName="later", InvocationType="Event", Payload=b"2")
    assert second["StatusCode"] == 202
    lines = daemon.logs("later", until=lambda lines: sum(line.startswith("REPORT") for line in lines) == 2)
    assert [line for line in lines if line.startswith("ran with")] == [
        f"ran with {{'n': 1}} {answer.headers['x-amzn-requestid']}\n",
        f"ran with 2 {second['ResponseMetadata']['RequestId']}\n",
    ]


def test_a_failing_event_is_answered_before_it_fails(daemon: RunningDaemon) -> None:
    daemon.deploy("fails-later", "def handler(event, context):\n    raise ValueError('unheard')\n")
    assert daemon.send_invoke("fails-later", Invocation_Type="Event").status == 202
    daemon.logs("fails-later", until=lambda lines: any("ValueError: unheard" in line for line in lines))


def test_dry_run_checks_and_does_not_run(daemon: RunningDaemon, counted: str) -> None:
    answer = daemon.send_invoke(counted, Invocation_Type="DryRun")
    assert (answer.status, answer.body) == (204, b"")
    assert "x-amz-executed-version" not in answer.headers
    assert daemon.send_invoke("no-such-function", Invocation_Type="DryRun").status == 404
    assert daemon.send_invoke(counted, b"{", Invocation_Type="DryRun").status == 400
    assert daemon.environments(counted) == []


def test_dry_run_of_what_this_machine_cannot_run(daemon: RunningDaemon) -> None:
    client = daemon.lambda_
    client.create_function(
        FunctionName="elsewhere",
        PackageType="Image",
        Role="arn:aws:iam::000000000000:role/r",
        Code={"ImageUri": "000000000000.dkr.ecr.us-east-1.amazonaws.com/image:1"},
    )
    daemon.settle("elsewhere")
    assert daemon.send_invoke("elsewhere", Invocation_Type="DryRun").status == 204
    answer = daemon.send_invoke("elsewhere")
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (409, "CodeArtifactUserFailedException")


def test_the_callers_trace_is_joined(daemon: RunningDaemon) -> None:
    daemon.deploy("traced", "import os\ndef handler(event, context):\n    return os.environ.get('_X_AMZN_TRACE_ID')\n")
    given = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    path = "/2015-03-31/functions/traced/invocations"
    answer = daemon.send("POST", path, b"{}", {"X-Amzn-Trace-Id": given})
    assert answer.json == answer.headers["x-amzn-trace-id"]
    assert re.fullmatch(re.escape(given) + r";Lineage=1:[0-9a-f]{8}:0", answer.json)
    other = daemon.send("POST", path, b"{}")
    assert other.json == other.headers["x-amzn-trace-id"]
    assert other.json != given


# ---- addresses ---------------------------------------------------------------------------------------


def test_every_form_of_the_name(daemon: RunningDaemon) -> None:
    daemon.deploy("addressed", "def handler(event, context):\n    return context.invoked_function_arn\n")
    plain, qualified = arn("addressed"), arn("addressed", "$LATEST")
    for name, expected in (
        ("addressed", plain),
        (f"{ACCOUNT}:function:addressed", plain),
        (f"{ACCOUNT}:addressed", plain),
        ("function:addressed", plain),
        (plain, plain),
        ("addressed:$LATEST", qualified),
        (f"{ACCOUNT}:function:addressed:$LATEST", qualified),
        (qualified, qualified),
    ):
        assert daemon.invoke(name).result == expected, name
    assert daemon.invoke("addressed", Qualifier="$LATEST").result == qualified
    assert daemon.invoke(qualified, Qualifier="$LATEST").result == qualified


@pytest.mark.parametrize("qualifier", [None, "$LATEST", "1", "live"])
def test_what_is_not_there(daemon: RunningDaemon, echo: str, qualifier: str | None) -> None:
    name = echo if qualifier in ("1", "live") else "absent"
    arguments = {} if qualifier is None else {"Qualifier": qualifier}
    with pytest.raises(daemon.lambda_.exceptions.ResourceNotFoundException) as caught:
        daemon.invoke(name, **arguments)
    assert caught.value.response["Error"]["Message"] == f"Function not found: {arn(name, qualifier or '$LATEST')}"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_a_qualifier_twice_must_be_the_same(daemon: RunningDaemon, counted: str) -> None:
    with pytest.raises(ClientError) as caught:
        daemon.invoke(f"{counted}:$LATEST", Qualifier="1")
    assert caught.value.response["Error"]["Code"] == "InvalidParameterValueException"


def test_accounts_and_regions_have_functions_of_their_own(daemon: RunningDaemon) -> None:
    code = (
        "import os\ndef handler(event, context):\n    return [context.invoked_function_arn, os.environ['AWS_REGION']]\n"
    )
    other = daemon.client(account="123456789012", region="eu-central-1")
    daemon.deploy("homely", code, client=other)
    assert daemon.invoke("homely", client=other).result == [
        arn("homely", account="123456789012", region="eu-central-1"),
        "eu-central-1",
    ]
    for foreign in (daemon.lambda_, daemon.client(account="123456789012"), daemon.client(region="eu-central-1")):
        with pytest.raises(foreign.exceptions.ResourceNotFoundException):
            daemon.invoke("homely", client=foreign)


# ---- refused before the function runs ----------------------------------------------------------------

NO_JSON = [b"{", b"not json", b"{'a': 1}", b'{"a": 1,}', b"\x87", b'"\x01"', b"[1, 2", b"1 2", b"[" * 100_000, b"nul"]


@pytest.mark.parametrize("body", NO_JSON, ids=lambda body: repr(body[:12]))
@pytest.mark.parametrize("kind", ["RequestResponse", "Event", "DryRun"])
def test_a_body_that_is_no_json(daemon: RunningDaemon, counted: str, body: bytes, kind: str) -> None:
    answer = daemon.send_invoke(counted, body, Invocation_Type=kind)
    assert answer.status == 400
    assert answer.headers["x-amzn-errortype"] == "InvalidRequestContentException"
    assert answer.json["Type"] == "User"
    assert answer.json["message"].startswith(
        "Could not parse request body into json: Could not parse payload into json: "
    )


@pytest.mark.parametrize("name", ["", "%20", "a%2Fb", "x" * 300])
def test_names_that_are_none(daemon: RunningDaemon, name: str) -> None:
    answer = daemon.send("POST", f"/2015-03-31/functions/{name}/invocations", b"{}")
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert "at 'functionName' failed to satisfy constraint" in answer.json["message"]


def test_the_parsers_words_are_the_services(daemon: RunningDaemon, counted: str) -> None:
    message = daemon.send_invoke(counted, b'["\x87"]').json["message"]
    assert "Invalid UTF-8 start byte 0x87" in message
    assert re.search(r"\n at \[Source: REDACTED .*; line: 1, column: \d+\]$", message)


@pytest.mark.parametrize(
    ("kind", "bytes_max"), [("RequestResponse", SYNC_BYTES_MAX), ("Event", EVENT_BYTES_MAX), ("DryRun", SYNC_BYTES_MAX)]
)
def test_one_byte_more_than_allowed(daemon: RunningDaemon, counted: str, kind: str, bytes_max: int) -> None:
    answer = daemon.send_invoke(counted, b'"' + b"x" * (bytes_max - 1) + b'"', Invocation_Type=kind)
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (413, "RequestEntityTooLargeException")
    named = "Event" if kind == "Event" else "RequestResponse"
    assert answer.json["message"] == (
        f"{bytes_max + 1} byte payload is too large for the {named} invocation type (limit {bytes_max} bytes)"
    )


def test_an_event_at_its_limit(daemon: RunningDaemon) -> None:
    daemon.deploy("measures", "def handler(event, context):\n    print('length', len(event))\n")
    body = b'"' + b"x" * (EVENT_BYTES_MAX - 2) + b'"'
    assert daemon.send_invoke("measures", body, Invocation_Type="Event").status == 202
    daemon.logs("measures", until=lambda lines: f"length {EVENT_BYTES_MAX - 2}\n" in lines)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Invocation_Type": "Sometimes"}, "[Event, RequestResponse, DryRun]"),
        ({"Log_Type": "Everything"}, "[None, Tail]"),
    ],
)
def test_unknown_types(daemon: RunningDaemon, counted: str, headers: dict[str, str], words: str) -> None:
    answer = daemon.send_invoke(counted, **headers)
    assert answer.status == 400
    assert "failed to satisfy constraint: Member must satisfy enum value set: " in answer.json["message"]
    assert set(re.findall(r"\w+", words)) <= set(re.findall(r"\w+", answer.json["message"]))


def test_a_request_id_that_is_none(daemon: RunningDaemon, counted: str) -> None:
    path = f"/2015-03-31/functions/{counted}/invocations"
    answer = daemon.send("POST", path, b"{}", {"x-amzn-RequestId": "mine"})
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "InvalidRequestContentException")


def client_context(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "context",
    [
        "no base64!",
        base64.b64encode(b"no json").decode(),
        base64.b64encode(b"\xff\xfe").decode(),
        client_context({"custom": {"fill": "x" * 2700}}),
    ],
    ids=["base64", "json", "utf-8", "3584 bytes"],
)
def test_a_client_context_that_is_none(daemon: RunningDaemon, counted: str, context: str) -> None:
    answer = daemon.send_invoke(counted, Client_Context=context)
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "InvalidRequestContentException")


def test_nothing_that_was_refused_has_run(daemon: RunningDaemon, counted: str) -> None:
    assert daemon.environments(counted) == []
    assert daemon.logs(counted) == []
    assert daemon.stderr() == ""


# ---- what the function sees --------------------------------------------------------------------------

TELLS_CONTEXT = """
def handler(event, context):
    client = context.client_context
    return {
        "fields": {
            name: getattr(context, name)
            for name in (
                "aws_request_id", "function_name", "function_version", "invoked_function_arn", "memory_limit_in_mb",
                "log_group_name", "log_stream_name", "tenant_id",
            )
        },
        "identity": [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id],
        "client": client and [client.custom, client.env, client.client and client.client.app_title],
        "remaining": [context.get_remaining_time_in_millis(), type(context.get_remaining_time_in_millis()).__name__],
        "class": type(context).__name__,
    }
"""


def test_the_context(daemon: RunningDaemon) -> None:
    daemon.deploy("tells-context", TELLS_CONTEXT, Timeout=17, MemorySize=256)
    invoked = daemon.invoke("tells-context")
    seen = invoked.result
    stream = seen["fields"].pop("log_stream_name")
    assert seen["fields"] == {
        "aws_request_id": invoked.request_id,
        "function_name": "tells-context",
        "function_version": "$LATEST",
        "invoked_function_arn": arn("tells-context"),
        "memory_limit_in_mb": "256",
        "log_group_name": "/aws/lambda/tells-context",
        "tenant_id": None,
    }
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", stream)
    assert (seen["identity"], seen["client"], seen["class"]) == ([None, None], None, "LambdaContext")
    remaining, kind = seen["remaining"]
    assert (0 < remaining <= 17_000, kind) == (True, "int")
    assert daemon.invoke("tells-context").result["fields"]["log_stream_name"] == stream, "one stream an environment"


def test_the_client_context_reaches_synchronous_calls(daemon: RunningDaemon) -> None:
    daemon.deploy("tells-client", TELLS_CONTEXT)
    given = {"custom": {"a": "1"}, "env": {"locale": "de"}, "client": {"app_title": "Title"}}
    assert daemon.invoke("tells-client", ClientContext=client_context(given)).result["client"] == [
        {"a": "1"},
        {"locale": "de"},
        "Title",
    ]
    assert daemon.invoke("tells-client", ClientContext=client_context({})).result["client"] == [None, None, None]
    fits = {"custom": {"fill": "x" * 2655}}
    assert len(client_context(fits)) <= 3583
    assert daemon.invoke("tells-client", ClientContext=client_context(fits)).result["client"][0] == fits["custom"]
    assert daemon.invoke("tells-client").result["client"] is None


def test_the_client_context_does_not_reach_events(daemon: RunningDaemon) -> None:
    daemon.deploy("event-client", "def handler(event, context):\n    print('client', context.client_context)\n")
    given = client_context({"custom": {"a": "1"}})
    assert daemon.send_invoke("event-client", Invocation_Type="Event", Client_Context=given).status == 202
    daemon.logs("event-client", until=lambda lines: "client None\n" in lines)


def test_the_environment_variables(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "tells-environment",
        "import os, time\nvariables = dict(os.environ)\n"
        "def handler(event, context):\n    return [variables, os.getcwd(), time.tzname[0], context.log_stream_name]\n",
        environment={"STAGE": "test", "UMLAUT": "ß", "TZ": "UTC", "LANG": "C.UTF-8", "AWS_LAMBDA_EXEC": "mine"},
        MemorySize=1769,
    )
    variables, directory, zone, stream = daemon.invoke("tells-environment").result
    assert {name: variables[name] for name in variables if name in EXPECTED_VARIABLES} == EXPECTED_VARIABLES
    assert variables["LAMBDA_TASK_ROOT"] == directory == variables["PWD"]
    assert (variables["AWS_LAMBDA_LOG_STREAM_NAME"], zone) == (stream, "UTC")
    assert variables["AWS_ENDPOINT_URL"] == daemon.url
    # The credentials name the account and the role; nothing in them is a secret.
    assert variables["AWS_ACCESS_KEY_ID"] == ACCOUNT
    assert variables["AWS_SECRET_ACCESS_KEY"]
    assert "lambda-role" in variables["AWS_SESSION_TOKEN"]
    assert "tells-environment" in variables["AWS_SESSION_TOKEN"]
    assert "_X_AMZN_TRACE_ID" not in variables, "INIT belongs to no trace"
    unexpected = {name for name in variables if name.startswith(("PYTEST", "FASTLAM", "PYTHON", "HOME", "VIRTUAL"))}
    assert unexpected == set(), "nothing of the daemon's own environment is handed on"


EXPECTED_VARIABLES = {
    "AWS_LAMBDA_FUNCTION_NAME": "tells-environment",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
    "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/tells-environment",
    "AWS_LAMBDA_LOG_FORMAT": "Text",
    "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EXECUTION_ENV": f"AWS_Lambda_{INTERPRETER}",
    "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
    "AWS_XRAY_DAEMON_ADDRESS": "169.254.100.1:2000",
    "_AWS_XRAY_DAEMON_ADDRESS": "169.254.100.1",
    "_AWS_XRAY_DAEMON_PORT": "2000",
    "_HANDLER": "app.handler",
    "LAMBDA_RUNTIME_DIR": "/var/runtime",
    "SHLVL": "0",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "STAGE": "test",
    "UMLAUT": "ß",
    "AWS_LAMBDA_EXEC": "mine",
}


def test_globals_live_as_long_as_the_environment(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "counts", "calls = 0\ndef handler(event, context):\n    global calls\n    calls += 1\n    return calls\n"
    )
    assert [daemon.invoke("counts").result for _ in range(3)] == [1, 2, 3]


def test_a_handler_may_lie_deep_in_the_package(daemon: RunningDaemon) -> None:
    files = {"src/pack/__init__.py": "", "src/pack/work.py": ECHO, "src/__init__.py": ""}
    daemon.deploy("by-slash", files, handler="src/pack/work.handler")
    daemon.deploy("by-dot", files, handler="src.pack.work.handler")
    assert [daemon.invoke(name, [name]).result for name in ("by-slash", "by-dot")] == [["by-slash"], ["by-dot"]]


ALL_HERE = """
import os, time

def handler(event, context):
    directory, number = event
    open(f"{directory}/{number}", "x").close()
    while len(os.listdir(directory)) < 16:
        time.sleep(0.001)   # until the others are here, or the invocation times out
    return event
"""


def test_many_callers_at_once_each_get_their_own_answer(daemon: RunningDaemon, tmp_path: Path) -> None:
    """The first sixteen end only when all of them run: none waits for another one's environment."""
    daemon.deploy("own-answer", ALL_HERE, Timeout=60)
    events = [[str(tmp_path), number] for number in range(200)]
    with ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(lambda event: daemon.invoke("own-answer", event).result, events))
    assert answers == events
    assert len(daemon.environments("own-answer")) == 16
