"""Which of the zygote's pages workers write to, so that those who wait for their orders have their own copies already.

A worker shares the zygote's memory until it writes; the first write to each page has the kernel copy it. Some 350
pages are written to between a worker's order and its first reply, by whatever function, and that takes a fifth of a
cold start. Which pages these are is different in each zygote: they are found by looking at workers that have had a
call. Only pages that all of the last few workers have written to are made ahead, so that it takes hardly more memory.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

SEEN_MAX: Final = 4  # the last workers; what all of them have written to, so will the next
_RUNS_MAX: Final = 2048
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
# Of an entry of /proc/PID/pagemap (the kernel's Documentation/admin-guide/mm/pagemap.rst).
_PRESENT: Final = 1 << 63
_EXCLUSIVE: Final = 1 << 56
_WORD: Final = "Q"


class _Seen(msgspec.Struct, array_like=True):
    """Addresses of pages, by worker."""

    workers: list[list[int]]


class Run(NamedTuple):
    address: int
    size_bytes: int


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Seen).decode


class Touched:
    """What is known about one zygote's pages. It lies in two memory files, written to by short-lived children of the
    zygote: its own memory, which workers share, is to stay as it is. No worker may hold their descriptors.
    """

    def __init__(self) -> None:
        self._seen_fd = os.memfd_create("fastlam-seen", os.MFD_CLOEXEC)
        self._runs_fd = os.memfd_create("fastlam-runs", os.MFD_CLOEXEC)

    @property
    def descriptors(self) -> list[int]:
        return [self._seen_fd, self._runs_fd]

    def observe(self, worker_pid: int, zygote_pid: int) -> None:
        """In a child of the zygote, which dies soon: looks at a worker. Where the kernel does not show it, nothing
        changes.
        """
        try:
            shared = set(_pages(zygote_pid, _PRESENT))
            own = [page for page in _pages(worker_pid, _PRESENT | _EXCLUSIVE) if page in shared]
        except OSError:
            return
        if not own:
            return  # it is gone, or this kernel does not say which pages are whose
        packed = os.pread(self._seen_fd, os.fstat(self._seen_fd).st_size, 0)
        before = _decode(packed).workers if packed else []
        workers = [*before[1 - SEEN_MAX :], own]
        _write(self._seen_fd, _encode(_Seen(workers)))
        runs = coalesce(sorted(set.intersection(*map(set, workers))))[:_RUNS_MAX]
        _write(self._runs_fd, array(_WORD, [number for run in runs for number in run]).tobytes())

    def runs(self) -> bytes:
        """As core.channel.populate_for_writing takes them."""
        return os.pread(self._runs_fd, 2 * 8 * _RUNS_MAX, 0)


def coalesce(pages: list[int]) -> list[Run]:
    """Addresses of pages, in their order, as runs of pages that lie one after the other."""
    runs: list[Run] = []
    for page in pages:
        if runs and sum(runs[-1]) == page:
            runs[-1] = Run(runs[-1].address, runs[-1].size_bytes + _PAGE_BYTES)
        else:
            runs.append(Run(page, _PAGE_BYTES))
    return runs


def _pages(pid: int, bits: int) -> Iterator[int]:
    """Addresses of pages that may be written to, are not shared mappings, and have all of the bits. Raises OSError."""
    number = _number_in_proc(pid)
    with open(f"/proc/{number}/maps") as maps, open(f"/proc/{number}/pagemap", "rb", buffering=0) as pagemap:
        for line in maps:
            span, permissions, *_ = line.split(maxsplit=2)
            if not permissions.startswith("rw-p"):
                continue
            begin, end = (int(address, 16) for address in span.split("-"))
            pagemap.seek(begin // _PAGE_BYTES * 8)
            entries = array(_WORD)
            entries.frombytes(pagemap.read((end - begin) // _PAGE_BYTES * 8))
            for index, entry in enumerate(entries):
                if entry & bits == bits:
                    yield begin + index * _PAGE_BYTES


def _number_in_proc(pid: int) -> int:
    """/proc may be of another namespace of pids than this process. Raises OSError."""
    pidfd = os.pidfd_open(pid)
    try:
        with open(f"/proc/self/fdinfo/{pidfd}") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
    finally:
        os.close(pidfd)


def _write(fd: int, data: bytes) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)
