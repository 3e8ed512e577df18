"""Functions that write into the rings that they share with the dispatcher whatever they like: they end their own environment,
and nobody else's; the daemon keeps no memory and no descriptor of them. What exactly may be written there and is refused,
tests/unit/test_dispatcher_rings.py shows.
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from daemon_running import RunningDaemon, await_end, descendants
from failed_calls import answered_or_exited, killed, suffered, timed_out
from fastlam import limits
from fastlam.wire.frames import Chunk, Result
from hostile_function import CODE, act, bad_frames, costs_the_environment, pid_now
from played_environments import message, zmtp
from played_rings import BY_SOCKET, DISTANT, FRAME, TASK_RESULT
from waiting import await_that

pytestmark = [
    pytest.mark.parametrize("lane_in_use", ["ring"], indirect=True, scope="module", ids=["lane:ring"]),
    pytest.mark.usefixtures("others_notice_nothing", "nothing_is_kept"),
]

RING: Final = limits.EXPRESS_RING_BYTES
RESULT: Final = Result(0, 5, 5, 5, 0)
NOISY_ROUNDS_MAX: Final = 20


def held(daemon: RunningDaemon) -> tuple[int, int]:
    """How many mappings of rings and how many eventfds the daemon has."""
    process = Path(f"/proc/{daemon.process.pid}")
    eventfds = 0
    for name in os.listdir(process / "fd"):
        try:
            eventfds += os.readlink(process / "fd" / name) == "anon_inode:[eventfd]"
        except FileNotFoundError:
            continue  # closed meanwhile
    return (process / "maps").read_text().count("fastlam-express"), eventfds


def live(daemon: RunningDaemon) -> int:
    return len(daemon.send("GET", "/_fastlam/environments").json["environments"])


@pytest.fixture
def nothing_is_kept(daemon: RunningDaemon) -> Iterator[None]:
    """One mapping and one bell an environment that lives, before and after."""
    before: list[tuple[int, int]] = []

    def at_rest() -> bool:
        """Those of the test before have ended and are forgotten: nothing changes from one look to the next."""
        mappings, eventfds = held(daemon)
        before.append((mappings, eventfds - live(daemon)))
        return mappings == live(daemon) and before[-1] == before[-2:][0] and len(before) > 1

    await_that(at_rest)
    others = before[-1][1]
    yield

    def in_order() -> bool:
        count = live(daemon)
        return held(daemon) == (count, count + others)

    await_that(in_order)


@pytest.fixture
def own(daemon: RunningDaemon, request: pytest.FixtureRequest) -> Iterator[str]:
    """A hostile function for this test alone, which may take so long only."""
    name = daemon.deploy(f"own-{abs(hash(request.node.name))}", CODE, Timeout=1)
    yield name
    daemon.lambda_.delete_function(FunctionName=name)


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def distant(offset: int, size: int) -> bytes:
    return struct.pack("<IIQQ", DISTANT, 0, offset, size)


# --- once ---------------------------------------------------------------------------------------------

BAD_RECORDS: Final = {
    "nothing": b"",
    "a kind that there is not": words(77, 0, 0),
    "a request": words(2, 0) + bytes(40),
    "a cut frame": words(FRAME) + b"ab",
    "a result of a task": struct.pack("<IIQII", TASK_RESULT, 0, 5, 0, 0) + bytes(30),
    "behind the region": distant(limits.EXPRESS_REGION_BYTES, 64),
    "an offset that wraps": distant(2**64 - 64, 128),
    "a region of zeros": distant(0, 4096),
    "all of the region": distant(0, limits.EXPRESS_REGION_BYTES),
}


@pytest.mark.parametrize("stay", [True, False], ids=["and waits", "and returns"])
@pytest.mark.parametrize("record", BAD_RECORDS.values(), ids=BAD_RECORDS.keys())
def test_a_record_that_is_none(daemon: RunningDaemon, record: bytes, stay: bool) -> None:
    costs_the_environment(daemon, "records", record, stay=stay)


@pytest.mark.parametrize("step", [8, 64, -8, -RING, 3, RING + 8, 2**40])
def test_an_impossible_position(daemon: RunningDaemon, step: int) -> None:
    """To say that there is more than was written is to have what lies there taken for records."""
    costs_the_environment(daemon, "misplace", step=step, stay=True)


@pytest.mark.parametrize("part", ["control", "replies", "all"])
@pytest.mark.parametrize("value", [0, 0xFF, "noise"])
def test_rings_that_are_written_over(daemon: RunningDaemon, own: str, part: str, value: int | str) -> None:
    """Zeros are what a new ring consists of: a call may come to nothing until its time is over. All else is found out."""
    for _ in range(3):
        calls = [act(daemon, "scrawl", part=part, value=value, function=own)]
        calls += [act(daemon, "hold", function=own) for _ in range(2)]
        any([suffered(call) for call in calls])
    assert isinstance(pid_now_at_last(daemon, own), int)


def pid_now_at_last(daemon: RunningDaemon, name: str) -> int:
    """Of an environment that has done nothing: the first call may end the one that did."""
    if suffered(act(daemon, "hold", function=name)):
        return pid_now(daemon, name)
    return pid_now(daemon, name)


@pytest.mark.parametrize("part", ["control", "replies", "requests", "all"])
def test_rings_that_are_written_over_all_the_time(daemon: RunningDaemon, own: str, part: str) -> None:
    frames = bad_frames(daemon)
    deeds = ["scrawl", "hold", "hold"] * 3
    for _ in range(NOISY_ROUNDS_MAX):  # where CPUs are short, the noise comes when nothing is under way
        calls = [act(daemon, deed, part=part, value="noise", on=True, function=own) for deed in deeds]
        hits = sum([call.error is not None for call in calls])  # a request that it has spoilt, it fails to read
        if part != "control":  # of the rings the greatest part is empty; between two calls it hits nobody's
            return
        if hits > 0 or bad_frames(daemon) > frames:
            return
    pytest.fail("the noise has hit nothing")


@pytest.mark.parametrize("part", ["control", "replies", "all"])
def test_memory_with_holes(daemon: RunningDaemon, own: str, part: str) -> None:
    call = act(daemon, "punch", part=part, function=own)
    suffered(call)
    assert isinstance(pid_now_at_last(daemon, own), int)


def may_open_map_files() -> bool:
    """Whether this process has the right to; root of a container has it as little as other users."""
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    of_the_machine = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    return of_the_machine and capabilities & (1 << 21 | 1 << 40) != 0  # CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE


def test_memory_of_another_size(daemon: RunningDaemon, own: str) -> None:
    """Its size is sealed, and so are the seals: whoever gets hold of it, privileged as he may be, changes neither."""
    name, size = act(daemon, "where", function=own).result
    try:
        fd = os.open(f"/proc/{pid_now(daemon, own)}/{name}", os.O_RDWR)
    except PermissionError:
        assert not may_open_map_files(), "this process may not open what it has the right to"
        pytest.skip("/proc/PID/map_files needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN: run the test as root of the machine")
    try:
        for other in (0, size - 4096, size + 4096):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, other)
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    finally:
        os.close(fd)


@pytest.mark.parametrize("stay", [True, False], ids=["and waits", "and returns"])
def test_memory_that_is_let_go(daemon: RunningDaemon, own: str, stay: bool) -> None:
    pid = pid_now(daemon, own)
    assert suffered(act(daemon, "unmap", stay=stay, function=own))
    assert pid_now(daemon, own) != pid


# --- requests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [8, -8, -RING, 2**40])
def test_requests_that_are_not_taken_as_they_came(daemon: RunningDaemon, own: str, step: int) -> None:
    """A dispatcher that finds no room for the next one waits for it, as long as that one may take."""
    answered_or_exited(act(daemon, "take_back", step=step, function=own))
    for _ in range(2):
        suffered(act(daemon, "hold", function=own))
    assert isinstance(pid_now(daemon, own), int)


def test_room_that_comes_and_goes(daemon: RunningDaemon, own: str) -> None:
    suffered(act(daemon, "take_back", on=True, step=0, function=own))
    for _ in range(4):
        suffered(act(daemon, "hold", function=own))


# --- the bell -----------------------------------------------------------------------------------------


def test_a_bell_that_is_rung_all_the_time(daemon: RunningDaemon, bystander: str) -> None:
    name = daemon.deploy("ringing", CODE, Timeout=30)
    pid = act(daemon, "ring_on", function=name).result
    for number in range(20):
        assert daemon.invoke(bystander, number).result[0] == number
        assert act(daemon, "hold", function=name).result == pid
    daemon.lambda_.delete_function(FunctionName=name)


@pytest.mark.parametrize("how", ["closed", "full"])
def test_a_worker_that_cannot_ring(daemon: RunningDaemon, own: str, how: str) -> None:
    """Its answers are found when something else is: at the latest when its time is over, where they still count."""
    pid = pid_now(daemon, own)
    first = act(daemon, "mute", how=how, function=own)
    if first.error is None:
        assert first.result == "muted"
    else:
        timed_out(first, 1)
    suffered(act(daemon, "hold", function=own))
    assert isinstance(pid, int)


# --- the connection beside the rings ------------------------------------------------------------------


def test_nothing_follows_by_the_connection(daemon: RunningDaemon, own: str) -> None:
    timed_out(act(daemon, "records", words(BY_SOCKET), stay=True, function=own), 1)
    timed_out(act(daemon, "records", words(BY_SOCKET), function=own), 1)


@pytest.mark.parametrize("stay", [True, False], ids=["and waits", "and returns"])
def test_what_follows_by_the_connection_is_no_frame(daemon: RunningDaemon, stay: bool) -> None:
    costs_the_environment(daemon, "records", words(BY_SOCKET), messages=texts(zmtp(b"garbage")), stay=stay)


@pytest.mark.parametrize("stay", [True, False], ids=["and waits", "and returns"])
def test_more_follows_by_the_connection_than_was_told(daemon: RunningDaemon, stay: bool) -> None:
    """The first of them is no answer either: its call is not over."""
    forged = zmtp(message(RESULT, b'"forged"'))
    costs_the_environment(daemon, "records", words(BY_SOCKET), messages=texts(forged * 3), stay=stay)


def texts(*data: bytes) -> list[str]:
    return [b64encode(one).decode() for one in data]


# --- ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dies", [True, False])
def test_a_child_that_writes_on(daemon: RunningDaemon, own: str, dies: bool) -> None:
    """In a session of its own, out of reach of its worker's end: nobody reads what it writes, or hears it ring."""
    record = words(FRAME) + message(Chunk(0), b"x")
    before = daemon.health()["statistics"]["dispatcher"]
    answer = act(daemon, "leave_writer", record, dies=dies, function=own)
    if dies:
        killed(answer)
    else:
        answered_or_exited(answer)
    assert isinstance(pid_now(daemon, own), int)
    writers = [one for one in descendants(daemon.process.pid) if is_writer(one[0])]
    assert daemon.health()["statistics"]["dispatcher"]["bad_frames"] <= before["bad_frames"] + 1
    # It lives on below its zygote, and sees the mapping that nobody else has any more.
    for pid, _ in writers:
        os.kill(pid, 9)
    await_end(set(writers))


def is_writer(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid and "fastlam-express" in Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("when", ["a record is reserved", "a skip is written"])
def test_a_worker_that_dies_in_the_middle_of_a_record(daemon: RunningDaemon, when: str) -> None:
    killed(act(daemon, "die", message(RESULT, b'"half"'), when=when))


@pytest.mark.parametrize("size", [100, 100_000, 6_000_000])
def test_an_answer_that_was_given_outlives_its_worker(daemon: RunningDaemon, size: int) -> None:
    """Forged or not."""
    answer = act(daemon, "forge_and_die", size=size, when="its answer is in the region")
    assert answer.result == "x" * size


def test_an_answer_that_was_given_in_part_does_not(daemon: RunningDaemon) -> None:
    data = message(RESULT, b'"' + b"x" * 5000 + b'"')
    killed(act(daemon, "die", data, when="its answer is to come by the connection", cut=3000))
    assert act(daemon, "die", data, when="its answer is to come by the connection", cut=10**6).result == "x" * 5000


def test_a_worker_that_is_stopped_in_the_middle_of_a_record(daemon: RunningDaemon) -> None:
    """Nothing has been published; what comes of it then is a forged answer, before its time."""
    frames = bad_frames(daemon)
    answered_or_exited(act(daemon, "rest", message(RESULT, b'"early"')))
    assert bad_frames(daemon) == frames + 1


# --- at random ----------------------------------------------------------------------------------------


def deed_at_random(rng: random.Random) -> tuple[str, list[bytes], dict[str, Any]]:
    kind = rng.randrange(6)
    if kind == 0:
        return "records", [rng.choice(list(BAD_RECORDS.values())) for _ in range(rng.randrange(1, 5))], {}
    if kind == 1:
        return "misplace", [], {"step": rng.choice((8, -8, 24, 4096, RING, -RING, rng.randrange(-(2**62), 2**62)))}
    if kind == 2:
        return "scrawl", [], {"part": rng.choice(("control", "replies", "requests", "all")), "value": "noise"}
    if kind == 3:
        return "punch", [], {"part": rng.choice(("control", "replies", "all"))}
    if kind == 4:
        return "say", [rng.randbytes(rng.randrange(60))], {"times": rng.randrange(1, 300)}
    return "take_back", [], {"step": rng.choice((8, -8, RING, rng.randrange(-(2**62), 2**62)))}


def test_anything_at_all(daemon: RunningDaemon, own: str, rng: random.Random) -> None:
    for _ in range(40):
        deed, data, more = deed_at_random(rng)
        suffered(act(daemon, deed, *data, function=own, **more))
        if rng.random() < 0.5:
            suffered(act(daemon, "hold", function=own))
