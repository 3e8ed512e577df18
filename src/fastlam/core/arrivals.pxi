# When a simulation's calls arrive: one source for each stream of calls to one target.

cdef enum Pattern:
    PATTERN_RATE = 0       # Poisson; the rate may follow a profile, and be there only in bursts
    PATTERN_PERIOD = 1     # one every so often, to the nanosecond
    PATTERN_COUNTS = 2     # so many in each step, at random within it
    PATTERN_TIMES = 3      # at these times

cdef enum:
    MINUTE_NS = 60000000000


cdef class Source:
    """Calls to one target: `service` draws how long each runs. One of the methods whose names begin with `at_` says when they arrive,
    counted from the simulation's time when the source is added. Owned by the simulation that it has been added to."""

    cdef readonly Target target
    cdef readonly Sampler service
    cdef fl_timer timer
    cdef int pattern
    cdef uint64_t zero_ns                # the simulation's time when it was added
    cdef uint64_t end_ns                 # no arrival from then on
    cdef double per_ns                   # PATTERN_RATE, at a profile of 1
    cdef double[::1] profile             # factors of the rate, a step each, again and again
    cdef Py_ssize_t steps                # of the profile; 0: there is none
    cdef uint64_t step_ns
    cdef double on_ns, off_ns            # mean lengths of bursts and of the pauses between them; 0: always on
    cdef bint on
    cdef uint64_t switch_ns
    cdef uint64_t period_ns, offset_ns
    cdef const uint32_t[::1] counts
    cdef Py_ssize_t step                 # of the counts
    cdef uint32_t left                   # arrivals still to come in it
    cdef const uint64_t[::1] times
    cdef Py_ssize_t position             # in the times
    cdef readonly uint64_t arrived

    def __cinit__(self, Target target not None, Sampler service not None):
        self.target = target
        self.service = service
        fl_timer_init(&self.timer, <void *>self)
        self.end_ns = NEVER
        self.on = True
        self.switch_ns = NEVER

    def at_rate(self, double per_second, object profile=None, double step_seconds=60.0, double on_seconds=0.0, double off_seconds=0.0):
        """A Poisson process of this mean rate. `profile` has a factor of the rate for each step, with a mean of 1 if the rate is to hold;
        bursts and pauses between them have exponential lengths of these means, and the rate within bursts is higher accordingly."""
        if per_second <= 0.0 or step_seconds <= 0.0 or on_seconds < 0.0 or off_seconds < 0.0 or (off_seconds > 0.0) != (on_seconds > 0.0):
            raise ValueError("a rate is positive, and bursts have pauses between them")
        self.pattern = PATTERN_RATE
        self.per_ns = per_second / 1e9
        if profile is not None:
            self.profile = profile if isinstance(profile, array.array) and profile.typecode == "d" else array.array("d", profile)
            if not len(self.profile) or max(self.profile) <= 0.0 or min(self.profile) < 0.0:
                raise ValueError("a profile has factors, none below 0 and one above")
            self.steps = self.profile.shape[0]
        self.step_ns = <uint64_t>(step_seconds * 1e9)
        self.on_ns = on_seconds * 1e9
        self.off_ns = off_seconds * 1e9
        if off_seconds > 0.0:
            self.per_ns *= (on_seconds + off_seconds) / on_seconds
            self.on = False
            self.switch_ns = 0
        return self

    def at_period(self, double seconds, double offset_seconds=0.0):
        """One call every so many seconds, the first after `offset_seconds`."""
        if seconds < 1e-9 or offset_seconds < 0.0:
            raise ValueError("a period is positive, and the past is over")
        self.pattern = PATTERN_PERIOD
        self.period_ns = <uint64_t>(seconds * 1e9 + 0.5)
        self.offset_ns = <uint64_t>(offset_seconds * 1e9 + 0.5)
        return self

    def at_counts(self, object counts, double step_seconds=60.0):
        """`counts` (an array of 32-bit numbers) has the number of calls in each step; they lie in it as independent arrivals do."""
        if step_seconds <= 0.0:
            raise ValueError("a step takes time")
        self.pattern = PATTERN_COUNTS
        self.counts = counts
        self.step_ns = <uint64_t>(step_seconds * 1e9)
        self.step = -1
        return self

    def at_times(self, object times):
        """`times` (an array of 64-bit numbers) has the arrivals in ns, rising."""
        cdef Py_ssize_t i
        self.pattern = PATTERN_TIMES
        self.times = times
        for i in range(1, self.times.shape[0]):
            if self.times[i] < self.times[i - 1]:
                raise ValueError("times rise")
        return self

    def until(self, double seconds):
        """No call arrives at that time or later."""
        self.end_ns = <uint64_t>(seconds * 1e9)
        return self

    cdef uint64_t next_ns(self, fl_rng *rng, uint64_t last_ns) noexcept:
        """When the next call arrives, as the simulation counts, after an arrival at `last_ns`. NEVER: no more."""
        cdef uint64_t after = last_ns - self.zero_ns, found
        if self.pattern == PATTERN_RATE:
            found = self._by_rate(rng, after)
        elif self.pattern == PATTERN_PERIOD:
            found = self.offset_ns if self.arrived == 0 else after + self.period_ns
        elif self.pattern == PATTERN_COUNTS:
            found = self._by_count(rng, after)
        elif self.position < self.times.shape[0]:
            found = self.times[self.position]
            self.position += 1
        else:
            return NEVER
        return self.zero_ns + found if found < self.end_ns and found != NEVER else NEVER

    cdef uint64_t _by_rate(self, fl_rng *rng, uint64_t now) noexcept:
        """Walks through the steps and bursts until as much rate lies behind as an exponential number says."""
        cdef double wanted = fl_rng_exponential(rng)
        cdef double rate, room
        cdef uint64_t border, step
        while now < self.end_ns:
            if now >= self.switch_ns:
                if self.switch_ns == 0:   # the beginning finds it in a burst as often as any other time does
                    self.on = fl_rng_uniform(rng) * (self.on_ns + self.off_ns) < self.on_ns
                else:
                    self.on = not self.on
                self.switch_ns += 1 + <uint64_t>(fl_rng_exponential(rng) * (self.on_ns if self.on else self.off_ns))
                continue
            border = self.switch_ns
            rate = self.per_ns if self.on else 0.0
            if self.steps:
                step = now // self.step_ns
                rate *= self.profile[<Py_ssize_t>(step % <uint64_t>self.steps)]
                if (step + 1) * self.step_ns < border:
                    border = (step + 1) * self.step_ns
            if border == NEVER:
                return NEVER if wanted > rate * <double>NEVER_RATE_NS else now + <uint64_t>(wanted / rate + 0.5)
            room = rate * <double>(border - now)
            if room > wanted:
                return now + <uint64_t>(wanted / rate)
            wanted -= room
            now = border
        return NEVER

    cdef uint64_t _by_count(self, fl_rng *rng, uint64_t now) noexcept:
        """The least of those still to come in the step lies where a power of a uniform number says: they need no sorting."""
        cdef uint64_t begin
        while self.left == 0:
            self.step += 1
            if self.step >= self.counts.shape[0]:
                return NEVER
            self.left = self.counts[self.step]
            now = <uint64_t>self.step * self.step_ns
        begin = <uint64_t>(self.step + 1) * self.step_ns - now
        now += <uint64_t>(<double>begin * (1.0 - fl_rng_uniform(rng) ** (1.0 / self.left)))
        self.left -= 1
        return now


cdef uint64_t NEVER_RATE_NS = <uint64_t>1 << 62
