"""The Lambda API on a real socket, for tests: the daemon without its data plane. One loop, one thread, stopped and
joined.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from fastlam import limits
from fastlam.api import concurrency, functions
from fastlam.api.blocking import Workers
from fastlam.api.caller import Defaults
from fastlam.api.code import CodeLinks
from fastlam.api.router import Api
from fastlam.control.authorize import Authorize, authorize
from fastlam.control.concurrency import ReservedConcurrency
from fastlam.control.functions import Functions
from fastlam.http.server import HttpServer, Request
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.directory import DataDirectory
from fastlam.store.sqlite import FILE_NAME, SqliteStore

ACCOUNT, REGION = "000000000000", "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/lambda-role"


def make_zip(files: Mapping[str, str | bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (files or {"app.py": "def handler(event, context):\n    return event\n"}).items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class ApiServer:
    """What a test holds of the running server."""

    port: int
    invocations: list[bytes] = field(default_factory=list)  # targets that reached the invoke route

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, account: str = ACCOUNT, region: str = REGION) -> Any:
        return boto3.client(
            "lambda",
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id=account,
            aws_secret_access_key="test",
            config=Config(
                retries={"total_max_attempts": 1}, parameter_validation=False, connect_timeout=5, read_timeout=30
            ),
        )

    def send(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout: float = 30
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, data, dict(headers or {}))
            response = connection.getresponse()
            return Answer(
                response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
            )
        finally:
            connection.close()


@contextmanager
def api_server(data_dir: Path, *, authorize: Authorize = authorize) -> Iterator[ApiServer]:
    started: threading.Event = threading.Event()
    state: dict[str, Any] = {}

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        stop = state["stop"] = asyncio.Event()
        state["loop"] = loop
        directory = DataDirectory(data_dir)
        store = SqliteStore(data_dir / FILE_NAME)
        artifacts = ArtifactStore(data_dir)
        workers = Workers(loop)
        control = Functions(store, artifacts, loop.call_later, in_background=workers.in_background)
        links = CodeLinks(artifacts, workers)
        state["server"] = server = ApiServer(0)

        def invoke(request: Request) -> None:
            server.invocations.append(request.target)
            request.respond(200, b"", b"null")

        api = Api(
            functions.handlers(control, links) | concurrency.handlers(ReservedConcurrency(store)),
            defaults=Defaults(ACCOUNT, REGION),
            run_blocking=workers,
            invoke_route=invoke,
            admin_route=lambda request: request.respond(404, b"", b""),
            code_route=links.download,
            authorize=authorize,
        )
        listener = HttpServer(api, body_bytes_max=limits.CONTROL_REQUEST_BYTES_MAX + 1024 * 1024)
        server.port = await listener.start("127.0.0.1", 0)
        links.authority = f"127.0.0.1:{server.port}"
        started.set()
        await stop.wait()
        await listener.drain(5)
        workers.close()
        store.close()
        directory.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            state["error"] = error
            raise
        finally:
            started.set()

    thread = threading.Thread(target=run, name="api-server")
    thread.start()
    started.wait(10)
    if "error" in state:
        thread.join()
        raise state["error"]
    try:
        yield state["server"]
    finally:
        state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"
