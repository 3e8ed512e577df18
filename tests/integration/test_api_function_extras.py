"""Runtime management, recursion, tenancy and durable configurations as boto3 sees them."""

from __future__ import annotations

from typing import Any

from api_server import ARN, create, error_of, refused, wait

RUNTIME_VERSION = "arn:aws:lambda:us-east-1::runtime:" + "0" * 64
IPV = "InvalidParameterValueException"


def test_runtime_management(client: Any) -> None:
    create(client)
    wait(client)
    client.publish_version(FunctionName="hello")
    answer = client.get_runtime_management_config(FunctionName="hello")
    assert (answer["UpdateRuntimeOn"], answer["FunctionArn"]) == ("Auto", f"{ARN}:hello:$LATEST")
    assert "RuntimeVersionArn" not in answer
    manual = {"UpdateRuntimeOn": "Manual", "RuntimeVersionArn": RUNTIME_VERSION}
    answer = client.put_runtime_management_config(FunctionName="hello", Qualifier="1", **manual)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    expected = manual | {"FunctionArn": f"{ARN}:hello:1"}
    assert {member: answer[member] for member in expected} == expected
    answer = client.get_runtime_management_config(FunctionName="hello:1")
    assert {member: answer[member] for member in expected} == expected
    assert client.get_runtime_management_config(FunctionName="hello")["UpdateRuntimeOn"] == "Auto"
    refused(
        client.put_runtime_management_config, IPV, 400,
        "RuntimeVersionArn is required when UpdateRuntimeOn is set to Manual.",
        FunctionName="hello", UpdateRuntimeOn="Manual",
    )  # fmt: skip
    for name, qualifier, arn in (("none", None, f"{ARN}:none"), ("hello", "9", f"{ARN}:hello:9")):
        more = {} if qualifier is None else {"Qualifier": qualifier}
        message = f"Function not found: {arn}"
        refused(
            client.get_runtime_management_config, "ResourceNotFoundException", 404, message, FunctionName=name, **more
        )


def test_recursion(client: Any) -> None:
    create(client)
    assert client.get_function_recursion_config(FunctionName="hello")["RecursiveLoop"] == "Terminate"
    answer = client.put_function_recursion_config(FunctionName="hello", RecursiveLoop="Allow")
    assert answer["RecursiveLoop"] == "Allow"
    assert client.get_function_recursion_config(FunctionName=f"{ARN}:hello")["RecursiveLoop"] == "Allow"
    refused(
        client.put_function_recursion_config, "ValidationException", 400,
        "1 validation error detected: Value 'Never' at 'recursiveLoop' failed to satisfy constraint: Member must satisfy"
        " enum value set: [Terminate, Allow]",
        FunctionName="hello", RecursiveLoop="Never",
    )  # fmt: skip
    error = error_of(client.get_function_recursion_config, FunctionName="hello:$LATEST")
    assert error.response["Error"]["Code"] == "ValidationException"
    message = f"Function not found: {ARN}:none"
    refused(client.get_function_recursion_config, "ResourceNotFoundException", 404, message, FunctionName="none")
    client.delete_function(FunctionName="hello")
    create(client)
    assert client.get_function_recursion_config(FunctionName="hello")["RecursiveLoop"] == "Terminate"


def test_tenancy(client: Any) -> None:
    tenancy = {"TenantIsolationMode": "PER_TENANT"}
    assert create(client, TenancyConfig=tenancy)["TenancyConfig"] == tenancy
    wait(client)
    client.publish_version(FunctionName="hello")
    refused(
        client.put_provisioned_concurrency_config, IPV, 400,
        "Provisioned concurrency is not supported for functions with tenancy configuration.",
        FunctionName="hello", Qualifier="1", ProvisionedConcurrentExecutions=1,
    )  # fmt: skip
    error = error_of(create, client, name="x", TenancyConfig={"TenantIsolationMode": "NONE"})
    assert error.response["Error"]["Message"].endswith("Member must satisfy enum value set: [PER_TENANT]")


def test_durable_configurations(client: Any) -> None:
    created = create(client, DurableConfig={"ExecutionTimeout": 60})
    assert created["DurableConfig"] == {"ExecutionTimeout": 60, "RetentionPeriodInDays": 14}
    wait(client)
    changed = client.update_function_configuration(FunctionName="hello", DurableConfig={"RetentionPeriodInDays": 1})
    assert changed["DurableConfig"] == {"ExecutionTimeout": 60, "RetentionPeriodInDays": 1}
    create(client, name="plain")
    wait(client, name="plain")
    refused(
        client.update_function_configuration, IPV, 400, "DurableConfig can only be set when the function is created.",
        FunctionName="plain", DurableConfig={"ExecutionTimeout": 60},
    )  # fmt: skip
    error = error_of(create, client, name="x", DurableConfig={"ExecutionTimeout": 0, "RetentionPeriodInDays": 91})
    assert error.response["Error"]["Message"].startswith("2 validation errors detected: ")
