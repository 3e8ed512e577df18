"""The directory of a dispatcher's sockets: private, locked for as long as its owner lives, short enough a path."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastlam.errors import FastlamError
from fastlam.sandbox import runtime_directory
from fastlam.sandbox.runtime_directory import RuntimeDirectory, remove_abandoned

PREFIX = f"fastlam-{os.getuid()}-"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with tempfile.TemporaryDirectory(prefix="t-") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


def test_it_is_private_and_goes_with_its_owner(base: Path) -> None:
    directory = RuntimeDirectory()
    assert directory.path.parent == base
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in directory.path.iterdir()] == ["lock"]
    directory.close()
    directory.close()
    assert list(base.iterdir()) == []


def test_the_next_owner_removes_what_a_dead_one_left(base: Path) -> None:
    alive, dead = RuntimeDirectory(), RuntimeDirectory()
    (dead.path / "7").touch()
    os.close(dead._lock_fd)  # as the kernel does it
    foreign = base / "fastlam-else"
    foreign.mkdir()
    unfinished = base / f"{PREFIX}unfinished"
    unfinished.mkdir()
    another = RuntimeDirectory()
    assert not dead.path.exists()
    assert all(path.is_dir() for path in (alive.path, foreign, unfinished, another.path))
    another.close()
    alive.close()


def test_a_directory_that_is_just_being_made_is_left_alone(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else cleans up at the worst moment: when the lock file is there and not locked yet."""
    lock = fcntl.flock

    def late(descriptor: int, operation: int) -> Any:
        monkeypatch.setattr(fcntl, "flock", lock)
        assert remove_abandoned(base, PREFIX) == 0
        return lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    directory = RuntimeDirectory()
    assert (directory.path / "lock").exists()
    assert remove_abandoned(base, PREFIX) == 0
    directory.close()


def test_links_and_files_of_that_name_are_no_directories_of_ours(base: Path) -> None:
    target = base / "target"
    target.mkdir()
    (target / "lock").touch()
    (base / f"{PREFIX}link").symlink_to(target)
    (base / f"{PREFIX}file").touch()
    assert remove_abandoned(base, PREFIX) == 0
    assert (target / "lock").exists()


def test_too_long_a_path_is_not_used(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = base / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    directory = RuntimeDirectory()
    assert directory.path.parent == Path("/tmp")
    directory.close()
    monkeypatch.setattr(runtime_directory, "SOCKET_PATH_BYTES_MAX", 10)
    with pytest.raises(FastlamError, match="set TMPDIR to a shorter one"):
        RuntimeDirectory()
