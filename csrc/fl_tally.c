/* DESIGN
 * To claim is to count first and then to look at all rows: of two processes that claim at once, at least one sees the
 * other's count, as both the store and the loads are sequentially consistent. So the bound is never passed; who sees too
 * many takes its count back.
 */
#include "fl_tally.h"

#include <stdalign.h>
#include <stdatomic.h>

struct row {
    alignas(64) atomic_uint_least64_t held;
    atomic_uint_least64_t accepted;
    atomic_uint_least64_t requests;
    atomic_uint_least64_t bytes_received;
    atomic_uint_least64_t bytes_sent;
    alignas(64) atomic_uint_least64_t taken;
};

_Static_assert(sizeof(struct row) == FL_TALLY_ROW_BYTES, "a row is two lines");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a lock for a counter would be in one process only");

static struct row *row_of(const void *rows, uint32_t row)
{
    return (struct row *)(uintptr_t)rows + row;
}

static uint64_t load(const atomic_uint_least64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void store(atomic_uint_least64_t *counter, uint64_t value)
{
    atomic_store_explicit(counter, value, memory_order_relaxed);
}

uint64_t fl_tally_open(const void *rows, uint32_t row_count)
{
    uint64_t open = 0;
    for (uint32_t row = 0; row < row_count; row++) {
        const struct row *one = row_of(rows, row);
        uint64_t held = atomic_load(&one->held), taken = atomic_load(&one->taken);
        open += held > taken ? held - taken : 0; /* a row that is being written, or damaged */
    }
    return open;
}

int fl_tally_claim(void *rows, uint32_t row_count, uint32_t row, uint64_t most)
{
    struct row *own = row_of(rows, row);
    atomic_fetch_add(&own->held, 1);
    if (fl_tally_open(rows, row_count) > most) {
        atomic_fetch_sub(&own->held, 1);
        return 0;
    }
    store(&own->accepted, load(&own->accepted) + 1);
    return 1;
}

void fl_tally_drop(void *rows, uint32_t row)
{
    atomic_fetch_sub(&row_of(rows, row)->held, 1);
}

void fl_tally_take(void *rows, uint32_t row)
{
    atomic_fetch_add(&row_of(rows, row)->taken, 1);
}

void fl_tally_hold(void *rows, uint32_t row, uint64_t connections)
{
    atomic_store(&row_of(rows, row)->held, connections);
}

void fl_tally_count(void *rows, uint32_t row, uint64_t requests, uint64_t bytes_received, uint64_t bytes_sent)
{
    struct row *own = row_of(rows, row);
    store(&own->requests, requests);
    store(&own->bytes_received, bytes_received);
    store(&own->bytes_sent, bytes_sent);
}

void fl_tally_read(const void *rows, uint32_t row, fl_tally_counts *out)
{
    const struct row *one = row_of(rows, row);
    *out = (fl_tally_counts){
        .held = load(&one->held),
        .taken = load(&one->taken),
        .accepted = load(&one->accepted),
        .requests = load(&one->requests),
        .bytes_received = load(&one->bytes_received),
        .bytes_sent = load(&one->bytes_sent),
    };
}

void fl_tally_clear(void *rows, uint32_t row)
{
    struct row *gone = row_of(rows, row);
    atomic_store(&gone->held, 0);
    store(&gone->accepted, 0);
    fl_tally_count(rows, row, 0, 0, 0);
    atomic_store(&gone->taken, 0);
}
