# Counting: who may run how much (spec: admission in the order reserved, account, unreserved, rates).

cdef class TokenBucket:
    """Continuously refilled allowance, full until the first `take`, which only the driver calls, with its own clock."""

    cdef double tokens, size, per_ns
    cdef uint64_t last_ns

    def __cinit__(self, double size, double per_second):
        self.tokens = self.size = size
        self.per_ns = per_second / 1e9

    cdef bint take(self, uint64_t now) noexcept:
        self.tokens += (now - self.last_ns) * self.per_ns
        self.last_ns = now
        if self.tokens > self.size:
            self.tokens = self.size
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True

    cdef void give_back(self) noexcept:
        self.tokens += 1.0

    cdef void resize(self, double size, double per_second) noexcept:
        self.size = size
        self.per_ns = per_second / 1e9
        if self.tokens > size:
            self.tokens = size


cdef class AccountPool:
    """Concurrency of one account in one region. `limit` is L, `reserved_total` the sum of all reservations."""

    cdef readonly str account
    cdef readonly str region
    cdef readonly int limit
    cdef readonly int running
    cdef readonly int unreserved_running
    cdef readonly int reserved_total
    cdef readonly int provisioned_total   # set aside for environments made ahead, of functions without a reservation
    cdef readonly bint enforce_rates
    cdef TokenBucket requests
    cdef TokenBucket events     # asynchronous ones that are accepted

    def __cinit__(self, str account, str region, int limit, bint enforce_rates=False):
        self.account = account
        self.region = region
        self.limit = limit
        self.enforce_rates = enforce_rates
        self.requests = TokenBucket(10.0 * limit, 10.0 * limit)
        self.events = TokenBucket(10.0 * limit, 10.0 * limit)

    def accepts_event(self):
        """Whether one more asynchronous event may be accepted now: as many a second as requests, counted apart."""
        return not self.enforce_rates or self.events.take(monotonic_ns())

    def set_limit(self, int limit):
        """Changes L for new admissions; what runs goes on."""
        self.limit = limit
        self.requests.resize(10.0 * limit, 10.0 * limit)
        self.events.resize(10.0 * limit, 10.0 * limit)


cdef class FunctionPool:
    """Concurrency of one function over all its versions. `reserved` is -1 without a reservation."""

    cdef readonly AccountPool account
    cdef readonly str name
    cdef readonly int reserved
    cdef readonly int running
    cdef readonly int provisioned           # of the reservation, or of the account: set aside for environments made ahead
    cdef readonly int provisioned_running   # calls in these
    cdef TokenBucket requests   # of the reservation, None without one
    cdef TokenBucket scaling    # new environments: 1000 at once, 100 more a second

    def __cinit__(self, AccountPool account not None, str name):
        self.account = account
        self.name = name
        self.reserved = -1
        self.scaling = TokenBucket(1000.0, 100.0)

    def set_reserved(self, int reserved):
        """Sets the reservation (-1 takes it away) for new admissions; what runs counts in the pool that the function now has."""
        cdef AccountPool account = self.account
        if self.reserved >= 0:
            account.reserved_total -= self.reserved
        else:
            account.unreserved_running -= self.running - self.provisioned_running
            account.provisioned_total -= self.provisioned
        self.reserved = reserved
        if reserved >= 0:
            account.reserved_total += reserved
            self.requests = TokenBucket(10.0 * reserved, 10.0 * reserved)
        else:
            account.unreserved_running += self.running - self.provisioned_running
            account.provisioned_total += self.provisioned
            self.requests = None

    def set_provisioned(self, int provisioned):
        """Sets so much aside for environments made ahead; what else the function runs has the rest of its reservation, or of the
        account."""
        if self.reserved < 0:
            self.account.provisioned_total += provisioned - self.provisioned
        self.provisioned = provisioned

    def provisioned_pool(self):
        """A pool for calls in environments made ahead, which count here too."""
        cdef ProvisionedPool pool = ProvisionedPool(self.account, self.name)
        pool.whole = self
        return pool

    cdef int admit(self, bint needs_environment, uint64_t now) noexcept:
        """One of Throttle; NONE takes a slot that `release` gives back. `now` is read where rates are enforced."""
        cdef AccountPool account = self.account
        if self.reserved >= 0 and (self.running >= self.reserved
                                   or self.running - self.provisioned_running >= self.reserved - self.provisioned):
            return THROTTLE_RESERVED_CONCURRENCY
        if account.running >= account.limit:
            return THROTTLE_CONCURRENCY
        if self.reserved < 0 and account.unreserved_running >= account.limit - account.reserved_total - account.provisioned_total:
            return THROTTLE_CONCURRENCY
        if account.enforce_rates:
            if needs_environment and not self.scaling.take(now):
                return THROTTLE_RATE
            if not (account.requests if self.requests is None else self.requests).take(now):
                if needs_environment:
                    self.scaling.give_back()   # there is no environment after all
                return THROTTLE_RATE if self.requests is None else THROTTLE_RESERVED_RATE
        self.running += 1
        account.running += 1
        if self.reserved < 0:
            account.unreserved_running += 1
        return THROTTLE_NONE

    cdef void release(self) noexcept:
        self.running -= 1
        self.account.running -= 1
        if self.reserved < 0:
            self.account.unreserved_running -= 1
