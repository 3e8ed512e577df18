"""Asynchronous invocations inside a program: on a virtual clock, and on the machine's."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from fastlam import Runtime, VirtualClock
from fastlam.errors import FastlamError

pytestmark = pytest.mark.lanes


def failing(event: Any, context: Any) -> None:
    raise ValueError(event)


def noting(event: Any, context: Any) -> str:
    with open(event["path"], "a") as file:
        file.write(f"{context.aws_request_id}\n")
    if event.get("fail"):
        raise ValueError("no")
    return "noted"


def writing(event: Any, context: Any) -> None:
    """A destination; the path is in the event that the record is of."""
    with open(event["requestPayload"]["path"] + ".record", "a") as file:
        file.write(f"{event['requestContext']['condition']}\n")


def test_the_whole_story_is_one_advance(tmp_path: Path) -> None:
    path = tmp_path / "attempts"
    told: list[dict[str, Any]] = []
    with Runtime(clock=VirtualClock()) as runtime:
        function = runtime.function("noting", noting, on_failure=told.append, on_success=told.append)
        sent = function.send({"path": str(path), "fail": True})
        assert not sent.done
        with pytest.raises(FastlamError, match="not over"):
            _ = sent.record
        runtime.clock.advance("59s")
        assert path.read_text() == f"{sent.request_id}\n"
        runtime.clock.advance("1s")
        assert path.read_text() == f"{sent.request_id}\n" * 2
        runtime.clock.advance("2m")
        assert path.read_text() == f"{sent.request_id}\n" * 3
        assert (sent.condition, sent.attempts, sent.done) == ("RetriesExhausted", 3, True)
        assert told == [sent.record]
        assert sent.record["timestamp"] == "2026-01-01T00:03:00.000Z"
        assert sent.record["requestPayload"] == {"path": str(path), "fail": True}
        assert sent.record["responsePayload"]["errorMessage"] == "no"
        good = function.send({"path": str(path)})
        runtime.clock.advance(0)
        assert good.condition == "Success" and told[1]["responsePayload"] == "noted"


def test_hundreds_at_once(tmp_path: Path) -> None:
    with Runtime(clock=VirtualClock()) as runtime:
        function = runtime.function("failing", failing, retries=1)
        sent = [function.send(number) for number in range(500)]
        runtime.clock.advance("1m")
        assert {one.condition for one in sent} == {"RetriesExhausted"}
        assert [one.record["responsePayload"]["errorMessage"] for one in sent] == [str(number) for number in range(500)]


def test_the_record_goes_to_another_function(tmp_path: Path) -> None:
    path = tmp_path / "attempts"
    with Runtime(clock=VirtualClock()) as runtime:
        told = runtime.function("writing", writing)
        function = runtime.function("noting", noting, retries=0, on_success=told, on_failure=told)
        function.send({"path": str(path)})
        function.send({"path": str(path), "fail": True})
        runtime.clock.advance(0)
        assert sorted((tmp_path / "attempts.record").read_text().split()) == ["RetriesExhausted", "Success"]


def test_settings_of_events(tmp_path: Path) -> None:
    with Runtime(clock=VirtualClock()) as runtime:
        never = runtime.function("never", failing, retries=0)
        young = runtime.function("young", failing, event_age="1m")
        none = runtime.function("none", failing, reserved=0)
        sent = [function.send() for function in (never, young, none)]
        runtime.clock.advance(0)
        assert [(one.condition, one.attempts) for one in sent] == [
            ("RetriesExhausted", 1),
            ("EventAgeExceeded", 1),
            ("ZeroReservedConcurrency", 0),
        ]


def test_a_function_that_is_declared_again_runs_what_waits(tmp_path: Path) -> None:
    path = tmp_path / "attempts"
    with Runtime(clock=VirtualClock()) as runtime:
        sent = runtime.function("same", failing).send({"path": str(path)})
        runtime.clock.advance("1s")
        runtime.function("same", noting)
        runtime.clock.advance("1m")
        assert sent.condition == "Success"
        assert path.read_text() == f"{sent.request_id}\n"


def test_a_destination_that_raises_is_asked_again() -> None:
    asked: list[str] = []

    def told(record: dict[str, Any]) -> None:
        asked.append(record["requestContext"]["condition"])
        if len(asked) < 3:
            raise RuntimeError("not now")

    with Runtime(clock=VirtualClock()) as runtime:
        runtime.function("failing", failing, retries=0, on_failure=told).send()
        runtime.clock.advance(0)
        assert len(asked) == 1
        runtime.clock.advance("1s")
        assert len(asked) == 2
        runtime.clock.advance("10m")
        assert asked == ["RetriesExhausted"] * 3


def test_the_machines_clock(tmp_path: Path) -> None:
    told = threading.Event()
    with Runtime(retry_delay="20ms") as runtime:
        function = runtime.function("failing", failing, on_failure=lambda record: told.set())
        sent = function.send("x")
        assert sent.wait(60)
        assert (sent.condition, sent.attempts) == ("RetriesExhausted", 3)
        assert told.wait(60)
        slow = runtime.function("slow", failing)
    assert slow.name == "slow"


def test_what_waits_ends_with_the_runtime() -> None:
    with Runtime() as runtime:
        sent = runtime.function("failing", failing).send()
        assert not sent.wait(0.01) or sent.done
    assert sent.condition is None


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="no duration"):
        Runtime(retry_delay="soon")
    with Runtime(inline=True) as runtime:
        with pytest.raises(FastlamError, match="inline"):
            runtime.function("inline", failing).send()
    with Runtime() as runtime:
        function = runtime.function("odd", failing, on_failure=7)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="no destination"):
            function.send()
