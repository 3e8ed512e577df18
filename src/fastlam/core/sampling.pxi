# What a simulation draws, and how it counts what came of it.

cdef extern from *:
    int __builtin_clzll(unsigned long long value) nogil

cdef enum Shape:
    SHAPE_CONSTANT = 0
    SHAPE_EXPONENTIAL = 1
    SHAPE_LOGNORMAL = 2
    SHAPE_QUANTILES = 3

SAMPLER_KINDS = ("constant", "exponential", "lognormal", "quantiles")


cdef class Sampler:
    """Draws times: `constant` (seconds), `exponential` (its mean in seconds), `lognormal` (mean and deviation of the natural logarithm of
    the seconds), or `quantiles`: pairs of a level and its seconds, rising, straight lines between them."""

    cdef readonly str kind
    cdef int shape
    cdef double first, second
    cdef double[::1] levels, values

    def __cinit__(self, str kind, double first=0.0, double second=0.0, object quantiles=()):
        if kind not in SAMPLER_KINDS:
            raise ValueError(f"a sampler is one of {', '.join(SAMPLER_KINDS)}, not {kind!r}")
        self.kind = kind
        self.shape = SAMPLER_KINDS.index(kind)
        self.first = first
        self.second = second
        if self.shape == SHAPE_QUANTILES:
            pairs = [(float(level), float(seconds)) for level, seconds in quantiles]
            if len(pairs) < 2 or pairs != sorted(pairs) or pairs[0][0] != 0.0 or pairs[len(pairs) - 1][0] != 1.0 or pairs[0][1] < 0.0:
                raise ValueError("quantiles are at least two rising pairs of level and seconds, from level 0 to level 1")
            if [seconds for _, seconds in pairs] != sorted([seconds for _, seconds in pairs]):
                raise ValueError("the seconds of quantiles do not fall")
            self.levels = array.array("d", [level for level, _ in pairs])
            self.values = array.array("d", [seconds for _, seconds in pairs])
        elif self.shape != SHAPE_LOGNORMAL and first < 0.0 or second < 0.0:
            raise ValueError("times are not negative")

    cdef int64_t draw(self, fl_rng *rng) noexcept:
        """The next time in ns."""
        cdef double seconds, level
        cdef Py_ssize_t i
        if self.shape == SHAPE_CONSTANT:
            seconds = self.first
        elif self.shape == SHAPE_EXPONENTIAL:
            seconds = self.first * fl_rng_exponential(rng)
        elif self.shape == SHAPE_LOGNORMAL:
            seconds = exp(self.first + self.second * fl_rng_normal(rng))
        else:
            level = fl_rng_uniform(rng)
            i = 1
            while level > self.levels[i]:
                i += 1
            seconds = self.values[i] - (self.values[i] - self.values[i - 1]) * (
                (self.levels[i] - level) / (self.levels[i] - self.levels[i - 1])
            )
        if seconds > TIME_SECONDS_MAX:
            seconds = TIME_SECONDS_MAX   # of a heavy tail; it must fit into a clock of 64 bits
        return <int64_t>(seconds * 1e9 + 0.5)

    def sample(self, int count, uint64_t seed):
        """`count` times in seconds, for looking at."""
        cdef fl_rng rng
        cdef int i
        fl_rng_seed(&rng, seed)
        return [self.draw(&rng) / 1e9 for i in range(count)]


cdef enum:
    BUCKET_BITS = 6              # 64 buckets for each doubling: a value is known to 1.6 %
    BUCKETS = (64 - BUCKET_BITS + 1) << BUCKET_BITS

cdef double TIME_SECONDS_MAX = 1e8


cdef class Histogram:
    """Counts of times in ns, in buckets that grow with the value; the mean is exact."""

    cdef uint64_t[BUCKETS] buckets
    cdef readonly uint64_t count
    cdef double sum_ns
    cdef readonly uint64_t longest_ns

    cdef void record(self, uint64_t value_ns) noexcept:
        cdef int shift = 63 - BUCKET_BITS - __builtin_clzll(value_ns | 1)
        if shift < 0:
            shift = 0
        self.buckets[(<uint64_t>shift << BUCKET_BITS) + (value_ns >> shift)] += 1
        self.count += 1
        self.sum_ns += <double>value_ns
        if value_ns > self.longest_ns:
            self.longest_ns = value_ns

    cdef void clear(self) noexcept:
        memset(self.buckets, 0, sizeof(self.buckets))
        self.count = self.longest_ns = 0
        self.sum_ns = 0.0

    @property
    def mean_seconds(self):
        """0 of nothing."""
        return self.sum_ns / self.count / 1e9 if self.count else 0.0

    def quantile(self, double level):
        """The upper end, in seconds, of the bucket below which this share of the values lies; 0 of nothing."""
        cdef uint64_t wanted = <uint64_t>(level * self.count)
        cdef uint64_t seen = 0
        cdef int i
        if self.count == 0:
            return 0.0
        if wanted >= self.count:
            wanted = self.count - 1
        for i in range(BUCKETS):
            seen += self.buckets[i]
            if seen > wanted:
                return min(self._upper(i), self.longest_ns) / 1e9
        return self.longest_ns / 1e9

    def above(self, double seconds):
        """How many were longer, to the nearest bucket's end."""
        cdef uint64_t bound = <uint64_t>(seconds * 1e9)
        cdef uint64_t found = 0
        cdef int i
        for i in range(BUCKETS):
            if self.buckets[i] and self._upper(i) > bound:
                found += self.buckets[i]
        return found

    cdef uint64_t _upper(self, int index) noexcept:
        """The largest value of a bucket."""
        cdef int shift = (index >> BUCKET_BITS) - 1
        if shift < 1:
            return index
        return ((<uint64_t>(index & ((1 << BUCKET_BITS) - 1)) + (1 << BUCKET_BITS) + 1) << shift) - 1

    def filled(self):
        """(upper end in seconds, count) of each bucket that holds something, rising."""
        return [(self._upper(i) / 1e9, self.buckets[i]) for i in range(BUCKETS) if self.buckets[i]]
