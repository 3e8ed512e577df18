"""--freeze: between invocations an environment stands still, whatever it has started; and nothing else changes.

On each kind of control groups that this machine has. In those of version 1 what is frozen does not even die when it is
killed, until somebody thaws it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Final

import pytest

from daemon_running import RunningDaemon, await_end, control_groups_of, descendants, running_daemon
from fastlam.sandbox.groups import FREEZER, hierarchies
from ordinary_user import as_ordinary_user
from waiting import await_that

# A thread and a child that note the time a thousand times a second, in memory that both share.
CODE: Final = """
import ctypes, mmap, os, struct, threading, time

SIZE = 1 << 20
shared = [mmap.mmap(-1, SIZE) for _ in range(2)]

def note(memory):
    at = 8
    while at < SIZE:
        struct.pack_into("=d", memory, at, time.monotonic())
        struct.pack_into("=q", memory, 0, at)
        at += 8
        time.sleep(0.001)

def noted(memory):
    (end,) = struct.unpack_from("=q", memory, 0)
    return [struct.unpack_from("=d", memory, at)[0] for at in range(8, end + 8, 8)]

child = os.fork()
if child == 0:
    ctypes.CDLL(None).prctl(1, 9)
    note(shared[0])
    os._exit(0)
threading.Thread(target=note, args=(shared[1],), daemon=True).start()
calls = 0

def handler(event, context):
    global calls
    calls += 1
    before = [len(noted(memory)) for memory in shared]
    deadline = time.monotonic() + 30
    while event.get("until_they_go_on") and any(
        len(noted(memory)) <= length + 10 for memory, length in zip(shared, before)
    ):
        assert time.monotonic() < deadline, "they stand still while a call runs"
        time.sleep(0.001)
    time.sleep(event.get("seconds", 0))
    if "between" in event:
        first, last = event["between"]
        return [sum(first < when < last for when in noted(memory)) for memory in shared]
    return calls
"""
# Where version 2 is mounted beside version 1, the daemon does not see it.
VERSION_1: Final = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
KINDS: Final = ("root-2", "root-1", "user")
QUIET_SECONDS: Final = 0.3  # for which nothing may happen, or something must


def hidden_version_2() -> list[str]:
    mounted = [each for each in hierarchies() if each.version == 2]
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines if " - cgroup2 " in line]
    assert len(points) == len(mounted)
    return [*VERSION_1, "".join(f"umount {point} && " for point in points) + 'exec "$@"', "sh"]


def as_kind(kind: str) -> AbstractContextManager[Sequence[str]]:
    """What goes before the daemon's command."""
    versions = {each.version for each in hierarchies() if FREEZER in each.controllers}
    if kind == "user":
        return as_ordinary_user()
    if os.geteuid() != 0:
        pytest.skip("root can run the tests of both")
    if int(kind[-1]) not in versions:
        pytest.skip(f"this machine has no freezer of version {kind[-1]}")
    if kind == "root-1" and 2 in versions:
        prefix = hidden_version_2()
        if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
            pytest.skip("version 2 of control groups cannot be hidden")
        return nullcontext(prefix)
    return nullcontext([])


@pytest.fixture(scope="module", params=KINDS)
def freezing(request: pytest.FixtureRequest) -> Iterator[RunningDaemon]:
    with as_kind(request.param) as prefix, running_daemon("--freeze", isolation="auto", prefix=prefix) as daemon:
        yield daemon


def frozen(daemon: RunningDaemon, name: str) -> bool:
    """Whether all of a function's environments are."""
    found = daemon.environments(name)
    return found != [] and all(each["frozen"] for each in found)


def quiet_time(daemon: RunningDaemon, name: str) -> list[float]:
    """The ends of a while in which no function runs, and all environments that are to stand still do."""
    if daemon.health()["freeze"]:
        await_that(lambda: frozen(daemon, name))
        await_that(lambda: all_stopped(daemon))
    first = time.monotonic()
    time.sleep(QUIET_SECONDS)  # nothing to wait for: it is the time itself in which nothing may happen
    return [first, time.monotonic()]


def all_stopped(daemon: RunningDaemon) -> bool:
    """What the kernel says of the groups of environments; the last task stops a moment after the order."""
    for base in map(Path, control_groups_of(daemon.process.pid)):
        for group in base.iterdir():
            if group.is_dir() and not (group / "cgroup.procs").read_text():  # of an environment that is yet to be made
                continue
            if (group / "freezer.state").exists() and (group / "freezer.state").read_text() != "FROZEN\n":
                return False
            asked = (group / "cgroup.freeze").exists() and (group / "cgroup.freeze").read_text() == "1\n"
            if asked and "frozen 1" not in (group / "cgroup.events").read_text():
                return False
    return True


# Between and in invocations ------------------------------------------------------------------------------------------


def test_threads_and_children_stand_still_and_go_on(freezing: RunningDaemon) -> None:
    name = freezing.deploy("notes", CODE, Timeout=60)
    for _ in range(3):
        freezing.invoke(name, {"until_they_go_on": True})
        between = quiet_time(freezing, name)
        assert freezing.invoke(name, {"between": between}).result == [0, 0]


def test_without_it_they_go_on() -> None:
    """What the test above sees is not for want of time."""
    with running_daemon(isolation="auto") as daemon:
        name = daemon.deploy("notes", CODE, Timeout=60)
        daemon.invoke(name, {"until_they_go_on": True})
        between = quiet_time(daemon, name)
        assert not frozen(daemon, name)
        thread, child = daemon.invoke(name, {"between": between}).result
        assert thread > 0
        assert child > 0


def test_environments_are_kept(freezing: RunningDaemon) -> None:
    name = freezing.deploy("kept", CODE)
    results = []
    for _ in range(20):
        results.append(freezing.invoke(name, {}).result)
        await_that(lambda: frozen(freezing, name))
    assert results == [*range(1, 21)]
    assert len(freezing.environments(name)) == 1


def test_many_callers(freezing: RunningDaemon) -> None:
    """Thawed and frozen in all orders: every call has its answer, and each environment counts its own."""
    name = freezing.deploy("many", CODE, Timeout=60)
    client = freezing.client()

    def call(number: int) -> int:
        result: int = freezing.invoke(name, {"seconds": 0.002 * (number % 3)}, client=client).result
        return result

    with ThreadPoolExecutor(6) as callers:
        results = list(callers.map(call, range(300)))
    rows = freezing.environments(name)
    assert sum(row["invocations"] for row in rows) == 300
    assert results.count(1) == len(rows)
    await_that(lambda: frozen(freezing, name))


def test_a_timeout_ends_what_had_been_frozen(freezing: RunningDaemon) -> None:
    name = freezing.deploy("late", CODE, Timeout=1)
    assert freezing.invoke(name, {}).result == 1
    await_that(lambda: frozen(freezing, name))
    answer = freezing.invoke(name, {"seconds": 30})
    assert "Task timed out after 1.00 seconds" in answer.json["errorMessage"]
    assert freezing.invoke(name, {}).result == 1


def test_a_killed_frozen_environment_is_replaced(freezing: RunningDaemon) -> None:
    name = freezing.deploy("killed", CODE)
    freezing.invoke(name, {})
    await_that(lambda: frozen(freezing, name))
    (row,) = freezing.environments(name)
    os.kill(row["pid"], signal.SIGKILL)
    if control_group_versions(freezing) != {1}:  # else it dies when it is thawed
        await_that(lambda: freezing.environments(name) == [])

    def replaced() -> bool:
        freezing.invoke(name, {})  # the first may find it as it dies
        return [each["pid"] for each in freezing.environments(name)] != [row["pid"]]

    await_that(replaced)
    assert freezing.invoke(name, {}).error is None


def control_group_versions(daemon: RunningDaemon) -> set[int]:
    """Of the freezer that the daemon uses."""
    bases = [Path(path) for path in control_groups_of(daemon.process.pid)]
    return {1 if "/freezer/" in str(base) else 2 for base in bases if "/freezer/" in str(base) or "unified" in str(base)}


def test_new_code_ends_frozen_environments(freezing: RunningDaemon) -> None:
    name = freezing.deploy("replaced", CODE)
    freezing.invoke(name, {})
    await_that(lambda: frozen(freezing, name))
    family = environment_family(freezing, name)
    freezing.update(name, "def handler(event, context):\n    return 'new'\n")
    await_end(family)
    assert freezing.invoke(name, {}).result == "new"


def environment_family(daemon: RunningDaemon, name: str) -> set[tuple[int, str]]:
    """The processes of a function's environments."""
    found: set[tuple[int, str]] = set()
    for row in daemon.environments(name):
        found |= descendants(row["pid"])
        found |= {each for each in descendants(daemon.process.pid) if each[0] == row["pid"]}
    assert len(found) >= 2
    return found


def test_provisioned_environments_are_frozen_after_their_init(freezing: RunningDaemon) -> None:
    name = freezing.deploy("ahead", CODE, Timeout=60)
    version = freezing.lambda_.publish_version(FunctionName=name)["Version"]
    freezing.lambda_.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=version, ProvisionedConcurrentExecutions=2
    )
    await_that(
        lambda: freezing.lambda_.get_provisioned_concurrency_config(FunctionName=name, Qualifier=version)["Status"]
        == "READY"
    )
    assert len(freezing.environments(name)) == 2
    between = quiet_time(freezing, name)
    assert freezing.invoke(name, {"between": between}, Qualifier=version).result == [0, 0]
    freezing.lambda_.delete_provisioned_concurrency_config(FunctionName=name, Qualifier=version)
    await_that(lambda: freezing.environments(name) == [])


# Ends ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("option", "counted"),
    [
        (("--keepalive", "0.5"), "environments_reaped"),
        (("--recycle-after", "0.5"), "environments_recycled"),
        (("--environments-max", "1"), "environments_evicted"),
    ],
    ids=["reaped", "recycled", "evicted"],
)
def test_frozen_environments_end(kind: str, option: tuple[str, str], counted: str) -> None:
    with as_kind(kind) as prefix, running_daemon("--freeze", *option, isolation="auto", prefix=prefix) as daemon:
        daemon.deploy("f", CODE)
        daemon.invoke("f", {})
        family = environment_family(daemon, "f")
        if counted == "environments_evicted":
            daemon.deploy("g", CODE)
            assert daemon.invoke("g", {}).result == 1
        await_end(family, 30.0)
        assert daemon.health()["statistics"]["dispatcher"][counted] >= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_daemon_stops_with_frozen_environments(kind: str) -> None:
    with as_kind(kind) as prefix, running_daemon("--freeze", isolation="auto", prefix=prefix) as daemon:
        for name in "fg":
            daemon.deploy(name, CODE)
            daemon.invoke(name, {})
        await_that(lambda: frozen(daemon, "f") and frozen(daemon, "g"))
        family = descendants(daemon.process.pid)
        daemon.stop()
        assert daemon.process.returncode == 0
        await_end(family)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("whole", [False, True], ids=["daemon", "daemon-and-zygotes"])
def test_what_a_killed_daemon_has_frozen_ends(kind: str, whole: bool, tmp_path: Path) -> None:
    """By its zygotes; or by the next daemon, if these have been killed too."""
    directory = tmp_path / "t"
    directory.mkdir()
    for path in (tmp_path, *tmp_path.parents):
        if path.owner() == "root" and str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | 0o011)  # of pytest's, for the ordinary user
    directory.chmod(0o1777)
    own = {"TMPDIR": str(directory), "XDG_RUNTIME_DIR": str(directory)}
    with as_kind(kind) as prefix:
        with running_daemon("--freeze", isolation="auto", prefix=prefix, environment=own) as daemon:
            daemon.deploy("f", CODE)
            daemon.invoke("f", {})
            await_that(lambda: frozen(daemon, "f"))
            family = descendants(daemon.process.pid)
            zygotes = [pid for pid, _ in family if is_zygote(pid)]
            assert zygotes
            for pid in zygotes if whole else []:
                os.kill(pid, signal.SIGSTOP)  # neither has time to see the other's end
            daemon.process.kill()
            daemon.process.wait()
            for pid in zygotes if whole else []:
                with suppress(ProcessLookupError):  # an ordinary user's is two, and one goes with the other
                    os.kill(pid, signal.SIGKILL)
            if not whole:
                await_end(family)
            # The next one sees to what is left, groups too, even if it freezes nothing itself.
            with running_daemon(isolation="auto", prefix=prefix):
                await_end(family)
                assert control_groups_of(daemon.process.pid) == []
    shutil.rmtree(directory)


def is_zygote(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"fastlam: zygote")
    except OSError:
        return False


def test_without_control_groups_it_is_refused() -> None:
    command = [sys.executable, "-m", "fastlam", "serve", "--ephemeral", "--port", "0", "--freeze", "--isolation"]
    done = subprocess.run([*command, "process"], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "--freeze needs the control groups of environments" in done.stderr


def test_groups_that_cannot_be_made_are_said() -> None:
    """To a user who commands none."""
    with as_ordinary_user() as prefix:
        own = [line for line in prefix[-2].splitlines() if "cgroup.procs" not in line]
        command = [*prefix[:-2], "\n".join(own), "sh", sys.executable, "-m", "fastlam", "serve", "--ephemeral"]
        done = subprocess.run(
            [*command, "--port", "0", "--freeze"], check=False, capture_output=True, text=True, timeout=60
        )
    assert done.returncode != 0
    assert "--freeze is not possible here: no group can be made in" in done.stderr
    assert "Delegate=yes" in done.stderr
