"""Capacity providers, and the functions and versions on them, as boto3 sees them."""

from __future__ import annotations

from typing import Any

import pytest

from api_server import ARN, ROLE, ApiServer, create, error_of, make_zip, refused, wait
from waiting import await_that

PROVIDER = "arn:aws:lambda:us-east-1:000000000000:capacity-provider"
PUBLISHED = "$LATEST.PUBLISHED"


def provide(client: Any, name: str = "cp", **more: Any) -> dict[str, Any]:
    """A capacity provider, as it is answered before it is Active."""
    answer = client.create_capacity_provider(
        CapacityProviderName=name,
        VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        PermissionsConfig={"CapacityProviderOperatorRoleArn": ROLE},
        **more,
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    made: dict[str, Any] = answer["CapacityProvider"]
    return made


def get(client: Any, name: str = "cp") -> dict[str, Any]:
    found: dict[str, Any] = client.get_capacity_provider(CapacityProviderName=name)["CapacityProvider"]
    return found


def manage(client: Any, name: str = "hello", **more: Any) -> dict[str, Any]:
    """A function on the provider, as it is answered before it is there."""
    config = {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": f"{PROVIDER}:cp"}}
    return create(client, name, **{"Runtime": "python3.13", "CapacityProviderConfig": config, **more})


def state(client: Any, name: str = "hello") -> Any:
    return client.get_function_configuration(FunctionName=name)["State"]


def attached(client: Any) -> list[tuple[str, str]]:
    found = client.list_function_versions_by_capacity_provider(CapacityProviderName="cp")
    assert found["CapacityProviderArn"] == f"{PROVIDER}:cp"
    return [(item["FunctionArn"].partition(":function:")[2], item["State"]) for item in found["FunctionVersions"]]


@pytest.fixture
def provided(client: Any) -> Any:
    provide(client)
    await_that(lambda: get(client)["State"] == "Active")
    return client


def test_the_life_of_a_provider(client: Any) -> None:
    made = provide(client, Tags={"team": "a"}, KmsKeyArn="arn:aws:kms:us-east-1:000000000000:key/1")
    assert made["CapacityProviderArn"] == f"{PROVIDER}:cp"
    assert made["State"] == "Pending"
    await_that(lambda: get(client)["State"] == "Active")
    assert get(client, f"{PROVIDER}:cp") == made | {"State": "Active"}
    assert client.list_tags(Resource=f"{PROVIDER}:cp")["Tags"] == {"team": "a"}
    error = error_of(provide, client)
    assert error.response["Error"] == {
        "Code": "ResourceConflictException",
        "Message": f"Capacity provider already exists: {PROVIDER}:cp",
    }
    updated = client.update_capacity_provider(
        CapacityProviderName="cp", CapacityProviderScalingConfig={"MaxVCpuCount": 8}
    )
    assert updated["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert updated["CapacityProvider"]["CapacityProviderScalingConfig"] == {"MaxVCpuCount": 8, "ScalingMode": "Auto"}
    gone = client.delete_capacity_provider(CapacityProviderName="cp")
    assert gone["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert gone["CapacityProvider"]["State"] == "Deleting"
    await_that(lambda: client.list_capacity_providers()["CapacityProviders"] == [])
    for operation in (
        client.get_capacity_provider,
        client.update_capacity_provider,
        client.delete_capacity_provider,
        client.list_function_versions_by_capacity_provider,
    ):
        message = f"Capacity provider not found: {PROVIDER}:cp"
        refused(operation, "ResourceNotFoundException", 404, message, CapacityProviderName="cp")


def test_lists(client: Any) -> None:
    for name in ("b", "a", "c"):
        provide(client, name)
        await_that(lambda name=name: get(client, name)["State"] == "Active")
    found: list[str] = []
    for page in client.get_paginator("list_capacity_providers").paginate(PaginationConfig={"PageSize": 2}):
        found += [item["CapacityProviderArn"] for item in page["CapacityProviders"]]
    assert found == [f"{PROVIDER}:{name}" for name in "abc"]
    assert len(client.list_capacity_providers(State="Active")["CapacityProviders"]) == 3
    assert client.list_capacity_providers(State="Failed")["CapacityProviders"] == []


def test_a_managed_function(provided: Any) -> None:
    client = provided
    created = manage(client, Timeout=5400)
    assert (created["State"], created["MemorySize"], created["Timeout"]) == ("Pending", 2048, 5400)
    assert created["CapacityProviderConfig"] == {
        "LambdaManagedInstancesCapacityProviderConfig": {
            "CapacityProviderArn": f"{PROVIDER}:cp",
            "PerExecutionEnvironmentMaxConcurrency": 16,
            "ExecutionEnvironmentMemoryGiBPerVCpu": 2.0,
        }
    }
    assert created["LoggingConfig"]["LogFormat"] == "JSON"
    await_that(lambda: state(client) == "ActiveNonInvocable")
    version = client.publish_version(FunctionName="hello")
    assert (version["Version"], version["State"]) == ("1", "Pending")
    client.get_waiter("published_version_active").wait(
        FunctionName="hello", Qualifier="1", WaiterConfig={"Delay": 0.02, "MaxAttempts": 300}
    )
    published = client.publish_version(FunctionName="hello", PublishTo="LATEST_PUBLISHED")
    assert (published["Version"], published["FunctionArn"]) == (PUBLISHED, f"{ARN}:hello:{PUBLISHED}")
    await_that(
        lambda: (
            attached(client)
            == [("hello:$LATEST", "ActiveNonInvocable"), (f"hello:{PUBLISHED}", "Active"), ("hello:1", "Active")]
        )
    )
    versions = client.list_versions_by_function(FunctionName="hello")["Versions"]
    assert [each["Version"] for each in versions] == ["$LATEST", PUBLISHED, "1"]
    error = error_of(client.delete_capacity_provider, CapacityProviderName="cp")
    assert error.response["Error"]["Code"] == "ResourceConflictException"
    first = client.list_function_versions_by_capacity_provider(CapacityProviderName="cp", MaxItems=2)
    rest = client.list_function_versions_by_capacity_provider(CapacityProviderName="cp", Marker=first["NextMarker"])
    assert [item["FunctionArn"] for item in rest["FunctionVersions"]] == [f"{ARN}:hello:1"]


def test_code_published_at_once(provided: Any) -> None:
    client = provided
    manage(client, PublishTo="LATEST_PUBLISHED")
    await_that(lambda: attached(client)[1:] == [(f"hello:{PUBLISHED}", "Active")])
    answer = client.update_function_code(
        FunctionName="hello", ZipFile=make_zip({"app.py": "2"}), PublishTo="LATEST_PUBLISHED"
    )
    assert (answer["Version"], answer["LastUpdateStatus"]) == (PUBLISHED, "InProgress")
    assert answer["FunctionArn"] == f"{ARN}:hello:{PUBLISHED}"


def test_refused_functions(provided: Any) -> None:
    client = provided
    for more, code, message in (
        (
            {"Runtime": "python3.12"},
            "InvalidParameterValueException",
            "Runtime Enum python3.12 does not support specified feature: Lambda Managed Instances",
        ),
        (
            {"MemorySize": 128},
            "ValidationException",
            "Lambda Managed Instance functions must have memory size greater than or equal to 2048",
        ),
        (
            {"CapacityProviderConfig": {}},
            "ValidationException",
            "1 validation error detected: Value null at"
            " 'capacityProviderConfig.lambdaManagedInstancesCapacityProviderConfig' failed to satisfy constraint: Member"
            " must not be null",
        ),
        (
            {"Timeout": 5401},
            "ValidationException",
            "1 validation error detected: Value '5401' at 'timeout' failed to satisfy constraint: Member must have value"
            " less than or equal to 5400",
        ),
    ):
        error = error_of(manage, client, **more)
        assert error.response["Error"] == {"Code": code, "Message": message}
    assert client.list_functions()["Functions"] == []


def test_a_plain_function(provided: Any) -> None:
    client = provided
    error = error_of(create, client, Timeout=901, Role="x")
    assert error.response["Error"]["Message"].startswith("2 validation errors detected: Value 'x' at 'role'")
    create(client)
    wait(client)
    config = {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": f"{PROVIDER}:cp"}}
    refused(
        client.update_function_configuration, "InvalidParameterValueException", 400,
        "CapacityProviderConfig isn't supported for Lambda Default functions.",
        FunctionName="hello", CapacityProviderConfig=config,
    )  # fmt: skip
    refused(
        client.update_function_configuration, "ValidationException", 400,
        "1 validation error detected: Value '901' at 'timeout' failed to satisfy constraint: Member must have value less"
        " than or equal to 900",
        FunctionName="hello", Timeout=901,
    )  # fmt: skip
    refused(
        client.publish_version, "InvalidParameterValueException", 400,
        "PublishTo isn't supported for Lambda Default functions.",
        FunctionName="hello", PublishTo="LATEST_PUBLISHED",
    )  # fmt: skip


def test_scaling(provided: Any) -> None:
    client = provided
    manage(client, PublishTo="LATEST_PUBLISHED")
    await_that(lambda: attached(client)[1:] == [(f"hello:{PUBLISHED}", "Active")])
    named = {"FunctionName": "hello", "Qualifier": PUBLISHED}
    answer = client.put_function_scaling_config(
        **named, FunctionScalingConfig={"MinExecutionEnvironments": 0, "MaxExecutionEnvironments": 0}
    )
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["FunctionState"]) == (202, "Deactivating")
    await_that(lambda: attached(client)[1:] == [(f"hello:{PUBLISHED}", "Deactivated")])
    found = client.get_function_scaling_config(**named)
    off = {"MinExecutionEnvironments": 0, "MaxExecutionEnvironments": 0}
    assert found["FunctionArn"] == f"{ARN}:hello:{PUBLISHED}"
    assert (found["AppliedFunctionScalingConfig"], found["RequestedFunctionScalingConfig"]) == (off, off)
    for qualifier in ("live", "$LATEST"):
        error = error_of(client.get_function_scaling_config, FunctionName="hello", Qualifier=qualifier)
        assert error.response["Error"]["Code"] == "ValidationException"
    refused(
        client.get_function_scaling_config, "ResourceNotFoundException", 404, f"Function not found: {ARN}:none:1",
        FunctionName="none", Qualifier="1",
    )  # fmt: skip


def test_input_that_breaks_its_constraints(client: Any, server: ApiServer) -> None:
    error = error_of(
        client.create_capacity_provider,
        CapacityProviderName="a b",
        VpcConfig={"SubnetIds": [], "SecurityGroupIds": ["sg-1"]},
        PermissionsConfig={"CapacityProviderOperatorRoleArn": "role"},
        CapacityProviderScalingConfig={"MaxVCpuCount": 1},
    )
    message = error.response["Error"]["Message"]
    assert message.startswith("4 validation errors detected: Value 'a b' at 'capacityProviderName'")
    assert "'vpcConfig.subnetIds'" in message
    assert server.send("POST", "/2025-11-30/capacity-providers", {"VpcConfig": []}).status == 400
    assert client.list_capacity_providers()["CapacityProviders"] == []
