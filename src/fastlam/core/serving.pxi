# The loops of a worker that is fed through rings.

cdef class PlainInvoke:
    """What is left of an Invoke frame that has nothing special."""

    cdef readonly uint32_t slot
    cdef readonly str request_id
    cdef readonly bint response_stream


cdef class Channel(Wire):
    """A Wire that runs what comes by it, as long as that is nothing special."""

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
