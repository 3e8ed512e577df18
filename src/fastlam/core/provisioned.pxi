# Environments made ahead of calls (provisioned concurrency): so many of a target are kept alive, and its calls take these first.

cdef enum:
    STARTING_AHEAD_MAX = 32      # environments of one target that have their INIT at a time: other work goes on meanwhile

cdef str PROVISIONED_TYPE = "provisioned-concurrency"


cdef class ProvisionedPool(FunctionPool):
    """The part of a function's concurrency that one ProvisionedTarget has: `running` counts its calls alone. They are none of the
    unreserved rest of the account. Made by FunctionPool.provisioned_pool."""

    cdef FunctionPool whole      # the function's

    cdef int admit(self, bint needs_environment, uint64_t now) noexcept:
        cdef FunctionPool whole = self.whole
        cdef AccountPool account = self.account
        if whole.reserved >= 0 and whole.running >= whole.reserved:
            return THROTTLE_RESERVED_CONCURRENCY
        if account.running >= account.limit:
            return THROTTLE_CONCURRENCY
        if account.enforce_rates and self.requests is not None and not self.requests.take(now):
            return THROTTLE_RESERVED_RATE if whole.reserved >= 0 else THROTTLE_RATE
        self.running += 1
        whole.running += 1
        whole.provisioned_running += 1
        account.running += 1
        return THROTTLE_NONE

    cdef void release(self) noexcept:
        self.running -= 1
        self.whole.running -= 1
        self.whole.provisioned_running -= 1
        self.account.running -= 1

    cdef void resize(self, int concurrency) except *:
        """Ten requests a second for each."""
        if self.requests is None:
            self.requests = TokenBucket(10.0 * concurrency, 10.0 * concurrency)
        else:
            self.requests.resize(10.0 * concurrency, 10.0 * concurrency)


cdef class ProvisionedTarget(Target):
    """Environments of a function version that are there before they are called; the target of the version itself (`behind`) takes what
    finds them all busy. Its pool is a ProvisionedPool. `on_progress()` is called by the driver when an environment is up, has failed or is
    gone; it must neither raise nor call the dispatcher.

    INIT of these may take longer than that of others, and one that fails is not tried again before `Dispatcher.provide` says so.
    """

    cdef readonly int wanted               # so many are kept alive
    cdef readonly int open_to              # so many calls it takes at a time; 0 until all that were asked for have been up
    cdef readonly Target behind
    cdef readonly str failure              # error type of the INIT that failed, None when none has
    cdef readonly str failure_reason       # where fastlam has something to say about it
    cdef readonly uint64_t spillovers      # calls that went to `behind` because all of these were busy
    cdef int running_most
    cdef readonly uint64_t init_timeout_ns
    cdef public object on_progress
    cdef public str initialization_type    # as its log names it

    def __cinit__(self, *_arguments, **_options):
        if type(self.pool) is not ProvisionedPool:
            raise TypeError("environments made ahead have a pool of their own")
        self.provisioned = True
        self.initialization_type = PROVISIONED_TYPE
        self.init_timeout_ns = <uint64_t>min(
            max(limits.PROVISIONED_INIT_TIMEOUT_MS * 1000000, self.timeout_ns), limits.TIMEOUT_SECONDS_MAX * 1000000000
        )

    def stand_before(self, Target behind not None):
        """Calls of `behind` take these environments first."""
        self.step_aside()
        self.behind = behind
        behind.ahead = self

    cpdef step_aside(self):
        """No further calls come here."""
        if self.behind is not None and self.behind.ahead is self:
            self.behind.ahead = None

    @property
    def up(self):
        """Environments whose INIT is over."""
        return self.live - self.starting

    def take_running_most(self):
        """The most calls that they ran at a time since this was last asked."""
        cdef int most = self.running_most
        self.running_most = self.pool.running
        return most

    cdef bint has_surplus(self) noexcept:
        return self.live > self.wanted

    cdef bint lacks_some(self) noexcept:
        return self.live < self.wanted and self.failure is None and not self.retired


cdef class Provisioning(Helping):
    """How calls come to environments made ahead, and how these are kept alive."""

    cdef bint _admitted_ahead(self, Call invocation) except -1:
        """Gives a call to an environment made ahead, or throttles it. False if these are all busy: it is to be admitted as any other."""
        cdef Target target = invocation.target
        cdef ProvisionedTarget ahead = target.ahead
        cdef FunctionPool pool = ahead.pool
        cdef int throttle
        # Those that lie behind others in one environment count as if they had their own: while fewer run than are up, one is idle.
        if pool.running >= ahead.open_to or pool.running >= ahead.live - ahead.starting:
            return False
        throttle = pool.admit(False, self._now() if pool.account.enforce_rates else 0)
        if throttle != THROTTLE_NONE:
            invocation.throttle = throttle
            target.throttles += 1
            self._finish(invocation, C_THROTTLED, EMPTY)
            return True
        if pool.running > ahead.running_most:
            ahead.running_most = pool.running
        self._move(invocation, ahead)
        self._place(invocation)
        return True

    cdef int _move(self, Call invocation, Target target) except -1:
        """It is a call of that target from now on."""
        invocation.target.outstanding -= 1
        target.outstanding += 1
        invocation.target = target
        return 0

    cdef int _spill(self, ProvisionedTarget target) except -1:
        """What waits here, where no environment is left for it, is admitted as if it had just come."""
        cdef Call invocation
        cdef list waiting = list(target.waiting)
        target.waiting.clear()
        self.waiting -= len(waiting)
        for item in waiting:
            invocation = <Call>item
            target.pool.release()
            if target.behind is None:
                self._finish(invocation, C_CANCELLED, EMPTY)
                continue
            invocation.state = STATE_SUBMITTED
            self._move(invocation, target.behind)
            self._admit(invocation)
        return 0

    cdef int _provide(self, ProvisionedTarget target) except -1:
        """After a loss: what waits goes elsewhere, and what is missing is started."""
        if target.waiting:
            self._spill(target)
        return self._start_missing(target)

    cdef int _start_missing(self, ProvisionedTarget target) except -1:
        """As far as this machine's bound allows."""
        if target.growing:
            return 0   # a start failed at once and came back here
        target.growing = True
        try:
            while target.lacks_some() and target.starting < STARTING_AHEAD_MAX and not self.closed and not self.closing:
                if self.live >= self.environments_max and not self._evict(target):
                    if not target.starved:
                        target.starved = True
                        self.starved.append(target)
                    break
                self._start(target, None)
        finally:
            target.growing = False
        return self._tell(target)

    cdef int _tell(self, ProvisionedTarget target) except -1:
        if target.on_progress is not None:
            target.on_progress()
        return 0

    cdef int _up_ahead(self, Environment environment) except -1:
        """Its INIT is over: that is reported here, and with none of its calls."""
        cdef ProvisionedTarget target = <ProvisionedTarget>environment.target
        if target.log is not None:
            target.log.append_init_report(environment.init_ns, "init", "", environment.init_logs, "", target.initialization_type)
        environment.init_ns = -1
        environment.init_logs = None
        return self._start_missing(target)

    cdef int _failed_ahead(self, Environment environment, str error_type) except -1:
        """INIT failed: nothing further is started before somebody asks again."""
        cdef ProvisionedTarget target = <ProvisionedTarget>environment.target
        if target.log is not None:
            target.log.append_init_report(environment.init_ns, "init", error_type, environment.init_logs, "", target.initialization_type)
        environment.init_logs = None
        target.failure = error_type
        target.failure_reason = environment.end_reason
        return self._provide(target)

    # -- from outside: driver's thread -----------------------------------------------------------

    def provide(self, ProvisionedTarget target not None, int wanted, int open_to):
        """Keeps `wanted` environments alive from now on, of which calls may use `open_to` at a time. Those that are too many end, busy ones
        after their call; an INIT that failed before is forgotten."""
        target.wanted = wanted
        target.open_to = min(open_to, wanted)
        target.failure = target.failure_reason = None
        (<ProvisionedPool>target.pool).resize(target.open_to)
        for item in list(target.environments):
            if not target.has_surplus():
                break
            if (<Environment>item).state == ENVIRONMENT_STARTING:
                self._stop(<Environment>item)
        while target.has_surplus() and target.idle_count:
            self._stop(target.idle_top)
        self._start_missing(target)
