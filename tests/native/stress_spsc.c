/* A producer and a consumer of one ring at the same time: as threads and as processes, sleeping in every way, in a ring
 * that is always full and in one that never is, with delays at random places. Every record arrives once, whole and in
 * order; nobody is left asleep. And each of them alone against a process that writes anything anywhere. */
#include "guarded_ring.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "children.h"
#include "fl_wake.h"

enum { LOST_WAKE_MS = 20000, TIME_MAX_S = 100, RECORDS = 70000, BATCH_MAX = 5 };

struct course {
    guarded_ring ring;
    int consumer_bell; /* eventfd; -1: sleeps on the futex */
    int producer_bell;
    uint32_t records;
    uint32_t bytes_max;
};

/* Both sides compute the sizes from the same seed. */
static uint32_t next_size(uint64_t *state, uint32_t bytes_max)
{
    uint64_t value = fl_random_of(state);
    return (uint32_t)((value >> 8) % ((value & 7) == 0 ? bytes_max + 1 : 33));
}

static void delay(uint64_t *state)
{
    uint64_t value = fl_random_of(state);
    switch (value % 256) {
    case 0:
    case 1: sched_yield(); break;
    case 2: nanosleep(&(struct timespec){.tv_nsec = (long)((value >> 8) % 30000)}, NULL); break;
    case 3:
    case 4:
    case 5:
        for (volatile uint32_t i = (uint32_t)((value >> 8) % 3000); i > 0; i--) {
        }
        break;
    default: break;
    }
}

static void wait_for_bell(int fd, const char *who, const struct course *course)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    int ready;
    do {
        ready = poll(&poll_fd, 1, LOST_WAKE_MS);
    } while (ready < 0 && errno == EINTR);
    if (ready == 0) {
        FAIL("the wake of the %s was lost: published %" PRIu64 ", released %" PRIu64, who,
             atomic_load(shared_position(&course->ring.producer, PUBLISHED_AT)),
             atomic_load(shared_position(&course->ring.producer, RELEASED_AT)));
    }
    CHECK(fl_wake_clear(fd) >= 0);
}

static void check_woken(int result, const char *who, const struct course *course)
{
    if (result == -ETIMEDOUT) {
        FAIL("the futex wake of the %s was lost: published %" PRIu64 ", released %" PRIu64, who,
             atomic_load(shared_position(&course->ring.producer, PUBLISHED_AT)),
             atomic_load(shared_position(&course->ring.producer, RELEASED_AT)));
    }
    CHECK(result == 0 || result == -EINTR);
}

static const int64_t lost_wake_ns = (int64_t)LOST_WAKE_MS * 1000000;

static void publish(struct course *course, uint64_t *state)
{
    int told = fl_spsc_publish(&course->ring.producer);
    CHECK(told == 0 || told == 1);
    if (told) {
        delay(state);
        if (course->consumer_bell >= 0) {
            CHECK_EQUAL(fl_wake_signal(course->consumer_bell), 0);
        } else {
            fl_spsc_rouse(&course->ring.producer);
        }
    }
}

static uint64_t produce(struct course *course)
{
    fl_spsc *ring = &course->ring.producer;
    uint64_t sizes = fl_test_seed, state = fl_test_seed + 1, crowded = 0;
    uint32_t pending = 0;
    for (uint32_t number = 0; number < course->records; number++) {
        uint32_t bytes = next_size(&sizes, course->bytes_max);
        uint8_t *place;
        while ((place = fl_spsc_reserve(ring, bytes)) == NULL) {
            if (pending != 0) {
                publish(course, &state);
                pending = 0;
                continue;
            }
            delay(&state);
            if (!fl_spsc_announce_crowded(ring)) {
                continue;
            }
            crowded++;
            if (course->producer_bell >= 0) {
                wait_for_bell(course->producer_bell, "producer", course);
            } else {
                check_woken(fl_spsc_sleep_crowded(ring, lost_wake_ns), "producer", course);
            }
        }
        fill_record(place, bytes, number);
        pending++;
        delay(&state);
        if (fl_random_of(&state) % BATCH_MAX == 0) {
            publish(course, &state);
            pending = 0;
            delay(&state);
        }
    }
    publish(course, &state);
    return crowded;
}

static uint64_t consume(struct course *course)
{
    fl_spsc *ring = &course->ring.consumer;
    uint64_t sizes = fl_test_seed, state = fl_test_seed + 2, slept = 0;
    for (uint32_t number = 0; number < course->records;) {
        const uint8_t *data;
        int64_t bytes = fl_spsc_peek(ring, &data);
        if (bytes == -EAGAIN) {
            delay(&state);
            if (fl_spsc_announce_sleep(ring)) {
                slept++;
                delay(&state);
                if (course->consumer_bell >= 0) {
                    wait_for_bell(course->consumer_bell, "consumer", course);
                } else {
                    check_woken(fl_spsc_sleep(ring, lost_wake_ns), "consumer", course);
                }
                fl_spsc_announce_awake(ring);
            }
            continue;
        }
        CHECK_EQUAL(bytes, next_size(&sizes, course->bytes_max));
        check_record(data, (uint32_t)bytes, number);
        number++;
        delay(&state);
        int told = fl_spsc_release(ring);
        CHECK(told == 0 || told == 1);
        if (told) {
            delay(&state);
            if (course->producer_bell >= 0) {
                CHECK_EQUAL(fl_wake_signal(course->producer_bell), 0);
            } else {
                fl_spsc_rouse_crowded(ring);
            }
        }
    }
    CHECK_EQUAL(fl_spsc_ready(ring), 0);
    return slept;
}

static void *produce_in_thread(void *argument)
{
    return (void *)(uintptr_t)produce(argument);
}

static void run_course(uint32_t capacity, int bells, int processes)
{
    static char name[100];
    struct course course = {.ring = guarded_ring_make(capacity), .consumer_bell = -1, .producer_bell = -1};
    course.records = fl_rounds(RECORDS);
    course.bytes_max = fl_spsc_record_bytes_max(&course.ring.producer);
    course.bytes_max = course.bytes_max < 3000 ? course.bytes_max : 3000;
    if (bells & 1) {
        CHECK((course.consumer_bell = fl_wake_create()) >= 0);
    }
    if (bells & 2) {
        CHECK((course.producer_bell = fl_wake_create()) >= 0);
    }
    snprintf(name, sizeof name, "%s, ring of %u, consumer by %s, producer by %s", processes ? "processes" : "threads",
             capacity, bells & 1 ? "bell" : "futex", bells & 2 ? "bell" : "futex");
    watch(name, TIME_MAX_S);
    uint64_t slept;
    if (processes) {
        pid_t pid = start_child();
        if (pid == 0) {
            watch(name, TIME_MAX_S);
            printf("    crowded %" PRIu64 " times, ", produce(&course));
            fflush(stdout);
            _exit(0);
        }
        slept = consume(&course);
        await_exit(pid);
    } else {
        pthread_t thread;
        void *result;
        CHECK_EQUAL(pthread_create(&thread, NULL, produce_in_thread, &course), 0);
        slept = consume(&course);
        CHECK_EQUAL(pthread_join(thread, &result), 0);
        printf("    crowded %" PRIu64 " times, ", (uint64_t)(uintptr_t)result);
        CHECK_EQUAL(fl_spsc_drained(&course.ring.producer), 1);
    }
    watch("", 0);
    printf("slept %" PRIu64 " times: %s\n", slept, name);
    if (bells & 1) {
        close(course.consumer_bell);
    }
    if (bells & 2) {
        close(course.producer_bell);
    }
    guarded_ring_free(&course.ring);
}

static const uint32_t capacities[] = {256, 4096, 65536};

static void every_record_between_processes(void)
{
    for (int bells = 0; bells < 4; bells++) {
        for (size_t i = 0; i < sizeof capacities / sizeof *capacities; i++) {
            run_course(capacities[i], bells, 1);
        }
    }
}

static void every_record_between_threads(void)
{
    for (int bells = 0; bells < 4; bells++) {
        for (size_t i = 0; i < sizeof capacities / sizeof *capacities; i++) {
            run_course(capacities[i], bells, 0);
        }
    }
}

/* ---- one honest side, and one that writes anything anywhere ------------------------------------------------------- */

/* Half of what is written is near to what is true, so that the honest side gets far. */
static uint64_t position_near(const fl_spsc *ring, uint64_t *state)
{
    uint64_t value = fl_random_of(state), more = fl_random_of(state);
    uint64_t about = atomic_load(shared_position(ring, value & 64 ? PUBLISHED_AT : RELEASED_AT));
    switch (value % 8) {
    case 0: return more;
    case 1: return about + ring->capacity + 8;
    case 2: return about - 8 * (more % 16);
    case 3: return about + 1 + more % 15;
    case 4: return about + ring->capacity;
    default: return about + 8 * (more % 32);
    }
}

static uint32_t size_near(const fl_spsc *ring, uint64_t *state)
{
    uint64_t value = fl_random_of(state);
    switch (value % 6) {
    case 0: return SKIP_MARK;
    case 1: return (uint32_t)(value >> 32);
    case 2: return (uint32_t)(ring->capacity / 2 - 16 + (value >> 32) % 24);
    default: return (uint32_t)((value >> 32) % 64);
    }
}

/* `mine`: the position that this side may write as it likes; the other side's it only damages now and then. */
static void scribble(const fl_spsc *ring, size_t mine, uint64_t *state)
{
    uint64_t value = fl_random_of(state);
    uint64_t theirs = atomic_load(shared_position(ring, mine == PUBLISHED_AT ? RELEASED_AT : PUBLISHED_AT));
    switch (value % 8) {
    case 0: atomic_store(shared_flag(ring, value & 64 ? ASLEEP_AT : CROWDED_AT), (uint32_t)(value >> 32) % 3); break;
    case 1: atomic_store(shared_size(ring, value >> 8), size_near(ring, state)); break;
    case 2: atomic_store(shared_size(ring, theirs), size_near(ring, state)); break;
    case 3: atomic_store(shared_position(ring, (value & 0xFF00) == 0 ? (size_t)RELEASED_AT - mine : mine),
                         position_near(ring, state)); break;
    case 4: atomic_store(shared_position(ring, mine), theirs); break;
    case 5: atomic_store(shared_position(ring, mine), theirs - ring->capacity); break;
    default: atomic_store(shared_position(ring, mine), theirs + 8 * ((value >> 32) % 8)); break;
    }
}

static pid_t start_scribbler(guarded_ring *ring, size_t mine)
{
    pid_t pid = start_child();
    if (pid == 0) {
        uint64_t state = fl_test_seed + mine;
        for (;;) {
            scribble(&ring->producer, mine, &state);
        }
    }
    return pid;
}

static void end_scribbler(pid_t pid)
{
    kill(pid, SIGKILL);
    await_kill(pid);
}

static void consume_what_is_scribbled(uint32_t capacity)
{
    static volatile uint8_t sum;
    guarded_ring ring = guarded_ring_make(capacity);
    fl_spsc *consumer = &ring.consumer;
    uint64_t taken = 0, refused = 0, empty = 0, skipped = 0;
    pid_t pid = start_scribbler(&ring, PUBLISHED_AT);
    watch("consuming what is scribbled", TIME_MAX_S);
    uint32_t rounds = fl_rounds(200000);
    /* Until it has met with both: where there is more to run than there are CPUs, the other may not have run yet. */
    for (uint32_t round = 0; round < rounds || taken == 0 || refused == 0; round++) {
        const uint8_t *data = NULL;
        uint64_t before = consumer->position;
        int64_t bytes = fl_spsc_peek(consumer, &data);
        skipped += consumer->position != before;
        CHECK(consumer->position % 8 == 0 && consumer->position - before <= capacity);
        if (bytes >= 0) {
            CHECK(bytes <= fl_spsc_record_bytes_max(consumer));
            CHECK(data > consumer->data && data + bytes <= consumer->data + capacity);
            for (int64_t i = 0; i < bytes; i++) {
                sum = (uint8_t)(sum + data[i]);
            }
            int told = fl_spsc_release(consumer);
            CHECK(told == 0 || told == 1);
            taken++;
        } else if (bytes == -EAGAIN) {
            if (fl_spsc_announce_sleep(consumer)) {
                int slept = fl_spsc_sleep(consumer, 0);
                CHECK(slept == 0 || slept == -ETIMEDOUT);
            }
            fl_spsc_announce_awake(consumer);
            empty++;
        } else {
            CHECK_EQUAL(bytes, -EPROTO);
            CHECK((fl_spsc_release(consumer) & ~1) == 0); /* nothing is peeked: tells where this side stands once more */
            refused++;
        }
        if (bytes < 0 && round % 32 == 0) {
            sched_yield(); /* on one CPU nothing would change for a long time */
        }
    }
    watch("", 0);
    end_scribbler(pid);
    printf("    ring of %u: took %" PRIu64 ", refused %" PRIu64 ", found none %" PRIu64 ", skipped %" PRIu64 "\n", capacity,
           taken, refused, empty, skipped);
    guarded_ring_free(&ring);
}

static void produce_what_is_scribbled_over(uint32_t capacity)
{
    guarded_ring ring = guarded_ring_make(capacity);
    fl_spsc *producer = &ring.producer;
    uint64_t state = fl_test_seed, placed = 0, refused = 0, drained = 0;
    pid_t pid = start_scribbler(&ring, RELEASED_AT);
    watch("producing what is scribbled over", TIME_MAX_S);
    uint32_t rounds = fl_rounds(200000);
    for (uint32_t round = 0; round < rounds || placed == 0 || refused == 0; round++) {
        uint32_t bytes = next_size(&state, fl_spsc_record_bytes_max(producer) + 1);
        uint64_t before = producer->position;
        uint8_t *place = fl_spsc_reserve(producer, bytes);
        CHECK(producer->position % 8 == 0 && producer->position - before <= capacity);
        if (place != NULL) {
            CHECK(place > producer->data && place + bytes <= producer->data + capacity);
            memset(place, (int)(round & 0xFF), bytes);
            placed++;
        } else {
            if (++refused % 32 == 0) {
                sched_yield();
            }
            if (fl_spsc_announce_crowded(producer)) {
                int slept = fl_spsc_sleep_crowded(producer, 0);
                CHECK(slept == 0 || slept == -ETIMEDOUT);
            }
        }
        int told = fl_spsc_publish(producer);
        CHECK(told == 0 || told == 1);
        if (told) {
            fl_spsc_rouse(producer);
        }
        drained += (uint64_t)fl_spsc_drained(producer);
    }
    watch("", 0);
    end_scribbler(pid);
    printf("    ring of %u: placed %" PRIu64 ", refused %" PRIu64 ", drained %" PRIu64 "\n", capacity, placed, refused,
           drained);
    guarded_ring_free(&ring);
}

static void a_hostile_producer_stops_nobody(void)
{
    consume_what_is_scribbled(64);
    consume_what_is_scribbled(GUARD_PAGE);
    consume_what_is_scribbled(4 * GUARD_PAGE);
}

static void a_hostile_consumer_stops_nobody(void)
{
    produce_what_is_scribbled_over(64);
    produce_what_is_scribbled_over(GUARD_PAGE);
    produce_what_is_scribbled_over(4 * GUARD_PAGE);
}

int main(void)
{
    fl_test_start();
    RUN(every_record_between_processes);
    RUN(a_hostile_producer_stops_nobody);
    RUN(a_hostile_consumer_stops_nobody);
    RUN(every_record_between_threads);
    return 0;
}
