"""The front of the HTTP server: accepted sockets, as long as nothing but plain requests comes in and every answer goes out at once.

    epoll ─► recv ─► fl_http_parse ─► handler(request) ─► ... ─► request.respond ─► send
                         │ anything else
                         ▼
                 hand_over: the socket, the bytes nobody has read, and the requests in work go to a Connection for good

What is plain says csrc/fl_http.h. There is no second opinion on malformed input, no buffer for slow readers and no timer but for silence:
whatever needs these (other syntax, a request that does not come whole, an answer that does not go out, one that comes in pieces, the
end of the server) is the connection's, which has everything of the peer that it takes over. A head that equals the one before it on the
same socket is not read again.

Owner of everything here is the event loop's thread. The loop watches one descriptor, the epoll set of all these sockets.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy

from fastlam.core.epoll cimport *
from fastlam.http.native cimport *

import os

from fastlam.http.responses import JSON_HEADERS, LENGTH_LINES, LENGTH_NAME, bodiless, message_body
from fastlam.http.streaming import ResponseBody
from fastlam.limits import HTTP_PIPELINE_MAX

cdef enum:
    READ_BYTES = 262144            # of one recv, and the longest request that the front takes
    PARTIAL_BYTES_MAX = 131072     # kept of a request that has not come whole
    PARTS_MAX = 16                 # reads in which a request may come
    HEAD_BYTES_MAX = 16384         # of one head
    HEADERS_MAX = 128
    HEAD_KEPT_BYTES_MAX = 4096     # a longer head is read anew each time
    OUT_BYTES = 65536              # what is put together before it is sent
    COALESCE_BYTES_MAX = 65536     # a longer body is sent from where it is instead of being copied
    EVENTS_MAX = 256
    LONE_READS_MAX = 16            # of one socket, before the others are looked at
    ACCEPTS_MAX = 64               # connections taken before others are served again
    LENGTH_LINES_MAX = 4096

assert LENGTH_LINES_MAX == len(LENGTH_LINES), "front and responses disagree on LENGTH_LINES"

cdef tuple length_lines = LENGTH_LINES
cdef bytes EMPTY = b""
cdef bytes ANSWERED = b""          # what is kept of an answer that has been sent
cdef int pipeline_max = HTTP_PIPELINE_MAX


cdef inline bytes length_line(Py_ssize_t size):
    return <bytes>length_lines[size] if size < LENGTH_LINES_MAX else b"%d\r\n" % size


include "request.pxi"


cdef class Peer(Origin):
    """One accepted socket of a front."""

    cdef bytes answer(self, Request request, int status, bytes headers, bytes body):
        return ANSWERED if self.gone else self.front._answer(request, status, headers, body)

    cdef object connection_of(self, Request request):
        """The connection that goes on with the peer, which is handed over for it unless it has been."""
        cdef Peer peer = self                # the request, which lets go of it, may have the last reference
        if not peer.gone:
            peer.front.hand_over(peer, EMPTY if peer.partial is None else peer.partial, EMPTY)
        return peer.front.server.closed_connection() if peer.successor is None else peer.successor

    cdef bint has_lost(self, Request request):
        return self.gone if self.successor is None else self.successor.closed

    cdef int give_anew(self, Request request) except -1:
        self.front.handler(request)
        return 0


cdef class Front:
    """The accepted sockets of one server (http.server), which is told of what it has to decide. A front process (http.front_process) has
    another kind of it, whose requests are answered elsewhere."""

    def __cinit__(self, object server not None):
        self.epoll_fd = -1
        self.server = server
        self.handler = server.handler
        self.heads = server.heads
        self.keep_alive_heads = server.heads.keep_alive
        self.head_bytes_max = min(HEAD_BYTES_MAX, server.header_bytes_max)
        self.body_bytes_max = server.body_bytes_max
        self.listeners = []
        self.peers = []
        self.buffer = <uint8_t *>malloc(READ_BYTES)
        self.out_capacity = 2 * OUT_BYTES
        self.out = <uint8_t *>malloc(self.out_capacity)
        if self.buffer == NULL or self.out == NULL:
            raise MemoryError()
        self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll_fd < 0:
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        free(self.buffer)
        free(self.out)
        if self.epoll_fd >= 0:
            close(self.epoll_fd)

    # -- the server's side -------------------------------------------------------------------------

    def fileno(self):
        """Readable when `ready` has something to do."""
        return self.epoll_fd

    def listen(self, int fd):
        """Takes connections from a listening socket, non-blocking, which stays its owner's."""
        self.watch(fd, EPOLL_CTL_ADD, EPOLLIN)
        self.listeners.append(fd)

    def ignore(self, int fd):
        """Takes none from it any more."""
        if fd in self.listeners:
            self.listeners.remove(fd)
            epoll_ctl(self.epoll_fd, EPOLL_CTL_DEL, fd, NULL)

    def ready(self):
        """Handles what has come; for the loop that watches `fileno()`."""
        # One client that waits for each answer: it is the one again, most of the time, and need not be asked for.
        if self.lone is not None and self.lone_reads < LONE_READS_MAX and not self.lone.gone and not self.lone.paused:
            self.lone_reads += 1
            if self._read(self.lone):
                return
        self.lone_reads = 0
        self.wait(0)

    cdef int wait(self, int timeout_ms) except -1:
        cdef epoll_event[EVENTS_MAX] events
        cdef int i, count
        cdef int fd
        cdef object peer
        self.lone = None
        count = epoll_wait(self.epoll_fd, events, EVENTS_MAX, timeout_ms)
        if count < 0 and errno != EINTR:
            raise OSError(errno, os.strerror(errno))
        for i in range(count):
            fd = <int>events[i].data.u64
            peer = self.peers[fd] if fd < len(self.peers) else None
            if peer is not None:
                self._read(<Peer>peer)
                if count == 1:
                    self.lone = <Peer>peer
            elif fd in self.listeners:
                self._accept(fd)
            else:
                self.other_event(fd)
        return 0

    cdef int other_event(self, int fd) except -1:
        return 0                             # gone since: an event before this one has closed it

    cdef int give(self, Request request) except -1:
        return give(request, self.handler if request.head.handler is None else request.head.handler, self.server)

    cdef int lose(self, Peer peer) except -1:
        return 0                             # whoever answers a request asks

    def tick(self, double tick_seconds, double idle_seconds):
        """Closes who has been silent between two requests for too long; whose request does not come whole is another's business."""
        cdef Peer peer
        cdef uint64_t progress
        for item in self.peers:
            if item is None:
                continue
            peer = <Peer>item
            progress = peer.requests
            if peer.first is not None or progress != peer.progress_seen:
                peer.progress_seen = progress
                peer.quiet_ticks = 0
                if peer.partial is not None:
                    self.hand_over(peer, peer.partial, EMPTY)
                continue
            peer.quiet_ticks += 1
            if peer.partial is not None:
                self.hand_over(peer, peer.partial, EMPTY)
            elif peer.quiet_ticks * tick_seconds > idle_seconds:
                self._close(peer)

    def drain(self):
        """Closes who has nothing in work; the others are handed over, to be drained."""
        cdef Peer peer
        for item in self.peers:
            if item is None:
                continue
            peer = <Peer>item
            if peer.first is None and peer.partial is None:
                self._close(peer)
            else:
                self.hand_over(peer, EMPTY if peer.partial is None else peer.partial, EMPTY)

    def counts(self):
        """Requests, requests in work, bytes received and sent; not of those handed over, who have taken theirs along."""
        return self.requests_total, self.in_work_total, self.bytes_received_total, self.bytes_sent_total

    # -- sockets -----------------------------------------------------------------------------------

    cdef int watch(self, int fd, int operation, uint32_t what) except -1:
        cdef epoll_event event
        event.events = what
        event.data.u64 = <uint64_t>fd
        if epoll_ctl(self.epoll_fd, operation, fd, &event) != 0:
            raise OSError(errno, os.strerror(errno))
        return 0

    cdef int _accept(self, int listener) except -1:
        cdef int fd, _
        cdef Peer peer
        for _ in range(ACCEPTS_MAX):
            fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno == EAGAIN:
                    return 0
                if errno == EINTR or errno == ECONNABORTED:
                    continue
                self.server.accept_failed(listener, errno)
                return 0
            if not self.server.accepts(fd):
                continue
            try:
                self.watch(fd, EPOLL_CTL_ADD, EPOLLIN)
            except OSError:
                close(fd)
                raise
            while fd >= len(self.peers):
                self.peers.append(None)
            peer = Peer.__new__(Peer)
            peer.front = self
            peer.fd = fd
            peer.head = self.head
            self.peers[fd] = peer
            self.open_connections += 1
        return 0

    cdef int _forget(self, Peer peer) except -1:
        """The peer is no longer the front's; its socket is open."""
        peer.gone = True
        epoll_ctl(self.epoll_fd, EPOLL_CTL_DEL, peer.fd, NULL)
        self.peers[peer.fd] = None
        self.open_connections -= 1
        return 0

    cdef int _close(self, Peer peer) except -1:
        self._forget(peer)
        close(peer.fd)
        self.in_work_total -= peer.in_work
        self.lose(peer)
        peer.first = peer.last = None
        peer.partial = None
        if self.current is peer:
            self.out_bytes = 0
        return 0

    cdef object hand_over(self, Peer peer, bytes unread, bytes unsent):
        """Everything of the peer goes to a connection, which is returned: bytes that have not been read, bytes that the socket did not
        take, requests in work with what has been answered out of turn."""
        cdef Request request
        cdef Peer held = peer                # by nobody else, it may be, once its requests have let go of it
        cdef list requests = []
        if self.current is peer:
            self._send(peer, None)
            if peer.gone:                    # closed, or handed over by what could not be sent
                return peer.successor
            unread = PyBytes_FromStringAndSize(<const char *>self.buffer + self.unread, self.end - self.unread)
        self._forget(peer)
        self.in_work_total -= peer.in_work
        self.requests_total -= peer.requests
        self.bytes_received_total -= peer.bytes_received
        self.bytes_sent_total -= peer.bytes_sent
        peer.partial = None
        request = peer.first
        while request is not None:
            requests.append(request)
            request = request.next
        connection = self.server.take_over(
            peer.fd, requests, unread, unsent, peer.ended, peer.requests, peer.bytes_received, peer.bytes_sent, peer.quiet_ticks
        )
        peer.successor = connection
        for item in requests:
            request = <Request>item
            request.origin = None
            request.next = None
            request.connection = connection
        held.first = held.last = None
        if self.current is not held:         # else as soon as the handler has returned
            connection.go_on()
        return connection

    # -- bytes in ----------------------------------------------------------------------------------

    cdef int _read(self, Peer peer) except -1:
        """1 when something has come, be it the end; 0 when not."""
        cdef size_t held = 0
        cdef ssize_t count
        if peer.paused:                      # the socket is broken: whoever goes on with it will find out how
            self.hand_over(peer, EMPTY, EMPTY)
            return 1
        if peer.partial is not None:
            held = PyBytes_GET_SIZE(peer.partial)
            memcpy(self.buffer, PyBytes_AS_STRING(peer.partial), held)
        count = recv(peer.fd, self.buffer + held, READ_BYTES - held, MSG_DONTWAIT)
        if count > 0:
            peer.bytes_received += count
            self.bytes_received_total += count
            self.current = peer
            self.out_bytes = 0
            self.unread = 0
            self.end = held + count
            try:
                self._take(peer)
                if not peer.gone:
                    self._keep_rest(peer)
                if not peer.gone and self.out_bytes:
                    self._send(peer, None)
                if peer.successor is not None:
                    peer.successor.go_on()
                if peer.in_work >= pipeline_max and not peer.gone:
                    self.watch(peer.fd, EPOLL_CTL_MOD, 0)
                    peer.paused = True
            finally:
                self.current = None
        elif count == 0:
            if peer.first is None and peer.partial is None:
                self._close(peer)
            else:
                peer.ended = True
                self.hand_over(peer, EMPTY if peer.partial is None else peer.partial, EMPTY)
        elif errno == EAGAIN or errno == EINTR:
            return 0
        else:
            self._close(peer)
        return 1

    cdef int _take(self, Peer peer) except -1:
        """Gives the handler the whole requests that lie in the buffer."""
        cdef fl_http_head parsed
        cdef const uint8_t *data
        cdef size_t size
        cdef int outcome
        cdef Head head
        cdef Request request
        while self.unread < self.end and not peer.gone:
            data = self.buffer + self.unread
            size = self.end - self.unread
            head = peer.head
            if head is None or size < head.raw_bytes or memcmp(data, PyBytes_AS_STRING(head.raw), head.raw_bytes) != 0:
                outcome = fl_http_parse(data, size, self.head_bytes_max, HEADERS_MAX, &parsed)
                if outcome == FL_HTTP_INCOMPLETE:
                    return 0
                if (outcome == FL_HTTP_OTHER or parsed.body_bytes > self.body_bytes_max
                        or parsed.head_bytes + parsed.body_bytes > READ_BYTES):
                    self.hand_over(peer, EMPTY, EMPTY)
                    return 0
                head = head_of(data, &parsed)
                if head.raw_bytes <= HEAD_KEPT_BYTES_MAX:
                    peer.head = self.head = head
            else:
                head.repeated = True
            if size - head.raw_bytes < head.body_bytes:
                return 0
            if peer.in_work >= pipeline_max:
                self.hand_over(peer, EMPTY, EMPTY)
                return 0
            request = request_of(peer, head, data + head.raw_bytes)
            self.unread += head.raw_bytes + head.body_bytes
            peer.requests += 1
            self.requests_total += 1
            peer.in_work += 1
            self.in_work_total += 1
            if peer.last is None:
                peer.first = request
            else:
                peer.last.next = request
            peer.last = request
            self.give(request)
        return 0

    cdef int _keep_rest(self, Peer peer) except -1:
        """The beginning of a request waits for more, if that may be expected soon."""
        cdef size_t size = self.end - self.unread
        if size == 0:
            if peer.partial is not None:
                peer.partial = None
                peer.parts = 0
            return 0
        if self.unread:
            peer.parts = 0
        peer.parts += 1
        if size > PARTIAL_BYTES_MAX or peer.parts > PARTS_MAX or peer.in_work >= pipeline_max:
            self.hand_over(peer, EMPTY, EMPTY)
        else:
            peer.partial = PyBytes_FromStringAndSize(<const char *>self.buffer + self.unread, size)
        return 0

    # -- answers out -------------------------------------------------------------------------------

    cdef bytes _answer(self, Request request, int status, bytes headers, bytes body):
        """Sends the answer if it is the request's turn, and those that waited for it. Returns what has to be kept."""
        cdef Peer peer = <Peer>request.origin
        cdef bytes head, length
        if peer.first is not request:
            return <bytes>rendered_answer(request, self.heads, self.keep_alive_heads, status, headers, body, False)
        head = self.keep_alive_heads.get(status) or self.heads.head(status, True)
        length = length_line(PyBytes_GET_SIZE(body))
        if request.head.is_head:
            body = EMPTY
        if status != 200 and bodiless(status):
            length = body = EMPTY
        return self._emit(peer, request, head, length, headers, body)

    cdef bytes _emit(self, Peer peer, Request request, bytes head, bytes length, bytes headers, bytes body):
        # While requests of this peer are given to the handler their answers gather in `out`. An answer to another peer, whose requests were
        # taken before, goes out at once, from behind those.
        cdef size_t start = 0 if self.current is None else self.out_bytes
        cdef size_t size = start
        cdef size_t head_bytes = PyBytes_GET_SIZE(head) + PyBytes_GET_SIZE(length) + PyBytes_GET_SIZE(headers) \
            + PyBytes_GET_SIZE(request.extra_headers) + 2
        cdef size_t body_bytes = PyBytes_GET_SIZE(body)
        cdef bint apart = body_bytes > COALESCE_BYTES_MAX
        self._reserve(start + head_bytes + (0 if apart else body_bytes))
        size = self._put(size, head)
        size = self._put(size, length)
        size = self._put(size, headers)
        size = self._put(size, request.extra_headers)
        self.out[size] = c"\r"
        self.out[size + 1] = c"\n"
        size += 2
        if not apart:
            size = self._put(size, body)
        self._take_out(peer)
        if self.current is peer:
            self.out_bytes = size
            if apart:
                self._send(peer, body)
            elif size > OUT_BYTES:
                self._send(peer, None)
        else:
            self._send_bytes(peer, <const char *>self.out + start, size - start, body if apart else None)
        self._emit_waiting(peer)
        return ANSWERED

    cdef int send_answer(self, Peer peer, Request request, const char *data, size_t size) except -1:
        """Sends an answer that is made, as `Request.respond` does; not while requests are being read."""
        if peer.first is not request:
            request.rendered = PyBytes_FromStringAndSize(data, size)
            return 0
        request.rendered = ANSWERED
        self._take_out(peer)
        self._send_bytes(peer, data, size, None)
        return self._emit_waiting(peer)

    cdef int _take_out(self, Peer peer) except -1:
        """The peer's oldest request is answered."""
        cdef Request request = peer.first
        peer.first = request.next
        request.next = None
        peer.in_work -= 1
        self.in_work_total -= 1
        if peer.first is None:
            peer.last = None
        return 0

    cdef int _emit_waiting(self, Peer peer) except -1:
        """Answers given before it was their turn; and the peer is read again."""
        cdef bytes answer
        while not peer.gone and peer.first is not None and peer.first.rendered is not None:
            answer = <bytes>peer.first.rendered
            peer.first.rendered = ANSWERED
            self._take_out(peer)
            if self.current is peer:
                self._send(peer, answer)
            else:
                self._send_bytes(peer, PyBytes_AS_STRING(answer), PyBytes_GET_SIZE(answer), None)
        if peer.paused and not peer.gone:
            peer.paused = False
            self.watch(peer.fd, EPOLL_CTL_MOD, EPOLLIN)
        return 0

    cdef int _reserve(self, size_t size) except -1:
        cdef uint8_t *larger
        if size > self.out_capacity:
            larger = <uint8_t *>realloc(self.out, size)
            if larger == NULL:
                raise MemoryError()
            self.out = larger
            self.out_capacity = size
        return 0

    cdef size_t _put(self, size_t at, bytes data) noexcept:
        cdef size_t size = PyBytes_GET_SIZE(data)
        memcpy(self.out + at, PyBytes_AS_STRING(data), size)
        return at + size

    cdef int _send(self, Peer peer, bytes behind) except -1:
        """What has been gathered for the peer that is being served, and what comes behind it. Afterwards it may be gone."""
        cdef size_t size = self.out_bytes
        self.out_bytes = 0
        if size:
            return self._send_bytes(peer, <const char *>self.out, size, behind)
        if behind is not None:
            return self._send_bytes(peer, PyBytes_AS_STRING(behind), PyBytes_GET_SIZE(behind), None)
        return 0

    cdef int _send_bytes(self, Peer peer, const char *data, size_t size, bytes behind) except -1:
        """Sends, and hands the peer over with what the socket does not take. Afterwards it may be gone."""
        cdef bytes unsent
        cdef ssize_t count = send(peer.fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT | (0 if behind is None else MSG_MORE))
        if count < 0:
            if errno != EAGAIN and errno != EINTR:
                self._close(peer)
                return 0
            count = 0
        peer.bytes_sent += size
        self.bytes_sent_total += size
        if <size_t>count == size:
            if behind is not None:
                return self._send_bytes(peer, PyBytes_AS_STRING(behind), PyBytes_GET_SIZE(behind), None)
            return 0
        unsent = PyBytes_FromStringAndSize(data + count, size - count)
        if behind is not None:
            peer.bytes_sent += PyBytes_GET_SIZE(behind)
            self.bytes_sent_total += PyBytes_GET_SIZE(behind)
            unsent += behind
        self.hand_over(peer, EMPTY if peer.partial is None else peer.partial, unsent)
        return 0
