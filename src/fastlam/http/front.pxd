"""What the modules of the HTTP server share of the front: requests, who has their sockets, and the sockets themselves.

Every class belongs to one thread: the event loop's in a server, the only one in a front process.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastlam.http.native cimport fl_http_head


cdef class Head:
    cdef bytes raw                # as it was sent; None of a request that a connection has read
    cdef size_t raw_bytes, headers_start, body_bytes
    cdef uint32_t number          # in a front process: under which the dispatcher knows it; 0: under none
    cdef bint is_head             # of the method HEAD
    cdef bint repeated            # has come more than once
    cdef bytes method, target, path, query
    cdef list headers             # None until somebody wants them
    cdef object handler           # instead of the server's: what `Request.remember` was given
    cdef list all_headers(self)
    cdef int set_target(self, bytes target) except -1


cdef Head head_of(const uint8_t *data, const fl_http_head *parsed)
cdef Request request_of(Origin origin, Head head, const uint8_t *body)
cdef object rendered_answer(Request request, object heads, object by_status, int status, bytes headers, bytes body, bint in_parts)
cdef int give(Request request, object handler, object server) except -1


cdef class Origin:
    """Who has the socket that a request came by, as long as no connection does."""

    cdef bytes answer(self, Request request, int status, bytes headers, bytes body)   # returns what has to be kept of the answer
    cdef object connection_of(self, Request request)   # the one that takes the socket over, for an answer in pieces
    cdef bint has_lost(self, Request request)          # its client is gone
    cdef int give_anew(self, Request request) except -1   # to the server's handler


cdef class Request:
    cdef Head head
    cdef Origin origin                # None: `connection` has the socket
    cdef object connection
    cdef Request next                 # the one behind it, of the same peer
    cdef uint64_t id                  # between a front process and the dispatcher
    cdef bint lost                    # came by a front process, and its client is gone
    cdef readonly bytes body
    cdef public bytes extra_headers   # a block of header lines that goes with whatever answer is given
    cdef public bint keep_alive
    cdef public bint http_1_0         # the client does not know chunks
    cdef public object rendered       # the answer: bytes; its head and a long body; or a ResponseBody
    cpdef respond(self, int status, bytes headers, bytes body)


cdef class Peer(Origin):
    cdef Front front
    cdef int fd
    cdef Request first, last       # in work, in order
    cdef int in_work
    cdef Head head                 # the latest
    cdef bytes partial             # the beginning of a request; None between two
    cdef int parts                 # reads that have brought it
    cdef int quiet_ticks
    cdef uint64_t progress_seen, requests, bytes_received, bytes_sent
    cdef bint paused               # not read: too many of its requests are in work
    cdef bint ended                # the client has ended its sending side
    cdef bint gone                 # closed or handed over
    cdef object successor          # the connection that it was handed over to


cdef class Front:
    cdef object server, handler, heads
    cdef object keep_alive_heads         # Heads.keep_alive
    cdef size_t head_bytes_max, body_bytes_max
    cdef int epoll_fd
    cdef list listeners                  # descriptors
    cdef list peers                      # by descriptor
    cdef Head head                       # the latest of all
    cdef Peer lone                       # the only one that had sent something the last time
    cdef int lone_reads                  # since then, without a look at the others
    cdef readonly int open_connections
    # of all peers but those handed over, which have taken theirs along
    cdef int in_work_total
    cdef uint64_t requests_total, bytes_received_total, bytes_sent_total
    # the peer whose requests are being given to the handler, what of its bytes has not been read, and its answers so far
    cdef Peer current
    cdef uint8_t *buffer
    cdef size_t unread, end
    cdef uint8_t *out
    cdef size_t out_bytes, out_capacity

    cdef int wait(self, int timeout_ms) except -1
    cdef int watch(self, int fd, int operation, uint32_t what) except -1
    cdef object hand_over(self, Peer peer, bytes unread, bytes unsent)
    cdef int send_answer(self, Peer peer, Request request, const char *data, size_t size) except -1
    # what a front process does otherwise
    cdef int give(self, Request request) except -1        # to whoever answers it
    cdef int lose(self, Peer peer) except -1              # it is closed, perhaps with requests in work
    cdef int other_event(self, int fd) except -1          # of a descriptor that is neither a peer's nor a listener's

    cdef int _accept(self, int listener) except -1
    cdef int _forget(self, Peer peer) except -1
    cdef int _close(self, Peer peer) except -1
    cdef int _read(self, Peer peer) except -1
    cdef int _take(self, Peer peer) except -1
    cdef int _keep_rest(self, Peer peer) except -1
    cdef bytes _answer(self, Request request, int status, bytes headers, bytes body)
    cdef bytes _emit(self, Peer peer, Request request, bytes head, bytes length, bytes headers, bytes body)
    cdef int _take_out(self, Peer peer) except -1
    cdef int _emit_waiting(self, Peer peer) except -1
    cdef int _reserve(self, size_t size) except -1
    cdef size_t _put(self, size_t at, bytes data) noexcept
    cdef int _send(self, Peer peer, bytes behind) except -1
    cdef int _send_bytes(self, Peer peer, const char *data, size_t size, bytes behind) except -1
