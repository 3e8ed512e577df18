# What the doors ask of the dispatcher besides submitting and waiting.

cdef class Dispatcher(Standby):
    """See the module's docstring. `launcher` makes environments (sandbox.launcher), `faults` words the error payloads
    (dispatch.faults): `timeout(invocation)`, `exited(invocation, wait_status)` return JSON bytes and (error type, JSON bytes)."""

    cdef _cancel(self, Call invocation):
        cdef Environment environment
        cdef Target target = invocation.target
        self._drain_ring()
        if invocation.state == STATE_WAITING:
            try:
                target.waiting.remove(invocation)
            except ValueError:
                return False   # its INIT is being repeated: an environment of its own has it
            self.waiting -= 1
        elif invocation.state == STATE_RUNNING:
            environment = invocation.environment
            if environment is None or not self._take_back(environment, invocation):
                return False
            if environment.state == ENVIRONMENT_BUSY:
                self._after_release(environment)
        else:
            return False
        if target.is_function:
            target.pool.release()
        self._finish(invocation, C_CANCELLED, EMPTY)
        return True

    cdef bint _take_back(self, Environment environment, Call invocation) except -1:
        """Takes a posted call out of an environment's hands, if its worker has not begun it."""
        if fl_slots_revoke(&environment.slots, invocation.slot) != 1:
            return False
        self._unhold(environment, invocation)
        environment.invocations -= 1
        environment.target.invocations -= 1
        return True

    # -- streams: any thread ---------------------------------------------------------------------

    def take_pieces(self, Invocation invocation not None):
        """What has come of a stream and has not been taken: a list of bytes. A worker that had to wait for that goes on sending."""
        cdef list fresh = []   # made first: an allocation may collect garbage, and so let others run
        cdef list pieces = invocation.pieces
        cdef Environment environment = invocation.environment
        if not pieces:
            return fresh
        invocation.pieces = fresh
        invocation.pieces_bytes = 0
        if environment is not None and environment.paused and not self.closed:
            self._order(lambda: self._resume(environment))
        return pieces

    cdef _resume(self, Environment environment):
        self._go_on(environment)
        if not self.driving:
            fl_wake_signal(self.wake_fd)   # an event loop that drives sleeps in its own poll

    # -- targets and environments from outside (driver's thread, or nobody drives) ---------------

    def retire(self, Target target):
        """The target takes no new calls (its handle has been replaced): idle environments stop, busy ones after their call."""
        target.retired = True
        if target.provisioned:
            (<ProvisionedTarget>target).step_aside()
        while target.idle_count:
            self.environments_retired += 1
            self._stop(target.idle_top)
        for item in list(target.environments):
            if (<Environment>item).state == ENVIRONMENT_STARTING and not target.waiting and (<Environment>item).init_for is None:
                self.environments_retired += 1
                self._stop(<Environment>item)

    def stop_idle(self, double idle_seconds):
        """Stops environments that have been idle for longer; returns how many."""
        cdef uint64_t before = self._now() - <uint64_t>(idle_seconds * 1e9)
        cdef int stopped = 0
        while self.idle_oldest is not None and self.idle_oldest.idle_since_ns < before:
            self._stop(self.idle_oldest)
            stopped += 1
        self.environments_reaped += stopped
        return stopped

    def dismiss(self, Target target, bint kill):
        """Ends all environments of a target: politely (they finish what they hold and leave), or by force."""
        cdef Environment environment
        cdef Call invocation
        target.retired = True
        if kill:
            target.abandoned = True
            self.take_waiting(target)
        for item in list(target.environments):
            environment = <Environment>item
            if kill and environment.init_for is not None:
                invocation = environment.init_for   # it is in no line: nobody else would end it
                environment.init_for = None
                self._release_slot(target)
                self._finish(invocation, C_CANCELLED, EMPTY)
            if environment.state >= ENVIRONMENT_STOPPING:
                if kill and not environment.exited:
                    environment._signal()
                    self.launcher.kill(environment)
            elif kill or environment.state == ENVIRONMENT_STARTING:
                self._stop(environment)
            elif environment.outstanding == 0:
                self._idle_remove(environment)
                self._retire_environment(environment)

    def take_waiting(self, Target target):
        """Cancels what no environment has begun; returns how many calls that were."""
        cdef int count = 0
        cdef Environment environment
        cdef Call invocation
        cdef list taken = []
        self._drain_ring()
        while target.waiting:
            taken.append(target.waiting.popleft())
            self.waiting -= 1
        for item in list(target.environments):
            environment = <Environment>item
            if environment.state != ENVIRONMENT_BUSY:
                continue
            for held in list(environment.held):
                if held is not None and self._take_back(environment, <Call>held):
                    taken.append(held)
            if environment.outstanding == 0:
                self._after_release(environment)
        for item in taken:
            invocation = <Call>item
            count += 1
            if target.is_function:
                target.pool.release()
            self._finish(invocation, C_CANCELLED, EMPTY)
        return count

    def warm(self, Target target, int count):
        """Starts environments ahead of calls, up to `count` in all; returns how many were started."""
        cdef int started = 0
        while target.live < count and self._may_start(target) and self.live < self.environments_max:
            if not self._start(target, None):
                break
            started += 1
        return started

    def snapshot(self):
        """The environments' states, for `ps`."""
        return [(<Environment>item).snapshot() for item in list(self.environments.values())]

    def quiet(self, Target target):
        """True when every call that was submitted for the target is done."""
        return target.outstanding == 0

    def environments_all(self):
        """All environments that have not been forgotten yet."""
        return list(self.environments.values())

    def environments_of(self, Target target):
        """The target's environments that have not been forgotten yet."""
        return list(target.environments)

    def statistics(self):
        """Counters since the start, and what there is now: a dict of integers."""
        return {
            "submitted": self.submitted,
            "completed": self.completed,
            "outstanding": self.outstanding,
            "waiting": self.waiting,
            "in_ring": fl_ring_size(self.ring),
            "environments_live": self.live,
            "environments_started": self.environments_started,
            "environments_failed": self.environments_failed,
            "environments_reaped": self.environments_reaped,
            "environments_recycled": self.environments_recycled,
            "environments_evicted": self.environments_evicted,
            "environments_retired": self.environments_retired,
            "environments_reset": self.environments_reset,
            "cold_starts": self.cold_starts,
            "held_up": self.held_up,
            "rejected": self.rejected,
            "bad_frames": self.bad_frames,
            "late_replies": self.late_replies,
            "requeued": self.requeued,
            "stolen": self.stolen,
            "log_dropped_bytes": self.log_dropped_bytes,
            "passes": self.passes,
            "sleeps": self.sleeps,
            "wakes": self.wakes,
            "loop_wakes": self.loop_wakes,
        }

    def close(self):
        """Kills all environments and closes the descriptors. Calls that are not done end as cancelled. Idempotent."""
        if self.closed:
            return
        if self.pid != os.getpid():
            self.closed = True
            return
        targets = self.run_as_driver(self._begin_close)
        self.drive_until(lambda: not self.environments, 5.0)
        for item in list(self.environments.values()):
            self._abandon(<Environment>item)
        for target in targets:
            self.take_waiting(<Target>target)
        self.closed = True
        self._drain_ring()
        self._run_orders()
        if self.background_sleeps:
            self._rouse_background()
        fl_wake_signal(self.wake_fd)
        while self.waiters:
            self.waiters.popleft().release()
        if self.background is not None and self.background is not threading.current_thread():
            self.background.join(5.0)
        os.close(self.epoll_fd)
        os.close(self.wake_fd)
        os.close(self.timer_fd)
        if self.load_fd >= 0:
            os.close(self.load_fd)
            self.load_fd = -1

    def _begin_close(self):
        """From now on nothing is started. Returns the targets that may have calls waiting."""
        cdef Environment environment
        cdef Call invocation
        targets = set(self.starved)
        self.closing = True
        for item in list(self.environments.values()):
            environment = <Environment>item
            targets.add(environment.target)
            if environment.init_for is not None:
                invocation = environment.init_for
                environment.init_for = None
                self._release_slot(environment.target)
                self._finish(invocation, C_CANCELLED, EMPTY)
            self._stop(environment)
        return targets

    cdef int _abandon(self, Environment environment) except -1:
        for item in environment.held:
            if item is not None:
                self._unhold(environment, <Call>item)
                self._finish(<Call>item, C_CANCELLED, EMPTY)
        self._forget(environment)
        return 0

    def disown(self):
        """In a child after fork: nothing of this object may be used there any more."""
        self.closed = True
