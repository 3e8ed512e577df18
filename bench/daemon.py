"""A daemon for one topic, and the ways in which topics talk to it."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.fingerprint import MEMORY_MB

from fastlam.cli.child import START_SECONDS, Server, end, server  # noqa: F401 - topics have `end` from here
from fastlam.cli.child import daemon as fastlam_daemon
from fastlam.store.file_systems import FileSystems

FUNCTIONS: Final = Path(__file__).parent / "functions"
ACCOUNT: Final = "000000000000"
RUNTIME: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"


def invoke_path(name: str) -> str:
    return f"/2015-03-31/functions/{name}/invocations"


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
        for path in sorted(directory.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                archive.write(path, path.relative_to(directory))
    return buffer.getvalue()


def deploy(url: str, name: str, directory: Path | None = None, **more: Any) -> Any:
    """Creates the function from bench/functions/NAME unless another directory is named; returns the client."""
    client = lambda_client(url)
    client.create_function(
        FunctionName=name,
        Role=f"arn:aws:iam::{ACCOUNT}:role/bench",
        Handler="app.handler",
        Code={"ZipFile": zipped(directory or FUNCTIONS / name)},
        **{"Runtime": RUNTIME, "Timeout": 30, "MemorySize": MEMORY_MB, **more},
    )
    deadline = time.monotonic() + START_SECONDS
    while (state := client.get_function_configuration(FunctionName=name)["State"]) != "Active":
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} stays {state}")
        time.sleep(0.01)
    return client


def deploy_recording(daemon: Server, name: str, data: Path) -> Path:
    """Creates the function of that name, which may write into a file of this machine: a mounted directory is the only
    one that it and this program both see. `data`: the daemon's data directory.
    """
    access_point = f"arn:aws:elasticfilesystem:us-east-1:{ACCOUNT}:access-point/fsap-0123456789abcdef0"
    record = FileSystems(data).directory(access_point) / "nonces"
    record.touch()
    record.chmod(0o666)
    own_root = "namespaces" in daemon.get("/_fastlam/health")["isolation"]["walls"]
    seen = f"/mnt/record/{record.name}" if own_root else str(record)
    deploy(
        daemon.url,
        name,
        Environment={"Variables": {"RECORD": seen}},
        FileSystemConfigs=[{"Arn": access_point, "LocalMountPath": "/mnt/record"}],
    )
    return record


@contextlib.contextmanager
def recording_daemon(name: str) -> Iterator[tuple[Server, Path]]:
    """A daemon with such a function."""
    with tempfile.TemporaryDirectory(prefix="bench-") as data, fastlam_daemon("--data-dir", data) as daemon:
        yield daemon, deploy_recording(daemon, name, Path(data))


def request(port: int, name: str, body: bytes = b"{}") -> bytes:
    """An invoke as it goes over the wire, unsigned."""
    head = f"POST {invoke_path(name)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
