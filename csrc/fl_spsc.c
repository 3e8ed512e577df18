/* DESIGN
 * Positions count bytes since the start and never wrap; a record lies at position % capacity, in one piece. One that
 * would cross the end is preceded by a skip record, whose size says that the rest of the ring is empty. A producer that
 * finds the ring empty goes back to its start early: calls that come one at a time then use the same few cache lines.
 *
 * publish stores the position and then loads `asleep`; announce_sleep stores `asleep` and then loads the position. Both
 * orders are kept by sequentially consistent fences, so that at least one side sees the other. Without either fence a
 * wake can be lost: tests/native/test_lane_model.py shows both.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fl_spsc.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The rest of the ring that a rewind skips counts as used until the consumer has come by: right after one, a burst finds
 * room for so much only. Fewer bytes measured no faster. */
enum { LINE_BYTES = 64, REWIND_BYTES = 8192 };

#define SKIP UINT32_MAX
#define CAPACITY_MAX (UINT32_C(1) << 30)

struct control {
    alignas(LINE_BYTES) atomic_uint_least64_t published; /* producer writes */
    alignas(LINE_BYTES) atomic_uint_least64_t released;  /* consumer writes */
    alignas(LINE_BYTES) atomic_uint asleep;              /* futex: consumer sets, the publish that wakes it clears */
    alignas(LINE_BYTES) atomic_uint crowded;             /* futex: producer sets, the release that wakes it clears */
};

struct head {
    uint32_t bytes; /* of the content; SKIP: nothing more up to the end of the ring */
    uint32_t unused;
};

_Static_assert(sizeof(struct control) == FL_SPSC_CONTROL_BYTES, "the control part is four lines");
_Static_assert(sizeof(struct head) == FL_SPSC_RECORD_BYTES, "a record's head is as long as its alignment");
_Static_assert(sizeof(atomic_uint) == 4 && ATOMIC_INT_LOCK_FREE == 2, "a futex word is 32 bits without a lock");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a lock for a position would be in one process only");

static struct control *control_of(const fl_spsc *ring)
{
    return ring->control;
}

static uint32_t padded(uint32_t bytes)
{
    return (bytes + FL_SPSC_RECORD_BYTES - 1) & ~(FL_SPSC_RECORD_BYTES - 1);
}

static struct head *head_at(const fl_spsc *ring, uint64_t position)
{
    return (struct head *)(void *)(ring->data + (position & (ring->capacity - 1)));
}

int fl_spsc_init(fl_spsc *ring, void *control, void *data, uint32_t capacity)
{
    *ring = (fl_spsc){0};
    if (capacity < LINE_BYTES || capacity > CAPACITY_MAX || (capacity & (capacity - 1)) != 0 ||
        (uintptr_t)data % FL_SPSC_RECORD_BYTES != 0 || (uintptr_t)control % LINE_BYTES != 0) {
        return -EINVAL;
    }
    ring->control = control;
    ring->data = data;
    ring->capacity = capacity;
    return 0;
}

uint32_t fl_spsc_record_bytes_max(const fl_spsc *ring)
{
    return ring->capacity / 2 - FL_SPSC_RECORD_BYTES;
}

/* ---- producer ---------------------------------------------------------------------------------------------------- */

/* Bytes that may be written; none if the consumer claims more than it can have taken. The consumer's line is looked at
 * only when that may tell something new: what it writes there costs a transfer between two cores. `wanted` is at most
 * the capacity. */
static uint32_t room(fl_spsc *ring, uint32_t wanted)
{
    uint64_t used = ring->position - ring->peer;
    if (used >= REWIND_BYTES || used > ring->capacity - wanted) {
        ring->peer = atomic_load_explicit(&control_of(ring)->released, memory_order_acquire);
        used = ring->position - ring->peer;
    }
    return used > ring->capacity ? 0 : ring->capacity - (uint32_t)used;
}

void *fl_spsc_reserve(fl_spsc *ring, uint32_t bytes)
{
    if (bytes > fl_spsc_record_bytes_max(ring)) {
        return NULL;
    }
    uint32_t total = FL_SPSC_RECORD_BYTES + padded(bytes);
    uint32_t offset = (uint32_t)(ring->position & (ring->capacity - 1));
    uint32_t skip = 0;
    uint32_t left = room(ring, ring->capacity - offset < total ? ring->capacity - offset + total : total);
    if (ring->capacity - offset < total || (left == ring->capacity && offset >= REWIND_BYTES && offset >= total)) {
        skip = ring->capacity - offset;
    }
    if (left < total || left - total < skip) {
        return NULL;
    }
    if (skip != 0) {
        head_at(ring, ring->position)->bytes = SKIP;
        ring->position += skip;
    }
    struct head *head = head_at(ring, ring->position);
    head->bytes = bytes;
    ring->position += total;
    return head + 1;
}

int fl_spsc_publish(fl_spsc *ring)
{
    struct control *control = control_of(ring);
    atomic_store_explicit(&control->published, ring->position, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&control->asleep, memory_order_relaxed) == 0) {
        return 0;
    }
    return atomic_exchange_explicit(&control->asleep, 0, memory_order_relaxed) != 0;
}

int fl_spsc_announce_crowded(fl_spsc *ring)
{
    struct control *control = control_of(ring);
    uint64_t seen = ring->peer;
    atomic_store_explicit(&control->crowded, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    ring->peer = atomic_load_explicit(&control->released, memory_order_acquire);
    if (ring->peer == seen) {
        return 1;
    }
    atomic_store_explicit(&control->crowded, 0, memory_order_relaxed);
    return 0;
}

int fl_spsc_drained(fl_spsc *ring)
{
    ring->peer = atomic_load_explicit(&control_of(ring)->released, memory_order_acquire);
    return ring->peer == ring->position;
}

/* ---- consumer ---------------------------------------------------------------------------------------------------- */

int fl_spsc_ready(const fl_spsc *ring)
{
    return atomic_load_explicit(&control_of(ring)->published, memory_order_acquire) != ring->position;
}

int64_t fl_spsc_peek(fl_spsc *ring, const uint8_t **data)
{
    uint64_t there = ring->peer - ring->position;
    ring->peeked = 0; /* a producer that changes a record between two looks must not get its old size released */
    if (there == 0) {
        ring->peer = atomic_load_explicit(&control_of(ring)->published, memory_order_acquire);
        there = ring->peer - ring->position;
        if (there == 0) {
            return -EAGAIN;
        }
    }
    if (there > ring->capacity || there % FL_SPSC_RECORD_BYTES != 0) {
        ring->peer = ring->position; /* looked at afresh by the next call */
        return -EPROTO;
    }
    for (int skips = 0;; skips++) {
        struct head *head = head_at(ring, ring->position);
        uint32_t bytes = *(volatile uint32_t *)&head->bytes; /* once: the producer may go on writing */
        uint32_t whole = ring->capacity - (uint32_t)(ring->position & (ring->capacity - 1));
        if (bytes == SKIP) {
            if (skips != 0 || there <= whole) {
                return -EPROTO;
            }
            ring->position += whole;
            there -= whole;
            continue;
        }
        if (bytes > fl_spsc_record_bytes_max(ring)) {
            return -EPROTO;
        }
        uint32_t total = FL_SPSC_RECORD_BYTES + padded(bytes);
        if (total > there || total > whole) {
            return -EPROTO;
        }
        ring->peeked = total;
        *data = (const uint8_t *)(head + 1);
        return bytes;
    }
}

int fl_spsc_release(fl_spsc *ring)
{
    struct control *control = control_of(ring);
    ring->position += ring->peeked;
    ring->peeked = 0;
    atomic_store_explicit(&control->released, ring->position, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&control->crowded, memory_order_relaxed) == 0) {
        return 0;
    }
    return atomic_exchange_explicit(&control->crowded, 0, memory_order_relaxed) != 0;
}

int fl_spsc_announce_sleep(fl_spsc *ring)
{
    struct control *control = control_of(ring);
    atomic_store_explicit(&control->asleep, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (!fl_spsc_ready(ring)) {
        return 1;
    }
    atomic_store_explicit(&control->asleep, 0, memory_order_relaxed);
    return 0;
}

void fl_spsc_announce_awake(fl_spsc *ring)
{
    struct control *control = control_of(ring);
    if (atomic_load_explicit(&control->asleep, memory_order_relaxed) != 0) {
        atomic_store_explicit(&control->asleep, 0, memory_order_relaxed);
    }
}

/* ---- futex ------------------------------------------------------------------------------------------------------- */

static int sleep_on(atomic_uint *word, int64_t timeout_ns)
{
    struct timespec timeout = {
        .tv_sec = (time_t)(timeout_ns / 1000000000),
        .tv_nsec = (long)(timeout_ns % 1000000000),
    };
    long result = syscall(SYS_futex, word, FUTEX_WAIT, 1, timeout_ns < 0 ? NULL : &timeout, NULL, 0);
    if (result == 0 || errno == EAGAIN) {
        return 0;
    }
    return -errno;
}

int fl_spsc_sleep(fl_spsc *ring, int64_t timeout_ns)
{
    return sleep_on(&control_of(ring)->asleep, timeout_ns);
}

int fl_spsc_sleep_crowded(fl_spsc *ring, int64_t timeout_ns)
{
    return sleep_on(&control_of(ring)->crowded, timeout_ns);
}

void fl_spsc_rouse(fl_spsc *ring)
{
    syscall(SYS_futex, &control_of(ring)->asleep, FUTEX_WAKE, 1, NULL, NULL, 0);
}

void fl_spsc_rouse_crowded(fl_spsc *ring)
{
    syscall(SYS_futex, &control_of(ring)->crowded, FUTEX_WAKE, 1, NULL, NULL, 0);
}
