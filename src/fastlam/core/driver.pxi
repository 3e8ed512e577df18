# The bottom of the dispatcher: the ring, the driver's place, and the pass. Methods whose names begin with an underscore belong to the
# driver.

class DispatcherClosed(RuntimeError):
    """The dispatcher has been closed, or belongs to a process of which this one is a fork."""


cdef class Driver:
    """Who drives, and what one pass is; the module's docstring tells it. Below it the classes build on one another, each in its file:
    Lanes (frames), IdleEnvironments, Stacking and Placement (which environment), Provisioning (environments made ahead), Ends (deadlines
    and exits), Standby (event loops), Dispatcher (what the doors see). They are one object, and all its fields stand here."""

    cdef readonly object launcher
    cdef readonly object faults
    cdef readonly int environments_max
    cdef readonly int pending_max
    cdef readonly int pid
    cdef bint closed
    cdef uint64_t virtual_ns             # what the clock says, of a simulation; 0: the clock is the machine's
    # The ring and what wakes the driver.
    cdef fl_ring *ring
    cdef int epoll_fd, wake_fd, timer_fd
    cdef uint64_t timer_armed_ns
    cdef fl_timers timers
    cdef fl_timer house_timer            # its owner is NULL; runs while there are environments
    cdef list readers
    # The driver.
    cdef unsigned long owner             # pthread of the driver, 0: nobody
    cdef bint adopted                    # the owner drives for good
    cdef object call_soon                # of the loop whose thread has adopted it, or None
    cdef bint look_due                   # the loop has been told to call `look`
    cdef bint background_drives
    cdef bint yield_wanted               # a waiting caller wants the background thread's place
    cdef bint driving                    # inside a drive pass (a callback may submit: no recursion)
    cdef uint64_t epoch                  # counts drive passes
    cdef object waiters                  # deque of locks of threads that wait while another drives
    cdef object background
    cdef bint busy                       # there was something to do in the last pass
    cdef list loops                      # LoopDoors with calls under way
    cdef bint by_loop                    # one of them submits
    cdef object background_wake          # lock that the sleeping background thread waits on
    cdef bint background_sleeps
    # Environments.
    cdef dict environments
    cdef int next_environment_id
    cdef int live
    cdef Environment idle_oldest, idle_newest   # the ends of the line of idle ones, see idle.pxi
    cdef list rechecks
    cdef list unsent                     # environments with an outbox
    cdef list freezing                   # environments that are to stand still as soon as this pass is over
    cdef list hot                        # environments whose rings every pass looks into
    cdef uint64_t polled_ns              # when epoll was last asked
    cdef list stacked                    # environments in which calls have been put behind others
    cdef uint64_t rebalance_ns           # when that is next looked at
    # Spinning.
    cdef readonly uint32_t spin_ns       # how long the driver, or a worker, looks before it sleeps; 0: never
    cdef readonly int cpus
    cdef bint woke_worker                # the worker posted to last had to be woken
    cdef int spin_failures               # in a row
    cdef int load_fd                     # /proc/loadavg
    cdef uint64_t spin_rests_until_ns, load_known_until_ns
    cdef uint64_t load_rest_ns           # the last rest because of too many runnable tasks; 0: there were not too many
    cdef uint64_t preempted_rest_ns      # and because this thread was not let run; 0: since then it has found something
    cdef object orders                   # deque of (function, reply) that other threads want done by the driver
    cdef bint closing                    # close() has begun: nothing is started any more
    cdef object starved                  # deque of targets with waiting calls that this machine's bound holds up
    cdef int waiting                     # calls in all waiting lines
    cdef readonly int outstanding        # submitted and not done
    # Counters.
    cdef readonly uint64_t submitted, completed, wakes, passes, sleeps, stolen, requeued, bad_frames
    cdef readonly uint64_t environments_started, environments_failed, log_dropped_bytes, late_replies
    cdef readonly uint64_t loop_wakes    # descriptors of event loops signalled
    cdef readonly uint64_t cold_starts   # calls of functions that INIT was made for
    cdef readonly uint64_t environments_reaped     # had idled for their time, or have had the one call that they were for
    cdef readonly uint64_t environments_recycled   # had lived for their time
    cdef readonly uint64_t environments_evicted    # gave way to another target's, on a machine that is full
    cdef readonly uint64_t environments_retired    # of a target that has been replaced
    cdef readonly uint64_t environments_reset      # ended by a timeout or a crash
    cdef readonly uint64_t held_up, rejected       # calls that this machine's bound made wait, and that it left no room to wait

    def __cinit__(self, object launcher, object faults=None, int environments_max=limits.ENVIRONMENTS_MAX,
                  int pending_max=limits.PENDING_INVOCATIONS_MAX, uint32_t spin_ns=0):
        cdef int rc = fl_ring_create(&self.ring, limits.SUBMIT_RING_SLOTS, sizeof(PyObject *))
        if rc != 0:
            raise MemoryError("the submission ring cannot be made")
        self.launcher = launcher
        self.faults = faults
        self.environments_max = environments_max
        self.pending_max = pending_max
        self.pid = os.getpid()
        fl_timers_init(&self.timers)
        fl_timer_init(&self.house_timer, NULL)
        self.timer_armed_ns = NEVER
        self.readers = []
        self.waiters = deque()
        self.loops = []
        self.stacked = []
        self.environments = {}
        self.rechecks = []
        self.unsent = []
        self.hot = []
        self.freezing = []
        self.cpus = len(os.sched_getaffinity(0))
        self.spin_ns = spin_ns
        self.load_fd = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC) if spin_ns else -1
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

    # -- the clock ------------------------------------------------------------------------------

    @cython.final
    cdef inline uint64_t _now(self) noexcept:
        """CLOCK_MONOTONIC in ns, or a simulation's clock: whatever the dispatcher decides by time, it decides by this."""
        return monotonic_ns() if self.virtual_ns == 0 else self.virtual_ns

    @cython.final
    cdef inline int64_t _epoch_ms(self) noexcept:
        return <int64_t>realtime_ms() if self.virtual_ns == 0 else <int64_t>(self.virtual_ns // 1000000)

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

    cpdef submit(self, Call invocation):
        """Hands one call over. Returns at once; `invocation.on_done` or `wait` tells when it is done.

        Raises DispatcherClosed. A full ring makes the submitter drive or wait; nothing is dropped.
        """
        cdef int rc
        cdef PyObject *record = <PyObject *>invocation
        if self.closed:
            raise DispatcherClosed("the dispatcher is closed")
        invocation.state = STATE_SUBMITTED
        if not invocation.is_task:
            invocation.submitted_ns = self._now()
        invocation.target.outstanding += 1
        self.outstanding += 1
        self.submitted += 1
        if self.adopted and not self.driving and self.owner == pthread_self() and fl_ring_size(self.ring) == 0:
            self._admit(invocation)
            return
        if self.owner == 0 and not self.driving and fl_ring_size(self.ring) == 0:
            # Nobody drives: this thread does so for a moment, so that environments get their work without a wake-up.
            self.owner = pthread_self()
            try:
                self._admit(invocation)
                if invocation.target.waiting and self.submitted & 15 == 0:
                    self._pass(0)   # a long run of submissions: take in replies meanwhile, so that workers do not starve
            finally:
                self._release()
            if self.background_sleeps and not self.by_loop:
                self._rouse_background()
            return
        Py_INCREF(invocation)
        while True:
            rc = fl_ring_push(self.ring, &record, sizeof(record))
            if rc >= 0:
                break
            self._make_room()
        if self.owner == 0:
            self.owner = pthread_self()
            try:
                if not self.driving:
                    self._drain_ring()
            finally:
                self._release()
            if self.background_sleeps and not self.by_loop:
                self._rouse_background()
        elif self.owner == pthread_self():
            if not self.driving:
                self._drain_ring()
        elif rc == FL_RING_WAKE:
            self.wakes += 1
            fl_wake_signal(self.wake_fd)

    def submit_all(self, list invocations):
        """As `submit` for each of them that is not over already, in this order, with one wake-up in all."""
        cdef Call invocation
        cdef bint mine = False
        if self.closed:
            raise DispatcherClosed("the dispatcher is closed")
        if self.owner == 0:
            self.owner = pthread_self()
            mine = True
        try:
            for item in invocations:
                invocation = <Call>item
                if invocation.state == STATE_DONE:
                    continue   # it could not be made
                if self.owner != pthread_self() or self.driving:
                    self.submit(invocation)
                    continue
                invocation.state = STATE_SUBMITTED
                if not invocation.is_task:
                    invocation.submitted_ns = self._now()
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
            let_others_run()
        return 0

    cdef _wake(self):
        if self.owner != pthread_self():
            fl_wake_signal(self.wake_fd)

    def cancel(self, Call invocation):
        """Takes a task back that no environment has begun. True if it was in time: it is then done, as cancelled."""
        if invocation.state == STATE_DONE or self.closed:
            return False
        return self.run_as_driver(lambda: self._cancel(invocation))

    def run_as_driver(self, object function):
        """function() in the driver: in this thread if nobody drives, otherwise in the one that does, between two events.

        Its result or exception. Raises DispatcherClosed when there is no driver any more.
        """
        cdef unsigned long me = pthread_self()
        lock = allocate_lock()
        lock.acquire()
        reply = [lock, False, None]
        order = (function, reply)   # made before `owner` is read: an allocation may collect garbage, and so let others run
        if self.owner == me:
            return function()
        if self.owner == 0:
            self.owner = me
            try:
                return function()
            finally:
                self._release()
        self.orders.append(order)
        fl_wake_signal(self.wake_fd)
        lock.acquire()
        if reply[1]:
            raise reply[2]
        return reply[2]

    cdef int _order(self, object function) except -1:
        """As `run_as_driver`, but nobody waits for it, and it must not raise."""
        cdef unsigned long me = pthread_self()
        order = (function, None)
        if self.owner == 0 or self.owner == me:
            self.run_as_driver(function)
            return 0
        self.orders.append(order)
        fl_wake_signal(self.wake_fd)
        return 0

    cdef int _run_orders(self) except -1:
        while self.orders:
            function, reply = self.orders.popleft()
            if reply is None:
                function()
                continue
            try:
                reply[2] = function()
            except Exception as error:
                reply[1] = True
                reply[2] = error
            finally:
                reply[0].release()
        return 0

    # -- waiting: any thread ---------------------------------------------------------------------

    def wait(self, Call invocation, timeout_seconds=None, bint pieces=False):
        """Blocks until `invocation` is done (or, with `pieces`, there are some to take), driving meanwhile if nobody else does. False when
        the time ran out first.

        A KeyboardInterrupt leaves the call running; its answer is then dropped when it comes.
        """
        cdef uint64_t deadline = NEVER
        cdef unsigned long me = pthread_self()
        cdef bint mine
        if timeout_seconds is not None:
            deadline = self._now() + <uint64_t>(max(0.0, timeout_seconds) * 1e9)
        while invocation.state != STATE_DONE and not (pieces and (<Invocation>invocation).pieces_bytes):
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
                    while invocation.state != STATE_DONE and not self.closed and not (pieces and (<Invocation>invocation).pieces_bytes):
                        if self._now() >= deadline:
                            return False
                        self._pass(deadline)
                finally:
                    if mine:
                        self._release()
            else:
                if self._now() >= deadline:
                    return False
                self._wait_for_turn(
                    invocation, -1 if deadline == NEVER else max(0.0, (deadline - <double>self._now()) / 1e9)
                )
        return True

    cdef _wait_for_turn(self, Call invocation, double timeout_seconds):
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
        elif self.loops:
            if not self.closed:
                self._leave_to_loops()
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
        cdef uint64_t seen = 0
        cdef int idle_ticks = 0
        cdef timespec tick
        tick.tv_sec = 0
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
                    if self.loops:
                        idle_ticks = 0
                    elif self.owner == 0 and not self.closed:
                        self._drive_in_background(0)
                else:
                    idle_ticks = 0
                continue
            tick.tv_nsec = LOOPS_TICKS * TICK_NS if self.loops else TICK_NS
            with nogil:
                nanosleep(&tick, NULL)
            if self.owner == 0 and self.outstanding and self.epoch == seen and not self.closed:
                if not self.loops or self._loops_fail():
                    self._drive_in_background(LINGER_NS)
            seen = self.epoch

    cdef _drive_in_background(self, uint64_t linger_ns):
        cdef uint64_t quiet_since = self._now()
        self.owner = pthread_self()
        self.background_drives = True
        try:
            while not self.closed and not self.yield_wanted:
                if self.outstanding:
                    quiet_since = self._now()
                elif self._now() >= quiet_since + linger_ns:
                    self._pass(0)
                    break
                self._pass(self._now() + LINGER_NS)
        except Exception:
            # A fault of ours, or of a completion callback: said, and then gone on, for others wait for this thread.
            logging.getLogger("fastlam").exception("the dispatcher's background thread met an error")
        finally:
            self.yield_wanted = False
            self.background_drives = False
            self._release()

    # -- an event loop as the driver -------------------------------------------------------------

    def adopt(self, object call_soon=None):
        """Makes the calling thread the driver for good; it then calls `drive_ready` when `fileno()` is readable. With `call_soon`, the
        loop's own, environments that are awake need not wake it."""
        if self.owner not in (0, pthread_self()):
            raise RuntimeError("another thread drives this dispatcher")
        self.owner = pthread_self()
        self.adopted = True
        self.call_soon = call_soon

    def fileno(self):
        """The epoll descriptor: readable when `drive_ready` has something to do."""
        return self.epoll_fd

    def drive_ready(self):
        """One pass without sleeping; for the loop that has adopted the dispatcher."""
        self._pass(0)

    def look(self):
        """As `drive_ready`; what `call_soon` is given."""
        self.look_due = False
        if not self.closed:
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
            self.busy = True
            may_sleep = not self._drain_ring()
            if self.unsent:
                self._flush_all()
            if self.rechecks and self._drain_rechecks():
                may_sleep = False
            if self.hot and self._poll_hot():
                may_sleep = False
            if self.orders:
                self._run_orders()
                may_sleep = False
            now = self._now()
            next_ns = fl_timers_next(&self.timers)
            if next_ns <= now:
                self._fire_timers(now)
                may_sleep = False
            if self.stacked and self.rebalance_ns <= now:
                self._rebalance(now)
                may_sleep = False
            timeout_ms = 0
            if not may_sleep and self.hot and now - self.polled_ns < POLL_NS and not self.adopted:
                whole = True
                return 0   # rings bring work: descriptors are asked when they do not, or now and then
            if may_sleep and until_ns > now and self.hot and (self._spin(until_ns) or not self._cool()):
                if now - self.polled_ns < POLL_NS:
                    whole = True
                    return 0
                may_sleep = False
            if may_sleep and until_ns > now:
                PyErr_CheckSignals()   # one that came meanwhile does not end the sleep
            if may_sleep and until_ns > now and fl_ring_announce_sleep(self.ring):
                next_ns = max(now, self._next_ns())
                if until_ns < next_ns:
                    next_ns = until_ns
                if next_ns == NEVER:
                    timeout_ms = -1
                else:
                    # Rounded up: a deadline is never early, and the timer descriptor is exact.
                    timeout_ms = <int>min(<uint64_t>3600000, (next_ns - now + 999999) // 1000000)
                if not self.background_drives and not 0 <= timeout_ms <= SIGNALS_MS:
                    timeout_ms = SIGNALS_MS
                self._arm_timer()
                self.sleeps += 1
                with nogil:
                    count = epoll_wait(self.epoll_fd, events, EVENTS_MAX, timeout_ms)
                fl_ring_announce_awake(self.ring)
            else:
                count = epoll_wait(self.epoll_fd, events, EVENTS_MAX, 0)
            self.polled_ns = now
            if count < 0:
                if errno != EINTR:
                    raise OSError(errno, "epoll_wait")
                PyErr_CheckSignals()
                count = 0
            for i in range(count):
                self._event(events[i].data.u64, events[i].events)
            self._drain_ring()
            if self.rechecks:
                self._drain_rechecks()
            if self.orders:
                self._run_orders()
            if self.freezing:
                self._freeze_idle()
            self.busy = not may_sleep or count > 0
            if self.adopted and self.hot:
                self._before_loop_sleeps(not may_sleep or count > 0)
            if self.adopted:
                # The loop sleeps now in its own poll: whatever it must wake for has to make our descriptor readable.
                now = self._now()
                if fl_timers_next(&self.timers) <= now:
                    self._fire_timers(now)
                self._arm_timer_at(self._next_ns())
                if not fl_ring_announce_sleep(self.ring) or self.rechecks:
                    fl_wake_signal(self.wake_fd)   # what is left of a crowded ring, say: no event tells of that
            whole = True
        finally:
            self.driving = False
            if not whole:
                # A KeyboardInterrupt, say: frames that have been read and not handled are told of by nobody else.
                self.rechecks = list(self.environments.values())
                self.unsent = []
                for item in self.rechecks:
                    (<Environment>item).recheck = True
                    (<Environment>item).bell_set = False   # it may have rung in vain: its event is lost, and it will not ring again
                    (<Environment>item).unsent = bool((<Environment>item).outbox)
                    if (<Environment>item).unsent:
                        self.unsent.append(item)
        return 0

    cdef int _event(self, uint64_t tag, uint32_t events) except -1:
        cdef Environment environment
        cdef uint64_t expirations
        if tag >= EVENT_BELL:
            environment = self.environments.get(<int>(tag - EVENT_BELL))
            if environment is not None:
                self._bell(environment)
        elif tag >= EVENT_ENVIRONMENT:
            environment = self.environments.get(<int>(tag - EVENT_ENVIRONMENT))
            if environment is not None:
                if events & EPOLLOUT:
                    self._write_backlog(environment)
                if events & ~<uint32_t>EPOLLOUT:
                    if environment.paused:
                        self._peer_gone(environment)
                    self._receive(environment)
        elif tag == EVENT_WAKE:
            fl_wake_clear(self.wake_fd)
        elif tag == EVENT_TIMER:
            try:
                os.read(self.timer_fd, 8)
            except BlockingIOError:
                pass
            self.timer_armed_ns = NEVER
            self._fire_timers(self._now())
        else:
            entry = self.readers[tag - EVENT_READER]
            if entry is not None:
                entry[1]()
        return 0

    cdef uint64_t _next_ns(self) noexcept:
        """When the driver has something to do even if nothing comes."""
        cdef uint64_t next_ns = fl_timers_next(&self.timers)
        return min(next_ns, self.rebalance_ns) if self.stacked else next_ns

    cdef int _arm_timer(self) except -1:
        return self._arm_timer_at(fl_timers_next(&self.timers))

    cdef int _arm_timer_at(self, uint64_t next_ns) except -1:
        """Sets the timer descriptor, only ever to an earlier time: a late call then costs no system call."""
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
                self._end_old_ones()
                if self.environments and not self.closed:
                    fl_timers_set(&self.timers, &self.house_timer, now + HOUSE_NS)
            else:
                self._deadline(<Environment><object>timer.owner)

    cdef bint _drain_ring(self) except -1:
        cdef PyObject *record
        cdef bint any = False
        while fl_ring_pop(self.ring, &record, sizeof(record)) == sizeof(record):
            any = True
            invocation = <Call><object>record
            Py_DECREF(<object>record)
            self._admit(<Call>invocation)
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

    @property
    def driving_here(self):
        """True in a completion callback, and wherever else the calling thread is the driver in the middle of its work."""
        return self.owner == pthread_self() and self.driving

    def drive_until(self, object condition, double timeout_seconds):
        """Drives until condition() holds; False when the time ran out. For shutting down."""
        cdef uint64_t deadline = self._now() + <uint64_t>(timeout_seconds * 1e9)
        cdef unsigned long me = pthread_self()
        cdef bint mine
        while not condition():
            if self._now() >= deadline:
                return False
            if self.owner == me and self.driving:
                raise RuntimeError("a completion callback must not wait for other calls")
            if self.owner == 0 or self.owner == me:
                mine = self.owner == 0
                self.owner = me
                try:
                    while not condition():
                        if self._now() >= deadline:
                            return False
                        self._pass(min(deadline, self._now() + 20000000))
                finally:
                    if mine:
                        self._release()
            else:
                self._wait_for_turn(None, min(0.05, (deadline - <double>self._now()) / 1e9))
        return True

    # -- what the classes above this one do ------------------------------------------------------

    cdef int _leave_to_loops(self) except -1:
        raise NotImplementedError

    cdef bint _loops_fail(self) except -1:
        raise NotImplementedError

    cdef int _admit(self, Call invocation) except -1:
        raise NotImplementedError

    cdef _cancel(self, Call invocation):
        raise NotImplementedError

    cdef int _flush_all(self) except -1:
        raise NotImplementedError

    cdef bint _receive(self, Environment environment) except -1:
        raise NotImplementedError

    cdef int _write_backlog(self, Environment environment) except -1:
        raise NotImplementedError

    cdef int _watch_bell(self, Environment environment) except -1:
        raise NotImplementedError

    cdef int _bell(self, Environment environment) except -1:
        raise NotImplementedError

    cdef bint _poll_hot(self) except -1:
        raise NotImplementedError

    cdef bint _spin(self, uint64_t until_ns) except -1:
        raise NotImplementedError

    cdef bint _cool(self) except -1:
        raise NotImplementedError

    cdef int _before_loop_sleeps(self, bint busy) except -1:
        raise NotImplementedError

    cdef int _peer_gone(self, Environment environment) except -1:
        raise NotImplementedError

    cdef int _frame(self, Environment environment, const uint8_t *data, size_t size) except -1:
        raise NotImplementedError

    cdef int _bad_frame(self, Environment environment, str reason) except -1:
        raise NotImplementedError

    cdef int _keep_house(self) except -1:
        raise NotImplementedError

    cdef int _end_old_ones(self) except -1:
        raise NotImplementedError

    cdef int _end_used_up(self, Environment environment) except -1:
        raise NotImplementedError

    cdef int _init_begins(self, Environment environment) except -1:
        raise NotImplementedError

    cdef int _reset(self, Environment environment) except -1:
        raise NotImplementedError

    cdef int _freeze_idle(self) except -1:
        raise NotImplementedError

    cdef int _rebalance(self, uint64_t now) except -1:
        raise NotImplementedError

    cdef int _feed(self, Environment environment) except -1:
        raise NotImplementedError

    cdef int _grow(self, Target target) except -1:
        raise NotImplementedError

    cdef int _steal(self, Environment thief) except -1:
        raise NotImplementedError

    cdef int _start_helper(self, Target target) except -1:
        raise NotImplementedError

    cdef bint _admitted_ahead(self, Call invocation) except -1:
        raise NotImplementedError

    cdef int _provide(self, ProvisionedTarget target) except -1:
        raise NotImplementedError

    cdef int _up_ahead(self, Environment environment) except -1:
        raise NotImplementedError

    cdef int _failed_ahead(self, Environment environment, str error_type) except -1:
        raise NotImplementedError

    cdef int _deadline(self, Environment environment) except -1:
        raise NotImplementedError

    cdef int _on_result(self, Environment environment, object frame, bytes payload) except -1:
        raise NotImplementedError

    cdef int _parts(self, Environment environment, object header, bytes payload) except -1:
        raise NotImplementedError

    cdef int _on_answer(self, Environment environment, int64_t slot, int64_t duration_ns, int64_t cpu_ns, int64_t memory_peak_kib,
                        int64_t log_end_bytes, str error_type, str content_type, bytes payload) except -1:
        raise NotImplementedError

    cdef int _on_task_result(self, Environment environment, int64_t slot, double task_ns, bint failed, bytes payload) except -1:
        raise NotImplementedError

    cdef int _on_chunk(self, Environment environment, object frame, bytes payload) except -1:
        raise NotImplementedError

    cdef int _on_ready(self, Environment environment, object frame) except -1:
        raise NotImplementedError

    cdef int _on_init_failed(self, Environment environment, object frame, bytes payload) except -1:
        raise NotImplementedError

    cdef int _finish(self, Call invocation, int outcome, bytes payload) except -1:
        raise NotImplementedError

    cdef int _call_back(self, object callback, Call invocation) except -1:
        raise NotImplementedError

    cdef int _rouse_waiter(self, Call invocation) except -1:
        raise NotImplementedError

    cdef int _stop(self, Environment environment, bint by_zygote=False) except -1:
        raise NotImplementedError

    cdef int _exited(self, Environment environment, int wait_status) except -1:
        raise NotImplementedError

    cdef int _release_slot(self, Target target) except -1:
        raise NotImplementedError

    cdef int _retire_environment(self, Environment environment) except -1:
        raise NotImplementedError

    cdef bint _take_back(self, Environment environment, Call invocation) except -1:
        raise NotImplementedError
