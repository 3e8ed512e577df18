"""Unpacks zip archives that may be hostile.

Everything is checked before anything is written: the whole central directory, every name, the declared sizes, the local
headers and that no two entries share bytes. Files are then written with exclusive creation into directories made here,
links last, so that no write ever follows a link; sizes and checksums are held against what was declared while
inflating.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from fastlam import limits


class ArchiveError(Exception):
    """Why an archive is refused."""


class EmptyArchive(ArchiveError):
    pass


class ArchiveTooLarge(ArchiveError):
    """More than the permitted bytes when unpacked."""


class Entry(NamedTuple):
    """One entry that passed every check that can be made without inflating it."""

    parts: tuple[bytes, ...]
    kind: int  # stat.S_IFREG, S_IFDIR or S_IFLNK
    executable: bool
    modified: int  # seconds since 1970
    deflated: bool
    crc: int
    size: int  # inflated, as declared
    start: int  # of the data in the archive
    end: int


_END: Final = struct.Struct("<4s4H2LH")
_END64_LOCATOR: Final = struct.Struct("<4sLQL")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")

_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000  # traditional, strong, and a masked central directory
_UTF8: Final = 0x800
_LINK_BYTES_MAX: Final = 1024
_LINK_HOPS_MAX: Final = 40  # as the kernel
_CHUNK_BYTES: Final = 256 * 1024
_DRIVE: Final = re.compile(rb"[A-Za-z]:")


def unpack(data: bytes, into: Path, *, bytes_max: int = limits.UNZIPPED_BYTES_MAX) -> None:
    """Unpack into an existing, empty directory. When it raises, the directory holds rubbish for the caller to
    remove.
    """
    entries = read_entries(data, bytes_max=bytes_max)
    root = os.fsencode(into)
    links = {entry.parts: _link_target(data, entry) for entry in entries if entry.kind == stat.S_IFLNK}
    _check_links(links)
    made: set[tuple[bytes, ...]] = {()}
    for entry in entries:
        _make_directories(root, entry.parts if entry.kind == stat.S_IFDIR else entry.parts[:-1], made)
        if entry.kind == stat.S_IFREG:
            _write_file(data, entry, os.path.join(root, *entry.parts))
    for parts, target in links.items():
        os.symlink(target, os.path.join(root, *parts))


def read_entries(data: bytes, *, bytes_max: int = limits.UNZIPPED_BYTES_MAX) -> list[Entry]:
    """The checked entries of the archive, in the order of its central directory."""
    directory = _find_central_directory(data)
    entries: list[Entry] = []
    spans: list[tuple[int, int]] = []
    total = count = 0
    for raw in _central_entries(data, directory.start, directory.start + directory.size):
        count += 1
        if count > limits.ZIP_ENTRIES_MAX:
            raise ArchiveError(f"more than {limits.ZIP_ENTRIES_MAX} entries")
        total += raw.size
        if total > bytes_max:
            raise ArchiveTooLarge(f"unpacks to more than {bytes_max} bytes")
        entry, header = _check_entry(data, raw, directory)
        spans.append((header, entry.end))
        if entry.parts or entry.kind != stat.S_IFDIR:
            entries.append(entry)
    if count & 0xFFFF != directory.entries & 0xFFFF:
        raise ArchiveError("the directory does not hold as many entries as it says")
    if not count:
        raise EmptyArchive("no entries")
    spans.sort()
    if any(following[0] < span[1] for span, following in pairwise(spans)):
        raise ArchiveError("entries share bytes")
    _check_tree(entries)
    return entries


# The central directory ---------------------------------------------------------------------------


class _Raw(NamedTuple):
    """One record of the central directory, zip64 fields in place."""

    name: bytes
    flags: int
    method: int
    modified: int  # MS-DOS date and time
    crc: int
    packed: int
    size: int
    mode: int  # upper half of the external attributes: the unix mode, 0 if there is none
    header: int  # offset of the local header, as written


class _Directory(NamedTuple):
    start: int
    size: int
    entries: int  # it is said to have
    base: int  # bytes in front of the archive proper (a self-extractor), to be added to every offset in it


def _find_central_directory(data: bytes) -> _Directory:
    end = data.rfind(b"PK\x05\x06", max(0, len(data) - _END.size - 0xFFFF))
    if end < 0 or end + _END.size > len(data):
        raise ArchiveError("not a zip archive")
    _, disk, first_disk, here, count, size, offset, comment = _END.unpack_from(data, end)
    if end + _END.size + comment > len(data):
        raise ArchiveError("the archive is cut short")
    locator = end - _END64_LOCATOR.size
    after = end  # the directory ends here
    if locator >= 0 and data.startswith(b"PK\x06\x07", locator):
        after = _END64_LOCATOR.unpack_from(data, locator)[2]
        if after + _END64.size > locator or not data.startswith(b"PK\x06\x06", after):
            after = locator - _END64.size  # where it stands when something was put in front of the archive
        if after < 0 or not data.startswith(b"PK\x06\x06", after):
            raise ArchiveError("the zip64 end record is missing")
        _, _, _, _, disk, first_disk, here, count, size, offset = _END64.unpack_from(data, after)
    if disk or first_disk or here != count:
        raise ArchiveError("an archive of several parts")
    if size > after or offset > after - size:
        raise ArchiveError("the directory lies outside of the archive")
    return _Directory(after - size, size, count, after - size - offset)


def _central_entries(data: bytes, position: int, end: int) -> Iterator[_Raw]:
    while position < end:
        if position + _CENTRAL.size > end:
            raise ArchiveError("the directory is damaged")
        record = _CENTRAL.unpack_from(data, position)
        signature, _, _, flags, method, time, date, crc, packed, size = record[:10]
        name_length, extra_length, comment_length, _, _, attributes, header = record[10:]
        name_start = position + _CENTRAL.size
        extra_start = name_start + name_length
        position = extra_start + extra_length + comment_length
        if signature != b"PK\x01\x02" or position > end:
            raise ArchiveError("the directory is damaged")
        if 0xFFFFFFFF in (packed, size, header):
            size, packed, header = _zip64(data[extra_start : extra_start + extra_length], size, packed, header)
        name = data[name_start:extra_start]
        yield _Raw(name, flags, method, date << 16 | time, crc, packed, size, attributes >> 16, header)


def _zip64(extra: bytes, *fields: int) -> list[int]:
    """The fields, those that say 0xFFFFFFFF replaced in order from the zip64 extra field."""
    position = 0
    while position + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, position)
        position += 4
        if tag == 1 and position + length <= len(extra):
            values = list(struct.unpack_from(f"<{length // 8}Q", extra, position))[::-1]
            if len(values) >= fields.count(0xFFFFFFFF):
                return [values.pop() if field == 0xFFFFFFFF else field for field in fields]
            break
        position += length
    raise ArchiveError("a zip64 size is missing")


def _check_entry(data: bytes, raw: _Raw, directory: _Directory) -> tuple[Entry, int]:
    if raw.flags & _ENCRYPTED:
        raise ArchiveError("an entry is encrypted")
    if raw.method not in (0, 8):
        raise ArchiveError(f"compression method {raw.method} is not supported")
    parts, slash = _parts(raw.name, raw.flags)
    kind = stat.S_IFMT(raw.mode) or (stat.S_IFDIR if slash else stat.S_IFREG)
    if slash and kind == stat.S_IFREG:
        kind = stat.S_IFDIR
    if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK) or (slash and kind != stat.S_IFDIR):
        raise ArchiveError("an entry is neither a file nor a directory nor a link")
    if not parts and kind != stat.S_IFDIR:
        raise ArchiveError("an entry has no name")
    header = raw.header + directory.base
    if header + _LOCAL.size > directory.start:
        raise ArchiveError("an entry lies outside of the archive")
    local = _LOCAL.unpack_from(data, header)
    name_start = header + _LOCAL.size
    start = name_start + local[9] + local[10]
    end = start + raw.packed
    if local[0] != b"PK\x03\x04" or end > directory.start or data[name_start : name_start + local[9]] != raw.name:
        raise ArchiveError("an entry and its header do not agree")
    if local[2] & _ENCRYPTED or local[3] != raw.method:
        raise ArchiveError("an entry and its header do not agree")
    if raw.method == 0 and raw.packed != raw.size:
        raise ArchiveError("an entry and its size do not agree")
    if kind == stat.S_IFDIR and raw.size:
        raise ArchiveError("a directory with content")
    executable, modified = bool(raw.mode & 0o111), _epoch_seconds(raw.modified)
    return Entry(parts, kind, executable, modified, raw.method == 8, raw.crc, raw.size, start, end), header


def _epoch_seconds(modified: int) -> int:
    """MS-DOS time knows no zone: it is taken as UTC. What is no date becomes the first day there was."""
    date, time = modified >> 16, modified & 0xFFFF
    try:
        day = datetime(1980 + (date >> 9), date >> 5 & 15, date & 31, tzinfo=UTC)
    except ValueError:
        day = datetime(1980, 1, 1, tzinfo=UTC)
    return int(day.timestamp()) + (time >> 11) * 3600 + (time >> 5 & 63) * 60 + (time & 31) * 2


def _parts(name: bytes, flags: int) -> tuple[tuple[bytes, ...], bool]:
    """The components of a name, and whether it ends in a slash."""
    if not flags & _UTF8:
        try:
            name.decode("utf-8")
        except UnicodeDecodeError:
            name = name.decode("cp437").encode("utf-8")
    else:
        try:
            name.decode("utf-8")
        except UnicodeDecodeError:
            raise ArchiveError("a name is not UTF-8") from None
    if b"\0" in name or b"\\" in name or name.startswith(b"/") or _DRIVE.match(name):
        raise ArchiveError("a name is not a relative path")
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise ArchiveError("a name points out of the archive")
    if len(name) > limits.ZIP_PATH_BYTES_MAX or len(parts) > limits.ZIP_DEPTH_MAX:
        raise ArchiveError("a name is too long")
    if any(len(part) > limits.ZIP_NAME_BYTES_MAX for part in parts):
        raise ArchiveError("a name is too long")
    return parts, name.endswith(b"/")


def _check_tree(entries: list[Entry]) -> None:
    """No name twice, none both a file and a directory, and not more directories than entries are allowed."""
    kinds: dict[tuple[bytes, ...], int] = {}
    for entry in entries:
        known = kinds.get(entry.parts)
        if known is not None and not (known == entry.kind == stat.S_IFDIR):
            raise ArchiveError("a name appears twice")
        kinds[entry.parts] = entry.kind
        for depth in range(len(entry.parts) - 1, 0, -1):
            parent = entry.parts[:depth]
            if kinds.setdefault(parent, stat.S_IFDIR) != stat.S_IFDIR:
                raise ArchiveError("a file is used as a directory")
        if len(kinds) > limits.ZIP_ENTRIES_MAX:
            raise ArchiveError(f"more than {limits.ZIP_ENTRIES_MAX} files and directories")


# Content -----------------------------------------------------------------------------------------


def _inflate(data: bytes, entry: Entry) -> Iterator[bytes]:
    """The content in pieces; raises as soon as it is longer than declared."""
    view = memoryview(data)[entry.start : entry.end]
    if not entry.deflated or not len(view):
        for position in range(0, len(view), _CHUNK_BYTES):
            yield bytes(view[position : position + _CHUNK_BYTES])
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    left = entry.size
    try:
        for position in range(0, len(view), _CHUNK_BYTES):
            pending: bytes | memoryview = view[position : position + _CHUNK_BYTES]
            while pending and not inflater.eof:
                # One byte more than is left to come shows a stream that goes on.
                piece = inflater.decompress(pending, min(left + 1, _CHUNK_BYTES))
                pending = inflater.unconsumed_tail
                left -= len(piece)
                if left < 0:
                    raise ArchiveError("an entry is longer than it says")
                if piece:
                    yield piece
    except zlib.error:
        raise ArchiveError("an entry is damaged") from None
    if not inflater.eof:
        raise ArchiveError("an entry is cut short")


def _checked(data: bytes, entry: Entry) -> Iterator[bytes]:
    size = crc = 0
    for piece in _inflate(data, entry):
        size += len(piece)
        crc = zlib.crc32(piece, crc)
        yield piece
    if size != entry.size or crc != entry.crc:
        raise ArchiveError("an entry does not match its checksum")


def _write_file(data: bytes, entry: Entry, path: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        for piece in _checked(data, entry):
            written = 0
            while written < len(piece):
                written += os.write(descriptor, memoryview(piece)[written:])
        os.fchmod(descriptor, 0o755 if entry.executable else 0o644)
        os.utime(descriptor, (entry.modified, entry.modified))
    finally:
        os.close(descriptor)


def _make_directories(root: bytes, parts: tuple[bytes, ...], made: set[tuple[bytes, ...]]) -> None:
    missing = []
    while parts not in made:
        missing.append(parts)
        parts = parts[:-1]
    for directory in reversed(missing):
        path = os.path.join(root, *directory)
        os.mkdir(path)
        os.chmod(path, 0o755)
        made.add(directory)


# Links -------------------------------------------------------------------------------------------


def _link_target(data: bytes, entry: Entry) -> bytes:
    if entry.size > _LINK_BYTES_MAX:
        raise ArchiveError("a link's target is too long")
    target = b"".join(_checked(data, entry))
    if not target or b"\0" in target or target.startswith(b"/"):
        raise ArchiveError("a link points out of the archive")
    return target


def _check_links(links: dict[tuple[bytes, ...], bytes]) -> None:
    """Follow every link, through other links too, as the kernel would; none may climb above the root on its way."""
    steps = 0
    for parts, target in links.items():
        here = list(parts[:-1])
        ahead = target.split(b"/")[::-1]
        hops = 1
        while ahead:
            steps += 1
            if steps > limits.ZIP_LINK_STEPS_MAX:
                raise ArchiveError("its links lead too far")
            part = ahead.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if not here:
                    raise ArchiveError("a link points out of the archive")
                here.pop()
                continue
            here.append(part)
            through = links.get(tuple(here))
            if through is not None:
                hops += 1
                if hops > _LINK_HOPS_MAX:
                    raise ArchiveError("its links go in a circle")
                here.pop()
                ahead.extend(through.split(b"/")[::-1])
