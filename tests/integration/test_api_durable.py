"""The operations on durable executions: what is wrong with a request is found, and there is never an execution."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from api_server import ARN, ApiServer, create, error_of, refused, wait

EXECUTION = f"{ARN}:hello:1/durable-execution/name/id"
WHY = "fastlam does not execute durable functions yet."
IPV = "InvalidParameterValueException"
RNF = "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("get_durable_execution", {}),
        ("get_durable_execution", {"IncludeExecutionData": False}),
        ("get_durable_execution_history", {"MaxItems": 0, "ReverseOrder": True}),
        ("stop_durable_execution", {"Error": {"ErrorType": "Stopped"}}),
        ("pause_durable_execution", {"Reason": "lunch", "ExecutionTimeoutPaused": False}),
        ("resume_durable_execution", {"ClientToken": "1"}),
        ("delete_durable_execution", {}),
    ],
)
def test_no_execution_is_there(client: Any, operation: str, more: dict[str, Any]) -> None:
    call = getattr(client, operation)
    refused(call, RNF, 404, f"Durable execution not found: {EXECUTION}. {WHY}", DurableExecutionArn=EXECUTION, **more)
    elsewhere = EXECUTION.replace("us-east-1", "eu-west-1")
    message = "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"
    refused(call, RNF, 404, message, DurableExecutionArn=elsewhere, **more)
    foreign = EXECUTION.replace("000000000000", "111111111111")
    assert error_of(call, DurableExecutionArn=foreign, **more).response["Error"]["Code"] == "AccessDeniedException"
    error = error_of(call, DurableExecutionArn=f"{ARN}:hello", **more)
    assert error.response["Error"]["Code"] == "ValidationException"


def test_no_token_is_good(client: Any) -> None:
    message = f"Invalid checkpoint token. {WHY}"
    token = {"DurableExecutionArn": EXECUTION, "CheckpointToken": "abcd"}
    refused(client.get_durable_execution_state, IPV, 400, message, **token)
    refused(client.checkpoint_durable_execution, IPV, 400, message, **token)
    step = {"Id": "a", "Type": "STEP", "Action": "START"}
    refused(client.checkpoint_durable_execution, IPV, 400, message, Updates=[step], ClientToken="1", **token)
    refused(
        client.checkpoint_durable_execution, IPV, 400, "Cannot checkpoint multiple operations with the same ID.",
        Updates=[step, step], **token,
    )  # fmt: skip
    error = error_of(client.checkpoint_durable_execution, DurableExecutionArn=EXECUTION, CheckpointToken="!")
    assert error.response["Error"]["Code"] == "ValidationException"
    error = error_of(client.checkpoint_durable_execution, Updates=[{"Id": "a", "Type": "X", "Action": "Y"}], **token)
    assert error.response["Error"]["Message"].startswith(
        "2 validation errors detected: Value 'X' at 'updates.1.member."
    )


def test_nobody_waits_for_a_callback(client: Any) -> None:
    message = f"Invalid callback id. {WHY}"
    refused(client.send_durable_execution_callback_success, IPV, 400, message, CallbackId="abcd", Result=b"1")
    refused(
        client.send_durable_execution_callback_failure, IPV, 400, message,
        CallbackId="abcd", Error={"ErrorMessage": "no"},
    )  # fmt: skip
    refused(client.send_durable_execution_callback_heartbeat, IPV, 400, message, CallbackId="abcd")
    error = error_of(client.send_durable_execution_callback_success, CallbackId="abcd", Result=b"x" * 1_048_577)
    assert error.response["Error"]["Code"] == "ValidationException"
    refused(
        client.send_durable_execution_callback_failure, IPV, 400, "Error object size must be less than 32768 bytes.",
        CallbackId="abcd", Error={"ErrorMessage": "x" * 32_768},
    )  # fmt: skip
    error = error_of(client.send_durable_execution_callback_heartbeat, CallbackId="?")
    assert error.response["Error"]["Code"] == "ValidationException"


def test_lists_are_empty(client: Any) -> None:
    create(client, DurableConfig={"ExecutionTimeout": 60})
    wait(client)
    client.publish_version(FunctionName="hello")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    for more in (
        {},
        {"Qualifier": "1"},
        {"Statuses": ["RUNNING", "PAUSED"], "ReverseOrder": True, "MaxItems": 1000},
        {"StartedAfter": moment, "StartedBefore": moment, "DurableExecutionName": "a"},
    ):
        answer = client.list_durable_executions_by_function(FunctionName="hello", **more)
        assert answer["DurableExecutions"] == []
        assert "NextMarker" not in answer


def test_refused_lists(client: Any, server: ApiServer) -> None:
    create(client)
    listing = client.list_durable_executions_by_function
    for name, more, arn in (("none", {}, f"{ARN}:none"), ("hello", {"Qualifier": "7"}, f"{ARN}:hello:7")):
        refused(listing, RNF, 404, f"Function not found: {arn}", FunctionName=name, **more)
    refused(listing, IPV, 400, "Invalid marker", FunctionName="hello", Marker="?")
    error = error_of(listing, FunctionName="hello", Statuses=["LOST"])
    assert error.response["Error"]["Code"] == "ValidationException"
    refused(
        listing, IPV, 400, "StartedAfter must not be later than StartedBefore.",
        FunctionName="hello", StartedAfter=datetime(2026, 1, 2, tzinfo=UTC), StartedBefore=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    path = "/2025-12-01/functions/hello/durable-executions"
    for call, more in (
        (client.get_durable_execution_history, {}),
        (client.get_durable_execution_state, {"CheckpointToken": "abcd"}),
    ):
        refused(call, IPV, 400, "Invalid marker", DurableExecutionArn=EXECUTION, Marker="?", **more)
    for text in ("2026-01-01T00:00:00", "yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00%2B14:00"):
        answer = server.send("GET", f"{path}?StartedAfter={text}&StartedBefore=9999-12-31T23:59:59-14:00")
        assert answer.status == (400 if "y" in text or "13" in text else 200)


def test_the_arn_may_come_with_its_slashes_encoded(server: ApiServer) -> None:
    answer = server.send("GET", f"/2025-12-01/durable-executions/{quote(EXECUTION, safe='')}")
    assert (answer.status, answer.json["Message"]) == (404, f"Durable execution not found: {EXECUTION}. {WHY}")
