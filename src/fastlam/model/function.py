"""The function record, as the store keeps it and every other part reads it."""

from __future__ import annotations

import base64
from typing import Final, NamedTuple

import msgspec

from fastlam.arn import LATEST, function_arn

PENDING: Final = "Pending"
ACTIVE: Final = "Active"
IN_PROGRESS: Final = "InProgress"
SUCCESSFUL: Final = "Successful"


class FunctionKey(NamedTuple):
    """The owner and the name: the key of every record that belongs to one function."""

    account: str
    region: str
    name: str


class FunctionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One function (its `$LATEST`). Fields are only ever added, each with a default, so that older data directories
    read on.
    """

    account: str
    region: str
    name: str
    version: str = LATEST

    runtime: str
    handler: str
    role: str
    timeout_seconds: int = 3
    memory_mb: int = 128
    environment: dict[str, str] | None = None  # None: never given, which the API shows differently from {}
    description: str = ""
    architectures: tuple[str, ...] = ("x86_64",)
    ephemeral_storage_mb: int = 512
    tracing_mode: str = "PassThrough"
    log_format: str = "Text"
    log_group: str = ""  # "": /aws/lambda/<name>
    application_log_level: str | None = None
    system_log_level: str | None = None
    tags: dict[str, str] = {}

    code_sha256: str  # base64, as the API shows it
    code_bytes: int  # of the zip

    revision_id: str
    last_modified: str  # 2025-11-25T02:26:54.123+0000
    state: str = ACTIVE
    state_reason: str | None = None
    state_reason_code: str | None = None
    last_update_status: str | None = None  # None while the function is being created
    last_update_status_reason: str | None = None
    last_update_status_reason_code: str | None = None

    @property
    def key(self) -> FunctionKey:
        return FunctionKey(self.account, self.region, self.name)

    @property
    def arn(self) -> str:
        """Unqualified."""
        return function_arn(self.region, self.account, self.name)

    @property
    def log_group_name(self) -> str:
        return self.log_group or f"/aws/lambda/{self.name}"

    @property
    def artifact(self) -> str:
        """Name of the code in the artifact store: SHA-256 of the zip, hexadecimal."""
        return base64.b64decode(self.code_sha256).hex()

    @property
    def settled(self) -> bool:
        """Neither being created nor being updated."""
        return self.state != PENDING and self.last_update_status != IN_PROGRESS


class ReservedConcurrencyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The concurrency set aside for one function; 0 switches the function off."""

    account: str
    region: str
    name: str
    concurrency: int

    @property
    def key(self) -> FunctionKey:
        return FunctionKey(self.account, self.region, self.name)
