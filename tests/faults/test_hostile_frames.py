"""Frames that no runtime sends, from inside an environment: it is ended with a clear reason, and nobody else notices."""

from __future__ import annotations

import struct
from typing import Final

import msgspec
import pytest

from daemon_running import RunningDaemon
from failed_calls import exited, killed
from fastlam import limits
from fastlam.wire.frames import PROTOCOL_VERSION, Chunk, InitFailed, Ready, Result, Stop, TaskResult
from hostile_function import BROKE_THE_PROTOCOL, CODE, act, bad_frames, costs_the_environment, event_of, pid_now
from played_environments import message
from waiting import await_that

pytestmark = [pytest.mark.lanes, pytest.mark.usefixtures("others_notice_nothing")]

RESULT: Final = Result(0, 5, 5, 5, 0)
FORGED: Final = message(RESULT, b'"forged"')


def headed(header: bytes) -> bytes:
    """A frame with what stands for its header."""
    return struct.pack("<I", len(header)) + header


BAD_FRAMES: Final = {
    "nothing at all": b"",
    "a cut length": b"\1\2\3",
    "no header": headed(b""),
    "a length without a header": b"\5\0\0\0",
    "a header longer than the message": struct.pack("<I", 100) + b"x" * 99,
    "a header of an impossible length": b"\xff" * 8,
    "a header over the limit": headed(bytes(limits.FRAME_HEADER_BYTES_MAX + 1)) + bytes(5000),
    "what is no msgpack": headed(b"\xc1\xc1\xc1"),
    "half a header": headed(msgspec.msgpack.encode(RESULT)[:-3]),
    "two headers": headed(msgspec.msgpack.encode(RESULT) * 2),
    "a map": headed(msgspec.msgpack.encode({"slot": 0})),
    "deep nesting": headed(b"\x91" * 60_000),
    "a text that is no UTF-8": headed(msgspec.msgpack.encode([18, 0, 5, 5, 5, 0, "AB"]).replace(b"AB", b"\xff\xfe")),
    "a type that there is not": message([99, 0]),
    "a text for a type": message(["18", 0, 5, 5, 5, 0]),
    "a text for a slot": message([18, "0", 5, 5, 5, 0]),
    "too few fields": message([18, 0]),
    "too many fields": message([18, 0, 5, 5, 5, 0, "", "", "more"]),
    "the dispatcher's Invoke": message([1, 0, "id", 5, "arn"]),
    "the dispatcher's Stop": message(Stop()),
    "a slot that there is not": message(Result(1, 5, 5, 5, 0), b"{}"),
    "a slot far out": message(Result(2**53, 5, 5, 5, 0), b"{}"),
    "a slot beyond 63 bits": message([18, 2**64 - 1, 5, 5, 5, 0]),
    "a negative slot": message([18, -1, 5, 5, 5, 0]),
    "a duration beyond 63 bits": message([18, 0, 2**64 - 1, 5, 5, 0]),
    "a negative duration": message([18, 0, -(2**63), 5, 5, 0]),
    "an end of output beyond 63 bits": message([18, 0, 5, 5, 5, 2**63]),
    "a negative end of output": message([18, 0, 5, 5, 5, -5]),
    "a reply of another kind": message(TaskResult(0, 5, False), bytes(20)),
    "a reply to a call that is not over": message(RESULT, b'"forged"'),
    "a piece of an answer that is taken whole": message(Chunk(0), b"x"),
    "a piece for a slot that there is not": message(Chunk(1), b"x"),
    "a piece for a negative slot": message([20, -1]),
    "Ready again": message(Ready(PROTOCOL_VERSION, 5, 5, 0)),
    "Ready of another version": message(Ready(PROTOCOL_VERSION + 1, 5, 5, 0)),
    "InitFailed after Ready": message(InitFailed(PROTOCOL_VERSION, 5, 5, 0, "Runtime.Forged"), b"{}"),
}


@pytest.mark.parametrize("stay", [True, False], ids=["and waits", "and returns"])
@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
def test_a_frame_that_breaks_the_protocol(daemon: RunningDaemon, frame: bytes, stay: bool) -> None:
    costs_the_environment(daemon, "say", frame, stay=stay)


@pytest.mark.parametrize("deed", ["forge", "say"])
def test_an_answer_given_twice(daemon: RunningDaemon, deed: str) -> None:
    """One may count, since it is the function's own: for the call that its environment has last been given, once that is
    marked as done. The answer too many ends the environment. To forge is to mark the slot as done, too.
    """
    for turn in range(10):
        pid, frames = pid_now(daemon), bad_frames(daemon)
        invoked = act(daemon, deed, *[FORGED] * (1 + turn % 2))
        if invoked.raw not in (b'"forged"', b'"said"'):
            exited(invoked)
        after = act(daemon, "hold")
        if after.error is not None:
            exited(after)
        elif isinstance(after.result, int):
            assert after.result != pid
        else:  # the dispatcher has read that late: the environment had been given the next call, and was done with it
            assert after.result in ("forged", "said")
        await_that(lambda frames=frames: bad_frames(daemon) > frames)
        assert pid_now(daemon) != pid


def test_an_answer_for_nobody(daemon: RunningDaemon) -> None:
    """Sent by a thread after its invocation was over."""
    frames = bad_frames(daemon)
    pid = act(daemon, "say_when_idle", FORGED).result
    await_that(lambda: bad_frames(daemon) == frames + 1)
    await_that(lambda: pid not in [row["pid"] for row in daemon.environments("hostile")])
    assert pid_now(daemon) != pid


def test_a_flood_of_answers(daemon: RunningDaemon) -> None:
    costs_the_environment(daemon, "say", message(RESULT, b"x" * 1000), times=3000, stay=True)


# --- before INIT is over ------------------------------------------------------------------------------


def test_garbage_during_init(daemon: RunningDaemon) -> None:
    """INIT is tried twice and then the call has an error; nothing starts over and over."""
    garbage = event_of("say", b"garbage", stay=True)
    daemon.deploy("garbage", f"{CODE}\nsay({garbage!r})\n")
    before = daemon.health()["statistics"]["dispatcher"]["environments_started"]
    exited(daemon.invoke("garbage", {}))
    assert daemon.health()["statistics"]["dispatcher"]["environments_started"] == before + 2
    assert any(BROKE_THE_PROTOCOL in line for line in daemon.logs("garbage"))


def test_ready_before_its_time(daemon: RunningDaemon) -> None:
    """An environment that says Ready itself gets its call, and is ended when the real Ready comes."""
    ready = event_of("say", message(Ready(PROTOCOL_VERSION, 5, 5, 0)))
    daemon.deploy("early", f"{CODE}\nsay({ready!r})\n")
    killed(daemon.invoke("early", {"act": "hold"}))
