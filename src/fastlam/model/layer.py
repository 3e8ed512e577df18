"""The layer version record: a package that functions share, published once and never changed but for its policy."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from fastlam.arn import PARTITION
from fastlam.model.function import LayerReference
from fastlam.model.key import RecordKey


class LayerVersionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of one layer. Structures are kept in the API's own form, with its member names."""

    account: str
    region: str
    name: str
    version: int
    description: str = ""
    created_date: str  # 2025-11-25T02:26:54.123+0000
    compatible_runtimes: tuple[str, ...] | None = None  # None: never given, which the API shows differently from []
    compatible_architectures: tuple[str, ...] | None = None
    license_info: str | None = None
    code_sha256: str  # base64, as the API shows it
    code_bytes: int  # of the zip
    s3_object: dict[str, Any] | None = None  # where the content stays (S3ObjectStorageMode REFERENCE)
    statements: tuple[dict[str, Any], ...] = ()  # of its policy
    policy_revision_id: str = ""

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.name, str(self.version))

    @property
    def layer_arn(self) -> str:
        """Without the version."""
        return layer_arn(self.region, self.account, self.name)

    @property
    def arn(self) -> str:
        return layer_arn(self.region, self.account, self.name, self.version)

    @property
    def artifact(self) -> str:
        """Name of the content in the artifact store: SHA-256 of the zip, hexadecimal."""
        return base64.b64decode(self.code_sha256).hex()

    @property
    def reference(self) -> LayerReference:
        """What a function keeps of it."""
        return LayerReference(self.arn, self.code_bytes, self.artifact)


def layer_arn(region: str, account: str, name: str, version: int | None = None) -> str:
    arn = f"arn:{PARTITION}:lambda:{region}:{account}:layer:{name}"
    return arn if version is None else f"{arn}:{version}"
