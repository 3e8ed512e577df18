#include "guarded_ring.h"

#include <errno.h>
#include <sys/time.h>

#include "children.h"

enum { HEAD = FL_SPSC_RECORD_BYTES, REWIND_BYTES = 8192 };

static uint32_t total_of(uint32_t bytes)
{
    return HEAD + (bytes + 7) / 8 * 8;
}

/* The record must lie in the ring in one piece. */
static uint8_t *placed(const fl_spsc *ring, void *place, uint32_t bytes)
{
    CHECK((uint8_t *)place >= ring->data + HEAD && (uint8_t *)place + bytes <= ring->data + ring->capacity);
    CHECK_EQUAL((uintptr_t)place % 8, 0);
    return place;
}

static void put(guarded_ring *ring, uint32_t bytes, uint64_t number)
{
    void *place = fl_spsc_reserve(&ring->producer, bytes);
    if (place == NULL) {
        FAIL("no room for %u bytes at %" PRIu64, bytes, ring->producer.position);
    }
    fill_record(placed(&ring->producer, place, bytes), bytes, number);
}

static void look(guarded_ring *ring, uint32_t bytes, uint64_t number)
{
    const uint8_t *data = NULL;
    CHECK_EQUAL(fl_spsc_peek(&ring->consumer, &data), bytes);
    check_record(data, bytes, number);
}

static void take(guarded_ring *ring, uint32_t bytes, uint64_t number)
{
    look(ring, bytes, number);
    fl_spsc_release(&ring->consumer);
}

static int64_t peeked(guarded_ring *ring)
{
    const uint8_t *data;
    return fl_spsc_peek(&ring->consumer, &data);
}

static void only_good_memory_is_taken(void)
{
    static _Alignas(64) uint8_t control[FL_SPSC_CONTROL_BYTES], data[64];
    static const uint32_t refused[] = {0, 1, 32, 63, 65, 96, 4095, (1u << 30) + 8, 1u << 31, UINT32_MAX};
    fl_spsc ring;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        CHECK_EQUAL(fl_spsc_init(&ring, control, data, refused[i]), -EINVAL);
    }
    CHECK_EQUAL(fl_spsc_init(&ring, control + 8, data, 64), -EINVAL);
    CHECK_EQUAL(fl_spsc_init(&ring, control, data + 4, 32), -EINVAL);
    CHECK_EQUAL(fl_spsc_init(&ring, control, data, 1u << 30), 0);
    CHECK_EQUAL(fl_spsc_record_bytes_max(&ring), (1u << 29) - HEAD);
    CHECK_EQUAL(fl_spsc_init(&ring, control, data, 64), 0);
    CHECK_EQUAL(fl_spsc_record_bytes_max(&ring), 24);
}

/* An empty ring takes every size up to the largest, wherever in it the next record begins. */
static void every_size_at_every_place(void)
{
    uint64_t number = 0;
    for (uint32_t capacity = 64; capacity <= 512; capacity *= 2) {
        for (uint32_t offset = 0; offset < capacity; offset += HEAD) {
            guarded_ring ring = guarded_ring_make(capacity);
            for (uint32_t bytes = 0; bytes <= fl_spsc_record_bytes_max(&ring.producer); bytes++) {
                while ((ring.producer.position - offset) % capacity != 0) {
                    put(&ring, 0, ++number);
                    fl_spsc_publish(&ring.producer);
                    take(&ring, 0, number);
                }
                put(&ring, bytes, ++number);
                CHECK_EQUAL(peeked(&ring), -EAGAIN);
                CHECK_EQUAL(fl_spsc_ready(&ring.consumer), 0);
                CHECK_EQUAL(fl_spsc_drained(&ring.producer), 0);
                CHECK_EQUAL(fl_spsc_publish(&ring.producer), 0);
                CHECK_EQUAL(fl_spsc_ready(&ring.consumer), 1);
                look(&ring, bytes, number);
                take(&ring, bytes, number); /* a second look sees the same */
                CHECK_EQUAL(fl_spsc_drained(&ring.producer), 1);
                CHECK_EQUAL(peeked(&ring), -EAGAIN);
            }
            for (uint32_t over = 1; over <= 64; over++) {
                CHECK(fl_spsc_reserve(&ring.producer, fl_spsc_record_bytes_max(&ring.producer) + over) == NULL);
            }
            CHECK(fl_spsc_reserve(&ring.producer, UINT32_MAX) == NULL);
            CHECK(fl_spsc_reserve(&ring.producer, UINT32_MAX - 7) == NULL);
            guarded_ring_free(&ring);
        }
    }
}

/* Against a queue of sizes. Without the early rewind, whether there is room is a simple sum: `exact`. */
static void against_a_queue(uint32_t capacity, uint32_t bytes_max, int exact)
{
    enum { QUEUE = 4096 };
    static uint32_t sizes[QUEUE];
    guarded_ring ring = guarded_ring_make(capacity);
    uint64_t reserved = 0, published = 0, taken = 0, full = 0;
    for (uint32_t round = 0; round < fl_rounds(100000); round++) {
        for (uint64_t tries = fl_random(6); tries > 0; tries--) {
            uint32_t bytes = (uint32_t)fl_random(fl_random(2) ? bytes_max + 1 : 24);
            uint64_t used = ring.producer.position - atomic_load(shared_position(&ring.producer, RELEASED_AT));
            uint32_t left = capacity - (uint32_t)(ring.producer.position % capacity), total = total_of(bytes);
            void *place = fl_spsc_reserve(&ring.producer, bytes);
            if (exact) {
                CHECK_EQUAL(place != NULL, used + (left < total ? left : 0) + total <= capacity);
            }
            CHECK(ring.producer.position - atomic_load(shared_position(&ring.producer, RELEASED_AT)) <= capacity);
            if (place == NULL) {
                CHECK(used != 0);
                full++;
                break;
            }
            fill_record(placed(&ring.producer, place, bytes), bytes, reserved);
            sizes[reserved++ % QUEUE] = bytes;
            if (fl_random(3) == 0) {
                fl_spsc_publish(&ring.producer);
                published = reserved;
            }
        }
        if (fl_random(2) == 0) {
            fl_spsc_publish(&ring.producer);
            published = reserved;
        }
        for (uint64_t tries = fl_random(6); tries > 0 && taken < published; tries--) {
            take(&ring, sizes[taken % QUEUE], taken);
            taken++;
        }
        CHECK_EQUAL(fl_spsc_ready(&ring.consumer), taken < published);
        CHECK_EQUAL(fl_spsc_drained(&ring.producer), taken == reserved);
    }
    CHECK(full > 0 && taken > 0);
    guarded_ring_free(&ring);
}

static void as_a_queue_would(void)
{
    against_a_queue(64, 24, 1);
    against_a_queue(256, 120, 1);
    against_a_queue(2048, 1016, 1);
    against_a_queue(8192, 4088, 1);
    against_a_queue(16384, 8184, 0);
    against_a_queue(65536, 3000, 0);
}

/* Calls that come one at a time stay at the beginning of a large ring, and those in a burst still find its room. */
static void an_empty_ring_begins_again_early(void)
{
    guarded_ring ring = guarded_ring_make(65536);
    uint64_t highest = 0, rewinds = 0;
    for (uint64_t number = 0; number < 10000; number++) {
        uint32_t bytes = (uint32_t)fl_random(300);
        uint64_t before = ring.producer.position % 65536;
        put(&ring, bytes, number);
        fl_spsc_publish(&ring.producer);
        take(&ring, bytes, number);
        rewinds += ring.producer.position % 65536 < before;
        highest = before > highest ? before : highest;
    }
    CHECK(highest >= REWIND_BYTES && highest < REWIND_BYTES + 1000);
    CHECK(rewinds > 10000 * 150 / (REWIND_BYTES + 1000));
    for (uint32_t round = 0; round < 300; round++) {
        uint32_t burst = (REWIND_BYTES - 1000) / total_of(100); /* there is room for it, rewound or not */
        for (uint32_t number = 0; number < burst; number++) {
            put(&ring, 100, number);
        }
        fl_spsc_publish(&ring.producer);
        for (uint32_t number = 0; number < burst; number++) {
            take(&ring, 100, number);
        }
        for (uint64_t single = fl_random(100); single > 0; single--) {
            put(&ring, 100, single);
            fl_spsc_publish(&ring.producer);
            take(&ring, 100, single);
        }
    }
    /* A record that is larger than what lies before it must not rewind: there would be no room. */
    for (uint32_t bytes = 2000; bytes <= fl_spsc_record_bytes_max(&ring.producer); bytes += 1 + (uint32_t)fl_random(500)) {
        put(&ring, bytes, bytes);
        fl_spsc_publish(&ring.producer);
        take(&ring, bytes, bytes);
    }
    guarded_ring_free(&ring);
}

static void full_and_crowded(void)
{
    guarded_ring ring = guarded_ring_make(256);
    uint64_t in = 0, out = 0;
    for (int round = 0; round < 50; round++) {
        while (fl_spsc_reserve(&ring.producer, 24) != NULL) {
            in++;
        }
        fl_spsc_publish(&ring.producer);
        CHECK_EQUAL(in - out, 8);
        CHECK_EQUAL(fl_spsc_announce_crowded(&ring.producer), 1);
        CHECK_EQUAL(fl_spsc_announce_crowded(&ring.producer), 1);
        CHECK(peeked(&ring) >= 0);
        CHECK_EQUAL(fl_spsc_release(&ring.consumer), 1); /* told once */
        CHECK(peeked(&ring) >= 0);
        CHECK_EQUAL(fl_spsc_release(&ring.consumer), 0);
        CHECK_EQUAL(fl_spsc_announce_crowded(&ring.producer), 0); /* there is room: nothing is announced */
        CHECK(peeked(&ring) >= 0);
        CHECK_EQUAL(fl_spsc_release(&ring.consumer), 0);
        out += 3;
    }
    while (peeked(&ring) >= 0) {
        fl_spsc_release(&ring.consumer);
    }
    CHECK_EQUAL(fl_spsc_release(&ring.consumer), 0); /* without a look: nothing */
    CHECK_EQUAL(fl_spsc_drained(&ring.producer), 1);
    guarded_ring_free(&ring);
}

static void who_announced_is_told_once(void)
{
    guarded_ring ring = guarded_ring_make(256);
    CHECK_EQUAL(fl_spsc_announce_sleep(&ring.consumer), 1);
    put(&ring, 5, 1);
    CHECK_EQUAL(fl_spsc_publish(&ring.producer), 1);
    CHECK_EQUAL(fl_spsc_publish(&ring.producer), 0);
    CHECK_EQUAL(fl_spsc_announce_sleep(&ring.consumer), 0); /* a record is there */
    put(&ring, 6, 2);
    CHECK_EQUAL(fl_spsc_publish(&ring.producer), 0);
    take(&ring, 5, 1);
    CHECK_EQUAL(fl_spsc_announce_sleep(&ring.consumer), 0); /* the second one */
    take(&ring, 6, 2);
    CHECK_EQUAL(fl_spsc_announce_sleep(&ring.consumer), 1);
    fl_spsc_announce_awake(&ring.consumer);
    put(&ring, 7, 3);
    CHECK_EQUAL(fl_spsc_publish(&ring.producer), 0);
    fl_spsc_announce_awake(&ring.consumer);
    take(&ring, 7, 3);
    guarded_ring_free(&ring);
}

static void nothing(int number)
{
    (void)number;
}

static void sleeping_by_futex(void)
{
    guarded_ring ring = guarded_ring_make(256);
    CHECK_EQUAL(fl_spsc_sleep(&ring.consumer, -1), 0); /* nothing is announced */
    CHECK_EQUAL(fl_spsc_sleep_crowded(&ring.producer, -1), 0);
    CHECK_EQUAL(fl_spsc_announce_sleep(&ring.consumer), 1);
    CHECK_EQUAL(fl_spsc_sleep(&ring.consumer, 0), -ETIMEDOUT);
    CHECK_EQUAL(fl_spsc_sleep(&ring.consumer, 1000000), -ETIMEDOUT);
    struct sigaction action = {.sa_handler = nothing};
    sigaction(SIGVTALRM, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    const struct itimerval often = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    CHECK_EQUAL(fl_spsc_sleep(&ring.consumer, -1), -EINTR);
    setitimer(ITIMER_REAL, &never, NULL);
    put(&ring, 1, 1);
    CHECK_EQUAL(fl_spsc_publish(&ring.producer), 1);
    CHECK_EQUAL(fl_spsc_sleep(&ring.consumer, -1), 0); /* the announcement is gone: no sleep */
    fl_spsc_rouse(&ring.producer);
    fl_spsc_rouse_crowded(&ring.consumer); /* nobody there: harmless */
    guarded_ring_free(&ring);
}

/* ---- deaths ------------------------------------------------------------------------------------------------------ */

/* 0 in a child, which kills itself; returns in its parent when it has. */
static pid_t child_or_wait(void)
{
    pid_t pid = start_child();
    if (pid != 0) {
        await_kill(pid);
    }
    return pid;
}

static void a_producer_that_dies_before_it_publishes_leaves_nothing(void)
{
    guarded_ring ring = guarded_ring_make(4096);
    if (child_or_wait() == 0) {
        put(&ring, 100, 1);
        fl_spsc_publish(&ring.producer);
        put(&ring, 200, 2);
        put(&ring, 300, 3);
        raise(SIGKILL);
    }
    take(&ring, 100, 1);
    CHECK_EQUAL(peeked(&ring), -EAGAIN);
    CHECK_EQUAL(fl_spsc_ready(&ring.consumer), 0);
    CHECK_EQUAL(fl_spsc_announce_sleep(&ring.consumer), 1);
    guarded_ring_free(&ring);
}

static void a_consumer_that_dies_with_a_record_has_not_taken_it(void)
{
    guarded_ring ring = guarded_ring_make(4096);
    put(&ring, 100, 1);
    put(&ring, 200, 2);
    fl_spsc_publish(&ring.producer);
    if (child_or_wait() == 0) {
        take(&ring, 100, 1);
        look(&ring, 200, 2);
        raise(SIGKILL);
    }
    CHECK_EQUAL(fl_spsc_drained(&ring.producer), 0);
    CHECK_EQUAL(atomic_load(shared_position(&ring.producer, RELEASED_AT)), total_of(100));
    while (fl_spsc_reserve(&ring.producer, 24) != NULL) {
    }
    CHECK_EQUAL(ring.producer.position / 32 * 32, (total_of(100) + 4096) / 32 * 32); /* its record is still there */
    fl_spsc_publish(&ring.producer);
    CHECK_EQUAL(fl_spsc_announce_crowded(&ring.producer), 1); /* its death has to be told by other means */
    guarded_ring_free(&ring);
}

/* ---- impossible values, one at a time ---------------------------------------------------------------------------- */

static void impossible_positions_are_refused(void)
{
    guarded_ring ring = guarded_ring_make(256);
    for (uint64_t number = 0; number < 40; number++) { /* somewhere after the start */
        put(&ring, 10, number);
        fl_spsc_publish(&ring.producer);
        take(&ring, 10, number);
    }
    uint64_t here = ring.consumer.position;
    const uint64_t wrong[] = {here - 8, here - 256, here - 1, here + 1, here + 7, here + 9, here + 256 + 8, here + 257,
                              0, UINT64_MAX, UINT64_MAX - 7, here + (UINT64_C(1) << 32), here ^ (UINT64_C(1) << 63)};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        atomic_store(shared_position(&ring.consumer, PUBLISHED_AT), wrong[i]);
        CHECK_EQUAL(fl_spsc_ready(&ring.consumer), 1); /* nobody sleeps on it */
        CHECK_EQUAL(fl_spsc_announce_sleep(&ring.consumer), 0);
        CHECK_EQUAL(peeked(&ring), -EPROTO);
        CHECK_EQUAL(peeked(&ring), -EPROTO);
        CHECK_EQUAL(ring.consumer.position, here);
    }
    atomic_store(shared_position(&ring.consumer, PUBLISHED_AT), here); /* as it was: goes on */
    put(&ring, 24, 99);
    fl_spsc_publish(&ring.producer);
    take(&ring, 24, 99);

    here = ring.producer.position;
    const uint64_t claimed[] = {here + 8, here + 1, here - 264, here - 257, UINT64_MAX, 0, here + (UINT64_C(1) << 32)};
    for (size_t i = 0; i < sizeof claimed / sizeof *claimed; i++) {
        atomic_store(shared_position(&ring.producer, RELEASED_AT), claimed[i]);
        CHECK_EQUAL(fl_spsc_drained(&ring.producer), 0);
        CHECK(fl_spsc_reserve(&ring.producer, 0) == NULL);
        CHECK(fl_spsc_reserve(&ring.producer, 120) == NULL);
        CHECK_EQUAL(fl_spsc_announce_crowded(&ring.producer), 1);
        CHECK_EQUAL(ring.producer.position, here);
    }
    atomic_store(shared_position(&ring.producer, RELEASED_AT), here);
    put(&ring, 120, 100); /* an impossible value is not kept */
    guarded_ring_free(&ring);
}

static void impossible_sizes_are_refused(void)
{
    static const uint32_t wrong[] = {121, 128, 248, 249, 256, 0x7FFFFFFF, 0x80000000, UINT32_MAX - 7, UINT32_MAX - 1};
    guarded_ring ring = guarded_ring_make(256);
    put(&ring, 40, 1);
    put(&ring, 40, 2);
    fl_spsc_publish(&ring.producer);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        atomic_store(shared_size(&ring.consumer, 0), wrong[i]);
        CHECK_EQUAL(peeked(&ring), -EPROTO);
    }
    for (uint32_t bytes = 89; bytes <= 120; bytes++) { /* more than was published */
        atomic_store(shared_size(&ring.consumer, 0), bytes);
        CHECK_EQUAL(peeked(&ring), -EPROTO);
    }
    atomic_store(shared_size(&ring.consumer, 0), SKIP_MARK); /* to the end of the ring, which was not published */
    CHECK_EQUAL(peeked(&ring), -EPROTO);
    atomic_store(shared_size(&ring.consumer, 0), 40);
    take(&ring, 40, 1);
    take(&ring, 40, 2);

    uint64_t here = ring.consumer.position; /* 96: beyond the end of the ring */
    for (uint32_t offset = 96; offset < 160; offset += 8) {
        put(&ring, 0, offset);
        fl_spsc_publish(&ring.producer);
        take(&ring, 0, offset);
    }
    here = ring.consumer.position;
    atomic_store(shared_position(&ring.consumer, PUBLISHED_AT), here + 256);
    for (uint32_t bytes = 89; bytes <= 120; bytes++) {
        atomic_store(shared_size(&ring.consumer, here), bytes);
        CHECK_EQUAL(peeked(&ring), -EPROTO);
    }
    atomic_store(shared_size(&ring.consumer, here), SKIP_MARK); /* and another skip at the beginning */
    atomic_store(shared_size(&ring.consumer, 0), SKIP_MARK);
    CHECK_EQUAL(peeked(&ring), -EPROTO);
    CHECK_EQUAL(peeked(&ring), -EPROTO);
    CHECK_EQUAL(fl_spsc_release(&ring.consumer), 0);
    guarded_ring_free(&ring);
}

/* A record that was looked at turns into something else: its old size is not released. */
static void a_record_changes_between_two_looks(void)
{
    guarded_ring ring = guarded_ring_make(64);
    put(&ring, 0, 1);
    put(&ring, 16, 1);
    fl_spsc_publish(&ring.producer);
    take(&ring, 0, 1);
    look(&ring, 16, 1);
    atomic_store(shared_position(&ring.consumer, PUBLISHED_AT), 8 + 64);
    atomic_store(shared_size(&ring.consumer, 8), 1000);
    CHECK_EQUAL(peeked(&ring), -EPROTO);
    fl_spsc_release(&ring.consumer);
    CHECK_EQUAL(ring.consumer.position, 8);
    guarded_ring_free(&ring);
}

/* ---- any values: between any two calls, something in shared memory changes ---------------------------------------- */

static uint64_t nasty_position(const fl_spsc *ring)
{
    uint64_t about = fl_random(2) ? ring->position : atomic_load(shared_position(ring, fl_random(2) ? 0 : RELEASED_AT));
    switch (fl_random(6)) {
    case 0: return fl_random(UINT64_MAX);
    case 1: return about + ring->capacity + 8 * (fl_random(3) - 1);
    case 2: return about - 8 * fl_random(20);
    case 3: return about + fl_random(ring->capacity);
    default: return about + 8 * fl_random(ring->capacity / 8 + 1);
    }
}

static uint32_t nasty_size(const fl_spsc *ring)
{
    switch (fl_random(5)) {
    case 0: return SKIP_MARK;
    case 1: return (uint32_t)fl_random(UINT32_MAX);
    case 2: return ring->capacity / 2 - 8 + (uint32_t)fl_random(3) - 1;
    default: return (uint32_t)fl_random(ring->capacity / 2);
    }
}

static void any_values(uint32_t capacity)
{
    guarded_ring ring = guarded_ring_make(capacity);
    uint64_t taken = 0, refused = 0, placed_count = 0, no_room = 0;
    watch("calls on random values", 100);
    for (uint32_t round = 0; round < fl_rounds(400000); round++) {
        const uint8_t *data = NULL;
        switch (fl_random(8)) {
        case 0: atomic_store(shared_position(&ring.consumer, PUBLISHED_AT), nasty_position(&ring.consumer)); break;
        case 1: atomic_store(shared_position(&ring.producer, RELEASED_AT), nasty_position(&ring.producer)); break;
        case 2: atomic_store(shared_size(&ring.consumer, fl_random(capacity)), nasty_size(&ring.consumer)); break;
        case 3: atomic_store(shared_size(&ring.consumer, ring.consumer.position), nasty_size(&ring.consumer)); break;
        case 4: atomic_store(shared_flag(&ring.consumer, fl_random(2) ? ASLEEP_AT : CROWDED_AT),
                             (uint32_t)fl_random(3)); break;
        default: break;
        }
        int64_t bytes = fl_spsc_peek(&ring.consumer, &data);
        CHECK(bytes == -EAGAIN || bytes == -EPROTO || (bytes >= 0 && bytes <= fl_spsc_record_bytes_max(&ring.consumer)));
        if (bytes >= 0) {
            CHECK(data >= ring.consumer.data + HEAD && data + bytes <= ring.consumer.data + capacity);
            taken++;
        } else {
            refused += bytes == -EPROTO;
        }
        int told = fl_random(3) == 0 ? fl_spsc_release(&ring.consumer) : 0;
        told |= fl_random(3) == 0 ? fl_spsc_announce_sleep(&ring.consumer) : 0;
        uint32_t wanted = (uint32_t)fl_random(capacity / 2);
        uint8_t *place = fl_spsc_reserve(&ring.producer, wanted);
        if (place != NULL) {
            memset(placed(&ring.producer, place, wanted), (int)(round & 0xFF), wanted);
            placed_count++;
        } else {
            told |= fl_spsc_announce_crowded(&ring.producer);
            no_room++;
        }
        told |= fl_random(2) ? fl_spsc_publish(&ring.producer) : fl_spsc_drained(&ring.producer);
        CHECK((told & ~1) == 0);
        CHECK_EQUAL(ring.producer.position % 8, 0);
        CHECK_EQUAL(ring.consumer.position % 8, 0);
    }
    watch("", 0);
    CHECK(taken > 0 && refused > 0 && placed_count > 0 && no_room > 0);
    guarded_ring_free(&ring);
}

static void any_values_at_all_are_survived(void)
{
    any_values(64);
    any_values(GUARD_PAGE);
    any_values(4 * GUARD_PAGE);
}

int main(void)
{
    fl_test_start();
    RUN(only_good_memory_is_taken);
    RUN(every_size_at_every_place);
    RUN(as_a_queue_would);
    RUN(an_empty_ring_begins_again_early);
    RUN(full_and_crowded);
    RUN(who_announced_is_told_once);
    RUN(sleeping_by_futex);
    RUN(a_producer_that_dies_before_it_publishes_leaves_nothing);
    RUN(a_consumer_that_dies_with_a_record_has_not_taken_it);
    RUN(impossible_positions_are_refused);
    RUN(impossible_sizes_are_refused);
    RUN(a_record_changes_between_two_looks);
    RUN(any_values_at_all_are_survived);
    return 0;
}
