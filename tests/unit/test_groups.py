"""Control groups of this machine, where it lets this user make any."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastlam.sandbox import groups
from waiting import await_that


@pytest.fixture
def own() -> Iterator[groups.ControlGroups]:
    made = groups.ControlGroups()
    if made.missing:
        made.close()
        pytest.skip(f"control groups are missing: {made.missing}")
    yield made
    made.close()


def bases() -> list[Path]:
    """Of this process; others may run beside it."""
    return [path for each in groups.hierarchies() for path in each.own.glob(f"fastlam-{os.getpid()}-*")]


def test_limits_are_the_kernels(own: groups.ControlGroups) -> None:
    group = own.make("one")
    group.limit_memory(64 << 20)
    group.limit_pids(7)
    group.limit_cpu(0.5)
    versions = {name: version for name, (version, _) in group.by_controller.items()}
    read = {name: path for name, (_, path) in group.by_controller.items()}
    memory = read["memory"] / ("memory.max" if versions["memory"] == 2 else "memory.limit_in_bytes")
    assert int(memory.read_text()) == 64 << 20
    assert int((read["pids"] / "pids.max").read_text()) == 7
    if versions["cpu"] == 2:
        assert (read["cpu"] / "cpu.max").read_text().split() == ["10000", "20000"]
    else:
        assert int((read["cpu"] / "cpu.cfs_quota_us").read_text()) == 10_000
        assert int((read["cpu"] / "cpu.cfs_period_us").read_text()) == 20_000
    assert group.remove()


def test_a_limit_can_be_set_again(own: groups.ControlGroups) -> None:
    """To more and to less: an environment that its template leaves in the lurch comes from another one, of another size."""
    group = own.make("again")
    version, path = group.by_controller["memory"]
    name = "memory.max" if version == 2 else "memory.limit_in_bytes"
    for memory_mb in (64, 96, 48):
        group.limit_memory(memory_mb << 20)
        assert int((path / name).read_text()) == memory_mb << 20
    assert group.remove()


def test_what_has_run_out_of_memory_is_counted(own: groups.ControlGroups) -> None:
    group = own.make("hungry")
    group.limit_memory(48 << 20)
    joins = "".join(f"open({path!r}, 'w').write('0')\n" for path in group.procs_files)
    program = joins + "held = [bytearray(b'x') * (1 << 20) for _ in range(200)]"
    assert group.oom_kills() == 0
    ended = subprocess.run([sys.executable, "-I", "-c", program], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert group.oom_kills() == 1
    assert 44 << 20 < group.memory_peak_bytes() <= 48 << 20
    assert group.remove()


def test_a_group_with_a_process_stays_until_that_is_gone(own: groups.ControlGroups) -> None:
    group = own.make("lived-in")
    joins = "".join(f"open({path!r}, 'w').write('0')\n" for path in group.procs_files)
    child = subprocess.Popen([sys.executable, "-I", "-c", joins + "print(1, flush=True); input()"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline()
    assert not group.remove()
    group.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    await_that(group.remove)


def test_a_tree_that_somebody_removed_is_made_again(own: groups.ControlGroups) -> None:
    for base in bases():
        base.rmdir()
    group = own.make("again")
    assert all(path.is_dir() for path in group.paths)
    assert group.remove()


def test_the_groups_of_a_killed_daemon_go() -> None:
    """With what still lives in them; those of one that lives stay."""
    program = (
        "import os, sys; sys.path[:0] = sys.argv[1:]\n"
        "from fastlam.sandbox.groups import ControlGroups\n"
        "own = ControlGroups(); group = own.make('left')\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    for path in group.procs_files: open(path, 'w').write('0')\n"
        "    print(os.getpid(), *map(str, group.paths), flush=True); import time; time.sleep(600)\n"
        "os.waitpid(pid, 0)\n"
    )
    source = str(Path(groups.__file__).parents[2])
    daemon = subprocess.Popen([sys.executable, "-c", program, source], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    pid, *paths = daemon.stdout.readline().split()
    try:
        if not paths:
            pytest.skip("control groups are missing")
        groups.ControlGroups().close()
        assert all(os.path.isdir(path) for path in paths), "its daemon lives"
    finally:
        daemon.kill()
        daemon.wait()
        daemon.stdout.close()

    def gone() -> bool:
        groups.ControlGroups().close()
        return not any(os.path.isdir(path) for path in paths)

    await_that(gone)
    await_that(lambda: not os.path.exists(f"/proc/{pid}"))


def test_nothing_is_left(own: groups.ControlGroups) -> None:
    own.make("x")
    own.close()
    assert not bases()
