#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fl_express.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "children.h"
#include "fl_test.h"

enum { RING_BYTES = 4096, REGION_BYTES = 100000, REGION_PAGES_BYTES = 102400, PAGE = 4096, TIME_MAX_S = 60 };
/* Where things lie in the shared memory. */
enum { REQUESTS_ASLEEP_AT = 128 + 128, HEADER_BYTES = 24 };

static int make_memfd(void)
{
    int fd = memfd_create("express", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0);
    return fd;
}

/* Both views of one memory, in this process. */
static int make(fl_express *dispatcher, fl_express *worker, uint64_t region_bytes)
{
    int fd = make_memfd();
    CHECK_EQUAL(fl_express_create(dispatcher, fd, RING_BYTES, region_bytes), 0);
    CHECK_EQUAL(fl_express_open(worker, fd), 0);
    return fd;
}

static void end(fl_express *dispatcher, fl_express *worker, int fd)
{
    fl_express_close(dispatcher);
    fl_express_close(worker);
    fl_express_close(worker); /* once more: nothing */
    close(fd);
}

static void send_to(fl_spsc *ring, uint32_t bytes)
{
    void *place = fl_spsc_reserve(ring, bytes);
    CHECK(place != NULL);
    memset(place, 'r', bytes);
    fl_spsc_publish(ring);
}

static void take_from(fl_spsc *ring, uint32_t bytes)
{
    const uint8_t *data;
    CHECK_EQUAL(fl_spsc_peek(ring, &data), bytes);
    fl_spsc_release(ring);
}

static void its_size_is_sealed(void)
{
    fl_express dispatcher, worker;
    int fd = make(&dispatcher, &worker, REGION_BYTES);
    struct stat status;
    CHECK_EQUAL(fstat(fd, &status), 0);
    CHECK_EQUAL(status.st_size, PAGE + 2 * RING_BYTES + 2 * REGION_PAGES_BYTES);
    CHECK_EQUAL(dispatcher.bytes, status.st_size);
    static const off_t sizes[] = {0, 1, PAGE, 1 << 30};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        CHECK_EQUAL(ftruncate(fd, sizes[i]), -1);
        CHECK_EQUAL(errno, EPERM);
    }
    CHECK_EQUAL(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1); /* nor can more be sealed */
    CHECK_EQUAL(errno, EPERM);
    CHECK_EQUAL(fallocate(fd, 0, 0, 1 << 30), -1);
    /* Holes can be made, by either side: what was there reads as zero, and nobody faults. */
    CHECK_EQUAL(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, status.st_size), 0);
    send_to(&dispatcher.requests, 10);
    take_from(&worker.requests, 10);
    end(&dispatcher, &worker, fd);
}

static void sizes_are_bounded(void)
{
    static const uint32_t rings[] = {0, 64, 2048, 4097, 12288, 1u << 31, UINT32_MAX};
    fl_express express;
    int fd = make_memfd();
    for (size_t i = 0; i < sizeof rings / sizeof *rings; i++) {
        memset(&express, 'x', sizeof express);
        CHECK_EQUAL(fl_express_create(&express, fd, rings[i], 0), -EINVAL);
        CHECK(express.base == NULL && express.bytes == 0);
    }
    CHECK_EQUAL(fl_express_create(&express, fd, RING_BYTES, (UINT64_C(1) << 30) + 1), -EINVAL);
    CHECK_EQUAL(fl_express_create(&express, fd, RING_BYTES, UINT64_MAX), -EINVAL);
    CHECK_EQUAL(fcntl(fd, F_GET_SEALS), 0); /* none of them has touched it */
    CHECK_EQUAL(fl_express_create(&express, fd, RING_BYTES, 0), 0); /* without regions */
    CHECK(fl_region_take(&express.request_region, &express.requests, 1) == NULL);
    CHECK(fl_region_at(&express.reply_region, 0, 1) == NULL);
    CHECK(fl_region_at(&express.reply_region, 1, 0) == NULL);
    fl_express_close(&express);
    CHECK_EQUAL(fl_express_create(&express, fd, 2 * RING_BYTES, 0), -EPERM); /* it is sealed */
    close(fd);
    CHECK_EQUAL(fl_express_create(&express, fd, RING_BYTES, 0), -EBADF);
    CHECK_EQUAL(fl_express_open(&express, fd), -EBADF);
    fd = memfd_create("unsealable", MFD_CLOEXEC);
    CHECK_EQUAL(fl_express_create(&express, fd, RING_BYTES, 0), -EPERM);
    CHECK(express.base == NULL);
    close(fd);
    fd = make_memfd(); /* as large as it gets; nothing of it is used */
    struct stat status;
    CHECK_EQUAL(fl_express_create(&express, fd, 1u << 30, UINT64_C(1) << 30), 0);
    CHECK_EQUAL(fstat(fd, &status), 0);
    CHECK(status.st_blocks <= 2 * PAGE / 512);
    fl_express_close(&express);
    close(fd);
}

static int open_with_header(size_t bytes, const void *header, size_t header_bytes)
{
    fl_express express;
    int fd = make_memfd();
    CHECK_EQUAL(ftruncate(fd, (off_t)bytes), 0);
    CHECK_EQUAL(pwrite(fd, header, header_bytes, 0), header_bytes);
    int result = fl_express_open(&express, fd);
    CHECK(express.base == NULL || result == 0);
    fl_express_close(&express);
    close(fd);
    return result;
}

static void only_this_version_opens(void)
{
    fl_express dispatcher, worker;
    int fd = make(&dispatcher, &worker, REGION_BYTES);
    uint32_t header[HEADER_BYTES / 4];
    size_t bytes = dispatcher.bytes;
    memcpy(header, dispatcher.base, sizeof header);
    CHECK_EQUAL(open_with_header(bytes, header, sizeof header), 0);
    CHECK_EQUAL(open_with_header(bytes + PAGE, header, sizeof header), -EPROTO);
    CHECK_EQUAL(open_with_header(bytes - PAGE, header, sizeof header), -EPROTO);
    CHECK_EQUAL(open_with_header(0, header, 0), -EPROTO);
    CHECK_EQUAL(open_with_header(HEADER_BYTES - 1, header, 0), -EPROTO);
    CHECK_EQUAL(open_with_header(bytes, header, 0), -EPROTO);
    for (size_t word = 0; word < HEADER_BYTES / 4; word++) {
        static const uint32_t changes[] = {0x10000, 0x80000000u, 0xFFFFFFFFu};
        for (size_t i = 0; i < 3; i++) {
            header[word] ^= changes[i];
            CHECK_EQUAL(open_with_header(bytes, header, sizeof header), -EPROTO);
            header[word] ^= changes[i];
        }
    }
    header[3] = 1u << 31; /* a ring larger than any: refused even where the size is right */
    CHECK_EQUAL(open_with_header(PAGE + 2 * (UINT64_C(1) << 31) + 2 * REGION_PAGES_BYTES, header, sizeof header), -EPROTO);

    /* Once open, nobody looks at the header any more. */
    memset(dispatcher.base, 0xFF, HEADER_BYTES);
    CHECK_EQUAL(dispatcher.requests.capacity, RING_BYTES);
    send_to(&dispatcher.requests, 100);
    take_from(&worker.requests, 100);
    send_to(&worker.replies, 100);
    take_from(&dispatcher.replies, 100);
    CHECK(fl_region_take(&worker.reply_region, &worker.replies, REGION_BYTES) != NULL);
    CHECK(fl_region_at(&dispatcher.reply_region, 0, REGION_BYTES) != NULL);
    CHECK(fl_region_at(&dispatcher.reply_region, 0, REGION_BYTES + 1) == NULL);
    fl_express other;
    CHECK_EQUAL(fl_express_open(&other, fd), -EPROTO);
    end(&dispatcher, &worker, fd);
    int pipes[2];
    CHECK_EQUAL(pipe(pipes), 0);
    CHECK_EQUAL(fl_express_open(&other, pipes[0]), -ESPIPE);
    close(pipes[0]);
    close(pipes[1]);
}

/* No part of the memory is another one's: each is filled, and all are as they were. */
static void nothing_overlaps(void)
{
    fl_express dispatcher, worker;
    int fd = make(&dispatcher, &worker, REGION_BYTES);
    uint8_t *to = fl_region_take(&dispatcher.request_region, &dispatcher.requests, REGION_BYTES);
    memset(to, 1, REGION_BYTES);
    memset(fl_region_take(&worker.reply_region, &worker.replies, REGION_BYTES), 2, REGION_BYTES);
    for (int i = 0; i < 2; i++) {
        memset(fl_spsc_reserve(&dispatcher.requests, RING_BYTES / 2 - 8), 3, RING_BYTES / 2 - 8);
        memset(fl_spsc_reserve(&worker.replies, RING_BYTES / 2 - 8), 4, RING_BYTES / 2 - 8);
    }
    CHECK(fl_spsc_reserve(&dispatcher.requests, 0) == NULL);
    fl_spsc_publish(&dispatcher.requests);
    fl_spsc_publish(&worker.replies);
    const uint8_t *parts[] = {fl_region_at(&worker.request_region, 0, REGION_BYTES),
                              fl_region_at(&dispatcher.reply_region, 0, REGION_BYTES), NULL, NULL};
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(fl_spsc_peek(&worker.requests, &parts[2]), RING_BYTES / 2 - 8);
        CHECK_EQUAL(fl_spsc_peek(&dispatcher.replies, &parts[3]), RING_BYTES / 2 - 8);
        for (size_t part = 0; part < 4; part++) {
            for (size_t at = 0; at < (part < 2 ? REGION_BYTES : RING_BYTES / 2 - 8); at++) {
                CHECK_EQUAL(parts[part][at], part + 1);
            }
        }
        fl_spsc_release(&worker.requests);
        fl_spsc_release(&dispatcher.replies);
    }
    end(&dispatcher, &worker, fd);
}

static void a_region_is_used_up_and_begins_anew(void)
{
    fl_express dispatcher, worker;
    int fd = make(&dispatcher, &worker, REGION_BYTES);
    fl_region *region = &dispatcher.request_region;
    fl_spsc *ring = &dispatcher.requests;
    for (int round = 0; round < 20; round++) {
        uint64_t used = 0;
        uint32_t records = 0;
        for (;;) {
            uint64_t bytes = round == 0 ? 1000 : fl_random(20000);
            uint8_t *place = fl_region_take(region, ring, bytes);
            if (place == NULL) {
                CHECK(bytes > REGION_BYTES - used);
                break;
            }
            CHECK_EQUAL((uintptr_t)place % 64, 0);
            CHECK_EQUAL(place - region->base, used);
            CHECK(place + bytes <= region->base + REGION_BYTES);
            memset(place, round, bytes);
            used += (bytes + 63) / 64 * 64;
            used = used < REGION_BYTES ? used : REGION_BYTES;
            send_to(ring, sizeof(fl_express_distant));
            records++;
        }
        CHECK(records > 0);
        while (records-- > 0) {
            CHECK(fl_region_take(region, ring, REGION_BYTES) == NULL); /* not all of the records are gone */
            take_from(&worker.requests, sizeof(fl_express_distant));
        }
    }
    CHECK(fl_region_take(region, ring, REGION_BYTES + 1) == NULL);
    CHECK(fl_region_take(region, ring, UINT64_MAX) == NULL);
    CHECK(fl_region_take(region, ring, UINT64_MAX - 63) == NULL);
    CHECK(fl_region_take(region, ring, REGION_BYTES) == region->base);
    end(&dispatcher, &worker, fd);
}

static void content_lies_in_the_region_or_nowhere(void)
{
    static const uint64_t wrong[][2] = {
        {REGION_BYTES, 1}, {REGION_BYTES + 1, 0}, {0, REGION_BYTES + 1}, {1, REGION_BYTES}, {UINT64_MAX, 1},
        {1, UINT64_MAX}, {UINT64_MAX, UINT64_MAX}, {UINT64_MAX - 99, 100}, {UINT64_C(1) << 63, UINT64_C(1) << 63},
        {UINT64_MAX, 0}, {0, UINT64_MAX}, {REGION_BYTES / 2, REGION_BYTES / 2 + 1},
    };
    fl_region region = {.base = (uint8_t *)64, .bytes = REGION_BYTES};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK(fl_region_at(&region, wrong[i][0], wrong[i][1]) == NULL);
    }
    CHECK(fl_region_at(&region, REGION_BYTES, 0) == region.base + REGION_BYTES);
    CHECK(fl_region_at(&region, REGION_BYTES - 1, 1) == region.base + REGION_BYTES - 1);
    CHECK(fl_region_at(&region, 0, REGION_BYTES) == region.base);
}

static long blocks_of(int fd)
{
    struct stat status;
    CHECK_EQUAL(fstat(fd, &status), 0);
    return (long)status.st_blocks * 512;
}

static void trimming_gives_memory_back(void)
{
    fl_express dispatcher, worker;
    int fd = make(&dispatcher, &worker, REGION_BYTES);
    memset(fl_region_take(&worker.reply_region, &worker.replies, REGION_BYTES), 7, REGION_BYTES);
    long without = blocks_of(fd);
    fl_region *region = &dispatcher.request_region;
    for (int round = 0; round < 3; round++) {
        memset(fl_region_take(region, &dispatcher.requests, REGION_BYTES), 5, REGION_BYTES);
        CHECK_EQUAL(blocks_of(fd), without + REGION_PAGES_BYTES);
        fl_region_trim(region, UINT64_MAX);
        fl_region_trim(region, REGION_BYTES);
        CHECK_EQUAL(blocks_of(fd), without + REGION_PAGES_BYTES);
        fl_region_trim(region, 5 * PAGE + 1);
        CHECK_EQUAL(blocks_of(fd), without + 6 * PAGE);
        uint8_t about[2]; /* read through the descriptor: a look through the mapping would use memory again */
        CHECK_EQUAL(pread(fd, about, 2, PAGE + 2 * RING_BYTES + 6 * PAGE - 1), 2);
        CHECK_EQUAL(about[0], 5);
        CHECK_EQUAL(about[1], 0);
        fl_region_trim(region, 5 * PAGE + 1);
        fl_region_trim(region, 0); /* what the last one kept */
        CHECK_EQUAL(blocks_of(fd), without);
    }
    for (size_t at = 0; at < REGION_BYTES; at += 511) {
        CHECK_EQUAL(fl_region_at(&dispatcher.reply_region, at, 1)[0], 7); /* the neighbour has all of its own */
    }
    end(&dispatcher, &worker, fd);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static uint32_t asleep(const fl_express *express)
{
    return atomic_load((_Atomic uint32_t *)(void *)((uint8_t *)express->base + REQUESTS_ASLEEP_AT));
}

static void answer_requests(fl_express *worker, uint32_t count)
{
    fl_express_rest rest = {0, 0};
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *data;
        CHECK_EQUAL(fl_express_wait(worker, &rest), 0);
        CHECK_EQUAL(fl_spsc_peek(&worker->requests, &data), 4);
        uint32_t request;
        memcpy(&request, data, 4);
        fl_spsc_release(&worker->requests);
        CHECK_EQUAL(request, i);
        memcpy(fl_spsc_reserve(&worker->replies, 4), &request, 4);
        fl_spsc_publish(&worker->replies);
    }
}

static void ask(fl_express *dispatcher, uint32_t spin_ns)
{
    uint32_t count = fl_rounds(20000), told = 0;
    fl_express_allow_spin(dispatcher, spin_ns);
    pid_t pid = start_child();
    if (pid == 0) {
        alarm(TIME_MAX_S);
        answer_requests(dispatcher, count); /* its copy of the view has taken nothing yet */
        _exit(0);
    }
    alarm(TIME_MAX_S);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *data;
        uint32_t reply;
        if (fl_random(50) == 0) {
            while (asleep(dispatcher) == 0) { /* spinning ends sometime */
                sched_yield();
            }
        }
        memcpy(fl_spsc_reserve(&dispatcher->requests, 4), &i, 4);
        if (fl_spsc_publish(&dispatcher->requests)) {
            told++;
            fl_spsc_rouse(&dispatcher->requests);
        }
        while (fl_spsc_peek(&dispatcher->replies, &data) == -EAGAIN) {
            sched_yield();
        }
        memcpy(&reply, data, 4);
        fl_spsc_release(&dispatcher->replies);
        CHECK_EQUAL(reply, i);
    }
    alarm(0);
    await_exit(pid);
    printf("    %u requests, %u wakes, may spin %u ns\n", count, told, spin_ns);
    CHECK(told > 0);
}

static void a_worker_is_woken(void)
{
    static const uint32_t spins[] = {0, 1, 2000, 50000};
    for (size_t i = 0; i < sizeof spins / sizeof *spins; i++) {
        fl_express dispatcher, worker;
        int fd = make(&dispatcher, &worker, 0);
        ask(&dispatcher, spins[i]);
        end(&dispatcher, &worker, fd);
    }
}

static void nothing(int number)
{
    (void)number;
}

static void a_signal_ends_the_wait(void)
{
    fl_express dispatcher, worker;
    int fd = make(&dispatcher, &worker, 0);
    fl_express_rest rest = {0, 0};
    struct sigaction action = {.sa_handler = nothing}, before;
    CHECK_EQUAL(sigaction(SIGALRM, &action, &before), 0);
    const struct itimerval often = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
    for (int round = 0; round < 6; round++) {
        fl_express_allow_spin(&dispatcher, round % 2 ? 100000 : 0);
        setitimer(ITIMER_REAL, &often, NULL);
        CHECK_EQUAL(fl_express_wait(&worker, &rest), -EINTR);
        setitimer(ITIMER_REAL, &never, NULL);
        CHECK_EQUAL(asleep(&dispatcher), 0); /* its announcement is taken back */
    }
    send_to(&dispatcher.requests, 1);
    CHECK_EQUAL(fl_express_wait(&worker, &rest), 0);
    take_from(&worker.requests, 1);
    CHECK_EQUAL(sigaction(SIGALRM, &before, NULL), 0);
    end(&dispatcher, &worker, fd);
}

/* A stopped process is one that was not let run. It sleeps then, although it might spin for four seconds; and again at
 * its next wait, at once. */
static void who_was_not_let_run_does_not_spin(void)
{
    fl_express dispatcher, worker;
    int fd = make(&dispatcher, &worker, 0), status;
    fl_express_allow_spin(&dispatcher, UINT32_MAX);
    pid_t pid = start_child();
    if (pid == 0) {
        fl_express_rest rest = {0, 0};
        CHECK_EQUAL(fl_express_wait(&worker, &rest), 0);
        CHECK(rest.until_ns != 0);
        take_from(&worker.requests, 1);
        rest.until_ns = UINT64_MAX;
        CHECK_EQUAL(fl_express_wait(&worker, &rest), 0);
        CHECK(rest.until_ns == UINT64_MAX);
        _exit(0);
    }
    alarm(TIME_MAX_S);
    while (asleep(&dispatcher) == 0) {
        kill(pid, SIGSTOP);
        CHECK_EQUAL(waitpid(pid, &status, WUNTRACED), pid);
        CHECK(WIFSTOPPED(status));
        kill(pid, SIGCONT);
        sched_yield();
    }
    for (int i = 0; i < 2; i++) {
        while (asleep(&dispatcher) == 0) {
            sched_yield();
        }
        fl_spsc_reserve(&dispatcher.requests, 1);
        CHECK_EQUAL(fl_spsc_publish(&dispatcher.requests), 1);
        fl_spsc_rouse(&dispatcher.requests);
    }
    alarm(0);
    await_exit(pid);
    end(&dispatcher, &worker, fd);
}

/* ---- deaths ------------------------------------------------------------------------------------------------------ */

static void a_worker_dies_in_the_middle(void)
{
    fl_express dispatcher, worker;
    int fd = make(&dispatcher, &worker, REGION_BYTES);
    CHECK(fl_region_take(&dispatcher.request_region, &dispatcher.requests, 1000) == dispatcher.request_region.base);
    send_to(&dispatcher.requests, sizeof(fl_express_distant));
    pid_t pid = start_child();
    if (pid == 0) {
        const uint8_t *data;
        fl_express_rest rest = {0, 0};
        CHECK_EQUAL(fl_express_wait(&worker, &rest), 0);
        CHECK_EQUAL(fl_spsc_peek(&worker.requests, &data), sizeof(fl_express_distant));
        send_to(&worker.replies, 10);
        CHECK(fl_spsc_reserve(&worker.replies, 20) != NULL);
        raise(SIGKILL);
    }
    await_kill(pid);
    CHECK_EQUAL(fl_spsc_drained(&dispatcher.requests), 0); /* peeked is not released: its region is not given anew */
    CHECK(fl_region_take(&dispatcher.request_region, &dispatcher.requests, 1000) != dispatcher.request_region.base);
    take_from(&dispatcher.replies, 10);
    CHECK_EQUAL(fl_spsc_ready(&dispatcher.replies), 0); /* reserved is not published */
    CHECK_EQUAL(fl_spsc_announce_sleep(&dispatcher.replies), 1);
    end(&dispatcher, &worker, fd);
}

/* Killed wherever it is: the dispatcher finds whole replies only, in their order. */
static void a_worker_dies_anywhere(void)
{
    for (uint32_t round = 0; round < fl_rounds(200); round++) {
        fl_express dispatcher, worker;
        int fd = make(&dispatcher, &worker, 0);
        pid_t pid = start_child();
        if (pid == 0) {
            for (uint32_t number = 0;; number++) {
                uint32_t bytes = 4 + number % 300;
                uint8_t *place = fl_spsc_reserve(&worker.replies, bytes);
                if (place == NULL) {
                    if (fl_spsc_announce_crowded(&worker.replies)) {
                        fl_spsc_sleep_crowded(&worker.replies, -1);
                    }
                    number--;
                    continue;
                }
                memset(place, (int)(number & 0xFF), bytes);
                fl_spsc_publish(&worker.replies);
            }
        }
        uint32_t wanted = (uint32_t)fl_random(400), number = 0;
        int killed = 0;
        for (;;) {
            const uint8_t *data;
            int64_t bytes = fl_spsc_peek(&dispatcher.replies, &data);
            if (bytes == -EAGAIN) {
                if (killed) {
                    break;
                }
                sched_yield();
                continue;
            }
            CHECK_EQUAL(bytes, 4 + number % 300);
            for (int64_t i = 0; i < bytes; i++) {
                CHECK_EQUAL(data[i], number & 0xFF);
            }
            number++;
            if (fl_spsc_release(&dispatcher.replies)) {
                fl_spsc_rouse_crowded(&dispatcher.replies);
            }
            if (number == wanted + 1) {
                kill(pid, SIGKILL);
                await_kill(pid);
                killed = 1;
            }
        }
        end(&dispatcher, &worker, fd);
    }
}

/* On the CPU of its waker it goes elsewhere and may then use the same CPUs as before; elsewhere, or where looking is not
 * allowed, or a moment later, it stays. */
static void a_worker_leaves_its_waker_the_cpu(void)
{
    fl_express dispatcher, worker;
    int fd = make(&dispatcher, &worker, REGION_BYTES);
    cpu_set_t allowed, one, after;
    CHECK(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
    int cpu = sched_getcpu();
    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    fl_express_allow_spin(&dispatcher, 1000);
    fl_express_rouse(&dispatcher);
    CHECK(fl_express_move_away(&worker) == 0); /* there is no other that it may use */
    CHECK(sched_setaffinity(0, sizeof allowed, &allowed) == 0);
    worker.moved_ns = 0;
    fl_express_allow_spin(&dispatcher, 0);
    fl_express_rouse(&dispatcher);
    CHECK(fl_express_move_away(&worker) == 0);
    fl_express_allow_spin(&dispatcher, 1000);
    if (CPU_COUNT(&allowed) > 1) {
        int moved = 0;
        for (int tries = 0; tries < 1000 && !moved; tries++) { /* between the two it may be moved by the kernel */
            worker.moved_ns = 0;
            fl_express_rouse(&dispatcher);
            moved = fl_express_move_away(&worker);
        }
        CHECK(moved);
        uint64_t went_ns = worker.moved_ns;
        fl_express_rouse(&dispatcher);
        int again = fl_express_move_away(&worker);
        CHECK(!again || worker.moved_ns - went_ns >= 10000000); /* it went a moment ago, unless it was held up since */
    }
    CHECK(sched_getaffinity(0, sizeof after, &after) == 0);
    CHECK(CPU_EQUAL(&allowed, &after));
    end(&dispatcher, &worker, fd);
}

int main(void)
{
    fl_test_start();
    RUN(its_size_is_sealed);
    RUN(sizes_are_bounded);
    RUN(only_this_version_opens);
    RUN(nothing_overlaps);
    RUN(a_region_is_used_up_and_begins_anew);
    RUN(content_lies_in_the_region_or_nowhere);
    RUN(trimming_gives_memory_back);
    RUN(a_worker_is_woken);
    RUN(a_signal_ends_the_wait);
    RUN(a_worker_leaves_its_waker_the_cpu);
    RUN(who_was_not_let_run_does_not_spin);
    RUN(a_worker_dies_in_the_middle);
    RUN(a_worker_dies_anywhere);
    return 0;
}
