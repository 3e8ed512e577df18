/* fl_zmtp against a peer that this program plays itself, byte by byte: what libzmq never does, it must survive too.
 * (test_zmtp_peer.py has it talk to libzmq.) */
#include "fl_zmtp.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "fl_test.h"

static const uint8_t GREETING[64] = {0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 0, 'N', 'U', 'L', 'L'};
static const uint8_t READY[] = {4, 26, 5, 'R', 'E', 'A', 'D', 'Y', 11, 'S', 'o', 'c', 'k', 'e', 't',
                                '-', 'T', 'y', 'p', 'e', 0, 0, 0, 4, 'P', 'A', 'I', 'R'};

struct peer {
    int listen_fd;
    struct sockaddr_un address;
    socklen_t address_bytes;
    int fd;
};

/* A listening socket in the abstract namespace, of a name that the kernel picks. */
static struct peer listening(void)
{
    struct peer peer = {.address = {.sun_family = AF_UNIX}, .address_bytes = sizeof(sa_family_t), .fd = -1};
    peer.listen_fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(peer.listen_fd >= 0);
    CHECK_EQUAL(bind(peer.listen_fd, (struct sockaddr *)&peer.address, peer.address_bytes), 0);
    peer.address_bytes = sizeof peer.address;
    CHECK_EQUAL(getsockname(peer.listen_fd, (struct sockaddr *)&peer.address, &peer.address_bytes), 0);
    CHECK_EQUAL(listen(peer.listen_fd, 1), 0);
    return peer;
}

static void dial(struct peer *peer)
{
    peer->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK_EQUAL(connect(peer->fd, (struct sockaddr *)&peer->address, peer->address_bytes), 0);
}

static void put(int fd, const void *bytes, size_t size)
{
    CHECK_EQUAL(write(fd, bytes, size), size);
}

static void take(int fd, void *bytes, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t count = read(fd, (uint8_t *)bytes + got, size - got);
        CHECK(count > 0);
        got += (size_t)count;
    }
}

static void hang_up(struct peer *peer)
{
    close(peer->fd);
    close(peer->listen_fd);
}

/* A connection that has shaken hands; everything the peer says in it was in the socket beforehand. */
static fl_zmtp connected(struct peer *peer)
{
    *peer = listening();
    dial(peer);
    put(peer->fd, GREETING, sizeof GREETING);
    put(peer->fd, READY, sizeof READY);
    fl_zmtp connection;
    CHECK_EQUAL(fl_zmtp_accept(&connection, peer->listen_fd), 0);
    uint8_t said[64 + sizeof READY];
    take(peer->fd, said, sizeof said);
    CHECK_EQUAL(memcmp(said, GREETING, 64), 0);
    CHECK_EQUAL(memcmp(said + 64, READY, sizeof READY), 0);
    return connection;
}

static int handshake_result(const void *said, size_t size)
{
    struct peer peer = listening();
    dial(&peer);
    put(peer.fd, said, size);
    shutdown(peer.fd, SHUT_WR);
    fl_zmtp connection;
    int rc = fl_zmtp_accept(&connection, peer.listen_fd);
    if (rc == 0) {
        fl_zmtp_close(&connection);
    }
    hang_up(&peer);
    return rc;
}

static void strangers_are_refused(void)
{
    uint8_t said[64 + sizeof READY];
    memcpy(said, GREETING, 64);
    memcpy(said + 64, READY, sizeof READY);
    CHECK_EQUAL(handshake_result(said, sizeof said), 0);
    CHECK_EQUAL(handshake_result(said, 0), -EPIPE);
    CHECK_EQUAL(handshake_result(said, 63), -EPIPE);
    CHECK_EQUAL(handshake_result(said, 64), -EPIPE);
    CHECK_EQUAL(handshake_result(said, sizeof said - 1), -EPIPE);
    said[10] = 2; /* ZMTP 2 */
    CHECK_EQUAL(handshake_result(said, sizeof said), -EPROTO);
    said[10] = 3;
    memcpy(said + 12, "PLAIN", 5);
    CHECK_EQUAL(handshake_result(said, sizeof said), -EPROTO);
    memcpy(said, "GET / HTTP/1.1\r\n", 16);
    CHECK_EQUAL(handshake_result(said, sizeof said), -EPROTO);
    memcpy(said, GREETING, 64);
    memcpy(said + 66, "\5ERROR", 6);
    CHECK_EQUAL(handshake_result(said, sizeof said), -EPROTO);
}

static void messages_arrive_however_they_are_cut(void)
{
    struct peer peer;
    fl_zmtp connection = connected(&peer);
    uint8_t stream[4096];
    size_t size = 0;
    for (int i = 0; i < 100; i++) {
        size_t body = fl_random(40);
        size += fl_zmtp_header(stream + size, body);
        memset(stream + size, i, body);
        size += body;
    }
    CHECK(size < sizeof stream);
    size_t sent = 0, position = 0;
    for (int i = 0; i < 100; i++) {
        size_t body = stream[position + 1];
        while (sent < position + 2 + body) { /* give it just this message and a part of what follows */
            size_t piece = 1 + fl_random(7);
            piece = piece < size - sent ? piece : size - sent;
            put(peer.fd, stream + sent, piece);
            sent += piece;
        }
        const uint8_t *data = NULL;
        CHECK_EQUAL(fl_zmtp_receive(&connection, &data), body);
        CHECK_EQUAL(memcmp(data, stream + position + 2, body), 0);
        position += 2 + body;
    }
    fl_zmtp_close(&connection);
    hang_up(&peer);
}

struct writer {
    int fd;
    const uint8_t *bytes;
    size_t size;
};

static void *write_slowly(void *argument)
{
    struct writer *writer = argument;
    for (size_t sent = 0; sent < writer->size;) {
        ssize_t count = write(writer->fd, writer->bytes + sent, writer->size - sent);
        CHECK(count > 0);
        sent += (size_t)count;
    }
    return NULL;
}

static void large_messages_come_and_their_memory_goes(void)
{
    static uint8_t message[9 + 3000000];
    struct peer peer;
    fl_zmtp connection = connected(&peer);
    size_t small = connection.capacity;
    CHECK_EQUAL(fl_zmtp_header(message, 3000000), 9);
    for (size_t i = 0; i < 3000000; i++) {
        message[9 + i] = (uint8_t)fl_random(256);
    }
    struct writer writer = {peer.fd, message, sizeof message};
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, write_slowly, &writer), 0);
    const uint8_t *data = NULL;
    CHECK_EQUAL(fl_zmtp_receive(&connection, &data), 3000000);
    CHECK_EQUAL(memcmp(data, message + 9, 3000000), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    put(peer.fd, "\0\3abc", 5);
    CHECK_EQUAL(fl_zmtp_receive(&connection, &data), 3);
    CHECK_EQUAL(connection.capacity, small);
    fl_zmtp_close(&connection);
    hang_up(&peer);
}

static int64_t received(const void *said, size_t size)
{
    struct peer peer;
    fl_zmtp connection = connected(&peer);
    put(peer.fd, said, size);
    shutdown(peer.fd, SHUT_WR);
    const uint8_t *data = NULL;
    int64_t result = fl_zmtp_receive(&connection, &data);
    fl_zmtp_close(&connection);
    hang_up(&peer);
    return result;
}

static void what_is_no_message_is_refused(void)
{
    CHECK_EQUAL(received("", 0), -EPIPE);
    CHECK_EQUAL(received("\0", 1), -EPIPE);
    CHECK_EQUAL(received("\0\5abc", 5), -EPIPE);
    CHECK_EQUAL(received("\1\1a", 3), -EPROTO);                           /* the first of several parts */
    CHECK_EQUAL(received("\x10\1a", 3), -EPROTO);                         /* a reserved flag */
    CHECK_EQUAL(received("\2\xFF\0\0\0\0\0\0\0", 9), -EMSGSIZE);          /* longer than any */
    CHECK_EQUAL(received("\4\7\4PING\0\0\0\2hi", 13), -EPROTO);           /* a command */
    CHECK_EQUAL(received("\0\0", 2), 0);
}

static void on_signal(int number)
{
    (void)number;
}

static pthread_t interrupted;

static void *interrupt(void *argument)
{
    struct peer *peer = argument;
    for (int i = 0; i < 20; i++) {
        pthread_kill(interrupted, SIGUSR1);
        usleep(1000);
    }
    put(peer->fd, "bc", 2);
    return NULL;
}

static void a_signal_loses_nothing(void)
{
    struct peer peer;
    fl_zmtp connection = connected(&peer);
    struct sigaction action = {.sa_handler = on_signal};
    CHECK_EQUAL(sigaction(SIGUSR1, &action, NULL), 0);
    interrupted = pthread_self();
    put(peer.fd, "\0\3a", 3);
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, interrupt, &peer), 0);
    const uint8_t *data = NULL;
    int64_t size;
    int interruptions = 0;
    while ((size = fl_zmtp_receive(&connection, &data)) == -EINTR) {
        interruptions++;
    }
    CHECK(interruptions > 0);
    CHECK_EQUAL(size, 3);
    CHECK_EQUAL(memcmp(data, "abc", 3), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    fl_zmtp_close(&connection);
    hang_up(&peer);
}

static void *drain(void *argument)
{
    struct writer *reader = argument;
    take(reader->fd, (uint8_t *)(uintptr_t)reader->bytes, reader->size);
    return NULL;
}

static void parts_are_sent_whole(void)
{
    static uint8_t message[2000000], got[9 + sizeof message];
    struct peer peer;
    fl_zmtp connection = connected(&peer);
    for (size_t i = 0; i < sizeof message; i++) {
        message[i] = (uint8_t)fl_random(256);
    }
    struct writer reader = {peer.fd, got, sizeof got};
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, drain, &reader), 0);
    uint8_t header[FL_ZMTP_HEADER_BYTES_MAX];
    struct iovec parts[] = {{header, fl_zmtp_header(header, sizeof message)},
                            {message, 1},
                            {message + 1, 0},
                            {message + 1, 1500000},
                            {message + 1500001, sizeof message - 1500001}};
    CHECK_EQUAL(fl_zmtp_send(&connection, parts, 5), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK_EQUAL(memcmp(got + 9, message, sizeof message), 0);
    close(peer.fd);
    struct iovec more = {message, 10};
    CHECK_EQUAL(fl_zmtp_send(&connection, &more, 1), -EPIPE); /* an error, not a signal */
    fl_zmtp_close(&connection);
    fl_zmtp_close(&connection);
    close(peer.listen_fd);
}

/* The dispatcher's end, and the peer that it talks to in peer->fd. */
static fl_zmtp opened(struct peer *peer, uint64_t message_bytes_max)
{
    int ends[2];
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    CHECK_EQUAL(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    *peer = (struct peer){.fd = ends[1], .listen_fd = -1};
    fl_zmtp connection;
    CHECK_EQUAL(fl_zmtp_open(&connection, ends[0], message_bytes_max), 0);
    uint8_t said[64 + sizeof READY];
    take(peer->fd, said, sizeof said);
    CHECK_EQUAL(memcmp(said, GREETING, 64), 0);
    CHECK_EQUAL(memcmp(said + 64, READY, sizeof READY), 0);
    return connection;
}

/* What the dispatcher's end makes of the bytes: the size of the first message, or why there is none. */
static int64_t next_of(const void *said, size_t size, uint64_t message_bytes_max, size_t *capacity)
{
    struct peer peer;
    fl_zmtp connection = opened(&peer, message_bytes_max);
    put(peer.fd, GREETING, sizeof GREETING);
    put(peer.fd, READY, sizeof READY);
    put(peer.fd, said, size);
    const uint8_t *data = NULL;
    int64_t result;
    while ((result = fl_zmtp_next(&connection, &data)) == -EAGAIN && fl_zmtp_fill(&connection) > 0) {
    }
    if (capacity != NULL) {
        *capacity = connection.capacity;
    }
    fl_zmtp_close(&connection);
    close(peer.fd);
    return result;
}

static void nobody_waits_for_a_message(void)
{
    struct peer peer;
    fl_zmtp connection = opened(&peer, 1000);
    const uint8_t *data = NULL;
    uint8_t stream[64 + sizeof READY + 2 * (2 + 5) + 9 + 300];
    memcpy(stream, GREETING, 64);
    memcpy(stream + 64, READY, sizeof READY);
    size_t size = 64 + sizeof READY;
    for (int i = 0; i < 2; i++) {
        size += fl_zmtp_header(stream + size, 5);
        memcpy(stream + size, "hello", 5);
        size += 5;
    }
    size += fl_zmtp_header(stream + size, 300);
    memset(stream + size, 'x', 300);
    size += 300;
    CHECK_EQUAL(size, sizeof stream);
    CHECK_EQUAL(fl_zmtp_next(&connection, &data), -EAGAIN);
    CHECK_EQUAL(fl_zmtp_fill(&connection), -EAGAIN);
    int messages = 0;
    for (size_t i = 0; i < size; i++) { /* a byte at a time: each message is there with its last byte */
        put(peer.fd, stream + i, 1);
        CHECK_EQUAL(fl_zmtp_unread(&connection), 1);
        CHECK_EQUAL(fl_zmtp_fill(&connection), 1);
        CHECK_EQUAL(fl_zmtp_unread(&connection), 0);
        int64_t got = fl_zmtp_next(&connection, &data);
        bool whole = i == 64 + sizeof READY + 6 || i == 64 + sizeof READY + 13 || i == size - 1;
        CHECK_EQUAL(got, whole ? (i == size - 1 ? 300 : 5) : -EAGAIN);
        if (whole) {
            messages++;
            CHECK_EQUAL(memcmp(data, stream + i + 1 - got, (size_t)got), 0);
        }
        CHECK_EQUAL(fl_zmtp_next(&connection, &data), -EAGAIN);
    }
    CHECK_EQUAL(messages, 3);
    put(peer.fd, stream + 64 + sizeof READY, 14); /* two in one piece */
    CHECK_EQUAL(fl_zmtp_fill(&connection), 14);
    CHECK_EQUAL(fl_zmtp_next(&connection, &data), 5);
    CHECK_EQUAL(fl_zmtp_next(&connection, &data), 5);
    CHECK_EQUAL(fl_zmtp_next(&connection, &data), -EAGAIN);
    close(peer.fd);
    CHECK_EQUAL(fl_zmtp_unread(&connection), 0);
    CHECK_EQUAL(fl_zmtp_fill(&connection), -EPIPE);
    fl_zmtp_close(&connection);
    CHECK_EQUAL(fl_zmtp_unread(&connection), 0);
}

/* A dispatcher has hundreds of connections over which nothing may come for a long time. */
static void a_large_message_leaves_no_memory_behind(void)
{
    static uint8_t message[9 + 100000];
    struct peer peer;
    fl_zmtp connection = opened(&peer, sizeof message);
    size_t small = connection.capacity;
    put(peer.fd, GREETING, sizeof GREETING);
    put(peer.fd, READY, sizeof READY);
    CHECK_EQUAL(fl_zmtp_header(message, 100000), 9);
    put(peer.fd, message, sizeof message);
    const uint8_t *data = NULL;
    int64_t got;
    while ((got = fl_zmtp_next(&connection, &data)) == -EAGAIN) {
        CHECK(fl_zmtp_fill(&connection) > 0);
    }
    CHECK_EQUAL(got, 100000);
    CHECK(connection.capacity > small);
    CHECK_EQUAL(fl_zmtp_next(&connection, &data), -EAGAIN);
    CHECK_EQUAL(connection.capacity, small);
    fl_zmtp_close(&connection);
    close(peer.fd);
}

static void no_descriptors_are_passed(void)
{
    struct peer peer;
    fl_zmtp connection = opened(&peer, 1000);
    int passes = 0;
    socklen_t passes_bytes = sizeof passes;
    if (getsockopt(connection.fd, SOL_SOCKET, 83 /* SO_PASSRIGHTS */, &passes, &passes_bytes) == 0) { /* Linux 6.16 knows it */
        char byte = 0;
        struct iovec part = {&byte, 1};
        union {
            struct cmsghdr header;
            char bytes[CMSG_SPACE(sizeof(int))];
        } control;
        memset(&control, 0, sizeof control);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &peer.fd, sizeof(int));
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.bytes};
        CHECK_EQUAL(sendmsg(peer.fd, &message, 0), -1);
        CHECK_EQUAL(errno, EPERM);
    }
    fl_zmtp_close(&connection);
    close(peer.fd);
}

static void a_hostile_peer_gets_no_memory(void)
{
    size_t capacity = 0;
    CHECK_EQUAL(next_of("\0\3abc", 5, 3, NULL), 3);
    CHECK_EQUAL(next_of("\0\4abcd", 6, 3, NULL), -EMSGSIZE);
    CHECK_EQUAL(next_of("\0\4", 2, 3, NULL), -EMSGSIZE); /* before any of it has come */
    CHECK_EQUAL(next_of("\1\0", 2, 3, NULL), -EPROTO);
    CHECK_EQUAL(next_of("\3", 1, 3, NULL), -EPROTO);
    CHECK_EQUAL(next_of("\2\0\0\0\7\0\0\0\0abc", 12, UINT64_MAX, &capacity), -EAGAIN); /* 30 GB, it says */
    CHECK(capacity <= 8 * 1024 * 1024);
    CHECK_EQUAL(next_of("\2\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 9, UINT64_MAX, NULL), -EMSGSIZE);
}

static void a_full_socket_is_told(void)
{
    static uint8_t message[3000000], got[sizeof message];
    struct peer peer;
    fl_zmtp connection = opened(&peer, 1000);
    for (size_t i = 0; i < sizeof message; i++) {
        message[i] = (uint8_t)fl_random(256);
    }
    size_t sent = 0, read = 0;
    int full = 0;
    while (sent < sizeof message) {
        struct iovec parts[] = {{message + sent, (sizeof message - sent) / 2},
                                {message + sent + (sizeof message - sent) / 2, sizeof message - sent - (sizeof message - sent) / 2}};
        ssize_t taken = fl_zmtp_write(&connection, parts, 2);
        CHECK(taken >= 0);
        sent += (size_t)taken;
        if (taken == 0) {
            full++;
            take(peer.fd, got + read, sent - read);
            read = sent;
        }
    }
    take(peer.fd, got + read, sent - read);
    CHECK(full > 0);
    CHECK_EQUAL(memcmp(got, message, sizeof message), 0);
    close(peer.fd);
    struct iovec more = {message, 10};
    CHECK_EQUAL(fl_zmtp_write(&connection, &more, 1), -EPIPE);
    fl_zmtp_close(&connection);
    fl_zmtp_close(&connection);
}

int main(void)
{
    fl_test_start();
    RUN(strangers_are_refused);
    RUN(messages_arrive_however_they_are_cut);
    RUN(large_messages_come_and_their_memory_goes);
    RUN(what_is_no_message_is_refused);
    RUN(a_signal_loses_nothing);
    RUN(parts_are_sent_whole);
    RUN(nobody_waits_for_a_message);
    RUN(a_large_message_leaves_no_memory_behind);
    RUN(no_descriptors_are_passed);
    RUN(a_hostile_peer_gets_no_memory);
    RUN(a_full_socket_is_told);
    return 0;
}
