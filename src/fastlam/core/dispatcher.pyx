"""The dispatcher: a library with one driver at a time.

Data flow::

    submit() ──► ring ──► admit ──► idle environment, or a waiting line and a new environment
    (any thread)          (driver)            │ frame over ZeroMQ
                                              ▼
    on_done / wait() ◄── finish ◄── reply, exit, deadline

Submitters push into a bounded ring and wake the driver only if it announced sleep. One thread at a time, the *driver*, runs everything
below `drive`: it alone touches sockets, slot tables, timers and counters. Who that is:

* a thread that called `adopt()`, for good: the event loop of the daemon, which calls `drive_ready()` when `fileno()` is readable;
* otherwise a thread inside `wait()`, if nobody else drives;
* otherwise the thread of an event loop that has calls under way, in passes that do not sleep (loops.pxi);
* otherwise the background thread, which takes over whenever work is outstanding and nobody has driven for a tick.

The GIL makes the hand-over atomic: `owner` is read and written without releasing it. A driver sleeps in epoll without the GIL.
A lane is a non-blocking socket that epoll watches; what it does not take at once waits in the environment's backlog.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.errno cimport EAGAIN, EINTR, EMSGSIZE, EPROTO, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.math cimport exp
from libc.stdlib cimport calloc, free
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset, strlen, strstr

from fastlam.core.epoll cimport *
from fastlam.core.native cimport *
from fastlam.core.plain cimport *

import array
import logging
import os
import signal
import threading
from collections import deque
from concurrent.futures import CancelledError
from time import monotonic

import msgspec

from fastlam import limits
from fastlam.wire.frames import (
    PROTOCOL_VERSION,
    Chunk,
    FromEnvironment,
    Invoke,
    Ready,
    Result,
    Stop,
    Task,
    TaskResult,
    Tasks,
)

cdef extern from "<fcntl.h>" nogil:
    int fallocate(int fd, int mode, int64_t offset, int64_t length)
    int open_file "open"(const char *path, int flags)
    int O_RDONLY, O_CLOEXEC
cdef extern from "<linux/falloc.h>" nogil:
    int FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE
cdef extern from *:
    """
    #if defined(__x86_64__) || defined(__i386__)
    #define cpu_relax() __builtin_ia32_pause()
    #elif defined(__aarch64__)
    #define cpu_relax() __asm__ __volatile__("yield")
    #else
    #define cpu_relax() ((void)0)
    #endif
    """
    void cpu_relax() nogil
    int __builtin_ctzll(uint64_t mask) nogil
cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void *buffer, size_t count, int64_t offset)
    int close(int fd)
cdef extern from "<stdlib.h>" nogil:
    long long strtoll(const char *text, char **end, int base)
cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *watched, unsigned long count, int timeout_ms)
    short POLLIN
cdef extern from "<time.h>" nogil:
    int nanosleep(const timespec *wanted, timespec *left)
cdef extern from "<sched.h>" nogil:
    int sched_yield()
cdef extern from "<pthread.h>" nogil:
    unsigned long pthread_self()

cdef enum:
    PyBUF_READ = 0x100
    LENGTH_BYTES = 4
    ZMQ_POLLIN = 1
    ZMQ_POLLOUT = 2
    EVENTS_MAX = 64
    SHORT_BYTES_MAX = 8192       # frames up to this size are put together on the stack
    BACKLOG_PARTS_MAX = 64       # buffers of one write
    LANE_GRACE_NS = 500000000    # between the end of a lane and the report of its process's exit
    TICK_NS = 1000000            # how often the background thread looks whether somebody drives
    TICKS_BEFORE_SLEEP = 200     # idle ticks before it sleeps until it is woken
    LINGER_NS = 50000000         # how long it goes on driving after the last call was done
    SIGNALS_MS = 200             # how often a caller who sleeps looks for signals: one that comes as it falls asleep does not end the sleep
    LOOPS_TICKS = 10             # of TICK_NS, between looks whether the event loops that stand by do drive
    HOUSE_NS = 250000000         # between looks at how much is printed
    MEMORY_LOOK_NS = 100000      # of handlers' time between two looks at the peak of an environment's memory
    TURN_NS = 1000000000         # a target without an environment waits so much longer than others before it gets one of theirs
    BUNDLE_AFTER = 8             # tasks that a worker has in hand before further ones are sent in bundles
    BUNDLE_TASKS_MAX = 8
    PIECE_BYTES = 64             # what a piece of a stream costs besides its content
    LOG_PUNCH_BYTES = 1048576    # free the pages of output that has been read, so much at a time
    SLOT_MIRROR_BYTES = 1024     # = limits.SLOT_MIRROR_BYTES, which must be a C constant here; checked below

    EXPRESS_INLINE_BYTES_MAX = 16384   # longer records go through the region beside the ring
    PLAIN_HEAD_BYTES = 8         # of a payload (wire/tasks.py)
    PLAIN_RECORD_BYTES_MAX = 544
    RECORDS_MAX = 256            # of one environment before others have their turn
    REGION_KEPT_BYTES = 65536    # of each region of an idle environment
    TRIM_AFTER_NS = 1000000000   # it has been idle for so long
    COPIED_BYTES_MAX = 4194304   # likewise, of the content of its records
    SPIN_RINGS_MAX = 8           # the driver looks for replies of so many environments, of more it sleeps
    LOOKS_A_CLOCK = 8            # between two readings of the clock while it looks
    PREEMPTED_NS = 25000         # a longer gap between them: somebody else had this CPU
    LOAD_NS = 5000000            # how long one look at the number of runnable tasks is believed
    LOAD_REST_MIN_NS = 100000    # the first one that finds too many, so long
    WOKEN_SPIN_NS = 40000        # how long the driver looks for the answer of a worker that it had to wake
    POLL_NS = 50000              # descriptors are asked so often while replies come through rings
    SPIN_FAILURES_MAX = 8
    CROWD_TRIES_MAX = 16
    TEXT_BYTES_MAX = 2048        # of an ARN, of a trace header, in a record
    MAP_BATCH = 32
    WAKE_WORTH_NS = 20000        # of calls in hand; below that another worker is not woken
    DRIVEN_TASK_NS = 2000        # what the driver itself spends on a task, about: of shorter ones one worker does all
    STACKED_BYTES_MAX = 4096     # of the event of an invocation that lies behind others
    REBALANCE_NS = 1000000

cdef double ASIDE_SECONDS = 0.001   # an event loop reads the epoll descriptor again so long after another thread was found driving

cdef uint64_t NEVER = <uint64_t>-1
cdef uint64_t COUNT_MAX = <uint64_t>1 << 53   # as wire.frames.Count

# What an epoll event is about: the low values are the dispatcher's own, others are environment ids above this.
cdef enum:
    EVENT_WAKE = 0
    EVENT_TIMER = 1
    EVENT_READER = 2             # + index of a registered reader
    EVENT_ENVIRONMENT = 0x10000  # + environment id
cdef uint64_t EVENT_BELL = <uint64_t>1 << 40   # + environment id

cdef object encode_header = msgspec.msgpack.Encoder().encode
cdef object decode_header = msgspec.msgpack.Decoder(FromEnvironment).decode
cdef object allocate_lock = threading.Lock
cdef uint32_t header_bytes_max = limits.FRAME_HEADER_BYTES_MAX
cdef bytes EMPTY = b""
cdef int64_t CHUNK_BYTES_MAX = limits.CHUNK_BYTES_MAX
cdef int64_t STREAM_BYTES_MAX = limits.STREAM_BYTES_MAX
cdef int64_t STREAM_PENDING_BYTES_MAX = limits.STREAM_PENDING_BYTES_MAX
cdef int64_t LOG_BYTES_MAX = limits.LOG_BYTES_PER_INVOCATION_MAX
assert SLOT_MIRROR_BYTES == limits.SLOT_MIRROR_BYTES, "core and limits disagree on SLOT_MIRROR_BYTES"


cdef inline int let_others_run() except -1:
    """Gives way to other threads. os.sched_yield keeps the interpreter up to Python 3.11, and a loop of compiled code keeps it for good."""
    with nogil:
        sched_yield()
    return 0


include "pools.pxi"
include "invocation.pxi"
include "tasks.pxi"
include "metering.pxi"
include "environment.pxi"
include "driver.pxi"
include "connections.pxi"
include "express.pxi"
include "lanes.pxi"
include "idle.pxi"
include "stacking.pxi"
include "placement.pxi"
include "helping.pxi"
include "provisioned.pxi"
include "ends.pxi"
include "loops.pxi"
include "outside.pxi"
include "sampling.pxi"
include "arrivals.pxi"
include "simulation.pxi"
