"""A control plane in memory for tests of layers: packages, requests, and a clock that stands still."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastlam import limits
from fastlam.clock import VirtualClock
from fastlam.control.authorize import Caller
from fastlam.control.code import S3Object
from fastlam.control.plane import ControlPlane
from fastlam.errors import ApiError
from fastlam.model.function import FunctionRecord
from fastlam.model.layer import LayerVersionRecord
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.memory import MemoryStore
from fastlam.store.records import RecordStore

ACCOUNT = "000000000000"
OTHER = "111111111111"
REGION = "us-east-1"
CALLER = Caller(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root", REGION)
STRANGER = Caller(OTHER, f"arn:aws:iam::{OTHER}:root", REGION)
ELSEWHERE = CALLER._replace(region="eu-west-1")
SPLIT = 600  # bytes of the one file of a package that half fills the planes below


def package(content: str = "pass", name: str = "python/lib.py") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def arn(name: str, version: int = 1, account: str = ACCOUNT, region: str = REGION) -> str:
    return f"arn:aws:lambda:{region}:{account}:layer:{name}:{version}"


class Plane:
    """A control plane in memory; its clock stands still until told otherwise."""

    def __init__(self, directory: Path, store: RecordStore | None = None) -> None:
        self.clock = VirtualClock()
        self.store = store or MemoryStore()
        self.artifacts = ArtifactStore(directory, unzipped_bytes_max=2 * SPLIT)
        self.objects: dict[tuple[str, str, str], S3Object] = {}
        self.slow: list[Callable[[], None]] = []  # what would go to another thread
        plane = ControlPlane(
            self.store,
            self.artifacts,
            self.clock.schedule,
            clock=self.clock,
            read_object=lambda region, bucket, key, version: self.objects[region, bucket, key],
            in_background=self.slow.append,
        )
        self.layers, self.functions, self.tags = plane.layers, plane.functions, plane.tags
        self.directory = directory

    def publish(self, name: str = "common", content: bytes | None = None, **more: Any) -> LayerVersionRecord:
        caller = more.pop("caller", CALLER)
        request = {"LayerName": name, "Content": {"ZipFile": content or package(name)}, **more}
        return self.layers.publish(caller, request)

    def create(self, *layers: str, name: str = "hello", **more: Any) -> FunctionRecord:
        request = {
            "FunctionName": name,
            "Runtime": "python3.11",
            "Handler": "app.handler",
            "Role": f"arn:aws:iam::{ACCOUNT}:role/r",
            "Code": {"ZipFile": package(name="app.py")},
            "Layers": list(layers),
        } | more
        record = self.functions.create(CALLER, request)
        self.settle()
        return record

    def update(self, *layers: str, name: str = "hello") -> FunctionRecord:
        record = self.functions.update_configuration(CALLER, {"FunctionName": name, "Layers": list(layers)})
        self.settle()
        return record

    def settle(self) -> None:
        self.clock.advance(limits.STATE_CHANGE_SECONDS)

    def run_slow(self) -> None:
        while self.slow:
            self.slow.pop(0)()

    def artifacts_kept(self) -> set[str]:
        return {path.stem for path in (self.directory / "code").iterdir()}

    def trees(self) -> set[str]:
        opt = self.directory / "opt"
        return set(os.listdir(opt)) if opt.exists() else set()

    def grace_passes(self) -> None:
        self.clock.advance(limits.CODE_GRACE_SECONDS + 1)
        self.run_slow()


def refused(code: str, call: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(ApiError) as caught:
        call(*arguments)
    assert caught.value.code == code
    return str(caught.value)


def version_request(name: str = "common", version: int = 1, **more: Any) -> dict[str, Any]:
    return {"LayerName": name, "VersionNumber": version, **more}


def permission(sid: str = "everybody", principal: str = "*", **more: Any) -> dict[str, Any]:
    return version_request(**({"StatementId": sid, "Action": "lambda:GetLayerVersion", "Principal": principal} | more))
