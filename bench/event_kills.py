"""A hundred thousand asynchronous events while their daemon is killed with SIGKILL twenty times at random: each event
that was accepted runs at least once.

What has had no answer when the daemon died may or may not have been accepted, and is not counted; the same goes for what
runs twice: an event whose end had not reached the disk.
"""

from __future__ import annotations

import array
import contextlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.client import Answer, run_closed_loop
from bench.daemon import Server, deploy_recording, fastlam_daemon, invoke_path
from bench.events import directory_on_disk
from bench.measure import Topic

COUNT_DEFAULT: Final = 100_000
KILLS: Final = 20
CONNECTIONS: Final = 16
DRAIN_SECONDS: Final = 600.0
NAME: Final = "nonce"
TWICE_MAX: Final = 0.01  # of all events


class Events:
    """Numbered events, and which of them were accepted."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.sent = 0
        self.accepted: set[int] = set()
        self.refused = 0
        self.port = 0

    def next(self) -> tuple[int, bytes] | None:
        if len(self.accepted) >= self.count:
            return None
        self.sent += 1
        body = b'{"nonce": %d}' % self.sent
        head = (
            f"POST {invoke_path(NAME)} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nX-Amz-Invocation-Type: Event\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return self.sent, head.encode() + body

    def on_answer(self, answer: Answer) -> None:
        if answer.head.startswith(b"HTTP/1.1 202 "):
            self.accepted.add(answer.number)
        else:
            self.refused += 1


@contextlib.contextmanager
def life(data: Path) -> Iterator[Server]:
    with fastlam_daemon("--data-dir", str(data)) as daemon:
        yield daemon


def prepare(data: Path) -> Path:
    """Deploys the function; the file into which it writes what it runs."""
    with life(data) as daemon:
        return deploy_recording(daemon, NAME, data)


def run(topic: Topic) -> None:
    count = topic.count or topic.scale(COUNT_DEFAULT, 2000)
    kills = topic.scale(KILLS, 4)
    seed = count
    choose = random.Random(seed)
    events = Events(count)
    downs = 0
    with directory_on_disk() as data:
        record = prepare(data)
        begun = time.monotonic()
        while True:
            with life(data) as daemon:
                events.port = daemon.port
                if downs == kills:
                    run_closed_loop(daemon.port, CONNECTIONS, events.next, events.on_answer)
                    drained = _drain(daemon)
                    break
                # The kills are spread over all of the events; some of them come when an earlier backlog is worked off.
                until = count * (downs + 1) * choose.uniform(0.6, 1.0) / kills
                _run_until_killed(daemon, events, until, choose.uniform(0.0, 0.1))
                downs += 1
                topic.log(f"{downs} killed, {len(events.accepted)} accepted")
        seconds = time.monotonic() - begun
        ran = array.array("Q")
        ran.frombytes(record.read_bytes())
    lost = events.accepted - set(ran)
    twice = len(ran) - len(set(ran))
    unheard = len(set(ran) - events.accepted)
    topic.check("times that the daemon was killed", downs, "", exactly=kills)
    topic.check("events that had their 202", len(events.accepted), "", at_least=count)
    topic.check("of these, events that never ran", len(lost), "", exactly=0)
    topic.check("runs more than one, of all events", 100 * twice / len(events.accepted), "%", at_most=100 * TWICE_MAX)
    topic.check("events refused", events.refused, "", exactly=0)
    topic.check("events left in the queue at the end", drained, "", exactly=0)
    topic.note(
        f"{twice} runs more than one; {unheard} events ran whose 202 the killed daemon owed; {CONNECTIONS} connections,"
        f" {seconds:.0f} s with {downs} starts, seed {seed}."
    )


def _run_until_killed(daemon: Server, events: Events, until: float, more_seconds: float) -> None:
    """Sends until so many have been accepted in all; a moment later the daemon is gone, in the middle of it."""
    enough = threading.Event()

    def kill() -> None:
        enough.wait()
        time.sleep(more_seconds)
        daemon.process.kill()

    def on_answer(answer: Answer) -> None:
        events.on_answer(answer)
        if len(events.accepted) >= until:
            enough.set()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        run_closed_loop(daemon.port, CONNECTIONS, events.next, on_answer)
    except (OSError, RuntimeError):
        pass  # it has been killed
    finally:
        enough.set()
        killer.join()
        daemon.process.wait()


def _drain(daemon: Server) -> int:
    """Events that are left when no more of them are expected to run."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        pending: int = daemon.get("/_fastlam/health")["statistics"]["events"]["pending"]
        if not pending or time.monotonic() > deadline:
            return pending
        time.sleep(0.1)
