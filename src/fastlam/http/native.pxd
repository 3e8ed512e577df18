"""C declarations of the HTTP server: csrc/fl_http and the system calls of accepted sockets."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "<sys/socket.h>" nogil:
    int accept4(int fd, void *address, void *size, int flags)
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    ssize_t send(int fd, const void *buffer, size_t size, int flags)
    int MSG_NOSIGNAL, MSG_DONTWAIT, MSG_MORE, SOCK_NONBLOCK, SOCK_CLOEXEC

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef extern from "fl_http.h" nogil:
    enum:
        FL_HTTP_INCOMPLETE
        FL_HTTP_COMPLETE
        FL_HTTP_OTHER
    ctypedef struct fl_http_head:
        size_t head_bytes
        size_t method_bytes
        size_t target_start
        size_t target_end
        size_t headers_start
        uint64_t body_bytes
        uint32_t headers
    ctypedef struct fl_http_field:
        size_t name_start
        size_t name_end
        size_t value_start
        size_t value_end
    int fl_http_parse(const uint8_t *data, size_t size, size_t head_bytes_max, uint32_t headers_max, fl_http_head *head)
    int fl_http_next(const uint8_t *data, size_t *at, fl_http_field *field)
    void fl_http_lower(uint8_t *out, const uint8_t *data, size_t size)
