/* fl_json: says in one pass whether bytes are one well-formed JSON value (RFC 8259) in valid UTF-8. Builds nothing.
 *
 * The bytes are hostile: nothing outside [bytes, bytes + length) is read, the C stack does not grow with nesting, the
 * time is linear. Surrogate escapes need not pair, names may repeat, numbers have any length; NaN and Infinity, a byte
 * order mark, comments and trailing commas are refused. No state, no allocation: any thread.
 */
#ifndef FL_JSON_H
#define FL_JSON_H

#include <stddef.h>
#include <stdint.h>

/* The deepest nesting that a scan can be asked to allow. */
#define FL_JSON_DEPTH_LIMIT 8192u

enum {
    FL_JSON_OK = 0,
    FL_JSON_END_OF_INPUT,          /* the input ended where `state` says; offset == length */
    FL_JSON_UNEXPECTED_CHARACTER,  /* no value starts with `byte` */
    FL_JSON_EXPECTED_VALUE,        /* `byte`, one of ',' ']' '}', stands where a value should */
    FL_JSON_UNRECOGNIZED_TOKEN,    /* a word that is not true, false or null; `byte` and `offset` are its first */
    FL_JSON_INVALID_UTF8_START,    /* `byte` cannot start a character */
    FL_JSON_INVALID_UTF8_MIDDLE,   /* `byte` cannot continue the character before it */
    FL_JSON_BAD_ESCAPE,            /* `byte` after a backslash */
    FL_JSON_BAD_ESCAPE_HEX,        /* `byte` is not one of the four hexadecimal digits of \u */
    FL_JSON_CONTROL_CHARACTER,     /* an unescaped `byte` below 0x20 inside a string */
    FL_JSON_LEADING_ZERO,          /* a number such as 01; `byte` is the digit after the zero */
    FL_JSON_NUMBER_NO_DIGIT,       /* `byte` follows a minus sign */
    FL_JSON_NUMBER_NO_FRACTION,    /* `byte` follows a decimal point */
    FL_JSON_NUMBER_NO_EXPONENT,    /* `byte` follows an exponent's mark or sign */
    FL_JSON_NUMBER_NOT_SEPARATED,  /* `byte` follows a number at the top level without white space */
    FL_JSON_EXPECTED_COMMA,        /* `byte` stands where a comma or the close of `opener` should */
    FL_JSON_EXPECTED_COLON,        /* `byte` stands where the colon after a name should */
    FL_JSON_EXPECTED_NAME,         /* `byte` stands where a name's opening quote should */
    FL_JSON_MISMATCHED_CLOSE,      /* `byte` does not close `opener` (0: nothing is open) */
    FL_JSON_TRAILING_TOKENS,       /* `byte` follows the complete value */
    FL_JSON_TOO_DEEP               /* `byte` opens one level more than allowed */
};

/* Where the input ended, for FL_JSON_END_OF_INPUT; what was just read, for the others outside strings. */
enum {
    FL_JSON_AT_START = 0, /* nothing but white space so far */
    FL_JSON_IN_STRING,    /* inside a string value */
    FL_JSON_IN_NAME,      /* inside an object's name */
    FL_JSON_IN_ESCAPE,    /* inside an escape sequence of a string or name */
    FL_JSON_IN_NUMBER,    /* a number lacks digits */
    FL_JSON_AFTER_OPEN,   /* right after '{' or '[' */
    FL_JSON_AFTER_COMMA,
    FL_JSON_AFTER_NAME,
    FL_JSON_AFTER_COLON,
    FL_JSON_AFTER_VALUE /* inside `opener`, or at the top level */
};

typedef struct fl_json_error {
    uint32_t kind;          /* FL_JSON_* of the first enumeration */
    uint64_t offset;        /* of the offending byte; the length at the end of input */
    uint64_t line;          /* 1-based line of `offset`; lines end with \n, \r or \r\n outside strings */
    uint64_t column;        /* 1-based position, in bytes, of `offset` in its line */
    uint32_t byte;          /* the offending byte; 0 at the end of input */
    uint32_t state;         /* of the second enumeration */
    uint32_t opener;        /* '{' or '[' of the innermost open value, 0 at the top level */
    uint32_t in_string;     /* 1 when `offset` lies inside a string or name */
    uint64_t opener_offset; /* where that bracket stands; valid when opener is not 0 */
    uint64_t opener_line;   /* its line and column, counted as above */
    uint64_t opener_column;
} fl_json_error;

/* Scans. `depth_max` objects and arrays may be open at a time (above FL_JSON_DEPTH_LIMIT counts as that).
 * 0: well formed, *error untouched. -1: not, and *error, unless it is NULL, says why and where. */
int fl_json_scan(const uint8_t *bytes, size_t length, uint32_t depth_max, fl_json_error *error);

#endif
