"""What a front process and the dispatcher's process say to each other: records in the two rings of one fl_express, whose `requests` ring
carries what the dispatcher orders and whose `replies` ring what the front tells. Each begins with a front_record.

A socket that changes hands goes over the control socket before the record that tells of it.
"""

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    RING_BYTES = 1 << 20
    ANSWER_BYTES_MAX = 1 << 18     # in one record; a longer one is the business of a connection
    HEADS_MAX = 1024               # known by number at a time, 0 not among them
    INDEX_BITS = 24                # of a request id: its place in a table that both sides keep; above it a serial number

cdef enum:
    # the front tells
    TELL_READY = 1
    TELL_HEAD = 2                  # number, then the head's bytes: it has come twice and will come again
    TELL_REQUEST = 3               # number of its head, id, then the body
    TELL_LONE_REQUEST = 4          # number: bytes of the head, which follow; id; then the body
    TELL_GONE = 5                  # id: its client is gone
    # ... what a connection takes over, in this order, of one socket at a time
    TELL_HELD = 6                  # id: in work
    TELL_ANSWERED = 7              # the answer to one of those between them, which is not its turn yet
    TELL_UNREAD = 8                # bytes
    TELL_UNSENT = 9                # bytes
    TELL_MOVED = 10                # front_moved: that was all, the socket has come
    TELL_RETURNED = 11             # id, then the answer, which came when the request had moved
    TELL_REFUSED = 12              # a socket has come of which there is one too many
    TELL_DRAINED = 13
    # the dispatcher orders
    ORDER_ANSWER = 32              # id, then the bytes to be sent
    ORDER_RECALL = 33              # id: let a connection have its socket
    ORDER_DRAIN = 34               # take no connections, close those without a request, let the others go
    ORDER_LEAVE = 35               # the last

ctypedef struct front_record:
    uint32_t kind
    uint32_t number
    uint64_t id

ctypedef struct front_moved:
    uint32_t kind
    uint32_t ended                 # the client has ended its sending side
    uint64_t quiet_ticks
    uint64_t requests, bytes_received, bytes_sent   # of this connection so far
