"""Invoke again: request and response for callers who send one head over and over, as load generators do.

`RepeatedInvoke` stands for one head that InvokeRoute has understood once, and in which nothing asks for more than the function's answer.
Only the body differs. Whatever is not as expected goes back to InvokeRoute, which knows the whole of it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.string cimport memcpy

from fastlam import limits
from fastlam.core.dispatcher import OUTCOME_OK, Invocation
from fastlam.core.scan import scan_json

cdef enum:
    ID_BYTES = 36
    MARK_BYTES = 8
    TRACE_BYTES = 95

cdef Py_ssize_t payload_bytes_max = limits.SYNC_PAYLOAD_BYTES_MAX
cdef object outcome_ok = OUTCOME_OK
cdef bytes EMPTY_EVENT = b"{}"


cdef const char *ascii_of(str text, Py_ssize_t bytes_expected) except NULL:
    cdef Py_ssize_t size
    cdef const char *data = PyUnicode_AsUTF8AndSize(text, &size)
    if size != bytes_expected:
        raise ValueError(f"{text!r} has not {bytes_expected} characters")
    return data


def trace_begun(str request_id not None, str mark not None):
    """The X-Ray header of an invocation that begins its own trace, not sampled, and its chain (dispatch/lineage.py): `mark` is the
    function's there. The request id is random: its digits make the trace's, so that no more randomness is needed."""
    cdef const char *given = ascii_of(request_id, ID_BYTES)
    cdef char[32] digits
    cdef char[TRACE_BYTES] out
    memcpy(digits, given, 8)
    memcpy(digits + 8, given + 9, 4)
    memcpy(digits + 12, given + 14, 4)
    memcpy(digits + 16, given + 19, 4)
    memcpy(digits + 20, given + 24, 12)
    memcpy(out, b"Root=1-", 7)
    memcpy(out + 7, digits, 8)
    out[15] = c"-"
    memcpy(out + 16, digits + 8, 24)
    memcpy(out + 40, b";Parent=", 8)
    memcpy(out + 48, digits + 20, 12)
    memcpy(out + 60, digits, 4)
    memcpy(out + 64, b";Sampled=0;Lineage=1:", 21)
    memcpy(out + 85, ascii_of(mark, MARK_BYTES), MARK_BYTES)
    memcpy(out + 93, b":0", 2)
    return PyUnicode_DecodeASCII(out, TRACE_BYTES, NULL)


cdef class RepeatedInvoke:
    """The handler of the requests with one head. `route` is InvokeRoute, `resolved` what the address stands for until `addresses` says
    that it may be another by now."""

    cdef object route, addresses, epoch, submit, resolved, target, on_done
    cdef str invoked_arn, mark
    cdef bytes before_id, before_trace

    def __init__(self, route not None, addresses not None, dispatcher not None, resolved not None):
        self.route = route
        self.addresses = addresses
        self.epoch = addresses.epoch
        self.submit = dispatcher.submit
        self.resolved = resolved
        self.target = resolved.target
        self.invoked_arn = resolved.invoked_arn
        self.mark = resolved.mark
        self.on_done = self.done
        self.before_id = b"Content-Type: application/json\r\nx-amzn-RequestId: "
        self.before_trace = (b"\r\nX-Amz-Executed-Version: %b\r\nx-amzn-Remapped-Content-Length: 0\r\nX-Amzn-Trace-Id: "
                             % resolved.executed_version.encode())

    def __call__(self, request):
        cdef bytes body
        cdef Py_ssize_t size
        if self.addresses.epoch is not self.epoch:
            request.reconsider()
            return
        body = request.body
        size = PyBytes_GET_SIZE(body)
        if size == 0:
            body = EMPTY_EVENT
        elif size > payload_bytes_max or scan_json(body) is not None:
            self.route(request)
            return
        invocation = Invocation(self.target, body)
        invocation.invoked_function_arn = self.invoked_arn
        invocation.trace_id = trace_begun(invocation.request_id, self.mark)
        invocation.tag = request
        invocation.on_done = self.on_done
        try:
            self.submit(invocation)
        except Exception as error:
            self.route.failed(request, error)

    def done(self, invocation):
        """The dispatcher's call when the invocation is over, in the loop's thread."""
        cdef bytes headers
        cdef char *out
        cdef Py_ssize_t begin, middle
        request = invocation.tag
        if invocation.outcome != outcome_ok or invocation.content_type:
            invocation.tag = (request, self.resolved, False)
            self.route.done(invocation)
            return
        if request.closed:
            return
        try:
            begin = PyBytes_GET_SIZE(self.before_id)
            middle = PyBytes_GET_SIZE(self.before_trace)
            headers = PyBytes_FromStringAndSize(NULL, begin + ID_BYTES + middle + TRACE_BYTES + 2)
            out = PyBytes_AS_STRING(headers)
            memcpy(out, PyBytes_AS_STRING(self.before_id), begin)
            out += begin
            memcpy(out, ascii_of(invocation.request_id, ID_BYTES), ID_BYTES)
            out += ID_BYTES
            memcpy(out, PyBytes_AS_STRING(self.before_trace), middle)
            out += middle
            memcpy(out, ascii_of(invocation.trace_id, TRACE_BYTES), TRACE_BYTES)
            out[TRACE_BYTES] = c"\r"
            out[TRACE_BYTES + 1] = c"\n"
            request.respond(200, headers, invocation.result)
        except Exception as error:    # a completion callback must not raise
            self.route.failed(request, error)
