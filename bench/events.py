"""Asynchronous events: how many a second are accepted, and so on disk, against how often the disk can sync.

wrk sends Event invocations over 64 connections to a daemon with a data directory, to one that keeps nothing, and, as the
ceiling, to a server that runs nothing; in turns with them a program writes 4 KB to the end of a file in the same
directory and syncs it, over and over. The events run meanwhile; each round waits for what is left of them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.daemon import bare_server, deploy, fastlam_daemon, invoke_path
from bench.http_load import RATE, wrk
from bench.measure import Metrics, Side, Topic

CONNECTIONS: Final = 64
BODY: Final = '{"name": "world", "pad": "' + "x" * 200 + '"}'
DURABLE: Final = "durable"
EPHEMERAL: Final = "--ephemeral"
BARE: Final = "bare uvloop + httptools, runs nothing"
DISK: Final = "4 KB and fdatasync"
SYNCS: Final = "syncs/s"
GROUPS: Final = "commits/s"
RAN: Final = "ran meanwhile/s"
DRAIN_SECONDS: Final = 300.0
BLOCK: Final = b"x" * 4096
ACCEPTED_MIN: Final = 8000


@contextlib.contextmanager
def directory_on_disk() -> Iterator[Path]:
    """Where the clone is: what is temporary lies in memory on some machines."""
    place = Path(__file__).parents[1] / "build"
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as path:
        yield Path(path)


def sync_rate(directory: Path, seconds: float) -> Metrics:
    """How often a second one writer has its bytes on disk."""
    path = directory / "syncs"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        count, begun = 0, time.perf_counter()
        while (passed := time.perf_counter() - begun) < seconds:
            os.write(descriptor, BLOCK)
            os.fdatasync(descriptor)
            count += 1
    finally:
        os.close(descriptor)
        path.unlink()
    return {SYNCS: count / passed}


def accept(daemon: Any, script: Path, seconds: int) -> Metrics:
    """One round of wrk, and then what it has left to run."""
    before = daemon.get("/_fastlam/health")["statistics"]["events"]
    found = wrk(daemon.url + invoke_path("hello"), script, seconds, CONNECTIONS)
    after = daemon.get("/_fastlam/health")["statistics"]["events"]
    metrics = dict(found) | {RAN: (after["completed"] - before["completed"]) / seconds}
    if "groups" in after["queue"]:
        metrics[GROUPS] = (after["queue"]["groups"] - before["queue"]["groups"]) / seconds
    deadline = time.monotonic() + DRAIN_SECONDS
    while daemon.get("/_fastlam/health")["statistics"]["events"]["pending"]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"events are left after {DRAIN_SECONDS:.0f} s")
        time.sleep(0.05)
    return metrics


def run(topic: Topic) -> None:
    if shutil.which("wrk") is None:
        topic.missing("wrk", "the package wrk of the distribution (Debian: apt-get install wrk)")
        return
    seconds = topic.scale(4, 1)
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(directory_on_disk())
        script = data / "post.lua"
        script.write_text(
            f"wrk.method = \"POST\"\nwrk.body = '{BODY}'\nwrk.headers[\"X-Amz-Invocation-Type\"] = \"Event\"\n"
        )
        durable = stack.enter_context(fastlam_daemon("--data-dir", str(data / "data")))
        ephemeral = stack.enter_context(fastlam_daemon())
        bare = stack.enter_context(bare_server())
        for daemon in (durable, ephemeral):
            deploy(daemon.url, "hello")
            accept(daemon, script, 1)
        sides: dict[str, Side] = {
            DURABLE: lambda: accept(durable, script, seconds),
            DISK: lambda: sync_rate(data, seconds),
            EPHEMERAL: lambda: accept(ephemeral, script, seconds),
            BARE: lambda: {RATE: wrk(bare.url + invoke_path("hello"), script, seconds, CONNECTIONS)[RATE]},
        }
        units = {RATE: "/s", SYNCS: "/s", GROUPS: "/s", RAN: "/s", "p50": "ms", "p99": "ms"}
        topic.in_turns(sides, units)
    accepted = topic.series(DURABLE, RATE).median
    topic.check("events accepted a second, each of them on disk", accepted, "/s", at_least=ACCEPTED_MIN)
    topic.ratio("accepted / the disk's own syncs", (DURABLE, RATE), (DISK, SYNCS))
    topic.ratio("accepted: durable / --ephemeral", (DURABLE, RATE), (EPHEMERAL, RATE))
    topic.ratio("accepted: durable / bare server", (DURABLE, RATE), (BARE, RATE))
    topic.note(f"wrk -t1 -c{CONNECTIONS} -d{seconds}s, bodies of {len(BODY)} bytes; the events run at the same time.")
