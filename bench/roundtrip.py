"""Runtime.invoke of a tiny handler against two libzmq PAIR sockets that do nothing but answer, both over ipc.

The floor is bench/native/zmq_pingpong.c with pyzmq's own libzmq and messages of the size of our frames; unix_pingpong.c
shows what is left of it without any protocol. No side is bound to a CPU.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Final

import msgspec
from bench.fingerprint import MEMORY_MB
from bench.measure import Metrics, Topic
from bench.native_build import build_program

LENGTH_BYTES: Final = 4  # in front of every frame's header
EVENT: Final = b"{}"


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


def run(topic: Topic) -> None:
    from fastlam import Runtime

    count = topic.scale(5_000, 1000)
    request_bytes, reply_bytes = frame_bytes()
    program: Path | None = None
    if shutil.which("cc"):
        program = build_program("zmq_pingpong.c", Path(tempfile.gettempdir()), libraries=("-ldl",))
        plain_program = build_program("unix_pingpong.c", Path(tempfile.gettempdir()))
    else:
        topic.missing("the C ping-pong", "a C compiler (Debian: apt-get install gcc)")

    def floor() -> Metrics:
        with tempfile.TemporaryDirectory(prefix="zmq-") as directory:
            return figures(program, libzmq_path(), f"ipc://{directory}/s")

    def plain_floor() -> Metrics:
        return figures(plain_program)

    def figures(*words: Any) -> Metrics:
        sizes = [str(count), str(request_bytes), str(reply_bytes)]
        said = subprocess.run([*words, *sizes], check=True, capture_output=True, text=True, timeout=300)
        p50, p90, p99 = (float(word) / 1e3 for word in said.stdout.split())
        return {"round trip p50": p50, "p90": p90, "p99": p99}

    with Runtime() as runtime:
        function = runtime.function("tiny", handler=tiny, memory=MEMORY_MB, timeout=10)

        def fastlam() -> Metrics:
            invoke, clock = function.invoke, time.perf_counter_ns
            times = []
            for index in range(count):
                begun = clock()
                invoke(EVENT)
                if index >= count // 10:
                    times.append((clock() - begun) / 1e3)
            cuts = statistics.quantiles(times, n=100)
            return {"round trip p50": statistics.median(times), "p90": cuts[89], "p99": cuts[98]}

        fastlam()
        sides = {"fastlam Runtime.invoke": fastlam}
        if program is not None:
            sides["libzmq PAIR over ipc, C"] = floor
            sides["plain unix socket, C"] = plain_floor
        # Short turns, many of them: what else the machine does changes from second to second.
        rounds = topic.rounds * topic.scale(3, 1)
        topic.in_turns(sides, {"round trip p50": "µs", "p90": "µs", "p99": "µs"}, rounds)
    topic.note(f"{request_bytes} bytes there, {reply_bytes} back, on both sides; {count} round trips a round.")
    if program is not None:
        topic.ratio(
            "Runtime.invoke p50 / C ping-pong p50",
            ("fastlam Runtime.invoke", "round trip p50"),
            ("libzmq PAIR over ipc, C", "round trip p50"),
            at_most=1.6,
        )
        topic.ratio(
            "Runtime.invoke p50 / plain socket p50",
            ("fastlam Runtime.invoke", "round trip p50"),
            ("plain unix socket, C", "round trip p50"),
        )
