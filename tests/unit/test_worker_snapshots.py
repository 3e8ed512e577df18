"""Hooks around a snapshot, the module that functions register them with, and what must differ between environments."""

from __future__ import annotations

import inspect
import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastlam.worker import snapshots, syscall_filter
from fastlam.worker.provided import snapshot_restore_py


@pytest.fixture(autouse=True)
def hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module under the name by which a function imports it, and empty."""
    monkeypatch.setitem(sys.modules, snapshots.HOOKS_MODULE, snapshot_restore_py)
    yield
    snapshot_restore_py._before_snapshot.clear()
    snapshot_restore_py._after_restore.clear()


def test_order_and_arguments() -> None:
    said: list[object] = []

    def note(*arguments: object, **keywords: object) -> None:
        said.append((arguments, keywords))

    assert snapshot_restore_py.register_before_snapshot(note, 1) is note
    snapshot_restore_py.register_before_snapshot(note, 2, key="value")
    snapshot_restore_py.register_after_restore(note, 3)
    snapshot_restore_py.register_after_restore(note, 4)
    snapshots.run_before_snapshot()
    assert said == [((2,), {"key": "value"}), ((1,), {})]
    snapshots.run_before_snapshot()  # each once
    snapshots.run_after_restore()
    assert said[2:] == [((3,), {}), ((4,), {})]


def test_hooks_that_a_hook_registers_run_too() -> None:
    said: list[str] = []
    snapshot_restore_py.register_before_snapshot(
        lambda: snapshot_restore_py.register_before_snapshot(said.append, "inner")
    )
    snapshots.run_before_snapshot()
    assert said == ["inner"]


def test_without_the_module_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, snapshots.HOOKS_MODULE)
    snapshots.run_before_snapshot()
    snapshots.run_after_restore()


def test_the_module_is_that_of_lambdas_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one on the index, where it is installed: the same functions with the same parameters."""
    monkeypatch.delitem(sys.modules, snapshots.HOOKS_MODULE)
    real = pytest.importorskip("snapshot_restore_py")
    for name, function in inspect.getmembers(real, inspect.isfunction):
        if not name.startswith("_"):
            ours = inspect.signature(getattr(snapshot_restore_py, name))
            assert list(ours.parameters) == list(inspect.signature(function).parameters), name


def test_seeds_are_new() -> None:
    random.seed(7)
    first = [random.random() for _ in range(4)]
    random.seed(7)
    name = tempfile._get_candidate_names()  # type: ignore[attr-defined]
    snapshots.reseed()
    assert [random.random() for _ in range(4)] != first
    assert tempfile._get_candidate_names() is not name  # type: ignore[attr-defined]


def test_threads_are_named() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="pulse")
    thread.start()
    try:
        assert "pulse" in snapshots.lost_threads()
    finally:
        over.set()
        thread.join()


def test_files_are_copied_whole(tmp_path: Path) -> None:
    import os

    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a").mkdir(parents=True)
    target.mkdir()
    (source / "a" / "b").write_text("content")
    (source / "link").symlink_to("a/b")
    os.mkfifo(source / "pipe")
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        snapshots.copy_files(fd, str(target))
    finally:
        os.close(fd)
    assert (target / "link").read_text() == "content"
    assert (target / "link").is_symlink()


def test_a_template_may_only_make_one_call_more() -> None:
    for machine, number in (("x86_64", 308), ("aarch64", 268)):
        whole = syscall_filter.filter_program(machine)
        templates = syscall_filter.filter_program(machine, allowed=("setns",))
        assert len(whole) - len(templates) == 8  # one instruction
        assert number.to_bytes(4, "little") in whole
