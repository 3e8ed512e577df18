"""The function record, as the store keeps it and every other part reads it: `$LATEST`, or one published version."""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec

from fastlam.arn import LATEST, function_arn
from fastlam.model.key import RecordKey
from fastlam.model.sealed import Sealed

PENDING: Final = "Pending"
ACTIVE: Final = "Active"
FAILED: Final = "Failed"
IN_PROGRESS: Final = "InProgress"
SUCCESSFUL: Final = "Successful"

ZIP: Final = "Zip"
IMAGE: Final = "Image"

SNAP_START_VERSIONS: Final = "PublishedVersions"  # what SnapStart can apply to


class LayerReference(msgspec.Struct, frozen=True, array_like=True):
    """A layer version as a function refers to it; the function goes on working when the layer version is deleted."""

    arn: str
    code_bytes: int  # of the zip
    artifact: str  # its name in the artifact store


class FunctionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One function version. Fields are only ever added, each with a default, so that older data directories read on.

    Structures that the API gives back as they came are kept in the API's own form (`dict`, with its member names).
    """

    account: str
    region: str
    name: str
    version: str = LATEST

    runtime: str  # "" for images
    handler: str  # "" for images
    role: str
    timeout_seconds: int = 3
    memory_mb: int = 128
    # None: never given, which the API shows differently from {}. A plain mapping is what versions before 2 stored.
    environment: Sealed | dict[str, str] | None = None
    description: str = ""
    architectures: tuple[str, ...] = ("x86_64",)
    ephemeral_storage_mb: int = 512
    tracing_mode: str = "PassThrough"
    log_format: str = "Text"
    log_group: str = ""  # "": /aws/lambda/<name>
    application_log_level: str | None = None
    system_log_level: str | None = None
    tags: dict[str, str] = {}  # of $LATEST only

    package_type: str = ZIP
    image_uri: str = ""
    image_config: dict[str, Any] | None = None
    layers: tuple[LayerReference, ...] = ()
    vpc_config: dict[str, Any] | None = None  # None: never given
    dead_letter_target_arn: str = ""
    kms_key_arn: str = ""
    source_kms_key_arn: str = ""
    file_system_configs: list[dict[str, Any]] = []
    snap_start: str = "None"
    capacity_provider_config: dict[str, Any] | None = None
    accelerator_config: dict[str, Any] | None = None
    runtime_config: dict[str, Any] | None = None
    durable_config: dict[str, Any] | None = None
    tenant_isolation_mode: str = ""
    s3_object: dict[str, Any] | None = None  # where the code stays (S3ObjectStorageMode REFERENCE)
    signing_profile_version_arn: str = ""
    signing_job_arn: str = ""

    code_sha256: str  # base64, as the API shows it; of images the digest, hexadecimal
    code_bytes: int  # of the zip; 0 for images

    revision_id: str
    last_modified: str  # 2025-11-25T02:26:54.123+0000
    state: str = ACTIVE
    state_reason: str | None = None
    state_reason_code: str | None = None
    last_update_status: str | None = None  # None while the function is being created
    last_update_status_reason: str | None = None
    last_update_status_reason_code: str | None = None

    @property
    def key(self) -> RecordKey:
        """`$LATEST` is the function itself, a published version a part of it."""
        return RecordKey(self.account, self.region, self.name, "" if self.version == LATEST else self.version)

    @property
    def arn(self) -> str:
        """Unqualified."""
        return function_arn(self.region, self.account, self.name)

    @property
    def qualified_arn(self) -> str:
        """With the version."""
        return function_arn(self.region, self.account, self.name, self.version)

    @property
    def log_group_name(self) -> str:
        return self.log_group or f"/aws/lambda/{self.name}"

    @property
    def artifact(self) -> str:
        """Name of the code in the artifact store: SHA-256 of the zip, hexadecimal. "" for images."""
        return "" if self.package_type == IMAGE else base64.b64decode(self.code_sha256).hex()

    @property
    def artifacts(self) -> frozenset[str]:
        """Everything in the artifact store that an environment of this version is made from."""
        own = (self.artifact,) if self.artifact else ()
        return frozenset((*own, *(layer.artifact for layer in self.layers)))

    @property
    def settled(self) -> bool:
        """Neither being created nor being updated."""
        return self.state != PENDING and self.last_update_status != IN_PROGRESS


def applies_snap_start(record: FunctionRecord) -> bool:
    """Whether it is a version that is to have a snapshot."""
    return record.snap_start == SNAP_START_VERSIONS and record.version != LATEST
