/* fl_slots: a shared-memory table between one dispatcher process and one worker process.
 *
 * Every task handed to the worker has a slot. The table tells which tasks have begun, lets the dispatcher take back one
 * that has not, and mirrors small replies so that they outlive the worker's sudden death.
 *
 *            queue               claim                finish             free
 *     FREE ---------> QUEUED ------------> STARTED ------------> DONE ---------> FREE
 *     (or DONE,         |  revoke
 *      REVOKED)         +---------> REVOKED ---> queue, free
 *
 * The worker is HOSTILE as far as the dispatcher's functions go: sizes come from the dispatcher's own fl_slots, never
 * from the shared header; states and lengths read from the table are checked; nothing it writes can make a dispatcher's
 * function fault, loop without end or read or write outside its slot. (It can of course lie about its own tasks.)
 *
 * A revoked task's message is still on its way when its slot is queued again. The slot's word therefore also counts
 * the revoked tasks whose message the worker has not read yet; a claim that finds such a count takes one off and
 * fails. This needs: messages reach the worker in the order of their fl_slots_queue, and exactly one message is sent
 * for each, even when it was revoked before it was sent.
 */
#ifndef FL_SLOTS_H
#define FL_SLOTS_H

#include <stddef.h>
#include <stdint.h>

enum {
    FL_SLOT_FREE = 0,
    FL_SLOT_QUEUED = 1,
    FL_SLOT_STARTED = 2,
    FL_SLOT_DONE = 3,
    FL_SLOT_REVOKED = 4,
    FL_SLOT_DAMAGED = 5 /* never stored: what fl_slots_state says of a value that is none of the above */
};

#define FL_SLOTS_COUNT_MAX 65536u
#define FL_SLOTS_MIRROR_BYTES_MAX (1u << 20)

/* One process's view of a table. Each process fills its own; no field is read from shared memory after creation. */
typedef struct fl_slots {
    void *base;
    size_t bytes;
    uint32_t slot_count;
    uint32_t mirror_bytes; /* the largest reply that a slot mirrors */
} fl_slots;

/* Bytes of a table of `slot_count` (1..FL_SLOTS_COUNT_MAX) slots that mirror replies of up to `mirror_bytes`
 * (0..FL_SLOTS_MIRROR_BYTES_MAX); 0 when a value is out of bounds. */
size_t fl_slots_bytes(uint32_t slot_count, uint32_t mirror_bytes);

/* Dispatcher. Sizes the memfd `fd` (empty, made with MFD_ALLOW_SEALING), seals its size for good, maps it and writes
 * the table; the caller keeps owning `fd` and may close it at once. 0, or -errno (-EINVAL: out of bounds) with *out
 * zeroed. */
int fl_slots_create(fl_slots *out, int fd, uint32_t slot_count, uint32_t mirror_bytes);

/* Both sides in one process (a simulation). Writes the table into `memory`: zeroed, aligned to 64 bytes, of the size
 * that fl_slots_bytes says, the caller's for as long as the table is used. 0, or -EINVAL with *out zeroed. Such a
 * table is never given to fl_slots_close. */
int fl_slots_place(fl_slots *out, void *memory, uint32_t slot_count, uint32_t mirror_bytes);

/* Worker. Maps the table in `fd` (which may be closed afterwards). 0; -EPROTO when it is not a table of this version
 * and of the descriptor's size; or -errno. *out is zeroed on failure. */
int fl_slots_open(fl_slots *out, int fd);

/* Either. Unmaps; nothing happens when not mapped. */
void fl_slots_close(fl_slots *slots);

/* ---- dispatcher's side ----------------------------------------------------------------------------------------- */
/* A slot number outside the table is harmless everywhere: -EINVAL, 0 for revoke, DAMAGED for state, no-op for free. */

/* FREE, DONE or REVOKED -> QUEUED, before the task's message is sent. 0; -EBUSY from any other state. */
int fl_slots_queue(fl_slots *slots, uint32_t slot);

/* QUEUED -> REVOKED. 1: taken back, the worker will never begin it. 0: too late (or not queued). */
int fl_slots_revoke(fl_slots *slots, uint32_t slot);

/* One of FL_SLOT_*. */
uint32_t fl_slots_state(const fl_slots *slots, uint32_t slot);

/* When a STARTED or DONE task began: CLOCK_MONOTONIC as the worker gave it (not to be trusted). 0 in other states. */
uint64_t fl_slots_started_ns(const fl_slots *slots, uint32_t slot);

/* Copies the mirrored reply of a DONE task into `out`.
 * >= 0: its bytes. -ENOENT: not DONE. -EMSGSIZE: too large to be mirrored. -ENOBUFS: `capacity` is too small.
 * -EPROTO: the length found is impossible. */
int64_t fl_slots_reply(const fl_slots *slots, uint32_t slot, void *out, uint32_t capacity);

/* Any state -> FREE, once the task's reply has been received; wakes a worker in fl_slots_wait_free. A QUEUED task must
 * be revoked, not freed: its message would claim the slot's next task. */
void fl_slots_free(fl_slots *slots, uint32_t slot);

/* ---- worker's side --------------------------------------------------------------------------------------------- */

/* To be called once for each message read. QUEUED -> STARTED, with its time on CLOCK_MONOTONIC.
 * 1: begin the task. 0: it was revoked, or the slot is not this worker's to begin: drop the message, send nothing. */
int fl_slots_claim(fl_slots *slots, uint32_t slot, uint64_t now_ns);

/* STARTED -> DONE, before the reply is sent; copies the reply into the slot if it fits.
 * 1: mirrored. 0: too large, not mirrored. -EINVAL: no such slot. -EBUSY: not STARTED, nothing changed. */
int fl_slots_finish(fl_slots *slots, uint32_t slot, const void *reply, uint32_t reply_bytes);

/* Blocks until the slot is no longer DONE (the dispatcher has the reply). `timeout_ns` < 0 waits for ever.
 * 0; -ETIMEDOUT; -EINTR (a signal came: handle it and call again); -EINVAL: no such slot. */
int fl_slots_wait_free(fl_slots *slots, uint32_t slot, int64_t timeout_ns);

#endif
