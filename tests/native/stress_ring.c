/* Eight producers and a consumer that sleeps on an eventfd: every record arrives once, whole, and in its producer's
 * order; the consumer is never left asleep with a record in the ring. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "fl_ring.h"
#include "fl_test.h"
#include "fl_wake.h"

enum { PRODUCERS = 8, SLOTS = 64, FILL_BYTES_MAX = 100, LOST_WAKE_MS = 30000 };

struct record {
    uint32_t producer;
    uint32_t sequence;
    uint8_t fill[FILL_BYTES_MAX]; /* sequence % (FILL_BYTES_MAX + 1) bytes, each the sequence's low byte */
};

static fl_ring *ring;      /* any thread */
static int wake_fd;        /* any thread */
static uint32_t per_producer;

static uint32_t fill_bytes(uint32_t sequence)
{
    return sequence % (FILL_BYTES_MAX + 1);
}

static void *produce(void *argument)
{
    struct record record = {.producer = (uint32_t)(uintptr_t)argument};
    uint64_t state = fl_test_seed + record.producer;
    for (record.sequence = 0; record.sequence < per_producer; record.sequence++) {
        uint32_t fill = fill_bytes(record.sequence);
        memset(record.fill, (int)(record.sequence & 0xFF), fill);
        int result;
        while ((result = fl_ring_push(ring, &record, 2 * (uint32_t)sizeof(uint32_t) + fill)) == FL_RING_FULL) {
            sched_yield();
        }
        CHECK(result == FL_RING_OK || result == FL_RING_WAKE);
        if (result == FL_RING_WAKE) {
            CHECK_EQUAL(fl_wake_signal(wake_fd), 0);
        }
        if (fl_random_of(&state) % 16 == 0) {
            sched_yield(); /* lets the consumer catch up and sleep */
        }
    }
    return NULL;
}

static uint32_t sleep_until_woken(void)
{
    if (!fl_ring_announce_sleep(ring)) {
        return 0;
    }
    struct pollfd poll_fd = {.fd = wake_fd, .events = POLLIN};
    int ready;
    do {
        ready = poll(&poll_fd, 1, LOST_WAKE_MS);
    } while (ready < 0 && errno == EINTR);
    if (ready == 0) {
        FAIL("a wake was lost: %u records wait", fl_ring_size(ring));
    }
    CHECK(fl_wake_clear(wake_fd) >= 0);
    fl_ring_announce_awake(ring);
    return 1;
}

int main(void)
{
    pthread_t threads[PRODUCERS];
    uint32_t next[PRODUCERS] = {0};
    uint64_t popped = 0, sleeps = 0;

    fl_test_start();
    per_producer = fl_rounds(100000);
    wake_fd = fl_wake_create();
    CHECK(wake_fd >= 0);
    CHECK_EQUAL(fl_ring_create(&ring, SLOTS, sizeof(struct record)), FL_RING_OK);
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        CHECK_EQUAL(pthread_create(&threads[i], NULL, produce, (void *)(uintptr_t)i), 0);
    }
    while (popped < (uint64_t)PRODUCERS * per_producer) {
        struct record record;
        int64_t bytes = fl_ring_pop(ring, &record, sizeof record);
        if (bytes == FL_RING_EMPTY) {
            sleeps += sleep_until_woken();
            continue;
        }
        CHECK(record.producer < PRODUCERS);
        CHECK_EQUAL(record.sequence, next[record.producer]);
        CHECK_EQUAL(bytes, 2 * sizeof(uint32_t) + fill_bytes(record.sequence));
        for (uint32_t i = 0; i < fill_bytes(record.sequence); i++) {
            CHECK_EQUAL(record.fill[i], record.sequence & 0xFF);
        }
        next[record.producer]++;
        popped++;
    }
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK_EQUAL(fl_ring_size(ring), 0);
    CHECK_EQUAL(fl_ring_announce_sleep(ring), 1);
    printf("%" PRIu64 " records, slept %" PRIu64 " times\n", popped, sleeps);
    fl_ring_destroy(ring);
    close(wake_fd);
    return 0;
}
