"""Provisioned concurrency in a real daemon: environments that are there before they are called."""

from __future__ import annotations

import http.client
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from daemon_running import GATE_CODE, Gate, Invoked, RunningDaemon, running_daemon
from waiting import WAIT_SECONDS, await_that

# Says how its environment was made; with a gate, from within the call.
CODE = f"""{GATE_CODE}
import os

MADE = os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]
print("made", MADE)

def handler(event, context):
    if event and "gate" in event:
        wait_at(event["gate"])
    return [MADE, context.function_version]
"""
AHEAD, ON_DEMAND = "provisioned-concurrency", "on-demand"


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def publish(daemon: RunningDaemon, name: str, code: str = CODE, **more: Any) -> str:
    """A function with a version 1."""
    daemon.deploy(name, code, **more)
    daemon.lambda_.publish_version(FunctionName=name)
    return name


def next_version(daemon: RunningDaemon, name: str, code: str) -> str:
    daemon.update(name, code)
    version: str = daemon.lambda_.publish_version(FunctionName=name)["Version"]
    return version


def put(daemon: RunningDaemon, name: str, qualifier: str, wanted: int) -> dict[str, Any]:
    answer: dict[str, Any] = daemon.lambda_.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=wanted
    )
    return answer


def config(daemon: RunningDaemon, name: str, qualifier: str) -> dict[str, Any]:
    answer: dict[str, Any] = daemon.lambda_.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)
    return answer


def await_status(daemon: RunningDaemon, name: str, qualifier: str, status: str = "READY") -> dict[str, Any]:
    await_that(lambda: config(daemon, name, qualifier)["Status"] != "IN_PROGRESS")
    found = config(daemon, name, qualifier)
    assert found["Status"] == status, found
    return found


def counts(found: dict[str, Any]) -> tuple[int, int, int]:
    """Requested, allocated, available."""
    requested, allocated, available = (
        found[f"{name}ProvisionedConcurrentExecutions"] for name in ("Requested", "Allocated", "Available")
    )
    return requested, allocated, available


def row(daemon: RunningDaemon, name: str) -> dict[str, Any]:
    (found,) = [one for one in daemon.health()["provisioned"] if one["function"] == name]
    return dict(found)


def ahead(daemon: RunningDaemon, name: str, version: str | None = None) -> list[dict[str, Any]]:
    return [
        one
        for one in daemon.environments(name)
        if one["initialization_type"] == AHEAD and version in (None, one["version"]) and one["state"] != "stopping"
    ]


def held(
    daemon: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate, address: str, count: int
) -> list[Future[Invoked]]:
    running = [callers.submit(daemon.invoke, address, {"gate": gate.port}) for _ in range(count)]
    gate.arrive(count)
    return running


def made(running: list[Future[Invoked]]) -> list[str]:
    return [future.result().result[0] for future in running]


def test_twenty_and_one_more(daemon: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate) -> None:
    publish(daemon, "shows", Timeout=60)
    daemon.lambda_.create_alias(FunctionName="shows", Name="live", FunctionVersion="1")
    asked = put(daemon, "shows", "live", 20)
    assert (asked["Status"], counts(asked)) == ("IN_PROGRESS", (20, 0, 0))
    found = await_status(daemon, "shows", "live")
    assert counts(found) == (20, 20, 20)
    assert found["LastModified"] == asked["LastModified"]
    assert "StatusReason" not in found
    assert len(ahead(daemon, "shows", "1")) == len(daemon.environments("shows")) == 20
    assert {one["state"] for one in daemon.environments("shows")} == {"idle"}
    first = held(daemon, callers, gate, "shows:live", 20)
    assert (row(daemon, "shows")["busy"], row(daemon, "shows")["utilization"]) == (20, 1.0)
    more = held(daemon, callers, gate, "shows:live", 1)
    gate.open()
    assert made(first) == [AHEAD] * 20
    assert made(more) == [ON_DEMAND]
    assert ["Init Duration" in future.result().report for future in first] == [False] * 20
    assert "Init Duration" in more[0].result().report
    found = row(daemon, "shows")
    assert (found["invocations"], found["spillover_invocations"]) == (20, 1)
    assert (found["busy"], found["utilization"], found["status"]) == (0, 0.0, "READY")
    lines = daemon.logs("shows")
    reports = [line for line in lines if line.startswith("INIT_REPORT")]
    assert len(reports) == 20, "one for each that was made ahead"
    assert all("\tPhase: init\tStatus: success\n" in line for line in reports)
    assert lines.count(f"made {AHEAD}\n") == 20
    assert lines.index(f"made {AHEAD}\n") < next(i for i, line in enumerate(lines) if line.startswith("START"))


def test_whose_calls_they_are(daemon: RunningDaemon) -> None:
    """Those of the version, by whichever name; not those of $LATEST and of other versions."""
    publish(daemon, "named")
    next_version(daemon, "named", CODE + "# two\n")
    for alias in ("live", "other"):
        daemon.lambda_.create_alias(FunctionName="named", Name=alias, FunctionVersion="1")
    put(daemon, "named", "live", 1)
    await_status(daemon, "named", "live")
    answers = {
        name: daemon.invoke(name).result for name in ("named:live", "named:other", "named:1", "named:2", "named")
    }
    assert answers == {
        "named:live": [AHEAD, "1"], "named:other": [AHEAD, "1"], "named:1": [AHEAD, "1"],
        "named:2": [ON_DEMAND, "2"], "named": [ON_DEMAND, "$LATEST"],
    }  # fmt: skip


def test_an_alias_moves(daemon: RunningDaemon, gate: Gate) -> None:
    """The old version's environments serve its calls until the new ones are there."""
    publish(daemon, "moved")
    next_version(daemon, "moved", CODE + f"wait_at({gate.port})\n")
    daemon.lambda_.create_alias(FunctionName="moved", Name="live", FunctionVersion="1")
    put(daemon, "moved", "live", 2)
    ready = await_status(daemon, "moved", "live")
    daemon.lambda_.update_alias(FunctionName="moved", Name="live", FunctionVersion="2")
    gate.arrive(2)
    found = config(daemon, "moved", "live")
    assert (found["Status"], counts(found)) == ("IN_PROGRESS", (2, 2, 2)), "status tells, counts do not"
    assert (len(ahead(daemon, "moved", "1")), len(ahead(daemon, "moved", "2"))) == (2, 2)
    assert daemon.invoke("moved:1").result == [AHEAD, "1"]
    gate.open()
    assert await_status(daemon, "moved", "live") | {"ResponseMetadata": 0} == ready | {"ResponseMetadata": 0}
    assert daemon.invoke("moved:live").result == [AHEAD, "2"]
    assert daemon.invoke("moved:1").result == [ON_DEMAND, "1"]
    await_that(lambda: len(ahead(daemon, "moved", "1")) == 0)
    assert len(ahead(daemon, "moved", "2")) == 2


def test_weights_split_them(daemon: RunningDaemon) -> None:
    publish(daemon, "split")
    next_version(daemon, "split", CODE + "# two\n")
    weights = {"AdditionalVersionWeights": {"2": 0.25}}
    daemon.lambda_.create_alias(FunctionName="split", Name="live", FunctionVersion="1", RoutingConfig=weights)
    put(daemon, "split", "live", 4)
    await_status(daemon, "split", "live")
    assert (len(ahead(daemon, "split", "1")), len(ahead(daemon, "split", "2"))) == (3, 1)
    assert {tuple(daemon.invoke("split:live").result) for _ in range(100)} == {(AHEAD, "1"), (AHEAD, "2")}
    daemon.lambda_.update_alias(FunctionName="split", Name="live", RoutingConfig={"AdditionalVersionWeights": {}})
    await_that(lambda: (len(ahead(daemon, "split", "1")), len(ahead(daemon, "split", "2"))) == (4, 0))
    assert counts(await_status(daemon, "split", "live")) == (4, 4, 4)


def test_more_and_fewer(daemon: RunningDaemon) -> None:
    publish(daemon, "sized")
    put(daemon, "sized", "1", 2)
    await_status(daemon, "sized", "1")
    before = {one["id"] for one in ahead(daemon, "sized")}
    grown = put(daemon, "sized", "1", 3)
    assert (grown["Status"], counts(grown)) == ("IN_PROGRESS", (3, 2, 2))
    assert counts(await_status(daemon, "sized", "1")) == (3, 3, 3)
    assert before < {one["id"] for one in ahead(daemon, "sized")}
    put(daemon, "sized", "1", 1)
    assert counts(await_status(daemon, "sized", "1")) == (1, 1, 1)
    await_that(lambda: len(ahead(daemon, "sized")) == 1)


def test_deletion(daemon: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate) -> None:
    """Idle ones end, a busy one after its call."""
    publish(daemon, "deleted", Timeout=60)
    put(daemon, "deleted", "1", 3)
    await_status(daemon, "deleted", "1")
    running = held(daemon, callers, gate, "deleted:1", 1)
    daemon.lambda_.delete_provisioned_concurrency_config(FunctionName="deleted", Qualifier="1")
    await_that(lambda: [one["state"] for one in ahead(daemon, "deleted")] == ["busy"])
    assert daemon.invoke("deleted:1").result == [ON_DEMAND, "1"]
    gate.open()
    assert made(running) == [AHEAD]
    await_that(lambda: ahead(daemon, "deleted") == [])
    assert [one for one in daemon.health()["provisioned"] if one["function"] == "deleted"] == []


def test_with_the_alias_or_the_function(daemon: RunningDaemon) -> None:
    for name in ("by-alias", "by-function"):
        publish(daemon, name)
        daemon.lambda_.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
        put(daemon, name, "live", 1)
        await_status(daemon, name, "live")
    daemon.lambda_.delete_alias(FunctionName="by-alias", Name="live")
    daemon.lambda_.delete_function(FunctionName="by-function")
    for name in ("by-alias", "by-function"):
        await_that(lambda name=name: ahead(daemon, name) == [])
    assert daemon.invoke("by-alias:1").result == [ON_DEMAND, "1"]


def test_an_init_that_fails(daemon: RunningDaemon) -> None:
    publish(daemon, "failing", "raise RuntimeError('not today')\n")
    put(daemon, "failing", "1", 2)
    found = await_status(daemon, "failing", "1", "FAILED")
    assert (found["StatusReason"], counts(found)) == ("FUNCTION_ERROR_INIT_FAILURE", (2, 0, 0))
    await_that(lambda: daemon.environments("failing") == [])
    lines = daemon.logs("failing")
    assert any(line.startswith("INIT_REPORT") and "\tPhase: init\tStatus: error\t" in line for line in lines)
    assert daemon.invoke("failing:1").error == "Unhandled"


def test_an_alias_moves_to_a_version_that_fails(daemon: RunningDaemon) -> None:
    """What served before goes on."""
    publish(daemon, "worse")
    next_version(daemon, "worse", "raise RuntimeError('not today')\n")
    daemon.lambda_.create_alias(FunctionName="worse", Name="live", FunctionVersion="1")
    put(daemon, "worse", "live", 2)
    await_status(daemon, "worse", "live")
    daemon.lambda_.update_alias(FunctionName="worse", Name="live", FunctionVersion="2")
    found = await_status(daemon, "worse", "live", "FAILED")
    assert (found["StatusReason"], counts(found)) == ("FUNCTION_ERROR_INIT_FAILURE", (2, 2, 2))
    assert daemon.invoke("worse:1").result == [AHEAD, "1"]
    daemon.lambda_.update_alias(FunctionName="worse", Name="live", FunctionVersion="1")
    assert "StatusReason" not in await_status(daemon, "worse", "live")


def test_one_that_is_killed_is_replaced(daemon: RunningDaemon) -> None:
    publish(daemon, "killed")
    put(daemon, "killed", "1", 2)
    await_status(daemon, "killed", "1")
    before = {one["id"]: one["pid"] for one in ahead(daemon, "killed")}
    gone, pid = before.popitem()
    os.kill(pid, signal.SIGKILL)
    await_that(lambda: gone not in {one["id"] for one in daemon.environments("killed")})
    await_that(lambda: counts(config(daemon, "killed", "1")) == (2, 2, 2) and len(ahead(daemon, "killed")) == 2)
    assert {one["id"] for one in ahead(daemon, "killed")} > before.keys()
    assert config(daemon, "killed", "1")["Status"] == "READY"
    assert daemon.invoke("killed:1").result == [AHEAD, "1"]


def test_a_replacement_that_fails_at_first(daemon: RunningDaemon, tmp_path: Path) -> None:
    """The configuration says so, and is ready again once one has come up."""
    switch = tmp_path / "fails"
    code = f"import pathlib\nif pathlib.Path({str(switch)!r}).exists(): raise RuntimeError('not now')\n" + CODE
    publish(daemon, "flaky", code)
    put(daemon, "flaky", "1", 2)
    await_status(daemon, "flaky", "1")
    switch.touch()
    os.kill(ahead(daemon, "flaky")[0]["pid"], signal.SIGKILL)
    await_that(lambda: config(daemon, "flaky", "1")["Status"] == "FAILED")
    found = config(daemon, "flaky", "1")
    assert (found["StatusReason"], counts(found)) == ("FUNCTION_ERROR_INIT_FAILURE", (2, 2, 1))
    assert daemon.invoke("flaky:1").result == [AHEAD, "1"], "the other one serves"
    switch.unlink()
    await_that(lambda: config(daemon, "flaky", "1")["Status"] == "READY")
    assert counts(config(daemon, "flaky", "1")) == (2, 2, 2)


def test_what_the_machine_cannot_hold(callers: ThreadPoolExecutor, gate: Gate) -> None:
    with running_daemon("--environments-max", "4", complains=True) as daemon:
        publish(daemon, "large", Timeout=60)
        put(daemon, "large", "1", 4)
        found = await_status(daemon, "large", "1", "FAILED")
        assert "--environments-max" in found["StatusReason"]
        assert (counts(found), daemon.environments("large")) == ((4, 0, 0), [])
        assert "--environments-max" in daemon.stderr()
        put(daemon, "large", "1", 3)
        await_status(daemon, "large", "1")
        publish(daemon, "other", Timeout=60)
        running = held(daemon, callers, gate, "other", 1)
        second = callers.submit(daemon.invoke, "other", {"gate": gate.port})
        await_that(lambda: daemon.health()["statistics"]["dispatcher"]["waiting"] == 1)
        assert len(ahead(daemon, "large")) == 3, "nobody takes the place of one that was made ahead"
        gate.open()
        gate.arrive()
        gate.open()
        assert made([*running, second]) == [ON_DEMAND] * 2
        put(daemon, "other", "1", 1)
        assert "3 of them are taken" in await_status(daemon, "other", "1", "FAILED")["StatusReason"]


def test_idle_ones_stay() -> None:
    with running_daemon("--idle-seconds", "0.2") as daemon:
        publish(daemon, "stays")
        put(daemon, "stays", "1", 2)
        await_status(daemon, "stays", "1")
        daemon.invoke("stays")
        await_that(lambda: len(daemon.environments("stays")) == 2)
        assert [one["initialization_type"] for one in daemon.environments("stays")] == [AHEAD] * 2


def test_a_restart(tmp_path: Path) -> None:
    """They are made again from what is recorded."""
    options = ("--data-dir", str(tmp_path / "data"))
    with running_daemon(*options, ephemeral=False) as daemon:
        publish(daemon, "kept")
        publish(daemon, "broken", "raise RuntimeError('not today')\n")
        put(daemon, "kept", "1", 2)
        put(daemon, "broken", "1", 1)
        before = await_status(daemon, "kept", "1")
        await_status(daemon, "broken", "1", "FAILED")
    with running_daemon(*options, ephemeral=False) as daemon:
        found = await_status(daemon, "kept", "1")
        assert found | {"ResponseMetadata": 0} == before | {"ResponseMetadata": 0}
        assert len(ahead(daemon, "kept", "1")) == 2
        assert daemon.invoke("kept:1").result == [AHEAD, "1"]
        await_status(daemon, "broken", "1", "FAILED")


def test_all_of_a_reservation(daemon: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate) -> None:
    """Whatever is not provisioned is then throttled."""
    publish(daemon, "reserved", Timeout=60)
    daemon.lambda_.put_function_concurrency(FunctionName="reserved", ReservedConcurrentExecutions=2)
    put(daemon, "reserved", "1", 2)
    await_status(daemon, "reserved", "1")
    reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert daemon.send_invoke("reserved").json["Reason"] == reason
    running = held(daemon, callers, gate, "reserved:1", 2)
    assert daemon.send_invoke("reserved:1").json["Reason"] == reason
    gate.open()
    assert made(running) == [AHEAD] * 2
    assert row(daemon, "reserved")["spillover_invocations"] == 0


def test_none_is_used_before_all_are_up(daemon: RunningDaemon, gate: Gate, tmp_path: Path) -> None:
    """And the counts tell how many are."""
    taken = tmp_path / "taken"
    code = CODE + (
        f"try:\n    open({str(taken)!r}, 'x').close()\nexcept FileExistsError:\n"
        f"    if MADE == {AHEAD!r}:\n        wait_at({gate.port})\n"
    )
    publish(daemon, "partly", code)
    put(daemon, "partly", "1", 2)
    gate.arrive()
    await_that(lambda: counts(config(daemon, "partly", "1")) == (2, 1, 1))
    assert config(daemon, "partly", "1")["Status"] == "IN_PROGRESS"
    assert daemon.invoke("partly:1").result == [ON_DEMAND, "1"]
    gate.open()
    await_status(daemon, "partly", "1")
    assert daemon.invoke("partly:1").result == [AHEAD, "1"]
    assert row(daemon, "partly")["spillover_invocations"] == 0


def test_under_load(daemon: RunningDaemon, callers: ThreadPoolExecutor) -> None:
    """Short calls over connections that stay, far more at a time than environments: none is lost, each is counted once."""
    publish(daemon, "loaded", "def handler(event, context):\n    return event\n")
    put(daemon, "loaded", "1", 3)
    await_status(daemon, "loaded", "1")

    def call(worker: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=WAIT_SECONDS)
        right = 0
        for number in range(200):
            body = b"%d" % (worker * 1000 + number)
            connection.request("POST", "/2015-03-31/functions/loaded/invocations?Qualifier=1", body)
            right += connection.getresponse().read() == body
        connection.close()
        return right

    assert sum(callers.map(call, range(16))) == 16 * 200
    found = row(daemon, "loaded")
    assert found["invocations"] + found["spillover_invocations"] == 16 * 200
    assert found["spillover_invocations"] > 0
    assert (found["busy"], found["status"], found["available"]) == (0, "READY", 3)
    assert len(ahead(daemon, "loaded")) == 3
