#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fl_http.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fl_test.h"

enum { HEAD_BYTES_MAX = 4096, HEADERS_MAX = 8 };

struct sample {
    const char *text;
    int outcome;
    uint64_t body_bytes;
};

#define PLAIN FL_HTTP_COMPLETE
#define PART FL_HTTP_INCOMPLETE
#define OTHER FL_HTTP_OTHER
#define GET "GET / HTTP/1.1\r\n"

static const struct sample samples[] = {
    {GET "\r\n", PLAIN, 0},
    {"OPTIONS /a?b=%20&c[]=~|\"{} HTTP/1.1\r\n\r\n", PLAIN, 0},
    {"POST /x HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: \t12 \r\n\r\n", PLAIN, 12},
    {"PUT /x HTTP/1.1\r\nContent-Length: 000000007\r\n\r\n", PLAIN, 7},
    {GET "connection: KEEP-alive\r\nConnection: keep-alive\r\nA_1-b:\r\n\r\n", PLAIN, 0},
    {GET "Expected: 1\r\nUpgrades: 1\r\nConnectio: x\r\nTransfer-Encodin: x\r\nContent-Lengt: x\r\n\r\n", PLAIN, 0},
    {"", PART, 0}, {"G", PART, 0}, {"GET ", PART, 0}, {"GET /", PART, 0}, {"GET / HTTP/1.", PART, 0},
    {GET, PART, 0}, {GET "\r", PART, 0}, {GET "A", PART, 0}, {GET "A:", PART, 0}, {GET "A: b\r", PART, 0},
    {"get / HTTP/1.1\r\n\r\n", OTHER, 0}, {"TRACE / HTTP/1.1\r\n\r\n", OTHER, 0}, {"CONNECT / HTTP/1.1\r\n\r\n", OTHER, 0},
    {"\r\n" GET "\r\n", OTHER, 0}, {" " GET "\r\n", OTHER, 0}, {"GETS / HTTP/1.1\r\n\r\n", OTHER, 0},
    {"GET  / HTTP/1.1\r\n\r\n", OTHER, 0}, {"GET /  HTTP/1.1\r\n\r\n", OTHER, 0}, {"GET /\tHTTP/1.1\r\n\r\n", OTHER, 0},
    {"GET * HTTP/1.1\r\n\r\n", OTHER, 0}, {"GET http://a/ HTTP/1.1\r\n\r\n", OTHER, 0}, {"GET /#a HTTP/1.1\r\n\r\n", OTHER, 0},
    {"GET /\x7f HTTP/1.1\r\n\r\n", OTHER, 0}, {"GET /\xc3\xa9 HTTP/1.1\r\n\r\n", OTHER, 0},
    {"GET / HTTP/1.0\r\n\r\n", OTHER, 0}, {"GET / HTTP/1.1\n\n", OTHER, 0}, {"GET / HTTP/1.1 \r\n\r\n", OTHER, 0}, {"GET /\r\n\r\n", OTHER, 0},
    {GET "A : b\r\n\r\n", OTHER, 0}, {GET " A: b\r\n\r\n", OTHER, 0}, {GET ": b\r\n\r\n", OTHER, 0}, {GET "A\r\n\r\n", OTHER, 0},
    {GET "A: b\r\n folded\r\n\r\n", OTHER, 0}, {GET "A: b\r\n\tfolded\r\n\r\n", OTHER, 0}, {GET "A!: b\r\n\r\n", OTHER, 0},
    {GET "A: b\nB: c\r\n\r\n", OTHER, 0}, {GET "A: b\rB: c\r\n\r\n", OTHER, 0}, {GET "A: \x01\r\n\r\n", OTHER, 0}, {GET "A: \xe9\r\n\r\n", OTHER, 0},
    {GET "\rA", OTHER, 0},
    {GET "Connection: close\r\n\r\n", OTHER, 0}, {GET "Connection:\r\n\r\n", OTHER, 0}, {GET "Connection: keep-alive, x\r\n\r\n", OTHER, 0},
    {GET "Proxy-Connection: keep-alive\r\n\r\n", OTHER, 0}, {GET "UPGRADE: h2c\r\n\r\n", OTHER, 0}, {GET "expect: 1\r\n\r\n", OTHER, 0},
    {GET "Transfer-Encoding: chunked\r\n\r\n", OTHER, 0}, {GET "transfer-encoding:\r\n\r\n", OTHER, 0},
    {GET "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", OTHER, 0}, {GET "Content-Length:\r\n\r\n", OTHER, 0},
    {GET "Content-Length: -1\r\n\r\n", OTHER, 0}, {GET "Content-Length: +1\r\n\r\n", OTHER, 0}, {GET "Content-Length: 1 1\r\n\r\n", OTHER, 0},
    {GET "Content-Length: 1,1\r\n\r\n", OTHER, 0}, {GET "Content-Length: 0x1\r\n\r\n", OTHER, 0}, {GET "Content-Length: 1234567890\r\n\r\n", OTHER, 0},
    {GET "a:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\n\r\n", PLAIN, 0},
    {GET "a:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\n\r\n", OTHER, 0},
};

/* The text at the very end of a page that no page follows: a byte read too many ends the program. */
static uint8_t *at_the_edge(const char *text, size_t size)
{
    static uint8_t *page;
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    if (page == NULL) {
        page = mmap(NULL, 2 * page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(page != MAP_FAILED);
        CHECK(mprotect(page + page_bytes, page_bytes, PROT_NONE) == 0);
    }
    memcpy(page + page_bytes - size, text, size);
    return page + page_bytes - size;
}

static int parse(const char *text, size_t size, fl_http_head *head)
{
    return fl_http_parse(at_the_edge(text, size), size, HEAD_BYTES_MAX, HEADERS_MAX, head);
}

static void samples_are_judged(void)
{
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        const struct sample *sample = &samples[i];
        size_t size = strlen(sample->text);
        fl_http_head head;
        int outcome = parse(sample->text, size, &head);
        if (outcome != sample->outcome) {
            FAIL("%d instead of %d: %s", outcome, sample->outcome, sample->text);
        }
        if (outcome == FL_HTTP_COMPLETE) {
            CHECK(head.body_bytes == sample->body_bytes && head.head_bytes == size);
            for (size_t cut = 0; cut < size; cut++) { /* no part of a plain head is anything but a part */
                CHECK(parse(sample->text, cut, &head) == FL_HTTP_INCOMPLETE);
            }
        }
    }
}

static void offsets_are_those_of_the_parts(void)
{
    const char *text = "POST /a?b HTTP/1.1\r\nOne:  1 2\t\r\nTWO:\r\n\r\n{}more";
    size_t size = strlen(text);
    const uint8_t *data = at_the_edge(text, size);
    fl_http_head head;
    fl_http_field field;
    uint8_t lower[3];
    CHECK(fl_http_parse(data, size, HEAD_BYTES_MAX, HEADERS_MAX, &head) == FL_HTTP_COMPLETE);
    CHECK(head.head_bytes == size - 6 && head.method_bytes == 4 && head.headers == 2);
    CHECK(head.target_start == 5 && head.target_end == 9);
    size_t at = head.headers_start;
    CHECK(fl_http_next(data, &at, &field) == 1);
    CHECK(memcmp(data + field.name_start, "One", 3) == 0 && field.name_end - field.name_start == 3);
    CHECK(memcmp(data + field.value_start, "1 2", 3) == 0 && field.value_end - field.value_start == 3);
    CHECK(fl_http_next(data, &at, &field) == 1);
    CHECK(field.value_start == field.value_end);
    fl_http_lower(lower, data + field.name_start, 3);
    CHECK(memcmp(lower, "two", 3) == 0);
    CHECK(fl_http_next(data, &at, &field) == 0);
}

static void length_is_bounded(void)
{
    const char *text = GET "A: b\r\n\r\n";
    size_t size = strlen(text);
    fl_http_head head;
    const uint8_t *data = at_the_edge(text, size);
    CHECK(fl_http_parse(data, size, size, HEADERS_MAX, &head) == FL_HTTP_COMPLETE);
    CHECK(fl_http_parse(data, size, size - 1, HEADERS_MAX, &head) == FL_HTTP_OTHER);
    CHECK(fl_http_parse(data, size - 1, size - 1, HEADERS_MAX, &head) == FL_HTTP_OTHER);
    CHECK(fl_http_parse(data, size - 2, size - 1, HEADERS_MAX, &head) == FL_HTTP_INCOMPLETE);
}

int main(void)
{
    fl_test_start();
    RUN(samples_are_judged);
    RUN(offsets_are_those_of_the_parts);
    RUN(length_is_bounded);
    return 0;
}
