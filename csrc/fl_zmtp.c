#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4 */
#endif
#include "fl_zmtp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    GREETING_BYTES = 64,
    BUFFER_BYTES = 64 * 1024,       /* most messages; larger ones make it grow for as long as they last */
    FLAG_MORE = 1,
    FLAG_LONG = 2,
    FLAG_COMMAND = 4,
};

static const uint64_t MESSAGE_BYTES_MAX = UINT64_C(1) << 40;

/* Signature, version 3.0, mechanism NULL, not a server, filler: all zero after the mechanism's name. */
static const uint8_t GREETING[GREETING_BYTES] = {0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 0, 'N', 'U', 'L', 'L'};

static const uint8_t READY[] = {FLAG_COMMAND, 26, 5,   'R', 'E', 'A', 'D', 'Y', 11, 'S', 'o', 'c', 'k', 'e',
                                't',          '-', 'T', 'y', 'p', 'e', 0,   0,   0,  4,  'P', 'A', 'I', 'R'};

/* Reads what there is, at least one byte, into the free end of the buffer. */
static int fill(fl_zmtp *connection)
{
    ssize_t got = read(connection->fd, connection->buffer + connection->end, connection->capacity - connection->end);
    if (got > 0) {
        connection->end += (size_t)got;
        return 0;
    }
    return got == 0 ? -EPIPE : errno == ECONNRESET ? -EPIPE : -errno;
}

/* Makes room for `bytes` from `start` on, moving and growing the buffer as needed. */
static int reserve(fl_zmtp *connection, size_t bytes)
{
    if (connection->capacity - connection->start >= bytes) {
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
    if (connection->capacity > BUFFER_BYTES) {
        uint8_t *smaller = malloc(BUFFER_BYTES);
        if (smaller != NULL) {
            free(connection->buffer);
            connection->buffer = smaller;
            connection->capacity = BUFFER_BYTES;
        }
    }
}

static uint64_t big_endian(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

/* The next frame, whatever it is: its flags, *data and *size. Consumes it. */
static int next_frame(fl_zmtp *connection, uint8_t *flags, const uint8_t **data, size_t *size)
{
    if (connection->start == connection->end) {
        shrink(connection);
    }
    for (;;) {
        size_t held = connection->end - connection->start;
        const uint8_t *frame = connection->buffer + connection->start;
        size_t header = 2;
        size_t wanted = header;
        if (held > 0) {
            if ((frame[0] & ~(FLAG_MORE | FLAG_LONG | FLAG_COMMAND)) != 0) {
                return -EPROTO;
            }
            header = wanted = frame[0] & FLAG_LONG ? FL_ZMTP_HEADER_BYTES_MAX : 2;
        }
        if (held >= header) {
            uint64_t body = frame[0] & FLAG_LONG ? big_endian(frame + 1) : frame[1];
            if (body > MESSAGE_BYTES_MAX) {
                return -EPROTO;
            }
            wanted = header + (size_t)body;
            if (held >= wanted) {
                *flags = frame[0];
                *data = frame + header;
                *size = (size_t)body;
                connection->start += wanted;
                return 0;
            }
        }
        int rc = reserve(connection, wanted);
        if (rc == 0) {
            rc = fill(connection);
        }
        if (rc != 0) {
            return rc;
        }
    }
}

static int send_all(int fd, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR) {
            return -errno;
        }
        if (sent > 0) {
            bytes += sent;
            size -= (size_t)sent;
        }
    }
    return 0;
}

/* Greetings, then READY both ways. Short, and at the very beginning: signals are ridden out. */
static int shake_hands(fl_zmtp *connection)
{
    int rc = send_all(connection->fd, GREETING, sizeof GREETING);
    while (rc == 0 && connection->end < GREETING_BYTES) {
        rc = fill(connection);
        rc = rc == -EINTR ? 0 : rc;
    }
    if (rc != 0) {
        return rc;
    }
    const uint8_t *greeting = connection->buffer;
    if (greeting[0] != 0xFF || greeting[9] != 0x7F || greeting[10] < 3 || memcmp(greeting + 12, "NULL", 5) != 0) {
        return -EPROTO;
    }
    connection->start = GREETING_BYTES;
    rc = send_all(connection->fd, READY, sizeof READY);
    uint8_t flags = 0;
    const uint8_t *data = NULL;
    size_t size = 0;
    while (rc == 0 && data == NULL) {
        rc = next_frame(connection, &flags, &data, &size);
        rc = rc == -EINTR ? 0 : rc;
    }
    if (rc == 0 && (!(flags & FLAG_COMMAND) || size < 6 || memcmp(data, "\5READY", 6) != 0)) {
        rc = -EPROTO;
    }
    return rc;
}

int fl_zmtp_accept(fl_zmtp *out, int listen_fd)
{
    memset(out, 0, sizeof *out);
    out->fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (out->fd < 0) {
        return -errno;
    }
    out->buffer = malloc(BUFFER_BYTES);
    out->capacity = BUFFER_BYTES;
    int rc = out->buffer == NULL ? -ENOMEM : shake_hands(out);
    if (rc != 0) {
        fl_zmtp_close(out);
    }
    return rc;
}

int64_t fl_zmtp_receive(fl_zmtp *connection, const uint8_t **data)
{
    for (;;) {
        uint8_t flags = 0;
        size_t size = 0;
        int rc = next_frame(connection, &flags, data, &size);
        if (rc != 0) {
            return rc;
        }
        if (flags & FLAG_MORE) {
            return -EPROTO;
        }
        if (!(flags & FLAG_COMMAND)) {
            return (int64_t)size;
        }
        /* Commands after READY (heartbeats, which nobody has asked for) mean nothing here. */
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

void fl_zmtp_close(fl_zmtp *connection)
{
    if (connection->buffer != NULL) {
        close(connection->fd);
        free(connection->buffer);
        connection->buffer = NULL;
        connection->fd = -1;
    } else if (connection->fd > 0) {
        close(connection->fd);
        connection->fd = -1;
    }
}
