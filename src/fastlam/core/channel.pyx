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
    fl_express_result,
    fl_express_sleep,
    fl_express_task,
    fl_express_task_result,
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
cdef extern from "<stdio.h>" nogil:
    ctypedef struct FILE:
        pass
    FILE *stdout
    int setvbuf(FILE *stream, char *buffer, int mode, size_t size)
    int _IOLBF

from fastlam.limits import FRAME_HEADER_BYTES_MAX, RESPONSE_BYTES_MAX, STREAM_PENDING_BYTES_MAX
from fastlam.wire.frames import Chunk, Stop, Task, TaskResult, ToEnvironment

cdef enum:
    PyBUF_READ = 0x100
    LENGTH_BYTES = 4
    SHORT_BYTES_MAX = 4096
    MEMORY_LOOK_NS = 100000      # of handlers' time between two looks at the peak of memory
    SHALLOW_BYTES = 1024         # = worker.marshaller's
    EXPRESS_INLINE_BYTES_MAX = 16384   # longer records go through the region beside the ring

cdef uint32_t PLAIN = <uint32_t>1 << 31   # in the head of a payload: see wire/tasks.py

cdef dict environment_bytes = os.environ._data
cdef uint32_t header_bytes_max = FRAME_HEADER_BYTES_MAX
cdef object encode_header = msgspec.msgpack.Encoder().encode
cdef object decode_header = msgspec.msgpack.Decoder(ToEnvironment).decode


cdef enum:
    VARIABLE_BYTES_MAX = 1024

cdef char[VARIABLE_BYTES_MAX] trace_variable
cdef bytes TRACE_NAME = b"_X_AMZN_TRACE_ID"
cdef Py_ssize_t response_bytes_max = RESPONSE_BYTES_MAX
cdef uint64_t stream_pending_bytes_max = STREAM_PENDING_BYTES_MAX


class ChannelError(Exception):
    """The lane to the dispatcher is broken; the environment has nothing left to do and leaves."""


cdef class PlainInvoke:
    """What is left of an Invoke frame that has nothing special."""

    cdef readonly uint32_t slot
    cdef readonly str request_id
    cdef readonly bint response_stream


cdef class Channel:
    """Frames in, frames out, and the measured call between them.

    `listen_fd` is the listening unix socket to which the dispatcher's PAIR socket connects; it stays the caller's, as does `slots_fd`,
    the memfd of the slot table. With an express lane, `express_fd` is the memfd of its rings, which stays the caller's too, and `bell_fd`
    the eventfd that wakes the dispatcher, which must stay open. Raises ChannelError.
    """

    cdef fl_express express
    cdef bint has_express
    cdef int bell_fd
    cdef uint64_t rest_until_ns            # no spinning before
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
                rc = fl_express_look(&self.express, &self.rest_until_ns)
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

    def serve_invocations(self, object worker, object handler, StateTitle title not None, int log_fd):
        """Runs the invocations that come by rings, until Stop.

        Those that are nothing special, as nearly all are, are run here. `worker` has the pieces: `make_context(request_id,
        deadline_epoch_ms, arn)`, `decode(payload)` and `unmarshal(payload)`, which has the say where it fails, `write(result)` (None: not
        here), `plain_types`, `set_request(request_id)`, `responses`; and does the rest: `run(frame, payload)` for what comes as a frame,
        `finish(frame, called, result, error)` for what did not end in a plain result.
        """
        cdef uint64_t size = 0, before, cpu_before
        cdef const uint8_t *data
        cdef fl_express_invoke invoke
        cdef fl_express_result *answer
        cdef fl_express_distant distant
        cdef uint8_t *place
        cdef bytes payload, body, known_arn = b""
        cdef str arn = ""
        cdef bint traced = False, called
        cdef int64_t log_end
        cdef PlainInvoke frame
        make_context, decode, unmarshal, write = worker.make_context, worker.decode, worker.unmarshal, worker.write
        plain_types, set_request, responses = worker.plain_types, worker.set_request, worker.responses
        run, finish = worker.run, worker.finish
        cdef uint64_t unmeasured_ns = MEMORY_LOOK_NS
        cdef uint64_t memory_kib = 0
        while True:
            data = self._next_record(&size)
            if (<uint32_t *>data)[0] == FL_EXPRESS_DISTANT:
                memcpy(&distant, data, sizeof(distant))
                data = self.express.request_region.base + distant.offset
                size = distant.bytes
            if (<uint32_t *>data)[0] != FL_EXPRESS_INVOKE:
                other, payload = self._receive_express()
                if type(other) is Stop:
                    return
                if fl_slots_claim(&self.slots, other.slot, monotonic_ns()) == 1:
                    title.busy()
                    run(other, payload)
                    traced = True   # it may have set the variable
                    unmeasured_ns = MEMORY_LOOK_NS
                    memory_kib = 0
                other = payload = None
                continue
            memcpy(&invoke, data, sizeof(invoke))
            data += sizeof(invoke)
            size -= sizeof(invoke)
            if fl_slots_claim(&self.slots, invoke.slot, monotonic_ns()) != 1:
                self._took()
                continue
            title.busy()
            if invoke.arn_bytes != PyBytes_GET_SIZE(known_arn) or memcmp(data, PyBytes_AS_STRING(known_arn), invoke.arn_bytes) != 0:
                known_arn = PyBytes_FromStringAndSize(<const char *>data, invoke.arn_bytes)
                arn = known_arn.decode()
            data += invoke.arn_bytes
            if invoke.trace_bytes:
                set_trace(<const char *>data, min(invoke.trace_bytes, VARIABLE_BYTES_MAX - 18))
                traced = True
            elif traced:
                set_trace_variable(None)
                traced = False
            data += invoke.trace_bytes
            size -= invoke.arn_bytes + invoke.trace_bytes
            payload = PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>size)
            self._took()
            frame = PlainInvoke.__new__(PlainInvoke)
            frame.slot = invoke.slot
            frame.request_id = PyUnicode_DecodeASCII(invoke.request_id, FL_EXPRESS_REQUEST_ID_BYTES, NULL)
            set_request(frame.request_id)
            responses.call = frame
            called = False
            error = value = None
            try:
                context = make_context(frame.request_id, invoke.deadline_epoch_ms, arn)
                try:
                    if size > SHALLOW_BYTES:
                        event = unmarshal(payload)
                    else:
                        event = decode(payload)
                except Exception:
                    event = unmarshal(payload)
                called = True
                cpu_before = process_cpu_ns()
                before = monotonic_ns()
                self.started_ns = before
                try:
                    value = handler(event, context)
                finally:
                    self.duration_ns = monotonic_ns() - before
                    self.cpu_ns = process_cpu_ns() - cpu_before
            except Exception as raised:
                error = raised
            body = None
            if error is None and type(value) in plain_types and responses.stream is None:
                responses.call = None
                if responses.stream is None:
                    body = write(value)
                    if body is not None and PyBytes_GET_SIZE(body) > response_bytes_max:
                        body = None
            if body is None:
                responses.call = frame
                finish(frame, called, value, error)
                unmeasured_ns = MEMORY_LOOK_NS
                memory_kib = 0
            else:
                title.idle()
                unmeasured_ns += self.duration_ns
                if unmeasured_ns >= MEMORY_LOOK_NS:
                    # In less time than that no code can take memory that anybody would miss here.
                    unmeasured_ns = 0
                    memory_kib = <uint64_t>memory_peak_kib()
                log_end = lseek(log_fd, 0, SEEK_END)
                fl_slots_finish(&self.slots, frame.slot, NULL, 0xFFFFFFFF)
                place = self._reserve(sizeof(fl_express_result) + PyBytes_GET_SIZE(body))
                if place == NULL:
                    raise ChannelError("a response is longer than the region beside its ring")
                answer = <fl_express_result *>place
                answer.kind = FL_EXPRESS_RESULT
                answer.slot = frame.slot
                answer.duration_ns = self.duration_ns
                answer.cpu_ns = self.cpu_ns
                answer.memory_peak_kib = memory_kib
                answer.log_end_bytes = log_end if log_end > 0 else 0
                memcpy(place + sizeof(fl_express_result), PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
                self._publish()
            # What the invocation left must not live on until the next one comes.
            event = context = value = body = payload = error = frame = None

    def serve_tasks(self, object load, object run, object fail, object pack_result):
        """Runs the tasks that come by rings, until a frame comes: (frame, payload), as `receive`.

        `load(pickle)` is the function and whether it may be used again for the same pickle; `run(payload)` the reply of a task that is not
        plain, `fail(exception)` the reply of one that has raised; `pack_result(value)` the reply for a value that is not plain.
        """
        cdef uint64_t size = 0, before, after, duration_ns
        cdef int64_t got
        cdef const uint8_t *data = NULL
        cdef const uint8_t *pickle
        cdef fl_express_task_result *result
        cdef uint8_t[PLAIN_BYTES_MAX] plain
        cdef uint8_t *place
        cdef uint32_t slot, function_bytes
        cdef Py_ssize_t length
        cdef bytes known = None, payload
        cdef object function = None, arguments
        cdef bint failed
        after = 0
        while True:
            got = fl_spsc_peek(&self.express.requests, &data)
            if got >= 4:
                size = <uint64_t>got
            else:
                data = self._next_record(&size)
                after = 0
            if (<uint32_t *>data)[0] != FL_EXPRESS_TASK or size < sizeof(fl_express_task) + 8:
                after = 0
                frame, payload = self._receive_express()
                if type(frame) is not Task:
                    return frame, payload
                slot = frame.slot
                if fl_slots_claim(&self.slots, slot, monotonic_ns()) != 1:
                    continue
                self._run_task(slot, payload, run, fail)
                continue
            slot = (<fl_express_task *>data).slot
            before = after if after else monotonic_ns()   # one reading a task, where they follow on one another
            after = 0
            if fl_slots_claim(&self.slots, slot, before) != 1:
                self._took()
                continue
            data += sizeof(fl_express_task)
            size -= sizeof(fl_express_task)
            function_bytes = (<uint32_t *>data)[0]
            if not function_bytes & PLAIN or (function_bytes ^ PLAIN) > size - 8:
                payload = PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>size)
                self._took()
                self._run_task(slot, payload, run, fail)
                continue
            function_bytes ^= PLAIN
            pickle = data + 8
            failed = False
            try:
                if known is None or PyBytes_GET_SIZE(known) != function_bytes or memcmp(
                    PyBytes_AS_STRING(known), pickle, function_bytes
                ) != 0:
                    known = PyBytes_FromStringAndSize(<const char *>pickle, function_bytes)
                    function, again = load(known)
                    if not again:
                        known = None
                arguments = read_plain_tuple(pickle + function_bytes, <Py_ssize_t>(size - 8 - function_bytes))
                self._took()
                data = NULL
                value = function(*arguments)
                after = monotonic_ns()
                duration_ns = after - before
                arguments = None
                length = write_plain(value, plain, PLAIN_BYTES_MAX)
                if length >= 0:
                    fl_slots_finish(&self.slots, slot, NULL, 0xFFFFFFFF)
                    place = <uint8_t *>self._reserve_in_ring(<uint32_t>(sizeof(fl_express_task_result) + 8 + length))
                    result = <fl_express_task_result *>place
                    result.kind = FL_EXPRESS_TASK_RESULT
                    result.slot = slot
                    result.duration_ns = duration_ns
                    result.failed = 0
                    (<uint32_t *>(place + sizeof(fl_express_task_result)))[0] = PLAIN
                    (<uint32_t *>(place + sizeof(fl_express_task_result)))[1] = 0
                    memcpy(place + sizeof(fl_express_task_result) + 8, plain, length)
                    value = None
                    self._publish()
                    continue
                reply = pack_result(value)
                value = None
            except ChannelError:
                raise
            except BaseException as error:
                if data != NULL:
                    self._took()
                failed = True
                duration_ns = monotonic_ns() - before
                reply = fail(error)
                arguments = value = None
            self.reply_task(slot, duration_ns, failed, reply)
            reply = None

    cdef int _run_task(self, uint32_t slot, bytes payload, object run, object fail) except -1:
        cdef uint64_t before = monotonic_ns()
        cdef bint failed = False
        try:
            reply = run(payload)
        except BaseException as error:
            # SystemExit too goes to the caller, as with the standard library's pools: only this task asked for it.
            failed = True
            reply = fail(error)
        self.reply_task(slot, monotonic_ns() - before, failed, reply)
        return 0

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
    cdef bytes encoded
    if value is None:
        environment_bytes.pop(TRACE_NAME, None)
        unsetenv(TRACE_NAME)
        return
    encoded = value.encode("utf-8", "surrogateescape")[:VARIABLE_BYTES_MAX - 18]
    set_trace(PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))


cdef int set_trace(const char *text, Py_ssize_t size) except -1:
    """At most VARIABLE_BYTES_MAX - 18 bytes."""
    if TRACE_NAME not in environment_bytes:
        memcpy(trace_variable, b"_X_AMZN_TRACE_ID=", 17)
        trace_variable[17] = 0
        putenv(trace_variable)
    memcpy(trace_variable + 17, text, size)
    trace_variable[17 + size] = 0
    environment_bytes[TRACE_NAME] = PyBytes_FromStringAndSize(text, size)
    return 0


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
    """What a freshly forked worker asks of the kernel: to die with its zygote, and to be no subreaper."""
    prctl(PR_SET_PDEATHSIG, 9)
    prctl(PR_SET_CHILD_SUBREAPER, 0)


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
