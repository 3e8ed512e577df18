"""From what is asked for to environments made ahead: the control plane's records, a real dispatcher, and environments
that are played.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastlam import limits
from fastlam.arn import FunctionAddress
from fastlam.core.dispatcher import Target
from fastlam.dispatch.provisioned import Provisioner
from fastlam.model.provisioned_concurrency import ProvisionedConcurrencyRecord
from fastlam.runtimes.python import INTERPRETER
from fastlam.store.records import PROVISIONED_CONCURRENCY
from fastlam.wire.frames import PROTOCOL_VERSION, InitFailed
from memory_plane import ACCOUNT, CALLER, KEY, REGION, MemoryPlane, targets_of
from played_environments import Played, Stage, message, staged


class Scene:
    """A function with two versions, the first of which is also `live`."""

    def __init__(self, stage: Stage, directory: Path, **function: Any) -> None:
        self.stage = stage
        self.plane = MemoryPlane(directory)
        self.plane.stop_provisioning()
        self.plane.create(Runtime=INTERPRETER, **function)
        self.plane.publish()
        self.plane.publish(content="two")
        self.plane.alias("live", "1")
        self.targets = targets_of(self.plane, stage.dispatcher)
        self.provisioner = Provisioner(stage.dispatcher, self.plane.store, self.targets, self.plane.clock.schedule)
        self.provisioner.begin()

    def put(self, qualifier: str, wanted: int, seconds: float = 0.1) -> None:
        asked = {"FunctionName": "hello", "Qualifier": qualifier, "ProvisionedConcurrentExecutions": wanted}
        self.plane.provisioned_concurrency.put(CALLER, asked)
        self.pass_time(seconds)

    def move(self, version: str, **routing: Any) -> None:
        self.plane.aliases.update(CALLER, {"FunctionName": "hello", "Name": "live", "FunctionVersion": version})
        self.pass_time()

    def pass_time(self, seconds: float = 0.1) -> None:
        self.stage.drive()
        self.plane.clock.advance(seconds)
        self.stage.drive()

    def target(self, version: str) -> Target:
        return self.targets.resolve(FunctionAddress(ACCOUNT, REGION, "hello", version)).target

    def ahead(self, version: str) -> list[Played]:
        """The environments made ahead that a version has."""
        there = [one for one in self.stage.played if one.state not in ("stopping", "dead")]
        return [
            one
            for one in there
            if one.environment.target.provisioned and one.environment.target.name == f"hello:{version}"
        ]

    def up(self, version: str) -> None:
        for one in self.ahead(version):
            if one.state == "starting":
                one.ready()
        self.pass_time()

    def fail(self, version: str) -> None:
        """INIT of the first that starts fails."""
        one = next(one for one in self.ahead(version) if one.state == "starting")
        one.say(message(InitFailed(PROTOCOL_VERSION, 1, 1, 0, "Runtime.ImportModuleError"), b"{}"))
        self.pass_time()

    def record(self, qualifier: str = "live") -> ProvisionedConcurrencyRecord:
        record = self.plane.store.get(PROVISIONED_CONCURRENCY, KEY._replace(part=qualifier))
        assert record is not None
        return record

    def status(self, qualifier: str = "live") -> tuple[str, int, int, int]:
        record = self.record(qualifier)
        return record.status, record.requested, record.allocated, record.available

    def row(self, qualifier: str = "live") -> dict[str, Any]:
        (row,) = [row for row in self.provisioner.rows() if row["qualifier"] == qualifier]
        return row


Make = Callable[..., AbstractContextManager[Scene]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    @contextmanager
    def made(environments_max: int = 1000, **function: Any) -> Iterator[Scene]:
        with staged(environments_max=environments_max) as stage:
            yield Scene(stage, tmp_path, **function)

    return made


@pytest.fixture
def scene(make: Make) -> Iterator[Scene]:
    with make() as own:
        yield own


def test_counts_follow_the_environments(scene: Scene) -> None:
    scene.put("live", 3)
    assert scene.status() == ("IN_PROGRESS", 3, 0, 0)
    for up in (1, 2):
        next(one for one in scene.ahead("1") if one.state == "starting").ready()
        scene.pass_time()
        assert scene.status() == ("IN_PROGRESS", 3, up, up)
        assert scene.row()["utilization"] == 0.0
    scene.up("1")
    assert scene.status() == ("READY", 3, 3, 3)
    assert scene.target("1").pool.provisioned == 3


def test_a_version_that_is_still_being_made(make: Make) -> None:
    with make(VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}) as scene:
        scene.plane.recode("three")
        scene.plane.versions.publish(CALLER, {"FunctionName": "hello"})
        assert scene.plane.record(version="3").state == "Pending"
        scene.put("3", 1, seconds=limits.PROVISIONED_PROGRESS_SECONDS)
        assert (scene.plane.record(version="3").state, scene.ahead("3")) == ("Pending", [])
        scene.pass_time(1.0)
        assert scene.plane.record(version="3").state == "Active"
        scene.up("3")
        assert scene.status("3") == ("READY", 1, 1, 1)


def test_another_move_before_the_first_has_come_to_its_end(scene: Scene) -> None:
    scene.put("live", 2)
    scene.move("2")
    assert (len(scene.ahead("1")), len(scene.ahead("2"))) == (0, 2)
    scene.up("2")
    assert scene.status() == ("READY", 2, 2, 2)


def test_there_and_back(scene: Scene) -> None:
    """What still serves is taken as it is."""
    scene.put("live", 2)
    scene.up("1")
    before = scene.ahead("1")
    scene.move("2")
    scene.move("1")
    assert scene.status() == ("READY", 2, 2, 2)
    assert (scene.ahead("1"), scene.ahead("2")) == (before, [])


def test_away_from_a_version_that_fails(scene: Scene) -> None:
    scene.put("live", 2)
    scene.up("1")
    scene.stage.die(scene.ahead("1")[0].environment, 9)
    scene.pass_time()
    scene.fail("1")
    assert scene.status() == ("FAILED", 2, 2, 1)
    scene.move("2")
    assert scene.status() == ("IN_PROGRESS", 2, 2, 1)
    scene.up("2")
    assert (scene.status(), scene.ahead("1")) == (("READY", 2, 2, 2), [])


def test_a_replacement_is_tried_again_and_again_less_often(scene: Scene) -> None:
    scene.put("live", 1)
    scene.up("1")
    scene.stage.die(scene.ahead("1")[0].environment, 9)
    scene.pass_time()
    for seconds in (1, 2, 4):
        scene.fail("1")
        assert scene.record().status_reason == "FUNCTION_ERROR_INIT_FAILURE"
        scene.pass_time(seconds - 0.3)
        assert scene.ahead("1") == []
        scene.pass_time(0.3)
        assert len(scene.ahead("1")) == 1
    scene.up("1")
    assert (scene.status(), scene.record().status_reason) == (("READY", 1, 1, 1), None)


def test_no_room_for_old_and_new(make: Make) -> None:
    with make(environments_max=4) as scene:
        scene.put("live", 2)
        scene.up("1")
        scene.move("2")
        assert (len(scene.ahead("1")), len(scene.ahead("2"))) == (0, 2)
        assert scene.target("1").pool.provisioned == 0
        scene.up("2")
        assert scene.status() == ("READY", 2, 2, 2)


def test_more_than_the_machine_holds_leaves_what_there_was(make: Make) -> None:
    with make(environments_max=4) as scene:
        scene.put("live", 2)
        scene.up("1")
        scene.put("live", 4)
        assert scene.status() == ("FAILED", 4, 2, 2)
        assert "3 environments made ahead (--environments-max), 0 of them are taken and 4" in str(
            scene.record().status_reason
        )
        assert len(scene.ahead("1")) == 2
        scene.put("live", 3)
        scene.up("1")
        assert scene.status() == ("READY", 3, 3, 3)


def test_a_version_that_changes_hands(scene: Scene) -> None:
    """It is asked for by itself while it still serves for an alias that has gone on."""
    scene.put("live", 2)
    scene.up("1")
    before = scene.ahead("1")
    scene.move("2")
    scene.put("1", 1)
    assert scene.status("1") == ("READY", 1, 1, 1)
    assert len(scene.ahead("1")) == 1 and scene.ahead("1")[0] in before
    scene.up("2")
    assert (scene.status(), len(scene.ahead("1"))) == (("READY", 2, 2, 2), 1)
    assert scene.target("1").pool.provisioned == 3


def test_counters_stay_when_environments_go(scene: Scene) -> None:
    scene.put("live", 1)
    scene.up("1")
    scene.stage.serve(scene.target("1"), b"1", b"2")
    held = scene.stage.call(scene.target("1"))
    scene.stage.call(scene.target("1"))
    assert (scene.row()["busy"], scene.row()["utilization"]) == (1, 1.0)
    assert (scene.row()["invocations"], scene.row()["spillover_invocations"]) == (2, 1)
    scene.move("2")
    scene.up("2")
    assert held.running
    assert (scene.row()["busy"], scene.row()["invocations"], scene.row()["spillover_invocations"]) == (0, 2, 1)


def test_what_cannot_run_here(make: Make) -> None:
    with make() as scene:
        scene.plane.create("node", Runtime="nodejs22.x")
        scene.plane.publish("node")
        asked = {"FunctionName": "node", "Qualifier": "1", "ProvisionedConcurrentExecutions": 1}
        scene.plane.provisioned_concurrency.put(CALLER, asked)
        scene.pass_time()
        record = scene.plane.store.get(PROVISIONED_CONCURRENCY, KEY._replace(name="node", part="1"))
        assert record is not None
        assert (record.status, record.status_reason) == (
            "FAILED", "node asks for nodejs22.x, and fastlam runs Python functions only so far.",
        )  # fmt: skip


def test_processes_that_cannot_be_made(scene: Scene) -> None:
    scene.stage.refusal = OSError("no more processes")
    scene.put("live", 1)
    scene.pass_time()
    assert scene.record().status_reason == (
        "The execution environment could not be started: OSError: no more processes"
    )
