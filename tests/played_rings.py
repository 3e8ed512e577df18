"""The worker's side of an express lane, for a worker in the dispatcher's own thread: nothing here need be atomic.

The layout is that of csrc/fl_express.c and csrc/fl_spsc.c.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Final

from fastlam.limits import EXPRESS_REGION_BYTES, EXPRESS_RING_BYTES
from fastlam.wire.frames import Invoke

FRAME, TASK, TASK_RESULT, DISTANT, BY_SOCKET, INVOKE = 1, 2, 3, 4, 5, 6  # kinds of records
_INVOKE: Final = struct.Struct("<IIqHH36s")  # struct fl_express_invoke
INLINE_BYTES_MAX: Final = 16384  # longer records lie in the region
REQUESTS_CONTROL: Final = 128
REPLIES_CONTROL: Final = 384
DATA: Final = 4096  # the rings, and then the regions
PUBLISHED, RELEASED, ASLEEP, CROWDED = 0, 64, 128, 192  # within a control part
HEAD_BYTES: Final = 8  # of a record
SKIP: Final = 0xFFFFFFFF
_REGION: Final = (EXPRESS_REGION_BYTES + 4095) // 4096 * 4096


def invoke_of(content: bytes) -> tuple[Invoke, bytes]:
    """The frame that an INVOKE record stands for, and its payload."""
    _, slot, deadline_epoch_ms, arn_bytes, trace_bytes, request_id = _INVOKE.unpack_from(content)
    arn_end = _INVOKE.size + arn_bytes
    trace_end = arn_end + trace_bytes
    arn, trace = content[_INVOKE.size : arn_end].decode(), content[arn_end:trace_end].decode()
    return Invoke(slot, request_id.decode(), deadline_epoch_ms, arn, trace or None), content[trace_end:]


def padded(size: int) -> int:
    return (size + HEAD_BYTES - 1) // HEAD_BYTES * HEAD_BYTES


class Rings:
    """Both rings and regions. `bell_fd` is the worker's own end of the bell, and this object's, as is the memfd `fd`."""

    def __init__(self, fd: int, bell_fd: int, ring_bytes: int = EXPRESS_RING_BYTES) -> None:
        self.ring_bytes = ring_bytes
        self.fd = fd
        self.memory = mmap.mmap(fd, 0)
        self.bell_fd = bell_fd
        self.taken = 0  # end of what was read of the requests
        self.written = 0  # end of what was written of the replies
        self.region_taken = 0

    def word(self, at: int) -> int:
        (value,) = struct.unpack_from("<Q", self.memory, at)
        return int(value)

    def set_word(self, at: int, value: int) -> None:
        struct.pack_into("<Q", self.memory, at, value & (1 << 64) - 1)

    def ring_bell(self) -> None:
        os.eventfd_write(self.bell_fd, 1)

    # -- requests --------------------------------------------------------------------------------

    def take(self) -> bytes | None:
        """The content of the next record, from wherever it lies; None if there is none."""
        while True:
            if self.word(REQUESTS_CONTROL + PUBLISHED) == self.taken:
                return None
            offset = self.taken % self.ring_bytes
            (size,) = struct.unpack_from("<I", self.memory, DATA + offset)
            if size != SKIP:
                break
            self.taken += self.ring_bytes - offset
        at = DATA + offset + HEAD_BYTES
        content = self.memory[at : at + size]
        if content[:4] == struct.pack("<I", DISTANT):
            _, _, place, length = struct.unpack("<IIQQ", content)
            at = DATA + 2 * self.ring_bytes + place
            content = self.memory[at : at + length]
        self.taken += HEAD_BYTES + padded(size)
        self.set_word(REQUESTS_CONTROL + RELEASED, self.taken)
        if self.word(REQUESTS_CONTROL + CROWDED):
            self.set_word(REQUESTS_CONTROL + CROWDED, 0)
            self.ring_bell()
        return content

    # -- replies ---------------------------------------------------------------------------------

    @property
    def unread_bytes(self) -> int:
        return self.written - self.word(REPLIES_CONTROL + RELEASED)

    def put(self, content: bytes) -> bool:
        """Publishes one record as it stands. False: there is no room for it."""
        total = HEAD_BYTES + padded(len(content))
        offset = self.written % self.ring_bytes
        skip = self.ring_bytes - offset if self.ring_bytes - offset < total else 0
        if self.unread_bytes + skip + total > self.ring_bytes:
            return False
        at = DATA + self.ring_bytes
        if skip:
            struct.pack_into("<I", self.memory, at + offset, SKIP)
            self.written += skip
            offset = 0
        struct.pack_into("<I", self.memory, at + offset, len(content))
        self.memory[at + offset + HEAD_BYTES : at + offset + HEAD_BYTES + len(content)] = content
        self.written += total
        self.publish()
        return True

    def publish(self, position: int | None = None) -> None:
        """Says that there are replies up to there, and rings if that is wanted."""
        self.set_word(REPLIES_CONTROL + PUBLISHED, self.written if position is None else position)
        if self.word(REPLIES_CONTROL + ASLEEP):
            self.set_word(REPLIES_CONTROL + ASLEEP, 0)
            self.ring_bell()

    def put_frame(self, frame: bytes) -> bool:
        """Publishes one frame, as it stands in a message. False: there is no room for it, in the ring or beside it."""
        content = struct.pack("<I", FRAME) + frame
        if len(content) <= INLINE_BYTES_MAX:
            return self.put(content)
        if self.unread_bytes == 0:
            self.region_taken = 0
        if len(content) > EXPRESS_REGION_BYTES - self.region_taken:
            return False
        if not self.put_distant(self.region_taken, len(content), content):
            return False
        self.region_taken += (len(content) + 63) // 64 * 64
        return True

    def put_distant(self, offset: int, size: int, content: bytes = b"") -> bool:
        """Tells of a record in the region that begins with `content`."""
        at = DATA + 2 * self.ring_bytes + _REGION + offset
        self.memory[at : at + len(content)] = content
        return self.put(struct.pack("<IIQQ", DISTANT, 0, offset, size))

    def close(self) -> None:
        self.memory.close()
        os.close(self.fd)
        os.close(self.bell_fd)
