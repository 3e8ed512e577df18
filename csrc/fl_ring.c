/* DESIGN
 * Position p lives in slot p % count. The slot's `sequence` is p when a producer may fill it, p + 1 when the consumer
 * may empty it, and becomes p + count when it is empty for the next lap. A producer takes position p by moving `tail`,
 * fills the slot and publishes it by storing the sequence; `tail` is the single point of contention.
 *
 * No wake is lost: the producer stores a sequence and then loads `sleeping`, the consumer stores `sleeping` and then
 * loads a sequence, all four sequentially consistent, so at least one of the two sees the other's store. (Fences would
 * say the same, but ThreadSanitizer does not understand them.)
 */
#include "fl_ring.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { CACHE_LINE_BYTES = 64 };

struct slot {
    atomic_uint_least64_t sequence; /* whose turn it is: producers and the consumer by turns, see above */
    uint32_t record_bytes;          /* the one whose turn it is */
    uint8_t record[];               /* the one whose turn it is */
};

struct fl_ring {
    /* Written at creation only; any thread reads. */
    uint8_t *slots;
    size_t slot_bytes;
    uint32_t slot_count;
    uint32_t record_bytes_max;

    alignas(CACHE_LINE_BYTES) atomic_uint_least64_t tail; /* next position to fill: every producer */
    alignas(CACHE_LINE_BYTES) atomic_uint_least64_t head; /* next position to empty: consumer; any thread reads */
    alignas(CACHE_LINE_BYTES) atomic_uint sleeping;       /* 1: consumer announced sleep; the producer that takes it
                                                             back to 0 wakes it */
};

static struct slot *slot_at(const fl_ring *ring, uint64_t position)
{
    return (struct slot *)(void *)(ring->slots + (position & (ring->slot_count - 1)) * ring->slot_bytes);
}

int fl_ring_create(fl_ring **out, uint32_t slot_count, uint32_t record_bytes_max)
{
    *out = NULL;
    if (slot_count < 2 || (slot_count & (slot_count - 1)) != 0 || record_bytes_max == 0) {
        return FL_RING_INVALID;
    }
    uint64_t slot_bytes = (uint64_t)offsetof(struct slot, record) + record_bytes_max;
    slot_bytes = (slot_bytes + CACHE_LINE_BYTES - 1) & ~(uint64_t)(CACHE_LINE_BYTES - 1);
    if (slot_bytes > FL_RING_BYTES_MAX / slot_count) {
        return FL_RING_INVALID;
    }
    fl_ring *ring = aligned_alloc(CACHE_LINE_BYTES, sizeof *ring);
    uint8_t *slots = aligned_alloc(CACHE_LINE_BYTES, (size_t)slot_bytes * slot_count);
    if (ring == NULL || slots == NULL) {
        free(ring);
        free(slots);
        return FL_RING_NO_MEMORY;
    }
    ring->slots = slots;
    ring->slot_bytes = (size_t)slot_bytes;
    ring->slot_count = slot_count;
    ring->record_bytes_max = record_bytes_max;
    for (uint64_t position = 0; position < slot_count; position++) {
        atomic_init(&slot_at(ring, position)->sequence, position);
    }
    atomic_init(&ring->tail, 0);
    atomic_init(&ring->head, 0);
    atomic_init(&ring->sleeping, 0);
    *out = ring;
    return FL_RING_OK;
}

void fl_ring_destroy(fl_ring *ring)
{
    if (ring != NULL) {
        free(ring->slots);
        free(ring);
    }
}

int fl_ring_push(fl_ring *ring, const void *record, uint32_t record_bytes)
{
    if (record_bytes > ring->record_bytes_max) {
        return FL_RING_TOO_BIG;
    }
    struct slot *slot;
    uint64_t position = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    for (;;) {
        slot = slot_at(ring, position);
        uint64_t sequence = atomic_load_explicit(&slot->sequence, memory_order_acquire);
        if (sequence == position) {
            if (atomic_compare_exchange_weak_explicit(&ring->tail, &position, position + 1, memory_order_relaxed,
                                                      memory_order_relaxed)) {
                break;
            }
        } else if ((int64_t)(sequence - position) < 0) {
            return FL_RING_FULL; /* still holds the record of the lap before */
        } else {
            position = atomic_load_explicit(&ring->tail, memory_order_relaxed); /* another producer was quicker */
        }
    }
    slot->record_bytes = record_bytes;
    if (record_bytes != 0) {
        memcpy(slot->record, record, record_bytes);
    }
    atomic_store_explicit(&slot->sequence, position + 1, memory_order_seq_cst);
    if (atomic_load_explicit(&ring->sleeping, memory_order_seq_cst) != 0 &&
        atomic_exchange_explicit(&ring->sleeping, 0, memory_order_acq_rel) != 0) {
        return FL_RING_WAKE;
    }
    return FL_RING_OK;
}

int64_t fl_ring_pop(fl_ring *ring, void *record, uint32_t capacity)
{
    uint64_t position = atomic_load_explicit(&ring->head, memory_order_relaxed);
    struct slot *slot = slot_at(ring, position);
    if (atomic_load_explicit(&slot->sequence, memory_order_acquire) != position + 1) {
        return FL_RING_EMPTY;
    }
    uint32_t record_bytes = slot->record_bytes;
    if (record_bytes > capacity) {
        return FL_RING_SHORT;
    }
    if (record_bytes != 0) {
        memcpy(record, slot->record, record_bytes);
    }
    atomic_store_explicit(&slot->sequence, position + ring->slot_count, memory_order_release);
    atomic_store_explicit(&ring->head, position + 1, memory_order_release);
    return (int64_t)record_bytes;
}

int fl_ring_announce_sleep(fl_ring *ring)
{
    uint64_t position = atomic_load_explicit(&ring->head, memory_order_relaxed);
    atomic_store_explicit(&ring->sleeping, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&slot_at(ring, position)->sequence, memory_order_seq_cst) != position + 1) {
        return 1;
    }
    atomic_store_explicit(&ring->sleeping, 0, memory_order_relaxed);
    return 0;
}

void fl_ring_announce_awake(fl_ring *ring)
{
    atomic_store_explicit(&ring->sleeping, 0, memory_order_relaxed);
}

uint32_t fl_ring_size(const fl_ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    uint64_t size = tail - head; /* head was read first: never negative, but tail may have run ahead since */
    return size > ring->slot_count ? ring->slot_count : (uint32_t)size;
}

uint32_t fl_ring_capacity(const fl_ring *ring)
{
    return ring->slot_count;
}
