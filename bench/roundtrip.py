"""Runtime.invoke of a tiny handler against programs in C of two processes that do nothing but answer each other.

Floors, all with messages of the size of our frames: bench/native/zmq_pingpong.c, with pyzmq's own libzmq over ipc;
unix_pingpong.c, what is left of it without any protocol; express_pingpong.c, the shared memory that the ring lane is
made of, spinning and sleeping. Beside them the same Runtime on the zmq lane. No side is bound to a CPU.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from bench.fingerprint import MEMORY_MB
from bench.lane_child import in_child
from bench.measure import Metrics, Side, Topic
from bench.native_build import build_program

LENGTH_BYTES: Final = 4  # in front of every frame's header
EVENT: Final = b"{}"
OURS: Final = "fastlam Runtime.invoke"
OTHER_LANE: Final = "fastlam Runtime.invoke, zmq lane"
LIBZMQ: Final = "libzmq PAIR over ipc, C"
SOCKET: Final = "plain unix socket, C"
SPINNING: Final = "shared memory, spinning, C"
SLEEPING: Final = "shared memory, sleeping, C"
P50: Final = "round trip p50"
SPINNING_COUNT_MAX: Final = 1_000  # round trips; where both have one CPU, each takes what the scheduler gives at a time
UNITS: Final = {P50: "µs", "p90": "µs", "p99": "µs"}


def tiny(event: Any, context: Any) -> Any:
    return event


def frame_bytes() -> tuple[int, int]:
    """Sizes of the two messages of one such invocation."""
    from fastlam.arn import function_arn
    from fastlam.wire.frames import Invoke, Result

    encode = msgspec.msgpack.Encoder().encode
    arn = function_arn("us-east-1", "000000000000", "tiny")
    request = encode(Invoke(0, str(uuid.uuid4()), time.time_ns() // 1_000_000, arn))
    reply = encode(Result(0, 1500, 1500, 20_000, 0))
    return LENGTH_BYTES + len(request) + len(EVENT), LENGTH_BYTES + len(reply) + len(EVENT)


def libzmq_path() -> str:
    """The library that pyzmq has loaded into this process."""
    import zmq  # noqa: F401 - loads it

    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.rpartition(" ")[2]
        if "libzmq" in os.path.basename(path):
            return path
    raise RuntimeError("this pyzmq has libzmq linked into its own module, which a C program cannot load")


@contextlib.contextmanager
def runtime_side(topic: Topic) -> Iterator[Side]:
    """Our own side, on the lane of the process that asks for it, warm."""
    from fastlam import Runtime

    count = _count(topic)
    with Runtime() as runtime:
        invoke = runtime.function("tiny", handler=tiny, memory=MEMORY_MB, timeout=10).invoke

        def measure() -> Metrics:
            clock = time.perf_counter_ns
            times = []
            for index in range(count):
                begun = clock()
                invoke(EVENT)
                if index >= count // 10:
                    times.append((clock() - begun) / 1e3)
            cuts = statistics.quantiles(times, n=100)
            return {P50: statistics.median(times), "p90": cuts[89], "p99": cuts[98]}

        measure()
        yield measure


def floors(count: int, request_bytes: int, reply_bytes: int) -> dict[str, Side]:
    """The programs in C, built."""
    scratch = Path(tempfile.gettempdir())
    over_zmq = build_program("zmq_pingpong.c", scratch, libraries=("-ldl",))
    over_socket = build_program("unix_pingpong.c", scratch)
    over_memory = build_program("express_pingpong.c", scratch, csrc=("fl_express.c", "fl_spsc.c", "fl_wake.c"))

    def figures(*words: Any, mode: str = "") -> Metrics:
        trips = min(count, SPINNING_COUNT_MAX) if mode == "spin" else count
        sizes = [str(number) for number in (trips, request_bytes, reply_bytes)]
        command = [*words, *sizes, *filter(None, [mode])]
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        p50, p90, p99 = (float(word) / 1e3 for word in said.stdout.split())
        return {P50: p50, "p90": p90, "p99": p99}

    def libzmq() -> Metrics:
        with tempfile.TemporaryDirectory(prefix="zmq-") as directory:
            return figures(over_zmq, libzmq_path(), f"ipc://{directory}/s")

    return {
        LIBZMQ: libzmq,
        SOCKET: functools.partial(figures, over_socket),
        SPINNING: functools.partial(figures, over_memory, mode="spin"),
        SLEEPING: functools.partial(figures, over_memory, mode="sleep"),
    }


def run(topic: Topic) -> None:
    count = _count(topic)
    request_bytes, reply_bytes = frame_bytes()
    programs: dict[str, Side] = {}
    if shutil.which("cc"):
        programs = floors(count, request_bytes, reply_bytes)
    else:
        topic.missing("the C ping-pong", "a C compiler (Debian: apt-get install gcc)")
    with (
        in_child(topic, "zmq", "bench.roundtrip:runtime_side") as other_lane,
        runtime_side(topic) as ours,
    ):
        # Short turns, many of them: what else the machine does changes from second to second.
        rounds = topic.rounds * topic.scale(3, 1)
        topic.in_turns({OURS: ours, OTHER_LANE: other_lane, **programs}, UNITS, rounds)
    topic.note(f"{request_bytes} bytes there, {reply_bytes} back, on all sides; {count} round trips a round.")
    if programs:
        topic.note(f"{SPINNING}: {min(count, SPINNING_COUNT_MAX)} round trips; it needs two CPUs that nobody else wants.")
    topic.ratio("zmq lane p50 / Runtime.invoke p50", (OTHER_LANE, P50), (OURS, P50), at_least=4.0)
    for floor in programs:
        topic.ratio(
            f"Runtime.invoke p50 / {floor}, p50", (OURS, P50), (floor, P50), at_most=1.6 if floor == LIBZMQ else None
        )


def _count(topic: Topic) -> int:
    """Round trips a round, the first tenth of them to get warm."""
    return topic.scale(5_000, 1000)
