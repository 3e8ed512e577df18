"""Functions that attack their environment from within: it ends with a clear reason, and nothing else is harmed.

The handlers dig out the lane to the dispatcher and send what no runtime would, write over the shared slot table, fill
the log, close descriptors, stop or kill what they can reach. A second function is invoked all the while.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from daemon_running import WAIT_SECONDS, Invoked, RunningDaemon
from fastlam import limits
from fastlam.wire import frames

# What the hostile functions share: `attack(event)` does the deed that the event names, on the connection to the
# dispatcher's PAIR socket. ZeroMQ's frames there: flags (1: more to come, 2: a length of eight bytes), length, bytes.
TOOLS = '''
import base64, os, socket, threading, time

def connection():
    for name in os.listdir("/proc/self/fd"):
        try:
            copy = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        try:
            copy.getpeername()
            return copy
        except OSError:
            copy.close()
    raise LookupError("no connection")

def framed(data, more=0):
    if len(data) < 256:
        return bytes([more, len(data)]) + data
    return bytes([2 | more]) + len(data).to_bytes(8, "big") + data

def attack(event):
    with connection() as lane:
        lane.setblocking(True)
        for message in event.get("messages", ()):
            lane.sendall(framed(base64.b64decode(message)))
        if "parts" in event:
            lane.sendall(b"".join(framed(base64.b64decode(part), 1) for part in event["parts"]))
        if "raw" in event:
            lane.sendall(base64.b64decode(event["raw"]))
        try:
            if "size" in event:
                lane.sendall(framed(bytes(event["size"])))
        except OSError:
            pass  # cut off in the middle
    while event.get("wait"):
        time.sleep(60)
'''

HANDLER = TOOLS + """
def handler(event, context):
    if event.get("later"):
        def late():
            time.sleep(0.05)
            attack(event)
        threading.Thread(target=late).start()
    else:
        attack(event)
    return os.getpid()
"""

ECHO = "def handler(event, context):\n    return event\n"
RESULT = frames.Result(0, 1000, 1000, 1000, 0)


def encoded(header: Any, payload: bytes = b"") -> bytes:
    data = header if isinstance(header, bytes) else msgspec.msgpack.encode(header)
    return struct.pack("<I", len(data)) + data + payload


def b64(data: bytes) -> str:
    text: str = msgspec.to_builtins(data)
    return text


def packed(*values: Any) -> bytes:
    return msgspec.msgpack.encode(list(values))


BAD_MESSAGES: dict[str, bytes] = {
    "nothing": b"",
    "three bytes": b"\x01\x02\x03",
    "no header": struct.pack("<I", 0),
    "a header longer than its frame": struct.pack("<I", 100) + b"x" * 99,
    "an impossible length": b"\xff" * 8,
    "a header over the limit": struct.pack("<I", limits.FRAME_HEADER_BYTES_MAX + 1) + b"\0" * 70_000,
    "no msgpack": encoded(b"\xc1\xc1\xc1"),
    "half a header": encoded(msgspec.msgpack.encode(RESULT)[:-3]),
    "two headers": encoded(msgspec.msgpack.encode(RESULT) * 2),
    "a map": encoded(msgspec.msgpack.encode({"slot": 0})),
    "deep nesting": encoded(b"\x91" * 60_000),
    "a text that is no UTF-8": encoded(packed(18, 0, 1, 1, 1, 0, "AB").replace(b"AB", b"\xff\xfe")),
    "an unknown tag": encoded(packed(99, 0)),
    "a frame of the other direction": encoded(frames.Stop()),
    "too few fields": encoded(packed(18, 0)),
    "too many fields": encoded(packed(18, 0, 1, 1, 1, 0, "", "", "more")),
    "a slot that is not there": encoded(msgspec.structs.replace(RESULT, slot=1)),
    "a negative slot": encoded(packed(18, -1, 1, 1, 1, 0)),
    "a slot beyond 63 bits": encoded(packed(18, 2**64 - 1, 1, 1, 1, 0)),
    "a duration beyond 63 bits": encoded(packed(18, 0, 2**64 - 1, 1, 1, 0)),
    "a negative duration": encoded(packed(18, 0, -(2**63), 1, 1, 0)),
    "an end of output beyond 63 bits": encoded(packed(18, 0, 1, 1, 1, 2**63)),
    "the result of a task": encoded(frames.TaskResult(0, 5, False), b"\0" * 20),
    "a result before the end": encoded(RESULT, b'"forged"'),
    "Ready once more": encoded(frames.Ready(frames.PROTOCOL_VERSION, 5, 5, 0)),
    "Ready of another version": encoded(frames.Ready(frames.PROTOCOL_VERSION + 1, 5, 5, 0)),
    "InitFailed after Ready": encoded(frames.InitFailed(frames.PROTOCOL_VERSION, 5, 5, 0, "Runtime.Forged"), b"{}"),
}


@pytest.fixture(scope="module")
def innocent(daemon: RunningDaemon) -> str:
    return daemon.deploy("innocent", ECHO)


@pytest.fixture(scope="module")
def hostile(daemon: RunningDaemon) -> str:
    return daemon.deploy("hostile", HANDLER, Timeout=30)


@pytest.fixture(autouse=True)
def bystander(daemon: RunningDaemon, innocent: str) -> Iterator[None]:
    """Another function's environment must live through each test."""
    daemon.invoke(innocent, "before")
    before = [row["pid"] for row in daemon.environments(innocent)]
    assert len(before) == 1
    yield
    assert daemon.invoke(innocent, "after").result == "after"
    assert [row["pid"] for row in daemon.environments(innocent)] == before
    assert daemon.health()["pid"] == daemon.process.pid


def await_truth(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def bad_frames(daemon: RunningDaemon) -> int:
    count: int = daemon.health()["statistics"]["dispatcher"]["bad_frames"]
    return count


def killed(answer: Invoked) -> bool:
    return answer.error == "Unhandled" and answer.json == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {answer.request_id} Error: Runtime exited with error: signal: killed",
    }


@pytest.mark.parametrize("case", BAD_MESSAGES)
def test_a_bad_frame_ends_the_environment(daemon: RunningDaemon, hostile: str, case: str) -> None:
    before = daemon.invoke(hostile, {}).result
    count = bad_frames(daemon)
    answer = daemon.invoke(hostile, {"messages": [b64(BAD_MESSAGES[case])], "wait": True})
    assert killed(answer), answer.raw
    assert bad_frames(daemon) == count + 1
    assert daemon.invoke(hostile, {}).result != before
    reasons = [line for line in daemon.logs(hostile) if "broke the protocol" in line]
    assert reasons, "the function's log tells why"


def test_several_parts_are_no_frame(daemon: RunningDaemon, hostile: str) -> None:
    good = b64(encoded(RESULT, b"1"))
    answer = daemon.invoke(hostile, {"parts": [good, good], "messages": [], "raw": b64(b"\0\1x"), "wait": True})
    assert killed(answer), answer.raw


def test_parts_without_end(daemon: RunningDaemon, hostile: str) -> None:
    """What never becomes a whole message costs its sender the invocation's time, and nobody else anything."""
    name = daemon.deploy("endless-parts", HANDLER, Timeout=2)
    answer = daemon.invoke(name, {"parts": [b64(bytes(500))] * 1000, "wait": True})
    assert killed(answer) or answer.json["errorType"] == "Sandbox.Timedout"


@pytest.mark.parametrize("raw", [b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\2" + b"\xff" * 8])
def test_bytes_that_are_no_zeromq(daemon: RunningDaemon, hostile: str, raw: bytes) -> None:
    """libzmq cuts such a connection without a word: the dispatcher finds out, long before the timeout."""
    answer = daemon.invoke(hostile, {"raw": b64(raw), "wait": True})
    assert killed(answer), answer.raw


def test_a_hundred_megabytes(daemon: RunningDaemon, hostile: str) -> None:
    """Over ZMQ_MAXMSGSIZE, too."""
    answer = daemon.invoke(hostile, {"size": 100_000_000, "wait": True})
    assert killed(answer), answer.raw
    assert any("over the limit" in line for line in daemon.logs(hostile))


def test_a_second_answer_is_not_taken_for_the_next_call(daemon: RunningDaemon, hostile: str) -> None:
    """A call may get the forged answer of its own handler; the real one that follows must not become another call's."""
    forged = b64(encoded(RESULT, b'"forged"'))
    for turn in range(20):
        first = daemon.invoke(hostile, {"messages": [forged] * (1 + turn % 2)})
        assert killed(first) or first.result == "forged" or isinstance(first.result, int)
        second = daemon.invoke(hostile, {})
        assert killed(second) or isinstance(second.result, int)


def test_an_answer_for_nobody(daemon: RunningDaemon, hostile: str) -> None:
    """Sent by a thread after its invocation was over."""
    count = bad_frames(daemon)
    pid = daemon.invoke(hostile, {"messages": [b64(encoded(RESULT, b'"late"'))], "later": True}).result
    await_truth(lambda: bad_frames(daemon) == count + 1)
    await_truth(lambda: pid not in [row["pid"] for row in daemon.environments(hostile)])
    assert daemon.invoke(hostile, {}).result != pid


def test_a_flood_of_frames(daemon: RunningDaemon, hostile: str) -> None:
    flood = [b64(encoded(RESULT, b"x" * 1000))] * 300
    answer = daemon.invoke(hostile, {"messages": flood * 10, "wait": True})
    assert killed(answer), answer.raw[:300]


def test_garbage_during_init(daemon: RunningDaemon) -> None:
    """INIT is tried twice and then the call has an error; nothing starts over and over."""
    event = {"messages": [b64(b"garbage")], "wait": True}
    name = daemon.deploy("garbage-in-init", TOOLS + f"\nattack({event!r})\ndef handler(event, context): ...\n")
    started = daemon.health()["statistics"]["dispatcher"]["environments_started"]
    answer = daemon.invoke(name, {})
    assert answer.error == "Unhandled"
    assert answer.json["errorType"] == "Runtime.ExitError"
    assert daemon.health()["statistics"]["dispatcher"]["environments_started"] == started + 2
    assert any("broke the protocol" in line for line in daemon.logs(name))


def test_ready_before_its_time(daemon: RunningDaemon) -> None:
    """An environment that says Ready itself gets its call, and is ended when the real Ready comes."""
    event = {"messages": [b64(encoded(frames.Ready(frames.PROTOCOL_VERSION, 5, 5, 0)))]}
    name = daemon.deploy("early", TOOLS + f"\nattack({event!r})\ndef handler(event, context):\n    return 1\n")
    answer = daemon.invoke(name, {})
    assert killed(answer), answer.raw


# --- shared memory, output, descriptors, processes ----------------------------------------------------

SCRIBBLE = """
import ctypes, os, random

def handler(event, context):
    places = []
    for line in open("/proc/self/maps"):
        if "fastlam-slots" in line and " rw" in line:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            places.append((start, end - start))
    assert places, "there is a slot table"
    for start, size in places:
        noise = bytes([event]) * size if event < 256 else random.randbytes(size)
        ctypes.memmove(start, noise, size)
    return os.getpid()
"""


@pytest.mark.parametrize("noise", [0, 1, 2, 3, 4, 255, 256])
def test_scribbling_over_the_slot_table(daemon: RunningDaemon, noise: int) -> None:
    name = daemon.deploy(f"scribble-{noise}", SCRIBBLE, Timeout=1)
    for _ in range(3):
        answer = daemon.invoke(name, noise)
        # Its own answer may be lost with its environment; a state that looks right lets it through.
        assert answer.error is None or answer.json["errorType"] in ("Runtime.ExitError", "Sandbox.Timedout")


ENDLESS = """
import os

def handler(event, context):
    block = b"x" * 65536
    while True:
        os.write(1, block)
"""


def test_endless_output(daemon: RunningDaemon) -> None:
    name = daemon.deploy("endless", ENDLESS, Timeout=3)
    answer = daemon.invoke(name, {})
    assert answer.json["errorType"] == "Sandbox.Timedout"
    dropped = daemon.health()["statistics"]["dispatcher"]["log_dropped_bytes"]
    assert dropped > limits.LOG_BYTES_PER_INVOCATION_MAX
    assert sum(map(len, daemon.logs(name))) < 4 * limits.LOG_BYTES_PER_INVOCATION_MAX
    assert any("bytes of output dropped" in line for line in daemon.logs(name))


def test_a_log_that_is_cut_and_stretched(daemon: RunningDaemon) -> None:
    name = daemon.deploy(
        "stretch",
        "import os\n"
        "def handler(size, context):\n    print('here')\n    os.ftruncate(1, size)\n    print('there')\n    return size\n",
    )
    for size in (0, 10_000_000_000, 1 << 60, 5):
        answer = daemon.invoke(name, size)
        assert killed(answer) or answer.result == size


CLOSING = """
import os, time

def handler(event, context):
    os.closerange(0, 1024)
    if event == "wait":
        while True:
            time.sleep(60)
    return 1
"""


@pytest.mark.parametrize("then", ["wait", "return"])
def test_closing_all_descriptors(daemon: RunningDaemon, then: str) -> None:
    name = daemon.deploy(f"closing-{then}", CLOSING, Timeout=5)
    for _ in range(2):
        answer = daemon.invoke(name, then)
        assert answer.error == "Unhandled"
        assert answer.json["errorType"] in ("Runtime.ExitError", "Sandbox.Timedout")


FORKING = """
import os, signal, sys

def handler(event, context):
    children = []
    for detached in (False, False, True):
        pid = os.fork()
        if pid == 0:
            if detached:
                os.setsid()
            while True:
                signal.pause()
        children.append(pid)
    print("forked", flush=True)
    return children
"""


def test_children_that_keep_running(daemon: RunningDaemon) -> None:
    """They live as long as their environment (and one that has left its group as long as the zygote); `running_daemon`
    looks for them after the daemon's end.
    """
    name = daemon.deploy("forking", FORKING)
    children = [daemon.invoke(name, {}).result for _ in range(2)]
    assert all(alive(pid) for family in children for pid in family)
    daemon.lambda_.delete_function(FunctionName=name)
    await_truth(lambda: not any(alive(pid) for family in children for pid in family[:2]))


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


STOPPING = """
import os, signal

def handler(event, context):
    if event == "self":
        os.kill(os.getpid(), signal.SIGSTOP)
    return os.getpid()
"""


def test_a_stopped_worker_times_out(daemon: RunningDaemon) -> None:
    name = daemon.deploy("stopping", STOPPING, Timeout=1)
    before = daemon.invoke(name, {}).result
    answer = daemon.invoke(name, "self")
    assert answer.json == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {answer.request_id} Error: Task timed out after 1.00 seconds",
    }
    assert daemon.invoke(name, {}).result != before
    await_truth(lambda: not alive(before))


def test_a_second_peer_on_the_same_socket(daemon: RunningDaemon) -> None:
    """The path of its own socket is known to a worker: what else connects there is not served, and the lane goes on."""
    name = daemon.deploy(
        "second-peer",
        TOOLS
        + """
def handler(event, context):
    with connection() as lane, socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(1)
        try:
            peer.connect(lane.getsockname())
            peer.sendall(b"\\xff" * event)
        except OSError:
            pass
    return event
""",
    )
    for size in (0, 10, 100_000):
        assert daemon.invoke(name, size).result == size
