"""A side that is measured in a process of its own, since $FASTLAM_LANE chooses the lane of a whole process.

`in_child` starts the process and is what the topic uses. The process (`python -m bench.lane_child PLACE ROUNDS QUICK`)
makes the side that the function at PLACE gives, and measures once for every line that it is sent:

    topic ── "measure" ──►  process
          ◄── a line: its figures, as JSON ──

It ends when it is sent another line, or none any more. Workers import this module again as their main one: it imports
little.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bench.measure import Metrics, Side, Topic

READY: Final = "ready\n"
MEASURE: Final = "measure\n"
END: Final = "end\n"
STOP_SECONDS: Final = 30.0


@contextlib.contextmanager
def in_child(topic: Topic, lane: str, place: str) -> Iterator[Side]:
    """The side of the context manager at `place` ("module:function", given a topic), on that lane, up and warm."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "bench.lane_child", place, str(topic.rounds), str(int(topic.quick))],
        env=os.environ | {"FASTLAM_LANE": lane},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    to_child, from_child = process.stdin, process.stdout

    def said() -> str:
        line = from_child.readline()
        if not line:
            raise RuntimeError(f"the process of {place} on the {lane} lane has ended")
        return line

    def measure() -> Metrics:
        import msgspec

        to_child.write(MEASURE)
        to_child.flush()
        return msgspec.json.decode(said(), type=dict[str, float])

    try:
        if said() != READY:
            raise RuntimeError(f"the process of {place} on the {lane} lane has said something else than its figures")
        yield measure
        # Said and not only closed: a pool that has forked after it may still hold the pipe's other end.
        to_child.write(END)
        to_child.flush()
        status = process.wait(STOP_SECONDS)
        if status:
            raise RuntimeError(f"the process of {place} on the {lane} lane ended with status {status}")
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            to_child.close()
        from_child.close()


def main(place: str, rounds: str, quick: str) -> None:
    import msgspec
    from bench.measure import Topic

    module, _, function = place.partition(":")
    topic = Topic(place, place, int(rounds), quick == "1")
    with getattr(importlib.import_module(module), function)(topic) as measure:
        sys.stdout.write(READY)
        sys.stdout.flush()
        for line in sys.stdin:
            if line != MEASURE:
                break
            sys.stdout.write(msgspec.json.encode(measure()).decode() + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
