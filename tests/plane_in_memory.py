"""The whole control plane in memory, with a clock that stands still until told otherwise."""

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
from fastlam.store.finding import find_version
from fastlam.store.memory import MemoryStore

CALLER: Final = Caller("000000000000", "arn:aws:iam::000000000000:root", "us-east-1")
ROLE: Final = "arn:aws:iam::000000000000:role/r"
ARN: Final = "arn:aws:lambda:us-east-1:000000000000:function"


def package(content: str = "pass") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("app.py"), content)
    return buffer.getvalue()


def request(name: str = "hello", **more: Any) -> dict[str, Any]:
    """CreateFunction's input."""
    return {
        "FunctionName": name,
        "Runtime": "python3.11",
        "Handler": "app.handler",
        "Role": ROLE,
        "Code": {"ZipFile": package()},
    } | more


class PlaneInMemory:
    """One after the other, control planes over the same records."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.clock = VirtualClock()
        self.store = MemoryStore()
        self._artifacts = ArtifactStore(directory)
        self._options = options
        self.now = self._start()

    def _start(self) -> ControlPlane:
        return ControlPlane(self.store, self._artifacts, self.clock.schedule, clock=self.clock, **self._options)

    def restart(self) -> None:
        """What had been scheduled is lost with the process."""
        self.clock = VirtualClock(self.clock.wall_ms())
        self.now = self._start()

    def create(self, name: str = "hello", **more: Any) -> FunctionRecord:
        """A function that is Active."""
        self.now.functions.create(CALLER, request(name, **more))
        self.clock.advance(1)
        return self.record(name)

    def publish(self, name: str = "hello", content: str | None = None, **more: Any) -> FunctionRecord:
        """A version of the function, with new code if that is given."""
        if content is not None:
            self.now.functions.update_code(CALLER, {"FunctionName": name, "ZipFile": package(content)})
            self.clock.advance(1)
        version = self.now.versions.publish(CALLER, {"FunctionName": name, **more})
        self.clock.advance(1)
        return self.record(name, version.version)

    def alias(self, name: str, version: str, function: str = "hello", **more: Any) -> None:
        self.now.aliases.create(CALLER, {"FunctionName": function, "Name": name, "FunctionVersion": version, **more})

    def record(self, name: str = "hello", version: str = "$LATEST") -> FunctionRecord:
        record = find_version(self.store, RecordKey(CALLER.account, CALLER.region, name), version)
        assert record is not None
        return record


def refused(code: str, call: Callable[..., Any], *arguments: Any) -> str:
    """The message of a call's error, which must have this code."""
    with pytest.raises(ApiError) as caught:
        call(*arguments)
    assert caught.value.code == code, caught.value
    return str(caught.value)
