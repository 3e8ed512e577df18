"""What idle workers cost: what one has for itself, on each lane, and what 500 cost together, by /proc/PID/smaps_rollup.

Private_Clean + Private_Dirty is what a process alone has. Pss divides each shared page by the processes that have it:
its sum over a daemon and all below it counts every page of theirs once.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import multiprocessing
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

from bench.concurrency import all_at_once, status_of
from bench.daemon import Server, deploy, fastlam_daemon, invoke_path
from bench.http_load import runtime_api_server
from bench.lane_child import in_child
from bench.measure import Metrics, Side, Topic
from bench.processes import beside, family
from bench.tasks import slow_pid

WORKERS: Final = 8
PRIVATE: Final = "private"
RESIDENT: Final = "resident, shared pages included"
SETTLE_SECONDS: Final = 0.3
PRIVATE_MB_MAX: Final = 3.0
FUNCTION: Final = "fastlam environment of a function"
EXECUTOR: Final = "fastlam Executor worker"
LANES: Final = ("ring", "zmq")
TOGETHER: Final = 500
TOGETHER_MB_MAX: Final = 1500.0
ATTEMPT_SECONDS: Final = (5.0, 15.0, 40.0)  # a call takes so long: the first must not be over before all are up
INSTALL: Final = 'pip install "fastlam[bench]"'


def rollup_mb(pid: int) -> dict[str, float]:
    """The fields of smaps_rollup in MB (2**20 bytes)."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) / 1024
    return fields


def with_those_beside_mb(pid: int) -> dict[str, float]:
    """The sums of a process, those below it and those of its pid namespace: with walls an environment is a worker and
    the first process of its namespaces.
    """
    found = [rollup_mb(one) for one in {pid, *(one.pid for one in family(pid)), *beside(pid)}]
    return {name: sum(one[name] for one in found) for name in found[0]}


def private_mb(fields: dict[str, float]) -> float:
    return fields["Private_Clean"] + fields["Private_Dirty"]


def of_processes(pids: list[int]) -> Metrics:
    found = [with_those_beside_mb(pid) for pid in pids]
    return {
        PRIVATE: statistics.median(private_mb(one) for one in found),
        RESIDENT: statistics.median(one["Rss"] for one in found),
    }


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


@contextlib.contextmanager
def executor_side(topic: Topic) -> Iterator[Side]:
    """Idle workers of an Executor, on the lane of the process that asks for it."""
    from fastlam import Executor

    with Executor(2) as executor:
        pids = list(set(executor.map(slow_pid, range(8))))
        time.sleep(SETTLE_SECONDS)
        yield functools.partial(of_processes, pids)


def run(topic: Topic) -> None:
    with contextlib.ExitStack() as stack:
        standard = stack.enter_context(ProcessPoolExecutor(2))
        pids: dict[str, list[int]] = {"ProcessPoolExecutor worker (fork)": list(set(standard.map(slow_pid, range(4))))}
        forked = stack.enter_context(multiprocessing.Pool(2))
        pids["multiprocessing.Pool worker (fork)"] = list(set(forked.map(slow_pid, range(4), chunksize=1)))
        ours: dict[str, Side] = {}
        for lane in LANES:
            daemon = stack.enter_context(fastlam_daemon("--lane", lane))
            deploy(daemon.url, "sleep")
            found = _environments(daemon, "sleep", WORKERS)
            ours[f"{FUNCTION}, {lane} lane"] = functools.partial(of_processes, found)
            executor = stack.enter_context(in_child(topic, lane, "bench.memory:executor_side"))
            ours[f"{EXECUTOR}, {lane} lane"] = executor
        if importlib.util.find_spec("awslambdaric"):
            peer = stack.enter_context(runtime_api_server())
            pids["python -m awslambdaric"] = _children(peer.process.pid)
        else:
            topic.missing("awslambdaric", INSTALL)
        _add_loky(topic, stack, pids)
        time.sleep(SETTLE_SECONDS)
        peers: dict[str, Side] = {name: functools.partial(of_processes, found) for name, found in pids.items()}
        topic.in_turns({**ours, **peers}, {PRIVATE: "MB", RESIDENT: "MB"})
    for name in ours:
        topic.check(f"{name}, idle, private", topic.series(name, PRIVATE).median, "MB", at_most=PRIVATE_MB_MAX)
    topic.note("Medians over the workers of each kind. Each has run some calls before and is idle now.")
    together(topic, topic.scale(TOGETHER, 50))


def together(topic: Topic, count: int) -> None:
    """So many environments of one daemon, all alive and idle, each having run a call at least."""
    with fastlam_daemon() as daemon:
        deploy(daemon.url, "sleep", Timeout=60)
        for seconds in ATTEMPT_SECONDS:
            topic.progress(f"{count} environments")
            answers, _ = all_at_once(daemon, "sleep", count, b"%g" % seconds)
            failed = [answer for answer in answers if status_of(answer) != 200]
            if failed:
                raise RuntimeError(f"{len(failed)} of {count} calls failed: {failed[0]!r}")
            alive = [one for one in daemon.environments("sleep") if one["state"] == "idle"]
            if len(alive) == count:
                break
        time.sleep(SETTLE_SECONDS)
        workers = {one["pid"] for one in alive}
        private = [private_mb(with_those_beside_mb(pid)) for pid in workers]
        whole = {pid: rollup_mb(pid) for pid in (daemon.process.pid, *(one.pid for one in family(daemon.process.pid)))}
    what = f"{count} idle workers together"
    topic.check(f"{what}: alive and idle", len(workers), "", exactly=count)
    topic.check(
        f"{what}: proportional memory of the daemon and all below it",
        sum(one["Pss"] for one in whole.values()),
        "MB",
        at_most=TOGETHER_MB_MAX if count == TOGETHER else None,
        detail=f"{len(whole)} processes, shared pages counted once",
    )
    topic.check(f"{what}: private memory of the workers", sum(private), "MB", detail=f"{max(private):.2f} MB at most")
    topic.check(f"{what}: private memory of the daemon", private_mb(whole[daemon.process.pid]), "MB")


def _add_loky(topic: Topic, stack: contextlib.ExitStack, pids: dict[str, list[int]]) -> None:
    try:
        import loky
    except ImportError:
        topic.missing("loky", INSTALL)
        return
    pool: Any = loky.ProcessPoolExecutor(max_workers=2)
    stack.callback(pool.shutdown, kill_workers=True)
    pids["loky worker"] = list(set(pool.map(slow_pid, range(4))))
