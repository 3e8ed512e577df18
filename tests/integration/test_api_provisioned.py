"""Provisioned concurrency and account settings as boto3 sees them."""

from __future__ import annotations

from typing import Any

import pytest

from api_server import ARN, ApiServer, create, error_of, make_zip, refused, wait
from waiting import await_that

PATH = "/2019-09-30/functions/hello/provisioned-concurrency"
IPV = "InvalidParameterValueException"


@pytest.fixture
def published(client: Any) -> Any:
    """The client, with versions 1 and 2 of a function, `live` on the first."""
    create(client)
    wait(client)
    client.publish_version(FunctionName="hello")
    client.update_function_code(FunctionName="hello", ZipFile=make_zip({"app.py": "2"}))
    wait(client, "function_updated_v2")
    client.publish_version(FunctionName="hello")
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    return client


def put(client: Any, qualifier: str, wanted: int, name: str = "hello") -> dict[str, Any]:
    answer: dict[str, Any] = client.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=wanted
    )
    return answer


def status(client: Any, qualifier: str) -> str:
    answer = client.get_provisioned_concurrency_config(FunctionName="hello", Qualifier=qualifier)
    return str(answer["Status"])


def test_from_request_to_deletion(published: Any) -> None:
    client = published
    made = put(client, "live", 5)
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert made["Status"] == "IN_PROGRESS"
    counts = ("Requested", "Available", "Allocated")
    assert [made[f"{name}ProvisionedConcurrentExecutions"] for name in counts] == [5, 0, 0]
    assert len(made["LastModified"]) == len("2026-09-28T09:33:40+0000")
    await_that(lambda: status(client, "live") == "READY")
    ready = client.get_provisioned_concurrency_config(FunctionName="hello:live", Qualifier="live")
    assert [ready[f"{name}ProvisionedConcurrentExecutions"] for name in counts] == [5, 5, 5]
    assert ready["LastModified"] == made["LastModified"]
    client.update_alias(FunctionName="hello", Name="live", FunctionVersion="2")
    await_that(lambda: status(client, "live") == "READY")
    gone = {"FunctionName": "hello", "Qualifier": "live"}
    for _ in range(2):
        answer = client.delete_provisioned_concurrency_config(**gone)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    refused(
        client.get_provisioned_concurrency_config,
        "ProvisionedConcurrencyConfigNotFoundException",
        404,
        "No Provisioned Concurrency Config found for this function",
        **gone,
    )


def test_lists(published: Any, server: ApiServer) -> None:
    client = published
    for qualifier, wanted in (("live", 3), ("2", 2)):
        put(client, qualifier, wanted)
    first = client.list_provisioned_concurrency_configs(FunctionName="hello", MaxItems=1)
    rest = client.list_provisioned_concurrency_configs(FunctionName="hello", Marker=first["NextMarker"])
    assert "NextMarker" not in rest
    found = first["ProvisionedConcurrencyConfigs"] + rest["ProvisionedConcurrencyConfigs"]
    assert [(item["FunctionArn"], item["RequestedProvisionedConcurrentExecutions"]) for item in found] == [
        (f"{ARN}:hello:2", 2),
        (f"{ARN}:hello:live", 3),
    ]
    assert server.send("GET", f"{PATH}?List=ALL").json["ProvisionedConcurrencyConfigs"] != []
    message = f"Function not found: {ARN}:none"
    refused(client.list_provisioned_concurrency_configs, "ResourceNotFoundException", 404, message, FunctionName="none")


def test_where_none_may_be(published: Any) -> None:
    client = published
    unpublished = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
    client.create_alias(FunctionName="hello", Name="latest", FunctionVersion="$LATEST")
    for qualifier in ("$LATEST", "latest"):
        refused(
            client.put_provisioned_concurrency_config, IPV, 400, unpublished,
            FunctionName="hello", Qualifier=qualifier, ProvisionedConcurrentExecutions=1,
        )  # fmt: skip
    for operation in (client.get_provisioned_concurrency_config, client.delete_provisioned_concurrency_config):
        message = "The function resource provided must be an alias or a published version."
        refused(operation, IPV, 400, message, FunctionName="hello", Qualifier="$LATEST")
        for qualifier, text in (
            ("nope", f"Cannot find alias arn: {ARN}:hello:nope"),
            ("7", f"Function not found: {ARN}:hello:7"),
        ):
            refused(operation, "ResourceNotFoundException", 404, text, FunctionName="hello", Qualifier=qualifier)
        text = f"Function not found: {ARN}:none:live"
        refused(operation, "ResourceNotFoundException", 404, text, FunctionName="none", Qualifier="live")
        text = "The derived qualifier from the function name does not match the specified qualifier."
        refused(operation, IPV, 400, text, FunctionName="hello:live", Qualifier="1")
    assert client.list_provisioned_concurrency_configs(FunctionName="hello")["ProvisionedConcurrencyConfigs"] == []


def test_one_configuration_for_a_version(published: Any) -> None:
    client = published
    put(client, "live", 1)
    code, qualified = "ResourceConflictException", {"FunctionName": "hello", "ProvisionedConcurrentExecutions": 1}
    refused(
        client.put_provisioned_concurrency_config, code, 409,
        "Version is pointed by a Provisioned Concurrency alias", Qualifier="1", **qualified,
    )  # fmt: skip
    put(client, "2", 1)
    client.create_alias(FunctionName="hello", Name="next", FunctionVersion="2")
    message = "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
    refused(client.put_provisioned_concurrency_config, code, 409, message, Qualifier="next", **qualified)
    refused(client.update_alias, code, 409, message, FunctionName="hello", Name="live", FunctionVersion="2")
    client.delete_alias(FunctionName="hello", Name="live")
    put(client, "1", 1)


def test_bodies_of_refusals(published: Any, server: ApiServer) -> None:
    """Which of them carry a type, and which spaces are there."""
    path = f"{PATH}?Qualifier=live"
    assert server.send("PUT", path, {"ProvisionedConcurrentExecutions": 1001}).json == {
        "message": "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [1000]."
    }
    assert server.send("PUT", path, {"ProvisionedConcurrentExecutions": 901}).json == {
        "Type": "User",
        "message": "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below"
        " its minimum value of [100].",
    }
    assert server.send("PUT", path, {"ProvisionedConcurrentExecutions": 0.9}).json == {
        "message": "1 validation error detected: Value '0' at 'provisionedConcurrentExecutions' failed to satisfy"
        " constraint: Member must have value greater than or equal to 1"
    }
    put(published, "live", 2)
    reserve = "/2017-10-31/functions/hello/concurrency"
    assert server.send("PUT", reserve, {"ReservedConcurrentExecutions": 0}).json == {
        "message": " ReservedConcurrentExecutions  0 should not be lower than function's total provisioned concurrency"
        " [2]."
    }
    published.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=2)
    assert server.send("PUT", path, {"ProvisionedConcurrentExecutions": 3}).json == {
        "Type": "User",
        "message": "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for"
        " function",
    }
    assert server.send("GET", PATH).json == {
        "message": "1 validation error detected: Value null at 'qualifier' failed to satisfy constraint: Member must not"
        " be null"
    }


def test_account_settings(published: Any, server: ApiServer) -> None:
    client = published
    put(client, "2", 7)
    create(client, name="other")
    client.put_function_concurrency(FunctionName="other", ReservedConcurrentExecutions=20)
    sizes = [
        version["CodeSize"]
        for name in ("hello", "other")
        for version in client.list_versions_by_function(FunctionName=name)["Versions"]
    ]
    assert server.send("GET", "/2016-08-19/account-settings").json == {
        "AccountLimit": {
            "TotalCodeSize": 322122547200,
            "CodeSizeUnzipped": 262144000,
            "CodeSizeZipped": 52428800,
            "ConcurrentExecutions": 1000,
            "UnreservedConcurrentExecutions": 973,
            "UnreservedConcurrentExecutionsMinimum": None,
        },
        "AccountUsage": {"TotalCodeSize": sum(sizes), "FunctionCount": 2},
        "AccountRuntimeConfig": None,
        "BlacklistedFeatures": None,
        "DeprecatedFeaturesAccess": None,
        "HasFunctionWithDeprecatedRuntime": False,
        "PreviewFeatures": None,
    }
    assert server.client(region="eu-west-1").get_account_settings()["AccountUsage"] == {
        "TotalCodeSize": 0,
        "FunctionCount": 0,
    }


def test_input_that_breaks_its_constraints(published: Any) -> None:
    error = error_of(
        published.put_provisioned_concurrency_config, FunctionName="hello", Qualifier="a.b",
        ProvisionedConcurrentExecutions=-1,
    )  # fmt: skip
    assert error.response["Error"]["Code"] == "ValidationException"
    assert error.response["Error"]["Message"].startswith("2 validation errors detected: Value 'a.b' at 'qualifier'")
    error = error_of(published.list_provisioned_concurrency_configs, FunctionName="hello", MaxItems=51)
    assert "less than or equal to 50" in error.response["Error"]["Message"]
    error = error_of(published.list_provisioned_concurrency_configs, FunctionName="hello", Marker="?")
    assert error.response["Error"]["Code"] == IPV
