"""A thousand workers killed with SIGKILL at random under load: every call gets a result or Lambda's error, once.

A second thread asks the daemon for its environments, picks one, whatever it is doing, and kills its process by pidfd.
"""

from __future__ import annotations

import array
import collections
import json
import os
import random
import signal
import threading
import time
from typing import Final

from bench.client import Answer, run_closed_loop
from bench.daemon import Server, recording_daemon, request
from bench.measure import Topic
from bench.processes import beside, descriptors, family

COUNT_DEFAULT: Final = 1000
CONNECTIONS: Final = 16
BETWEEN_SECONDS: Final = 0.01
HANDLER_SECONDS: Final = 0.002
AFTERWARDS: Final = 2000
SETTLE_SECONDS: Final = 10.0
NAME: Final = "nonce"
EXIT_ERROR: Final = "Runtime.ExitError"


class Killer(threading.Thread):
    """Kills `count` environments, each once."""

    def __init__(self, daemon: Server, count: int, topic: Topic) -> None:
        super().__init__(name="killer")
        self.daemon_server, self.count, self.topic = daemon, count, topic
        self.killed: collections.Counter[str] = collections.Counter()  # by the state that it was seen in
        self.victims: set[int] = set()  # ids of environments
        self.failure: BaseException | None = None
        self.over = threading.Event()

    def run(self) -> None:
        try:
            self._kill_all()
        except BaseException as error:
            self.failure = error
        finally:
            self.over.set()

    def _kill_all(self) -> None:
        choose = random.Random(self.count)
        while self.killed.total() < self.count:
            alive = [one for one in self.daemon_server.environments(NAME) if one["id"] not in self.victims and one["pid"]]
            one = choose.choice(alive) if alive else None
            # Behind walls there is a first process of its namespace too: either may die.
            pids = [one["pid"], *beside(one["pid"])] if one is not None else []
            if one is not None and kill(choose.choice(pids), self.daemon_server.process.pid):
                self.victims.add(one["id"])
                self.killed[one["state"]] += 1
                if self.killed.total() % 100 == 0:
                    self.topic.log(f"{self.killed.total()} killed")
            time.sleep(BETWEEN_SECONDS)


def kill(pid: int, ancestor: int) -> bool:
    """Kills `pid` if it is a process below `ancestor`; the pidfd keeps it from being another one of that number."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if all(one.pid != pid or one.state == "Z" for one in family(ancestor)):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


class Calls:
    """Numbered calls and what became of them."""

    def __init__(self, daemon: Server) -> None:
        self.daemon = daemon
        self.sent = 0
        self.ok: set[int] = set()
        self.errors: collections.Counter[str] = collections.Counter()

    def request(self) -> tuple[int, bytes]:
        self.sent += 1
        body = b'{"nonce": %d, "sleep": %g}' % (self.sent, HANDLER_SECONDS)
        return self.sent, request(self.daemon.port, NAME, body)

    def on_answer(self, answer: Answer) -> None:
        if answer.ok:
            if answer.body == b'{"nonce": %d}' % answer.number:
                self.ok.add(answer.number)
            else:
                self.errors[f"another's answer: {answer.body!r}"] += 1
            return
        status = answer.head.split(b" ", 2)[1].decode()
        try:
            kind = json.loads(answer.body).get("errorType", "no errorType")
        except ValueError:
            kind = "no JSON"
        self.errors[kind if status == "200" else f"status {status}: {answer.body[:100]!r}"] += 1


def run(topic: Topic) -> None:
    count = topic.count or topic.scale(COUNT_DEFAULT, 50)
    with recording_daemon(NAME) as (daemon, record):
        under_fire = Calls(daemon)
        killer = Killer(daemon, count, topic)
        killer.start()
        try:
            run_closed_loop(
                daemon.port,
                CONNECTIONS,
                lambda: None if killer.over.is_set() else under_fire.request(),
                under_fire.on_answer,
            )
        finally:
            killer.count = 0
            killer.join()
        if killer.failure is not None:
            raise killer.failure
        _await_gone(daemon, killer.victims)
        afterwards = Calls(daemon)
        afterwards.sent = under_fire.sent
        last = under_fire.sent + AFTERWARDS
        run_closed_loop(
            daemon.port,
            CONNECTIONS,
            lambda: None if afterwards.sent >= last else afterwards.request(),
            afterwards.on_answer,
        )
        lost = _settled(daemon)
        ran = array.array("Q")
        ran.frombytes(record.read_bytes())
        open_now = descriptors(daemon.process.pid)
    twice = len(ran) - len(set(ran))
    states = ", ".join(f"{number} {state}" for state, number in sorted(killer.killed.items()))
    topic.check("environments killed", killer.killed.total(), "", at_least=count, detail=states)
    answered = len(under_fire.ok) + under_fire.errors.total()
    topic.check("calls under fire that were answered", answered, "", exactly=under_fire.sent)
    exits = under_fire.errors.pop(EXIT_ERROR, 0)
    topic.check(f"of these, Lambda's {EXIT_ERROR}", exits, "", at_most=count)
    topic.check(
        "of these, anything else", under_fire.errors.total(), "", exactly=0, detail=str(dict(under_fire.errors))
    )
    topic.check("nonces that ran twice", twice, "", exactly=0)
    topic.check("calls with a result that did not run", len(under_fire.ok - set(ran)), "", exactly=0)
    topic.check("calls afterwards that failed", AFTERWARDS - len(afterwards.ok), "", exactly=0)
    topic.check("environments afterwards that are not idle, or without a process, or left over", lost, "", exactly=0)
    topic.note(
        f"{CONNECTIONS} connections, handler of {HANDLER_SECONDS * 1e3:g} ms; {open_now} descriptors at the end."
    )


def _await_gone(daemon: Server, victims: set[int]) -> None:
    """Behind walls the end of a first process is that of its worker a moment later, which may still begin a call."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while any(one["id"] in victims for one in daemon.environments(NAME)) and time.monotonic() < deadline:
        time.sleep(BETWEEN_SECONDS)


def _settled(daemon: Server) -> int:
    """Differences between what the daemon believes and what /proc says, once they no longer change."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        environments = daemon.environments(NAME)
        below = family(daemon.process.pid)
        wrong = sum(one["state"] != "idle" for one in environments)
        wrong += sum(one.state == "Z" for one in below)
        believed = {one["pid"] for one in environments}
        zygotes = {one.pid for one in below if one.parent == daemon.process.pid}
        forked = {one.pid for one in below if one.parent in zygotes}
        wrong += len(believed - {one.pid for one in below})
        # Beside them, behind walls: a first process for each, and one for the next environment.
        wrong += max(0, len(forked - believed) - len(believed) - len(zygotes))
        if wrong == 0 or time.monotonic() > deadline:
            return wrong
        time.sleep(0.1)
