# From an admitted call to an environment, and from its answer to the next call.

cdef class Placement(Stacking):
    """Admission, waiting lines, starting, posting, feeding and stealing."""

    # -- admission and placement -----------------------------------------------------------------

    cdef int _admit(self, Call invocation) except -1:
        cdef Target target = invocation.target
        cdef int throttle
        if self.closed or self.closing or target.abandoned:
            self._finish(invocation, C_CANCELLED, EMPTY)
            return 0
        if target.is_function:
            if target.ahead is not None and self._admitted_ahead(invocation):
                return 0
            throttle = target.pool.admit(target.idle_count == 0, self._now() if target.pool.account.enforce_rates else 0)
            if throttle != THROTTLE_NONE:
                invocation.throttle = throttle
                target.throttles += 1
                self._finish(invocation, C_THROTTLED, EMPTY)
                return 0
            if target.ahead is not None and target.ahead.open_to:
                target.ahead.spillovers += 1
        self._place(invocation)
        return 0

    cdef int _place(self, Call invocation) except -1:
        """Gives an admitted call to an environment, or to the waiting line of its target."""
        cdef Target target = invocation.target
        cdef Environment environment
        cdef bint stacks = self._stacks(invocation)
        while target.idle_count:
            environment = target.filling
            if stacks and environment is not None and self._not_worth_a_wake(environment):
                self._stack(environment)
                if environment.free_slots == 0 or target.waiting:
                    self._wait_in_line(invocation)   # that one takes it from there, sooner than another one would be awake
                    return 0
            elif target.waiting:
                self._wait_in_line(invocation)
                self._feed(self._idle_take(target))
                return 0
            else:
                environment = self._idle_take(target)
                if self._speaks_unasked(environment):
                    continue
                target.filling = environment if environment.has_express and stacks else None
            self._post(environment, invocation)
            return 0
        if target.shares:
            environment = self._shared_environment(target)
            if environment is not None:
                self._post(environment, invocation)
                return 0
        if target.is_function and self.waiting >= self.pending_max:
            target.pool.release()
            self.rejected += 1
            self._finish(invocation, C_REJECTED, EMPTY)
            return 0
        self._wait_in_line(invocation)
        self._grow(target)
        if target.starved:
            self.held_up += 1
        return 0

    cdef int _wait_in_line(self, Call invocation) except -1:
        invocation.state = STATE_WAITING
        invocation.target.waiting.append(invocation)
        invocation.target.queued += 1
        self.waiting += 1
        return 0

    cdef Environment _shared_environment(self, Target target):
        """The busy environment with the fewest tasks, if it may hold one more; None otherwise."""
        cdef Environment environment, best = None
        cdef int depth = target.depth()
        if depth == 1:
            return None
        for item in target.environments:
            environment = <Environment>item
            if (environment.state == ENVIRONMENT_BUSY and environment.free_slots and environment.outstanding < depth
                    and not environment.used_up()):
                if best is None or environment.outstanding < best.outstanding:
                    best = environment
        if best is not None and self._may_start(target):
            # There is still room for another environment: start it, but let this task not wait for it.
            if target.starting == 0:
                self._start(target, None)
        return best

    cdef bint _may_start(self, Target target) except -1:
        return target.environments_max < 0 or target.live < target.environments_max

    cdef int _grow(self, Target target) except -1:
        """Starts environments until each waiting call has one coming, as far as the bounds allow."""
        if target.provisioned:
            return self._provide(<ProvisionedTarget>target)
        if target.growing:
            return 0   # a start failed at once and came back here: the loop below goes on
        target.growing = True
        try:
            while (target.starting < len(target.waiting) and self._may_start(target)
                    and not self.closed and not self.closing):
                if self.live >= self.environments_max and not self._evict(target):
                    if not target.starved:
                        target.starved = True
                        self.starved.append(target)
                    return 0
                self._start(target, None)   # one that fails has answered the call that it was for
        finally:
            target.growing = False
        return 0

    cdef bint _evict(self, Target wanting) except -1:
        """Stops the environment of another target that has been idle longest. True if this machine's bound has room now."""
        cdef Environment oldest = self.idle_oldest
        while oldest is not None and oldest.target is wanting:
            oldest = oldest.idle_newer
        if oldest is None:
            return False
        self.environments_evicted += 1
        self._stop(oldest)
        return self.live < self.environments_max

    cdef Environment _new_environment(self, Target target, int id):
        return Environment(self, target, id)

    cdef bint _start(self, Target target, Call init_for) except -1:
        cdef Environment environment
        self.next_environment_id += 1
        environment = self._new_environment(target, self.next_environment_id)
        environment.init_for = init_for
        environment.worn = target.keepalive_ns == 0
        self.environments[environment.id] = environment
        target.environments.add(environment)
        if init_for is None:
            target.starting += 1
        else:
            environment.second_init = True   # it comes for that call alone, not for those in the line
        target.live += 1
        self.live += 1
        self.environments_started += 1
        if self.house_timer.index == FL_TIMER_IDLE:
            fl_timers_set(&self.timers, &self.house_timer, environment.born_ns + HOUSE_NS)
        if target.is_function:
            self._set_timer(environment, environment.born_ns + <uint64_t>limits.PROCESS_START_SECONDS * 1000000000)
        try:
            self.launcher.launch(environment)
        except Exception as error:
            environment.end_reason = f"{type(error).__name__}: {error}"
            self._exited(environment, -1)
            return False
        except BaseException:
            # A KeyboardInterrupt in the middle of it: this environment is given up, and another one takes its place.
            environment.cut_short = True
            self._stop(environment)
            if not self.launcher.kill(environment):
                self._exited(environment, signal.SIGKILL)
            raise
        return True

    cdef int64_t _init_ns(self, Environment environment, int64_t said_ns) noexcept:
        """How long INIT has taken: what the worker says, but no longer than there has been an order for it."""
        return min(said_ns, <int64_t>(self._now() - environment.born_ns))

    # -- an environment at work ------------------------------------------------------------------

    cdef int _post(self, Environment environment, Call invocation) except -1:
        """Sends one call to an environment that has a free slot."""
        cdef Target target = invocation.target
        cdef int slot = 0
        cdef uint64_t mask = environment.free_slots
        cdef Invocation call = None
        cdef int64_t deadline_epoch_ms
        cdef object frame
        slot = __builtin_ctzll(mask)
        environment.free_slots &= ~(<uint64_t>1 << slot)
        environment.held[slot] = invocation
        environment.outstanding += 1
        environment.invocations += 1
        environment.state = ENVIRONMENT_BUSY
        invocation.environment = environment
        invocation.environment_id = environment.id
        invocation.slot = slot
        invocation.state = STATE_RUNNING
        if not invocation.is_task:
            invocation.posted_ns = self._now()
        if target.is_function:
            target.invocations += 1
            call = <Invocation>invocation
            environment.posts += 1
            call.post_number = environment.posts
            if environment.init_ns >= 0:
                call.init_ns = environment.init_ns
                call.init_logs = environment.init_logs
                environment.init_ns = -1
                environment.init_logs = None
                target.cold_starts += 1
                self.cold_starts += 1
            call.epoch_ms = self._epoch_ms()
            if target.timeout_ns and environment.outstanding == 1:
                self._set_timer(environment, invocation.posted_ns + <uint64_t>(target.timeout_ns - call.duration_ns))
        else:
            target.invocations += 1
        if fl_slots_queue(&environment.slots, slot) != 0:
            self._bad_frame(environment, "the slot table was damaged")
            return 0
        if not target.is_function:
            if environment.has_express:
                return self._send_call(environment, invocation)
            # A worker with enough to do can wait for the next few, which then come in one message.
            if environment.outstanding - len(environment.outbox) > BUNDLE_AFTER:
                environment.outbox.append((slot, whole_payload(invocation)))
                if not environment.unsent:
                    environment.unsent = True
                    self.unsent.append(environment)
                if len(environment.outbox) >= BUNDLE_TASKS_MAX:
                    self._flush(environment)
                return 0
            if environment.outbox:
                self._flush(environment)
            return self._send_call(environment, invocation)
        deadline_epoch_ms = call.epoch_ms + (target.timeout_ns - call.duration_ns) // 1000000
        if self._send_invoke(environment, call, deadline_epoch_ms):
            return 0
        frame = Invoke(
            slot, call.request_id, deadline_epoch_ms, call.invoked_function_arn, call.trace_id, call.client_context, call.tenant_id,
        )
        if call.streams:
            frame.response_stream = True
        self._send(environment, encode_header(frame), invocation.payload)
        return 0

    cdef int _on_ready(self, Environment environment, object frame) except -1:
        if environment.state != ENVIRONMENT_STARTING:
            if environment.state < ENVIRONMENT_STOPPING:
                self._bad_frame(environment, "Ready came twice")
            return 0
        fl_timers_cancel(&self.timers, &environment.timer)
        if not environment.second_init:
            environment.target.starting -= 1
        environment.target.lost_starts = 0
        environment.init_ns = self._init_ns(environment, frame.init_ns)
        environment.memory_peak_kib = environment._memory_peak_kib(frame.memory_peak_kib, MEMORY_LOOK_NS)
        if frame.log_end_bytes > environment.log_offset:
            environment.init_logs = self._read_logs(environment, frame.log_end_bytes)
        environment.state = ENVIRONMENT_IDLE
        if environment.on_ready is not None:
            environment.on_ready(environment)
        if environment.target.provisioned:
            self._up_ahead(environment)
        if environment.init_for is not None:
            invocation = environment.init_for
            environment.init_for = None
            if (<Call>invocation).state == STATE_WAITING:
                self._repeated_init(environment, <Invocation>invocation)
                return 0
        self._feed(environment)
        if environment.target.shares:
            self._start_helper(environment.target)   # it may have taken what waited, and tasks still lie behind others
        return 0

    cdef int _repeated_init(self, Environment environment, Invocation invocation) except -1:
        """INIT has succeeded at its second attempt, within the invocation: its time is the invocation's, which has the rest of its own
        left, and not Init Duration."""
        invocation.duration_ns = min(environment.init_ns, environment.target.timeout_ns)
        invocation.init_logs = environment.init_logs
        environment.init_ns = -1
        environment.init_logs = None
        environment.target.cold_starts += 1
        self.cold_starts += 1
        self._post(environment, invocation)
        invocation.epoch_ms -= invocation.duration_ns // 1000000   # it began with INIT
        return 0

    cdef int _on_init_failed(self, Environment environment, object frame, bytes payload) except -1:
        if environment.state != ENVIRONMENT_STARTING:
            if environment.state < ENVIRONMENT_STOPPING:
                self._bad_frame(environment, "InitFailed came after Ready")
            return 0
        environment.memory_peak_kib = environment._memory_peak_kib(frame.memory_peak_kib, MEMORY_LOOK_NS)
        environment.init_ns = self._init_ns(environment, frame.init_ns)
        if frame.log_end_bytes > environment.log_offset:
            environment.init_logs = self._read_logs(environment, frame.log_end_bytes)
        self._reset(environment)
        self._init_failed(environment, frame.error_type, payload)
        self._stop(environment)
        return 0

    cdef int _init_failed(self, Environment environment, str error_type, bytes payload) except -1:
        """INIT failed for whatever cause: once more within the invocation's time, then the waiting call gets the error."""
        cdef Target target = environment.target
        cdef Invocation invocation = <Invocation>environment.init_for
        cdef Invocation caller
        cdef Call call
        environment.init_for = None
        if target.provisioned:
            return self._failed_ahead(environment, error_type)
        if not target.is_function:
            while target.waiting:
                call = <Call>target.waiting.popleft()
                self.waiting -= 1
                call.error = environment.end_reason
                self._finish(call, C_FAILED, payload)
            return 0
        if target.restores and error_type != "Sandbox.Unavailable":
            return self._restore_failed(environment, error_type)
        if target.log is not None:
            caller = invocation
            if caller is None and target.waiting:
                caller = <Invocation>target.waiting[0]
            target.log.append_init_report(
                environment.init_ns, "init" if invocation is None else "invoke", error_type, environment.init_logs,
                "" if caller is None else caller.request_id,
            )
        if invocation is None:
            if not target.waiting:
                return 0
            invocation = <Invocation>target.waiting.popleft()
            self.waiting -= 1
            if error_type != "Sandbox.Unavailable":
                # Not in the line any more: it belongs to its own environment now.
                invocation.attempts = 1
                self._start(target, invocation)
                return 0
        invocation.memory_peak_kib = environment.memory_peak_kib
        invocation.environment_id = environment.id
        invocation.epoch_ms = self._epoch_ms()
        invocation.error_type = error_type
        invocation.error = environment.end_reason
        if error_type == "Sandbox.Unavailable":
            self._release_slot(target)
            self._finish(invocation, C_FAILED, payload)
            return 0
        target.invocations += 1
        target.errors += 1
        invocation.duration_ns = environment.init_ns
        invocation.posted_ns = environment.born_ns
        if error_type == "Sandbox.Timedout":
            invocation.duration_ns = target.timeout_ns
            target.timeouts += 1
        invocation.epoch_ms -= invocation.duration_ns // 1000000
        self._release_slot(target)
        self._finish(invocation, C_FUNCTION_ERROR, payload)
        return 0

    cdef int _restore_failed(self, Environment environment, str error_type) except -1:
        """The snapshot is the same at a second attempt: the call that waited is told at once."""
        cdef Target target = environment.target
        cdef Invocation invocation
        if error_type == "Sandbox.Timedout":
            error_type = "Runtime.RestoreHookUserTimeout"
        if target.log is not None:
            invocation = <Invocation>target.waiting[0] if target.waiting else None
            target.log.append_restore_report(
                environment.init_ns, error_type, environment.init_logs, "" if invocation is None else invocation.request_id,
            )
        environment.init_logs = None
        if not target.waiting:
            return 0
        invocation = <Invocation>target.waiting.popleft()
        self.waiting -= 1
        invocation.environment_id = environment.id
        invocation.epoch_ms = self._epoch_ms()
        invocation.error_type = error_type
        invocation.error = environment.end_reason
        target.errors += 1
        self._release_slot(target)
        return self._finish(invocation, C_FAILED, EMPTY)

    cdef int _on_result(self, Environment environment, object frame, bytes payload) except -1:
        return self._on_answer(
            environment, frame.slot, frame.duration_ns, frame.cpu_ns, frame.memory_peak_kib, frame.log_end_bytes, frame.error_type,
            frame.content_type, payload,
        )

    cdef int _on_answer(self, Environment environment, int64_t slot, int64_t duration_ns, int64_t cpu_ns, int64_t memory_peak_kib,
                        int64_t log_end_bytes, str error_type, str content_type, bytes payload) except -1:
        cdef Invocation invocation
        cdef Target target = environment.target
        cdef bint in_order
        if not 0 <= slot < len(environment.held) or environment.held[slot] is None or not target.is_function:
            if environment.state < ENVIRONMENT_STOPPING:
                self._bad_frame(environment, f"a reply for slot {slot}, where nothing runs")
            return 0
        invocation = <Invocation>environment.held[slot]
        if invocation.state != STATE_RUNNING:
            self.late_replies += 1
            return 0
        if fl_slots_state(&environment.slots, <uint32_t>slot) != FL_SLOT_DONE:
            # A second answer to the call before, most likely: it must not become the answer to this one.
            return self._bad_frame(environment, f"a reply for slot {slot}, whose call is not over")
        in_order = environment.outstanding == 1 or self._oldest_in(environment) is invocation
        if in_order:   # else it would gain time for the one before it
            fl_timers_cancel(&self.timers, &environment.timer)
        self._took_ns(target, <double>duration_ns)
        invocation.duration_ns += duration_ns
        invocation.cpu_ns = cpu_ns
        environment.memory_peak_kib = environment._memory_peak_kib(memory_peak_kib, <uint64_t>duration_ns)
        invocation.memory_peak_kib = environment.memory_peak_kib
        if log_end_bytes > environment.log_offset:
            invocation.logs = self._read_logs(environment, log_end_bytes)
            invocation.logs_dropped_bytes = environment.logs_dropped_bytes
            environment.logs_dropped_bytes = 0
        invocation.error_type = error_type
        invocation.content_type = content_type
        fl_slots_free(&environment.slots, <uint32_t>slot)
        self._unhold(environment, invocation)
        if environment.outstanding and in_order and target.timeout_ns and environment.state == ENVIRONMENT_BUSY:
            self._set_timer(environment, self._now() + <uint64_t>target.timeout_ns)
        target.pool.release()
        if error_type:
            target.errors += 1
            self._complete(environment, invocation, C_FUNCTION_ERROR, payload)
        else:
            self._complete(environment, invocation, C_OK, payload)
        return 0

    cdef int _on_chunk(self, Environment environment, object frame, bytes payload) except -1:
        """A piece of a stream. Of one over the limit the rest is thrown away, and the call goes on."""
        cdef int64_t slot = frame.slot, size = PyBytes_GET_SIZE(payload)
        cdef Invocation invocation
        cdef uint32_t state
        if not 0 <= slot < len(environment.held) or environment.held[slot] is None or not environment.target.is_function:
            if environment.state < ENVIRONMENT_STOPPING:
                self._bad_frame(environment, f"a piece of an answer for slot {slot}, where nothing runs")
            return 0
        invocation = <Invocation>environment.held[slot]
        state = fl_slots_state(&environment.slots, <uint32_t>slot)
        if not invocation.streams:
            return self._bad_frame(environment, f"a piece of an answer for slot {slot}, whose caller takes it whole")
        if state != FL_SLOT_STARTED and state != FL_SLOT_DONE:
            # Of the call before, most likely: it must not become a piece of this one's answer.
            return self._bad_frame(environment, f"a piece of an answer for slot {slot}, whose call has not begun")
        if size > CHUNK_BYTES_MAX:
            return self._bad_frame(environment, f"a piece of an answer of {size} bytes")
        if not invocation.streamed:
            invocation.streamed = True
            invocation.content_type = frame.content_type
            invocation.pieces = []
        elif size == 0:
            return 0
        if size > STREAM_BYTES_MAX - invocation.streamed_bytes:
            size = STREAM_BYTES_MAX - invocation.streamed_bytes
            if size == 0:
                return 0
            payload = payload[:size]
        if size:
            invocation.streamed_bytes += size
            invocation.pieces_bytes += size + PIECE_BYTES
            invocation.pieces.append(payload)
            if invocation.waiter is not None:
                self._rouse_waiter(invocation)
        if invocation.on_chunk is not None:
            self._call_back(invocation.on_chunk, invocation)
        if invocation.pieces_bytes > STREAM_PENDING_BYTES_MAX:
            self._pause(environment)
        return 0

    cdef int _on_task_result(self, Environment environment, int64_t slot, double task_ns, bint failed, bytes payload) except -1:
        cdef Call invocation
        cdef Target target = environment.target
        if not 0 <= slot < len(environment.held) or environment.held[slot] is None or target.is_function:
            if environment.state < ENVIRONMENT_STOPPING:
                self._bad_frame(environment, f"a reply for slot {slot}, where nothing runs")
            return 0
        invocation = <Call>environment.held[slot]
        if fl_slots_state(&environment.slots, <uint32_t>slot) != FL_SLOT_DONE:
            return self._bad_frame(environment, f"a reply for slot {slot}, whose task is not over")
        invocation.duration_ns = <int64_t>task_ns
        self._took_ns(target, task_ns)
        fl_slots_free(&environment.slots, <uint32_t>slot)
        self._unhold(environment, invocation)
        if environment.outbox and environment.outstanding - len(environment.outbox) <= BUNDLE_AFTER // 2:
            self._flush(environment)
        self._complete(environment, invocation, C_FUNCTION_ERROR if failed else C_OK, payload)
        return 0

    cdef int _complete(self, Environment environment, Call invocation, int outcome, bytes payload) except -1:
        """The environment is free (or freer): feed it before the caller hears, so that it works meanwhile."""
        if environment.state == ENVIRONMENT_BUSY:
            self._after_release(environment)
        self._finish(invocation, outcome, payload)
        return 0

    cdef int _unhold(self, Environment environment, Call invocation) except -1:
        environment.done_count += 1
        environment.held[invocation.slot] = None
        environment.free_slots |= <uint64_t>1 << invocation.slot
        environment.outstanding -= 1
        invocation.environment = None
        return 0

    cdef int _after_release(self, Environment environment) except -1:
        cdef Target target = environment.target
        if environment.used_up():
            if environment.outstanding == 0:
                self._end_used_up(environment)
            return 0
        if environment.outstanding == 0:
            environment.state = ENVIRONMENT_IDLE
            if environment.lane_closed_ns:   # its last answer came through a ring: nothing tells of its end any more
                self._stop(environment)
                return self._grow(target)
        if environment.state == ENVIRONMENT_IDLE or environment.state == ENVIRONMENT_BUSY:
            self._feed(environment)
        return 0

    cdef int _feed(self, Environment environment) except -1:
        """Gives the environment what waits for its target; idle, it goes on the stack (or away, if another target starves)."""
        cdef Target target = environment.target
        if (target.retired or target.provisioned and (<ProvisionedTarget>target).has_surplus()) and not target.waiting:
            if environment.outstanding == 0:
                self.environments_retired += 1
                self._stop(environment)
            return 0
        if (self.starved and target.waiting and target.is_function and environment.outstanding == 0
                and environment.invocations and not target.provisioned and self._gives_way(target)):
            self.environments_evicted += 1
            self._stop(environment)
            self._serve_starved()
            return 0
        if target.is_function:
            self._feed_invocations(environment)
        else:
            self._feed_tasks(environment)
        if environment.outstanding == 0 and environment.state != ENVIRONMENT_STOPPING:
            environment.state = ENVIRONMENT_IDLE
            environment.idle_since_ns = self._now()
            if self.starved and not target.starved and not target.provisioned:
                self.environments_evicted += 1
                self._stop(environment)
                self._serve_starved()
                return 0
            self._idle_add(environment)
            if target.freezes:
                self.freezing.append(environment)
        return 0

    cdef int _feed_tasks(self, Environment environment) except -1:
        cdef Target target = environment.target
        cdef Call task
        cdef int depth = target.depth()
        if environment.outstanding == 0 and self._is_superfluous(environment):
            return 0
        while target.waiting and environment.outstanding < depth and environment.free_slots:
            if environment.used_up():
                break
            task = <Call>target.waiting.popleft()
            self.waiting -= 1
            self._post(environment, task)
        if environment.outstanding == 0 and target.shares:
            self._steal(environment)
        return 0

    cdef int _feed_invocations(self, Environment environment) except -1:
        """The next one that waits; with it those that are too short for anything else."""
        cdef Target target = environment.target
        cdef Call invocation
        cdef bint stacks
        while target.waiting:
            invocation = <Call>target.waiting[0]
            stacks = environment.has_express and self._stacks(invocation)
            if environment.outstanding:
                if not stacks or target.filling is not environment or not self._not_worth_a_wake(environment):
                    break
                self._stack(environment)
            elif stacks:
                target.filling = environment
            elif target.filling is environment:
                target.filling = None
            target.waiting.popleft()
            self.waiting -= 1
            self._post(environment, invocation)
        return 0

    cdef bint _gives_way(self, Target target) except -1:
        """True if the first of the starved targets has more right to an environment than this one, whose calls wait as well: it has fewer
        by two, or none, and a call that came a turn earlier. A busy function could otherwise keep all others from ever running."""
        cdef Target other = <Target>self.starved[0]
        if other.provisioned and (<ProvisionedTarget>other).lacks_some():
            return True   # what was promised to be there goes before what waits
        if other is not target and other.waiting and self._may_start(other):
            if other.live + 2 <= target.live:
                return True
            if other.live == 0 and (<Call>other.waiting[0]).submitted_ns + TURN_NS < (<Call>target.waiting[0]).submitted_ns:
                return True
        self.starved.rotate(-1)   # the next call that ends looks at the next of them
        return False

    cdef int _serve_starved(self) except -1:
        cdef Target target
        cdef int rounds = len(self.starved)
        while rounds > 0 and self.live < self.environments_max:
            rounds -= 1
            target = <Target>self.starved.popleft()
            target.starved = False
            self._grow(target)
        return 0
