/* fl_ring: bounded ring of inline records, many producer threads to one consumer thread.
 *
 * Fixed-size slots, each with a sequence number of its own that says whose turn it is (Vyukov's bounded queue), so
 * producers contend on one word only: `tail`. Records are copied in and out; nothing is allocated after creation.
 * The consumer announces that it is about to sleep; the push that consumes the announcement, and only that one, is told
 * to wake it. A consumer that is awake therefore costs its producers no system call.
 *
 * Consumer's sleeping protocol (the wake itself, an eventfd for instance, is the caller's):
 *     while fl_ring_pop(...) >= 0: work
 *     if fl_ring_announce_sleep(ring): wait for the wake; clear it; fl_ring_announce_awake(ring)
 *     go round again
 * "One consumer" means one at a time: the role may move to another thread under a lock of the callers.
 */
#ifndef FL_RING_H
#define FL_RING_H

#include <stdint.h>

typedef struct fl_ring fl_ring;

enum {
    FL_RING_OK = 0,
    FL_RING_WAKE = 1,
    FL_RING_FULL = -1,
    FL_RING_TOO_BIG = -2,
    FL_RING_EMPTY = -3,
    FL_RING_SHORT = -4,
    FL_RING_INVALID = -5,
    FL_RING_NO_MEMORY = -6
};

/* All slots of a ring together take at most this many bytes. */
#define FL_RING_BYTES_MAX ((uint64_t)1 << 30)

/* Makes an empty ring of `slot_count` slots (a power of two, at least 2), each for records of up to `record_bytes_max`
 * bytes (at least 1).
 * FL_RING_OK and *out set; else *out is NULL: FL_RING_INVALID (a count or size not allowed), FL_RING_NO_MEMORY. */
int fl_ring_create(fl_ring **out, uint32_t slot_count, uint32_t record_bytes_max);

/* Frees the ring and whatever records it still holds; NULL is allowed. No other thread may be inside a call. */
void fl_ring_destroy(fl_ring *ring);

/* Any thread. Copies the record in; never blocks. Records of one thread come out in the order it pushed them.
 * FL_RING_OK: pushed, nothing more to do. FL_RING_WAKE: pushed, and the consumer had announced sleep: wake it (one
 * announcement is told to exactly one push). FL_RING_FULL: not pushed. FL_RING_TOO_BIG: not pushed, `record_bytes` is
 * above the ring's record_bytes_max. */
int fl_ring_push(fl_ring *ring, const void *record, uint32_t record_bytes);

/* Consumer. Copies the oldest record out.
 * >= 0: its length in bytes. FL_RING_EMPTY: none is ready (one whose push has not yet returned may be on its way).
 * FL_RING_SHORT: the record is longer than `capacity` bytes; it stays and nothing was copied. */
int64_t fl_ring_pop(fl_ring *ring, void *record, uint32_t capacity);

/* Consumer, before it sleeps.
 * 1: announced; no record is ready, and the next push returns FL_RING_WAKE. 0: a record is ready: do not sleep; nothing
 * stays announced (a wake that a push decided meanwhile may still arrive: a spurious wake must be harmless). */
int fl_ring_announce_sleep(fl_ring *ring);

/* Consumer, after waking, whatever woke it: takes back an announcement that no push has consumed. */
void fl_ring_announce_awake(fl_ring *ring);

/* Any thread. Records pushed and not yet popped: exact when nobody is at work, otherwise a moment's estimate in
 * 0..capacity. */
uint32_t fl_ring_size(const fl_ring *ring);

/* Any thread. The slot count. */
uint32_t fl_ring_capacity(const fl_ring *ring);

#endif
