"""Asynchronous invocations that are throttled at first: they are tried again, on what the function is by then."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from daemon_running import RunningDaemon
from waiting import await_that

pytestmark = pytest.mark.lanes

WRITES = """
import os

def handler(event, context):
    descriptor = os.open(event, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, b"{word} " + context.aws_request_id.encode() + b"\\n")
"""


def await_events(daemon: RunningDaemon, name: str, count: int) -> dict[str, int]:
    """The counters, once no event is under way."""

    def counters() -> dict[str, int]:
        events: dict[str, int] = daemon.health()["statistics"]["events"]
        return events

    await_that(lambda: not counters()["pending"])
    events = counters()
    assert (events["pending"], events["accepted"]) == (0, count)
    return events


def test_a_throttled_event_runs_later_and_on_new_code(daemon: RunningDaemon, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    before = daemon.health()["statistics"]["events"]
    name = daemon.deploy("later", WRITES.replace("{word}", "old"))
    daemon.lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    event = json.dumps(os.fspath(path)).encode()
    accepted = daemon.lambda_.invoke(FunctionName=name, InvocationType="Event", Payload=event)
    assert accepted["StatusCode"] == 202
    daemon.update(name, WRITES.replace("{word}", "new"))
    assert not path.exists()
    daemon.lambda_.delete_function_concurrency(FunctionName=name)
    after = await_events(daemon, name, before["accepted"] + 1)
    assert after["completed"] == before["completed"] + 1
    assert path.read_text() == f"new {accepted['ResponseMetadata']['RequestId']}\n"


def test_an_event_of_a_function_that_was_deleted_is_dropped(daemon: RunningDaemon, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    before = daemon.health()["statistics"]["events"]
    name = daemon.deploy("dropped", WRITES.replace("{word}", "old"))
    daemon.lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    daemon.lambda_.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps(os.fspath(path)).encode())
    daemon.lambda_.delete_function(FunctionName=name)
    after = await_events(daemon, name, before["accepted"] + 1)
    assert after["failed"] == before["failed"] + 1
    assert not path.exists()
