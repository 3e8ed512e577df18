# Frames to and from environments, and what environments print.

cdef class Lanes(Express):
    """Bundles, checks and hands on frames; reads output. Knows nothing of limits."""

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
        if not outbox:
            return 0
        environment.outbox = []
        if len(outbox) == 1:
            slot, payload = outbox[0]
            self._send_task(environment, slot, payload)
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
            self._send(environment, encode_header(Tasks(slots, sizes)), parts)
        return 0

    cdef int _frame(self, Environment environment, const uint8_t *data, size_t size) except -1:
        cdef uint32_t header_bytes
        if environment.state == ENVIRONMENT_DEAD or environment.broken:
            return 0
        if size < LENGTH_BYTES:
            return self._bad_frame(environment, f"a frame of {size} bytes is too short")
        memcpy(&header_bytes, data, LENGTH_BYTES)
        if header_bytes > header_bytes_max or header_bytes > size - LENGTH_BYTES:
            return self._bad_frame(environment, f"a frame of {size} bytes says that its header has {header_bytes}")
        return self._parts(
            environment,
            PyMemoryView_FromMemory(<char *>data + LENGTH_BYTES, header_bytes, PyBUF_READ),
            PyBytes_FromStringAndSize(<const char *>data + LENGTH_BYTES + header_bytes, size - LENGTH_BYTES - header_bytes),
        )

    cdef int _parts(self, Environment environment, object header, bytes payload) except -1:
        """A frame whose parts are this process's own."""
        cdef object frame, kind
        if environment.state == ENVIRONMENT_DEAD or environment.broken:
            return 0
        try:
            frame = decode_header(header)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:   # ValueError: a text that is no UTF-8
            return self._bad_frame(environment, f"a frame header does not parse: {error}")
        kind = type(frame)
        if kind is Result:
            return self._on_result(environment, frame, payload)
        if kind is TaskResult:
            return self._on_task_result(environment, frame.slot, <double>frame.duration_ns, frame.failed, payload)
        if kind is Chunk:
            return self._on_chunk(environment, frame, payload)
        if frame.protocol_version != PROTOCOL_VERSION:
            return self._bad_frame(
                environment, f"it speaks protocol {frame.protocol_version}, this dispatcher {PROTOCOL_VERSION}"
            )
        if kind is Ready:
            return self._on_ready(environment, frame)
        return self._on_init_failed(environment, frame, payload)

    cdef int _bad_frame(self, Environment environment, str reason) except -1:
        """Ends one environment, and nothing else, because of what it sent. What it sends afterwards does not count."""
        if environment.broken:
            return 0
        self.bad_frames += 1
        environment.broken = True
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
        """What no event tells: lanes that have ended, memory that is not needed any more, and output that outgrows its bound while its
        invocation still runs."""
        cdef Environment environment
        cdef int64_t size, keep_from
        cdef uint64_t now = self._now()
        for item in list(self.environments.values()):
            environment = <Environment>item
            if environment.state == ENVIRONMENT_BUSY:
                self._check_lane(environment)
            self._trim(environment, now)
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
