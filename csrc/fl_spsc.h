/* fl_spsc: a ring of byte records in shared memory, from one producer process to one consumer process.
 *
 *     producer: reserve ... reserve, publish ----> consumer: peek, release, peek, release ...
 *
 * Either process may be HOSTILE to the other. Each keeps its own position, base and capacity in memory of its own; what
 * it reads from shared memory (the other side's position, a record's size) it reads once and checks. A hostile peer can
 * make a call fail with -EPROTO or hand over wrong bytes; it cannot make one fault, loop without end, or touch memory
 * outside the ring. A record stays in shared memory until it is released: a consumer that does not trust its producer
 * copies it before it looks into it. A process that dies between reserve and publish leaves nothing behind.
 *
 * Sleeping. A consumer announces that it is about to sleep and then looks once more; the publish that consumes the
 * announcement, and only that one, is told to wake it. The same holds, the other way, for a producer that found no room.
 * How a side is woken is the callers' business: by the futex here, or by a descriptor of theirs. A spurious wake must be
 * harmless. docs/models/lane.pml is the model of this protocol.
 */
#ifndef FL_SPSC_H
#define FL_SPSC_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the shared control part of a ring; it must be zero at the start and aligned to 64. */
#define FL_SPSC_CONTROL_BYTES 256u

/* What a record costs besides its content, and how content is padded. */
#define FL_SPSC_RECORD_BYTES 8u

/* One process's view of one side of a ring. No field is read from shared memory after fl_spsc_init. */
typedef struct fl_spsc {
    void *control;
    uint8_t *data;
    uint32_t capacity;  /* bytes, a power of two */
    uint64_t position;  /* producer: end of what is reserved; consumer: end of what is released */
    uint64_t peer;      /* the other side's position as last seen */
    uint32_t peeked;    /* consumer: bytes of the record that was peeked, its head included; 0: none */
} fl_spsc;

/* `control`: FL_SPSC_CONTROL_BYTES of shared memory. `data`: `capacity` bytes of it, a power of two from 64 to 1 GiB,
 * aligned to 8. Both sides call it once, each on its own view. 0, or -EINVAL. */
int fl_spsc_init(fl_spsc *ring, void *control, void *data, uint32_t capacity);

/* The largest record that a ring of this capacity is sure to take once it is empty. */
uint32_t fl_spsc_record_bytes_max(const fl_spsc *ring);

/* ---- producer ---------------------------------------------------------------------------------------------------- */

/* Room for a record of `bytes` bytes, aligned to 8, to be written before fl_spsc_publish. NULL: there is no room now
 * (never any, above fl_spsc_record_bytes_max), or the consumer's position is impossible. */
void *fl_spsc_reserve(fl_spsc *ring, uint32_t bytes);

/* Hands over all records reserved since the last call. 1: the consumer had announced sleep, wake it; 0: nothing to do. */
int fl_spsc_publish(fl_spsc *ring);

/* After fl_spsc_reserve found no room, with everything reserved before published: otherwise the room may be taken by what
 * the consumer cannot see, and nobody will ever wake this side. 1: announced, the consumer's next release is told to wake
 * this side. 0: there may be room now, try again; a hostile consumer can cause that any number of times. */
int fl_spsc_announce_crowded(fl_spsc *ring);

/* Whether the consumer has released everything that was reserved. */
int fl_spsc_drained(fl_spsc *ring);

/* ---- consumer ---------------------------------------------------------------------------------------------------- */

/* Whether a record is there, or the producer has damaged its position: one load from shared memory. */
int fl_spsc_ready(const fl_spsc *ring);

/* The oldest record; the same one again if it was not released. >= 0: its bytes, at *data until fl_spsc_release.
 * -EAGAIN: none. -EPROTO: impossible values; nothing is peeked. */
int64_t fl_spsc_peek(fl_spsc *ring, const uint8_t **data);

/* Takes the peeked record out. 1: the producer had announced that it waits for room, wake it; 0: nothing to do. */
int fl_spsc_release(fl_spsc *ring);

/* Before sleeping. 1: announced, the next publish is told to wake this side. 0: a record is there, nothing is announced. */
int fl_spsc_announce_sleep(fl_spsc *ring);

/* After waking, whatever woke it: takes back an announcement that no publish has consumed. */
void fl_spsc_announce_awake(fl_spsc *ring);

/* ---- sleeping by futex: for the side that has nothing else to wait for -------------------------------------------- */

/* Sleeps as long as the announcement of sleep (of crowding) stands. 0: it does not any more, or the kernel woke for no
 * reason; -EINTR; -ETIMEDOUT. `timeout_ns` < 0 waits for ever. */
int fl_spsc_sleep(fl_spsc *ring, int64_t timeout_ns);
int fl_spsc_sleep_crowded(fl_spsc *ring, int64_t timeout_ns);

/* Wakes the consumer (the producer) that sleeps so. */
void fl_spsc_rouse(fl_spsc *ring);
void fl_spsc_rouse_crowded(fl_spsc *ring);

#endif
