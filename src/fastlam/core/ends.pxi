# How environments and calls end.

cdef class Ends(Provisioning):
    """Deadlines, exits, what becomes of the calls that were running, and the completion of every call."""

    # -- ends ------------------------------------------------------------------------------------

    cdef int _retire_environment(self, Environment environment) except -1:
        """Lets a worker leave by itself (executors: finalizers run), and starts another one if work waits."""
        environment.state = ENVIRONMENT_STOPPING
        self._leave_counts(environment, False)
        self._flush(environment)
        self._send(environment, encode_header(Stop()), EMPTY)
        self._set_timer(environment, self._now() + 5000000000)
        self._grow(environment.target)
        return 0

    cdef int _end_used_up(self, Environment environment) except -1:
        """It has had its last call. A function's is killed at once: Lambda gives it no time without extensions, either."""
        cdef Target target = environment.target
        if not target.is_function:
            return self._retire_environment(environment)
        if target.keepalive_ns == 0:
            self.environments_reaped += 1
        else:
            self.environments_recycled += 1
        self._stop(environment, True)
        if self.starved:
            self._serve_starved()   # in turns: this target is one of them, if it has been held up
        return self._grow(target)

    cdef int _leave_counts(self, Environment environment, bint was_starting) except -1:
        cdef Target target = environment.target
        target.live -= 1
        self.live -= 1
        if was_starting and not environment.second_init:
            target.starting -= 1
        return 0

    cdef int _stop(self, Environment environment, bint by_zygote=False) except -1:
        """Kills an environment's process. Its calls fail when the zygote tells how it ended. One that has no call left may be killed
        `by_zygote`, who looks at it before (worker.touched), and has a second for it."""
        cdef Target target = environment.target
        cdef bint was_starting = environment.state == ENVIRONMENT_STARTING
        if environment.state >= ENVIRONMENT_STOPPING:
            return 0
        self._idle_remove(environment)
        environment.state = ENVIRONMENT_STOPPING
        self._leave_counts(environment, was_starting)
        if not by_zygote:
            environment._signal()
        if not self.launcher.kill(environment):
            environment._signal()
        elif by_zygote and environment.state == ENVIRONMENT_STOPPING and not environment.exited:
            self._set_timer(environment, self._now() + 1000000000)
        return 0

    cdef int _init_begins(self, Environment environment) except -1:
        """Its process is there: from now on the time of INIT runs. When hundreds are ordered at a time, how long those before it have taken
        is not the function's."""
        cdef uint64_t most_ns
        if not environment.target.is_function:
            return 0
        most_ns = <uint64_t>limits.INIT_TIMEOUT_MS * 1000000
        if environment.target.provisioned:
            most_ns = (<ProvisionedTarget>environment.target).init_timeout_ns
        elif environment.second_init and environment.target.timeout_ns:
            most_ns = environment.target.timeout_ns
        environment.begun_ns = self._now()
        return self._set_timer(environment, environment.begun_ns + most_ns)

    cdef int _end_old_ones(self) except -1:
        """Stops what has idled or lived for its time; what is too old and busy takes no call after those that it has."""
        cdef Environment environment
        cdef Target target
        cdef uint64_t now = self._now()
        for item in list(self.environments.values()):
            environment = <Environment>item
            target = environment.target
            if environment.state == ENVIRONMENT_IDLE:
                if target.keepalive_ns >= 0 and now - environment.idle_since_ns >= <uint64_t>target.keepalive_ns:
                    self.environments_reaped += 1
                    self._stop(environment)
                elif target.recycle_ns and now - environment.born_ns >= <uint64_t>target.recycle_ns:
                    self.environments_recycled += 1
                    self._stop(environment)
            elif environment.state == ENVIRONMENT_BUSY and target.recycle_ns and now - environment.born_ns >= <uint64_t>target.recycle_ns:
                environment.worn = True
        return 0

    cdef int _reset(self, Environment environment) except -1:
        """A timeout or a crash ends it: it is counted, and marked for whoever keeps what outlives a process."""
        if not environment.was_reset and environment.target.is_function:
            environment.was_reset = True
            self.environments_reset += 1
            if environment.on_reset is not None:
                environment.on_reset(environment)
        return 0

    cdef int _deadline(self, Environment environment) except -1:
        cdef Invocation invocation
        cdef Target target = environment.target
        if environment.exited:
            return self._bury(environment, True)
        if environment.state == ENVIRONMENT_STOPPING:
            environment._signal()   # asked to leave, and did not
            self.launcher.kill(environment)
            return 0
        if environment.state == ENVIRONMENT_STARTING and environment.begun_ns == 0:
            environment.init_ns = 0
            environment.end_reason = f"no process was made within {limits.PROCESS_START_SECONDS} s"
            self.environments_failed += 1
            self._init_failed(environment, "Sandbox.Unavailable", EMPTY)   # first: the end of what was never made can come at once
            return self._stop(environment)
        if environment.state == ENVIRONMENT_STARTING:
            environment.init_ns = self._now() - environment.begun_ns
            self._reset(environment)
            invocation = environment.init_for if environment.init_for is not None else (
                <Invocation>target.waiting[0] if target.waiting else None
            )
            payload = EMPTY
            if invocation is not None:
                payload = self.faults.timeout(invocation)
            self._read_rest(environment, True)
            self._stop(environment)
            return self._init_failed(environment, "Sandbox.Timedout", payload)
        invocation = self._oldest_in(environment)
        if invocation is None:
            return 0
        if invocation.streams or fl_slots_state(&environment.slots, invocation.slot) == FL_SLOT_DONE:
            self._drain(environment)   # the reply, or pieces of it, may already be on their way: they were in time
            if invocation.state == STATE_DONE:
                return 0
        target.timeouts += 1
        target.errors += 1
        environment.timed_out = True
        self._reset(environment)
        environment._signal()
        invocation.logs = self._read_rest(environment, False)
        invocation.logs_dropped_bytes = environment.logs_dropped_bytes
        environment.logs_dropped_bytes = 0
        invocation.duration_ns = target.timeout_ns
        invocation.error_type = "Sandbox.Timedout"
        environment.memory_peak_kib = environment._memory_peak_kib(environment.memory_peak_kib, MEMORY_LOOK_NS)
        invocation.memory_peak_kib = environment.memory_peak_kib
        payload = self.faults.timeout(invocation)
        self._unhold(environment, invocation)
        self._stop(environment)
        target.pool.release()
        self._finish(invocation, C_FUNCTION_ERROR, payload)
        return 0

    cdef int _exited(self, Environment environment, int wait_status) except -1:
        """The process is gone. Its lane is drained first; then what it was running fails."""
        if environment.exited or environment.state == ENVIRONMENT_DEAD:
            return 0
        environment.exited = True
        environment.wait_status = wait_status
        if environment.pidfd >= 0:
            os.close(environment.pidfd)
            environment.pidfd = -1
        try:
            self._drain(environment)
        finally:
            self._after_exit(environment)   # whatever a callback has raised: nobody else would do it
        return 0

    cdef int _after_exit(self, Environment environment) except -1:
        cdef bint was_starting = environment.state == ENVIRONMENT_STARTING
        if environment.state < ENVIRONMENT_STOPPING:
            self._idle_remove(environment)
            environment.state = ENVIRONMENT_STOPPING
            self._leave_counts(environment, was_starting)
        fl_timers_cancel(&self.timers, &environment.timer)
        if environment.end_reason is not None and environment.target.log is not None:
            environment.target.log.note(f"[fastlam: {environment.end_reason}]")
        if was_starting or environment.cut_short:
            environment.cut_short = False
            self._start_ended(environment)
        self._bury(environment, False)
        return 0

    cdef int _start_ended(self, Environment environment) except -1:
        """The process ended during INIT without a word of its own."""
        cdef Target target = environment.target
        cdef Call invocation = environment.init_for
        self.environments_failed += 1
        if environment.wait_status != -1:   # else there was no process
            self._reset(environment)
        environment.init_ns = self._now() - environment.begun_ns if environment.begun_ns else 0
        self._read_rest(environment, True)
        if invocation is None and target.waiting:
            invocation = <Call>target.waiting[0]
        if environment.wait_status == -1:
            self._init_failed(environment, "Sandbox.Unavailable", EMPTY)
        elif (not target.is_function and environment.end_reason is None and 0 < environment.wait_status < 128
                and target.lost_starts < RETRY_LOST_START_MAX * (1 + max(0, target.environments_max))):
            target.lost_starts += 1   # a signal from outside: another worker starts, and no task is the worse for it
        elif target.is_function and invocation is not None:
            error_type, payload = self.faults.exited(invocation, environment.wait_status)
            self._init_failed(environment, error_type, payload)
        else:
            if environment.end_reason is None:
                environment.end_reason = f"a worker ended while it started (wait status {environment.wait_status})"
            self._init_failed(environment, "Runtime.ExitError", EMPTY)
        return 0

    cdef int _bury(self, Environment environment, bint grace_over) except -1:
        """Ends the calls of an exited environment and forgets it; waits a moment for replies that are known to have been sent."""
        cdef Call invocation, first = None
        cdef uint32_t state
        cdef int slot
        cdef bint unarrived = False
        if environment.outstanding:
            if environment.target.is_function and not environment.timed_out:
                first = self._oldest_in(environment)
            self._set_timer(environment, self._now() + LARGE_REPLY_GRACE_NS)   # also for what an interrupt leaves undone here
            self._drain(environment)
            for slot in range(len(environment.held) - 1, -1, -1):   # of those that go back into the line, the first is its head
                if environment.held[slot] is None:
                    continue
                invocation = <Call>environment.held[slot]
                state = fl_slots_state(&environment.slots, slot)
                if state == FL_SLOT_DONE and not environment.broken:
                    if self._take_mirrored(environment, slot):
                        continue
                    if not grace_over and (environment.by_socket_due or not environment.has_express):
                        unarrived = True
                        continue
                elif (state == FL_SLOT_QUEUED and invocation.attempts < RETRY_LOST_START_MAX
                        and fl_slots_revoke(&environment.slots, slot) == 1):
                    # Taken back rather than looked at: a worker whose zygote was killed may have a last instruction in it.
                    if invocation is first or invocation.is_task:
                        invocation.attempts += 1   # one that lay behind another has lost nothing of its own
                    self._unhold(environment, invocation)
                    environment.target.invocations -= 1
                    self._again(invocation)
                    continue
                self._lost(environment, invocation)
        if not unarrived:
            self._forget(environment)
        self._refill(environment.target)
        return 0

    cdef int _again(self, Call invocation) except -1:
        """It never began: another environment takes it, first in line, and nobody notices."""
        cdef Target target = invocation.target
        if target.abandoned or self.closing:
            if target.is_function:
                self._release_slot(target)
            return self._finish(invocation, C_CANCELLED, EMPTY)
        self.requeued += 1
        invocation.state = STATE_WAITING
        target.waiting.appendleft(invocation)
        self.waiting += 1
        return 0

    cdef int _refill(self, Target target) except -1:
        """After a loss: idle environments take what waits, new ones are started for the rest."""
        cdef Environment environment
        while target.waiting and target.idle_count:
            environment = self._idle_take(target)
            self._feed(environment)
            if environment.state == ENVIRONMENT_IDLE:
                break                    # it leaves them to the one that does the tiny ones
        if target.waiting or target.provisioned:
            self._grow(target)
        elif target.shares:
            self._start_helper(target)
        if self.starved:
            self._serve_starved()
        return 0

    cdef bint _take_mirrored(self, Environment environment, uint32_t slot) except -1:
        """Completes a call from the copy of its reply in the slot table. False if the reply was too large to be there."""
        cdef uint8_t[SLOT_MIRROR_BYTES] copy
        cdef int64_t size = fl_slots_reply(&environment.slots, slot, copy, sizeof(copy))
        if size < 0:
            return False
        self._frame(environment, copy, <size_t>size)
        return environment.held[slot] is None

    cdef int _lost(self, Environment environment, Call invocation) except -1:
        cdef uint64_t started_ns = fl_slots_started_ns(&environment.slots, invocation.slot)
        cdef uint64_t now = self._now()
        cdef Target target = environment.target
        cdef Invocation call
        self._unhold(environment, invocation)
        if not target.is_function:
            invocation.error = environment.end_reason or ""
            invocation.throttle = 0
            invocation.cpu_ns = environment.wait_status
            self._finish(invocation, C_LOST, EMPTY)
            return 0
        if started_ns == 0 or started_ns > now or started_ns < invocation.submitted_ns:
            started_ns = invocation.posted_ns
        self._reset(environment)
        target.task_ns = -1.0   # nothing is stacked behind what kills
        call = <Invocation>invocation
        call.duration_ns += <int64_t>(now - started_ns)
        call.memory_peak_kib = environment.memory_peak_kib
        call.logs = self._read_rest(environment, False)
        call.logs_dropped_bytes = environment.logs_dropped_bytes
        environment.logs_dropped_bytes = 0
        target.errors += 1
        error_type, payload = self.faults.exited(invocation, environment.wait_status)
        call.error_type = error_type
        invocation.error = environment.end_reason
        target.pool.release()
        self._finish(invocation, C_FUNCTION_ERROR, payload)
        return 0

    cdef int _forget(self, Environment environment) except -1:
        environment.state = ENVIRONMENT_DEAD
        fl_timers_cancel(&self.timers, &environment.timer)
        self.environments.pop(environment.id, None)
        environment.target.environments.discard(environment)
        if environment.target.filling is environment:
            environment.target.filling = None
        if environment.lane_fd >= 0:
            self._remove_event(environment.lane_fd)
            environment.lane_fd = -1
        fl_zmtp_close(&environment.connection)
        environment.backlog.clear()
        if environment.bell_fd >= 0:
            self._remove_event(environment.bell_fd)   # epoll would go on hearing of it from a child that the worker has left behind
            os.close(environment.bell_fd)
            environment.bell_fd = -1
        environment.has_express = False
        environment.crowd = None
        fl_express_close(&environment.express)
        socket = environment.socket
        environment.socket = None
        if environment.log_fd >= 0:
            os.close(environment.log_fd)
            environment.log_fd = -1
        self.launcher.closed(environment, socket)
        return 0

    cdef int _release_slot(self, Target target) except -1:
        target.pool.release()
        return 0

    cdef int _finish(self, Call invocation, int outcome, bytes payload) except -1:
        cdef Target target = invocation.target
        cdef object callback = None
        invocation.payload = EMPTY
        invocation.answer = payload
        invocation.outcome = outcome
        if not invocation.is_task:
            invocation.done_ns = self._now()
        invocation.state = STATE_DONE
        self.outstanding -= 1
        target.outstanding -= 1
        self.completed += 1
        try:
            if target.log is not None and outcome <= C_FUNCTION_ERROR:
                self._log(<Invocation>invocation)
            if invocation.is_task:
                self._settle(<TaskCall>invocation)
        finally:
            if invocation.waiter is not None:
                self._rouse_waiter(invocation)
            if not invocation.is_task:
                callback = (<Invocation>invocation).on_done
            if callback is not None:
                (<Invocation>invocation).on_done = None
                self._call_back(callback, invocation)
        return 0

    cdef int _settle(self, TaskCall call) except -1:
        """As `_call_back`, for a task: a KeyboardInterrupt is for the thread that happens to drive, not for the task."""
        cdef int tries = 0
        try:
            call._settle()
        except KeyboardInterrupt:
            while tries < CALLBACK_TRIES_MAX:
                tries += 1
                try:
                    call._settle()
                    break
                except KeyboardInterrupt:
                    continue
            raise
        return 0

    cdef int _rouse_waiter(self, Call invocation) except -1:
        waiter = invocation.waiter
        invocation.waiter = None
        try:
            self.waiters.remove(waiter)
        except ValueError:
            pass
        else:
            waiter.release()
        return 0

    cdef int _call_back(self, object callback, Call invocation) except -1:
        """A KeyboardInterrupt belongs to the thread that happens to drive, not to this call: its owner hears all the same."""
        cdef int tries = 0
        try:
            callback(invocation)
        except KeyboardInterrupt:
            while tries < CALLBACK_TRIES_MAX:
                tries += 1
                try:
                    callback(invocation)
                    break
                except KeyboardInterrupt:
                    continue
            raise
        return 0

    cdef int _log(self, Invocation invocation) except -1:
        """One record for the function's log; the fields are those of telemetry.logs.Entry, in its order."""
        cdef Target target = invocation.target
        cdef Py_ssize_t output = 0
        target.log_append((
            target.log_sequence(),
            invocation.epoch_ms,
            invocation.request_id,
            invocation.duration_ns,
            invocation.init_ns,
            invocation.cpu_ns,
            <int64_t>(invocation.posted_ns - invocation.submitted_ns),
            invocation.memory_peak_kib,
            invocation.error_type,
            invocation.answer if invocation.error_type in PLATFORM_ERRORS else None,
            invocation.init_logs,
            invocation.logs,
            invocation.logs_dropped_bytes,
        ))
        if invocation.logs is not None:
            output += len(invocation.logs)
        if invocation.init_logs is not None:
            output += len(invocation.init_logs)
        if output:
            target.log.added_output(output)
        if target.log.watchers:
            target.log.notify()
        return 0
