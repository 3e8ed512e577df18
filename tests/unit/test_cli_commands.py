"""The commands against a real HTTP server that gives scripted answers: what they send, print and exit with."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from click.testing import CliRunner, Result

from fastlam.cli import COMMANDS, cli
from fastlam.cli.client import Client
from fastlam.cli.session import NoAnswer, NoDaemon
from fastlam.http.server import Request
from http_running import Running

HEALTH = {"status": "ok", "version": "9.9.9", "pid": 1, "account": "111122223333", "region": "eu-west-1"}
CONFIGURATION = {
    "FunctionName": "hello",
    "Runtime": "python3.11",
    "Handler": "app.handler",
    "MemorySize": 128,
    "Timeout": 3,
    "CodeSize": 2048,
    "CodeSha256": "x",
    "LastModified": "2026-01-02T03:04:05.678+0000",
    "State": "Active",
    "LastUpdateStatus": "Successful",
}
FUNCTIONS = "/2015-03-31/functions"


class Daemon(Running):
    """Answers each method and path with the next of its scripted answers; the last one stays."""

    def __init__(self) -> None:
        super().__init__(self.respond)
        self.answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.say("GET /_fastlam/health", HEALTH)

    def say(self, call: str, body: Any, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.setdefault(call, []).append((status, named, data))

    def respond(self, request: Request) -> None:
        answers = self.answers.get(f"{request.method.decode()} {request.path.decode()}")
        if answers is None:
            body = b'{"Type":"User","Message":"Function not found: arn:x"}'
            request.respond(404, b"x-amzn-ErrorType: ResourceNotFoundException\r\n", body)
            return
        status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
        request.respond(status, "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode(), body)

    def requests(self) -> list[Request]:
        """What has been asked since the last look, without the questions for health."""
        found = []
        while not self.seen.empty():
            request = self.seen.get()
            if request.path != b"/_fastlam/health":
                found.append(request)
        return found


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    for name in ("FASTLAM_ACCOUNT", "FASTLAM_REGION", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with Daemon() as running:
        monkeypatch.setenv("FASTLAM_ENDPOINT", running.url)
        yield running


def run(*arguments: str, status: int = 0, **options: Any) -> Result:
    result = CliRunner().invoke(cli, list(arguments), **options)
    assert result.exit_code == status, (result.exit_code, result.output, result.exception)
    return result


# --- frame -------------------------------------------------------------------------------------------


def test_every_command_has_its_help_with_examples() -> None:
    overview = run("--help").stdout
    for name, entry in COMMANDS.items():
        assert f"  {name} " in overview and entry.summary in overview
        text = run(name, "--help").stdout
        assert "Example" in text and f"fastlam {name}" in text


def test_usage_errors() -> None:
    assert "No such command 'nothing'" in run("nothing", status=2).stderr
    assert "twelve digits" in run("--account", "12", "ls", status=2).stderr
    assert "is no URL" in run("--endpoint-url", "localhost:4566", "ls", status=2).stderr
    assert "either --payload or --event" in run("invoke", "x", "-p", "{}", "--event", "-", status=2).stderr
    assert "exclude each other" in run("invoke", "x", "--async", "--dry-run", status=2).stderr


@pytest.mark.parametrize(
    "arguments", [["ls"], ["invoke", "x"], ["ps"], ["logs", "x"], ["rm", "x"], ["stop"], ["wait", "--timeout", "0"]]
)
def test_without_a_daemon_every_command_says_how_to_start_one(arguments: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
    result = run("--endpoint-url", endpoint, *arguments, status=3)
    assert result.stdout == ""
    assert result.stderr.startswith(f"No fastlam daemon answers at {endpoint}: start one with 'fastlam serve --detach'")
    assert result.stderr.count("\n") == 1


def test_another_server_is_no_daemon() -> None:
    with Running(lambda request: request.respond(200, b"", b"<html>")) as other:
        client = Client(other.url, None, None)
        with pytest.raises(NoDaemon):
            client.health()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = Client(f"http://127.0.0.1:{listening.getsockname()[1]}", None, None)
        hanging_up = threading.Thread(target=lambda: listening.accept()[0].close())
        hanging_up.start()
        with pytest.raises(NoAnswer):
            client.request("GET", "/")
        hanging_up.join()


@pytest.mark.parametrize(
    ("options", "scope"),
    [
        ((), None),
        (("--account", "123456789012", "--region", "us-west-2"), "123456789012/20260101/us-west-2/lambda/aws4_request"),
        (("--account", "123456789012"), "123456789012/20260101/eu-west-1/lambda/aws4_request"),
        (("--region", "us-west-2"), "fastlam/20260101/us-west-2/lambda/aws4_request"),
    ],
)
def test_account_and_region_travel_in_the_credential_scope(
    daemon: Daemon, options: tuple[str, ...], scope: str | None
) -> None:
    daemon.say(f"GET {FUNCTIONS}", {"Functions": []})
    run(*options, "ls")
    (request,) = daemon.requests()
    authorization = request.header(b"authorization")
    expected = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0".encode() if scope else None
    assert authorization == expected


def test_errors_of_the_api_are_one_line(daemon: Daemon) -> None:
    assert run("invoke", "nope", status=2).stderr == "ResourceNotFoundException: Function not found: arn:x\n"
    throttled = {"Reason": "ConcurrentInvocationLimitExceeded", "Type": "User", "message": "Rate\nExceeded."}
    daemon.say(
        f"POST {FUNCTIONS}/busy/invocations", throttled, 429, x_amzn_ErrorType="TooManyRequestsException:http://x"
    )
    expected = "TooManyRequestsException: Rate Exceeded. (ConcurrentInvocationLimitExceeded)\n"
    assert run("invoke", "busy", status=2).stderr == expected
    daemon.say(f"POST {FUNCTIONS}/odd/invocations", b"<html>", 503)
    assert run("invoke", "odd", status=2).stderr == "HTTP 503: Service Unavailable\n"


# --- invoke ------------------------------------------------------------------------------------------

LOG = "START RequestId: 1 Version: $LATEST\nprinted\nEND RequestId: 1\nREPORT RequestId: 1\tDuration: 1.00 ms\t\n"


def test_invoke_prints_the_very_bytes_of_the_result(daemon: Daemon) -> None:
    daemon.say(
        f"POST {FUNCTIONS}/hello/invocations",
        '{"a":  "é"}'.encode(),
        X_Amz_Log_Result=base64.b64encode(LOG.encode()).decode(),
    )
    result = run("invoke", "hello", "-p", '{"x": 1}')
    assert result.stdout_bytes == '{"a":  "é"}\n'.encode()
    assert result.stderr == "REPORT RequestId: 1\tDuration: 1.00 ms\n"
    (request,) = daemon.requests()
    assert request.body == b'{"x": 1}' and request.query == b""
    assert request.header(b"x-amz-invocation-type") == b"RequestResponse"
    tailed = run("invoke", "hello", "--tail", "--qualifier", "1", "--client-context", "{}")
    assert tailed.stderr == LOG.replace("\t\n", "\n")
    (request,) = daemon.requests()
    assert (
        request.body == b"{}" and request.query == b"Qualifier=1" and request.header(b"x-amz-client-context") == b"e30="
    )


def test_invoke_takes_the_event_from_a_file_or_stdin(daemon: Daemon, tmp_path: Path) -> None:
    daemon.say(f"POST {FUNCTIONS}/hello/invocations", b"null")
    (tmp_path / "event.json").write_bytes(b'{"from": "file"}\n')
    run("invoke", "hello", "--event", str(tmp_path / "event.json"))
    run("invoke", "hello", "--event", "-", input=b'{"from": "stdin"}')
    assert [request.body for request in daemon.requests()] == [b'{"from": "file"}\n', b'{"from": "stdin"}']


def test_a_function_error_is_status_1_with_its_hint(daemon: Daemon) -> None:
    error = {"errorType": "Sandbox.Timedout", "errorMessage": "RequestId: 1 Error: Task timed out after 3.00 seconds"}
    daemon.say(f"POST {FUNCTIONS}/hello/invocations", error, X_Amz_Function_Error="Unhandled")
    result = run("invoke", "hello", status=1)
    assert json.loads(result.stdout) == error
    assert "--timeout" in result.stderr
    daemon.say(f"POST {FUNCTIONS}/own/invocations", b'{"errorType": "E"}', X_Amz_Function_Error="Unhandled")
    assert run("invoke", "own", status=1).stderr == ""


def test_invoke_async_and_dry_run(daemon: Daemon) -> None:
    daemon.say(f"POST {FUNCTIONS}/hello/invocations", b"", 202, x_amzn_RequestId="abc")
    daemon.say(f"POST {FUNCTIONS}/hello/invocations", b"", 204)
    assert "accepted, request abc" in run("invoke", "hello", "--async").stderr
    assert run("invoke", "hello", "--dry-run").stdout == ""
    kinds = [request.header(b"x-amz-invocation-type") for request in daemon.requests()]
    assert kinds == [b"Event", b"DryRun"]


# --- deploy ------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "app.py").write_text("def handler(event, context): return event\n")
    return folder


def test_deploy_creates_and_waits_until_active(daemon: Daemon, project: Path) -> None:
    path = f"GET {FUNCTIONS}/hello/configuration"
    daemon.say(path, {"Message": "Function not found"}, 404, x_amzn_ErrorType="ResourceNotFoundException")
    daemon.say(path, {**CONFIGURATION, "State": "Pending"})
    daemon.say(path, CONFIGURATION)
    daemon.say(f"POST {FUNCTIONS}", CONFIGURATION, 201)
    result = run("deploy", str(project), "--memory", "256", "--env", "A=1", "--env", "B=x=y")
    assert result.stdout == "created hello\n  python3.11, app.handler, 128 MB, timeout 3 s, code 2.0 KB\n"
    assert "fastlam invoke hello" in result.stderr
    create = next(json.loads(request.body) for request in daemon.requests() if request.method == b"POST")
    assert base64.b64decode(create.pop("Code")["ZipFile"])[:2] == b"PK"
    assert re.fullmatch(r"python3\.\d+", create.pop("Runtime"))
    assert create == {
        "FunctionName": "hello",
        "Role": "arn:aws:iam::111122223333:role/lambda",
        "Handler": "app.handler",
        "MemorySize": 256,
        "Environment": {"Variables": {"A": "1", "B": "x=y"}},
    }


def test_deploy_updates_only_what_differs(daemon: Daemon, project: Path) -> None:
    path = f"{FUNCTIONS}/hello"
    daemon.say(f"GET {path}/configuration", CONFIGURATION)
    daemon.say(f"PUT {path}/code", CONFIGURATION)
    daemon.say(f"PUT {path}/configuration", CONFIGURATION)
    result = run("deploy", str(project), "--timeout", "30", "--memory", "128", "--env", "SECRET=hidden")
    assert "updated the code of hello: 2.0 KB -> " in result.stdout
    assert "updated hello: Timeout 3 -> 30" in result.stdout
    assert "SECRET" in result.stdout and "hidden" not in result.stdout
    sent = {
        request.path.decode(): json.loads(request.body) for request in daemon.requests() if request.method == b"PUT"
    }
    assert sent[f"{path}/configuration"] == {"Timeout": 30, "Environment": {"Variables": {"SECRET": "hidden"}}}
    code = base64.b64decode(sent[f"{path}/code"]["ZipFile"])

    same = {**CONFIGURATION, "CodeSha256": base64.b64encode(hashlib.sha256(code).digest()).decode()}
    daemon.answers[f"GET {path}/configuration"] = []
    daemon.say(f"GET {path}/configuration", same)
    assert "hello is unchanged" in run("deploy", str(project)).stdout
    assert json.loads(run("deploy", str(project), "--json").stdout) == same
    assert all(request.method == b"GET" for request in daemon.requests())


def test_deploy_says_why_a_function_cannot_be_used(daemon: Daemon, project: Path) -> None:
    failed = {**CONFIGURATION, "State": "Failed", "StateReason": "its package holds modules of another Python"}
    daemon.say(f"GET {FUNCTIONS}/hello/configuration", failed)
    daemon.say(f"GET {FUNCTIONS}/hello/configuration", failed)
    daemon.say(f"GET {FUNCTIONS}/hello/configuration", failed)
    daemon.say(f"GET {FUNCTIONS}/hello/configuration", failed)
    daemon.say(f"GET {FUNCTIONS}/hello/configuration", failed)
    daemon.say(f"GET {FUNCTIONS}/hello/configuration", CONFIGURATION)
    daemon.say(f"PUT {FUNCTIONS}/hello/code", failed)
    assert "modules of another Python" in run("deploy", str(project), status=1).stderr
    assert "updated the code" in run("deploy", str(project)).stdout  # a failed function can be mended


def test_deploy_mistakes(daemon: Daemon, project: Path, tmp_path: Path) -> None:
    assert "'A' is not KEY=VALUE" in run("deploy", str(project), "--env", "A", status=2).stderr
    (tmp_path / "x.txt").write_text("")
    assert "Give --handler module.function" in run("deploy", str(tmp_path / "x.txt"), status=2).stderr
    assert "does not exist" in run("deploy", str(tmp_path / "nothing"), status=2).stderr
    assert not [request for request in daemon.requests() if request.method != b"GET"]


# --- lists, logs, rm, env ----------------------------------------------------------------------------


def test_ls_follows_the_pages(daemon: Daemon) -> None:
    daemon.say(f"GET {FUNCTIONS}", {"Functions": [CONFIGURATION], "NextMarker": "m 1"})
    daemon.say(f"GET {FUNCTIONS}", {"Functions": [{**CONFIGURATION, "FunctionName": "other"}]})
    lines = run("ls").stdout.splitlines()
    assert lines[0].split() == ["NAME", "RUNTIME", "HANDLER", "MEMORY", "TIMEOUT", "CODE", "MODIFIED"]
    assert [line.split()[0] for line in lines[1:]] == ["hello", "other"]
    assert [parse_qs(request.query.decode()).get("Marker") for request in daemon.requests()] == [None, ["m 1"]]
    daemon.answers[f"GET {FUNCTIONS}"] = []
    daemon.say(f"GET {FUNCTIONS}", {"Functions": [], "NextMarker": None})
    assert json.loads(run("ls", "--json").stdout) == []
    assert "No functions yet" in run("ls").stderr


def test_queue(daemon: Daemon) -> None:
    empty = {"functions": [], "destinations": [], "statistics": {}}
    daemon.say("GET /_fastlam/queue", empty)
    result = run("queue")
    assert result.stdout == "" and "fastlam invoke --async" in result.stderr
    function = {
        "function": "hello",
        "depth": 7,
        "oldest_seconds": 61.0,
        "in_flight": 4,
        "waiting_retry": 3,
        "completed": 12,
        "dropped": 1,
    }
    destination = {"destination": "arn:aws:sqs:r:a:dead", "waiting": 2, "delivered": 5, "failed": 0, "last_error": ""}
    found = {
        "functions": [function, {**function, "function": "idle", "oldest_seconds": None}],
        "destinations": [destination, {**destination, "last_error": "nobody there"}],
    }
    daemon.answers["GET /_fastlam/queue"].clear()
    daemon.say("GET /_fastlam/queue", found)
    lines = run("queue").stdout.splitlines()
    assert lines[1].split() == ["hello", "7", "1m", "4", "3", "12", "1"]
    assert lines[2].split() == ["idle", "7", "-", "4", "3", "12", "1"]
    assert lines[3] == ""
    assert lines[5].split() == ["arn:aws:sqs:r:a:dead", "2", "5", "0", "-"]
    assert lines[6].endswith("nobody there")
    assert json.loads(run("queue", "--json").stdout) == found


def test_clock(daemon: Daemon) -> None:
    daemon.say("GET /_fastlam/clock", {"clock": "system", "wall_ms": 1_767_225_600_007})
    assert run("clock").stdout == "2026-01-01 00:00:00.007 UTC, system clock\n"
    state = {
        "clock": "virtual",
        "wall_ms": 1_767_225_720_000,
        "elapsed_ms": 120_000,
        "scheduled": 2,
        "next_due_seconds": 59.95,
        "works": 0,
    }
    daemon.say("POST /_fastlam/clock", state)
    assert run("clock", "advance", "2m").stdout == (
        "2026-01-01 00:02:00.000 UTC, virtual clock, 2m since the start; 2 scheduled, the next in 60.0s\n"
    )
    assert json.loads(run("clock", "advance", "2m", "--json").stdout) == state
    for arguments in (("advance",), ("advance", "soon"), ("back", "2m")):
        run("clock", *arguments, status=2)
    daemon.answers["POST /_fastlam/clock"].clear()
    daemon.say("POST /_fastlam/clock", {"message": "only a virtual one"}, 409)
    assert "only a virtual one" in run("clock", "advance", "1s", status=2).stderr


def test_ps(daemon: Daemon) -> None:
    one = {
        "id": 7,
        "function": "hello",
        "version": "$LATEST",
        "account": "1",
        "region": "r",
        "state": "idle",
        "pid": 42,
        "memory_peak_mb": 31,
        "invocations": 12,
        "age_seconds": 7261.0,
        "idle_seconds": 1.04,
        "initialization_type": "on-demand",
        "template": False,
    }
    other = {**one, "state": "busy", "age_seconds": 61, "initialization_type": "provisioned-concurrency"}
    restored = {**one, "initialization_type": "snap-start"}
    daemon.say("GET /_fastlam/environments", {"environments": [one, other, restored, {**restored, "template": True}]})
    lines = run("ps").stdout.splitlines()
    assert lines[1].split() == ["7", "hello:$LATEST", "on", "demand", "idle", "42", "31", "MB", "12", "2h01m", "1.0s"]
    assert lines[2].split()[2:4] == ["ahead", "busy"]
    assert lines[2].split()[-2:] == ["1m", "-"]
    assert [line.split()[2] for line in lines[3:]] == ["restored", "template"]
    assert json.loads(run("ps", "--json").stdout)[0] == one


def test_sources(daemon: Daemon) -> None:
    one = {
        "uuid": "91eaeb7e",
        "source": "redis",
        "event_source_arn": "arn:aws:fastlam:::redis://127.0.0.1:6379/0",
        "function_arn": "arn:aws:lambda:us-east-1:000000000000:function:hello:live",
        "state": "Enabled",
        "last_processing_result": None,
        "metrics": {"PolledEventCount": 5, "InvokedEventCount": 4, "FailedInvokeEventCount": 1},
    }
    daemon.say("GET /_fastlam/sources", {"sources": [one]})
    lines = run("sources").stdout.splitlines()
    assert lines[1].split() == ["91eaeb7e", "hello:live", "redis://127.0.0.1:6379/0", "Enabled", "5", "3", "1", "-"]
    assert json.loads(run("sources", "--json").stdout) == [one]


def test_no_sources(daemon: Daemon) -> None:
    daemon.say("GET /_fastlam/sources", {"sources": []})
    assert "No event source mappings" in run("sources").stderr


def event(sequence: int, message: str) -> dict[str, Any]:
    return {"sequence": sequence, "timestamp_ms": 1_700_000_000_000 + sequence, "message": message}


def test_logs(daemon: Daemon) -> None:
    page = {"events": [event(1, "START\n"), event(2, "é\n")], "next": 2, "dropped": 3}
    daemon.say("GET /_fastlam/logs", page)
    result = run("logs", "hello")
    assert result.stdout == "2023-11-14T22:13:20.001Z  START\n2023-11-14T22:13:20.002Z  é\n"
    assert "3 older lines" in result.stderr
    assert run("logs", "hello", "-n", "1").stdout == "2023-11-14T22:13:20.002Z  é\n"
    assert run("logs", "hello", "-n", "0").stdout == ""
    lines = run("logs", "hello", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == page["events"]


def test_logs_follows_until_the_daemon_ends(daemon: Daemon) -> None:
    daemon.say("GET /_fastlam/logs", {"events": [event(1, "one")], "next": 1, "dropped": 0})
    daemon.say("GET /_fastlam/logs", {"events": [], "next": 1, "dropped": 0})
    daemon.say("GET /_fastlam/logs", {"events": [event(2, "two")], "next": 2, "dropped": 0})
    daemon.say("GET /_fastlam/logs", {"message": "going"}, 503)
    result = run("logs", "hello", "-f", status=2)
    assert [line.split()[1] for line in result.stdout.splitlines()] == ["one", "two"]
    queries = [parse_qs(request.query.decode()) for request in daemon.requests()]
    assert [query["after"] for query in queries] == [["0"], ["1"], ["1"], ["2"]]
    assert [query["wait"] for query in queries] == [["0"], ["2"], ["2"], ["2"]]


def test_logs_of_no_function_is_an_error_of_a_silent_one_not(daemon: Daemon) -> None:
    daemon.say("GET /_fastlam/logs", {"events": [], "next": 0, "dropped": 0})
    assert run("logs", "nope", status=2).stderr.startswith("ResourceNotFoundException")
    daemon.say(f"GET {FUNCTIONS}/hello/configuration", CONFIGURATION)
    assert run("logs", "hello").stdout == ""


def test_rm_deletes_what_it_can(daemon: Daemon) -> None:
    for name in ("a", "c"):
        daemon.say(f"DELETE {FUNCTIONS}/{name}", b"", 204)
    result = run("rm", "a", "b", "c", status=2)
    assert result.stdout == "deleted a\ndeleted c\n"
    assert result.stderr == "ResourceNotFoundException: Function not found: arn:x\n"


def test_env(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        "AWS_ENDPOINT_URL": daemon.url,
        "AWS_ENDPOINT_URL_LAMBDA": daemon.url,
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "111122223333",
        "AWS_SECRET_ACCESS_KEY": "fastlam",
    }
    assert json.loads(run("env", "--json").stdout) == expected
    assert run("env", "--shell", "bash").stdout == "".join(f"export {k}={v}\n" for k, v in expected.items())
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert run("env").stdout == "".join(f"set -gx {k} {v};\n" for k, v in expected.items())
    given = json.loads(run("--account", "123456789012", "--region", "us-west-2", "env", "--json").stdout)
    assert (given["AWS_ACCESS_KEY_ID"], given["AWS_REGION"]) == ("123456789012", "us-west-2")


def test_wait_and_stop_of_somebody_elses_process(daemon: Daemon) -> None:
    assert "fastlam 9.9.9 answers at" in run("wait").stdout
    assert "another container" in run("stop", status=1).stderr  # pid 1 here is no fastlam


def test_init_writes_a_project_once_whose_test_passes(tmp_path: Path) -> None:
    folder = tmp_path / "my project"
    result = run("init", str(folder))
    assert "app.py" in result.stdout and "fastlam deploy" in result.stderr
    test = subprocess.run([sys.executable, "-m", "unittest", "discover", str(folder)], capture_output=True, check=False)
    assert test.returncode == 0 and b"Ran 1 test" in test.stderr, test.stderr
    assert "fastlam invoke my-project" in (folder / "README.md").read_text()
    before = (folder / "app.py").stat().st_mtime_ns
    assert "already has app.py" in run("init", str(folder), status=1).stderr
    assert (folder / "app.py").stat().st_mtime_ns == before
