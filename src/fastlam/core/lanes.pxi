# Frames to and from environments, and what environments print.

cdef class Lanes(Driver):
    """Sends, receives and checks frames; reads output. Knows nothing of limits."""

    cdef int _flush_all(self) except -1:
        cdef list unsent = self.unsent
        self.unsent = []
        for item in unsent:
            (<Environment>item).unsent = False
            self._flush(<Environment>item)
        return 0

    cdef int _flush(self, Environment environment) except -1:
        """Sends what was held back, in the order in which it was posted (the slot table counts on that order)."""
        cdef list outbox = environment.outbox
        cdef list slots, sizes, parts
        if not outbox or environment.handle == NULL:
            return 0
        environment.outbox = []
        if len(outbox) == 1:
            slot, payload = outbox[0]
            sent = self._send(environment, encode_header(Task(slot)), payload)
        else:
            slots, sizes, parts = [], [], []
            for slot, payload in outbox:
                slots.append(slot)
                if type(payload) is bytes:
                    sizes.append(len(payload))
                    parts.append(payload)
                else:
                    sizes.append(sum([part.nbytes if type(part) is memoryview else len(part) for part in payload]))
                    parts.extend(payload)
            sent = self._send(environment, encode_header(Tasks(slots, sizes)), parts)
        if not sent:
            self._bad_frame(environment, "the lane is broken")
        return 0

    cdef bint _send(self, Environment environment, bytes header, object payload) except -1:
        cdef fl_zmq_msg message
        cdef uint32_t header_bytes = <uint32_t>PyBytes_GET_SIZE(header)
        cdef size_t payload_bytes = 0, position
        cdef const uint8_t[::1] view
        cdef uint8_t *data
        cdef int rc
        if not self.native:
            try:
                environment.socket.send(
                    header_bytes.to_bytes(4, "little") + header
                    + (payload if type(payload) is bytes else b"".join(payload)), 1
                )
            except OSError:   # zmq.Again: there is nobody at the other end
                return False
            self._recheck(environment)
            return True
        if type(payload) is bytes:
            payload_bytes = PyBytes_GET_SIZE(payload)
        else:
            for part in payload:
                payload_bytes += <size_t>part.nbytes if type(part) is memoryview else len(part)
        if fl_zmq.msg_init_size(&message, LENGTH_BYTES + header_bytes + payload_bytes) != 0:
            raise MemoryError()
        data = <uint8_t *>fl_zmq.msg_data(&message)
        memcpy(data, &header_bytes, LENGTH_BYTES)
        memcpy(data + LENGTH_BYTES, PyBytes_AS_STRING(header), header_bytes)
        position = LENGTH_BYTES + header_bytes
        if type(payload) is bytes:
            memcpy(data + position, PyBytes_AS_STRING(payload), payload_bytes)
        else:
            for part in payload:
                if type(part) is bytes:
                    memcpy(data + position, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))
                    position += PyBytes_GET_SIZE(part)
                elif len(part):
                    view = part
                    memcpy(data + position, &view[0], view.shape[0])
                    position += view.shape[0]
        rc = fl_zmq.msg_send(&message, environment.handle, FL_ZMQ_DONTWAIT)
        if rc < 0:
            fl_zmq.msg_close(&message)
            return False
        # A send can eat the edge of a message that has arrived meanwhile. An environment that had nothing to do owes us none.
        if environment.outstanding > 1:
            self._recheck(environment)
        return True

    cdef bint _receive(self, Environment environment) except -1:
        """Takes all frames that have arrived; True if there was one."""
        cdef fl_zmq_msg message
        cdef bint any = False
        cdef int rc
        cdef bytes data
        if environment.handle == NULL:
            return False
        if not self.native:
            while environment.handle != NULL:
                try:
                    data = environment.socket.recv(1)
                except Exception:  # zmq.Again, or a closed socket
                    break
                any = True
                self._frame(environment, <uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            return any
        while environment.handle != NULL:
            fl_zmq.msg_init(&message)
            rc = fl_zmq.msg_recv(&message, environment.handle, FL_ZMQ_DONTWAIT)
            if rc < 0:
                fl_zmq.msg_close(&message)
                break
            any = True
            try:
                if fl_zmq.msg_more(&message):
                    self._bad_frame(environment, "a multipart message is not a frame")
                else:
                    self._frame(environment, <uint8_t *>fl_zmq.msg_data(&message), fl_zmq.msg_size(&message))
            finally:
                fl_zmq.msg_close(&message)
        return any

    cdef int _frame(self, Environment environment, const uint8_t *data, size_t size) except -1:
        cdef uint32_t header_bytes
        cdef object frame, payload, kind
        if environment.state == ENVIRONMENT_DEAD:
            return 0
        if size < LENGTH_BYTES:
            return self._bad_frame(environment, f"a frame of {size} bytes is too short")
        memcpy(&header_bytes, data, LENGTH_BYTES)
        if header_bytes > header_bytes_max or header_bytes > size - LENGTH_BYTES:
            return self._bad_frame(environment, f"a frame of {size} bytes says that its header has {header_bytes}")
        try:
            frame = decode_header(PyMemoryView_FromMemory(<char *>data + LENGTH_BYTES, header_bytes, PyBUF_READ))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:   # ValueError: a text that is no UTF-8
            return self._bad_frame(environment, f"a frame header does not parse: {error}")
        payload = PyBytes_FromStringAndSize(
            <const char *>data + LENGTH_BYTES + header_bytes, size - LENGTH_BYTES - header_bytes
        )
        kind = type(frame)
        if kind is Result:
            return self._on_result(environment, frame, payload)
        if kind is TaskResult:
            return self._on_task_result(environment, frame, payload)
        if frame.protocol_version != PROTOCOL_VERSION:
            return self._bad_frame(
                environment, f"it speaks protocol {frame.protocol_version}, this dispatcher {PROTOCOL_VERSION}"
            )
        if kind is Ready:
            return self._on_ready(environment, frame)
        return self._on_init_failed(environment, frame, payload)

    cdef int _bad_frame(self, Environment environment, str reason) except -1:
        """Ends one environment, and nothing else, because of what it sent."""
        self.bad_frames += 1
        environment.end(f"the environment broke the protocol: {reason}")
        return 0

    # -- output ----------------------------------------------------------------------------------

    cdef object _read_logs(self, Environment environment, int64_t end):
        """What was printed up to `end`; None if nothing. Bounded: of too much, the newest part is kept and the rest counted."""
        cdef int64_t start = environment.log_offset, size, dropped
        if environment.log_fd < 0:
            return None
        size = os.fstat(environment.log_fd).st_size
        if end > size:
            end = size
        if end <= start:
            return None
        dropped = end - start - LOG_BYTES_MAX
        if dropped > 0:
            self.log_dropped_bytes += dropped
            environment.logs_dropped_bytes += dropped
            start += dropped
        logs = os.pread(environment.log_fd, end - start, start)
        if end // LOG_PUNCH_BYTES != environment.log_offset // LOG_PUNCH_BYTES or dropped > 0:
            fallocate(environment.log_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, end - end % 4096)
        environment.log_offset = end
        return logs

    cdef object _read_rest(self, Environment environment, bint init):
        """All output there is so far, of an environment that will not tell its end offset any more."""
        logs = self._read_logs(environment, <int64_t>0x7FFFFFFFFFFFFFFF)
        if init:
            environment.init_logs = logs
        return logs

    cdef int _keep_house(self) except -1:
        """What no event tells: lanes that have ended, and output that outgrows its bound while its invocation still runs."""
        cdef Environment environment
        cdef int64_t size, keep_from
        for item in list(self.environments.values()):
            environment = <Environment>item
            if environment.state == ENVIRONMENT_BUSY:
                self._check_lane(environment)
            if environment.log_fd < 0:
                continue
            size = os.fstat(environment.log_fd).st_size
            if size - environment.log_offset > 2 * LOG_BYTES_MAX:
                keep_from = size - LOG_BYTES_MAX
                self.log_dropped_bytes += keep_from - environment.log_offset
                environment.logs_dropped_bytes += keep_from - environment.log_offset
                environment.log_offset = keep_from
                fallocate(environment.log_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, keep_from - keep_from % 4096)
        return 0

    cdef int _check_lane(self, Environment environment) except -1:
        """A PAIR socket that cannot send has lost its peer: libzmq says nothing when it cuts one off for a message over the limit."""
        cdef int events = environment.socket.EVENTS
        if events & ZMQ_POLLOUT:
            if events & ZMQ_POLLIN:
                self._recheck(environment)   # looking has eaten the edge that would have told of this message
            return 0
        self._receive(environment)
        if environment.state == ENVIRONMENT_BUSY:
            self.bad_frames += 1
            environment.end("the environment has closed its lane, or sent a message over the limit")
        return 0
