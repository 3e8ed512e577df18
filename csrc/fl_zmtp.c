#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4 */
#endif
#include "fl_zmtp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* of Linux 6.16 */
#endif

enum {
    GREETING_BYTES = 64,
    WORKER_BUFFER_BYTES = 64 * 1024, /* most messages; larger ones make it grow for as long as they last */
    OWNER_BUFFER_BYTES = 16 * 1024,  /* a dispatcher has hundreds of these */
    TRUSTED_BYTES = 8 * 1024 * 1024, /* so much memory is taken on the word of a header; beyond it, as the bytes come */
    FLAG_MORE = 1,
    FLAG_LONG = 2,
    FLAG_COMMAND = 4,
};

enum { STAGE_GREETING, STAGE_READY, STAGE_MESSAGES };

static const uint64_t MESSAGE_BYTES_MAX = UINT64_C(1) << 40;
static const uint64_t READY_BYTES_MAX = 1024;

/* Signature, version 3.0, mechanism NULL, not a server, filler (all zero after the mechanism's name); then READY as a PAIR socket. They
 * go out together: an answer to the greeting could only change what a peer of another version or mechanism gets, and that one is refused. */
static const uint8_t HELLO[] = {
    0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 0, 'N', 'U', 'L', 'L', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    FLAG_COMMAND, 26, 5, 'R', 'E', 'A', 'D', 'Y', 11, 'S', 'o', 'c', 'k', 'e', 't', '-', 'T', 'y', 'p', 'e', 0, 0, 0, 4, 'P', 'A', 'I', 'R',
};

/* Makes room for `bytes` from `start` on, moving and growing the buffer as needed. */
static int reserve(fl_zmtp *connection, size_t bytes)
{
    if (connection->capacity - connection->start >= bytes && connection->start <= connection->capacity / 2) {
        return 0;
    }
    size_t held = connection->end - connection->start;
    if (connection->capacity < bytes) {
        uint8_t *larger = malloc(bytes);
        if (larger == NULL) {
            return -ENOMEM;
        }
        memcpy(larger, connection->buffer + connection->start, held);
        free(connection->buffer);
        connection->buffer = larger;
        connection->capacity = bytes;
    } else {
        memmove(connection->buffer, connection->buffer + connection->start, held);
    }
    connection->start = 0;
    connection->end = held;
    return 0;
}

/* Gives the memory of a large message back; only when nothing is held. */
static void shrink(fl_zmtp *connection)
{
    connection->start = connection->end = 0;
    if (connection->capacity > connection->usual_capacity) {
        uint8_t *smaller = malloc(connection->usual_capacity);
        if (smaller != NULL) {
            free(connection->buffer);
            connection->buffer = smaller;
            connection->capacity = connection->usual_capacity;
        }
    }
}

int64_t fl_zmtp_fill(fl_zmtp *connection)
{
    size_t held = connection->end - connection->start;
    size_t room = connection->wanted;
    if (room > TRUSTED_BYTES && held < room / 2) {
        room = held * 2 > TRUSTED_BYTES ? held * 2 : TRUSTED_BYTES;
    }
    int rc = reserve(connection, room > held ? room : held + 1);
    if (rc != 0) {
        return rc;
    }
    ssize_t got = read(connection->fd, connection->buffer + connection->end, connection->capacity - connection->end);
    if (got > 0) {
        connection->end += (size_t)got;
        return got;
    }
    return got == 0 ? -EPIPE : errno == ECONNRESET ? -EPIPE : -errno;
}

int64_t fl_zmtp_unread(const fl_zmtp *connection)
{
    int bytes = 0;
    return ioctl(connection->fd, FIONREAD, &bytes) == 0 && bytes > 0 ? bytes : 0;
}

static uint64_t big_endian(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

/* The next frame, whatever it is: its flags, *data and *size. Consumes it; -EAGAIN as long as it is not whole. */
static int next_frame(fl_zmtp *connection, uint8_t *flags, const uint8_t **data, size_t *size)
{
    size_t held = connection->end - connection->start;
    if (held == 0) {
        shrink(connection); /* at once: it may be long before anything more comes */
    }
    const uint8_t *frame = connection->buffer + connection->start;
    size_t header = 2;
    if (held > 0) {
        if ((frame[0] & ~(FLAG_MORE | FLAG_LONG | FLAG_COMMAND)) != 0 || frame[0] & FLAG_MORE) {
            return -EPROTO;
        }
        header = frame[0] & FLAG_LONG ? FL_ZMTP_HEADER_BYTES_MAX : 2;
    }
    connection->wanted = header;
    if (held < header) {
        return -EAGAIN;
    }
    uint64_t body = frame[0] & FLAG_LONG ? big_endian(frame + 1) : frame[1];
    if (body > (connection->stage == STAGE_MESSAGES ? connection->message_bytes_max : READY_BYTES_MAX)) {
        return -EMSGSIZE;
    }
    connection->wanted = header + (size_t)body;
    if (held < connection->wanted) {
        return -EAGAIN;
    }
    *flags = frame[0];
    *data = frame + header;
    *size = (size_t)body;
    connection->start += connection->wanted;
    connection->wanted = 2;
    return 0;
}

/* The peer's greeting and READY, as far as they have come: 0 when both were taken, -EAGAIN. */
static int shake_hands(fl_zmtp *connection)
{
    if (connection->stage == STAGE_GREETING) {
        connection->wanted = GREETING_BYTES;
        if (connection->end - connection->start < GREETING_BYTES) {
            return -EAGAIN;
        }
        const uint8_t *greeting = connection->buffer + connection->start;
        if (greeting[0] != 0xFF || greeting[9] != 0x7F || greeting[10] < 3 || memcmp(greeting + 12, "NULL", 5) != 0) {
            return -EPROTO;
        }
        connection->start += GREETING_BYTES;
        connection->stage = STAGE_READY;
    }
    uint8_t flags = 0;
    const uint8_t *data = NULL;
    size_t size = 0;
    int rc = next_frame(connection, &flags, &data, &size);
    if (rc == 0 && (!(flags & FLAG_COMMAND) || size < 6 || memcmp(data, "\5READY", 6) != 0)) {
        rc = -EPROTO;
    }
    if (rc == 0) {
        connection->stage = STAGE_MESSAGES;
    }
    return rc;
}

static int begin(fl_zmtp *connection, size_t buffer_bytes)
{
    connection->buffer = malloc(buffer_bytes);
    if (connection->buffer == NULL) {
        return -ENOMEM;
    }
    connection->capacity = connection->usual_capacity = buffer_bytes;
    connection->wanted = GREETING_BYTES;
    struct iovec hello = {(void *)(uintptr_t)HELLO, sizeof HELLO};
    return fl_zmtp_send(connection, &hello, 1);
}

int fl_zmtp_open(fl_zmtp *out, int fd, uint64_t message_bytes_max)
{
    memset(out, 0, sizeof *out);
    out->fd = fd;
    out->message_bytes_max = message_bytes_max < MESSAGE_BYTES_MAX ? message_bytes_max : MESSAGE_BYTES_MAX;
    /* Descriptors that come with bytes are closed by whoever reads these, and the close of a socket that lingers takes as long as its
     * owner has said. A kernel that cannot refuse them leaves that open. */
    int no = 0;
    (void)setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &no, sizeof no);
    return begin(out, OWNER_BUFFER_BYTES);
}

/* Short, and at the very beginning: signals are ridden out. */
int fl_zmtp_accept(fl_zmtp *out, int listen_fd)
{
    memset(out, 0, sizeof *out);
    out->message_bytes_max = MESSAGE_BYTES_MAX;
    out->fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (out->fd < 0) {
        return -errno;
    }
    int rc = begin(out, WORKER_BUFFER_BYTES);
    while (rc == 0 && (rc = shake_hands(out)) == -EAGAIN) {
        int64_t got;
        do {
            got = fl_zmtp_fill(out);
        } while (got == -EINTR);
        rc = got < 0 ? (int)got : 0;
    }
    if (rc != 0) {
        fl_zmtp_close(out);
    }
    return rc;
}

int64_t fl_zmtp_next(fl_zmtp *connection, const uint8_t **data)
{
    if (connection->stage != STAGE_MESSAGES) {
        int rc = shake_hands(connection);
        if (rc != 0) {
            return rc;
        }
    }
    uint8_t flags = 0;
    size_t size = 0;
    int rc = next_frame(connection, &flags, data, &size);
    if (rc != 0) {
        return rc;
    }
    return flags & FLAG_COMMAND ? -EPROTO : (int64_t)size;
}

int64_t fl_zmtp_receive(fl_zmtp *connection, const uint8_t **data)
{
    for (;;) {
        int64_t size = fl_zmtp_next(connection, data);
        if (size != -EAGAIN) {
            return size;
        }
        int64_t got = fl_zmtp_fill(connection);
        if (got < 0) {
            return got;
        }
    }
}

size_t fl_zmtp_header(uint8_t *out, uint64_t size)
{
    if (size < 256) {
        out[0] = 0;
        out[1] = (uint8_t)size;
        return 2;
    }
    out[0] = FLAG_LONG;
    for (int i = 0; i < 8; i++) {
        out[1 + i] = (uint8_t)(size >> (56 - 8 * i));
    }
    return FL_ZMTP_HEADER_BYTES_MAX;
}

int fl_zmtp_send(fl_zmtp *connection, struct iovec *parts, int count)
{
    while (count > 0) {
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
        ssize_t sent = sendmsg(connection->fd, &message, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        size_t left = (size_t)sent;
        while (count > 0 && left >= parts->iov_len) {
            left -= parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (uint8_t *)parts->iov_base + left;
            parts->iov_len -= left;
        }
    }
    return 0;
}

ssize_t fl_zmtp_write(fl_zmtp *connection, const struct iovec *parts, int count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = (size_t)count};
    for (;;) {
        ssize_t sent = sendmsg(connection->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            return sent;
        }
        if (errno == EAGAIN) {
            return 0;
        }
        if (errno != EINTR) {
            return -errno;
        }
    }
}

void fl_zmtp_close(fl_zmtp *connection)
{
    if (connection->fd >= 0) {
        close(connection->fd);
        connection->fd = -1;
    }
    free(connection->buffer);
    connection->buffer = NULL;
}
