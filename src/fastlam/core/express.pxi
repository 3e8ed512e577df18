# The express lane: records in shared memory (csrc/fl_express.h), and when to look for them.

cdef class Express(Connections):
    """Frames and tasks through the rings of an environment that has them; the others have their connection.

    Replies are found in one of two ways. An environment whose worker has been asked to ring (`bell_set`) is told of by epoll. One that
    has not is `hot`: every pass looks into its ring, and before the driver sleeps it asks for the bell. An adopted driver sleeps in its
    loop's own poll, unseen: it has the loop come back once before it does.

    What a worker has written is copied before it is looked at, and taken out of the ring before anything is done about it.
    """

    # -- there -----------------------------------------------------------------------------------

    cdef int _send(self, Environment environment, bytes header, object payload) except -1:
        if not environment.has_express:
            return Connections._send(self, environment, header, payload)
        return self._put(environment, 0, header, payload)

    cdef int _send_task(self, Environment environment, uint32_t slot, object payload) except -1:
        """As `_send` of a Task frame."""
        if not environment.has_express:
            return Connections._send(self, environment, encode_header(Task(slot)), payload)
        return self._put(environment, slot, None, payload)

    cdef int _send_call(self, Environment environment, Call call) except -1:
        """As `_send_task` of a call that is held."""
        cdef fl_express *express = &environment.express
        cdef bytes function, arguments
        cdef Py_ssize_t function_bytes, arguments_bytes
        cdef uint8_t *place
        if not call.is_task or (<TaskCall>call).function is None:
            return self._send_task(environment, call.slot, call.payload)
        function = (<TaskCall>call).function
        arguments = <bytes>call.payload
        if environment.has_express and environment.crowd is None:
            function_bytes = PyBytes_GET_SIZE(function)
            arguments_bytes = PyBytes_GET_SIZE(arguments)
            place = NULL
            if function_bytes <= EXPRESS_INLINE_BYTES_MAX // 2:
                place = <uint8_t *>fl_spsc_reserve(
                    &express.requests, <uint32_t>(sizeof(fl_express_task) + function_bytes + arguments_bytes)
                )
            if place != NULL:
                (<fl_express_task *>place).kind = FL_EXPRESS_TASK
                (<fl_express_task *>place).slot = call.slot
                memcpy(place + sizeof(fl_express_task), PyBytes_AS_STRING(function), function_bytes)
                memcpy(place + sizeof(fl_express_task) + function_bytes, PyBytes_AS_STRING(arguments), arguments_bytes)
                return self._publish(environment)
        return self._send_task(environment, call.slot, function + arguments)

    cdef int _put(self, Environment environment, uint32_t slot, bytes header, object payload) except -1:
        cdef bint clear = environment.crowd is None
        if clear and self._put_record(environment, slot, header, payload):
            return self._publish(environment)
        if clear:
            environment.crowd = deque()
        environment.crowd.append((slot, header, payload))
        return self._put_crowd(environment) if clear else 0

    cdef int _put_crowd(self, Environment environment) except -1:
        """Posts what there was no room for; the worker rings when it has made some."""
        cdef bint unpublished = False
        cdef int tries = 0
        while environment.crowd is not None:
            slot, header, payload = environment.crowd[0]
            if self._put_record(environment, slot, header, payload):
                environment.crowd.popleft()
                unpublished = True
                if not environment.crowd:
                    environment.crowd = None
                continue
            if unpublished:
                unpublished = False
                self._publish(environment)   # what the worker cannot see it cannot take, and make room
            if fl_spsc_announce_crowded(&environment.express.requests):
                break
            tries += 1
            if tries == CROWD_TRIES_MAX:
                self._recheck(environment)   # a hostile worker can make room appear and vanish for ever
                break
        if unpublished:
            self._publish(environment)
        return 0

    cdef int _publish(self, Environment environment) except -1:
        if not environment.bell_set and not environment.hot:
            self._heat(environment)
        fl_express_allow_spin(&environment.express, self._worker_spin_ns(environment))
        self.woke_worker = fl_spsc_publish(&environment.express.requests)
        if self.woke_worker:
            fl_express_rouse(&environment.express)
        return 0

    cdef bint _put_record(self, Environment environment, uint32_t slot, bytes header, object payload) except -1:
        """Writes one record, a task where there is no header. False if there is no room for it now."""
        cdef size_t head_bytes = sizeof(fl_express_task) if header is None else 2 * sizeof(uint32_t) + PyBytes_GET_SIZE(header)
        cdef size_t total = head_bytes + (PyBytes_GET_SIZE(payload) if type(payload) is bytes else bytes_of(payload))
        cdef uint8_t *place
        cdef uint32_t *kind
        if total > environment.express.request_region.bytes:
            kind = <uint32_t *>fl_spsc_reserve(&environment.express.requests, sizeof(uint32_t))
            if kind == NULL:
                return False
            kind[0] = FL_EXPRESS_BY_SOCKET
            Connections._send(self, environment, encode_header(Task(slot)) if header is None else header, payload)
            return True
        place = request_place(&environment.express, total)
        if place == NULL:
            return False
        write_record(place, slot, header, payload)
        return True

    cdef bint _send_invoke(self, Environment environment, Invocation call, int64_t deadline_epoch_ms) except -1:
        """Posts an invocation that is nothing but request id, ARN, trace and payload, without a frame. False if it is more, or there is no
        room for it now."""
        cdef fl_express_invoke *invoke
        cdef const char *request_id
        cdef const char *arn
        cdef const char *trace = NULL
        cdef Py_ssize_t request_id_bytes, arn_bytes, trace_bytes = 0, payload_bytes
        cdef uint8_t *place
        if (not environment.has_express or environment.crowd is not None or call.streams or call.client_context is not None
                or call.tenant_id is not None or type(call.payload) is not bytes):
            return False
        request_id = PyUnicode_AsUTF8AndSize(call.request_id, &request_id_bytes)
        arn = PyUnicode_AsUTF8AndSize(call.invoked_function_arn, &arn_bytes)
        if call.trace_id is not None:
            trace = PyUnicode_AsUTF8AndSize(call.trace_id, &trace_bytes)
        if request_id_bytes != FL_EXPRESS_REQUEST_ID_BYTES or arn_bytes > TEXT_BYTES_MAX or trace_bytes > TEXT_BYTES_MAX or (
            trace != NULL and trace_bytes == 0
        ):
            return False
        payload_bytes = PyBytes_GET_SIZE(call.payload)
        place = request_place(&environment.express, sizeof(fl_express_invoke) + arn_bytes + trace_bytes + payload_bytes)
        if place == NULL:
            return False
        invoke = <fl_express_invoke *>place
        invoke.kind = FL_EXPRESS_INVOKE
        invoke.slot = call.slot
        invoke.deadline_epoch_ms = deadline_epoch_ms
        invoke.arn_bytes = <uint16_t>arn_bytes
        invoke.trace_bytes = <uint16_t>trace_bytes
        memcpy(invoke.request_id, request_id, FL_EXPRESS_REQUEST_ID_BYTES)
        place += sizeof(fl_express_invoke)
        memcpy(place, arn, arn_bytes)
        place += arn_bytes
        if trace_bytes:
            memcpy(place, trace, trace_bytes)
            place += trace_bytes
        memcpy(place, PyBytes_AS_STRING(call.payload), payload_bytes)
        self._publish(environment)
        return True

    # -- back ------------------------------------------------------------------------------------

    cdef int _watch_bell(self, Environment environment) except -1:
        """Edge-triggered: each ring of the bell is one event, and nobody needs to read the eventfd."""
        cdef epoll_event event
        event.events = EPOLLIN | EPOLLET
        event.data.u64 = EVENT_BELL + <uint64_t>environment.id
        if epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, environment.bell_fd, &event) != 0:
            raise OSError(errno, f"epoll_ctl: {os.strerror(errno)}")
        return self._ask_for_bell(environment)

    cdef int _ask_for_bell(self, Environment environment) except -1:
        if fl_spsc_announce_sleep(&environment.express.replies):
            environment.bell_set = True
        else:
            self._recheck(environment)
        return 0

    cdef int _bell(self, Environment environment) except -1:
        """The worker has rung: there are replies, or room."""
        environment.bell_set = False
        self._receive_express(environment)
        return 0

    cdef bint _receive_express(self, Environment environment) except -1:
        """Takes the records that are there, up to a bound; True if there was one."""
        cdef fl_spsc *ring = &environment.express.replies
        cdef const uint8_t *data = NULL
        cdef int64_t size
        cdef int taken = 0
        cdef uint64_t copied = environment.copied_bytes
        if environment.crowd is not None:
            self._put_crowd(environment)
        while environment.has_express and not environment.paused and not environment.by_socket_due:
            size = fl_spsc_peek(ring, &data)
            if size < 0:
                if size != -EAGAIN and not environment.broken:
                    self._bad_frame(environment, "the ring of its replies was damaged")
                break
            if environment.draining:
                if (ring.position >= environment.drain_end
                        or environment.copied_bytes - environment.drain_copied > ring.capacity + environment.express.reply_region.bytes):
                    self._recheck(environment)
                    break
            elif taken == RECORDS_MAX or environment.copied_bytes - copied > COPIED_BYTES_MAX:
                self._recheck(environment)
                break
            taken += 1
            self._record(environment, data, <uint64_t>size)
        if not environment.has_express or environment.bell_set or environment.broken or environment.by_socket_due:
            return taken != 0   # what comes by the socket, the socket tells
        if environment.outstanding or environment.state == ENVIRONMENT_STARTING or environment.crowd is not None:
            if not environment.hot and not environment.paused:
                self._heat(environment)
        return taken != 0

    cdef int _heat(self, Environment environment) except -1:
        """Every pass looks into its ring from now on; or its worker is asked to ring, where no pass would come before the loop sleeps."""
        if self.adopted and self.call_soon is None:
            return self._ask_for_bell(environment)
        environment.hot = True
        self.hot.append(environment)
        if self.adopted and not self.driving:
            self._look_soon()
        return 0

    cdef int _before_loop_sleeps(self, bint busy) except -1:
        """At the end of a pass of an adopted driver: another pass follows as long as rings bring work; then their workers are asked to
        ring."""
        if not busy and self.outstanding < self.cpus and self._spin(monotonic_ns() + self.spin_ns):
            busy = True   # with more calls under way there may be more in the sockets, which nobody looks at meanwhile
        if busy or not self._cool():
            self._look_soon()
        return 0

    cdef int _look_soon(self) except -1:
        if not self.look_due:
            self.look_due = True
            self.call_soon(self.look)
        return 0

    cdef bint _speaks_unasked(self, Environment environment) except -1:
        """Hears an idle environment whose ring nobody has looked into since its last answer; True if that is its end. What it says must
        not wait there until it could be the answer to the next call."""
        if not environment.has_express or not fl_spsc_ready(&environment.express.replies):
            return False
        self._receive_express(environment)
        return environment.state != ENVIRONMENT_IDLE

    cdef int _record(self, Environment environment, const uint8_t *data, uint64_t size) except -1:
        cdef fl_express *express = &environment.express
        cdef fl_express_distant distant
        cdef uint32_t kind = 0
        if environment.state == ENVIRONMENT_DEAD or environment.broken:
            return self._took(environment)
        if size >= sizeof(kind):
            memcpy(&kind, data, sizeof(kind))
        if kind == FL_EXPRESS_DISTANT and size >= sizeof(distant):
            memcpy(&distant, data, sizeof(distant))
            data = fl_region_at(&express.reply_region, distant.offset, distant.bytes)
            size = distant.bytes
            kind = 0
            if data != NULL and distant.offset + size > express.reply_region.taken_most:
                express.reply_region.taken_most = distant.offset + size   # for `_trim`: the worker's own count is not seen here
            if data != NULL and size >= sizeof(kind):
                memcpy(&kind, data, sizeof(kind))
        environment.copied_bytes += size   # of records that lie over one another each is copied
        if kind == FL_EXPRESS_RESULT and size >= sizeof(fl_express_result):
            return self._record_of_result(environment, data, size)
        if kind == FL_EXPRESS_TASK_RESULT and size >= sizeof(fl_express_task_result):
            return self._record_of_task(environment, data, size)
        if kind == FL_EXPRESS_FRAME:
            return self._record_of_frame(environment, data + sizeof(kind), size - sizeof(kind))
        self._took(environment)
        if kind == FL_EXPRESS_BY_SOCKET:
            environment.by_socket_due = True
            return self._recheck(environment)   # what has come already, epoll does not tell of again
        return self._bad_frame(environment, f"a record of kind {kind} and {size} bytes")

    cdef int _took(self, Environment environment) except -1:
        if fl_spsc_release(&environment.express.replies):
            fl_spsc_rouse_crowded(&environment.express.replies)
        return 0

    cdef int _record_of_task(self, Environment environment, const uint8_t *data, uint64_t size) except -1:
        cdef uint8_t[PLAIN_RECORD_BYTES_MAX] plain
        cdef fl_express_task_result result
        cdef uint32_t *head = <uint32_t *>(plain + sizeof(result))
        cdef TaskCall call
        cdef bytes payload
        if size <= PLAIN_RECORD_BYTES_MAX and size >= sizeof(result) + PLAIN_HEAD_BYTES:
            # The usual case: a number, a short text, None. It is read from a copy on the stack.
            memcpy(plain, data, size)
            memcpy(&result, plain, sizeof(result))
            if head[0] == PLAIN and head[1] == 0 and not result.failed:
                self._took(environment)
                if environment.state == ENVIRONMENT_DEAD or environment.broken:
                    return 0
                call = self._task_in(environment, result.slot)
                if call is not None:
                    try:
                        call._set(
                            read_plain(
                                plain + sizeof(result) + PLAIN_HEAD_BYTES, <Py_ssize_t>(size - sizeof(result) - PLAIN_HEAD_BYTES)
                            ),
                            None,
                        )
                    except Exception as failure:
                        call._set(None, failure)
                    call.decoded = True
                    return self._on_task_result(environment, result.slot, <double>result.duration_ns, False, EMPTY)
                return self._on_task_result(
                    environment, result.slot, <double>result.duration_ns, False,
                    PyBytes_FromStringAndSize(<const char *>plain + sizeof(result), <Py_ssize_t>(size - sizeof(result))),
                )
        memcpy(&result, data, sizeof(result))
        payload = PyBytes_FromStringAndSize(<const char *>data + sizeof(result), <Py_ssize_t>(size - sizeof(result)))
        self._took(environment)
        if environment.state == ENVIRONMENT_DEAD or environment.broken:
            return 0
        return self._on_task_result(environment, result.slot, <double>result.duration_ns, result.failed != 0, payload)

    cdef int _record_of_result(self, Environment environment, const uint8_t *data, uint64_t size) except -1:
        cdef fl_express_result result
        cdef bytes payload
        if environment.frame_bytes_max >= 0 and size > <uint64_t>environment.frame_bytes_max:
            self._took(environment)
            return self._bad_frame(environment, "a message over the limit")
        memcpy(&result, data, sizeof(result))
        payload = PyBytes_FromStringAndSize(<const char *>data + sizeof(result), <Py_ssize_t>(size - sizeof(result)))
        self._took(environment)
        if environment.state == ENVIRONMENT_DEAD or environment.broken:
            return 0
        if (result.duration_ns > COUNT_MAX or result.cpu_ns > COUNT_MAX or result.memory_peak_kib > COUNT_MAX
                or result.log_end_bytes > COUNT_MAX):
            return self._bad_frame(environment, "a result with impossible figures")
        return self._on_answer(
            environment, result.slot, <int64_t>result.duration_ns, <int64_t>result.cpu_ns, <int64_t>result.memory_peak_kib,
            <int64_t>result.log_end_bytes, "", "", payload,
        )

    cdef TaskCall _task_in(self, Environment environment, uint32_t slot):
        """The task that runs there, if it is one whose value may be set now; None otherwise."""
        if slot >= <uint32_t>len(environment.held) or environment.held[slot] is None:
            return None
        if not (<Call>environment.held[slot]).is_task or fl_slots_state(&environment.slots, slot) != FL_SLOT_DONE:
            return None
        return <TaskCall>environment.held[slot]

    cdef int _record_of_frame(self, Environment environment, const uint8_t *data, uint64_t size) except -1:
        cdef uint32_t header_bytes
        cdef bytes header, payload
        if size < LENGTH_BYTES:
            self._took(environment)
            return self._bad_frame(environment, f"a frame of {size} bytes is too short")
        memcpy(&header_bytes, data, LENGTH_BYTES)
        if header_bytes > header_bytes_max or header_bytes > size - LENGTH_BYTES:
            self._took(environment)
            return self._bad_frame(environment, f"a frame of {size} bytes says that its header has {header_bytes}")
        if environment.frame_bytes_max >= 0 and size > <uint64_t>environment.frame_bytes_max:
            self._took(environment)
            return self._bad_frame(environment, "a message over the limit")
        header = PyBytes_FromStringAndSize(<const char *>data + LENGTH_BYTES, header_bytes)
        payload = PyBytes_FromStringAndSize(
            <const char *>data + LENGTH_BYTES + header_bytes, <Py_ssize_t>(size - LENGTH_BYTES - header_bytes)
        )
        self._took(environment)
        return self._parts(environment, header, payload)

    # -- memory ----------------------------------------------------------------------------------

    cdef int _trim(self, Environment environment, uint64_t now) except -1:
        """Gives back to the system what long records have left in the regions of an environment that has been idle for a while.

        Its worker has nothing to write then, and the next call is posted by this thread: neither region is in use. A worker to which that
        does not apply, or which tells of places that it does not use, harms itself.
        """
        cdef fl_express *express = &environment.express
        if not environment.has_express or environment.state != ENVIRONMENT_IDLE or now - environment.idle_since_ns < TRIM_AFTER_NS:
            return 0
        if fl_spsc_drained(&express.requests):
            fl_region_trim(&express.request_region, REGION_KEPT_BYTES)
        if not fl_spsc_ready(&express.replies):
            fl_region_trim(&express.reply_region, REGION_KEPT_BYTES)
        return 0

    # -- the connection beside the rings ---------------------------------------------------------

    cdef bint _receive(self, Environment environment) except -1:
        cdef bint any
        if not environment.has_express:
            return Connections._receive(self, environment)
        if environment.lane_fd < 0:
            return False
        any = self._receive_express(environment)
        if Connections._receive(self, environment):
            any = True
            self._receive_express(environment)
        return any

    cdef int _read_all(self, Environment environment) except -1:
        cdef int rounds = 0
        if environment.has_express:
            # No more than the memory can have held at the process's end.
            environment.drain_end = environment.express.replies.position + environment.express.replies.capacity
            environment.drain_copied = environment.copied_bytes
            while self._receive_express(environment) and rounds < RECORDS_MAX:
                rounds += 1
                if environment.by_socket_due:
                    Connections._read_all(self, environment)
        Connections._read_all(self, environment)
        if environment.has_express:
            self._receive_express(environment)
        return 0

    # -- looking and sleeping --------------------------------------------------------------------

    cdef bint _poll_hot(self) except -1:
        """Looks into the rings of hot environments; True if there was something. Those that nothing is expected of leave the list."""
        cdef list hot = self.hot
        cdef Environment environment
        cdef Py_ssize_t index = 0
        cdef bint any = False
        while index < len(hot):
            environment = <Environment>hot[index]
            if environment.has_express and fl_spsc_ready(&environment.express.replies) and not environment.paused:
                if self._receive_express(environment):
                    any = True
            if index < len(hot) and hot[index] is environment and not self._expected(environment):
                environment.hot = False
                hot[index] = hot[len(hot) - 1]
                hot.pop()
                continue
            index += 1
        return any

    cdef bint _expected(self, Environment environment) except -1:
        """Whether a hot environment has something to say, in its ring, that the driver waits for."""
        return (environment.has_express and not environment.bell_set and not environment.paused
                and not environment.broken and not environment.by_socket_due
                and (environment.outstanding != 0 or environment.state == ENVIRONMENT_STARTING or environment.crowd is not None))

    cdef bint _cool(self) except -1:
        """Has all hot environments ring from now on. False if one of them has something already: then the driver must not sleep."""
        cdef list hot = self.hot
        cdef Environment environment
        while hot:
            environment = <Environment>hot[len(hot) - 1]
            if self._expected(environment):
                if not fl_spsc_announce_sleep(&environment.express.replies):
                    return False
                environment.bell_set = True
            environment.hot = False
            hot.pop()
        return True

    cdef uint32_t _worker_spin_ns(self, Environment environment) noexcept:
        """How long a worker may look for its next call: only as many look as there are CPUs beside the driver's own. Those of functions
        only where so few calls are under way: with more, the driver's process has sockets to serve."""
        if self.spin_ns == 0 or len(self.hot) >= self.cpus or (environment.target.is_function and self.outstanding >= self.cpus):
            return 0
        if self.spin_rests_until_ns:
            if monotonic_ns() < self.spin_rests_until_ns:
                return 0
            self.spin_rests_until_ns = 0
        return self.spin_ns

    cdef bint _spin(self, uint64_t until_ns) except -1:
        """Looks for replies for a moment instead of sleeping. True if there is something.

        After a worker that had to be woken not for long: it may have been put on this CPU. And not while CPUs are short, which shows in
        the kernel's count of runnable tasks, or in this thread's not having been let run: once in a while that means nothing, so it rests
        the longer the more often it is found so.
        """
        cdef fl_spsc *rings[SPIN_RINGS_MAX]
        cdef int count = 0, index, look
        cdef uint64_t begun, now, last, end
        cdef bint found = False, preempted = False
        if self.spin_ns == 0 or not 0 < len(self.hot) <= SPIN_RINGS_MAX:
            return False
        begun = now = last = monotonic_ns()
        if begun < self.spin_rests_until_ns:
            return False
        if begun >= self.load_known_until_ns:
            if runnable_tasks(self.load_fd) > self.cpus:
                self.load_rest_ns = min(max(2 * self.load_rest_ns, LOAD_REST_MIN_NS), LOAD_NS)
                self.load_known_until_ns = self.spin_rests_until_ns = begun + self.load_rest_ns
                return False
            self.load_rest_ns = 0
            self.load_known_until_ns = begun + LOAD_NS
        self.spin_rests_until_ns = 0
        for item in self.hot:
            rings[count] = &(<Environment>item).express.replies
            count += 1
        end = begun + (min(WOKEN_SPIN_NS, self.spin_ns) if self.woke_worker else self.spin_ns)
        if until_ns < end:
            end = until_ns
        with nogil:
            while not found and now < end:
                for look in range(LOOKS_A_CLOCK):
                    for index in range(count):
                        if fl_spsc_ready(rings[index]):
                            found = True
                            break
                    if found or fl_ring_size(self.ring):
                        found = True
                        break
                    cpu_relax()
                now = monotonic_ns()
                if now - last > PREEMPTED_NS:
                    preempted = True
                    break
                last = now
        if found:
            self.spin_failures = 0
            self.preempted_rest_ns = 0
        elif preempted:
            self.preempted_rest_ns = min(max(2 * self.preempted_rest_ns, LOAD_REST_MIN_NS), LOAD_NS)
            self.spin_rests_until_ns = now + self.preempted_rest_ns
        else:
            # The longer in vain, the longer without: tasks take longer than is worth looking for.
            self.spin_failures = min(self.spin_failures + 1, SPIN_FAILURES_MAX)
            self.spin_rests_until_ns = now + (self.spin_ns << self.spin_failures)
        return found


cdef uint8_t *request_place(fl_express *express, size_t total) noexcept:
    """Where a record of so many bytes is to be written: in the ring, or, with a record there that says so, beside it. NULL: there is no
    room now, or it is too long."""
    cdef uint8_t *place
    cdef fl_express_distant *distant
    if total <= EXPRESS_INLINE_BYTES_MAX:
        return <uint8_t *>fl_spsc_reserve(&express.requests, <uint32_t>total)
    place = <uint8_t *>fl_region_take(&express.request_region, &express.requests, total)
    if place == NULL:
        return NULL
    distant = <fl_express_distant *>fl_spsc_reserve(&express.requests, sizeof(fl_express_distant))
    if distant == NULL:
        return NULL
    distant.kind = FL_EXPRESS_DISTANT
    distant.offset = <uint64_t>(place - express.request_region.base)
    distant.bytes = total
    return place


cdef size_t bytes_of(object payload) except? 0:
    cdef size_t total = 0
    for buffer in payload:
        if type(buffer) is bytes:
            total += PyBytes_GET_SIZE(buffer)
        else:
            total += <size_t>buffer.nbytes
    return total


cdef int write_record(uint8_t *place, uint32_t slot, bytes header, object payload) except -1:
    cdef const uint8_t[::1] view
    cdef uint32_t header_bytes
    if header is None:
        (<fl_express_task *>place).kind = FL_EXPRESS_TASK
        (<fl_express_task *>place).slot = slot
        place += sizeof(fl_express_task)
    else:
        header_bytes = <uint32_t>PyBytes_GET_SIZE(header)
        (<uint32_t *>place)[0] = FL_EXPRESS_FRAME
        (<uint32_t *>place)[1] = header_bytes
        memcpy(place + 2 * sizeof(uint32_t), PyBytes_AS_STRING(header), header_bytes)
        place += 2 * sizeof(uint32_t) + header_bytes
    if type(payload) is bytes:
        memcpy(place, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        return 0
    for buffer in payload:
        if len(buffer):
            view = memoryview(buffer).cast("B")
            memcpy(place, &view[0], view.shape[0])
            place += view.shape[0]
    return 0


cdef int runnable_tasks(int fd) noexcept:
    """Tasks of this machine that run or want to, as /proc/loadavg says; 0 where it does not."""
    cdef char[64] text
    cdef ssize_t size = pread(fd, text, sizeof(text) - 1, 0)
    cdef int index = 0, spaces = 0, count = 0
    while index < size and spaces < 3:
        if text[index] == b" ":
            spaces += 1
        index += 1
    while index < size and b"0" <= text[index] <= b"9":
        count = count * 10 + (text[index] - 48)
        index += 1
    return count
