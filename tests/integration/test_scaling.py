"""Many calls at the same time: as many environments as the limits allow, and Lambda's refusals for the rest."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPResponse

import pytest

from counted_calls import ACCOUNT, RATE, RESERVED, RESERVED_RATE
from daemon_running import GATE_CODE, Gate, RunningDaemon, running_daemon
from waiting import POLL_SECONDS, WAIT_SECONDS

pytestmark = pytest.mark.lanes

# How many may run. FASTLAM_TEST_CONCURRENCY=1000 is Lambda's own limit, which takes some 3 GB.
CONCURRENCY = int(os.environ.get("FASTLAM_TEST_CONCURRENCY", "60"))
HELD = GATE_CODE + "def handler(event, context):\n    wait_at(event['gate'])\n    return event['call']\n"
QUICK = "def handler(event, context):\n    return 'done'\n"


class Burst:
    """Invocations of one function, each on a connection of its own, and all sent before any answer is read."""

    def __init__(self, daemon: RunningDaemon, name: str, events: list[object], stack: contextlib.ExitStack) -> None:
        self.connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), WAIT_SECONDS)) for _ in events
        ]
        for connection, event in zip(self.connections, events, strict=True):
            body = json.dumps(event).encode()
            head = f"POST /2015-03-31/functions/{name}/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
            connection.sendall(head.encode() + b"\r\n\r\n" + body)

    def await_answers(self, count: int) -> None:
        """Returns when so many have been answered, all of them while the others still run."""
        with selectors.DefaultSelector() as selector:
            for connection in self.connections:
                selector.register(connection, selectors.EVENT_READ)
            deadline = time.monotonic() + WAIT_SECONDS
            while len(selector.select(0)) < count:
                assert time.monotonic() < deadline, "they are not answered"
                time.sleep(POLL_SECONDS)

    def answers(self) -> list[tuple[int, object]]:
        """Status and body of each."""
        found = []
        for connection in self.connections:
            response = HTTPResponse(connection, method="POST")
            response.begin()
            found.append((response.status, json.loads(response.read())))
        return found


@pytest.fixture
def open_files() -> Iterator[None]:
    """A burst takes a connection for each call, and the gate one for each that runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 3 * CONCURRENCY + 256)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def throttle(reason: str) -> dict[str, str]:
    return {"Reason": reason, "Type": "User", "message": "Rate Exceeded."}


def test_half_as_many_calls_again_as_may_run(open_files: None, gate: Gate, stack: contextlib.ExitStack) -> None:
    with running_daemon("--concurrency", str(CONCURRENCY)) as daemon:
        daemon.deploy("held", HELD, Timeout=300)
        events: list[object] = [{"gate": gate.port, "call": call} for call in range(CONCURRENCY * 3 // 2)]
        burst = Burst(daemon, "held", events, stack)
        gate.arrive(CONCURRENCY)
        burst.await_answers(len(events) - CONCURRENCY)
        assert len(daemon.environments("held")) == CONCURRENCY
        gate.open()
        answers = burst.answers()
        assert Counter(status for status, _ in answers) == {200: CONCURRENCY, 429: CONCURRENCY // 2}
        for call, (status, body) in enumerate(answers):
            assert body == (call if status == 200 else throttle(ACCOUNT))
        found = daemon.health()["statistics"]["dispatcher"]
        assert [found[name] for name in ("cold_starts", "environments_started", "held_up")] == [*[CONCURRENCY] * 2, 0]


@pytest.mark.parametrize(("reserved", "reason"), [(None, RATE), (2, RESERVED_RATE)])
def test_rates_are_limited_where_that_is_asked_for(reserved: int | None, reason: str) -> None:
    """Ten requests a second for each unit of concurrency; these come faster, one after the other."""
    with running_daemon("--concurrency", "1" if reserved is None else "102", "--rates", "lambda") as daemon:
        daemon.deploy("rated", QUICK)
        if reserved is not None:
            daemon.lambda_.put_function_concurrency(FunctionName="rated", ReservedConcurrentExecutions=reserved)
        answers = [daemon.send_invoke("rated") for _ in range(200)]
        at_once = 10 * (reserved or 1)
        assert [answer.status for answer in answers[:at_once]] == [200] * at_once
        refused = [answer for answer in answers if answer.status != 200]
        assert refused
        for answer in refused:
            assert (answer.status, answer.json) == (429, throttle(reason))
            assert answer.headers["x-amzn-errortype"] == "TooManyRequestsException"


def test_events_are_not_accepted_faster_either() -> None:
    with running_daemon("--concurrency", "1", "--rates", "lambda") as daemon:
        daemon.deploy("rated", QUICK)
        answers = [daemon.send_invoke("rated", Invocation_Type="Event") for _ in range(60)]
        assert [answer.status for answer in answers[:10]] == [202] * 10
        refused = [answer for answer in answers if answer.status != 202]
        assert refused and all((one.status, one.json) == (429, throttle(RATE)) for one in refused)
        assert [daemon.send_invoke("rated", Invocation_Type="DryRun").status for _ in range(30)] == [204] * 30


def test_the_control_plane_has_its_own_rates() -> None:
    """Real clients back off and come again; these do not."""
    with running_daemon("--rates", "lambda") as daemon:
        answers = [daemon.send("GET", "/2015-03-31/functions/") for _ in range(60)]
        assert [answer.status for answer in answers[:15]] == [200] * 15
        refused = [answer for answer in answers if answer.status != 200]
        assert refused
        for answer in refused:
            assert (answer.status, answer.json["Reason"]) == (429, "CallerRateLimitExceeded")
            assert answer.json["message"] == "Rate exceeded"
            assert answer.headers["x-amzn-errortype"] == "TooManyRequestsException"
        assert daemon.send("GET", "/2015-03-31/functions/none").status == 404, "GetFunction has its own"
        assert daemon.send_invoke("none").status == 404, "and invocations have none of these"


def test_rates_are_free_unless_they_are_asked_for() -> None:
    with running_daemon("--concurrency", "1") as daemon:
        daemon.deploy("free", QUICK)
        assert {daemon.send_invoke("free").status for _ in range(100)} == {200}


def test_a_reservation_holds_for_calls_at_the_same_time(gate: Gate, stack: contextlib.ExitStack) -> None:
    with running_daemon() as daemon:
        daemon.deploy("held", HELD, Timeout=300)
        daemon.lambda_.put_function_concurrency(FunctionName="held", ReservedConcurrentExecutions=5)
        events: list[object] = [{"gate": gate.port, "call": call} for call in range(12)]
        burst = Burst(daemon, "held", events, stack)
        gate.arrive(5)
        burst.await_answers(7)
        gate.open()
        answers = burst.answers()
        assert Counter(status for status, _ in answers) == {200: 5, 429: 7}
        assert all(body == throttle(RESERVED) for status, body in answers if status == 429)
