"""Layers laid over one another: what wins, what is shared, and that nothing half made is ever seen."""

from __future__ import annotations

import io
import os
import stat
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fastlam.store.artifacts import Artifact, ArtifactStore
from fastlam.store.layer_trees import tree_name

Files = Mapping[str, str | bytes]  # a text is content, bytes are a link's target


def put(store: ArtifactStore, files: Files) -> Artifact:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            executable = name.startswith("bin/")
            mode = stat.S_IFREG | (0o755 if executable else 0o644) if isinstance(content, str) else stat.S_IFLNK | 0o777
            entry.external_attr = mode << 16
            archive.writestr(entry, content)
    return store.put_zip(buffer.getvalue())


def laid(store: ArtifactStore, *layers: Files) -> Path:
    tree = store.layers([put(store, files).sha256 for files in layers])
    assert tree is not None
    return tree


def content(root: Path) -> dict[str, str | bytes]:
    """Files and links below; directories by what is in them."""
    found: dict[str, str | bytes] = {}
    for path in root.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(root))] = os.readlink(path).encode()
        elif path.is_file():
            found[str(path.relative_to(root))] = path.read_text()
    return found


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def test_the_union(store: ArtifactStore) -> None:
    tree = laid(
        store,
        {"python/a/one.py": "1", "python/shared.py": "first", "bin/tool": "#!"},
        {"python/a/two.py": "2", "python/shared.py": "second", "lib/x.so": "so"},
        {"python/shared.py": "third"},
    )
    assert content(tree) == {
        "python/a/one.py": "1",
        "python/a/two.py": "2",
        "python/shared.py": "third",
        "bin/tool": "#!",
        "lib/x.so": "so",
    }
    assert os.access(tree / "bin/tool", os.X_OK)
    assert not os.access(tree / "lib/x.so", os.X_OK)
    for folder in (tree, tree / "python", tree / "python/a"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_the_order_decides(store: ArtifactStore) -> None:
    one, two = {"f": "one"}, {"f": "two"}
    assert content(laid(store, one, two)) == {"f": "two"}
    assert content(laid(store, two, one)) == {"f": "one"}


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        ({"x": "file"}, {"x/inner": "1"}, {"x/inner": "1"}),
        ({"x/inner": "1", "x/deep/er": "2"}, {"x": "file"}, {"x": "file"}),
        ({"x": b"target", "target/old": "1"}, {"x/new": "2"}, {"x/new": "2", "target/old": "1"}),
        ({"x/inner": "1"}, {"x": b"target", "target/old": "2"}, {"x": b"target", "target/old": "2"}),
        ({"x": b"target", "target": "1"}, {"x": "file"}, {"x": "file", "target": "1"}),
        ({"x": "file"}, {"x": b"target", "target": "1"}, {"x": b"target", "target": "1"}),
        ({"x": b"one", "one": "1"}, {"x": b"two", "two": "2"}, {"x": b"two", "one": "1", "two": "2"}),
        ({"x": b"nowhere"}, {"x": "file"}, {"x": "file"}),
        ({"x": b"nowhere"}, {"x/inner": "1"}, {"x/inner": "1"}),
    ],
)
def test_kinds_that_differ(store: ArtifactStore, below: Files, above: Files, expected: Files) -> None:
    """What comes later takes the place of what is there, and no link is written through."""
    assert content(laid(store, below, above)) == expected
    assert content(laid(store, below)) == below
    assert content(laid(store, above)) == above


def test_links_are_never_written_through(store: ArtifactStore, tmp_path: Path) -> None:
    """Each layer stays within itself; together their links lead out of the tree, but no file goes that way."""
    tree = laid(
        store,
        {"a/b/f": "1", "up": b"a/b/../.."},
        {"a/b": b"..", "up/escaped": "2"},
    )
    assert content(tree) == {"a/b": b"..", "up/escaped": "2"}
    assert {path.name for path in tmp_path.iterdir()} == {"code", "opt"}
    assert {path.name for path in (tmp_path / "opt").iterdir()} == {tree.name}


def test_files_are_shared(store: ArtifactStore, tmp_path: Path) -> None:
    one, two = put(store, {"a": "1" * 1000}), put(store, {"b": "2"})
    tree = store.layers([one.sha256, two.sha256])
    assert tree == tmp_path / "opt" / tree_name([one.sha256, two.sha256])
    assert os.path.samefile(tree / "a", one.directory / "a")
    assert os.path.samefile(tree / "b", two.directory / "b")
    assert store.layers([one.sha256]) == one.directory, "one layer alone is its own tree"
    made = tree.stat().st_ino
    assert store.layers([one.sha256, two.sha256]) == tree
    assert tree.stat().st_ino == made


def test_compiled_modules_are_left_behind(store: ArtifactStore) -> None:
    """Written by environments that had the one layer; in time and size a module of the other may be the same."""
    one, two = put(store, {"python/m.py": "x = 1"}), put(store, {"python/m.py": "x = 2"})
    cache = one.directory / "python" / "__pycache__"
    cache.mkdir()
    (cache / "m.cpython-311.pyc").write_bytes(b"of the first")
    tree = store.layers([one.sha256, two.sha256])
    assert tree is not None
    assert content(tree) == {"python/m.py": "x = 2"}


def test_a_layer_that_is_missing(store: ArtifactStore, tmp_path: Path) -> None:
    one = put(store, {"a": "1"})
    assert store.layers([one.sha256, "0" * 64]) is None
    assert store.layers(["0" * 64]) is None
    assert store.layers([]) is None
    assert not (tmp_path / "opt").exists()


def test_rebuilt_when_it_is_gone(store: ArtifactStore, tmp_path: Path) -> None:
    names = [put(store, {"a": "1"}).sha256, put(store, {"b": "2"}).sha256]
    tree = store.layers(names)
    store.collect(names)
    assert list((tmp_path / "opt").iterdir()) == []
    again = store.layers(names)
    assert again == tree
    assert again is not None
    assert content(again) == {"a": "1", "b": "2"}
    store.collect([*names, tree_name(names)])
    assert again.is_dir()


def test_leftovers_are_removed(store: ArtifactStore, tmp_path: Path) -> None:
    names = [put(store, {"a": "1"}).sha256, put(store, {"b": "2"}).sha256]
    tree = store.layers(names)
    assert tree is not None
    for name in (".part-1-0", ".gone-1-0"):
        (tmp_path / "opt" / name / "python").mkdir(parents=True)
    ArtifactStore(tmp_path)
    assert list((tmp_path / "opt").iterdir()) == [tree]


def test_threads_at_once(store: ArtifactStore, tmp_path: Path) -> None:
    layers = [{f"python/{letter}{number}.py": "x" for number in range(200)} for letter in "abc"]
    names = [put(store, files).sha256 for files in layers]
    barrier = threading.Barrier(8)
    seen: list[int] = []

    def build() -> None:
        barrier.wait()
        tree = store.layers(names)
        assert tree is not None
        seen.append(len(os.listdir(tree / "python")))

    threads = [threading.Thread(target=build) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [600] * 8
    assert [path.name for path in (tmp_path / "opt").iterdir()] == [tree_name(names)]


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


def test_where_nothing_can_be_linked(tmp_path: Path, other_file_system: Path) -> None:
    (tmp_path / "opt").symlink_to(other_file_system)
    store = ArtifactStore(tmp_path)
    tree = laid(store, {"bin/f": "one", "g": "1", "l": b"g"}, {"bin/f": "two"})
    assert content(tree) == {"bin/f": "two", "g": "1", "l": b"g"}
    assert os.access(tree / "bin/f", os.X_OK)
    assert (tree / "g").stat().st_nlink == 1
