"""Asynchronous invocations on a virtual clock: when they are tried again, when they are given up, and what is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon_running import ACCOUNT, REGION, Gate, RunningDaemon, running_daemon
from event_running import ATTEMPTS, TOLD, Sent, advance, attempts_with, counters, lines, records, row, settle
from fastlam import limits
from waiting import await_that

FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function"


@pytest.fixture(scope="module")
def module_daemon() -> Iterator[RunningDaemon]:
    with running_daemon("--clock", "virtual") as daemon:
        yield daemon


class Stage:
    """A function with attempts to see, and one that its records go to."""

    def __init__(self, daemon: RunningDaemon, name: str, directory: Path) -> None:
        self.daemon, self.name = daemon, name
        self.path, self.told = directory / "attempts", directory / "records"
        daemon.deploy(name, ATTEMPTS)
        daemon.deploy(f"{name}-told", TOLD, environment={"RECORDS": str(self.told)})
        self.destination = {"Destination": f"{FUNCTION}:{name}-told"}
        self.configure()

    def configure(self, qualifier: str | None = None, **more: Any) -> None:
        both = {"OnSuccess": self.destination, "OnFailure": self.destination}
        where = {} if qualifier is None else {"Qualifier": qualifier}
        self.daemon.lambda_.put_function_event_invoke_config(
            FunctionName=self.name, DestinationConfig=both, **where, **more
        )

    def send(self, to: str | None = None, **event: Any) -> Sent:
        return Sent(self.daemon, to or self.name, self.path, **event)

    def advance(self, duration: str | float) -> None:
        advance(self.daemon, duration)

    def record(self) -> dict[str, Any]:
        """The only one, without what differs each time."""
        (found,) = records(self.told)
        assert found["timestamp"].endswith("Z") and len(found["timestamp"]) == len("2025-11-24T23:11:08.123Z")
        del found["timestamp"]
        return found


@pytest.fixture
def stage(module_daemon: RunningDaemon, tmp_path: Path, request: pytest.FixtureRequest) -> Stage:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[5:45]
    return Stage(module_daemon, name, tmp_path)


def context(stage: Stage, sent: Sent, condition: str, count: int, qualifier: str = "$LATEST") -> dict[str, Any]:
    return {
        "requestId": sent.request_id,
        "functionArn": f"{FUNCTION}:{stage.name}:{qualifier}",
        "condition": condition,
        "approximateInvokeCount": count,
    }


def test_a_failing_event_is_tried_after_one_minute_and_two_more(stage: Stage) -> None:
    sent = stage.send(fail="no")
    stage.advance(59.999)
    assert len(sent.words) == 1
    assert row(stage.daemon, stage.name)["waiting_retry"] == 1
    stage.advance(0.001)
    assert len(sent.words) == 2
    stage.advance(119.999)
    assert len(sent.words) == 2 and not stage.told.exists()
    stage.advance("1ms")
    assert sent.words == ["first"] * 3
    record = stage.record()
    payload = record.pop("responsePayload")
    assert record == {
        "version": "1.0",
        "requestContext": context(stage, sent, "RetriesExhausted", 3),
        "requestPayload": sent.event,
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
    }
    assert (payload["errorMessage"], payload["errorType"], payload["requestId"]) == (
        "no",
        "ValueError",
        sent.request_id,
    )
    logged = "".join(stage.daemon.logs(stage.name))
    for line in ("START", "END", "REPORT"):
        assert logged.count(f"{line} RequestId: {sent.request_id}") == 3


def test_the_whole_story_is_one_advance(stage: Stage) -> None:
    sent = stage.send(fail="no")
    stage.advance("3m")
    assert len(sent.words) == 3 and stage.record()["requestContext"]["approximateInvokeCount"] == 3


def test_a_success_is_told_once(stage: Stage) -> None:
    sent = stage.send()
    stage.advance(0)
    assert stage.record() == {
        "version": "1.0",
        "requestContext": context(stage, sent, "Success", 1),
        "requestPayload": sent.event,
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
        "responsePayload": {"word": "first"},
    }


def test_a_later_success_counts_as_the_first_attempt(stage: Stage) -> None:
    sent = stage.send(fail="no")
    stage.advance(0)
    stage.daemon.update(stage.name, attempts_with("second").replace("raise ValueError", "print"))
    stage.advance("60s")
    assert sent.words == ["first", "second"], "$LATEST is what it is when an attempt begins"
    assert stage.record()["requestContext"] == context(stage, sent, "Success", 1)


@pytest.mark.parametrize("retries", [0, 1])
def test_fewer_retries(stage: Stage, retries: int) -> None:
    stage.configure(MaximumRetryAttempts=retries)
    sent = stage.send(fail="no")
    stage.advance("10m")
    assert len(sent.words) == 1 + retries
    assert stage.record()["requestContext"] == context(stage, sent, "RetriesExhausted", 1 + retries)


def test_a_retry_that_would_be_too_late_is_not_waited_for(stage: Stage) -> None:
    stage.configure(MaximumEventAgeInSeconds=60)
    sent = stage.send(fail="no")
    stage.advance(0)
    record = stage.record()
    assert record["requestContext"] == context(stage, sent, "EventAgeExceeded", 1)
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    assert record["responsePayload"]["errorMessage"] == "no"
    stage.configure(MaximumEventAgeInSeconds=61)
    sent = stage.send(fail="no")
    stage.advance("10m")
    assert len(sent.words) == 2


def test_without_concurrency_nothing_is_tried(stage: Stage) -> None:
    stage.daemon.lambda_.put_function_concurrency(FunctionName=stage.name, ReservedConcurrentExecutions=0)
    sent = stage.send()
    stage.advance(0)
    assert sent.words == []
    assert stage.record() == {
        "version": "1.0",
        "requestContext": context(stage, sent, "ZeroReservedConcurrency", 0),
        "requestPayload": sent.event,
    }


def test_a_throttled_event_comes_back_after_1_2_4_seconds(stage: Stage, gate: Gate) -> None:
    stage.daemon.lambda_.put_function_concurrency(FunctionName=stage.name, ReservedConcurrentExecutions=1)
    blocked = _Blocked(stage, gate)
    sent = stage.send()
    await_that(lambda: row(stage.daemon, stage.name)["throttled"] == 1)
    for times, seconds in ((1, 0.999), (2, 0.001), (2, 1.999), (3, 0.001), (3, 3.999), (4, 0.001)):
        stage.advance(seconds)
        assert row(stage.daemon, stage.name)["throttled"] == times
    blocked.end()
    stage.advance(8)
    assert sent.words == ["first"]
    assert stage.record()["requestContext"] == context(stage, sent, "Success", 1)


def test_an_event_that_is_only_throttled_grows_too_old(stage: Stage, gate: Gate) -> None:
    stage.daemon.lambda_.put_function_concurrency(FunctionName=stage.name, ReservedConcurrentExecutions=1)
    stage.configure(MaximumEventAgeInSeconds=60)
    blocked = _Blocked(stage, gate)
    sent = stage.send()
    stage.advance("60s")
    assert stage.record() == {
        "version": "1.0",
        "requestContext": context(stage, sent, "EventAgeExceeded", 0),
        "requestPayload": sent.event,
        "responseContext": {"statusCode": 429},
    }
    blocked.end()
    assert sent.words == []


class _Blocked:
    """The function's only environment is busy, with a synchronous call, until `end`."""

    def __init__(self, stage: Stage, gate: Gate) -> None:
        self._gate = gate
        event = {"path": str(stage.path.with_name("other")), "gate": gate.port}
        self._thread = threading.Thread(target=stage.daemon.invoke, args=(stage.name, event))
        self._thread.start()
        gate.arrive()

    def end(self) -> None:
        self._gate.open()
        self._thread.join()


def test_each_qualifier_has_its_own_settings(stage: Stage) -> None:
    lambda_ = stage.daemon.lambda_
    version = lambda_.publish_version(FunctionName=stage.name)["Version"]
    lambda_.create_alias(FunctionName=stage.name, Name="live", FunctionVersion=version)
    stage.configure(MaximumRetryAttempts=0)
    stage.configure("live", MaximumRetryAttempts=1)
    by_alias = stage.send(f"{stage.name}:live", fail="no")
    stage.advance("10m")
    assert len(by_alias.words) == 2
    record = stage.record()
    assert record["requestContext"] == context(stage, by_alias, "RetriesExhausted", 2, "live")
    assert record["responseContext"]["executedVersion"] == version
    by_version = stage.send(f"{stage.name}:{version}", fail="no")
    unqualified = stage.send(fail="no")
    latest = stage.send(f"{stage.name}:$LATEST", fail="no")
    stage.advance("10m")
    counts = [len(one.words) for one in (by_version, unqualified, latest)]
    assert counts == [3, 1, 1], "a version without settings has the default ones"


def test_an_alias_leads_where_it_led_when_the_event_came(stage: Stage) -> None:
    lambda_ = stage.daemon.lambda_
    first = lambda_.publish_version(FunctionName=stage.name)["Version"]
    lambda_.create_alias(FunctionName=stage.name, Name="live", FunctionVersion=first)
    sent = stage.send(f"{stage.name}:live", fail="no")
    stage.advance(0)
    stage.daemon.update(stage.name, attempts_with("second"))
    second = lambda_.publish_version(FunctionName=stage.name)["Version"]
    lambda_.update_alias(FunctionName=stage.name, Name="live", FunctionVersion=second)
    later = stage.send(f"{stage.name}:live")
    stage.advance("1m")
    assert (sent.words, later.words) == (["first", "first"], ["second"])


@pytest.mark.parametrize("retries", [0, 1])
def test_an_event_whose_version_is_gone(stage: Stage, gate: Gate, retries: int) -> None:
    lambda_ = stage.daemon.lambda_
    version = lambda_.publish_version(FunctionName=stage.name)["Version"]
    stage.configure(version, MaximumRetryAttempts=retries)
    lambda_.put_function_concurrency(FunctionName=stage.name, ReservedConcurrentExecutions=1)
    blocked = _Blocked(stage, gate)
    sent = stage.send(f"{stage.name}:{version}")
    await_that(lambda: row(stage.daemon, stage.name)["throttled"] == 1)
    lambda_.delete_function(FunctionName=stage.name, Qualifier=version)
    blocked.end()
    stage.advance("10m")
    assert sent.words == []
    assert stage.record() == {
        "version": "1.0",
        "requestContext": context(stage, sent, "RetriesExhausted", 1 + retries, version),
        "requestPayload": sent.event,
        "responseContext": {"statusCode": 404},
    }


def test_a_function_that_comes_back_runs_what_waits(stage: Stage) -> None:
    sent = stage.send(fail="no")
    stage.advance(0)
    stage.daemon.lambda_.delete_function(FunctionName=stage.name)
    stage.advance("30s")
    stage.daemon.deploy(stage.name, attempts_with("again"))
    stage.advance("30s")
    assert sent.words == ["first", "again"]


def test_a_result_that_is_no_json(stage: Stage) -> None:
    code = "def handler(event, context):\n    yield b'one'\n    yield b'two'\n"
    stage.daemon.update(stage.name, code)
    sent = stage.send()
    stage.advance(0)
    assert stage.record() == {
        "version": "1.0",
        "requestContext": context(stage, sent, "Success", 1),
        "requestPayload": sent.event,
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
        "deliveryError": {"statusCode": 400, "errorCode": "InvalidRequestContentException"},
    }


def test_a_function_that_hangs_delays_nobody_else(stage: Stage, gate: Gate) -> None:
    stage.daemon.lambda_.put_function_concurrency(FunctionName=stage.name, ReservedConcurrentExecutions=2)
    stage.daemon.lambda_.update_function_configuration(FunctionName=stage.name, Timeout=60)
    stage.daemon.settle(stage.name)
    for _ in range(20):
        stage.send(gate=gate.port)
    gate.arrive(2)
    other = stage.daemon.deploy(f"{stage.name}-b", ATTEMPTS)
    path = stage.path.with_name("others")
    sent = [Sent(stage.daemon, other, path) for _ in range(20)]
    await_that(lambda: len(lines(path)) == 20)
    assert {one.request_id for one in sent} == {line.split()[0] for line in lines(path)}
    waiting = row(stage.daemon, stage.name)
    assert (waiting["depth"], waiting["in_flight"], waiting["throttled"]) == (20, 2, 0)
    for _ in range(9):
        gate.open()
        gate.arrive(2)
    gate.open()
    await_that(lambda: row(stage.daemon, stage.name)["completed"] == 20)


def test_long_ones_get_more_room(stage: Stage, gate: Gate) -> None:
    stage.daemon.lambda_.update_function_configuration(FunctionName=stage.name, Timeout=60)
    stage.daemon.settle(stage.name)
    for _ in range(20):
        stage.send(gate=gate.port)
    gate.arrive(20)
    assert row(stage.daemon, stage.name)["in_flight"] == 20
    gate.open()
    await_that(lambda: row(stage.daemon, stage.name)["completed"] == 20)


def test_more_than_memory_holds(stage: Stage, gate: Gate) -> None:
    """They are read back in their order."""
    stage.daemon.lambda_.put_function_concurrency(FunctionName=stage.name, ReservedConcurrentExecutions=1)
    stage.daemon.lambda_.update_function_configuration(FunctionName=stage.name, Timeout=60)
    stage.daemon.settle(stage.name)
    stage.send(gate=gate.port)
    gate.arrive()
    sent = [stage.send() for _ in range(700)]
    found = row(stage.daemon, stage.name)
    assert (found["depth"], found["in_flight"]) == (701, 1) and found["oldest_seconds"] == 0
    assert found["in_memory"] <= limits.EVENT_WINDOW_ITEMS
    stage.daemon.send_invoke(stage.name, b"null")  # throttled, and of no consequence
    gate.open()
    await_that(lambda: row(stage.daemon, stage.name)["completed"] == 701)
    assert [line.split()[0] for line in lines(stage.path)][1:] == [one.request_id for one in sent]


CALLS_ITSELF = """
import boto3, os

def handler(event, context):
    descriptor = os.open(event["path"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{os.environ['_X_AMZN_TRACE_ID']}\\n".encode())
    os.close(descriptor)
    if event["left"]:
        import json
        event["left"] -= 1
        boto3.client("lambda").invoke(
            FunctionName=context.function_name, InvocationType=event["type"], Payload=json.dumps(event).encode()
        )
"""


def test_a_function_that_sends_itself_events_is_ended(stage: Stage) -> None:
    stage.daemon.update(stage.name, CALLS_ITSELF)
    lambda_ = stage.daemon.lambda_
    lambda_.update_function_configuration(FunctionName=stage.name, Timeout=60, MemorySize=512)
    stage.daemon.settle(stage.name)
    lambda_.put_function_event_invoke_config(
        FunctionName=stage.name, DestinationConfig={"OnFailure": stage.destination}
    )
    stage.send(left=30, type="Event")
    stage.advance(0)
    await_that(lambda: row(stage.daemon, stage.name)["depth"] == 0)
    headers = lines(stage.path)
    lineages = [header.rpartition("Lineage=")[2] for header in headers]
    mark = lineages[0].split(":")[1]
    assert lineages == [f"{hop}:{mark}:{hop - 1}" for hop in range(1, 17)]
    assert len({header.partition(";Lineage")[0] for header in headers}) == 1, "root and parent stay"
    stage.advance(0)
    record = stage.record()
    assert (record["requestContext"]["condition"], record["requestContext"]["approximateInvokeCount"]) == (
        "RecursiveInvocation",
        0,
    )
    assert (record["responseContext"], record["requestPayload"]["left"]) == ({"statusCode": 400}, 14)
    lambda_.put_function_recursion_config(FunctionName=stage.name, RecursiveLoop="Allow")
    stage.path.unlink()
    stage.send(left=18, type="Event")
    await_that(lambda: len(lines(stage.path)) == 19)


def test_a_synchronous_loop_is_refused(stage: Stage) -> None:
    header = {"X-Amzn-Trace-Id": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"}
    for count in range(17):
        event = f'{{"path": "{stage.path}"}}'.encode()
        answer = stage.daemon.send("POST", f"/2015-03-31/functions/{stage.name}/invocations", event, header)
        if count < 16:
            assert answer.status == 200
            header = {"X-Amzn-Trace-Id": answer.headers["x-amzn-trace-id"]}
        else:
            assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "RecursiveInvocationException")
            assert answer.json["Type"] == "User" and "recursive loop" in answer.json["Message"]


def test_the_clock_of_a_daemon(module_daemon: RunningDaemon, daemon: RunningDaemon) -> None:
    before = module_daemon.send("GET", "/_fastlam/clock").json
    after = advance(module_daemon, "1h30m")
    assert after["elapsed_ms"] - before["elapsed_ms"] == after["wall_ms"] - before["wall_ms"] == 5_400_000
    for body in (b"", b"[]", b"{}", b'{"advance": "soon"}', b'{"advance": -1}', b'{"advance": null}'):
        assert module_daemon.send("POST", "/_fastlam/clock", body).status == 400
    assert daemon.send("GET", "/_fastlam/clock").json["clock"] == "system"
    refused = daemon.send("POST", "/_fastlam/clock", b'{"advance": 1}')
    assert refused.status == 409 and "--clock virtual" in refused.json["message"]


def test_a_reset_forgets_what_waits(tmp_path: Path) -> None:
    with running_daemon("--clock", "virtual") as daemon:
        stage = Stage(daemon, "gone", tmp_path)
        sent = stage.send(fail="no")
        stage.advance(0)
        assert row(daemon, "gone")["waiting_retry"] == 1
        assert daemon.send("POST", "/_fastlam/reset").status == 200
        assert daemon.send("GET", "/_fastlam/queue").json["functions"] == []
        stage = Stage(daemon, "gone", tmp_path)
        stage.advance("1h")
        assert sent.words == ["first"]
        again = stage.send()
        stage.advance(0)
        assert again.words == ["first"] and counters(daemon)["accepted"] == 1 + 1  # and the record's


def test_a_daemon_that_stops_lets_attempts_end(tmp_path: Path, gate: Gate) -> None:
    options = ("--data-dir", str(tmp_path / "data"))
    with running_daemon(*options, ephemeral=False) as daemon:
        name = daemon.deploy("held", ATTEMPTS, Timeout=60)
        daemon.lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
        first = Sent(daemon, name, tmp_path / "attempts", gate=gate.port)
        gate.arrive()
        second = Sent(daemon, name, tmp_path / "attempts")
        stopping = threading.Thread(target=daemon.stop)
        stopping.start()
        await_that(lambda: _refuses(daemon))
        gate.open()
        stopping.join()
        assert (first.words, second.words) == (["first"], [])
    with running_daemon(*options, ephemeral=False) as daemon:
        settle(daemon)
        assert (first.words, second.words) == (["first"], ["first"])


def _refuses(daemon: RunningDaemon) -> bool:
    try:
        daemon.health()
    except OSError:
        return True
    return False
