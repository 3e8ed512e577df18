"""The Lambda API on a real socket, for tests: the daemon without its data plane. One loop, one thread, stopped and
joined.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError

from daemon_running import ACCOUNT, REGION, Answer, bare_request, sdk_client, zipped
from fastlam import limits
from fastlam.api import operations
from fastlam.api.blocking import Workers
from fastlam.api.caller import Defaults
from fastlam.api.code import CodeLinks
from fastlam.api.router import Api
from fastlam.control.authorize import Authorize, authorize
from fastlam.control.plane import ControlPlane
from fastlam.http.server import HttpServer, Request
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.directory import DataDirectory
from fastlam.store.sqlite import FILE_NAME, SqliteStore
from fastlam.store.vault import Vault
from played_provisioning import play_provisioning

ROLE: Final = f"arn:aws:iam::{ACCOUNT}:role/lambda-role"
ARN: Final = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function"
REPLY_SECONDS: Final = 30.0  # for any answer


def make_zip(files: Mapping[str, str | bytes] | None = None) -> bytes:
    """A deployment package, of a function that returns its event unless told otherwise."""
    return zipped(files or "def handler(event, context):\n    return event\n")


@dataclass
class ApiServer:
    """What a test holds of the running server."""

    port: int
    invocations: list[bytes] = field(default_factory=list)  # targets that reached the invoke route

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, account: str = ACCOUNT, region: str = REGION) -> Any:
        """A client that leaves it to the server to check its input."""
        return sdk_client(
            self.url, account=account, region=region, parameter_validation=False, read_timeout=REPLY_SECONDS
        )

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = REPLY_SECONDS,
    ) -> Answer:
        """One request without boto3 in between; a body that is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        return bare_request(self.port, method, path, data, headers, timeout)


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
        plane = ControlPlane(
            store, artifacts, loop.call_later, vault=Vault(data_dir), in_background=workers.in_background
        )
        play_provisioning(store, loop.call_later)
        links = CodeLinks(artifacts, workers)
        state["server"] = server = ApiServer(0)

        def invoke(request: Request) -> None:
            server.invocations.append(request.target)
            request.respond(200, b"", b"null")

        api = Api(
            operations.entries(plane, links),
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


# ---- what tests ask ----------------------------------------------------------------------------------


def create(client: Any, name: str = "hello", **more: Any) -> dict[str, Any]:
    """Creates a function of that name with what is needed and what is given; None leaves a parameter out."""
    parameters: dict[str, Any] = {
        "FunctionName": name,
        "Runtime": "python3.11",
        "Role": ROLE,
        "Handler": "app.handler",
        "Code": {"ZipFile": make_zip()},
    } | more
    created: dict[str, Any] = client.create_function(
        **{key: value for key, value in parameters.items() if value is not None}
    )
    return created


def wait(client: Any, waiter: str = "function_active_v2", name: str = "hello") -> None:
    client.get_waiter(waiter).wait(FunctionName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 300})


def error_of(call: Any, *arguments: Any, **parameters: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        call(*arguments, **parameters)
    return caught.value


def refused(call: Any, code: str, status: int, message: str, **parameters: Any) -> ClientError:
    """The error of a call, which must be this one."""
    error = error_of(call, **parameters)
    assert error.response["Error"]["Code"] == code
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert error.response["Error"]["Message"] == message
    return error
