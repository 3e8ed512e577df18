"""The life of execution environments in a running daemon: INIT that is repeated, keep-alive, age, and how they end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon_running import RunningDaemon, running_daemon
from waiting import await_that

pytestmark = pytest.mark.lanes

QUICK = "import os\ndef handler(event, context):\n    return os.getpid()\n"

# The first INIT of a function with this code fails as its variables say; what it does first and last is in the log.
TWICE = """
import os, pathlib, time
mark = pathlib.Path(os.environ["MARK"])
first = not mark.exists()
mark.touch()
print("first" if first else "second")
if first or os.environ["SECOND"] != "succeeds":
    HOW
time.sleep(float(os.environ.get("SLEEP", "0")))

def handler(event, context):
    return context.get_remaining_time_in_millis()
"""


def statistics(daemon: RunningDaemon) -> dict[str, int]:
    found: dict[str, int] = daemon.health()["statistics"]["dispatcher"]
    return found


def twice(daemon: RunningDaemon, directory: Path, name: str, how: str, second: str, **more: Any) -> None:
    """A function whose first INIT, or both, end with the statement `how`."""
    variables = {"MARK": str(directory / name), "SECOND": second, **more.pop("variables", {})}
    daemon.deploy(name, TWICE.replace("HOW", how), environment=variables, **more)


# ---- INIT --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "error_type"),
    [("raise KeyError('x')", "KeyError"), ("os._exit(3)", "Runtime.ExitError"), ("import nothing", "Runtime.ImportModuleError")],
)  # fmt: skip
def test_the_reports_of_two_failed_inits(daemon: RunningDaemon, tmp_path: Path, how: str, error_type: str) -> None:
    name = f"fails-{error_type.replace('.', '-')}"
    twice(daemon, tmp_path, name, how, "fails")
    invoked = daemon.invoke(name)
    assert (invoked.error, invoked.json["errorType"]) == ("Unhandled", error_type)
    lines = [line for line in invoked.log.split("\n") if re.match("INIT_REPORT|START|END|REPORT|first|second", line)]
    number = r"\d+\.\d\d"
    expected = [
        "first",
        rf"INIT_REPORT Init Duration: {number} ms\tPhase: init\tStatus: error\tError Type: {re.escape(error_type)}",
        "second",
        rf"INIT_REPORT Init Duration: {number} ms\tPhase: invoke\tStatus: error\tError Type: {re.escape(error_type)}",
        rf"START RequestId: {invoked.request_id} Version: \$LATEST",
        f"END RequestId: {invoked.request_id}",
        rf"REPORT RequestId: {invoked.request_id}\tDuration: {number} ms\tBilled Duration: \d+ ms\t"
        r"Memory Size: 128 MB\tMax Memory Used: \d+ MB\t"
        + (r"Status: error\tError Type: Runtime\.ExitError" if error_type == "Runtime.ExitError" else ""),
    ]
    assert len(lines) == len(expected), invoked.log
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)


def test_a_repeated_init_takes_of_the_time_of_the_invocation(daemon: RunningDaemon, tmp_path: Path) -> None:
    before = statistics(daemon)["cold_starts"]
    twice(daemon, tmp_path, "slow", "raise KeyError('x')", "succeeds", Timeout=30, variables={"SLEEP": "2"})
    invoked = daemon.invoke("slow")
    assert 0 < invoked.result <= 30_000 - 2000
    duration, billed = map(float, re.findall(r"Duration: ([\d.]+) ms", invoked.report))
    assert 2000 <= duration <= billed
    assert [line for line in invoked.log.splitlines() if line in ("first", "second")] == ["first", "second"]
    assert invoked.log.index("second") < invoked.log.index("START")
    assert 30_000 - 2000 < daemon.invoke("slow").result <= 30_000, "an environment that is there has all of it"
    assert statistics(daemon)["cold_starts"] == before + 1


def test_the_rest_of_the_time_is_all_that_is_left_after_a_repeated_init(daemon: RunningDaemon, tmp_path: Path) -> None:
    code = (
        "import os, pathlib, time\n"
        "mark = pathlib.Path(os.environ['MARK'])\n"
        "if not mark.exists():\n    mark.touch()\n    raise KeyError('x')\n"
        "time.sleep(1.5)\n"
        "def handler(event, context):\n    time.sleep(1)\n"
    )
    daemon.deploy("rest", code, environment={"MARK": str(tmp_path / "rest")}, Timeout=2)
    invoked = daemon.invoke("rest")
    assert invoked.json["errorType"] == "Sandbox.Timedout", "2.5 seconds were over two"
    assert "\tDuration: 2000.00 ms\tBilled Duration: 2000 ms\t" in invoked.report
    assert daemon.invoke("rest").error is None, "an INIT before it takes none of its time"


# ---- keep-alive and age ------------------------------------------------------------------------------


def test_without_keep_alive_every_invocation_is_a_cold_start() -> None:
    with running_daemon("--keepalive", "0") as daemon:
        daemon.deploy("cold", QUICK)
        calls = [daemon.invoke("cold") for _ in range(5)]
        assert len({call.result for call in calls}) == 5
        assert all("Init Duration" in call.report for call in calls)
        found = statistics(daemon)
        assert [found[name] for name in ("cold_starts", "environments_started", "environments_reaped")] == [5, 5, 5]
        listed = subprocess.run(
            [sys.executable, "-m", "fastlam", "--endpoint-url", daemon.url, "ps", "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert listed.stdout.startswith("[")
        await_that(lambda: daemon.environments("cold") == [])


@pytest.mark.parametrize("option", ["--keepalive", "--idle-seconds"])
def test_what_nobody_uses_is_killed_after_its_time(option: str, tmp_path: Path) -> None:
    """Without extensions there is no time to say good-bye: neither SIGTERM nor the interpreter's end."""
    code = (
        "import atexit, os, pathlib, signal, sys\n"
        "def note(*_):\n    pathlib.Path(os.environ['MARK']).touch()\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, note)\n"
        "atexit.register(note)\n"
        "def handler(event, context):\n    return os.getpid()\n"
    )
    mark = tmp_path / "mark"
    with running_daemon(option, "0.05") as daemon:
        daemon.deploy("idle", code, environment={"MARK": str(mark)})
        first = daemon.invoke("idle").result
        await_that(lambda: daemon.environments("idle") == [])
        assert not mark.exists()
        assert statistics(daemon)["environments_reaped"] == 1
        assert daemon.invoke("idle").result != first


def test_what_is_too_old_is_replaced() -> None:
    with running_daemon("--recycle-after", "0.05") as daemon:
        daemon.deploy("old", QUICK)
        first = daemon.invoke("old").result
        await_that(lambda: daemon.environments("old") == [])
        assert daemon.invoke("old").result != first
        assert statistics(daemon)["environments_recycled"] >= 1


def test_without_age_and_within_the_keep_alive_it_stays() -> None:
    with running_daemon("--recycle-after", "0", "--keepalive", "3600") as daemon:
        daemon.deploy("kept", QUICK)
        daemon.deploy("other", QUICK)
        pids = {daemon.invoke("kept").result for _ in range(20)}
        assert len(pids) == 1


# ---- this machine's bound ----------------------------------------------------------------------------


def test_a_full_machine_says_so_once() -> None:
    with running_daemon("--environments-max", "1", complains=True) as daemon:
        for name in ("one", "two"):
            daemon.deploy(name, QUICK)
        for _ in range(3):
            for name in ("one", "two"):
                assert daemon.invoke(name).error is None
        assert daemon.health()["limits"] == {"concurrency": 1000, "environments": 1}
        await_that(daemon.stderr)
        assert statistics(daemon)["environments_evicted"] == 5
        (said,) = daemon.stderr().splitlines()
        assert "this machine's bound of 1 execution environments is reached: " in said
        assert "idle ones made room (--environments-max raises it)" in said
