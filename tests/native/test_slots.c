#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fl_slots.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "children.h"
#include "fl_test.h"

enum { SLOTS = 4, MIRROR_BYTES = 100 };

/* Where things lie in the shared memory, for playing the hostile worker. */
enum { HEADER_BYTES = 64, SLOT_BYTES = 64 + 128, WORD_AT = 0, REPLY_BYTES_AT = 16 };

static int make_memfd(void)
{
    int fd = memfd_create("slots", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0);
    return fd;
}

static fl_slots make(void)
{
    fl_slots slots;
    int fd = make_memfd();
    CHECK_EQUAL(fl_slots_create(&slots, fd, SLOTS, MIRROR_BYTES), 0);
    close(fd);
    return slots;
}

static _Atomic uint32_t *shared_word(const fl_slots *slots, uint32_t slot, size_t at)
{
    return (_Atomic uint32_t *)(void *)((uint8_t *)slots->base + HEADER_BYTES + slot * SLOT_BYTES + at);
}

static void sizes_are_bounded_and_sealed(void)
{
    fl_slots slots;
    CHECK_EQUAL(fl_slots_bytes(0, 8), 0);
    CHECK_EQUAL(fl_slots_bytes(FL_SLOTS_COUNT_MAX + 1, 8), 0);
    CHECK_EQUAL(fl_slots_bytes(1, FL_SLOTS_MIRROR_BYTES_MAX + 1), 0);
    CHECK_EQUAL(fl_slots_bytes(UINT32_MAX, UINT32_MAX), 0);
    CHECK_EQUAL(fl_slots_bytes(1, 0), 128);
    CHECK_EQUAL(fl_slots_bytes(SLOTS, MIRROR_BYTES), HEADER_BYTES + SLOTS * SLOT_BYTES);
    CHECK(fl_slots_bytes(FL_SLOTS_COUNT_MAX, FL_SLOTS_MIRROR_BYTES_MAX) > (size_t)FL_SLOTS_COUNT_MAX << 20);

    int fd = make_memfd();
    CHECK_EQUAL(fl_slots_create(&slots, fd, 0, 8), -EINVAL);
    CHECK(slots.base == NULL);
    CHECK_EQUAL(fl_slots_create(&slots, fd, SLOTS, MIRROR_BYTES), 0);
    CHECK_EQUAL(ftruncate(fd, 1), -1);
    CHECK_EQUAL(ftruncate(fd, 1 << 20), -1);
    CHECK_EQUAL(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    fl_slots_close(&slots);
    fl_slots_close(&slots);
    close(fd);
    CHECK_EQUAL(fl_slots_create(&slots, fd, SLOTS, MIRROR_BYTES), -EBADF);
    fd = memfd_create("unsealable", MFD_CLOEXEC);
    CHECK_EQUAL(fl_slots_create(&slots, fd, SLOTS, MIRROR_BYTES), -EPERM);
    close(fd);
}

static void a_table_of_both_sides_lies_anywhere(void)
{
    static _Alignas(64) unsigned char memory[4096];
    fl_slots slots;
    CHECK(fl_slots_bytes(2, 0) <= sizeof memory);
    CHECK_EQUAL(fl_slots_place(&slots, memory, 0, 0), -EINVAL);
    CHECK(slots.base == NULL);
    CHECK_EQUAL(fl_slots_place(&slots, memory, 2, 0), 0);
    CHECK_EQUAL(fl_slots_queue(&slots, 1), 0);
    CHECK_EQUAL(fl_slots_claim(&slots, 1, 7), 1);
    CHECK_EQUAL(fl_slots_started_ns(&slots, 1), 7);
    CHECK_EQUAL(fl_slots_finish(&slots, 1, NULL, 0), 1);
    CHECK_EQUAL(fl_slots_state(&slots, 1), FL_SLOT_DONE);
    CHECK_EQUAL(fl_slots_state(&slots, 0), FL_SLOT_FREE);
    fl_slots_free(&slots, 1);
    CHECK_EQUAL(fl_slots_state(&slots, 1), FL_SLOT_FREE);
}

static int open_with_header(size_t bytes, const void *header, size_t header_bytes)
{
    fl_slots slots;
    int fd = make_memfd();
    CHECK_EQUAL(ftruncate(fd, (off_t)bytes), 0);
    CHECK_EQUAL(pwrite(fd, header, header_bytes, 0), header_bytes);
    int result = fl_slots_open(&slots, fd);
    CHECK(slots.base == NULL || result == 0);
    fl_slots_close(&slots);
    close(fd);
    return result;
}

static void only_this_version_opens(void)
{
    fl_slots made, opened;
    int fd = make_memfd();
    CHECK_EQUAL(fl_slots_create(&made, fd, SLOTS, MIRROR_BYTES), 0);
    CHECK_EQUAL(fl_slots_open(&opened, fd), 0);
    CHECK_EQUAL(opened.slot_count, SLOTS);
    CHECK_EQUAL(opened.mirror_bytes, MIRROR_BYTES);
    CHECK_EQUAL(opened.bytes, made.bytes);

    uint32_t header[6];
    size_t bytes = made.bytes;
    memcpy(header, made.base, sizeof header);
    CHECK_EQUAL(open_with_header(bytes, header, sizeof header), 0);
    CHECK_EQUAL(open_with_header(bytes + 64, header, sizeof header), -EPROTO);
    CHECK_EQUAL(open_with_header(bytes - 64, header, sizeof header), -EPROTO);
    CHECK_EQUAL(open_with_header(0, header, 0), -EPROTO);
    CHECK_EQUAL(open_with_header(63, header, 0), -EPROTO);
    for (size_t word = 0; word < 6; word++) {
        static const uint32_t changes[] = {0x40, 0x80000000u, 0xFFFFFFFFu};
        for (size_t i = 0; i < 3; i++) {
            header[word] ^= changes[i];
            CHECK_EQUAL(open_with_header(bytes, header, sizeof header), -EPROTO);
            header[word] ^= changes[i];
        }
    }
    CHECK_EQUAL(fl_slots_open(&opened, -1), -EBADF);
    fl_slots_close(&made);
    close(fd);
}

static void one_task_goes_its_way(void)
{
    uint8_t reply[MIRROR_BYTES + 1] = "reply", read[MIRROR_BYTES] = {0};
    fl_slots dispatcher = make(), worker = dispatcher;
    CHECK_EQUAL(fl_slots_state(&dispatcher, 1), FL_SLOT_FREE);
    CHECK_EQUAL(fl_slots_claim(&worker, 1, 5), 0);
    CHECK_EQUAL(fl_slots_finish(&worker, 1, reply, 5), -EBUSY);
    CHECK_EQUAL(fl_slots_revoke(&dispatcher, 1), 0);

    CHECK_EQUAL(fl_slots_queue(&dispatcher, 1), 0);
    CHECK_EQUAL(fl_slots_state(&dispatcher, 1), FL_SLOT_QUEUED);
    CHECK_EQUAL(fl_slots_queue(&dispatcher, 1), -EBUSY);
    CHECK_EQUAL(fl_slots_started_ns(&dispatcher, 1), 0);
    CHECK_EQUAL(fl_slots_reply(&dispatcher, 1, read, sizeof read), -ENOENT);

    CHECK_EQUAL(fl_slots_claim(&worker, 1, 12345), 1);
    CHECK_EQUAL(fl_slots_state(&dispatcher, 1), FL_SLOT_STARTED);
    CHECK_EQUAL(fl_slots_started_ns(&dispatcher, 1), 12345);
    CHECK_EQUAL(fl_slots_claim(&worker, 1, 9), 0);
    CHECK_EQUAL(fl_slots_revoke(&dispatcher, 1), 0);
    CHECK_EQUAL(fl_slots_queue(&dispatcher, 1), -EBUSY);

    CHECK_EQUAL(fl_slots_finish(&worker, 1, reply, 5), 1);
    CHECK_EQUAL(fl_slots_state(&dispatcher, 1), FL_SLOT_DONE);
    CHECK_EQUAL(fl_slots_started_ns(&dispatcher, 1), 12345);
    CHECK_EQUAL(fl_slots_revoke(&dispatcher, 1), 0);
    CHECK_EQUAL(fl_slots_reply(&dispatcher, 1, read, 4), -ENOBUFS);
    CHECK_EQUAL(fl_slots_reply(&dispatcher, 1, read, 5), 5);
    CHECK(memcmp(read, "reply", 5) == 0);
    CHECK_EQUAL(fl_slots_wait_free(&worker, 1, 0), -ETIMEDOUT);
    CHECK_EQUAL(fl_slots_wait_free(&worker, 1, 1000000), -ETIMEDOUT);
    fl_slots_free(&dispatcher, 1);
    CHECK_EQUAL(fl_slots_state(&dispatcher, 1), FL_SLOT_FREE);
    CHECK_EQUAL(fl_slots_wait_free(&worker, 1, -1), 0);
    CHECK_EQUAL(fl_slots_state(&dispatcher, 0), FL_SLOT_FREE); /* its neighbours saw nothing */
    CHECK_EQUAL(fl_slots_state(&dispatcher, 2), FL_SLOT_FREE);
    fl_slots_close(&dispatcher);
}

static void replies_are_mirrored_if_they_fit(void)
{
    uint8_t reply[MIRROR_BYTES + 1], read[MIRROR_BYTES + 1];
    fl_slots slots = make();
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        for (uint32_t bytes = 0; bytes <= MIRROR_BYTES + 1; bytes++) {
            memset(reply, (int)(slot + bytes), sizeof reply);
            memset(read, 0xEE, sizeof read);
            CHECK_EQUAL(fl_slots_queue(&slots, slot), 0); /* from FREE, then from DONE */
            CHECK_EQUAL(fl_slots_claim(&slots, slot, 1), 1);
            int fits = bytes <= MIRROR_BYTES;
            CHECK_EQUAL(fl_slots_finish(&slots, slot, reply, bytes), fits);
            CHECK_EQUAL(fl_slots_reply(&slots, slot, read, sizeof read), fits ? (int)bytes : -EMSGSIZE);
            CHECK(!fits || memcmp(read, reply, bytes) == 0);
            CHECK(bytes >= sizeof read || read[fits ? bytes : 0] == 0xEE);
        }
    }
    CHECK_EQUAL(fl_slots_finish(&slots, 0, reply, 1), -EBUSY);
    fl_slots_close(&slots);
}

static void a_revoked_task_never_begins(void)
{
    fl_slots slots = make();
    CHECK_EQUAL(fl_slots_queue(&slots, 0), 0);
    CHECK_EQUAL(fl_slots_revoke(&slots, 0), 1);
    CHECK_EQUAL(fl_slots_state(&slots, 0), FL_SLOT_REVOKED);
    CHECK_EQUAL(fl_slots_revoke(&slots, 0), 0);
    CHECK_EQUAL(fl_slots_claim(&slots, 0, 1), 0);
    CHECK_EQUAL(fl_slots_started_ns(&slots, 0), 0);

    /* Three messages of revoked tasks are on their way when the slot is given to a fourth, once through FREE. */
    for (int task = 0; task < 3; task++) {
        CHECK_EQUAL(fl_slots_queue(&slots, 0), 0);
        CHECK_EQUAL(fl_slots_revoke(&slots, 0), 1);
        if (task == 1) {
            fl_slots_free(&slots, 0);
        }
    }
    CHECK_EQUAL(fl_slots_queue(&slots, 0), 0);
    CHECK_EQUAL(fl_slots_claim(&slots, 0, 1), 0);
    CHECK_EQUAL(fl_slots_claim(&slots, 0, 2), 0);
    CHECK_EQUAL(fl_slots_claim(&slots, 0, 3), 0);
    CHECK_EQUAL(fl_slots_state(&slots, 0), FL_SLOT_QUEUED);
    CHECK_EQUAL(fl_slots_claim(&slots, 0, 4), 1);
    CHECK_EQUAL(fl_slots_started_ns(&slots, 0), 4);
    CHECK_EQUAL(fl_slots_finish(&slots, 0, "", 0), 1);
    fl_slots_free(&slots, 0);
    CHECK_EQUAL(fl_slots_claim(&slots, 0, 5), 0);
    fl_slots_close(&slots);
}

static void foreign_slots_are_harmless(void)
{
    static const uint32_t foreign[] = {SLOTS, SLOTS + 1, 0x7FFFFFFF, UINT32_MAX};
    uint8_t read[8];
    fl_slots slots = make();
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        CHECK_EQUAL(fl_slots_queue(&slots, foreign[i]), -EINVAL);
        CHECK_EQUAL(fl_slots_revoke(&slots, foreign[i]), 0);
        CHECK_EQUAL(fl_slots_state(&slots, foreign[i]), FL_SLOT_DAMAGED);
        CHECK_EQUAL(fl_slots_started_ns(&slots, foreign[i]), 0);
        CHECK_EQUAL(fl_slots_reply(&slots, foreign[i], read, sizeof read), -EINVAL);
        fl_slots_free(&slots, foreign[i]);
        CHECK_EQUAL(fl_slots_claim(&slots, foreign[i], 1), 0);
        CHECK_EQUAL(fl_slots_finish(&slots, foreign[i], read, 1), -EINVAL);
        CHECK_EQUAL(fl_slots_wait_free(&slots, foreign[i], -1), -EINVAL);
    }
    fl_slots_close(&slots);
}

/* ---- the hostile worker ---------------------------------------------------------------------------------------- */

static void the_shared_header_is_not_believed(void)
{
    uint8_t read[MIRROR_BYTES];
    fl_slots slots = make();
    memset(slots.base, 0xFF, HEADER_BYTES);
    CHECK_EQUAL(fl_slots_queue(&slots, SLOTS), -EINVAL);
    CHECK_EQUAL(fl_slots_queue(&slots, SLOTS - 1), 0);
    CHECK_EQUAL(fl_slots_claim(&slots, SLOTS - 1, 1), 1);
    CHECK_EQUAL(fl_slots_finish(&slots, SLOTS - 1, "abc", 3), 1);
    CHECK_EQUAL(fl_slots_reply(&slots, SLOTS - 1, read, sizeof read), 3);
    fl_slots_close(&slots);
}

static void impossible_values_are_survived(void)
{
    uint8_t read[4 * MIRROR_BYTES];
    fl_slots slots = make();
    _Atomic uint32_t *word = shared_word(&slots, 0, WORD_AT), *bytes = shared_word(&slots, 0, REPLY_BYTES_AT);
    for (uint32_t state = FL_SLOT_REVOKED + 1; state <= 0xFF; state++) {
        atomic_store(word, state | 0xABCD00);
        CHECK_EQUAL(fl_slots_state(&slots, 0), FL_SLOT_DAMAGED);
        CHECK_EQUAL(fl_slots_queue(&slots, 0), -EBUSY);
        CHECK_EQUAL(fl_slots_revoke(&slots, 0), 0);
        CHECK_EQUAL(fl_slots_started_ns(&slots, 0), 0);
        CHECK_EQUAL(fl_slots_reply(&slots, 0, read, sizeof read), -ENOENT);
        fl_slots_free(&slots, 0);
        CHECK_EQUAL(fl_slots_state(&slots, 0), FL_SLOT_FREE);
    }
    for (uint32_t length = MIRROR_BYTES + 1; length != 0; length = length > UINT32_MAX / 3 ? 0 : length * 3) {
        atomic_store(word, FL_SLOT_DONE);
        atomic_store(bytes, length);
        CHECK_EQUAL(fl_slots_reply(&slots, 0, read, sizeof read), -EPROTO);
    }
    atomic_store(bytes, UINT32_MAX - 1);
    CHECK_EQUAL(fl_slots_reply(&slots, 0, read, sizeof read), -EPROTO);
    atomic_store(word, 0xFFFFFF00u | FL_SLOT_QUEUED); /* a count of stale messages that cannot be raised */
    CHECK_EQUAL(fl_slots_revoke(&slots, 0), 0);
    CHECK_EQUAL(fl_slots_state(&slots, 0), FL_SLOT_QUEUED);
    CHECK_EQUAL(fl_slots_state(&slots, 1), FL_SLOT_FREE);
    fl_slots_close(&slots);
}

/* ---- deaths and signals ---------------------------------------------------------------------------------------- */

static void a_reply_outlives_its_worker(void)
{
    uint8_t read[MIRROR_BYTES];
    fl_slots dispatcher = {0};
    int fd = make_memfd();
    CHECK_EQUAL(fl_slots_create(&dispatcher, fd, SLOTS, MIRROR_BYTES), 0);
    for (uint32_t slot = 0; slot < 3; slot++) {
        CHECK_EQUAL(fl_slots_queue(&dispatcher, slot), 0);
    }
    pid_t pid = start_child();
    if (pid == 0) {
        fl_slots worker;
        CHECK_EQUAL(fl_slots_open(&worker, fd), 0);
        CHECK_EQUAL(fl_slots_claim(&worker, 0, 77), 1);
        CHECK_EQUAL(fl_slots_finish(&worker, 0, "last words", 10), 1);
        CHECK_EQUAL(fl_slots_claim(&worker, 1, 78), 1);
        kill(getpid(), SIGKILL);
    }
    await_kill(pid);
    CHECK_EQUAL(fl_slots_reply(&dispatcher, 0, read, sizeof read), 10);
    CHECK(memcmp(read, "last words", 10) == 0);
    CHECK_EQUAL(fl_slots_state(&dispatcher, 1), FL_SLOT_STARTED);
    CHECK_EQUAL(fl_slots_started_ns(&dispatcher, 1), 78);
    CHECK_EQUAL(fl_slots_revoke(&dispatcher, 1), 0);
    CHECK_EQUAL(fl_slots_revoke(&dispatcher, 2), 1); /* not begun: another worker may have it */
    fl_slots_close(&dispatcher);
    close(fd);
}

static atomic_int waiter_returned;

static void *interrupt(void *waiter)
{
    while (!atomic_load(&waiter_returned)) {
        pthread_kill(*(pthread_t *)waiter, SIGUSR1);
        sched_yield();
    }
    return NULL;
}

static void on_signal(int number)
{
    (void)number;
}

static void a_signal_ends_the_wait(void)
{
    pthread_t self = pthread_self(), thread;
    struct sigaction action = {.sa_handler = on_signal}; /* without SA_RESTART */
    fl_slots slots = make();
    CHECK_EQUAL(sigaction(SIGUSR1, &action, NULL), 0);
    CHECK_EQUAL(fl_slots_queue(&slots, 0), 0);
    CHECK_EQUAL(fl_slots_claim(&slots, 0, 1), 1);
    CHECK_EQUAL(fl_slots_finish(&slots, 0, "", 0), 1);
    atomic_store(&waiter_returned, 0);
    CHECK_EQUAL(pthread_create(&thread, NULL, interrupt, &self), 0);
    CHECK_EQUAL(fl_slots_wait_free(&slots, 0, -1), -EINTR);
    atomic_store(&waiter_returned, 1);
    pthread_join(thread, NULL);
    fl_slots_close(&slots);
}

int main(void)
{
    fl_test_start();
    RUN(sizes_are_bounded_and_sealed);
    RUN(a_table_of_both_sides_lies_anywhere);
    RUN(only_this_version_opens);
    RUN(one_task_goes_its_way);
    RUN(replies_are_mirrored_if_they_fit);
    RUN(a_revoked_task_never_begins);
    RUN(foreign_slots_are_harmless);
    RUN(the_shared_header_is_not_believed);
    RUN(impossible_values_are_survived);
    RUN(a_reply_outlives_its_worker);
    RUN(a_signal_ends_the_wait);
    return 0;
}
