/* fl_zmtp against a peer that this program plays itself, byte by byte: what libzmq never does, it must survive too.
 * (test_zmtp_peer.py has it talk to libzmq.) */
#include "fl_zmtp.h"

#include <errno.h>
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
    CHECK_EQUAL(received("\2\xFF\0\0\0\0\0\0\0", 9), -EPROTO);            /* longer than any */
    CHECK_EQUAL(received("\4\7\4PING\0\0\0\2hi", 13), 2);                 /* commands mean nothing */
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

int main(void)
{
    fl_test_start();
    RUN(strangers_are_refused);
    RUN(messages_arrive_however_they_are_cut);
    RUN(large_messages_come_and_their_memory_goes);
    RUN(what_is_no_message_is_refused);
    RUN(a_signal_loses_nothing);
    RUN(parts_are_sent_whole);
    return 0;
}
