# Calls that lie behind others in an environment, because those are over sooner than another worker is awake.

cdef class Stacking(IdleEnvironments):
    """While calls of a target are short, the next ones are given to the worker that is awake instead of waking another: it runs them one
    after the other, without a sleep in between. Where one takes longer than was expected, those behind it go elsewhere.

    Functions too: an environment has one invocation in hand at a time, and the others have not begun. Only plain ones lie behind one
    another (no stream, nothing long), and only while idle environments are there, or nothing else is to be had: concurrency is counted
    and limited as if each had an environment of its own.
    """

    cdef bint _stacks(self, Call call) noexcept:
        """Whether a call may lie behind others, or others behind it."""
        cdef Invocation invocation
        if call.target.slots_per_environment == 1:
            return False
        if not call.target.is_function:
            return True
        invocation = <Invocation>call
        return (not invocation.streams and invocation.client_context is None and type(invocation.payload) is bytes
                and PyBytes_GET_SIZE(invocation.payload) <= STACKED_BYTES_MAX)

    cdef bint _not_worth_a_wake(self, Environment environment) noexcept:
        """Whether a busy worker is so near to its end that another one would hardly be awake before it is done with one more. What it has
        answered, and nobody has read, still counts as its own; whether it has taken all that it was given does not lag behind.

        Of tasks that take the worker no longer than the driver, one worker does as many a second as two: the driver gives them out no
        faster. Two, and the driver, would only get into one another's way where there are two CPUs."""
        cdef Target target = environment.target
        cdef double task_ns = target.task_ns
        if environment.state != ENVIRONMENT_BUSY or task_ns < 0 or environment.used_up():
            return False
        if target.shares and task_ns < DRIVEN_TASK_NS:
            return True
        return environment.free_slots != 0 and (
            environment.outstanding * (task_ns + 1000.0) < WAKE_WORTH_NS
            or (task_ns < WAKE_WORTH_NS and environment.has_express and fl_spsc_drained(&environment.express.requests)))

    cdef bint _is_superfluous(self, Environment environment) except -1:
        """Whether a worker without a task had better sleep, since the one that is given the tiny ones does them as well alone. It is that
        one only that is looked after: if nothing lies behind what it has in hand, but behind what another one has, help is welcome."""
        cdef Environment filling = environment.target.filling
        if filling is None or filling is environment or not self._not_worth_a_wake(filling) or not self._lie_behind(filling):
            return False
        self._stack(filling)
        return True

    cdef int _stack(self, Environment environment) except -1:
        """One more is about to be posted to a busy environment: whether that was right will be looked at."""
        if not environment.stacked:
            if not self.stacked:
                self.rebalance_ns = self._now() + REBALANCE_NS
            environment.stacked = True
            environment.done_count_seen = environment.done_count - 1   # it is given its time from the first look on
            self.stacked.append(environment)
        return 0

    cdef Invocation _oldest_in(self, Environment environment):
        """The invocation that an environment has in hand, or has next: the one posted first. None if it has none."""
        cdef Invocation invocation, oldest = None
        for item in environment.held:
            if item is not None:
                invocation = <Invocation>item
                if oldest is None or invocation.post_number < oldest.post_number:
                    oldest = invocation
        return oldest

    cdef int _rebalance(self, uint64_t now) except -1:
        """Calls lie behind others, which were short as a rule: where one has not moved on for a while, they go to others."""
        cdef Environment environment
        cdef list stacked = self.stacked
        cdef bint stuck
        self.stacked = []
        for item in stacked:
            environment = <Environment>item
            environment.stacked = False
            if environment.state != ENVIRONMENT_BUSY or not self._lie_behind(environment):
                continue
            stuck = environment.done_count == environment.done_count_seen
            if environment.target.is_function:
                if stuck:
                    self._spread(environment)
            elif stuck or not self._not_worth_a_wake(environment):
                self._share_out(environment)
            if self._lie_behind(environment) and not environment.stacked:
                environment.stacked = True
                self.stacked.append(environment)
            environment.done_count_seen = environment.done_count
        self.rebalance_ns = now + REBALANCE_NS
        return 0

    cdef bint _lie_behind(self, Environment environment) noexcept:
        """Whether anything waits for what an environment has in hand."""
        return environment.outstanding > 1 or (environment.target.shares and len(environment.target.waiting) != 0)

    cdef int _spread(self, Environment environment) except -1:
        """What lies behind an invocation goes to idle environments, and to new ones where there are none."""
        cdef Target target = environment.target
        cdef Invocation oldest = self._oldest_in(environment)
        target.filling = None
        target.task_ns = max(target.task_ns, REBALANCE_NS)   # for a while none is stacked
        for item in list(environment.held):
            if item is None or item is oldest or not self._take_back(environment, <Call>item):
                continue
            self.stolen += 1
            (<Call>item).state = STATE_WAITING
            target.waiting.appendleft(item)
            self.waiting += 1
        while target.waiting and target.idle_count:
            self._feed(self._idle_take(target))
        return self._grow(target)

    cdef int _share_out(self, Environment environment) except -1:
        """Tasks that are not so short after all lie behind others, or wait for the same worker: the idle ones take of them."""
        cdef Target target = environment.target
        cdef int rounds = target.idle_count
        target.filling = None
        while rounds > 0 and target.idle_count:
            rounds -= 1
            self._feed(self._idle_take(target))
        return 0

    cdef int _took_ns(self, Target target, double call_ns) except -1:
        """A call of the target has taken so long."""
        if target.task_ns < 0:
            target.task_ns = call_ns
        elif call_ns > target.task_ns:
            target.task_ns += (call_ns - target.task_ns) * 0.5   # long ones: stop stacking behind them soon
        else:
            target.task_ns += (call_ns - target.task_ns) * 0.1
        return 0
