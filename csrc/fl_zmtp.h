/* fl_zmtp: one end of a ZeroMQ lane between a dispatcher and an environment, without libzmq.
 *
 * Either end exchanges whole messages over one connected unix socket. libzmq would serve it with two threads, and each message would
 * cross both of their mailboxes; speaking its wire protocol (ZMTP 3.0, NULL mechanism, socket type PAIR; RFC 23 of the ZeroMQ project)
 * takes one read and one write. What has been sent is in the kernel when the call returns, and so outlives the process.
 *
 * The worker's end blocks (accept, receive, send); the dispatcher's does not (open, fill, next, write). One thread at a time owns a
 * connection. Neither end trusts the other: what is no single-part message, or is longer than allowed, is refused before it is read,
 * so that a peer can make this one keep at most one message, and no more of it than has really come. Nor are there commands after READY:
 * heartbeats are not asked for, and what means nothing could be sent without end.
 */
#ifndef FL_ZMTP_H
#define FL_ZMTP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* The longest header of a frame: flags and a 64-bit length. */
enum { FL_ZMTP_HEADER_BYTES_MAX = 9, FL_ZMTP_PARTS_MAX = 1000 };

typedef struct fl_zmtp {
    int fd;                     /* the connected socket, closed by fl_zmtp_close; -1 once closed */
    uint8_t stage;              /* of the handshake; private */
    uint64_t message_bytes_max; /* longer ones are refused */
    uint8_t *buffer;            /* what has been read and not yet been handed out lies in [start, end) */
    size_t capacity;
    size_t usual_capacity; /* to which it goes back when nothing is held */
    size_t start;
    size_t end;
    size_t wanted; /* bytes from `start` on that the next message needs, as far as is known */
} fl_zmtp;

/* Waits for the dispatcher to connect to `listen_fd` (which stays the caller's), then exchanges greetings and READY.
 * 0; -EINTR when a signal came before anybody had connected (call again); -EPROTO when the peer is no ZMTP 3 PAIR socket; -EPIPE when
 * it went away; another -errno. *out is usable only after 0. */
int fl_zmtp_accept(fl_zmtp *out, int listen_fd);

/* Takes over the connected, non-blocking socket `fd` and says greeting and READY; the peer's are taken by fl_zmtp_next. From Linux 6.16
 * on the peer can pass no descriptors.
 * 0, or -errno; the socket is *out's either way. */
int fl_zmtp_open(fl_zmtp *out, int fd, uint64_t message_bytes_max);

/* The next message: its size, and *data pointing at it until the next call. Reads as needed. -EINTR when a signal came (call again,
 * nothing is lost); -EPIPE when the peer has gone; -EPROTO for what is no single-part message; -EMSGSIZE for one over the limit;
 * -ENOMEM; another -errno. */
int64_t fl_zmtp_receive(fl_zmtp *connection, const uint8_t **data);

/* Reads once. The number of bytes that came: ask fl_zmtp_next until it has no more. -EAGAIN: nothing is there. Others as fl_zmtp_receive. */
int64_t fl_zmtp_fill(fl_zmtp *connection);

/* How many bytes lie in the socket; 0 also when that cannot be told. */
int64_t fl_zmtp_unread(const fl_zmtp *connection);

/* The next message that has been read whole, as fl_zmtp_receive gives it; -EAGAIN when there is none. */
int64_t fl_zmtp_next(fl_zmtp *connection, const uint8_t **data);

/* Writes the header of a message of `size` bytes; returns the header's length, at most FL_ZMTP_HEADER_BYTES_MAX. */
size_t fl_zmtp_header(uint8_t *out, uint64_t size);

/* Writes all of the parts, which it consumes (their iovecs are changed): one header and its message. 0 or -errno; signals are ridden out,
 * for half a message must not be left behind. At most FL_ZMTP_PARTS_MAX parts. */
int fl_zmtp_send(fl_zmtp *connection, struct iovec *parts, int count);

/* Writes what the socket takes of the parts, without waiting: the number of bytes, 0 when it is full, or -errno. */
ssize_t fl_zmtp_write(fl_zmtp *connection, const struct iovec *parts, int count);

/* Closes and frees; nothing happens the second time. */
void fl_zmtp_close(fl_zmtp *connection);

#endif
