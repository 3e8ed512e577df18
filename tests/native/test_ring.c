#include "fl_ring.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>

#include "fl_test.h"

static fl_ring *make(uint32_t slot_count, uint32_t record_bytes_max)
{
    fl_ring *ring = NULL;
    CHECK_EQUAL(fl_ring_create(&ring, slot_count, record_bytes_max), FL_RING_OK);
    CHECK(ring != NULL);
    return ring;
}

static void refuses_impossible_sizes(void)
{
    static const uint32_t counts[] = {0, 1, 3, 5, 6, 7, 12, 1000, UINT32_MAX, (UINT32_C(1) << 31) + 1};
    fl_ring *ring;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        ring = (fl_ring *)(void *)&ring;
        CHECK_EQUAL(fl_ring_create(&ring, counts[i], 8), FL_RING_INVALID);
        CHECK(ring == NULL);
    }
    CHECK_EQUAL(fl_ring_create(&ring, 8, 0), FL_RING_INVALID);
    CHECK_EQUAL(fl_ring_create(&ring, UINT32_C(1) << 31, UINT32_MAX), FL_RING_INVALID);
    CHECK_EQUAL(fl_ring_create(&ring, 2, (uint32_t)FL_RING_BYTES_MAX), FL_RING_INVALID);
    CHECK_EQUAL(fl_ring_create(&ring, 2, UINT32_MAX), FL_RING_INVALID);
    fl_ring_destroy(NULL);
}

static void powers_of_two_hold_what_they_promise(void)
{
    for (uint32_t slot_count = 2; slot_count <= 4096; slot_count *= 2) {
        fl_ring *ring = make(slot_count, sizeof slot_count);
        uint32_t record = 0;
        CHECK_EQUAL(fl_ring_capacity(ring), slot_count);
        for (; record < slot_count; record++) {
            CHECK_EQUAL(fl_ring_size(ring), record);
            CHECK_EQUAL(fl_ring_push(ring, &record, sizeof record), FL_RING_OK);
        }
        CHECK_EQUAL(fl_ring_push(ring, &record, sizeof record), FL_RING_FULL);
        CHECK_EQUAL(fl_ring_size(ring), slot_count);
        CHECK_EQUAL(fl_ring_pop(ring, &record, sizeof record), sizeof record);
        CHECK_EQUAL(record, 0);
        record = slot_count;
        CHECK_EQUAL(fl_ring_push(ring, &record, sizeof record), FL_RING_OK);
        CHECK_EQUAL(fl_ring_push(ring, &record, sizeof record), FL_RING_FULL);
        for (uint32_t expected = 1; expected <= slot_count; expected++) {
            CHECK_EQUAL(fl_ring_pop(ring, &record, sizeof record), sizeof record);
            CHECK_EQUAL(record, expected);
        }
        CHECK_EQUAL(fl_ring_pop(ring, &record, sizeof record), FL_RING_EMPTY);
        CHECK_EQUAL(fl_ring_size(ring), 0);
        fl_ring_destroy(ring);
    }
}

/* Against a model (a counter on each side), many laps, records of every length. */
static void wraps_around_in_order(void)
{
    enum { RECORD_BYTES_MAX = 130 };
    static const uint32_t counts[] = {2, 4, 64};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        fl_ring *ring = make(counts[i], RECORD_BYTES_MAX);
        uint64_t pushed = 0, popped = 0;
        for (uint32_t round = 0; round < 20000; round++) {
            uint8_t record[RECORD_BYTES_MAX], expected[RECORD_BYTES_MAX];
            if (fl_random(2) == 0) {
                memset(record, (int)(pushed & 0xFF), sizeof record);
                int result = fl_ring_push(ring, record, (uint32_t)(pushed % (RECORD_BYTES_MAX + 1)));
                CHECK_EQUAL(result, pushed - popped == counts[i] ? FL_RING_FULL : FL_RING_OK);
                pushed += result == FL_RING_OK;
            } else {
                int64_t bytes = fl_ring_pop(ring, record, sizeof record);
                if (pushed == popped) {
                    CHECK_EQUAL(bytes, FL_RING_EMPTY);
                } else {
                    CHECK_EQUAL(bytes, popped % (RECORD_BYTES_MAX + 1));
                    memset(expected, (int)(popped & 0xFF), sizeof expected);
                    CHECK(memcmp(record, expected, (size_t)bytes) == 0);
                    popped++;
                }
            }
            CHECK_EQUAL(fl_ring_size(ring), pushed - popped);
        }
        CHECK(popped > 10 * counts[i]);
        fl_ring_destroy(ring);
    }
}

static void oversize_and_short_buffers_change_nothing(void)
{
    fl_ring *ring = make(2, 8);
    uint8_t record[16] = "0123456789abcde", popped[16] = {0};
    CHECK_EQUAL(fl_ring_push(ring, record, 9), FL_RING_TOO_BIG);
    CHECK_EQUAL(fl_ring_push(ring, record, UINT32_MAX), FL_RING_TOO_BIG);
    CHECK_EQUAL(fl_ring_size(ring), 0);
    CHECK_EQUAL(fl_ring_push(ring, record, 8), FL_RING_OK);
    CHECK_EQUAL(fl_ring_pop(ring, popped, 7), FL_RING_SHORT);
    CHECK_EQUAL(fl_ring_pop(ring, popped, 0), FL_RING_SHORT);
    CHECK_EQUAL(popped[0], 0);
    CHECK_EQUAL(fl_ring_size(ring), 1);
    CHECK_EQUAL(fl_ring_pop(ring, popped, 8), 8);
    CHECK(memcmp(popped, record, 8) == 0 && popped[8] == 0);
    CHECK_EQUAL(fl_ring_push(ring, NULL, 0), FL_RING_OK);
    CHECK_EQUAL(fl_ring_pop(ring, NULL, 0), 0);
    CHECK_EQUAL(fl_ring_pop(ring, NULL, 0), FL_RING_EMPTY);
    fl_ring_destroy(ring);
}

static void announcement_is_told_to_one_push(void)
{
    fl_ring *ring = make(8, 4);
    uint32_t record = 7;
    CHECK_EQUAL(fl_ring_push(ring, &record, 4), FL_RING_OK);
    CHECK_EQUAL(fl_ring_announce_sleep(ring), 0);
    CHECK_EQUAL(fl_ring_push(ring, &record, 4), FL_RING_OK); /* a refused announcement leaves nothing behind */
    CHECK_EQUAL(fl_ring_pop(ring, &record, 4), 4);
    CHECK_EQUAL(fl_ring_pop(ring, &record, 4), 4);

    CHECK_EQUAL(fl_ring_announce_sleep(ring), 1);
    CHECK_EQUAL(fl_ring_push(ring, &record, 5), FL_RING_TOO_BIG); /* what is not pushed wakes nobody */
    CHECK_EQUAL(fl_ring_push(ring, &record, 4), FL_RING_WAKE);
    CHECK_EQUAL(fl_ring_push(ring, &record, 4), FL_RING_OK);
    fl_ring_announce_awake(ring);
    CHECK_EQUAL(fl_ring_announce_sleep(ring), 0);
    CHECK_EQUAL(fl_ring_pop(ring, &record, 4), 4);
    CHECK_EQUAL(fl_ring_pop(ring, &record, 4), 4);

    CHECK_EQUAL(fl_ring_announce_sleep(ring), 1);
    CHECK_EQUAL(fl_ring_announce_sleep(ring), 1);
    fl_ring_announce_awake(ring); /* something else woke it */
    CHECK_EQUAL(fl_ring_push(ring, &record, 4), FL_RING_OK);
    fl_ring_destroy(ring);
}

static void no_memory_is_told(void)
{
#ifndef FL_SANITIZED /* sanitizers need the address space themselves */
    struct rlimit before, little;
    fl_ring *ring = (fl_ring *)(void *)&before;
    CHECK_EQUAL(getrlimit(RLIMIT_AS, &before), 0);
    little = before;
    little.rlim_cur = 256u << 20;
    CHECK_EQUAL(setrlimit(RLIMIT_AS, &little), 0);
    CHECK_EQUAL(fl_ring_create(&ring, 2, (uint32_t)(FL_RING_BYTES_MAX / 2 - 64)), FL_RING_NO_MEMORY);
    CHECK(ring == NULL);
    CHECK_EQUAL(setrlimit(RLIMIT_AS, &before), 0);
#endif
}

enum { PUSHERS = 2 };

static struct {
    fl_ring *ring;
    uint32_t rounds;
    atomic_uint started; /* rounds the consumer has let begin */
    atomic_uint pushed;  /* pushes of all rounds */
    atomic_uint wakes;   /* of all rounds */
} race;

static void *push_each_round(void *argument)
{
    uint64_t state = fl_test_seed + (uintptr_t)argument;
    for (uint32_t round = 0; round < race.rounds; round++) {
        /* Spins so that the pushes of a round meet; yields now and then for machines with fewer processors. */
        for (uint32_t spins = 1; atomic_load(&race.started) <= round; spins++) {
            if (spins % 4096 == 0) {
                sched_yield();
            }
        }
        for (volatile uint64_t delay = fl_random_of(&state) % 64; delay > 0; delay--) { /* meets at varied points */
        }
        int result = fl_ring_push(race.ring, &round, sizeof round);
        CHECK(result == FL_RING_OK || result == FL_RING_WAKE);
        atomic_fetch_add(&race.wakes, result == FL_RING_WAKE);
        atomic_fetch_add(&race.pushed, 1);
    }
    return NULL;
}

static void racing_pushes_share_one_wake(void)
{
    pthread_t threads[PUSHERS];
    race.ring = make(PUSHERS, sizeof(uint32_t));
    race.rounds = fl_rounds(20000);
    for (uintptr_t i = 0; i < PUSHERS; i++) {
        CHECK_EQUAL(pthread_create(&threads[i], NULL, push_each_round, (void *)i), 0);
    }
    for (uint32_t round = 0; round < race.rounds; round++) {
        uint32_t record;
        CHECK_EQUAL(fl_ring_announce_sleep(race.ring), 1);
        atomic_store(&race.started, round + 1);
        while (atomic_load(&race.pushed) < (round + 1) * PUSHERS) {
            sched_yield();
        }
        CHECK_EQUAL(atomic_load(&race.wakes), round + 1);
        for (int i = 0; i < PUSHERS; i++) {
            CHECK_EQUAL(fl_ring_pop(race.ring, &record, sizeof record), sizeof record);
            CHECK_EQUAL(record, round);
        }
        CHECK_EQUAL(fl_ring_pop(race.ring, &record, sizeof record), FL_RING_EMPTY);
    }
    for (int i = 0; i < PUSHERS; i++) {
        pthread_join(threads[i], NULL);
    }
    fl_ring_destroy(race.ring);
}

int main(void)
{
    fl_test_start();
    RUN(refuses_impossible_sizes);
    RUN(powers_of_two_hold_what_they_promise);
    RUN(wraps_around_in_order);
    RUN(oversize_and_short_buffers_change_nothing);
    RUN(announcement_is_told_to_one_push);
    RUN(racing_pushes_share_one_wake);
    RUN(no_memory_is_told);
    return 0;
}
