# Targets and their execution environments.

cdef enum EnvironmentState:
    ENVIRONMENT_STARTING = 0   # launched; INIT not over
    ENVIRONMENT_IDLE = 1
    ENVIRONMENT_BUSY = 2
    ENVIRONMENT_STOPPING = 3   # asked to leave, or killed; counts until the zygote says that it is gone
    ENVIRONMENT_DEAD = 4

ENVIRONMENT_STATES = ("starting", "idle", "busy", "stopping", "dead")

cdef enum:
    SLOTS_MAX = 64             # width of Environment.free_slots
    LARGE_REPLY_GRACE_NS = 500000000
    RETRY_LOST_START_MAX = 3   # a call that was never begun moves on to another environment so often
    CALLBACK_TRIES_MAX = 100   # a completion callback that is interrupted is called again so often

cdef double FOREVER_SECONDS = 1e9   # thirty years; longer times, infinite ones too, mean never


cdef class Target:
    """What can be invoked: one version of one function of one account and region, or the tasks of one executor.

    `spec` is the launcher's: the core never looks into it. `log` takes one record an invocation (telemetry.logs.FunctionLog), or is None.
    Only the driver touches a target after it has been given to `Dispatcher.add`.
    """

    cdef readonly str name
    cdef readonly object spec
    cdef readonly FunctionPool pool        # None for executors
    cdef readonly bint is_function
    cdef readonly bint provisioned         # it is a ProvisionedTarget
    cdef readonly bint restores            # its environments come from a snapshot: what they do before their first call is a restore
    cdef ProvisionedTarget ahead           # whose environments its calls take first, or None
    cdef readonly int64_t timeout_ns       # 0: none
    cdef readonly int slots_per_environment
    cdef bint shares              # an environment may hold tasks behind one another while it could have others
    cdef readonly int environments_max     # of this target; -1: no bound of its own
    cdef readonly int64_t tasks_per_environment_max   # 0: no bound
    cdef readonly int64_t keepalive_ns     # an environment that idles for longer is stopped; 0: after each call; -1: never
    cdef readonly bint freezes             # idle environments stand still
    cdef readonly int64_t recycle_ns       # one that is older is stopped as soon as it has no call; 0: never
    cdef readonly object log               # telemetry.logs.FunctionLog, or None
    cdef object log_append                 # the methods of it that each invocation calls
    cdef object log_sequence
    cdef readonly bint retired
    cdef Environment idle_top              # of the idle ones the one used last, see idle.pxi
    cdef int idle_count
    cdef set environments
    cdef object waiting                    # deque of invocations
    cdef int starting
    cdef int live                          # starting, idle and busy
    cdef bint starved                      # in Dispatcher.starved
    cdef int outstanding                   # calls submitted and not done
    cdef bint abandoned                    # dismissed by force: its calls are cancelled
    cdef bint growing                      # inside Dispatcher._grow
    cdef int lost_starts                   # workers in a row that a signal ended before they were up
    cdef Environment filling               # the environment that tiny calls are given to, one behind the other
    cdef double task_ns                    # moving average of their durations; < 0 unknown
    cdef readonly uint64_t invocations, throttles, errors, timeouts, cold_starts, queued

    def __cinit__(
        self, str name, object spec, FunctionPool pool=None, int64_t timeout_ms=0, int slots_per_environment=1,
        int environments_max=-1, int64_t tasks_per_environment_max=0, object log=None, double keepalive_seconds=-1.0,
        double recycle_after_seconds=0.0, bint freezes=False, bint restores=False,
    ):
        if not 1 <= slots_per_environment <= SLOTS_MAX:
            raise ValueError(f"slots_per_environment is {slots_per_environment}; it must be 1 to {SLOTS_MAX}")
        self.name = name
        self.spec = spec
        self.pool = pool
        self.is_function = pool is not None
        self.restores = restores
        self.timeout_ns = timeout_ms * 1000000
        self.slots_per_environment = slots_per_environment
        self.shares = pool is None and slots_per_environment > 1
        self.environments_max = environments_max
        self.tasks_per_environment_max = tasks_per_environment_max
        self.keepalive_ns = <int64_t>(keepalive_seconds * 1e9) if 0.0 <= keepalive_seconds < FOREVER_SECONDS else -1
        self.recycle_ns = <int64_t>(recycle_after_seconds * 1e9) if 0.0 < recycle_after_seconds < FOREVER_SECONDS else 0
        self.freezes = freezes
        self.log = log
        if log is not None:
            self.log_append = log.records.append
            self.log_sequence = log.next_sequence
        self.environments = set()
        self.waiting = deque()
        self.task_ns = -1.0

    @property
    def counts(self):
        """(starting, idle, busy, waiting calls)."""
        return self.starting, self.idle_count, self.live - self.starting - self.idle_count, len(self.waiting)

    cdef int depth(self) noexcept:
        """How many tasks one environment may hold: one, unless tasks are so short that fetching the next would dominate."""
        cdef double depth
        if self.slots_per_environment == 1 or self.task_ns < 0:
            return 1
        depth = 400000.0 / (self.task_ns + 1000.0)
        if depth < 1.0:
            return 1
        if depth > self.slots_per_environment:
            return self.slots_per_environment
        return <int>depth


cdef class Environment:
    """One execution environment as the dispatcher sees it: lane, slots, deadline, log. Owned by the driver.

    `launcher.launch(environment)` fills in what belongs to the process (`attach_lane` or `attach_socket`, `attach_process`).
    """

    cdef readonly int id
    cdef readonly Target target
    cdef readonly Dispatcher dispatcher
    cdef int state
    cdef int process_id                    # -1 until the zygote has told; never shown so: kill(-1) is everybody
    cdef readonly int pidfd
    cdef int lane_fd                       # what epoll watches: the connection, or ZMQ_FD of the socket; -1: no lane (any more)
    cdef fl_zmtp connection
    cdef object backlog                    # deque of memoryviews that the connection has not taken yet
    cdef bint writable_watched             # the driver hears when it takes more
    cdef bint paused                       # nothing is read: the caller of its stream does not keep up
    cdef bint draining                     # everything is read, whether its caller keeps up or not
    cdef uint64_t lane_closed_ns           # when its other end was found closed, and nothing more is sent; 0: it was not
    cdef bint lane_at_end                  # nothing more comes either
    cdef readonly object socket            # pyzmq PAIR socket in place of the connection, or None
    cdef fl_express express                # its shared memory, with has_express: what frames pass through; the connection then only
    cdef int64_t frame_bytes_max           # -1: no bound
    cdef bint has_express                  # carries what is too long for it, and tells by its end that the worker has gone
    cdef int bell_fd                       # eventfd that the worker rings; -1: none
    cdef bint bell_set                     # the worker has been asked to ring it
    cdef bint hot                          # in Driver.hot
    cdef bint by_socket_due                # the next frame comes by the connection
    cdef readonly uint64_t copied_bytes    # of records, in all
    cdef uint64_t drain_end, drain_copied  # where a drain ends: position in the ring; `copied_bytes` at its beginning
    cdef object crowd                      # deque of (kind, header, payload) for which there is no room yet, or None
    cdef readonly int log_fd
    cdef readonly int64_t log_offset
    cdef object init_logs
    cdef int64_t logs_dropped_bytes
    cdef fl_slots slots
    cdef bint has_slots
    cdef uint64_t free_slots               # bit mask
    cdef Environment idle_above, idle_below   # neighbours among the idle ones of its target; written by idle.pxi only
    cdef Environment idle_newer, idle_older   # and among all idle ones
    cdef bint lined_up                     # among them
    cdef bint frozen                       # all its processes stand still
    cdef list held                         # slot -> Invocation or None
    cdef int outstanding
    cdef uint64_t posts                    # invocations that it was given, those that were taken back among them
    cdef uint64_t done_count               # calls that have left it
    cdef bint stacked                      # in Driver.stacked
    cdef uint64_t done_count_seen          # by Stacking._rebalance
    cdef list outbox                       # tasks posted and not yet sent: (slot, payload)
    cdef bint unsent                       # in Dispatcher.unsent
    cdef fl_timer timer                    # INIT deadline, invocation deadline, or grace after death
    cdef bint recheck                      # in Dispatcher.rechecks
    cdef bint timed_out                    # its own deadline fired: the kill is ours
    cdef bint second_init                  # made for one call whose INIT has failed once
    cdef bint worn                         # it takes no call after the ones that it has
    cdef readonly bint was_reset           # a timeout or a crash has ended it, in INIT or in a call. To Lambda the next one of its target
                                           # is the same environment with a new process: what outlives that, /tmp, goes on to it
    cdef bint cut_short                    # ended by `end` before it was up
    cdef bint broken                       # it broke the protocol: nothing more that it says is believed
    cdef bint exited                       # the zygote has reaped it
    cdef int wait_status
    cdef readonly uint64_t born_ns
    cdef uint64_t begun_ns                 # when INIT began, which is when its process was there; 0: it is not yet
    cdef readonly uint64_t idle_since_ns
    cdef readonly int64_t init_ns
    cdef readonly int64_t memory_peak_kib
    cdef int memory_fd                     # where the kernel says how much the environment has had at most; -1: its worker says it
    cdef int64_t memory_base_bytes, memory_bytes_max   # that do not count there; beyond which it has none
    cdef bytes memory_stat_path            # of its group; None where nothing counts
    cdef int64_t memory_unsaid_bytes       # what its group has beyond what its worker says of itself; negative: less
    cdef int64_t memory_raw_bytes          # the peak that was read last, page cache included
    cdef int64_t memory_io_bytes           # what its worker had read from disks and written to them by then
    cdef readonly int64_t memory_cache_bytes   # the most page cache that its group is known to have had
    cdef uint64_t unmeasured_ns            # handlers' time since it was looked at
    cdef public object on_ready            # the launcher's, called with the environment after its INIT; or None
    cdef public object on_reset            # the launcher's, called with the environment as soon as `was_reset` is set; or None
    cdef readonly uint64_t invocations
    cdef readonly object end_reason        # str once it was ended for a reason of its own
    cdef Call init_for               # call whose second INIT attempt this is (phase: invoke), or None

    def __cinit__(self, Dispatcher dispatcher, Target target, int id):
        self.dispatcher = dispatcher
        self.target = target
        self.id = id
        self.state = ENVIRONMENT_STARTING
        self.process_id = self.pidfd = self.lane_fd = self.log_fd = -1
        self.held = [None] * target.slots_per_environment
        self.free_slots = (<uint64_t>1 << target.slots_per_environment) - 1 if target.slots_per_environment < 64 else ~<uint64_t>0
        fl_timer_init(&self.timer, <void *>self)
        self.born_ns = dispatcher._now()
        self.init_ns = -1
        self.outbox = []
        self.backlog = deque()
        self.connection.fd = self.bell_fd = self.memory_fd = -1

    def __dealloc__(self):
        if self.memory_fd >= 0:
            close(self.memory_fd)
        fl_zmtp_close(&self.connection)
        fl_express_close(&self.express)
        if self.has_slots:
            fl_slots_close(&self.slots)

    @property
    def pid(self):
        """The process, or None as long as the zygote has not told of it."""
        return self.process_id if self.process_id > 0 else None

    @property
    def phase(self):
        """"init", or "invoke" when this is the second INIT attempt, made within the invocation's own timeout."""
        return "init" if self.init_for is None else "invoke"

    def attach_slots(self, int fd, uint32_t mirror_bytes):
        """Makes the slot table in the memfd `fd`, which stays the caller's. Raises OSError."""
        cdef int rc = fl_slots_create(&self.slots, fd, self.target.slots_per_environment, mirror_bytes)
        if rc != 0:
            raise OSError(-rc, f"the slot table cannot be made: {os.strerror(-rc)}")
        self.has_slots = True

    def attach_express(self, int fd, int bell_fd, uint32_t ring_bytes, uint64_t region_bytes):
        """Makes the express lane's memory in the memfd `fd`, which stays the caller's; the eventfd `bell_fd`, which the worker rings, is
        this object's from now on. Raises OSError."""
        cdef int rc
        self.bell_fd = bell_fd
        rc = fl_express_create(&self.express, fd, ring_bytes, region_bytes)
        if rc != 0:
            raise OSError(-rc, f"the express lane's memory cannot be made: {os.strerror(-rc)}")
        self.has_express = True
        self.dispatcher._watch_bell(self)

    def attach_lane(self, int fd, int64_t frame_bytes_max, int log_fd):
        """Hands over the connected, non-blocking unix socket and the memfd of the output (-1: output is not captured). A frame over
        `frame_bytes_max` ends the environment; -1: no bound. Raises OSError; the descriptors belong to this object either way."""
        cdef int rc
        self.log_fd = log_fd
        self.frame_bytes_max = frame_bytes_max
        rc = fl_zmtp_open(&self.connection, fd, <uint64_t>frame_bytes_max)
        if rc != 0:
            raise OSError(-rc, f"the lane cannot be opened: {os.strerror(-rc)}")
        self.lane_fd = fd
        self.dispatcher._watch(fd, self.id)

    def attach_socket(self, object socket, int log_fd):
        """As `attach_lane`, with a PAIR socket of pyzmq, which knows its own limit."""
        self.log_fd = log_fd
        self.socket = socket
        self.lane_fd = socket.FD
        self.dispatcher._watch(self.lane_fd, self.id)
        self.dispatcher._recheck(self)

    def attach_process(self, int pid, int pidfd):
        """The zygote has forked the process; `pidfd` belongs to this object from now on."""
        self.process_id = pid
        self.pidfd = pidfd
        if self.state >= ENVIRONMENT_STOPPING:
            self._signal()
        elif self.state == ENVIRONMENT_STARTING:
            self.dispatcher._init_begins(self)

    def measure_memory(self, int fd, int64_t base_bytes, int64_t bytes_max, bytes stat_path=None):
        """From now on its peak is what the kernel writes at the beginning of the file `fd`, which is this object's from now on, in bytes,
        and `base_bytes` more; `bytes_max` at most. Until then it is what the worker says of itself. `stat_path`: memory.stat of its group,
        by which page cache is left out."""
        self.memory_stat_path = stat_path
        if self.memory_fd >= 0:
            close(self.memory_fd)
        self.memory_fd, self.memory_base_bytes, self.memory_bytes_max = fd, base_bytes, bytes_max

    cdef int64_t _memory_peak_kib(self, int64_t said_kib, uint64_t duration_ns) noexcept:
        """After so much more of handlers' time; `said_kib` is what the worker says."""
        cdef char digits[24]
        cdef ssize_t got
        cdef int64_t found
        if self.memory_fd < 0:
            return said_kib
        self.unmeasured_ns += duration_ns
        if self.unmeasured_ns < MEMORY_LOOK_NS:
            return self.memory_peak_kib
        self.unmeasured_ns = 0
        got = pread(self.memory_fd, digits, sizeof(digits) - 1, 0)
        if got <= 0:
            return max(said_kib, self.memory_peak_kib)
        digits[got] = 0
        found = self._without_cache(min(<int64_t>strtoll(digits, NULL, 10), self.memory_bytes_max), said_kib)
        return max(min(found + self.memory_base_bytes, self.memory_bytes_max) >> 10, self.memory_peak_kib)

    cdef int64_t _without_cache(self, int64_t raw_bytes, int64_t said_kib) noexcept:
        """What of a peak is no page cache, at least. The kernel counts both in one and keeps the peak of their sum only; how much cache
        there was at that moment is bounded by what the worker has read from disks and written to them since the look before."""
        cdef int64_t io_bytes, cache_bytes, kept_bytes, most_bytes
        cdef bint grown = raw_bytes > self.memory_raw_bytes
        if self.memory_raw_bytes == 0:   # INIT is over: nothing but the worker has had any
            self.memory_unsaid_bytes = max(raw_bytes - (said_kib << 10), -self.memory_base_bytes)
        if self.memory_stat_path is None or not grown and self.memory_cache_bytes < CACHE_LEAST_BYTES:
            return raw_bytes
        io_bytes = max(disk_bytes(self.process_id), self.memory_io_bytes)
        most_bytes = self.memory_cache_bytes + io_bytes - self.memory_io_bytes
        self.memory_io_bytes = io_bytes
        self.memory_raw_bytes = raw_bytes
        if most_bytes < CACHE_LEAST_BYTES:
            self.memory_cache_bytes = most_bytes
            return raw_bytes
        read_memory_stat(PyBytes_AS_STRING(self.memory_stat_path), &cache_bytes, &kept_bytes)
        self.memory_cache_bytes = max(self.memory_cache_bytes, cache_bytes)
        kept_bytes = max(kept_bytes, (said_kib << 10) + self.memory_unsaid_bytes)
        return max(kept_bytes, raw_bytes - max(most_bytes, self.memory_cache_bytes)) if grown else kept_bytes

    def process_exited(self, int wait_status, int64_t memory_peak_kib):
        """The zygote has reaped the process (or died, and with it the process)."""
        if memory_peak_kib > self.memory_peak_kib:
            self.memory_peak_kib = memory_peak_kib
        self.dispatcher._exited(self, wait_status)

    def start_failed(self, str reason):
        """The process could not be made at all."""
        self.end_reason = reason
        self.dispatcher._exited(self, -1)

    def end(self, str reason):
        """Kills the process; whatever it ran fails with the way it died."""
        if self.state < ENVIRONMENT_STOPPING:
            self.end_reason = reason
            self.cut_short = self.state == ENVIRONMENT_STARTING
            self.dispatcher._stop(self)

    cdef bint used_up(self) noexcept:
        """It has been given as many calls as it may have."""
        cdef int64_t most = self.target.tasks_per_environment_max
        return self.worn and self.invocations != 0 or most != 0 and self.invocations >= <uint64_t>most

    cdef void _signal(self) noexcept:
        if self.pidfd >= 0 and not self.exited:
            try:
                signal.pidfd_send_signal(self.pidfd, 9)
            except OSError:
                pass  # already gone: the zygote's word is on its way

    def snapshot(self):
        """State for `ps`: a dict of plain values."""
        cdef uint64_t now = self.dispatcher._now()
        return {
            "id": self.id,
            "name": self.target.name,
            "state": ENVIRONMENT_STATES[self.state],
            "pid": self.pid,
            "memory_peak_kib": self.memory_peak_kib,
            "invocations": self.invocations,
            "outstanding": self.outstanding,
            "age_seconds": (now - self.born_ns) / 1e9,
            "idle_seconds": (now - self.idle_since_ns) / 1e9 if self.state == ENVIRONMENT_IDLE else 0.0,
            "provisioned": self.target.provisioned,
            "frozen": self.frozen,
        }
