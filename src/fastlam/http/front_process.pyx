"""A front process: accepts, reads and splits requests as http.front does, has the dispatcher's process answer them, and sends the answers.

    clients ══► Remote (a Front) ── requests ──► ring ──► Link (http.link), dispatcher
            ◄══                  ◄── answers ─── ring ◄──

It has one thread and nothing of its own to say to a client. Whatever a Front hands over to a connection goes to the dispatcher's process:
first the socket, then what belongs to it, in the order of the requests before it. The end of the control socket is the end of the process.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastlam.core.epoll cimport EPOLL_CTL_ADD, EPOLLET, EPOLLIN
from fastlam.core.native cimport (
    CLOCK_MONOTONIC,
    clock_gettime,
    fl_express,
    fl_express_open,
    fl_spsc_announce_awake,
    fl_spsc_announce_crowded,
    fl_spsc_announce_sleep,
    fl_spsc_peek,
    fl_spsc_publish,
    fl_spsc_release,
    fl_spsc_reserve,
    fl_wake_clear,
    fl_wake_signal,
    timespec,
)
from fastlam.http.front cimport Front, Head, Peer, Request
from fastlam.http.front_records cimport *
from fastlam.http.native cimport fl_tally_claim, fl_tally_count, fl_tally_drop

import gc
import mmap
import os
import select
import signal
import socket
import sys

from fastlam.http.responses import Heads

cdef enum:
    PUBLISH_REQUESTS = 16    # told together at most, so that the dispatcher need not wait for the last of many

cdef bytes EMPTY = b""


cdef class Remote(Front):
    """The sockets of a front process."""

    cdef Outpost outpost

    cdef int give(self, Request request) except -1:
        return self.outpost.forward(request)

    cdef int lose(self, Peer peer) except -1:
        return self.outpost.lose(peer)

    cdef int other_event(self, int fd) except -1:
        if fd == self.outpost.control_fd:
            os._exit(0)       # nothing comes here: the dispatcher's process is gone
        return 0              # the bell, or a peer that is gone since


cdef class Outpost:
    """What a front process has instead of a server: the ring to one."""

    cdef Remote front
    cdef fl_express memory
    cdef int bell, dispatcher_bell           # eventfds: ours, and the one we ring
    cdef readonly int control_fd
    cdef object control
    cdef uint8_t[::1] tally
    cdef uint32_t row, row_count
    cdef uint64_t connections_max, serial
    cdef list waiting, free                  # requests that the dispatcher has, by index; indices of none
    cdef list known                          # heads by number
    cdef uint32_t last_number
    cdef int unpublished                     # requests in the ring that the dispatcher does not see yet
    cdef list listeners
    cdef bint listening_again                # at the next tick
    cdef double tick_seconds, idle_seconds
    cdef readonly object handler, heads
    cdef readonly size_t header_bytes_max, body_bytes_max

    def __init__(self, *, int control, int memory, int bell, int dispatcher_bell, int tally, int row, int row_count, list listeners,
                 uint64_t connections_max, size_t header_bytes_max, size_t body_bytes_max, double tick_seconds, double idle_seconds):
        cdef int rc = fl_express_open(&self.memory, memory)
        if rc != 0:
            raise OSError(-rc, os.strerror(-rc))
        os.close(memory)
        self.tally = memoryview(mmap.mmap(tally, 0))
        os.close(tally)
        self.control = socket.socket(fileno=control)
        self.control.setblocking(True)
        self.control_fd = control
        self.bell = bell
        self.dispatcher_bell = dispatcher_bell
        self.row = row
        self.row_count = row_count
        self.connections_max = connections_max
        self.header_bytes_max = header_bytes_max
        self.body_bytes_max = body_bytes_max
        self.tick_seconds = tick_seconds
        self.idle_seconds = idle_seconds
        self.waiting = []
        self.free = []
        self.known = [None] * HEADS_MAX
        self.heads = Heads()     # which no answer of ours begins with
        self.listeners = listeners
        self.front = Remote(self)
        self.front.outpost = self
        self.front.watch(bell, EPOLL_CTL_ADD, EPOLLIN | EPOLLET)   # so it need not be cleared
        self.front.watch(control, EPOLL_CTL_ADD, EPOLLIN)
        for fd in listeners:
            self.front.listen(fd)

    def run(self):
        """Serves until it is told to leave."""
        cdef int timeout_ms
        cdef double now, next_tick = monotonic() + self.tick_seconds
        self._tell(TELL_READY, 0, 0, NULL, 0)
        self._publish()
        while self._hear():
            self._publish()
            timeout_ms = 0
            if fl_spsc_announce_sleep(&self.memory.requests):
                timeout_ms = -1
                if self.front.open_connections or self.listening_again:
                    now = monotonic()
                    if now >= next_tick:
                        self._tick()
                        next_tick = now + self.tick_seconds
                        self._publish()
                    timeout_ms = <int>((next_tick - now) * 1000) + 1
            self.front.wait(timeout_ms)
            fl_spsc_announce_awake(&self.memory.requests)

    cdef int _tick(self) except -1:
        if self.listening_again:
            self.listening_again = False
            for fd in self.listeners:
                self.front.ignore(fd)
                self.front.listen(fd)
        self.front.tick(self.tick_seconds, self.idle_seconds)
        return 0

    # -- what the dispatcher orders ----------------------------------------------------------------

    cdef bint _hear(self) except -1:
        """All that is there; False when we shall leave."""
        cdef const uint8_t *data
        cdef int64_t size
        cdef front_record record
        cdef Request request
        cdef Peer peer
        while True:
            size = fl_spsc_peek(&self.memory.requests, &data)
            if size == -EAGAIN:
                return True
            if size < <int64_t>sizeof(front_record):
                raise OSError(71, "the dispatcher's orders are damaged")
            record = (<const front_record *>data)[0]
            if record.kind == ORDER_ANSWER:
                request = self._taken(record.id)
                if request is None:
                    self._tell(TELL_RETURNED, 0, record.id, data + sizeof(front_record), size - sizeof(front_record))
                else:
                    self.front.send_answer(<Peer>request.origin, request, <const char *>data + sizeof(front_record),
                                           size - sizeof(front_record))
            elif record.kind == ORDER_RECALL:
                request = self._waiting_for(record.id)
                if request is not None:
                    peer = <Peer>request.origin
                    self.front.hand_over(peer, EMPTY if peer.partial is None else peer.partial, EMPTY)
            elif record.kind == ORDER_DRAIN:
                self._stop_listening()
                self.front.drain()
                self._tell(TELL_DRAINED, 0, 0, NULL, 0)
            elif record.kind == ORDER_LEAVE:
                return False
            if fl_spsc_release(&self.memory.requests):
                fl_wake_signal(self.dispatcher_bell)

    cdef int _stop_listening(self) except -1:
        """Who has come before is accepted: to close a listening socket resets those who wait at it."""
        cdef int before
        while self.listeners:
            before = -1
            while before != self.front.open_connections:
                before = self.front.open_connections
                self.front._accept(self.listeners[0])
            self.front.ignore(self.listeners[0])
            os.close(self.listeners.pop(0))
        for _ in range(self.front.open_connections // 256 + 1):
            self.front.wait(0)     # so is what has come from them: to close a socket with unread bytes resets it as well
        return 0

    cdef Request _waiting_for(self, uint64_t id):
        cdef Request request
        cdef size_t index = id & ((1 << INDEX_BITS) - 1)
        if index >= <size_t>len(self.waiting):
            return None
        request = self.waiting[index]
        return request if request is not None and request.id == id else None

    cdef Request _taken(self, uint64_t id):
        """The request, which the dispatcher has no more."""
        cdef Request request = self._waiting_for(id)
        if request is not None:
            index = id & ((1 << INDEX_BITS) - 1)
            self.waiting[index] = None
            self.free.append(index)
        return request

    # -- what we tell ------------------------------------------------------------------------------

    cdef uint8_t *_room(self, size_t size) except NULL:
        """In the ring, for a record of this size. Waits for it: the dispatcher does not wait for us."""
        cdef uint8_t *place
        while True:
            place = <uint8_t *>fl_spsc_reserve(&self.memory.replies, <uint32_t>size)
            if place != NULL:
                return place
            self._publish()
            if fl_spsc_announce_crowded(&self.memory.replies):
                poll = select.poll()
                poll.register(self.bell, select.POLLIN)
                poll.register(self.control_fd, select.POLLIN)
                for fd, _ in poll.poll():
                    if fd == self.control_fd:
                        os._exit(0)
                fl_wake_clear(self.bell)

    cdef uint8_t *_record(self, uint32_t kind, uint32_t number, uint64_t id, size_t size) except NULL:
        """Room for the rest of a record that begins so."""
        cdef uint8_t *place = self._room(sizeof(front_record) + size)
        (<front_record *>place)[0] = front_record(kind=kind, number=number, id=id)
        return place + sizeof(front_record)

    cdef int _tell(self, uint32_t kind, uint32_t number, uint64_t id, const uint8_t *data, size_t size) except -1:
        cdef uint8_t *place = self._record(kind, number, id, size)
        if size:
            memcpy(place, data, size)
        return 0

    cdef int _tell_bytes(self, uint32_t kind, bytes data) except -1:
        """In as many records as it takes."""
        cdef size_t size = PyBytes_GET_SIZE(data), at = 0, piece
        while at < size:
            piece = min(size - at, <size_t>ANSWER_BYTES_MAX)
            self._tell(kind, 0, 0, <const uint8_t *>PyBytes_AS_STRING(data) + at, piece)
            at += piece
        return 0

    cdef int _publish(self) except -1:
        self.unpublished = 0
        self._count()
        if fl_spsc_publish(&self.memory.replies):
            fl_wake_signal(self.dispatcher_bell)
        return 0

    cdef int _count(self) except -1:
        fl_tally_count(&self.tally[0], self.row, self.front.requests_total, self.front.bytes_received_total, self.front.bytes_sent_total)
        return 0

    cdef int forward(self, Request request) except -1:
        cdef Head head = request.head
        cdef size_t body_bytes = PyBytes_GET_SIZE(request.body)
        cdef uint8_t *place
        if self.free:
            index = self.free.pop()
            self.waiting[index] = request
        else:
            index = len(self.waiting)
            self.waiting.append(request)
        self.serial += 1
        request.id = self.serial << INDEX_BITS | <uint64_t>index
        if head.number == 0 and head.repeated:
            self._make_known(head)
        if head.number:
            place = self._record(TELL_REQUEST, head.number, request.id, body_bytes)
        else:
            place = self._record(TELL_LONE_REQUEST, <uint32_t>head.raw_bytes, request.id, head.raw_bytes + body_bytes)
            memcpy(place, PyBytes_AS_STRING(head.raw), head.raw_bytes)
            place += head.raw_bytes
        memcpy(place, PyBytes_AS_STRING(request.body), body_bytes)
        self.unpublished += 1
        if self.unpublished == PUBLISH_REQUESTS:
            self._publish()
        return 0

    cdef int _make_known(self, Head head) except -1:
        """Gives the head a number, which may have been that of one that came long ago."""
        cdef uint32_t number = self.last_number % (HEADS_MAX - 1) + 1
        if self.known[number] is not None:
            (<Head>self.known[number]).number = 0
        self.known[number] = head
        self.last_number = head.number = number
        return self._tell(TELL_HEAD, number, 0, <const uint8_t *>PyBytes_AS_STRING(head.raw), head.raw_bytes)

    cdef int lose(self, Peer peer) except -1:
        cdef Request request = peer.first
        while request is not None:
            if self._taken(request.id) is not None:
                self._tell(TELL_GONE, 0, request.id, NULL, 0)
            request = request.next
        self._count()
        fl_tally_drop(&self.tally[0], self.row)
        return 0

    # -- what a Front asks of its server -----------------------------------------------------------

    def accepts(self, int fd):
        if fl_tally_claim(&self.tally[0], self.row_count, self.row, self.connections_max):
            return True
        if self._give_away(fd):
            self._tell(TELL_REFUSED, 0, 0, NULL, 0)
            self._publish()
        return False

    def accept_failed(self, int listener, int error):
        print(f"fastlam: front {self.row}: a connection could not be accepted: {os.strerror(error)}", file=sys.stderr, flush=True)
        self.front.ignore(listener)
        self.listening_again = True

    def take_over(self, int fd, list requests, bytes unread, bytes unsent, bint ended, uint64_t requests_total, uint64_t bytes_received,
                  uint64_t bytes_sent, uint64_t quiet_ticks):
        return Moving(self, fd, requests, unread, unsent, (ended, quiet_ticks, requests_total, bytes_received, bytes_sent))

    cdef bint _give_away(self, int fd) except -1:
        """The socket goes to the dispatcher's process. False when that is not possible now: its client is cut off."""
        try:
            socket.send_fds(self.control, [b"s"], [fd])
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)
        except OSError as error:      # too many descriptors are under way
            print(f"fastlam: front {self.row}: a connection is lost: {error}", file=sys.stderr, flush=True)
            return False
        finally:
            os.close(fd)
        return True


cdef class Moving:
    """A peer on its way to a connection in the dispatcher's process: what a Front sees of that."""

    cdef Outpost outpost
    cdef int fd
    cdef list requests, unsent
    cdef bytes unread
    cdef tuple counts

    def __init__(self, Outpost outpost, int fd, list requests, bytes unread, bytes unsent, tuple counts):
        self.outpost = outpost
        self.fd = fd
        self.requests = requests
        self.unread = unread
        self.unsent = [unsent]
        self.counts = counts

    def send(self, bytes data):
        """Behind what has not been sent."""
        self.unsent.append(data)

    def go_on(self):
        """Everything is here: it goes."""
        cdef Outpost outpost = self.outpost
        cdef Request request
        cdef front_moved moved
        cdef uint8_t *place
        if not outpost._give_away(self.fd):
            for item in self.requests:
                request = <Request>item
                if outpost._taken(request.id) is not None:
                    outpost._tell(TELL_GONE, 0, request.id, NULL, 0)
            fl_tally_drop(&outpost.tally[0], outpost.row)
            return
        for item in self.requests:
            request = <Request>item
            if request.rendered is not None:
                outpost._tell(TELL_ANSWERED, 0, 0, <const uint8_t *>PyBytes_AS_STRING(request.rendered), PyBytes_GET_SIZE(request.rendered))
            else:
                outpost._taken(request.id)
                outpost._tell(TELL_HELD, 0, request.id, NULL, 0)
        outpost._tell_bytes(TELL_UNREAD, self.unread)
        outpost._tell_bytes(TELL_UNSENT, b"".join(self.unsent))
        moved.kind = TELL_MOVED
        moved.ended, moved.quiet_ticks, moved.requests, moved.bytes_received, moved.bytes_sent = self.counts
        place = outpost._room(sizeof(front_moved))
        memcpy(place, &moved, sizeof(front_moved))
        outpost._publish()     # the next socket may have to wait until this one has been received


cdef double monotonic() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


def main(list words not None):
    """The process: `words` are `name=number` or `name=number,number...`, the arguments of Outpost."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)     # the dispatcher's process tells when it is over
    arguments = {}
    for word in words:
        name, _, value = word.partition("=")
        if name == "listeners":
            arguments[name] = [int(one) for one in value.split(",")]
        else:
            arguments[name] = float(value) if name.endswith("_seconds") else int(value)
    try:
        from setproctitle import setproctitle

        setproctitle(f"fastlam: front {arguments['row']}")
    except ImportError:
        pass
    outpost = Outpost(**arguments)
    gc.collect()
    gc.freeze()
    outpost.run()
