"""The control plane in memory, for tests: no HTTP, no disk but for code, a clock that stands still until told otherwise."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from fastlam.arn import LATEST
from fastlam.billing.duration import billed_ms
from fastlam.clock import VirtualClock
from fastlam.control.authorize import Caller
from fastlam.control.plane import ControlPlane
from fastlam.core.dispatcher import Dispatcher
from fastlam.dispatch.launching import Launches
from fastlam.dispatch.targets import Targets
from fastlam.errors import ApiError
from fastlam.model.function import FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.finding import find_version
from fastlam.store.memory import MemoryStore
from fastlam.store.records import RecordStore
from fastlam.store.vault import Vault
from played_provisioning import play_provisioning

ACCOUNT: Final = "000000000000"
REGION: Final = "us-east-1"
CALLER: Final = Caller(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root", REGION)
KEY: Final = RecordKey(ACCOUNT, REGION, "hello")
ROLE: Final = f"arn:aws:iam::{ACCOUNT}:role/r"
ARN: Final = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function"


def targets_of(plane: MemoryPlane, dispatcher: Dispatcher, **more: Any) -> Targets:
    """What stands between the plane and a dispatcher."""
    launches = Launches(plane.artifacts, plane.vault, "http://127.0.0.1:1")
    return Targets(dispatcher, plane.store, launches, account_concurrency=1000, billed_ms=billed_ms, **more)


def package(content: str = "pass", name: str = "app.py") -> bytes:
    """A deployment package with one file; the same bytes for the same content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def request(name: str = "hello", **more: Any) -> dict[str, Any]:
    """What CreateFunction is given."""
    return {
        "FunctionName": name,
        "Runtime": "python3.11",
        "Handler": "app.handler",
        "Role": ROLE,
        "Code": {"ZipFile": package()},
    } | more


def refused(code: str, call: Callable[..., Any], *arguments: Any, **more: Any) -> str:
    """The message of the refusal that a call must end with."""
    with pytest.raises(ApiError) as caught:
        call(*arguments, **more)
    assert caught.value.code == code, caught.value
    return str(caught.value)


class MemoryPlane(ControlPlane):
    """A whole control plane over a virtual clock; `options` are those of ControlPlane."""

    def __init__(
        self,
        directory: Path,
        *,
        store: RecordStore | None = None,
        vault: Vault | None = None,
        artifacts: ArtifactStore | None = None,
        **options: Any,
    ) -> None:
        self.clock = VirtualClock()
        self.store = store or MemoryStore()
        self.artifacts = artifacts or ArtifactStore(directory)
        self.vault = vault or Vault()
        self._options = options
        self.stop_provisioning: Callable[[], None] = lambda: None
        self._start()

    def _start(self) -> None:
        self.stop_provisioning()
        super().__init__(
            self.store, self.artifacts, self.clock.schedule, clock=self.clock, vault=self.vault, **self._options
        )
        self.stop_provisioning = play_provisioning(self.store, self.clock.schedule)

    def restart(self) -> None:
        """Another control plane over the same records: what had been scheduled is lost with the process."""
        self.clock = VirtualClock(self.clock.wall_ms())
        self._start()

    def record(self, name: str = "hello", version: str = "") -> FunctionRecord:
        """`$LATEST` of a function, or one of its versions."""
        record = find_version(self.store, KEY._replace(name=name), version or LATEST)
        assert record is not None
        return record

    def settle(self) -> None:
        """Let every change under way come to its end."""
        self.clock.advance(1)

    # What most tests do, in one line each; every change is settled when it returns.

    def create(self, name: str = "hello", **more: Any) -> FunctionRecord:
        self.functions.create(CALLER, request(name, **more))
        self.settle()
        return self.record(name)

    def configure(self, name: str = "hello", **more: Any) -> FunctionRecord:
        self.functions.update_configuration(CALLER, {"FunctionName": name, **more})
        self.settle()
        return self.record(name)

    def recode(self, content: str, name: str = "hello", **more: Any) -> FunctionRecord:
        self.functions.update_code(CALLER, {"FunctionName": name, "ZipFile": package(content), **more})
        self.settle()
        return self.record(name)

    def publish(self, name: str = "hello", content: str | None = None, **more: Any) -> FunctionRecord:
        """A version of the function, with new code if that is given."""
        if content is not None:
            self.recode(content, name)
        version = self.versions.publish(CALLER, {"FunctionName": name, **more})
        self.settle()
        return self.record(name, version.version)

    def alias(self, name: str, version: str, function: str = "hello", **more: Any) -> None:
        self.aliases.create(CALLER, {"FunctionName": function, "Name": name, "FunctionVersion": version, **more})
