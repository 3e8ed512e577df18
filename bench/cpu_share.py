"""`--cpu lambda`: what a handler gets done is proportional to its memory, as in Lambda, whether it computes or writes.

A function of 1769 MB has one CPU. Each round calls the functions one after the other for some seconds and counts what they
get done a second; nothing else should be running, since CPU time that others take is missing from the larger shares.
"""

from __future__ import annotations

import functools
import http.client
import json
import statistics
from typing import Final

from bench.daemon import FUNCTIONS, START_SECONDS, Server, deploy, fastlam_daemon, invoke_path
from bench.measure import Metrics, Topic

SIZES_MB: Final = (256, 512, 1024)
FULL_MB: Final = 1769
KINDS: Final = {"compute": 0.10, "write": 0.15}  # what the handler does: by which share it may be off
DONE: Final = "steps"
CPU: Final = "CPU time"


def work(daemon: Server, name: str, kind: str, seconds: float) -> Metrics:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=START_SECONDS)
    try:
        connection.request("POST", invoke_path(name), json.dumps({"kind": kind, "seconds": seconds}))
        answer = connection.getresponse()
        said = json.loads(answer.read())
    finally:
        connection.close()
    if "done" not in said:
        raise RuntimeError(f"{name}: {said}")
    return {DONE: said["done"] / said["seconds"], CPU: said["cpu_seconds"] / said["seconds"]}


def run(topic: Topic) -> None:
    seconds = topic.scale(20, 5) / 10
    with fastlam_daemon("--cpu", "lambda") as daemon:
        sides = {}
        for size_mb in (*SIZES_MB, FULL_MB):
            name = f"work-{size_mb}"
            deploy(daemon.url, name, FUNCTIONS / "work", MemorySize=size_mb)
            for kind in KINDS:
                sides[f"{kind}, {size_mb} MB"] = functools.partial(work, daemon, name, kind, seconds)
        for side in sides.values():
            side()  # environments up, and out of INIT, which is not held back
        topic.in_turns(sides, {DONE: "/s", CPU: "CPUs"})
        in_memory = daemon.get("/_fastlam/health")["isolation"]["tmp"] != "disk"
    for kind, off in KINDS.items():
        _check(topic, kind, DONE, off)
    _check(topic, "compute", CPU, KINDS["compute"])
    where = "in memory here" if in_memory else "on a disk of its own, whose rate follows the memory too (--disk-rate)"
    topic.note(f"`write` writes 1 MB to /tmp at a time, which lies {where}.")


def _check(topic: Topic, kind: str, metric: str, off: float) -> None:
    whole = topic.series(f"{kind}, {FULL_MB} MB", metric).values
    for size_mb in SIZES_MB:
        found = topic.series(f"{kind}, {size_mb} MB", metric).values
        share = statistics.median(one / full for one, full in zip(found, whole, strict=True))
        fair = size_mb / FULL_MB
        topic.check(
            f"{kind}: {metric} with {size_mb} MB, away from its share of {FULL_MB} MB",
            abs(share / fair - 1),
            "",
            at_most=off,
            detail=f"{share:.4f} for {fair:.4f}",
        )
