# The executor's tasks: calls whose arguments and results are Python values, and the door they come in by.

# The head of a payload (wire/tasks.py): bytes of the function's pickle, with bit 31 set where the rest is plain; number of buffers.
cdef uint32_t PLAIN = <uint32_t>1 << 31

# concurrent.futures' own words for a future's state.
cdef str FUTURE_PENDING = "PENDING"
cdef str FUTURE_RUNNING = "RUNNING"
cdef str FUTURE_FINISHED = "FINISHED"
cdef str FUTURE_CANCELLED = "CANCELLED_AND_NOTIFIED"


@cython.no_gc
cdef class TaskCall(Call):
    """One task of an executor. Its value is made in the driver, before it counts as done."""

    cdef TaskDoor door
    cdef bytes function                   # of a plain call: head and pickle of the function, before the arguments in `payload`
    cdef str over                         # FUTURE_FINISHED, FUTURE_CANCELLED; None: not yet
    cdef bint decoded                     # the value, or the failure, is there already

    cdef int _set(self, object value, object failure) except -1:
        """Takes the outcome, before it is told."""
        raise NotImplementedError

    cdef int _tell(self, str over) except -1:
        """The task is over: whoever waits for it hears so. May be called again after an interrupt."""
        raise NotImplementedError

    cdef int _settle(self) except -1:
        """The outcome, as the dispatcher knows it, becomes a value or an exception; may be called again after an interrupt."""
        if not self.decoded:
            value = failure = None
            if self.outcome == C_OK:
                try:
                    value = self.door.unpack(self.answer)
                except (Exception, SystemExit) as error:
                    failure = error
            elif self.outcome != C_CANCELLED:
                failure = self.door._outcome(self, self.answer)
            self._set(value, failure)
            self.decoded = True
            self.answer = EMPTY
        return self._tell(FUTURE_CANCELLED if self.outcome == C_CANCELLED else FUTURE_FINISHED)

    def cancel(self):
        """Takes the task back if no worker has begun it."""
        if self.over is None:
            return bool(self.door.dispatcher.cancel(self)) or self.over is FUTURE_CANCELLED
        return self.over is FUTURE_CANCELLED


@cython.no_gc
cdef class MappedCall(TaskCall):
    """A task that nobody holds but the dispatcher and MapResults. There are many thousands at a time: the garbage collector, which would
    look at them all again and again, does without. MapResults lets go of those that have failed."""

    cdef object value
    cdef object failure

    cdef int _set(self, object value, object failure) except -1:
        self.value = value
        self.failure = failure
        return 0

    cdef int _tell(self, str over) except -1:
        self.over = over
        return 0

    def result(self, timeout=None):
        """The value, or the task's exception; TimeoutError after so many seconds."""
        while self.over is None:
            if not self.door.dispatcher.wait(self, timeout):
                raise TimeoutError()
            if self.over is None:
                let_others_run()   # another thread is just making the value
        if self.over is FUTURE_CANCELLED:
            raise CancelledError()
        if self.failure is not None:
            raise self.failure
        return self.value


cdef class FutureCall(TaskCall):
    """What `embed.future.TaskFuture` makes a concurrent.futures.Future of.

    A condition variable, which would cost more than the task's journey, comes into being when somebody looks who does not wait by `result`:
    `watch` and `unwatched` decide, in one step, who came first. A condition is there when somebody has looked before the task was over, and
    the outcome is then stored under it; otherwise the task was over before anybody looked, and the outcome needs no lock.
    """

    cdef object value
    cdef object failure                   # the exception, or None
    cdef object condition
    cdef list waiters
    cdef list callbacks

    cdef int _set(self, object value, object failure) except -1:
        self.value = value
        self.failure = failure
        return 0

    cdef int _tell(self, str over) except -1:
        if self.over is None:
            condition = self.unwatched()
            if condition is None:
                self.over = over
            else:
                with condition:
                    self.over = over
                    for waiter in self.waiters or ():
                        if over is FUTURE_CANCELLED:
                            waiter.add_cancelled(self)
                        elif self.failure is None:
                            waiter.add_result(self)
                        else:
                            waiter.add_exception(self)
                    condition.notify_all()
        while self.callbacks:
            callback = self.callbacks.pop(0)   # each once, even if an interrupt comes between them
            try:
                callback(self)
            except Exception:
                self.door._callback_failed(self)
        return 0

    cdef int _wait_until_over(self, object timeout) except -1:
        if self.over is None and not self.door.dispatcher.wait(self, timeout):
            raise TimeoutError()
        if self.over is None:
            # Another thread is just about to store the outcome.
            condition = self._condition
            with condition:
                if not condition.wait_for(lambda: self.over is not None, timeout):
                    raise TimeoutError()
        return 0

    def result(self, timeout=None):
        """As concurrent.futures.Future.result."""
        if self.over is None:
            self._wait_until_over(timeout)
        if self.over is FUTURE_CANCELLED:
            raise CancelledError()
        if self.failure is not None:
            raise self.failure
        return self.value

    def exception(self, timeout=None):
        """As concurrent.futures.Future.exception."""
        if self.over is None:
            self._wait_until_over(timeout)
        if self.over is FUTURE_CANCELLED:
            raise CancelledError()
        return self.failure

    def running(self):
        """True while a worker holds the task."""
        return self.state == STATE_RUNNING and self.over is None

    def done(self):
        return self.over is not None

    def cancelled(self):
        return self.over is FUTURE_CANCELLED

    # -- what concurrent.futures' own functions, and asyncio's, look at ---------------------------

    @property
    def _state(self):
        if self.over is not None:
            return self.over
        return FUTURE_RUNNING if self.state == STATE_RUNNING else FUTURE_PENDING

    @property
    def _result(self):
        return self.value

    @property
    def _exception(self):
        return self.failure

    @property
    def _waiters(self):
        if self.waiters is None:
            self.waiters = []
        return self.waiters

    @property
    def _done_callbacks(self):
        if self.callbacks is None:
            self.callbacks = []
        return self.callbacks

    @property
    def _condition(self):
        """What is locked while the state is looked at, or a waiter or a callback added."""
        if self.condition is not None:
            return self.condition
        fresh = threading.Condition()
        condition = self.watch(fresh)
        if condition is None:
            while self.over is None:
                let_others_run()   # the driver is between two lines of `_settle`
            condition = fresh
        if self.condition is None:
            self.condition = condition
        return self.condition


cdef class MapResults:
    """The values of tasks in their order, each as soon as it is there: the iterator that map gives. `close`, or losing it, takes back what
    no worker has begun; but as with a generator, only once a value has been asked for. `end_seconds` is on time.monotonic, or None."""

    cdef list calls
    cdef Py_ssize_t position
    cdef object end_seconds
    cdef bint begun

    def __cinit__(self, list calls not None, end_seconds):
        self.calls = calls
        self.end_seconds = end_seconds

    def __iter__(self):
        return self

    def __next__(self):
        cdef MappedCall call
        self.begun = True
        if self.position >= len(self.calls):
            self.calls = []
            self.position = 0
            raise StopIteration
        call = <MappedCall>self.calls[self.position]
        if call.over is FUTURE_FINISHED and call.failure is None:
            self.calls[self.position] = None
            self.position += 1
            return call.value
        try:
            value = call.result(None if self.end_seconds is None else self.end_seconds - monotonic())
        except BaseException:
            self.close()
            raise
        self.calls[self.position] = None
        self.position += 1
        return value

    def close(self):
        cdef list calls = self.calls
        cdef Py_ssize_t position = self.position
        self.calls = []
        self.position = 0
        while self.begun and position < len(calls):
            try:
                (<TaskCall>calls[position]).cancel()
            except RuntimeError:
                pass   # the dispatcher is closed
            position += 1

    def __del__(self):
        if self.position < len(self.calls):
            self.close()


cdef class TaskDoor:
    """What an executor is beneath: from a call to a task. The executor is a subclass, which words refusals and failures:
    `_check_usable()`, `_outcome(call)`, and `_callback_failed(call)`."""

    cdef readonly Dispatcher dispatcher
    cdef readonly Target target
    cdef public bint refuses              # nothing is taken any more: `_check_usable` says why
    cdef object future_type
    cdef object pickle                    # pickle(function) -> bytes; pickle.remembers(function): it may be kept with its pickle
    cdef object pack                      # pack(args, keywords, function pickle) -> bytes or a list of buffers
    cdef object unpack                    # unpack(payload) -> value
    cdef object last_function             # the function submitted last, with what stands before its arguments
    cdef bytes last_head

    def open_door(self, Dispatcher dispatcher not None, Target target not None, object future_type not None, object pickle,
                  object pack, object unpack):
        """Once, before anything is submitted. `future_type` is a subclass of FutureCall."""
        self.dispatcher = dispatcher
        self.target = target
        self.future_type = future_type
        self.pickle = pickle
        self.pack = pack
        self.unpack = unpack

    cdef TaskCall _call(self, object type, object function, object args, dict keywords):
        """A task for this call. One that cannot be pickled is over already."""
        cdef uint8_t[PLAIN_BYTES_MAX] plain
        cdef uint32_t[2] head
        cdef Py_ssize_t size = PLAIN_UNKNOWN
        cdef bytes whole
        cdef TaskCall call = <TaskCall>(<PyTypeObject *>type).tp_new(type, <PyObject *>NO_ARGUMENTS, NULL)
        call.target = self.target
        call.door = self
        call.outcome = C_PENDING
        call.environment_id = -1
        call.is_task = True
        try:
            if function is self.last_function and self.last_head is not None:
                whole = self.last_head
            else:
                pickled = self.pickle(function)
                head[0] = <uint32_t>len(pickled) | PLAIN
                head[1] = 0
                whole = PyBytes_FromStringAndSize(<char *>head, sizeof(head)) + pickled
                if self.pickle.remembers(function):
                    self.last_head = whole
                    self.last_function = function
            if not keywords:
                size = write_plain_tuple(args, plain, PLAIN_BYTES_MAX)
            if size >= 0:
                call.function = whole
                call.payload = PyBytes_FromStringAndSize(<char *>plain, size)
            else:
                call.payload = self.pack(args, keywords or {}, whole[sizeof(head):])
        except Exception as error:
            call.watcher = Ellipsis
            self._over_already(call, error)
        return call

    cdef int _over_already(self, TaskCall call, object failure) except -1:
        call.state = STATE_DONE
        call.outcome = C_FAILED
        call.decoded = True
        call.over = FUTURE_FINISHED
        return call._set(None, failure)

    def submit(self, fn, /, *args, **kwargs):
        """As concurrent.futures.Executor.submit."""
        cdef TaskCall call
        if self.refuses or self.dispatcher.closed:
            self._check_usable()
        call = self._call(self.future_type, fn, args, kwargs)
        if call.over is None:
            self.dispatcher.submit(call)
        return call

    def map_tasks(self, function, arguments, batch):
        """Submits function(*each) for each of the iterator `arguments`, up to `batch` of them, or all (None); a list of the tasks. What
        cannot be pickled is over already."""
        cdef list calls = []
        cdef list fresh = []
        cdef Py_ssize_t left = -1 if batch is None else batch
        for each in arguments:
            fresh.append(self._call(MappedCall, function, each, None))
            left -= 1
            if left == 0:
                break
            if len(fresh) == MAP_BATCH:
                self.dispatcher.submit_all(fresh)
                calls += fresh
                fresh = []
        if fresh:
            self.dispatcher.submit_all(fresh)
            calls += fresh
        return calls

    def packed_task(self, object payload not None):
        """A task that is nobody's future, not submitted yet, for a payload that is packed already."""
        cdef TaskCall call = MappedCall()
        call.target = self.target
        call.door = self
        call.payload = payload
        call.outcome = C_PENDING
        call.environment_id = -1
        call.is_task = True
        return call

    def failed_task(self, object failure not None):
        """One that is over: it could not be made."""
        cdef TaskCall call = MappedCall()
        self._over_already(call, failure)
        return call


cdef tuple NO_ARGUMENTS = ()


cdef object whole_payload(Call call):
    """The payload in the form of the wire."""
    if call.is_task and (<TaskCall>call).function is not None:
        return (<TaskCall>call).function + <bytes>call.payload
    return call.payload
