"""Concurrency limits, and functions that are changed, deleted or kept over a restart while they are in use."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from daemon_running import GATE_CODE, Gate, Invoked, RunningDaemon, running_daemon

pytestmark = pytest.mark.lanes

HELD = GATE_CODE + "def handler(event, context):\n    wait_at(event['gate'])\n    return event['call']\n"
QUICK = "def handler(event, context):\n    return 'done'\n"


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def hold(
    daemon: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate, name: str, count: int
) -> list[Future[Invoked]]:
    """So many invocations of a HELD function, all of them inside its handler."""
    running = [callers.submit(daemon.invoke, name, {"gate": gate.port, "call": call}) for call in range(count)]
    gate.arrive(count)
    return running


def released(gate: Gate, running: list[Future[Invoked]]) -> None:
    gate.open()
    assert [future.result().result for future in running] == list(range(len(running)))


def throttled(daemon: RunningDaemon, name: str, reason: str) -> None:
    answer = daemon.send_invoke(name)
    assert answer.status == 429
    assert answer.body.decode() == f'{{"Reason":"{reason}","Type":"User","message":"Rate Exceeded."}}'
    assert answer.headers["x-amzn-errortype"] == "TooManyRequestsException"
    with pytest.raises(daemon.lambda_.exceptions.TooManyRequestsException) as caught:
        daemon.invoke(name)
    assert caught.value.response["Reason"] == reason
    assert caught.value.response["Error"]["Message"] == "Rate Exceeded."


RESERVED = "ReservedFunctionConcurrentInvocationLimitExceeded"
ACCOUNT_LIMIT = "ConcurrentInvocationLimitExceeded"


def test_reserved_concurrency_of_zero_stops_a_function(daemon: RunningDaemon) -> None:
    daemon.deploy("stopped", QUICK)
    assert daemon.invoke("stopped").result == "done"
    daemon.lambda_.put_function_concurrency(FunctionName="stopped", ReservedConcurrentExecutions=0)
    throttled(daemon, "stopped", RESERVED)
    assert daemon.send_invoke("stopped", Invocation_Type="DryRun").status == 204
    assert daemon.send_invoke("stopped", b"{").status == 400, "what is wrong with the request is said first"
    daemon.lambda_.delete_function_concurrency(FunctionName="stopped")
    assert daemon.invoke("stopped").result == "done"
    assert [one["invocations"] for one in daemon.environments("stopped")] == [2], "it stayed warm"


def test_reserved_concurrency_is_a_ceiling_for_this_function_only(
    daemon: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate
) -> None:
    daemon.deploy("bounded", HELD, Timeout=60)
    daemon.deploy("unbounded", QUICK)
    daemon.lambda_.put_function_concurrency(FunctionName="bounded", ReservedConcurrentExecutions=3)
    running = hold(daemon, callers, gate, "bounded", 3)
    throttled(daemon, "bounded", RESERVED)
    assert daemon.invoke("unbounded").result == "done"
    # A higher ceiling holds at once; a lower one leaves alone what runs.
    daemon.lambda_.put_function_concurrency(FunctionName="bounded", ReservedConcurrentExecutions=4)
    fourth = callers.submit(daemon.invoke, "bounded", {"gate": gate.port, "call": 3})
    gate.arrive()
    daemon.lambda_.put_function_concurrency(FunctionName="bounded", ReservedConcurrentExecutions=1)
    throttled(daemon, "bounded", RESERVED)
    released(gate, [*running, fourth])
    released(gate, hold(daemon, callers, gate, "bounded", 1))
    assert len(daemon.environments("bounded")) <= 4


def test_a_throttled_call_neither_runs_nor_is_logged(daemon: RunningDaemon) -> None:
    daemon.deploy("never", QUICK)
    daemon.lambda_.put_function_concurrency(FunctionName="never", ReservedConcurrentExecutions=0)
    throttled(daemon, "never", RESERVED)
    assert (daemon.environments("never"), daemon.logs("never")) == ([], [])


def test_a_throttled_event_waits_for_its_turn(
    daemon: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate
) -> None:
    daemon.deploy("patient", HELD, Timeout=60)
    daemon.lambda_.put_function_concurrency(FunctionName="patient", ReservedConcurrentExecutions=1)
    running = hold(daemon, callers, gate, "patient", 1)
    event = json.dumps({"gate": gate.port, "call": "late"}).encode()
    assert daemon.send_invoke("patient", event, Invocation_Type="Event").status == 202
    released(gate, running)
    gate.arrive()
    gate.open()
    daemon.logs("patient", until=lambda lines: sum("REPORT" in line for line in lines) == 2)


def test_the_accounts_limit(callers: ThreadPoolExecutor, gate: Gate) -> None:
    with running_daemon("--concurrency", "3") as daemon:
        daemon.deploy("held", HELD, Timeout=60)
        daemon.deploy("other", QUICK)
        running = hold(daemon, callers, gate, "held", 3)
        throttled(daemon, "held", ACCOUNT_LIMIT)
        throttled(daemon, "other", ACCOUNT_LIMIT)
        # Another account, and the same account in another region, have limits of their own.
        for client in (daemon.client(account="123456789012"), daemon.client(region="eu-west-1")):
            daemon.deploy("other", QUICK, client=client)
            assert daemon.invoke("other", client=client).result == "done"
        released(gate, running)
        assert daemon.invoke("other").result == "done"


def test_a_reservation_is_set_aside_from_the_account(callers: ThreadPoolExecutor, gate: Gate) -> None:
    with running_daemon("--concurrency", "102") as daemon:
        daemon.deploy("mine", HELD, Timeout=60)
        with pytest.raises(ClientError) as caught:
            daemon.lambda_.put_function_concurrency(FunctionName="mine", ReservedConcurrentExecutions=3)
        assert caught.value.response["Error"]["Message"].endswith("below its minimum value of [100].")
        daemon.lambda_.put_function_concurrency(FunctionName="mine", ReservedConcurrentExecutions=2)
        running = hold(daemon, callers, gate, "mine", 2)
        throttled(daemon, "mine", RESERVED)
        released(gate, running)


def test_more_calls_than_this_machine_may_hold_wait_and_are_not_refused(
    callers: ThreadPoolExecutor, gate: Gate
) -> None:
    with running_daemon("--environments-max", "2") as daemon:
        daemon.deploy("queued", HELD, Timeout=60)
        running = [callers.submit(daemon.invoke, "queued", {"gate": gate.port, "call": call}) for call in range(6)]
        for _ in range(3):
            gate.arrive(2)
            assert len(daemon.environments("queued")) == 2
            gate.open()
        assert [future.result().result for future in running] == list(range(6))
        assert daemon.health()["statistics"]["dispatcher"]["environments_started"] == 2


# ---- change ------------------------------------------------------------------------------------------


def versioned(number: int) -> str:
    return GATE_CODE + (
        "def handler(event, context):\n"
        "    if event:\n        wait_at(event['gate'])\n        import late\n        return late.NUMBER\n"
        f"    return {number}\n"
    )


def package(number: int) -> dict[str, str]:
    return {"app.py": versioned(number), "late.py": f"NUMBER = {number}\n"}


def test_what_runs_finishes_on_the_old_code(daemon: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate) -> None:
    daemon.deploy("updated", package(1), Timeout=60)
    assert daemon.invoke("updated").result == 1
    old = [callers.submit(daemon.invoke, "updated", {"gate": gate.port}) for _ in range(2)]
    gate.arrive(2)
    before = {one["pid"] for one in daemon.environments("updated")}
    daemon.update("updated", package(2))
    assert [daemon.invoke("updated").result for _ in range(3)] == [2, 2, 2]
    gate.open()
    # What it imports only now is still the old package's.
    assert [future.result().result for future in old] == [1, 1]
    assert daemon.invoke("updated").result == 2
    while any(one["pid"] in before for one in daemon.environments("updated")):
        pass  # they are stopped at once, and gone soon


def test_a_changed_configuration_makes_new_environments(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "configured",
        "import os\ndef handler(e, context):\n    return [os.environ.get('STAGE'), context.memory_limit_in_mb]\n",
    )
    assert daemon.invoke("configured").result == [None, "128"]
    daemon.lambda_.update_function_configuration(
        FunctionName="configured", MemorySize=256, Environment={"Variables": {"STAGE": "two"}}
    )
    daemon.settle("configured")
    invoked = daemon.invoke("configured")
    assert invoked.result == ["two", "256"]
    assert "\tMemory Size: 256 MB\t" in invoked.report
    pids = [one["pid"] for one in daemon.environments("configured")]
    daemon.lambda_.update_function_configuration(FunctionName="configured", Description="changes nothing that runs")
    daemon.settle("configured")
    daemon.invoke("configured")
    assert [one["pid"] for one in daemon.environments("configured")] == pids


def test_no_call_is_lost_while_the_code_changes(daemon: RunningDaemon, callers: ThreadPoolExecutor) -> None:
    daemon.deploy("shifting", "def handler(event, context):\n    return 0\n")
    stop = False

    def call() -> list[int]:
        seen: list[int] = []
        while not stop:
            seen.append(daemon.invoke("shifting").result)
        return seen

    threads = [callers.submit(call) for _ in range(4)]
    try:
        for number in range(1, 8):
            daemon.update("shifting", f"def handler(event, context):\n    return {number}\n")
            assert daemon.invoke("shifting").result == number
    finally:
        stop = True
    for thread in threads:
        seen = thread.result()
        assert seen == sorted(seen), "nobody is sent back to older code"


def test_a_deleted_function_finishes_what_it_runs(
    daemon: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate
) -> None:
    daemon.deploy("doomed", HELD, Timeout=60)
    daemon.lambda_.put_function_concurrency(FunctionName="doomed", ReservedConcurrentExecutions=2)
    running = hold(daemon, callers, gate, "doomed", 2)
    daemon.lambda_.delete_function(FunctionName="doomed")
    assert daemon.send_invoke("doomed").status == 404
    # Its successor has neither its reservation nor its environments.
    daemon.deploy("doomed", QUICK)
    assert [daemon.invoke("doomed").result for _ in range(2)] == ["done", "done"]
    released(gate, running)
    assert daemon.lambda_.get_function_concurrency(FunctionName="doomed").get("ReservedConcurrentExecutions") is None


# ---- restarts ----------------------------------------------------------------------------------------


def test_functions_and_reservations_survive_a_restart(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with running_daemon("--data-dir", str(directory), ephemeral=False) as daemon:
        daemon.deploy(
            "kept",
            {
                "app.py": "import os, words\ndef handler(event, context):\n    return [words.SAID, os.environ['STAGE']]\n",
                "words.py": "SAID = 'ä'\n",
            },
            environment={"STAGE": "one"},
        )
        daemon.deploy("limited", QUICK)
        daemon.deploy("gone", QUICK)
        daemon.lambda_.put_function_concurrency(FunctionName="limited", ReservedConcurrentExecutions=0)
        daemon.lambda_.delete_function(FunctionName="gone")
        before = daemon.lambda_.get_function_configuration(FunctionName="kept")
        assert daemon.invoke("kept").result == ["ä", "one"]
    with running_daemon("--data-dir", str(directory), ephemeral=False) as daemon:
        assert daemon.invoke("kept").result == ["ä", "one"]
        after = daemon.lambda_.get_function_configuration(FunctionName="kept")
        for answer in (before, after):
            del answer["ResponseMetadata"]
        assert after == before
        throttled(daemon, "limited", RESERVED)
        listed = daemon.lambda_.list_functions()["Functions"]
        assert sorted(one["FunctionName"] for one in listed) == ["kept", "limited"]


def accepts(daemon: RunningDaemon) -> bool:
    try:
        return daemon.send("GET", "/_fastlam/health").status == 200
    except ConnectionError:
        return False


def test_stopping_lets_what_runs_end(callers: ThreadPoolExecutor, gate: Gate) -> None:
    with running_daemon() as daemon:
        daemon.deploy("last", HELD, Timeout=60)
        running = hold(daemon, callers, gate, "last", 2)
        daemon.process.send_signal(signal.SIGTERM)
        while accepts(daemon):  # until it has heard
            pass
        assert daemon.process.poll() is None
        released(gate, running)
        assert daemon.process.wait(60) == 0


def test_reset_empties_an_ephemeral_daemon_and_no_other(tmp_path: Path) -> None:
    with running_daemon() as daemon:
        daemon.deploy("one", QUICK)
        daemon.invoke("one")
        assert daemon.send("POST", "/_fastlam/reset").status == 200
        assert daemon.lambda_.list_functions()["Functions"] == []
        assert daemon.send_invoke("one").status == 404
        daemon.deploy("one", "def handler(event, context):\n    return 'again'\n")
        assert daemon.invoke("one").result == "again"
    with running_daemon("--data-dir", str(tmp_path / "data"), ephemeral=False) as daemon:
        daemon.deploy("one", QUICK)
        answer = daemon.send("POST", "/_fastlam/reset")
        assert (answer.status, "--ephemeral" in answer.json["message"]) == (409, True)
        assert daemon.invoke("one").result == "done"
