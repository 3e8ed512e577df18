"""The plainest values as bytes: numbers, texts, None, True and False, as marshal (version 2) writes them and reads them.

marshal itself makes and drops a list of references for every value that it reads, and a bytes object that it shrinks for every one that it
writes; calls of tiny functions spend more time on that than on their journey. What is not known here is marshal's own to do.
"""

from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_CheckExact
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    bint PyUnicode_CheckExact(object text)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    void *PyUnicode_DATA(object text)
    object PyUnicode_DecodeUTF8(const char *text, Py_ssize_t size, const char *errors)
    Py_ssize_t PyTuple_GET_SIZE(object tuple)
cdef extern from "<marshal.h>":
    object PyMarshal_WriteObjectToString(object value, int version)
    object PyMarshal_ReadObjectFromString(const char *data, Py_ssize_t size)

cdef enum:
    PLAIN_BYTES_MAX = 512   # what is written here, at most
    PLAIN_UNKNOWN = -1


cdef inline bint is_plain(object value) noexcept:
    return (PyLong_CheckExact(value) or value is None or PyUnicode_CheckExact(value) or value is True or value is False
            or PyFloat_CheckExact(value))


cdef inline Py_ssize_t write_plain(object value, uint8_t *out, Py_ssize_t room) noexcept:
    """Bytes written; PLAIN_UNKNOWN where marshal must do it."""
    cdef long number
    cdef int overflow = 0
    cdef int32_t small
    cdef double real
    cdef uint32_t size
    if room < 16:
        return PLAIN_UNKNOWN
    if PyLong_CheckExact(value):
        number = PyLong_AsLongAndOverflow(value, &overflow)
        small = <int32_t>number
        if overflow or small != number:
            return PLAIN_UNKNOWN
        out[0] = b"i"
        memcpy(out + 1, &small, 4)
        return 5
    if value is None:
        out[0] = b"N"
        return 1
    if value is True:
        out[0] = b"T"
        return 1
    if value is False:
        out[0] = b"F"
        return 1
    if PyFloat_CheckExact(value):
        real = PyFloat_AS_DOUBLE(value)
        out[0] = b"g"
        memcpy(out + 1, &real, 8)
        return 9
    if PyUnicode_CheckExact(value) and PyUnicode_IS_COMPACT_ASCII(value) and PyUnicode_GET_LENGTH(value) <= room - 5:
        size = <uint32_t>PyUnicode_GET_LENGTH(value)
        out[0] = b"u"
        memcpy(out + 1, &size, 4)
        memcpy(out + 5, PyUnicode_DATA(value), size)
        return 5 + <Py_ssize_t>size
    return PLAIN_UNKNOWN


cdef inline Py_ssize_t write_plain_tuple(object values, uint8_t *out, Py_ssize_t room) noexcept:
    """As `write_plain`, for a tuple of such values."""
    cdef uint32_t count = <uint32_t>PyTuple_GET_SIZE(values)
    cdef Py_ssize_t position = 5, size
    if room < 16:
        return PLAIN_UNKNOWN
    out[0] = b"("
    memcpy(out + 1, &count, 4)
    for value in <tuple>values:
        size = write_plain(value, out + position, room - position)
        if size < 0:
            return PLAIN_UNKNOWN
        position += size
    return position


cdef inline object read_plain(const uint8_t *data, Py_ssize_t size):
    """The value that these bytes are, all of them: they are this process's own, and stay as they are meanwhile."""
    cdef int32_t small
    cdef double real
    cdef uint32_t length
    if size == 5 and data[0] == b"i":
        memcpy(&small, data + 1, 4)
        return <long>small
    if size == 1:
        if data[0] == b"N":
            return None
        if data[0] == b"T":
            return True
        if data[0] == b"F":
            return False
    if size == 9 and data[0] == b"g":
        memcpy(&real, data + 1, 8)
        return real
    if size > 5 and data[0] == b"u":
        memcpy(&length, data + 1, 4)
        if length == <uint32_t>(size - 5):
            return PyUnicode_DecodeUTF8(<const char *>data + 5, length, "surrogatepass")
    return PyMarshal_ReadObjectFromString(<const char *>data, size)


cdef inline object read_plain_tuple(const uint8_t *data, Py_ssize_t size):
    """As `read_plain`, for a tuple of values."""
    cdef uint32_t count
    cdef int32_t small
    cdef Py_ssize_t position = 5
    if size < 5 or data[0] != b"(":
        return PyMarshal_ReadObjectFromString(<const char *>data, size)
    memcpy(&count, data + 1, 4)
    if count > 8:
        return PyMarshal_ReadObjectFromString(<const char *>data, size)
    if count == 1:
        return (read_plain(data + 5, size - 5),)
    if size != 5 + 5 * <Py_ssize_t>count:
        return PyMarshal_ReadObjectFromString(<const char *>data, size)
    items = []
    while position < size:
        # Only what is all small numbers is worth it: anything else, marshal does.
        if data[position] != b"i":
            return PyMarshal_ReadObjectFromString(<const char *>data, size)
        memcpy(&small, data + position + 1, 4)
        items.append(<long>small)
        position += 5
    return tuple(items)
