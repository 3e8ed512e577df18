"""The control plane: reads over HTTP, and a daemon that has a thousand functions stored against one that has none."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.client import Answer, run_closed_loop
from bench.daemon import ACCOUNT, FUNCTIONS, RUNTIME, deploy, invoke_path
from bench.http_load import RATE, SCRIPT, wrk
from bench.measure import Metrics, Topic

from fastlam.cli.child import Server, server

STORED: Final = 1000
STORED_SIDE: Final = f"{STORED} functions stored"
EMPTY_SIDE: Final = "none stored"
START: Final = "start to ready"
CPU: Final = "CPU of the daemon, an invoke"
READS_PER_SECOND_MIN: Final = 2000.0
START_SECONDS_MAX: Final = 1.0
GET_SCRIPT: Final = 'wrk.method = "GET"\n'


@contextlib.contextmanager
def kept_daemon(directory: Path) -> Iterator[Server]:
    """A daemon that keeps its functions in this directory."""
    words = [sys.executable, "-P", "-m", "fastlam", "serve", "--port", "0", "--data-dir", str(directory)]
    with server(words, r" is ready on http://127\.0\.0\.1:(\d+)") as daemon:
        yield daemon


def populate(daemon: Server, count: int) -> None:
    """Each with code of its own, so that nothing is shared."""
    numbers = iter(range(count))

    def create() -> tuple[int, bytes] | None:
        number = next(numbers, None)
        if number is None:
            return None
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("app.py", f"def handler(event, context):\n    return {number}\n")
        body = {
            "FunctionName": f"stored-{number:04d}",
            "Runtime": RUNTIME,
            "Role": f"arn:aws:iam::{ACCOUNT}:role/bench",
            "Handler": "app.handler",
            "Code": {"ZipFile": base64.b64encode(buffer.getvalue()).decode()},
            "Environment": {"Variables": {"NUMBER": str(number)}},
        }
        text = json.dumps(body).encode()
        head = f"POST /2015-03-31/functions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(text)}\r\n\r\n"
        return number, head.encode() + text

    def created(answer: Answer) -> None:
        if b" 201 " not in answer.head[:20]:
            raise RuntimeError(f"a function was not created: {answer.body!r}")

    run_closed_loop(daemon.port, 8, create, created)


def cpu_seconds(pid: int) -> float:
    """What the process has used so far, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(topic: Topic) -> None:
    if shutil.which("wrk") is None:
        topic.missing("wrk", "the package wrk of the distribution (Debian: apt-get install wrk)")
        return
    seconds = topic.scale(3, 1)
    with tempfile.TemporaryDirectory(prefix="fl-control-") as scratch:
        directories = {STORED_SIDE: Path(scratch, "stored"), EMPTY_SIDE: Path(scratch, "empty")}
        invoke_script, get_script = Path(scratch, "post.lua"), Path(scratch, "get.lua")
        invoke_script.write_text(SCRIPT)
        get_script.write_text(GET_SCRIPT)
        with kept_daemon(directories[STORED_SIDE]) as daemon:
            populate(daemon, STORED)

        def start(side: str) -> Metrics:
            begun = time.perf_counter()
            with kept_daemon(directories[side]):
                return {START: time.perf_counter() - begun}

        topic.in_turns({side: lambda side=side: start(side) for side in directories}, {START: "s"})  # type: ignore[misc]
        with contextlib.ExitStack() as stack:
            daemons = {side: stack.enter_context(kept_daemon(path)) for side, path in directories.items()}
            for daemon in daemons.values():
                deploy(daemon.url, "hello", FUNCTIONS / "hello")
                wrk(daemon.url + invoke_path("hello"), invoke_script, 1)

            def load(daemon: Server) -> Metrics:
                before = cpu_seconds(daemon.process.pid)
                metrics = wrk(daemon.url + invoke_path("hello"), invoke_script, seconds)
                spent = cpu_seconds(daemon.process.pid) - before
                return {**metrics, CPU: spent / (metrics[RATE] * seconds) * 1e6}

            topic.in_turns(
                {side: lambda daemon=daemon: load(daemon) for side, daemon in daemons.items()},  # type: ignore[misc]
                {RATE: "/s", CPU: "µs", "p50": "ms", "p99": "ms"},
                topic.rounds * 2,
            )
            reads = [
                wrk(f"{daemons[STORED_SIDE].url}/2015-03-31/functions/stored-0500", get_script, seconds)[RATE]
                for _ in range(topic.rounds)
            ]
    slowest = max(topic.series(STORED_SIDE, START).values)
    topic.check(f"start with {STORED} functions stored (slowest round)", slowest, "s", at_most=START_SECONDS_MAX)
    topic.ratio(f"invokes/s: {STORED} stored / none", (STORED_SIDE, RATE), (EMPTY_SIDE, RATE), at_least=0.95)
    topic.ratio(f"CPU of an invoke: {STORED} stored / none", (STORED_SIDE, CPU), (EMPTY_SIDE, CPU), at_most=1.05)
    topic.check("GetFunction (slowest round)", min(reads), "/s", at_least=READS_PER_SECOND_MIN)
