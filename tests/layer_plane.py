"""A control plane in memory for tests of layers: whose packages are small, and whose slow work waits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import memory_plane
from fastlam import limits
from fastlam.control.authorize import Caller
from fastlam.control.code import S3Object
from fastlam.model.function import FunctionRecord
from fastlam.model.layer import LayerVersionRecord
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.records import RecordStore
from memory_plane import ACCOUNT, CALLER, REGION, MemoryPlane, request

OTHER: Final = "111111111111"
STRANGER: Final = Caller(OTHER, f"arn:aws:iam::{OTHER}:root", REGION)
ELSEWHERE: Final = CALLER._replace(region="eu-west-1")
SPLIT: Final = 600  # bytes of the one file of a package that half fills the planes below


def package(content: str = "pass", name: str = "python/lib.py") -> bytes:
    return memory_plane.package(content, name)


def arn(name: str, version: int = 1, account: str = ACCOUNT, region: str = REGION) -> str:
    return f"arn:aws:lambda:{region}:{account}:layer:{name}:{version}"


class LayerPlane(MemoryPlane):
    """With bytes for two packages of SPLIT, and objects to read code from."""

    def __init__(self, directory: Path, store: RecordStore | None = None) -> None:
        self.objects: dict[tuple[str, str, str], S3Object] = {}
        self.slow: list[Callable[[], None]] = []  # what would go to another thread
        self.directory = directory
        super().__init__(
            directory,
            store=store,
            artifacts=ArtifactStore(directory, unzipped_bytes_max=2 * SPLIT),
            read_object=lambda region, bucket, key, version: self.objects[region, bucket, key],
            in_background=self.slow.append,
        )

    def publish_layer(self, name: str = "common", content: bytes | None = None, **more: Any) -> LayerVersionRecord:
        caller = more.pop("caller", CALLER)
        wanted = {"LayerName": name, "Content": {"ZipFile": content or package(name)}, **more}
        return self.layers.publish(caller, wanted)

    def create_with(self, *layers: str, name: str = "hello", **more: Any) -> FunctionRecord:
        """What CreateFunction answers for a function with these layers; it is settled."""
        record = self.functions.create(CALLER, request(name, **{"Layers": list(layers), **more}))
        self.settle()
        return record

    def attach(self, *layers: str, name: str = "hello") -> FunctionRecord:
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


def version_request(name: str = "common", version: int = 1, **more: Any) -> dict[str, Any]:
    return {"LayerName": name, "VersionNumber": version, **more}


def permission(sid: str = "everybody", principal: str = "*", **more: Any) -> dict[str, Any]:
    return version_request(**({"StatementId": sid, "Action": "lambda:GetLayerVersion", "Principal": principal} | more))
