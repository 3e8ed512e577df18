# The dispatcher proper. Methods whose names begin with an underscore belong to the driver.

class DispatcherClosed(RuntimeError):
    """The dispatcher has been closed, or belongs to a process of which this one is a fork."""


cdef class Dispatcher:
    """See the module's docstring. `launcher` makes environments (sandbox.launcher), `faults` words the error payloads
    (dispatch.faults): `timeout(invocation)`, `exited(invocation, wait_status)`, `init_failed(invocation)` return
    (error type, JSON bytes)."""

    cdef readonly object launcher
    cdef readonly object faults
    cdef readonly int environments_max
    cdef readonly int pending_max
    cdef readonly int pid
    cdef bint closed
    cdef bint native
    # The ring and what wakes the driver.
    cdef fl_ring *ring
    cdef int epoll_fd, wake_fd, timer_fd
    cdef uint64_t timer_armed_ns
    cdef fl_timers timers
    cdef fl_timer house_timer            # its owner is NULL; runs while there are environments that print
    cdef list readers
    # The driver.
    cdef unsigned long owner             # pthread of the driver, 0: nobody
    cdef bint adopted                    # the owner drives for good
    cdef bint background_drives
    cdef bint yield_wanted               # a waiting caller wants the background thread's place
    cdef bint driving                    # inside a drive pass (a callback may submit: no recursion)
    cdef uint64_t epoch                  # counts drive passes
    cdef object waiters                  # deque of locks of threads that wait while another drives
    cdef object background
    cdef object background_wake          # lock that the sleeping background thread waits on
    cdef bint background_sleeps
    # Environments.
    cdef dict environments
    cdef int next_environment_id
    cdef int live
    cdef list rechecks
    cdef list unsent                     # environments with an outbox
    cdef object orders                   # deque of (function, reply) that other threads want done by the driver
    cdef bint closing                    # close() has begun: nothing is started any more
    cdef object starved                  # deque of targets with waiting calls that this machine's bound holds up
    cdef int waiting                     # calls in all waiting lines
    cdef readonly int outstanding        # submitted and not done
    # Counters.
    cdef readonly uint64_t submitted, completed, wakes, passes, sleeps, stolen, requeued, bad_frames
    cdef readonly uint64_t environments_started, environments_failed, log_dropped_bytes, late_replies

    def __cinit__(self, object launcher, object faults=None, int environments_max=limits.ENVIRONMENTS_MAX,
                  int pending_max=limits.PENDING_INVOCATIONS_MAX, str zmq_module_path=None):
        cdef int rc = fl_ring_create(&self.ring, limits.SUBMIT_RING_SLOTS, sizeof(PyObject *))
        if rc != 0:
            raise MemoryError("the submission ring cannot be made")
        self.launcher = launcher
        self.faults = faults
        self.environments_max = environments_max
        self.pending_max = pending_max
        self.pid = os.getpid()
        self.native = zmq_module_path is not None and fl_zmq_load(os.fsencode(zmq_module_path)) == 0
        fl_timers_init(&self.timers)
        fl_timer_init(&self.house_timer, NULL)
        self.timer_armed_ns = NEVER
        self.readers = []
        self.waiters = deque()
        self.environments = {}
        self.rechecks = []
        self.unsent = []
        self.orders = deque()
        self.starved = deque()
        self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        self.wake_fd = fl_wake_create()
        self.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.epoll_fd < 0 or self.wake_fd < 0 or self.timer_fd < 0:
            raise OSError(errno, "the dispatcher's descriptors cannot be made; raise the open-files limit (ulimit -n)")
        self._add_event(self.wake_fd, EVENT_WAKE)
        self._add_event(self.timer_fd, EVENT_TIMER)

    def __dealloc__(self):
        fl_ring_destroy(self.ring)
        fl_timers_free(&self.timers)

    cdef int _add_event(self, int fd, uint64_t tag) except -1:
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = tag
        if epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0:
            raise OSError(errno, f"epoll_ctl: {os.strerror(errno)}")
        return 0

    cdef int _remove_event(self, int fd) noexcept:
        return epoll_ctl(self.epoll_fd, EPOLL_CTL_DEL, fd, NULL)

    def add_reader(self, int fd, object callback):
        """`callback()` runs in the driver whenever `fd` is readable (the zygotes' control sockets)."""
        self.readers.append((fd, callback))
        self._add_event(fd, EVENT_READER + len(self.readers) - 1)
        self._wake()

    def remove_reader(self, int fd):
        """Forgets `fd`; its number must still be open."""
        for index, entry in enumerate(self.readers):
            if entry is not None and entry[0] == fd:
                self.readers[index] = None
                self._remove_event(fd)

    # -- submitting: any thread ------------------------------------------------------------------

    cpdef submit(self, Invocation invocation):
        """Hands one call over. Returns at once; `invocation.on_done` or `wait` tells when it is done.

        Raises DispatcherClosed. A full ring makes the submitter drive or wait; nothing is dropped.
        """
        cdef int rc
        cdef PyObject *record = <PyObject *>invocation
        if self.closed:
            raise DispatcherClosed("the dispatcher is closed")
        invocation.state = STATE_SUBMITTED
        invocation.submitted_ns = monotonic_ns()
        invocation.target.outstanding += 1
        self.outstanding += 1
        self.submitted += 1
        Py_INCREF(invocation)
        while True:
            rc = fl_ring_push(self.ring, &record, sizeof(record))
            if rc >= 0:
                break
            self._make_room()
        if self.owner == 0:
            # Nobody drives: this thread does so for a moment, so that environments get their work without a wake-up.
            self.owner = pthread_self()
            try:
                if invocation.target.waiting and self.submitted & 15 == 0:
                    self._pass(0)   # a long run of submissions: take in replies meanwhile, so that workers do not starve
                elif not self.driving:
                    self._drain_ring()
            finally:
                self._release()
            if self.background_sleeps:
                self._rouse_background()
        elif self.owner == pthread_self():
            if not self.driving:
                self._drain_ring()
        elif rc == FL_RING_WAKE:
            self.wakes += 1
            fl_wake_signal(self.wake_fd)

    def submit_all(self, list invocations):
        """As `submit` for each of them, in this order, with one wake-up in all."""
        cdef Invocation invocation
        cdef bint mine = False
        if self.closed:
            raise DispatcherClosed("the dispatcher is closed")
        if self.owner == 0:
            self.owner = pthread_self()
            mine = True
        try:
            for item in invocations:
                invocation = <Invocation>item
                if self.owner != pthread_self() or self.driving:
                    self.submit(invocation)
                    continue
                invocation.state = STATE_SUBMITTED
                invocation.submitted_ns = monotonic_ns()
                invocation.target.outstanding += 1
                self.outstanding += 1
                self.submitted += 1
                self._admit(invocation)
                if self.submitted & 31 == 0:
                    self._pass(0)
        finally:
            if mine:
                self._release()
                if self.background_sleeps:
                    self._rouse_background()

    cdef int _make_room(self) except -1:
        """The ring is full: drain it if nobody drives, otherwise let the driver do so."""
        if self.owner == pthread_self():
            self._drain_ring()
        elif self.owner == 0:
            self.owner = pthread_self()
            try:
                self._drain_ring()
            finally:
                self._release()
        else:
            fl_wake_signal(self.wake_fd)
            os.sched_yield()
        return 0

    cdef _wake(self):
        if self.owner != pthread_self():
            fl_wake_signal(self.wake_fd)

    def cancel(self, Invocation invocation):
        """Takes a task back that no environment has begun. True if it was in time: it is then done, as cancelled."""
        if invocation.state == STATE_DONE or self.closed:
            return False
        return self.run_as_driver(lambda: self._cancel(invocation))

    cdef _cancel(self, Invocation invocation):
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

    cdef bint _take_back(self, Environment environment, Invocation invocation) except -1:
        """Takes a posted call out of an environment's hands, if its worker has not begun it."""
        if fl_slots_revoke(&environment.slots, invocation.slot) != 1:
            return False
        self._unhold(environment, invocation)
        environment.invocations -= 1
        return True

    def run_as_driver(self, object function):
        """function() in the driver: in this thread if nobody drives, otherwise in the one that does, between two events.

        Its result or exception. Raises DispatcherClosed when there is no driver any more.
        """
        cdef unsigned long me = pthread_self()
        if self.owner == me:
            return function()
        if self.owner == 0:
            self.owner = me
            try:
                return function()
            finally:
                self._release()
        reply = [allocate_lock(), False, None]
        reply[0].acquire()
        self.orders.append((function, reply))
        fl_wake_signal(self.wake_fd)
        reply[0].acquire()
        if reply[1]:
            raise reply[2]
        return reply[2]

    cdef int _run_orders(self) except -1:
        while self.orders:
            function, reply = self.orders.popleft()
            try:
                reply[2] = function()
            except Exception as error:
                reply[1] = True
                reply[2] = error
            finally:
                reply[0].release()
        return 0

    # -- waiting: any thread ---------------------------------------------------------------------

    def wait(self, Invocation invocation, timeout_seconds=None):
        """Blocks until `invocation` is done, driving meanwhile if nobody else does. False when the time ran out first.

        A KeyboardInterrupt leaves the call running; its answer is then dropped when it comes.
        """
        cdef uint64_t deadline = NEVER
        cdef unsigned long me = pthread_self()
        cdef bint mine
        if timeout_seconds is not None:
            deadline = monotonic_ns() + <uint64_t>(max(0.0, timeout_seconds) * 1e9)
        while invocation.state != STATE_DONE:
            if self.closed:
                if self.pid != os.getpid():
                    raise DispatcherClosed(
                        f"this call belongs to process {self.pid}, of which this one is a fork: its answer goes there"
                    )
                raise DispatcherClosed("the dispatcher was closed while a caller waited")
            if self.owner == me and self.driving:
                raise RuntimeError("a completion callback must not wait for another call")
            if self.owner == 0 or self.owner == me:
                mine = self.owner == 0   # or else this is a callback of a call that this thread has just cancelled
                self.owner = me
                try:
                    while invocation.state != STATE_DONE and not self.closed:
                        if monotonic_ns() >= deadline:
                            return False
                        self._pass(deadline)
                finally:
                    if mine:
                        self._release()
            else:
                if monotonic_ns() >= deadline:
                    return False
                self._wait_for_turn(
                    invocation, -1 if deadline == NEVER else max(0.0, (deadline - <double>monotonic_ns()) / 1e9)
                )
        return True

    cdef _wait_for_turn(self, Invocation invocation, double timeout_seconds):
        """Sleeps until the call is done, or the driver's place is offered, or the time is over."""
        lock = allocate_lock()
        lock.acquire()
        if invocation is not None:
            invocation.waiter = lock
        self.waiters.append(lock)
        if self.background_drives:
            self.yield_wanted = True
            fl_wake_signal(self.wake_fd)
        try:
            lock.acquire(True, timeout_seconds)
        finally:
            try:
                self.waiters.remove(lock)
            except ValueError:
                # The place was offered to this thread: if it will not take it, the next one must hear of it.
                if invocation is None or invocation.state == STATE_DONE:
                    self._offer_place()
            if invocation is not None:
                invocation.waiter = None

    cdef _offer_place(self):
        if self.owner == 0 and self.waiters:
            self.waiters.popleft().release()

    cdef _release(self):
        if self.orders:
            self._run_orders()
        self.owner = 0
        if self.waiters:
            self._offer_place()
        elif self.outstanding and self.background_sleeps:
            self._rouse_background()

    # -- the background thread -------------------------------------------------------------------

    def ensure_background(self):
        """Starts the thread that drives when nobody else does (not needed where an event loop has adopted the dispatcher)."""
        if self.background is None and not self.adopted:
            self.background_wake = allocate_lock()
            self.background_wake.acquire()
            self.background = threading.Thread(target=self._background_main, name="fastlam-driver", daemon=True)
            self.background.start()

    cdef _rouse_background(self):
        self.background_sleeps = False
        self.background_wake.release()

    def _background_main(self):
        cdef uint64_t seen = 0, quiet_since
        cdef int idle_ticks = 0
        cdef timespec tick
        tick.tv_sec = 0
        tick.tv_nsec = TICK_NS
        while not self.closed:
            if self.outstanding == 0 and not self.environments:
                idle_ticks += 1
            elif self.outstanding == 0:
                idle_ticks += 1
            else:
                idle_ticks = 0
            if idle_ticks > TICKS_BEFORE_SLEEP:
                # Housekeeping (idle environments, dead processes) still needs a driver now and then.
                self.background_sleeps = True
                self.background_wake.acquire(True, 1.0)
                if self.background_sleeps:
                    self.background_sleeps = False
                    if self.owner == 0 and not self.closed:
                        self._drive_in_background(0)
                else:
                    idle_ticks = 0
                continue
            with nogil:
                nanosleep(&tick, NULL)
            if self.owner == 0 and self.outstanding and self.epoch == seen and not self.closed:
                self._drive_in_background(LINGER_NS)
            seen = self.epoch

    cdef _drive_in_background(self, uint64_t linger_ns):
        cdef uint64_t quiet_since = monotonic_ns()
        self.owner = pthread_self()
        self.background_drives = True
        try:
            while not self.closed and not self.yield_wanted:
                if self.outstanding:
                    quiet_since = monotonic_ns()
                elif monotonic_ns() >= quiet_since + linger_ns:
                    self._pass(0)
                    break
                self._pass(monotonic_ns() + LINGER_NS)
        finally:
            self.yield_wanted = False
            self.background_drives = False
            self._release()

    # -- an event loop as the driver -------------------------------------------------------------

    def adopt(self):
        """Makes the calling thread the driver for good; it then calls `drive_ready` when `fileno()` is readable."""
        if self.owner not in (0, pthread_self()):
            raise RuntimeError("another thread drives this dispatcher")
        self.owner = pthread_self()
        self.adopted = True

    def fileno(self):
        """The epoll descriptor: readable when `drive_ready` has something to do."""
        return self.epoll_fd

    def drive_ready(self):
        """One pass without sleeping; for the loop that has adopted the dispatcher."""
        self._pass(0)

    # -- driving ---------------------------------------------------------------------------------

    cdef int _pass(self, uint64_t until_ns) except -1:
        """Handles what there is; sleeps until something comes if nothing was there, at most until `until_ns`."""
        cdef epoll_event[EVENTS_MAX] events
        cdef int count, i, timeout_ms
        cdef bint may_sleep
        cdef bint whole = False
        cdef uint64_t now, next_ns
        if self.driving:
            return 0
        self.driving = True
        try:
            self.epoch += 1
            self.passes += 1
            may_sleep = not self._drain_ring()
            if self.unsent:
                self._flush_all()
            if self.rechecks and self._drain_rechecks():
                may_sleep = False
            if self.orders:
                self._run_orders()
                may_sleep = False
            now = monotonic_ns()
            next_ns = fl_timers_next(&self.timers)
            if next_ns <= now:
                self._fire_timers(now)
                may_sleep = False
            timeout_ms = 0
            if may_sleep and until_ns > now and fl_ring_announce_sleep(self.ring):
                next_ns = fl_timers_next(&self.timers)
                if until_ns < next_ns:
                    next_ns = until_ns
                if next_ns == NEVER:
                    timeout_ms = -1
                else:
                    # Rounded up: a deadline is never early, and the timer descriptor is exact.
                    timeout_ms = <int>min(<uint64_t>3600000, (next_ns - now + 999999) // 1000000)
                self._arm_timer()
                self.sleeps += 1
                with nogil:
                    count = epoll_wait(self.epoll_fd, events, EVENTS_MAX, timeout_ms)
                fl_ring_announce_awake(self.ring)
            else:
                count = epoll_wait(self.epoll_fd, events, EVENTS_MAX, 0)
            if count < 0:
                if errno != EINTR:
                    raise OSError(errno, "epoll_wait")
                PyErr_CheckSignals()
                count = 0
            for i in range(count):
                self._event(events[i].data.u64)
            self._drain_ring()
            if self.rechecks:
                self._drain_rechecks()
            if self.orders:
                self._run_orders()
            if self.adopted:
                # The loop sleeps now in its own poll: whatever it must wake for has to make our descriptor readable.
                now = monotonic_ns()
                if fl_timers_next(&self.timers) <= now:
                    self._fire_timers(now)
                self._arm_timer()
                if not fl_ring_announce_sleep(self.ring):
                    fl_wake_signal(self.wake_fd)
            whole = True
        finally:
            self.driving = False
            if not whole:
                # A KeyboardInterrupt, say: events that were not handled are gone, since lanes tell of each only once.
                self.rechecks = list(self.environments.values())
                self.unsent = []
                for item in self.rechecks:
                    (<Environment>item).recheck = True
                    (<Environment>item).unsent = bool((<Environment>item).outbox)
                    if (<Environment>item).unsent:
                        self.unsent.append(item)
        return 0

    cdef int _event(self, uint64_t tag) except -1:
        cdef Environment environment
        cdef uint64_t expirations
        if tag >= EVENT_ENVIRONMENT:
            environment = self.environments.get(<int>(tag - EVENT_ENVIRONMENT))
            if environment is not None:
                self._receive(environment)
        elif tag == EVENT_WAKE:
            fl_wake_clear(self.wake_fd)
        elif tag == EVENT_TIMER:
            try:
                os.read(self.timer_fd, 8)
            except BlockingIOError:
                pass
            self.timer_armed_ns = NEVER
            self._fire_timers(monotonic_ns())
        else:
            entry = self.readers[tag - EVENT_READER]
            if entry is not None:
                entry[1]()
        return 0

    cdef int _arm_timer(self) except -1:
        """Sets the timer descriptor, only ever to an earlier time: a late call then costs no system call."""
        cdef uint64_t next_ns = fl_timers_next(&self.timers)
        cdef itimerspec value
        if next_ns >= self.timer_armed_ns:
            return 0
        value.it_interval.tv_sec = 0
        value.it_interval.tv_nsec = 0
        value.it_value.tv_sec = <long>(next_ns // 1000000000)
        value.it_value.tv_nsec = <long>(next_ns % 1000000000)
        if timerfd_settime(self.timer_fd, TFD_TIMER_ABSTIME, &value, NULL) != 0:
            raise OSError(errno, "timerfd_settime")
        self.timer_armed_ns = next_ns
        return 0

    cdef int _set_timer(self, Environment environment, uint64_t deadline_ns) except -1:
        if fl_timers_set(&self.timers, &environment.timer, deadline_ns) != 0:
            raise MemoryError()
        return 0

    cdef int _fire_timers(self, uint64_t now) except -1:
        cdef fl_timer *timer
        while True:
            timer = fl_timers_pop_due(&self.timers, now)
            if timer == NULL:
                return 0
            if timer.owner == NULL:
                self._keep_house()
                if self.environments and not self.closed:
                    fl_timers_set(&self.timers, &self.house_timer, now + HOUSE_NS)
            else:
                self._deadline(<Environment><object>timer.owner)

    cdef bint _drain_ring(self) except -1:
        cdef PyObject *record
        cdef bint any = False
        while fl_ring_pop(self.ring, &record, sizeof(record)) == sizeof(record):
            any = True
            invocation = <Invocation><object>record
            Py_DECREF(<object>record)
            self._admit(<Invocation>invocation)
        return any

    cdef bint _drain_rechecks(self) except -1:
        cdef list rechecks = self.rechecks
        cdef Environment environment
        cdef bint any = False
        self.rechecks = []
        for item in rechecks:
            environment = <Environment>item
            environment.recheck = False
            if self._receive(environment):
                any = True
        return any

    cdef int _recheck(self, Environment environment) except -1:
        if not environment.recheck:
            environment.recheck = True
            self.rechecks.append(environment)
        return 0

    cdef int _watch(self, int fd, int id) except -1:
        self._add_event(fd, <uint64_t>EVENT_ENVIRONMENT + id)
        return 0

    # -- admission and placement -----------------------------------------------------------------

    cdef int _admit(self, Invocation invocation) except -1:
        cdef Target target = invocation.target
        cdef int throttle
        if self.closed or self.closing:
            self._finish(invocation, C_CANCELLED, EMPTY)
            return 0
        if target.is_function:
            throttle = target.pool.admit(not target.idle)
            if throttle != THROTTLE_NONE:
                invocation.throttle = throttle
                target.throttles += 1
                self._finish(invocation, C_THROTTLED, EMPTY)
                return 0
        self._place(invocation)
        return 0

    cdef int _place(self, Invocation invocation) except -1:
        """Gives an admitted call to an environment, or to the waiting line of its target."""
        cdef Target target = invocation.target
        cdef Environment environment
        while target.idle:
            environment = <Environment>target.idle.pop()
            if environment.state == ENVIRONMENT_IDLE:
                self._post(environment, invocation)
                return 0
        if target.slots_per_environment > 1:
            environment = self._shared_environment(target)
            if environment is not None:
                self._post(environment, invocation)
                return 0
        if target.is_function and self.waiting >= self.pending_max:
            target.pool.release()
            self._finish(invocation, C_REJECTED, EMPTY)
            return 0
        invocation.state = STATE_WAITING
        target.waiting.append(invocation)
        target.queued += 1
        self.waiting += 1
        self._grow(target)
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
        cdef Environment oldest = None, environment
        for item in self.environments.values():
            environment = <Environment>item
            if environment.state == ENVIRONMENT_IDLE and environment.target is not wanting:
                if oldest is None or environment.idle_since_ns < oldest.idle_since_ns:
                    oldest = environment
        if oldest is None:
            return False
        self._stop(oldest)
        return self.live < self.environments_max

    cdef bint _start(self, Target target, Invocation init_for) except -1:
        cdef Environment environment
        self.next_environment_id += 1
        environment = Environment(self, target, self.next_environment_id)
        environment.init_for = init_for
        self.environments[environment.id] = environment
        target.environments.add(environment)
        if init_for is None:
            target.starting += 1
        else:
            environment.second_init = True   # it comes for that call alone, not for those in the line
        target.live += 1
        self.live += 1
        self.environments_started += 1
        if target.is_function:
            if len(self.environments) == 1:
                fl_timers_set(&self.timers, &self.house_timer, environment.born_ns + HOUSE_NS)
            if init_for is None:
                self._set_timer(environment, environment.born_ns + <uint64_t>limits.INIT_TIMEOUT_MS * 1000000)
            else:
                self._set_timer(environment, environment.born_ns + target.timeout_ns)
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

    # -- an environment at work ------------------------------------------------------------------

    cdef int _post(self, Environment environment, Invocation invocation) except -1:
        """Sends one call to an environment that has a free slot."""
        cdef Target target = invocation.target
        cdef int slot = 0
        cdef uint64_t mask = environment.free_slots
        cdef object frame
        while not (mask >> slot) & 1:
            slot += 1
        environment.free_slots &= ~(<uint64_t>1 << slot)
        environment.held[slot] = invocation
        environment.outstanding += 1
        environment.invocations += 1
        environment.state = ENVIRONMENT_BUSY
        invocation.environment = environment
        invocation.environment_id = environment.id
        invocation.slot = slot
        invocation.state = STATE_RUNNING
        invocation.posted_ns = monotonic_ns()
        if target.is_function:
            target.invocations += 1
            if environment.init_ns >= 0:
                invocation.init_ns = environment.init_ns
                invocation.init_logs = environment.init_logs
                environment.init_ns = -1
                environment.init_logs = None
                target.cold_starts += 1
            invocation.epoch_ms = <int64_t>realtime_ms()
            frame = Invoke(
                slot, invocation.request_id, invocation.epoch_ms + target.timeout_ns // 1000000,
                invocation.invoked_function_arn, invocation.trace_id, invocation.client_context, invocation.tenant_id,
            )
            if target.timeout_ns:
                self._set_timer(environment, invocation.posted_ns + <uint64_t>target.timeout_ns)
        else:
            target.invocations += 1
            frame = Task(slot)
        if fl_slots_queue(&environment.slots, slot) != 0:
            self._bad_frame(environment, "the slot table was damaged")
            return 0
        if not target.is_function:
            # A worker with enough to do can wait for the next few, which then come in one message.
            if environment.outstanding - len(environment.outbox) > BUNDLE_AFTER:
                environment.outbox.append((slot, invocation.payload))
                if not environment.unsent:
                    environment.unsent = True
                    self.unsent.append(environment)
                if len(environment.outbox) >= BUNDLE_TASKS_MAX:
                    self._flush(environment)
                return 0
            if environment.outbox:
                self._flush(environment)
        if not self._send(environment, encode_header(frame), invocation.payload):
            self._bad_frame(environment, "the lane is broken")
        return 0

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

    cdef int _on_ready(self, Environment environment, object frame) except -1:
        if environment.state != ENVIRONMENT_STARTING:
            if environment.state < ENVIRONMENT_STOPPING:
                self._bad_frame(environment, "Ready came twice")
            return 0
        fl_timers_cancel(&self.timers, &environment.timer)
        if not environment.second_init:
            environment.target.starting -= 1
        environment.target.lost_starts = 0
        environment.init_ns = frame.init_ns
        environment.memory_peak_kib = frame.memory_peak_kib
        if frame.log_end_bytes > environment.log_offset:
            environment.init_logs = self._read_logs(environment, frame.log_end_bytes)
        environment.state = ENVIRONMENT_IDLE
        if environment.init_for is not None:
            invocation = environment.init_for
            environment.init_for = None
            if (<Invocation>invocation).state == STATE_WAITING:
                # INIT was repeated within the invocation: its time counts as the invocation's, not as Init Duration.
                (<Invocation>invocation).duration_ns = environment.init_ns
                environment.init_ns = -1
                self._post(environment, <Invocation>invocation)
                return 0
        self._feed(environment)
        return 0

    cdef int _on_init_failed(self, Environment environment, object frame, bytes payload) except -1:
        if environment.state != ENVIRONMENT_STARTING:
            if environment.state < ENVIRONMENT_STOPPING:
                self._bad_frame(environment, "InitFailed came after Ready")
            return 0
        environment.memory_peak_kib = frame.memory_peak_kib
        environment.init_ns = frame.init_ns
        if frame.log_end_bytes > environment.log_offset:
            environment.init_logs = self._read_logs(environment, frame.log_end_bytes)
        self._init_failed(environment, frame.error_type, payload)
        self._stop(environment)
        return 0

    cdef int _init_failed(self, Environment environment, str error_type, bytes payload) except -1:
        """INIT failed for whatever cause: once more within the invocation's time, then the waiting call gets the error."""
        cdef Target target = environment.target
        cdef Invocation invocation = environment.init_for
        cdef Invocation caller
        environment.init_for = None
        if not target.is_function:
            while target.waiting:
                invocation = <Invocation>target.waiting.popleft()
                self.waiting -= 1
                invocation.error = environment.end_reason
                self._finish(invocation, C_FAILED, payload)
            return 0
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
        invocation.epoch_ms = <int64_t>realtime_ms()
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
        self._release_slot(target)
        self._finish(invocation, C_FUNCTION_ERROR, payload)
        return 0

    cdef int _on_result(self, Environment environment, object frame, bytes payload) except -1:
        cdef int64_t slot = frame.slot
        cdef Invocation invocation
        if not 0 <= slot < len(environment.held) or environment.held[slot] is None or not environment.target.is_function:
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
        fl_timers_cancel(&self.timers, &environment.timer)
        invocation.duration_ns += <int64_t>frame.duration_ns
        invocation.cpu_ns = frame.cpu_ns
        invocation.memory_peak_kib = environment.memory_peak_kib = frame.memory_peak_kib
        if frame.log_end_bytes > environment.log_offset:
            invocation.logs = self._read_logs(environment, frame.log_end_bytes)
            invocation.logs_dropped_bytes = environment.logs_dropped_bytes
            environment.logs_dropped_bytes = 0
        invocation.error_type = frame.error_type
        invocation.content_type = frame.content_type
        fl_slots_free(&environment.slots, <uint32_t>slot)
        self._unhold(environment, invocation)
        environment.target.pool.release()
        if frame.error_type:
            environment.target.errors += 1
            self._complete(environment, invocation, C_FUNCTION_ERROR, payload)
        else:
            self._complete(environment, invocation, C_OK, payload)
        return 0

    cdef int _on_task_result(self, Environment environment, object frame, bytes payload) except -1:
        cdef int64_t slot = frame.slot
        cdef Invocation invocation
        cdef Target target = environment.target
        cdef double task_ns
        if not 0 <= slot < len(environment.held) or environment.held[slot] is None or target.is_function:
            if environment.state < ENVIRONMENT_STOPPING:
                self._bad_frame(environment, f"a reply for slot {slot}, where nothing runs")
            return 0
        invocation = <Invocation>environment.held[slot]
        if fl_slots_state(&environment.slots, <uint32_t>slot) != FL_SLOT_DONE:
            return self._bad_frame(environment, f"a reply for slot {slot}, whose task is not over")
        task_ns = <double>frame.duration_ns
        invocation.duration_ns = frame.duration_ns
        if target.task_ns < 0:
            target.task_ns = task_ns
        elif task_ns > target.task_ns:
            target.task_ns += (task_ns - target.task_ns) * 0.5   # long tasks: stop stacking behind them soon
        else:
            target.task_ns += (task_ns - target.task_ns) * 0.1
        fl_slots_free(&environment.slots, <uint32_t>slot)
        self._unhold(environment, invocation)
        if environment.outbox and environment.outstanding - len(environment.outbox) <= BUNDLE_AFTER // 2:
            self._flush(environment)
        self._complete(environment, invocation, C_FUNCTION_ERROR if frame.failed else C_OK, payload)
        return 0

    cdef int _complete(self, Environment environment, Invocation invocation, int outcome, bytes payload) except -1:
        """The environment is free (or freer): feed it before the caller hears, so that it works meanwhile."""
        if environment.state == ENVIRONMENT_BUSY:
            self._after_release(environment)
        self._finish(invocation, outcome, payload)
        return 0

    cdef int _unhold(self, Environment environment, Invocation invocation) except -1:
        environment.held[invocation.slot] = None
        environment.free_slots |= <uint64_t>1 << invocation.slot
        environment.outstanding -= 1
        invocation.environment = None
        return 0

    cdef int _after_release(self, Environment environment) except -1:
        cdef Target target = environment.target
        if environment.used_up():
            if environment.outstanding == 0:
                self._retire_environment(environment)
            return 0
        if environment.outstanding == 0:
            environment.state = ENVIRONMENT_IDLE
        if environment.state == ENVIRONMENT_IDLE or environment.state == ENVIRONMENT_BUSY:
            self._feed(environment)
        return 0

    cdef int _feed(self, Environment environment) except -1:
        """Gives the environment what waits for its target; idle, it goes on the stack (or away, if another target starves)."""
        cdef Target target = environment.target
        cdef Invocation invocation
        cdef int depth
        if target.retired and not target.waiting:
            if environment.outstanding == 0:
                self._stop(environment)
            return 0
        depth = target.depth()
        while target.waiting and environment.outstanding < depth and environment.free_slots:
            if environment.used_up():
                break
            invocation = <Invocation>target.waiting.popleft()
            self.waiting -= 1
            self._post(environment, invocation)
        if environment.outstanding == 0 and target.slots_per_environment > 1:
            self._steal(environment)
        if environment.outstanding == 0 and environment.state != ENVIRONMENT_STOPPING:
            environment.state = ENVIRONMENT_IDLE
            environment.idle_since_ns = monotonic_ns()
            if self.starved and not target.starved:
                self._stop(environment)
                self._serve_starved()
                return 0
            target.idle.append(environment)
        return 0

    cdef int _steal(self, Environment thief) except -1:
        """An environment without work takes tasks that another one holds and has not begun."""
        cdef Environment environment, victim = None
        cdef Invocation invocation
        cdef int slot, wanted
        for item in thief.target.environments:
            environment = <Environment>item
            if environment is not thief and environment.state == ENVIRONMENT_BUSY and environment.outstanding > 1:
                if victim is None or environment.outstanding > victim.outstanding:
                    victim = environment
        if victim is None:
            return 0
        wanted = victim.outstanding // 2
        for slot in range(len(victim.held)):
            if wanted == 0 or thief.used_up():
                break
            if victim.held[slot] is None:
                continue
            invocation = <Invocation>victim.held[slot]
            if self._take_back(victim, invocation):
                self.stolen += 1
                wanted -= 1
                self._post(thief, invocation)
        return 0

    cdef int _serve_starved(self) except -1:
        cdef Target target
        cdef int rounds = len(self.starved)
        while rounds > 0 and self.live < self.environments_max:
            rounds -= 1
            target = <Target>self.starved.popleft()
            target.starved = False
            self._grow(target)
        return 0

    # -- ends ------------------------------------------------------------------------------------

    cdef int _retire_environment(self, Environment environment) except -1:
        """Lets a worker leave by itself (executors: finalizers run), and starts another one if work waits."""
        environment.state = ENVIRONMENT_STOPPING
        self._leave_counts(environment, False)
        self._flush(environment)
        self._send(environment, encode_header(Stop()), EMPTY)
        self._set_timer(environment, monotonic_ns() + 5000000000)
        self._grow(environment.target)
        return 0

    cdef int _leave_counts(self, Environment environment, bint was_starting) except -1:
        cdef Target target = environment.target
        target.live -= 1
        self.live -= 1
        if was_starting and not environment.second_init:
            target.starting -= 1
        return 0

    cdef int _stop(self, Environment environment) except -1:
        """Kills an environment's process. Its calls fail when the zygote tells how it ended."""
        cdef Target target = environment.target
        cdef bint was_starting = environment.state == ENVIRONMENT_STARTING
        if environment.state >= ENVIRONMENT_STOPPING:
            return 0
        if environment.state == ENVIRONMENT_IDLE and environment in target.idle:
            target.idle.remove(environment)
        environment.state = ENVIRONMENT_STOPPING
        self._leave_counts(environment, was_starting)
        environment._signal()
        self.launcher.kill(environment)
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
        if environment.state == ENVIRONMENT_STARTING:
            environment.init_ns = monotonic_ns() - environment.born_ns
            invocation = environment.init_for if environment.init_for is not None else (
                <Invocation>target.waiting[0] if target.waiting else None
            )
            payload = EMPTY
            if invocation is not None:
                payload = self.faults.timeout(invocation)
            self._read_rest(environment, True)
            self._stop(environment)
            return self._init_failed(environment, "Sandbox.Timedout", payload)
        invocation = <Invocation>environment.held[0]
        if invocation is None:
            return 0
        if fl_slots_state(&environment.slots, 0) == FL_SLOT_DONE:
            self._receive(environment)   # the reply is already on its way: it was in time
            if invocation.state == STATE_DONE:
                return 0
        target.timeouts += 1
        target.errors += 1
        environment.timed_out = True
        environment._signal()
        invocation.logs = self._read_rest(environment, False)
        invocation.logs_dropped_bytes = environment.logs_dropped_bytes
        environment.logs_dropped_bytes = 0
        invocation.duration_ns = target.timeout_ns
        invocation.error_type = "Sandbox.Timedout"
        invocation.memory_peak_kib = environment.memory_peak_kib
        payload = self.faults.timeout(invocation)
        self._unhold(environment, invocation)
        self._stop(environment)
        target.pool.release()
        self._finish(invocation, C_FUNCTION_ERROR, payload)
        return 0

    cdef int _exited(self, Environment environment, int wait_status) except -1:
        """The process is gone. Its lane is drained first; then what it was running fails."""
        cdef bint was_starting = environment.state == ENVIRONMENT_STARTING
        if environment.exited or environment.state == ENVIRONMENT_DEAD:
            return 0
        environment.exited = True
        environment.wait_status = wait_status
        if environment.pidfd >= 0:
            os.close(environment.pidfd)
            environment.pidfd = -1
        self._receive(environment)
        was_starting = environment.state == ENVIRONMENT_STARTING
        if environment.state < ENVIRONMENT_STOPPING:
            if environment.state == ENVIRONMENT_IDLE and environment in environment.target.idle:
                environment.target.idle.remove(environment)
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
        cdef Invocation invocation = environment.init_for
        self.environments_failed += 1
        environment.init_ns = monotonic_ns() - environment.born_ns
        self._read_rest(environment, True)
        if invocation is None and target.waiting:
            invocation = <Invocation>target.waiting[0]
        if environment.wait_status == -1:
            self._init_failed(environment, "Sandbox.Unavailable", EMPTY)
        elif (not target.is_function and environment.end_reason is None and 0 < environment.wait_status < 128
                and target.lost_starts < RETRY_LOST_START_MAX):
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
        cdef Invocation invocation
        cdef uint32_t state
        cdef int slot
        cdef bint unarrived = False
        cdef list again = []
        if environment.outstanding:
            self._receive(environment)
            for slot in range(len(environment.held)):
                if environment.held[slot] is None:
                    continue
                invocation = <Invocation>environment.held[slot]
                state = fl_slots_state(&environment.slots, slot)
                if state == FL_SLOT_DONE:
                    if self._take_mirrored(environment, slot):
                        continue
                    if not grace_over:
                        unarrived = True
                        continue
                elif (state == FL_SLOT_QUEUED and invocation.attempts < RETRY_LOST_START_MAX
                        and fl_slots_revoke(&environment.slots, slot) == 1):
                    # Taken back rather than looked at: a worker whose zygote was killed may have a last instruction in it.
                    invocation.attempts += 1
                    self._unhold(environment, invocation)
                    again.append(invocation)
                    continue
                self._lost(environment, invocation)
        if unarrived:
            self._set_timer(environment, monotonic_ns() + LARGE_REPLY_GRACE_NS)
        else:
            self._forget(environment)
        for item in reversed(again):
            # It never began: another environment takes it, first in line, and nobody notices.
            invocation = <Invocation>item
            self.requeued += 1
            invocation.state = STATE_WAITING
            invocation.target.waiting.appendleft(invocation)
            self.waiting += 1
        self._refill(environment.target)
        return 0

    cdef int _refill(self, Target target) except -1:
        """After a loss: idle environments take what waits, new ones are started for the rest."""
        cdef Environment environment
        while target.waiting and target.idle:
            environment = <Environment>target.idle.pop()
            if environment.state == ENVIRONMENT_IDLE:
                self._feed(environment)
        if target.waiting:
            self._grow(target)
        elif target.slots_per_environment > 1 and target.starting == 0 and not self.closing and self._may_start(target):
            # Nobody waits in the line, but perhaps behind another task: a new environment will take it from there.
            for item in target.environments:
                environment = <Environment>item
                if environment.state == ENVIRONMENT_BUSY and environment.outstanding > 1:
                    if self.live < self.environments_max and not target.retired:
                        self._start(target, None)
                    break
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

    cdef int _lost(self, Environment environment, Invocation invocation) except -1:
        cdef uint64_t started_ns = fl_slots_started_ns(&environment.slots, invocation.slot)
        cdef uint64_t now = monotonic_ns()
        cdef Target target = environment.target
        self._unhold(environment, invocation)
        if not target.is_function:
            invocation.error = environment.end_reason or ""
            invocation.throttle = 0
            invocation.cpu_ns = environment.wait_status
            self._finish(invocation, C_LOST, EMPTY)
            return 0
        if started_ns == 0 or started_ns > now or started_ns < invocation.submitted_ns:
            started_ns = invocation.posted_ns
        invocation.duration_ns += <int64_t>(now - started_ns)
        invocation.memory_peak_kib = environment.memory_peak_kib
        invocation.logs = self._read_rest(environment, False)
        invocation.logs_dropped_bytes = environment.logs_dropped_bytes
        environment.logs_dropped_bytes = 0
        target.errors += 1
        error_type, payload = self.faults.exited(invocation, environment.wait_status)
        invocation.error_type = error_type
        invocation.error = environment.end_reason
        target.pool.release()
        self._finish(invocation, C_FUNCTION_ERROR, payload)
        return 0

    cdef int _forget(self, Environment environment) except -1:
        environment.state = ENVIRONMENT_DEAD
        fl_timers_cancel(&self.timers, &environment.timer)
        self.environments.pop(environment.id, None)
        environment.target.environments.discard(environment)
        if environment.lane_fd >= 0:
            self._remove_event(environment.lane_fd)
            environment.lane_fd = -1
        environment.handle = NULL
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

    cdef int _finish(self, Invocation invocation, int outcome, bytes payload) except -1:
        cdef Target target = invocation.target
        cdef object callback = invocation.on_done
        invocation.payload = EMPTY
        invocation.result = payload
        invocation.outcome = outcome
        invocation.done_ns = monotonic_ns()
        invocation.state = STATE_DONE
        self.outstanding -= 1
        target.outstanding -= 1
        self.completed += 1
        try:
            if target.log is not None and outcome <= C_FUNCTION_ERROR:
                self._log(invocation)
        finally:
            if invocation.waiter is not None:
                waiter = invocation.waiter
                invocation.waiter = None
                try:
                    self.waiters.remove(waiter)
                except ValueError:
                    pass
                else:
                    waiter.release()
            if callback is not None:
                invocation.on_done = None
                self._call_back(callback, invocation)
        return 0

    cdef int _call_back(self, object callback, Invocation invocation) except -1:
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
            invocation.result if invocation.error_type in PLATFORM_ERRORS else None,
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

    # -- targets and environments from outside (driver's thread, or nobody drives) ---------------

    def retire(self, Target target):
        """The target takes no new calls (its handle has been replaced): idle environments stop, busy ones after their call."""
        target.retired = True
        for environment in list(target.idle):
            self._stop(<Environment>environment)
        for item in list(target.environments):
            if (<Environment>item).state == ENVIRONMENT_STARTING and not target.waiting and (<Environment>item).init_for is None:
                self._stop(<Environment>item)

    def stop_idle(self, double idle_seconds):
        """Stops environments that have been idle for longer; returns how many."""
        cdef uint64_t before = monotonic_ns() - <uint64_t>(idle_seconds * 1e9)
        cdef Environment environment
        cdef int stopped = 0
        for item in list(self.environments.values()):
            environment = <Environment>item
            if environment.state == ENVIRONMENT_IDLE and environment.idle_since_ns < before:
                self._stop(environment)
                stopped += 1
        return stopped

    def dismiss(self, Target target, bint kill):
        """Ends all environments of a target: politely (they finish what they hold and leave), or by force."""
        cdef Environment environment
        cdef Invocation invocation
        target.retired = True
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
                if environment in target.idle:
                    target.idle.remove(environment)
                self._retire_environment(environment)

    def take_waiting(self, Target target):
        """Cancels what no environment has begun; returns how many calls that were."""
        cdef int count = 0
        cdef Environment environment
        cdef Invocation invocation
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
                if held is not None and self._take_back(environment, <Invocation>held):
                    taken.append(held)
            if environment.outstanding == 0:
                self._after_release(environment)
        for item in taken:
            invocation = <Invocation>item
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

    @property
    def driving_here(self):
        """True in a completion callback, and wherever else the calling thread is the driver in the middle of its work."""
        return self.owner == pthread_self() and self.driving

    def drive_until(self, object condition, double timeout_seconds):
        """Drives until condition() holds; False when the time ran out. For shutting down."""
        cdef uint64_t deadline = monotonic_ns() + <uint64_t>(timeout_seconds * 1e9)
        cdef unsigned long me = pthread_self()
        cdef bint mine
        while not condition():
            if monotonic_ns() >= deadline:
                return False
            if self.owner == me and self.driving:
                raise RuntimeError("a completion callback must not wait for other calls")
            if self.owner == 0 or self.owner == me:
                mine = self.owner == 0
                self.owner = me
                try:
                    while not condition():
                        if monotonic_ns() >= deadline:
                            return False
                        self._pass(min(deadline, monotonic_ns() + 20000000))
                finally:
                    if mine:
                        self._release()
            else:
                self._wait_for_turn(None, min(0.05, (deadline - <double>monotonic_ns()) / 1e9))
        return True

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
            "bad_frames": self.bad_frames,
            "late_replies": self.late_replies,
            "requeued": self.requeued,
            "stolen": self.stolen,
            "log_dropped_bytes": self.log_dropped_bytes,
            "passes": self.passes,
            "sleeps": self.sleeps,
            "wakes": self.wakes,
            "native_lane": int(self.native),
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

    def _begin_close(self):
        """From now on nothing is started. Returns the targets that may have calls waiting."""
        cdef Environment environment
        cdef Invocation invocation
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
                self._unhold(environment, <Invocation>item)
                self._finish(<Invocation>item, C_CANCELLED, EMPTY)
        self._forget(environment)
        return 0

    def disown(self):
        """In a child after fork: nothing of this object may be used there any more."""
        self.closed = True
