"""What tests of asynchronous invocation share: functions that leave a trace of each attempt, and a daemon's clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from daemon_running import RunningDaemon
from waiting import await_that

# Each attempt is a line in a file of the test's: the request id, and the word of the code. What it is told to do is in
# the event: fail, sleep, wait at a gate.
ATTEMPTS: Final = """
import os, socket

def handler(event, context):
    descriptor = os.open(event["path"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{context.aws_request_id} {WORD}\\n".encode())
    os.close(descriptor)
    if "gate" in event:
        with socket.create_connection(("127.0.0.1", event["gate"])) as gate:
            gate.sendall(b"here\\n")
            gate.recv(1)
    if event.get("fail"):
        raise ValueError(event["fail"])
    return {"word": WORD}

WORD = "first"
"""

# A destination: writes each record that it gets, as one line.
TOLD: Final = """
import json, os

def handler(event, context):
    descriptor = os.open(os.environ["RECORDS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, json.dumps(event).encode() + b"\\n")
    os.close(descriptor)
"""


def attempts_with(word: str) -> str:
    return ATTEMPTS.replace('"first"', f'"{word}"')


def advance(daemon: RunningDaemon, duration: str | float) -> dict[str, Any]:
    """Lets time pass on the daemon's virtual clock; returns when all that was due is over."""
    answer = daemon.send("POST", "/_fastlam/clock", json.dumps({"advance": duration}).encode())
    assert answer.status == 200, answer
    state: dict[str, Any] = answer.json
    return state


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(path)]


def counters(daemon: RunningDaemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.health()["statistics"]["events"]
    return found


def settle(daemon: RunningDaemon) -> None:
    """Returns when no event is under way, on a clock that goes by itself."""
    await_that(lambda: not counters(daemon)["pending"] and not counters(daemon)["waiting_delivery"])


def row(daemon: RunningDaemon, name: str) -> dict[str, Any]:
    """What `fastlam queue` says of a function."""
    rows = daemon.send("GET", "/_fastlam/queue").json["functions"]
    return next(one for one in rows if one["function"] == name)


def destination_row(daemon: RunningDaemon, arn: str) -> dict[str, Any]:
    """What it says of a destination."""
    rows = daemon.send("GET", "/_fastlam/queue").json["destinations"]
    return next(one for one in rows if one["destination"] == arn)


class Sent:
    """An event of a function with ATTEMPTS."""

    def __init__(self, daemon: RunningDaemon, name: str, path: Path, client: Any = None, **event: Any) -> None:
        self.path = path
        self.event = {"path": str(path), **event}
        answer = (client or daemon.lambda_).invoke(
            FunctionName=name, InvocationType="Event", Payload=json.dumps(self.event).encode()
        )
        assert (answer["StatusCode"], answer["Payload"].read()) == (202, b"")
        self.request_id: str = answer["ResponseMetadata"]["RequestId"]

    @property
    def words(self) -> list[str]:
        """The code that each attempt of it ran."""
        found = [line.split() for line in lines(self.path)]
        return [word for request_id, word in found if request_id == self.request_id]
