"""Environments that come and go: 300 functions with two each, all alive at the same time, and 2,000 one after the other.

Afterwards nothing of them is left: no process, control group, mount, descriptor or file.
"""

from __future__ import annotations

import http.client
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from bench.concurrency import started
from bench.daemon import FUNCTIONS, START_SECONDS, Server, deploy, fastlam_daemon, invoke_path, lambda_client
from bench.measure import Topic
from bench.processes import descriptors, family

from fastlam.sandbox.disks import AHEAD
from fastlam.worker.disk_maker import SPARE_MAX

TOGETHER: Final = 300
EACH: Final = 2
IN_A_ROW: Final = 2000
HOLD_SECONDS: Final = (8.0, 20.0, 60.0)  # a call takes so long: the first must not be over before all are up
SETTLE_SECONDS: Final = 30.0
CONTROL_GROUPS: Final = "/sys/fs/cgroup"
SLEEP: Final = "sleep"
SPARE_DISKS_MAX: Final = AHEAD + SPARE_MAX  # of one size, and nothing here has another one


class Remains(NamedTuple):
    """What environments may leave behind, beside what the daemon needs anyway."""

    processes: int
    control_groups: int
    mounts: int  # that the daemon and its zygotes see; `spare_disks` are in none of them
    descriptors: int
    files: int


def remains(daemon: Server, scratch: Path) -> Remains:
    pid = daemon.process.pid
    groups = sum(
        os.path.basename(base).startswith(f"fastlam-{pid}-") and name.isdigit()
        for base, names, _ in os.walk(CONTROL_GROUPS)
        for name in names
    )
    others = [one.pid for one in family(pid) if one.parent == pid and one.pid not in _makers_of_disks(pid)]
    mounts = sum(Path(f"/proc/{one}/mountinfo").read_text().count("\n") for one in (pid, *others))
    files = sum(len(names) for base, _, names in os.walk(scratch) if "/data" not in base)  # code stays a while, by its hash
    return Remains(len(family(pid)), groups, mounts, descriptors(pid), files)


def _makers_of_disks(pid: int) -> list[int]:
    return [one.pid for one in family(pid) if Path(f"/proc/{one.pid}/cmdline").read_bytes().startswith(b"fastlam: disks")]


def spare_disks(daemon: Server) -> int:
    """Those for /tmp that nobody has: made ahead, or emptied after their environment, and about to be given out."""
    return sum(
        line.split(" - ")[1].startswith("ext4 /dev/loop")
        for maker in _makers_of_disks(daemon.process.pid)
        for line in Path(f"/proc/{maker}/mountinfo").read_text().splitlines()
    )


def call(daemon: Server, name: str, event: bytes) -> int:
    """Invokes once on a connection of its own; the status."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=START_SECONDS + HOLD_SECONDS[-1])
    try:
        connection.request("POST", invoke_path(name), event)
        answer = connection.getresponse()
        answer.read()
        return answer.status if answer.getheader("X-Amz-Function-Error") is None else -answer.status
    finally:
        connection.close()


def settled(daemon: Server, scratch: Path, before: Remains) -> Remains:
    """What is left once nothing goes on leaving; `before` is awaited for a while, and that disks have been taken down."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := remains(daemon, scratch)) != before or spare_disks(daemon) > SPARE_DISKS_MAX:
        if time.monotonic() >= deadline:
            break
        time.sleep(0.1)
    return left


def run(topic: Topic) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        scratch = Path(directory)
        environment = os.environ | {"TMPDIR": directory, "XDG_RUNTIME_DIR": directory}
        together(topic, scratch, environment, topic.scale(TOGETHER, 20))
        in_a_row(topic, scratch, environment, topic.count or topic.scale(IN_A_ROW, 50))


def warmed_up(daemon: Server, scratch: Path) -> Remains:
    """What there is after one function has come and gone, and all that is made at the first use is there."""
    client = deploy(daemon.url, "first", FUNCTIONS / "hello")
    call(daemon, "first", b"{}")
    client.delete_function(FunctionName="first")
    client.close()
    started(daemon)
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := remains(daemon, scratch)).control_groups and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def together(topic: Topic, scratch: Path, environment: dict[str, str], functions: int) -> None:
    with fastlam_daemon("--keepalive", "3600", environment=environment) as daemon:
        before = warmed_up(daemon, scratch)
        names = [f"{SLEEP}-{number}" for number in range(functions)]
        client = lambda_client(daemon.url)
        for name in names:
            deploy(daemon.url, name, FUNCTIONS / SLEEP, Timeout=90).close()
            topic.progress(name)
        wanted = functions * EACH
        for seconds in HOLD_SECONDS:
            begun = time.perf_counter()
            with ThreadPoolExecutor(wanted) as callers:
                calls = [callers.submit(call, daemon, name, b"%g" % seconds) for name in names * EACH]
            statuses = [one.result() for one in calls]
            took = time.perf_counter() - begun
            failed = [status for status in statuses if status != 200]
            alive = daemon.get("/_fastlam/environments")["environments"]
            if failed or len(alive) == wanted:
                break
        per_function = {name: sum(one["function"] == name for one in alive) for name in names}
        what = f"{functions} functions × {EACH} environments"
        topic.check(f"{what}: alive at once", len(alive), "", exactly=wanted, detail=f"up and answered in {took:.1f} s")
        topic.check(f"{what}: functions with another number", sum(n != EACH for n in per_function.values()), "", exactly=0)
        topic.check(f"{what}: calls that failed", len(failed), "", exactly=0)
        for name in names:
            client.delete_function(FunctionName=name)
        client.close()
        _nothing_left(topic, what, settled(daemon, scratch, before), before)
        _check_spare_disks(topic, what, spare_disks(daemon))


def in_a_row(topic: Topic, scratch: Path, environment: dict[str, str], count: int) -> None:
    with fastlam_daemon("--keepalive", "0", environment=environment) as daemon:
        first = warmed_up(daemon, scratch)
        deploy(daemon.url, "hello").close()
        before = started(daemon)
        begun = time.perf_counter()
        failed = 0
        for number in range(count):
            failed += call(daemon, "hello", b"{}") != 200
            if number % 100 == 0:
                topic.progress(f"{number} of {count}")
        seconds = time.perf_counter() - begun
        fresh = started(daemon) - before
        left = settled(daemon, scratch, first)
        disks = spare_disks(daemon)
    what = f"{count} environments in a row"
    topic.check(f"{what}: started", fresh, "", exactly=count, detail=f"{seconds / count * 1e3:.1f} ms each")
    topic.check(f"{what}: calls that failed", failed, "", exactly=0)
    _nothing_left(topic, what, left, first)
    _check_spare_disks(topic, what, disks)


def _nothing_left(topic: Topic, what: str, left: Remains, before: Remains) -> None:
    for name, now, then in zip(Remains._fields, left, before, strict=True):
        topic.check(f"{what}: {name.replace('_', ' ')} left over", now - then, "", at_most=0, detail=f"{then} before")


def _check_spare_disks(topic: Topic, what: str, disks: int) -> None:
    topic.check(f"{what}: spare disks for /tmp", disks, "", at_most=SPARE_DISKS_MAX)
