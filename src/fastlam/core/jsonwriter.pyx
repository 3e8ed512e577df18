"""Writes ordinary results as JSON bytes, just as simplejson would write and UTF-8 encode them.

Only values of exactly the built-in types are written here: dict with str keys, list, tuple, str, int, float, bool, None, nested
no deeper than `DEPTH_MAX`. For anything else `write` returns None and the caller takes the general encoder, which starts again
from the beginning and has the say on errors too. No Python code runs while a value is written, so nothing can change meanwhile.
"""

from cpython.object cimport PyObject
from libc.math cimport isfinite, isnan
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

cdef extern from *:
    """
    #define FL_WRITER_SMALL_BYTES 1024
    #define FL_WRITER_ONES 0x0101010101010101ULL
    """
    enum:
        SMALL_BYTES "FL_WRITER_SMALL_BYTES"
    const uint64_t ONES "FL_WRITER_ONES"

cdef extern from "Python.h":
    # Declared here with plain pointers: all references are borrowed, and nothing is counted up and down on the way.
    PyObject *none "Py_None"
    PyObject *true "Py_True"
    PyObject *false "Py_False"
    bint PyUnicode_CheckExact(PyObject *value)
    bint PyLong_CheckExact(PyObject *value)
    bint PyFloat_CheckExact(PyObject *value)
    bint PyDict_CheckExact(PyObject *value)
    bint PyList_CheckExact(PyObject *value)
    bint PyTuple_CheckExact(PyObject *value)
    bint PyUnicode_IS_ASCII(PyObject *text)
    int PyUnicode_KIND(PyObject *text)
    void *PyUnicode_DATA(PyObject *text)
    uint32_t PyUnicode_READ(int kind, void *data, Py_ssize_t index)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject *text)
    const char *PyUnicode_AsUTF8AndSize(PyObject *text, Py_ssize_t *size)
    long long PyLong_AsLongLongAndOverflow(PyObject *value, int *overflow) except? -1
    double PyFloat_AS_DOUBLE(PyObject *value)
    char *PyOS_double_to_string(double value, char format_code, int precision, int flags, int *kind) except NULL
    int Py_DTSF_ADD_DOT_0
    bint PyDict_Next(PyObject *value, Py_ssize_t *position, PyObject **key, PyObject **item)
    Py_ssize_t PyList_GET_SIZE(PyObject *value)
    PyObject *PyList_GET_ITEM(PyObject *value, Py_ssize_t index)
    Py_ssize_t PyTuple_GET_SIZE(PyObject *value)
    PyObject *PyTuple_GET_ITEM(PyObject *value, Py_ssize_t index)
    PyObject *PyBytes_FromStringAndSize(const char *text, Py_ssize_t size) except NULL
    int _PyBytes_Resize(PyObject **text, Py_ssize_t size) except -1
    char *PyBytes_AS_STRING(PyObject *text)
    void PyErr_Clear()
    void PyMem_Free(void *memory)
    void Py_XDECREF(PyObject *value)

cdef enum:
    DEPTH_MAX = 100
    # What write_value tells.
    DONE = 0
    NOT_HERE = 1

cdef const char *HEX = b"0123456789abcdef"

# What stands for an ASCII character inside a string: 0 itself, 1 a \u escape, else the letter after the backslash.
cdef uint8_t[128] escapes


cdef void fill_escapes() noexcept:
    cdef int code
    for code in range(128):
        escapes[code] = 1 if code < 0x20 else 0
    escapes[0x22] = 0x22  # quotation mark
    escapes[0x5C] = 0x5C  # backslash
    escapes[0x08] = b'b'
    escapes[0x09] = b't'
    escapes[0x0A] = b'n'
    escapes[0x0C] = b'f'
    escapes[0x0D] = b'r'


fill_escapes()


cdef struct Output:
    char *data
    size_t used
    size_t size
    PyObject *heap  # bytes object that owns `data` once `small` does not suffice
    bint ascii_only
    char[SMALL_BYTES] small


cdef int grow(Output *out, size_t more) except -1:
    cdef size_t size = max(2 * out.size, out.used + more)
    if out.heap == NULL:
        out.heap = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> size)
        memcpy(PyBytes_AS_STRING(out.heap), out.small, out.used)
    else:
        _PyBytes_Resize(&out.heap, <Py_ssize_t> size)
    out.data = PyBytes_AS_STRING(out.heap)
    out.size = size
    return 0


cdef inline int reserve(Output *out, size_t more) except -1:
    """Makes room for `more` bytes."""
    if more > out.size - out.used:
        grow(out, more)
    return 0


cdef inline int put(Output *out, const char *text, size_t length) except -1:
    reserve(out, length)
    memcpy(out.data + out.used, text, length)
    out.used += length
    return 0


cdef inline void put_unit(Output *out, uint32_t unit) noexcept:
    """A \\u escape; six bytes are reserved."""
    cdef char *to = out.data + out.used
    to[0] = b'\\'
    to[1] = b'u'
    to[2] = HEX[(unit >> 12) & 15]
    to[3] = HEX[(unit >> 8) & 15]
    to[4] = HEX[(unit >> 4) & 15]
    to[5] = HEX[unit & 15]
    out.used += 6


cdef inline bint has_special(const uint8_t *text) noexcept:
    """Whether one of eight bytes may need an escape: below 0x20, quotation mark, backslash, DEL. Never misses one."""
    cdef uint64_t word, quote, backslash, delete
    memcpy(&word, text, 8)
    quote = word ^ (ONES * 0x22)
    backslash = word ^ (ONES * 0x5C)
    delete = word ^ (ONES * 0x7F)
    # The classic test for a zero byte, and its form for a byte below a bound.
    return (
        ((word - ONES * 0x20) & ~word)
        | ((quote - ONES) & ~quote)
        | ((backslash - ONES) & ~backslash)
        | ((delete - ONES) & ~delete)
    ) & (ONES * 0x80) != 0


cdef int put_text(Output *out, const uint8_t *text, Py_ssize_t length) except -1:
    """A string, given as ASCII or UTF-8; bytes above 127 stay as they are."""
    cdef Py_ssize_t at = 0, clean = 0
    cdef uint8_t code, escape
    # Two quotation marks and the text, if nothing in it is escaped.
    reserve(out, <size_t> length + 2)
    out.data[out.used] = b'"'
    out.used += 1
    while at < length:
        if at + 8 <= length and not has_special(text + at):
            at += 8
            continue
        code = text[at]
        at += 1
        # In ASCII output DEL is escaped as well.
        if code >= 0x80 or (escapes[code] == 0 and not (code == 0x7F and out.ascii_only)):
            continue
        put(out, <const char *> text + clean, at - 1 - clean)
        clean = at
        reserve(out, 6)
        escape = escapes[code]
        if escape > 1:
            out.data[out.used] = b'\\'
            out.data[out.used + 1] = escape
            out.used += 2
        else:
            put_unit(out, code)
    put(out, <const char *> text + clean, length - clean)
    put(out, b'"', 1)
    return 0


cdef int put_escaped(Output *out, PyObject *text) except -1:
    """A string with characters beyond ASCII, which become escapes; lone surrogates do too."""
    cdef int kind = PyUnicode_KIND(text)
    cdef void *data = PyUnicode_DATA(text)
    cdef Py_ssize_t at, length = PyUnicode_GET_LENGTH(text)
    cdef uint32_t code
    put(out, b'"', 1)
    for at in range(length):
        reserve(out, 12)
        code = PyUnicode_READ(kind, data, at)
        if code >= 0x10000:
            code -= 0x10000
            put_unit(out, 0xD800 | (code >> 10))
            put_unit(out, 0xDC00 | (code & 0x3FF))
        elif code >= 0x7F or escapes[code] == 1:
            put_unit(out, code)
        elif escapes[code]:
            out.data[out.used] = b'\\'
            out.data[out.used + 1] = escapes[code]
            out.used += 2
        else:
            out.data[out.used] = <char> code
            out.used += 1
    put(out, b'"', 1)
    return 0


cdef int put_string(Output *out, PyObject *text) except -1:
    cdef Py_ssize_t length
    cdef const char *encoded
    if PyUnicode_IS_ASCII(text):
        put_text(out, <const uint8_t *> PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text))
    elif out.ascii_only:
        put_escaped(out, text)
    else:
        encoded = PyUnicode_AsUTF8AndSize(text, &length)
        if encoded == NULL:  # a lone surrogate: the general way knows what to say of it
            PyErr_Clear()
            return NOT_HERE
        put_text(out, <const uint8_t *> encoded, length)
    return DONE


cdef int put_integer(Output *out, PyObject *value) except -1:
    cdef int overflow = 0
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    cdef unsigned long long rest
    cdef char[24] digits
    cdef int at = 24
    if overflow:
        return NOT_HERE
    # Negated without overflow: the most negative number has no positive counterpart.
    rest = <unsigned long long> number if number >= 0 else 0 - <unsigned long long> number
    while True:
        at -= 1
        digits[at] = <char> (48 + rest % 10)
        rest //= 10
        if rest == 0:
            break
    if number < 0:
        at -= 1
        digits[at] = b'-'
    put(out, digits + at, 24 - at)
    return DONE


cdef int put_float(Output *out, double number) except -1:
    cdef char *text
    if isnan(number):
        put(out, b"NaN", 3)
    elif not isfinite(number):
        put(out, b"Infinity", 8) if number > 0 else put(out, b"-Infinity", 9)
    else:
        text = PyOS_double_to_string(number, b'r', 0, Py_DTSF_ADD_DOT_0, NULL)
        try:
            put(out, text, strlen(text))
        finally:
            PyMem_Free(text)
    return DONE


cdef int put_dict(Output *out, PyObject *value, int depth) except -1:
    cdef Py_ssize_t position = 0
    cdef PyObject *key
    cdef PyObject *item
    cdef bint first = True
    put(out, b"{", 1)
    while PyDict_Next(value, &position, &key, &item):
        if not PyUnicode_CheckExact(key):
            return NOT_HERE
        if not first:
            put(out, b", ", 2)
        first = False
        if put_string(out, key) != DONE:
            return NOT_HERE
        put(out, b": ", 2)
        if put_value(out, item, depth) != DONE:
            return NOT_HERE
    put(out, b"}", 1)
    return DONE


cdef int put_items(Output *out, PyObject *value, bint is_list, int depth) except -1:
    cdef Py_ssize_t at, count = PyList_GET_SIZE(value) if is_list else PyTuple_GET_SIZE(value)
    put(out, b"[", 1)
    for at in range(count):
        if at:
            put(out, b", ", 2)
        if put_value(out, PyList_GET_ITEM(value, at) if is_list else PyTuple_GET_ITEM(value, at), depth) != DONE:
            return NOT_HERE
    put(out, b"]", 1)
    return DONE


cdef int put_value(Output *out, PyObject *value, int depth) except -1:
    if PyUnicode_CheckExact(value):
        return put_string(out, value)
    if value == none:
        return put(out, b"null", 4)
    if value == true:
        return put(out, b"true", 4)
    if value == false:
        return put(out, b"false", 5)
    if PyLong_CheckExact(value):
        return put_integer(out, value)
    if PyFloat_CheckExact(value):
        return put_float(out, PyFloat_AS_DOUBLE(value))
    if depth == DEPTH_MAX:
        return NOT_HERE
    if PyDict_CheckExact(value):
        return put_dict(out, value, depth + 1)
    if PyList_CheckExact(value):
        return put_items(out, value, True, depth + 1)
    if PyTuple_CheckExact(value):
        return put_items(out, value, False, depth + 1)
    return NOT_HERE


def write(object value, bint ascii_only):
    """The value as JSON bytes, or None if it is not one for this writer. `ascii_only` escapes all other characters."""
    cdef Output out
    out.data = out.small
    out.used = 0
    out.size = SMALL_BYTES
    out.heap = NULL
    out.ascii_only = ascii_only
    try:
        if put_value(&out, <PyObject *> value, 0) != DONE:
            return None
        if out.heap == NULL:
            return out.small[:out.used]
        _PyBytes_Resize(&out.heap, <Py_ssize_t> out.used)
        return <object> out.heap
    finally:
        Py_XDECREF(out.heap)
