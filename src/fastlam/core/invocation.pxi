# One call on its way through the dispatcher.

cdef enum State:
    STATE_NEW = 0
    STATE_SUBMITTED = 1   # in the ring
    STATE_WAITING = 2     # admitted; no environment yet
    STATE_RUNNING = 3     # posted to an environment
    STATE_DONE = 4

cdef enum Throttle:
    THROTTLE_NONE = 0
    THROTTLE_CONCURRENCY = 1
    THROTTLE_RESERVED_CONCURRENCY = 2
    THROTTLE_RATE = 3
    THROTTLE_RESERVED_RATE = 4

THROTTLE_REASONS = (
    "",
    "ConcurrentInvocationLimitExceeded",
    "ReservedFunctionConcurrentInvocationLimitExceeded",
    "FunctionInvocationRateLimitExceeded",
    "ReservedFunctionInvocationRateLimitExceeded",
)

# How a call ended; `Invocation.outcome` holds one of these.
OUTCOME_PENDING = -1
OUTCOME_OK = 0
OUTCOME_FUNCTION_ERROR = 1   # the payload is the error JSON (or the pickled exception of a task)
OUTCOME_THROTTLED = 2        # never ran; throttle_reason tells why
OUTCOME_REJECTED = 3         # never ran; too many calls wait for this machine's bound on environments
OUTCOME_LOST = 4             # a task whose worker died while it ran
OUTCOME_CANCELLED = 5        # never ran
OUTCOME_FAILED = 6           # no environment could be started; `error` tells why

cdef enum:
    C_PENDING = -1
    C_OK = 0
    C_FUNCTION_ERROR = 1
    C_THROTTLED = 2
    C_REJECTED = 3
    C_LOST = 4
    C_CANCELLED = 5
    C_FAILED = 6

# Ends of the process rather than of the code: the log then shows the payload's message.
PLATFORM_ERRORS = frozenset({"Sandbox.Timedout", "Runtime.ExitError", "Runtime.OutOfMemory"})

cdef enum:
    RANDOM_POOL_BYTES = 4096

cdef unsigned char[4096] random_pool
cdef size_t random_left = 0


def forget_randomness():
    """Empties the pool of random bytes; called in a child after fork so that no two processes share request ids."""
    global random_left
    random_left = 0


cdef str new_request_id():
    """A random UUID (version 4) in its text form; a tenth of the price of uuid.uuid4()."""
    global random_left
    cdef unsigned char *source
    cdef char[36] text
    cdef const char *digits = b"0123456789abcdef"
    cdef int i, position = 0
    cdef unsigned char byte
    if random_left < 16:
        if getrandom(random_pool, RANDOM_POOL_BYTES, 0) != RANDOM_POOL_BYTES:
            raise OSError("getrandom gave too little")
        random_left = RANDOM_POOL_BYTES
    random_left -= 16
    source = random_pool + random_left
    source[6] = (source[6] & 0x0F) | 0x40
    source[8] = (source[8] & 0x3F) | 0x80
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            text[position] = c"-"
            position += 1
        byte = source[i]
        text[position] = digits[byte >> 4]
        text[position + 1] = digits[byte & 15]
        position += 2
    return PyUnicode_DecodeASCII(text, 36, NULL)


def request_id():
    """A new request id: the text of a random UUID."""
    return new_request_id()


@cython.no_gc
cdef class Call:
    """What the dispatcher runs, of whichever kind: an Invocation of a function, or a task of an executor.

    The garbage collector does not look at what stands here, only at what subclasses add: the circle of a call and its environment ends
    with the call, and there is no other.

    Times are CLOCK_MONOTONIC nanoseconds.
    """

    cdef readonly Target target
    cdef readonly object payload          # bytes, or a list of buffers; dropped when done
    cdef bint is_task                     # it is a TaskCall
    cdef int state
    cdef readonly int outcome
    cdef object answer                    # bytes
    cdef readonly str error
    cdef readonly int throttle
    cdef readonly int attempts            # INIT attempts that failed for this call, and starts that it lost
    cdef readonly uint64_t submitted_ns
    cdef readonly uint64_t posted_ns
    cdef readonly uint64_t done_ns
    cdef readonly int64_t duration_ns
    cdef readonly int64_t cpu_ns
    cdef readonly int environment_id
    cdef int slot
    cdef Environment environment
    cdef object waiter                    # lock that a waiting thread sleeps on
    cdef object watcher                   # see `watch`

    def watch(self, object candidate not None):
        """The one watcher of this call's end: the first candidate, whoever asks. None once `unwatched` has found that there was none.

        One step for other threads, as `unwatched` is: neither lets go of the interpreter.
        """
        if self.watcher is None:
            self.watcher = candidate
        return None if self.watcher is Ellipsis else self.watcher

    def unwatched(self):
        """None: nobody watches, and nobody will. Otherwise the watcher."""
        if self.watcher is None:
            self.watcher = Ellipsis
        return None if self.watcher is Ellipsis else self.watcher


cdef class Invocation(Call):
    """One invocation of a function: what is asked (set by the caller), and what came of it (set by the driver).

    `init_ns` is -1 unless this call met a cold start.
    """

    cdef public object on_done            # called with this object, in the driving thread; must not raise. Once, but for
                                          # a KeyboardInterrupt, after which it is called again
    cdef public object tag                # the caller's own
    cdef public bint streams              # set before it is submitted: the answer is taken in pieces, by Dispatcher.take_pieces
    cdef public object on_chunk           # called as on_done is when pieces have come, or the answer has begun; None: nobody is told
    cdef readonly str request_id
    cdef public str invoked_function_arn
    cdef public str trace_id
    cdef public str client_context
    cdef public str tenant_id

    cdef readonly str error_type
    cdef readonly str content_type
    cdef readonly int64_t init_ns
    cdef readonly int64_t memory_peak_kib
    cdef readonly int64_t epoch_ms        # when it was posted, for log lines
    cdef readonly object init_logs        # bytes printed during INIT by this call's environment, None otherwise
    cdef readonly object logs             # bytes printed, None when nothing was
    cdef readonly int64_t logs_dropped_bytes
    cdef readonly bint streamed           # its answer has begun to come in pieces: `result` is no part of it
    cdef readonly int64_t streamed_bytes  # so much of it has come
    cdef uint64_t post_number             # its environment's, in the order in which they are run
    cdef list pieces                      # what nobody has taken yet
    cdef int64_t pieces_bytes

    def __cinit__(self, Target target not None, object payload not None, str request_id=None):
        self.target = target
        self.payload = payload
        self.outcome = C_PENDING
        self.init_ns = -1
        self.environment_id = -1
        self.error_type = ""
        self.invoked_function_arn = ""
        if target.is_function:
            self.request_id = new_request_id() if request_id is None else request_id

    @property
    def done(self):
        """True when the outcome is there."""
        return self.state == STATE_DONE

    @property
    def running(self):
        """True from the moment the call is in an environment's hands until it is done."""
        return self.state == STATE_RUNNING

    @property
    def result(self):
        """The answer: bytes, None before it is there."""
        return self.answer

    @property
    def throttle_reason(self):
        """Lambda's Reason of a throttled call, an empty string otherwise."""
        return THROTTLE_REASONS[self.throttle]

    @property
    def queue_ns(self):
        """From submission until the call was in an environment's hands (cold start included), 0 if it never was."""
        return self.posted_ns - self.submitted_ns if self.posted_ns else 0

    def __repr__(self):
        return f"<Invocation {self.request_id or id(self)} of {self.target.name} state={self.state} outcome={self.outcome}>"
