/* fl_http: reads the heads of plain HTTP/1.1 requests, and leaves every other one to a parser that knows all of HTTP.
 *
 * Plain is: GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS, one space, a target of printable ASCII that begins with '/'
 * and has no '#', one space, HTTP/1.1; lines end with CR LF; header names of letters, digits, '-' and '_'; values of
 * printable ASCII, spaces and tabs; at most one Content-Length, of one to nine digits; nothing that changes how the
 * message or the connection goes on (Transfer-Encoding, Upgrade, Expect, Connection other than keep-alive). What is
 * plain here means the same to every HTTP parser: that is the whole point, and no rule may be relaxed.
 *
 * The bytes are hostile: nothing outside [data, data + size) is read. No state, no allocation: any thread.
 */
#ifndef FL_HTTP_H
#define FL_HTTP_H

#include <stddef.h>
#include <stdint.h>

enum {
    FL_HTTP_INCOMPLETE = 0, /* plain as far as it goes */
    FL_HTTP_COMPLETE = 1,
    FL_HTTP_OTHER = -1 /* not plain, or longer than allowed */
};

typedef struct fl_http_head {
    size_t head_bytes;   /* request line, headers and the empty line behind them */
    size_t method_bytes; /* the method is what the head begins with */
    size_t target_start; /* offsets from the first byte */
    size_t target_end;
    size_t headers_start; /* the first header's line, or the empty one */
    uint64_t body_bytes;  /* Content-Length, 0 without one */
    uint32_t headers;
} fl_http_head;

/* Offsets of one header; the value is without the white space around it. */
typedef struct fl_http_field {
    size_t name_start;
    size_t name_end;
    size_t value_start;
    size_t value_end;
} fl_http_field;

/* Reads the head of a request that begins with the first byte. *head is written when it is complete. */
int fl_http_parse(const uint8_t *data, size_t size, size_t head_bytes_max, uint32_t headers_max, fl_http_head *head);

/* The next header of a head that fl_http_parse has found complete: `*at` is its headers_start first, and moves on.
 * 1: there is one, 0: there was none left. */
int fl_http_next(const uint8_t *data, size_t *at, fl_http_field *field);

/* Copies `size` bytes with ASCII letters in lower case. */
void fl_http_lower(uint8_t *out, const uint8_t *data, size_t size);

#endif
