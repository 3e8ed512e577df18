"""Event invoke configurations without HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastlam.control.event_invoke import EventInvokeConfigs
from fastlam.model.event_invoke import EventInvokeRecord
from fastlam.store.records import EVENT_INVOKE
from memory_plane import ARN, CALLER, MemoryPlane, refused

HELLO = f"{ARN}:hello"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:queue"
IPV = "InvalidParameterValueException"
RNF = "ResourceNotFoundException"


class Plane(MemoryPlane):
    """With the function `hello`, its version 1 and its alias `live`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.create()
        self.publish()
        self.alias("live", "1")

    @property
    def configs(self) -> EventInvokeConfigs:
        return self.event_invoke


@pytest.fixture
def plane(tmp_path: Path) -> Plane:
    return Plane(tmp_path)


def request(name: str = "hello", **members: Any) -> dict[str, Any]:
    return {"FunctionName": name, **members}


def to(**sides: str) -> dict[str, Any]:
    return {"DestinationConfig": {side: {"Destination": arn} for side, arn in sides.items()}}


def test_put_replaces_everything(plane: Plane) -> None:
    first = plane.configs.put(
        CALLER, request(MaximumRetryAttempts=0, MaximumEventAgeInSeconds=60, **to(OnFailure=QUEUE))
    )
    assert first == plane.configs.get(CALLER, request())
    assert first.arn == f"{HELLO}:$LATEST"
    assert (first.maximum_retry_attempts, first.maximum_event_age_seconds) == (0, 60)
    assert (first.on_success_arn, first.on_failure_arn) == ("", QUEUE)
    assert first.last_modified == plane.clock.wall_ms() / 1000
    plane.clock.advance(0.25)
    second = plane.configs.put(CALLER, request(**to(OnSuccess=QUEUE)))
    assert second.last_modified == first.last_modified + 0.25
    assert (second.maximum_retry_attempts, second.maximum_event_age_seconds) == (None, None)
    assert (second.on_success_arn, second.on_failure_arn) == (QUEUE, "")


def test_update_keeps_what_it_does_not_name(plane: Plane) -> None:
    plane.configs.put(
        CALLER, request(MaximumRetryAttempts=1, MaximumEventAgeInSeconds=60, **to(OnFailure=QUEUE, OnSuccess=QUEUE))
    )
    plane.clock.advance(1)
    kept = plane.configs.update(CALLER, request(DestinationConfig={"OnSuccess": {}, "OnFailure": {}}))
    assert (kept.on_success_arn, kept.on_failure_arn) == (QUEUE, QUEUE)
    assert kept.last_modified == plane.clock.wall_ms() / 1000
    cleared = plane.configs.update(CALLER, request(MaximumRetryAttempts=0, **to(OnFailure="")))
    assert (cleared.on_success_arn, cleared.on_failure_arn) == (QUEUE, "")
    assert (cleared.maximum_retry_attempts, cleared.maximum_event_age_seconds) == (0, 60)
    assert plane.configs.get(CALLER, request()) == cleared


@pytest.mark.parametrize("empty", [{"OnFailure": {}}, {"OnSuccess": {}}, {"OnFailure": {"Destination": ""}}])
def test_put_of_empty_destinations(plane: Plane, empty: dict[str, Any]) -> None:
    plane.configs.put(CALLER, request(**to(OnFailure=QUEUE)))
    record = plane.configs.put(CALLER, request(DestinationConfig=empty))
    assert (record.on_success_arn, record.on_failure_arn) == ("", "")


@pytest.mark.parametrize("nothing", [{}, {"DestinationConfig": {}}, {"DestinationConfig": None}])
def test_nothing_to_set(plane: Plane, nothing: dict[str, Any]) -> None:
    message = "You must specify at least one of error handling or destination setting."
    for call in (plane.configs.put, plane.configs.update):
        assert refused(IPV, call, CALLER, request(**nothing)) == message
        assert refused(IPV, call, CALLER, request("missing", **nothing)) == message
    assert plane.store.all(EVENT_INVOKE) == []


def test_each_qualifier_has_its_own(plane: Plane) -> None:
    for attempts, qualifier in enumerate(("$LATEST", "1", "live")):
        plane.configs.put(CALLER, request(Qualifier=qualifier, MaximumRetryAttempts=attempts))
    for name, attempts, arn in (
        ("hello", 0, f"{HELLO}:$LATEST"),
        ("hello:$LATEST", 0, f"{HELLO}:$LATEST"),
        ("function:hello:1", 1, f"{HELLO}:1"),
        (f"{HELLO}:live", 2, f"{HELLO}:live"),
    ):
        record = plane.configs.get(CALLER, request(name))
        assert (record.maximum_retry_attempts, record.arn) == (attempts, arn)
    plane.configs.delete(CALLER, request(Qualifier="1"))
    refused(RNF, plane.configs.get, CALLER, request(Qualifier="1"))
    assert plane.configs.get(CALLER, request(Qualifier="live")).maximum_retry_attempts == 2


@pytest.mark.parametrize(
    ("name", "shown"),
    [("hello", "hello:$LATEST"), ("hello:1", "hello:1"), ("hello:live", "hello:live"), ("missing", "missing:$LATEST")],
)
def test_without_configuration(plane: Plane, name: str, shown: str) -> None:
    message = f"The function {HELLO.removesuffix('hello')}{shown} doesn't have an EventInvokeConfig"
    assert refused(RNF, plane.configs.get, CALLER, request(name)) == message
    assert refused(RNF, plane.configs.delete, CALLER, request(name)) == message
    assert refused(RNF, plane.configs.update, CALLER, request(name, MaximumRetryAttempts=1)) == message


@pytest.mark.parametrize("name", ["missing", "hello:2", "hello:dead", "hello:$LATEST.PUBLISHED"])
def test_of_functions_that_are_not_there(plane: Plane, name: str) -> None:
    message = "The function doesn't exist."
    assert refused(RNF, plane.configs.put, CALLER, request(name, MaximumRetryAttempts=1)) == message
    assert refused(RNF, plane.configs.list, CALLER, request(name)) == message
    assert plane.store.all(EVENT_INVOKE) == []


def test_destinations(plane: Plane) -> None:
    plane.create("other")
    other = HELLO.replace("hello", "other")
    for arn in (
        QUEUE,
        "arn:aws:sns:us-east-1:000000000000:topic",
        "arn:aws:events:us-east-1:000000000000:event-bus/default",
        other,
        f"{other}:$LATEST",
    ):
        record = plane.configs.put(CALLER, request(**to(OnSuccess=arn, OnFailure=arn)))
        assert (record.on_success_arn, record.on_failure_arn) == (arn, arn)
    assert plane.configs.put(CALLER, request(**to(OnFailure="arn:aws:s3:::bucket"))).on_failure_arn


@pytest.mark.parametrize(
    ("side", "arn", "message"),
    [
        ("OnSuccess", "arn:aws:s3:::bucket", "The destination ARN {arn} is invalid."),
        ("OnSuccess", f"{QUEUE}.fifo", "The destination ARN {arn} is invalid."),
        ("OnFailure", f"{QUEUE}.fifo", "The destination ARN {arn} is invalid."),
        ("OnFailure", "arn:aws:sqs:us-east-1:000000000000:", "The destination ARN {arn} is invalid."),
        ("OnFailure", "arn:aws:events:us-east-1:000000000000:rule/r", "The destination ARN {arn} is invalid."),
        ("OnFailure", f"{HELLO.replace('hello', 'missing')}", "The destination ARN {arn} is invalid."),
        ("OnFailure", f"{HELLO.replace('hello', 'missing')}:1", "The destination ARN {arn} is invalid."),
        ("OnFailure", "arn:aws:lambda:us-east-1:000000000000:layer:x", "The destination ARN {arn} is invalid."),
        ("OnFailure", "arn:aws:lambda:us-east-1:000000000000:hello", "The destination ARN {arn} is invalid."),
        (
            "OnFailure",
            "arn:aws:sns:us-east-1:000000000000:topic.fifo",
            "FIFO-type Amazon SNS topics aren't supported as a destination.",
        ),
        ("OnSuccess", HELLO, "You can't specify the function as a destination for itself."),
        ("OnFailure", f"{HELLO}:$LATEST", "You can't specify the function as a destination for itself."),
        ("OnFailure", f"{HELLO}:1", "You can't specify the function as a destination for itself."),
        (
            "OnSuccess",
            "arn:aws:dynamodb:us-east-1:000000000000:table/t",
            "The provided destination config DestinationConfig(onSuccess=OnSuccess(destination={arn}), onFailure=null) is"
            " invalid.",
        ),
        (
            "OnFailure",
            "kafka://topic",
            "The provided destination config DestinationConfig(onSuccess=null, onFailure=OnFailure(destination={arn})) is"
            " invalid.",
        ),
    ],
)
def test_refused_destinations(plane: Plane, side: str, arn: str, message: str) -> None:
    before = plane.configs.put(CALLER, request(MaximumRetryAttempts=1))
    for call in (plane.configs.put, plane.configs.update):
        assert refused(IPV, call, CALLER, request(**to(**{side: arn}))) == message.replace("{arn}", arn)
    assert plane.store.all(EVENT_INVOKE) == [before]


def test_list(plane: Plane) -> None:
    for number in range(2, 12):
        plane.publish(content=f"v = {number}")
    plane.alias("2024-01", "1")
    for qualifier in ("live", "10", "2", "2024-01", "$LATEST"):
        plane.configs.put(CALLER, request(Qualifier=qualifier, MaximumRetryAttempts=1))
    plane.create("other")
    plane.configs.put(CALLER, request("other", MaximumRetryAttempts=1))

    def pages(size: int) -> list[list[str]]:
        found: list[list[str]] = []
        marker: str | None = None
        while True:
            page = plane.configs.list(CALLER, request(MaxItems=size, Marker=marker))
            found.append([record.qualifier for record in page.items])
            marker = page.next_marker
            if marker is None:
                return found

    assert pages(50) == [["$LATEST", "2", "10", "2024-01", "live"]]
    assert pages(2) == [["$LATEST", "2"], ["10", "2024-01"], ["live"]]
    assert plane.configs.list(CALLER, request("hello:live")).items == plane.configs.list(CALLER, request()).items


def test_goes_with_what_it_is_for(plane: Plane) -> None:
    def left() -> list[str]:
        return [record.qualifier for record in plane.configs.list(CALLER, request()).items]

    for qualifier in ("$LATEST", "1", "live"):
        plane.configs.put(CALLER, request(Qualifier=qualifier, MaximumRetryAttempts=1))
    plane.aliases.delete(CALLER, request(Name="live"))
    assert left() == ["$LATEST", "1"]
    plane.functions.delete(CALLER, request(Qualifier="1"))
    assert left() == ["$LATEST"]
    plane.functions.delete(CALLER, request())
    assert plane.store.all(EVENT_INVOKE) == []


def test_publishing_copies_nothing(plane: Plane) -> None:
    plane.configs.put(CALLER, request(MaximumRetryAttempts=1))
    plane.publish(content="v = 2")
    refused(RNF, plane.configs.get, CALLER, request(Qualifier="2"))


def test_record_is_kept_as_it_is() -> None:
    record = EventInvokeRecord(account="a", region="r", function="f", qualifier="$LATEST", last_modified=1.5)
    assert EVENT_INVOKE.decode(msgspec.json.encode(record)) == record
