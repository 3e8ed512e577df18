"""/tmp: what it holds, what it costs, and to whom it goes after a timeout or a crash; as root's daemon and as a user's."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from daemon_running import SNAPPED_RUNTIME, RunningDaemon, descendants, running_daemon
from fastlam.runtimes.python import INTERPRETER
from fastlam.sandbox.image import storage_bytes
from ordinary_user import as_ordinary_user
from permitted import group_can_be_made, no_disk, no_group, no_namespaces
from waiting import await_that

CODE: Final = """
import ctypes, errno, os, resource, sys, time
NAME = os.urandom(8).hex()

def handler(event, context):
    return globals()[event["do"]](**event.get("with", {}))

def look():
    return sorted(os.listdir("/tmp"))

def write(name, then="", mb=0):
    with open("/tmp/" + name, "ab") as file:
        file.write(b"x")
        for _ in range(mb):
            file.write(bytes(1 << 20))
    if then:
        globals()[then]()
    return NAME

def who():
    return NAME

def mounts():
    return open("/proc/mounts").read().splitlines()

def read_back(name):
    total = 0
    with open("/tmp/" + name, "rb") as file:
        while piece := file.read(1 << 20):
            total += len(piece)
    return total

def hold(mb):
    return len([bytearray(b"x") * (1 << 20) for _ in range(mb)])

def write_and_remove(mb):
    write("removed", mb=mb)
    os.unlink("/tmp/removed")

def free():
    space = os.statvfs("/tmp")
    return space.f_bavail * space.f_frsize

def fill():
    before, written, error = free(), 0, ""
    with open("/tmp/big", "wb", buffering=0) as file:
        try:
            while True:
                written += file.write(bytes(1 << 20))
        except OSError as full:
            error = errno.errorcode[full.errno]
    os.unlink("/tmp/big")
    return {"free": before, "written": written, "error": error, "again": free()}

def stream():
    return os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]

def time_out():
    time.sleep(60)

def leave():
    sys.exit(3)

def crash():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # some machines would put the core into /tmp
    ctypes.string_at(0)

def eat():
    held = []
    while True:
        held.append(bytearray(b"x") * (1 << 20))
"""
HOLDS_A_WALL: Final = "namespaces"


class Daemon:
    """A daemon, and functions of CODE."""

    def __init__(self, running: RunningDaemon, missing: str, *, as_root: bool, prefix: list[str]) -> None:
        self.prefix = prefix  # of programs of the same user
        self.running = running
        self.as_root = as_root
        self.missing = missing  # as the console has it

    def deploy(self, name: str, *, restored: bool = False, **more: Any) -> str:
        settings = {"Timeout": 2, "MemorySize": 256, **more}
        return self.running.snap(name, CODE, **settings) if restored else self.running.deploy(name, CODE, **settings)

    def call(self, function: str, what: str, **how: Any) -> Any:
        return self.running.invoke(function, {"do": what, "with": how})


@pytest.fixture(scope="module", params=["root", "user"])
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("root can run the tests of both")
    user = as_ordinary_user() if request.param == "user" and os.geteuid() == 0 else nullcontext([])
    with (
        user as prefix,
        running_daemon(isolation="auto", prefix=prefix, complains=SNAPPED_RUNTIME != INTERPRETER) as running,
    ):
        assert running.process.stdout is not None
        line = running.process.stdout.readline()
        if f"{HOLDS_A_WALL} (" in line:
            no_namespaces(line, prefix)
        yield Daemon(running, line, as_root=request.param == "root", prefix=prefix)


@pytest.mark.parametrize("restored", [False, True], ids=["forked", "restored"])
@pytest.mark.parametrize("end", ["time_out", "leave", "crash", "eat"])
def test_it_outlives_a_reset(daemon: Daemon, end: str, restored: bool) -> None:
    """The next process of the environment finds what the one before has left, and can change it."""
    if end == "eat" and "memory (" in daemon.missing:
        no_group("memory", daemon.missing, daemon.prefix)
    function = daemon.deploy(f"{end}-{'restored' if restored else 'forked'}".replace("_", "-"), restored=restored)
    other = daemon.deploy(f"other-{function.partition(':')[0]}")
    first = daemon.call(function, "who").result
    for _ in range(2):
        assert daemon.call(function, "write", name="x", then=end).error == "Unhandled"
        assert daemon.call(other, "look").result == []
        assert daemon.call(function, "look").result == ["x"]
        assert daemon.call(function, "write", name="x").result == daemon.call(function, "who").result
        if not restored:
            second = daemon.call(function, "who").result
            assert second != first, "it was no new process"
            first = second


def test_it_outlives_resets_with_the_log_stream(daemon: Daemon) -> None:
    function = daemon.deploy("streams")
    before = daemon.call(function, "stream").result
    assert daemon.call(function, "leave").error == "Unhandled"
    assert daemon.call(function, "stream").result == before


def test_only_one_environment_gets_it(daemon: Daemon) -> None:
    """Two at a time after one reset: one of them has the old /tmp, the other one an empty one."""
    from concurrent.futures import ThreadPoolExecutor

    function = daemon.deploy("one", Timeout=3)
    assert daemon.call(function, "write", name="x", then="leave").error == "Unhandled"
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda name: daemon.call(function, "write", name=name, then="time_out").error, "ab"))
        assert ends == ["Unhandled"] * 2
        seen = [each.result for each in pool.map(lambda _: daemon.call(function, "look"), range(2))]
    assert sum("x" in each for each in seen) <= 1 or seen[0] == seen[1]
    for each in seen:
        assert each in (["a"], ["b"], ["a", "x"], ["b", "x"])


def test_new_code_begins_with_an_empty_one(daemon: Daemon) -> None:
    function = daemon.deploy("updated")
    assert daemon.call(function, "write", name="x", then="leave").error == "Unhandled"
    daemon.running.update(function, CODE + "\n# new\n")
    assert daemon.call(function, "look").result == []


def test_an_end_that_is_no_reset_leaves_nothing(daemon: Daemon) -> None:
    """A change of the configuration retires the environment, and its /tmp with it."""
    function = daemon.deploy("retired")
    assert daemon.call(function, "write", name="x").error is None
    daemon.running.lambda_.update_function_configuration(FunctionName=function, MemorySize=300)
    daemon.running.settle(function)
    assert daemon.call(function, "look").result == []


# What it holds, and what it costs --------------------------------------------------------------------------------------


def needs_a_disk(daemon: Daemon) -> None:
    tmp = daemon.running.health()["isolation"]
    if tmp["tmp"] != "disk":
        no_disk(tmp["tmp_reason"], as_root=daemon.as_root)


def loop_devices() -> list[str]:
    """Those in use: what lies behind each."""
    return [path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")]


def used_mb(answer: Any) -> int:
    found = re.search(r"Max Memory Used: (\d+) MB", answer.report)
    assert found is not None, answer.report
    return int(found[1])


def test_where_it_lies_is_told(daemon: Daemon) -> None:
    told = daemon.running.health()["isolation"]
    kind = next(line.split()[2] for line in daemon.call(daemon.deploy("mounts"), "mounts").result if " /tmp " in line)
    assert (told["tmp"], kind) in (("disk", "ext4"), ("memory", "tmpfs"))
    assert bool(told["tmp_reason"]) == (told["tmp"] == "memory")
    if os.geteuid() == 0 and daemon.as_root and Path("/dev/loop-control").exists() and shutil.which("mkfs.ext4"):
        assert told["tmp"] == "disk", told


def test_it_holds_more_than_the_function_has_memory(daemon: Daemon) -> None:
    needs_a_disk(daemon)
    function = daemon.deploy("small", MemorySize=128, Timeout=60)
    before = used_mb(daemon.call(function, "who"))
    written = daemon.call(function, "write", name="x", mb=400)
    assert written.error is None, written.json
    assert used_mb(written) - before < 15
    read = daemon.call(function, "read_back", name="x")
    assert read.result == (400 << 20) + 1
    assert used_mb(read) - before < 15
    eaten = daemon.call(function, "hold", mb=50)
    assert 50 <= used_mb(eaten) - before < 60
    assert used_mb(daemon.call(function, "write_and_remove", mb=100)) == used_mb(eaten)


def test_memory_is_exact_beside_a_full_tmp(daemon: Daemon) -> None:
    """To 2 %, whatever /tmp holds and the page cache with it."""
    needs_a_disk(daemon)
    function = daemon.deploy("exact", MemorySize=512, Timeout=60)
    used = used_mb(daemon.call(function, "who"))
    assert daemon.call(function, "write", name="x", mb=450).error is None
    assert daemon.call(function, "hold", mb=512 * 98 // 100 - used).error is None
    assert daemon.call(function, "hold", mb=512 * 102 // 100 - used).error == "Unhandled"
    assert daemon.call(function, "look").result == ["x"]


@pytest.mark.parametrize("storage_mb", [512, 700])
def test_it_has_its_size(daemon: Daemon, storage_mb: int) -> None:
    function = daemon.deploy(f"size-{storage_mb}", MemorySize=2048, Timeout=60, EphemeralStorage={"Size": storage_mb})
    said = daemon.call(function, "fill").result
    room_bytes = storage_bytes(storage_mb)
    assert (said["free"], said["again"], said["error"]) == (room_bytes, room_bytes, "ENOSPC")
    assert 0.998 * room_bytes < said["written"] <= room_bytes, "ext4 needs some for its own tables"


def test_another_function_finds_nothing_on_a_disk_that_was_full(daemon: Daemon) -> None:
    """Disks are used again."""
    needs_a_disk(daemon)
    for number in range(12):
        function = daemon.deploy(f"gone-{number}", MemorySize=512, Timeout=30)
        assert daemon.call(function, "look").result == []
        assert daemon.call(function, "write", name=f"d{number}", mb=20).error is None
        assert daemon.call(function, "free").result < storage_bytes(512) - (20 << 20)
        daemon.running.lambda_.delete_function(FunctionName=function)
    assert daemon.call(daemon.deploy("last"), "free").result == storage_bytes(512)


# What is left of it ----------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_disks(daemon: Daemon, tmp_path: Path) -> None:
    """Neither when the daemon stops nor when it is killed with all that it has started."""
    needs_a_disk(daemon)

    def mine() -> list[str]:
        return [path for path in loop_devices() if str(tmp_path) in path]

    for killed in (False, True):
        with running_daemon("--data-dir", str(tmp_path), ephemeral=False, isolation="auto") as running:
            if not killed:
                running.deploy("f", CODE, Timeout=30)
            assert running.invoke("f", {"do": "write", "with": {"name": "x", "mb": 10}}).error is None
            assert mine(), "the disk does not lie in the data directory"
            if killed:
                pids = [pid for pid, _ in descendants(running.process.pid)]
                for pid in (running.process.pid, *pids):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                running.process.wait()
                await_that(lambda: not mine())
                with running_daemon(isolation="auto"):  # the next one removes the control groups
                    pass
                for path in (running.stderr_path.parent / "t").iterdir():  # as it would what lies in its own directory
                    shutil.rmtree(path)
        await_that(lambda: not mine())
        assert [path for path in tmp_path.iterdir() if path.name.startswith("tmp")] == []


def test_cold_starts_in_a_row_leave_nothing(daemon: Daemon) -> None:
    needs_a_disk(daemon)
    count = int(os.environ.get("FASTLAM_TEST_COLD_STARTS", "100"))
    with running_daemon("--keepalive", "0", isolation="auto") as running:
        running.deploy("f", CODE)
        names = {running.invoke("f", {"do": "write", "with": {"name": "x"}}).result for _ in range(count)}
        assert len(names) == count
        assert running.invoke("f", {"do": "look"}).result == []
        await_that(lambda: len(loop_devices_of(running)) <= 20)


def loop_devices_of(running: RunningDaemon) -> list[str]:
    return [path for path in loop_devices() if str(running.stderr_path.parent) in path]


# Without walls -----------------------------------------------------------------------------------------------------------

SHARED: Final = """
import os, pathlib, sys, tempfile, time

def handler(event, context):
    path = pathlib.Path(tempfile.gettempdir())
    found = sorted(each.name for each in path.iterdir())
    if event.get("write"):
        tempfile.NamedTemporaryFile(prefix="mine-", delete=False).close()
    if event.get("leave"):
        sys.exit(1)
    return {"path": str(path), "found": found, "TMPDIR": os.environ.get("TMPDIR", "")}
"""


def test_without_walls_tempfile_has_a_directory_of_the_environments_own() -> None:
    with running_daemon(isolation="process") as running:
        for name in "ab":
            running.deploy(name, SHARED)
        first = running.invoke("a", {"write": True}).result
        assert first["found"] == []
        assert first["TMPDIR"] == "", "a variable that Lambda does not set"
        (mine,) = running.invoke("a", {}).result["found"]
        assert mine.startswith("mine-")
        other = running.invoke("b", {}).result
        assert (other["found"], other["path"] != first["path"]) == ([], True)
        assert running.invoke("a", {"leave": True}).error == "Unhandled"
        assert running.invoke("a", {}).result == {**first, "found": [mine]}
        assert Path(first["path"]).is_dir()
        running.update("a", SHARED + "\n")
        assert running.invoke("a", {}).result["found"] == []
        await_that(lambda: not Path(first["path"]).exists())


def test_without_walls_a_function_may_say_where_its_files_go(tmp_path: Path) -> None:
    with running_daemon(isolation="process") as running:
        running.deploy("a", SHARED, environment={"TMPDIR": str(tmp_path)})
        assert running.invoke("a", {}).result["path"] == str(tmp_path)


def test_without_a_loop_device_it_is_in_memory() -> None:
    """The console, health and the doctor say why."""
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's is in memory anyway")
    hiding = 'mount --bind /dev/null /dev/loop-control && exec "$@"'
    prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", hiding, "sh"]
    with running_daemon(isolation="full", prefix=prefix) as running:
        told = running.health()["isolation"]
        assert told["tmp"] == "memory"
        assert told["tmp_reason"]
        assert running.process.stdout is not None
        assert told["tmp_reason"] in running.process.stdout.readline()
        running.deploy("f", CODE)
        assert running.invoke("f", {"do": "write", "with": {"name": "x", "then": "leave"}}).error == "Unhandled"
        assert running.invoke("f", {"do": "look"}).result == ["x"]
        assert any("tmpfs" in line for line in running.invoke("f", {"do": "mounts"}).result if " /tmp " in line)


# Rates -----------------------------------------------------------------------------------------------------------------

DISK_BOUND: Final = """
import os, time

def handler(event, context):
    began = time.monotonic()
    with open("/tmp/x", "wb") as file:
        file.write(bytes(event["mb"] << 20))
        file.flush()
        os.fsync(file.fileno())
    return time.monotonic() - began

if os.environ.get("AT_INIT"):
    AT_INIT = handler({"mb": 16}, None)

def at_init(event, context):
    return AT_INIT
"""


def test_disks_are_as_fast_as_memory_is_large() -> None:
    """What is written to /tmp and synchronised; INIT is not held back."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    with running_daemon("--cpu", "lambda", "--disk-rate", "40", isolation="auto") as running:
        told = running.health()["isolation"]
        if told["tmp"] != "disk":
            no_disk(told["tmp_reason"], as_root=True)
        if told["no_disk_rates"]:
            no_group("io" if group_can_be_made("io") else "blkio", told["no_disk_rates"])
        rates = {}
        for memory_mb in (442, 884, 1769):
            name = running.deploy(f"m{memory_mb}", DISK_BOUND, MemorySize=memory_mb, Timeout=60)
            running.invoke(name, {"mb": 1})
            rates[memory_mb] = 16 * 1.048576 / running.invoke(name, {"mb": 16}).result
        for memory_mb, rate in rates.items():
            assert rate == pytest.approx(40 * memory_mb / 1769, rel=0.15), rates
        quick = running.deploy(
            "init", DISK_BOUND, handler="app.at_init", MemorySize=128, environment={"AT_INIT": "1"}, Timeout=60
        )
        assert running.invoke(quick, {}).result < 16 * 1.048576 / (40 * 128 / 1769) / 2


def test_without_a_share_of_the_cpu_disks_have_no_rate() -> None:
    with running_daemon("--disk-rate", "1", isolation="auto") as running:
        name = running.deploy("free", DISK_BOUND, Timeout=60, MemorySize=512)
        assert running.invoke(name, {"mb": 16}).result < 8


# What can go wrong -----------------------------------------------------------------------------------------------------


def test_with_a_cold_start_for_each_call_a_reset_leaves_nothing() -> None:
    with running_daemon("--keepalive", "0", isolation="auto") as running:
        name = running.deploy("f", CODE)
        assert running.invoke(name, {"do": "write", "with": {"name": "x", "then": "leave"}}).error == "Unhandled"
        assert running.invoke(name, {"do": "look"}).result == []


def test_the_maker_of_disks_may_die(daemon: Daemon) -> None:
    """Environments keep what they have, also over a reset; new ones have disks of another one's."""
    needs_a_disk(daemon)
    with running_daemon(isolation="auto", complains=True) as running:
        running.deploy("old", CODE)
        assert running.invoke("old", {"do": "write", "with": {"name": "x"}}).error is None
        for number in range(3):
            (maker,) = [pid for pid, _ in descendants(running.process.pid) if title(pid) == "fastlam: disks"]
            os.kill(maker, signal.SIGKILL)
            await_that(lambda: maker not in [pid for pid, _ in descendants(running.process.pid)])
            names = [running.deploy(f"new-{number}-{each}", CODE) for each in range(6)]
            assert [running.invoke(name, {"do": "write", "with": {"name": "y"}}).error for name in names] == [None] * 6
            assert running.invoke("old", {"do": "write", "with": {"name": "x", "then": "leave"}}).error == "Unhandled"
            assert running.invoke("old", {"do": "look"}).result == ["x"]
            assert "ext4" in str([each for each in running.invoke(names[5], {"do": "mounts"}).result if " /tmp " in each])


def title(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()
    return ""
