"""Keeps what workers allocate close together.

What an interpreter has imported and let go of leaves gaps all over its memory. A worker that is forked from it would
put its own objects there, here one and there one, and every page that it writes to becomes a page of its own. A zygote
therefore fills the gaps before it forks: workers then fill fresh pages, one after the other, which saves each 0.3 MB.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from typing import Final

# A line of the table of size classes in what sys._debugmallocstats prints: class, bytes, pools, used, free.
_SIZE_CLASS: Final = re.compile(rb"^ +\d+ +(\d+) +\d+ +\d+ +(\d+) *$", re.MULTILINE)
_EMPTY_BYTES: Final = sys.getsizeof(b"")
_FLOAT_BYTES: Final = sys.getsizeof(0.0)
_TABLE_BYTES_MAX: Final = 1 << 16
_GAPS_MAX: Final = 1 << 16  # of one size: a table that says more has not been understood

_HEAP_BYTES_MIN: Final = 528  # what is smaller comes from the interpreter's pools
_HEAP_BYTES_MAX: Final = 1 << 16
_HEAP_GAPS_MAX: Final = 4096


def fill_gaps() -> list[object]:
    """Returns what fills them, to be kept. Where the interpreter does not tell of its pools, nothing is filled."""
    kept: list[object] = []
    for size_bytes, count in _free_blocks():
        if size_bytes >= _EMPTY_BYTES:
            kept += [bytes(size_bytes - _EMPTY_BYTES) for _ in range(count)]
        elif size_bytes >= _FLOAT_BYTES:
            kept += [float(number) for number in range(count)]
        else:
            kept += [object() for _ in range(count)]
    _fill_heap()
    return kept


def _free_blocks() -> list[tuple[int, int]]:
    """Sizes in bytes, and how many blocks of each are free in pools that hold something."""
    if not hasattr(sys, "_debugmallocstats"):
        return []
    try:
        own = os.dup(2)
    except OSError:  # the table is printed there, and nowhere else
        return []
    table_fd = os.memfd_create("fastlam-pools", os.MFD_CLOEXEC)
    try:
        os.dup2(table_fd, 2)
        try:
            sys._debugmallocstats()
        finally:
            os.dup2(own, 2)
        table = os.pread(table_fd, _TABLE_BYTES_MAX, 0)
    finally:
        os.close(own)
        os.close(table_fd)
    rows = [(int(size), int(count)) for size, count in _SIZE_CLASS.findall(table)]
    return [(size, count) for size, count in rows if count <= _GAPS_MAX]


def _fill_heap() -> None:
    """The same for the C library's heap, from large gaps to small ones: whatever it gives that is not the newest."""
    libc = ctypes.CDLL(None)
    try:
        libc.sbrk.restype = libc.malloc.restype = ctypes.c_void_p
        libc.free.argtypes = [ctypes.c_void_p]
    except AttributeError:
        return
    size_bytes = _HEAP_BYTES_MAX
    for _ in range(_HEAP_GAPS_MAX):
        before = libc.malloc(size_bytes)
        behind = libc.malloc(size_bytes)
        # Two in a row, up to the end of the heap: there was no gap of this size.
        full = before is None or behind is None or 0 <= behind - before <= size_bytes + 32
        libc.free(behind)
        if full:
            libc.free(before)
            size_bytes //= 2
            if size_bytes < _HEAP_BYTES_MIN:
                return
