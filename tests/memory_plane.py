"""The control plane in memory, for tests: no HTTP, no disk but for code, a clock that stands still until told otherwise."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from fastlam.clock import VirtualClock
from fastlam.control.authorize import Caller
from fastlam.control.plane import ControlPlane
from fastlam.errors import ApiError
from fastlam.model.function import FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.memory import MemoryStore
from fastlam.store.records import FUNCTION, VERSION, RecordStore
from fastlam.store.vault import Vault

ACCOUNT: Final = "000000000000"
REGION: Final = "us-east-1"
CALLER: Final = Caller(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root", REGION)
KEY: Final = RecordKey(ACCOUNT, REGION, "hello")
ARN: Final = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function"


def package(content: str = "pass") -> bytes:
    """A deployment package with one module; the same bytes for the same content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("app.py"), content)
    return buffer.getvalue()


def request(name: str = "hello", **more: Any) -> dict[str, Any]:
    """What CreateFunction is given."""
    return {
        "FunctionName": name,
        "Runtime": "python3.11",
        "Handler": "app.handler",
        "Role": f"arn:aws:iam::{ACCOUNT}:role/r",
        "Code": {"ZipFile": package()},
    } | more


def refused(code: str, call: Callable[..., Any], *arguments: Any) -> str:
    """The message of the refusal that a call must end with."""
    with pytest.raises(ApiError) as caught:
        call(*arguments)
    assert caught.value.code == code
    return str(caught.value)


class MemoryPlane(ControlPlane):
    """A whole control plane over a virtual clock."""

    def __init__(self, directory: Path, *, store: RecordStore | None = None, vault: Vault | None = None) -> None:
        self.clock = VirtualClock()
        self.store = store or MemoryStore()
        self.artifacts = ArtifactStore(directory)
        self.vault = vault or Vault()
        super().__init__(self.store, self.artifacts, self.clock.schedule, clock=self.clock, vault=self.vault)

    def record(self, name: str = "hello", version: str = "") -> FunctionRecord:
        """`$LATEST` of a function, or one of its versions."""
        kind = VERSION if version else FUNCTION
        record = self.store.get(kind, KEY._replace(name=name, part=version))
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

    def publish(self, name: str = "hello", **more: Any) -> FunctionRecord:
        version = self.versions.publish(CALLER, {"FunctionName": name, **more})
        self.settle()
        return version
