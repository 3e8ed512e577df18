"""The topics by name: module, title, and whether `make bench` runs them without being asked."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final, NamedTuple

from bench.measure import Topic


class Entry(NamedTuple):
    module: str
    title: str
    default: bool
    seconds_max: int  # the topic is stopped then
    function: str = "run"

    def load(self) -> Callable[[Topic], None]:
        run: Callable[[Topic], None] = getattr(importlib.import_module(self.module), self.function)
        return run


TOPICS: Final = {
    "roundtrip": Entry("bench.roundtrip", "Embedded round trip against a libzmq ping-pong in C", True, 900),
    "executor": Entry("bench.executors", "Executor against other process pools, two workers each", True, 1800),
    "burners": Entry("bench.burners", "Executor round trips while two processes burn CPU", True, 1800),
    "asyncio": Entry("bench.event_loops", "Awaiting tasks and functions in asyncio", True, 900),
    "http": Entry("bench.http_load", "Hello over HTTP, wrk with 32 connections", True, 1800),
    "events": Entry("bench.events", "Asynchronous events accepted, and so on disk", True, 1800),
    "fronts": Entry("bench.fronts", "Hello over HTTP with front processes", True, 900),
    "boto3": Entry("bench.http_load", "Hello through boto3", True, 900, "run_boto3"),
    "coldstart": Entry("bench.coldstart", "Cold start, from no environment to the result", True, 1800),
    "memory": Entry("bench.memory", "Memory of idle workers: of one, and of 500 together", True, 900),
    "meter": Entry("bench.meter", "Duration against the handler's own clock", True, 1800),
    "concurrency": Entry("bench.concurrency", "200 functions that sleep for a second at the same time", True, 600),
    "environments": Entry("bench.environments", "Environments that come and go, and what they leave", True, 1800),
    "isolation": Entry("bench.isolation", "Warm invocations with walls and without", True, 900),
    "cpu_share": Entry("bench.cpu_share", "CPU time that follows memory (--cpu lambda)", True, 900),
    "control": Entry("bench.control", "Control-plane reads, and start with a thousand functions", True, 900),
    "sources": Entry("bench.sources", "SQS messages to a function, against a client that receives them", True, 900),
    "simulate": Entry("bench.simulation", "The dispatcher on a virtual clock", True, 1800),
    "micro": Entry("bench.micro_suite", "Parts of the hot path alone (pytest-benchmark)", True, 900),
    "soak": Entry("bench.soak", "A million invocations in a row over HTTP", False, 6 * 3600),
    "soak_embedded": Entry("bench.soak_embedded", "Ten million embedded calls in a row", False, 6 * 3600),
    "event_kills": Entry("bench.event_kills", "Events while their daemon is killed twenty times", False, 3600),
    "kills": Entry("bench.kills", "A thousand workers killed at random under load", False, 3 * 3600),
}
