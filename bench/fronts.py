"""Front processes: hello over HTTP with none, one and two of them, and beside that daemons that share nothing.

What is compared is the CPU that a request costs the process that everything goes through, since that is what bounds a
machine with CPUs enough for all the others. The requests a second that they reach together say something on such a
machine only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.daemon import Server, deploy, fastlam_daemon, invoke_path
from bench.http_load import CONNECTIONS, RATE, SCRIPT, parse_wrk, wrk
from bench.measure import Metrics, Side, Topic

DISPATCHER: Final = "CPU of the dispatcher's process a request"
FRONTS: Final = "CPU of the front processes a request"
COUNTS: Final = (0, 1, 2)
DAEMONS: Final = "two daemons, half of the clients each"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of one process, without its children; in steps of a clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def pids_of(server: Server) -> tuple[int, list[int]]:
    health = server.get("/_fastlam/health")
    return health["pid"], [front["pid"] for front in health["fronts"]]


def measured(servers: list[Server], load: Callable[[], list[Metrics]], seconds: int) -> Metrics:
    """What the load of so many seconds reaches, and what it costs the processes of these servers."""
    pids = [pids_of(server) for server in servers]
    before = [(cpu_seconds(main), sum(map(cpu_seconds, fronts))) for main, fronts in pids]
    reached = load()
    after = [(cpu_seconds(main), sum(map(cpu_seconds, fronts))) for main, fronts in pids]
    rate = sum(metrics[RATE] for metrics in reached)
    requests = rate * seconds
    spent = [sum(late[part] - early[part] for early, late in zip(before, after, strict=True)) for part in (0, 1)]
    return {
        RATE: rate,
        DISPATCHER: spent[0] / requests * 1e6,
        FRONTS: spent[1] / requests * 1e6,
        "p50": max(metrics["p50"] for metrics in reached),
    }


def both(urls: list[str], script: Path, seconds: int) -> list[Metrics]:
    """A wrk for each, at the same time, with their share of the connections."""
    words = ["wrk", "-t1", f"-c{CONNECTIONS // len(urls)}", f"-d{seconds}s", "--timeout", "30s", "--latency"]
    started = [
        subprocess.Popen([*words, "-s", str(script), url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for url in urls
    ]
    return [parse_wrk(process.communicate(timeout=seconds + 60)[0]) for process in started]


def name_of(count: int) -> str:
    return f"--fronts {count}"


def run(topic: Topic) -> None:
    if shutil.which("wrk") is None:
        topic.missing("wrk", "the package wrk of the distribution (Debian: apt-get install wrk)")
        return
    seconds = topic.scale(3, 1)
    with contextlib.ExitStack() as stack:
        script = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fronts-"))) / "post.lua"
        script.write_text(SCRIPT)
        sides: dict[str, Side] = {}

        def daemon(count: int) -> tuple[Server, str]:
            one = stack.enter_context(fastlam_daemon("--fronts", str(count)))
            deploy(one.url, "hello")
            target = one.url + invoke_path("hello")
            wrk(target, script, 1)
            return one, target

        for count in COUNTS:
            one, target = daemon(count)
            sides[name_of(count)] = lambda one=one, target=target: measured(  # type: ignore[misc]
                [one], lambda: [wrk(target, script, seconds)], seconds
            )
        pair = [daemon(0) for _ in range(2)]
        sides[DAEMONS] = lambda: measured(
            [one for one, _ in pair], lambda: both([target for _, target in pair], script, seconds), seconds
        )
        topic.in_turns(sides, {RATE: "/s", DISPATCHER: "µs", FRONTS: "µs", "p50": "ms"})
    for count in COUNTS[1:]:
        none, some = (name_of(0), DISPATCHER), (name_of(count), DISPATCHER)
        topic.ratio(f"dispatcher's CPU a request: {name_of(count)} / none", some, none)
        topic.ratio(f"requests/s: {name_of(count)} / none", (name_of(count), RATE), (name_of(0), RATE))
    topic.ratio("requests/s: two daemons / one", (DAEMONS, RATE), (name_of(0), RATE))
    topic.note(f"wrk -t1 -c{CONNECTIONS} -d{seconds}s; {os.cpu_count()} CPUs for daemon, fronts, environments and wrk.")
