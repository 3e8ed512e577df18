"""What is set beside a function's configuration, without HTTP: runtime management, recursion, tenancy, durability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastlam.store.records import RECURSION, RUNTIME_MANAGEMENT
from memory_plane import ARN, CALLER, MemoryPlane, refused, request

RUNTIME_VERSION = "arn:aws:lambda:us-east-1::runtime:" + "0" * 64


@pytest.fixture
def plane(tmp_path: Path) -> MemoryPlane:
    return MemoryPlane(tmp_path)


def manage(plane: MemoryPlane, mode: str, arn: str | None = None, **more: Any) -> None:
    plane.runtime_management.put(
        CALLER, {"FunctionName": "hello", "UpdateRuntimeOn": mode, "RuntimeVersionArn": arn, **more}
    )


def mode_of(plane: MemoryPlane, qualifier: str | None = None) -> str:
    _, record = plane.runtime_management.get(CALLER, {"FunctionName": "hello", "Qualifier": qualifier})
    return record.update_runtime_on


def test_runtime_management_of_each_version(plane: MemoryPlane) -> None:
    plane.create()
    plane.publish()
    assert mode_of(plane) == mode_of(plane, "1") == "Auto"
    before = plane.record()
    manage(plane, "FunctionUpdate")
    assert plane.record() == before  # the function itself is not touched
    assert (mode_of(plane), mode_of(plane, "$LATEST"), mode_of(plane, "1")) == (
        "FunctionUpdate",
        "FunctionUpdate",
        "Auto",
    )
    manage(plane, "Manual", RUNTIME_VERSION, Qualifier="1")
    assert (mode_of(plane), mode_of(plane, "1")) == ("FunctionUpdate", "Manual")
    manage(plane, "Auto", Qualifier="1")
    version, record = plane.runtime_management.get(CALLER, {"FunctionName": "hello", "Qualifier": "1"})
    assert (version.qualified_arn, record.update_runtime_on, record.runtime_version_arn) == (
        f"{ARN}:hello:1",
        "Auto",
        None,
    )
    plane.functions.delete(CALLER, {"FunctionName": "hello", "Qualifier": "1"})
    assert [record.qualifier for record in plane.store.all(RUNTIME_MANAGEMENT)] == [""]
    plane.functions.delete(CALLER, {"FunctionName": "hello"})
    assert plane.store.all(RUNTIME_MANAGEMENT) == []


@pytest.mark.parametrize(
    ("mode", "arn", "message"),
    [
        ("Manual", None, "RuntimeVersionArn is required when UpdateRuntimeOn is set to Manual."),
        ("Auto", RUNTIME_VERSION, "RuntimeVersionArn is not supported when UpdateRuntimeOn is set to Auto."),
        (
            "Manual",
            "arn:aws:lambda:eu-west-1::runtime:x",
            "The runtime version arn:aws:lambda:eu-west-1::runtime:x does not exist in region us-east-1.",
        ),
    ],
)
def test_refused_runtime_management(plane: MemoryPlane, mode: str, arn: str | None, message: str) -> None:
    plane.create()
    assert refused("InvalidParameterValueException", manage, plane, mode, arn) == message
    assert plane.store.all(RUNTIME_MANAGEMENT) == []


def test_no_runtime_management_during_an_update(plane: MemoryPlane) -> None:
    plane.create()
    plane.functions.update_configuration(CALLER, {"FunctionName": "hello"})
    assert refused("ResourceConflictException", manage, plane, "Auto") == (
        f"The operation cannot be performed at this time. An update is in progress for resource: {ARN}:hello"
    )


def test_runtime_management_is_of_versions(plane: MemoryPlane) -> None:
    plane.create()
    plane.publish()
    plane.alias("live", "1")
    for qualifier in ("live", "2"):
        assert refused("ResourceNotFoundException", mode_of, plane, qualifier) == (
            f"Function not found: {ARN}:hello:{qualifier}"
        )
    image = "000000000000.dkr.ecr.us-east-1.amazonaws.com/image:1"
    plane.functions.create(
        CALLER,
        {"FunctionName": "image", "Role": request()["Role"], "PackageType": "Image", "Code": {"ImageUri": image}},
    )
    refused("InvalidParameterValueException", plane.runtime_management.get, CALLER, {"FunctionName": "image"})


def test_recursion(plane: MemoryPlane) -> None:
    plane.create()
    recursion, hello = plane.recursion, {"FunctionName": "hello"}
    assert recursion.get(CALLER, hello) == "Terminate"
    before = plane.record()
    assert recursion.put(CALLER, hello | {"RecursiveLoop": "Allow"}) == "Allow"
    assert recursion.get(CALLER, hello) == "Allow"
    assert plane.record() == before
    plane.functions.delete(CALLER, hello)
    assert plane.store.all(RECURSION) == []
    for call in (recursion.get, recursion.put):
        assert refused("ResourceNotFoundException", call, CALLER, hello | {"RecursiveLoop": "Allow"}) == (
            f"Function not found: {ARN}:hello"
        )


def test_tenancy_and_snap_start(plane: MemoryPlane) -> None:
    apart: dict[str, Any] = {"TenancyConfig": {"TenantIsolationMode": "PER_TENANT"}, "Runtime": "python3.13"}
    snapped: dict[str, Any] = {"SnapStart": {"ApplyOn": "PublishedVersions"}}
    message = "SnapStart is not supported for functions with tenancy configuration."
    create, update = plane.functions.create, plane.functions.update_configuration
    assert refused("InvalidParameterValueException", create, CALLER, request(**apart, **snapped)) == message
    assert plane.create(**apart).tenant_isolation_mode == "PER_TENANT"
    assert refused("InvalidParameterValueException", update, CALLER, {"FunctionName": "hello", **snapped}) == message
    update(CALLER, {"FunctionName": "hello", "SnapStart": {"ApplyOn": "None"}})


def test_durable_configurations(plane: MemoryPlane) -> None:
    key = "arn:aws:kms:us-east-1:000000000000:key/1"
    given = {"ExecutionTimeout": 60, "KMSKeyArn": key}
    assert plane.create(DurableConfig=given).durable_config == given | {"RetentionPeriodInDays": 14}

    def updated(**config: Any) -> Any:
        plane.functions.update_configuration(CALLER, {"FunctionName": "hello", "DurableConfig": config})
        plane.clock.advance(1)
        return plane.record().durable_config

    assert updated(RetentionPeriodInDays=90) == given | {"RetentionPeriodInDays": 90}
    assert updated(KMSKeyArn="") == {"ExecutionTimeout": 60, "RetentionPeriodInDays": 90}
    plane.functions.update_configuration(CALLER, {"FunctionName": "hello", "Timeout": 9})
    plane.clock.advance(1)
    assert plane.record().durable_config == {"ExecutionTimeout": 60, "RetentionPeriodInDays": 90}


def test_a_function_does_not_become_durable(plane: MemoryPlane) -> None:
    before = plane.create()
    update = {"FunctionName": "hello", "DurableConfig": {"ExecutionTimeout": 60}}
    assert refused("InvalidParameterValueException", plane.functions.update_configuration, CALLER, update) == (
        "DurableConfig can only be set when the function is created."
    )
    assert plane.record() == before
