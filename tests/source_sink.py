"""Functions behind event sources, for tests: each writes every event that it gets into a file, then does as told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from daemon_running import RunningDaemon
from waiting import await_that

_HANDLER: Final = """
import json, os

def seen():
    with open(os.environ["SINK"]) as lines:
        return [json.loads(line)["event"] for line in lines]

def behave(event):
    return None

{behaviour}

def handler(event, context):
    line = json.dumps({{"event": event, "request_id": context.aws_request_id}}) + "\\n"
    out = os.open(os.environ["SINK"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(out, line.encode())
    finally:
        os.close(out)
    return behave(event)
"""


# Of a function whose first invocation never ends.
HANGS_ONCE: Final = """
import signal
def behave(event):
    while len(seen()) == 1:
        signal.pause()
"""


class Sink:
    """A function of a daemon. `behaviour` may define `behave(event)`, whose result is the function's; `seen()` in it
    are all events so far.
    """

    def __init__(self, daemon: RunningDaemon, name: str, directory: Path, behaviour: str = "", **more: Any) -> None:
        self.daemon = daemon
        self.name = name
        self.path = directory / f"{name}.events"
        self.path.touch()
        daemon.deploy(name, _HANDLER.format(behaviour=behaviour), environment={"SINK": str(self.path)}, **more)

    def calls(self) -> list[dict[str, Any]]:
        """Each invocation: its event, its request_id. A long line may be half written yet."""
        *lines, _ = self.path.read_text().split("\n")
        return [json.loads(line) for line in lines]

    def events(self) -> list[Any]:
        return [call["event"] for call in self.calls()]

    def records(self, of: Callable[[Any], Any] = lambda event: event["Records"]) -> list[Any]:
        return [record for event in self.events() for record in of(event)]

    def await_events(self, count: int) -> list[Any]:
        """The events, when there are so many."""
        await_that(lambda: len(self.events()) >= count)
        return self.events()

    def await_records(self, count: int, of: Callable[[Any], Any] = lambda event: event["Records"]) -> list[Any]:
        await_that(lambda: len(self.records(of)) >= count)
        return self.records(of)

    def map(self, arn: str = "", **more: Any) -> str:
        """A new mapping to this function that is Enabled; its UUID."""
        given = {"EventSourceArn": arn} if arn else {}
        uuid: str = self.daemon.lambda_.create_event_source_mapping(FunctionName=self.name, **given, **more)["UUID"]
        await_that(lambda: self.mapping(uuid)["State"] == "Enabled")
        return uuid

    def mapping(self, uuid: str) -> dict[str, Any]:
        found: dict[str, Any] = self.daemon.lambda_.get_event_source_mapping(UUID=uuid)
        return found

    def kill_daemon(self) -> None:
        """With SIGKILL, while the first event is being handled."""
        self.await_events(1)
        self.daemon.process.kill()
        self.daemon.process.wait()

    def update(self, uuid: str, **more: Any) -> None:
        """The change is in force when this returns."""
        self.daemon.lambda_.update_event_source_mapping(UUID=uuid, **more)
        await_that(lambda: self.mapping(uuid)["State"] in ("Enabled", "Disabled"))

    def delete(self, uuid: str) -> None:
        """The mapping is gone when this returns."""
        client = self.daemon.lambda_
        client.delete_event_source_mapping(UUID=uuid)
        await_that(
            lambda: uuid not in [each["UUID"] for each in client.list_event_source_mappings()["EventSourceMappings"]]
        )

    def metrics(self, uuid: str) -> dict[str, int]:
        """What has gone through a mapping since the daemon's start."""
        rows = self.daemon.send("GET", "/_fastlam/sources").json["sources"]
        found: dict[str, int] = next(row["metrics"] for row in rows if row["uuid"] == uuid)
        return found
