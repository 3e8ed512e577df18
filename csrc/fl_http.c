#include "fl_http.h"

#include <string.h>

enum { LENGTH_DIGITS_MAX = 9 };

static int is_name(uint8_t byte)
{
    uint8_t letter = byte | 0x20;
    return (letter >= 'a' && letter <= 'z') || (byte >= '0' && byte <= '9') || byte == '-' || byte == '_';
}

static int is_target(uint8_t byte)
{
    return byte > 0x20 && byte < 0x7f && byte != '#';
}

static int is_value(uint8_t byte)
{
    return (byte >= 0x20 && byte < 0x7f) || byte == '\t';
}

static int is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t';
}

/* Whether `size` bytes are `text` (lower-case letters and '-') in any case. */
static int is_word(const uint8_t *data, size_t size, const char *text)
{
    if (size != strlen(text)) {
        return 0;
    }
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = data[i];
        if (byte >= 'A' && byte <= 'Z') {
            byte |= 0x20;
        }
        if (byte != (uint8_t)text[i]) {
            return 0;
        }
    }
    return 1;
}

/* The length of the method that the data begin with, the space excluded; FL_HTTP_INCOMPLETE or FL_HTTP_OTHER. */
static int method_of(const uint8_t *data, size_t size)
{
    static const char *const methods[] = {"POST ", "GET ", "PUT ", "DELETE ", "HEAD ", "OPTIONS ", "PATCH "};
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        size_t length = strlen(methods[i]);
        if (memcmp(data, methods[i], size < length ? size : length) == 0) {
            return size < length ? FL_HTTP_INCOMPLETE : (int)length - 1;
        }
    }
    return FL_HTTP_OTHER;
}

/* What a header means for the message: FL_HTTP_COMPLETE when nothing but what is plain. */
static int weigh(const uint8_t *data, const fl_http_field *field, fl_http_head *head, int *lengths)
{
    const uint8_t *name = data + field->name_start, *value = data + field->value_start;
    size_t name_size = field->name_end - field->name_start, value_size = field->value_end - field->value_start;
    switch (name_size) {
    case 6:
        return is_word(name, name_size, "expect") ? FL_HTTP_OTHER : FL_HTTP_COMPLETE;
    case 7:
        return is_word(name, name_size, "upgrade") ? FL_HTTP_OTHER : FL_HTTP_COMPLETE;
    case 10:
        if (is_word(name, name_size, "connection") && !is_word(value, value_size, "keep-alive")) {
            return FL_HTTP_OTHER;
        }
        return FL_HTTP_COMPLETE;
    case 14:
        if (!is_word(name, name_size, "content-length")) {
            return FL_HTTP_COMPLETE;
        }
        if ((*lengths)++ != 0 || value_size == 0 || value_size > LENGTH_DIGITS_MAX) {
            return FL_HTTP_OTHER;
        }
        head->body_bytes = 0;
        for (size_t i = 0; i < value_size; i++) {
            if (value[i] < '0' || value[i] > '9') {
                return FL_HTTP_OTHER;
            }
            head->body_bytes = head->body_bytes * 10 + (uint64_t)(value[i] - '0');
        }
        return FL_HTTP_COMPLETE;
    case 16:
        return is_word(name, name_size, "proxy-connection") ? FL_HTTP_OTHER : FL_HTTP_COMPLETE;
    case 17:
        return is_word(name, name_size, "transfer-encoding") ? FL_HTTP_OTHER : FL_HTTP_COMPLETE;
    default:
        return FL_HTTP_COMPLETE;
    }
}

/* One header line from `*at` on, which is moved behind it. */
static int read_field(const uint8_t *data, size_t size, size_t *at, fl_http_field *field)
{
    size_t i = *at;
    field->name_start = i;
    while (i < size && is_name(data[i])) {
        i++;
    }
    if (i == size) {
        return FL_HTTP_INCOMPLETE;
    }
    if (i == field->name_start || data[i] != ':') {
        return FL_HTTP_OTHER;
    }
    field->name_end = i++;
    while (i < size && is_blank(data[i])) {
        i++;
    }
    field->value_start = i;
    while (i < size && is_value(data[i])) {
        i++;
    }
    field->value_end = i;
    if (i == size) {
        return FL_HTTP_INCOMPLETE;
    }
    if (data[i] != '\r') {
        return FL_HTTP_OTHER;
    }
    if (i + 1 == size) {
        return FL_HTTP_INCOMPLETE;
    }
    if (data[i + 1] != '\n') {
        return FL_HTTP_OTHER;
    }
    *at = i + 2;
    while (field->value_end > field->value_start && is_blank(data[field->value_end - 1])) {
        field->value_end--;
    }
    return FL_HTTP_COMPLETE;
}

int fl_http_parse(const uint8_t *data, size_t size, size_t head_bytes_max, uint32_t headers_max, fl_http_head *head)
{
    static const char version[] = "HTTP/1.1\r\n";
    static const size_t version_size = sizeof(version) - 1;
    fl_http_head found = {0};
    fl_http_field field;
    int lengths = 0;
    if (size > head_bytes_max) {
        size = head_bytes_max; /* what is longer never completes */
    }
    int incomplete = size == head_bytes_max ? FL_HTTP_OTHER : FL_HTTP_INCOMPLETE;
    int method = method_of(data, size);
    if (method <= 0) {
        return method == FL_HTTP_INCOMPLETE ? incomplete : method;
    }
    found.method_bytes = (size_t)method;
    size_t i = found.target_start = found.method_bytes + 1;
    if (i < size && data[i] != '/') {
        return FL_HTTP_OTHER;
    }
    while (i < size && is_target(data[i])) {
        i++;
    }
    if (i == size) {
        return incomplete;
    }
    if (data[i] != ' ') {
        return FL_HTTP_OTHER;
    }
    found.target_end = i++;
    size_t rest = size - i;
    if (memcmp(data + i, version, rest < version_size ? rest : version_size) != 0) {
        return FL_HTTP_OTHER;
    }
    if (rest < version_size) {
        return incomplete;
    }
    i = found.headers_start = i + version_size;
    while (i < size && data[i] != '\r') {
        int outcome = read_field(data, size, &i, &field);
        if (outcome == FL_HTTP_COMPLETE) {
            outcome = found.headers++ == headers_max ? FL_HTTP_OTHER : weigh(data, &field, &found, &lengths);
        }
        if (outcome != FL_HTTP_COMPLETE) {
            return outcome == FL_HTTP_INCOMPLETE ? incomplete : outcome;
        }
    }
    if (i + 1 >= size) {
        return incomplete;
    }
    if (data[i + 1] != '\n') {
        return FL_HTTP_OTHER;
    }
    found.head_bytes = i + 2;
    *head = found;
    return FL_HTTP_COMPLETE;
}

int fl_http_next(const uint8_t *data, size_t *at, fl_http_field *field)
{
    return data[*at] != '\r' && read_field(data, SIZE_MAX, at, field) == FL_HTTP_COMPLETE;
}

void fl_http_lower(uint8_t *out, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = data[i];
        out[i] = byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte;
    }
}
