"""/tmp: what it holds, what it costs, and to whom it goes after a timeout or a crash; as root's daemon and as a user's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, Final

import pytest

from daemon_running import SNAPPED_RUNTIME, RunningDaemon, running_daemon
from fastlam.runtimes.python import INTERPRETER
from ordinary_user import as_ordinary_user

CODE: Final = """
import ctypes, os, resource, sys, time
NAME = os.urandom(8).hex()

def handler(event, context):
    return globals()[event["do"]](**event.get("with", {}))

def look():
    return sorted(os.listdir("/tmp"))

def write(name, then="", mb=0):
    with open("/tmp/" + name, "ab") as file:
        file.write(b"x")
        for _ in range(mb):
            file.write(bytes(1 << 20))
    if then:
        globals()[then]()
    return NAME

def who():
    return NAME

def stream():
    return os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]

def time_out():
    time.sleep(60)

def leave():
    sys.exit(3)

def crash():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # some machines would put the core into /tmp
    ctypes.string_at(0)

def eat():
    held = []
    while True:
        held.append(bytearray(b"x") * (1 << 20))
"""
HOLDS_A_WALL: Final = "namespaces"


class Daemon:
    """A daemon, and functions of CODE."""

    def __init__(self, running: RunningDaemon, missing: str) -> None:
        self.running = running
        self.missing = missing  # as the console has it

    def deploy(self, name: str, *, restored: bool = False, **more: Any) -> str:
        settings = {"Timeout": 2, "MemorySize": 256, **more}
        return self.running.snap(name, CODE, **settings) if restored else self.running.deploy(name, CODE, **settings)

    def call(self, function: str, what: str, **how: Any) -> Any:
        return self.running.invoke(function, {"do": what, "with": how})


@pytest.fixture(scope="module", params=["root", "user"])
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("root can run the tests of both")
    user = as_ordinary_user() if request.param == "user" and os.geteuid() == 0 else nullcontext([])
    with (
        user as prefix,
        running_daemon(isolation="auto", prefix=prefix, complains=SNAPPED_RUNTIME != INTERPRETER) as running,
    ):
        assert running.process.stdout is not None
        line = running.process.stdout.readline()
        if f"{HOLDS_A_WALL} (" in line:
            pytest.skip(f"this machine permits no namespaces: {line}")
        yield Daemon(running, line)


@pytest.mark.parametrize("restored", [False, True], ids=["forked", "restored"])
@pytest.mark.parametrize("end", ["time_out", "leave", "crash", "eat"])
def test_it_outlives_a_reset(daemon: Daemon, end: str, restored: bool) -> None:
    """The next process of the environment finds what the one before has left, and can change it."""
    if end == "eat" and "memory (" in daemon.missing:
        pytest.skip("nothing bounds its memory here")
    function = daemon.deploy(f"{end}-{'restored' if restored else 'forked'}".replace("_", "-"), restored=restored)
    other = daemon.deploy(f"other-{function.partition(':')[0]}")
    first = daemon.call(function, "who").result
    for _ in range(2):
        assert daemon.call(function, "write", name="x", then=end).error == "Unhandled"
        assert daemon.call(other, "look").result == []
        assert daemon.call(function, "look").result == ["x"]
        assert daemon.call(function, "write", name="x").result == daemon.call(function, "who").result
        if not restored:
            second = daemon.call(function, "who").result
            assert second != first, "it was no new process"
            first = second


def test_it_outlives_resets_with_the_log_stream(daemon: Daemon) -> None:
    function = daemon.deploy("streams")
    before = daemon.call(function, "stream").result
    assert daemon.call(function, "leave").error == "Unhandled"
    assert daemon.call(function, "stream").result == before


def test_only_one_environment_gets_it(daemon: Daemon) -> None:
    """Two at a time after one reset: one of them has the old /tmp, the other one an empty one."""
    from concurrent.futures import ThreadPoolExecutor

    function = daemon.deploy("one", Timeout=3)
    assert daemon.call(function, "write", name="x", then="leave").error == "Unhandled"
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda name: daemon.call(function, "write", name=name, then="time_out").error, "ab"))
        assert ends == ["Unhandled"] * 2
        seen = [each.result for each in pool.map(lambda _: daemon.call(function, "look"), range(2))]
    assert sum("x" in each for each in seen) <= 1 or seen[0] == seen[1]
    for each in seen:
        assert each in (["a"], ["b"], ["a", "x"], ["b", "x"])


def test_new_code_begins_with_an_empty_one(daemon: Daemon) -> None:
    function = daemon.deploy("updated")
    assert daemon.call(function, "write", name="x", then="leave").error == "Unhandled"
    daemon.running.update(function, CODE + "\n# new\n")
    assert daemon.call(function, "look").result == []


def test_an_end_that_is_no_reset_leaves_nothing(daemon: Daemon) -> None:
    """A change of the configuration retires the environment, and its /tmp with it."""
    function = daemon.deploy("retired")
    assert daemon.call(function, "write", name="x").error is None
    daemon.running.lambda_.update_function_configuration(FunctionName=function, MemorySize=300)
    daemon.running.settle(function)
    assert daemon.call(function, "look").result == []
