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
from fastlam.wire.control import COPIED, FORKED, NOT_COPIED, THREADS_LEFT
from fastlam.wire.frames import PROTOCOL_VERSION, InitFailed
from memory_plane import ACCOUNT, CALLER, REGION, MemoryPlane, targets_of
from played_environments import Played, Stage, message, staged

SNAPPED = {"Runtime": "python3.13", "SnapStart": {"ApplyOn": "PublishedVersions"}}


class Scene:
    """A function with SnapStart, published once."""

    def __init__(
        self, stage: Stage, directory: Path, impossible: str = "", *, copies: bool = False, **function: Any
    ) -> None:
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
            copies=copies,
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
    assert [one.environment.target.spec.worker.template for one in scene.stage.played] == [FORKED, ""]


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


# Copies in the place of forks ------------------------------------------------------------------------------------------


def kinds(scene: Scene) -> list[tuple[str, bool]]:
    """Of the templates that live: which kind, and whether they refuse to lose threads."""
    workers = [one.environment.target.spec.worker for one in scene.templates]
    return [(worker.template, worker.keeps_threads) for worker in workers]


def test_what_has_threads_is_copied(stage: Stage, tmp_path: Path) -> None:
    scene = Scene(stage, tmp_path, copies=True)
    assert kinds(scene) == [(FORKED, True)]
    scene.fail(THREADS_LEFT)
    assert scene.version.state == "Pending"
    assert kinds(scene) == [(COPIED, False)]
    scene.templates[0].ready()
    scene.pass_time()
    assert scene.version.state == "Active"
    assert scene.resolve().spec.snapshot == scene.templates[0].environment.target.spec.snapshot != ""
    # One that dies is made again as it was.
    stage.die(scene.templates[0].environment, 9)
    scene.pass_time()
    assert kinds(scene) == [(COPIED, False)]


def test_what_cannot_be_copied_is_forked_without_its_threads(stage: Stage, tmp_path: Path) -> None:
    scene = Scene(stage, tmp_path, copies=True)
    scene.fail(THREADS_LEFT)
    scene.fail(NOT_COPIED)
    assert scene.version.state == "Pending"
    assert kinds(scene) == [(FORKED, False)]
    scene.templates[0].ready()
    scene.pass_time()
    assert scene.version.state == "Active"


def test_what_cannot_be_started_to_be_copied_is_forked(stage: Stage, tmp_path: Path) -> None:
    scene = Scene(stage, tmp_path, copies=True)
    scene.fail(THREADS_LEFT)
    scene.templates[0].environment.start_failed("criu is gone")
    scene.pass_time()
    assert scene.version.state == "Pending"
    assert kinds(scene) == [(FORKED, False)]
    scene.templates[0].environment.start_failed("and now nothing works")
    scene.pass_time()
    assert (scene.version.state, scene.version.state_reason_code) == ("Failed", "InternalError")


def test_a_copy_whose_init_fails(stage: Stage, tmp_path: Path) -> None:
    scene = Scene(stage, tmp_path, copies=True)
    scene.fail(THREADS_LEFT)
    scene.fail("ValueError")
    assert (scene.version.state, scene.version.state_reason_code) == ("Failed", "FunctionError")
    assert scene.templates == []
    assert scene.snapshots._kinds == {}


def test_calls_that_wait_get_the_template_that_is_made(stage: Stage, tmp_path: Path) -> None:
    """A version of an earlier daemon: its first call asks for a template, whose kind is not known any more."""
    scene = Scene(stage, tmp_path, copies=True)
    scene.templates[0].ready()
    scene.pass_time()
    stage.die(scene.templates[0].environment, 9)
    target = scene.resolve()
    scene.pass_time()
    scene.fail(THREADS_LEFT)
    assert kinds(scene) == [(COPIED, False)]
    assert scene.templates[0].environment.target.spec.snapshot == target.spec.snapshot


def test_without_criu_threads_are_lost(scene: Scene) -> None:
    assert kinds(scene) == [(FORKED, False)]
