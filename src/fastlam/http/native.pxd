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

cdef extern from "fl_tally.h" nogil:
    enum:
        FL_TALLY_ROW_BYTES
    ctypedef struct fl_tally_counts:
        uint64_t held
        uint64_t taken
        uint64_t accepted
        uint64_t requests
        uint64_t bytes_received
        uint64_t bytes_sent
    int fl_tally_claim(void *rows, uint32_t row_count, uint32_t row, uint64_t most)
    void fl_tally_drop(void *rows, uint32_t row)
    void fl_tally_take(void *rows, uint32_t row)
    void fl_tally_hold(void *rows, uint32_t row, uint64_t connections)
    void fl_tally_count(void *rows, uint32_t row, uint64_t requests, uint64_t bytes_received, uint64_t bytes_sent)
    uint64_t fl_tally_open(const void *rows, uint32_t row_count)
    void fl_tally_read(const void *rows, uint32_t row, fl_tally_counts *out)
    void fl_tally_clear(void *rows, uint32_t row)
