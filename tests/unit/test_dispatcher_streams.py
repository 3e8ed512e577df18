"""Answers in pieces: what reaches the caller and when, what a caller who does not keep up costs, how a stream ends."""

from __future__ import annotations

import select
import threading
import time

import pytest

from fastlam import limits
from fastlam.core.dispatcher import OUTCOME_CANCELLED, OUTCOME_FUNCTION_ERROR, OUTCOME_OK, Invocation, Target
from fastlam.wire.frames import Chunk, Invoke, Result
from played_environments import Played, Stage, message, zmtp
from waiting import await_that

pytestmark = pytest.mark.lanes

PIECE = b"x" * limits.CHUNK_BYTES_MAX
KEPT_MAX = limits.STREAM_PENDING_BYTES_MAX + limits.CHUNK_BYTES_MAX  # one piece may come in addition


def asked(stage: Stage, target: Target) -> Invocation:
    """A call whose caller takes the answer in pieces."""
    invocation = Invocation(target, b"{}")
    invocation.streams = True
    stage.dispatcher.submit(invocation)
    stage.drive()
    return invocation


def begun(stage: Stage, timeout_ms: int = 600_000) -> tuple[Invocation, Played]:
    """Such a call, that its worker has begun."""
    call = asked(stage, stage.function(timeout_ms=timeout_ms))
    played = stage.played[-1]
    played.ready()
    stage.drive()
    played.begin()
    return call, played


def say(stage: Stage, played: Played, *pieces: bytes, content_type: str = "") -> None:
    for piece in pieces:
        played.say(message(Chunk(0, content_type), piece))
    stage.drive()


class Flood:
    """A worker that goes on sending for as long as its lane takes anything."""

    def __init__(self, stage: Stage, played: Played, piece: bytes = PIECE) -> None:
        self.stage = stage
        self.played = played
        self.frame = message(Chunk(0), piece)
        self.sent_bytes = 0

    def rise(self) -> int:
        """Sends until neither the lane nor the dispatcher takes any more; how much has been sent in all."""
        before = -1
        while before < self.sent_bytes:
            before = self.sent_bytes
            self.stage.drive()
            self.sent_bytes += self.played.pour(self.frame)
        return self.sent_bytes


def test_the_worker_hears_how_the_answer_is_taken(stage: Stage) -> None:
    target = stage.function(timeout_ms=600_000)
    stage.serve(target, b"{}", b"1")
    stage.call(target)
    frame, _ = stage.played[-1].begin()
    assert isinstance(frame, Invoke) and not frame.response_stream
    stage.played[-1].answer(0, b"2")
    stage.drive()
    asked(stage, target)
    frame, _ = stage.played[-1].begin()
    assert isinstance(frame, Invoke) and frame.response_stream


def test_pieces_come_as_they_are_sent(stage: Stage) -> None:
    call, played = begun(stage)
    told = []
    call.on_chunk = lambda invocation: told.append((invocation.content_type, stage.dispatcher.take_pieces(invocation)))
    say(stage, played, b"", content_type="text/plain")
    assert (call.streamed, call.streamed_bytes, told) == (True, 0, [("text/plain", [])])
    say(stage, played, b"one", content_type="text/other")
    say(stage, played, b"two", b"three")
    assert told[1:] == [("text/plain", [b"one"]), ("text/plain", [b"two"]), ("text/plain", [b"three"])]
    assert not call.done
    played.answer(0, b"")
    stage.drive()
    assert (call.outcome, call.result, call.streamed_bytes) == (OUTCOME_OK, b"", 11)
    assert stage.dispatcher.take_pieces(call) == []


def test_pieces_can_be_taken_after_the_end(stage: Stage) -> None:
    call, played = begun(stage)
    say(stage, played, b"", b"one", b"", b"two")
    played.answer(0, b"")
    stage.drive()
    assert call.outcome == OUTCOME_OK
    assert stage.dispatcher.take_pieces(call) == [b"one", b"two"]
    assert stage.dispatcher.take_pieces(call) == []


def test_an_answer_without_pieces_is_none_of_a_stream(stage: Stage) -> None:
    call, played = begun(stage)
    played.answer(0, b'"whole"')
    stage.drive()
    assert (call.outcome, call.result, call.streamed) == (OUTCOME_OK, b'"whole"', False)
    assert stage.dispatcher.take_pieces(call) == []


def test_an_error_after_some_pieces(stage: Stage) -> None:
    call, played = begun(stage)
    say(stage, played, b"one")
    played.answer(0, b'{"errorType": "E"}', error_type="E")
    stage.drive()
    assert (call.outcome, call.error_type, call.result) == (OUTCOME_FUNCTION_ERROR, "E", b'{"errorType": "E"}')
    assert (call.streamed, stage.dispatcher.take_pieces(call)) == (True, [b"one"])
    assert call.target.errors == 1
    assert played.state == "idle"


def test_a_stream_over_the_limit_is_cut_and_goes_on(stage: Stage) -> None:
    call, played = begun(stage)
    got = 0
    for _ in range(limits.STREAM_BYTES_MAX // len(PIECE) + 20):
        say(stage, played, PIECE)
        got += sum(map(len, stage.dispatcher.take_pieces(call)))
    assert got == call.streamed_bytes == limits.STREAM_BYTES_MAX
    played.answer(0, b"")
    stage.drive()
    assert call.outcome == OUTCOME_OK


# --- callers who do not keep up -----------------------------------------------------------------------


def test_a_slow_caller_makes_the_worker_wait(stage: Stage) -> None:
    call, played = begun(stage)
    other = stage.function(timeout_ms=600_000)
    flood = Flood(stage, played)
    first = flood.rise()
    assert call.streamed_bytes <= KEPT_MAX
    assert flood.rise() == first, "the lane has room again"
    stage.serve(other, b"1", b"1")  # nobody else waits
    pieces = stage.dispatcher.take_pieces(call)
    assert sum(map(len, pieces)) == call.streamed_bytes
    second = flood.rise()
    while played.rings is not None and second == first:  # a region is used anew once its ring is empty
        stage.dispatcher.take_pieces(call)
        second = flood.rise()
    assert second - first >= limits.STREAM_PENDING_BYTES_MAX
    got = call.streamed_bytes
    while got < 50 * KEPT_MAX:
        stage.dispatcher.take_pieces(call)
        flood.rise()
        assert call.streamed_bytes - got <= KEPT_MAX
        got = call.streamed_bytes
    assert not call.done


def test_tiny_pieces_count_for_more_than_their_bytes(stage: Stage) -> None:
    call, played = begun(stage)
    Flood(stage, played, b"x").rise()
    assert call.streamed_bytes < limits.STREAM_PENDING_BYTES_MAX // 50


def test_a_loop_hears_of_pieces_that_have_been_read_already(stage: Stage) -> None:
    """Nothing is left in the socket that could wake it, and nobody rings."""
    call, played = begun(stage)
    count = limits.STREAM_PENDING_BYTES_MAX // 60
    if played.rings is None:
        played.peer.send_raw(zmtp(message(Chunk(0), b"x")) * count)
    for number in range(count if played.rings is not None else 0):
        played.say(message(Chunk(0), b"x"))
        if number % 1000 == 0:
            stage.drive()
    stage.drive()
    got = len(stage.dispatcher.take_pieces(call))
    assert got < count == got + count - call.streamed_bytes
    assert select.select([stage.dispatcher.fileno()], [], [], 0)[0], "nothing tells the loop"
    stage.drive()
    assert got + len(stage.dispatcher.take_pieces(call)) == count


def test_every_piece_arrives_in_order_through_a_slow_caller(stage: Stage) -> None:
    call, played = begun(stage)
    pieces = [bytes([number]) * 50_000 for number in range(100)]
    got: list[bytes] = []
    for piece in pieces:
        while not played.takes(message(Chunk(0), piece)):
            got += stage.dispatcher.take_pieces(call)
            stage.drive()
    while call.streamed_bytes < sum(map(len, pieces)):
        played.send_rest()
        got += stage.dispatcher.take_pieces(call)
        stage.drive()
    played.answer(0, b"")
    stage.drive()
    assert call.outcome == OUTCOME_OK
    got += stage.dispatcher.take_pieces(call)
    assert got == pieces


def test_a_call_ends_by_its_deadline_while_its_caller_does_not_read(stage: Stage) -> None:
    call, played = begun(stage, timeout_ms=2000)  # the flood has risen by then, under a sanitizer too
    Flood(stage, played).rise()
    await_that(lambda: time.monotonic_ns() > call.posted_ns + 2_000_000_000)
    stage.drive()
    assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Sandbox.Timedout")
    assert call.target.pool.running == 0
    assert stage.dispatcher.environments_all() == []
    # What was in the lane by then is there, and that is bounded: by a region, or by the socket.
    most = 4 * KEPT_MAX if played.rings is None else KEPT_MAX + limits.EXPRESS_REGION_BYTES
    assert call.streamed_bytes <= sum(map(len, stage.dispatcher.take_pieces(call))) <= most


def test_pieces_that_are_there_at_the_deadline_count(stage: Stage) -> None:
    call, played = begun(stage, timeout_ms=100)
    played.say(message(Chunk(0), b"in time"))
    await_that(lambda: time.monotonic_ns() > call.posted_ns + 100_000_000)
    stage.drive()
    assert call.error_type == "Sandbox.Timedout"
    assert stage.dispatcher.take_pieces(call) == [b"in time"]


def test_an_answer_that_is_there_at_the_deadline_counts(stage: Stage) -> None:
    """Also behind pieces that nobody has taken; the environment is used again."""
    call, played = begun(stage, timeout_ms=200)
    for _ in range(3):
        say(stage, played, PIECE, PIECE)  # more than is kept
    played.answer(0, b"")
    stage.drive()
    assert not call.done
    await_that(lambda: time.monotonic_ns() > call.posted_ns + 200_000_000)
    stage.drive()
    assert (call.outcome, sum(map(len, stage.dispatcher.take_pieces(call)))) == (OUTCOME_OK, 6 * len(PIECE))
    assert played.state == "idle"
    stage.serve(call.target, b"2", b"2")
    assert len(stage.played) == 1


def test_a_worker_that_dies_while_its_caller_does_not_read(stage: Stage) -> None:
    call, played = begun(stage)
    for _ in range(3):
        say(stage, played, PIECE, PIECE)
    taken = call.streamed_bytes
    assert taken < 6 * len(PIECE)
    played.peer.close()
    stage.drive()  # which must come to an end: a closed lane is told again and again
    stage.die(played.environment, 9)
    stage.drive()
    assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")
    assert sum(map(len, stage.dispatcher.take_pieces(call))) == 6 * len(PIECE), "what it had sent is lost"
    assert stage.dispatcher.environments_all() == []


def test_a_mirrored_answer_ends_the_stream_of_a_dead_worker(stage: Stage) -> None:
    """It had marked its call as done and could not send the answer any more. Beside rings there are no copies, since what
    has been published in one outlives its worker: an answer that was not is lost.
    """
    call, played = begun(stage)
    say(stage, played, b"one")
    played.slots.finish(0, message(Result(0, 1, 1, 1, 0)))
    stage.die(played.environment, 9)
    stage.drive()
    expected = OUTCOME_OK if played.rings is None else OUTCOME_FUNCTION_ERROR
    assert (call.outcome, stage.dispatcher.take_pieces(call)) == (expected, [b"one"])


def test_closing_while_a_caller_does_not_read(stage: Stage) -> None:
    call, played = begun(stage)
    Flood(stage, played).rise()
    stage.dispatcher.close()
    assert call.outcome in (OUTCOME_CANCELLED, OUTCOME_FUNCTION_ERROR)
    assert sum(map(len, stage.dispatcher.take_pieces(call))) > 0


# --- other threads ------------------------------------------------------------------------------------


def test_a_thread_waits_for_pieces(stage: Stage) -> None:
    """The caller sleeps while another thread drives; each piece rouses it."""
    call, played = begun(stage)
    got: list[bytes] = []

    def take() -> None:
        while not call.done:
            stage.dispatcher.wait(call, None, pieces=True)
            got.extend(stage.dispatcher.take_pieces(call))

    caller = threading.Thread(target=take)
    caller.start()
    for number in range(50):
        played.say(message(Chunk(0), b"%d" % number))
        await_that(lambda number=number: stage.drive() is None and len(got) > number)
    played.answer(0, b"")
    await_that(lambda: stage.drive() is None and not caller.is_alive())
    caller.join()
    assert got == [b"%d" % number for number in range(50)]


def test_a_thread_that_takes_pieces_lets_the_worker_go_on(stage: Stage) -> None:
    call, played = begun(stage)
    flood = Flood(stage, played)
    before = flood.rise()
    pieces: list[bytes] = []
    while True:
        taker = threading.Thread(target=lambda: pieces.extend(stage.dispatcher.take_pieces(call)))
        taker.start()
        taker.join()
        after = flood.rise()
        # A region is used anew once its ring is empty: before that, there is only more to take.
        if after > before or sum(map(len, pieces)) == before:
            break
    assert after > before
    assert pieces


def test_a_wait_for_pieces_has_its_own_time_limit(stage: Stage) -> None:
    call, _ = begun(stage)
    assert not stage.dispatcher.wait(call, 0.01, pieces=True)


# --- pieces that nobody may send ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunk",
    [
        message(Chunk(1), b"another slot"),
        message(Chunk(2**53), b"far out"),
        message([20, -1], b"negative"),
        message([20, 2**64 - 1], b"beyond 63 bits"),
        message([20, "0"], b"a text"),
        message([20], b"no slot"),
        message([20, 0, "", "more"], b"too many fields"),
        message([20, 0, 5], b"a number for a type"),
        message(Chunk(0), b"x" * (limits.CHUNK_BYTES_MAX + 1)),
    ],
)
def test_a_bad_piece_ends_the_environment(stage: Stage, chunk: bytes) -> None:
    other, good = begun(stage)
    call, bad = begun(stage)
    say(stage, bad, b"good")
    bad.say(chunk)
    stage.drive()
    assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")
    assert "broke the protocol" in (call.error or "")
    assert stage.dispatcher.take_pieces(call) == [b"good"]
    assert stage.dispatcher.environments_all() == [good.environment]
    assert stage.dispatcher.statistics()["bad_frames"] == 1
    say(stage, good, b"one")
    assert stage.dispatcher.take_pieces(other) == [b"one"]


def ended(stage: Stage, played: Played) -> None:
    """It was ended for what it has sent."""
    stage.drive()
    assert played.environment not in stage.dispatcher.environments_all()
    assert "broke the protocol" in (played.environment.end_reason or "")
    assert stage.dispatcher.statistics()["bad_frames"] == 1


def test_a_piece_for_a_caller_who_takes_the_answer_whole(stage: Stage) -> None:
    call = stage.call(stage.function(timeout_ms=600_000))
    played = stage.played[-1]
    played.ready()
    stage.drive()
    played.begin()
    say(stage, played, b"piece")
    ended(stage, played)
    assert (call.outcome, call.streamed) == (OUTCOME_FUNCTION_ERROR, False)


def test_a_piece_after_the_answer(stage: Stage) -> None:
    call, played = begun(stage)
    played.answer(0, b"")
    say(stage, played, b"late")
    ended(stage, played)
    assert (call.outcome, call.streamed) == (OUTCOME_OK, False)


def test_a_late_piece_is_not_the_next_calls(stage: Stage) -> None:
    first, played = begun(stage)
    played.answer(0, b"")
    stage.drive()
    second = asked(stage, first.target)
    say(stage, played, b"of the first")
    ended(stage, played)
    assert not second.streamed
    stage.played[-1].ready()  # the second had not begun: it runs elsewhere
    stage.drive()
    stage.played[-1].begin()
    stage.played[-1].answer(0, b"2")
    stage.drive()
    assert second.result == b"2"


def test_a_piece_before_ready(stage: Stage) -> None:
    call = asked(stage, stage.function(timeout_ms=600_000))
    say(stage, stage.played[0], b"early")
    assert stage.dispatcher.statistics()["bad_frames"] == 1
    assert not call.streamed


def test_a_piece_from_a_worker_of_tasks(stage: Stage) -> None:
    task = stage.call(Target("tasks", None))
    played = stage.played[-1]
    played.ready()
    stage.drive()
    played.begin()
    say(stage, played, b"piece")
    ended(stage, played)
    assert task.done
