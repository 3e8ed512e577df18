# One HTTP request and the way to answer it. Used in the loop's thread only.


cdef class Head:
    """What a request says before its body. Requests whose heads are the same bytes share one."""

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


cdef Request request_of(Origin origin, Head head, const uint8_t *body):
    """A request whose body lies there."""
    cdef Request request = Request.__new__(Request)
    request.head = head
    request.origin = origin
    request.keep_alive = True
    request.extra_headers = EMPTY
    request.body = EMPTY if head.body_bytes == 0 else PyBytes_FromStringAndSize(<const char *>body, head.body_bytes)
    return request


cdef int give(Request request, object handler, object server) except -1:
    """To its handler. Whoever has read it outlives what the handler does."""
    try:
        handler(request)
    except Exception as error:
        server.handler_failed(error)
        if request.rendered is None:
            request.respond(500, JSON_HEADERS, message_body("Internal server error."))
    return 0


cdef object rendered_answer(Request request, object heads, object by_status, int status, bytes headers, bytes body, bint in_parts):
    """The whole answer, or head and body if that may be and the body is long; `by_status` are those of the heads that fit."""
    cdef bytes head = by_status.get(status) or heads.head(status, request.keep_alive)
    cdef bytes length = length_line(PyBytes_GET_SIZE(body))
    if request.head.is_head:
        body = EMPTY
    if status != 200 and bodiless(status):
        length = body = EMPTY
    if in_parts and PyBytes_GET_SIZE(body) > COALESCE_BYTES_MAX:
        return EMPTY.join((head, length, headers, request.extra_headers, b"\r\n")), body
    return EMPTY.join((head, length, headers, request.extra_headers, b"\r\n", body))


cdef class Origin:

    cdef bytes answer(self, Request request, int status, bytes headers, bytes body):
        raise NotImplementedError

    cdef object connection_of(self, Request request):
        raise NotImplementedError

    cdef bint has_lost(self, Request request):
        raise NotImplementedError

    cdef int give_anew(self, Request request) except -1:
        raise NotImplementedError


@cython.freelist(64)
cdef class Request:
    """What a handler gets. `respond` may be called inside the handler or at any time after it."""

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
        return self.connection.closed if self.origin is None else self.origin.has_lost(self)

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
        self.origin.give_anew(self)

    cpdef respond(self, int status, bytes headers, bytes body):
        """Answers, exactly once, now or later.

        `headers` is a block of `Name: value\\r\\n` lines, possibly empty. Date, Connection and Content-Length are
        added here; the body of an answer to HEAD, and of a 204 or 304, is left out.
        """
        cdef object heads, by_status
        if headers is None or body is None:
            raise TypeError("headers and body of an answer are bytes")
        if self.rendered is not None:
            raise RuntimeError("the request has been answered already")
        if self.origin is not None:
            self.rendered = self.origin.answer(self, status, headers, body)
            return
        connection = self.connection
        if connection.ending and self.keep_alive:
            self.keep_alive = not connection.is_last(self)
        heads = connection.heads
        by_status = heads.keep_alive if self.keep_alive else heads.close
        self.rendered = rendered_answer(self, heads, by_status, status, headers, body, True)
        connection.flush(self)

    def begin(self, int status, bytes headers not None):
        """As `respond`, for a body that comes in pieces: chunked, or up to the end of the connection for a client that
        speaks HTTP/1.0.
        """
        if self.rendered is not None:
            raise RuntimeError("the request has been answered already")
        if self.origin is not None:
            self.connection = self.origin.connection_of(self)
            self.origin = None
        connection = self.connection
        if self.http_1_0 or (connection.ending and connection.is_last(self)):
            self.keep_alive = False
        head = connection.heads.head(status, self.keep_alive).removesuffix(LENGTH_NAME)
        encoding = b"" if self.http_1_0 else b"Transfer-Encoding: chunked\r\n"
        block = b"".join((head, encoding, headers, self.extra_headers, b"\r\n"))
        answer = self.rendered = ResponseBody(connection, self, block, not self.http_1_0)
        connection.flush(self)
        return answer
