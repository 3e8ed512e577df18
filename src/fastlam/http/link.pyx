"""The dispatcher's side of the front processes: what they read becomes ordinary requests, whose answers go back to them.

    front process (http.front_process) ── requests ──► ring ──► Link.hear ──► handler(request)
                                       ◄── answers ─── ring ◄── request.respond

A front process reads what strangers send: what it says is checked before it is believed, each thing once. A head is parsed again here, for
the offsets in it are believed by everybody. Owner of everything is the event loop's thread.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastlam.core.native cimport (
    fl_express,
    fl_express_close,
    fl_express_create,
    fl_spsc_announce_awake,
    fl_spsc_announce_crowded,
    fl_spsc_announce_sleep,
    fl_spsc_peek,
    fl_spsc_publish,
    fl_spsc_release,
    fl_spsc_reserve,
    fl_wake_clear,
    fl_wake_signal,
)
from fastlam.http.front cimport Head, Origin, Request, give, head_of, rendered_answer, request_of
from fastlam.http.front_records cimport *
from fastlam.http.native cimport (
    FL_HTTP_COMPLETE,
    FL_TALLY_ROW_BYTES,
    fl_http_head,
    fl_http_parse,
    fl_tally_clear,
    fl_tally_counts,
    fl_tally_hold,
    fl_tally_open,
    fl_tally_read,
    fl_tally_take,
)

import mmap
import os
from collections import deque

from fastlam.http.connection import Expected
from fastlam.http.streaming import ResponseBody
from fastlam.limits import HTTP_HEADERS_MAX, HTTP_PIPELINE_MAX

cdef enum:
    RECORDS_MAX = 512             # of one front, before the others and the rest of the loop have their turn
    UNREAD_BYTES_MAX = 1 << 18    # what one recv of a front brings
    HEAD_BYTES_MAX = 1024         # of status line, Date, Connection and Content-Length
    ANSWERS_MAX = 128             # of one connection that moves

cdef bytes EMPTY = b""
cdef bytes ANSWERED = b""         # what is kept of an answer that has been passed on
cdef uint64_t INDEX_MASK = (1 << INDEX_BITS) - 1


class Broken(Exception):
    """A front process has said something impossible."""


cdef class Tally:
    """The counters of all processes of one server (csrc/fl_tally.h)."""

    cdef uint8_t[::1] rows
    cdef uint32_t row_count
    cdef readonly int fd                # -1: closed

    def __init__(self, uint32_t row_count):
        self.row_count = row_count
        self.fd = os.memfd_create("fastlam-tally", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, row_count * FL_TALLY_ROW_BYTES)
        self.rows = memoryview(mmap.mmap(self.fd, row_count * FL_TALLY_ROW_BYTES))

    cdef uint8_t *_rows(self) except NULL:
        if self.fd < 0:
            raise ValueError("the tally is closed")
        return &self.rows[0]

    def close(self):
        """Gives the memory back; nothing is counted any more."""
        os.close(self.fd)
        self.fd = -1
        self.rows = None

    def open_connections(self):
        return fl_tally_open(self._rows(), self.row_count)

    def hold(self, uint64_t connections):
        """So many are the dispatcher's own."""
        fl_tally_hold(self._rows(), 0, connections)

    def take(self, uint32_t row):
        """One of the row's connections has come here."""
        fl_tally_take(self._rows(), row)

    def counts(self, uint32_t row):
        """Open connections, those ever accepted, requests, bytes received and sent."""
        cdef fl_tally_counts counts
        fl_tally_read(self._rows(), row, &counts)
        return counts.held - counts.taken, counts.accepted, counts.requests, counts.bytes_received, counts.bytes_sent

    def clear(self, uint32_t row):
        """The process is gone, and another one will have the row."""
        fl_tally_clear(self._rows(), row)


cdef class Links:
    """The front processes of one server. Answers that are given in one batch wake a process once."""

    cdef object server
    cdef list links
    cdef bint in_batch

    def __init__(self, server not None):
        self.server = server
        self.links = []

    def ready(self, int bell):
        """Hears what the processes that have rung have to say."""
        fl_wake_clear(bell)
        self.batch(self.hear)

    def hear(self):
        cdef Link link
        for item in list(self.links):
            link = <Link>item
            link.hear()

    def batch(self, object callback not None):
        """Calls it; answers that it gives go out together."""
        cdef Link link
        if self.in_batch:
            callback()
            return
        self.in_batch = True
        try:
            callback()
        finally:
            self.in_batch = False
            for item in self.links:
                link = <Link>item
                if link.unpublished:
                    link._publish()


cdef class Link(Origin):
    """One front process. `owner` (http.fronts) is told by `on_ready`, `on_drained` and `on_broken`, and has the sockets that it sends."""

    cdef Links links
    cdef object server, owner, heads, keep_alive_heads
    cdef fl_express memory
    cdef Tally tally
    cdef uint32_t row
    cdef int bell                       # the eventfd that wakes the process
    cdef list known                     # heads by number
    cdef list requests                  # in work, by index
    cdef readonly int in_work
    cdef bint unpublished               # there are orders that the process does not see yet
    cdef bint draining                  # no answer goes to it any more
    cdef bint ended
    cdef bint hearing
    cdef object crowd                   # orders that the ring has no room for
    cdef dict deferred                  # answers that a connection is to give, by request id
    cdef dict returning                 # requests that have moved, whose answers were on their way to the process
    # of the connection that is moving
    cdef list moving, unread, unsent

    def __init__(self, Links links not None, object owner not None, Tally tally not None, uint32_t row, int memory, int bell):
        cdef int rc = fl_express_create(&self.memory, memory, RING_BYTES, 0)
        if rc != 0:
            raise OSError(-rc, os.strerror(-rc))
        self.links = links
        self.server = links.server
        self.owner = owner
        self.heads = self.server.heads
        self.keep_alive_heads = self.heads.keep_alive
        self.tally = tally
        self.row = row
        self.bell = bell
        self.known = [None] * HEADS_MAX
        self.requests = []
        self.crowd = deque()
        self.deferred = {}
        self.returning = {}
        self.moving = []
        self.unread = []
        self.unsent = []
        fl_spsc_announce_sleep(&self.memory.replies)   # its first word rings
        links.links.append(self)

    def __dealloc__(self):
        fl_express_close(&self.memory)

    def drain(self):
        """Every socket with a request in work comes here; `on_drained` tells when all have come."""
        self.draining = True
        self._order(ORDER_DRAIN, 0, EMPTY)

    def leave(self):
        """The process ends."""
        self._order(ORDER_LEAVE, 0, EMPTY)

    def end(self):
        """The process is gone: so are the clients of its requests."""
        cdef Request request
        self.links.links.remove(self)
        try:
            if not self.ended:
                self.hear()
        finally:
            self.ended = True
            for item in self.requests:
                if item is not None:
                    self._lose(<Request>item)
            for item in self.moving:             # their socket went with the process
                self._lose(<Request>item)
            for item in self.returning.values():
                request = <Request>item
                if request.connection is not None and not request.connection.closed:
                    request.connection.abort()   # its answer went with the process
            self.moving = []
            self.returning.clear()
            self.crowd.clear()

    # -- what the front process tells --------------------------------------------------------------

    def hear(self):
        """Handles what the process has told; `on_broken` when that is impossible."""
        if self.ended or self.hearing:
            return
        self.hearing = True
        try:
            self._hear()
        except Broken as error:
            self.ended = True
            self.owner.on_broken(error)
        finally:
            self.hearing = False

    cdef int _hear(self) except -1:
        cdef const uint8_t *data
        cdef int64_t size
        cdef int count = 0
        fl_spsc_announce_awake(&self.memory.replies)
        while not self.ended:
            if self.crowd:
                self._relieve()
            size = fl_spsc_peek(&self.memory.replies, &data)
            if size == -EAGAIN:
                if fl_spsc_announce_sleep(&self.memory.replies):
                    break
                continue
            if size < <int64_t>sizeof(front_record):
                raise Broken("its ring is damaged")
            self._record(data, size)
            count += 1
            if count == RECORDS_MAX:
                self.owner.hear_soon()
                break
        return 0

    cdef int _release(self) except -1:
        if fl_spsc_release(&self.memory.replies):
            fl_wake_signal(self.bell)
        return 0

    cdef int _record(self, const uint8_t *data, size_t size) except -1:
        cdef front_record record = (<const front_record *>data)[0]
        cdef const uint8_t *rest = data + sizeof(front_record)
        cdef size_t rest_bytes = size - sizeof(front_record)
        cdef front_moved moved
        cdef Head head
        cdef Request request
        if record.kind == TELL_REQUEST:
            head = self.known[record.number] if record.number < HEADS_MAX else None
            if head is None or rest_bytes != head.body_bytes:
                raise Broken("a request without its head")
            self._request(record.id, head, rest)
            return 0
        if record.kind == TELL_LONE_REQUEST:
            head = self._head(rest, rest_bytes, record.number)
            if rest_bytes - head.raw_bytes != head.body_bytes:
                raise Broken("a request without its body")
            self._request(record.id, head, rest + head.raw_bytes)
            return 0
        if record.kind == TELL_MOVED:
            if size != sizeof(front_moved):
                raise Broken("a connection without its counts")
            moved = (<const front_moved *>data)[0]
            self._release()
            self._moved(&moved)
            return 0
        if record.kind == TELL_HEAD:
            head = self._head(rest, rest_bytes, <uint32_t>rest_bytes)
            if record.number == 0 or record.number >= HEADS_MAX:
                raise Broken("a head with an impossible number")
            head.repeated = True
            self.known[record.number] = head
        elif record.kind == TELL_GONE:
            request = self._taken(record.id)
            if request is not None:
                self._lose(request)
        elif record.kind == TELL_HELD:
            self._hold(record.id)
        elif record.kind == TELL_ANSWERED:
            self._hold_answer(PyBytes_FromStringAndSize(<const char *>rest, rest_bytes))
        elif record.kind == TELL_UNREAD:
            self._keep(self.unread, rest, rest_bytes)
        elif record.kind == TELL_UNSENT:
            self._keep(self.unsent, rest, rest_bytes)
        elif record.kind == TELL_RETURNED:
            self._returned(record.id, PyBytes_FromStringAndSize(<const char *>rest, rest_bytes))
        elif record.kind == TELL_REFUSED:
            self.server.refuse_connection(self._socket())
        elif record.kind == TELL_READY:
            self.owner.on_ready()
        elif record.kind == TELL_DRAINED:
            self.owner.on_drained()
        else:
            raise Broken(f"a record of the unknown kind {record.kind}")
        return self._release()

    cdef Head _head(self, const uint8_t *data, size_t size, uint32_t head_bytes):
        cdef fl_http_head parsed
        cdef bytes raw
        if head_bytes > size:
            raise Broken("a head that is not whole")
        raw = PyBytes_FromStringAndSize(<const char *>data, head_bytes)   # what is parsed stays as it is
        data = <const uint8_t *>PyBytes_AS_STRING(raw)
        if fl_http_parse(data, head_bytes, head_bytes, HTTP_HEADERS_MAX, &parsed) != FL_HTTP_COMPLETE or parsed.head_bytes != head_bytes:
            raise Broken("a head that is none")
        return head_of(data, &parsed)

    cdef int _request(self, uint64_t id, Head head, const uint8_t *body) except -1:
        cdef Request request = request_of(self, head, body)
        cdef size_t index = id & INDEX_MASK
        request.id = id
        if index < <size_t>len(self.requests):
            if self.requests[index] is not None:
                raise Broken("a request in the place of another")
            self.requests[index] = request
        elif index == <size_t>len(self.requests):
            self.requests.append(request)
        else:
            raise Broken("a request out of turn")
        self.in_work += 1
        self._release()
        return give(request, self.server.handler if head.handler is None else head.handler, self.server)

    cdef Request _taken(self, uint64_t id):
        """The request if it is in work; it no longer is the process's."""
        cdef Request request = None
        cdef size_t index = id & INDEX_MASK
        if index < <size_t>len(self.requests):
            request = self.requests[index]
        if request is None or request.id != id:
            return None
        self.requests[index] = None
        self.in_work -= 1
        return request

    cdef int _lose(self, Request request) except -1:
        request.lost = True
        self.deferred.pop(request.id, None)
        if type(request.rendered) is ResponseBody:
            request.connection.closed = True
            request.rendered.tell()
        return 0

    # -- connections that move here ----------------------------------------------------------------

    cdef int _socket(self) except -1:
        cdef int fd = self.owner.received_socket()
        if fd < 0:
            raise Broken("a connection without its socket")
        return fd

    cdef int _keep(self, list pieces, const uint8_t *data, size_t size) except -1:
        if len(pieces) > ANSWERS_MAX or (pieces is self.unread and size > UNREAD_BYTES_MAX):
            raise Broken("a connection with too much")
        pieces.append(PyBytes_FromStringAndSize(<const char *>data, size))
        return 0

    cdef int _hold(self, uint64_t id) except -1:
        cdef Request request = self._taken(id)
        if request is None:                       # answered: that is on its way there, and comes back
            request = self._placeholder()
            self.returning[id] = request
        self.moving.append(request)
        if len(self.moving) > HTTP_PIPELINE_MAX:
            raise Broken("a connection with too many requests")
        return 0

    cdef int _hold_answer(self, bytes answer) except -1:
        cdef Request request = self._placeholder()
        request.rendered = answer
        self.moving.append(request)
        if len(self.moving) > HTTP_PIPELINE_MAX:
            raise Broken("a connection with too many answers")
        return 0

    cdef Request _placeholder(self):
        """For a request of which nothing but its answer is left."""
        return request_of(None, Head.__new__(Head), NULL)

    cdef int _moved(self, const front_moved *moved) except -1:
        cdef Request request
        cdef bint aborted = False
        cdef list deferred = []
        cdef list requests = self.moving
        cdef object connection = self.server.take_over(
            self._socket(), requests, EMPTY.join(self.unread), EMPTY.join(self.unsent), moved.ended != 0,
            moved.requests, moved.bytes_received, moved.bytes_sent, min(moved.quiet_ticks, <uint64_t>1 << 20))
        self.tally.take(self.row)
        self.moving = []
        self.unread = []
        self.unsent = []
        for item in requests:
            request = <Request>item
            request.origin = None
            if type(request.rendered) is ResponseBody:
                request.rendered.move(connection)
                aborted = aborted or request.connection.aborted
            request.connection = connection
            answer = self.deferred.pop(request.id, None) if request.id else None
            if answer is not None:
                request.rendered = None
                deferred.append((request, answer))
        if aborted:
            connection.abort()
        connection.go_on()
        if requests and type((<Request>requests[0]).rendered) is ResponseBody:
            connection.flush(requests[0])         # begun before it was here
        if self.server.closing:
            connection.drain()
        for item, (status, headers, body) in deferred:
            request = <Request>item
            request.respond(status, headers, body)
        return 0

    cdef int _returned(self, uint64_t id, bytes answer) except -1:
        cdef Request request = self.returning.pop(id, None)
        if request is None:
            return 0
        if request.connection is None:
            raise Broken("an answer to a connection that has not come")
        if not request.connection.closed:
            request.rendered = answer
            request.connection.flush(request)
        return 0

    # -- what the dispatcher orders ----------------------------------------------------------------

    cdef bytes answer(self, Request request, int status, bytes headers, bytes body):
        cdef bytes whole
        cdef Py_ssize_t size = PyBytes_GET_SIZE(body) + PyBytes_GET_SIZE(headers) + PyBytes_GET_SIZE(request.extra_headers)
        if request.lost:
            return ANSWERED
        if self.draining or size > ANSWER_BYTES_MAX - HEAD_BYTES_MAX:
            self.deferred[request.id] = (status, headers, body)
            if not self.draining:
                self._order(ORDER_RECALL, request.id, EMPTY)
            return ANSWERED
        self._taken(request.id)
        whole = <bytes>rendered_answer(request, self.heads, self.keep_alive_heads, status, headers, body, False)
        self._order(ORDER_ANSWER, request.id, whole)
        return ANSWERED

    cdef object connection_of(self, Request request):
        if request.lost:
            return self.server.closed_connection()
        if not self.draining:
            self._order(ORDER_RECALL, request.id, EMPTY)
        return Expected(self.heads)

    cdef bint has_lost(self, Request request):
        return request.lost

    cdef int give_anew(self, Request request) except -1:
        self.server.handler(request)
        return 0

    cdef int _order(self, uint32_t kind, uint64_t id, bytes rest) except -1:
        if self.ended:
            return 0
        if self.crowd or not self._put(kind, id, rest):
            self.crowd.append((kind, id, rest))
            self._relieve()
            return 0
        if self.links.in_batch:
            self.unpublished = True
        else:
            self._publish()
        return 0

    cdef bint _put(self, uint32_t kind, uint64_t id, bytes rest) except -1:
        cdef size_t size = PyBytes_GET_SIZE(rest)
        cdef uint8_t *place = <uint8_t *>fl_spsc_reserve(&self.memory.requests, <uint32_t>(sizeof(front_record) + size))
        if place == NULL:
            return False
        (<front_record *>place)[0] = front_record(kind=kind, number=0, id=id)
        memcpy(place + sizeof(front_record), PyBytes_AS_STRING(rest), size)
        return True

    cdef int _relieve(self) except -1:
        """Orders that wait for room go, as far as there is some; then the process is to ring when it has made more."""
        while self.crowd:
            kind, id, rest = self.crowd[0]
            if self._put(kind, id, rest):
                self.crowd.popleft()
                continue
            self._publish()
            if fl_spsc_announce_crowded(&self.memory.requests):
                return 0
        return self._publish()

    cdef int _publish(self) except -1:
        self.unpublished = False
        if fl_spsc_publish(&self.memory.requests):
            fl_wake_signal(self.bell)
        return 0
