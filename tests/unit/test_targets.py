"""From addresses to what is launched: versions and aliases followed, handles replaced when, and only when, they must be."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fastlam.arn import FunctionAddress
from fastlam.dispatch.targets import Resolved
from fastlam.errors import ApiError
from fastlam.model.key import RecordKey
from fastlam.runtimes.python import INTERPRETER
from fastlam.store.vault import Vault
from memory_plane import ACCOUNT, ARN, CALLER, KEY, REGION, MemoryPlane, package, request, targets_of
from played_environments import Stage


class Scene:
    """A control plane, a dispatcher whose environments are played, and what stands between them."""

    def __init__(self, stage: Stage, directory: Path) -> None:
        self.stage = stage
        self.plane = MemoryPlane(directory)
        self.changes = 0
        self.targets = targets_of(self.plane, stage.dispatcher, on_change=self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def resolve(self, qualifier: str | None = None, name: str = "hello") -> Resolved:
        return self.targets.resolve(FunctionAddress(ACCOUNT, REGION, name, qualifier))

    def environ(self, qualifier: str | None = None) -> dict[str, str]:
        variables: dict[str, str] = self.resolve(qualifier).target.spec.worker.environ
        return variables

    def code(self, qualifier: str | None = None) -> str:
        """The text of the module that environments would run."""
        return Path(self.resolve(qualifier).target.spec.worker.directory, "app.py").read_text()

    def alias(self, name: str, version: str, **weights: float) -> None:
        routing = {"AdditionalVersionWeights": {key[1:]: weight for key, weight in weights.items()}}
        given = {"FunctionName": "hello", "Name": name, "FunctionVersion": version, "RoutingConfig": routing}
        aliases = self.plane.aliases
        exists = name in {each.name for each in aliases.list(CALLER, {"FunctionName": "hello"}).items}
        (aliases.update if exists else aliases.create)(CALLER, given)

    def refused(self, qualifier: str | None = None, name: str = "hello") -> ApiError:
        with pytest.raises(ApiError) as caught:
            self.resolve(qualifier, name)
        return caught.value


@pytest.fixture
def scene(stage: Stage, tmp_path: Path) -> Scene:
    """A function with two versions and newer, unpublished settings."""
    own = Scene(stage, tmp_path)
    own.plane.create(Runtime=INTERPRETER, Environment={"Variables": {"STAGE": "one"}})
    own.plane.publish()
    own.plane.recode("two")
    own.plane.configure(Environment={"Variables": {"STAGE": "two"}}, Timeout=9)
    own.plane.publish()
    own.plane.configure(Environment={"Variables": {"STAGE": "three"}})
    return own


def test_versions_and_aliases_are_followed(scene: Scene) -> None:
    scene.alias("live", "1")
    scene.alias("newest", "$LATEST")
    for qualifier, version, stage, timeout_seconds in (
        (None, "$LATEST", "three", 9),
        ("$LATEST", "$LATEST", "three", 9),
        ("1", "1", "one", 3),
        ("2", "2", "two", 9),
        ("live", "1", "one", 3),
        ("newest", "$LATEST", "three", 9),
    ):
        resolved = scene.resolve(qualifier)
        assert resolved.executed_version == version
        assert resolved.invoked_arn == f"{ARN}:hello" + (f":{qualifier}" if qualifier else "")
        assert resolved.target.name == f"hello:{version}"
        assert resolved.target.timeout_ns == timeout_seconds * 1_000_000_000
        environ = scene.environ(qualifier)
        assert (environ["STAGE"], environ["AWS_LAMBDA_FUNCTION_VERSION"]) == (stage, version)
        assert not resolved.weighted and resolved.pick() is resolved
    assert scene.code("1") == "pass"
    assert scene.code("2") == "two"
    assert scene.resolve("live").target is scene.resolve("1").target
    assert scene.resolve("1").target.pool is scene.resolve("2").target.pool  # reserved concurrency is the function's


def test_what_is_not_there(scene: Scene) -> None:
    for qualifier, name, arn in (
        ("7", "hello", f"{ARN}:hello:7"),
        ("live", "hello", f"{ARN}:hello:live"),
        ("$LATEST.PUBLISHED", "hello", f"{ARN}:hello:$LATEST.PUBLISHED"),
        (None, "nope", f"{ARN}:nope:$LATEST"),
        ("1", "nope", f"{ARN}:nope:1"),
    ):
        error = scene.refused(qualifier, name)
        assert (error.code, str(error)) == ("ResourceNotFoundException", f"Function not found: {arn}")


def test_weights_are_obeyed(scene: Scene, rng: random.Random) -> None:
    scene.alias("live", "1", v2=0.25)
    resolved = scene.resolve("live")
    assert resolved.weighted
    random.seed(rng.random())
    picked = Counter(resolved.pick().executed_version for _ in range(20_000))
    # Six standard deviations around 5,000: one run in 10^9 lies outside.
    assert abs(picked["2"] - 5000) < 6 * (20_000 * 0.25 * 0.75) ** 0.5
    assert picked.total() == 20_000 and set(picked) == {"1", "2"}
    for pick in (resolved, resolved.pick()):
        assert pick.invoked_arn == f"{ARN}:hello:live"
    for weight, version in ((0.0, "1"), (1.0, "2")):
        scene.alias("live", "1", v2=weight)
        resolved = scene.resolve("live")
        assert {resolved.pick().executed_version for _ in range(1000)} == {version}


def test_repointing_changes_the_next_resolution_only(scene: Scene) -> None:
    scene.alias("live", "1")
    blue, changes = scene.resolve("live").target, scene.changes
    scene.alias("live", "2")
    assert scene.changes > changes  # whoever remembers resolutions forgets them
    green = scene.resolve("live").target
    assert (blue.name, green.name) == ("hello:1", "hello:2")
    scene.alias("live", "1")
    assert scene.resolve("live").target is blue and not blue.retired and not green.retired


def test_handles_outlive_what_does_not_concern_them(scene: Scene) -> None:
    latest, first = scene.resolve().target, scene.resolve("1").target
    scene.plane.configure(Description="other", TracingConfig={"Mode": "Active"})
    scene.plane.publish()
    scene.plane.reserved_concurrency.put(CALLER, {"FunctionName": "hello", "ReservedConcurrentExecutions": 3})
    scene.alias("live", "1")
    scene.plane.configure(Environment={"Variables": {"STAGE": "three"}}, Timeout=9)
    assert scene.resolve().target is latest
    assert scene.resolve("1").target is first


@pytest.mark.parametrize(
    "change", [{"Timeout": 10}, {"MemorySize": 256}, {"Environment": {"Variables": {}}}, {"Handler": "app.other"}]
)
def test_a_change_that_concerns_latest_replaces_its_handle_alone(scene: Scene, change: dict[str, Any]) -> None:
    latest, first = scene.resolve().target, scene.resolve("1").target
    scene.plane.configure(**change)
    assert latest.retired
    assert scene.resolve().target is not latest
    assert scene.resolve("1").target is first


@pytest.mark.parametrize("warm", [True, False], ids=["invoked before", "first invoked during the update"])
def test_the_previous_code_is_invoked_while_an_update_is_in_progress(scene: Scene, warm: bool) -> None:
    before = scene.resolve().target if warm else None
    scene.plane.functions.update_code(CALLER, {"FunctionName": "hello", "ZipFile": package("new")})
    assert scene.plane.record().last_update_status == "InProgress"
    assert scene.code() == "two"
    during = scene.resolve().target
    assert before is None or during is before
    scene.plane.reserved_concurrency.put(CALLER, {"FunctionName": "hello", "ReservedConcurrentExecutions": 3})
    assert scene.resolve().target is during
    scene.plane.settle()
    assert during.retired
    assert scene.code() == "new"
    scene.plane.functions.update_configuration(CALLER, {"FunctionName": "hello", "Timeout": 10})
    assert scene.resolve().target.timeout_ns == 9_000_000_000
    scene.plane.settle()
    assert scene.resolve().target.timeout_ns == 10_000_000_000


def test_nothing_of_a_deleted_function_is_invoked_again(scene: Scene) -> None:
    """A new one of its name begins anew, even if the old one was being changed."""
    handles = [scene.resolve().target, scene.resolve("1").target, scene.resolve("2").target]
    scene.plane.functions.update_code(CALLER, {"FunctionName": "hello", "ZipFile": package("new")})
    scene.plane.functions.delete(CALLER, {"FunctionName": "hello"})
    assert all(target.retired for target in handles)
    assert scene.refused("1").code == "ResourceNotFoundException"
    scene.plane.functions.create(CALLER, request(Runtime=INTERPRETER, Code={"ZipFile": package("again")}))
    error = scene.refused()
    assert error.code == "ResourceConflictException"
    assert str(error) == (
        "The operation cannot be performed at this time. The function is currently in the following state: Pending"
    )
    scene.plane.settle()
    assert scene.code() == "again"


def test_a_deleted_version_takes_its_handle_along(scene: Scene) -> None:
    first, second = scene.resolve("1").target, scene.resolve("2").target
    scene.plane.functions.delete(CALLER, {"FunctionName": "hello", "Qualifier": "1"})
    assert first.retired and not second.retired
    assert scene.refused("1").code == "ResourceNotFoundException"


def test_a_version_that_is_being_made_cannot_be_invoked(scene: Scene) -> None:
    scene.plane.functions.update_code(CALLER, {"FunctionName": "hello", "ZipFile": package("new"), "Publish": True})
    assert scene.refused("3").code == "ResourceConflictException"
    scene.plane.settle()
    assert scene.code("3") == "new"


def test_logs_of_versions_make_one_log(scene: Scene) -> None:
    for qualifier, text in ((None, "a"), ("1", "b"), (None, "c"), ("2", "d")):
        scene.resolve(qualifier).target.log.note(text)
    group = scene.targets.log_of(KEY)
    assert group is not None
    events, following = group.events()
    assert [event.message for event in events] == ["a\n", "b\n", "c\n", "d\n"]
    assert [event.sequence for event in events] == [1, 2, 3, 4]
    assert (following, group.appended, group.dropped) == (4, 4, 0)
    part, following = group.events(after=1, entries_max=2)
    assert [event.message for event in part] == ["b\n", "c\n"]
    assert group.events(following)[0] == events[3:]
    scene.plane.functions.delete(CALLER, {"FunctionName": "hello", "Qualifier": "2"})
    assert [event.message for event in group.events()[0]] == ["a\n", "b\n", "c\n"]
    assert (group.appended, group.dropped) == (4, 1)
    scene.resolve("1").target.log.note("e")
    assert [event.message for event in group.events(4)[0]] == ["e\n"]
    assert scene.targets.log_of(RecordKey(ACCOUNT, REGION, "nope")) is None
    woken: list[int] = []
    group.watchers.add(lambda: woken.append(1))
    scene.plane.functions.delete(CALLER, {"FunctionName": "hello"})
    assert woken == [1]
    assert scene.targets.log_of(KEY) is None


def test_variables_whose_key_is_gone(scene: Scene) -> None:
    """The function answers with the service's refusal and says in its log what is the matter; versions without
    variables go on."""
    scene.plane.configure(Environment={"Variables": {}})
    scene.targets._launches._vault = Vault()  # another key
    assert scene.resolve().executed_version == "$LATEST"
    error = scene.refused("1")
    assert (error.code, error.status) == ("KMSNotFoundException", 502)
    group = scene.targets.log_of(KEY)
    assert group is not None
    assert "is not in this data directory" in group.events()[0][-1].message


@pytest.mark.parametrize("runtime", ["nodejs22.x", "java21", "provided.al2023", "dotnet8", "ruby3.4"])
def test_runtimes_that_do_not_run_here(scene: Scene, runtime: str) -> None:
    scene.plane.create("other", Runtime=runtime)
    error = scene.refused(name="other")
    assert (error.code, error.status) == ("InvalidRuntimeException", 502)
    assert f"other asks for {runtime}, and fastlam runs Python functions only so far." in str(error)
