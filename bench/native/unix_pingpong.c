/* The floor below the floor: two processes on the two ends of a unix stream socket, blocking, with no protocol at all.
 *
 * unix_pingpong COUNT REQUEST_BYTES REPLY_BYTES
 *     Prints what round_trips.h says.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "round_trips.h"

enum { BYTES_MAX = 1 << 16 }; /* one write takes so much, and one read after it gives it all */

static void fail(const char *what) {
    fprintf(stderr, "unix_pingpong: %s\n", what);
    exit(1);
}

static void pass(int fd, char *buffer, size_t sent, size_t received, int sends_first) {
    for (int turn = 0; turn < 2; turn++) {
        if ((turn == 0) == sends_first) {
            if (send(fd, buffer, sent, MSG_NOSIGNAL) != (ssize_t)sent) {
                fail("send");
            }
        } else if (recv(fd, buffer, received, MSG_WAITALL) != (ssize_t)received) {
            fail("recv");
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fail("COUNT REQUEST_BYTES REPLY_BYTES");
    }
    long count = atol(argv[1]);
    size_t request_bytes = (size_t)atol(argv[2]), reply_bytes = (size_t)atol(argv[3]);
    char *buffer = calloc(1, BYTES_MAX);
    uint64_t *times = calloc((size_t)count, sizeof *times);
    int ends[2];
    if (buffer == NULL || times == NULL || count < 10 || request_bytes > BYTES_MAX || reply_bytes > BYTES_MAX) {
        fail("arguments");
    }
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
        fail("socketpair");
    }
    pid_t child = fork();
    if (child < 0) {
        fail("fork");
    }
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (long i = 0; i < count; i++) {
            pass(ends[1], buffer, reply_bytes, request_bytes, 0);
        }
        return 0;
    }
    for (long i = 0; i < count; i++) {
        uint64_t begun = now_ns();
        pass(ends[0], buffer, request_bytes, reply_bytes, 1);
        times[i] = now_ns() - begun;
    }
    int status = 0;
    waitpid(child, &status, 0);
    report(times, count);
    return status;
}
