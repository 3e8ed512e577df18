"""Which frames a dispatcher takes from an environment in which state, and what becomes of one that sends another."""

from __future__ import annotations

import select
import socket
import threading
import time

import msgspec
import pytest

from fastlam import limits
from fastlam.core.dispatcher import OUTCOME_FUNCTION_ERROR, OUTCOME_LOST, OUTCOME_OK, Invocation, Target
from fastlam.wire import frames
from played_environments import Played, Stage
from waiting import await_that

pytestmark = pytest.mark.lanes


def encoded(header: frames.Frame | bytes, payload: bytes = b"") -> bytes:
    """A frame as it stands in a message; bytes where no frame may be."""
    data = header if isinstance(header, bytes) else msgspec.msgpack.encode(header)
    return len(data).to_bytes(4, "little") + data + payload


def begun(stage: Stage) -> tuple[Invocation, Played]:
    """A call that its worker has begun."""
    call = stage.call(stage.function(timeout_ms=600_000))
    played = stage.played[-1]
    played.ready()
    stage.drive()
    played.begin()
    return call, played


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        b"\xff" * 20,
        encoded(b""),
        encoded(b"\xc1"),
        encoded(b"\x91" * 5000),
        encoded(msgspec.msgpack.encode([18, 0, 1, 1, 1, 0, "AB", ""]).replace(b"AB", b"\xff\xfe")),
        encoded(msgspec.msgpack.encode([18, 0, 2**64 - 1, 1, 1, 0])),
        encoded(frames.Stop()),
        encoded(frames.Result(1, 1, 1, 1, 0)),
        encoded(frames.Result(0, 1, 1, 1, 0), b'"before the call is over"'),
        encoded(frames.TaskResult(0, 1, False)),
        encoded(frames.Ready(frames.PROTOCOL_VERSION, 1, 1, 0)),
        encoded(frames.Ready(99, 1, 1, 0)),
        encoded(frames.InitFailed(frames.PROTOCOL_VERSION, 1, 1, 0, "kind")),
        bytes(4) + bytes(limits.FRAME_HEADER_BYTES_MAX + 1),
    ],
)
def test_a_frame_out_of_place_ends_this_environment_only(stage: Stage, data: bytes) -> None:
    other, good = begun(stage)
    call, bad = begun(stage)
    bad.say(data)
    stage.drive()
    assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")
    assert "broke the protocol" in (call.error or "")
    assert stage.dispatcher.environments_all() == [good.environment]
    assert not other.done
    assert stage.dispatcher.statistics()["bad_frames"] == 1
    good.answer(0, b"1")
    stage.drive()
    assert (other.outcome, other.result) == (OUTCOME_OK, b"1")


def test_several_parts_are_no_frame(stage: Stage) -> None:
    call, played = begun(stage)
    played.say(encoded(frames.Stop()), b"more")
    stage.drive()
    assert call.error_type == "Runtime.ExitError"


def test_an_answer_that_comes_twice_is_not_the_next_calls(stage: Stage) -> None:
    first, played = begun(stage)
    second = stage.call(first.target)
    stage.played[-1].ready()  # the second call has an environment of its own coming
    played.answer(0, b'"first"')
    played.say(encoded(frames.Result(0, 1, 1, 1, 0), b'"first"'))
    stage.drive()
    assert first.result == b'"first"'
    assert not second.done
    assert played.environment not in stage.dispatcher.environments_all()


def test_an_environment_that_closes_its_lane(stage: Stage) -> None:
    """No process has ended and no frame has come: the dispatcher finds out by itself."""
    call, played = begun(stage)
    played.peer.close()
    assert stage.dispatcher.drive_until(lambda: call.done, 30)
    assert "closed its lane" in call.error


def test_garbage_instead_of_ready_is_tried_twice(stage: Stage) -> None:
    call = stage.call(stage.function(timeout_ms=600_000))
    for turn in (1, 2):
        assert len(stage.played) == turn
        stage.played[-1].say(b"garbage")
        stage.drive()
    assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")
    assert len(stage.played) == 2
    assert stage.dispatcher.environments_all() == []
    assert call.target.pool.running == 0


def test_init_failed_gives_the_runtimes_own_error(stage: Stage) -> None:
    call = stage.call(stage.function(timeout_ms=600_000))
    failed = frames.InitFailed(frames.PROTOCOL_VERSION, 5, 5, 0, "Runtime.ImportModuleError")
    for _ in range(2):
        stage.played[-1].say(encoded(failed, b'{"errorType": "its own"}'))
        stage.drive()
    assert (call.error_type, call.result) == ("Runtime.ImportModuleError", b'{"errorType": "its own"}')


@pytest.mark.parametrize("idle", [False, True])
def test_a_command_costs_the_environment(stage: Stage, idle: bool) -> None:
    """Nobody has asked for heartbeats, and what costs nothing could be sent without end."""
    call, played = begun(stage)
    if idle:
        played.answer(0, b"1")
        stage.drive()
    played.peer.send_raw(b"\4\7\4PING\0\0")
    stage.drive()
    assert stage.dispatcher.environments_all() == []
    assert call.outcome == (OUTCOME_OK if idle else OUTCOME_FUNCTION_ERROR)


# --- lanes that end -----------------------------------------------------------------------------------


def holding(stage: Stage, count: int) -> tuple[Played, list[Invocation]]:
    """A worker that has so many tasks at a time, because the first one has been short."""
    target = Target("tasks", None, slots_per_environment=4, environments_max=1)
    first = stage.call(target)
    played = stage.played[-1]
    played.ready()
    stage.drive()
    played.begin()
    played.reply(0, frames.TaskResult(0, 1000, False), b"short")
    stage.drive()
    assert first.outcome == OUTCOME_OK
    return played, [stage.call(target) for _ in range(count)]


def test_a_worker_that_takes_no_more_is_still_heard(stage: Stage) -> None:
    """It has answered and gone: the next task cannot be posted to it, and its answer, too large for the slot table, is
    in the socket alone.
    """
    played, (answered, posted) = holding(stage, 2)
    frame, _ = played.begin()
    played.answer_task(frame.slot, b"x" * 5000)
    played.peer.close()
    late = stage.call(answered.target)
    stage.die(played.environment, 9)
    stage.drive()
    assert (answered.outcome, answered.result) == (OUTCOME_OK, b"x" * 5000)
    assert (posted.done, late.done) == (False, False)
    assert stage.played[-1] is not played, "nobody takes over what it has not begun"


def test_an_environment_that_does_not_listen_is_replaced(stage: Stage) -> None:
    """Beside rings the connection has nothing to tell that a worker would have to hear."""
    first, played = begun(stage)
    played.answer(0, b"1")
    stage.drive()
    played.peer.connection.shutdown(socket.SHUT_RD)
    call = stage.call(first.target)
    if played.rings is None:
        assert stage.dispatcher.drive_until(lambda: stage.played[-1] is not played, 30)
        stage.played[-1].ready()
        stage.drive()
    stage.played[-1].begin()
    stage.played[-1].answer(0, b"2")
    stage.drive()
    assert call.result == b"2"


def test_a_closed_lane_is_found_beside_an_executor(stage: Stage) -> None:
    """The environment of a function is looked after as well when it is not the first of all."""
    holding(stage, 0)
    call, played = begun(stage)
    played.peer.close()
    assert stage.dispatcher.drive_until(lambda: call.done, 30)


def test_an_answer_that_is_there_at_the_deadline_counts(stage: Stage) -> None:
    """However many reads it takes."""
    call = stage.call(stage.function(timeout_ms=100))
    played = stage.played[-1]
    played.ready()
    stage.drive()
    played.begin()
    played.answer(0, b"x" * 100_000)
    await_that(lambda: time.monotonic_ns() > call.posted_ns + 100_000_000)
    stage.drive()
    assert (call.outcome, call.error_type) == (OUTCOME_OK, "")


def test_what_comes_after_the_end_of_a_process_is_not_read(stage: Stage) -> None:
    """A child that it has left behind may write for as long as the lane is open: it must not hold up everybody else."""
    call, played = begun(stage)
    connection, taken = played.peer.connection.dup(), []
    connection.setblocking(True)
    answer = encoded(frames.Result(1, 1, 1, 1, 0))  # of an environment that is being ended, no reason to end it
    flood = (bytes([0, len(answer)]) + answer) * 3_000_000

    def write() -> None:
        taken.append(connection.send(flood))  # one call, during which nobody needs the interpreter's lock

    child = threading.Thread(target=write)
    child.start()
    poller = select.poll()
    poller.register(connection, select.POLLOUT)
    await_that(lambda: not poller.poll(0))
    played.environment.end("enough of it")
    stage.drive()
    assert call.done
    child.join()
    connection.close()
    assert taken[0] < 2_000_000


def test_interrupts_among_the_last_words_of_a_worker(stage: Stage) -> None:
    """They belong to whoever drives: all of the worker's tasks end or go elsewhere all the same."""
    played, (answered, *lost, posted) = holding(stage, 4)
    told = set()

    def interrupted_once(invocation: Invocation) -> None:
        if invocation not in told:
            told.add(invocation)
            raise KeyboardInterrupt

    first, *_ = [played.begin()[0] for _ in range(3)]
    for invocation in (answered, *lost):
        invocation.on_done = interrupted_once
    stage.die(played.environment, 9)  # is heard of first, and then its lane drained
    played.answer_task(first.slot, b"1")
    interrupts = 0
    while not (answered.done and all(invocation.done for invocation in lost)):
        try:
            assert stage.dispatcher.drive_until(lambda: stage.played[-1] is not played, 30)
        except KeyboardInterrupt:
            interrupts += 1
    assert 0 < interrupts <= len(told) == 3
    assert [invocation.outcome for invocation in (answered, *lost)] == [OUTCOME_OK, OUTCOME_LOST, OUTCOME_LOST]
    assert stage.dispatcher.drive_until(lambda: played.environment not in stage.dispatcher.environments_all(), 30)
    stage.played[-1].ready()
    stage.drive()
    stage.played[-1].begin()
    assert posted.running
