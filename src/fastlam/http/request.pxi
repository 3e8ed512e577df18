# One HTTP request and the way to answer it. Used in the loop's thread only.


cdef class Head:
    """What a request says before its body. Requests whose heads are the same bytes share one."""

    cdef bytes raw                # as it was sent, of the front's requests
    cdef size_t raw_bytes, headers_start, body_bytes
    cdef bint is_head             # of the method HEAD
    cdef bint repeated            # has come more than once
    cdef bytes method, target, path, query
    cdef list headers             # None until somebody wants them
    cdef object handler           # instead of the server's: what `Request.remember` was given

    cdef list all_headers(self):
        cdef const uint8_t *data
        cdef fl_http_field field
        cdef size_t at = self.headers_start
        cdef bytes name
        if self.headers is None:
            data = <const uint8_t *>PyBytes_AS_STRING(self.raw)
            self.headers = []
            while fl_http_next(data, &at, &field):
                name = PyBytes_FromStringAndSize(NULL, field.name_end - field.name_start)
                fl_http_lower(<uint8_t *>PyBytes_AS_STRING(name), data + field.name_start, field.name_end - field.name_start)
                self.headers.append((name, PyBytes_FromStringAndSize(<const char *>data + field.value_start,
                                                                     field.value_end - field.value_start)))
        return self.headers

    cdef int set_target(self, bytes target) except -1:
        cdef Py_ssize_t question
        self.target = target
        if not target.startswith(b"/"):
            target = origin_form(target)
        question = target.find(b"?")
        if question < 0:
            self.path = target
            self.query = b""
        else:
            self.path = target[:question]
            self.query = target[question + 1:]
        return 0


cdef bytes origin_form(bytes target):
    """`http://host/path?query` (what a proxy is sent) as `/path?query`; `*` stays what it is."""
    cdef bytes separator, rest
    _, separator, rest = target.partition(b"://")
    if not separator:
        return target
    slash = rest.find(b"/")
    question = rest.find(b"?")
    if slash < 0 or 0 <= question < slash:
        return b"/" + (rest[question:] if question >= 0 else b"")
    return rest[slash:]


cdef Head head_of(const uint8_t *data, const fl_http_head *parsed):
    cdef Head head = Head.__new__(Head)
    head.raw_bytes = parsed.head_bytes
    head.raw = PyBytes_FromStringAndSize(<const char *>data, parsed.head_bytes)
    head.headers_start = parsed.headers_start
    head.body_bytes = parsed.body_bytes
    head.method = PyBytes_FromStringAndSize(<const char *>data, parsed.method_bytes)
    head.is_head = head.method == b"HEAD"
    head.set_target(PyBytes_FromStringAndSize(<const char *>data + parsed.target_start,
                                              parsed.target_end - parsed.target_start))
    return head


@cython.freelist(64)
cdef class Request:
    """What a handler gets. `respond` may be called inside the handler or at any time after it."""

    cdef Head head
    cdef Peer peer                    # of the front; None: `connection` is
    cdef object connection
    cdef Request next                 # the one behind it, of the same peer
    cdef readonly bytes body
    cdef public bytes extra_headers   # a block of header lines that goes with whatever answer is given
    cdef public bint keep_alive
    cdef public bint http_1_0         # the client does not know chunks
    cdef public object rendered       # the answer: bytes; its head and a long body; or a ResponseBody

    def __init__(self, object connection, bytes method not None, bytes target not None, list headers not None,
                 bytes body not None, bint keep_alive):
        self.connection = connection
        self.head = Head.__new__(Head)
        self.head.method = method
        self.head.is_head = method == b"HEAD"
        self.head.headers = headers
        self.head.set_target(target)
        self.body = body
        self.keep_alive = keep_alive
        self.extra_headers = b""

    @property
    def method(self):
        return self.head.method

    @property
    def target(self):
        """As it was sent."""
        return self.head.target

    @property
    def path(self):
        """Still percent-encoded, as `query` is."""
        return self.head.path

    @property
    def query(self):
        return self.head.query

    @property
    def headers(self):
        """All of them, names lower-cased, in the order sent. Not to be changed: requests may share the list."""
        return self.head.all_headers()

    def header(self, bytes name not None):
        """The first value under this lower-case name."""
        for key, value in self.head.all_headers():
            if key == name:
                return value
        return None

    @property
    def closed(self):
        """Whether the connection is gone. A client that has only ended its sending side still hears the answer."""
        if self.peer is None:
            return self.connection.closed
        if self.peer.successor is not None:
            return self.peer.successor.closed
        return self.peer.gone

    @property
    def answered(self):
        return self.rendered is not None

    @property
    def repeated(self):
        """Whether the one before it on the same connection had the very same head: there may be many more."""
        return self.head.repeated

    def remember(self, object handler not None):
        """Later requests with the same head, to the byte, go to `handler` and past the server's own. For one who knows that whatever
        stands before him judges by the head alone."""
        if self.head.raw is not None:
            self.head.handler = handler

    def reconsider(self):
        """This request, and later ones with the same head, go to the server's handler again."""
        self.head.handler = None
        self.peer.front.handler(self)

    cpdef respond(self, int status, bytes headers, bytes body):
        """Answers, exactly once, now or later.

        `headers` is a block of `Name: value\\r\\n` lines, possibly empty. Date, Connection and Content-Length are
        added here; the body of an answer to HEAD, and of a 204 or 304, is left out.
        """
        cdef object heads
        cdef bytes head
        cdef bytes length
        cdef Py_ssize_t size = len(body)
        if self.rendered is not None:
            raise RuntimeError("the request has been answered already")
        if self.peer is not None:
            self.rendered = self.peer.front.answer(self, status, headers, body)
            return
        connection = self.connection
        if connection.ending and self.keep_alive:
            self.keep_alive = not connection.is_last(self)
        heads = connection.heads
        head = (heads.keep_alive if self.keep_alive else heads.close).get(status) or heads.head(status, self.keep_alive)
        length = length_line(size)
        if self.head.is_head:
            body = b""
        if status != 200 and bodiless(status):
            length = body = b""
        if size <= COALESCE_BYTES_MAX:
            self.rendered = b"".join((head, length, headers, self.extra_headers, b"\r\n", body))
        else:
            self.rendered = (b"".join((head, length, headers, self.extra_headers, b"\r\n")), body)
        connection.flush(self)

    def begin(self, int status, bytes headers not None):
        """As `respond`, for a body that comes in pieces: chunked, or up to the end of the connection for a client that
        speaks HTTP/1.0.
        """
        if self.rendered is not None:
            raise RuntimeError("the request has been answered already")
        if self.peer is not None:
            self.connection = self.peer.front.connection_of(self.peer)
            self.peer = None
        connection = self.connection
        if self.http_1_0 or (connection.ending and connection.is_last(self)):
            self.keep_alive = False
        head = connection.heads.head(status, self.keep_alive).removesuffix(LENGTH_NAME)
        encoding = b"" if self.http_1_0 else b"Transfer-Encoding: chunked\r\n"
        block = b"".join((head, encoding, headers, self.extra_headers, b"\r\n"))
        answer = self.rendered = ResponseBody(connection, self, block, not self.http_1_0)
        connection.flush(self)
        return answer
