"""The fastlam command in processes of its own, with a real daemon and real functions."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from fastlam.cli.aws import find_aws

WAIT_SECONDS = 60
MODULE = [sys.executable, "-m", "fastlam"]


@dataclass
class Shell:
    """A user's shell: a home directory, and the endpoint of the daemon that was started from it."""

    home: Path
    endpoint: str = ""

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FASTLAM_"))}
        kept |= {"HOME": str(self.home), "XDG_DATA_HOME": "", "SHELL": "/bin/bash", "PYTHONWARNINGS": "default"}
        return kept | ({"FASTLAM_ENDPOINT": self.endpoint} if self.endpoint else {})

    def run(self, *arguments: str, status: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*MODULE, *arguments],
            env=self.environment(),
            cwd=self.home,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
        assert done.returncode == status, (done.args, done.returncode, done.stdout, done.stderr)
        return done

    def start(self, *options: str) -> int:
        """A detached daemon on a free port; its pid."""
        line = self.run("serve", "--detach", "--port", "0", *options).stdout
        match = re.fullmatch(r"(http://127\.0\.0\.1:\d+) \(pid (\d+), log (.+)\)\n", line)
        assert match is not None, line
        self.endpoint = match[1]
        return int(match[2])

    def write(self, name: str, text: str) -> str:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)


def ended(pid: int) -> bool:
    """Whether the process is gone, or only waits for init to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """One daemon for the tests that only use it."""
    own = Shell(tmp_path_factory.mktemp("home"))
    pid = own.start()
    yield own
    own.run("stop")
    assert ended(pid)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Shell]:
    """No daemon yet; one that a test leaves running is stopped."""
    own = Shell(tmp_path)
    yield own
    if own.endpoint:
        subprocess.run([*MODULE, "stop"], env=own.environment(), capture_output=True, timeout=WAIT_SECONDS, check=False)


def test_from_an_empty_directory_to_a_result_and_away(shell: Shell) -> None:
    shell.run("init", "hello")
    assert shell.run("deploy", "hello").stdout.startswith("created hello\n")
    done = shell.run("invoke", "hello", "--event", "hello/event.json")
    assert done.stdout == '{"statusCode": 200, "body": "{\\"message\\": \\"Hello, Ada!\\"}"}\n'
    assert re.match(r"REPORT RequestId: [0-9a-f-]{36}\tDuration: \d+\.\d\d ms\t", done.stderr)
    assert "hello" in shell.run("ls").stdout
    listed = json.loads(shell.run("ls", "--json").stdout)
    assert [one["Handler"] for one in listed if one["FunctionName"] == "hello"] == ["app.handler"]
    environments = json.loads(shell.run("ps", "--json").stdout)
    assert ("hello", "idle", 1) in [(one["function"], one["state"], one["invocations"]) for one in environments]
    log = shell.run("logs", "hello").stdout
    assert "greeting Ada in request" in log and "START RequestId" in log and "REPORT RequestId" in log
    assert "hello is unchanged" in shell.run("deploy", "hello").stdout
    assert "Timeout 3 -> 9" in shell.run("deploy", "hello", "--timeout", "9", "--env", "STAGE=test").stdout
    shell.write("hello/app.py", "import os\ndef handler(event, context): return [event, os.environ['STAGE']]\n")
    assert "updated the code of hello" in shell.run("deploy", "hello").stdout
    assert shell.run("invoke", "hello", "--event", "-", stdin="[1]").stdout == '[[1], "test"]\n'
    assert shell.run("rm", "hello").stdout == "deleted hello\n"
    assert shell.run("invoke", "hello", status=2).stderr.startswith("ResourceNotFoundException: Function not found: ")


def test_invoke_variants(shell: Shell) -> None:
    shell.write("echo.py", "def handler(event, context):\n    print('seen', event)\n    return event\n")
    shell.run("deploy", "echo.py")
    assert shell.run("invoke", "echo", "--dry-run").stdout == ""
    done = shell.run("invoke", "echo", "-p", '{"é": 1e2}', "--tail")
    assert json.loads(done.stdout) == {"é": 100.0}
    assert "seen {'é': 100.0}\n" in done.stderr and "START RequestId" in done.stderr
    assert shell.run("invoke", "echo", "-p", "{", status=2).stderr.startswith("InvalidRequestContentException: ")
    assert "accepted, request " in shell.run("invoke", "echo", "--async", "-p", '"queued"').stderr
    follower = subprocess.Popen(
        [*MODULE, "logs", "echo", "-f"], env=shell.environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert follower.stdout is not None
        assert any("seen queued" in line for line in follower.stdout)
        shell.run("invoke", "echo", "-p", '"followed"')
        assert any("seen followed" in line for line in follower.stdout)
        follower.send_signal(signal.SIGINT)
        assert follower.wait(WAIT_SECONDS) == 0
    finally:
        follower.kill()
        follower.communicate()


def test_failing_functions_have_status_1_and_a_hint(shell: Shell) -> None:
    shell.write("slow.py", "import time\ndef handler(event, context): time.sleep(60)\n")
    shell.run("deploy", "slow.py", "--timeout", "1")
    done = shell.run("invoke", "slow", status=1)
    assert json.loads(done.stdout)["errorType"] == "Sandbox.Timedout"
    assert "--name slow --timeout 30" in done.stderr
    shell.write("missing.py", "import no_such_package\ndef handler(event, context): pass\n")
    shell.run("deploy", "missing.py")
    done = shell.run("invoke", "missing", status=1)
    assert json.loads(done.stdout)["errorType"] == "Runtime.ImportModuleError"
    assert "requirements.txt" in done.stderr
    shell.write("raises.py", "def handler(event, context): raise ValueError('boom')\n")
    shell.run("deploy", "raises.py")
    assert json.loads(shell.run("invoke", "raises", status=1).stdout)["errorMessage"] == "boom"


def test_env_points_boto3_at_the_daemon(shell: Shell) -> None:
    shell.write("named.py", "def handler(event, context): return context.invoked_function_arn\n")
    shell.run("--account", "123456789012", "--region", "eu-west-1", "deploy", "named.py")
    lines = shell.run("--account", "123456789012", "--region", "eu-west-1", "env").stdout
    script = f"{lines}\n{sys.executable} -c 'import boto3; {BOTO3_CALL}'"
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env=shell.environment(),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=True,
    )
    assert done.stdout == '"arn:aws:lambda:eu-west-1:123456789012:function:named"\n'
    assert shell.run("invoke", "named", status=2).stderr.startswith("ResourceNotFoundException")


BOTO3_CALL = 'print(boto3.client("lambda").invoke(FunctionName="named")["Payload"].read().decode())'


def test_aws_command_line(shell: Shell) -> None:
    if find_aws() is None:
        assert 'pip install "fastlam[aws]"' in shell.run("aws", "lambda", "list-functions", status=1).stderr
        return
    shell.write("for_aws.py", "def handler(event, context): return event\n")
    shell.run("deploy", "for_aws.py")
    listed = json.loads(shell.run("aws", "lambda", "list-functions", "--output", "json").stdout)
    assert "for_aws" in [one["FunctionName"] for one in listed["Functions"]]


def test_a_terminal_gets_colour_unless_it_asks_for_none(shell: Shell) -> None:
    shell.write("coloured.py", "def handler(event, context): return event\n")
    shell.run("deploy", "coloured.py")
    shell.run("invoke", "coloured")

    def on_terminal(**more: str) -> bytes:
        leader, follower = pty.openpty()
        environment = {**shell.environment(), "TERM": "xterm-256color", "COLUMNS": "120", **more}
        process = subprocess.Popen([*MODULE, "ps"], env=environment, stdout=follower, stderr=follower)
        os.close(follower)
        output = bytearray()
        while select.select([leader], [], [], WAIT_SECONDS)[0]:
            try:
                piece = os.read(leader, 4096)
            except OSError:  # the other side is closed
                break
            output += piece
        os.close(leader)
        assert process.wait(WAIT_SECONDS) == 0
        return bytes(output)

    assert b"\x1b[" in on_terminal()
    plain = on_terminal(NO_COLOR="1")
    assert b"coloured:$LATEST" in plain and b"\x1b[3" not in plain
    assert "\x1b" not in shell.run("ps").stdout


def test_doctor(shell: Shell) -> None:
    findings = {one["topic"]: one for one in json.loads(shell.run("doctor", "--json").stdout)}
    assert all(one["works"] for one in findings.values() if one["required"])
    assert shell.endpoint in findings["daemon"]["detail"]
    assert f"runtime python3.{sys.version_info.minor}" in findings
    assert "memfd with seals" in shell.run("doctor").stdout


def test_version(shell: Shell) -> None:
    assert re.fullmatch(r"fastlam \d+\.\d+\.\d+\S*\n", shell.run("--version").stdout)


def test_functions_survive_a_restart_and_an_ephemeral_daemon_keeps_none(fresh: Shell) -> None:
    fresh.write("kept.py", "def handler(event, context): return 'kept'\n")
    fresh.start()
    fresh.run("deploy", "kept.py")
    fresh.run("stop")
    assert fresh.run("ls", status=3).stdout == ""
    fresh.start()
    assert fresh.run("invoke", "kept").stdout == '"kept"\n'
    fresh.run("stop")
    fresh.start("--ephemeral", "--data-dir", "log-only")
    assert json.loads(fresh.run("ls", "--json").stdout) == []
    fresh.run("deploy", "kept.py")
    fresh.run("stop")
    fresh.start("--ephemeral", "--data-dir", "log-only")
    assert json.loads(fresh.run("ls", "--json").stdout) == []


def test_a_second_daemon_gets_one_clear_sentence(fresh: Shell) -> None:
    pid = fresh.start()
    port = fresh.endpoint.rpartition(":")[2]
    for options in ([], ["--detach"]):
        same_port = fresh.run("serve", "--port", port, "--data-dir", str(fresh.home / "other"), *options, status=1)
        assert same_port.stderr.startswith(f"Port {port} on 127.0.0.1 is in use") and same_port.stderr.count("\n") == 1
        same_data = fresh.run("serve", "--port", "0", *options, status=1)
        assert str(pid) in same_data.stderr and same_data.stderr.count("\n") == 1
    assert fresh.run("wait").stdout.endswith(f"(pid {pid})\n")


def test_serve_refuses_wrong_settings(fresh: Shell) -> None:
    assert "twelve digits" in fresh.run("serve", "--account", "1", status=2).stderr
    assert "--aws-endpoint" in fresh.run("serve", "--detach", "--aws-endpoint", "nowhere", status=2).stderr
    elsewhere = fresh.run("serve", "--host", "192.0.2.1", status=1).stderr  # an address of no machine
    assert "192.0.2.1:4566 cannot be listened on" in elsewhere and elsewhere.count("\n") == 1


def test_stop_lets_a_running_invocation_finish(fresh: Shell) -> None:
    fresh.write(
        "waits.py",
        "import pathlib, time\n"
        "def handler(event, context):\n"
        "    print('running', flush=True)\n"
        "    while not pathlib.Path(event).exists(): time.sleep(0.01)\n"
        "    return 'finished'\n",
    )
    fresh.start("--isolation", "process")  # the function waits for a file of this machine
    fresh.run("deploy", "waits.py", "--timeout", "60")
    event = json.dumps(str(fresh.home / "go"))
    invoking = subprocess.Popen(
        [*MODULE, "invoke", "waits", "-p", event],
        env=fresh.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + WAIT_SECONDS
    while not [one for one in json.loads(fresh.run("ps", "--json").stdout) if one["state"] == "busy"]:
        assert time.monotonic() < deadline
    assert "has not ended within 0.2 s" in fresh.run("stop", "--timeout", "0.2", status=1).stderr
    fresh.write("go", "")
    out, _ = invoking.communicate(timeout=WAIT_SECONDS)
    assert out == b'"finished"\n'
    fresh.run("wait", "--timeout", "0", status=3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_in_the_foreground_ends_on_a_signal(fresh: Shell, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*MODULE, "serve", "--port", "0", "--ephemeral"],
        env=fresh.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as serving:
        assert serving.stdout is not None
        match = None
        while match is None:  # it prints where it listens
            line = serving.stdout.readline()
            assert line
            match = re.search(r"http://127\.0\.0\.1:\d+", line)
        shell = Shell(fresh.home, match[0])
        shell.run("wait")
        serving.send_signal(number)
        assert serving.wait(WAIT_SECONDS) == 0
        assert "Traceback" not in serving.stdout.read()


def test_log_result_is_what_boto3_gets(shell: Shell) -> None:
    shell.write("printing.py", "def handler(event, context): print('x' * 5000)\n")
    shell.run("deploy", "printing.py")
    client = boto3.client(
        "lambda", endpoint_url=shell.endpoint, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    tail = base64.b64decode(client.invoke(FunctionName="printing", LogType="Tail")["LogResult"])
    assert len(tail) == 4096 and tail.endswith(b"\t\n")
    assert shell.run("invoke", "printing", "--tail").stderr.startswith("xxxx")
