/* DESIGN
 * A state machine of labels: each label is one thing that may come next. The nesting is a stack of bits (1: object) in
 * a fixed array, so the depth is bounded by its size and a hostile document costs no memory. String bodies and white
 * space, where the bytes of a document are, go 16 (SSE2) or 8 bytes (any little-endian machine) at a time; both only
 * look for the next byte that is not plain and leave judging it to scalar code. FL_JSON_PORTABLE forces the second
 * way, FL_JSON_SCALAR neither.
 *
 * Lines, columns and the place of the innermost open bracket are worked out by a second pass over the part before the
 * error, so that good documents pay nothing for them.
 */
#include "fl_json.h"

#include <string.h>

#if defined(__SSE2__) && !defined(FL_JSON_PORTABLE) && !defined(FL_JSON_SCALAR)
#include <emmintrin.h>
#define USE_SSE2 1
#elif defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && !defined(FL_JSON_SCALAR)
#define USE_WORDS 1
#endif

struct scan {
    const uint8_t *p;   /* the next byte to judge */
    const uint8_t *end; /* one past the last */
    uint32_t kind;      /* why the scan failed, and where it was: `p` is the offending byte */
    uint32_t state;
    uint32_t in_string;
};

static int fail(struct scan *scan, const uint8_t *at, uint32_t kind, uint32_t state)
{
    scan->p = at;
    scan->kind = at == scan->end ? FL_JSON_END_OF_INPUT : kind;
    scan->state = state;
    return -1;
}

/* ---- runs of plain bytes --------------------------------------------------------------------------------------- */

/* Plain inside a string: ASCII, not a control character, a quote or a backslash. */
static int is_plain(uint8_t byte)
{
    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

#ifdef USE_WORDS
#define EACH_BYTE(byte) (UINT64_C(0x0101010101010101) * (uint64_t)(byte))

/* The top bit of each byte of `word` that is below `limit` (at most 0x80). Bytes above the lowest one flagged may be
 * flagged wrongly, by borrow: only the lowest counts. */
static uint64_t bytes_below(uint64_t word, uint8_t limit)
{
    return (word - EACH_BYTE(limit)) & ~word & EACH_BYTE(0x80);
}
#endif

/* The first byte in [p, end) that is not plain, or end. */
static const uint8_t *skip_plain(const uint8_t *p, const uint8_t *end)
{
#if defined(USE_SSE2)
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(' ');
    while (end - p >= 16) {
        __m128i chunk = _mm_loadu_si128((const __m128i *)(const void *)p);
        /* A signed comparison: bytes from 0x80 on are negative, so one comparison finds them and the control bytes. */
        __m128i odd = _mm_or_si128(_mm_cmplt_epi8(chunk, space),
                                   _mm_or_si128(_mm_cmpeq_epi8(chunk, quote), _mm_cmpeq_epi8(chunk, backslash)));
        unsigned mask = (unsigned)_mm_movemask_epi8(odd);
        if (mask != 0) {
            return p + __builtin_ctz(mask);
        }
        p += 16;
    }
#elif defined(USE_WORDS)
    while (end - p >= 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        uint64_t odd = (word & EACH_BYTE(0x80)) | bytes_below(word, 0x20) | bytes_below(word ^ EACH_BYTE('"'), 1) |
                       bytes_below(word ^ EACH_BYTE('\\'), 1);
        if (odd != 0) {
            return p + __builtin_ctzll(odd) / 8;
        }
        p += 8;
    }
#endif
    while (p < end && is_plain(*p)) {
        p++;
    }
    return p;
}

static int is_space(uint8_t byte)
{
    return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
}

/* The first byte in [p, end) that is not white space, or end. */
static const uint8_t *skip_space(const uint8_t *p, const uint8_t *end)
{
    if (p < end && *p > ' ') {
        return p; /* compact documents have none */
    }
    if (end - p >= 2 && *p == ' ' && p[1] > ' ') {
        return p + 1; /* one blank after a colon or comma */
    }
#if defined(USE_SSE2)
    const __m128i space = _mm_set1_epi8(' '), feed = _mm_set1_epi8('\n'), turn = _mm_set1_epi8('\r'),
                  tab = _mm_set1_epi8('\t');
    while (end - p >= 16) {
        __m128i chunk = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i blank = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(chunk, space), _mm_cmpeq_epi8(chunk, feed)),
                                     _mm_or_si128(_mm_cmpeq_epi8(chunk, turn), _mm_cmpeq_epi8(chunk, tab)));
        unsigned mask = (unsigned)_mm_movemask_epi8(blank);
        if (mask != 0xFFFF) {
            return p + __builtin_ctz(~mask);
        }
        p += 16;
    }
#elif defined(USE_WORDS)
    while (end - p >= 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        if (word != EACH_BYTE(' ')) {
            break; /* indentation is blanks: the rest is the loop's below */
        }
        p += 8;
    }
#endif
    while (p < end && is_space(*p)) {
        p++;
    }
    return p;
}

/* ---- strings --------------------------------------------------------------------------------------------------- */

/* One character of two bytes or more at p < end. The byte after it, or NULL: failed. */
static const uint8_t *skip_character(struct scan *scan, const uint8_t *p, uint32_t state)
{
    uint8_t first = *p, low = 0x80, high = 0xBF;
    int more;
    if (first >= 0xC2 && first <= 0xDF) {
        more = 1;
    } else if (first >= 0xE0 && first <= 0xEF) {
        more = 2;
        low = first == 0xE0 ? 0xA0 : 0x80;  /* else overlong */
        high = first == 0xED ? 0x9F : 0xBF; /* else a surrogate */
    } else if (first >= 0xF0 && first <= 0xF4) {
        more = 3;
        low = first == 0xF0 ? 0x90 : 0x80;  /* else overlong */
        high = first == 0xF4 ? 0x8F : 0xBF; /* else above U+10FFFF */
    } else {
        fail(scan, p, FL_JSON_INVALID_UTF8_START, state);
        return NULL;
    }
    for (p++; more > 0; more--, p++) {
        if (p == scan->end || *p < low || *p > high) {
            fail(scan, p, FL_JSON_INVALID_UTF8_MIDDLE, state);
            return NULL;
        }
        low = 0x80;
        high = 0xBF;
    }
    return p;
}

static int is_hex(uint8_t byte)
{
    uint8_t lower = byte | 0x20;
    return (byte >= '0' && byte <= '9') || (lower >= 'a' && lower <= 'f');
}

/* The escape whose backslash is at p. The byte after it, or NULL: failed. */
static const uint8_t *skip_escape(struct scan *scan, const uint8_t *p)
{
    p++;
    if (p == scan->end) {
        fail(scan, p, FL_JSON_BAD_ESCAPE, FL_JSON_IN_ESCAPE);
        return NULL;
    }
    switch (*p) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
        return p + 1;
    case 'u':
        break;
    default:
        fail(scan, p, FL_JSON_BAD_ESCAPE, FL_JSON_IN_ESCAPE);
        return NULL;
    }
    p++;
    for (int digits = 0; digits < 4; digits++, p++) {
        if (p == scan->end || !is_hex(*p)) {
            fail(scan, p, FL_JSON_BAD_ESCAPE_HEX, FL_JSON_IN_ESCAPE);
            return NULL;
        }
    }
    return p;
}

/* The string whose opening quote is at scan->p; `state` is IN_STRING or IN_NAME. */
static int skip_string(struct scan *scan, uint32_t state)
{
    const uint8_t *p = scan->p + 1, *end = scan->end;
    for (;;) {
        p = skip_plain(p, end);
        if (p < end && *p == '"') {
            scan->p = p + 1;
            return 0;
        }
        scan->in_string = 1;
        if (p == end || *p < 0x20) {
            return fail(scan, p, FL_JSON_CONTROL_CHARACTER, state);
        }
        if (*p == '\\') {
            p = skip_escape(scan, p);
        } else {
            do { /* texts in other scripts come in runs */
                p = skip_character(scan, p, state);
            } while (p != NULL && p < end && *p >= 0x80);
        }
        if (p == NULL) {
            return -1;
        }
        scan->in_string = 0;
    }
}

/* ---- numbers and words ----------------------------------------------------------------------------------------- */

static int is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

static const uint8_t *skip_digits(const uint8_t *p, const uint8_t *end)
{
    while (p < end && is_digit(*p)) {
        p++;
    }
    return p;
}

/* The number that begins at scan->p with a digit or a minus sign. */
static int skip_number(struct scan *scan)
{
    const uint8_t *p = scan->p, *end = scan->end;
    if (*p == '-') {
        p++;
        if (p == end || !is_digit(*p)) {
            return fail(scan, p, FL_JSON_NUMBER_NO_DIGIT, FL_JSON_IN_NUMBER);
        }
    }
    if (*p == '0') {
        p++;
        if (p < end && is_digit(*p)) {
            return fail(scan, p, FL_JSON_LEADING_ZERO, FL_JSON_IN_NUMBER);
        }
    } else {
        p = skip_digits(p, end);
    }
    if (p < end && *p == '.') {
        p++;
        if (p == end || !is_digit(*p)) {
            return fail(scan, p, FL_JSON_NUMBER_NO_FRACTION, FL_JSON_IN_NUMBER);
        }
        p = skip_digits(p, end);
    }
    if (p < end && (*p | 0x20) == 'e') {
        p++;
        if (p < end && (*p == '+' || *p == '-')) {
            p++;
        }
        if (p == end || !is_digit(*p)) {
            return fail(scan, p, FL_JSON_NUMBER_NO_EXPONENT, FL_JSON_IN_NUMBER);
        }
        p = skip_digits(p, end);
    }
    scan->p = p;
    return 0;
}

static int is_word(uint8_t byte)
{
    uint8_t lower = byte | 0x20;
    return (lower >= 'a' && lower <= 'z') || is_digit(byte) || byte == '_' || byte == '$' || byte >= 0x80;
}

/* The word whose first byte, one of t, f and n, is at scan->p. */
static int skip_word(struct scan *scan, uint32_t state)
{
    const uint8_t *p = scan->p;
    const char *word = *p == 't' ? "true" : *p == 'f' ? "false" : "null";
    const ptrdiff_t bytes = *p == 'f' ? 5 : 4;
    if (scan->end - p < bytes || memcmp(p, word, (size_t)bytes) != 0 ||
        (scan->end - p > bytes && is_word(p[bytes]))) {
        return fail(scan, p, FL_JSON_UNRECOGNIZED_TOKEN, state);
    }
    scan->p = p + bytes;
    return 0;
}

/* ---- the document ---------------------------------------------------------------------------------------------- */

struct stack {
    uint64_t objects[FL_JSON_DEPTH_LIMIT / 64]; /* bit d: level d is an object */
    uint32_t depth;
    uint32_t depth_max;
};

static int in_object(const struct stack *stack)
{
    uint32_t level = stack->depth - 1;
    return (stack->objects[level / 64] >> (level % 64)) & 1;
}

static int open_level(struct stack *stack, unsigned object)
{
    uint32_t level = stack->depth;
    if (level == stack->depth_max) {
        return -1;
    }
    uint64_t *word = &stack->objects[level / 64];
    uint64_t below = level % 64 == 0 ? 0 : *word & (((uint64_t)1 << (level % 64)) - 1);
    *word = below | ((uint64_t)object << (level % 64));
    stack->depth++;
    return 0;
}

/* What does not begin a value, at scan->p. */
static int fail_value(struct scan *scan, const struct stack *stack, uint32_t state)
{
    uint8_t byte = *scan->p;
    if (byte == ']' || byte == '}') {
        int at_first = state == FL_JSON_AFTER_OPEN || stack->depth == 0;
        return fail(scan, scan->p, at_first ? FL_JSON_MISMATCHED_CLOSE : FL_JSON_EXPECTED_VALUE, state);
    }
    if (byte == ',') {
        return fail(scan, scan->p, FL_JSON_EXPECTED_VALUE, state);
    }
    if (byte < 0x80 && is_word(byte)) {
        return fail(scan, scan->p, FL_JSON_UNRECOGNIZED_TOKEN, state);
    }
    return fail(scan, scan->p, FL_JSON_UNEXPECTED_CHARACTER, state);
}

static int scan_document(struct scan *scan, struct stack *stack)
{
    const uint8_t *end = scan->end;
    uint32_t state = FL_JSON_AT_START;

value:
    scan->p = skip_space(scan->p, end);
    if (scan->p == end) {
        return fail(scan, end, FL_JSON_END_OF_INPUT, state);
    }
    switch (*scan->p) {
    case '"':
        if (skip_string(scan, FL_JSON_IN_STRING) != 0) {
            return -1;
        }
        goto after_value;
    case '{':
    case '[': {
        unsigned object = *scan->p == '{';
        if (open_level(stack, object) != 0) {
            return fail(scan, scan->p, FL_JSON_TOO_DEEP, state);
        }
        state = FL_JSON_AFTER_OPEN;
        scan->p = skip_space(scan->p + 1, end);
        if (scan->p < end && *scan->p == (object ? '}' : ']')) {
            goto close;
        }
        if (object) {
            goto name;
        }
        goto value;
    }
    case 't': case 'f': case 'n':
        if (skip_word(scan, state) != 0) {
            return -1;
        }
        goto after_value;
    case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        if (skip_number(scan) != 0) {
            return -1;
        }
        if (stack->depth == 0 && scan->p < end && !is_space(*scan->p)) {
            return fail(scan, scan->p, FL_JSON_NUMBER_NOT_SEPARATED, FL_JSON_AFTER_VALUE);
        }
        goto after_value;
    default:
        return fail_value(scan, stack, state);
    }

name:
    scan->p = skip_space(scan->p, end);
    if (scan->p == end || *scan->p != '"') {
        int close = scan->p < end && *scan->p == ']' && state == FL_JSON_AFTER_OPEN;
        return fail(scan, scan->p, close ? FL_JSON_MISMATCHED_CLOSE : FL_JSON_EXPECTED_NAME, state);
    }
    if (skip_string(scan, FL_JSON_IN_NAME) != 0) {
        return -1;
    }
    scan->p = skip_space(scan->p, end);
    if (scan->p == end || *scan->p != ':') {
        return fail(scan, scan->p, FL_JSON_EXPECTED_COLON, FL_JSON_AFTER_NAME);
    }
    scan->p++;
    state = FL_JSON_AFTER_COLON;
    goto value;

close:
    scan->p++;
    stack->depth--;

after_value:
    scan->p = skip_space(scan->p, end);
    if (stack->depth == 0) {
        return scan->p == end ? 0 : fail(scan, scan->p, FL_JSON_TRAILING_TOKENS, FL_JSON_AFTER_VALUE);
    }
    if (scan->p == end) {
        return fail(scan, end, FL_JSON_END_OF_INPUT, FL_JSON_AFTER_VALUE);
    }
    int object = in_object(stack);
    if (*scan->p == ',') {
        scan->p++;
        state = FL_JSON_AFTER_COMMA;
        if (object) {
            goto name;
        }
        goto value;
    }
    if (*scan->p == (object ? '}' : ']')) {
        goto close;
    }
    int close_other = *scan->p == ']' || *scan->p == '}';
    return fail(scan, scan->p, close_other ? FL_JSON_MISMATCHED_CLOSE : FL_JSON_EXPECTED_COMMA, FL_JSON_AFTER_VALUE);
}

/* ---- where an error is ----------------------------------------------------------------------------------------- */

/* Fills the lines and columns, and the innermost of the `depth` brackets open at error->offset: the last one that
 * raised the depth to that. Everything before the offset is known to be well formed. */
static void locate(const uint8_t *bytes, uint32_t depth, fl_json_error *error)
{
    uint64_t line = 1, line_offset = 0;
    uint32_t level = 0;
    int quoted = 0;
    for (uint64_t offset = 0; offset < error->offset; offset++) {
        uint8_t byte = bytes[offset];
        if (byte == '"') {
            quoted = !quoted;
        } else if (quoted) {
            offset += byte == '\\'; /* what is escaped, a quote perhaps, ends nothing */
        } else if (byte == '{' || byte == '[') {
            level++;
            if (level == depth) {
                error->opener = byte;
                error->opener_offset = offset;
                error->opener_line = line;
                error->opener_column = offset - line_offset + 1;
            }
        } else if (byte == '}' || byte == ']') {
            level--;
        } else if (byte == '\n' || byte == '\r') {
            if (byte == '\r' && offset + 1 < error->offset && bytes[offset + 1] == '\n') {
                offset++;
            }
            line++;
            line_offset = offset + 1;
        }
    }
    error->line = line;
    error->column = error->offset - line_offset + 1;
}

int fl_json_scan(const uint8_t *bytes, size_t length, uint32_t depth_max, fl_json_error *error)
{
    static const uint8_t nothing[1];
    if (length == 0) {
        bytes = nothing; /* so that arithmetic on a null pointer cannot happen */
    }
    struct scan scan = {.p = bytes, .end = bytes + length};
    struct stack stack; /* the bits need no value: open_level writes them before they are read */
    stack.depth = 0;
    stack.depth_max = depth_max < FL_JSON_DEPTH_LIMIT ? depth_max : FL_JSON_DEPTH_LIMIT;
    if (scan_document(&scan, &stack) == 0) {
        return 0;
    }
    if (error != NULL) {
        memset(error, 0, sizeof *error);
        error->kind = scan.kind;
        error->offset = (uint64_t)(scan.p - bytes);
        error->byte = scan.p < scan.end ? *scan.p : 0;
        error->state = scan.state;
        error->in_string = scan.in_string;
        locate(bytes, stack.depth, error);
    }
    return -1;
}
