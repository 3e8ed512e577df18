"""A real daemon in a process of its own, for tests: started on a free port, used through boto3 or bare HTTP, stopped
without a trace.

`running_daemon` gives each daemon a private directory for its temporary files. When it has stopped, none of the
processes that descended from it may live and nothing may lie in that directory: a test that leaves something behind
fails.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import boto3
from botocore.config import Config

from fastlam.runtimes.python import INTERPRETER
from waiting import WAIT_SECONDS

ACCOUNT: Final = "000000000000"
REGION: Final = "us-east-1"
# The oldest runtime that has SnapStart, where this interpreter is older: the daemon then says that it runs its own.
SNAPPED_RUNTIME: Final = INTERPRETER if sys.version_info >= (3, 12) else "python3.12"
POLL_SECONDS: Final = 0.02  # between two looks at a state
READY: Final = re.compile(r"fastlam \S+ is ready on (http://\S+) \(")

Files = Mapping[str, str | bytes]


class Invoked:
    """The answer to one invocation."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.status: int = answer["StatusCode"]
        self.raw: bytes = answer["Payload"].read()
        self.error: str | None = answer.get("FunctionError")
        self.version: str | None = answer.get("ExecutedVersion")
        self.headers: dict[str, str] = answer["ResponseMetadata"]["HTTPHeaders"]
        self.request_id: str = answer["ResponseMetadata"]["RequestId"]
        self.has_log = "LogResult" in answer
        self.log: str = base64.b64decode(answer.get("LogResult", "")).decode()

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def result(self) -> Any:
        """What the function returned; an assertion fails if it failed."""
        assert self.error is None, (self.raw, self.log)
        return self.json

    def printed(self) -> list[str]:
        """The lines between START and END: what the function wrote during this invocation."""
        return self.log.partition("START RequestId")[2].partition("END RequestId")[0].splitlines()[1:]

    @property
    def report(self) -> str:
        return next(line for line in self.log.splitlines() if line.startswith("REPORT "))


@dataclass
class Answer:
    """A bare HTTP answer; header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RunningDaemon:
    """What a test holds of the daemon. One of its own for each thread that invokes is not needed: boto3 clients are
    shared.
    """

    def __init__(self, process: subprocess.Popen[str], url: str, stderr: Path) -> None:
        self.process = process
        self.url = url
        self.port = int(url.rpartition(":")[2])
        self.stderr_path = stderr
        self.lambda_ = self.client()
        self.leaves_threads = False  # INIT of all that is snapped: its environments are then copies, and no forks

    def client(self, service: str = "lambda", account: str = ACCOUNT, region: str = REGION, **config: Any) -> Any:
        return sdk_client(self.url, service, account, region, max_pool_connections=300, **config)

    def deploy(
        self,
        name: str,
        code: str | Files | bytes,
        *,
        handler: str = "app.handler",
        environment: Mapping[str, str] | None = None,
        client: Any = None,
        **more: Any,
    ) -> str:
        """Creates a function from the text of app.py, from files, or from a zip; returns its name once it is Active."""
        client = client or self.lambda_
        if environment is not None:
            more["Environment"] = {"Variables": dict(environment)}
        client.create_function(
            **{
                "FunctionName": name,
                "Runtime": INTERPRETER,
                "Role": f"arn:aws:iam::{ACCOUNT}:role/lambda-role",
                "Handler": handler,
                "Code": {"ZipFile": code if isinstance(code, bytes) else zipped(code)},
                **more,
            }
        )
        self.settle(name, client)
        return name

    def snap(self, name: str, code: str | Files | bytes, *, fails: bool = False, **more: Any) -> str:
        """As `deploy`, with SnapStart and a version, whose snapshot is there when this returns; what to invoke. With
        `fails` it must have come to the state Failed instead.
        """
        if self.leaves_threads:
            code = _with_thread(code)
        self.deploy(name, code, Runtime=SNAPPED_RUNTIME, SnapStart={"ApplyOn": "PublishedVersions"}, **more)
        version = self.lambda_.publish_version(FunctionName=name)["Version"]
        assert self.state_of(name, version) == ("Failed" if fails else "Active")
        return f"{name}:{version}"

    def state_of(self, name: str, version: str) -> str:
        """The state to which a version comes."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            found = self.lambda_.get_function(FunctionName=name, Qualifier=version)["Configuration"]
            if found["State"] != "Pending":
                return str(found["State"])
            assert time.monotonic() < deadline, found
            time.sleep(POLL_SECONDS)

    def update(self, name: str, code: str | Files) -> None:
        """New code, in force when this returns."""
        self.lambda_.update_function_code(FunctionName=name, ZipFile=zipped(code))
        self.settle(name)

    def settle(self, name: str, client: Any = None) -> None:
        """Returns when no change of the function is under way."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            # Where rates are limited, this operation has most; a daemon tells nobody of states.
            found = (client or self.lambda_).get_function(FunctionName=name)["Configuration"]
            states = found["State"], found.get("LastUpdateStatus")
            if states == ("Active", "Successful"):
                return
            assert "Failed" not in states, found
            assert time.monotonic() < deadline, found
            time.sleep(POLL_SECONDS)

    def invoke(self, name: str, event: Any = None, *, client: Any = None, **more: Any) -> Invoked:
        """Invokes with LogType Tail and waits; `event` is sent as JSON, bytes as they are."""
        payload = event if isinstance(event, bytes) else json.dumps(event).encode()
        arguments = {"FunctionName": name, "Payload": payload, "LogType": "Tail", **more}
        return Invoked((client or self.lambda_).invoke(**arguments))

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request without boto3 in between, and so without its checks."""
        return bare_request(self.port, method, path, body, headers)

    def send_invoke(self, name: str, body: bytes = b"{}", **headers: str) -> Answer:
        """A bare invoke; `headers` such as Invocation_Type="Event" become X-Amz-Invocation-Type."""
        fields = {f"X-Amz-{key.replace('_', '-')}": value for key, value in headers.items()}
        return self.send("POST", f"/2015-03-31/functions/{quote(name)}/invocations", body, fields)

    def health(self) -> Any:
        return self.send("GET", "/_fastlam/health").json

    def environments(self, name: str) -> list[dict[str, Any]]:
        """Those of one function."""
        every = self.send("GET", "/_fastlam/environments").json["environments"]
        return [one for one in every if one["function"] == name]

    def logs(self, name: str, until: Callable[[list[str]], bool] | None = None) -> list[str]:
        """The function's log events; with `until`, waits for more of them until it says that they are enough."""
        messages: list[str] = []
        after = 0
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            answer = self.send("GET", f"/_fastlam/logs?function={name}&after={after}&wait={0 if until is None else 5}")
            assert answer.status == 200, answer
            messages += [event["message"] for event in answer.json["events"]]
            after = answer.json["next"]
            if until is None or until(messages):
                return messages
            assert time.monotonic() < deadline, messages

    def stderr(self) -> str:
        return self.stderr_path.read_text()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends the daemon, gracefully unless told otherwise."""
        self.process.send_signal(number)
        self.process.wait(WAIT_SECONDS)


def _with_thread(code: str | Files | bytes) -> Files:
    assert not isinstance(code, bytes)
    files = {"app.py": code} if isinstance(code, str) else code
    return {**files, "app.py": f"{files['app.py']}{LEFT_THREAD}"}


class Gate:
    """Holds invocations: a handler that calls `wait_at(event["gate"], ...)` of GATE_CODE stays there until the gate
    lets it go on.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.settimeout(WAIT_SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self._held: list[socket.socket] = []

    def arrive(self, count: int = 1) -> list[str]:
        """Returns when so many more invocations have come; what each of them said."""
        said = []
        for _ in range(count):
            connection, _ = self._listener.accept()
            connection.settimeout(WAIT_SECONDS)
            self._held.append(connection)
            with connection.makefile() as lines:
                said.append(lines.readline().rstrip("\n"))
        return said

    def open(self) -> None:
        """Lets all that have arrived go on."""
        for connection in self._held:
            connection.close()
        self._held.clear()

    def close(self) -> None:
        self.open()
        self._listener.close()


LEFT_THREAD: Final = (
    "\nimport threading as _threading\n"
    "_threading.Thread(target=_threading.Event().wait, daemon=True, name='left').start()\n"
)

GATE_CODE: Final = """
import socket

def wait_at(port, word=""):
    with socket.create_connection(("127.0.0.1", port)) as gate:
        gate.sendall(word.encode() + b"\\n")
        gate.recv(1)
"""


def zipped(code: str | Files) -> bytes:
    """A deployment package; a text alone is app.py."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in ({"app.py": code} if isinstance(code, str) else code).items():
            archive.writestr(name, content)
    return buffer.getvalue()


def sdk_client(url: str, service: str = "lambda", account: str = ACCOUNT, region: str = REGION, **config: Any) -> Any:
    """boto3's client for what listens there; it tries once."""
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=region,
        aws_access_key_id=account,
        aws_secret_access_key="test",
        config=Config(
            **{
                "retries": {"total_max_attempts": 1},
                "connect_timeout": 5,
                "read_timeout": WAIT_SECONDS,
                **config,
            }
        ),
    )


def bare_request(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = WAIT_SECONDS,
) -> Answer:
    """One request over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())
    finally:
        connection.close()


@contextmanager
def running_daemon(
    *options: str,
    ephemeral: bool = True,
    environment: Mapping[str, str] | None = None,
    complains: bool = False,
    isolation: str = os.environ.get("FASTLAM_TEST_ISOLATION", "process"),
    prefix: Sequence[str] = (),
) -> Iterator[RunningDaemon]:
    """`fastlam serve` with these options. On the way out it is stopped (if the test has not done so) and its traces are
    looked for.

    `complains` lets it write to its stderr, which otherwise counts as a failure. `isolation`: unless told otherwise
    its functions see this machine, since most of those of the tests talk to their test by files of it. `prefix` goes
    before the command.
    """
    with tempfile.TemporaryDirectory(prefix="fastlam-test-") as base:
        # Short, since the paths of sockets may only have 107 bytes; apart from what the daemon may write.
        temporary = Path(base, "t")
        temporary.mkdir()
        stderr = Path(base, "stderr")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "FASTLAM_")) or name in ("FASTLAM_LANE", "FASTLAM_FRONTS")
        }
        kept |= {"TMPDIR": str(temporary), "XDG_RUNTIME_DIR": str(temporary), "HOME": base, "PYTHONWARNINGS": "default"}
        arguments = ["serve", "--port", "0", "--isolation", isolation, *(["--ephemeral"] if ephemeral else []), *options]
        if prefix:  # it may be another user who writes there
            os.chmod(base, 0o755)
            temporary.chmod(0o1777)
        with stderr.open("w") as complaints:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "fastlam", *arguments],
                env=kept | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
        family: set[tuple[int, str]] = set()
        try:
            daemon = RunningDaemon(process, _address(process, stderr), stderr)
            yield daemon
            if process.poll() is None:
                family = descendants(process.pid)
                assert len(family) >= 1, "a daemon has a zygote"
                daemon.stop()
                assert process.returncode == 0, (process.returncode, stderr.read_text())
            assert complains or stderr.read_text() == ""
        finally:
            family |= descendants(process.pid)
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        await_end(family)
        assert control_groups_of(process.pid) == [], "the daemon has left control groups behind"
        assert sorted(temporary.rglob("*")) == [], "the daemon has left files behind"


def control_groups_of(pid: int) -> list[str]:
    """The groups that a daemon has made, in all hierarchies; those of others may come and go meanwhile."""
    return [
        os.path.join(base, name)
        for base, names, _ in os.walk("/sys/fs/cgroup")  # passes by what is gone, as a glob does not
        for name in names
        if name.startswith(f"fastlam-{pid}-")
    ]


def _address(process: subprocess.Popen[str], stderr: Path) -> str:
    """The URL that the daemon announces."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], WAIT_SECONDS)
    line = process.stdout.readline() if ready else ""
    match = READY.match(line)
    assert match is not None, f"the daemon did not come up: {line!r} {stderr.read_text()!r}"
    return match[1]


def _stat(pid: int | str) -> list[str] | None:
    """The fields of /proc/PID/stat after the name: state, parent, ...; None for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def descendants(pid: int) -> set[tuple[int, str]]:
    """(pid, start time) of all processes below `pid`; the start time tells a process from a later one of the same
    number.
    """
    below: dict[int, list[tuple[int, str]]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(entry)) is not None:
            below.setdefault(int(fields[1]), []).append((int(entry), fields[19]))
    found: set[tuple[int, str]] = set()
    ahead = [pid]
    while ahead:
        for child in below.get(ahead.pop(), ()):
            found.add(child)
            ahead.append(child[0])
    return found


def await_end(family: set[tuple[int, str]], seconds: float = 10.0) -> None:
    """Fails when one of the processes still lives after so long."""
    deadline = time.monotonic() + seconds
    while alive := [
        pid
        for pid, started in family
        if (fields := _stat(pid)) is not None and fields[19] == started and fields[0] != "Z"
    ]:
        if time.monotonic() > deadline:
            lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in alive]
            raise AssertionError(f"processes are left behind: {lines}")
        time.sleep(0.01)
