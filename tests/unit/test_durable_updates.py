"""Checkpoints of durable executions: what they may say, whatever the state of the execution."""

from __future__ import annotations

from typing import Any

import pytest

from fastlam.control.durable import check_updates
from memory_plane import refused

Updates = list[dict[str, Any]]


def step(action: str = "START", name: str = "a", **more: Any) -> dict[str, Any]:
    return {"Id": name, "Type": "STEP", "Action": action, **more}


def context(action: str = "START", name: str = "c", **more: Any) -> dict[str, Any]:
    return step(action, name, Type="CONTEXT", **more)


DONE = {"Id": "e", "Type": "EXECUTION", "Action": "SUCCEED", "Payload": "{}"}
WAIT = {"Id": "w", "Type": "WAIT", "Action": "START", "WaitOptions": {"WaitSeconds": 1}}
CALLBACK = {"Id": "b", "Type": "CALLBACK", "Action": "START", "CallbackOptions": {}}
INVOKE = {"Id": "i", "Type": "CHAINED_INVOKE", "Action": "START", "ChainedInvokeOptions": {"FunctionName": "f"}}
LARGE = {"ErrorMessage": "x" * 32_768}
SMALL = {"ErrorMessage": "x" * 32_000}
RETRY: dict[str, Any] = {"StepOptions": {"NextAttemptDelaySeconds": 1}}


@pytest.mark.parametrize(
    "updates",
    [
        [],
        [DONE],
        [step(), step("SUCCEED", Payload="1"), DONE],
        [
            context(),
            step(ParentId="c"),
            step("RETRY", Error=SMALL, ParentId="c", **RETRY),
            context("FAIL", Error=SMALL),
        ],
        [step("RETRY", Payload="1", **RETRY)],
        [step(ParentId="of-an-earlier-checkpoint")],
        [WAIT, CALLBACK, INVOKE],
        [{"Id": "w", "Type": "WAIT", "Action": "CANCEL"}, {"Id": "i", "Type": "CHAINED_INVOKE", "Action": "CANCEL"}],
        [{"Id": "e", "Type": "EXECUTION", "Action": "FAIL", "Error": SMALL}],
    ],
)
def test_taken(updates: Updates) -> None:
    check_updates(updates)


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ([DONE, DONE], "Cannot checkpoint multiple EXECUTION updates."),
        ([DONE, step()], "EXECUTION checkpoint must be the last update."),
        ([DONE | {"Action": "START"}], "Invalid EXECUTION action."),
        ([context("RETRY")], "Invalid CONTEXT action."),
        ([step("CANCEL")], "Invalid STEP action."),
        ([WAIT | {"Action": "SUCCEED"}], "Invalid WAIT action."),
        ([CALLBACK | {"Action": "FAIL"}], "Invalid CALLBACK action."),
        ([INVOKE | {"Action": "FAIL"}], "Invalid CHAINED_INVOKE action."),
        ([step("FAIL", Error=LARGE)], "Error object size must be less than 32768 bytes."),
        ([step("FAIL", Payload="1")], "Cannot provide a Payload for FAIL action."),
        ([step("SUCCEED", Error=SMALL)], "Cannot provide an Error for SUCCEED action."),
        (
            [step("RETRY", Error=SMALL, Payload="1", **RETRY)],
            "Cannot provide both error and payload to RETRY a STEP.",
        ),
        ([step("RETRY")], "Invalid StepOptions for the given action."),
        ([step(**RETRY)], "Invalid StepOptions for the given action."),
        ([{"Id": "w", "Type": "WAIT", "Action": "START"}], "WaitOptions must be provided to START a WAIT."),
        (
            [{"Id": "i", "Type": "CHAINED_INVOKE", "Action": "START"}],
            "ChainedInvokeOptions must be provided to START a CHAINED_INVOKE.",
        ),
        ([step(ParentId="a")], "Invalid parent operation id."),
        ([step(), step(name="b", ParentId="a")], "Invalid parent operation id."),
        ([step(), context("SUCCEED", "a")], "Inconsistent operation type."),
        ([step(SubType="x"), step("SUCCEED")], "Inconsistent operation subtype."),
        ([step(Name="x"), step("SUCCEED", Name="y")], "Inconsistent operation name."),
        ([context(), step(ParentId="c"), step("SUCCEED")], "Inconsistent parent operation id."),
        ([step(), step()], "Cannot checkpoint multiple operations with the same ID."),
        ([step("SUCCEED"), step("SUCCEED")], "Cannot checkpoint multiple operations with the same ID."),
        ([step(), step("SUCCEED"), step("SUCCEED")], "Cannot checkpoint multiple operations with the same ID."),
        ([WAIT, WAIT | {"Action": "CANCEL"}], "Cannot checkpoint multiple operations with the same ID."),
    ],
)
def test_refused(updates: Updates, message: str) -> None:
    assert refused("InvalidParameterValueException", check_updates, updates) == message
