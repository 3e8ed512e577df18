# Event loops of an embedding program: what brings answers to their futures, and has their threads drive.

cdef class Standby(Ends):
    """Loops with calls under way stand by: nobody drives for good, and whoever gives the driver's place back leaves things so that one of
    them comes when there is something to do. One that reads the epoll descriptor hears of it there; another one has to be rung for."""

    cdef int _leave_to_loops(self) except -1:
        cdef LoopDoor door, reader = None, idle = None
        for item in self.loops:
            door = <LoopDoor>item
            if door.look_due or door.signalled:
                return 0   # it comes anyway
            if door.reading:
                reader = door
            elif not door.resume_due:
                idle = door
        if reader is not None:
            return 0 if self._rest() else reader._ring()
        if idle is not None:
            return idle._ring()
        return 0   # all of them look again within a moment

    cdef bint _rest(self) except -1:
        """Has everything that comes from now on make the epoll descriptor readable. False: there is something to do already."""
        cdef uint64_t next_ns
        if (self.hot and not self._cool()) or self.rechecks or self.unsent or self.orders:
            return False
        next_ns = self._next_ns()
        if next_ns <= self._now():
            return False
        self._arm_timer_at(next_ns)
        return fl_ring_announce_sleep(self.ring) != 0

    cdef bint _pass_for_loop(self) except -1:
        """One pass without sleeping. True: another one is due; False: the epoll descriptor tells of what comes."""
        self._pass(0)
        if self.busy:
            return True
        if self.outstanding < self.cpus and self._spin(monotonic_ns() + self.spin_ns):
            return True
        return not self._rest()

    cdef bint _loops_fail(self) except -1:
        """Whether there is something to do that no loop has come for: its thread is busy with something else, or its loop does not run."""
        cdef pollfd readable
        if self.hot or self.rechecks or self.unsent or self.orders or fl_ring_size(self.ring):
            return True
        readable.fd = self.epoll_fd
        readable.events = POLLIN
        return poll(&readable, 1, 0) > 0


cdef class LoopDoor:
    """Where the calls of one event loop come in and go out. embed/loops.py makes them, one for a loop.

    Whoever drives puts what is done into `done` and rings one descriptor, once for all that comes until the loop has heard it; the loop's
    own thread then sets the futures. While calls are under way the loop also reads the dispatcher's epoll descriptor, and drives when
    nobody else does, in passes that do not sleep. When somebody else does it leaves off reading, or each event would wake both: it reads
    again a moment later, or, when that was too soon, it is rung for by the driver that leaves.

    All of it belongs to the loop's thread, except for `finished` and `_ring`, which are the driver's, and `close`. The loop holds the door,
    the door does not hold the loop.
    """

    cdef readonly Dispatcher dispatcher
    cdef object loop                      # weak
    cdef readonly int bell_fd             # eventfd; -1: closed
    cdef int epoll_fd                     # a duplicate of the dispatcher's, so that its number is ours as long as the loop knows it
    cdef object done                      # deque of calls
    cdef readonly int outstanding         # submitted by this loop, and not told
    cdef readonly uint64_t rings          # of the bell
    cdef bint signalled                   # the bell has been rung and not been heard
    cdef bint reading                     # the loop reads epoll_fd
    cdef bint look_due                    # the loop has been told to call `look`
    cdef bint resume_due                  # likewise `resume`, a moment later
    cdef bint in_pass
    cdef object __weakref__

    def __cinit__(self, Dispatcher dispatcher not None, object loop):
        self.bell_fd = self.epoll_fd = -1
        self.dispatcher = dispatcher
        self.loop = loop
        self.done = deque()
        self.bell_fd = fl_wake_create()
        if self.bell_fd < 0:
            raise OSError(-self.bell_fd, "an event loop's descriptor cannot be made; raise the open-files limit (ulimit -n)")
        self.epoll_fd = os.dup(dispatcher.epoll_fd)

    def __dealloc__(self):
        self._close_descriptors()

    cdef int _close_descriptors(self) noexcept:
        if self.bell_fd >= 0:
            close(self.bell_fd)
            self.bell_fd = -1
        if self.epoll_fd >= 0:
            close(self.epoll_fd)
            self.epoll_fd = -1
        return 0

    @property
    def closed(self):
        return self.bell_fd < 0

    def close(self):
        """The loop is closed, or needs the door no more; any thread, if the loop does not run. Answers that still come are dropped."""
        if self.bell_fd < 0:
            return
        loop = self.loop()
        if loop is not None and not loop.is_closed():
            if self.reading:
                loop.remove_reader(self.epoll_fd)
            loop.remove_reader(self.bell_fd)
        self.reading = False
        self._close_descriptors()
        self.outstanding = 0
        self.done.clear()
        self._leave()

    def disown(self):
        """In a child after fork: the descriptors are the parent's."""
        self._close_descriptors()

    # -- calls go out: the loop's thread ---------------------------------------------------------

    def invoke(self, Invocation invocation not None, object future not None):
        """Submits it; `future` has None as its result when it is done."""
        invocation.tag = future
        invocation.on_done = self.finished
        try:
            self._submit(invocation)
        except BaseException:
            self._give_up(invocation)
            raise

    def submit(self, TaskDoor door not None, object future not None, object function, object args, dict keywords):
        """As `door.submit`; the value or the exception is then that of `future`. The task."""
        cdef AwaitedCall call = <AwaitedCall>door._call(AwaitedCall, function, args, keywords)
        call.loop_door = self
        call.future = future
        if call.over is not None:
            self.outstanding += 1
            self._settle(call)
            return call
        try:
            self._submit(call)
        except BaseException:
            self._give_up(call)
            raise
        return call

    cdef int _submit(self, Call call) except -1:
        cdef Driver dispatcher = self.dispatcher
        if self.outstanding == 0 and not dispatcher.closed:
            dispatcher.loops.append(self)
        self.outstanding += 1
        self._look_soon()
        dispatcher.by_loop = True
        try:
            dispatcher.submit(call)
        finally:
            dispatcher.by_loop = False
        return 0

    cdef int _give_up(self, Call call) except -1:
        if self._future_of(call) is not None:
            self.outstanding -= 1
            if self.outstanding == 0:
                self._leave()
        return 0

    # -- and are done: the driver ----------------------------------------------------------------

    def finished(self, Call call not None):
        """May be called again after an interrupt."""
        if self.bell_fd < 0:
            return
        self.done.append(call)
        if not self.in_pass and not self.look_due:
            self._ring()

    cdef int _ring(self) except -1:
        if not self.signalled and self.bell_fd >= 0:
            self.signalled = True
            self.rings += 1
            self.dispatcher.loop_wakes += 1
            fl_wake_signal(self.bell_fd)
        return 0

    # -- the loop's thread -----------------------------------------------------------------------

    def heard(self, object tie=None):
        """The bell's descriptor is readable. `tie` is what the loop, and nobody else, holds."""
        if self.bell_fd < 0:
            return
        fl_wake_clear(self.bell_fd)
        self.signalled = False
        self._drive()

    def readable(self):
        """The epoll descriptor is."""
        if self.outstanding == 0:
            self._stop_reading()
        else:
            self._drive()

    def look(self):
        """What the loop's `call_soon` is given."""
        self.look_due = False
        self._drive()

    def resume(self):
        """What the loop's `call_later` is given when another thread drove."""
        self.resume_due = False
        if self.dispatcher.owner == 0:
            self._drive()

    cdef int _drive(self) except -1:
        """One pass, if nobody else drives; the futures of what is done."""
        cdef Dispatcher dispatcher = self.dispatcher
        cdef bint again = True
        if self.bell_fd < 0:
            return 0
        if dispatcher.closed:
            self._settle_all()
            if self.outstanding == 0:
                self.close()
            return 0
        if dispatcher.owner != 0 or self.outstanding == len(self.done):
            self._settle_all()
            if self.outstanding:
                if dispatcher.owner != 0:
                    self._stand_aside()
                else:
                    self._look_soon()
            return 0
        dispatcher.owner = pthread_self()
        self.in_pass = True
        try:
            again = dispatcher._pass_for_loop()
        finally:
            self.in_pass = False
            try:
                self._settle_all()
            finally:
                if self.outstanding:
                    if again:
                        self._look_soon()
                    else:
                        self._start_reading()
                dispatcher._release()
        return 0

    cdef int _look_soon(self) except -1:
        if not self.look_due:
            self.look_due = True
            self.loop().call_soon(self.look)
        return 0

    cdef int _start_reading(self) except -1:
        if not self.reading:
            self.reading = True
            self.loop().add_reader(self.epoll_fd, self.readable)
        return 0

    cdef int _stop_reading(self) except -1:
        if self.reading:
            self.reading = False
            self.loop().remove_reader(self.epoll_fd)
        return 0

    cdef int _stand_aside(self) except -1:
        """Another thread drives."""
        cdef Driver dispatcher = self.dispatcher
        cdef bint was_reading = self.reading
        self._stop_reading()
        if dispatcher.background_drives:
            dispatcher.yield_wanted = True   # it does so for want of others
            fl_wake_signal(dispatcher.wake_fd)
        elif was_reading and not self.resume_due:
            self.resume_due = True
            self.loop().call_later(ASIDE_SECONDS, self.resume)
        return 0

    cdef object _future_of(self, Call call):
        """The future of a call that has not been told yet, or None."""
        if call.is_task:
            future = (<AwaitedCall>call).future
            (<AwaitedCall>call).future = None
        else:
            future = (<Invocation>call).tag
            (<Invocation>call).tag = None
        return future

    cdef int _settle_all(self) except -1:
        while self.done:
            self._settle(<Call>self.done.popleft())
        return 0

    cdef int _settle(self, Call call) except -1:
        cdef AwaitedCall task
        future = self._future_of(call)
        if future is None:
            return 0
        self.outstanding -= 1
        if self.outstanding == 0:
            self._leave()
        if future.done():
            return 0   # nobody waits any more
        if not call.is_task:
            future.set_result(None)
            return 0
        task = <AwaitedCall>call
        if task.over is FUTURE_CANCELLED:
            future.cancel()
        elif task.failure is None:
            future.set_result(task.value)
        elif isinstance(task.failure, StopIteration):
            failure = RuntimeError("the task raised StopIteration, which a coroutine cannot")
            failure.__cause__ = task.failure
            future.set_exception(failure)
        else:
            future.set_exception(task.failure)
        return 0

    cdef int _leave(self) except -1:
        """No call is under way any more. Others that stand by, or the background thread, do what there is for others."""
        cdef Driver dispatcher = self.dispatcher
        try:
            dispatcher.loops.remove(self)
        except ValueError:
            return 0
        if dispatcher.owner == 0 and not dispatcher.closed and dispatcher.outstanding:
            if dispatcher.loops:
                dispatcher._leave_to_loops()
            elif dispatcher.background_sleeps:
                dispatcher._rouse_background()
        return 0


cdef class AwaitedCall(TaskCall):
    """A task whose value goes to the future of an event loop."""

    cdef LoopDoor loop_door
    cdef object future                    # None: it has been told
    cdef object value
    cdef object failure

    cdef int _set(self, object value, object failure) except -1:
        self.value = value
        self.failure = failure
        return 0

    cdef int _tell(self, str over) except -1:
        self.over = over
        self.loop_door.finished(self)
        return 0
