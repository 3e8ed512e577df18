/* fl_zmtp: the environment's end of a ZeroMQ lane, without libzmq.
 *
 * A worker answers one dispatcher over one accepted unix socket, a frame at a time. libzmq would serve it with two threads, and each
 * message would cross both of their mailboxes; speaking its wire protocol (ZMTP 3.0, NULL mechanism, socket type PAIR; RFC 23 of the
 * ZeroMQ project) takes one read and one write. What has been sent is in the kernel when the call returns, and so outlives the process.
 *
 * One thread owns a connection. The dispatcher is trusted; what it sends is checked all the same, since a broken lane must end in an
 * error and not in a crash.
 */
#ifndef FL_ZMTP_H
#define FL_ZMTP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* The longest header of a frame: flags and a 64-bit length. */
enum { FL_ZMTP_HEADER_BYTES_MAX = 9, FL_ZMTP_PARTS_MAX = 1000 };

typedef struct fl_zmtp {
    int fd;           /* the connected socket, closed by fl_zmtp_close */
    uint8_t *buffer;  /* what has been read and not yet been handed out lies in [start, end) */
    size_t capacity;
    size_t start;
    size_t end;
} fl_zmtp;

/* Waits for the dispatcher to connect to `listen_fd` (which stays the caller's), then exchanges greetings and READY.
 * 0; -EINTR when a signal came before anybody had connected (call again); -EPROTO when the peer is no ZMTP 3 PAIR socket; -EPIPE when
 * it went away; another -errno. *out is usable only after 0. */
int fl_zmtp_accept(fl_zmtp *out, int listen_fd);

/* The next message: its size, and *data pointing at it until the next call. -EINTR when a signal came (call again, nothing is lost);
 * -EPIPE when the peer has gone; -EPROTO for what is no single-part message; -ENOMEM; another -errno. */
int64_t fl_zmtp_receive(fl_zmtp *connection, const uint8_t **data);

/* Writes the header of a message of `size` bytes; returns the header's length, at most FL_ZMTP_HEADER_BYTES_MAX. */
size_t fl_zmtp_header(uint8_t *out, uint64_t size);

/* Writes all of the parts, which it consumes (their iovecs are changed): one header and its message. 0 or -errno; signals are ridden out,
 * for half a message must not be left behind. At most FL_ZMTP_PARTS_MAX parts. */
int fl_zmtp_send(fl_zmtp *connection, struct iovec *parts, int count);

/* Closes and frees; nothing happens the second time. */
void fl_zmtp_close(fl_zmtp *connection);

#endif
