"""What an idle worker has for itself: Private_Clean + Private_Dirty of /proc/PID/smaps_rollup."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing
import statistics
import threading
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

from bench.daemon import Server, deploy, fastlam_daemon, invoke_path
from bench.http_load import runtime_api_server
from bench.measure import Metrics, Side, Topic
from bench.tasks import slow_pid

WORKERS: Final = 8
PRIVATE: Final = "private"
RESIDENT: Final = "resident, shared pages included"
SETTLE_SECONDS: Final = 0.3
INSTALL: Final = 'pip install "fastlam[bench]"'


def rollup_mb(pid: int) -> tuple[float, float]:
    """Private and resident memory in MB (2**20 bytes)."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) / 1024
    return fields["Private_Clean"] + fields["Private_Dirty"], fields["Rss"]


def of_processes(pids: list[int]) -> Metrics:
    pairs = [rollup_mb(pid) for pid in pids]
    return {PRIVATE: statistics.median(one[0] for one in pairs), RESIDENT: statistics.median(one[1] for one in pairs)}


def _environments(daemon: Server, name: str, count: int) -> list[int]:
    """Makes `count` environments by so many calls at a time, uses each some times, and returns their processes."""

    def call(seconds: float) -> None:
        body = json.dumps(seconds).encode()
        with urllib.request.urlopen(daemon.url + invoke_path(name), body, timeout=60) as answer:
            answer.read()

    for seconds in (1.0, *([0.01] * 10)):
        threads = [threading.Thread(target=call, args=(seconds,)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [one["pid"] for one in daemon.environments(name)]


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def run(topic: Topic) -> None:
    from fastlam import Executor

    units = {PRIVATE: "MB", RESIDENT: "MB"}
    with contextlib.ExitStack() as stack:
        standard = stack.enter_context(ProcessPoolExecutor(2))
        pids: dict[str, list[int]] = {"ProcessPoolExecutor worker (fork)": list(set(standard.map(slow_pid, range(4))))}
        forked = stack.enter_context(multiprocessing.Pool(2))
        pids["multiprocessing.Pool worker (fork)"] = list(set(forked.map(slow_pid, range(4), chunksize=1)))
        daemon = stack.enter_context(fastlam_daemon())
        deploy(daemon.url, "sleep")
        ours = {"fastlam environment of a function": _environments(daemon, "sleep", WORKERS)}
        executor = stack.enter_context(Executor(2))
        ours["fastlam Executor worker"] = list(set(executor.map(slow_pid, range(8))))
        if importlib.util.find_spec("awslambdaric"):
            peer = stack.enter_context(runtime_api_server())
            pids["python -m awslambdaric"] = _children(peer.process.pid)
        else:
            topic.missing("awslambdaric", INSTALL)
        _add_loky(topic, stack, pids)
        time.sleep(SETTLE_SECONDS)
        processes = {**ours, **pids}
        sides: dict[str, Side] = {name: lambda found=found: of_processes(found) for name, found in processes.items()}  # type: ignore[misc]
        topic.in_turns(sides, units)
    for name in ours:
        value = topic.series(name, PRIVATE).median
        topic.check(f"{name}, idle, private", value, "MB", at_most=3.0, detail=f"{len(ours[name])} of them")
    topic.note("Medians over the workers of each kind. Each has run some calls before and is idle now.")


def _add_loky(topic: Topic, stack: contextlib.ExitStack, pids: dict[str, list[int]]) -> None:
    try:
        import loky
    except ImportError:
        topic.missing("loky", INSTALL)
        return
    pool: Any = loky.ProcessPoolExecutor(max_workers=2)
    stack.callback(pool.shutdown, kill_workers=True)
    pids["loky worker"] = list(set(pool.map(slow_pid, range(4))))
