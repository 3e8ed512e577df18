"""A million invocations in a row over HTTP, each with a nonce that the function writes down, prints and echoes.

Every answer has to be its own, no nonce may have run twice, and descriptors and resident memory of the daemon and of its
environments have to stay what they were after the first tenth.
"""

from __future__ import annotations

import array
import time
from typing import Final

from bench.client import Answer, run_closed_loop
from bench.daemon import recording_daemon, request
from bench.measure import Topic
from bench.processes import descriptors, family, resident_kib

COUNT_DEFAULT: Final = 1_000_000
CONNECTIONS: Final = 8
SAMPLES: Final = 50
WRONG_MAX: Final = 100  # answers, after which the rest would tell nothing more
NAME: Final = "nonce"


class Watch:
    """Descriptors and memory of a program and of all below it, from the first sample on."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.first: dict[int, tuple[int, int]] = {}
        self.most: dict[int, tuple[int, int]] = {}

    def sample(self) -> None:
        for pid in [self.root, *(one.pid for one in family(self.root))]:
            found = descriptors(pid), resident_kib(pid)
            self.first.setdefault(pid, found)
            before = self.most.get(pid, found)
            self.most[pid] = max(before[0], found[0]), max(before[1], found[1])

    def growth(self, pids: list[int]) -> tuple[int, float]:
        """Most descriptors more than at first, and the largest share by which memory grew."""
        more = max(self.most[pid][0] - self.first[pid][0] for pid in pids)
        return more, max(self.most[pid][1] / self.first[pid][1] for pid in pids)


def run(topic: Topic) -> None:
    from fastlam import limits

    count = topic.count or topic.scale(COUNT_DEFAULT, 60_000)
    with recording_daemon(NAME) as (daemon, record):
        watch = Watch(daemon.process.pid)
        every = max(1, count // SAMPLES)
        # The daemon keeps the logs of so many invocations: before that its memory has to grow.
        settled = max(count // 10, 2 * limits.LOG_RECORDS_PER_FUNCTION_MAX)
        numbers = iter(range(count))
        answered = wrong = 0
        begun = time.monotonic()

        def next_request() -> tuple[int, bytes] | None:
            number = next(numbers, None) if wrong < WRONG_MAX else None
            return None if number is None else (number, request(daemon.port, NAME, b'{"nonce": %d}' % number))

        def on_answer(answer: Answer) -> None:
            nonlocal answered, wrong
            answered += 1
            if not answer.ok or answer.body != b'{"nonce": %d}' % answer.number:
                wrong += 1
                if wrong == 1:
                    topic.note(f"the first wrong answer: {answer!r}")
            if answered % every == 0:
                if answered >= settled:
                    watch.sample()
                rate = answered / (time.monotonic() - begun)
                topic.log(f"{answered:,} of {count:,}, {rate:,.0f}/s, {resident_kib(watch.root) / 1024:.1f} MB")

        run_closed_loop(daemon.port, CONNECTIONS, next_request, on_answer)
        seconds = time.monotonic() - begun
        ran = array.array("Q")
        ran.frombytes(record.read_bytes())
        started = daemon.get("/_fastlam/health")["statistics"]["dispatcher"]["environments_started"]
        environments = [one["pid"] for one in daemon.environments(NAME)]
    topic.check("invocations", answered, "", exactly=count, detail=f"{count / seconds:,.0f}/s")
    topic.check("answers that were not their own", wrong, "", exactly=0)
    topic.check("nonces that ran twice", len(ran) - len(set(ran)), "", exactly=0)
    topic.check("nonces that did not run", count - len(set(ran)), "", exactly=0)
    for what, pids in (
        ("daemon", [watch.root]),
        ("environments", [pid for pid in environments if pid in watch.first]),
    ):
        more, share = watch.growth(pids)
        topic.check(f"{what}: descriptors more than at {settled:,}, at most", more, "", at_most=0)
        detail = f"{max(watch.most[pid][1] for pid in pids) / 1024:.1f} MB at most"
        topic.check(f"{what}: resident memory, of that at {settled:,}", share, "×", at_most=1.05, detail=detail)
    topic.note(f"{CONNECTIONS} keep-alive connections, {started} environments.")
