"""Functions that attack the daemon from inside their environment: they lose it, and nobody else notices."""

from __future__ import annotations

import os
import re
import struct
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from daemon_running import Invoked, RunningDaemon, await_end, descendants
from fastlam import limits
from fastlam.wire.frames import PROTOCOL_VERSION, InitFailed, Ready, Result, TaskResult
from fault_makers import await_that, processes
from played_environments import message

CODE: Final = r'''
import base64, ctypes, fcntl, os, random, signal, socket, stat, struct, sys, threading, time

def lane():
    """The connection to the dispatcher, found among the open descriptors."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found = socket.socket(fileno=os.dup(int(name)))
                if found.family == socket.AF_UNIX and found.type == socket.SOCK_STREAM:
                    found.getpeername()
                    return found
                found.close()
        except OSError:
            pass
    raise LookupError("there is no lane")

def table():
    """(address, size) of the slot table."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            if "fastlam-slots" in line:
                first, last = (int(word, 16) for word in line.split()[0].split("-"))
                return first, last - first
    raise LookupError("there is no slot table")

def write(event):
    connection = lane()
    for data in event["data"]:
        connection.sendall(base64.b64decode(data))
    return "written"

def announce(event):
    """A message of that size, or as much of it as is taken."""
    connection = lane()
    left = event["size"]
    connection.sendall(b"\2" + struct.pack(">Q", left))
    try:
        while left > 0:
            left -= connection.send(b"x" * min(left, 1 << 20))
    except OSError:
        pass
    return "announced"

def forge(event):
    """Ends this invocation itself, as the runtime would, and then lets the runtime do it again."""
    address, size = table()
    word = ctypes.c_uint32.from_address(address + 64)
    word.value = (word.value & ~0xFF) | 3
    return write(event)

def write_when_idle(event):
    """Writes once the answer to this invocation has gone out."""
    word = ctypes.c_uint32.from_address(table()[0] + 64)
    def later():
        while word.value & 0xFF != 0:
            time.sleep(0.001)
        write(event)
    threading.Thread(target=later).start()
    return "later"

def scribble(event):
    address, size = table()
    ctypes.memset(address, event["value"], size)
    return "scribbled"

def scribble_on(event):
    """Goes on writing while other invocations come and go."""
    address, size = table()
    def forever():
        noise = random.Random(1)
        while True:
            ctypes.memmove(address + 64, noise.randbytes(64), 64)
    threading.Thread(target=forever, daemon=True).start()
    return "scribbling"

def close_all(event):
    os.closerange(0, 4096)
    return "closed"

def close_lane(event):
    lane().shutdown(socket.SHUT_RDWR)
    if event.get("stay"):
        signal.pause()
    return "shut"

def pour(event):
    """Fills the socket for as long as it is let; half a gigabyte shows what there is to show."""
    connection = lane()
    data = base64.b64decode(event["data"])
    for _ in range(500_000_000 // len(data)):
        connection.sendall(data)
    signal.pause()

def shout(event):
    """Prints without end."""
    line = "x" * 8191
    while True:
        print(line)

def output(event):
    """What can be done to the memfd of the output."""
    what = event["what"]
    if what == "grow":
        os.ftruncate(1, 1 << 40)
    elif what == "grow to the end":
        os.ftruncate(1, (1 << 63) - 1)
    elif what == "shrink":
        print("before" * 1000)
        os.ftruncate(1, 0)
    elif what == "flags":
        fcntl.fcntl(1, fcntl.F_SETFL, os.O_NONBLOCK)
        os.lseek(1, 0, os.SEEK_SET)
    elif what == "seal":
        try:
            fcntl.fcntl(1, 1033, 0x1F)
        except OSError as error:
            return error.errno
    elif what == "hole":
        print("before" * 1000)
        ctypes.CDLL(None).fallocate(1, 3, ctypes.c_int64(0), ctypes.c_int64(1 << 20))
    return "done"

def breed(event):
    """Children that stay: in the group, in one of their own, and in a session of their own."""
    pids = []
    for kind in event["kinds"]:
        pid = os.fork()
        if pid == 0:
            if kind == "group":
                os.setpgid(0, 0)
            elif kind == "session":
                os.setsid()
            while True:
                signal.pause()
        pids.append(pid)
    return pids

def leave(event):
    os._exit(0)

def hold(event):
    return os.getpid()

def handler(event, context):
    return globals()[event["act"]](event)
'''
BYSTANDER: Final = "import os\ndef handler(event, context):\n    return [event, os.getpid()]\n"
DAMAGED: Final = re.compile(r"\[fastlam: the environment (broke the protocol|has closed its lane)")


@pytest.fixture(scope="module", autouse=True)
def functions(daemon: RunningDaemon) -> None:
    daemon.deploy("hostile", CODE, Timeout=10)
    daemon.deploy("bystander", BYSTANDER, Timeout=60)
    daemon.invoke("bystander", 0)


@pytest.fixture(autouse=True)
def others_notice_nothing(daemon: RunningDaemon) -> Any:
    """After each test the bystander answers from the same warm environment, and the house is in order."""
    before = daemon.invoke("bystander", 0).result[1]
    yield
    assert daemon.invoke("bystander", [1]).result == [[1], before]
    statistics = daemon.health()["statistics"]["dispatcher"]
    assert (statistics["outstanding"], statistics["waiting"]) == (0, 0)
    assert daemon.stderr() == ""


def zmtp(body: bytes, flags: int = 0) -> bytes:
    """A message part as ZMTP 3 writes it: 1 means that more follow, 4 that it is a command."""
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | 2]) + struct.pack(">Q", len(body)) + body


def act(daemon: RunningDaemon, name: str, *data: bytes, **more: Any) -> Invoked:
    return daemon.invoke("hostile", {"act": name, "data": [b64encode(one).decode() for one in data], **more})


def pid_now(daemon: RunningDaemon) -> int:
    pid: int = act(daemon, "hold").result
    return pid


def bad_frames(daemon: RunningDaemon) -> int:
    count: int = daemon.health()["statistics"]["dispatcher"]["bad_frames"]
    return count


def a_function_error(invoked: Invoked) -> None:
    """What Lambda says of a runtime that was killed."""
    assert (invoked.status, invoked.error) == (200, "Unhandled"), invoked.raw
    assert invoked.json["errorType"] == "Runtime.ExitError"
    assert re.fullmatch(r"RequestId: [0-9a-f-]{36} Error: Runtime exited with error: .+", invoked.json["errorMessage"])


def result_or_error(invoked: Invoked) -> None:
    """The function's own answer may have come before its environment's end."""
    if invoked.error is not None:
        a_function_error(invoked)


RESULT: Final = Result(0, 5, 5, 5, 0)
BROKEN: Final = {
    "nothing at all": [zmtp(b"")],
    "a cut length": [zmtp(b"\1\0")],
    "a length prefix without a header": [zmtp(b"\5\0\0\0")],
    "a header longer than the message": [zmtp(b"\xff\0\0\0" + b"x" * 20)],
    "a header longer than may be": [zmtp((1 << 20).to_bytes(4, "little") + b"x" * (1 << 20))],
    "what is no msgpack": [zmtp(b"\1\0\0\0\xc1")],
    "another type": [zmtp(message(["18", 0, 5, 5, 5, 0]))],
    "a text for a slot": [zmtp(message([18, "0", 5, 5, 5, 0]))],
    "a text that is no UTF-8": [zmtp(b"\x09\0\0\0\x97\x12\0\5\5\5\0\xa1\xff")],
    "numbers without bound": [zmtp(message([18, 0, 2**64 - 1, 5, 5, 5]))],
    "negative numbers": [zmtp(message([18, 0, -5, 5, 5, -5]))],
    "more fields": [zmtp(message([18, 0, 5, 5, 5, 0, "", "", "", ""]))],
    "deep nesting": [zmtp(b"\x60\xea\0\0" + b"\x91" * 60000)],
    "the dispatcher's own frame": [zmtp(message([1, 0, "id", 5, "arn"]))],
    "a slot that there is not": [zmtp(message(Result(1, 5, 5, 5, 0), b"{}"))],
    "a slot far out": [zmtp(message(Result(2**53, 5, 5, 5, 0), b"{}"))],
    "a reply of another kind": [zmtp(message(TaskResult(0, 5, False), b"x"))],
    "a reply to a call that is not over": [zmtp(message(RESULT, b'"forged"'))],
    "Ready again": [zmtp(message(Ready(PROTOCOL_VERSION, 5, 5, 0)))],
    "Ready of another version": [zmtp(message(Ready(PROTOCOL_VERSION + 1, 5, 5, 0)))],
    "InitFailed after Ready": [zmtp(message(InitFailed(PROTOCOL_VERSION, 5, 5, 0, "Error"), b"{}"))],
    "many parts": [zmtp(b"part", 1) * 5000 + zmtp(b"")],
    "parts without end": [zmtp(b"part", 1) * 10],
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_a_frame_that_breaks_the_protocol(daemon: RunningDaemon, data: list[bytes]) -> None:
    before = pid_now(daemon), bad_frames(daemon), len(daemon.logs("hostile"))
    result_or_error(act(daemon, "write", *data))
    after = pid_now(daemon)
    assert after != before[0], "the environment is not used again"
    assert bad_frames(daemon) > before[1]
    daemon.logs("hostile", until=lambda lines: any(DAMAGED.search(line) for line in lines[before[2] :]))


@pytest.mark.parametrize("size", [limits.FRAME_BYTES_MAX + 1, 7_000_000, 1 << 40, (1 << 63) - 1])
def test_a_message_over_the_limit(daemon: RunningDaemon, size: int) -> None:
    before = pid_now(daemon)
    result_or_error(act(daemon, "announce", size=size))
    assert pid_now(daemon) != before


@pytest.mark.parametrize(
    "data", [b"\xff" * 300, b"\xff" + bytes(8) + b"\x7f\3\0NULL".ljust(55, b"\0")], ids=["noise", "greeting"]
)
def test_what_is_no_zmtp(daemon: RunningDaemon, data: bytes) -> None:
    before = pid_now(daemon)
    result_or_error(act(daemon, "write", data))
    assert pid_now(daemon) != before


def test_an_answer_given_twice(daemon: RunningDaemon) -> None:
    """The first one counts, although it is forged: it is the function's own. The second must not answer another call."""
    before = pid_now(daemon), bad_frames(daemon)
    invoked = act(daemon, "forge", zmtp(message(RESULT, b'"forged"')))
    assert invoked.raw in (b'"forged"', b'"written"') or invoked.error == "Unhandled"
    assert pid_now(daemon) != before[0]
    assert bad_frames(daemon) > before[1]


def test_a_frame_while_nothing_runs(daemon: RunningDaemon) -> None:
    before = bad_frames(daemon)
    first = pid_now(daemon)
    assert act(daemon, "write_when_idle", zmtp(message(RESULT, b'"forged"'))).result == "later"
    await_that(lambda: bad_frames(daemon) > before)
    assert pid_now(daemon) != first


def test_half_a_message_is_not_taken_for_one(daemon: RunningDaemon) -> None:
    """The runtime's answer vanishes in a message that has no end: the function's timeout is the end of it."""
    daemon.deploy("halting", CODE, Timeout=1)
    body = b64encode(b"\2" + struct.pack(">Q", 1_000_000) + b"x" * 100).decode()
    invoked = daemon.invoke("halting", {"act": "write", "data": [body]})
    assert invoked.json["errorType"] == "Sandbox.Timedout"
    assert isinstance(daemon.invoke("halting", {"act": "hold"}).result, int)


def damaged(invoked: Invoked) -> bool:
    """Whether the call has suffered; that it may, but in one of these ways."""
    if invoked.error is None:
        return False
    assert invoked.json["errorType"] in ("Runtime.ExitError", "Sandbox.Timedout"), invoked.raw
    return True


@pytest.mark.parametrize("value", [0, 1, 2, 3, 4, 0x7F, 0xFF])
def test_a_slot_table_that_is_written_over(daemon: RunningDaemon, value: int) -> None:
    """The environment may fail this call or the next one. Then it is gone."""
    name = daemon.deploy(f"scribbling-{value}", CODE, Timeout=1)
    calls = [daemon.invoke(name, {"act": "scribble", "value": value}), daemon.invoke(name, {"act": "hold"})]
    if any([damaged(call) for call in calls]):
        assert isinstance(daemon.invoke(name, {"act": "hold"}).result, int)
    daemon.lambda_.delete_function(FunctionName=name)


def test_a_slot_table_that_is_written_over_all_the_time(daemon: RunningDaemon) -> None:
    name = daemon.deploy("scribbling", CODE, Timeout=1)
    suffered = [damaged(daemon.invoke(name, {"act": act})) for act in ["scribble_on", "hold", "hold"] * 3]
    assert any(suffered), "the noise has hit nothing"
    daemon.lambda_.delete_function(FunctionName=name)


def test_closing_every_descriptor(daemon: RunningDaemon) -> None:
    before = pid_now(daemon)
    a_function_error(act(daemon, "close_all"))
    assert pid_now(daemon) != before


@pytest.mark.parametrize("stay", [False, True])
def test_closing_the_lane(daemon: RunningDaemon, stay: bool) -> None:
    before = pid_now(daemon)
    result_or_error(act(daemon, "close_lane", stay=stay))
    assert pid_now(daemon) != before


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(zmtp(message(RESULT, b"x" * 1_000_000)), id="replies"),
        pytest.param(
            zmtp(b"x" * 1_000_000, 1),
            id="parts",
            marks=pytest.mark.xfail(reason="libzmq keeps the parts of a message without an end, and has no bound for them"),
        ),
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


def resident_bytes(daemon: RunningDaemon) -> int:
    pages = int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def output_bytes(daemon: RunningDaemon) -> tuple[int, int]:
    """(memory, size) of the largest output memfd that the daemon holds."""
    found = [(0, 0)]
    directory = f"/proc/{daemon.process.pid}/fd"
    for name in os.listdir(directory):
        try:
            if "fastlam-output" in os.readlink(f"{directory}/{name}"):
                status = os.stat(f"{directory}/{name}")
                found.append((status.st_blocks * 512, status.st_size))
        except FileNotFoundError:
            pass
    return max(found)


def test_printing_without_end(daemon: RunningDaemon) -> None:
    daemon.deploy("shouting", CODE, Timeout=2)
    before = resident_bytes(daemon)
    most = printed = 0
    with ThreadPoolExecutor(1) as callers:
        call = callers.submit(daemon.invoke, "shouting", {"act": "shout"})
        ticks = threading.Event()
        while not call.done():
            memory, size = output_bytes(daemon)
            most, printed = max(most, memory), max(printed, size)
            ticks.wait(0.02)  # a sampling interval: nothing depends on it
    assert call.result().json["errorType"] == "Sandbox.Timedout"
    assert printed > 4 * limits.LOG_BYTES_PER_INVOCATION_MAX, "it was not enough to show anything"
    assert most < printed / 2, f"{most} bytes of {printed} were held"
    assert resident_bytes(daemon) < before + 10 * limits.LOG_BYTES_PER_INVOCATION_MAX
    assert daemon.health()["statistics"]["dispatcher"]["log_dropped_bytes"] > 0
    kept = daemon.logs("shouting")
    assert sum(map(len, kept)) <= limits.LOG_BYTES_PER_INVOCATION_MAX + 100_000
    daemon.lambda_.delete_function(FunctionName="shouting")


@pytest.mark.parametrize("what", ["grow", "grow to the end", "shrink", "flags", "seal", "hole"])
def test_tampering_with_the_output(daemon: RunningDaemon, what: str) -> None:
    before = resident_bytes(daemon)
    invoked = act(daemon, "output", what=what)
    if what == "seal":
        assert invoked.result == 1, "EPERM: the output cannot be frozen"
    elif invoked.error is None:
        assert invoked.result == "done"
    else:
        a_function_error(invoked)
    assert isinstance(pid_now(daemon), int)
    assert resident_bytes(daemon) < before + 10 * limits.LOG_BYTES_PER_INVOCATION_MAX


def test_children_end_with_their_environment(daemon: RunningDaemon) -> None:
    pids = act(daemon, "breed", kinds=["same", "same", "same"]).result
    family = {one for one in descendants(daemon.process.pid) if one[0] in pids}
    assert len(family) == 3, "an environment that goes on keeps its children, as in Lambda"
    assert isinstance(pid_now(daemon), int)
    assert {one for one in descendants(daemon.process.pid) if one[0] in pids} == family
    assert act(daemon, "leave").error == "Unhandled"
    await_end(family)


@pytest.mark.parametrize("kind", ["group", "session"])
def test_children_that_went_away_end_with_the_daemon_at_the_latest(daemon: RunningDaemon, kind: str) -> None:
    (pid,) = act(daemon, "breed", kinds=[kind]).result
    assert act(daemon, "leave").error == "Unhandled"
    assert isinstance(pid_now(daemon), int)
    # Alive or not, it is still below the daemon, whose end the fixture watches.
    zygotes = processes(daemon.process.pid, "fastlam: zygote")
    if (found := {one for one in descendants(daemon.process.pid) if one[0] == pid}) != set():
        assert found <= set().union(*(descendants(zygote) for zygote in zygotes))

