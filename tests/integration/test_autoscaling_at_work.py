"""Auto scaling in a real daemon: use makes more environments, the calendar too, and the command line sets it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from daemon_running import GATE_CODE, Gate, RunningDaemon, running_daemon
from fastlam.cli import cli
from waiting import await_that

HELD = GATE_CODE + "def handler(event, context):\n    wait_at(event['gate'])\n"


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def publish(daemon: RunningDaemon, name: str) -> None:
    daemon.deploy(name, HELD, Timeout=60)
    daemon.lambda_.publish_version(FunctionName=name)
    daemon.lambda_.create_alias(FunctionName=name, Name="live", FunctionVersion="1")


def autoscale(daemon: RunningDaemon, *arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(cli, ["--endpoint-url", daemon.url, "autoscale", *arguments])
    assert result.exit_code == status, result.output
    return result.output


def ready(daemon: RunningDaemon, name: str) -> int:
    """How many environments are provisioned and ready; 0 while there is no telling."""
    rows: list[dict[str, Any]] = [one for one in daemon.health()["provisioned"] if one["function"] == name]
    return int(rows[0]["available"]) if rows and rows[0]["status"] == "READY" else 0


def test_use_and_bounds(daemon: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate) -> None:
    publish(daemon, "used")
    said = autoscale(daemon, "used:live", "--min", "2", "--max", "5", "--target", "0.5", "--period", "0.25")
    assert said == "used:live is scaled between 2 and 5\n"
    await_that(lambda: ready(daemon, "used") == 2)
    running = [callers.submit(daemon.invoke, "used:live", {"gate": gate.port}) for _ in range(2)]
    gate.arrive(2)
    await_that(lambda: ready(daemon, "used") == 4)
    gate.open()
    for future in running:
        future.result()
    await_that(lambda: ready(daemon, "used") == 2)
    (setting,) = json.loads(autoscale(daemon, "--json"))
    assert (setting["function"], setting["qualifier"], setting["target_utilization"]) == ("used", "live", 0.5)
    assert "used:live" in autoscale(daemon)
    autoscale(daemon, "used:live", "--off")
    assert json.loads(autoscale(daemon, "--json")) == []
    assert ready(daemon, "used") == 2


def test_calendar(daemon: RunningDaemon) -> None:
    publish(daemon, "dated")
    moment = datetime.now(UTC) + timedelta(seconds=3)
    schedule = f"at({moment:%Y-%m-%dT%H:%M:%S})"
    autoscale(daemon, "dated:live", "--min", "1", "--max", "9", "--at", schedule, "3", "9")
    await_that(lambda: ready(daemon, "dated") == 3)
    (setting,) = json.loads(autoscale(daemon, "--json"))
    assert (setting["minimum"], setting["maximum"]) == (3, 9)
    autoscale(daemon, "dated:live", "--off")


def test_refusals(daemon: RunningDaemon) -> None:
    publish(daemon, "refused")
    bounds = ("--min", "1", "--max", "2")
    assert "There is no version or alias refused:nope." in autoscale(daemon, "refused:nope", *bounds, status=2)
    assert "is no schedule" in autoscale(daemon, "refused:live", *bounds, "--at", "daily", "1", "2", status=2)
    assert "write NAME:QUALIFIER" in autoscale(daemon, "refused", *bounds, status=2)
    assert "--min and --max" in autoscale(daemon, "refused:live", status=2)
    assert "There is no auto scaling" in autoscale(daemon, "refused:live", "--off", status=2)
    assert daemon.send("PUT", "/_fastlam/autoscaling?function=refused&qualifier=live", b"[").status == 400
    assert daemon.send("PUT", "/_fastlam/autoscaling?function=refused&qualifier=live", b"[]").status == 400


def test_settings_survive_a_restart(tmp_path: Path) -> None:
    options = ("--data-dir", str(tmp_path / "data"))
    with running_daemon(*options, ephemeral=False) as daemon:
        publish(daemon, "kept")
        autoscale(daemon, "kept:live", "--min", "2", "--max", "5", "--at", "rate(1 day)", "1", "2")
        before = autoscale(daemon, "--json")
        await_that(lambda: ready(daemon, "kept") == 2)
    with running_daemon(*options, ephemeral=False) as daemon:
        assert autoscale(daemon, "--json") == before
        await_that(lambda: ready(daemon, "kept") == 2)


def test_the_calendar_on_a_virtual_clock() -> None:
    with running_daemon("--clock", "virtual") as daemon:
        publish(daemon, "timed")
        now = datetime.fromtimestamp(daemon.send("GET", "/_fastlam/clock").json["wall_ms"] / 1000, UTC)
        moments = [f"at({now + timedelta(hours=hours):%Y-%m-%dT%H:%M:%S})" for hours in (1, 2)]
        autoscale(
            daemon, "timed:live", "--min", "1", "--max", "4", "--at", moments[0], "3", "4", "--at", moments[1], "2", "2"
        )
        for duration, minimum, maximum in (("59m", 1, 4), ("2m", 3, 4), ("2h", 2, 2)):
            assert daemon.send("POST", "/_fastlam/clock", json.dumps({"advance": duration}).encode()).status == 200
            (setting,) = json.loads(autoscale(daemon, "--json"))
            assert (setting["minimum"], setting["maximum"]) == (minimum, maximum)
        await_that(lambda: ready(daemon, "timed") == 2)
