# What a worker asks of its own process: its memory, its environment, its title.

cdef enum:
    VARIABLE_BYTES_MAX = 1024

cdef dict environment_bytes = os.environ._data
cdef char[VARIABLE_BYTES_MAX] trace_variable
cdef bytes TRACE_NAME = b"_X_AMZN_TRACE_ID"


def peak_memory_kib():
    """Peak resident set of this process in KiB, as the kernel counts it."""
    return memory_peak_kib()


def now_ns():
    """CLOCK_MONOTONIC in nanoseconds, the clock that all processes of this machine share."""
    return monotonic_ns()


def line_buffer_c_stdio():
    """Makes C's stdout write line by line, so that what extension modules print is captured with its invocation."""
    setvbuf(stdout, NULL, _IOLBF, 4096)


def set_trace_variable(str value):
    """_X_AMZN_TRACE_ID for this process and its children; None takes it away.

    os.environ would do, but C's setenv never frees what it is given: a new value for each invocation is a leak. Here the variable
    stands in one buffer for good.
    """
    cdef bytes encoded
    if value is None:
        environment_bytes.pop(TRACE_NAME, None)
        unsetenv(TRACE_NAME)
        return
    encoded = value.encode("utf-8", "surrogateescape")[:VARIABLE_BYTES_MAX - 18]
    set_trace(PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))


cdef int set_trace(const char *text, Py_ssize_t size) except -1:
    """At most VARIABLE_BYTES_MAX - 18 bytes."""
    if TRACE_NAME not in environment_bytes:
        memcpy(trace_variable, b"_X_AMZN_TRACE_ID=", 17)
        trace_variable[17] = 0
        putenv(trace_variable)
    memcpy(trace_variable + 17, text, size)
    trace_variable[17 + size] = 0
    environment_bytes[TRACE_NAME] = PyBytes_FromStringAndSize(text, size)
    return 0


cdef class StateTitle:
    """The state word at the end of a process title, rewritten in place: ps shows it, and an invocation pays nothing.

    `title` is what setproctitle has just shown; it ends in "[idle]". Where that text is not found in the process's argument area,
    `show` does nothing.
    """

    cdef char *word

    def __cinit__(self, bytes title not None):
        cdef size_t start = 0, end = 0
        cdef size_t size = PyBytes_GET_SIZE(title)
        cdef const char *shown
        self.word = NULL
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rsplit(b")", 1)[1].split()
        start, end = int(fields[45]), int(fields[46])
        if not title.endswith(b"[idle]") or start == 0 or end - start <= size:
            return
        shown = <const char *>start
        if memcmp(shown, PyBytes_AS_STRING(title), size) == 0:
            self.word = <char *>start + size - 5

    cpdef busy(self):
        if self.word != NULL:
            memcpy(self.word, b"busy", 4)

    cpdef idle(self):
        if self.word != NULL:
            memcpy(self.word, b"idle", 4)


def settle_child():
    """What a freshly forked worker asks of the kernel: to die with its zygote, and to be no subreaper."""
    prctl(PR_SET_PDEATHSIG, 9)
    prctl(PR_SET_CHILD_SUBREAPER, 0)


def populate_for_writing(bytes runs not None):
    """Has the kernel make this process's own copies of pages that it shares with its parent, as its first writes to them would, one after
    the other. `runs` are pairs of address and size in bytes, 64 bits each. What cannot be had is left as it is.
    """
    cdef const uint64_t *numbers = <const uint64_t *>PyBytes_AS_STRING(runs)
    cdef Py_ssize_t index = 0
    while index + 1 < PyBytes_GET_SIZE(runs) // 8:
        madvise(<void *><size_t>numbers[index], <size_t>numbers[index + 1], POPULATE_WRITE)
        index += 2


def be_first_process(int worker, int report_fd):
    """The rest of a process that is the first of its pid namespace, and the parent of the worker: csrc/fl_first.h. Never returns."""
    fl_first_run(worker, report_fd)


cdef int _prepare(void *function) noexcept:
    """All that it does is over when it returns: the interpreter is the caller's too."""
    try:
        (<object>function)()
    except BaseException:
        return 1
    return 0


def fork_between(object prepare not None):
    """Forks a grandchild, in which this returns 0. The child between, which becomes what `prepare()` makes of it before it forks, has this
    process's memory itself; it ends at once, and its pid is returned, to be reaped. It has no time to fork where `prepare` raises."""
    cdef int pid = fl_between_fork(_prepare, <void *>prepare, PyOS_BeforeFork, PyOS_AfterFork_Parent, PyOS_AfterFork_Child)
    if pid < 0:
        raise OSError(-pid, f"vfork: {os.strerror(-pid)}")
    return pid


def hold_namespaces():
    """The rest of a process that is the first of a pid namespace which others enter: csrc/fl_first.h. Never returns."""
    fl_first_hold()


def replace_environment(dict variables):
    """Makes `variables` (str to str) the whole environment, of C and of os.environ, in one block of memory.

    The block belongs to the process from now on; setenv and putenv go on working on it. Two hundred calls of setenv and unsetenv
    would touch as many pages that are shared with the zygote.
    """
    cdef size_t size = (len(variables) + 1) * sizeof(char *)
    cdef size_t table_bytes = size
    cdef char **table
    cdef char *text
    cdef bytes entry
    cdef Py_ssize_t index = 0
    cdef list entries = []
    environment_bytes.clear()
    for name, value in variables.items():
        raw_name, raw_value = os.fsencode(name), os.fsencode(value)
        environment_bytes[raw_name] = raw_value
        entry = raw_name + b"=" + raw_value
        entries.append(entry)
        size += PyBytes_GET_SIZE(entry) + 1
    table = <char **>malloc(size)
    if table == NULL:
        raise MemoryError()
    text = <char *>table + table_bytes
    for entry in entries:
        memcpy(text, PyBytes_AS_STRING(entry), PyBytes_GET_SIZE(entry) + 1)
        table[index] = text
        text += PyBytes_GET_SIZE(entry) + 1
        index += 1
    table[index] = NULL
    global environ
    environ = table
