"""A daemon for one topic, and the ways in which topics talk to it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.fingerprint import MEMORY_MB

FUNCTIONS: Final = Path(__file__).parent / "functions"
ACCOUNT: Final = "000000000000"
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
RUNTIME: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"


def invoke_path(name: str) -> str:
    return f"/2015-03-31/functions/{name}/invocations"


@dataclass
class Server:
    """Something that answers on a port of this machine."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{path}: status {answer.status}, {body[:200]!r}")
        return json.loads(body)

    def environments(self, name: str) -> list[dict[str, Any]]:
        """Of a fastlam daemon: those of one function."""
        return [one for one in self.get("/_fastlam/environments")["environments"] if one["function"] == name]


@contextlib.contextmanager
def server(words: list[str], announced: str, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """Starts a program that prints its port (the group of the pattern `announced`) and ends it by SIGTERM."""
    process = subprocess.Popen(
        words, env=os.environ | (environment or {}), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        found = re.search(announced, process.stdout.readline() if ready else "")
        if found is None:
            raise RuntimeError(f"{' '.join(words)} did not say on which port it listens")
        yield Server(process, int(found[1]))
    finally:
        end(process)
        process.stdout.close()


def end(process: subprocess.Popen[Any]) -> None:
    """SIGTERM, and SIGKILL for what does not heed it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def fastlam_daemon(*options: str) -> Iterator[Server]:
    words = [sys.executable, "-P", "-m", "fastlam", "serve", "--ephemeral", "--port", "0", *options]
    with server(words, r" is ready on http://127\.0\.0\.1:(\d+)") as daemon:
        yield daemon


@contextlib.contextmanager
def bare_server() -> Iterator[Server]:
    """The ceiling: HTTP that runs nothing."""
    with server([sys.executable, str(Path(__file__).with_name("bare_server.py"))], r"^(\d+)$") as bare:
        yield bare


def lambda_client(url: str, **more: Any) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "lambda",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=ACCOUNT,
        aws_secret_access_key="none-is-checked",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=START_SECONDS, **more),
    )


def zipped(directory: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(directory.rglob("*.py")):
            archive.write(path, path.relative_to(directory))
    return buffer.getvalue()


def deploy(url: str, name: str, directory: Path | None = None, **more: Any) -> Any:
    """Creates the function from bench/functions/NAME unless another directory is named; returns the client."""
    client = lambda_client(url)
    client.create_function(
        FunctionName=name,
        Runtime=RUNTIME,
        Role=f"arn:aws:iam::{ACCOUNT}:role/bench",
        Handler="app.handler",
        Code={"ZipFile": zipped(directory or FUNCTIONS / name)},
        **{"Timeout": 30, "MemorySize": MEMORY_MB, **more},
    )
    deadline = time.monotonic() + START_SECONDS
    while (state := client.get_function_configuration(FunctionName=name)["State"]) != "Active":
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} stays {state}")
        time.sleep(0.01)
    return client


def request(port: int, name: str, body: bytes = b"{}") -> bytes:
    """An invoke as it goes over the wire, unsigned."""
    head = f"POST {invoke_path(name)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
