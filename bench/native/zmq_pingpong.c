/* The floor of a round trip between two processes: two libzmq PAIR sockets over ipc, driven from C.
 *
 * zmq_pingpong LIBZMQ ENDPOINT COUNT REQUEST_BYTES REPLY_BYTES
 *     LIBZMQ is the shared library that pyzmq carries, so that both sides of a comparison run the same one.
 *     Prints what round_trips.h says.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "round_trips.h"

enum { ZMQ_PAIR = 0, BYTES_MAX = 1 << 20 };

static void *(*ctx_new)(void);
static int (*ctx_term)(void *);
static void *(*socket_new)(void *, int);
static int (*socket_close)(void *);
static int (*bind_to)(void *, const char *);
static int (*connect_to)(void *, const char *);
static int (*send_bytes)(void *, const void *, size_t, int);
static int (*receive_bytes)(void *, void *, size_t, int);

static void fail(const char *what) {
    fprintf(stderr, "zmq_pingpong: %s\n", what);
    exit(1);
}

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (found == NULL) {
        fail(name);
    }
    return found;
}

static void load(const char *path) {
    void *library = dlopen(path, RTLD_NOW);
    if (library == NULL) {
        fail(dlerror());
    }
    *(void **)&ctx_new = symbol(library, "zmq_ctx_new");
    *(void **)&ctx_term = symbol(library, "zmq_ctx_term");
    *(void **)&socket_new = symbol(library, "zmq_socket");
    *(void **)&socket_close = symbol(library, "zmq_close");
    *(void **)&bind_to = symbol(library, "zmq_bind");
    *(void **)&connect_to = symbol(library, "zmq_connect");
    *(void **)&send_bytes = symbol(library, "zmq_send");
    *(void **)&receive_bytes = symbol(library, "zmq_recv");
}

static void answer(const char *endpoint, long count, size_t reply_bytes, char *buffer) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    void *context = ctx_new();
    void *socket = socket_new(context, ZMQ_PAIR);
    if (connect_to(socket, endpoint) != 0) {
        fail("zmq_connect");
    }
    for (long i = 0; i < count; i++) {
        if (receive_bytes(socket, buffer, BYTES_MAX, 0) < 0 || send_bytes(socket, buffer, reply_bytes, 0) < 0) {
            fail("the answering side");
        }
    }
    socket_close(socket);
    ctx_term(context); /* waits until the last answer is gone */
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fail("LIBZMQ ENDPOINT COUNT REQUEST_BYTES REPLY_BYTES");
    }
    long count = atol(argv[3]);
    size_t request_bytes = (size_t)atol(argv[4]), reply_bytes = (size_t)atol(argv[5]);
    char *buffer = calloc(1, BYTES_MAX);
    uint64_t *times = calloc((size_t)count, sizeof *times);
    if (buffer == NULL || times == NULL || count < 10 || request_bytes > BYTES_MAX || reply_bytes > BYTES_MAX) {
        fail("arguments");
    }
    load(argv[1]);
    pid_t child = fork(); /* before any context: libzmq's threads do not survive a fork */
    if (child < 0) {
        fail("fork");
    }
    if (child == 0) {
        answer(argv[2], count, reply_bytes, buffer);
        return 0;
    }
    void *context = ctx_new();
    void *socket = socket_new(context, ZMQ_PAIR);
    if (bind_to(socket, argv[2]) != 0) {
        fail("zmq_bind");
    }
    for (long i = 0; i < count; i++) {
        uint64_t begun = now_ns();
        if (send_bytes(socket, buffer, request_bytes, 0) < 0 || receive_bytes(socket, buffer, BYTES_MAX, 0) < 0) {
            fail("the asking side");
        }
        times[i] = now_ns() - begun;
    }
    socket_close(socket);
    ctx_term(context);
    int status = 0;
    waitpid(child, &status, 0);
    report(times, count);
    return status;
}
