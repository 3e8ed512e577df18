"""What is no message, or none that ever ends, written to the dispatcher from inside an environment: that one is ended, and
the daemon keeps nothing of it.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from typing import Final

import pytest

from daemon_running import RunningDaemon
from failed_calls import answered_or_exited, timed_out
from fastlam import limits
from fastlam.config import lane_kind
from fastlam.wire.frames import Result
from hostile_function import CODE, act, costs_the_environment, pid_now, resident_bytes
from played_environments import message, zmtp

pytestmark = pytest.mark.usefixtures("others_notice_nothing")

RESULT: Final = Result(0, 5, 5, 5, 0)
GOOD: Final = message(RESULT, b"1")


@pytest.mark.parametrize("stay", [True, False], ids=["and waits", "and returns"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff" * 300, id="noise"),
        pytest.param(b"\xff" + bytes(8) + b"\x7f\3\0NULL".ljust(55, b"\0"), id="a greeting"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="http"),
        pytest.param(b"\2" + b"\xff" * 8, id="an impossible size"),
        pytest.param(zmtp(b"\4PING\0\0", 4), id="a command"),
    ],
)
def test_what_is_no_zmtp(daemon: RunningDaemon, data: bytes, stay: bool) -> None:
    costs_the_environment(daemon, "write", data, stay=stay)


@pytest.mark.parametrize("stay", [True, False], ids=["and waits", "and returns"])
@pytest.mark.parametrize("size", [limits.FRAME_BYTES_MAX + 1, 7_000_000, 100_000_000, 1 << 40, (1 << 63) - 1])
def test_a_message_over_the_limit(daemon: RunningDaemon, size: int, stay: bool) -> None:
    costs_the_environment(daemon, "announce", size=size, stay=stay, reason="a message over the limit")


@pytest.mark.parametrize("stay", [True, False], ids=["and waits", "and returns"])
@pytest.mark.parametrize(
    "parts",
    [[GOOD, GOOD, b"x"], [b"part"] * 5000 + [b""]],
    ids=["good frames", "many"],
)
def test_several_parts_are_no_frame(daemon: RunningDaemon, parts: list[bytes], stay: bool) -> None:
    data = b"".join(zmtp(part, 1) for part in parts[:-1]) + zmtp(parts[-1])
    costs_the_environment(daemon, "write", data, stay=stay)


@pytest.mark.parametrize("stay", [True, False], ids=["and waits", "and returns"])
@pytest.mark.parametrize("count", [1, 10, 1000])
def test_a_first_part_is_refused_without_its_last(daemon: RunningDaemon, count: int, stay: bool) -> None:
    """The runtime's own answer, if there is one, comes as the last part."""
    costs_the_environment(daemon, "write", zmtp(bytes(500), 1) * count, stay=stay)


def test_half_a_message_is_not_taken_for_one(daemon: RunningDaemon) -> None:
    """The runtime's answer vanishes in a message that has no end: the function's timeout is the end of it. Beside rings the
    connection carries nothing that it could vanish in.
    """
    daemon.deploy("halting", CODE, Timeout=1)
    half = b"\2" + struct.pack(">Q", 1_000_000) + b"x" * 100
    written = act(daemon, "write", half, function="halting")
    if lane_kind() == "ring":
        assert written.result == "written"
    else:
        timed_out(written, 1)
    assert isinstance(pid_now(daemon, "halting"), int)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(zmtp(message(RESULT, b"x" * 1_000_000)), id="replies"),
        pytest.param(zmtp(b"x" * 1_000_000, 1), id="parts"),
        pytest.param(zmtp(b"x" * 1_000_000, 1) + zmtp(b""), id="messages of two parts"),
        pytest.param(zmtp(b"x" * 1000, 4), id="commands"),
    ],
)
def test_filling_the_socket(daemon: RunningDaemon, data: bytes, request: pytest.FixtureRequest) -> None:
    """The environment ends, by the dispatcher's hand or its timeout, and the daemon has not stored what was poured."""
    name = daemon.deploy("pouring-" + request.node.callspec.id.replace(" ", "-"), CODE, Timeout=2)
    before = resident_bytes(daemon)
    invoked = daemon.invoke(name, {"act": "pour", "data": b64encode(data).decode()})
    assert invoked.json["errorType"] in ("Runtime.ExitError", "Sandbox.Timedout")
    assert resident_bytes(daemon) < before + 200_000_000
    daemon.lambda_.delete_function(FunctionName=name)


@pytest.mark.parametrize("stay", [False, True])
def test_closing_the_lane(daemon: RunningDaemon, stay: bool) -> None:
    pid = pid_now(daemon)
    answered_or_exited(act(daemon, "close_lane", stay=stay))
    assert pid_now(daemon) != pid


def test_a_second_peer_on_the_same_socket(daemon: RunningDaemon) -> None:
    """The path of its own socket is known to a worker: what else connects there is not served, and the lane goes on."""
    pid = pid_now(daemon)
    for size in (0, 10, 100_000):
        assert act(daemon, "call_in", size=size).result == "called"
    assert pid_now(daemon) == pid
