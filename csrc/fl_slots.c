/* DESIGN
 * memfd: one header line, then the slots, each a control line followed by room for the mirrored reply.
 *
 * A slot's `word` is the whole truth about it and changes by compare-and-swap only: the state in the low 8 bits, and
 * above them the number of revoked tasks whose message the worker has yet to read and drop. It is also the futex word.
 *
 * free and queue pay for a FUTEX_WAKE only when `waiting` is set. The worker sets it and then loads the word; the
 * dispatcher changes the word and then loads it; all sequentially consistent, so one of them sees the other.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* F_ADD_SEALS */
#endif
#include "fl_slots.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAGIC UINT64_C(0x73746f6c735f6c66) /* "fl_slots" in memory */

enum { LAYOUT_VERSION = 1, LINE_BYTES = 64, STATE_BITS = 8 };

#define STATE_MASK ((1u << STATE_BITS) - 1)
#define STALE_ONE (1u << STATE_BITS) /* one revoked task whose message is still on its way */
#define NOT_MIRRORED UINT32_MAX

/* Written by the dispatcher at creation; read by the worker when it opens the table, by nobody afterwards. */
struct header {
    uint64_t magic;
    uint32_t version;
    uint32_t slot_count;
    uint32_t mirror_bytes;
    uint32_t slot_bytes;
};

struct slot {
    alignas(LINE_BYTES) atomic_uint word; /* both processes, by compare-and-swap */
    atomic_uint waiting;                  /* worker sets, dispatcher reads: somebody sleeps on `word` */
    atomic_uint_least64_t started_ns;     /* worker writes before it claims; dispatcher reads once STARTED */
    atomic_uint reply_bytes;              /* worker writes before it finishes; dispatcher reads once DONE */
    alignas(LINE_BYTES) uint8_t reply[];  /* as reply_bytes */
};

_Static_assert(sizeof(struct header) <= LINE_BYTES, "the header is one line");
_Static_assert(sizeof(struct slot) == LINE_BYTES, "a slot's control part is one line");
_Static_assert(sizeof(atomic_uint) == 4 && ATOMIC_INT_LOCK_FREE == 2, "a futex word is 32 bits without a lock");

static size_t slot_bytes_for(uint32_t mirror_bytes)
{
    return LINE_BYTES + (((size_t)mirror_bytes + LINE_BYTES - 1) & ~(size_t)(LINE_BYTES - 1));
}

static struct slot *slot_at(const fl_slots *slots, uint32_t slot)
{
    if (slot >= slots->slot_count) {
        return NULL;
    }
    return (struct slot *)(void *)((uint8_t *)slots->base + LINE_BYTES + slot * slot_bytes_for(slots->mirror_bytes));
}

static unsigned state_of(unsigned word)
{
    return word & STATE_MASK;
}

static unsigned with_state(unsigned word, unsigned state)
{
    return (word & ~STATE_MASK) | state;
}

size_t fl_slots_bytes(uint32_t slot_count, uint32_t mirror_bytes)
{
    if (slot_count == 0 || slot_count > FL_SLOTS_COUNT_MAX || mirror_bytes > FL_SLOTS_MIRROR_BYTES_MAX) {
        return 0;
    }
    return LINE_BYTES + slot_count * slot_bytes_for(mirror_bytes);
}

static int map(fl_slots *out, int fd, size_t bytes)
{
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        return -errno;
    }
    out->base = base;
    out->bytes = bytes;
    return 0;
}

/* Writes the header; the slots are zero as they are: FREE, nothing stale. */
static void begin(fl_slots *out, uint32_t slot_count, uint32_t mirror_bytes)
{
    out->slot_count = slot_count;
    out->mirror_bytes = mirror_bytes;
    const struct header header = {
        .magic = MAGIC,
        .version = LAYOUT_VERSION,
        .slot_count = slot_count,
        .mirror_bytes = mirror_bytes,
        .slot_bytes = (uint32_t)slot_bytes_for(mirror_bytes),
    };
    memcpy(out->base, &header, sizeof header);
}

int fl_slots_create(fl_slots *out, int fd, uint32_t slot_count, uint32_t mirror_bytes)
{
    memset(out, 0, sizeof *out);
    size_t bytes = fl_slots_bytes(slot_count, mirror_bytes);
    if (bytes == 0) {
        return -EINVAL;
    }
    if (ftruncate(fd, (off_t)bytes) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        return -errno;
    }
    int result = map(out, fd, bytes);
    if (result != 0) {
        return result;
    }
    begin(out, slot_count, mirror_bytes);
    return 0;
}

int fl_slots_place(fl_slots *out, void *memory, uint32_t slot_count, uint32_t mirror_bytes)
{
    memset(out, 0, sizeof *out);
    size_t bytes = fl_slots_bytes(slot_count, mirror_bytes);
    if (bytes == 0) {
        return -EINVAL;
    }
    out->base = memory;
    out->bytes = bytes;
    begin(out, slot_count, mirror_bytes);
    return 0;
}

int fl_slots_open(fl_slots *out, int fd)
{
    memset(out, 0, sizeof *out);
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return -errno;
    }
    if (status.st_size < LINE_BYTES) {
        return -EPROTO;
    }
    int result = map(out, fd, (size_t)status.st_size);
    if (result != 0) {
        return result;
    }
    struct header header;
    memcpy(&header, out->base, sizeof header);
    if (header.magic != MAGIC || header.version != LAYOUT_VERSION ||
        fl_slots_bytes(header.slot_count, header.mirror_bytes) != out->bytes ||
        header.slot_bytes != slot_bytes_for(header.mirror_bytes)) {
        fl_slots_close(out);
        return -EPROTO;
    }
    out->slot_count = header.slot_count;
    out->mirror_bytes = header.mirror_bytes;
    return 0;
}

void fl_slots_close(fl_slots *slots)
{
    if (slots->base != NULL) {
        munmap(slots->base, slots->bytes);
    }
    memset(slots, 0, sizeof *slots);
}

/* ---- dispatcher's side ----------------------------------------------------------------------------------------- */

/* Tries this often to swap a word that the worker may be changing at the same time. An honest worker changes it a few
 * times at most; one that never stops is overruled by a plain store (free) or believed (queue: busy; revoke: too
 * late). */
enum { SWAP_TRIES = 64 };

static void wake_waiters(struct slot *slot)
{
    if (atomic_load_explicit(&slot->waiting, memory_order_seq_cst) != 0) {
        atomic_store_explicit(&slot->waiting, 0, memory_order_relaxed);
        syscall(SYS_futex, &slot->word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
    }
}

int fl_slots_queue(fl_slots *slots, uint32_t slot_number)
{
    struct slot *slot = slot_at(slots, slot_number);
    if (slot == NULL) {
        return -EINVAL;
    }
    unsigned word = atomic_load_explicit(&slot->word, memory_order_relaxed);
    for (int tries = 0; tries < SWAP_TRIES; tries++) {
        unsigned state = state_of(word);
        if (state != FL_SLOT_FREE && state != FL_SLOT_DONE && state != FL_SLOT_REVOKED) {
            return -EBUSY;
        }
        if (atomic_compare_exchange_weak_explicit(&slot->word, &word, with_state(word, FL_SLOT_QUEUED),
                                                  memory_order_seq_cst, memory_order_relaxed)) {
            wake_waiters(slot);
            return 0;
        }
    }
    return -EBUSY;
}

int fl_slots_revoke(fl_slots *slots, uint32_t slot_number)
{
    struct slot *slot = slot_at(slots, slot_number);
    if (slot == NULL) {
        return 0;
    }
    unsigned word = atomic_load_explicit(&slot->word, memory_order_relaxed);
    for (int tries = 0; tries < SWAP_TRIES; tries++) {
        if (state_of(word) != FL_SLOT_QUEUED || word >= UINT32_MAX - STATE_MASK) {
            return 0; /* begun; or a count of stale messages that only a hostile worker can have written */
        }
        if (atomic_compare_exchange_weak_explicit(&slot->word, &word, with_state(word, FL_SLOT_REVOKED) + STALE_ONE,
                                                  memory_order_acq_rel, memory_order_relaxed)) {
            return 1;
        }
    }
    return 0;
}

static unsigned state_read(const struct slot *slot)
{
    return state_of(atomic_load_explicit(&slot->word, memory_order_acquire));
}

uint32_t fl_slots_state(const fl_slots *slots, uint32_t slot_number)
{
    const struct slot *slot = slot_at(slots, slot_number);
    unsigned state = slot == NULL ? FL_SLOT_DAMAGED : state_read(slot);
    return state < FL_SLOT_DAMAGED ? state : FL_SLOT_DAMAGED;
}

uint64_t fl_slots_started_ns(const fl_slots *slots, uint32_t slot_number)
{
    const struct slot *slot = slot_at(slots, slot_number);
    unsigned state = slot == NULL ? FL_SLOT_DAMAGED : state_read(slot);
    if (state != FL_SLOT_STARTED && state != FL_SLOT_DONE) {
        return 0;
    }
    return atomic_load_explicit(&slot->started_ns, memory_order_relaxed);
}

int64_t fl_slots_reply(const fl_slots *slots, uint32_t slot_number, void *out, uint32_t capacity)
{
    const struct slot *slot = slot_at(slots, slot_number);
    if (slot == NULL) {
        return -EINVAL;
    }
    if (state_read(slot) != FL_SLOT_DONE) {
        return -ENOENT;
    }
    uint32_t reply_bytes = atomic_load_explicit(&slot->reply_bytes, memory_order_relaxed); /* once: it may change */
    if (reply_bytes == NOT_MIRRORED) {
        return -EMSGSIZE;
    }
    if (reply_bytes > slots->mirror_bytes) {
        return -EPROTO;
    }
    if (reply_bytes > capacity) {
        return -ENOBUFS;
    }
    if (reply_bytes != 0) {
        memcpy(out, slot->reply, reply_bytes);
    }
    return (int64_t)reply_bytes;
}

void fl_slots_free(fl_slots *slots, uint32_t slot_number)
{
    struct slot *slot = slot_at(slots, slot_number);
    if (slot == NULL) {
        return;
    }
    unsigned word = atomic_load_explicit(&slot->word, memory_order_relaxed);
    for (int tries = 0;; tries++) {
        if (tries == SWAP_TRIES) {
            atomic_store_explicit(&slot->word, with_state(word, FL_SLOT_FREE), memory_order_seq_cst);
            break;
        }
        if (atomic_compare_exchange_weak_explicit(&slot->word, &word, with_state(word, FL_SLOT_FREE),
                                                  memory_order_seq_cst, memory_order_relaxed)) {
            break;
        }
    }
    wake_waiters(slot);
}

/* ---- worker's side --------------------------------------------------------------------------------------------- */

int fl_slots_claim(fl_slots *slots, uint32_t slot_number, uint64_t now_ns)
{
    struct slot *slot = slot_at(slots, slot_number);
    if (slot == NULL) {
        return 0;
    }
    unsigned word = atomic_load_explicit(&slot->word, memory_order_acquire);
    for (;;) {
        int stale = word > STATE_MASK; /* this message belongs to a task revoked before the slot's present one */
        if (!stale && state_of(word) != FL_SLOT_QUEUED) {
            return 0;
        }
        if (!stale) {
            atomic_store_explicit(&slot->started_ns, now_ns, memory_order_relaxed);
        }
        unsigned next = stale ? word - STALE_ONE : FL_SLOT_STARTED;
        if (atomic_compare_exchange_weak_explicit(&slot->word, &word, next, memory_order_acq_rel,
                                                  memory_order_acquire)) {
            return stale ? 0 : 1;
        }
    }
}

int fl_slots_finish(fl_slots *slots, uint32_t slot_number, const void *reply, uint32_t reply_bytes)
{
    struct slot *slot = slot_at(slots, slot_number);
    if (slot == NULL) {
        return -EINVAL;
    }
    unsigned word = atomic_load_explicit(&slot->word, memory_order_relaxed);
    if (state_of(word) != FL_SLOT_STARTED) {
        return -EBUSY;
    }
    int fits = reply_bytes <= slots->mirror_bytes;
    if (fits && reply_bytes != 0) {
        memcpy(slot->reply, reply, reply_bytes);
    }
    atomic_store_explicit(&slot->reply_bytes, fits ? reply_bytes : NOT_MIRRORED, memory_order_relaxed);
    if (!atomic_compare_exchange_strong_explicit(&slot->word, &word, with_state(word, FL_SLOT_DONE),
                                                 memory_order_release, memory_order_relaxed)) {
        return -EBUSY; /* the dispatcher freed the slot of a task still running */
    }
    return fits;
}

int fl_slots_wait_free(fl_slots *slots, uint32_t slot_number, int64_t timeout_ns)
{
    struct slot *slot = slot_at(slots, slot_number);
    if (slot == NULL) {
        return -EINVAL;
    }
    struct timespec deadline = {0, 0};
    if (timeout_ns >= 0) {
        clock_gettime(CLOCK_MONOTONIC, &deadline);
        deadline.tv_sec += (time_t)(timeout_ns / 1000000000);
        deadline.tv_nsec += (long)(timeout_ns % 1000000000);
        if (deadline.tv_nsec >= 1000000000) {
            deadline.tv_sec += 1;
            deadline.tv_nsec -= 1000000000;
        }
    }
    for (;;) {
        atomic_store_explicit(&slot->waiting, 1, memory_order_seq_cst);
        unsigned word = atomic_load_explicit(&slot->word, memory_order_seq_cst);
        if (state_of(word) != FL_SLOT_DONE) {
            return 0;
        }
        /* FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time, so that spurious wakes do not lengthen the wait. */
        if (syscall(SYS_futex, &slot->word, FUTEX_WAIT_BITSET, word, timeout_ns >= 0 ? &deadline : NULL, NULL,
                    FUTEX_BITSET_MATCH_ANY) != 0 &&
            errno != EAGAIN) {
            return -errno;
        }
    }
}
