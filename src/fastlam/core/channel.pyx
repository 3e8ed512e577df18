"""The environment's end of a ZeroMQ lane, with the meter: used inside execution environments only.

One thread, the environment's main thread, owns the socket and the slot table's worker side. The meter reads CLOCK_MONOTONIC right
around the handler; nothing but the call itself lies between its two readings.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from fastlam.core.native cimport (
    FL_EXPRESS_BY_SOCKET,
    FL_EXPRESS_DISTANT,
    FL_EXPRESS_FRAME,
    FL_EXPRESS_INVOKE,
    FL_EXPRESS_REQUEST_ID_BYTES,
    FL_EXPRESS_RESULT,
    FL_EXPRESS_TASK,
    FL_EXPRESS_TASK_RESULT,
    FL_ZMTP_HEADER_BYTES_MAX,
    FL_ZMTP_PARTS_MAX,
    fl_express,
    fl_express_close,
    fl_express_distant,
    fl_express_invoke,
    fl_express_look,
    fl_express_open,
    fl_express_rest,
    fl_express_result,
    fl_express_sleep,
    fl_express_task,
    fl_express_task_result,
    fl_between_fork,
    fl_first_hold,
    fl_first_run,
    fl_region_take,
    fl_slots,
    fl_slots_claim,
    fl_slots_close,
    fl_slots_finish,
    fl_slots_open,
    fl_spsc,
    fl_spsc_announce_crowded,
    fl_spsc_drained,
    fl_spsc_peek,
    fl_spsc_publish,
    fl_spsc_release,
    fl_spsc_reserve,
    fl_spsc_sleep_crowded,
    fl_wake_signal,
    fl_zmtp,
    fl_zmtp_accept,
    fl_zmtp_close,
    fl_zmtp_header,
    fl_zmtp_receive,
    fl_zmtp_send,
    iovec,
    memory_peak_kib,
    monotonic_ns,
    process_cpu_ns,
)

from fastlam.core.plain cimport PLAIN_BYTES_MAX, read_plain_tuple, write_plain

import os

import msgspec

cdef extern from "Python.h":
    void PyOS_BeforeFork() noexcept
    void PyOS_AfterFork_Parent() noexcept
    void PyOS_AfterFork_Child() noexcept
cdef extern from "<unistd.h>" nogil:
    int64_t lseek(int fd, int64_t offset, int whence)
    int SEEK_END
cdef extern from "<stdlib.h>" nogil:
    int putenv(char *string)
    int unsetenv(const char *name)
    void *malloc(size_t size)
cdef extern from "<unistd.h>" nogil:
    char **environ
cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int option, unsigned long value)
    int PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER
cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *address, size_t size, int advice)
cdef extern from "<stdio.h>" nogil:
    ctypedef struct FILE:
        pass
    FILE *stdout
    int setvbuf(FILE *stream, char *buffer, int mode, size_t size)
    int _IOLBF

from fastlam.limits import FRAME_HEADER_BYTES_MAX, RESPONSE_BYTES_MAX, STREAM_PENDING_BYTES_MAX
from fastlam.wire.frames import Chunk, Stop, Task, TaskResult, ToEnvironment

cdef enum:
    POPULATE_WRITE = 23          # MADV_POPULATE_WRITE, from Linux 5.14 on; older C libraries have no name for it
    PyBUF_READ = 0x100
    LENGTH_BYTES = 4
    SHORT_BYTES_MAX = 4096
    MEMORY_LOOK_NS = 100000      # of handlers' time between two looks at the peak of memory
    SHALLOW_BYTES = 1024         # = worker.marshaller's
    EXPRESS_INLINE_BYTES_MAX = 16384   # longer records go through the region beside the ring

cdef uint32_t PLAIN = <uint32_t>1 << 31   # in the head of a payload: see wire/tasks.py

cdef uint32_t header_bytes_max = FRAME_HEADER_BYTES_MAX
cdef object encode_header = msgspec.msgpack.Encoder().encode
cdef object decode_header = msgspec.msgpack.Decoder(ToEnvironment).decode


cdef Py_ssize_t response_bytes_max = RESPONSE_BYTES_MAX
cdef uint64_t stream_pending_bytes_max = STREAM_PENDING_BYTES_MAX


include "process.pxi"


class ChannelError(Exception):
    """The lane to the dispatcher is broken; the environment has nothing left to do and leaves."""


cdef class Wire:
    """Frames in, frames out, and the measured call between them.

    `listen_fd` is the listening unix socket to which the dispatcher's PAIR socket connects; it stays the caller's, as does `slots_fd`,
    the memfd of the slot table. With an express lane, `express_fd` is the memfd of its rings, which stays the caller's too, and `bell_fd`
    the eventfd that wakes the dispatcher, which must stay open. Raises ChannelError.
    """

    cdef fl_express express
    cdef bint has_express
    cdef int bell_fd
    cdef fl_express_rest rest              # from looking
    cdef bint in_pieces                    # what is sent is a piece of a stream, which may wait for its reader
    cdef fl_zmtp connection
    cdef bint connected
    cdef fl_slots slots
    cdef bint has_slots
    cdef readonly uint64_t started_ns
    cdef readonly uint64_t duration_ns
    cdef readonly uint64_t cpu_ns

    def __cinit__(self, int listen_fd, int slots_fd, int express_fd=-1, int bell_fd=-1):
        cdef int rc
        self.has_slots = self.connected = self.has_express = False
        self.bell_fd = bell_fd
        if express_fd >= 0:
            rc = fl_express_open(&self.express, express_fd)
            if rc != 0:
                raise ChannelError(f"the express lane cannot be opened: {os.strerror(-rc)}")
            self.has_express = True
        rc = fl_slots_open(&self.slots, slots_fd)
        if rc != 0:
            raise ChannelError(f"the slot table cannot be opened: {os.strerror(-rc)}")
        self.has_slots = True
        while True:
            with nogil:
                rc = fl_zmtp_accept(&self.connection, listen_fd)
            if rc != -EINTR:
                break
            PyErr_CheckSignals()
        if rc != 0:
            raise ChannelError(f"the dispatcher cannot be reached: {os.strerror(-rc)}")
        self.connected = True

    def __dealloc__(self):
        if self.connected:
            fl_zmtp_close(&self.connection)
        if self.has_slots:
            fl_slots_close(&self.slots)
        fl_express_close(&self.express)

    @property
    def has_rings(self):
        """Whether there is an express lane."""
        return self.has_express

    def fileno(self):
        """The descriptor of the connection."""
        return self.connection.fd

    def receive(self):
        """Waits for the next frame; returns (frame, payload bytes). Raises ChannelError on a broken lane or a bad frame."""
        if self.has_express:
            return self._receive_express()
        return self._receive_by_socket()

    cdef _receive_by_socket(self):
        cdef const uint8_t *data = NULL
        cdef int64_t size
        while True:
            with nogil:
                size = fl_zmtp_receive(&self.connection, &data)
            if size >= 0:
                return parse(data, <size_t>size)
            if size != -EINTR:
                raise ChannelError(f"the lane to the dispatcher is broken: {os.strerror(<int>-size)}")
            PyErr_CheckSignals()

    cdef const uint8_t *_next_record(self, uint64_t *size) except NULL:
        """Waits for the next record. It stands there until `_took`."""
        cdef const uint8_t *data = NULL
        cdef int64_t got
        cdef int rc
        while True:
            got = fl_spsc_peek(&self.express.requests, &data)
            if got >= 4:
                size[0] = <uint64_t>got
                return data
            if got != -EAGAIN:
                raise ChannelError("the ring of requests is broken")
            with nogil:
                rc = fl_express_look(&self.express, &self.rest)
            if rc:
                continue
            PyErr_CheckSignals()   # one that came while it looked does not end the sleep
            with nogil:
                rc = fl_express_sleep(&self.express)
            if rc != 0:
                PyErr_CheckSignals()

    cdef int _took(self) except -1:
        if fl_spsc_release(&self.express.requests):
            fl_wake_signal(self.bell_fd)   # there is room again
        return 0

    cdef _receive_express(self):
        cdef uint64_t size = 0
        cdef const uint8_t *data = self._next_record(&size)
        cdef fl_express_distant distant
        cdef uint32_t kind = (<uint32_t *>data)[0]
        if kind == FL_EXPRESS_DISTANT:
            memcpy(&distant, data, sizeof(distant))
            data = self.express.request_region.base + distant.offset
            size = distant.bytes
            kind = (<uint32_t *>data)[0]
        if kind == FL_EXPRESS_FRAME:
            found = parse(data + 4, size - 4)
        elif kind == FL_EXPRESS_TASK:
            found = (
                Task((<fl_express_task *>data).slot),
                PyBytes_FromStringAndSize(<const char *>data + sizeof(fl_express_task), size - sizeof(fl_express_task)),
            )
        elif kind == FL_EXPRESS_BY_SOCKET:
            found = None
        else:
            raise ChannelError(f"a record of kind {kind} and {size} bytes")
        self._took()
        return self._receive_by_socket() if found is None else found

    def send(self, object frame, object payload not None):
        """Posts one frame; `payload` is bytes or a list of buffers that are sent one behind the other."""
        self.in_pieces = type(frame) is Chunk
        self._post(encode_header(frame), payload, -1)
        self.in_pieces = False

    def reply(self, uint32_t slot, object frame, object payload not None):
        """As `send`, for the answer to the invocation in `slot`, which it marks as done first: were this process to die between the two,
        the dispatcher would find a short answer's copy in the slot table."""
        self._post(encode_header(frame), payload, slot)

    cdef int _post(self, bytes header, object payload, int64_t slot) except -1:
        cdef uint32_t header_bytes
        cdef uint64_t head_bytes, total
        cdef uint8_t *place
        if not self.has_express:
            return self._post_by_socket(header, payload, slot)
        header_bytes = <uint32_t>PyBytes_GET_SIZE(header)
        head_bytes = 2 * sizeof(uint32_t) + header_bytes
        total = head_bytes + payload_bytes_of(payload)
        if slot >= 0:
            fl_slots_finish(&self.slots, <uint32_t>slot, NULL, 0xFFFFFFFF)   # no copy: what is published outlives this process
        place = self._reserve(total)
        if place == NULL:
            self._publish()
            return self._post_by_socket(header, payload, -1)
        (<uint32_t *>place)[0] = FL_EXPRESS_FRAME
        (<uint32_t *>place)[1] = header_bytes
        memcpy(place + 2 * sizeof(uint32_t), PyBytes_AS_STRING(header), header_bytes)
        write_payload(place + head_bytes, payload)
        return self._publish()

    def reply_task(self, uint32_t slot, uint64_t duration_ns, bint failed, object payload not None):
        """As `reply` with a TaskResult."""
        cdef fl_express_task_result *result
        cdef uint64_t total
        cdef uint8_t *place
        if not self.has_express:
            self._post_by_socket(encode_header(TaskResult(slot, duration_ns, failed)), payload, slot)
            return
        total = sizeof(fl_express_task_result) + payload_bytes_of(payload)
        fl_slots_finish(&self.slots, slot, NULL, 0xFFFFFFFF)
        place = self._reserve(total)
        if place == NULL:
            self._publish()
            self._post_by_socket(encode_header(TaskResult(slot, duration_ns, failed)), payload, -1)
            return
        result = <fl_express_task_result *>place
        result.kind = FL_EXPRESS_TASK_RESULT
        result.slot = slot
        result.duration_ns = duration_ns
        result.failed = failed
        write_payload(place + sizeof(fl_express_task_result), payload)
        self._publish()

    cdef uint8_t *_reserve(self, uint64_t total) except? NULL:
        """Room for a record, in the ring or, with a record there that says so, beside it. NULL: it must go by the socket, and a record
        that says so has been reserved."""
        cdef fl_spsc *ring = &self.express.replies
        cdef fl_express_distant *distant
        cdef uint8_t *place
        if total <= EXPRESS_INLINE_BYTES_MAX:
            return <uint8_t *>self._reserve_in_ring(<uint32_t>total)
        if total > self.express.reply_region.bytes:
            (<uint32_t *>self._reserve_in_ring(sizeof(uint32_t)))[0] = FL_EXPRESS_BY_SOCKET
            return NULL
        while True:
            if not self.in_pieces or self.express.reply_region.taken < stream_pending_bytes_max or fl_spsc_drained(ring):
                place = <uint8_t *>fl_region_take(&self.express.reply_region, ring, total)
                if place != NULL:
                    break
            self._wait_for_room()
        distant = <fl_express_distant *>self._reserve_in_ring(sizeof(fl_express_distant))
        distant.kind = FL_EXPRESS_DISTANT
        distant.offset = <uint64_t>(place - self.express.reply_region.base)
        distant.bytes = total
        return place

    cdef void *_reserve_in_ring(self, uint32_t size) except NULL:
        cdef void *place
        while True:
            place = fl_spsc_reserve(&self.express.replies, size)
            if place != NULL:
                return place
            self._wait_for_room()

    cdef int _wait_for_room(self) except -1:
        cdef int rc
        if fl_spsc_announce_crowded(&self.express.replies):
            with nogil:
                rc = fl_spsc_sleep_crowded(&self.express.replies, -1)
            if rc == -EINTR:
                PyErr_CheckSignals()
        return 0

    cdef int _publish(self) except -1:
        if fl_spsc_publish(&self.express.replies):
            fl_wake_signal(self.bell_fd)
        return 0

    cdef int _post_by_socket(self, bytes header, object payload, int64_t slot) except -1:
        cdef uint8_t[SHORT_BYTES_MAX] short
        cdef uint32_t header_bytes = <uint32_t>PyBytes_GET_SIZE(header)
        cdef size_t payload_bytes
        cdef size_t start, total
        cdef iovec part
        cdef int rc
        if type(payload) is not bytes or (
            FL_ZMTP_HEADER_BYTES_MAX + LENGTH_BYTES + header_bytes + PyBytes_GET_SIZE(payload) > SHORT_BYTES_MAX
        ):
            return self._post_parts(header, payload if type(payload) is list else [payload], slot)
        # The usual case: everything in one piece on the stack, one system call.
        payload_bytes = PyBytes_GET_SIZE(payload)
        total = LENGTH_BYTES + header_bytes + payload_bytes
        start = fl_zmtp_header(short, total)
        memcpy(short + start, &header_bytes, LENGTH_BYTES)
        memcpy(short + start + LENGTH_BYTES, PyBytes_AS_STRING(header), header_bytes)
        memcpy(short + start + LENGTH_BYTES + header_bytes, PyBytes_AS_STRING(payload), payload_bytes)
        if slot >= 0:
            fl_slots_finish(&self.slots, <uint32_t>slot, short + start, <uint32_t>total)
        part.iov_base = short
        part.iov_len = start + total
        with nogil:
            rc = fl_zmtp_send(&self.connection, &part, 1)
        if rc != 0:
            raise ChannelError(f"the lane to the dispatcher is broken: {os.strerror(-rc)}")
        return 0

    cdef int _post_parts(self, bytes header, list payload, int64_t slot) except -1:
        cdef iovec[FL_ZMTP_PARTS_MAX] parts
        cdef uint8_t[FL_ZMTP_HEADER_BYTES_MAX + LENGTH_BYTES] head
        cdef uint32_t header_bytes = <uint32_t>PyBytes_GET_SIZE(header)
        cdef size_t total = LENGTH_BYTES + header_bytes, start
        cdef const uint8_t[::1] view
        cdef list views
        cdef int count = 2, rc
        if len(payload) > FL_ZMTP_PARTS_MAX - 2:
            payload = [b"".join(payload)]
        views = [memoryview(part).cast("B") for part in payload]
        for item in views:
            if item.nbytes:
                view = item
                parts[count].iov_base = <void *>&view[0]
                parts[count].iov_len = item.nbytes
                total += <size_t>item.nbytes
                count += 1
        start = fl_zmtp_header(head, total)
        memcpy(head + start, &header_bytes, LENGTH_BYTES)
        parts[0].iov_base = head
        parts[0].iov_len = start + LENGTH_BYTES
        parts[1].iov_base = <void *>PyBytes_AS_STRING(header)
        parts[1].iov_len = header_bytes
        if slot >= 0:
            # Too large to be copied: only marked as done.
            fl_slots_finish(
                &self.slots, <uint32_t>slot, head,
                0xFFFFFFFF if total > 0xFFFFFFFF else max(<uint32_t>total, self.slots.mirror_bytes + 1),
            )
        with nogil:
            rc = fl_zmtp_send(&self.connection, parts, count)
        if rc != 0:
            raise ChannelError(f"the lane to the dispatcher is broken: {os.strerror(-rc)}")
        return 0

    def claim(self, uint32_t slot):
        """True when the invocation in `slot` may begin; False when the dispatcher has taken it back."""
        return fl_slots_claim(&self.slots, slot, monotonic_ns()) == 1

    def call(self, object handler, object event, object context):
        """handler(event, context), metered: duration_ns, cpu_ns and started_ns hold its figures afterwards, also when it raises."""
        cdef uint64_t cpu_before = process_cpu_ns()
        cdef uint64_t before = monotonic_ns()
        self.started_ns = before
        try:
            return handler(event, context)
        finally:
            self.duration_ns = monotonic_ns() - before
            self.cpu_ns = process_cpu_ns() - cpu_before

    def go_on(self, object function, object first, object second):
        """As `call`, for what is left to do of the same invocation: its figures are added to those of the call before."""
        cdef uint64_t started_ns = self.started_ns, duration_ns = self.duration_ns, cpu_ns = self.cpu_ns
        try:
            return self.call(function, first, second)
        finally:
            self.started_ns = started_ns
            self.duration_ns += duration_ns
            self.cpu_ns += cpu_ns


cdef uint64_t payload_bytes_of(object payload) except? 0:
    cdef uint64_t total = 0
    if type(payload) is bytes:
        return PyBytes_GET_SIZE(payload)
    for part in payload if type(payload) is list else (payload,):
        total += <uint64_t>PyBytes_GET_SIZE(part) if type(part) is bytes else <uint64_t>memoryview(part).nbytes
    return total


cdef int write_payload(uint8_t *place, object payload) except -1:
    cdef const uint8_t[::1] view
    if type(payload) is bytes:
        memcpy(place, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        return 0
    for part in payload if type(payload) is list else (payload,):
        item = memoryview(part).cast("B")
        if item.nbytes:
            view = item
            memcpy(place, &view[0], item.nbytes)
            place += item.nbytes
    return 0


cdef parse(const uint8_t *data, size_t size):
    cdef uint32_t header_bytes
    if size < LENGTH_BYTES:
        raise ChannelError(f"a frame of {size} bytes is too short")
    memcpy(&header_bytes, data, LENGTH_BYTES)
    if header_bytes > header_bytes_max or header_bytes > size - LENGTH_BYTES:
        raise ChannelError(f"a frame of {size} bytes says that its header has {header_bytes}")
    try:
        frame = decode_header(PyMemoryView_FromMemory(<char *>data + LENGTH_BYTES, header_bytes, PyBUF_READ))
    except msgspec.MsgspecError as error:
        raise ChannelError(f"a frame header does not parse: {error}") from None
    return frame, PyBytes_FromStringAndSize(
        <const char *>data + LENGTH_BYTES + header_bytes, size - LENGTH_BYTES - header_bytes
    )


include "serving.pxi"
