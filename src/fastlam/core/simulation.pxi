# The dispatcher on a virtual clock, past the size of any machine: everything but clock, processes and lanes is the dispatcher's own code.

cdef enum:
    TABLE_BYTES = 128            # a slot table of one slot that mirrors nothing
    LINE_BYTES = 64
    STATES_MAX = 16384           # numbers of calls in the system whose time is told apart
    REAP_SECONDS = 1
    EVENTS_BETWEEN_SIGNALS = 65536

cdef uint64_t VIRTUAL_BEGIN_NS = <uint64_t>1000000000000000   # a clock of 0 would mean the machine's


cdef class SimulatedCall(Invocation):
    """One call of a simulation; how long it will run is known beforehand."""

    cdef int64_t service_ns


cdef class SimulatedEnvironment(Environment):
    """An environment without a process: one event is ahead of it at most: that it is up, has an answer, or is gone."""

    cdef fl_timer event
    cdef uint8_t[TABLE_BYTES + LINE_BYTES] table
    cdef bint killed

    def __cinit__(self, Dispatcher dispatcher, Target target, int id):
        cdef size_t misaligned
        if target.slots_per_environment != 1:
            raise ValueError("a simulated environment takes one call at a time")
        fl_timer_init(&self.event, <void *>self)
        memset(self.table, 0, sizeof(self.table))
        misaligned = <size_t>self.table & (LINE_BYTES - 1)
        fl_slots_place(&self.slots, self.table + (LINE_BYTES - misaligned if misaligned else 0), 1, 0)


cdef class SimulatedLauncher:
    """Makes and ends the environments of a SimulatedDispatcher. A target's `spec` is the Sampler of its starts; None: they take no time."""

    def launch(self, SimulatedEnvironment environment not None):
        """Its environment will be up in a while."""
        (<SimulatedDispatcher>environment.dispatcher)._launched(environment)

    def kill(self, SimulatedEnvironment environment not None):
        """Its process will be gone in a while."""
        (<SimulatedDispatcher>environment.dispatcher)._killed(environment)
        return True

    def closed(self, SimulatedEnvironment environment not None, object lane):
        """It has been forgotten."""
        (<SimulatedDispatcher>environment.dispatcher)._unplan(environment)


cdef class SimulatedDispatcher(Dispatcher):
    """A dispatcher of which `run` is the driver. `launcher` is a SimulatedLauncher; times are seconds since the beginning.

    The same seed gives the same run. Arrivals, services and starts are drawn from generators of their own, so that two runs that differ
    in their limits only meet the same calls.
    """

    cdef fl_rng arrival_rng, service_rng, start_rng
    cdef fl_timers arriving              # of Sources
    cdef fl_timers happening             # of SimulatedEnvironments
    cdef list sources
    cdef object ready, result            # frames, used again and again
    cdef uint64_t exit_ns                # between the kill of a process and the report of its end
    cdef uint64_t idle_ns, reap_period_ns, reap_ns
    cdef uint64_t sample_period_ns, sample_ns
    cdef readonly list samples
    # What came of the calls, and how full everything was; since the last `clear`.
    cdef readonly Histogram waits, responses, cold_waits
    cdef uint64_t[7] outcomes
    cdef uint64_t[5] throttled
    cdef readonly uint64_t arrivals, delayed, cold
    cdef readonly int live_most
    cdef uint64_t cleared_ns
    cdef double area_calls, area_waiting, area_live
    cdef double *state_ns                # time with so many calls in the system

    def __cinit__(self, *_arguments, **_options):
        self.virtual_ns = VIRTUAL_BEGIN_NS
        self.state_ns = <double *>calloc(STATES_MAX, sizeof(double))
        if self.state_ns == NULL:
            raise MemoryError()
        fl_timers_init(&self.arriving)
        fl_timers_init(&self.happening)
        self.sources = []
        self.samples = []
        self.ready = Ready(PROTOCOL_VERSION, 0, 0, 0)
        self.result = Result(0, 0, 0, 0, 0)
        self.waits = Histogram()
        self.responses = Histogram()
        self.cold_waits = Histogram()
        self.reap_ns = self.sample_ns = NEVER
        self.cleared_ns = self.virtual_ns
        self.seed(1)

    def __dealloc__(self):
        fl_timers_free(&self.arriving)
        fl_timers_free(&self.happening)
        free(self.state_ns)

    # -- before it runs --------------------------------------------------------------------------

    def seed(self, uint64_t seed):
        """Begins the random numbers anew."""
        fl_rng_seed(&self.arrival_rng, seed * 3)
        fl_rng_seed(&self.service_rng, seed * 3 + 1)
        fl_rng_seed(&self.start_rng, seed * 3 + 2)

    def keep_alive(self, double idle_seconds, double period_seconds=REAP_SECONDS):
        """Idle environments are stopped as the daemon does it: every `period_seconds` those that have been idle for longer."""
        self.idle_ns = <uint64_t>(idle_seconds * 1e9)
        self.reap_period_ns = <uint64_t>(period_seconds * 1e9)
        self.reap_ns = self.virtual_ns + self.reap_period_ns

    def exits_take(self, double seconds):
        """The time between the kill of a process and the report of its end."""
        self.exit_ns = <uint64_t>(seconds * 1e9)

    def sample_every(self, double seconds):
        """Adds a row to `samples` every so often: seconds, environments, calls that run, calls that wait, and since the row before:
        arrivals, throttled, rejected, cold starts."""
        self.sample_period_ns = <uint64_t>(seconds * 1e9)
        self.sample_ns = self.virtual_ns + self.sample_period_ns

    def add(self, Source source not None):
        """From now on its calls arrive."""
        if source.timer.index != FL_TIMER_IDLE or source.arrived:
            raise ValueError("the source has been added before")
        source.zero_ns = self.virtual_ns
        self.sources.append(source)
        self._await(source)

    cdef int _await(self, Source source) except -1:
        cdef uint64_t next_ns = source.next_ns(&self.arrival_rng, self.virtual_ns)
        if next_ns == NEVER:
            fl_timers_cancel(&self.arriving, &source.timer)
        elif fl_timers_set(&self.arriving, &source.timer, next_ns) != 0:
            raise MemoryError()
        return 0

    def call(self, Target target not None, double seconds):
        """One call that will run for so long, handed over now."""
        cdef SimulatedCall call = SimulatedCall(target, EMPTY, "simulated")
        call.service_ns = <int64_t>(seconds * 1e9 + 0.5)
        self.arrivals += 1
        self.submit(call)
        return call

    # -- running ---------------------------------------------------------------------------------

    @property
    def now_seconds(self):
        """The virtual clock."""
        return (self.virtual_ns - VIRTUAL_BEGIN_NS) / 1e9

    def run(self, double until_seconds):
        """Everything that happens up to that time."""
        self._run(VIRTUAL_BEGIN_NS + <uint64_t>(until_seconds * 1e9), NEVER)

    def run_arrivals(self, uint64_t count, double until_seconds=1e9):
        """As `run`, but at most until so many more calls have arrived."""
        self._run(VIRTUAL_BEGIN_NS + <uint64_t>(until_seconds * 1e9), self.arrivals + count)

    def run_out(self):
        """Nothing arrives any more; returns when every call is done."""
        for item in self.sources:
            fl_timers_cancel(&self.arriving, &(<Source>item).timer)
        while self.outstanding:
            self._pass(NEVER)

    cdef int _run(self, uint64_t until_ns, uint64_t arrivals_most) except -1:
        cdef unsigned long me = pthread_self()
        cdef bint mine = self.owner == 0
        cdef uint64_t next_ns
        cdef uint64_t steps = 0
        if self.closed:
            raise DispatcherClosed("the dispatcher is closed")
        if not mine and self.owner != me or self.driving:
            raise RuntimeError("this simulation runs already")
        self.owner = me
        try:
            self._drain_ring()
            while self.arrivals < arrivals_most:
                next_ns = self._next_ns()
                if next_ns > until_ns:
                    self._advance(until_ns)
                    break
                self._step(next_ns)
                steps += 1
                if steps % EVENTS_BETWEEN_SIGNALS == 0:
                    PyErr_CheckSignals()
        finally:
            if mine:
                self._release()
        return 0

    cdef int _pass(self, uint64_t until_ns) except -1:
        """In place of sleeping: the next thing that happens, or the clock goes to `until_ns` if nothing does by then."""
        cdef uint64_t next_ns
        if self.driving:
            return 0
        self.passes += 1
        self._drain_ring()
        if self.orders:
            self._run_orders()
        next_ns = self._next_ns()
        if next_ns <= self.virtual_ns or next_ns <= until_ns and next_ns != NEVER:
            self._step(next_ns)
        elif until_ns == NEVER:
            raise RuntimeError("nothing is ahead that could end this wait")
        elif until_ns > self.virtual_ns:
            self._advance(until_ns)
        return 0

    cdef uint64_t _next_ns(self) noexcept:
        cdef uint64_t next_ns = fl_timers_next(&self.arriving), other = fl_timers_next(&self.happening)
        if other < next_ns:
            next_ns = other
        other = fl_timers_next(&self.timers)
        if other < next_ns:
            next_ns = other
        if self.reap_ns < next_ns:
            next_ns = self.reap_ns
        if self.sample_ns < next_ns:
            next_ns = self.sample_ns
        return next_ns

    cdef void _advance(self, uint64_t to_ns) noexcept:
        cdef double passed
        if to_ns <= self.virtual_ns:
            return
        passed = <double>(to_ns - self.virtual_ns)
        self.area_calls += passed * self.outstanding
        self.area_waiting += passed * self.waiting
        self.area_live += passed * self.live
        self.state_ns[self.outstanding if self.outstanding < STATES_MAX else STATES_MAX - 1] += passed
        self.virtual_ns = to_ns

    cdef int _step(self, uint64_t now) except -1:
        """One thing that happens. Of several at the same time: what environments do, then deadlines, then what is new."""
        cdef fl_timer *timer
        self._advance(now)
        if fl_timers_next(&self.happening) <= now:
            self.driving = True
            try:
                self._happens(<SimulatedEnvironment><object>self.happening.heap[0].owner)
            finally:
                self.driving = False
            self._drain_ring()
        elif fl_timers_next(&self.timers) <= now:
            self.driving = True
            try:
                self._fire_timers(now)
            finally:
                self.driving = False
            self._drain_ring()
        elif self.sample_ns <= now:
            self.sample_ns += self.sample_period_ns
            self._sample()
        elif self.reap_ns <= now:
            self.reap_ns += self.reap_period_ns
            self.stop_idle(self.idle_ns / 1e9)
        else:
            timer = self.arriving.heap[0]
            self._arrive(<Source><object>timer.owner)
        return 0

    cdef int _arrive(self, Source source) except -1:
        cdef SimulatedCall call = SimulatedCall(source.target, EMPTY, "simulated")
        call.service_ns = source.service.draw(&self.service_rng)
        source.arrived += 1
        self.arrivals += 1
        self._await(source)
        self.submit(call)
        return 0

    # -- environments ----------------------------------------------------------------------------

    cdef Environment _new_environment(self, Target target, int id):
        return SimulatedEnvironment(self, target, id)

    cdef int _plan(self, SimulatedEnvironment environment, uint64_t at_ns) except -1:
        if fl_timers_set(&self.happening, &environment.event, at_ns) != 0:
            raise MemoryError()
        return 0

    cdef int _unplan(self, SimulatedEnvironment environment) except -1:
        fl_timers_cancel(&self.happening, &environment.event)
        return 0

    cdef int _launched(self, SimulatedEnvironment environment) except -1:
        cdef int64_t start_ns = 0
        if environment.target.spec is not None:
            start_ns = (<Sampler?>environment.target.spec).draw(&self.start_rng)
        if self.live > self.live_most:
            self.live_most = self.live
        self._init_begins(environment)
        return self._plan(environment, self.virtual_ns + <uint64_t>start_ns)

    cdef int _killed(self, SimulatedEnvironment environment) except -1:
        if environment.killed:
            return 0
        environment.killed = True
        return self._plan(environment, self.virtual_ns + self.exit_ns)

    cdef int _happens(self, SimulatedEnvironment environment) except -1:
        """What its worker or its zygote would say now. It stays alive through it: the dispatcher may forget it meanwhile."""
        fl_timers_cancel(&self.happening, &environment.event)
        if environment.killed:
            environment.process_exited(signal.SIGKILL, 0)
        elif environment.state == ENVIRONMENT_STARTING:
            self.ready.init_ns = self.virtual_ns - environment.born_ns
            self._on_ready(environment, self.ready)
        elif environment.state == ENVIRONMENT_STOPPING:
            environment.process_exited(0, 0)   # it was asked to leave, and has done so
        else:
            fl_slots_finish(&environment.slots, 0, NULL, 0)
            self.result.duration_ns = self.virtual_ns - (<Invocation>environment.held[0]).posted_ns
            self._on_result(environment, self.result, EMPTY)
        return 0

    cdef int _send(self, Environment environment, bytes header, object payload) except -1:
        """The worker has it at once, and begins."""
        cdef SimulatedEnvironment simulated = <SimulatedEnvironment>environment
        cdef SimulatedCall call
        if environment.state == ENVIRONMENT_STOPPING:
            return self._plan(simulated, self.virtual_ns)
        call = <SimulatedCall?>environment.held[0]
        fl_slots_claim(&environment.slots, 0, self.virtual_ns)
        return self._plan(simulated, self.virtual_ns + <uint64_t>call.service_ns)

    cdef int _drain(self, Environment environment) except -1:
        return 0   # nothing is ever on its way

    cdef int _keep_house(self) except -1:
        return 0   # there are neither lanes nor output to look at

    cdef int _end_old_ones(self) except -1:
        return 0   # `keep_alive` does it, without a look at all of them

    # -- what came of it -------------------------------------------------------------------------

    cdef int _finish(self, Call finished, int outcome, bytes payload) except -1:
        cdef Invocation invocation = <Invocation>finished   # there are no tasks here
        cdef uint64_t wait_ns
        Ends._finish(self, invocation, outcome, payload)
        self.outcomes[outcome] += 1
        if outcome == C_THROTTLED:
            self.throttled[invocation.throttle] += 1
        elif outcome <= C_FUNCTION_ERROR:
            wait_ns = invocation.posted_ns - invocation.submitted_ns
            self.waits.record(wait_ns)
            self.responses.record(invocation.done_ns - invocation.submitted_ns)
            if wait_ns:
                self.delayed += 1
            if invocation.init_ns >= 0:
                self.cold += 1
                self.cold_waits.record(wait_ns)
        return 0

    cdef int _sample(self) except -1:
        cdef uint64_t throttled = self.outcomes[C_THROTTLED], rejected = self.outcomes[C_REJECTED]
        self.samples.append((
            self.now_seconds, self.live, self.outstanding - self.waiting, self.waiting,
            self.arrivals, throttled, rejected, self.cold,
        ))
        return 0

    def clear(self):
        """Forgets what has been counted, not what goes on: after a warm-up."""
        memset(self.outcomes, 0, sizeof(self.outcomes))
        memset(self.throttled, 0, sizeof(self.throttled))
        memset(self.state_ns, 0, STATES_MAX * sizeof(double))
        self.waits.clear()
        self.responses.clear()
        self.cold_waits.clear()
        self.samples.clear()
        self.arrivals = self.delayed = self.cold = 0
        self.live_most = self.live
        self.area_calls = self.area_waiting = self.area_live = 0.0
        self.cleared_ns = self.virtual_ns

    def state_shares(self):
        """Shares of the time with 0, 1, 2 ... calls in the system (that run or wait), up to the highest there was."""
        cdef double passed = <double>(self.virtual_ns - self.cleared_ns)
        cdef int most = STATES_MAX - 1
        cdef int i
        while most > 0 and self.state_ns[most] == 0.0:
            most -= 1
        return [self.state_ns[i] / passed if passed else 0.0 for i in range(most + 1)]

    def figures(self):
        """What came of the calls since the beginning or the last `clear`: a dict of numbers."""
        cdef double passed = <double>(self.virtual_ns - self.cleared_ns)
        if passed == 0.0:
            passed = 1.0
        return {
            "seconds": (self.virtual_ns - self.cleared_ns) / 1e9,
            "arrivals": self.arrivals,
            "ok": self.outcomes[C_OK],
            "function_errors": self.outcomes[C_FUNCTION_ERROR],
            "throttled": self.outcomes[C_THROTTLED],
            "throttled_by_reason": {
                reason: self.throttled[index] for index, reason in enumerate(THROTTLE_REASONS) if self.throttled[index]
            },
            "rejected": self.outcomes[C_REJECTED],
            "failed": self.outcomes[C_FAILED],
            "cancelled": self.outcomes[C_CANCELLED],
            "delayed": self.delayed,
            "cold_starts": self.cold,
            "in_system_mean": self.area_calls / passed,
            "waiting_mean": self.area_waiting / passed,
            "environments_mean": self.area_live / passed,
            "environments_most": self.live_most,
        }
