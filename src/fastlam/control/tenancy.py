"""What a function that keeps its tenants apart cannot have besides."""

from __future__ import annotations

from fastlam.errors import invalid_parameter
from fastlam.model.function import FunctionRecord


def refuse_tenancy(record: FunctionRecord, feature: str) -> None:
    """`feature` begins the sentence: `Provisioned concurrency`, `SnapStart`, `A function URL` ..."""
    if record.tenant_isolation_mode:
        raise invalid_parameter(f"{feature} is not supported for functions with tenancy configuration.")
