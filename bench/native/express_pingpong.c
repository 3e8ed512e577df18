/* What shared memory leaves of a round trip: requests and replies over csrc/fl_express between two processes.
 *
 * express_pingpong COUNT REQUEST_BYTES REPLY_BYTES spin|sleep
 *     spin: each side looks for its next record until it is there.
 *     sleep: the worker sleeps on the futex; the asking side sleeps in epoll_wait until the worker rings its eventfd, as
 *     the dispatcher does.
 *     Prints what round_trips.h says.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fl_express.h"
#include "fl_wake.h"
#include "round_trips.h"

enum { RING_BYTES = 1 << 16, BYTES_MAX = RING_BYTES / 2 - 8 };

static void fail(const char *what) {
    fprintf(stderr, "express_pingpong: %s\n", what);
    exit(1);
}

/* 1: the other side has to be woken. */
static int send_record(fl_spsc *ring, const char *buffer, uint32_t bytes) {
    void *place = fl_spsc_reserve(ring, bytes);
    if (place == NULL) {
        fail("no room");
    }
    memcpy(place, buffer, bytes);
    return fl_spsc_publish(ring);
}

static void receive_record(fl_spsc *ring, char *buffer, uint32_t bytes) {
    const uint8_t *data;
    if (fl_spsc_peek(ring, &data) != bytes) {
        fail("not the record that was expected");
    }
    memcpy(buffer, data, bytes);
    fl_spsc_release(ring);
}

static void answer(fl_express *worker, int bell, long count, char *buffer, uint32_t request_bytes, uint32_t reply_bytes,
                   int spins) {
    fl_express_rest rest = {0, 0};
    for (long i = 0; i < count; i++) {
        if (spins) {
            while (!fl_spsc_ready(&worker->requests)) {
            }
        } else if (fl_express_wait(worker, &rest) != 0) {
            fail("fl_express_wait");
        }
        receive_record(&worker->requests, buffer, request_bytes);
        if (send_record(&worker->replies, buffer, reply_bytes)) {
            fl_wake_signal(bell);
        }
    }
}

static void sleep_for_reply(fl_spsc *replies, int poll_fd, int bell) {
    struct epoll_event event;
    while (fl_spsc_announce_sleep(replies)) {
        if (epoll_wait(poll_fd, &event, 1, -1) < 0 && errno != EINTR) {
            fail("epoll_wait");
        }
        fl_wake_clear(bell);
        fl_spsc_announce_awake(replies);
        if (fl_spsc_ready(replies)) {
            return;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 5 || (strcmp(argv[4], "spin") != 0 && strcmp(argv[4], "sleep") != 0)) {
        fail("COUNT REQUEST_BYTES REPLY_BYTES spin|sleep");
    }
    long count = atol(argv[1]);
    uint32_t request_bytes = (uint32_t)atol(argv[2]), reply_bytes = (uint32_t)atol(argv[3]);
    int spins = strcmp(argv[4], "spin") == 0;
    char *buffer = calloc(1, BYTES_MAX);
    uint64_t *times = calloc((size_t)count, sizeof *times);
    if (buffer == NULL || times == NULL || count < 10 || request_bytes > BYTES_MAX || reply_bytes > BYTES_MAX) {
        fail("arguments");
    }
    fl_express dispatcher, worker;
    int fd = memfd_create("express", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int bell = fl_wake_create(), poll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    if (fl_express_create(&dispatcher, fd, RING_BYTES, 0) != 0 || fl_express_open(&worker, fd) != 0 || bell < 0 ||
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, bell, &event) != 0) {
        fail("set-up");
    }
    pid_t child = fork();
    if (child < 0) {
        fail("fork");
    }
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        answer(&worker, bell, count, buffer, request_bytes, reply_bytes, spins);
        return 0;
    }
    for (long i = 0; i < count; i++) {
        uint64_t begun = now_ns();
        if (send_record(&dispatcher.requests, buffer, request_bytes)) {
            fl_spsc_rouse(&dispatcher.requests);
        }
        if (!spins) {
            sleep_for_reply(&dispatcher.replies, poll_fd, bell);
        }
        while (!fl_spsc_ready(&dispatcher.replies)) {
        }
        receive_record(&dispatcher.replies, buffer, reply_bytes);
        times[i] = now_ns() - begun;
    }
    int status = 0;
    waitpid(child, &status, 0);
    report(times, count);
    return status;
}
