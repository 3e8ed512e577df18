#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fl_json.h"

#include <string.h>
#include <sys/mman.h>

#include "fl_test.h"

enum { DEPTH_MAX = 1000 };

struct sample {
    const char *text;
    uint32_t kind;   /* FL_JSON_OK: accepted, the rest is not looked at */
    uint32_t offset;
    uint32_t line;
    uint32_t column;
    uint32_t state;
    char opener;
};

#define GOOD(text) {text, FL_JSON_OK, 0, 0, 0, 0, 0}
#define END FL_JSON_END_OF_INPUT

static const struct sample samples[] = {
    GOOD("{}"), GOOD("[]"), GOOD("\"\""), GOOD("0"), GOOD("-0"), GOOD("true"), GOOD("false"), GOOD("null"),
    GOOD(" \t\r\n{ \"a\" : [ 1 , 2 ] , \"a\" : { } } \n"), GOOD("[[[]],{},[{}]]"), GOOD("[true,false,null]"),
    GOOD("[0,-0.0,1e5,1E+5,1.25e-10,123456789012345678901234567890]"), GOOD("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u12aF\""),
    GOOD("\"\\ud800\""), GOOD("\"\\udc00\\ud800x\""), GOOD("\"\x7f\""), GOOD("{\"\":\"\"}"),
    GOOD("\"\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xed\x9f\xbf \xee\x80\x80 \xef\xbf\xbf \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf\""),
    GOOD("{\"\xe2\x82\xac\":\"\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\"}"),
    {"", END, 0, 1, 1, FL_JSON_AT_START, 0},
    {" \n ", END, 3, 2, 2, FL_JSON_AT_START, 0},
    {"{", END, 1, 1, 2, FL_JSON_AFTER_OPEN, '{'},
    {"[\r\n", END, 3, 2, 1, FL_JSON_AFTER_OPEN, '['},
    {"[1", END, 2, 1, 3, FL_JSON_AFTER_VALUE, '['},
    {"[1,", END, 3, 1, 4, FL_JSON_AFTER_COMMA, '['},
    {"{\"a\":1,", END, 7, 1, 8, FL_JSON_AFTER_COMMA, '{'},
    {"{\"a\"", END, 4, 1, 5, FL_JSON_AFTER_NAME, '{'},
    {"{\"a\":", END, 5, 1, 6, FL_JSON_AFTER_COLON, '{'},
    {"{\"a", END, 3, 1, 4, FL_JSON_IN_NAME, '{'},
    {"\"a", END, 2, 1, 3, FL_JSON_IN_STRING, 0},
    {"\"\xe2\x82", END, 3, 1, 4, FL_JSON_IN_STRING, 0},
    {"\"\\", END, 2, 1, 3, FL_JSON_IN_ESCAPE, 0},
    {"{\"\\u00", END, 6, 1, 7, FL_JSON_IN_ESCAPE, '{'},
    {"-", END, 1, 1, 2, FL_JSON_IN_NUMBER, 0},
    {"1.", END, 2, 1, 3, FL_JSON_IN_NUMBER, 0},
    {"1e+", END, 3, 1, 4, FL_JSON_IN_NUMBER, 0},
    {"\x99", FL_JSON_UNEXPECTED_CHARACTER, 0, 1, 1, FL_JSON_AT_START, 0},
    {"'a'", FL_JSON_UNEXPECTED_CHARACTER, 0, 1, 1, FL_JSON_AT_START, 0},
    {"+1", FL_JSON_UNEXPECTED_CHARACTER, 0, 1, 1, FL_JSON_AT_START, 0},
    {".5", FL_JSON_UNEXPECTED_CHARACTER, 0, 1, 1, FL_JSON_AT_START, 0},
    {"\xef\xbb\xbf{}", FL_JSON_UNEXPECTED_CHARACTER, 0, 1, 1, FL_JSON_AT_START, 0},
    {"[1,\f2]", FL_JSON_UNEXPECTED_CHARACTER, 3, 1, 4, FL_JSON_AFTER_COMMA, '['},
    {"/**/1", FL_JSON_UNEXPECTED_CHARACTER, 0, 1, 1, FL_JSON_AT_START, 0},
    {"[1,]", FL_JSON_EXPECTED_VALUE, 3, 1, 4, FL_JSON_AFTER_COMMA, '['},
    {"[,1]", FL_JSON_EXPECTED_VALUE, 1, 1, 2, FL_JSON_AFTER_OPEN, '['},
    {"{\"a\":}", FL_JSON_EXPECTED_VALUE, 5, 1, 6, FL_JSON_AFTER_COLON, '{'},
    {"nul", FL_JSON_UNRECOGNIZED_TOKEN, 0, 1, 1, FL_JSON_AT_START, 0},
    {"[ trux]", FL_JSON_UNRECOGNIZED_TOKEN, 2, 1, 3, FL_JSON_AFTER_OPEN, '['},
    {"falsey", FL_JSON_UNRECOGNIZED_TOKEN, 0, 1, 1, FL_JSON_AT_START, 0},
    {"null\xc3\xa9", FL_JSON_UNRECOGNIZED_TOKEN, 0, 1, 1, FL_JSON_AT_START, 0},
    {"NaN", FL_JSON_UNRECOGNIZED_TOKEN, 0, 1, 1, FL_JSON_AT_START, 0},
    {"[Infinity]", FL_JSON_UNRECOGNIZED_TOKEN, 1, 1, 2, FL_JSON_AFTER_OPEN, '['},
    {"\"a\xff\"", FL_JSON_INVALID_UTF8_START, 2, 1, 3, FL_JSON_IN_STRING, 0},
    {"\"\xc0\x80\"", FL_JSON_INVALID_UTF8_START, 1, 1, 2, FL_JSON_IN_STRING, 0},
    {"\"\xf5\x80\x80\x80\"", FL_JSON_INVALID_UTF8_START, 1, 1, 2, FL_JSON_IN_STRING, 0},
    {"{\"\x80\":1}", FL_JSON_INVALID_UTF8_START, 2, 1, 3, FL_JSON_IN_NAME, '{'},
    {"\"\xc3(\"", FL_JSON_INVALID_UTF8_MIDDLE, 2, 1, 3, FL_JSON_IN_STRING, 0},
    {"\"\xe0\x9f\xbf\"", FL_JSON_INVALID_UTF8_MIDDLE, 2, 1, 3, FL_JSON_IN_STRING, 0},
    {"\"\xed\xa0\x80\"", FL_JSON_INVALID_UTF8_MIDDLE, 2, 1, 3, FL_JSON_IN_STRING, 0},
    {"\"\xf0\x8f\xbf\xbf\"", FL_JSON_INVALID_UTF8_MIDDLE, 2, 1, 3, FL_JSON_IN_STRING, 0},
    {"\"\xf4\x90\x80\x80\"", FL_JSON_INVALID_UTF8_MIDDLE, 2, 1, 3, FL_JSON_IN_STRING, 0},
    {"\"\xf0\x9f\x98\"", FL_JSON_INVALID_UTF8_MIDDLE, 4, 1, 5, FL_JSON_IN_STRING, 0},
    {"\"\\x\"", FL_JSON_BAD_ESCAPE, 2, 1, 3, FL_JSON_IN_ESCAPE, 0},
    {"\"\\\n\"", FL_JSON_BAD_ESCAPE, 2, 1, 3, FL_JSON_IN_ESCAPE, 0},
    {"\"\\u12g4\"", FL_JSON_BAD_ESCAPE_HEX, 5, 1, 6, FL_JSON_IN_ESCAPE, 0},
    {"\n\"a\tb\"", FL_JSON_CONTROL_CHARACTER, 3, 2, 3, FL_JSON_IN_STRING, 0},
    {"{\"\n\":1}", FL_JSON_CONTROL_CHARACTER, 2, 1, 3, FL_JSON_IN_NAME, '{'},
    {"01", FL_JSON_LEADING_ZERO, 1, 1, 2, FL_JSON_IN_NUMBER, 0},
    {"[-00]", FL_JSON_LEADING_ZERO, 3, 1, 4, FL_JSON_IN_NUMBER, '['},
    {"-x", FL_JSON_NUMBER_NO_DIGIT, 1, 1, 2, FL_JSON_IN_NUMBER, 0},
    {"[-]", FL_JSON_NUMBER_NO_DIGIT, 2, 1, 3, FL_JSON_IN_NUMBER, '['},
    {"[1.]", FL_JSON_NUMBER_NO_FRACTION, 3, 1, 4, FL_JSON_IN_NUMBER, '['},
    {"[1.e5]", FL_JSON_NUMBER_NO_FRACTION, 3, 1, 4, FL_JSON_IN_NUMBER, '['},
    {"[1e]", FL_JSON_NUMBER_NO_EXPONENT, 3, 1, 4, FL_JSON_IN_NUMBER, '['},
    {"1D", FL_JSON_NUMBER_NOT_SEPARATED, 1, 1, 2, FL_JSON_AFTER_VALUE, 0},
    {"0\"a\"", FL_JSON_NUMBER_NOT_SEPARATED, 1, 1, 2, FL_JSON_AFTER_VALUE, 0},
    {"[1 2]", FL_JSON_EXPECTED_COMMA, 3, 1, 4, FL_JSON_AFTER_VALUE, '['},
    {"{\"a\":{}\r\"b\"", FL_JSON_EXPECTED_COMMA, 8, 2, 1, FL_JSON_AFTER_VALUE, '{'},
    {"{\"a\" 1}", FL_JSON_EXPECTED_COLON, 5, 1, 6, FL_JSON_AFTER_NAME, '{'},
    {"{a:1}", FL_JSON_EXPECTED_NAME, 1, 1, 2, FL_JSON_AFTER_OPEN, '{'},
    {"{\"a\":1,}", FL_JSON_EXPECTED_NAME, 7, 1, 8, FL_JSON_AFTER_COMMA, '{'},
    {"{\"a\":1,]", FL_JSON_EXPECTED_NAME, 7, 1, 8, FL_JSON_AFTER_COMMA, '{'},
    {"{,", FL_JSON_EXPECTED_NAME, 1, 1, 2, FL_JSON_AFTER_OPEN, '{'},
    {"]", FL_JSON_MISMATCHED_CLOSE, 0, 1, 1, FL_JSON_AT_START, 0},
    {"[}", FL_JSON_MISMATCHED_CLOSE, 1, 1, 2, FL_JSON_AFTER_OPEN, '['},
    {"{]", FL_JSON_MISMATCHED_CLOSE, 1, 1, 2, FL_JSON_AFTER_OPEN, '{'},
    {"[[1}]", FL_JSON_MISMATCHED_CLOSE, 3, 1, 4, FL_JSON_AFTER_VALUE, '['},
    {"[{\"a\":[]]", FL_JSON_MISMATCHED_CLOSE, 8, 1, 9, FL_JSON_AFTER_VALUE, '{'},
    {"{} {}", FL_JSON_TRAILING_TOKENS, 3, 1, 4, FL_JSON_AFTER_VALUE, 0},
    {"\"a\"b", FL_JSON_TRAILING_TOKENS, 3, 1, 4, FL_JSON_AFTER_VALUE, 0},
    {"1 2", FL_JSON_TRAILING_TOKENS, 2, 1, 3, FL_JSON_AFTER_VALUE, 0},
    {"{}\n}", FL_JSON_TRAILING_TOKENS, 3, 2, 1, FL_JSON_AFTER_VALUE, 0},
};

enum { SAMPLES = sizeof samples / sizeof *samples };

static int scan(const void *bytes, size_t length, fl_json_error *error)
{
    memset(error, 0xEE, sizeof *error);
    return fl_json_scan(bytes, length, DEPTH_MAX, error);
}

static void samples_are_judged_and_placed(void)
{
    for (int i = 0; i < SAMPLES; i++) {
        const struct sample *sample = &samples[i];
        fl_json_error error;
        size_t length = strlen(sample->text);
        int result = scan(sample->text, length, &error);
        if (result != (sample->kind == FL_JSON_OK ? 0 : -1)) {
            FAIL("%s: result %d, kind %u at %u", sample->text, result, error.kind, (unsigned)error.offset);
        }
        CHECK_EQUAL(fl_json_scan((const uint8_t *)sample->text, length, DEPTH_MAX, NULL), result);
        if (result == 0) {
            CHECK_EQUAL(error.kind, 0xEEEEEEEE); /* untouched */
            continue;
        }
        if (error.kind != sample->kind || error.offset != sample->offset || error.line != sample->line ||
            error.column != sample->column || error.state != sample->state ||
            error.opener != (uint32_t)sample->opener) {
            FAIL("%s: kind %u offset %u line %u column %u state %u opener %c", sample->text, error.kind,
                 (unsigned)error.offset, (unsigned)error.line, (unsigned)error.column, error.state,
                 error.opener != 0 ? (char)error.opener : '-');
        }
        CHECK_EQUAL(error.byte, error.offset == length ? 0 : (uint8_t)sample->text[error.offset]);
        CHECK_EQUAL(error.in_string, error.kind == END ? (error.state == FL_JSON_IN_STRING ||
                                                          error.state == FL_JSON_IN_NAME ||
                                                          error.state == FL_JSON_IN_ESCAPE)
                                                       : (error.kind >= FL_JSON_INVALID_UTF8_START &&
                                                          error.kind <= FL_JSON_CONTROL_CHARACTER));
    }
}

static void the_innermost_open_bracket_is_found(void)
{
    static const char text[] = "{\"[{\\\"\": [],\n \"b\": {\"c\": [[1], {}, \r\n [2, \"}]\", 3}";
    fl_json_error error;
    CHECK_EQUAL(scan(text, sizeof text - 1, &error), -1);
    CHECK_EQUAL(error.kind, FL_JSON_MISMATCHED_CLOSE);
    CHECK_EQUAL(error.offset, sizeof text - 2);
    CHECK_EQUAL(error.opener, '[');
    CHECK_EQUAL(error.opener_offset, strstr(text, "[2") - text);
    CHECK_EQUAL(error.opener_line, 3);
    CHECK_EQUAL(error.opener_column, 2);
    CHECK_EQUAL(error.line, 3);
    CHECK_EQUAL(error.column, sizeof text - 2 - (size_t)(strstr(text, " [2") - text) + 1);
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* One readable page between two that fault. */
static uint8_t *guarded_page(size_t *page_bytes)
{
    *page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *pages = mmap(NULL, 3 * *page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    CHECK_EQUAL(mprotect(pages + *page_bytes, *page_bytes, PROT_READ | PROT_WRITE), 0);
    return pages + *page_bytes;
}

static void check_same(const uint8_t *copy, const char *text, size_t length)
{
    fl_json_error error, expected;
    int result = scan(copy, length, &error);
    CHECK_EQUAL(result, scan(text, length, &expected));
    CHECK(memcmp(&error, &expected, sizeof error) == 0);
}

static void nothing_outside_the_input_is_read(void)
{
    size_t page_bytes;
    uint8_t *page = guarded_page(&page_bytes);
    for (int i = 0; i < SAMPLES; i++) {
        for (size_t length = 0; length <= strlen(samples[i].text); length++) { /* every prefix, cut anywhere */
            memset(page, '"', page_bytes); /* what would mislead a scan that looked */
            memcpy(page + page_bytes - length, samples[i].text, length);
            check_same(page + page_bytes - length, samples[i].text, length);
            memset(page, ' ', page_bytes);
            memcpy(page, samples[i].text, length);
            check_same(page, samples[i].text, length);
        }
    }
    CHECK_EQUAL(fl_json_scan(page + page_bytes, 0, DEPTH_MAX, NULL), -1);
    CHECK_EQUAL(fl_json_scan(NULL, 0, DEPTH_MAX, NULL), -1);
    munmap(page - page_bytes, 3 * page_bytes);
}

/* A byte that ends a run of plain ones is found at every place of a run of every length and alignment. */
static void no_byte_hides_in_a_run(void)
{
    size_t page_bytes;
    uint8_t *page = guarded_page(&page_bytes);
    static const uint8_t odd[] = {0x00, 0x1f, '\n', '"', '\\', 0x80, 0xff};
    for (size_t run = 0; run < 50; run++) {
        for (size_t before = 0; before <= run; before++) {
            for (size_t i = 0; i < sizeof odd; i++) {
                uint8_t *text = page + page_bytes - run - 3; /* alignment follows from the length */
                fl_json_error error;
                memset(text, 'a', run + 3);
                text[0] = '"';
                text[1 + before] = odd[i];
                text[run + 2] = '"';
                CHECK_EQUAL(scan(text, run + 3, &error), -1);
                int last_escaped = odd[i] == '\\' && before == run; /* the closing quote is: the string never ends */
                CHECK_EQUAL(error.offset, before + (last_escaped ? 3 : odd[i] == '"' || odd[i] == '\\' ? 2 : 1));
                memset(text, " \n\r\t"[run % 4], run + 3); /* the same in white space */
                text[1 + before] = odd[i];
                CHECK_EQUAL(scan(text, run + 3, &error), -1);
                CHECK(error.offset == 1 + before || odd[i] == '\n' || odd[i] == '"');
                text[1 + before] = '7';
                CHECK_EQUAL(scan(text, run + 3, &error), 0);
            }
        }
    }
    munmap(page - page_bytes, 3 * page_bytes);
}

/* ---- UTF-8 ----------------------------------------------------------------------------------------------------- */

/* The definition, not the tables: decodes by length, then asks whether this is the shortest form of a scalar value. */
static int is_character(const uint8_t *bytes, size_t length)
{
    static const uint8_t first_bits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t expected = bytes[0] < 0x80   ? 1
                      : bytes[0] < 0xC0 ? 0
                      : bytes[0] < 0xE0 ? 2
                      : bytes[0] < 0xF0 ? 3
                      : bytes[0] < 0xF8 ? 4
                                        : 0;
    if (expected != length) {
        return 0;
    }
    uint32_t code = bytes[0] & first_bits[length];
    for (size_t i = 1; i < length; i++) {
        if ((bytes[i] & 0xC0) != 0x80) {
            return 0;
        }
        code = code << 6 | (bytes[i] & 0x3F);
    }
    return code >= smallest[length] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
}

static void utf8_is_what_the_standard_says(void)
{
    static const uint8_t edges[] = {0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF};
    enum { EDGES = sizeof edges };
    uint8_t text[6] = "\"";
    fl_json_error error;
    for (unsigned first = 0x80; first < 0x100; first++) {
        text[1] = (uint8_t)first;
        text[2] = '"';
        CHECK_EQUAL(scan(text, 3, &error), -1);
        for (unsigned second = 0x80; second < 0x100; second++) {
            text[2] = (uint8_t)second;
            text[3] = '"';
            CHECK_EQUAL(scan(text, 4, &error), is_character(text + 1, 2) - 1);
            for (unsigned third = 0; third < EDGES; third++) {
                text[3] = edges[third];
                text[4] = '"';
                int two_and_ascii = edges[third] == 0x7F && is_character(text + 1, 2);
                CHECK_EQUAL(scan(text, 5, &error), (is_character(text + 1, 3) || two_and_ascii) - 1);
                if (edges[third] == 0x7F) {
                    continue;
                }
                for (unsigned fourth = 1; fourth < EDGES; fourth++) {
                    text[4] = edges[fourth];
                    text[5] = '"';
                    int pairs = is_character(text + 1, 2) && is_character(text + 3, 2);
                    CHECK_EQUAL(scan(text, 6, &error), (is_character(text + 1, 4) || pairs) - 1);
                }
            }
        }
    }
}

/* ---- depth ----------------------------------------------------------------------------------------------------- */

/* `depth` levels, each an array or an object by chance, opened, and closed if `close`; the length. */
static size_t nest(char *text, uint32_t depth, int close)
{
    static uint8_t object[FL_JSON_DEPTH_LIMIT + 1];
    size_t length = 0;
    for (uint32_t level = 0; level < depth; level++) {
        object[level] = (uint8_t)fl_random(2);
        const char *open = !object[level] ? "[" : level + 1 < depth ? "{\"\":" : "{";
        length += (size_t)sprintf(text + length, "%s", open);
    }
    while (close && depth-- > 0) {
        text[length++] = object[depth] ? '}' : ']';
    }
    return length;
}

static void depth_is_bounded(void)
{
    static char text[6 * (FL_JSON_DEPTH_LIMIT + 1)];
    static const uint32_t limits[] = {0, 1, 2, 63, 64, 65, 128, 1000, FL_JSON_DEPTH_LIMIT};
    fl_json_error error;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        for (int round = 0; round < 20; round++) {
            size_t length = nest(text, limits[i], 1);
            CHECK_EQUAL(fl_json_scan((uint8_t *)text, length, limits[i], &error), limits[i] == 0 ? -1 : 0);
            if (limits[i] > 0) { /* one wrong close anywhere is noticed */
                size_t wrong = length - 1 - (size_t)fl_random(limits[i]);
                text[wrong] = text[wrong] == ']' ? '}' : ']';
                CHECK_EQUAL(fl_json_scan((uint8_t *)text, length, limits[i], &error), -1);
                CHECK_EQUAL(error.kind, FL_JSON_MISMATCHED_CLOSE);
                CHECK_EQUAL(error.offset, wrong);
            }
            length = nest(text, limits[i] + 1, 0);
            CHECK_EQUAL(fl_json_scan((uint8_t *)text, length, limits[i], &error), -1);
            CHECK_EQUAL(error.kind, FL_JSON_TOO_DEEP);
            CHECK_EQUAL(error.offset, length - 1);
        }
    }
    size_t length = nest(text, FL_JSON_DEPTH_LIMIT + 1, 0);
    CHECK_EQUAL(fl_json_scan((uint8_t *)text, length, UINT32_MAX, &error), -1);
    CHECK_EQUAL(error.kind, FL_JSON_TOO_DEEP);
    CHECK_EQUAL(fl_json_scan((const uint8_t *)"1", 1, 0, &error), 0);
}

static void a_mountain_of_brackets_is_refused(void)
{
    enum { BYTES = 10 << 20 };
    uint8_t *text = malloc(BYTES);
    fl_json_error error;
    CHECK(text != NULL);
    memset(text, '[', BYTES);
    CHECK_EQUAL(scan(text, BYTES, &error), -1);
    CHECK_EQUAL(error.kind, FL_JSON_TOO_DEEP);
    CHECK_EQUAL(error.offset, DEPTH_MAX);
    CHECK_EQUAL(error.opener_offset, DEPTH_MAX - 1);
    free(text);
}

int main(void)
{
    fl_test_start();
    RUN(samples_are_judged_and_placed);
    RUN(the_innermost_open_bracket_is_found);
    RUN(nothing_outside_the_input_is_read);
    RUN(no_byte_hides_in_a_run);
    RUN(utf8_is_what_the_standard_says);
    RUN(depth_is_bounded);
    RUN(a_mountain_of_brackets_is_refused);
    return 0;
}
