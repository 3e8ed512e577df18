"""Environments by the hundred leave nothing in the process that dispatches them: no mapping, descriptor or epoll entry."""

from __future__ import annotations

import os
import re
from collections import Counter
from concurrent.futures import wait
from pathlib import Path
from typing import Final

import pytest

from daemon_running import RunningDaemon
from fastlam import Executor
from waiting import await_that

pytestmark = pytest.mark.lanes

TURNS: Final = 500
CODE: Final = """
import os

def handler(event, context):
    if event == "leave":
        os._exit(0)
    return "x" * event
"""


def descriptors(pid: int | str) -> Counter[str]:
    """What the process has open, by kind."""
    kinds: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            kinds[re.sub(r"\d+", "#", os.readlink(f"/proc/{pid}/fd/{name}"))] += 1
        except FileNotFoundError:
            continue  # closed meanwhile
    return kinds


def watched(pid: int | str) -> int:
    """Entries of its epoll instances."""
    count = 0
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            count += path.read_text().count("tfd:")
        except FileNotFoundError:
            continue
    return count


def shared_memory(pid: int | str) -> int:
    """Mappings of memfds of ours."""
    return Path(f"/proc/{pid}/maps").read_text().count("/memfd:fastlam")


def state_of(pid: int | str) -> tuple[Counter[str], int, int]:
    return descriptors(pid), watched(pid), shared_memory(pid)


def test_environments_of_functions_that_come_and_go(daemon: RunningDaemon) -> None:
    """By themselves, with answers of which the greatest lie beside the rings, and by the function's deletion."""
    pid = daemon.process.pid
    daemon.deploy("first", CODE)
    for event in ("leave", 5):
        daemon.invoke("first", event)
    daemon.lambda_.delete_function(FunctionName="first")
    await_that(lambda: daemon.environments("first") == [])
    before = state_of(pid)
    for turn in range(TURNS // 50):
        name = daemon.deploy(f"turn-{turn}", CODE)
        for call in range(25):
            assert daemon.invoke(name, call * 1000).result == "x" * (call * 1000)
            assert daemon.invoke(name, "leave").error is not None
        assert daemon.invoke(name, 5_000_000).result == "x" * 5_000_000
        daemon.lambda_.delete_function(FunctionName=name)
        await_that(lambda name=name: daemon.environments(name) == [])
    assert daemon.health()["statistics"]["dispatcher"]["environments_started"] >= TURNS // 2
    connections = 5  # of clients, which keep them; there have been many more environments than that

    def settled() -> bool:
        (kinds, events, mappings), (kinds_before, events_before, mappings_before) = state_of(pid), before
        more = kinds - kinds_before
        return (
            set(more) <= {"socket:[#]", os.devnull}
            and more["socket:[#]"] <= connections
            and more[os.devnull] <= 1  # libuv's spare descriptor, which a loop opens with its first stream and keeps
            and events <= events_before + connections
            and mappings == mappings_before
        )

    await_that(settled)


def test_workers_that_come_and_go() -> None:
    with Executor(2, max_tasks_per_child=1) as executor:
        wait([executor.submit(pow, 2, 3) for _ in range(4)])
        assert executor.submit(abs, -1).result() == 1
        most = state_of("self")
        results = [executor.submit(len, b"x" * (number * 100)) for number in range(TURNS)]
        assert [future.result() for future in results] == [number * 100 for number in range(TURNS)]
        # Two workers live, and two more may be on their way; never as many as there have been.
        slack = 4

        def settled() -> bool:
            kinds, events, mappings = state_of("self")
            return (
                sum(kinds.values()) <= sum(most[0].values()) + 6 * slack
                and events <= most[1] + 3 * slack
                and mappings <= most[2] + 2 * slack
            )

        await_that(settled)


def test_executors_that_come_and_go() -> None:
    with Executor(1) as first:
        assert first.submit(abs, -1).result() == 1
        before = state_of("self")
        for number in range(25):
            with Executor(2) as executor:
                assert executor.submit(len, b"x" * 100_000 * (number % 3)).result() == 100_000 * (number % 3)
        await_that(lambda: state_of("self") == before)


def express_kib(pid: int | str) -> int:
    """What is resident of the rings and regions that the process has mapped."""
    total, counts = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split(":")[0].split()[0]:
            counts = "/memfd:fastlam-express" in line
        elif counts and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


MEGABYTES_5: Final = 5_000_000
IDLE_KIB: Final = 512  # rings, and what is kept of regions


def test_idle_environments_of_functions_give_memory_back(daemon: RunningDaemon, lane_in_use: str) -> None:
    daemon.deploy("large", CODE)
    for _ in range(2):
        assert len(daemon.invoke("large", MEGABYTES_5).result) == MEGABYTES_5
        assert daemon.invoke("large", b" " * MEGABYTES_5 + b"3").result == "xxx"
        if lane_in_use == "ring":
            assert express_kib(daemon.process.pid) > IDLE_KIB
        await_that(lambda: express_kib(daemon.process.pid) < IDLE_KIB)
    daemon.lambda_.delete_function(FunctionName="large")


def test_idle_workers_give_memory_back(lane_in_use: str) -> None:
    """While nobody waits for anything: the thread in the background keeps house."""
    with Executor(1) as executor:
        for _ in range(2):
            assert executor.submit(bytes.upper, b"x" * MEGABYTES_5).result() == b"X" * MEGABYTES_5
            if lane_in_use == "ring":
                assert express_kib("self") > 2 * MEGABYTES_5 // 1024 - IDLE_KIB
            await_that(lambda: express_kib("self") < IDLE_KIB)
