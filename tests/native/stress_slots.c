/* A worker and a dispatcher at the same slots at the same time: two processes, two threads, and a hostile worker. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "children.h"
#include "fl_slots.h"
#include "fl_test.h"

enum { SLOTS = 4, MIRROR_BYTES = 100 };

static fl_slots make(void)
{
    fl_slots slots;
    int fd = memfd_create("slots", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0);
    CHECK_EQUAL(fl_slots_create(&slots, fd, SLOTS, MIRROR_BYTES), 0);
    close(fd);
    return slots;
}

/* ---- a worker that rewrites its slot without end --------------------------------------------------------------- */

/* Where things lie in the shared memory. */
enum { HEADER_BYTES = 64, SLOT_BYTES = 64 + 128, WORD_AT = 0, REPLY_BYTES_AT = 16 };

static _Atomic uint32_t *shared_word(const fl_slots *slots, uint32_t slot, size_t at)
{
    return (_Atomic uint32_t *)(void *)((uint8_t *)slots->base + HEADER_BYTES + slot * SLOT_BYTES + at);
}

static atomic_int hammering;

static void *hammer(void *argument)
{
    const fl_slots *slots = argument;
    uint64_t state = fl_test_seed;
    while (atomic_load(&hammering)) {
        atomic_store(shared_word(slots, 0, WORD_AT), (uint32_t)fl_random_of(&state));
        atomic_store(shared_word(slots, 0, REPLY_BYTES_AT), (uint32_t)fl_random_of(&state));
    }
    return NULL;
}

/* Every call of the dispatcher still comes back, with something it may say. */
static void a_slot_that_never_rests_stops_nobody(void)
{
    pthread_t thread;
    uint8_t read[MIRROR_BYTES];
    fl_slots slots = make();
    atomic_store(&hammering, 1);
    CHECK_EQUAL(pthread_create(&thread, NULL, hammer, &slots), 0);
    for (uint32_t round = 0; round < fl_rounds(200000); round++) {
        int queued = fl_slots_queue(&slots, 0), revoked = fl_slots_revoke(&slots, 0);
        CHECK(queued == 0 || queued == -EBUSY);
        CHECK(revoked == 0 || revoked == 1);
        CHECK(fl_slots_state(&slots, 0) <= FL_SLOT_DAMAGED);
        int64_t bytes = fl_slots_reply(&slots, 0, read, sizeof read);
        CHECK(bytes == -ENOENT || bytes == -EMSGSIZE || bytes == -EPROTO || (bytes >= 0 && bytes <= MIRROR_BYTES));
        fl_slots_free(&slots, 0);
    }
    atomic_store(&hammering, 0);
    pthread_join(thread, NULL);
    fl_slots_close(&slots);
}

/* ---- claims against revokes ------------------------------------------------------------------------------------ */

enum { RACE_ROUNDS = 20000, LAST_MESSAGE = 0xFF };

static struct {
    fl_slots slots;
    int messages[2]; /* a pipe of slot numbers: the lane, first in first out */
    _Atomic uint8_t *begun; /* by round, shared between processes; written by the worker */
} race;

static void *work(void *unused)
{
    uint8_t slot;
    (void)unused;
    /* The message does not say its round: the dispatcher gives rounds to slots by turns, so the worker can count. */
    uint32_t round_of_slot[SLOTS];
    for (uint32_t i = 0; i < SLOTS; i++) {
        round_of_slot[i] = i;
    }
    while (read(race.messages[0], &slot, 1) == 1 && slot != LAST_MESSAGE) {
        uint32_t round = round_of_slot[slot];
        round_of_slot[slot] += SLOTS;
        if (fl_slots_claim(&race.slots, slot, round + 1)) {
            atomic_store(&race.begun[round], 1);
            CHECK_EQUAL(fl_slots_finish(&race.slots, slot, &round, sizeof round), 1);
            CHECK_EQUAL(fl_slots_wait_free(&race.slots, slot, -1), 0);
        }
    }
    return NULL;
}

/* Each round's task is either revoked or begun, never both and never neither. */
static uint32_t dispatch(uint32_t rounds)
{
    uint32_t revoked_count = 0;
    static uint8_t revoked[RACE_ROUNDS];
    uint8_t last = LAST_MESSAGE;
    memset(revoked, 0, sizeof revoked);
    for (uint32_t round = 0; round < rounds; round++) {
        uint8_t slot = (uint8_t)(round % SLOTS);
        uint32_t reply;
        CHECK_EQUAL(fl_slots_queue(&race.slots, slot), 0);
        int early = fl_random(16) == 0; /* before the message is sent nobody can have begun it */
        if (early) {
            CHECK_EQUAL(fl_slots_revoke(&race.slots, slot), 1);
        }
        CHECK_EQUAL(write(race.messages[1], &slot, 1), 1);
        if (early) {
            revoked[round] = 1;
            revoked_count++;
            continue;
        }
        for (uint64_t yields = fl_random(3); yields > 0; yields--) {
            sched_yield();
        }
        if (fl_random(4) != 0 && fl_slots_revoke(&race.slots, slot)) {
            revoked[round] = 1;
            revoked_count++;
            continue; /* the slot's next task may be queued while this one's message is still unread */
        }
        while (fl_slots_state(&race.slots, slot) != FL_SLOT_DONE) {
            sched_yield();
        }
        CHECK_EQUAL(fl_slots_reply(&race.slots, slot, &reply, sizeof reply), sizeof reply);
        CHECK_EQUAL(reply, round);
        CHECK_EQUAL(fl_slots_started_ns(&race.slots, slot), round + 1);
        fl_slots_free(&race.slots, slot);
    }
    CHECK_EQUAL(write(race.messages[1], &last, 1), 1);
    for (uint32_t slot = 0; slot < SLOTS; slot++) { /* the last message has not been read yet: let it be */
        while (fl_slots_state(&race.slots, slot) == FL_SLOT_QUEUED) {
            sched_yield();
        }
    }
    for (uint32_t round = 0; round < rounds; round++) {
        if (atomic_load(&race.begun[round]) == revoked[round]) {
            FAIL("round %u was %s", round, revoked[round] ? "revoked and begun" : "neither revoked nor begun");
        }
    }
    return revoked_count;
}

static void start_race(void)
{
    race.slots = make();
    CHECK_EQUAL(pipe(race.messages), 0);
    void *begun = mmap(NULL, RACE_ROUNDS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(begun != MAP_FAILED);
    race.begun = begun;
}

static void end_race(uint32_t rounds, uint32_t revoked)
{
    printf("    %u of %u revoked\n", revoked, rounds);
    CHECK(revoked > 0 && revoked < rounds);
    munmap((void *)(uintptr_t)race.begun, RACE_ROUNDS);
    close(race.messages[0]);
    close(race.messages[1]);
    fl_slots_close(&race.slots);
}

static void claims_race_revokes_between_processes(void)
{
    uint32_t rounds = fl_rounds(RACE_ROUNDS);
    start_race();
    pid_t pid = start_child();
    if (pid == 0) {
        work(NULL);
        _exit(0);
    }
    uint32_t revoked = dispatch(rounds);
    await_exit(pid);
    end_race(rounds, revoked);
}

static void claims_race_revokes_between_threads(void)
{
    pthread_t thread;
    uint32_t rounds = fl_rounds(RACE_ROUNDS);
    start_race();
    CHECK_EQUAL(pthread_create(&thread, NULL, work, NULL), 0);
    uint32_t revoked = dispatch(rounds);
    pthread_join(thread, NULL);
    end_race(rounds, revoked);
}

int main(void)
{
    fl_test_start();
    RUN(claims_race_revokes_between_processes);
    RUN(a_slot_that_never_rests_stops_nobody);
    RUN(claims_race_revokes_between_threads);
    return 0;
}
