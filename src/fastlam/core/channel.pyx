"""The environment's end of a ZeroMQ lane, with the meter: used inside execution environments only.

One thread, the environment's main thread, owns the socket and the slot table's worker side. The meter reads CLOCK_MONOTONIC right
around the handler; nothing but the call itself lies between its two readings.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from fastlam.core.native cimport (
    FL_ZMQ_DONTWAIT,
    fl_slots,
    fl_slots_claim,
    fl_slots_close,
    fl_slots_finish,
    fl_slots_open,
    fl_slots_wait_free,
    fl_zmq,
    fl_zmq_load,
    fl_zmq_msg,
    memory_peak_kib,
    monotonic_ns,
    process_cpu_ns,
)

import os

import msgspec

cdef extern from "<stdlib.h>" nogil:
    int putenv(char *string)
    int unsetenv(const char *name)
    void *malloc(size_t size)
cdef extern from "<unistd.h>" nogil:
    char **environ
cdef extern from "<malloc.h>" nogil:
    int mallopt(int parameter, int value)
    int M_ARENA_MAX
cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int option, unsigned long value)
    int PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER
cdef extern from "<stdio.h>" nogil:
    ctypedef struct FILE:
        pass
    FILE *stdout
    int setvbuf(FILE *stream, char *buffer, int mode, size_t size)
    int _IOLBF

from fastlam.limits import FRAME_HEADER_BYTES_MAX
from fastlam.wire.frames import ToEnvironment

cdef enum:
    PyBUF_READ = 0x100
    LENGTH_BYTES = 4

cdef dict environment_bytes = os.environ._data
cdef uint32_t header_bytes_max = FRAME_HEADER_BYTES_MAX
cdef object encode_header = msgspec.msgpack.Encoder().encode
cdef object decode_header = msgspec.msgpack.Decoder(ToEnvironment).decode


cdef enum:
    VARIABLE_BYTES_MAX = 1024

cdef char[VARIABLE_BYTES_MAX] trace_variable


class ChannelError(Exception):
    """The lane to the dispatcher is broken; the environment has nothing left to do and leaves."""


cdef class Channel:
    """Frames in, frames out, and the measured call between them.

    `socket` is a bound pyzmq PAIR socket that nobody else uses; `slots_fd` the memfd of the slot table.
    """

    cdef object socket
    cdef void *handle
    cdef bint native
    cdef fl_slots slots
    cdef bint has_slots
    cdef bint unmirrored
    cdef uint32_t unmirrored_slot
    cdef readonly uint64_t started_ns
    cdef readonly uint64_t duration_ns
    cdef readonly uint64_t cpu_ns

    def __cinit__(self, object socket, int slots_fd, str zmq_module_path):
        cdef int rc
        self.has_slots = False
        self.unmirrored = False
        self.socket = socket
        self.handle = <void *><size_t>socket.underlying
        self.native = fl_zmq_load(os.fsencode(zmq_module_path)) == 0
        rc = fl_slots_open(&self.slots, slots_fd)
        if rc != 0:
            raise ChannelError(f"the slot table cannot be opened: {os.strerror(-rc)}")
        self.has_slots = True

    def __dealloc__(self):
        if self.has_slots:
            fl_slots_close(&self.slots)

    def receive(self):
        """Waits for the next frame; returns (frame, payload bytes). Raises ChannelError on a broken lane or a bad frame."""
        cdef fl_zmq_msg message
        cdef int rc, error
        if not self.native:
            return self._split(self.socket.recv())
        fl_zmq.msg_init(&message)
        try:
            while True:
                # libzmq itself looks before it sleeps: a first try without waiting would only cost system calls.
                with nogil:
                    rc = fl_zmq.msg_recv(&message, self.handle, 0)
                if rc >= 0:
                    break
                error = fl_zmq.error()
                if error != EINTR:
                    raise ChannelError(f"the lane to the dispatcher is broken: {os.strerror(error)}")
                PyErr_CheckSignals()
            return parse(<const uint8_t *>fl_zmq.msg_data(&message), fl_zmq.msg_size(&message))
        finally:
            fl_zmq.msg_close(&message)

    cdef _split(self, bytes data):
        return parse(<const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def send(self, object frame, object payload not None):
        """Posts one frame; `payload` is bytes or a list of buffers that are sent one behind the other."""
        self._post(encode_header(frame), payload, -1)

    def reply(self, uint32_t slot, object frame, object payload not None):
        """As `send`, for the answer to the invocation in `slot`: marks it done and mirrors it first, so that the answer survives
        this process even if it dies before libzmq's own thread has written it."""
        self._post(encode_header(frame), payload, slot)

    cdef int _post(self, bytes header, object payload, int64_t slot) except -1:
        cdef fl_zmq_msg message
        cdef uint32_t header_bytes = <uint32_t>PyBytes_GET_SIZE(header)
        cdef size_t payload_bytes = 0, total, position
        cdef const uint8_t[::1] view
        cdef uint8_t *data
        cdef object part
        cdef int rc, error
        cdef bytes copy
        if type(payload) is bytes:
            payload_bytes = PyBytes_GET_SIZE(payload)
        else:
            payload = [memoryview(part).cast("B") for part in payload]
            for part in payload:
                payload_bytes += <size_t>part.nbytes
        total = LENGTH_BYTES + header_bytes + payload_bytes
        if not self.native:
            copy = header_bytes.to_bytes(4, "little") + header + (
                payload if type(payload) is bytes else b"".join(payload)
            )
            if slot >= 0:
                self._finish(<uint32_t>slot, <uint8_t *>PyBytes_AS_STRING(copy), total)
            self.socket.send(copy)
            return 0
        if fl_zmq.msg_init_size(&message, total) != 0:
            raise MemoryError()
        data = <uint8_t *>fl_zmq.msg_data(&message)
        memcpy(data, &header_bytes, LENGTH_BYTES)
        memcpy(data + LENGTH_BYTES, PyBytes_AS_STRING(header), header_bytes)
        position = LENGTH_BYTES + header_bytes
        if type(payload) is bytes:
            memcpy(data + position, PyBytes_AS_STRING(payload), payload_bytes)
        else:
            for part in payload:
                if part.nbytes:
                    view = part
                    memcpy(data + position, &view[0], part.nbytes)
                    position += <size_t>part.nbytes
        if slot >= 0:
            self._finish(<uint32_t>slot, data, total)
        while True:
            rc = fl_zmq.msg_send(&message, self.handle, FL_ZMQ_DONTWAIT)
            if rc < 0 and fl_zmq.error() == EAGAIN:
                with nogil:
                    rc = fl_zmq.msg_send(&message, self.handle, 0)
            if rc >= 0:
                return 0
            error = fl_zmq.error()
            if error != EINTR:
                fl_zmq.msg_close(&message)
                raise ChannelError(f"the lane to the dispatcher is broken: {os.strerror(error)}")
            PyErr_CheckSignals()

    cdef int _finish(self, uint32_t slot, const uint8_t *data, size_t total) except -1:
        # A reply too large to mirror must have arrived before the next task may begin (and perhaps kill us): see claim().
        if total > 0xFFFFFFFF or fl_slots_finish(&self.slots, slot, data, <uint32_t>total) == 0:
            self.unmirrored = True
            self.unmirrored_slot = slot
        return 0

    def claim(self, uint32_t slot):
        """True when the invocation in `slot` may begin; False when the dispatcher has taken it back."""
        if self.unmirrored:
            self._wait_unmirrored()
        return fl_slots_claim(&self.slots, slot, monotonic_ns()) == 1

    cdef int _wait_unmirrored(self) except -1:
        cdef int rc
        while True:
            with nogil:
                rc = fl_slots_wait_free(&self.slots, self.unmirrored_slot, 1000000000)
            if rc == 0:
                break
            PyErr_CheckSignals()
        self.unmirrored = False
        return 0

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


def peak_memory_kib():
    """Peak resident set of this process in KiB, as the kernel counts it."""
    return memory_peak_kib()


def now_ns():
    """CLOCK_MONOTONIC in nanoseconds, the clock that all processes of this machine share."""
    return monotonic_ns()


def line_buffer_c_stdio():
    """Makes C's stdout write line by line, so that what extension modules print is captured with its invocation."""
    setvbuf(stdout, NULL, _IOLBF, 4096)


def set_trace_variable(str value):
    """_X_AMZN_TRACE_ID for this process and its children; None takes it away.

    os.environ would do, but C's setenv never frees what it is given: a new value for each invocation is a leak. Here the variable
    stands in one buffer for good.
    """
    cdef bytes name = b"_X_AMZN_TRACE_ID"
    cdef bytes encoded
    cdef Py_ssize_t size
    if value is None:
        environment_bytes.pop(name, None)
        unsetenv(name)
        return
    encoded = value.encode("utf-8", "surrogateescape")[:VARIABLE_BYTES_MAX - 18]
    size = PyBytes_GET_SIZE(encoded)
    if name not in environment_bytes:
        memcpy(trace_variable, b"_X_AMZN_TRACE_ID=", 17)
        trace_variable[17] = 0
        putenv(trace_variable)
    memcpy(trace_variable + 17, PyBytes_AS_STRING(encoded), size + 1)
    environment_bytes[name] = encoded


cdef class StateTitle:
    """The state word at the end of a process title, rewritten in place: ps shows it, and an invocation pays nothing.

    `title` is what setproctitle has just shown; it ends in "[idle]". Where that text is not found in the process's argument area,
    `show` does nothing.
    """

    cdef char *word

    def __cinit__(self, bytes title not None):
        cdef size_t start = 0, end = 0
        cdef size_t size = PyBytes_GET_SIZE(title)
        cdef const char *shown
        self.word = NULL
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rsplit(b")", 1)[1].split()
        start, end = int(fields[45]), int(fields[46])
        if not title.endswith(b"[idle]") or start == 0 or end - start <= size:
            return
        shown = <const char *>start
        if memcmp(shown, PyBytes_AS_STRING(title), size) == 0:
            self.word = <char *>start + size - 5

    cpdef busy(self):
        if self.word != NULL:
            memcpy(self.word, b"busy", 4)

    cpdef idle(self):
        if self.word != NULL:
            memcpy(self.word, b"idle", 4)


def settle_child():
    """What a freshly forked worker asks of the kernel and of C's library: to die with its zygote, to be no subreaper, and one malloc
    arena (libzmq's two threads would each make their own)."""
    prctl(PR_SET_PDEATHSIG, 9)
    prctl(PR_SET_CHILD_SUBREAPER, 0)
    mallopt(M_ARENA_MAX, 1)


def replace_environment(dict variables):
    """Makes `variables` (str to str) the whole environment, of C and of os.environ, in one block of memory.

    The block belongs to the process from now on; setenv and putenv go on working on it. Two hundred calls of setenv and unsetenv
    would touch as many pages that are shared with the zygote.
    """
    cdef size_t size = (len(variables) + 1) * sizeof(char *)
    cdef size_t table_bytes = size
    cdef char **table
    cdef char *text
    cdef bytes entry
    cdef Py_ssize_t index = 0
    cdef list entries = []
    environment_bytes.clear()
    for name, value in variables.items():
        raw_name, raw_value = os.fsencode(name), os.fsencode(value)
        environment_bytes[raw_name] = raw_value
        entry = raw_name + b"=" + raw_value
        entries.append(entry)
        size += PyBytes_GET_SIZE(entry) + 1
    table = <char **>malloc(size)
    if table == NULL:
        raise MemoryError()
    text = <char *>table + table_bytes
    for entry in entries:
        memcpy(text, PyBytes_AS_STRING(entry), PyBytes_GET_SIZE(entry) + 1)
        table[index] = text
        text += PyBytes_GET_SIZE(entry) + 1
        index += 1
    table[index] = NULL
    global environ
    environ = table
