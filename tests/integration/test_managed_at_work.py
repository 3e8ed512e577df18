"""Functions on a capacity provider: what is invoked is what was published."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from api_server import ARN, create, refused, wait
from daemon_running import RunningDaemon, running_daemon, sdk_client
from test_api_capacity_providers import PUBLISHED, get, manage, provide, state
from waiting import await_that

pytestmark = pytest.mark.lanes


@pytest.fixture(scope="module")
def daemon(lane_in_use: str) -> Iterator[RunningDaemon]:
    """One that may say that its own Python is not the one the functions ask for."""
    with running_daemon(complains=True) as running:
        yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Any]:
    client = sdk_client(daemon.url, parameter_validation=False)
    provide(client)
    await_that(lambda: get(client)["State"] == "Active")
    yield client
    client.delete_function(FunctionName="hello")
    await_that(lambda: client.list_functions()["Functions"] == [])
    client.delete_capacity_provider(CapacityProviderName="cp")
    await_that(lambda: client.list_capacity_providers()["CapacityProviders"] == [])


def test_only_what_is_published_is_invoked(client: Any) -> None:
    manage(client)
    await_that(lambda: state(client) == "ActiveNonInvocable")
    nothing = "The function has no published version to invoke: "
    for qualifier in ({}, {"Qualifier": "$LATEST"}):
        refused(
            client.invoke, "NoPublishedVersionException", 400, f"{nothing}{ARN}:hello:$LATEST",
            FunctionName="hello", **qualifier,
        )  # fmt: skip
    client.publish_version(FunctionName="hello", PublishTo="LATEST_PUBLISHED")
    await_that(
        lambda: client.get_function_configuration(FunctionName="hello", Qualifier=PUBLISHED)["State"] == "Active"
    )
    for qualifier in ({}, {"Qualifier": PUBLISHED}):
        answer = client.invoke(FunctionName="hello", Payload=b'{"a": 1}', **qualifier)
        assert (answer["ExecutedVersion"], answer["Payload"].read()) == (PUBLISHED, b'{"a": 1}')
    refused(
        client.invoke, "NoPublishedVersionException", 400, f"{nothing}{ARN}:hello:$LATEST",
        FunctionName="hello", Qualifier="$LATEST",
    )  # fmt: skip
    client.put_function_scaling_config(
        FunctionName="hello",
        Qualifier=PUBLISHED,
        FunctionScalingConfig={"MinExecutionEnvironments": 0, "MaxExecutionEnvironments": 0},
    )
    await_that(
        lambda: client.get_function_configuration(FunctionName="hello", Qualifier=PUBLISHED)["State"] == "Deactivated"
    )
    refused(
        client.invoke, "ResourceConflictException", 409,
        "The operation cannot be performed at this time. The function is currently in the following state: Deactivated",
        FunctionName="hello", Qualifier=PUBLISHED,
    )  # fmt: skip


def test_a_tenant_s_function_has_neither_url_nor_mapping(client: Any) -> None:
    create(client, TenancyConfig={"TenantIsolationMode": "PER_TENANT"})
    wait(client)
    reason = "is not supported for functions with tenancy configuration."
    refused(
        client.create_function_url_config, "InvalidParameterValueException", 400, f"A function URL {reason}",
        FunctionName="hello", AuthType="NONE",
    )  # fmt: skip
    refused(
        client.create_event_source_mapping, "InvalidParameterValueException", 400,
        f"An event source mapping {reason}",
        FunctionName="hello", EventSourceArn="arn:aws:sqs:us-east-1:000000000000:queue",
    )  # fmt: skip
