"""What a hostile worker may write into its rings, and what one leaves behind: the dispatcher copies, checks, and goes on."""

from __future__ import annotations

import os
import random
import select
import struct
from collections.abc import Iterator

import pytest

from fastlam import limits
from fastlam.core.dispatcher import OUTCOME_FUNCTION_ERROR, OUTCOME_OK, Invocation
from fastlam.wire.frames import Chunk, Result
from played_environments import Played, Stage, message, staged, zmtp
from played_rings import (
    ASLEEP,
    BY_SOCKET,
    CROWDED,
    DATA,
    DISTANT,
    FRAME,
    RELEASED,
    REPLIES_CONTROL,
    REQUESTS_CONTROL,
    SKIP,
    TASK,
    TASK_RESULT,
    Rings,
)
from waiting import await_that

RING = limits.EXPRESS_RING_BYTES
RESULT = message(Result(0, 1, 1, 1, 0), b'"forged"')


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("FASTLAM_LANE", "ring")
    with staged() as own:
        yield own


def begun(stage: Stage, streams: bool = False, timeout_ms: int = 600_000) -> tuple[Invocation, Played, Rings]:
    """A call that its worker has begun."""
    call = Invocation(stage.function(timeout_ms=timeout_ms), b"{}")
    call.streams = streams
    stage.dispatcher.submit(call)
    stage.drive()
    played = stage.played[-1]
    assert played.rings is not None
    played.ready()
    stage.drive()
    played.begin()
    return call, played, played.rings


def broken(stage: Stage, call: Invocation, played: Played) -> None:
    """The worker was ended for what it wrote, and its call with it; nobody else was."""
    assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")
    assert "broke the protocol" in (call.error or "")
    assert played.state == "dead"
    assert stage.dispatcher.bad_frames == 1


# --- records ------------------------------------------------------------------------------------------


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def distant(offset: int, size: int) -> bytes:
    return struct.pack("<IIQQ", DISTANT, 0, offset, size)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\1\0", id="half a kind"),
        pytest.param(words(0), id="kind 0"),
        pytest.param(words(6), id="a kind that there is not"),
        pytest.param(words(2**32 - 1), id="the last kind"),
        pytest.param(words(TASK, 0) + bytes(20), id="a task"),
        pytest.param(words(FRAME), id="a frame of nothing"),
        pytest.param(words(FRAME) + b"abc", id="a cut frame"),
        pytest.param(words(FRAME, 100) + bytes(99), id="a header longer than its frame"),
        pytest.param(words(FRAME, 2**32 - 1) + bytes(40), id="a header of an impossible length"),
        pytest.param(words(FRAME) + RESULT, id="an answer before the end"),
        pytest.param(words(TASK_RESULT, 0), id="half a result of a task"),
        pytest.param(struct.pack("<IIQII", TASK_RESULT, 0, 5, 0, 0), id="a result of a task for a function"),
        pytest.param(struct.pack("<IIQII", TASK_RESULT, 2**32 - 1, 5, 0, 0) + bytes(50), id="of a slot far out"),
        pytest.param(words(DISTANT), id="half a distant record"),
        pytest.param(distant(0, 0), id="a distant record of nothing"),
        pytest.param(distant(0, 3), id="a distant record of half a kind"),
        pytest.param(distant(0, limits.EXPRESS_REGION_BYTES + 1), id="longer than the region"),
        pytest.param(distant(limits.EXPRESS_REGION_BYTES, 1), id="behind the region"),
        pytest.param(distant(limits.EXPRESS_REGION_BYTES - 4, 5), id="over the region's end"),
        pytest.param(distant(2**64 - 4, 8), id="an offset that wraps"),
        pytest.param(distant(8, 2**64 - 8), id="a size that wraps"),
        pytest.param(distant(0, 2**64 - 1), id="the largest size"),
        pytest.param(distant(2**63, 2**63), id="both halves"),
    ],
)
def test_a_record_that_is_none(stage: Stage, content: bytes) -> None:
    other, good, _ = begun(stage)
    call, bad, rings = begun(stage)
    assert rings.put(content)
    stage.drive()
    broken(stage, call, bad)
    good.answer(0, b"1")
    stage.drive()
    assert (other.outcome, other.result) == (OUTCOME_OK, b"1")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(distant(64, 24), id="a distant record"),
        pytest.param(words(99), id="a kind that there is not"),
        pytest.param(words(FRAME, 2**31) + bytes(60), id="a bad frame"),
        pytest.param(words(TASK_RESULT, 0, 0, 0, 0, 0), id="a result of a task"),
    ],
)
def test_a_distant_record_that_is_none(stage: Stage, content: bytes) -> None:
    call, played, rings = begun(stage)
    assert rings.put_distant(0, len(content), content)
    stage.drive()
    broken(stage, call, played)


def test_a_distant_frame_over_the_limit(stage: Stage) -> None:
    call, played, rings = begun(stage)
    assert rings.put_distant(0, limits.EXPRESS_REGION_BYTES, words(FRAME) + RESULT)
    stage.drive()
    broken(stage, call, played)
    assert "over the limit" in (call.error or "")


@pytest.mark.parametrize("size", [limits.CHUNK_BYTES_MAX, limits.CHUNK_BYTES_MAX + 1])
def test_a_frame_may_lie_anywhere_in_the_region(stage: Stage, size: int) -> None:
    """Aligned or not, at its very end; the bytes that it lies on may be told of again."""
    call, played, rings = begun(stage, streams=True)
    frame = words(FRAME) + message(Chunk(0), b"x" * size)
    for offset in (1, 1, limits.EXPRESS_REGION_BYTES - len(frame)):
        assert rings.put_distant(offset, len(frame), frame)
    stage.drive()
    if size > limits.CHUNK_BYTES_MAX:
        broken(stage, call, played)
    else:
        assert stage.dispatcher.take_pieces(call) == [b"x" * size] * 3
        assert not call.done


# --- positions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-8, -RING, 1, 4, 7, RING + 8, 2**31, 2**32, 2**63, -1])
def test_an_impossible_position(stage: Stage, step: int) -> None:
    call, played, rings = begun(stage)
    rings.publish(rings.written + step)
    stage.drive()
    broken(stage, call, played)


@pytest.mark.parametrize("size", [SKIP, SKIP - 1, RING, RING // 2, RING // 2 - 7, 1000])
def test_an_impossible_size(stage: Stage, size: int) -> None:
    """Larger than any record, or than what is published; a skip that skips nothing that there is."""
    call, played, rings = begun(stage)
    struct.pack_into("<I", rings.memory, DATA + RING + rings.written % RING, size)
    rings.publish(rings.written + 16)
    stage.drive()
    broken(stage, call, played)


def test_two_skips_in_a_row(stage: Stage) -> None:
    call, played, rings = begun(stage)
    for offset in (rings.written % RING, 0):
        struct.pack_into("<I", rings.memory, DATA + RING + offset, SKIP)
    rings.publish(rings.written + RING)
    stage.drive()
    broken(stage, call, played)


@pytest.mark.parametrize("value", [0, 0xFF, "noise"])
def test_all_of_the_memory_written_over(stage: Stage, value: int | str, rng: random.Random) -> None:
    other, good, _ = begun(stage)
    call, bad, rings = begun(stage, timeout_ms=100)
    size = len(rings.memory)
    rings.memory[:] = rng.randbytes(size) if value == "noise" else bytes([int(value)]) * size
    rings.ring_bell()
    stage.drive()
    # Zeros say that nothing was published, or take back what was.
    await_that(lambda: stage.drive() is None and call.done)
    assert call.outcome == OUTCOME_FUNCTION_ERROR
    assert call.error_type in ("Runtime.ExitError", "Sandbox.Timedout")
    assert bad.state == "dead"
    good.answer(0, b"1")
    stage.drive()
    assert other.outcome == OUTCOME_OK


@pytest.mark.parametrize("step", [-8, -RING, RING, 2**40, 1, 2**63])
def test_requests_released_that_there_were_not(stage: Stage, step: int) -> None:
    """The next call may not come through to this worker: its time is over then, and another worker's turn it is."""
    call, played, rings = begun(stage, timeout_ms=200)
    played.answer(0, b"1")
    stage.drive()
    rings.set_word(REQUESTS_CONTROL + RELEASED, rings.taken + step)
    rings.set_word(REQUESTS_CONTROL + CROWDED, 1)
    second = stage.call(call.target)
    await_that(lambda: stage.drive() is None and second.done)
    assert second.error_type == "Sandbox.Timedout"
    assert played.state == "dead"
    assert stage.serve(call.target, b"3", b"3").result == b"3"


# --- the socket beside the rings ----------------------------------------------------------------------


def test_nothing_follows_by_the_socket(stage: Stage) -> None:
    """The time of the call is all that it costs: its driver sleeps meanwhile, whatever else lies in the ring."""
    call, played, rings = begun(stage, timeout_ms=300)
    assert rings.put(words(BY_SOCKET))
    for _ in range(10):
        rings.put(words(FRAME) + RESULT)
    passes = stage.dispatcher.statistics()["passes"]
    while not call.done:
        select.select([stage.dispatcher.fileno()], [], [], 30)
        stage.dispatcher.drive_ready()
    assert call.error_type == "Sandbox.Timedout"
    assert stage.dispatcher.statistics()["passes"] - passes < 20, "the driver does not sleep"
    assert played.state == "dead"


@pytest.mark.parametrize("told_first", [True, False])
def test_a_frame_by_the_socket_stands_where_its_record_does(stage: Stage, told_first: bool) -> None:
    """Many frames could have gone through the ring; nobody has to. Without its record a message is no frame."""
    call, played, rings = begun(stage, streams=True)
    played.say(message(Chunk(0), b"one"))
    if told_first:
        assert rings.put(words(BY_SOCKET))
        played.say(message(Chunk(0), b"three"))
        stage.drive()
    played.peer.send(message(Chunk(0), b"two"))
    stage.drive()
    if told_first:
        assert stage.dispatcher.take_pieces(call) == [b"one", b"two", b"three"]
        assert not call.done
    else:
        broken(stage, call, played)
        assert stage.dispatcher.take_pieces(call) == [b"one"]


def test_a_worker_that_dies_before_its_message_has_come(stage: Stage) -> None:
    call, played, rings = begun(stage)
    played.slots.finish(0, RESULT)
    assert rings.put(words(BY_SOCKET))
    played.peer.send_raw(zmtp(RESULT)[:-3])
    stage.die(played.environment, 9)
    assert stage.dispatcher.drive_until(lambda: call.done, 30)
    assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")


def test_a_worker_that_dies_in_the_middle_of_a_record(stage: Stage) -> None:
    """Nothing of it has been published."""
    call, played, rings = begun(stage)
    played.slots.finish(0, RESULT)
    written = rings.written
    rings.put(words(FRAME) + RESULT)
    rings.publish(written)
    stage.die(played.environment, 9)
    stage.drive()
    assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Runtime.ExitError")


def test_an_answer_outlives_its_worker(stage: Stage) -> None:
    for answer in (b"1", b'"' + b"x" * 1_000_000 + b'"'):
        call, played, _ = begun(stage)
        played.answer(0, answer)
        stage.die(played.environment, 9)
        stage.drive()
        assert (call.outcome, call.result) == (OUTCOME_OK, answer)


# --- more than there can be ---------------------------------------------------------------------------


class EndlessRings:
    """A child that writes on: each look of the dispatcher finds its ring full, of nothing but pieces."""

    def __init__(self, stage: Stage, rings: Rings, content: bytes) -> None:
        self.rounds = 0
        self.rings = rings
        self.content = content
        self.stage = stage

    def refill(self, _: object = None) -> None:
        self.rounds += 1
        assert self.rounds < 10_000, "the dispatcher takes everything for ever"
        while self.rings.put(self.content):
            pass


def test_what_comes_after_the_end_of_a_process_is_not_read(stage: Stage) -> None:
    """A child that it has left behind may go on writing: it must not hold up everybody else."""
    call, played, rings = begun(stage, streams=True)
    endless = EndlessRings(stage, rings, words(FRAME) + message(Chunk(0), b"x"))
    call.on_chunk = endless.refill
    endless.refill()
    stage.die(played.environment, 9)
    stage.drive()
    assert call.done
    assert call.streamed_bytes < 3 * RING // 24  # it is drained twice


def test_records_over_one_another_cost_no_more_memory_than_there_is(stage: Stage) -> None:
    """The dispatcher copies each; after the worker's end no caller can make it wait."""
    call, played, rings = begun(stage, streams=True)
    frame = words(FRAME) + message(Chunk(0), b"x" * limits.CHUNK_BYTES_MAX)
    while rings.put_distant(0, len(frame), frame):
        pass
    assert rings.written > 1000 * 32
    stage.die(played.environment, 9)
    stage.drive()
    assert call.done
    kept = sum(map(len, stage.dispatcher.take_pieces(call)))
    assert kept < 3 * limits.EXPRESS_REGION_BYTES  # it is drained twice; all of them would be 130 MB


def test_a_worker_that_is_not_believed_is_not_copied_either(stage: Stage) -> None:
    """Two thousand records over one another would be thirteen gigabytes."""
    call, played, rings = begun(stage)
    frame = words(FRAME) + RESULT
    assert rings.put(words(99))
    count = 0
    while rings.put_distant(0, limits.FRAME_BYTES_MAX, frame):
        count += 1
    assert count > 1500
    before = played.environment.copied_bytes
    stage.drive()
    broken(stage, call, played)
    assert played.environment.copied_bytes == before + 4


def test_a_crowded_ring_is_read_to_its_end(stage: Stage) -> None:
    """In several turns, so that others have theirs; no bell tells of the next one."""
    call, _, rings = begun(stage, streams=True)
    count = 0
    while rings.put(words(FRAME) + message(Chunk(0), b"x")):
        count += 1
    assert count > 2000
    stage.drive()
    assert call.streamed_bytes == count
    assert rings.word(REPLIES_CONTROL + ASLEEP) & 0xFFFFFFFF == 1, "the driver sleeps, and no bell would wake it"


# --- its ends -----------------------------------------------------------------------------------------


def test_a_bell_that_is_rung_for_nothing(stage: Stage) -> None:
    call, played, rings = begun(stage)
    for _ in range(100):
        rings.ring_bell()
        stage.drive()
    assert not call.done
    played.answer(0, b"1")
    stage.drive()
    assert call.result == b"1"


def test_an_interrupt_between_two_bells(stage: Stage) -> None:
    """Both have been rung, and only one is heard: what the other was rung for is found, and so is what comes later."""
    both = [begun(stage), begun(stage)]
    told: set[Invocation] = set()

    def interrupted_once(call: Invocation) -> None:
        if call not in told:
            told.add(call)
            raise KeyboardInterrupt

    for call, played, _ in both:
        call.on_done = interrupted_once
        played.answer(0, b"1")
    for _ in both:
        with pytest.raises(KeyboardInterrupt):
            stage.drive()
    for call, played, _ in both:
        assert call.result == b"1"
        later = stage.call(call.target)
        played.begin()
        played.answer(0, b"2")
        stage.drive()
        assert later.result == b"2"


def test_a_bell_outlives_its_environment(stage: Stage) -> None:
    """In a child that has left the worker's group, say: nobody listens any more."""
    call, played, rings = begun(stage)
    bell = os.dup(rings.bell_fd)
    try:
        stage.die(played.environment, 9)
        stage.drive()
        assert call.done
        os.eventfd_write(bell, 1)
        assert not select.select([stage.dispatcher.fileno()], [], [], 0)[0], "the driver still hears it"
    finally:
        os.close(bell)


def test_a_worker_that_closes_its_connection_waits_for_a_slow_caller_all_the_same(stage: Stage) -> None:
    call, played, _ = begun(stage, streams=True)
    piece = message(Chunk(0), b"x" * limits.CHUNK_BYTES_MAX)
    played.pour(piece)
    stage.drive()
    kept = call.streamed_bytes
    assert kept <= limits.STREAM_PENDING_BYTES_MAX + limits.CHUNK_BYTES_MAX
    played.peer.close()
    stage.drive()
    played.pour(piece)
    stage.drive()
    assert call.streamed_bytes == kept
    assert stage.dispatcher.drive_until(lambda: call.done, 30)
    assert "closed its lane" in (call.error or "")


def test_a_connection_closed_before_its_stream_is_slow(stage: Stage) -> None:
    call, played, rings = begun(stage, streams=True)
    played.peer.close()
    stage.drive()
    played.pour(message(Chunk(0), b"x" * limits.CHUNK_BYTES_MAX))
    rings.ring_bell()
    stage.drive()
    # Unless it has been given up meanwhile: what lies in the lane of a dead environment is taken as a whole.
    assert call.done or call.streamed_bytes <= limits.STREAM_PENDING_BYTES_MAX + limits.CHUNK_BYTES_MAX
    assert stage.dispatcher.drive_until(lambda: call.done, 30)


def test_what_lies_in_an_idle_ring_costs_only_its_own_environment(stage: Stage) -> None:
    """It is looked at before the next call is posted: a worker that is quick with that could else have two answers there."""
    call, played, rings = begun(stage)
    played.answer(0, b"1")
    stage.drive()
    assert rings.put(words(FRAME) + RESULT)
    second = stage.call(call.target)
    assert played.state == "dead"
    assert stage.dispatcher.statistics()["requeued"] == 0, "the next call was posted"
    stage.played[-1].ready()
    stage.drive()
    stage.played[-1].begin()
    stage.played[-1].answer(0, b"2")
    stage.drive()
    assert (second.outcome, second.result) == (OUTCOME_OK, b"2")


def test_positions_and_sizes_at_random(stage: Stage, rng: random.Random) -> None:
    target = stage.function(timeout_ms=600_000)
    for _ in range(300):
        call = stage.call(target)
        played = stage.played[-1]
        rings = played.rings
        assert rings is not None
        played.ready()
        stage.drive()
        played.begin()
        for _ in range(rng.randrange(1, 20)):
            at = REPLIES_CONTROL if rng.random() < 0.2 else DATA + RING + rings.written % RING
            value = rng.choice((0, 1, 8, 16, 64, 2**31, SKIP))
            struct.pack_into("<I", rings.memory, at + rng.randrange(0, 64, 4), value)
            rings.publish(rings.written + rng.choice((0, 8, 16, 24, 40, 64, RING, RING - 8)))
            if rng.random() < 0.5:
                stage.drive()
            if call.done:
                break
        stage.drive()
        if not call.done:  # all that it published could have been meant
            stage.die(played.environment, 9)
            stage.drive()
        assert call.outcome in (OUTCOME_OK, OUTCOME_FUNCTION_ERROR)
    assert stage.dispatcher.statistics()["outstanding"] == 0


# --- memory -------------------------------------------------------------------------------------------


def allocated_bytes(rings: Rings) -> int:
    return os.fstat(rings.fd).st_blocks * 512


def test_an_idle_environment_gives_its_regions_back(stage: Stage) -> None:
    """In both directions, again and again; and what comes next is whole."""
    target = stage.function(timeout_ms=600_000)
    most = 4 * 2**20
    for turn in range(3):
        call = stage.serve(target, b"a" * most, b"b" * most)
        assert call.result == b"b" * most
        (played,) = stage.played
        rings = played.rings
        assert rings is not None
        assert allocated_bytes(rings) > 2 * most
        await_that(lambda rings=rings: stage.drive() is None and allocated_bytes(rings) < 3 * RING + 2 * 65536)
        assert stage.serve(target, b"c" * turn, b"d" * turn).result == b"d" * turn


def test_a_busy_environment_keeps_its_regions(stage: Stage) -> None:
    """However long ago the request came: its worker may not have read it, and may be writing its reply."""
    most = 4 * 2**20
    target = stage.function(timeout_ms=600_000)
    idle = stage.serve(stage.function(), b"a" * most, b"b" * most)
    other = stage.played[0].rings
    stage.serve(target, b"", b"1")
    call = stage.call(target, b"a" * most)
    played = stage.played[-1]
    rings = played.rings
    assert rings is not None and other is not None and idle.done
    await_that(lambda: stage.drive() is None and allocated_bytes(other) < 2**20)
    assert allocated_bytes(rings) > most
    frame, event = played.begin()
    assert event == b"a" * most
    played.answer(frame.slot, b"2")
    stage.drive()
    assert call.result == b"2"


def test_a_record_that_nobody_has_read_is_kept(stage: Stage) -> None:
    """A worker that says nothing of what it has read is not idle in a way that counts; nor is a late reply thrown away."""
    most = 4 * 2**20
    target = stage.function(timeout_ms=600_000)
    stage.serve(target, b"a" * most, b"b" * most)
    played = stage.played[-1]
    rings = played.rings
    assert rings is not None
    rings.set_word(REQUESTS_CONTROL + RELEASED, rings.taken - 8)
    late = words(FRAME) + message(Chunk(0), b"x" * 60_000)
    assert rings.put_distant(0, len(late), late)
    other = stage.serve(stage.function(), b"a" * most, b"b" * most)
    second = stage.played[-1].rings
    assert second is not None and other.done
    await_that(lambda: stage.drive() is None and allocated_bytes(second) < 2**20)
    assert allocated_bytes(rings) > 2 * most
