"""From a Pending version to its template: the control plane's records, a real dispatcher, and environments that are
played.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastlam.arn import FunctionAddress
from fastlam.dispatch.launching import takes_snapshots
from fastlam.dispatch.snapshots import Snapshots
from fastlam.errors import ApiError
from fastlam.model.function import FunctionRecord
from fastlam.wire.frames import PROTOCOL_VERSION, InitFailed
from memory_plane import ACCOUNT, CALLER, REGION, MemoryPlane, targets_of
from played_environments import Played, Stage, message, staged

SNAPPED = {"Runtime": "python3.13", "SnapStart": {"ApplyOn": "PublishedVersions"}}


class Scene:
    """A function with SnapStart, published once."""

    def __init__(self, stage: Stage, directory: Path, impossible: str = "", **function: Any) -> None:
        self.stage = stage
        self.given_up: list[tuple[str, str]] = []
        self.plane = MemoryPlane(directory, makes_snapshot=takes_snapshots)
        self.plane.create(**{**SNAPPED, **function})
        self.targets = targets_of(
            self.plane, stage.dispatcher, on_restoring=lambda key: self.snapshots.want(key)
        )
        self.targets._launches._no_snapshots = impossible
        self.snapshots = Snapshots(
            stage.dispatcher, self.plane.store, self.targets, self.plane.clock.schedule,
            give_up=lambda *what: self.given_up.append(what), impossible=self.targets._launches.why_not_restored,
        )  # fmt: skip
        self.snapshots.begin()
        self.published = self.plane.versions.publish(CALLER, {"FunctionName": "hello"})
        self.pass_time()

    def pass_time(self, seconds: float = 0.1) -> None:
        self.stage.drive()
        self.plane.clock.advance(seconds)
        self.stage.drive()

    @property
    def version(self) -> FunctionRecord:
        return self.plane.record(version="1")

    @property
    def templates(self) -> list[Played]:
        return [one for one in self.stage.played if one.state not in ("stopping", "dead")]

    def fail(self, error_type: str) -> None:
        (template,) = self.templates
        template.say(message(InitFailed(PROTOCOL_VERSION, 1, 1, 0, error_type), b"{}"))
        self.pass_time()

    def resolve(self) -> Any:
        return self.targets.resolve(FunctionAddress(ACCOUNT, REGION, "hello", "1")).target


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


@pytest.fixture
def scene(stage: Stage, tmp_path: Path) -> Scene:
    return Scene(stage, tmp_path)


def test_pending_until_the_template_is_up(scene: Scene) -> None:
    assert scene.published.state == scene.version.state == "Pending"
    with pytest.raises(ApiError) as caught:
        scene.resolve()
    assert caught.value.code == "SnapStartNotReadyException"
    (template,) = scene.templates
    worker = template.environment.target.spec.worker
    assert worker.template
    assert worker.environ["AWS_LAMBDA_INITIALIZATION_TYPE"] == "snap-start"
    assert "AWS_LAMBDA_LOG_GROUP_NAME" not in worker.environ
    template.ready()
    scene.pass_time()
    assert (scene.version.state, scene.version.state_reason) == ("Active", None)
    assert scene.version.revision_id != scene.published.revision_id
    target = scene.resolve()
    assert target.restores
    assert target.spec.snapshot == template.environment.target.spec.snapshot != ""
    assert not target.spec.worker.template


def test_calls_do_not_go_to_the_template(scene: Scene) -> None:
    scene.templates[0].ready()
    scene.pass_time()
    scene.stage.call(scene.resolve())
    assert len(scene.stage.played) == 2
    assert [one.environment.target.spec.worker.template for one in scene.stage.played] == [True, False]


@pytest.mark.parametrize(
    ("error_type", "code"),
    [("ValueError", "FunctionError"), ("Runtime.BeforeSnapshotError", "FunctionError")],
)
def test_init_that_fails(scene: Scene, error_type: str, code: str) -> None:
    scene.fail(error_type)
    assert (scene.version.state, scene.version.state_reason_code) == ("Failed", code)
    assert scene.version.state_reason
    assert scene.templates == []
    with pytest.raises(ApiError) as caught:
        scene.resolve()
    assert caught.value.code == "ResourceConflictException"
    assert "Failed" in str(caught.value)
    scene.pass_time(1000.0)
    assert len(scene.stage.played) == 1  # nobody tries again


def test_a_process_that_cannot_be_made(stage: Stage, tmp_path: Path) -> None:
    stage.refusal = OSError("no")
    scene = Scene(stage, tmp_path)
    assert (scene.version.state, scene.version.state_reason_code) == ("Failed", "InternalError")


def test_one_that_dies_is_made_again(scene: Scene) -> None:
    scene.templates[0].ready()
    scene.pass_time()
    scene.stage.die(scene.templates[0].environment, 9)
    scene.pass_time()
    assert len(scene.templates) == 1
    assert len(scene.stage.played) == 2
    assert scene.version.state == "Active"


def test_one_that_cannot_come_back_is_tried_for(scene: Scene) -> None:
    """Calls are told, and the pauses grow."""
    scene.templates[0].ready()
    scene.pass_time()
    scene.stage.die(scene.templates[0].environment, 9)
    scene.pass_time()
    for seconds in (1.0, 2.0, 4.0):
        before = len(scene.given_up)
        scene.fail("ValueError")
        assert len(scene.given_up) > before
        assert scene.version.state == "Active"
        scene.pass_time(seconds - 0.5)
        assert scene.templates == []
        scene.pass_time(0.5)
        assert len(scene.templates) == 1
    scene.templates[0].ready()
    scene.pass_time()
    assert scene.snapshots._retry_seconds == {}


def test_a_version_that_goes_takes_its_template_along(scene: Scene) -> None:
    scene.templates[0].ready()
    scene.pass_time()
    scene.plane.functions.delete(CALLER, {"FunctionName": "hello", "Qualifier": "1"})
    scene.pass_time()
    assert scene.templates == []


def test_what_cannot_be_forked_says_so(stage: Stage, tmp_path: Path) -> None:
    scene = Scene(stage, tmp_path, Runtime="java21")
    assert scene.version.state == "Active"
    assert "java21" in (scene.version.state_reason or "")
    assert stage.played == []


def test_a_machine_that_cannot_says_so(stage: Stage, tmp_path: Path) -> None:
    """Its environments have their own INIT."""
    scene = Scene(stage, tmp_path, impossible="no namespaces for users")
    assert scene.version.state == "Active"
    assert "no namespaces for users" in (scene.version.state_reason or "")
    target = scene.resolve()
    assert not target.restores
    assert target.spec.worker.environ["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"


def test_a_restart_does_not_settle_what_waits(scene: Scene) -> None:
    """Whoever makes snapshots does, as soon as it begins."""
    scene.plane.restart()
    scene.plane.settle()
    assert scene.version.state == "Pending"
