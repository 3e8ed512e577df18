"""Deployment packages: what comes out of good ones, and that nothing comes of hostile ones."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import stat
import struct
import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlam import limits
from fastlam.errors import ApiError
from fastlam.store.artifacts import ArtifactStore

UNZIP = "Could not unzip uploaded file. Please check your file, then try to upload again."


@dataclass
class Raw:
    """One entry, with every field free to lie."""

    name: bytes
    content: bytes = b""
    mode: int = stat.S_IFREG | 0o644
    flags: int = 0
    method: int = 0
    size: int | None = None  # as the directory declares it
    packed: bytes | None = None
    crc: int | None = None
    extra: bytes = b""
    local_name: bytes | None = None
    local_method: int | None = None
    offset: int | None = None
    packed_size: int | None = None


def build(
    *entries: Raw, count: int | None = None, prefix: bytes = b"", tail: bytes = b"", comment: bytes = b""
) -> bytes:
    body, directory = bytearray(prefix), bytearray()
    for entry in entries:
        deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = entry.content if entry.method != 8 else deflater.compress(entry.content) + deflater.flush()
        packed = data if entry.packed is None else entry.packed
        crc = zlib.crc32(entry.content) if entry.crc is None else entry.crc
        size = len(entry.content) if entry.size is None else entry.size
        packed_size = len(packed) if entry.packed_size is None else entry.packed_size
        offset = len(body) - len(prefix) if entry.offset is None else entry.offset
        name = entry.name if entry.local_name is None else entry.local_name
        method = entry.method if entry.local_method is None else entry.local_method
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, entry.flags, method, 0, 33, crc, packed_size & 0xFFFFFFFF,
                            size & 0xFFFFFFFF, len(name), 0) + name + packed  # fmt: skip
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 3 << 8 | 20, 20, entry.flags, entry.method, 0, 33, crc,
                                 min(packed_size, 0xFFFFFFFF), min(size, 0xFFFFFFFF), len(entry.name), len(entry.extra), 0,
                                 0, 0, entry.mode << 16, min(offset, 0xFFFFFFFF)) + entry.name + entry.extra  # fmt: skip
    declared = len(entries) if count is None else count
    start = len(body) - len(prefix)
    end = struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, declared & 0xFFFF, declared & 0xFFFF, len(directory), start, len(comment)
    )
    return bytes(body + directory + tail + end + comment)


def link(name: bytes, target: bytes) -> Raw:
    return Raw(name, target, mode=stat.S_IFLNK | 0o777)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def tree(root: Path) -> dict[str, bytes | str | None]:
    """Everything below: contents of files, targets of links, None for directories."""
    found: dict[str, bytes | str | None] = {}
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(directory, name)
            key = str(path.relative_to(root))
            if path.is_symlink():
                found[key] = os.readlink(path)
            else:
                found[key] = None if path.is_dir() else path.read_bytes()
    return found


def refusal(store: ArtifactStore, data: bytes) -> ApiError:
    """The error; nothing may be left of the archive, anywhere in the data directory."""
    root = store._root.parent
    before, held = tree(root), dict(store._held)
    with pytest.raises(ApiError) as caught:
        store.put_zip(data)
    assert tree(root) == before
    assert store._held == held
    return caught.value


# Good ones ---------------------------------------------------------------------------------------


def test_a_package_is_stored_once(store: ArtifactStore, tmp_path: Path) -> None:
    data = build(
        Raw(b"app.py", b"x = 1\n", method=8), Raw(b"lib/", mode=stat.S_IFDIR | 0o755), Raw(b"lib/a/b.txt", b"b")
    )
    artifact = store.put_zip(data)
    assert artifact.sha256 == hashlib.sha256(data).hexdigest()
    assert artifact.code_sha256 == base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert artifact.zip_bytes == len(data)
    assert artifact.directory == tmp_path / "code" / artifact.sha256
    assert artifact.zip_path.read_bytes() == data
    assert tree(artifact.directory) == {"app.py": b"x = 1\n", "lib": None, "lib/a": None, "lib/a/b.txt": b"b"}
    before = artifact.directory.stat().st_ino
    assert store.put_zip(data) == artifact == store.open(artifact.sha256)
    assert artifact.directory.stat().st_ino == before
    assert store.open("0" * 64) is None
    assert sorted(path.name for path in (tmp_path / "code").iterdir()) == sorted(
        [artifact.sha256, f"{artifact.sha256}.zip"]
    )


def test_modes(store: ArtifactStore) -> None:
    previous = os.umask(0o077)
    try:
        artifact = store.put_zip(
            build(
                Raw(b"plain", b"1", mode=stat.S_IFREG | 0o600),
                Raw(b"tool", b"2", mode=stat.S_IFREG | 0o4700),
                Raw(b"nomode", b"3", mode=0),
                Raw(b"dir/", mode=stat.S_IFDIR | 0o700),
                Raw(b"dir/sub/file", b"4"),
            )
        )
    finally:
        os.umask(previous)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in artifact.directory.rglob("*")}
    assert modes == {"plain": 0o644, "tool": 0o755, "nomode": 0o644, "dir": 0o755, "sub": 0o755, "file": 0o644}
    assert stat.S_IMODE(artifact.directory.stat().st_mode) == 0o755
    assert (artifact.directory / "plain").stat().st_mtime == 315532800  # 1980-01-01, as the archive says


def test_links_that_stay_inside(store: ArtifactStore) -> None:
    entries = [
        Raw(b"lib/real.so.1.2", b"elf"),
        link(b"lib/real.so", b"real.so.1.2"),
        link(b"lib/real.so.1", b"./real.so"),
        link(b"bin/deep/lib", b"../../lib"),
        link(b"bin/x", b"deep/lib/../bin"),
        link(b"dangling", b"nothing/here"),
        link(b"root", b"lib/.."),
    ]
    artifact = store.put_zip(build(*entries))
    assert (artifact.directory / "bin/deep/lib/real.so").read_bytes() == b"elf"
    assert os.readlink(artifact.directory / "dangling") == "nothing/here"


def test_names(store: ArtifactStore) -> None:
    artifact = store.put_zip(
        build(
            Raw("ünï.py".encode(), b"1", flags=0x800),
            Raw("raw-ütf8".encode(), b"2"),
            Raw("cp437-ü".encode("cp437"), b"3"),
            Raw(b"./dotted//twice", b"4"),
            Raw(b"with\nnewline", b"5"),
            Raw(b"./", mode=stat.S_IFDIR | 0o755),
            Raw(b"n" * 255, b"6"),
        )
    )
    assert set(tree(artifact.directory)) == {
        "ünï.py", "raw-ütf8", "cp437-ü", "dotted", "dotted/twice", "with\nnewline", "n" * 255
    }  # fmt: skip


def test_prefixes_comments_and_data_descriptors(store: ArtifactStore) -> None:
    entry = Raw(b"a", b"content", method=8, flags=8)
    for data in (
        build(entry, prefix=b"#!/bin/sh\n" * 9),
        build(entry, comment=b"hello" * 100),
        build(entry) + b"\0" * 20,
    ):
        assert tree(store.put_zip(data).directory) == {"a": b"content"}


def test_zip64(store: ArtifactStore) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as writer, writer.open("big", "w", force_zip64=True) as file:
        file.write(b"big")
    assert tree(store.put_zip(buffer.getvalue()).directory) == {"big": b"big"}
    data = build(Raw(b"a", b"abc", size=0xFFFFFFFF, extra=struct.pack("<HHQ", 1, 8, 3)))
    assert tree(store.put_zip(data).directory) == {"a": b"abc"}
    body = build(Raw(b"a", b"abc"))
    end = body[-22:]
    size, offset = struct.unpack_from("<LL", end, 12)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(body) - 22, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    for front in (b"", b"prefix"):
        assert tree(store.put_zip(front + body[:-22] + record + locator + end).directory) == {"a": b"abc"}


names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=12
)
paths = (
    st.lists(names, min_size=1, max_size=4)
    .filter(lambda parts: not {".", ".."} & set(parts) and not (len(parts[0]) > 1 and parts[0][1] == ":"))
    .map("/".join)
)


@given(files=st.dictionaries(paths, st.binary(max_size=2000), max_size=6), method=st.sampled_from([0, 8]))
@settings(max_examples=100, deadline=None)
def test_agrees_with_zipfile(files: dict[str, bytes], method: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as writer:
        for name, content in files.items():
            writer.writestr(zipfile.ZipInfo(name), content, method)
    root = tmp_path_factory.mktemp("store")
    store = ArtifactStore(root)
    parents = {"/".join(name.split("/")[:depth]) for name in files for depth in range(1, name.count("/") + 1)}
    if not files or parents & files.keys():
        refusal(store, buffer.getvalue())
        return
    theirs = root / "theirs"
    with zipfile.ZipFile(buffer) as reader:
        reader.extractall(theirs)
    assert tree(store.put_zip(buffer.getvalue()).directory) == tree(theirs)


# Hostile ones ------------------------------------------------------------------------------------

PLAIN = Raw(b"app.py", b"content")
BOMB = b"\0" * 5_000_000
GOOD = build(PLAIN, Raw(b"b", b"b", method=8))

HOSTILE = {
    "no zip": (b"hello", "not a zip archive"),
    "one byte": (b"P", "not a zip archive"),
    "cut": (GOOD[:-1], "not a zip archive"),
    "cut comment": (build(PLAIN, comment=b"12345")[:-1], "the archive is cut short"),
    "beginning only": (GOOD[:40], "not a zip archive"),
    "end only": (GOOD[-22:], "the directory lies outside of the archive"),
    "absolute": (build(Raw(b"/etc/passwd", b"x")), "a name is not a relative path"),
    "drive": (build(Raw(b"C:/x", b"x")), "a name is not a relative path"),
    "parent": (build(Raw(b"../x", b"x")), "a name points out of the archive"),
    "parent inside": (build(Raw(b"a/../../x", b"x")), "a name points out of the archive"),
    "parent that comes back": (build(Raw(b"a/../x", b"x")), "a name points out of the archive"),
    "parent directory": (build(Raw(b"../", mode=stat.S_IFDIR | 0o755)), "a name points out of the archive"),
    "backslash": (build(Raw(b"..\\..\\x", b"x")), "a name is not a relative path"),
    "nul": (build(Raw(b"a\0b", b"x")), "a name is not a relative path"),
    "empty name": (build(Raw(b"", b"x")), "an entry has no name"),
    "dot": (build(Raw(b".", b"x")), "an entry has no name"),
    "utf-8 that is none": (build(Raw(b"\xff\xfe", b"x", flags=0x800)), "a name is not UTF-8"),
    "long name": (build(Raw(b"n" * 256, b"x")), "a name is too long"),
    "long path": (build(Raw(b"/".join([b"n" * 200] * 11), b"x")), "a name is too long"),
    "deep path": (build(Raw(b"/".join([b"d"] * 200), b"x")), "a name is too long"),
    "absolute link": (build(link(b"l", b"/etc/passwd")), "a link points out of the archive"),
    "link out": (build(link(b"l", b"../x")), "a link points out of the archive"),
    "link to the parent": (build(link(b"a/l", b"../..")), "a link points out of the archive"),
    "link out through a link": (
        build(link(b"a/b/up", b"../.."), link(b"l", b"a/b/up/../x")), "a link points out of the archive"
    ),
    "link through what is not there": (build(link(b"l", b"no/../../x")), "a link points out of the archive"),
    "circle": (build(link(b"a", b"b"), link(b"b", b"a")), "its links go in a circle"),
    "write through a link": (build(link(b"d", b"."), Raw(b"d/x", b"x")), "a file is used as a directory"),
    "empty link": (build(link(b"l", b"")), "a link points out of the archive"),
    "nul in a link": (build(link(b"l", b"a\0b")), "a link points out of the archive"),
    "long link": (build(link(b"l", b"a" * 1025)), "a link's target is too long"),
    "link with a slash": (build(link(b"l/", b"x")), "an entry is neither a file nor a directory nor a link"),
    "device": (build(Raw(b"d", mode=stat.S_IFBLK | 0o666)), "an entry is neither a file nor a directory nor a link"),
    "character device": (build(Raw(b"d", mode=stat.S_IFCHR)), "an entry is neither a file nor a directory nor a link"),
    "fifo": (build(Raw(b"f", mode=stat.S_IFIFO | 0o666)), "an entry is neither a file nor a directory nor a link"),
    "socket": (build(Raw(b"s", mode=stat.S_IFSOCK)), "an entry is neither a file nor a directory nor a link"),
    "encrypted": (build(Raw(b"a", b"x", flags=1)), "an entry is encrypted"),
    "strongly encrypted": (build(Raw(b"a", b"x", flags=0x40)), "an entry is encrypted"),
    "method": (build(Raw(b"a", b"x", method=12)), "compression method 12 is not supported"),
    "twice": (build(PLAIN, PLAIN), "a name appears twice"),
    "twice in two spellings": (build(Raw(b"a/b", b"1"), Raw(b"./a//b", b"2")), "a name appears twice"),
    "file and link": (build(PLAIN, link(b"app.py", b"x")), "a name appears twice"),
    "file then directory": (build(Raw(b"a", b"1"), Raw(b"a/b", b"2")), "a file is used as a directory"),
    "directory then file": (build(Raw(b"a/b", b"2"), Raw(b"a", b"1")), "a name appears twice"),
    "file and directory entry": (build(Raw(b"a", b"1"), Raw(b"a/", mode=stat.S_IFDIR)), "a name appears twice"),
    "directory with content": (build(Raw(b"a/", b"x", mode=stat.S_IFDIR)), "a directory with content"),
    "longer than declared": (build(Raw(b"a", BOMB, method=8, size=10)), "an entry is longer than it says"),
    "longer by one": (build(Raw(b"a", b"12345", method=8, size=4)), "an entry is longer than it says"),
    "shorter than declared": (build(Raw(b"a", b"123", method=8, size=4)), "an entry does not match its checksum"),
    "stored size": (build(Raw(b"a", b"123", size=4)), "an entry and its size do not agree"),
    "checksum": (build(Raw(b"a", b"123", crc=1)), "an entry does not match its checksum"),
    "damaged stream": (build(Raw(b"a", b"x" * 50, method=8, packed=b"\xff" * 40)), "an entry is damaged"),
    "stream that does not end": (build(Raw(b"a", b"x" * 50, method=8, packed=b"")), "an entry does not match its checksum"),
    "cut stream": (
        build(Raw(b"a", bytes(range(256)), method=8, packed=zlib.compress(bytes(range(256)))[2:40])), "an entry is cut short"
    ),
    "header elsewhere": (build(PLAIN, Raw(b"a", b"x", offset=5)), "an entry and its header do not agree"),
    "header far away": (build(Raw(b"a", b"x", offset=10**6)), "an entry lies outside of the archive"),
    "other name in the header": (build(Raw(b"a", b"x", local_name=b"b")), "an entry and its header do not agree"),
    "other method in the header": (build(Raw(b"a", b"x", local_method=8)), "an entry and its header do not agree"),
    "data beyond": (build(Raw(b"a", b"x", packed_size=10**6, size=10**6)), "an entry and its header do not agree"),
    "shared bytes": (
        build(Raw(b"a", b"x", packed_size=32, size=32), Raw(b"b", b"y"), Raw(b"c", b"z")), "entries share bytes"
    ),
    "same bytes": (build(PLAIN, Raw(b"app.py", b"content", offset=0)), "entries share bytes"),
    "count": (build(PLAIN, count=2), "the directory does not hold as many entries as it says"),
    "zip64 without a size": (build(Raw(b"a", b"x", size=0xFFFFFFFF)), "a zip64 size is missing"),
    "zip64 cut field": (
        build(Raw(b"a", b"x", size=0xFFFFFFFF, extra=struct.pack("<HHL", 1, 8, 1))), "a zip64 size is missing"
    ),
    "zip64 lie": (
        build(Raw(b"a", b"x", packed_size=0xFFFFFFFF, extra=struct.pack("<HHQ", 1, 8, 2**63))),
        "an entry and its header do not agree",
    ),
    "zip64 locator to nowhere": (
        build(PLAIN, tail=struct.pack("<4sLQL", b"PK\6\7", 0, 2**60, 1)), "the zip64 end record is missing"
    ),
    "garbage before the end": (build(PLAIN, tail=b"x" * 10), "the directory is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives(store: ArtifactStore, case: str) -> None:
    data, reason = HOSTILE[case]
    error = refusal(store, data)
    assert (error.code, error.message) == ("InvalidParameterValueException", UNZIP)
    assert error.headers == (("X-Fastlam-Reason", reason),)


@pytest.mark.parametrize("data", [b"", build(), build(comment=b"nothing in here")])
def test_empty_archives(store: ArtifactStore, data: bytes) -> None:
    assert refusal(store, data).message == "Uploaded file must be a non-empty zip"


def test_expansion(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, unzipped_bytes_max=4_000_000)
    bomb = build(Raw(b"a", BOMB, method=8))
    assert len(BOMB) > 900 * len(bomb)
    assert refusal(store, bomb).message == "Unzipped size must be smaller than 4000000 bytes"
    many = build(*(Raw(b"%d" % number, bytes(1_000_001), method=8) for number in range(4)))
    assert refusal(store, many).message == "Unzipped size must be smaller than 4000000 bytes"
    fits = build(*(Raw(b"%d" % number, bytes(1_000_000), method=8) for number in range(4)))
    assert store.put_zip(fits).zip_bytes == len(fits)
    lie = build(Raw(b"a", b"x", size=0xFFFFFFFF, extra=struct.pack("<HHQ", 1, 8, 2**62)))
    assert refusal(store, lie).message == "Unzipped size must be smaller than 4000000 bytes"


def test_zipped_size(store: ArtifactStore) -> None:
    error = refusal(store, bytes(limits.ZIP_BYTES_MAX + 1))
    assert (error.code, error.status) == ("RequestEntityTooLargeException", 413)
    assert error.message == "Zipped size must be smaller than 52428800 bytes"


def test_too_many_entries(monkeypatch: pytest.MonkeyPatch, store: ArtifactStore) -> None:
    monkeypatch.setattr(limits, "ZIP_ENTRIES_MAX", 50)
    many = build(*(Raw(b"%d" % number) for number in range(51)))
    assert refusal(store, many).headers[0][1] == "more than 50 entries"
    deep = build(*(Raw(b"%d/a/b/c/d/e" % number, b"") for number in range(10)))
    assert refusal(store, deep).headers[0][1] == "more than 50 files and directories"
    store.put_zip(build(*(Raw(b"%d" % number) for number in range(50))))


def test_links_that_lead_far(monkeypatch: pytest.MonkeyPatch, store: ArtifactStore) -> None:
    monkeypatch.setattr(limits, "ZIP_LINK_STEPS_MAX", 1000)
    far = build(*(link(b"l%d" % number, b"a/../" * 100) for number in range(10)))
    assert refusal(store, far).headers[0][1] == "its links lead too far"


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_damaged_archives(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any bytes changed in a good archive: an error of the API or an artifact, and nothing outside of it."""
    good = build(
        Raw(b"a/b.txt", b"some content " * 9, method=8), link(b"l", b"a/b.txt"), Raw(b"d/", mode=stat.S_IFDIR), PLAIN
    )
    damaged = bytearray(good)
    for position in data.draw(st.lists(st.integers(0, len(good) - 1), min_size=1, max_size=4)):
        damaged[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)) | st.none())
    base = tmp_path_factory.mktemp("damaged")
    store = ArtifactStore(base)
    try:
        artifact = store.put_zip(bytes(damaged[:cut]))
    except ApiError as error:
        assert error.status < 500
        assert tree(base) == {"code": None}
    else:
        assert {path.name for path in base.iterdir()} == {"code"}
        assert {path.name for path in (base / "code").iterdir()} == {artifact.sha256, f"{artifact.sha256}.zip"}
        for path in artifact.directory.rglob("*"):
            if path.is_symlink():
                target = os.path.normpath(os.path.join(path.parent, os.readlink(path)))
                assert Path(target).is_relative_to(artifact.directory)


# Keeping -----------------------------------------------------------------------------------------


def test_collecting(store: ArtifactStore, tmp_path: Path) -> None:
    kept, held, dropped = (store.put_zip(build(Raw(name, name))) for name in (b"kept", b"held", b"dropped"))
    for artifact in (kept, dropped):
        store.release(artifact.sha256)
    assert store.collect({kept.sha256}) == 1
    assert store.open(dropped.sha256) is None
    assert store.open(kept.sha256) == kept
    assert store.open(held.sha256) == held
    store.release(held.sha256)
    store.hold(kept.sha256)
    store.clear()
    assert sorted(path.name for path in (tmp_path / "code").iterdir()) == [kept.sha256, f"{kept.sha256}.zip"]
    store.put_zip(build(Raw(b"dropped", b"dropped")))
    assert store.open(dropped.sha256) == dropped


def test_leftovers_of_a_killed_process(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    artifact = store.put_zip(GOOD)
    for name in (".part-1-0", ".gone-1-1"):
        (tmp_path / "code" / name / "sub").mkdir(parents=True)
    (tmp_path / "code" / ".part-1-0.zip").write_bytes(b"half")
    store = ArtifactStore(tmp_path)
    assert {path.name for path in (tmp_path / "code").iterdir()} == {artifact.sha256, f"{artifact.sha256}.zip"}


@pytest.mark.parametrize("missing", ["directory", "zip"])
def test_a_half_that_is_missing_is_made_again(store: ArtifactStore, missing: str) -> None:
    artifact = store.put_zip(GOOD)
    content = tree(artifact.directory)
    if missing == "directory":
        artifact.directory.rename(artifact.directory.with_name("elsewhere"))
        assert store.open(artifact.sha256) == artifact
    else:
        artifact.zip_path.unlink()
        assert store.open(artifact.sha256) is None
        assert store.put_zip(GOOD) == artifact
    assert tree(artifact.directory) == content
    assert artifact.zip_path.read_bytes() == GOOD


def test_the_same_package_from_many_threads(store: ArtifactStore, tmp_path: Path) -> None:
    data = build(*(Raw(b"%d" % number, b"x" * number) for number in range(300)))
    start = threading.Barrier(6)
    results = []

    def put() -> None:
        start.wait()
        results.append(store.put_zip(data))

    threads = [threading.Thread(target=put) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert len(set(results)) == 1
    assert len(tree(results[0].directory)) == 300
    assert len(list((tmp_path / "code").iterdir())) == 2


def test_a_full_disk(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    error = refusal(store, GOOD)
    assert (error.code, error.message) == ("ServiceException", "The code could not be stored: No space left on device.")


def test_short_writes(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:3]))
    assert tree(store.put_zip(build(Raw(b"a", b"0123456789"))).directory) == {"a": b"0123456789"}
