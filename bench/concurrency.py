"""200 calls at the same time of a function that sleeps for a second: so many environments, or exactly so many
throttles.
"""

from __future__ import annotations

import selectors
import socket
import time
from contextlib import ExitStack
from typing import Final

from bench.daemon import FUNCTIONS, START_SECONDS, Server, deploy, fastlam_daemon, request
from bench.measure import Metrics, Topic

CALLS: Final = 200
RESERVED: Final = 50
SECONDS_MAX: Final = 4.0
REASON: Final = b"ReservedFunctionConcurrentInvocationLimitExceeded"


def all_at_once(daemon: Server, name: str, count: int, event: bytes = b"1.0") -> tuple[list[bytes], float]:
    """The answers to `count` requests that are sent together, and the seconds until the last one was there."""
    answers: list[bytes] = []
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        peers = []
        for _ in range(count):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), timeout=START_SECONDS))
            selector.register(peer, selectors.EVENT_READ)
            peers.append(peer)
        message = request(daemon.port, name, event)
        begun = time.perf_counter()
        for peer in peers:
            peer.sendall(message)
        while len(answers) < count:
            ready = selector.select(START_SECONDS)
            if not ready:
                raise RuntimeError(f"{count - len(answers)} calls were not answered")
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                # Answers are far smaller than a segment.
                answers.append(key.fileobj.recv(65536))
                selector.unregister(key.fileobj)
        return answers, time.perf_counter() - begun


def started(daemon: Server) -> int:
    """Environments that the daemon has started so far."""
    return int(daemon.get("/_fastlam/health")["statistics"]["dispatcher"]["environments_started"])


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def run(topic: Topic) -> None:
    environments, shared, throttles, ran = [], [], [], []
    with fastlam_daemon() as daemon:
        numbers = iter(range(1, 1000))

        def free() -> Metrics:
            name = f"free-{next(numbers)}"
            client = deploy(daemon.url, name, FUNCTIONS / "sleep")
            before = started(daemon)
            answers, seconds = all_at_once(daemon, name, CALLS)
            processes = {answer.rpartition(b"\r\n\r\n")[2] for answer in answers if status_of(answer) == 200}
            shared.append(CALLS - len(processes))
            environments.append(started(daemon) - before)
            client.delete_function(FunctionName=name)
            return {"all done": seconds}

        def reserved() -> Metrics:
            name = f"reserved-{next(numbers)}"
            client = deploy(daemon.url, name, FUNCTIONS / "sleep")
            client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=RESERVED)
            answers, seconds = all_at_once(daemon, name, CALLS)
            statuses = [status_of(answer) for answer in answers]
            throttles.append(sum(status_of(one) == 429 and REASON in one for one in answers))
            ran.append(statuses.count(200))
            client.delete_function(FunctionName=name)
            return {"all done": seconds}

        topic.in_turns({f"{CALLS} calls": free, f"{CALLS} calls, {RESERVED} reserved": reserved}, {"all done": "s"})
    slowest = max(topic.series(f"{CALLS} calls", "all done").values)
    topic.check(f"{CALLS} one-second sleeps at once, all done (slowest round)", slowest, "s", at_most=SECONDS_MAX)
    topic.check(
        "environments that were started for them (round with the fewest)",
        min(environments),
        "",
        exactly=CALLS,
        detail=f"{max(shared)} calls at most ran in one that had become free before theirs was up",
    )
    worst = max(throttles, key=lambda count: abs(count - (CALLS - RESERVED)))
    topic.check(
        f"throttles with {RESERVED} reserved (round furthest from {CALLS - RESERVED})",
        worst,
        "",
        exactly=CALLS - RESERVED,
        detail=f"{min(ran)} to {max(ran)} ran",
    )
