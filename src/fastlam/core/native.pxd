"""C declarations shared by the Cython modules: csrc/ and the few system calls that the hot path makes."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    cdef struct itimerspec:
        timespec it_interval
        timespec it_value
    int clock_gettime(int clock, timespec *out)
    int CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_PROCESS_CPUTIME_ID

cdef extern from "<sys/timerfd.h>" nogil:
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *new_value, itimerspec *old_value)
    int TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME

cdef extern from "<sys/resource.h>" nogil:
    cdef struct rusage:
        long ru_maxrss
    int getrusage(int who, rusage *usage)
    int RUSAGE_SELF

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *buffer, size_t length, unsigned int flags)

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "fl_zmtp.h" nogil:
    enum:
        FL_ZMTP_HEADER_BYTES_MAX
        FL_ZMTP_PARTS_MAX
    ctypedef struct fl_zmtp:
        int fd
    int fl_zmtp_accept(fl_zmtp *out, int listen_fd)
    int fl_zmtp_open(fl_zmtp *out, int fd, uint64_t message_bytes_max)
    int64_t fl_zmtp_fill(fl_zmtp *connection)
    int64_t fl_zmtp_unread(const fl_zmtp *connection)
    int64_t fl_zmtp_next(fl_zmtp *connection, const uint8_t **data)
    ssize_t fl_zmtp_write(fl_zmtp *connection, const iovec *parts, int count)
    int64_t fl_zmtp_receive(fl_zmtp *connection, const uint8_t **data)
    size_t fl_zmtp_header(uint8_t *out, uint64_t size)
    int fl_zmtp_send(fl_zmtp *connection, iovec *parts, int count)
    void fl_zmtp_close(fl_zmtp *connection)

cdef extern from "fl_ring.h" nogil:
    ctypedef struct fl_ring:
        pass
    int FL_RING_OK, FL_RING_WAKE, FL_RING_FULL, FL_RING_EMPTY
    int fl_ring_create(fl_ring **out, uint32_t slot_count, uint32_t record_bytes_max)
    void fl_ring_destroy(fl_ring *ring)
    int fl_ring_push(fl_ring *ring, const void *record, uint32_t record_bytes)
    int64_t fl_ring_pop(fl_ring *ring, void *record, uint32_t capacity)
    int fl_ring_announce_sleep(fl_ring *ring)
    void fl_ring_announce_awake(fl_ring *ring)
    uint32_t fl_ring_size(const fl_ring *ring)

cdef extern from "fl_between.h":
    int fl_between_fork(
        int (*prepare)(void *) noexcept, void *argument, void (*before_fork)() noexcept, void (*in_parent)() noexcept,
        void (*in_child)() noexcept
    )

cdef extern from "fl_first.h" nogil:
    void fl_first_run(int worker, int report_fd)
    void fl_first_hold()

cdef extern from "fl_wake.h" nogil:
    int fl_wake_create()
    int fl_wake_signal(int fd)
    int fl_wake_clear(int fd)

cdef extern from "fl_timer.h" nogil:
    enum:
        FL_TIMER_IDLE
    ctypedef struct fl_timer:
        uint64_t deadline_ns
        uint32_t index
        void *owner
    ctypedef struct fl_timers:
        fl_timer **heap
        uint32_t size
    void fl_timer_init(fl_timer *timer, void *owner)
    int fl_timers_init(fl_timers *timers)
    void fl_timers_free(fl_timers *timers)
    int fl_timers_set(fl_timers *timers, fl_timer *timer, uint64_t deadline_ns)
    void fl_timers_cancel(fl_timers *timers, fl_timer *timer)
    uint64_t fl_timers_next(const fl_timers *timers)
    fl_timer *fl_timers_pop_due(fl_timers *timers, uint64_t now_ns)

cdef extern from "fl_spsc.h" nogil:
    ctypedef struct fl_spsc:
        uint32_t capacity
        uint64_t position
    int fl_spsc_init(fl_spsc *ring, void *control, void *data, uint32_t capacity)
    uint32_t fl_spsc_record_bytes_max(const fl_spsc *ring)
    void *fl_spsc_reserve(fl_spsc *ring, uint32_t bytes)
    int fl_spsc_publish(fl_spsc *ring)
    int fl_spsc_announce_crowded(fl_spsc *ring)
    int fl_spsc_drained(fl_spsc *ring)
    int fl_spsc_ready(const fl_spsc *ring)
    int64_t fl_spsc_peek(fl_spsc *ring, const uint8_t **data)
    int fl_spsc_release(fl_spsc *ring)
    int fl_spsc_announce_sleep(fl_spsc *ring)
    void fl_spsc_announce_awake(fl_spsc *ring)
    int fl_spsc_sleep_crowded(fl_spsc *ring, int64_t timeout_ns)
    void fl_spsc_rouse(fl_spsc *ring)
    void fl_spsc_rouse_crowded(fl_spsc *ring)

cdef extern from "fl_express.h" nogil:
    enum:
        FL_EXPRESS_FRAME
        FL_EXPRESS_TASK
        FL_EXPRESS_TASK_RESULT
        FL_EXPRESS_DISTANT
        FL_EXPRESS_BY_SOCKET
        FL_EXPRESS_INVOKE
        FL_EXPRESS_RESULT
        FL_EXPRESS_REQUEST_ID_BYTES
    ctypedef struct fl_express_task:
        uint32_t kind
        uint32_t slot
    ctypedef struct fl_express_task_result:
        uint32_t kind
        uint32_t slot
        uint64_t duration_ns
        uint32_t failed
        uint32_t unused
    ctypedef struct fl_express_invoke:
        uint32_t kind
        uint32_t slot
        int64_t deadline_epoch_ms
        uint16_t arn_bytes
        uint16_t trace_bytes
        char request_id[FL_EXPRESS_REQUEST_ID_BYTES]
    ctypedef struct fl_express_result:
        uint32_t kind
        uint32_t slot
        uint64_t duration_ns
        uint64_t cpu_ns
        uint64_t memory_peak_kib
        uint64_t log_end_bytes
    ctypedef struct fl_express_distant:
        uint32_t kind
        uint32_t unused
        uint64_t offset
        uint64_t bytes
    ctypedef struct fl_region:
        uint8_t *base
        uint64_t bytes
        uint64_t taken
        uint64_t taken_most
    ctypedef struct fl_express:
        void *base
        fl_spsc requests
        fl_spsc replies
        fl_region request_region
        fl_region reply_region
    int fl_express_create(fl_express *out, int fd, uint32_t ring_bytes, uint64_t region_bytes)
    int fl_express_open(fl_express *out, int fd)
    void fl_express_close(fl_express *express)
    void *fl_region_take(fl_region *region, fl_spsc *ring, uint64_t bytes)
    const uint8_t *fl_region_at(const fl_region *region, uint64_t offset, uint64_t bytes)
    void fl_region_trim(fl_region *region, uint64_t keep_bytes)
    void fl_express_allow_spin(fl_express *express, uint32_t spin_ns)
    ctypedef struct fl_express_rest:
        pass
    int fl_express_look(fl_express *express, fl_express_rest *rest)
    int fl_express_sleep(fl_express *express)
    void fl_express_rouse(fl_express *express)

cdef extern from "fl_slots.h" nogil:
    ctypedef struct fl_slots:
        uint32_t slot_count
        uint32_t mirror_bytes
    int FL_SLOT_FREE, FL_SLOT_QUEUED, FL_SLOT_STARTED, FL_SLOT_DONE, FL_SLOT_REVOKED
    size_t fl_slots_bytes(uint32_t slot_count, uint32_t mirror_bytes)
    int fl_slots_create(fl_slots *out, int fd, uint32_t slot_count, uint32_t mirror_bytes)
    int fl_slots_place(fl_slots *out, void *memory, uint32_t slot_count, uint32_t mirror_bytes)
    int fl_slots_open(fl_slots *out, int fd)
    void fl_slots_close(fl_slots *slots)
    int fl_slots_queue(fl_slots *slots, uint32_t slot)
    int fl_slots_revoke(fl_slots *slots, uint32_t slot)
    uint32_t fl_slots_state(const fl_slots *slots, uint32_t slot)
    uint64_t fl_slots_started_ns(const fl_slots *slots, uint32_t slot)
    int64_t fl_slots_reply(const fl_slots *slots, uint32_t slot, void *out, uint32_t capacity)
    void fl_slots_free(fl_slots *slots, uint32_t slot)
    int fl_slots_claim(fl_slots *slots, uint32_t slot, uint64_t now_ns)
    int fl_slots_finish(fl_slots *slots, uint32_t slot, const void *reply, uint32_t reply_bytes)
    int fl_slots_wait_free(fl_slots *slots, uint32_t slot, int64_t timeout_ns)

cdef extern from "fl_rng.h" nogil:
    ctypedef struct fl_rng:
        pass
    void fl_rng_seed(fl_rng *rng, uint64_t seed)
    uint64_t fl_rng_next(fl_rng *rng)
    double fl_rng_uniform(fl_rng *rng)
    double fl_rng_exponential(fl_rng *rng)
    double fl_rng_normal(fl_rng *rng)


cdef inline uint64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1000000000 + <uint64_t>now.tv_nsec


cdef inline uint64_t realtime_ms() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <uint64_t>now.tv_sec * 1000 + <uint64_t>now.tv_nsec // 1000000


cdef inline uint64_t process_cpu_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now)
    return <uint64_t>now.tv_sec * 1000000000 + <uint64_t>now.tv_nsec


cdef inline long memory_peak_kib() noexcept nogil:
    """Peak resident set of this process in KiB; pages shared with the zygote count."""
    cdef rusage usage
    getrusage(RUSAGE_SELF, &usage)
    return usage.ru_maxrss
