"""Functions and reserved concurrency without HTTP: states over a virtual clock, the store's view of them, old code."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fastlam import limits
from fastlam.clock import VirtualClock
from fastlam.control.authorize import action_of, authorize
from fastlam.control.concurrency import ReservedConcurrency
from fastlam.control.functions import Functions
from fastlam.control.runtimes import RUNTIMES, check_runtime, supports_snap_start
from fastlam.control.settings import check_tags
from fastlam.control.steps import Steps, complete
from fastlam.errors import ApiError
from fastlam.model.function import FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.memory import MemoryStore
from fastlam.store.records import FUNCTION, Change
from memory_plane import CALLER, KEY, package, refused, request


class Plane:
    """A control plane in memory; its clock stands still until told otherwise."""

    def __init__(self, directory: Path) -> None:
        self.clock = VirtualClock()
        self.store = MemoryStore()
        self.artifacts = ArtifactStore(directory)
        self.functions = self.start()
        self.concurrency = ReservedConcurrency(self.store)

    def start(self) -> Functions:
        return Functions(self.store, self.artifacts, self.clock.schedule, clock=self.clock)

    def record(self, key: RecordKey = KEY) -> FunctionRecord:
        record = self.store.get(FUNCTION, key)
        assert record is not None
        return record


@pytest.fixture
def plane(tmp_path: Path) -> Plane:
    return Plane(tmp_path)


def test_states_of_a_new_function(plane: Plane) -> None:
    heard: list[Change] = []
    plane.store.watch(heard.append)
    created = plane.functions.create(CALLER, request())
    assert created == plane.record()
    assert (created.state, created.last_update_status, created.settled) == ("Pending", None, False)
    assert created.last_modified == "2026-01-01T00:00:00.000+0000"
    busy = "The operation cannot be performed at this time. An update is in progress for resource: "
    for update, more in (
        (plane.functions.update_configuration, {}),
        (plane.functions.update_code, {"ZipFile": package()}),
    ):
        message = refused("ResourceConflictException", update, CALLER, {"FunctionName": "hello", **more})
        assert message == busy + "arn:aws:lambda:us-east-1:000000000000:function:hello"
    plane.clock.advance(1)
    active = plane.record()
    assert (active.state, active.last_update_status, active.settled) == ("Active", "Successful", True)
    assert active.revision_id != created.revision_id
    assert [change.record.state for change in heard] == ["Pending", "Active"]
    assert plane.clock.pending == 0


def test_states_of_an_update(plane: Plane) -> None:
    plane.functions.create(CALLER, request())
    plane.clock.advance(1)
    before = plane.record()
    updated = plane.functions.update_configuration(CALLER, {"FunctionName": "hello", "Timeout": 9})
    assert (updated.state, updated.last_update_status) == ("Active", "InProgress")
    assert updated.last_modified == "2026-01-01T00:00:01.000+0000"
    refused("ResourceConflictException", plane.functions.update_configuration, CALLER, {"FunctionName": "hello"})
    plane.clock.advance(1)
    after = plane.record()
    assert (after.last_update_status, after.timeout_seconds) == ("Successful", 9)
    assert after.last_modified == updated.last_modified
    assert len({before.revision_id, updated.revision_id, after.revision_id}) == 3


def test_settled_by_the_next_start(plane: Plane) -> None:
    plane.functions.create(CALLER, request())
    plane.functions.create(CALLER, request("second"))
    plane.clock.advance(1)
    plane.functions.update_configuration(CALLER, {"FunctionName": "hello", "Timeout": 9})
    plane.functions.create(CALLER, request("third"))
    second = plane.record(KEY._replace(name="second"))
    plane.start()
    assert all(record.settled and record.last_update_status == "Successful" for record in plane.store.all(FUNCTION))
    assert plane.record().timeout_seconds == 9
    assert plane.record(KEY._replace(name="second")) == second


def test_reserving_during_a_change_does_not_stop_it(plane: Plane) -> None:
    plane.functions.create(CALLER, request())
    plane.concurrency.put(CALLER, {"FunctionName": "hello", "ReservedConcurrentExecutions": 5})
    plane.clock.advance(1)
    assert plane.record().settled


def test_deleted_while_pending(plane: Plane) -> None:
    plane.functions.create(CALLER, request())
    plane.functions.delete(CALLER, {"FunctionName": "hello"})
    plane.clock.advance(1)
    assert plane.store.all(FUNCTION) == []


def test_two_creates_at_once(plane: Plane) -> None:
    """Both pass the first look; only one may win the second."""
    first = plane.functions.create_steps(CALLER, request())
    second = plane.functions.create_steps(CALLER, request(Code={"ZipFile": package("other")}))
    first_work, second_work = next(first), next(second)
    with pytest.raises(StopIteration) as stopped:
        first.send(first_work())
    winner = stopped.value.value
    assert refused("ResourceConflictException", second.send, second_work()) == "Function already exist: hello"
    assert plane.record() == winner
    plane.functions.collect()
    assert plane.artifacts.open(winner.artifact) is not None
    assert len(list(plane.artifacts._root.iterdir())) == 2  # the loser's code is gone


def test_code_is_not_collected_while_a_create_is_under_way(plane: Plane) -> None:
    steps = plane.functions.create_steps(CALLER, request())
    artifact = next(steps)()
    plane.functions.collect()
    with pytest.raises(StopIteration):
        steps.send(artifact)
    assert plane.artifacts.open(plane.record().artifact) == artifact


def test_code_that_comes_while_old_files_are_being_removed(tmp_path: Path) -> None:
    plane = Plane(tmp_path)
    work: list[Callable[[], None]] = []
    functions = Functions(
        plane.store, plane.artifacts, plane.clock.schedule, clock=plane.clock, in_background=work.append
    )
    artifact = plane.artifacts.put_zip(package())
    plane.artifacts.release(artifact.sha256)
    functions.collect()
    assert plane.artifacts.open(artifact.sha256) is None
    functions.create(CALLER, request())
    assert len(work) == 1
    work[0]()
    assert plane.artifacts.open(plane.record().artifact) == artifact


def test_orphaned_code_goes_with_the_next_start(plane: Plane) -> None:
    orphan = plane.artifacts.put_zip(package("orphan"))
    plane.artifacts.release(orphan.sha256)
    plane.start()
    assert plane.artifacts.open(orphan.sha256) is None


def test_a_zip_that_fails_leaves_no_function(plane: Plane) -> None:
    refused("InvalidParameterValueException", plane.functions.create, CALLER, request(Code={"ZipFile": b"junk"}))
    assert plane.store.all(FUNCTION) == []
    assert plane.clock.pending == 0


def test_old_code_stays_while_it_may_be_in_use(plane: Plane) -> None:
    def update(content: str) -> str:
        plane.functions.update_code(CALLER, {"FunctionName": "hello", "ZipFile": package(content)})
        plane.clock.advance(1)
        return plane.record().artifact

    def present(*artifacts: str) -> list[bool]:
        return [plane.artifacts.open(artifact) is not None for artifact in artifacts]

    plane.functions.create(CALLER, request())
    plane.clock.advance(1)
    first = plane.record().artifact
    second = update("second")
    plane.clock.advance(limits.CODE_GRACE_SECONDS / 2)
    third = update("third")
    plane.clock.advance(limits.CODE_GRACE_SECONDS / 2)
    assert present(first, second, third) == [False, True, True]
    plane.functions.collect()
    assert present(second) == [True]
    plane.clock.advance(limits.CODE_GRACE_SECONDS)
    assert present(first, second, third) == [False, False, True]
    plane.functions.delete(CALLER, {"FunctionName": "hello"})
    assert present(third) == [True]
    plane.clock.advance(limits.CODE_GRACE_SECONDS)
    assert present(third) == [False]
    assert plane.clock.pending == 0


def test_a_dry_run_changes_nothing(plane: Plane) -> None:
    plane.functions.create(CALLER, request())
    plane.clock.advance(1)
    before = plane.record()
    dry = plane.functions.update_code(CALLER, {"FunctionName": "hello", "ZipFile": package("x"), "DryRun": True})
    assert dry.code_sha256 != before.code_sha256
    assert plane.record() == before
    assert plane.clock.pending == 0
    plane.functions.collect()
    assert plane.artifacts.open(dry.artifact) is None


def test_reservations_of_the_account(plane: Plane) -> None:
    for name in ("a", "b", "c"):
        plane.functions.create(CALLER, request(name))

    def put(name: str, concurrency: int) -> int:
        return plane.concurrency.put(CALLER, {"FunctionName": name, "ReservedConcurrentExecutions": concurrency})

    put("a", 500)
    put("b", 400)
    assert "below its minimum value of [100]" in refused("InvalidParameterValueException", put, "c", 1)
    put("c", 0)
    put("a", 499)
    put("c", 1)
    assert refused("InvalidParameterValueException", put, "b", 401)
    elsewhere = CALLER._replace(region="eu-west-1")
    plane.functions.create(elsewhere, request("a"))
    plane.concurrency.put(elsewhere, {"FunctionName": "a", "ReservedConcurrentExecutions": 900})
    small = ReservedConcurrency(plane.store, account_concurrency=100)
    refused(
        "InvalidParameterValueException", small.put, CALLER, {"FunctionName": "a", "ReservedConcurrentExecutions": 1}
    )


def _known_on(day: date, *, creating: bool) -> set[str]:
    """The identifiers that may be given on that day."""
    known = set()
    for name in RUNTIMES:
        try:
            check_runtime(name, day, creating=creating)
        except ApiError as error:
            assert str(error) == (
                f"The runtime parameter of {name} is no longer supported for creating or updating AWS Lambda functions."
                " We recommend you use a supported runtime while creating or updating functions."
            )
        else:
            known.add(name)
    return known


def test_runtimes_are_taken_until_their_day() -> None:
    day = date(2026, 8, 30)
    before = _known_on(day, creating=True)
    assert {"python3.8", "python3.14", "nodejs20.x", "nodejs24.x", "dotnet6", "ruby3.2", "provided.al2"} <= before
    # Their creation was blocked before, their update is not yet.
    assert not before & {"java8", "go1.x", "provided", "ruby2.7", "nodejs14.x", "python3.7", "python2.7", "nodejs"}
    assert _known_on(day, creating=False) - before == {
        "java8",
        "go1.x",
        "provided",
        "ruby2.7",
        "nodejs14.x",
        "python3.7",
    }
    for day, blocked in (
        (date(2026, 8, 31), "nodejs20.x nodejs18.x nodejs16.x python3.9 python3.8 dotnet6 ruby3.2 provided.al2"),
        (date(2026, 11, 30), "python3.10"),
        (date(2026, 12, 10), "dotnet8"),
    ):
        now = _known_on(day, creating=True)
        assert before - now == set(blocked.split())
        before = now
    blocked = (
        "nodejs20.x nodejs18.x nodejs16.x python3.9 python3.8 dotnet6 ruby3.2 provided.al2 java8 go1.x provided ruby2.7"
        " nodejs14.x python3.7"
    )
    before = _known_on(date(2026, 9, 29), creating=False)
    assert before - _known_on(date(2026, 9, 30), creating=False) == set(blocked.split())
    assert "python3.10" in _known_on(date(2027, 1, 14), creating=False)
    assert "python3.10" not in _known_on(date(2027, 1, 15), creating=False)
    refused("InvalidParameterValueException", check_runtime, "Python3.12", day)


def test_each_runtime_ends_in_order() -> None:
    for runtime in RUNTIMES.values():
        if runtime.create_blocked is not None:
            assert runtime.update_blocked is not None and runtime.create_blocked <= runtime.update_blocked, runtime


def test_a_function_outlives_its_runtime(plane: Plane) -> None:
    """Nobody can be given it any longer; who has it goes on, and may change everything else."""
    plane.clock = VirtualClock(_midnight_ms(2026, 8, 30))
    plane.functions = plane.start()
    plane.functions.create(CALLER, request(Runtime="python3.9"))
    plane.clock.advance(86_400)
    refused("InvalidParameterValueException", plane.functions.create, CALLER, request("other", Runtime="python3.9"))
    plane.functions.update_configuration(CALLER, {"FunctionName": "hello", "Runtime": "python3.9", "Timeout": 4})
    plane.clock.advance(40 * 86_400)
    update = {"FunctionName": "hello", "Runtime": "python3.9"}
    refused("InvalidParameterValueException", plane.functions.update_configuration, CALLER, update)
    plane.functions.update_configuration(CALLER, {"FunctionName": "hello", "Timeout": 5})
    plane.clock.advance(1)
    plane.functions.update_code(CALLER, {"FunctionName": "hello", "ZipFile": package("new")})
    plane.clock.advance(1)
    assert (plane.record().runtime, plane.record().timeout_seconds) == ("python3.9", 5)


def _midnight_ms(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp() * 1000)


def test_runtimes_are_spelled_as_in_the_model() -> None:
    from botocore.session import get_session

    enum = get_session().get_service_model("lambda").shape_for("Runtime").enum
    assert set(enum) >= RUNTIMES.keys()  # a newer model may know more


def test_runtimes_with_snap_start() -> None:
    for runtime in ("java11", "java17", "java21", "python3.12", "python3.14", "dotnet8"):
        assert supports_snap_start(runtime)
    for runtime in ("java8.al2", "python3.11", "nodejs22.x", "dotnet6", "provided.al2023", "ruby3.4", "unheard-of"):
        assert not supports_snap_start(runtime)


def test_tags() -> None:
    check_tags({f"k{number}": "v" for number in range(50)})
    refused("InvalidParameterValueException", check_tags, {"AWS:thing": "v"})


def test_actions() -> None:
    assert action_of("Invoke") == "lambda:InvokeFunction"
    assert action_of("CreateFunction") == "lambda:CreateFunction"
    authorize(CALLER, "lambda:CreateFunction", "*")  # the default allows


def test_steps_hand_errors_back() -> None:
    def steps() -> Steps[str]:
        try:
            yield lambda: 1 // 0
        except ZeroDivisionError:
            result: int = yield lambda: 7
            return f"mended: {result}"
        return "not reached"

    assert complete(steps()) == "mended: 7"


class Lifecycle(RuleBasedStateMachine):
    """Any order of calls: the records are what a simple model says, and no code is lost that is referred to."""

    names = st.sampled_from(["a", "b"])

    @initialize(directory=st.builds(lambda: None))
    def open(self, directory: None) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.plane = Plane(Path(self.folder.name))
        self.expected: dict[str, dict[str, Any]] = {}

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule(name=names, content=st.sampled_from("xyz"))
    def create(self, name: str, content: str) -> None:
        call = request(name, Code={"ZipFile": package(content)})
        if name in self.expected:
            refused("ResourceConflictException", self.plane.functions.create, CALLER, call)
        else:
            self.plane.functions.create(CALLER, call)
            self.expected[name] = {"memory": 128, "content": content, "settled": False, "reserved": None}

    @rule(name=names, memory=st.integers(128, 10240))
    def configure(self, name: str, memory: int) -> None:
        self._update(name, self.plane.functions.update_configuration, {"MemorySize": memory}, {"memory": memory})

    @rule(name=names, content=st.sampled_from("xyz"))
    def recode(self, name: str, content: str) -> None:
        more = {"ZipFile": package(content)}
        self._update(name, self.plane.functions.update_code, more, {"content": content})

    def _update(self, name: str, call: Callable[..., Any], more: dict[str, Any], changes: dict[str, Any]) -> None:
        arguments = CALLER, {"FunctionName": name, **more}
        if name not in self.expected:
            refused("ResourceNotFoundException", call, *arguments)
        elif not self.expected[name]["settled"]:
            refused("ResourceConflictException", call, *arguments)
        else:
            call(*arguments)
            self.expected[name] |= changes | {"settled": False}

    @rule(name=names, concurrency=st.integers(0, 1000) | st.none())
    def reserve(self, name: str, concurrency: int | None) -> None:
        arguments = {"FunctionName": name, "ReservedConcurrentExecutions": concurrency}
        call = self.plane.concurrency.delete if concurrency is None else self.plane.concurrency.put
        others = sum(other["reserved"] or 0 for key, other in self.expected.items() if key != name)
        if name not in self.expected:
            refused("ResourceNotFoundException", call, CALLER, arguments)
        elif concurrency is not None and concurrency > 900 - others:
            refused("InvalidParameterValueException", call, CALLER, arguments)
        else:
            call(CALLER, arguments)
            self.expected[name]["reserved"] = concurrency

    @rule(name=names)
    def delete(self, name: str) -> None:
        if self.expected.pop(name, None) is None:
            refused("ResourceNotFoundException", self.plane.functions.delete, CALLER, {"FunctionName": name})
        else:
            self.plane.functions.delete(CALLER, {"FunctionName": name})

    @rule(seconds=st.sampled_from([1, limits.CODE_GRACE_SECONDS / 2, 3 * limits.CODE_GRACE_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.plane.clock.advance(seconds)
        for expected in self.expected.values():
            expected["settled"] = True

    @rule()
    def restart(self) -> None:
        self.plane.functions = self.plane.start()
        self.plane.functions.collect()
        for expected in self.expected.values():
            expected["settled"] = True

    @invariant()
    def agrees(self) -> None:
        page = self.plane.functions.list(CALLER, {})
        assert [record.name for record in page.items] == sorted(self.expected)
        for record in page.items:
            expected = self.expected[record.name]
            view = self.plane.functions.get(CALLER, {"FunctionName": record.name})
            assert (record.memory_mb, record.settled) == (expected["memory"], expected["settled"])
            assert view.reserved_concurrency == expected["reserved"]
            artifact = self.plane.artifacts.open(record.artifact)
            assert artifact is not None
            assert (artifact.directory / "app.py").read_text() == expected["content"]


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
